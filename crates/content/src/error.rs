//! Why a blob could not be read, checked or written.

use std::fmt;
use std::path::{Path, PathBuf};

use ferry_image::Digest;

use crate::{Failure, Kind, disk};

/// Which end of a copy failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Where blobs come from.
    Source,
    /// Where blobs go to.
    Target,
}

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be opened, read, written or renamed.
    #[error("cannot {action} `{}`: {source}", .path.display())]
    Io {
        /// `read`, `write`, `create`, …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's own words.
        source: std::io::Error,
    },
    /// The disk has too little room.
    #[error("{}", disk::no_room(.path, *.needed, *.available))]
    NoRoom {
        /// What is to be written.
        path: PathBuf,
        /// Bytes still to be written.
        needed: u64,
        /// Bytes free for this user.
        available: u64,
    },
    /// The bytes are not those that the digest names.
    #[error("{place}: blob {expected} has other content: it hashes to {found}")]
    DigestMismatch {
        /// Where the bytes came from, for people.
        place: String,
        /// The digest asked for.
        expected: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// There are more or fewer bytes than the descriptor says.
    #[error("{place}: blob {digest} has {found} bytes instead of {expected}")]
    SizeMismatch {
        /// Where the bytes came from, for people.
        place: String,
        /// The blob.
        digest: Digest,
        /// The size that the descriptor states.
        expected: u64,
        /// The bytes that came, or one more than allowed.
        found: u64,
    },
    /// The server ignored a `Range` request and would send the whole blob.
    #[error("{place}: does not serve ranges of blob {digest}")]
    NoRanges {
        /// Which server.
        place: String,
        /// The blob.
        digest: Digest,
    },
    /// What is there is not what was there when the transfer began: the parts do not belong together.
    #[error("{place}: blob {digest} changed while it was fetched")]
    Changed {
        /// Which server.
        place: String,
        /// The blob.
        digest: Digest,
    },
    /// The blob, image or member is not there.
    #[error("{place}: there is no {what}")]
    NotFound {
        /// Where it was looked for.
        place: String,
        /// What was looked for.
        what: String,
    },
    /// A file that should be an image archive or a layout is not one, or lacks the image asked for.
    #[error("`{}`{}: {why}", .path.display(), match kind {
        Kind::Missing | Kind::Local => "",
        _ => " is not usable as an image source",
    })]
    Source {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// What to try.
        hint: Option<String>,
        /// How it ends.
        kind: Kind,
    },
    /// A file or folder of texts that cannot be used.
    #[error("`{}` cannot be used: {why}", .path.display())]
    Text {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// An error of another place, such as a registry.
    #[error("{0}")]
    Other(Box<dyn Failure>),
    /// An error with the end of the copy that it happened at.
    #[error("{}: {error}", match side { Side::Source => "source", Side::Target => "target" })]
    At {
        /// Which end.
        side: Side,
        /// The error there.
        error: Box<Error>,
    },
}

impl Error {
    /// An I/O error with its path.
    pub fn io(action: &'static str, path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { action, path: path.as_ref().to_owned(), source }
    }

    /// Wraps another place's error.
    pub fn other(failure: impl Failure) -> Self {
        Self::Other(Box::new(failure))
    }

    /// Whether what came before it is no use: it was damaged, or is a part of something else.
    pub(crate) fn spoils(&self) -> bool {
        matches!(self, Self::DigestMismatch { .. }) || self.is_changed()
    }

    pub(crate) fn is_changed(&self) -> bool {
        match self {
            Self::Changed { .. } => true,
            Self::At { error, .. } => error.is_changed(),
            _ => false,
        }
    }

    /// The same error, said to be of `side`.
    #[must_use]
    pub fn at(self, side: Side) -> Self {
        match self {
            Self::At { .. } => self,
            error => Self::At { side, error: Box::new(error) },
        }
    }
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Io { .. } | Self::NoRoom { .. } => Kind::Local,
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } => Kind::Untrusted,
            Self::NoRanges { .. } | Self::Changed { .. } => Kind::Remote,
            Self::NotFound { .. } => Kind::Missing,
            Self::Source { kind, .. } => *kind,
            Self::Text { .. } => Kind::Invalid,
            Self::Other(failure) => failure.kind(),
            Self::At { error, .. } => error.kind(),
        }
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::Other(failure) => failure.is_transient(),
            Self::At { error, .. } => error.is_transient(),
            _ => false,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Io { action, source, .. } => io_hint(action, source),
            Self::NoRoom { .. } => Some(disk::MAKE_ROOM.to_owned()),
            Self::Source { hint, .. } => hint.clone(),
            Self::Text { .. } => Some("check the path and the file".to_owned()),
            Self::Other(failure) => failure.hint(),
            Self::At { error, .. } => error.hint(),
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } => {
                Some("the copy at that place is damaged or was replaced; fetch it anew, or from elsewhere".to_owned())
            }
            Self::NoRanges { .. } | Self::Changed { .. } | Self::NotFound { .. } => None,
        }
    }
}

/// What to try after a system call that failed to `action` something.
#[must_use]
pub fn io_hint(action: &str, error: &std::io::Error) -> Option<String> {
    use std::io::ErrorKind as E;
    let hint = match error.kind() {
        E::PermissionDenied if matches!(action, "read" | "open" | "hash") => {
            "let this user read it (`ls -l` says who may, `chmod` changes it), or be a user who may"
        }
        E::StorageFull | E::QuotaExceeded => disk::MAKE_ROOM,
        E::PermissionDenied | E::ReadOnlyFilesystem => {
            "choose a folder that you may write to, or correct its permissions"
        }
        E::NotFound => "check the path",
        E::IsADirectory => "it is a folder: name a file in it",
        E::FileTooLarge => "this file system cannot hold a file that large; use another (exFAT, ext4, XFS)",
        _ => return None,
    };
    Some(hint.to_owned())
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Target => "target",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_read_is_not_told_of_folders_to_write_to() {
        let hint = |action| Error::io(action, "shop.tar", std::io::ErrorKind::PermissionDenied.into()).hint();
        assert!(hint("read").is_some_and(|hint| hint.contains("let this user read it")));
        assert!(hint("write").is_some_and(|hint| hint.contains("that you may write to")));
    }
}
