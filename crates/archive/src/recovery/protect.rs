//! Adding recovery files to a sealed bundle.

use std::path::{Path, PathBuf};

use super::beside::Beside;
use super::geometry::{Budget, Geometry};
use super::page::SetId;
use super::write::{self, Progress};
use crate::disk::{allocated, check_room as check_room_for, discard, free, with_ending};
use crate::{Bundle, Error};

/// What recovery files a bundle would get.
#[derive(Debug, Clone)]
pub struct Protection {
    set: SetId,
    beside: Beside,
}

/// Refuses to begin a bundle beside which its recovery files have no room. What an unfinished bundle takes already counts as its own;
/// that there is no room for the bundle itself is told when it is begun.
///
/// # Errors
/// [`Error::DiskFull`]; [`Error::Io`].
pub fn check_room(output: &Path, geometry: &Geometry) -> Result<(), Error> {
    let folder = output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let begun = with_ending(output, ".partial");
    let begun = begun.file_name().unwrap_or_default().as_encoded_bytes();
    let mut taken = 0;
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io("read", folder, e))? {
        let entry = entry.map_err(|e| Error::io("read", folder, e))?;
        if entry.file_name().as_encoded_bytes().starts_with(begun) {
            taken += allocated(&entry.path());
        }
    }
    let size = geometry.size();
    if free(output)? < size.saturating_sub(taken) {
        return Ok(());
    }
    check_room_for(&with_ending(output, ".recovery-001"), size + geometry.recovery_bytes(), taken)
}

impl Protection {
    /// Plans recovery files for a bundle.
    ///
    /// # Errors
    /// [`Error::RecoveryPlan`].
    pub fn plan(bundle: &Bundle, budget: Budget) -> Result<Self, Error> {
        let path = bundle.path();
        let fail = |why| Error::RecoveryPlan { path: path.to_owned(), why };
        let geometry = Geometry::plan(bundle.size(), bundle.slices().room(), budget).map_err(fail)?;
        let set = SetId { geometry, sums: raw(bundle.sums_digest().hex()) };
        Ok(Self { set, beside: Beside::of_bundle(bundle) })
    }

    /// How the bundle is cut, and with that, what the files make up for.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.set.geometry
    }

    /// The files and their sizes in bytes.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let files = self.set.geometry.recovery_files();
        (1..).zip(files).map(|(n, shards)| (self.beside.recovery(n), self.set.geometry.file_size(&shards))).collect()
    }

    /// Verifies the bundle, for recovery data of damaged bytes would keep the damage, then writes the files. Earlier ones are
    /// replaced. `progress` is told of bytes as they are read, each twice. The same bundle gives the same files. Blocking.
    ///
    /// # Errors
    /// What [`Bundle::verify`] finds; [`Error::DiskFull`] before anything is written; [`Error::Busy`]; [`Error::Io`].
    pub fn write(&self, bundle: &Bundle, threads: usize, progress: Progress<'_>) -> Result<(), Error> {
        bundle.verify(threads, false, progress)?;
        let numbers: Vec<u16> = (1..).zip(self.set.geometry.recovery_files()).map(|(n, _)| n).collect();
        let read = |buffer: &mut [u8], at| bundle.read_at(buffer, at);
        write::write(&self.set, &self.beside, &numbers, &read, threads, progress)?;
        // of earlier ones, when there were more
        for (number, path) in self.beside.recovery_files("")? {
            if !numbers.iter().any(|n| u32::from(*n) == number) {
                discard(&path)?;
            }
        }
        Ok(())
    }
}

/// The bytes of a digest.
pub(super) fn raw(hex: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = std::str::from_utf8(digits).ok().and_then(|d| u8::from_str_radix(d, 16).ok()).unwrap_or_default();
    }
    bytes
}
