//! Running hashes of upload sessions between requests: without its own, a session is hashed again from disk when it goes on.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ferry_image::Hasher;

use super::layout::SESSION_AGE;

/// The most that are kept, of some hundred bytes each; then the one that was used the longest time ago goes.
const MOST: usize = 1024;

/// The hashes of the sessions that nobody writes to at the moment.
#[derive(Debug, Default)]
pub(super) struct Hashers(Mutex<HashMap<String, Kept>>);

#[derive(Debug)]
struct Kept {
    offset: u64,
    hasher: Hasher,
    used: Instant,
}

impl Hashers {
    /// The hash of a session's first `offset` bytes. One of another length is of no use any more: another process wrote to the session.
    pub(super) fn take(&self, id: &str, offset: u64) -> Option<Hasher> {
        self.lock().remove(id).filter(|kept| kept.offset == offset).map(|kept| kept.hasher)
    }

    pub(super) fn keep(&self, id: &str, offset: u64, hasher: Hasher, now: Instant) {
        let mut all = self.lock();
        if all.len() >= MOST {
            // whoever sweeps may be another process, which cannot tell us
            all.retain(|_, kept| now.saturating_duration_since(kept.used) <= SESSION_AGE);
            let oldest = all.iter().min_by_key(|(_, kept)| kept.used).map(|(id, _)| id.clone());
            if let Some(oldest) = oldest.filter(|_| all.len() >= MOST) {
                all.remove(&oldest);
            }
        }
        all.insert(id.to_owned(), Kept { offset, hasher, used: now });
    }

    /// The session is no more.
    pub(super) fn forget(&self, id: &str) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ferry_image::Algorithm;

    use super::*;

    #[test]
    fn the_one_that_was_used_the_longest_time_ago_gives_way() {
        let (hashers, start) = (Hashers::default(), Instant::now());
        let keep = |n: u64| {
            hashers.keep(&n.to_string(), n, Hasher::new(Algorithm::Sha256), start + Duration::from_secs(n));
        };
        let most = MOST as u64;
        (0..most).for_each(keep);
        // the first is used once more, so that the second is the oldest
        let first = hashers.take("0", 0).expect("kept");
        hashers.keep("0", 0, first, start + Duration::from_secs(most));
        keep(most);
        assert_eq!(hashers.len(), MOST);
        assert!(hashers.take("1", 1).is_none() && hashers.take("0", 0).is_some());
        assert!(hashers.take(&most.to_string(), most).is_some(), "the newest is kept");
        assert!(hashers.take("2", 3).is_none(), "of another length");
        hashers.forget("3");
        assert!(hashers.take("3", 3).is_none() && hashers.take("4", 4).is_some());
    }

    #[test]
    fn those_of_sessions_that_no_sweep_leaves_go_when_room_is_needed() {
        let (hashers, start) = (Hashers::default(), Instant::now());
        for n in 0..MOST {
            hashers.keep(&n.to_string(), 0, Hasher::new(Algorithm::Sha256), start);
        }
        hashers.keep("new", 0, Hasher::new(Algorithm::Sha256), start + SESSION_AGE + Duration::from_secs(1));
        assert_eq!(hashers.len(), 1);
    }
}
