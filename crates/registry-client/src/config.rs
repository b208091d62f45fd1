//! What the client is told. The library reads neither environment nor home directory: whoever builds a [`Config`] does.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::{Credentials, Retry};

/// Everything the client needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whom to trust.
    pub tls: Tls,
    /// Which registries have no TLS.
    pub plain_http: PlainHttp,
    /// Who we are.
    pub credentials: Credentials,
    /// Proxies; none unless given.
    pub proxy: Proxies,
    /// Addresses for names, instead of asking a name server.
    pub resolve: Vec<(String, IpAddr)>,
    /// How names are resolved.
    pub resolver: Resolver,
    /// Sent as `User-Agent`.
    pub user_agent: String,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// How long a transfer may stand still, and a server may take to answer.
    pub stall_timeout: Duration,
    /// How long a registry may take to file a blob away once it has all bytes (those on object storage copy it).
    pub commit_timeout: Duration,
    /// How patient the client is.
    pub retry: Retry,
    /// The most requests at one time to one host; halved when it answers 429.
    pub concurrency: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tls: Tls::default(),
            plain_http: PlainHttp::default(),
            credentials: Credentials::default(),
            proxy: Proxies::default(),
            resolve: Vec::new(),
            resolver: Resolver::default(),
            user_agent: concat!("ferry/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: Duration::from_secs(20),
            stall_timeout: Duration::from_secs(60),
            commit_timeout: Duration::from_secs(600),
            retry: Retry::default(),
            concurrency: 64,
        }
    }
}

/// Whom to trust.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Files with certificates in PEM (or one in DER): CAs, or a registry's own self-signed one. Trusted for every host.
    pub ca_files: Vec<PathBuf>,
    /// Folders laid out as `/etc/docker/certs.d`: `HOST/*.crt` are trusted for that host, `HOST/X.cert` and `HOST/X.key` are
    /// shown to it. Folders that are not there are passed over.
    pub certs_dirs: Vec<PathBuf>,
    /// Whether the system's own CAs are trusted too. Finding none is fine.
    pub system_roots: bool,
}

impl Default for Tls {
    fn default() -> Self {
        Self { ca_files: Vec::new(), certs_dirs: Vec::new(), system_roots: true }
    }
}

/// Which registries are spoken to without TLS. For this machine itself both are tried, whatever stands here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PlainHttp {
    /// None.
    #[default]
    Never,
    /// These hosts (`host[:port]`).
    Hosts(Vec<String>),
    /// All.
    All,
}

impl PlainHttp {
    pub(crate) fn has(&self, host: &str) -> bool {
        match self {
            Self::Never => false,
            Self::Hosts(hosts) => hosts.iter().any(|h| h.eq_ignore_ascii_case(host)),
            Self::All => true,
        }
    }
}

/// Proxies, as the usual environment variables give them. This machine itself is never reached through one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http://` addresses.
    pub http: Option<String>,
    /// For `https://` addresses.
    pub https: Option<String>,
    /// For what the other two leave.
    pub all: Option<String>,
    /// Hosts, suffixes and networks to be reached directly, separated by commas.
    pub no_proxy: Option<String>,
}

/// How names are resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolver {
    /// The C library's `getaddrinfo`.
    System,
    /// Our own, from `/etc/hosts` and `/etc/resolv.conf`; it never asks a name server that is not listed there. For the static
    /// build, where `getaddrinfo` would load the host's NSS modules into a foreign C library.
    Own,
}

impl Default for Resolver {
    fn default() -> Self {
        if cfg!(all(target_feature = "crt-static", target_env = "gnu")) { Self::Own } else { Self::System }
    }
}

/// Where credential programs (`docker-credential-…`) are looked for, and how long one may take.
#[derive(Debug, Clone)]
pub struct Commands {
    /// The value of `PATH`.
    pub path: OsString,
    /// The time one may take.
    pub timeout: Duration,
}

impl Default for Commands {
    fn default() -> Self {
        Self { path: OsString::new(), timeout: Duration::from_secs(60) }
    }
}
