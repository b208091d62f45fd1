//! What can go wrong between here and a registry, said so that a user knows what to do next.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use ferry_content::{Failure, Kind};
use ferry_image::Digest;

use crate::proxy::ProxyFault;
use crate::{Quota, hint};

/// An error of this crate.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A file that the configuration names cannot be used.
    #[error("cannot use `{}`: {why}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// Whether the system refused to read it (rather than its content being wrong).
        io: bool,
    },
    /// A value of the configuration cannot be used.
    #[error("{what} `{value}` is not usable: {why}")]
    Config {
        /// What the value is for.
        what: &'static str,
        /// The value.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// There was no answer to a request.
    #[error("{host}: {cause}{}", via(.host, .address))]
    Connect {
        /// The registry as the user names it.
        host: String,
        /// The host that was contacted: differs after a redirect, for a token server, and for docker.io.
        address: String,
        /// Why.
        cause: Cause,
    },
    /// The server answered with a refusal.
    #[error("{0}")]
    Status(Box<Status>),
    /// A transfer broke off.
    #[error("{place}: {what} broke off after {moved} of {size} bytes: {why}")]
    Interrupted {
        /// `host/path`.
        place: String,
        /// `blob sha256:…`, `upload of blob sha256:…`.
        what: String,
        /// Bytes that had moved.
        moved: u64,
        /// Bytes that were to move.
        size: u64,
        /// Why.
        why: String,
    },
    /// The content is not what its digest, or the digest the server states, says.
    #[error("{place}: {what} should be {expected}, but is {found}")]
    Digest {
        /// `host/path`.
        place: String,
        /// What was asked for.
        what: String,
        /// The digest asked for, or stated by the server.
        expected: Digest,
        /// The digest of the bytes.
        found: Digest,
    },
    /// More bytes than anything of its kind has.
    #[error("{place}: {what} is larger than {limit} bytes")]
    TooLarge {
        /// `host/path`.
        place: String,
        /// What was asked for.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// The server does not follow the distribution-spec.
    #[error("{place}: {what}: {why}")]
    Protocol {
        /// `host` or `host/path`.
        place: String,
        /// What was asked for.
        what: String,
        /// What the server did.
        why: String,
    },
    /// Credentials are configured, but cannot be had or used.
    #[error("{host}: credentials from {origin}: {why}")]
    Credentials {
        /// The registry.
        host: String,
        /// The file or program they come from.
        origin: String,
        /// What went wrong.
        why: String,
    },
}

/// Why there was no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The name has no address.
    Name {
        /// The resolver's own words.
        why: String,
        /// Whether the name server itself failed, so that it may work later.
        passes: bool,
    },
    /// Nothing listens there.
    Refused,
    /// No answer in time.
    TimedOut,
    /// The connection was closed.
    Closed(String),
    /// The certificate is past its end.
    Expired(Option<String>),
    /// The certificate is not valid yet: often a wrong clock.
    NotYetValid(Option<String>),
    /// The certificate is for other names.
    WrongName(Vec<String>),
    /// The certificate has no subject alternative name at all.
    NoNames,
    /// Nobody here knows who signed the certificate.
    UnknownIssuer,
    /// There is no CA here that could vouch for any certificate.
    NobodyTrusted,
    /// The server does not let us in with the certificate that we show, or without one.
    ClientCertificate {
        /// Whether we show one.
        shown: bool,
        /// The server's words.
        why: String,
    },
    /// Another fault in TLS.
    Tls(String),
    /// HTTPS was spoken, and plain HTTP came back.
    PlainHttp,
    /// Plain HTTP was spoken, and something else came back.
    Https,
    /// Both were spoken, and neither was understood.
    NotHttp,
    /// The proxy on the way is in the way.
    Proxy {
        /// Its address, without user and password.
        address: String,
        /// What it did.
        fault: ProxyFault,
    },
    /// Anything else.
    Other(String),
}

impl Cause {
    /// Whether it may work when tried again.
    #[must_use]
    pub fn passes(&self) -> bool {
        match self {
            Self::Name { passes, .. } => *passes,
            Self::Proxy { fault, .. } => fault.passes(),
            Self::Refused | Self::TimedOut | Self::Closed(_) | Self::Other(_) => true,
            _ => false,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { why, .. } => write!(f, "the name cannot be resolved: {why}"),
            Self::Refused => f.write_str("connection refused"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Closed(why) => write!(f, "the connection was closed: {why}"),
            Self::Expired(None) => f.write_str("its certificate has expired"),
            Self::Expired(Some(when)) => write!(f, "its certificate expired on {when}"),
            Self::NotYetValid(None) => f.write_str("its certificate is not valid yet"),
            Self::NotYetValid(Some(when)) => write!(f, "its certificate is not valid before {when}"),
            Self::WrongName(names) => write!(f, "its certificate is for other names: {}", names.join(", ")),
            Self::NoNames => {
                f.write_str("its certificate has no subject alternative name (a common name is not enough)")
            }
            Self::UnknownIssuer => f.write_str("its certificate is signed by nobody that is trusted here"),
            Self::NobodyTrusted => {
                f.write_str("its certificate cannot be checked: there is not one CA on this machine")
            }
            Self::ClientCertificate { shown: false, .. } => {
                f.write_str("it wants a client certificate, and none is configured for it")
            }
            Self::ClientCertificate { why, .. } => write!(f, "it does not accept our client certificate: {why}"),
            Self::Proxy { address, fault } => match fault {
                ProxyFault::Unreachable(cause) => write!(f, "the proxy {address} cannot be reached: {cause}"),
                ProxyFault::Login => {
                    write!(f, "the proxy {address} does not accept our login, or the lack of one")
                }
                ProxyFault::Refuses(why) => write!(f, "the proxy {address} refuses to connect: {why}"),
                ProxyFault::Fails(why) => write!(f, "the proxy {address} does not get through: {why}"),
                ProxyFault::TimedOut => write!(f, "no answer in time by way of the proxy {address}"),
            },
            Self::Tls(why) => write!(f, "TLS failed: {why}"),
            Self::PlainHttp => f.write_str("it speaks plain HTTP, not HTTPS"),
            Self::Https => f.write_str("it does not speak plain HTTP"),
            Self::NotHttp => f.write_str("it speaks neither HTTPS nor plain HTTP"),
            Self::Other(why) => f.write_str(why),
        }
    }
}

fn via(host: &str, address: &str) -> String {
    if host == address { String::new() } else { format!(" (asking {address})") }
}

/// What a request was about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The registry as such (`GET /v2/`).
    Registry,
    /// A manifest, by tag or digest.
    Manifest(String),
    /// Writing a manifest, by tag or digest.
    PutManifest(String),
    /// A blob.
    Blob(Digest),
    /// An upload.
    Upload(Option<Digest>),
    /// The list of tags.
    Tags,
    /// The list of repositories.
    Catalog,
    /// The list of what refers to a manifest.
    Referrers(Digest),
    /// A token for these scopes.
    Token(String),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry => f.write_str("the registry's API"),
            Self::Manifest(name) => write!(f, "manifest {name}"),
            Self::PutManifest(name) => write!(f, "upload of manifest {name}"),
            Self::Blob(digest) => write!(f, "blob {digest}"),
            Self::Upload(Some(digest)) => write!(f, "upload of blob {digest}"),
            Self::Upload(None) => f.write_str("starting an upload"),
            Self::Tags => f.write_str("the list of tags"),
            Self::Catalog => f.write_str("the list of repositories"),
            Self::Referrers(digest) => write!(f, "the referrers of {digest}"),
            Self::Token(scopes) => write!(f, "a token for {scopes}"),
        }
    }
}

/// A refusal of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The registry as the user names it.
    pub host: String,
    /// The repository's path; empty when the request was about none.
    pub repository: String,
    /// What was asked.
    pub what: What,
    /// Method and path, without query.
    pub request: String,
    /// The host that answered, where it is not the registry itself.
    pub answered_by: Option<String>,
    /// The HTTP status.
    pub status: u16,
    /// The registry's error code, such as `MANIFEST_UNKNOWN`; empty when it gave none.
    pub code: String,
    /// The registry's words; empty when it gave none.
    pub message: String,
    /// Whether a web page came: something in front of the registry answered, not the registry.
    pub page: bool,
    /// How long the server asks to wait.
    pub retry_after: Option<Duration>,
    /// How many more requests the server answers, where it says so.
    pub quota: Option<Quota>,
    /// Where the credentials that were used come from, if any were.
    pub credentials: Option<String>,
    /// Whether a token server had given a token for this.
    pub with_token: bool,
    /// Whether it is about bringing something there, be it only a look before.
    pub pushes: bool,
    /// Whether the same request may succeed when made again, and has not been made several times already.
    pub passes: bool,
}

/// What the specification, or the registry that everybody copies, says to each code: nothing that the code does not say.
const USUAL: [&str; 7] = [
    "manifest unknown",
    "blob unknown to registry",
    "repository name not known to registry",
    "authentication required",
    "a user name and password are needed",
    "requested access to the resource is denied",
    "too many requests",
];

impl Status {
    /// `host/path`, or `host` where no repository is concerned.
    #[must_use]
    pub fn place(&self) -> String {
        if self.repository.is_empty() { self.host.clone() } else { format!("{}/{}", self.host, self.repository) }
    }

    /// Whether it is the login that was refused, whatever it was for.
    fn is_login(&self) -> bool {
        self.status == 401 && self.credentials.is_some() && !self.with_token && !matches!(self.what, What::Catalog)
    }

    fn says(&self) -> String {
        let what = &self.what;
        // who may pull everything may still not be told what there is
        if matches!(what, What::Catalog) && matches!(self.status, 401 | 403 | 404 | 405 | 410 | 501) && !self.page {
            return match self.status {
                401 if self.credentials.is_none() => "credentials are required to list its repositories".to_owned(),
                401 | 403 => "not allowed to list its repositories".to_owned(),
                _ => "it does not list its repositories".to_owned(),
            };
        }
        let verb = if self.pushes { "push" } else { "pull" };
        match self.status {
            401 if self.is_login() => format!("wrong user name or password for {}", self.host),
            401 if self.with_token && self.pushes => "not allowed to push".to_owned(),
            401 if self.with_token && self.credentials.is_some() => {
                "there is no such repository, or this account may not pull it".to_owned()
            }
            401 if self.with_token => "there is no such repository, or it is not public".to_owned(),
            401 => format!("credentials are required to {verb}"),
            403 => format!("not allowed to {verb}"),
            404 if self.code == "NAME_UNKNOWN" => "there is no such repository".to_owned(),
            404 | 410 if !self.page => match what {
                What::Manifest(name) if !name.contains(':') => format!("there is no tag `{name}`"),
                What::Manifest(_) | What::Blob(_) => format!("there is no {what}"),
                _ => format!("{what}: not found"),
            },
            404 | 410 => format!("{what}: not found"),
            405 => format!("{what}: not allowed"),
            408 | 504 => format!("{what}: timed out"),
            413 => format!("{what}: too large for this registry"),
            429 => "too many requests".to_owned(),
            500..600 => format!("{what}: the registry failed"),
            _ => format!("{what}: refused"),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // the same for all that was asked for
        if !self.is_login() {
            write!(f, "{}: ", self.place())?;
        }
        write!(f, "{} ({}", self.says(), self.status)?;
        if !self.code.is_empty() {
            write!(f, " {}", self.code)?;
        }
        // what these mean is said already
        if !matches!(self.status, 401 | 403 | 404 | 410 | 429) {
            write!(f, " to {}", self.request)?;
        }
        if let Some(other) = &self.answered_by {
            write!(f, " from {other}")?;
        }
        f.write_str(")")?;
        match self.message.as_str() {
            "" => Ok(()),
            message if self.page => write!(f, ": a web page says: {message}"),
            message if USUAL.iter().any(|usual| usual.eq_ignore_ascii_case(message)) => Ok(()),
            message => write!(f, ": {message}"),
        }
    }
}

impl Error {
    /// A file that cannot be read.
    pub(crate) fn unreadable(path: impl Into<PathBuf>, error: &std::io::Error) -> Self {
        Self::File { path: path.into(), why: error.to_string(), io: true }
    }

    /// A file whose content is wrong.
    pub(crate) fn content(path: impl Into<PathBuf>, why: impl Into<String>) -> Self {
        Self::File { path: path.into(), why: why.into(), io: false }
    }

    /// The same error for somebody else, where it is about a server's answer or the lack of one.
    pub(crate) fn again(&self) -> Option<Self> {
        matches!(self, Self::Connect { .. } | Self::Status(_)).then(|| self.clone())
    }

    /// The HTTP status, when the server answered with a refusal.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status(status) => Some(status.status),
            _ => None,
        }
    }
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::File { io: true, .. } => Kind::Local,
            Self::File { .. } => Kind::Invalid,
            Self::Config { .. } => Kind::Usage,
            Self::Digest { .. } | Self::TooLarge { .. } => Kind::Untrusted,
            Self::Status(status) => match (status.status, &status.what) {
                (404 | 410, What::Manifest(_) | What::Blob(_) | What::Tags) => Kind::Missing,
                _ => Kind::Remote,
            },
            Self::Connect { .. } | Self::Interrupted { .. } | Self::Protocol { .. } | Self::Credentials { .. } => {
                Kind::Remote
            }
        }
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::Interrupted { .. } => true,
            Self::Connect { cause, .. } => cause.passes(),
            Self::Status(status) => status.passes,
            _ => false,
        }
    }

    fn hint(&self) -> Option<String> {
        hint::of(self)
    }
}
