//! What can be typed on the air-gapped side.

use std::path::PathBuf;
use std::time::Duration;

use clap::ArgGroup;
use ferry_image::Platform;

use super::{Emit, Index, Layout, OnExisting, Registry, Talk, Trust, Waiting};

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

/// Push a bundle into a registry, a store or this node, and rewrite YAML to point there
///
/// In this order: the signature; names, target and YAML, all problems together; blobs, manifests, tags. What the target has is not
/// pushed again, so the command can be repeated. Into a node (`--containerd`, `--docker`) images go under their own names: YAML stays as it is.
#[derive(Debug, clap::Args)]
#[command(
    group = ArgGroup::new("target").required(true).multiple(true).args(["registry_name", "store", "containerd", "docker"]),
    group = ArgGroup::new("node").args(["containerd", "docker"]).conflicts_with_all([
        "registry_name", "store", "yaml", "layout", "index", "emit", "on_existing", "no_strict", "want", "username", "out", "no_referrers", "recheck",
    ]),
)]
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
    /// Fill a store's folder instead of pushing; --registry then only names it in YAML, and may be left out
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// Hand the images to this node's containerd instead, by its `ctr`
    #[arg(long, help_heading = "Into this node")]
    pub(crate) containerd: bool,
    /// The namespace of containerd
    #[arg(
        long,
        value_name = "NAME",
        default_value = "k8s.io",
        value_parser = crate::commands::node::namespace,
        requires = "containerd",
        conflicts_with = "docker",
        help_heading = "Into this node"
    )]
    pub(crate) namespace: String,
    /// containerd's socket; k3s has it at /run/k3s/containerd/containerd.sock [default: $CONTAINERD_ADDRESS, or
    /// /run/containerd/containerd.sock]
    #[arg(
        long,
        value_name = "SOCKET",
        requires = "containerd",
        conflicts_with = "docker",
        help_heading = "Into this node"
    )]
    pub(crate) containerd_address: Option<String>,
    /// Hand the images to this node's docker instead, by its `docker`
    #[arg(long, help_heading = "Into this node")]
    pub(crate) docker: bool,
    /// Docker's address, such as unix:///run/user/1000/docker.sock [default: where `docker` looks]
    #[arg(
        long,
        value_name = "ADDRESS",
        requires = "docker",
        conflicts_with = "containerd",
        help_heading = "Into this node"
    )]
    pub(crate) docker_host: Option<String>,
    /// The images for this platform [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", requires = "node", help_heading = "Into this node")]
    pub(crate) platform: Option<Platform>,
    /// Only this image: a reference, a repository for all of its tags, or a pattern with `*`; repeatable
    #[arg(long, value_name = "REFERENCE", requires = "node", help_heading = "Into this node")]
    pub(crate) image: Vec<String>,
    /// YAML to check and rewrite: files and folders; repeatable
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) yaml: Vec<PathBuf>,
    /// The folder for rewritten YAML, relocation.json and receipt.json [default: ferry-out; for a store without a name, nothing is written
    /// but the store]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// How names are made at the target [default: the bundle's choice, usually path]
    #[arg(long, value_enum)]
    pub(crate) layout: Option<Layout>,
    /// In which form images of several platforms are put
    #[arg(long, value_enum, default_value_t = Index::Auto)]
    pub(crate) index: Index,
    /// What to do with a tag that is there with another digest
    #[arg(long, value_enum, default_value_t = OnExisting::Overwrite)]
    pub(crate) on_existing: OnExisting,
    /// Believe no manifest: ask for each blob of images that are there, and push again what is lost. In a store blobs are read, and
    /// damaged ones replaced
    #[arg(long)]
    pub(crate) recheck: bool,
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
    /// A bundle: a file, or volumes; repeatable, for volumes in several folders
    #[arg(long, value_name = "FILE")]
    pub(crate) bundle: Vec<PathBuf>,
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

/// Free what no image of a store needs any more
///
/// Blobs stay when a manifest names them, when they are younger than the grace, and while they are being uploaded. May run while `ferry serve
/// --store` and `ferry install --store` work on the same folder.
#[derive(Debug, clap::Args)]
pub(crate) struct Gc {
    /// The store's folder
    #[arg(value_name = "DIR")]
    pub(crate) store: PathBuf,
    /// What was pushed, or asked about by somebody who pushes, within this time stays: 90s (or 90), 30m, 2h, 1d. Shorter than a push takes is safe
    /// only while nobody pushes
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = crate::span::parse)]
    pub(crate) grace: Duration,
    /// Give up uploads that nobody went on with for this long; a client that starts anew leaves one behind
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = crate::span::parse)]
    pub(crate) uploads: Duration,
    /// Remove manifests too that no tag leads to, also those that are pulled by digest only
    #[arg(long)]
    pub(crate) untagged: bool,
    /// Only say what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) talk: Talk,
}
