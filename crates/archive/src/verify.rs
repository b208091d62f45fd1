//! Reading every byte of a bundle again, on all cores.

use std::cmp::Reverse;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ferry_content::files::ReadAt as _;
use ferry_image::{Algorithm, Digest, Hasher};

use crate::bundle::Member;
use crate::source::Positioned;
use crate::{Bundle, Error, Slices, Trust, frame, front, list, signers};

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
    /// [`check`](Self::check), for who needs to know only whether all is well.
    ///
    /// # Errors
    /// The first thing that does not hold: volumes before the structure, and that before blobs.
    pub fn verify(&self, threads: usize, cold: bool, progress: &(dyn Fn(u64) + Sync)) -> Result<Verified, Error> {
        let checked = self.check(threads, cold, progress);
        checked.map_err(|mut faults| faults.swap_remove(0))
    }

    /// Looks at the structure again, and hashes every member against its line in the signed sums, on `threads` threads (at least
    /// one), the largest first. `cold` drops the files from the page cache before, so that the medium itself is read.
    /// `progress` is told of bytes as they are read, from any thread. Blocking.
    ///
    /// # Errors
    /// Everything that does not hold, at least one: [`Error::VolumesDiffer`], which is the cause of all else where volumes were swapped; the
    /// structure in the order of the file; then [`Error::Damaged`] with all damaged members together.
    pub fn check(&self, threads: usize, cold: bool, progress: &(dyn Fn(u64) + Sync)) -> Result<Verified, Vec<Error>> {
        if cold {
            self.read_front_again().map_err(|e| vec![e])?;
        }
        let mut faults = frame::faults(&self.slices, &self.path, &self.front);
        let listed = self.listed().unwrap_or_else(|fault| {
            faults.push(fault);
            None
        });
        faults.extend(self.damaged(threads, progress));
        if !faults.is_empty() {
            // only now is it worth another pass to know which volumes are the bad ones
            let wrong = listed.map(|listed| list::compare(&self.slices, &listed, &|_| {}));
            match wrong {
                Some(Ok(wrong)) if !wrong.is_empty() => faults.insert(0, Error::VolumesDiffer { wrong }),
                Some(Err(error)) => faults.push(error),
                _ => {}
            }
            return Err(faults);
        }
        Ok(self.all())
    }

    /// Whether all members and what stands around them are right: the bundle itself, whatever stands beside it.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub(crate) fn check_members(&self, threads: usize, progress: &(dyn Fn(u64) + Sync)) -> Result<Verified, Error> {
        let faults = frame::faults(&self.slices, &self.path, &self.front).into_iter();
        faults.chain(self.damaged(threads, progress)).next().map_or_else(|| Ok(self.all()), Err)
    }

    fn all(&self) -> Verified {
        let bytes = self.front.members.iter().map(|m| m.size).sum();
        Verified { bytes, blobs: self.head().blobs.len() }
    }

    /// Hashes every member; all that are damaged together.
    fn damaged(&self, threads: usize, progress: &(dyn Fn(u64) + Sync)) -> Option<Error> {
        let members = &self.front.members;
        let mut order: Vec<usize> = (0..members.len()).collect();
        order.sort_by_key(|i| Reverse(members[*i].size));
        let (next, damaged) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let work = || {
            // Each reads through a file of its own: read-ahead is kept per open file.
            let own = self.slices.reopen();
            let file = own.as_ref().unwrap_or(&self.slices);
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
        let members: Vec<_> = damaged.into_iter().map(|(i, found)| self.damage(&members[i], found)).collect();
        (!members.is_empty()).then(|| Error::Damaged { path: self.path.clone(), members })
    }

    /// The digests of its volumes, where they are listed beside it.
    pub(crate) fn listed(&self) -> Result<Option<Vec<Digest>>, Error> {
        let Some(room) = self.slices.room() else { return Ok(None) };
        let (head, front) = (self.head(), &self.front);
        let comment = list::comment(&head.name, head.version.as_deref(), &front.sums_digest);
        // a list has one signature at most, that of the key inside: where others vouch for the bundle, it may be by that key, or by none
        let vouched = front.signed.signers.iter().any(|signer| signer.inside);
        let trust = Trust { allow_unsigned: self.trust.allow_unsigned || !vouched, ..self.trust.clone() };
        list::read(&self.path, &self.slices, &trust, Some(&comment), front.size.div_ceil(room))
    }

    /// Forgets what the page cache knows of the files, and reads the front from the medium.
    fn read_front_again(&self) -> Result<(), Error> {
        self.slices.drop_cache().map_err(|(path, e)| Error::io("read", path, e))?;
        let (slices, path) = (&*self.slices, self.path.as_path());
        let mut source = Positioned { slices, path, length: slices.length() };
        let beside = signers::beside(path, slices)?;
        if front::read(&mut source, path, &self.trust, &beside)? != self.front {
            let why = "the medium holds other bytes than were read before".to_owned();
            return Err(Error::Structure { path: self.path.clone(), offset: 0, why });
        }
        Ok(())
    }
}

fn hash(
    slices: &Slices,
    member: &Member,
    buffer: &mut [u8],
    progress: &(dyn Fn(u64) + Sync),
) -> std::io::Result<Digest> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let (mut at, end) = (member.offset, member.offset + member.size);
    while at < end {
        let size = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let chunk = &mut buffer[..size];
        slices.read_exact_at(chunk, at)?;
        hasher.update(chunk);
        at += size as u64;
        progress(size as u64);
    }
    Ok(hasher.finish())
}
