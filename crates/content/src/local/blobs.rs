//! The provider over a local source: its own blobs by digest, spooled layers, and manifests that ferry made.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use ferry_image::{Descriptor, Digest};

use super::extent::Extent;
use super::files::Files;
use crate::memory::Memory;
use crate::{BoxFuture, ByteStream, Error, Provider};

/// Blobs of one source.
pub(super) struct Blobs {
    pub(super) files: Arc<Files>,
    pub(super) extents: BTreeMap<Digest, Extent>,
    pub(super) memory: Memory,
}

impl Blobs {
    fn stream(&self, blob: &Descriptor, range: Range<u64>) -> Result<ByteStream, Error> {
        let digest = blob.digest.clone();
        let extent = match self.extents.get(&digest) {
            Some(extent) => Some(extent.clone()),
            None => self.files.find(&digest.blob_path())?,
        };
        let Some(extent) = extent else {
            return Err(Error::NotFound { place: self.place(), what: format!("blob {digest}") });
        };
        if extent.length != blob.size || range.start > range.end || range.end > extent.length {
            let (expected, found) = (blob.size.max(range.end), extent.length);
            return Err(Error::SizeMismatch { place: self.place(), digest, expected, found });
        }
        extent.stream(range)
    }
}

impl Provider for Blobs {
    fn open<'a>(&'a self, blob: &'a Descriptor, range: Range<u64>) -> BoxFuture<'a, Result<ByteStream, Error>> {
        if self.memory.get(&blob.digest).is_some() {
            return self.memory.open(blob, range);
        }
        let result = self.stream(blob, range);
        Box::pin(async move { result })
    }

    fn place(&self) -> String {
        self.files.path().display().to_string()
    }
}
