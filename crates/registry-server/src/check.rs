//! Which blobs were seen to be what their digest says. A bundle's bytes are checked by the first whole read since the start; what is
//! found damaged is refused from then on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ferry_content::{ByteStream, Error};
use ferry_image::{Descriptor, Digest, Hasher};
use futures_util::StreamExt as _;
use tokio::sync::watch;

use crate::Backend;

/// How long a request for a part of an unchecked blob waits for the check of the whole, before it is answered all the same. Clients check
/// what they put together from parts; this only spares them the trouble with all but huge blobs.
const PATIENCE: Duration = Duration::from_secs(2);

/// The state of every blob that was looked at.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    states: Mutex<HashMap<Digest, State>>,
    /// How many blobs were written anew: a read that began before one of them was says nothing of what is there now.
    written: AtomicU64,
}

#[derive(Debug, Clone)]
enum State {
    Good,
    Damaged,
    /// A task reads it whole at the moment.
    Running(watch::Receiver<()>),
}

impl Checks {
    fn map(&self) -> MutexGuard<'_, HashMap<Digest, State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_good(&self, digest: &Digest) -> bool {
        matches!(self.map().get(digest), Some(State::Good))
    }

    pub(crate) fn is_damaged(&self, digest: &Digest) -> bool {
        matches!(self.map().get(digest), Some(State::Damaged))
    }

    /// How many were found good, and damaged.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let map = self.map();
        let count = |wanted: fn(&State) -> bool| map.values().filter(|state| wanted(state)).count() as u64;
        (count(|state| matches!(state, State::Good)), count(|state| matches!(state, State::Damaged)))
    }

    /// The blob was written anew.
    pub(crate) fn forget(&self, digest: &Digest) {
        let mut states = self.map();
        self.written.fetch_add(1, Ordering::SeqCst);
        states.remove(digest);
    }

    /// What [`conclude`](Self::conclude) is to be told of the read that begins now.
    pub(crate) fn begin(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }

    fn note(&self, begun: u64, digest: &Digest, state: State) {
        let mut states = self.map();
        if self.written.load(Ordering::SeqCst) == begun {
            states.insert(digest.clone(), state);
        } else {
            states.remove(digest);
        }
    }

    /// Notes what a whole read found.
    pub(crate) fn conclude(
        &self,
        begun: u64,
        place: &str,
        blob: &Descriptor,
        found: &Digest,
        size: u64,
    ) -> Result<(), Error> {
        let error = if size != blob.size {
            let (place, digest) = (place.to_owned(), blob.digest.clone());
            Error::SizeMismatch { place, digest, expected: blob.size, found: size }
        } else if *found != blob.digest {
            Error::DigestMismatch { place: place.to_owned(), expected: blob.digest.clone(), found: found.clone() }
        } else {
            self.note(begun, &blob.digest, State::Good);
            return Ok(());
        };
        tracing::error!(%error, "a damaged blob is refused from now on");
        self.note(begun, &blob.digest, State::Damaged);
        Err(error)
    }

    /// Reads the blob whole, once for however many ask, and waits a while for the outcome.
    pub(crate) async fn settle(self: &Arc<Self>, backend: &Arc<dyn Backend>, blob: &Descriptor) {
        let mut outcome = {
            let mut map = self.map();
            match map.get(&blob.digest) {
                Some(State::Running(outcome)) => outcome.clone(),
                Some(_) => return,
                None => {
                    let (done, outcome) = watch::channel(());
                    map.insert(blob.digest.clone(), State::Running(outcome.clone()));
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
    let (place, begun) = (backend.blobs().place(), checks.begin());
    let hashed = match backend.blobs().open(&blob, 0..blob.size).await {
        Ok(stream) => hash(stream, &blob).await,
        Err(error) => Err(error),
    };
    match hashed {
        Ok((found, size)) => drop(checks.conclude(begun, &place, &blob, &found, size)),
        Err(error) => {
            // Not the blob's fault, perhaps: the next request tries again.
            tracing::warn!(%error, digest = %blob.digest, "cannot check a blob");
            checks.forget(&blob.digest);
        }
    }
}

async fn hash(mut stream: ByteStream, blob: &Descriptor) -> Result<(Digest, u64), Error> {
    let (mut hasher, mut size) = (Hasher::new(blob.digest.algorithm()), 0);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        hasher.update(&chunk);
        size += chunk.len() as u64;
        tokio::task::yield_now().await;
    }
    Ok((hasher.finish(), size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_began_before_a_mending_push_says_nothing_of_it() {
        let (checks, blob) = (Checks::default(), Descriptor::of("x", b"blob"));
        let begun = checks.begin();
        checks.forget(&blob.digest);
        assert!(checks.conclude(begun, "b.tar", &blob, &Digest::of(b"bad!"), 4).is_err(), "the transfer breaks");
        assert!(!checks.is_damaged(&blob.digest));
        assert!(checks.conclude(checks.begin(), "b.tar", &blob, &Digest::of(b"bad!"), 4).is_err());
        assert!(checks.is_damaged(&blob.digest));
    }
}
