//! Reading every byte of a bundle again, on all cores.

use std::cmp::Reverse;
use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ferry_image::{Algorithm, Digest, Hasher};
use rustix::fs::Advice;

use crate::bundle::Member;
use crate::{Bundle, Damage, Error, strict};

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// What [`Bundle::verify`] read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Bytes of content hashed.
    pub bytes: u64,
    /// Blobs hashed.
    pub blobs: usize,
}

impl Bundle {
    /// Hashes every member against its line in the signed sums, on `threads` threads (at least one), the largest first. `cold`
    /// drops the file from the page cache before, so that the medium itself is read, and checks the structure again.
    /// `progress` is told of bytes as they are read, from any thread. Blocking.
    ///
    /// # Errors
    /// [`Error::Damaged`] with all damaged members together; what [`Bundle::open`] reports, when `cold`.
    pub fn verify(&self, threads: usize, cold: bool, progress: &(dyn Fn(u64) + Sync)) -> Result<Verified, Error> {
        if cold {
            self.drop_cache()?;
        }
        let members = &self.opened.members;
        let mut order: Vec<usize> = (0..members.len()).collect();
        order.sort_by_key(|i| Reverse(members[*i].size));
        let (next, damaged) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let work = || {
            // Each reads through a file of its own: read-ahead is kept per open file.
            let own = self.reopen();
            let file = own.as_ref().unwrap_or(&self.file);
            let mut buffer = vec![0; CHUNK];
            while let Some(i) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                let member = &members[*i];
                let found = hash(file, member, &mut buffer, progress);
                if found.as_ref().ok() != Some(&member.digest)
                    && let Ok(mut list) = damaged.lock()
                {
                    list.push((*i, found.ok()));
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.min(members.len()) {
                // Where no thread can be had, the others do the work.
                let _ = std::thread::Builder::new().name("verify".to_owned()).spawn_scoped(scope, work);
            }
            work();
        });
        let mut damaged = damaged.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        damaged.sort_by_key(|(i, _)| *i);
        if damaged.is_empty() {
            let bytes = members.iter().map(|m| m.size).sum();
            return Ok(Verified { bytes, blobs: self.head().blobs.len() });
        }
        let describe = |(i, found): (usize, Option<Digest>)| {
            let Member { name, offset, size, .. } = members[i].clone();
            Damage { name, offset, size, found }
        };
        Err(Error::Damaged { path: self.path.clone(), members: damaged.into_iter().map(describe).collect() })
    }

    /// Forgets what the page cache knows of the file, and reads the structure from the medium again.
    fn drop_cache(&self) -> Result<(), Error> {
        let failed = |e: std::io::Error| Error::io("read", &self.path, e);
        // Pages that were not yet written cannot be dropped.
        self.file.sync_data().map_err(failed)?;
        rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed).map_err(|e| failed(e.into()))?;
        if strict::open(&self.file, &self.path, &self.trust)? != self.opened {
            let why = "the medium holds other bytes than were read before".to_owned();
            return Err(Error::Structure { path: self.path.clone(), offset: 0, why });
        }
        Ok(())
    }

    fn reopen(&self) -> Option<File> {
        let file = File::open(&self.path).ok()?;
        let (a, b) = (file.metadata().ok()?, self.file.metadata().ok()?);
        if (a.dev(), a.ino()) != (b.dev(), b.ino()) {
            return None;
        }
        // Advice only: it doubles the read-ahead.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::Sequential);
        Some(file)
    }
}

fn hash(file: &File, member: &Member, buffer: &mut [u8], progress: &(dyn Fn(u64) + Sync)) -> std::io::Result<Digest> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let (mut at, end) = (member.offset, member.offset + member.size);
    while at < end {
        let size = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let chunk = &mut buffer[..size];
        file.read_exact_at(chunk, at)?;
        hasher.update(chunk);
        at += size as u64;
        progress(size as u64);
    }
    Ok(hasher.finish())
}
