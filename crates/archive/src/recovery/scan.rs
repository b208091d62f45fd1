//! Looking at every chunk of a bundle and of its recovery files: which are not what they were.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, PoisonError};

use super::found::Found;
use super::page;
use super::parts::Part;
use super::share::share;
use super::write::Progress;
use crate::Error;

/// About what is read at once, in bytes.
const READ: u64 = 1 << 20;

/// What is wrong in one column.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Column {
    /// Shards whose chunk is damaged or cannot be read.
    pub(super) bad: Vec<u16>,
    /// Shards whose chunk can be read, and nobody knows any more what it should hash to.
    pub(super) unsure: Vec<u16>,
    /// Recovery shards whose chunk is damaged; those of files that are not there are not listed.
    pub(super) recovery: Vec<u16>,
}

/// Columns with something wrong.
pub(super) type Damage = BTreeMap<u64, Column>;

/// What a chunk was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    Bad,
    Unsure,
}

/// Reads everything once, in the order of the files. What is good, or may be, is copied to `sinks` (one for each volume), if there are any.
pub(super) fn scan(
    found: &Found,
    parts: &[Part],
    sinks: Option<&[Part]>,
    threads: usize,
    progress: Progress<'_>,
) -> Result<Damage, Error> {
    let geometry = &found.id.geometry;
    let damage = Mutex::new(Damage::new());
    let note = |column, add: &dyn Fn(&mut Column)| {
        add(damage.lock().unwrap_or_else(PoisonError::into_inner).entry(column).or_default());
    };
    let columns = (READ / u64::from(geometry.chunk())).max(1);
    share(
        threads,
        0..geometry.originals(),
        || Ok(Vec::new()),
        |buffer, shard| {
            let (volume, place) = geometry.place(shard);
            let volume = usize::try_from(volume).unwrap_or(usize::MAX);
            let Some(part) = parts.get(volume) else { return Ok(()) };
            let mut first = 0;
            while first < geometry.columns() {
                let range = first..(first + columns).min(geometry.columns());
                let ranges: Vec<Range<u64>> =
                    range.clone().map(|c| geometry.part(shard, &geometry.column(c)).1).collect();
                let sums: Vec<Option<u64>> = range.clone().map(|c| found.sum(shard, c)).collect();
                let states = look(part.file.as_ref(), part.length, &ranges, &sums, buffer);
                for ((column, state), chunk) in range.zip(states).zip(&ranges) {
                    match state {
                        State::Good => {}
                        State::Bad => note(column, &|c| c.bad.push(shard)),
                        State::Unsure => note(column, &|c| c.unsure.push(shard)),
                    }
                    if let Some(sink) = sinks.and_then(|s| s.get(volume)).filter(|_| state != State::Bad) {
                        let at = usize::try_from(chunk.start - ranges[0].start).unwrap_or(0);
                        let bytes = &buffer[at..at + usize::try_from(chunk.end - chunk.start).unwrap_or(0)];
                        sink.put(bytes, chunk.start)?;
                    }
                }
                progress(ranges.iter().map(|r| r.end - r.start).sum());
                first += columns;
            }
            debug_assert!(place.end <= geometry.volume_size(volume as u64));
            Ok(())
        },
    )?;
    share(
        threads,
        0..geometry.recovery(),
        || Ok(Vec::new()),
        |buffer, nth| {
            let Some((source, start)) = found.recovery(nth) else { return Ok(()) };
            let mut first = 0;
            while first < geometry.columns() {
                let range = first..(first + columns).min(geometry.columns());
                let shift = |r: Range<u64>| start + r.start..start + r.end;
                let ranges: Vec<Range<u64>> = range.clone().map(|c| shift(geometry.column(c))).collect();
                let sums: Vec<Option<u64>> = range.clone().map(|c| found.sum(geometry.originals() + nth, c)).collect();
                let states = look(Some(&source.file), u64::MAX, &ranges, &sums, buffer);
                for (column, _) in range.zip(states).filter(|(_, state)| *state != State::Good) {
                    note(column, &|c| c.recovery.push(nth));
                }
                first += columns;
            }
            Ok(())
        },
    )?;
    let mut damage = damage.into_inner().unwrap_or_else(PoisonError::into_inner);
    for column in damage.values_mut() {
        column.bad.sort_unstable();
        column.unsure.sort_unstable();
        column.recovery.sort_unstable();
    }
    Ok(damage)
}

/// Looks at neighbouring chunks of one file: in one read, or one by one where that fails, so that one sector costs one chunk.
fn look(
    file: Option<&File>,
    length: u64,
    ranges: &[Range<u64>],
    sums: &[Option<u64>],
    buffer: &mut Vec<u8>,
) -> Vec<State> {
    let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else { return Vec::new() };
    let size = |range: &Range<u64>| usize::try_from(range.end - range.start).unwrap_or(0);
    buffer.clear();
    buffer.resize(size(&(first.start..last.end)), 0);
    let read = |bytes: &mut [u8], at| file.is_some_and(|file| file.read_exact_at(bytes, at).is_ok());
    let all = last.end <= length && read(buffer, first.start);
    let one = |(range, sum): (&Range<u64>, &Option<u64>)| {
        let at = usize::try_from(range.start - first.start).unwrap_or(0);
        let bytes = &mut buffer[at..at + size(range)];
        if bytes.is_empty() {
            return State::Good;
        }
        let here = all || range.end <= length && read(bytes, range.start);
        if !here {
            return State::Bad;
        }
        match sum {
            Some(sum) if *sum == page::sum(bytes) => State::Good,
            Some(_) => State::Bad,
            None => State::Unsure,
        }
    };
    ranges.iter().zip(sums).map(one).collect()
}

impl Part {
    /// Writes a piece of a volume's content.
    pub(super) fn put(&self, bytes: &[u8], at: u64) -> Result<(), Error> {
        match &self.file {
            Some(file) if !bytes.is_empty() => {
                file.write_all_at(bytes, at).map_err(|e| Error::io("write", &self.path, e))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_costs_no_more_than_its_own_chunk() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("v");
        let bytes: Vec<u8> = (0..40_u8).collect();
        std::fs::write(&path, &bytes[..25]).expect("write");
        let file = File::open(&path).expect("open");
        let ranges: Vec<Range<u64>> = (0..4).map(|n| n * 10..(n + 1) * 10).chain([40..40]).collect();
        let sum = |r: &Range<u64>| page::sum(&bytes[r.start as usize..r.end as usize]);
        let mut sums: Vec<Option<u64>> = ranges.iter().map(|r| Some(sum(r))).collect();
        sums[1] = None;
        let mut buffer = Vec::new();
        // it says it has 40 bytes, and reading all of them fails
        let states = look(Some(&file), 40, &ranges, &sums, &mut buffer);
        assert_eq!(states, [State::Good, State::Unsure, State::Bad, State::Bad, State::Good]);
        assert_eq!(buffer[..20], bytes[..20]);
        // a disk that gives nothing at all
        let closed = File::options().append(true).open(&path).expect("open");
        let states = look(Some(&closed), 40, &ranges, &sums, &mut buffer);
        assert_eq!(states, [State::Bad, State::Bad, State::Bad, State::Bad, State::Good]);
        assert_eq!(look(None, 0, &ranges[..1], &sums[..1], &mut buffer), [State::Bad]);
    }
}
