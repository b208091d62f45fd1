//! What can be typed. The texts here are the help; `docs/guide.md` walks through them.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Parser, Subcommand, ValueEnum};
use ferry_archive::recovery::Budget;
use ferry_registry_client::Resolve;

use crate::secrets::Account;
use crate::size;

/// Carry container images across an air gap
///
/// On the connected side `ferry bundle` pulls every listed image into one signed, checksummed file. On the air-gapped side
/// `ferry install` verifies it, pushes it into the local registry and rewrites your YAML; where there is no registry, `ferry serve` is one.
#[derive(Debug, Parser)]
#[command(
    name = "ferry",
    version,
    max_term_width = 110,
    propagate_version = true,
    after_help = "\
The crossing:
  ferry find chart/ --write-manifest images.yaml                     which images are needed?
  ferry keygen --out keys                                            once: a key pair
  ferry bundle images.yaml -o shop.tar --sign-key keys/ferry.key     connected side
  ferry verify shop.tar --key ferry.pub                              both sides
  ferry install shop.tar --registry HOST --key ferry.pub --yaml app.yaml --out ready

Exit codes: 0 done, 1 anything else, 2 usage, 3 not trusted, 4 something is missing,
5 registry or network, 6 local files, 7 conflict, 130 interrupted (run the same command again)"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Say more on standard error (-vv, -vvv for more; or FERRY_LOG)
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Pull images and pack them into one signed file (connected side)
    Bundle(Box<Bundle>),
    /// List the images that YAML, charts and lists ask for (connected side)
    Find(Find),
    /// Make a key pair that signs bundles
    Keygen(Keygen),
    /// Show what is inside a bundle
    Inspect(Inspect),
    /// Show what differs between two bundles, receipts or locks
    Diff(Diff),
    /// Check signature, structure and every byte of a bundle, without unpacking it
    Verify(Verify),
    /// Sign a bundle once more, with a file beside it
    Sign(Sign),
    /// Add recovery files to a bundle, which mend it when a disk damages it (connected side)
    Protect(Protect),
    /// Mend a damaged bundle with its recovery files
    Repair(Repair),
    /// Push a bundle into a registry (or a store) and rewrite YAML to point there (air-gapped side)
    Install(Box<Install>),
    /// Write down what a registry (or a store) has, as the base of the next bundle (air-gapped side)
    Inventory(Box<Inventory>),
    /// Be a registry: straight from bundles, or over a writable store
    Serve(Serve),
    /// Rewrite YAML to where images went, and write that down in other forms (air-gapped side)
    Rewrite(Box<Rewrite>),
    /// Print a completion script for a shell
    #[command(hide = true)]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages
    #[command(hide = true)]
    Man {
        /// The folder to write them to
        #[arg(long, value_name = "DIR", default_value = ".")]
        out: PathBuf,
    },
}

/// Pull images and pack them into one signed file
///
/// What to carry is a bundle manifest (YAML, see docs/bundle-manifest.md), a plain text list of references, or references given here.
/// Interrupted, the same command continues where it was.
#[derive(Debug, clap::Args)]
pub(crate) struct Bundle {
    /// A bundle manifest, a plain text list, or references such as docker.io/library/nginx:1.27
    #[arg(required_unless_present = "patch", value_name = "MANIFEST|REF")]
    pub(crate) what: Vec<String>,
    /// The file to write, or `-` for standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// A platform to carry, such as linux/amd64, or `all`; repeatable
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_delimiter = ',')]
    pub(crate) platform: Vec<String>,
    /// The bundle's name [default: that of the manifest or list; for references, the output's]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Cut the file into volumes NAME.001, NAME.002, … of this size at most: 4G (fits FAT32), 650M, 4.7G; or binary, 700MiB
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub(crate) volume_size: Option<u64>,
    /// Read the finished file back from the medium and check every byte
    #[arg(long)]
    pub(crate) read_back: bool,
    /// Write down what every reference was resolved to, as FILE (not with --dry-run)
    #[arg(long, value_name = "FILE")]
    pub(crate) lock: Option<PathBuf>,
    /// Keep to what the file of --lock says, and fail if that can no longer be had
    #[arg(long, requires = "lock")]
    pub(crate) locked: bool,
    /// The secret key to sign with
    #[arg(long, value_name = "FILE", env = "FERRY_SIGN_KEY")]
    pub(crate) sign_key: Option<PathBuf>,
    /// Do not sign, whatever FERRY_SIGN_KEY says; the other side must then be told --allow-unsigned
    #[arg(long)]
    pub(crate) unsigned: bool,
    /// Carry this ferry program as bin/ferry, or the one of FILE
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub(crate) include_ferry: Option<String>,
    /// Add recovery files beside the bundle, as `ferry protect` does: 5% of it, or enough for 1vol (one lost volume)
    #[arg(long, value_name = "N%|Nvol")]
    pub(crate) recovery: Option<Budget>,
    /// Print the plan and fetch nothing but manifests and configs
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print the plan as JSON on standard output
    #[arg(long)]
    pub(crate) json: bool,
    /// References in carried YAML that are not carried are warnings, not errors
    #[arg(long)]
    pub(crate) no_strict: bool,
    /// Leave signatures, attestations and SBOMs behind, whatever the bundle manifest says
    #[arg(long)]
    pub(crate) no_referrers: bool,
    /// Leave out what the far side has by this receipt, bundle or lock (a delta); repeatable
    #[arg(long, value_name = "FILE", conflicts_with = "patch", help_heading = "Deltas and patches")]
    pub(crate) have: Vec<PathBuf>,
    /// Make a patch: the blobs that `ferry verify --want` missed in a damaged bundle, and no others; MANIFEST is the bundle's own
    #[arg(long, value_name = "WANT.json", help_heading = "Deltas and patches", conflicts_with_all = ["platform", "no_referrers"])]
    pub(crate) patch: Option<PathBuf>,
    #[command(flatten, next_help_heading = "Deltas and patches")]
    pub(crate) trust: Trust,
    /// Log in to HOST (or to what is below PATH there) as USER; repeatable
    #[arg(long, value_name = "HOST[/PATH]=USER", requires = "password_stdin", help_heading = "Registries")]
    pub(crate) login: Vec<Account>,
    /// Read the password from standard input; for several --login, one a line
    #[arg(long, requires = "login", help_heading = "Registries")]
    pub(crate) password_stdin: bool,
    #[command(flatten)]
    pub(crate) registry: Registry,
    #[command(flatten)]
    pub(crate) talk: Talk,
}

/// List the images that YAML, charts and lists ask for
///
/// Each with its file and line, how it is written, and how sure that is. Helm values are read with their chart: sub-charts, globals and
/// appVersion included. See docs/find.md.
#[derive(Debug, clap::Args)]
pub(crate) struct Find {
    /// Files, folders, charts (folders or .tgz), kustomizations, compose files, lists of images; `-` for standard input
    #[arg(required = true, value_name = "FILE|DIR")]
    pub(crate) inputs: Vec<PathBuf>,
    /// Values that go before those of charts, as for `helm install`; repeatable
    #[arg(short = 'f', long, value_name = "FILE")]
    pub(crate) values: Vec<PathBuf>,
    /// Run `helm template` on charts and `kustomize build` on kustomizations as well, and merge what comes out
    #[arg(long)]
    pub(crate) render: bool,
    /// How long each of these programs may run
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) render_timeout: u64,
    /// Write a bundle manifest of what was found, for `ferry bundle FILE`
    #[arg(long, value_name = "FILE")]
    pub(crate) write_manifest: Option<PathBuf>,
    /// Replace the file of --write-manifest
    #[arg(long, requires = "write_manifest")]
    pub(crate) force: bool,
    /// A platform for the bundle manifest, such as linux/amd64, or `all`; repeatable
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_delimiter = ',', requires = "write_manifest")]
    pub(crate) platform: Vec<String>,
    /// As JSON on standard output
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) talk: Talk,
}

/// Make a key pair that signs bundles, in minisign's own formats
#[derive(Debug, clap::Args)]
pub(crate) struct Keygen {
    /// The folder for ferry.key (secret, stays here) and ferry.pub (for the other side)
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) out: PathBuf,
    /// Store the secret key without a password, for build machines
    #[arg(long)]
    pub(crate) no_password: bool,
}

/// Show what is inside a bundle
#[derive(Debug, clap::Args)]
pub(crate) struct Inspect {
    /// The bundle: a file, or volumes (any of them, or their common name)
    pub(crate) bundle: PathBuf,
    /// As JSON on standard output
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) keys: Keys,
}

/// Show what differs between two bundles, receipts or locks, in any mix
///
/// Images by reference: added, removed, changed (to another digest, or to other platforms), unchanged; blobs and bytes. A lock knows images
/// only.
#[derive(Debug, clap::Args)]
pub(crate) struct Diff {
    /// What there was: a bundle, a receipt or a lock
    #[arg(value_name = "A")]
    pub(crate) from: PathBuf,
    /// What there is now
    #[arg(value_name = "B")]
    pub(crate) to: PathBuf,
    /// As JSON on standard output
    #[arg(long)]
    pub(crate) json: bool,
    /// End with code 1 when anything differs
    #[arg(long)]
    pub(crate) exit_code: bool,
    #[command(flatten)]
    pub(crate) trust: Trust,
}

/// Write down what a registry (or a store) has, as the base of the next bundle
///
/// The receipt that comes out is what `ferry bundle --have` takes on the connected side. What a registry's manifests name is taken to be
/// there; `ferry install` looks again before it pushes. Nothing is written unless all could be asked.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("place").required(true).multiple(true).args(["registry_name", "store"]))]
pub(crate) struct Inventory {
    /// Repositories, as paths below the prefix [default: all that the registry lists there]
    #[arg(value_name = "REPOSITORY")]
    pub(crate) repositories: Vec<String>,
    /// The registry
    #[arg(long = "registry", value_name = "HOST[:PORT][/PREFIX]")]
    pub(crate) registry_name: Option<String>,
    /// A store's folder instead; --registry then only names it
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// Look at the images of this receipt.json or relocation.json, which keep their references
    #[arg(long, value_name = "FILE", conflicts_with = "repositories")]
    pub(crate) from: Option<PathBuf>,
    /// The file to write
    #[arg(short, long, value_name = "FILE", default_value = "receipt.json")]
    pub(crate) output: PathBuf,
    /// The user at the registry
    #[arg(long, requires = "password_stdin", help_heading = "Registries")]
    pub(crate) username: Option<String>,
    /// Read that user's password from standard input
    #[arg(long, requires = "username", help_heading = "Registries")]
    pub(crate) password_stdin: bool,
    #[command(flatten)]
    pub(crate) registry: Registry,
    #[command(flatten)]
    pub(crate) talk: Talk,
}

/// Check signature, structure and every byte of a bundle, without unpacking it
///
/// All that is wrong is listed together. What a damaged bundle lacks can be fetched again by itself: --want writes down what that is.
#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    /// Bundles: files, volumes (any of them, or their common name; those in other folders too), or `-` for standard input
    #[arg(required = true, value_name = "BUNDLE")]
    pub(crate) bundles: Vec<PathBuf>,
    /// List the damaged and missing blobs in FILE, for `ferry bundle --patch`
    #[arg(long, value_name = "FILE")]
    pub(crate) want: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
    /// Read past the page cache, from the medium itself: the step after copying to a disk
    #[arg(long)]
    pub(crate) cold: bool,
    /// Threads to hash with [default: all cores]
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
    /// The result as JSON on standard output
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) trust: Trust,
    #[command(flatten)]
    pub(crate) talk: Talk,
}

/// Sign a bundle once more, with a file beside it
///
/// The bundle itself does not change: the signature, of the same SHA256SUMS as the one inside, goes to NAME.tar.KEYID.minisig. Before, the
/// structure and every byte are checked. A bundle that nobody signed yet is signed, too, unless --require is given.
#[derive(Debug, clap::Args)]
pub(crate) struct Sign {
    /// The bundle, or its volumes
    #[arg(required = true)]
    pub(crate) bundle: Vec<PathBuf>,
    /// The secret key to sign with
    #[arg(long, value_name = "FILE", env = "FERRY_SIGN_KEY")]
    pub(crate) sign_key: PathBuf,
    /// The file to write [default: beside the bundle, NAME.tar.KEYID.minisig]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Threads to hash with [default: all cores]
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
    /// The result as JSON on standard output
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) keys: Keys,
    #[command(flatten)]
    pub(crate) demand: Demand,
    #[command(flatten)]
    pub(crate) talk: Talk,
}

/// Add recovery files to a bundle, which mend it when a disk damages it
///
/// They stand beside it, NAME.tar.recovery-001 and so on, and cross the gap with it. The bundle is verified first and stays as it is. The same
/// bundle gives the same files; earlier ones are replaced.
#[derive(Debug, clap::Args)]
pub(crate) struct Protect {
    /// The bundle; of one in several folders, a volume from each
    #[arg(required = true, value_name = "BUNDLE")]
    pub(crate) bundle: Vec<PathBuf>,
    /// How much: 5% of the bundle, or enough for 1vol (one lost volume)
    #[arg(long, value_name = "N%|Nvol", default_value = "5%")]
    pub(crate) recovery: Budget,
    /// Say what the files would make up for and how large they would be, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Threads to work on [default: all cores]
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
    /// The plan as JSON on standard output
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) trust: Trust,
    #[command(flatten)]
    pub(crate) talk: Talk,
}

/// Mend a damaged bundle with its recovery files
///
/// Flipped bits, sectors that cannot be read, cut and lost volumes, volumes under each other's names, damaged recovery files. In place, unless
/// -o is given: only what is damaged is written. In the end signature, structure and every byte are verified.
#[derive(Debug, clap::Args)]
pub(crate) struct Repair {
    /// The bundle; of one in several folders, a volume from each
    #[arg(required = true, value_name = "BUNDLE")]
    pub(crate) bundle: Vec<PathBuf>,
    /// Write a mended copy to this file or into this folder, and leave the damaged bundle alone: for DVDs and dying disks
    #[arg(short, long, value_name = "FILE|DIR")]
    pub(crate) output: Option<PathBuf>,
    /// Say whether it would succeed, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Threads to work on [default: all cores]
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
    /// The result as JSON on standard output
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) trust: Trust,
    #[command(flatten)]
    pub(crate) talk: Talk,
}

/// Push a bundle into a registry (or a store) and rewrite YAML to point there
///
/// In this order: the signature; names, target and YAML, all problems together; blobs, manifests, tags. What the target has is not
/// pushed again, so the command can be repeated.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("target").required(true).multiple(true).args(["registry_name", "store"]))]
pub(crate) struct Install {
    /// Bundles, which complete one another: files, volumes (any of them, or their common name; those in other folders too), or `-` for
    /// standard input
    #[arg(required = true, value_name = "BUNDLE")]
    pub(crate) bundles: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
    /// The target
    #[arg(long = "registry", value_name = "HOST[:PORT][/PREFIX]")]
    pub(crate) registry_name: Option<String>,
    /// Fill a store's folder instead of pushing; --registry then only names it in YAML
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// YAML to check and rewrite: files and folders; repeatable
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) yaml: Vec<PathBuf>,
    /// The folder for rewritten YAML, relocation.json and receipt.json
    #[arg(long, value_name = "DIR", default_value = "ferry-out")]
    pub(crate) out: PathBuf,
    /// How names are made at the target [default: the bundle's choice, usually path]
    #[arg(long, value_enum)]
    pub(crate) layout: Option<Layout>,
    /// In which form images of several platforms are put
    #[arg(long, value_enum, default_value_t = Index::Auto)]
    pub(crate) index: Index,
    /// What to do with a tag that is there with another digest
    #[arg(long, value_enum, default_value_t = OnExisting::Overwrite)]
    pub(crate) on_existing: OnExisting,
    /// Look at everything, ask the target what it takes, and print what would change there
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The result as JSON on standard output
    #[arg(long)]
    pub(crate) json: bool,
    /// References in YAML that are not carried are warnings, not errors
    #[arg(long)]
    pub(crate) no_strict: bool,
    /// Also write where images went in these forms, below --out; repeatable, or with commas
    #[arg(long, value_enum, value_name = "FORM", value_delimiter = ',')]
    pub(crate) emit: Vec<Emit>,
    /// Leave signatures, attestations and SBOMs behind
    #[arg(long)]
    pub(crate) no_referrers: bool,
    /// Write a bundle that comes through standard input into a file in DIR first, so that it can be read again
    #[arg(long, value_name = "DIR")]
    pub(crate) spool: Option<PathBuf>,
    /// Where blobs that the bundle leaves to the target are missing there: list them in FILE, for `ferry bundle --patch`
    #[arg(long, value_name = "FILE")]
    pub(crate) want: Option<PathBuf>,
    /// The user at the target
    #[arg(long, requires = "password_stdin", help_heading = "Registries")]
    pub(crate) username: Option<String>,
    /// Read that user's password from standard input
    #[arg(long, requires = "username", help_heading = "Registries")]
    pub(crate) password_stdin: bool,
    #[command(flatten)]
    pub(crate) trust: Trust,
    #[command(flatten)]
    pub(crate) registry: Registry,
    #[command(flatten)]
    pub(crate) talk: Talk,
}

/// Rewrite YAML to where images went
///
/// Where they went is said by the relocation.json of an install, or worked out from a bundle and --registry; with both, the bundle's `set`
/// rules and its `ignore` list apply to what the install did. No registry is asked. One file, or `-` for standard input, comes out on
/// standard output unless --out is given; several files and folders come out below --out.
#[derive(Debug, clap::Args)]
#[command(
    group = ArgGroup::new("places").required(true).multiple(true).args(["relocation", "bundle"]),
    group = ArgGroup::new("way").args(["out", "check", "diff", "print0"]),
    after_help = "\
Examples:
  ferry rewrite app.yaml --relocation ready/relocation.json > app-here.yaml
  ferry rewrite manifests/ --relocation ready/relocation.json --diff
  ferry rewrite values.yaml --bundle shop.tar --registry HOST --key ferry.pub --emit helm-values,hosts-toml --out ready
  ferry rewrite --relocation ready/relocation.json --print0 | xargs -0 -n 2 echo"
)]
pub(crate) struct Rewrite {
    /// YAML to rewrite: files and folders, or `-` [default: what the bundle carries]
    #[arg(value_name = "FILE|DIR")]
    pub(crate) what: Vec<PathBuf>,
    /// The relocation.json of an install
    #[arg(long, value_name = "FILE")]
    pub(crate) relocation: Option<PathBuf>,
    /// A bundle
    #[arg(long, value_name = "FILE")]
    pub(crate) bundle: Option<PathBuf>,
    /// Where the bundle was or will be installed
    #[arg(long = "registry", value_name = "HOST[:PORT][/PREFIX]", requires = "bundle", conflicts_with = "relocation")]
    pub(crate) registry_name: Option<String>,
    /// How names are made there [default: the bundle's choice, usually path]
    #[arg(long, value_enum, requires = "registry_name")]
    pub(crate) layout: Option<Layout>,
    /// In which form images of several platforms are there; without it, digests that depend on that are refused
    #[arg(long, value_enum, requires = "registry_name")]
    pub(crate) index: Option<Index>,
    /// The folder for what is written; files of the same names are replaced [default: ferry-out]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Write over the files themselves
    #[arg(long, conflicts_with_all = ["check", "diff", "print0"])]
    pub(crate) in_place: bool,
    /// Write nothing; end with code 4 when a reference is not carried
    #[arg(long)]
    pub(crate) check: bool,
    /// Write nothing but what would change, as a diff on standard output
    #[arg(long)]
    pub(crate) diff: bool,
    /// Write SOURCE and TARGET of every image to standard output, each with a NUL after it
    #[arg(long, conflicts_with_all = ["json", "what"])]
    pub(crate) print0: bool,
    /// Also write where images went in these forms, below --out; repeatable, or with commas
    #[arg(long, value_enum, value_name = "FORM", value_delimiter = ',', conflicts_with_all = ["check", "diff", "print0"])]
    pub(crate) emit: Vec<Emit>,
    /// In forms for nodes: the target speaks HTTP without TLS
    #[arg(long)]
    pub(crate) plain_http: bool,
    /// In forms for nodes: a CA, or the target's own certificate, to trust (PEM), or a folder of them; repeatable
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) ca_file: Vec<PathBuf>,
    /// The result as JSON on standard output
    #[arg(long, conflicts_with = "diff")]
    pub(crate) json: bool,
    /// References in YAML that are not carried are warnings, not errors
    #[arg(long)]
    pub(crate) no_strict: bool,
    #[command(flatten)]
    pub(crate) trust: Trust,
    #[command(flatten)]
    pub(crate) talk: Talk,
}

/// Be a registry: straight from bundles (read-only), or over a writable store
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("content").required(true).args(["bundles", "store"]))]
pub(crate) struct Serve {
    /// Bundles to serve without unpacking: files, or volumes (any of them, or their common name; those in other folders too)
    #[arg(value_name = "BUNDLE")]
    pub(crate) bundles: Vec<PathBuf>,
    /// A store's folder; it is made when it is not there
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// Where to listen; 0.0.0.0:5000 for the whole network
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000")]
    pub(crate) listen: SocketAddr,
    /// The server's certificate chain (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// How names are made [default: the bundle's choice, usually path]
    #[arg(long, value_enum)]
    pub(crate) layout: Option<Layout>,
    #[command(flatten)]
    pub(crate) trust: Trust,
}

/// Keys that are trusted.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Keys {
    /// A public key to trust, minisign's or cosign's; repeatable
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Vec<PathBuf>,
    /// A folder of public keys (*.pub, *.pem) to trust; a file's name without its end is the key's name
    #[arg(long = "keys", value_name = "DIR", env = "FERRY_KEYS")]
    pub(crate) folder: Option<PathBuf>,
}

/// Whose bundles are believed, and which.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Trust {
    #[command(flatten)]
    pub(crate) keys: Keys,
    #[command(flatten)]
    pub(crate) demand: Demand,
    /// Take bundles that are not signed, or signed by an unknown key; has no effect with --require 2 and more
    #[arg(long)]
    pub(crate) allow_unsigned: bool,
}

/// For volumes that are not all at hand at once.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Waiting {
    /// Take volumes one after the other, and wait for those that are not there: SECONDS at most for each [default: for ever]. Without
    /// it, somebody at the terminal is asked
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "0")]
    pub(crate) wait_for_volume: Option<u64>,
}

/// What is asked of a bundle beside a signature that holds.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Demand {
    /// How many of the trusted keys must have signed, inside the bundle or beside it [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) require: Option<u16>,
    /// Refuse any other bundle than NAME, or NAME@VERSION; repeatable, for several bundles
    #[arg(long, value_name = "NAME[@VERSION]")]
    pub(crate) expect: Vec<String>,
}

/// How registries are reached.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Registries")]
pub(crate) struct Registry {
    /// Speak HTTP without TLS: to HOST, or to all registries when no host is given; repeatable
    #[arg(long, value_name = "HOST", num_args = 0..=1, require_equals = true, default_missing_value = "*")]
    pub(crate) plain_http: Vec<String>,
    /// A CA, or a registry's own self-signed certificate, to trust (PEM), or a folder of them; repeatable
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) ca_file: Vec<PathBuf>,
    /// Registry credentials in docker's or podman's form [default: where those keep them]
    #[arg(long, value_name = "FILE")]
    pub(crate) auth_file: Option<PathBuf>,
    /// Connect to HOST (or to this PORT of it) at ADDRESS, whatever name servers say; IPv6 in brackets; repeatable
    #[arg(long, value_name = "HOST[:PORT]:ADDRESS")]
    pub(crate) resolve: Vec<Resolve>,
    /// What is known of hosts, and logins [default: ferry/config.yaml in $XDG_CONFIG_HOME or ~/.config]
    #[arg(long, value_name = "FILE", env = "FERRY_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Transfers at a time, at most
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) jobs: u16,
    /// How long a registry may say nothing, or next to nothing, before the request is made again [default: 60]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) stall_timeout: Option<u64>,
}

/// How much is said.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(next_help_heading = None)]
pub(crate) struct Talk {
    /// No progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Layout {
    /// The repository path: bitnami/etcd
    Path,
    /// Host and path: docker.io/bitnami/etcd
    Host,
    /// The last segment: etcd
    Flat,
}

impl From<Layout> for ferry_image::Layout {
    fn from(layout: Layout) -> Self {
        match layout {
            Layout::Path => Self::Path,
            Layout::Host => Self::Host,
            Layout::Flat => Self::Flat,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Index {
    /// The original index where a digest or a signature asks for it and the target takes it; else something whole
    Auto,
    /// The original index, though some of its platforms are absent
    Sparse,
    /// An index of what is carried
    Filtered,
    /// The platform's manifest itself
    Platform,
}

impl From<Index> for ferry_install::IndexMode {
    fn from(index: Index) -> Self {
        match index {
            Index::Auto => Self::Auto,
            Index::Sparse => Self::Sparse,
            Index::Filtered => Self::Filtered,
            Index::Platform => Self::Platform,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum OnExisting {
    /// Move the tag
    Overwrite,
    /// Leave the tag, and the image out
    Skip,
    /// Push nothing and end with code 7
    Fail,
}

impl From<OnExisting> for ferry_install::OnExisting {
    fn from(choice: OnExisting) -> Self {
        match choice {
            OnExisting::Overwrite => Self::Overwrite,
            OnExisting::Skip => Self::Skip,
            OnExisting::Fail => Self::Fail,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Emit {
    /// Values that override a chart's, from each values file that is rewritten
    HelmValues,
    /// A kustomize component with `images`
    Kustomize,
    /// containerd's certs.d: a hosts.toml for each source host
    HostsToml,
    /// registries.yaml of k3s and RKE2
    RegistriesYaml,
    /// registries.conf of CRI-O, Podman, Buildah and Skopeo
    RegistriesConf,
    /// OpenShift's ImageDigestMirrorSet
    Idms,
    /// OpenShift's ImageTagMirrorSet
    Itms,
    /// relocation.json
    Relocation,
}

impl From<Emit> for ferry_rewrite::emit::Form {
    fn from(emit: Emit) -> Self {
        match emit {
            Emit::HelmValues => Self::HelmValues,
            Emit::Kustomize => Self::Kustomize,
            Emit::HostsToml => Self::HostsToml,
            Emit::RegistriesYaml => Self::RegistriesYaml,
            Emit::RegistriesConf => Self::RegistriesConf,
            Emit::Idms => Self::Idms,
            Emit::Itms => Self::Itms,
            Emit::Relocation => Self::Relocation,
        }
    }
}
