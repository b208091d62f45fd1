//! What can be typed. The texts here are the help; `docs/guide.md` walks through them.

mod bundles;
mod choices;
mod common;
mod connected;
mod export;
mod gapped;
mod serve;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub(crate) use bundles::{Diff, Inspect, Protect, Repair, Sign, Verify};
pub(crate) use choices::{Emit, Index, Layout, OnExisting};
pub(crate) use common::{Demand, Keys, Registry, Talk, Trust, Waiting};
pub(crate) use connected::{Bundle, Find, Keygen};
pub(crate) use export::Export;
pub(crate) use gapped::{Gc, Install, Inventory, Rewrite};
pub(crate) use serve::{Certificate, LogTo, Serve};

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

Exit codes: 0 done, 1 anything else, 2 usage, 3 not trusted or damaged, 4 something is missing (an image, a platform,
a volume), 5 registry or network, 6 local files, 7 conflict, 130 interrupted (run the same command again)"
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
    /// Push a bundle into a registry, a store or this node, and rewrite YAML to point there (air-gapped side)
    Install(Box<Install>),
    /// Write down what a registry (or a store) has, as the base of the next bundle (air-gapped side)
    Inventory(Box<Inventory>),
    /// Be a registry: straight from bundles, or over a writable store
    Serve(Box<Serve>),
    /// Free what no image of a store needs any more
    Gc(Gc),
    /// Write images for nodes without a registry: docker, containerd, k3s, OCI layout (air-gapped side)
    Export(Export),
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
