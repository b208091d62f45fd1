//! What can be typed about bundles, on both sides.

use std::path::PathBuf;

use ferry_archive::recovery::Budget;

use super::{Demand, Keys, Talk, Trust, Waiting};

/// Show what is inside a bundle
#[derive(Debug, clap::Args)]
pub(crate) struct Inspect {
    /// The bundle: a file, or volumes (any of them, or their common name; of those in several folders, one from each)
    #[arg(required = true, value_name = "BUNDLE")]
    pub(crate) bundle: Vec<PathBuf>,
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
    /// What there was, and what there is now: each a bundle, a receipt or a lock. Of a bundle in several folders, a volume from each: those
    /// of one name are one bundle then
    #[arg(required = true, num_args = 2.., value_names = ["A", "B"])]
    pub(crate) sides: Vec<PathBuf>,
    /// As JSON on standard output
    #[arg(long)]
    pub(crate) json: bool,
    /// End with code 1 when anything differs
    #[arg(long)]
    pub(crate) exit_code: bool,
    #[command(flatten)]
    pub(crate) trust: Trust,
}

/// Check signature, structure and every byte of a bundle, without unpacking it; or every blob that images of a store need
///
/// All that is wrong is listed together. What a damaged bundle lacks can be fetched again by itself: --want writes down what that is.
/// What a store lacks is named with its images.
#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    /// Bundles: files, volumes (any of them, or their common name; those in other folders too), or `-` for standard input
    #[arg(required_unless_present = "store", value_name = "BUNDLE")]
    pub(crate) bundles: Vec<PathBuf>,
    /// A store's folder instead
    #[arg(long, value_name = "DIR", conflicts_with_all = ["bundles", "want", "cold"])]
    pub(crate) store: Option<PathBuf>,
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
/// -o is given: only what is damaged is written, and a lost volume comes back whole or not at all. In the end signature, structure and every
/// byte are verified.
#[derive(Debug, clap::Args)]
pub(crate) struct Repair {
    /// The bundle; of one in several folders, a volume from each. Recovery files in another folder: one of them, too
    #[arg(required = true, value_name = "BUNDLE")]
    pub(crate) bundle: Vec<PathBuf>,
    /// Write a mended copy to this file (FILE.001, FILE.002, … for volumes) or into this folder (made if it ends with /), and leave the
    /// damaged bundle alone: for DVDs and dying disks
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
