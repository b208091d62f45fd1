//! Options that several commands have.

use std::path::PathBuf;

use ferry_registry_client::Resolve;

/// Keys that are trusted.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Keys {
    /// A public key to trust, minisign's or cosign's; repeatable, and beside the keys of --keys and FERRY_KEYS
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Vec<PathBuf>,
    /// A folder of public keys (*.pub, *.pem) to trust, beside those of --key; a file's name without its end is the key's name
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
    /// Take volumes one after the other, and wait for those that are not there: SECONDS at most for each, with `=` before them [default:
    /// for ever]. Without it, somebody at the terminal is asked
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
