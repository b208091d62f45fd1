//! The front of a damaged bundle as it will be when it is mended: who signed it is known before anything is written.

use std::path::Path;

use bytes::{Bytes, BytesMut};

use super::found::Found;
use super::mend;
use super::parts::Part;
use crate::front::{self, Front};
use crate::signers::Beside;
use crate::source::Source;
use crate::{Error, Trust};

/// A bundle whose damaged chunks are made anew in memory as they are read.
struct Foreseen<'a> {
    found: &'a Found,
    parts: &'a [Part],
    path: &'a Path,
    /// The chunk that was read last.
    chunk: Option<((u16, u64), Vec<u8>)>,
    /// Whether every byte that was read is the one that the recovery files were made of.
    is_sure: bool,
}

/// Reads the front. `None` when not all of it can be made anew: then nobody can tell yet.
///
/// # Errors
/// What does not hold of it, and will not when it is mended: first of all the signatures.
pub(super) fn front(
    found: &Found,
    parts: &[Part],
    path: &Path,
    trust: &Trust,
    beside: &[Beside],
) -> Result<Option<Front>, Error> {
    let mut source = Foreseen { found, parts, path, chunk: None, is_sure: true };
    let front = front::read(&mut source, path, trust, beside);
    if source.is_sure { front.map(Some) } else { Ok(None) }
}

impl Foreseen<'_> {
    /// The bytes of a chunk as they must be.
    fn chunk(&mut self, shard: u16, column: u64) -> Result<&[u8], Error> {
        if self.chunk.as_ref().is_none_or(|(place, _)| *place != (shard, column)) {
            let bytes = self.make(shard, column)?;
            self.chunk = Some(((shard, column), bytes));
        }
        Ok(self.chunk.as_ref().map_or(&[], |(_, bytes)| bytes))
    }

    fn make(&mut self, shard: u16, column: u64) -> Result<Vec<u8>, Error> {
        let (found, parts, geometry) = (self.found, self.parts, &self.found.id.geometry);
        let within = geometry.column(column);
        let width = usize::try_from(within.end - within.start).unwrap_or(0);
        let mut buffer = Vec::new();
        let is_readable = mend::original(found, parts, shard, column, width, &mut buffer);
        if is_readable && found.sum(shard, column).is_some() {
            return Ok(buffer);
        }
        let unsure: Vec<u16> = (0..geometry.originals()).filter(|n| found.sum(*n, column).is_none()).collect();
        let restored = mend::restore(found, parts, column, &unsure, &mut Vec::new())?;
        if let Some((_, bytes)) = restored.into_iter().flatten().find(|(of, _)| *of == shard) {
            return Ok(bytes);
        }
        self.is_sure = false;
        if is_readable { Ok(buffer) } else { Err(Error::io("read", self.path, std::io::ErrorKind::InvalidData)) }
    }
}

impl Source for Foreseen<'_> {
    fn read(&mut self, at: u64, size: u64) -> Result<Bytes, Error> {
        let geometry = self.found.id.geometry;
        let (expected, found) = (at.saturating_add(size), geometry.size());
        if expected > found {
            return Err(Error::Truncated { path: self.path.to_owned(), expected, found });
        }
        let mut bytes = BytesMut::new();
        let mut at = at;
        while at < expected {
            let (shard, column, start) = geometry.chunk_at(at);
            let (volume, part) = geometry.part(shard, &geometry.column(column));
            let end = volume * geometry.volume().unwrap_or(0) + part.end;
            let here = usize::try_from(end.min(expected) - at).unwrap_or(0);
            let start = usize::try_from(start).unwrap_or(usize::MAX);
            let chunk = self.chunk(shard, column)?;
            bytes.extend_from_slice(chunk.get(start..start + here).unwrap_or_default());
            at += here.max(1) as u64;
        }
        Ok(bytes.freeze())
    }

    fn length(&self) -> Option<u64> {
        Some(self.found.id.geometry.size())
    }
}
