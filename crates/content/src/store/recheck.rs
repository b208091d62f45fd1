//! Blobs that are not believed for their names: read and hashed before anybody relies on them.

use std::collections::HashSet;
use std::fs::File;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, PoisonError};

use ferry_image::{Descriptor, Digest};

use super::upload::hash_file;
use super::{Error, Store};

/// The blobs that were read and are what their digests say.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<HashSet<Digest>>);

impl Seen {
    fn has(&self, digest: &Digest) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(digest)
    }

    fn add(&self, digest: &Digest) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(digest.clone());
    }
}

impl Store {
    /// The same store, in which a blob is there only if its bytes are what its digest says: each is read once, and a damaged one is
    /// written anew by whoever brings it.
    #[must_use]
    pub fn with_rechecks(mut self) -> Self {
        self.rechecks = Some(Arc::default());
        self
    }

    /// Whether the blob is here: by its name and size, or, with [`with_rechecks`](Self::with_rechecks), by its bytes. Blocks.
    ///
    /// # Errors
    /// Whatever the disk reports, but for a file that can be opened and not be read: that is damage.
    pub fn holds(&self, blob: &Descriptor) -> Result<bool, Error> {
        if self.blob_size(&blob.digest)? != Some(blob.size) {
            return Ok(false);
        }
        let Some(seen) = &self.rechecks else { return Ok(true) };
        if seen.has(&blob.digest) {
            return Ok(true);
        }
        let path = self.layout.blob(&blob.digest);
        let file = match File::open(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
            file => file.map_err(|e| crate::Error::io("read", &path, e))?,
        };
        let found = hash_file(&file, blob.size, blob.digest.algorithm()).map(ferry_image::Hasher::finish);
        let is_whole = found.as_ref().is_ok_and(|found| *found == blob.digest);
        if is_whole {
            seen.add(&blob.digest);
        } else {
            tracing::info!(path = %path.display(), ?found, "damaged in the store");
        }
        Ok(is_whole)
    }
}
