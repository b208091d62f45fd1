//! stub
use crate::{Error, Layout, SecretKey};
use ferry_content::{BoxFuture, Ingest, Ingester};
use ferry_image::{Descriptor, Digest};
use std::path::{Path, PathBuf};
/// What an interrupted build left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    /// The `inputs` it was created with.
    pub inputs: String,
    /// The `lock` it was created with.
    pub lock: String,
}
/// A finished bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// The digest of its `SHA256SUMS`.
    pub sums_digest: Digest,
}
/// A bundle being written.
#[derive(Debug)]
pub struct Partial;
fn later() -> Error {
    Error::Contents { why: "not yet".to_owned() }
}
impl Partial {
    /// What an interrupted build of `output` left, if anything.
    /// # Errors
    /// I/O.
    pub fn peek(_output: &Path) -> Result<Option<Earlier>, Error> {
        Err(later())
    }
    /// Opens or continues.
    /// # Errors
    /// I/O.
    pub fn create(
        _output: &Path,
        _layout: Layout,
        _sign: Option<&SecretKey>,
        _inputs: &str,
        _lock: &str,
    ) -> Result<Self, Error> {
        Err(later())
    }
    /// Bytes of blobs that an earlier build left here (and that the copy loop will read again).
    #[must_use]
    pub fn resumed_bytes(&self) -> u64 {
        0
    }
    /// Finishes. Blocking: call it from a blocking thread.
    /// # Errors
    /// I/O; blobs missing.
    pub fn seal(self) -> Result<Sealed, Error> {
        Err(later())
    }
}
impl Ingester for Partial {
    fn start<'a>(
        &'a self,
        _blob: &'a Descriptor,
    ) -> BoxFuture<'a, Result<Option<Box<dyn Ingest>>, ferry_content::Error>> {
        Box::pin(async { Err(later().into()) })
    }
    fn place(&self) -> String {
        String::new()
    }
}
