//! How a command ends when it does not end well.

use std::path::PathBuf;

use ferry_archive::Error as ArchiveError;
use ferry_content::store::Error as StoreError;
use ferry_content::{Error as ContentError, Failure, Kind, Problems};
use ferry_install::Error as InstallError;

/// Not well.
#[derive(Debug)]
pub(crate) enum End {
    /// Something went wrong.
    Problems(Problems),
    /// Ctrl-C, or a request to terminate.
    Interrupted,
    /// A comparison that found something different, where the exit code shall say so.
    Different,
}

/// What only the command line can get wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{why}")]
    Usage { why: String, hint: String },
    #[error("cannot {action} `{}`: {source}", .path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{}:{} {why}", .path.display(), line_of(*.line))]
    Config { path: PathBuf, line: usize, why: String },
    #[error("`{}`: {source}", .path.display())]
    Document { path: PathBuf, source: ferry_image::Error },
    #[error("`{}` is bundle `{found}`, and `{expected}` is expected", .path.display())]
    Unexpected { path: PathBuf, found: String, expected: String, slip: Option<String> },
    #[error("`{}` is there, and is another file", .path.display())]
    OtherFile { path: PathBuf },
    #[error("{why}")]
    NotAStore { why: String, hint: String },
    #[error("cannot start: {0}")]
    Runtime(std::io::Error),
}

/// The way in which a disk fails for all that is written to it, if it is one: each file would tell of it.
pub(crate) fn of_the_disk(error: &(dyn std::error::Error + 'static)) -> Option<std::io::ErrorKind> {
    use std::io::ErrorKind as E;
    if let Some(ContentError::Io { source, .. }) = error.downcast_ref::<ContentError>() {
        let kinds = [E::StorageFull, E::QuotaExceeded, E::ReadOnlyFilesystem, E::StaleNetworkFileHandle];
        return Some(source.kind()).filter(|kind| kinds.contains(kind));
    }
    match error.downcast_ref::<ContentError>() {
        Some(ContentError::Other(inner)) => of_the_disk(inner.as_ref()),
        Some(ContentError::At { error, .. }) => of_the_disk(error.as_ref()),
        Some(_) => None,
        None => match (error.downcast_ref::<InstallError>(), error.downcast_ref::<StoreError>()) {
            (Some(InstallError::Content(inner)), _) => of_the_disk(inner),
            (Some(InstallError::Store(StoreError::Content(inner))), _) | (None, Some(StoreError::Content(inner))) => {
                of_the_disk(inner)
            }
            _ => None,
        },
    }
}

/// Whether any of this is damage to a bundle, of a kind that `is_meant`; blobs are, where they came from one of `places`, the files of
/// the bundles.
pub(crate) fn is_damage(problems: &Problems, places: &[String], is_meant: fn(&ArchiveError) -> bool) -> bool {
    problems.iter().any(|problem| is_damaged(problem.failure.as_ref(), places, is_meant))
}

fn is_damaged(
    error: &(dyn std::error::Error + 'static),
    places: &[String],
    is_meant: fn(&ArchiveError) -> bool,
) -> bool {
    let inner: &(dyn std::error::Error + 'static) = match error.downcast_ref::<ContentError>() {
        Some(ContentError::DigestMismatch { place, .. } | ContentError::SizeMismatch { place, .. }) => {
            return places.contains(place);
        }
        Some(ContentError::Other(inner)) => inner.as_ref(),
        Some(ContentError::At { error, .. }) => error.as_ref(),
        Some(_) => return false,
        None => match error.downcast_ref::<InstallError>() {
            Some(InstallError::Archive(inner)) => inner,
            Some(InstallError::Content(inner)) => inner,
            _ => return error.downcast_ref::<ArchiveError>().is_some_and(is_meant),
        },
    };
    is_damaged(inner, places, is_meant)
}

/// `3:`, or nothing where it is about the whole file.
fn line_of(line: usize) -> String {
    if line == 0 { String::new() } else { format!("{line}:") }
}

impl Error {
    pub(crate) fn usage(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { why: why.into(), hint: hint.into() }
    }
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Usage { .. } => Kind::Usage,
            Self::Config { .. } | Self::Document { .. } => Kind::Invalid,
            Self::Io { .. } | Self::NotAStore { .. } | Self::Runtime(_) => Kind::Local,
            Self::Unexpected { .. } => Kind::Untrusted,
            Self::OtherFile { .. } => Kind::Conflict,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Usage { hint, .. } | Self::NotAStore { hint, .. } => Some(hint.clone()),
            Self::Io { action, source, .. } => ferry_content::error::io_hint(action, source),
            Self::Config { .. } => Some("docs/config.md has all keys of ferry's config file".to_owned()),
            Self::Document { .. } => Some("give the file as ferry wrote it, or make it anew".to_owned()),
            Self::Unexpected { slip: Some(slip), .. } => Some(format!("did you mean `--expect {slip}`? Else another bundle was carried over")),
            Self::Unexpected { .. } => Some(
                "an older or another bundle was carried over: look for the right one; for several, give `--expect` for each"
                    .to_owned(),
            ),
            Self::OtherFile { .. } => {
                Some("look at what it is, and move it away; or name another file with `--out`".to_owned())
            }
            Self::Runtime(_) => None,
        }
    }
}

impl<E: Into<Problems>> From<E> for End {
    fn from(error: E) -> Self {
        Self::Problems(error.into())
    }
}
