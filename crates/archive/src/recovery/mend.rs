//! Mending columns: what is damaged is made anew from what is not, and written to its place.

use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, PoisonError};

use super::codec::Decoder;
use super::found::Found;
use super::page;
use super::parts::Part;
use super::scan::{Column, Damage};
use super::share::share;
use crate::Error;
use crate::ranges::Ranges;

/// What the decoders of all threads may have in memory.
const MEMORY: u64 = 64 << 20;

/// Bytes of each volume, by its number.
pub(super) type Places = Vec<Ranges>;

/// Chunks of one column, each with its shard.
pub(super) type Chunks = Vec<(u16, Vec<u8>)>;

/// What became of the damage.
pub(super) struct Mended {
    /// Bytes that are right again.
    pub(super) mended: Places,
    /// Bytes that cannot be made anew.
    pub(super) beyond: Places,
}

/// Says what can be mended, by counting.
pub(super) fn foresee(found: &Found, damage: &Damage) -> Mended {
    let mut mended = Mended::none(found);
    for (column, what) in damage {
        let left = left(found, what);
        let list = if what.bad.len() <= left { &mut mended.mended } else { &mut mended.beyond };
        note(found, list, *column, &what.bad);
    }
    mended
}

/// Mends what can be mended in `parts`, which are open for writing where something is to be written.
pub(super) fn mend(found: &Found, parts: &[Part], damage: &Damage, threads: usize) -> Result<Mended, Error> {
    let geometry = &found.id.geometry;
    let at_once = usize::try_from(MEMORY / Decoder::memory(geometry).max(1)).unwrap_or(1);
    let mended = Mutex::new(Mended::none(found));
    let touched = damage.iter().filter(|(_, what)| !(what.bad.is_empty() && what.unsure.is_empty()));
    share(
        threads.min(at_once).max(1),
        touched,
        || Ok(Vec::new()),
        |buffer, (column, what)| {
            // chunks that may be good are made anew too where the budget allows that, and believed where it does not
            let both: Vec<u16> = what.bad.iter().chain(&what.unsure).copied().collect();
            let wrote = match column_of(found, parts, *column, &both, buffer)? {
                Some(wrote) => Some(wrote),
                None if what.unsure.is_empty() => None,
                None => column_of(found, parts, *column, &what.bad, buffer)?,
            };
            let mut mended = mended.lock().unwrap_or_else(PoisonError::into_inner);
            match wrote {
                Some(wrote) => note(found, &mut mended.mended, *column, &wrote),
                None => note(found, &mut mended.beyond, *column, &what.bad),
            }
            Ok(())
        },
    )?;
    Ok(mended.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Makes the chunks of `bad` anew, and those that turn out to be bad on the way; their shards and bytes. `None` when that cannot
/// be done. Nothing is written.
pub(super) fn restore(
    found: &Found,
    parts: &[Part],
    column: u64,
    bad: &[u16],
    buffer: &mut Vec<u8>,
) -> Result<Option<Chunks>, Error> {
    let geometry = &found.id.geometry;
    let within = geometry.column(column);
    let width = usize::try_from(within.end - within.start).unwrap_or(0);
    let broken = |e: reed_solomon_simd::Error| Error::Recovery { why: e.to_string() };
    let mut decoder = Decoder::new(geometry, width).map_err(broken)?;
    let mut wanted = 0;
    for shard in 0..geometry.originals() {
        if !bad.contains(&shard) && original(found, parts, shard, column, width, buffer) {
            decoder.original(shard, buffer).map_err(broken)?;
        } else {
            wanted += 1;
        }
    }
    for nth in 0..geometry.recovery() {
        if wanted > 0 && recovery(found, nth, column, width, buffer) {
            decoder.recovery(nth, buffer).map_err(broken)?;
            wanted -= 1;
        }
    }
    if wanted > 0 {
        return Ok(None);
    }
    let restored = decoder.restore().map_err(broken)?;
    let right = |shard: u16, bytes: &[u8]| {
        let (_, range) = geometry.part(shard, &within);
        let size = usize::try_from(range.end - range.start).unwrap_or(0);
        found.sum(shard, column).is_none_or(|known| known == page::sum(&bytes[..size.min(bytes.len())]))
    };
    // what does not agree with its checksum was made from chunks that were not what they seemed
    if !restored.iter().all(|(shard, bytes)| right(*shard, bytes)) {
        return Ok(None);
    }
    Ok(Some(restored))
}

/// Makes the chunks anew and writes them; the shards whose chunk was written. `None` when that cannot be done.
fn column_of(
    found: &Found,
    parts: &[Part],
    column: u64,
    bad: &[u16],
    buffer: &mut Vec<u8>,
) -> Result<Option<Vec<u16>>, Error> {
    let Some(restored) = restore(found, parts, column, bad, buffer)? else { return Ok(None) };
    let geometry = &found.id.geometry;
    let within = geometry.column(column);
    let mut wrote = Vec::new();
    for (shard, bytes) in restored {
        let (volume, range) = geometry.part(shard, &within);
        let Some(part) = parts.get(usize::try_from(volume).unwrap_or(usize::MAX)) else { continue };
        let bytes = &bytes[..usize::try_from(range.end - range.start).unwrap_or(0)];
        let mut there = vec![0; bytes.len()];
        let same =
            part.file.as_ref().is_some_and(|f| f.read_exact_at(&mut there, range.start).is_ok()) && there == bytes;
        if !same {
            part.put(bytes, range.start)?;
            wrote.push(shard);
        }
    }
    Ok(Some(wrote))
}

/// Reads a chunk of the bundle, zeros behind what the volume has; whether it is what it should be.
pub(super) fn original(
    found: &Found,
    parts: &[Part],
    shard: u16,
    column: u64,
    width: usize,
    buffer: &mut Vec<u8>,
) -> bool {
    let geometry = &found.id.geometry;
    let (volume, range) = geometry.part(shard, &geometry.column(column));
    let size = usize::try_from(range.end - range.start).unwrap_or(0);
    buffer.clear();
    buffer.resize(width, 0);
    let bytes = &mut buffer[..size];
    let file = parts.get(usize::try_from(volume).unwrap_or(usize::MAX)).and_then(|part| part.file.as_ref());
    let read = size == 0 || file.is_some_and(|file| file.read_exact_at(bytes, range.start).is_ok());
    read && found.sum(shard, column).is_none_or(|known| size == 0 || known == page::sum(bytes))
}

fn recovery(found: &Found, nth: u16, column: u64, width: usize, buffer: &mut Vec<u8>) -> bool {
    let geometry = &found.id.geometry;
    let Some((source, start)) = found.recovery(nth) else { return false };
    buffer.clear();
    buffer.resize(width, 0);
    let read = source.file.read_exact_at(buffer, start + geometry.column(column).start).is_ok();
    read && found.sum(geometry.originals() + nth, column) == Some(page::sum(buffer))
}

/// The recovery chunks that a column has left.
fn left(found: &Found, what: &Column) -> usize {
    let there = (0..found.id.geometry.recovery()).filter(|nth| found.recovery(*nth).is_some()).count();
    there - what.recovery.len()
}

fn note(found: &Found, places: &mut Places, column: u64, shards: &[u16]) {
    let geometry = &found.id.geometry;
    for shard in shards {
        let (volume, range) = geometry.part(*shard, &geometry.column(column));
        if let Some(ranges) = places.get_mut(usize::try_from(volume).unwrap_or(usize::MAX)) {
            ranges.insert(range);
        }
    }
}

impl Mended {
    fn none(found: &Found) -> Self {
        let none = || (0..found.id.geometry.volumes()).map(|_| Ranges::default()).collect();
        Self { mended: none(), beyond: none() }
    }
}
