//! What can be typed to export.

use std::path::PathBuf;

use clap::ValueEnum;
use ferry_image::Platform;

use super::{Talk, Trust};

/// Write images for nodes without a registry: for docker, containerd, the images folder of k3s, or as an OCI layout
///
/// Names stay as they are in the bundle, so YAML needs no change. Every blob is checked as it is read, and a file has its name when it is
/// whole. `ferry install --containerd` and `--docker` hand images to this node without a file between.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ferry export shop.tar --key ferry.pub --to docker -o images.tar
  ferry export shop.tar --key ferry.pub --to k3s -o /var/lib/rancher/k3s/agent/images
  ferry export shop.tar --key ferry.pub --to containerd --image nginx --platform linux/arm64 -o - | ssh node ctr -n k8s.io images import -
  ferry export shop.tar --key ferry.pub --to oci -o layout")]
pub(crate) struct Export {
    /// Bundles, which complete one another: files, or volumes (any of them, or their common name; those in other folders too)
    #[arg(required = true, value_name = "BUNDLE")]
    pub(crate) bundles: Vec<PathBuf>,
    /// Wait until all volumes are there: SECONDS at most, with `=` before them [default: for ever]
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "0")]
    pub(crate) wait_for_volume: Option<u64>,
    /// For whom
    #[arg(long, value_enum, value_name = "FORM")]
    pub(crate) to: ExportTo,
    /// The file, or a folder (one that is there, or a name with `/` at its end) for a file named after the bundle; `-` is standard output
    #[arg(short, long, value_name = "FILE|DIR", required_unless_present = "dry_run")]
    pub(crate) output: Option<PathBuf>,
    /// Only this image: a reference, a repository for all of its tags, or a pattern with `*`; repeatable
    #[arg(long, value_name = "REFERENCE")]
    pub(crate) image: Vec<String>,
    /// Only this platform; repeatable. For docker an image has one [default: all that are carried]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Vec<Platform>,
    /// A file for each image, in the folder of `-o`, instead of one for all
    #[arg(long)]
    pub(crate) each: bool,
    /// Write nothing, and print what would be written
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The result as JSON on standard output
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) trust: Trust,
    #[command(flatten)]
    pub(crate) talk: Talk,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportTo {
    /// An archive for `docker load`, from 20.10 on
    Docker,
    /// An archive for `ctr images import`
    Containerd,
    /// Files for the images folder of k3s and RKE2
    K3s,
    /// An OCI layout, in a folder
    Oci,
}

impl From<ExportTo> for ferry_install::export::To {
    fn from(to: ExportTo) -> Self {
        match to {
            ExportTo::Docker => Self::Docker,
            ExportTo::Containerd => Self::Containerd,
            ExportTo::K3s => Self::K3s,
            ExportTo::Oci => Self::Oci,
        }
    }
}
