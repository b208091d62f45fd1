//! How a command ends when it does not end well.

use std::path::PathBuf;

use ferry_content::{Failure, Kind, Problems};

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
    #[error("this is bundle `{found}`, not `{expected}`")]
    Unexpected { found: String, expected: String },
    #[error("`{}` is there, and is another file", .path.display())]
    OtherFile { path: PathBuf },
    #[error("cannot start: {0}")]
    Runtime(std::io::Error),
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
            Self::Io { .. } | Self::Runtime(_) => Kind::Local,
            Self::Unexpected { .. } => Kind::Untrusted,
            Self::OtherFile { .. } => Kind::Conflict,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Usage { hint, .. } => Some(hint.clone()),
            Self::Io { source, .. } => ferry_content::error::io_hint(source),
            Self::Config { .. } => Some("docs/config.md has all keys of ferry's config file".to_owned()),
            Self::Document { .. } => Some("give the file as ferry wrote it, or make it anew".to_owned()),
            Self::Unexpected { .. } => {
                Some("an older or another bundle was carried over: look for the right one".to_owned())
            }
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
