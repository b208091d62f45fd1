//! Private readers and writers, for the fuzz targets and nobody else. Thin: one call each.
#![allow(missing_docs, clippy::missing_errors_doc, clippy::must_use_candidate)]

use std::ops::Range;
use std::path::Path;

use ferry_image::Digest;

use crate::{Error, journal, list, recovery};

/// A line as the journal writes it, its check before it.
pub fn journal_line(record: &str) -> String {
    journal::seal(record)
}

/// What is kept of each blob, by their sizes.
pub fn journal(path: &Path, blobs: &[u64]) -> Result<Option<Vec<Vec<Range<u64>>>>, Error> {
    let found = journal::read(path, blobs)?;
    Ok(found.map(|told| told.kept.iter().map(|ranges| ranges.iter().collect()).collect()))
}

/// A page of a recovery file with a checksum that agrees.
pub fn recovery_page(page: &[u8]) -> Vec<u8> {
    recovery::page::seal(page)
}

/// The list of the volumes of `base` with these digests.
pub fn volume_list(base: &Path, digests: &[Digest]) -> String {
    list::text(base, digests)
}
