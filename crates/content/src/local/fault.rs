//! The words for what can be wrong with a local image source, and how each ends.

use std::path::Path;

use crate::{Error, Kind};

/// It is something else than an image archive or a layout.
pub(super) fn invalid(path: &Path, why: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::Source { path: path.to_owned(), why: why.into(), hint: Some(hint.into()), kind: Kind::Invalid }
}

/// It is one, but its content contradicts itself, ends early, or reaches out of itself.
pub(super) fn damaged(path: &Path, why: impl Into<String>) -> Error {
    Error::Source {
        path: path.to_owned(),
        why: why.into(),
        hint: Some("compare its checksum with the publisher's, and fetch or save it again".to_owned()),
        kind: Kind::Untrusted,
    }
}

/// It is sound, but lacks what was asked for.
pub(super) fn missing(path: &Path, why: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::Source { path: path.to_owned(), why: why.into(), hint: Some(hint.into()), kind: Kind::Missing }
}

/// It is sound, but there is no room to work on it.
pub(super) fn no_room(path: &Path, why: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::Source { path: path.to_owned(), why: why.into(), hint: Some(hint.into()), kind: Kind::Local }
}
