//! One bundle, whether it is read by position or comes through a pipe.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use ferry_archive::{Bundle, Error, Head};
use ferry_content::memory::Memory;
use ferry_content::{BoxFuture, ByteStream, Error as ContentError, Provider};
use ferry_image::{Descriptor, Digest};

/// Something that carries what a bundle carries.
pub(crate) enum Carrier {
    /// A bundle, all of which can be read at any time.
    File(Arc<Bundle>),
    /// One that passes by.
    Passing(Box<Passing>),
}

/// What is kept of a bundle that comes through a pipe: its head, its YAML, and the small blobs at its beginning.
pub struct Passing {
    pub(crate) head: Head,
    pub(crate) sums: Digest,
    pub(crate) path: PathBuf,
    /// Carried files by their names.
    pub(crate) files: BTreeMap<String, Bytes>,
    pub(crate) kept: Memory,
    sizes: HashMap<Digest, u64>,
}

impl Passing {
    /// What it says of itself.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    pub(crate) fn new(head: Head, sums: Digest, path: PathBuf, files: BTreeMap<String, Bytes>, kept: Memory) -> Self {
        let sizes = head.blobs.iter().map(|blob| (blob.digest.clone(), blob.size)).collect();
        Self { head, sums, path, files, kept, sizes }
    }

    fn lacks(&self, what: String) -> Error {
        Error::NotFound { path: self.path.clone(), what }
    }
}

impl Carrier {
    pub(crate) fn head(&self) -> &Head {
        match self {
            Self::File(bundle) => bundle.head(),
            Self::Passing(passing) => &passing.head,
        }
    }

    pub(crate) fn sums(&self) -> &Digest {
        match self {
            Self::File(bundle) => bundle.sums_digest(),
            Self::Passing(passing) => &passing.sums,
        }
    }

    pub(crate) fn place(&self) -> String {
        match self {
            Self::File(bundle) => bundle.place(),
            Self::Passing(passing) => passing.path.display().to_string(),
        }
    }

    /// The descriptor of a blob that is carried. Its media type may be unknown.
    pub(crate) fn blob(&self, digest: &Digest) -> Option<Descriptor> {
        match self {
            Self::File(bundle) => bundle.blob(digest),
            Self::Passing(passing) => {
                let size = passing.sizes.get(digest)?;
                Some(Descriptor::new("application/octet-stream", digest.clone(), *size))
            }
        }
    }

    /// Whether a blob that is carried is here only while it passes.
    pub(crate) fn passes(&self, digest: &Digest) -> bool {
        match self {
            Self::File(_) => false,
            Self::Passing(passing) => passing.sizes.contains_key(digest) && passing.kept.get(digest).is_none(),
        }
    }

    pub(crate) fn read_small(&self, digest: &Digest, limit: u64) -> Result<Bytes, Error> {
        match self {
            Self::File(bundle) => bundle.read_small(digest, limit),
            Self::Passing(passing) => {
                passing.kept.get(digest).cloned().ok_or_else(|| passing.lacks(format!("blob {digest}")))
            }
        }
    }

    pub(crate) fn file(&self, name: &str) -> Result<Bytes, Error> {
        match self {
            Self::File(bundle) => bundle.file(name),
            Self::Passing(passing) => {
                passing.files.get(name).cloned().ok_or_else(|| passing.lacks(format!("file `{name}`")))
            }
        }
    }

    pub(crate) fn open<'a>(
        &'a self,
        blob: &'a Descriptor,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<ByteStream, ContentError>> {
        match self {
            Self::File(bundle) => bundle.open(blob, range),
            Self::Passing(passing) => passing.kept.open(blob, range),
        }
    }
}
