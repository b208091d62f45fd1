//! Tars as input for the index: plain ones by position, compressed ones in one pass through a nameless file in the spool folder.
//!
//! The unpacked tar stands on the disk, not in memory, is never larger than the limit, and is gone when the source is dropped,
//! even after `kill -9`, because it has no name.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use ferry_image::media_type::Compression;

use super::extent::fill;
use super::tarball::Input;
use super::{Limits, fault};
use crate::Error;

/// What is left free in the spool folder for whatever else is written there.
const RESERVE: u64 = 64 << 20;
const BUFFER: usize = 256 << 10;

/// A plain tar.
pub(super) struct Plain<'a> {
    file: &'a File,
    path: &'a Path,
    at: u64,
    length: u64,
}

impl<'a> Plain<'a> {
    pub(super) fn new(file: &'a File, path: &'a Path, length: u64) -> Self {
        Self { file, path, at: 0, length }
    }
}

impl Input for Plain<'_> {
    fn position(&self) -> u64 {
        self.at
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], self.at) {
                Ok(0) => break,
                Ok(n) => {
                    filled += n;
                    self.at += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("read", self.path, e)),
            }
        }
        Ok(filled)
    }

    fn skip(&mut self, length: u64) -> Result<bool, Error> {
        self.at = self.at.saturating_add(length);
        Ok(self.at <= self.length)
    }
}

/// A compressed tar on its way into the spool.
pub(super) struct Unpack<'a> {
    decoder: Box<dyn Read>,
    out: BufWriter<File>,
    path: &'a Path,
    spool: PathBuf,
    at: u64,
    limit: u64,
    limited_by_room: bool,
    cancelled: &'a AtomicBool,
}

impl<'a> Unpack<'a> {
    /// Begins to unpack `file`, which is compressed with `compression`.
    pub(super) fn new(
        file: File,
        compression: Compression,
        path: &'a Path,
        spool: &Path,
        limits: &Limits,
        cancelled: &'a AtomicBool,
    ) -> Result<Self, Error> {
        std::fs::create_dir_all(spool).map_err(|e| Error::io("create", spool, e))?;
        let out = tempfile::tempfile_in(spool).map_err(|e| Error::io("create a file in", spool, e))?;
        let room =
            crate::disk::free_space(spool).map_err(|e| crate::Error::io("measure", spool, e))?.saturating_sub(RESERVE);
        let decoder = decoder(file, compression).map_err(|e| Error::io("read", path, e))?;
        Ok(Self {
            decoder,
            out: BufWriter::with_capacity(BUFFER, out),
            path,
            spool: spool.to_owned(),
            at: 0,
            limit: limits.max_unpacked.min(room),
            limited_by_room: room < limits.max_unpacked,
            cancelled,
        })
    }

    /// Reads on to the end of the compressed file, whose checksum is only there, and gives back the unpacked tar.
    pub(super) fn finish(mut self) -> Result<File, Error> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let filled = self.read(&mut buffer)?;
            if filled == 0 {
                break;
            }
            self.count(filled)?;
        }
        let spool = self.spool;
        self.out.into_inner().map_err(|e| Error::io("write", spool, e.into_error()))
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        fill(&mut *self.decoder, buffer).map_err(|e| undecodable(self.path, "", e))
    }

    fn count(&mut self, length: usize) -> Result<(), Error> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Error::io("read", self.path, io::ErrorKind::Interrupted.into()));
        }
        self.at += length as u64;
        if self.at <= self.limit {
            return Ok(());
        }
        let hint = "unpack it yourself where there is room (`gzip -d`, `zstd -d`) and give ferry the tar";
        if self.limited_by_room {
            let why = format!("unpacked it has more than the {} bytes free in `{}`", self.limit, self.spool.display());
            return Err(fault::no_room(self.path, why, hint));
        }
        let why = format!("unpacked it has more than the {} bytes that are allowed", self.limit);
        Err(fault::invalid(self.path, why, hint))
    }
}

impl Input for Unpack<'_> {
    fn position(&self) -> u64 {
        self.at
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let filled = self.read(buffer)?;
        self.count(filled)?;
        self.out.write_all(&buffer[..filled]).map_err(|e| Error::io("write", &self.spool, e))?;
        Ok(filled)
    }

    fn skip(&mut self, mut length: u64) -> Result<bool, Error> {
        let mut buffer = vec![0; usize::try_from(length).unwrap_or(BUFFER).min(BUFFER)];
        while length > 0 {
            let wanted = usize::try_from(length).unwrap_or(BUFFER).min(BUFFER);
            if self.fill(&mut buffer[..wanted])? < wanted {
                return Ok(false);
            }
            length -= wanted as u64;
        }
        Ok(true)
    }
}

/// A decoder for gzip (several members too) or zstd (several frames too); anything else is passed through.
pub(super) fn decoder(input: impl Read + 'static, compression: Compression) -> io::Result<Box<dyn Read>> {
    let input = BufReader::with_capacity(BUFFER, input);
    Ok(match compression {
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(input)?),
        Compression::None | Compression::Unknown => Box::new(input),
    })
}

/// A decoder's complaint (no number of the system in it), or a failed read.
pub(super) fn undecodable(path: &Path, what: &str, error: io::Error) -> Error {
    if error.raw_os_error().is_some() {
        return Error::io("read", path, error);
    }
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return fault::damaged(path, format!("{what}its compressed data ends early: it was cut off"));
    }
    fault::damaged(path, format!("{what}its compressed data is damaged ({error})"))
}
