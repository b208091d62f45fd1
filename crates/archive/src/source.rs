//! Where the front of a bundle is read from: files by position, or a pipe that goes one way.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ferry_content::files::read_range;

use crate::member::BLOCK;
use crate::{Error, Slices, volumes};

/// Bytes at a place, in ascending order; only the last block that was read may be read again.
pub(crate) trait Source {
    /// Reads `size` bytes at `at`.
    fn read(&mut self, at: u64, size: u64) -> Result<Bytes, Error>;

    /// The size of the whole, if it is known before the end.
    fn length(&self) -> Option<u64>;
}

/// Files.
pub(crate) struct Positioned<'a> {
    pub(crate) slices: &'a Slices,
    pub(crate) path: &'a Path,
    pub(crate) length: u64,
}

impl Source for Positioned<'_> {
    fn read(&mut self, at: u64, size: u64) -> Result<Bytes, Error> {
        let expected = at.saturating_add(size);
        if let Some(gaps) = (!self.slices.has(at, size)).then(|| volumes::gaps(self.slices, self.path)).flatten() {
            return Err(gaps);
        }
        if expected > self.length {
            return Err(Error::Truncated { path: self.path.to_owned(), expected, found: self.length });
        }
        let path = || self.slices.locate(at).map_or(self.path, |(part, _)| &part.path);
        read_range(self.slices, &(at..expected)).map_err(|e| Error::io("read", path(), e))
    }

    fn length(&self) -> Option<u64> {
        Some(self.length)
    }
}

/// A pipe.
pub(crate) struct Sequential {
    reader: Box<dyn Read + Send>,
    /// What it is called in messages.
    path: PathBuf,
    at: u64,
    /// The last block.
    last: Bytes,
}

impl Sequential {
    pub(crate) fn new(reader: Box<dyn Read + Send>, path: &Path) -> Self {
        Self { reader, path: path.to_owned(), at: 0, last: Bytes::new() }
    }

    /// Bytes read so far.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Whether nothing follows. One byte is read to find out.
    pub(crate) fn is_at_end(&mut self) -> Result<bool, Error> {
        let mut byte = [0];
        loop {
            match self.reader.read(&mut byte) {
                Ok(read) => return Ok(read == 0),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("read", &self.path, e)),
            }
        }
    }
}

impl Source for Sequential {
    fn read(&mut self, at: u64, size: u64) -> Result<Bytes, Error> {
        let again = self.at - self.last.len() as u64;
        if at == again && size <= self.last.len() as u64 && size > 0 {
            return Ok(self.last.slice(..usize::try_from(size).unwrap_or(0)));
        }
        if at != self.at {
            let other = std::io::Error::other(format!("byte {at} was asked for after byte {}", self.at));
            return Err(Error::io("read", &self.path, other));
        }
        // Nothing is allocated because of a size that is only said.
        let mut bytes = Vec::new();
        let read = (&mut self.reader).take(size).read_to_end(&mut bytes);
        read.map_err(|e| match e.kind() {
            // of volumes one after the other
            ErrorKind::NotFound => Error::NoVolume { why: e.to_string() },
            _ => Error::io("read", &self.path, e),
        })?;
        self.at += bytes.len() as u64;
        if (bytes.len() as u64) < size {
            return Err(Error::Truncated { path: self.path.clone(), expected: at + size, found: self.at });
        }
        let bytes = Bytes::from(bytes);
        self.last = if size == BLOCK { bytes.clone() } else { Bytes::new() };
        Ok(bytes)
    }

    fn length(&self) -> Option<u64> {
        None
    }
}
