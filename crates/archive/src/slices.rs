//! One file, or the volumes of one bundle, read and written by position as if they were joined.
//!
//! Every part but the last has the same room. A part may be absent, or shorter than its room: its bytes cannot be read then, all
//! others can.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ferry_content::files::ReadAt;
use rustix::fs::Advice;

use crate::disk::write_all_vectored;
use crate::volumes;

/// The parts, in order.
#[derive(Debug)]
pub struct Slices {
    parts: Vec<Slice>,
    /// The room of every part but the last, in bytes.
    room: u64,
}

/// One part.
#[derive(Debug)]
pub struct Slice {
    /// Its name, whether it is there or not.
    pub path: PathBuf,
    file: Option<File>,
    /// The bytes that it has.
    length: u64,
}

impl Slices {
    /// One file.
    ///
    /// # Errors
    /// Of asking for its size.
    pub fn one(path: &Path, file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { parts: vec![Slice { path: path.to_owned(), file: Some(file), length }], room: u64::MAX })
    }

    /// Volumes of `room` bytes each, the last of fewer or as many.
    #[must_use]
    pub fn volumes(parts: Vec<Slice>, room: u64) -> Self {
        Self { parts, room: room.max(1) }
    }

    /// The parts, in order.
    #[must_use]
    pub fn parts(&self) -> &[Slice] {
        &self.parts
    }

    /// The room of every part but the last; `None` for one file.
    #[must_use]
    pub fn room(&self) -> Option<u64> {
        (self.room != u64::MAX).then_some(self.room)
    }

    /// Where the last byte that is there ends.
    #[must_use]
    pub fn length(&self) -> u64 {
        let ends = self.parts.iter().enumerate().filter(|(_, part)| part.length > 0);
        ends.map(|(i, part)| self.start(i) + part.length).max().unwrap_or(0)
    }

    /// The part that has the byte at `offset`, and where in it.
    #[must_use]
    pub fn locate(&self, offset: u64) -> Option<(&Slice, u64)> {
        let i = usize::try_from(offset / self.room).ok()?;
        self.parts.get(i).map(|part| (part, offset % self.room))
    }

    /// Whether `size` bytes at `offset` are there.
    #[must_use]
    pub fn has(&self, mut offset: u64, size: u64) -> bool {
        let end = offset.saturating_add(size);
        while offset < end {
            let Some((part, within)) = self.locate(offset) else { return false };
            let here = (self.room - within).min(end - offset);
            if part.length < within.saturating_add(here) {
                return false;
            }
            offset += here;
        }
        true
    }

    /// The volumes that a range stands in; none for one file.
    #[must_use]
    pub fn paths(&self, range: Range<u64>) -> Vec<PathBuf> {
        let Some(room) = self.room().filter(|_| !range.is_empty()) else { return Vec::new() };
        let number = |at: u64| usize::try_from(at / room).unwrap_or(usize::MAX);
        // the last ones may not be there, and nobody knew of them
        let base = self.parts.first().and_then(|part| volumes::parse(&part.path)).map(|(base, _)| base);
        let named = |i: usize| match self.parts.get(i) {
            Some(part) => Some(part.path.clone()),
            None => Some(volumes::name(base.as_deref()?, u32::try_from(i + 1).ok()?)),
        };
        let last = number(range.end - 1).min(volumes::MAX_VOLUMES as usize - 1);
        (number(range.start)..=last).filter_map(named).collect()
    }

    /// Whether these are all the volumes of so many bytes each, the last of fewer or as many; one file without.
    #[must_use]
    pub(crate) fn are_volumes_of(&self, volume: Option<u64>) -> bool {
        let Some(volume) = volume.filter(|_| self.room().is_some()) else {
            return volume.is_none() == self.room().is_none();
        };
        let (last, before) = match self.parts.split_last() {
            Some((last, before)) => (last.length, before),
            None => return false,
        };
        (1..=volume).contains(&last) && before.iter().all(|part| part.length == volume)
    }

    /// The same parts, with another room.
    #[must_use]
    pub(crate) fn with_room(self, room: u64) -> Self {
        Self { room: room.max(1), ..self }
    }

    /// The same parts opened once more, so that read-ahead is not shared; only if they are still the same files.
    #[must_use]
    pub fn reopen(&self) -> Option<Self> {
        let again = |part: &Slice| {
            let Some(old) = &part.file else { return Some(Slice { path: part.path.clone(), file: None, length: 0 }) };
            let file = File::open(&part.path).ok()?;
            let (a, b) = (file.metadata().ok()?, old.metadata().ok()?);
            if (a.dev(), a.ino()) != (b.dev(), b.ino()) {
                return None;
            }
            // Advice only: it doubles the read-ahead.
            let _ = rustix::fs::fadvise(&file, 0, None, Advice::Sequential);
            Some(Slice { path: part.path.clone(), file: Some(file), length: part.length })
        };
        let parts = self.parts.iter().map(again).collect::<Option<_>>()?;
        Some(Self { parts, room: self.room })
    }

    /// Forgets what the page cache knows of the parts, and looks at their sizes again.
    ///
    /// # Errors
    /// The system's own, with the part.
    pub fn drop_cache(&self) -> Result<(), (PathBuf, io::Error)> {
        for part in &self.parts {
            let Some(file) = &part.file else { continue };
            // Pages that were not yet written cannot be dropped.
            let dropped = file.sync_data().and_then(|()| Ok(rustix::fs::fadvise(file, 0, None, Advice::DontNeed)?));
            dropped.map_err(|e| (part.path.clone(), e))?;
        }
        Ok(())
    }

    /// Writes all chunks one after the other at `offset`.
    ///
    /// # Errors
    /// The system's own.
    pub fn write_all_at(&self, chunks: &[Bytes], mut offset: u64) -> io::Result<()> {
        let mut chunks = chunks.to_vec();
        chunks.reverse();
        while let Some(chunk) = chunks.last() {
            if chunk.is_empty() {
                chunks.pop();
                continue;
            }
            let (part, within) = self.locate(offset).ok_or(io::ErrorKind::UnexpectedEof)?;
            let file = part.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
            let (mut here, mut left) = (Vec::new(), self.room - within);
            while left > 0
                && let Some(mut chunk) = chunks.pop()
            {
                if chunk.len() as u64 > left {
                    chunks.push(chunk.split_off(usize::try_from(left).map_err(io::Error::other)?));
                }
                left -= chunk.len() as u64;
                here.push(chunk);
            }
            write_all_vectored(file, &here, within)?;
            offset += here.iter().map(|c| c.len() as u64).sum::<u64>();
        }
        Ok(())
    }

    /// Makes what was written survive a power loss.
    ///
    /// # Errors
    /// The system's own.
    pub fn sync_data(&self) -> io::Result<()> {
        self.parts.iter().filter_map(|part| part.file.as_ref()).try_for_each(File::sync_data)
    }

    /// Makes what was written survive a power loss, sizes and all.
    ///
    /// # Errors
    /// The system's own.
    pub fn sync_all(&self) -> io::Result<()> {
        self.parts.iter().filter_map(|part| part.file.as_ref()).try_for_each(File::sync_all)
    }

    fn start(&self, part: usize) -> u64 {
        self.room.saturating_mul(part as u64)
    }
}

impl Slice {
    /// A part that is there.
    ///
    /// # Errors
    /// Of asking for its size.
    pub fn open(path: PathBuf, file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { path, file: Some(file), length })
    }

    /// A part that is not there.
    #[must_use]
    pub fn absent(path: PathBuf) -> Self {
        Self { path, file: None, length: 0 }
    }

    /// Whether it is there.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.file.is_some()
    }

    /// The bytes that it had when it was opened.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }
}

impl ReadAt for Slices {
    fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            let (part, within) = self.locate(offset).ok_or(io::ErrorKind::UnexpectedEof)?;
            let file = part.file.as_ref().ok_or_else(|| absent(&part.path))?;
            let here = usize::try_from(self.room - within).unwrap_or(usize::MAX).min(buffer.len());
            let (now, rest) = buffer.split_at_mut(here);
            ReadAt::read_exact_at(file, now, within)?;
            buffer = rest;
            offset += here as u64;
        }
        Ok(())
    }

    fn read_cached_at(&self, buffer: &mut [u8], offset: u64) -> bool {
        // what stands in two volumes is read by a thread that may wait
        let Some((part, within)) = self.locate(offset) else { return false };
        let fits = buffer.len() as u64 <= self.room - within;
        fits && part.file.as_ref().is_some_and(|file| ReadAt::read_cached_at(file, buffer, within))
    }
}

fn absent(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("`{}` is not there", path.display()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn volumes(folder: &Path, sizes: &[Option<u64>], room: u64) -> Slices {
        let make = |(i, size): (usize, &Option<u64>)| {
            let path = folder.join(format!("v{i}"));
            let Some(size) = size else { return Slice::absent(path) };
            let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).expect("file");
            file.set_len(*size).expect("size");
            Slice::open(path, file).expect("slice")
        };
        Slices::volumes(sizes.iter().enumerate().map(make).collect(), room)
    }

    #[test]
    fn volumes_at_the_end_that_nobody_knew_of_are_named_too() {
        let part = |number| Slice::absent(volumes::name(Path::new("here/b.tar"), number));
        let slices = Slices::volumes(vec![part(1), part(2)], 10);
        let names = |range| slices.paths(range).iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        assert_eq!(names(3..10), ["here/b.tar.001"]);
        assert_eq!(names(15..31), ["here/b.tar.002", "here/b.tar.003", "here/b.tar.004"]);
        assert_eq!(names(0..u64::MAX).len(), volumes::MAX_VOLUMES as usize);
    }

    #[test]
    fn what_is_absent_or_short_cannot_be_read_and_the_rest_can() {
        let folder = tempfile::tempdir().expect("folder");
        let slices = volumes(folder.path(), &[Some(4), None, Some(2), Some(3)], 4);
        assert_eq!((slices.length(), slices.room()), (15, Some(4)));
        for (start, end, fits) in [
            (0, 4, true),
            (0, 5, false),
            (4, 8, false),
            (8, 10, true),
            (8, 11, false),
            (12, 15, true),
            (12, 16, false),
            (16, 17, false),
        ] {
            let mut buffer = vec![0; end - start];
            assert_eq!(slices.read_exact_at(&mut buffer, start as u64).is_ok(), fits, "{start}..{end}");
        }
    }

    proptest! {
        #[test]
        fn volumes_are_one_file(
            room in 1_u64..20,
            writes in prop::collection::vec((0_u64..60, prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 0..4)), 0..8),
        ) {
            let folder = tempfile::tempdir().expect("folder");
            let total = 100_u64;
            let sizes: Vec<_> = (0..total.div_ceil(room)).map(|i| Some(room.min(total - i * room))).collect();
            let slices = volumes(folder.path(), &sizes, room);
            let mut expected = vec![0; 100];
            for (offset, chunks) in writes {
                let joined = chunks.concat();
                expected[offset as usize..][..joined.len()].copy_from_slice(&joined);
                let chunks: Vec<Bytes> = chunks.into_iter().map(Bytes::from).collect();
                slices.write_all_at(&chunks, offset).expect("write");
            }
            let mut all = vec![0; 100];
            slices.read_exact_at(&mut all, 0).expect("read");
            prop_assert_eq!(&all, &expected);
            let joined: Vec<u8> = slices.parts().iter().flat_map(|p| std::fs::read(&p.path).expect("part")).collect();
            prop_assert_eq!(joined, expected);
        }
    }
}
