//! A bundle that comes through a pipe, or from volumes one after the other: read once, from front to end.
//!
//! The front is believed as that of a file is; everything after it is checked as it passes. What was taken from such a bundle counts
//! only when [`Incoming::finish`] has seen its end.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ferry_content::files::CHUNK;
use ferry_image::{Digest, Hasher};

use crate::bundle::Member;
use crate::front::{self, Front};
use crate::member::{self, BLOCK, END};
use crate::signers::{self, Beside, Signed};
use crate::source::{Sequential, Source as _};
use crate::volumes::{EndsAt, InOrder};
use crate::{Damage, Error, Head, Location, Trust, disk, frame};

/// A bundle on its way in.
pub struct Incoming {
    source: Sequential,
    front: Front,
    path: PathBuf,
    /// The member after the current one, by its place among the members.
    next: usize,
    /// Bytes of the current member that were not read yet.
    left: u64,
}

/// What an incoming bundle is read from.
pub struct Inflow {
    reader: Box<dyn Read + Send>,
    ends_at: Option<EndsAt>,
    beside: Vec<Beside>,
}

impl<R: Read + Send + 'static> From<Box<R>> for Inflow {
    fn from(reader: Box<R>) -> Self {
        Self { reader, ends_at: None, beside: Vec::new() }
    }
}

impl Inflow {
    /// Volumes one after the other, with the signatures that stand in the folder of the bundle's name and in those of the volumes that
    /// are there. `next` gives each when it is needed, and may wait until somebody brings it.
    ///
    /// # Errors
    /// [`Error::Io`] when a folder cannot be read.
    pub fn volumes(
        location: &Location,
        next: impl FnMut(u32) -> std::io::Result<File> + Send + 'static,
    ) -> Result<Self, Error> {
        let beside = signers::beside_any(&location.base, location.volumes.values().map(PathBuf::as_path))?;
        let (reader, ends_at) = InOrder::new(next);
        Ok(Self { reader: Box::new(reader), ends_at: Some(ends_at), beside })
    }
}

/// A member whose bytes come next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arriving {
    /// Its name.
    pub name: String,
    /// The digest that its bytes must have.
    pub digest: Digest,
    /// How many they are.
    pub size: u64,
    /// Whether it is a blob, or a carried file.
    pub is_blob: bool,
}

impl Incoming {
    /// Reads the front: the signature by `trust`, then the head. `path` is what the bundle is called in messages. Blocking, as
    /// everything here.
    ///
    /// # Errors
    /// As [`Bundle::open`](crate::Bundle::open).
    pub fn open(inflow: impl Into<Inflow>, path: &Path, trust: &Trust) -> Result<Self, Error> {
        let Inflow { reader, ends_at, beside } = inflow.into();
        let mut source = Sequential::new(reader, path);
        let front = front::read(&mut source, path, trust, &beside)?;
        if let Some(ends_at) = ends_at {
            ends_at.set(front.size);
        }
        let next = front.read;
        Ok(Self { source, front, path: path.to_owned(), next, left: 0 })
    }

    /// What it says of itself.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.front.head
    }

    /// What its signatures say.
    #[must_use]
    pub fn signed(&self) -> &Signed {
        &self.front.signed
    }

    /// The digest of its `SHA256SUMS`.
    #[must_use]
    pub fn sums_digest(&self) -> &Digest {
        &self.front.sums_digest
    }

    /// The size of the whole in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.front.size
    }

    /// What it is called in messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is room for the whole of it in the file at `path`.
    ///
    /// # Errors
    /// [`Error::DiskFull`], with what is needed and what is free; [`Error::Io`].
    pub fn check_room(&self, path: &Path) -> Result<(), Error> {
        disk::check_room(path, self.front.size, self.source.at())
    }

    /// Bytes hashed or compared when all has passed: what progress is counted against.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.front.members.iter().map(|m| m.size).sum()
    }

    /// The member that comes after the current one, without going on to it.
    #[must_use]
    pub fn peek(&self) -> Option<Arriving> {
        self.front.members.get(self.next).map(|member| self.arriving(member))
    }

    /// Goes on to the next member: carried files, then blobs in the order of the head. What was not read of the current one is read
    /// past, without a look at its digest.
    ///
    /// # Errors
    /// [`Error::Structure`]; [`Error::Truncated`]; [`Error::Io`].
    pub fn advance(&mut self) -> Result<Option<Arriving>, Error> {
        while self.read(CHUNK)?.is_some() {}
        let Some(member) = self.front.members.get(self.next).cloned() else { return Ok(None) };
        self.padding()?;
        let block = self.source.read(self.source.at(), BLOCK)?;
        let names = |name: &str| self.front.members.iter().any(|m| m.name == name);
        frame::header(&self.path, &block, member.offset - BLOCK, &member.name, member.size, names)?;
        self.next += 1;
        self.left = member.size;
        Ok(Some(self.arriving(&member)))
    }

    /// The next bytes of the current member, at most `most`; `None` after its last. They are not hashed.
    ///
    /// # Errors
    /// [`Error::Truncated`]; [`Error::Io`].
    pub fn read(&mut self, most: u64) -> Result<Option<Bytes>, Error> {
        let now = self.left.min(most);
        if now == 0 {
            return Ok(None);
        }
        let bytes = self.source.read(self.source.at(), now)?;
        self.left -= now;
        Ok(Some(bytes))
    }

    /// Reads the current member whole, and checks it.
    ///
    /// # Errors
    /// [`Error::TooLarge`] above `limit` bytes; [`Error::Damaged`]; as [`read`](Self::read).
    pub fn read_small(&mut self, limit: u64) -> Result<Bytes, Error> {
        let member = self.current();
        if member.size > limit {
            let (path, size) = (self.path.clone(), member.size);
            return Err(Error::TooLarge { path, member: member.name, size, limit });
        }
        let bytes = self.read(limit)?.unwrap_or_default();
        let found = Digest::of(&bytes);
        match found == member.digest {
            true => Ok(bytes),
            false => Err(Error::Damaged { path: self.path.clone(), members: vec![damage(&member, found)] }),
        }
    }

    /// Reads past the current member and hashes it; what is wrong with it, if anything. `progress` is told of bytes as they pass.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn check(&mut self, progress: &dyn Fn(u64)) -> Result<Option<Damage>, Error> {
        let member = self.current();
        let mut hasher = Hasher::new(member.digest.algorithm());
        while let Some(bytes) = self.read(CHUNK)? {
            hasher.update(&bytes);
            progress(bytes.len() as u64);
        }
        let found = hasher.finish();
        Ok((found != member.digest).then(|| damage(&member, found)))
    }

    /// Reads to the end: nothing may be left out, and nothing may follow.
    ///
    /// # Errors
    /// [`Error::Structure`]; [`Error::Truncated`]; [`Error::TrailingBytes`]; [`Error::Io`].
    pub fn finish(mut self) -> Result<(), Error> {
        while self.advance()?.is_some() {}
        self.padding()?;
        let at = self.source.at();
        let marker = self.source.read(at, END)?;
        let names = |name: &str| self.front.members.iter().any(|m| m.name == name);
        frame::end(&self.path, &marker, 0, at + END, names)?;
        let expected = at + END;
        match self.source.is_at_end()? {
            true => Ok(()),
            false => Err(Error::TrailingBytes { path: self.path, expected, found: expected + 1 }),
        }
    }

    /// The padding after the current member. That of the front was read with it.
    fn padding(&mut self) -> Result<(), Error> {
        if self.next == self.front.read {
            return Ok(());
        }
        let member = self.current();
        let at = self.source.at();
        let zeros = self.source.read(at, member::padding(member.size))?;
        frame::padding(&self.path, &zeros, at, &member.name)
    }

    fn current(&self) -> Member {
        self.front.members[self.next - 1].clone()
    }

    fn arriving(&self, member: &Member) -> Arriving {
        let Member { name, digest, size, .. } = member.clone();
        Arriving { is_blob: name.starts_with("blobs/"), name, digest, size }
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").field("path", &self.path).field("next", &self.next).finish_non_exhaustive()
    }
}

fn damage(member: &Member, found: Digest) -> Damage {
    let Member { name, offset, size, .. } = member.clone();
    Damage { name, offset, size, volumes: Vec::new(), found: Some(found) }
}
