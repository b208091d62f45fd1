//! What a repair found and did.

use std::path::PathBuf;

use super::beside::Beside;
use super::found::{self, Found};
use super::mend::Mended;
use super::parts::{Misnamed, Part};
use super::scan::Damage;
use crate::ranges::Ranges;
use crate::verify::Verified;
use crate::{Error, Location};

/// What was wrong with a volume (or the bundle's only file).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Was {
    /// It was not there.
    Lost,
    /// It had too few bytes: so many.
    Short(u64),
    /// It had too many bytes: so many.
    Long(u64),
    /// Its size was right.
    Damaged,
}

/// A volume (or the bundle's only file) that was damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patient {
    /// The volume.
    pub path: PathBuf,
    /// What was wrong.
    pub was: Was,
    /// Its bytes that are right again: whole chunks.
    pub mended: Ranges,
    /// Its bytes that are beyond repair: whole chunks.
    pub beyond: Ranges,
}

/// What was found and done; with `dry_run`, what would be done.
#[derive(Debug)]
pub struct Report {
    /// Volumes that were damaged.
    pub patients: Vec<Patient>,
    /// Volumes that had each other's names.
    pub misnamed: Vec<Misnamed>,
    /// Members of the bundle that are beyond repair, as far as that can be told.
    pub lost: Vec<String>,
    /// Recovery files that were damaged or lost; written anew once the bundle is whole, unless `recovery_stays`.
    pub recovery: Vec<PathBuf>,
    /// Whether recovery files are left as they are: for a copy, and where they stand in another folder.
    pub recovery_stays: bool,
    /// Recovery files of other bundles that stand there as well.
    pub strangers: usize,
    /// What was verified in the end: every byte of the bundle. `None` when it was not, or not all is well.
    pub verified: Option<Verified>,
    /// Where the mended bundle is.
    pub bundle: Location,
    /// The files of the mended copy; none when it was mended in place.
    pub copy: Vec<PathBuf>,
    /// What is wrong with the list of the volumes, which no recovery file can mend.
    pub list: Option<Error>,
    /// The list of the volumes that was not copied, because it names them as the copy's are not named.
    pub list_left: Option<PathBuf>,
}

impl Report {
    /// Whether all that was damaged is, or can be, mended.
    #[must_use]
    pub fn succeeds(&self) -> bool {
        self.patients.iter().all(|patient| patient.beyond.is_empty())
    }
}

/// Recovery files that are lost, cut, or damaged anywhere.
pub(super) fn damaged_recovery(found: &Found, beside: &Beside, damage: &Damage) -> Vec<PathBuf> {
    let files = found.id.geometry.recovery_files();
    let hit =
        |shards: &std::ops::Range<u16>| damage.values().any(|c| c.recovery.iter().any(|nth| shards.contains(nth)));
    let whole = |source: &Option<found::Source>| source.as_ref().is_some_and(|source| source.pages_whole);
    let numbered = (1..).zip(&found.files).zip(&files);
    let damaged = numbered.filter(|((_, source), shards)| !whole(source) || hit(shards));
    let place = |number, source: &Option<found::Source>| match source {
        Some(source) if beside.has_elsewhere() => source.path.clone(),
        _ => beside.recovery(number),
    };
    damaged.map(|((number, source), _)| place(number, source)).collect()
}

/// What is wrong with a volume's size.
pub(super) fn state(found: &Found, part: &Part, number: usize) -> Option<Was> {
    let size = found.id.geometry.volume_size(number as u64);
    match part.length {
        _ if part.file.is_none() => Some(Was::Lost),
        length if length < size => Some(Was::Short(length)),
        length if length > size => Some(Was::Long(length)),
        _ => None,
    }
}

pub(super) fn note(names: &[PathBuf], was: &[Option<Was>], mended: Mended, report: &mut Report) {
    let each = names.iter().zip(was).zip(mended.mended).zip(mended.beyond);
    for (((path, was), mended), beyond) in each {
        if was.is_some() || !mended.is_empty() || !beyond.is_empty() {
            report.patients.push(Patient { path: path.clone(), was: was.unwrap_or(Was::Damaged), mended, beyond });
        }
    }
}
