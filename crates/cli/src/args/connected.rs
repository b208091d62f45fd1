//! What can be typed on the connected side.

use std::path::PathBuf;

use ferry_archive::recovery::Budget;

use super::{Registry, Talk, Trust};
use crate::secrets::Account;
use crate::size;

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
    /// The folder for NAME.key (secret, stays here) and NAME.pub (for the other side)
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) out: PathBuf,
    /// What the two files are called: that is the key's name wherever a signer is named
    #[arg(long, value_name = "NAME", default_value = "ferry", value_parser = key_name)]
    pub(crate) name: String,
    /// Store the secret key without a password, for build machines
    #[arg(long)]
    pub(crate) no_password: bool,
}

/// A name that two files in a folder can have.
fn key_name(text: &str) -> Result<String, String> {
    let is_plain = !text.is_empty() && !text.starts_with('.') && !text.contains(['/', '\\', '\0']);
    if is_plain { Ok(text.to_owned()) } else { Err("it names two files: no folder, and no dot in front".to_owned()) }
}
