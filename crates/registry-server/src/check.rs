//! Which blobs were seen to be what their digest says. A bundle's bytes are checked by the first whole read since the start; what is
//! found damaged is refused from then on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use ferry_content::{ByteStream, Error, Version};
use ferry_image::{Descriptor, Digest, Hasher};
use futures_util::StreamExt as _;
use tokio::sync::{Semaphore, watch};

use crate::Backend;

/// How long a request for a part of an unchecked blob waits for the check of the whole, before it is answered all the same. Clients check
/// what they put together from parts; this only spares them the trouble with all but huge blobs.
const PATIENCE: Duration = Duration::from_secs(2);

/// Blobs that are read for the sake of a check alone, at once.
const AT_ONCE: usize = 2;

/// What is known of every blob that was looked at.
#[derive(Debug)]
pub(crate) struct Checks {
    blobs: Mutex<HashMap<Digest, Known>>,
    /// The hashes of blobs that are being read whole.
    hashes: Mutex<HashMap<Digest, Weak<SharedHash>>>,
    /// Reads that no client waits for any more must not take the disk from those that one waits for.
    turns: Semaphore,
}

impl Default for Checks {
    fn default() -> Self {
        Self { blobs: Mutex::default(), hashes: Mutex::default(), turns: Semaphore::new(AT_ONCE) }
    }
}

#[derive(Debug, Default)]
struct Known {
    version: Version,
    /// How often it became another: a read that began before that says nothing of what is there now.
    generation: u64,
    /// `None` until it is read whole.
    state: Option<State>,
}

#[derive(Debug, Clone)]
enum State {
    Good,
    Damaged,
    /// A task reads it whole at the moment.
    Running(watch::Receiver<()>),
}

impl State {
    fn is_good(&self) -> bool {
        matches!(self, Self::Good)
    }

    fn is_damaged(&self) -> bool {
        matches!(self, Self::Damaged)
    }
}

impl Known {
    fn change(&mut self) {
        self.generation += 1;
        self.state = None;
    }
}

/// The hash of a blob that is read whole, by one client, or by many at once where its bytes cannot become others (a bundle's are refused
/// then; a store's file has a hash for each reader). Each begins at the first byte and brings in what comes; whoever is the furthest moves
/// the hash on, so that the bytes are hashed once, and nobody waits for a slower one.
#[derive(Debug)]
pub(crate) struct SharedHash {
    /// The blob's generation when it began.
    begun: u64,
    front: Mutex<Front>,
}

#[derive(Debug)]
struct Front {
    hasher: Hasher,
    /// How many bytes are hashed.
    at: u64,
    found: Option<Digest>,
}

impl SharedHash {
    fn new(begun: u64, blob: &Descriptor) -> Self {
        let hasher = Hasher::new(blob.digest.algorithm());
        Self { begun, front: Mutex::new(Front { hasher, at: 0, found: None }) }
    }

    fn front(&self) -> MutexGuard<'_, Front> {
        self.front.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings in the bytes at `offset`, all before which the same reader has brought in.
    pub(crate) fn update(&self, offset: u64, bytes: &[u8]) {
        let mut front = self.front();
        // what is before the front was hashed when another reader brought it
        let known = usize::try_from(front.at.saturating_sub(offset)).unwrap_or(usize::MAX);
        if let Some(new) = bytes.get(known..).filter(|new| !new.is_empty() && front.found.is_none()) {
            front.hasher.update(new);
            front.at += new.len() as u64;
        }
    }

    /// The digest of what was brought in, for a reader that came to the end of the blob.
    fn finish(&self, blob: &Descriptor) -> Digest {
        let mut front = self.front();
        let Front { hasher, found, .. } = &mut *front;
        let finish = || std::mem::replace(hasher, Hasher::new(blob.digest.algorithm())).finish();
        found.get_or_insert_with(finish).clone()
    }
}

impl Checks {
    fn blobs(&self) -> MutexGuard<'_, HashMap<Digest, Known>> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is(&self, digest: &Digest, wanted: fn(&State) -> bool) -> bool {
        self.blobs().get(digest).and_then(|known| known.state.as_ref()).is_some_and(wanted)
    }

    pub(crate) fn is_good(&self, digest: &Digest) -> bool {
        self.is(digest, State::is_good)
    }

    pub(crate) fn is_damaged(&self, digest: &Digest) -> bool {
        self.is(digest, State::is_damaged)
    }

    /// Told which bytes stand there now. What was found of others is forgotten: all of it where there is another file; that it was good
    /// also where the file was written to. That it was damaged is not: nobody mends a file within itself, and its time is changed by who
    /// only says that it is needed.
    pub(crate) fn see(&self, digest: &Digest, version: Version) {
        let mut blobs = self.blobs();
        let known = blobs.entry(digest.clone()).or_insert_with(|| Known { version, ..Known::default() });
        if known.version == version {
            return;
        }
        let is_same_file = known.version.file == version.file;
        known.version = version;
        if !(is_same_file && known.state.as_ref().is_some_and(State::is_damaged)) {
            known.change();
        }
    }

    /// Looks whether those that were found damaged are other files by now. Blocks.
    pub(crate) fn review(&self, backend: &dyn Backend) {
        for digest in self.damaged() {
            let blob = Descriptor::new("application/octet-stream", digest, 0);
            self.see(&blob.digest, backend.blobs().version(&blob));
        }
    }

    /// Those that were found damaged.
    pub(crate) fn damaged(&self) -> Vec<Digest> {
        let blobs = self.blobs();
        let damaged = blobs.iter().filter(|(_, known)| known.state.as_ref().is_some_and(State::is_damaged));
        damaged.map(|(digest, _)| digest.clone()).collect()
    }

    /// How many were found good, and damaged.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let blobs = self.blobs();
        let states = || blobs.values().filter_map(|known| known.state.as_ref());
        (states().filter(|s| s.is_good()).count() as u64, states().filter(|s| s.is_damaged()).count() as u64)
    }

    /// Told that the blob is not here.
    pub(crate) fn gone(&self, digest: &Digest) {
        if let Some(known) = self.blobs().get_mut(digest) {
            known.change();
        }
    }

    /// The blob was written anew, or comes from elsewhere from now on.
    pub(crate) fn forget(&self, digest: &Digest) {
        self.blobs().entry(digest.clone()).or_default().change();
    }

    /// The hash for a whole read that begins now; [`conclude`](Self::conclude) ends it.
    pub(crate) fn begin(&self, blob: &Descriptor) -> Arc<SharedHash> {
        let (begun, version) = match self.blobs().get(&blob.digest) {
            Some(known) => (known.generation, known.version),
            None => Default::default(),
        };
        if version != Version::default() {
            return Arc::new(SharedHash::new(begun, blob));
        }
        let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        hashes.retain(|_, hash| hash.strong_count() > 0);
        let shared = hashes.get(&blob.digest).and_then(Weak::upgrade).filter(|hash| hash.begun == begun);
        shared.unwrap_or_else(|| {
            let hash = Arc::new(SharedHash::new(begun, blob));
            hashes.insert(blob.digest.clone(), Arc::downgrade(&hash));
            hash
        })
    }

    /// A read broke off: where the bytes were read may be another place for the next one.
    pub(crate) fn abandon(&self, blob: &Descriptor) {
        self.hashes.lock().unwrap_or_else(PoisonError::into_inner).remove(&blob.digest);
    }

    fn note(&self, begun: u64, digest: &Digest, state: State) {
        let mut blobs = self.blobs();
        let known = blobs.entry(digest.clone()).or_default();
        if known.generation == begun {
            known.state = Some(state);
        }
    }

    /// Notes what a whole read of `size` bytes found.
    pub(crate) fn conclude(&self, hash: &SharedHash, place: &str, blob: &Descriptor, size: u64) -> Result<(), Error> {
        let (begun, place, expected) = (hash.begun, place.to_owned(), blob.digest.clone());
        let error = if size == blob.size {
            let found = hash.finish(blob);
            if found == expected {
                self.note(begun, &blob.digest, State::Good);
                return Ok(());
            }
            Error::DigestMismatch { place, expected, found }
        } else {
            // others may go on with the hash
            Error::SizeMismatch { place, digest: expected, expected: blob.size, found: size }
        };
        tracing::error!(%error, "a damaged blob is refused from now on");
        self.note(begun, &blob.digest, State::Damaged);
        Err(error)
    }

    /// Reads the blob whole, once for however many ask, and waits a while for the outcome.
    pub(crate) async fn settle(self: &Arc<Self>, backend: &Arc<dyn Backend>, blob: &Descriptor) {
        let mut outcome = {
            let mut blobs = self.blobs();
            let known = blobs.entry(blob.digest.clone()).or_default();
            match &known.state {
                Some(State::Running(outcome)) => outcome.clone(),
                Some(_) => return,
                None => {
                    let (done, outcome) = watch::channel(());
                    known.state = Some(State::Running(outcome.clone()));
                    tokio::spawn(check(Arc::clone(self), Arc::clone(backend), blob.clone(), done));
                    outcome
                }
            }
        };
        // The sender is dropped at the end, which ends this wait too.
        let _ = tokio::time::timeout(PATIENCE, outcome.changed()).await;
    }
}

async fn check(checks: Arc<Checks>, backend: Arc<dyn Backend>, blob: Descriptor, _done: watch::Sender<()>) {
    let _turn = checks.turns.acquire().await;
    let (place, hash) = (backend.blobs().place(), checks.begin(&blob));
    let read = match backend.blobs().open(&blob, 0..blob.size).await {
        Ok(stream) => read_whole(stream, &hash).await,
        Err(error) => Err(error),
    };
    match read {
        Ok(size) => drop(checks.conclude(&hash, &place, &blob, size)),
        Err(error) => {
            checks.abandon(&blob);
            // Not the blob's fault, perhaps: the next request tries again.
            tracing::warn!(%error, digest = %blob.digest, "cannot check a blob");
            checks.forget(&blob.digest);
        }
    }
}

async fn read_whole(mut stream: ByteStream, hash: &SharedHash) -> Result<u64, Error> {
    let mut size = 0;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        hash.update(size, &chunk);
        size += chunk.len() as u64;
        tokio::task::yield_now().await;
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_read_that_began_before_a_mending_push_says_nothing_of_it() {
        let (checks, blob) = (Checks::default(), Descriptor::of("x", b"blob"));
        let before = checks.begin(&blob);
        before.update(0, b"bad!");
        checks.forget(&blob.digest);
        let after = checks.begin(&blob);
        after.update(0, b"bad!");
        assert!(checks.conclude(&before, "b.tar", &blob, 4).is_err(), "the transfer breaks");
        assert!(!checks.is_damaged(&blob.digest));
        assert!(checks.conclude(&after, "b.tar", &blob, 4).is_err());
        assert!(checks.is_damaged(&blob.digest));
    }

    #[test]
    fn another_file_is_another_blob_and_one_that_was_written_to_is_checked_again() {
        let (checks, blob) = (Checks::default(), Descriptor::of("x", b"blob"));
        let version = |file, second| Version { file: (file, 0), written: (second, 0) };
        let find = |bytes: &[u8]| {
            let hash = checks.begin(&blob);
            hash.update(0, bytes);
            let _ = checks.conclude(&hash, "store", &blob, 4);
        };
        let state = || (checks.is_good(&blob.digest), checks.is_damaged(&blob.digest));
        let see = |version| checks.see(&blob.digest, version);
        see(version(1, 1));
        find(b"blob");
        see(version(1, 1));
        assert_eq!(state(), (true, false));
        see(version(1, 2));
        assert_eq!(state(), (false, false), "its bytes may be others");
        find(b"bad!");
        see(version(1, 3));
        assert_eq!(state(), (false, true), "a new time mends nothing");
        see(version(2, 3));
        assert_eq!(state(), (false, false), "another file may");
        let before = checks.begin(&blob);
        before.update(0, b"bad!");
        see(version(3, 3));
        let _ = checks.conclude(&before, "store", &blob, 4);
        assert_eq!(state(), (false, false), "that was of another file");
    }

    /// How readers of one blob come along: each a number of bytes, in whatever order, some going away in between.
    fn reads() -> impl Strategy<Value = (Vec<u8>, Vec<(usize, usize)>)> {
        (vec(any::<u8>(), 1..400), vec((0..4_usize, 0..120_usize), 1..60))
    }

    proptest! {
        #[test]
        fn however_readers_mix_each_gets_the_blobs_own_verdict((bytes, steps) in reads(), flip in any::<Option<u8>>()) {
            let (checks, blob) = (Checks::default(), Descriptor::of("x", &bytes));
            let mut there = bytes.clone();
            if let Some(flip) = flip {
                let at = usize::from(flip) % there.len();
                there[at] ^= 1;
            }
            let mut readers: Vec<Option<(Arc<SharedHash>, usize)>> = std::iter::repeat_with(|| None).take(4).collect();
            for (reader, step) in steps {
                // one that reads nothing has gone away
                if step == 0 {
                    readers[reader] = None;
                    continue;
                }
                let (hash, at) = readers[reader].get_or_insert_with(|| (checks.begin(&blob), 0));
                let end = (*at + step).min(there.len());
                hash.update(*at as u64, &there[*at..end]);
                *at = end;
            }
            for (hash, at) in readers.into_iter().flatten() {
                hash.update(at as u64, &there[at..]);
                let verdict = checks.conclude(&hash, "b.tar", &blob, there.len() as u64);
                prop_assert_eq!(verdict.is_ok(), flip.is_none());
                prop_assert_eq!(checks.is_good(&blob.digest), flip.is_none());
                prop_assert_eq!(checks.is_damaged(&blob.digest), flip.is_some());
            }
        }
    }

    #[test]
    fn one_that_ends_short_says_nothing_of_what_others_read() {
        let (checks, blob) = (Checks::default(), Descriptor::of("x", b"blob"));
        let (short, whole) = (checks.begin(&blob), checks.begin(&blob));
        short.update(0, b"bl");
        let error = checks.conclude(&short, "b.tar", &blob, 2).expect_err("too short");
        assert!(matches!(error, Error::SizeMismatch { found: 2, .. }), "{error}");
        whole.update(0, b"blob");
        checks.conclude(&whole, "b.tar", &blob, 4).expect("good");
        assert!(checks.is_good(&blob.digest));
    }

    #[test]
    fn of_a_file_that_may_be_written_to_each_reader_hashes_what_it_gets() {
        let (checks, blob) = (Checks::default(), Descriptor::of("x", b"blob"));
        checks.see(&blob.digest, Version { file: (1, 1), written: (1, 1) });
        let (first, behind) = (checks.begin(&blob), checks.begin(&blob));
        first.update(0, b"blob");
        behind.update(0, b"bad!");
        checks.conclude(&first, "store", &blob, 4).expect("good");
        assert!(checks.conclude(&behind, "store", &blob, 4).is_err());
    }

    #[test]
    fn many_readers_have_one_hash_and_the_next_ones_a_new_one() {
        let (checks, blob) = (Checks::default(), Descriptor::of("x", b"blob"));
        let (one, other) = (checks.begin(&blob), checks.begin(&blob));
        assert!(Arc::ptr_eq(&one, &other));
        one.update(0, b"bl");
        drop(one);
        other.update(0, b"b");
        other.update(1, b"lob");
        checks.conclude(&other, "b.tar", &blob, 4).expect("good");
        // what broke off may have been read at a place that is given up
        checks.abandon(&blob);
        assert!(!Arc::ptr_eq(&other, &checks.begin(&blob)));
        drop(other);
        drop(checks.begin(&Descriptor::of("x", b"other")));
        drop(checks.begin(&blob));
        assert!(checks.hashes.lock().expect("lock").len() <= 1, "those that nobody reads are not kept");
    }
}
