//! Recovery files as they are found: what their pages say together, and which of them are whole.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ferry_content::files::ReadAt as _;

use super::beside::Beside;
use super::page::{PAGE, Page, SUMS_IN_PAGE, SetId};
use crate::{Error, Location};

/// So many places are looked at, at each end of a file, for a first page that proves itself.
const TRIED: u64 = 4096;

/// Recovery files that were made together.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) id: SetId,
    /// Checksums by their page; a page that every file has lost is not there.
    pages: HashMap<u32, Vec<u64>>,
    /// By number: the first is that of file 1. `None` for those that are not there, or have not one page left.
    pub(super) files: Vec<Option<Source>>,
}

/// A recovery file.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// Whether its size and all its pages are right.
    pub(super) pages_whole: bool,
}

impl Found {
    /// The checksum of a chunk, if any file still has it.
    pub(super) fn sum(&self, shard: u16, column: u64) -> Option<u64> {
        let (at, in_page) = (self.id.geometry.sum_at(shard, column), SUMS_IN_PAGE as u64);
        let page = self.pages.get(&u32::try_from(at / in_page).ok()?)?;
        page.get(usize::try_from(at % in_page).ok()?).copied()
    }

    /// A recovery shard's file, and where the shard starts in it.
    pub(super) fn recovery(&self, shard: u16) -> Option<(&Source, u64)> {
        let files = self.id.geometry.recovery_files();
        let (file, shards) = self.files.iter().zip(files).find(|(_, shards)| shards.contains(&shard))?;
        Some((file.as_ref()?, self.id.geometry.recovery_place(shard - shards.start)))
    }
}

/// Reads the pages of all recovery files beside a bundle; the sets that they make, the fullest first.
pub(super) fn read(beside: &Beside) -> Result<Vec<Found>, Error> {
    let mut sets: Vec<Found> = Vec::new();
    for (_, path) in beside.recovery_files("")? {
        let failed = |e| Error::io("read", &path, e);
        if !std::fs::metadata(&path).map_err(failed)?.is_file() {
            continue;
        }
        let file = File::open(&path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        if let Some(first) = first(&file, length) {
            add(&mut sets, first, path, file, length);
        }
    }
    let files = |set: &Found| set.files.iter().flatten().count();
    sets.sort_by_key(|set| std::cmp::Reverse((files(set), set.pages.len())));
    Ok(sets)
}

/// Any page of a file.
fn first(file: &File, length: u64) -> Option<Page> {
    let last = length.saturating_sub(PAGE);
    let places = (0..TRIED).map(|n| n * PAGE).take_while(|at| *at <= last);
    let from_end = (0..TRIED).map_while(|n| last.checked_sub(n * PAGE));
    places.chain(from_end).find_map(|at| page_at(file, at))
}

/// Adds what a file says to its set. Reads no more pages than the file has room for, whatever it says of itself.
fn add(sets: &mut Vec<Found>, first: Page, path: PathBuf, file: File, length: u64) {
    let (id, number) = (first.set, first.file);
    let geometry = &id.geometry;
    let at = sets.iter().position(|set| set.id == id).unwrap_or_else(|| {
        let files = geometry.recovery_files().iter().map(|_| None).collect();
        sets.push(Found { id, pages: HashMap::new(), files });
        sets.len() - 1
    });
    let set = &mut sets[at];
    let shards = geometry.recovery_files().get(usize::from(number) - 1).cloned().unwrap_or(0..0);
    let size = geometry.file_size(&shards);
    let pages = geometry.pages();
    let held = pages.min(length / PAGE);
    // behind the shards, or at the end of a file that was cut or grew
    let behind = [size - pages * PAGE, length.saturating_sub(held * PAGE)];
    let mut whole = length == size;
    for index in 0..held {
        for (n, start) in [0].into_iter().chain(behind).enumerate() {
            if n == 2 && behind[0] == behind[1] {
                continue;
            }
            match page_at(&file, start + index * PAGE).filter(|page| page.set == id && page.file == number) {
                Some(page) => {
                    whole &= u64::from(page.index) == index;
                    set.pages.entry(page.index).or_insert(page.sums);
                }
                None => whole = false,
            }
        }
    }
    if let Some(slot) = set.files.get_mut(usize::from(number) - 1) {
        let source = Source { path, file, pages_whole: whole };
        if slot.as_ref().is_none_or(|other| !other.pages_whole && whole) {
            *slot = Some(source);
        }
    }
}

fn page_at(file: &File, at: u64) -> Option<Page> {
    let mut bytes = vec![0; PAGE as usize];
    FileExt::read_exact_at(file, &mut bytes, at).ok()?;
    Page::parse(&bytes)
}

/// The digest of the `SHA256SUMS` that stands at the start of a bundle, whether it is right or not. `read` fills a buffer from the start.
pub(super) fn sums_of(read: impl Fn(&mut [u8], u64) -> Option<()>) -> Option<[u8; 32]> {
    let mut block = [0; crate::member::BLOCK as usize];
    read(&mut block, 0)?;
    let found = crate::member::read(&block).filter(|found| found.name == crate::member::SUMS)?;
    let size = found.size.filter(|size| *size <= crate::sums::MAX_SUMS)?;
    let mut text = vec![0; usize::try_from(size).ok()?];
    read(&mut text, crate::member::BLOCK)?;
    Some(super::protect::raw(ferry_image::Digest::of(&text).hex()))
}

/// [`sums_of`] of a bundle as it lies there.
pub(super) fn sums_at(location: &Location) -> Option<[u8; 32]> {
    let slices = location.open().ok()?;
    sums_of(|buffer, at| slices.read_exact_at(buffer, at).ok())
}

/// The bundle's `SHA256SUMS`, by digest, that each recovery file beside it was made for: as far as one page of it is left.
pub(super) fn made_for(beside: &Beside) -> Result<Vec<[u8; 32]>, Error> {
    let open = |path: &Path| Some((File::open(path).ok()?, std::fs::metadata(path).ok()?.len()));
    let files = beside.recovery_files("")?.into_iter().filter_map(|(_, path)| open(&path));
    Ok(files.filter_map(|(file, length)| Some(first(&file, length)?.set.sums)).collect())
}
