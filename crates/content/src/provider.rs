//! Where blobs come from.

use std::ops::Range;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use ferry_image::{Descriptor, Digest};
use futures_util::{Stream, StreamExt as _};

use crate::{BoxFuture, Error};

/// Bytes in order, in chunks of the place's own choosing (a few KiB to 1 MiB).
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// A place that has blobs: a registry's repository, a bundle, a docker-save tar, an OCI layout, the store.
///
/// A provider need not check digests: whoever copies does ([`crate::copy`]). It must give exactly the bytes of the range, or fail.
pub trait Provider: Send + Sync {
    /// Streams `range` of the blob; `0..blob.size` for all of it.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::NoRanges`] when only a whole blob can be had; whatever the place itself reports.
    fn open<'a>(&'a self, blob: &'a Descriptor, range: Range<u64>) -> BoxFuture<'a, Result<ByteStream, Error>>;

    /// Whether several ranges of one blob, read at the same time, arrive sooner than one after the other (true of registries).
    fn is_remote(&self) -> bool {
        false
    }

    /// The place, for people: `registry.k8s.io/sig-storage/csi-provisioner`, a file name.
    fn place(&self) -> String;
}

/// Reads a small blob whole and checks it.
///
/// # Errors
/// When it is larger than `limit` bytes, has another size or digest than `blob` says, or cannot be read.
pub async fn read_all(provider: &dyn Provider, blob: &Descriptor, limit: u64) -> Result<Bytes, Error> {
    let too_large = |found| Error::SizeMismatch {
        place: provider.place(),
        digest: blob.digest.clone(),
        expected: blob.size.min(limit),
        found,
    };
    if blob.size > limit {
        return Err(too_large(blob.size));
    }
    let mut stream = provider.open(blob, 0..blob.size).await?;
    let mut bytes = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk?);
        if bytes.len() as u64 > blob.size {
            return Err(too_large(bytes.len() as u64));
        }
    }
    if bytes.len() as u64 != blob.size {
        return Err(too_large(bytes.len() as u64));
    }
    let found = Digest::of(&bytes);
    if found != blob.digest {
        return Err(Error::DigestMismatch { place: provider.place(), expected: blob.digest.clone(), found });
    }
    Ok(bytes.freeze())
}
