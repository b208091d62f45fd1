//! What the client is told. The library reads neither environment nor home directory: whoever builds a [`Config`] does.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use url::Url;

use crate::host::{Host, authority};
use crate::{Credentials, Error, Retry, Secret};

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
    pub resolve: Vec<Resolve>,
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
    /// What is different for some hosts.
    pub hosts: Hosts,
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
            hosts: Hosts::default(),
        }
    }
}

impl Config {
    /// Whether `host` is spoken to without TLS; `None` when nobody says.
    pub(crate) fn plain_http(&self, host: &Host) -> Option<bool> {
        let own = || self.hosts.0.get(&host.api).and_then(|own| own.plain_http);
        if self.plain_http.has(&host.name) { Some(true) } else { own() }
    }

    /// The configuration for the host of `url` alone; `None` where it has nothing of its own. What the user asks for with
    /// every host in mind ([`Self::resolve`]) goes before what is noted down for one.
    pub(crate) fn for_host(&self, url: &Url) -> Option<Self> {
        let own = self.hosts.of(url);
        let (host, port) = (url.host_str()?, url.port_or_known_default());
        let asked = |r: &Resolve| r.host.eq_ignore_ascii_case(host) && r.port.is_none_or(|p| Some(p) == port);
        let by_port = self.resolve.iter().any(|r| r.port.is_some() && asked(r));
        if own.is_none() && !by_port {
            return None;
        }
        let own = own.cloned().unwrap_or_default();
        let mut config = self.clone();
        // another port's address is none for this one; this port's goes before that of all
        config.resolve.retain(|r| !r.host.eq_ignore_ascii_case(host) || asked(r) && r.port.is_some() == by_port);
        if !config.resolve.iter().any(asked) && !own.resolve.is_empty() {
            config.resolve.push(Resolve { host: host.to_owned(), port: None, addresses: own.resolve.clone() });
        }
        if own.no_proxy {
            config.proxy = Proxies::default();
        }
        config.connect_timeout = own.connect_timeout.unwrap_or(self.connect_timeout);
        config.stall_timeout = own.stall_timeout.unwrap_or(self.stall_timeout);
        config.tls.ca_files.extend(own.ca_files);
        config.tls.client = own.client.or(config.tls.client);
        Some(config)
    }
}

/// Whom to trust.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Files with certificates in PEM (or one in DER), or folders of them: CAs, or a registry's own self-signed one. Trusted for
    /// every host.
    pub ca_files: Vec<PathBuf>,
    /// Shown to every host that asks for a certificate.
    pub client: Option<ClientCertificate>,
    /// Folders laid out as `/etc/docker/certs.d`: `HOST/*.crt` are trusted for that host, `HOST/X.cert` and `HOST/X.key` are
    /// shown to it. Folders that are not there are passed over.
    pub certs_dirs: Vec<PathBuf>,
    /// Whether the system's own CAs are trusted too. Finding none is fine.
    pub system_roots: bool,
}

impl Default for Tls {
    fn default() -> Self {
        Self { ca_files: Vec::new(), client: None, certs_dirs: Vec::new(), system_roots: true }
    }
}

/// A certificate to be shown, and its key; both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The key, without a password.
    pub key: PathBuf,
}

/// What is different for some hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(BTreeMap<String, HostConfig>);

/// What is different for one host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostConfig {
    /// Whether it is spoken to without TLS; when nobody says, only this machine may be.
    pub plain_http: Option<bool>,
    /// Trusted for it, as [`Tls::ca_files`].
    pub ca_files: Vec<PathBuf>,
    /// Shown to it.
    pub client: Option<ClientCertificate>,
    /// Its addresses, instead of asking a name server.
    pub resolve: Vec<IpAddr>,
    /// Reached without a proxy, whatever [`Config::proxy`] says.
    pub no_proxy: bool,
    /// Instead of [`Config::connect_timeout`].
    pub connect_timeout: Option<Duration>,
    /// Instead of [`Config::stall_timeout`].
    pub stall_timeout: Option<Duration>,
}

impl Hosts {
    /// Notes what is different for `host`, `HOST[:PORT]` as references name it.
    ///
    /// # Errors
    /// When that is not a host.
    pub fn insert(&mut self, host: &str, config: HostConfig) -> Result<(), Error> {
        self.0.insert(Host::parse(host)?.api, config);
        Ok(())
    }

    pub(crate) fn of(&self, url: &Url) -> Option<&HostConfig> {
        let with_port =
            || format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(0));
        self.0.get(&authority(url)).or_else(|| self.0.get(&with_port()))
    }
}

/// Addresses for a name, instead of asking a name server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolve {
    /// The name.
    pub host: String,
    /// Only for connections to this port; for all without.
    pub port: Option<u16>,
    /// At least one.
    pub addresses: Vec<IpAddr>,
}

impl FromStr for Resolve {
    type Err = Error;

    /// Reads `HOST:ADDRESS` and curl's `HOST:PORT:ADDRESS[,ADDRESS…]`. IPv6 addresses stand in brackets.
    fn from_str(text: &str) -> Result<Self, Error> {
        let fail = |why: &str| Error::Config { what: "address", value: text.to_owned(), why: why.to_owned() };
        let form = "write HOST:ADDRESS or HOST:PORT:ADDRESS, an IPv6 address in brackets";
        let (host, rest) = text.split_once(':').ok_or_else(|| fail(form))?;
        let (port, addresses) = match rest.split_once(':') {
            Some((port, addresses)) if !rest.starts_with('[') => {
                (Some(port.parse().map_err(|_| fail(form))?), addresses)
            }
            _ => (None, rest),
        };
        let parsed = Host::parse(host)?;
        if parsed.api.contains(':') {
            return Err(fail(form));
        }
        let address = |text: &str| match text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
            Some(v6) => v6.parse().map(IpAddr::V6).map_err(|_| fail(&format!("`{v6}` is not an IPv6 address"))),
            None => text.parse().map(IpAddr::V4).map_err(|_| fail(&format!("`{text}` is not an IP address; {form}"))),
        };
        Ok(Self { host: parsed.api, port, addresses: addresses.split(',').map(address).collect::<Result<_, _>>()? })
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

/// Proxies, as the usual environment variables give them: `[SCHEME://][USER:PASSWORD@]HOST[:PORT]`, where the scheme is `http`
/// (unless said), `https`, `socks5` (names are resolved here), `socks5h` (or by the proxy), `socks4` or `socks4a`. This machine
/// itself is never reached through one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http://` addresses.
    pub http: Option<Secret>,
    /// For `https://` addresses.
    pub https: Option<Secret>,
    /// For what the other two leave.
    pub all: Option<Secret>,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str) -> Resolve {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_as_they_are_given() {
        let table: [(&str, &str, Option<u16>, &[&str]); 5] = [
            ("r.example:192.0.2.1", "r.example", None, &["192.0.2.1"]),
            ("R.example:[2001:db8::1]", "r.example", None, &["2001:db8::1"]),
            ("r.example:5000:192.0.2.1", "r.example", Some(5000), &["192.0.2.1"]),
            ("r.example:443:192.0.2.1,[::1]", "r.example", Some(443), &["192.0.2.1", "::1"]),
            ("docker.io:[::1]", "registry-1.docker.io", None, &["::1"]),
        ];
        for (text, host, port, addresses) in table {
            let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
            assert_eq!(resolve(text), Resolve { host: host.to_owned(), port, addresses }, "{text}");
        }
        for text in [
            "",
            "r.example",
            "r.example:",
            ":192.0.2.1",
            "r.example:2001:db8::1",
            "r.example:::1",
            "r.example:x:192.0.2.1",
            "r.example:192.0.2.1,",
            "r.example:5000:name.example",
            "[::1]:5000:192.0.2.1",
            "r.example:[192.0.2.1]",
            "a/b:192.0.2.1",
        ] {
            assert!(text.parse::<Resolve>().is_err(), "{text}");
        }
    }

    fn at(config: &Config, url: &str) -> Option<Vec<String>> {
        let own = config.for_host(&Url::parse(url).unwrap())?;
        Some(own.resolve.iter().flat_map(|r| r.addresses.iter().map(ToString::to_string)).collect())
    }

    #[test]
    fn the_command_lines_address_goes_before_the_hosts_own() {
        let mut config = Config::default();
        let own = |address: &str| HostConfig { resolve: vec![address.parse().unwrap()], ..HostConfig::default() };
        config.hosts.insert("r.example", own("192.0.2.1")).unwrap();
        config.hosts.insert("R.example:5000", own("192.0.2.2")).unwrap();
        config.hosts.insert("docker.io", own("192.0.2.3")).unwrap();
        let one = |address: &str| Some(vec![address.to_owned()]);
        assert_eq!(at(&config, "https://r.example/v2/"), one("192.0.2.1"));
        assert_eq!(at(&config, "http://r.example:5000/"), one("192.0.2.2"));
        assert_eq!(at(&config, "https://registry-1.docker.io/v2/"), one("192.0.2.3"));
        assert_eq!(at(&config, "https://r.example:6000/"), None);
        config.hosts.insert("q.example:443", own("192.0.2.4")).unwrap();
        assert_eq!(at(&config, "https://q.example/v2/"), one("192.0.2.4"));
        assert_eq!(at(&config, "http://q.example/v2/"), None);

        config.resolve = vec![resolve("r.example:5000:192.0.2.9")];
        assert_eq!(
            at(&config, "https://r.example/v2/"),
            one("192.0.2.1"),
            "another port's address is none for this one"
        );
        assert_eq!(at(&config, "https://r.example:5000/v2/"), one("192.0.2.9"));
        config.resolve.push(resolve("r.example:192.0.2.8"));
        assert_eq!(at(&config, "https://r.example:5000/v2/"), one("192.0.2.9"), "the closer one");
        assert_eq!(at(&config, "https://r.example/v2/"), one("192.0.2.8"));
        assert_eq!(at(&config, "https://r.example:7000/v2/"), None, "as for all");
    }

    #[test]
    fn what_a_host_has_of_its_own() {
        let mut config = Config {
            proxy: Proxies { all: Some(Secret::new("p.example")), ..Proxies::default() },
            plain_http: PlainHttp::Hosts(vec!["loud.example".to_owned()]),
            ..Config::default()
        };
        config.tls.ca_files.push("all.pem".into());
        let pair = ClientCertificate { certificate: "c.pem".into(), key: "c.key".into() };
        let own = HostConfig {
            plain_http: Some(false),
            ca_files: vec!["own.pem".into()],
            client: Some(pair.clone()),
            no_proxy: true,
            connect_timeout: Some(Duration::from_secs(1)),
            stall_timeout: Some(Duration::from_secs(2)),
            ..HostConfig::default()
        };
        config.hosts.insert("r.example", own.clone()).unwrap();
        config.hosts.insert("loud.example", own).unwrap();
        let own = config.for_host(&Url::parse("https://r.example/").unwrap()).unwrap();
        assert_eq!(own.tls.ca_files, [PathBuf::from("all.pem"), PathBuf::from("own.pem")]);
        assert_eq!((own.tls.client, own.proxy), (Some(pair), Proxies::default()));
        assert_eq!((own.connect_timeout.as_secs(), own.stall_timeout.as_secs()), (1, 2));
        for (host, expected) in [("r.example", Some(false)), ("loud.example", Some(true)), ("s.example", None)] {
            assert_eq!(config.plain_http(&Host::parse(host).unwrap()), expected, "{host}");
        }
        assert!(config.hosts.insert("https://r.example", HostConfig::default()).is_err());
    }
}
