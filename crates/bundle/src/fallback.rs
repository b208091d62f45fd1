//! One blob from several places: mirrors may lack a layer, and images may share one. Which place gave it is remembered.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ferry_content::{BoxFuture, ByteStream, Error, Failure as _, Kind, Provider};
use ferry_image::{Descriptor, Digest};

/// The places that blobs came from.
#[derive(Clone, Default)]
pub(crate) struct Served(Arc<Mutex<BTreeMap<Digest, BTreeSet<String>>>>);

impl Served {
    /// The same place; what it gives is written down.
    pub(crate) fn watch(&self, place: Arc<dyn Provider>) -> Arc<dyn Provider> {
        Arc::new(Watched { place, served: self.clone() })
    }

    /// The places that gave these blobs.
    pub(crate) fn places<'a>(&self, blobs: impl IntoIterator<Item = &'a Digest>) -> BTreeSet<String> {
        let served = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        blobs.into_iter().filter_map(|blob| served.get(blob)).flatten().cloned().collect()
    }

    fn note(&self, blob: &Digest, place: String) {
        let mut served = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        served.entry(blob.clone()).or_default().insert(place);
    }
}

struct Watched {
    place: Arc<dyn Provider>,
    served: Served,
}

impl Provider for Watched {
    fn open<'a>(&'a self, blob: &'a Descriptor, range: Range<u64>) -> BoxFuture<'a, Result<ByteStream, Error>> {
        Box::pin(async move {
            let opened = self.place.open(blob, range).await?;
            self.served.note(&blob.digest, self.place());
            Ok(opened)
        })
    }

    fn is_remote(&self) -> bool {
        self.place.is_remote()
    }

    fn place(&self) -> String {
        self.place.place()
    }
}

/// Asks its places in turn until one opens the blob.
struct Fallback {
    /// At least one.
    places: Vec<Arc<dyn Provider>>,
    /// The first that has not failed for good: a registry that is down is not asked again for each blob.
    first: AtomicUsize,
}

/// The one place of `places`, or all of them in turn: files before registries, else in order. None when there is none.
pub(crate) fn over(mut places: Vec<Arc<dyn Provider>>) -> Option<Arc<dyn Provider>> {
    places.sort_by_key(|place| place.is_remote());
    let only = places.pop()?;
    if places.is_empty() {
        return Some(only);
    }
    places.push(only);
    Some(Arc::new(Fallback { places, first: AtomicUsize::new(0) }))
}

impl Fallback {
    fn current(&self) -> &Arc<dyn Provider> {
        &self.places[self.first.load(Ordering::Relaxed).min(self.places.len() - 1)]
    }

    async fn ask(&self, blob: &Descriptor, range: Range<u64>) -> Result<ByteStream, Error> {
        let mut failed: Option<Error> = None;
        let first = self.first.load(Ordering::Relaxed);
        for (at, place) in self.places.iter().enumerate().skip(first) {
            let error = match place.open(blob, range.clone()).await {
                Err(error) if !matches!(error, Error::NoRanges { .. }) => error,
                // without ranges the copy loop asks again, for the whole blob
                opened => return opened,
            };
            if at + 1 < self.places.len() {
                tracing::warn!(place = place.place(), blob = blob.digest.short(), %error, "asking the next source");
                if error.kind() == Kind::Remote {
                    self.first.fetch_max(at + 1, Ordering::Relaxed);
                }
            }
            failed.get_or_insert(error);
        }
        Err(failed.unwrap_or_else(|| Error::NotFound { place: self.place(), what: format!("blob {}", blob.digest) }))
    }
}

impl Provider for Fallback {
    fn open<'a>(&'a self, blob: &'a Descriptor, range: Range<u64>) -> BoxFuture<'a, Result<ByteStream, Error>> {
        Box::pin(self.ask(blob, range))
    }

    fn is_remote(&self) -> bool {
        self.current().is_remote()
    }

    fn place(&self) -> String {
        self.current().place()
    }
}

#[cfg(test)]
mod tests {
    use ferry_content::memory::Memory;
    use ferry_content::{Failure, read_all};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("down")]
    struct Down;

    impl Failure for Down {
        fn kind(&self) -> Kind {
            Kind::Remote
        }
    }

    #[derive(Default)]
    struct Dead(AtomicUsize);

    impl Provider for Dead {
        fn open<'a>(&'a self, _: &'a Descriptor, _: Range<u64>) -> BoxFuture<'a, Result<ByteStream, Error>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Err(Error::other(Down)) })
        }
        fn is_remote(&self) -> bool {
            true
        }
        fn place(&self) -> String {
            "dead".to_owned()
        }
    }

    fn memory(bytes: &'static [u8]) -> (Arc<dyn Provider>, Descriptor) {
        let mut memory = Memory::default();
        memory.insert(bytes);
        (Arc::new(memory), Descriptor::of("x", bytes))
    }

    #[tokio::test]
    async fn the_next_place_is_asked_and_a_dead_one_not_again() {
        let dead = Arc::new(Dead::default());
        let (one, a) = memory(b"a");
        let (two, b) = memory(b"b");
        let places: Vec<Arc<dyn Provider>> = vec![Arc::clone(&dead) as _, one, two];
        let fallback = Fallback { places, first: AtomicUsize::new(0) };
        for blob in [&a, &b, &a] {
            let bytes = read_all(&fallback, blob, 10).await.expect("bytes");
            assert_eq!(Digest::of(&bytes), blob.digest);
        }
        assert_eq!(dead.0.load(Ordering::Relaxed), 1);
        let error = read_all(&fallback, &Descriptor::of("x", b"c"), 10).await.expect_err("nowhere");
        assert_eq!(error.kind(), Kind::Missing);
    }

    #[tokio::test]
    async fn the_place_that_gave_a_blob_is_written_down() {
        let served = Served::default();
        let (file, a) = memory(b"a");
        let chain = over(vec![served.watch(Arc::new(Dead::default())), served.watch(file)]).expect("places");
        read_all(chain.as_ref(), &a, 10).await.expect("bytes");
        let b = Digest::of(b"b");
        assert_eq!(served.places([&a.digest, &b]), ["memory".to_owned()].into());
        assert!(served.places([&b]).is_empty());
    }

    #[test]
    fn files_come_before_registries() {
        let (file, _) = memory(b"a");
        let chain = over(vec![Arc::new(Dead::default()), file]).expect("places");
        assert_eq!((chain.place().as_str(), chain.is_remote()), ("memory", false));
        assert!(over(Vec::new()).is_none());
    }
}
