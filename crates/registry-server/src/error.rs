//! Why the server could not start, or a backend could not answer.

use std::net::SocketAddr;
use std::path::PathBuf;

use ferry_content::{Failure, Kind, store};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// The system's own words.
        source: std::io::Error,
    },
    /// A certificate or key file cannot be used.
    #[error("cannot serve TLS with `{}`: {why}", .path.display())]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A certificate could not be made, or does not fit its key.
    #[error("cannot serve TLS: {why}")]
    Tls {
        /// What is wrong.
        why: String,
    },
    /// The authority that is kept cannot be used.
    #[error("cannot serve TLS with the CA in `{}`: {why}", .folder.display())]
    Authority {
        /// Its folder.
        folder: PathBuf,
        /// What is wrong.
        why: String,
        /// What to do.
        hint: &'static str,
    },
    /// A file of users cannot be used.
    #[error("cannot take users from `{}{}`: {why}", .path.display(), match line { 0 => String::new(), line => format!(":{line}") })]
    Users {
        /// The file.
        path: PathBuf,
        /// Its line, from 1; 0 for the file as a whole.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// A manifest given to the catalog is none.
    #[error("cannot serve a manifest of {repository}: {why}")]
    Manifest {
        /// The repository.
        repository: String,
        /// What is wrong.
        why: ferry_image::Error,
    },
    /// Two images want the same name.
    #[error("`{name}` would be two images: {first} and {second}")]
    Collision {
        /// `repository:tag`.
        name: String,
        /// The digest listed first.
        first: ferry_image::Digest,
        /// The other.
        second: ferry_image::Digest,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A blob could not be read.
    #[error(transparent)]
    Content(#[from] ferry_content::Error),
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Bind { .. }
            | Self::TlsFile { .. }
            | Self::Tls { .. }
            | Self::Authority { .. }
            | Self::Users { .. } => Kind::Local,
            Self::Manifest { .. } => Kind::Invalid,
            Self::Collision { .. } => Kind::Conflict,
            Self::Store(error) => error.kind(),
            Self::Content(error) => error.kind(),
        }
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::Store(error) => error.is_transient(),
            Self::Content(error) => error.is_transient(),
            _ => false,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Store(error) => return error.hint(),
            Self::Content(error) => return error.hint(),
            Self::Authority { hint, .. } => hint,
            Self::Bind { source, .. } => match source.kind() {
                std::io::ErrorKind::AddrInUse => {
                    "another program listens there; choose another port, or port 0 for any"
                }
                std::io::ErrorKind::PermissionDenied => "ports below 1024 need privileges; choose a higher one",
                std::io::ErrorKind::AddrNotAvailable => "the address is not one of this machine's",
                _ => return None,
            },
            Self::TlsFile { .. } => "give a PEM certificate chain, the server's own first, and its PEM key",
            Self::Users { .. } => {
                "make each user with `htpasswd -B FILE USER` (`-c` too for the first), from apache2-utils"
            }
            Self::Collision { .. } => "serve the bundles on two ports, or give one image another name with `as:`",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
