//! Writing recovery files: one pass over the bundle in strips, each a stretch of every shard.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use ferry_content::files::is_same_file;

use super::beside::Beside;
use super::codec::{Encoder, SLICE};
use super::geometry::{COLUMN, Geometry};
use super::page::{PAGE, Page, SUMS_IN_PAGE, SetId, sum};
use super::share::share;
use super::writable::partial;
use crate::Error;
use crate::disk::{allocate, check_room, discard, free, open_locked, refuse_other_than_file, sync_folder};

/// Reads bytes of the bundle, from the start of its first volume.
pub(super) type Read<'a> = &'a (dyn Fn(&mut [u8], u64) -> Result<(), Error> + Sync);
/// Is told of bytes of the bundle that were read, from any thread.
pub(super) type Progress<'a> = &'a (dyn Fn(u64) + Sync);

/// One recovery file on its way.
struct Output {
    number: u16,
    shards: Range<u16>,
    path: PathBuf,
    partial: PathBuf,
    file: File,
}

/// What is read at once, and what comes of it.
struct Strip {
    originals: Vec<u8>,
    /// Slice after slice, each with its piece of every recovery shard.
    recovery: Vec<u8>,
}

/// Writes the recovery files with these numbers. They get their final names when all of them are whole and synced, one after the other: a kill
/// between two leaves some new and some earlier ones, which repairing tells apart. Returns their paths.
pub(super) fn write(
    set: &SetId,
    beside: &Beside,
    numbers: &[u16],
    read: Read<'_>,
    threads: usize,
    progress: Progress<'_>,
) -> Result<Vec<PathBuf>, Error> {
    let geometry = &set.geometry;
    let outputs = begin(geometry, beside, numbers)?;
    let written = encode(geometry, &outputs, read, threads, progress).and_then(|sums| {
        outputs.iter().try_for_each(|output| write_pages(set, output, &sums)).and_then(|()| finish(&outputs))
    });
    if let Err(error) = written {
        // what was not finished is worth nothing; the error that ended it says more than one of tidying up
        outputs.iter().for_each(|output| drop(discard(&output.partial)));
        return Err(full(error, geometry, &outputs));
    }
    Ok(outputs.into_iter().map(|output| output.path).collect())
}

/// Makes room for all of them before the first byte is written.
fn begin(geometry: &Geometry, beside: &Beside, numbers: &[u16]) -> Result<Vec<Output>, Error> {
    // All that an earlier run, which was killed, may have left is locked before anything is removed: it may be another's who is at work.
    let mut left = Vec::new();
    for (_, path) in beside.recovery_files(".partial")? {
        left.push((open_locked(&path)?, path));
    }
    let mut outputs: Vec<Output> = Vec::new();
    for (number, shards) in (1..).zip(geometry.recovery_files()).filter(|(number, _)| numbers.contains(number)) {
        let path = beside.recovery(number);
        let partial = partial(&path);
        let at = left.iter().position(|(_, left)| is_same_file(left, &partial));
        let file = match at {
            Some(at) => Ok(left.swap_remove(at).0),
            None => refuse_other_than_file(&path).and_then(|()| open_locked(&partial)),
        };
        match file {
            Ok(file) => outputs.push(Output { number, shards, path, partial, file }),
            Err(error) => {
                outputs.iter().for_each(|output| drop(discard(&output.partial)));
                return Err(error);
            }
        }
    }
    for (_, path) in &left {
        discard(path)?;
    }
    let size: u64 = outputs.iter().map(|output| geometry.file_size(&output.shards)).sum();
    let reserved = outputs
        .first()
        .map_or(Ok(()), |first| check_room(&first.partial, size, 0))
        .and_then(|()| outputs.iter().try_for_each(|o| allocate(&o.file, &o.partial, geometry.file_size(&o.shards))));
    if let Err(error) = reserved {
        outputs.iter().for_each(|output| drop(discard(&output.partial)));
        return Err(error);
    }
    Ok(outputs)
}

/// Writes the recovery shards; returns the checksums of all chunks.
fn encode(
    geometry: &Geometry,
    outputs: &[Output],
    read: Read<'_>,
    threads: usize,
    progress: Progress<'_>,
) -> Result<Vec<u64>, Error> {
    let (originals, recovery) = (usize::from(geometry.originals()), usize::from(geometry.recovery()));
    let columns = usize::try_from(geometry.columns()).unwrap_or(usize::MAX);
    let chunk = u64::from(geometry.chunk());
    // whole chunks, so that each is hashed in one piece
    let most = (COLUMN / (originals + recovery) as u64 / chunk).max(1) * chunk;
    let widest = usize::try_from(most.min(geometry.shard())).unwrap_or(usize::MAX);
    let mut strip = Strip { originals: vec![0; originals * widest], recovery: vec![0; recovery * widest] };
    let mut sums = vec![0; columns * (originals + recovery)];
    let mut start = 0;
    while start < geometry.shard() {
        let within = start..(start + most).min(geometry.shard());
        let first = usize::try_from(start / chunk).unwrap_or(usize::MAX);
        let (own, of_recovery) = sums.split_at_mut(originals * columns);
        let own = own.chunks_mut(columns).map(|row| &mut row[first..]);
        read_strip(geometry, &within, &mut strip, own, read, threads, progress)?;
        encode_strip(geometry, &within, &mut strip, threads)?;
        let of_recovery = of_recovery.chunks_mut(columns).map(|row| &mut row[first..]);
        write_strip(geometry, &within, &strip, of_recovery, outputs, threads)?;
        start = within.end;
    }
    Ok(sums)
}

fn width(within: &Range<u64>) -> usize {
    usize::try_from(within.end - within.start).unwrap_or(usize::MAX)
}

fn read_strip<'a>(
    geometry: &Geometry,
    within: &Range<u64>,
    strip: &mut Strip,
    sums: impl Iterator<Item = &'a mut [u64]> + Send,
    read: Read<'_>,
    threads: usize,
    progress: Progress<'_>,
) -> Result<(), Error> {
    let rows = strip.originals.chunks_mut(width(within)).zip(sums).zip(0_u16..);
    share(
        threads,
        rows,
        || Ok(()),
        |(), ((row, sums), shard)| {
            let (volume, part) = geometry.part(shard, within);
            let (bytes, beyond) = row.split_at_mut(width(&part));
            // what a volume does not have counts as zeros
            beyond.fill(0);
            if !bytes.is_empty() {
                read(bytes, volume * geometry.volume().unwrap_or(0) + part.start)?;
                progress(bytes.len() as u64);
            }
            let columns = width(within).div_ceil(geometry.chunk() as usize);
            let mut chunks = bytes.chunks(geometry.chunk() as usize);
            for slot in sums.iter_mut().take(columns) {
                *slot = sum(chunks.next().unwrap_or_default());
            }
            Ok(())
        },
    )
}

fn encode_strip(geometry: &Geometry, within: &Range<u64>, strip: &mut Strip, threads: usize) -> Result<(), Error> {
    let (width, originals) = (width(within), &strip.originals);
    let recovery = &mut strip.recovery[..width * usize::from(geometry.recovery())];
    let slices = recovery.chunks_mut(SLICE * usize::from(geometry.recovery())).enumerate();
    let broken = |e: reed_solomon_simd::Error| Error::Recovery { why: e.to_string() };
    share(
        threads,
        slices,
        || Encoder::new(geometry).map_err(broken),
        |encoder, (n, out)| {
            let slice = n * SLICE..((n + 1) * SLICE).min(width);
            let rows = originals.chunks(width).take(usize::from(geometry.originals())).map(|row| &row[slice.clone()]);
            encoder.encode(slice.len(), rows, out).map_err(broken)
        },
    )
}

fn write_strip<'a>(
    geometry: &Geometry,
    within: &Range<u64>,
    strip: &Strip,
    sums: impl Iterator<Item = &'a mut [u64]> + Send,
    outputs: &[Output],
    threads: usize,
) -> Result<(), Error> {
    let (width, all) = (width(within), usize::from(geometry.recovery()));
    let recovery = &strip.recovery[..width * all];
    share(
        threads,
        sums.enumerate(),
        || Ok(vec![0; width]),
        |row, (n, sums)| {
            for (to, slices) in row.chunks_mut(SLICE).zip(recovery.chunks(SLICE * all)) {
                to.copy_from_slice(&slices[n * to.len()..][..to.len()]);
            }
            for (slot, chunk) in sums.iter_mut().zip(row.chunks(geometry.chunk() as usize)) {
                *slot = sum(chunk);
            }
            let shard = u16::try_from(n).unwrap_or(u16::MAX);
            let Some(output) = outputs.iter().find(|output| output.shards.contains(&shard)) else { return Ok(()) };
            let at = geometry.recovery_place(shard - output.shards.start) + within.start;
            output.file.write_all_at(row, at).map_err(|e| Error::io("write", &output.partial, e))
        },
    )
}

/// Writes the pages twice: before and behind the shards.
fn write_pages(set: &SetId, output: &Output, sums: &[u64]) -> Result<(), Error> {
    let behind = set.geometry.file_size(&output.shards) - set.geometry.pages() * PAGE;
    for (index, sums) in (0..).zip(sums.chunks(SUMS_IN_PAGE)) {
        let page = Page { set: *set, file: output.number, index, sums: sums.to_vec() }.print();
        for start in [0, behind] {
            let at = start + u64::from(index) * PAGE;
            output.file.write_all_at(&page, at).map_err(|e| Error::io("write", &output.partial, e))?;
        }
    }
    Ok(())
}

fn finish(outputs: &[Output]) -> Result<(), Error> {
    for Output { file, partial, .. } in outputs {
        file.sync_all().map_err(|e| Error::io("sync", partial, e))?;
    }
    for Output { path, partial, .. } in outputs {
        std::fs::rename(partial, path).map_err(|e| Error::io("rename", partial, e))?;
    }
    outputs.first().map_or(Ok(()), |first| sync_folder(&first.path))
}

/// Where space cannot be reserved, a disk fills up in the middle.
fn full(error: Error, geometry: &Geometry, outputs: &[Output]) -> Error {
    use std::io::ErrorKind as E;
    match error {
        Error::Io { source, path, .. } if matches!(source.kind(), E::StorageFull | E::QuotaExceeded) => {
            let needed = outputs.iter().map(|output| geometry.file_size(&output.shards)).sum();
            let available = free(&path).unwrap_or(0);
            Error::DiskFull { path, needed, available }
        }
        other => other,
    }
}
