//! Small blobs held in memory: manifests and configs that were read while resolving.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use ferry_image::{Descriptor, Digest};
use futures_util::stream;

use crate::{BoxFuture, ByteStream, Error, Provider};

/// A provider over byte strings.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    blobs: BTreeMap<Digest, Bytes>,
}

impl Memory {
    /// Adds `bytes`; they are known by their SHA-256 digest, which is returned.
    pub fn insert(&mut self, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        self.blobs.insert(digest.clone(), bytes);
        digest
    }

    /// The bytes of `digest`.
    #[must_use]
    pub fn get(&self, digest: &Digest) -> Option<&Bytes> {
        self.blobs.get(digest)
    }
}

impl Provider for Memory {
    fn open<'a>(&'a self, blob: &'a Descriptor, range: Range<u64>) -> BoxFuture<'a, Result<ByteStream, Error>> {
        let slice = self.blobs.get(&blob.digest).and_then(|bytes| {
            let (start, end) = (usize::try_from(range.start).ok()?, usize::try_from(range.end).ok()?);
            (start <= end && end <= bytes.len()).then(|| bytes.slice(start..end))
        });
        let result = match slice {
            Some(bytes) => Ok(Box::pin(stream::iter([Ok(bytes)])) as ByteStream),
            None => Err(Error::NotFound { place: self.place(), what: format!("blob {} ({range:?})", blob.digest) }),
        };
        Box::pin(async move { result })
    }

    fn place(&self) -> String {
        "memory".to_owned()
    }
}
