//! A run of bytes in a file: a member of a tar, a blob of a layout, a file of the spool.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use ferry_image::media_type::Compression;

use super::fault;
use crate::{ByteStream, Error, files};

/// Bytes of one file, read by position.
#[derive(Debug, Clone)]
pub(super) struct Extent {
    /// The open file; none for files that are opened when they are read, so that many of them need no descriptor each.
    file: Option<Arc<File>>,
    path: PathBuf,
    start: u64,
    /// Bytes.
    pub(super) length: u64,
}

impl Extent {
    /// A part of an open file. `path` is for errors.
    pub(super) fn of(file: Arc<File>, path: &Path, start: u64, length: u64) -> Self {
        Self { file: Some(file), path: path.to_owned(), start, length }
    }

    /// A whole file, opened when it is read.
    pub(super) fn whole(path: PathBuf, length: u64) -> Self {
        Self { file: None, path, start: 0, length }
    }

    /// The file it is in.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self) -> Result<Arc<File>, Error> {
        match &self.file {
            Some(file) => Ok(Arc::clone(file)),
            None => File::open(&self.path).map(Arc::new).map_err(|e| Error::io("read", &self.path, e)),
        }
    }

    /// Streams `range`, counted from the start of the extent; it must lie within.
    pub(super) fn stream(&self, range: Range<u64>) -> Result<ByteStream, Error> {
        let range = self.start + range.start..self.start + range.end;
        Ok(files::stream_range(self.open()?, self.path.clone(), range))
    }

    /// Reads it in order.
    pub(super) fn reader(&self) -> Result<Reader, Error> {
        Ok(Reader { file: self.open()?, at: self.start, end: self.start + self.length })
    }

    /// Reads it whole. `name` is for errors.
    pub(super) fn read_small(&self, name: &str, limit: u64) -> Result<Bytes, Error> {
        if self.length > limit {
            let why = format!("`{name}` has {} bytes; more than {limit} are not read", self.length);
            return Err(fault::damaged(&self.path, why));
        }
        let range = self.start..self.start + self.length;
        files::read_range(&*self.open()?, &range).map_err(|e| Error::io("read", &self.path, e))
    }

    /// How the bytes are compressed, by their first ones.
    pub(super) fn compression(&self) -> Result<Compression, Error> {
        let mut first = [0; 4];
        let filled = fill(&mut self.reader()?, &mut first).map_err(|e| Error::io("read", &self.path, e))?;
        Ok(sniff(&first[..filled]))
    }
}

/// The compression that the first four bytes tell: gzip (RFC 1952), zstd (RFC 8878, skippable frames included), or none.
pub(super) fn sniff(first: &[u8]) -> Compression {
    match first {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Compression::Zstd,
        _ => Compression::None,
    }
}

/// Reads until `buffer` is full or nothing is left, so that the pieces are the same wherever the bytes come from.
pub(super) fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// Reads an extent in order; the file's own cursor is not used.
pub(super) struct Reader {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        if left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let wanted = left.min(buffer.len());
        let read = self.file.read_at(&mut buffer[..wanted], self.at)?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was read"));
        }
        self.at += read as u64;
        Ok(read)
    }
}
