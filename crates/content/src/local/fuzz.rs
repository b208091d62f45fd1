//! The private index of a tar, for the fuzz targets and nobody else. Thin: one call each.
#![allow(missing_docs, clippy::missing_errors_doc, clippy::must_use_candidate)]

use std::path::Path;

use super::tarball::{self, Input, Members};
use crate::Error;

/// The members of a tar in memory.
#[derive(Debug)]
pub struct Tar(Members);

impl Tar {
    pub fn read(bytes: &[u8]) -> Result<Self, Error> {
        tarball::index(&mut Slice { bytes, at: 0 }, Path::new("memory.tar")).map(Self)
    }

    /// Start and length of a file, links followed.
    pub fn find(&self, name: &str) -> Option<(u64, u64)> {
        self.0.find(name)
    }

    /// Why it is refused as an image archive, although it is a tar.
    pub fn fault(&self) -> Option<&str> {
        self.0.fault()
    }
}

struct Slice<'a> {
    bytes: &'a [u8],
    at: u64,
}

impl Input for Slice<'_> {
    fn position(&self) -> u64 {
        self.at
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let rest = usize::try_from(self.at).ok().and_then(|at| self.bytes.get(at..)).unwrap_or_default();
        let filled = rest.len().min(buffer.len());
        buffer[..filled].copy_from_slice(&rest[..filled]);
        self.at += filled as u64;
        Ok(filled)
    }

    fn skip(&mut self, length: u64) -> Result<bool, Error> {
        self.at = self.at.saturating_add(length);
        Ok(self.at <= self.bytes.len() as u64)
    }
}
