//! What a registry is called, and where its API stands. Pure.

use url::Url;

use crate::Error;

/// The name that stands for Docker's hub.
pub(crate) const DOCKER: &str = "docker.io";

/// A registry host, `name[:port]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// As references name it.
    pub(crate) name: String,
    /// Where its API answers.
    pub(crate) api: String,
}

impl Host {
    /// Reads `HOST[:PORT]`.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let fail = |why: &str| Error::Config { what: "registry", value: text.to_owned(), why: why.to_owned() };
        let name = text.to_ascii_lowercase();
        let url = Url::parse(&format!("https://{name}/")).map_err(|e| fail(&e.to_string()))?;
        let plain =
            url.path() == "/" && url.query().is_none() && url.fragment().is_none() && !name.contains(['/', '@', '\\']);
        let host = url.host_str().filter(|host| !host.is_empty() && plain);
        let host = host.ok_or_else(|| fail("it must be HOST or HOST:PORT"))?;
        if matches!(name.as_str(), DOCKER | "index.docker.io" | "registry-1.docker.io") {
            // references say docker.io, its API answers elsewhere
            return Ok(Self { name: DOCKER.to_owned(), api: "registry-1.docker.io".to_owned() });
        }
        // an IPv6 address may be written in many ways; a port that is written stays, whatever the scheme will be
        let port = if name.ends_with(']') { None } else { name.rsplit_once(':').map(|(_, port)| port) };
        let api = port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Ok(Self { name, api })
    }

    /// The address of the API's root, `SCHEME://HOST/`.
    pub(crate) fn root(&self, scheme: &str) -> Result<Url, Error> {
        Url::parse(&format!("{scheme}://{}/", self.api)).map_err(|e| Error::Config {
            what: "registry",
            value: self.name.clone(),
            why: e.to_string(),
        })
    }

    /// Whether it is this machine: the only place where plain HTTP needs no asking.
    pub(crate) fn is_loopback(&self) -> bool {
        self.root("https").is_ok_and(|url| is_loopback(&url))
    }
}

/// Whether an address is one of this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// `host[:port]` of an address, the port only where it is not the scheme's own.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Whether a repository's path can stand in a URL as it is. Looser than the specification: some registries allow more.
pub(crate) fn is_path(path: &str) -> bool {
    !path.is_empty()
        && path.len() <= 512
        && path.split('/').all(|part| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_io_answers_elsewhere() {
        for name in ["docker.io", "index.docker.io", "registry-1.docker.io"] {
            let host = Host::parse(name).unwrap();
            assert_eq!((host.name.as_str(), host.api.as_str()), ("docker.io", "registry-1.docker.io"));
        }
    }

    #[test]
    fn an_api_has_one_spelling() {
        for (text, api) in [
            ("R.Example:5000", "r.example:5000"),
            ("r.example", "r.example"),
            ("r.example:443", "r.example:443"),
            ("[0:0:0:0:0:0:0:1]:5000", "[::1]:5000"),
            ("[2001:DB8::1]", "[2001:db8::1]"),
        ] {
            assert_eq!(Host::parse(text).unwrap().api, api, "{text}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for (name, expected) in [
            ("localhost", true),
            ("LocalHost:5000", true),
            ("a.localhost:1", true),
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("[::1]:5000", true),
            ("localhost.example", false),
            ("10.0.0.1", false),
            ("[::2]", false),
            ("127.example", false),
        ] {
            assert_eq!(Host::parse(name).unwrap().is_loopback(), expected, "{name}");
        }
    }

    #[test]
    fn what_is_not_a_host_is_refused() {
        for text in ["", "a/b", "a b", "http://a", "a@b", "a?b", "a:port", "..\\x"] {
            assert!(Host::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn paths_that_would_lead_elsewhere_are_refused() {
        for (path, expected) in [
            ("a/b.c_d-e", true),
            ("", false),
            ("a//b", false),
            ("a/../b", false),
            ("a?b", false),
            ("a b", false),
            ("%2e", false),
        ] {
            assert_eq!(is_path(path), expected, "{path}");
        }
    }
}
