//! Why the store could not do something.

use std::path::PathBuf;

use ferry_image::Digest;

use crate::{Failure, Kind};

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A blob could not be read, written or trusted.
    #[error(transparent)]
    Content(#[from] crate::Error),
    /// The folder holds something else, or a store that this version does not know.
    #[error("`{}` is not a store: {why}", .path.display())]
    NotAStore {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A manifest of the store cannot be read, so that what it needs is not known.
    #[error("`{}` is damaged: {why}; nothing was removed", .path.display())]
    Damaged {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Another process kept the lock for longer than a single change takes.
    #[error("the store is locked by {holder}: no turn at `{}` within {seconds} s", .path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Who has it, as far as it is known.
        holder: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// Not a repository name or a tag (distribution-spec, "Pulling manifests").
    #[error("`{text}` is not a {what}")]
    Name {
        /// `repository name` or `tag`.
        what: &'static str,
        /// The text as given, shortened.
        text: String,
    },
    /// Not a digest.
    #[error(transparent)]
    Digest(ferry_image::Error),
    /// The manifest is none, or not of the type that it was announced as.
    #[error("manifest for {repository}: {why}")]
    ManifestInvalid {
        /// Where it was to go.
        repository: String,
        /// What is wrong with it.
        why: ferry_image::Error,
    },
    /// A manifest names blobs or manifests that are not here.
    #[error("manifest for {repository} names what is not in the store: {}", join(.missing))]
    BlobUnknown {
        /// Where it was to go.
        repository: String,
        /// What is absent.
        missing: Vec<Digest>,
    },
    /// There is no such upload: it was finished, cancelled, or never begun.
    #[error("{repository}: there is no upload `{id}`")]
    UploadUnknown {
        /// The repository asked for.
        repository: String,
        /// The upload asked for.
        id: String,
    },
    /// Another request writes to the same upload.
    #[error("{repository}: another request is writing to upload `{id}`")]
    UploadBusy {
        /// The repository.
        repository: String,
        /// The upload.
        id: String,
    },
}

fn join(digests: &[Digest]) -> String {
    digests.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Content(error) => error.kind(),
            Self::NotAStore { .. } | Self::Damaged { .. } | Self::Locked { .. } => Kind::Local,
            Self::Name { .. } | Self::Digest(_) | Self::ManifestInvalid { .. } => Kind::Invalid,
            Self::BlobUnknown { .. } | Self::UploadUnknown { .. } => Kind::Missing,
            Self::UploadBusy { .. } => Kind::Conflict,
        }
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::Content(error) => error.is_transient(),
            Self::Locked { .. } | Self::UploadBusy { .. } => true,
            _ => false,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Content(error) => return error.hint(),
            Self::NotAStore { .. } => "name one that an earlier `--store` made (to begin one: an empty folder)",
            Self::Damaged { .. } => "push or install the image again, or delete it",
            Self::Locked { .. } => "wait until it is done, or end it; a process that is gone holds nothing",
            Self::BlobUnknown { .. } => "push the blobs and the manifests of the platforms first, then what names them",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

impl From<Error> for crate::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Content(error) => error,
            error => Self::other(error),
        }
    }
}
