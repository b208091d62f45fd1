//! What a registry is called, and where its API stands. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

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
        if !plain || url.host_str().is_none_or(str::is_empty) {
            return Err(fail("it must be HOST or HOST:PORT"));
        }
        Ok(match name.as_str() {
            // references say docker.io, its API answers elsewhere
            DOCKER | "index.docker.io" | "registry-1.docker.io" => {
                Self { name: DOCKER.to_owned(), api: "registry-1.docker.io".to_owned() }
            }
            _ => Self { api: name.clone(), name },
        })
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
        let Ok(url) = self.root("https") else { return false };
        match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(url::Host::Ipv4(ip)) => ip.is_loopback() && ip != Ipv4Addr::UNSPECIFIED,
            Some(url::Host::Ipv6(ip)) => ip == Ipv6Addr::LOCALHOST,
            None => false,
        }
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
