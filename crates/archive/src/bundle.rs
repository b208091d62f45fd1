//! stub
use crate::{Error, Head, KeyId, Trust, Verified};
use bytes::Bytes;
use ferry_content::{BoxFuture, ByteStream, Provider};
use ferry_image::{Descriptor, Digest, Reference};
use std::ops::Range;
use std::path::Path;
/// A bundle, opened: signature and structure hold.
#[derive(Debug)]
pub struct Bundle {
    head: Head,
}
fn later() -> Error {
    Error::Contents { why: "not yet".to_owned() }
}
impl Bundle {
    /// Opens a bundle.
    /// # Errors
    /// Whatever does not hold.
    pub fn open(_path: &Path, _trust: &Trust) -> Result<Self, Error> {
        Err(later())
    }
    /// The head.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }
    /// The trusted key that signed it.
    #[must_use]
    pub fn signer(&self) -> Option<KeyId> {
        None
    }
    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        0
    }
    /// The digest of its `SHA256SUMS`: it names the content.
    #[must_use]
    pub fn sums_digest(&self) -> &Digest {
        &self.head.blobs[0].digest
    }
    /// Descriptor of a blob that is carried.
    #[must_use]
    pub fn blob(&self, _digest: &Digest) -> Option<Descriptor> {
        None
    }
    /// Reads a small blob whole, and checks it.
    /// # Errors
    /// I/O, digest.
    pub fn read_small(&self, _digest: &Digest, _limit: u64) -> Result<Bytes, Error> {
        Err(later())
    }
    /// Reads a carried file (`yaml/…`, `files/…`, `bin/ferry`) whole, and checks it.
    /// # Errors
    /// I/O, digest.
    pub fn file(&self, _name: &str) -> Result<Bytes, Error> {
        Err(later())
    }
    /// Images that `docker load` will not find.
    /// # Errors
    /// I/O, digest.
    pub fn without_docker(&self) -> Result<Vec<Reference>, Error> {
        Err(later())
    }
    /// Every byte. `cold` reads past the page cache. Blocking.
    /// # Errors
    /// All damaged members together.
    pub fn verify(&self, _threads: usize, _cold: bool, _progress: &(dyn Fn(u64) + Sync)) -> Result<Verified, Error> {
        Err(later())
    }
}
impl Provider for Bundle {
    fn open<'a>(
        &'a self,
        _blob: &'a Descriptor,
        _range: Range<u64>,
    ) -> BoxFuture<'a, Result<ByteStream, ferry_content::Error>> {
        Box::pin(async { Err(later().into()) })
    }
    fn place(&self) -> String {
        String::new()
    }
}
