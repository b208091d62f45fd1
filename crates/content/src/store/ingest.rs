//! The store as a place that blobs come from and go to.

use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use ferry_image::Descriptor;

use super::Store;
use super::durable::Temp;
use super::layout::Layout;
use crate::files::{read_range, stream_range};
use crate::{BoxFuture, ByteStream, Error, Ingest, Ingester, Provider, Version};

impl Provider for Store {
    fn open<'a>(&'a self, blob: &'a Descriptor, range: Range<u64>) -> BoxFuture<'a, Result<ByteStream, Error>> {
        let (store, blob) = (self.clone(), blob.clone());
        Box::pin(blocking(move || {
            let (file, path) = store.open_blob(&blob.digest)?;
            let found = file.metadata().map_err(|e| Error::io("read", &path, e))?.len();
            if found != blob.size || range.end > found {
                let (digest, expected) = (blob.digest.clone(), blob.size.max(range.end));
                return Err(Error::SizeMismatch { place: store.name(), digest, expected, found });
            }
            Ok(stream_range(Arc::new(file), path, range))
        }))
    }

    fn version(&self, blob: &Descriptor) -> Version {
        let Ok(found) = self.layout.blob(&blob.digest).metadata() else { return Version::default() };
        let made = found.created().ok().and_then(|made| made.duration_since(UNIX_EPOCH).ok());
        let file = (found.ino(), made.unwrap_or_default().as_nanos());
        Version { file, written: (found.mtime(), found.mtime_nsec()) }
    }

    fn place(&self) -> String {
        self.name()
    }
}

impl Ingester for Store {
    fn start<'a>(&'a self, blob: &'a Descriptor) -> BoxFuture<'a, Result<Option<Box<dyn Ingest>>, Error>> {
        let (store, blob) = (self.clone(), blob.clone());
        Box::pin(blocking(move || {
            // A file of another size is not the blob, whatever its name: it is written anew.
            if store.holds(&blob)? && store.layout.renew(&blob.digest)? {
                return Ok(None);
            }
            let incoming = Incoming {
                temp: Temp::create(&store.layout.uploads(), "blob-")?,
                layout: Arc::clone(&store.layout),
                gaps: Mutex::new(whole(blob.size)),
                place: store.name(),
                blob,
            };
            Ok(Some(Box::new(incoming) as Box<dyn Ingest>))
        }))
    }

    fn place(&self) -> String {
        self.name()
    }
}

/// A blob that is being written, in any order.
struct Incoming {
    temp: Temp,
    layout: Arc<Layout>,
    gaps: Mutex<Vec<Range<u64>>>,
    blob: Descriptor,
    place: String,
}

impl Incoming {
    fn gaps(&self) -> std::sync::MutexGuard<'_, Vec<Range<u64>>> {
        self.gaps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn size_mismatch(&self, found: u64) -> Error {
        let (place, digest, expected) = (self.place.clone(), self.blob.digest.clone(), self.blob.size);
        Error::SizeMismatch { place, digest, expected, found }
    }
}

impl Ingest for Incoming {
    fn missing(&self) -> Vec<Range<u64>> {
        self.gaps().clone()
    }

    fn is_random_access(&self) -> bool {
        true
    }

    fn write_at<'a>(&'a self, offset: u64, chunks: Vec<Bytes>) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let end = chunks.iter().fold(offset, |end, chunk| end + chunk.len() as u64);
            if end > self.blob.size {
                return Err(self.size_mismatch(end));
            }
            let (file, path) = (Arc::clone(self.temp.file()), self.temp.path().to_owned());
            blocking(move || {
                let mut at = offset;
                for chunk in chunks {
                    file.write_all_at(&chunk, at).map_err(|e| Error::io("write", &path, e))?;
                    at += chunk.len() as u64;
                }
                Ok(())
            })
            .await?;
            let mut gaps = self.gaps();
            *gaps = without(&gaps, &(offset..end));
            Ok(())
        })
    }

    fn read_back<'a>(&'a self, range: Range<u64>) -> BoxFuture<'a, Result<Bytes, Error>> {
        let (file, path) = (Arc::clone(self.temp.file()), self.temp.path().to_owned());
        Box::pin(blocking(move || read_range(&*file, &range).map_err(|e| Error::io("read", path, e))))
    }

    fn reset<'a>(&'a self) -> BoxFuture<'a, Result<(), Error>> {
        *self.gaps() = whole(self.blob.size);
        Box::pin(async { Ok(()) })
    }

    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async move {
            let absent: u64 = self.gaps().iter().map(|gap| gap.end - gap.start).sum();
            if absent > 0 {
                return Err(self.size_mismatch(self.blob.size - absent));
            }
            blocking(move || self.temp.place_blob(&self.layout, &self.blob.digest)).await
        })
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(join) => Err(Error::io("write", "store", std::io::Error::other(join))),
    }
}

fn whole(size: u64) -> Vec<Range<u64>> {
    std::iter::once(0..size).filter(|range| !range.is_empty()).collect()
}

/// `gaps` less what was written.
fn without(gaps: &[Range<u64>], written: &Range<u64>) -> Vec<Range<u64>> {
    if written.is_empty() {
        return gaps.to_vec();
    }
    gaps.iter()
        .flat_map(|gap| [gap.start..gap.end.min(written.start), gap.start.max(written.end)..gap.end])
        .filter(|gap| gap.start < gap.end)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::without;

    proptest! {
        #[test]
        fn gaps_are_what_was_not_written(writes in prop::collection::vec((0u64..64, 0u64..32), 0..12)) {
            let mut gaps = super::whole(64);
            let mut written = [false; 64];
            for (start, length) in writes {
                let end = (start + length).min(64);
                gaps = without(&gaps, &(start..end));
                (start..end).for_each(|i| written[usize::try_from(i).expect("small")] = true);
            }
            for (i, written) in written.iter().enumerate() {
                prop_assert_eq!(gaps.iter().any(|gap| gap.contains(&(i as u64))), !written);
            }
            prop_assert!(gaps.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
