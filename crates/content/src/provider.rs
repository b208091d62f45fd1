//! Where blobs come from.

use std::ops::Range;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use ferry_image::{Descriptor, Digest};
use futures_util::{Stream, StreamExt as _};

use crate::copy::Patience;
use crate::copy::patience::Count;
use crate::{BoxFuture, Error, Failure as _};

/// Bytes in order, in chunks of the place's own choosing (a few KiB to 1 MiB).
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// What [`Provider::version`] tells. The default is that of what never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Version {
    /// The file's number and when it was made, in nanoseconds, where the file system tells; another file was put in its place when this
    /// differs. Numbers alone are given to new files at once when old ones are removed.
    pub file: (u64, u128),
    /// When it was last written to, or said to be needed, in seconds and nanoseconds.
    pub written: (i64, i64),
}

/// A place that has blobs: a registry's repository, a bundle, a docker-save tar, an OCI layout, the store.
///
/// A provider need not check digests: whoever copies does ([`crate::copy`]). It must give exactly the bytes of the range, or fail.
pub trait Provider: Send + Sync {
    /// Streams `range` of the blob; `0..blob.size` for all of it.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::NoRanges`] when only a whole blob can be had; [`Error::Changed`] when this would be a part of
    /// other bytes than those given before; whatever the place itself reports.
    fn open<'a>(&'a self, blob: &'a Descriptor, range: Range<u64>) -> BoxFuture<'a, Result<ByteStream, Error>>;

    /// Whether several ranges of one blob, read at the same time, arrive sooner than one after the other (true of registries).
    fn is_remote(&self) -> bool {
        false
    }

    /// Told that what it gave of a blob is wrong or cannot be read: whether it will give that blob from elsewhere from now on.
    fn turns_elsewhere(&self, blob: &Descriptor) -> bool {
        let _ = blob;
        false
    }

    /// Which bytes stand under a blob's name now, as far as that can be told without reading them: those of another version may be others.
    /// Blocks for as long as a look at a file takes. The same always, for places that never change.
    fn version(&self, blob: &Descriptor) -> Version {
        let _ = blob;
        Version::default()
    }

    /// Whether what it reads from is still what it was when it was opened, as far as that can be told without reading it.
    ///
    /// # Errors
    /// With what has changed.
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    /// The place, for people: `registry.k8s.io/sig-storage/csi-provisioner`, a file name.
    fn place(&self) -> String;
}

/// Reads a small blob whole and checks it. One that breaks off is asked for again, from where it broke off.
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
    let patience = Patience::default();
    let mut count = Count::new(&patience);
    let mut bytes = BytesMut::new();
    loop {
        let before = bytes.len();
        let error = match read_on(provider, blob, &mut bytes).await {
            Ok(()) => break,
            Err(error) => error,
        };
        if bytes.len() as u64 > blob.size {
            return Err(too_large(bytes.len() as u64));
        }
        match &error {
            // from its beginning, then
            Error::NoRanges { .. } | Error::Changed { .. } if before > 0 => bytes.clear(),
            _ if !error.is_transient() => return Err(error),
            _ => {}
        }
        if bytes.len() > before {
            count.moved();
        }
        if !count.again().await {
            return Err(error);
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

/// Reads what is missing at the end of `bytes`, and no more than one chunk beyond the blob.
async fn read_on(provider: &dyn Provider, blob: &Descriptor, bytes: &mut BytesMut) -> Result<(), Error> {
    let mut stream = provider.open(blob, bytes.len() as u64..blob.size).await?;
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk?);
        if bytes.len() as u64 > blob.size {
            break;
        }
    }
    Ok(())
}
