//! The store: a folder that is a valid OCI image layout, and also remembers which repository has which manifests.
//!
//! ```text
//! DIR/oci-layout
//! DIR/index.json                     one entry per tag; `org.opencontainers.image.ref.name` is `repository:tag`,
//!                                    `ferry.origin` the host that the image is from, where that is known
//! DIR/blobs/sha256/HEX               blobs and manifests, seen by every repository
//! DIR/ferry/lock                     held for the moment of a change to index.json or to a repository; says who holds it
//! DIR/ferry/blobs.lock               shared while a blob gets its name, alone while one is removed
//! DIR/ferry/uploads/                 what is not whole yet: `blob-ID`, `session-ID-REPOSITORY`
//! DIR/ferry/repositories/a/b/_manifests/sha256-HEX             the manifest's descriptor
//! DIR/ferry/repositories/a/b/_referrers/sha256-HEX/sha256-HEX  the descriptor of what refers to the first
//! DIR/ferry/repositories/a/b/_deleted/sha256-HEX               a blob that this repository deleted, and others may have
//! ```
//!
//! A file gets its final name only by a rename after fsync, so readers need no lock and a killed process leaves nothing wrong, only
//! something in `uploads/`. Tags live in `index.json` and nowhere else. Several processes may read and write one store at once: the
//! locks are held for single changes, never for as long as a process lives. Only [`Store::collect`] removes blobs.
//!
//! Not here: HTTP (`ferry-registry-server`). Everything but [`Provider`](crate::Provider) and [`Ingester`](crate::Ingester) blocks.

mod check;
mod collect;
mod deleted;
mod durable;
mod error;
mod hashers;
mod index;
mod ingest;
mod layout;
mod manifests;
mod owner;
mod recheck;
mod upload;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use ferry_image::{Descriptor, Digest, reference};

pub use check::{Checked, Fault, Wrong};
pub use collect::{Collected, Collection};
pub use error::Error;
pub use upload::Upload;

use hashers::Hashers;
use index::IndexFile;
use layout::Layout;

/// A store that is open. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct Store {
    layout: Arc<Layout>,
    index: Arc<IndexFile>,
    hashers: Arc<Hashers>,
    sparse: bool,
    /// Blobs that were found whole, where none is believed for its name.
    rechecks: Option<Arc<recheck::Seen>>,
}

/// What a manifest is asked for by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestRef {
    /// A tag.
    Tag(String),
    /// A digest.
    Digest(Digest),
}

/// A manifest as it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestRecord {
    /// The bytes, as they were pushed.
    pub bytes: Bytes,
    /// Its media type.
    pub media_type: String,
    /// The digest of the bytes.
    pub digest: Digest,
}

impl Store {
    /// Opens the store in `folder`, and makes it first when the folder is empty or not there.
    ///
    /// # Errors
    /// [`Error::NotAStore`] for a folder that holds something else; whatever the disk reports.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, Error> {
        let layout = Layout::new(folder.as_ref());
        layout.create()?;
        Self::over(layout)
    }

    /// Opens the store in `folder`, which must be there.
    ///
    /// # Errors
    /// [`Error::NotAStore`]; whatever the disk reports.
    pub fn open_existing(folder: impl AsRef<Path>) -> Result<Self, Error> {
        let layout = Layout::new(folder.as_ref());
        layout.check()?;
        Self::over(layout)
    }

    /// The same for who only looks: nothing is swept up, so that the disk need not be one that can be written to.
    ///
    /// # Errors
    /// As [`open_existing`](Self::open_existing).
    pub fn open_to_look(folder: impl AsRef<Path>) -> Result<Self, Error> {
        let layout = Layout::new(folder.as_ref());
        layout.check()?;
        Self::unswept(layout)
    }

    /// Takes a store away again that was made a moment ago and has nothing in it. One that somebody uses meanwhile stays.
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn remove_if_empty(self) -> Result<(), Error> {
        if !self.repositories()?.is_empty() {
            return Ok(());
        }
        let _guard = self.layout.lock()?;
        Ok(self.layout.remove_if_empty()?)
    }

    fn over(layout: Layout) -> Result<Self, Error> {
        layout.sweep(false, layout::SESSION_AGE)?;
        Self::unswept(layout)
    }

    fn unswept(layout: Layout) -> Result<Self, Error> {
        let index = IndexFile::new(layout.index());
        let store = Self {
            layout: Arc::new(layout),
            index: Arc::new(index),
            hashers: Arc::new(Hashers::default()),
            sparse: false,
            rechecks: None,
        };
        store.index.tags()?;
        Ok(store)
    }

    /// The same store, taking indexes some of whose manifests are absent (the other platforms of an image).
    #[must_use]
    pub fn with_sparse_indexes(mut self, allowed: bool) -> Self {
        self.sparse = allowed;
        self
    }

    /// Whether such indexes are taken.
    #[must_use]
    pub fn takes_sparse_indexes(&self) -> bool {
        self.sparse
    }

    /// Whether pushes can be taken: the disk can be written to, and this user may.
    ///
    /// # Errors
    /// The first folder or file that cannot be written to, in the system's words.
    pub fn check_writable(&self) -> Result<(), crate::Error> {
        self.layout.check_writable()
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.layout.root()
    }

    /// The blob's size in bytes, `None` when it is absent.
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let path = self.layout.blob(digest);
        match path.metadata() {
            Ok(metadata) => Ok(metadata.is_file().then_some(metadata.len())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(crate::Error::io("read", path, e).into()),
        }
    }

    /// Whether the blob is here.
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool, Error> {
        Ok(self.blob_size(digest)?.is_some())
    }

    /// Stores a blob that is in memory, unless it is here already.
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn put_blob(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor, Error> {
        let descriptor = Descriptor::of(media_type, bytes);
        let here = self.blob_size(&descriptor.digest)? == Some(descriptor.size);
        if !here || !self.layout.renew(&descriptor.digest)? {
            self.write_blob(&descriptor.digest, bytes)?;
        }
        Ok(descriptor)
    }

    fn write_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
        let temp = durable::Temp::create(&self.layout.uploads(), "file-")?;
        temp.fill(bytes)?;
        Ok(temp.place_blob(&self.layout, digest)?)
    }

    fn open_blob(&self, digest: &Digest) -> Result<(File, PathBuf), crate::Error> {
        let path = self.layout.blob(digest);
        match File::open(&path) {
            Ok(file) => Ok((file, path)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Err(crate::Error::NotFound { place: self.name(), what: format!("blob {digest}") })
            }
            Err(e) => Err(crate::Error::io("read", path, e)),
        }
    }

    fn name(&self) -> String {
        format!("store `{}`", self.layout.root().display())
    }
}

impl FromStr for ManifestRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.contains(':') {
            return text.parse().map(Self::Digest).map_err(Error::Digest);
        }
        if reference::is_tag(text) {
            return Ok(Self::Tag(text.to_owned()));
        }
        Err(Error::Name { what: "tag", text: text.chars().take(160).collect() })
    }
}

impl std::fmt::Display for ManifestRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// The longest repository name that registries take.
const MAX_NAME: usize = 255;

fn check_repository(repository: &str) -> Result<(), Error> {
    if repository.len() <= MAX_NAME && reference::is_path(repository) {
        return Ok(());
    }
    Err(Error::Name { what: "repository name", text: repository.chars().take(300).collect() })
}

#[cfg(test)]
mod tests;
