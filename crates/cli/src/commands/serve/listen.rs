//! Where to listen, as people type it: an address, a name, a port, any of them alone.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::IntErrorKind;
use std::str::FromStr;

use ferry_image::reference::is_host;

use crate::failure::{End, Error};

/// The port where none is given.
const PORT: u16 = 5000;

/// `ADDRESS:PORT`, and what can be meant by less.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listen {
    /// An address.
    At(SocketAddr),
    /// A name of this machine, whose address is still to be found out.
    Named(String, u16),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let at = |ip: IpAddr, port| Ok(Self::At(SocketAddr::new(ip, port)));
        if let Ok(address) = text.parse() {
            return Ok(Self::At(address));
        }
        if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse() {
            return at(ip, PORT);
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None if text.bytes().all(|b| b.is_ascii_digit()) => ("localhost", Some(text)),
            None => (text, None),
        };
        let port = match port.map(str::parse::<u16>) {
            Some(Err(e)) if *e.kind() == IntErrorKind::PosOverflow => {
                return Err(format!("ports end at 65535; {FORM}"));
            }
            Some(Err(_)) => return Err(FORM.to_owned()),
            Some(Ok(port)) => port,
            None => PORT,
        };
        match host {
            "" | "*" => at(Ipv4Addr::UNSPECIFIED.into(), port),
            // whatever the resolver makes of it
            "localhost" => at(Ipv4Addr::LOCALHOST.into(), port),
            name if is_host(name) && !name.contains([':', '[']) => Ok(Self::Named(name.to_owned(), port)),
            _ => Err(FORM.to_owned()),
        }
    }
}

const FORM: &str = "not an address to listen on: `0.0.0.0:5000` or `:5000` for the whole network, `10.0.0.5:5000`, `[::]:5000`, \
                    `registry.site:5000`, or `5000` for this machine only";

impl Listen {
    /// The address; of a name the first that is IPv4, else its first.
    pub(crate) async fn address(&self) -> Result<SocketAddr, End> {
        let (name, port) = match self {
            Self::At(address) => return Ok(*address),
            Self::Named(name, port) => (name, *port),
        };
        let hint =
            "listen on `0.0.0.0:5000` or an address of this machine; `--advertise` is for the name that nodes use";
        let found = tokio::net::lookup_host((name.as_str(), port)).await;
        let found = found.map_err(|e| Error::usage(format!("cannot listen on `{name}`: {e}"), hint))?;
        let found: Vec<SocketAddr> = found.collect();
        let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
        Ok(*first.ok_or_else(|| Error::usage(format!("cannot listen on `{name}`: it has no address"), hint))?)
    }

    /// The name that was typed.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::At(_) => None,
            Self::Named(name, _) => Some(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_meant_is_taken() {
        for (text, meant) in [
            ("127.0.0.1:5000", "127.0.0.1:5000"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            ("[::1]:17777", "[::1]:17777"),
            ("[::]", "[::]:5000"),
            ("fd00::5", "[fd00::5]:5000"),
            ("10.0.0.5", "10.0.0.5:5000"),
            ("17777", "127.0.0.1:17777"),
            (":80", "0.0.0.0:80"),
            ("*:80", "0.0.0.0:80"),
            ("localhost:17777", "127.0.0.1:17777"),
            ("localhost", "127.0.0.1:5000"),
        ] {
            assert_eq!(text.parse(), Ok(Listen::At(meant.parse().expect("address"))), "{text}");
        }
        assert_eq!("registry.site:80".parse(), Ok(Listen::Named("registry.site".to_owned(), 80)));
        assert_eq!("node7".parse(), Ok(Listen::Named("node7".to_owned(), 5000)));
    }

    #[test]
    fn what_is_nothing_is_refused_with_what_would_do() {
        for text in
            ["", "70000", ":", ":x", "host:", "host:70000", "http://host:80", "a b:80", "10.0.0.5:80:90", "a/b", "-x"]
        {
            let told = text.parse::<Listen>().expect_err(text);
            assert!(told.contains("`0.0.0.0:5000`"), "{text}: {told}");
            assert_eq!(told.contains("end at 65535"), text.ends_with("70000"), "{text}: {told}");
        }
    }

    #[tokio::test]
    async fn a_name_that_nobody_knows_is_told() {
        let told = Listen::Named("nobody.invalid".to_owned(), 80).address().await.expect_err("unknown");
        let End::Problems(told) = told else { panic!("{told:?}") };
        assert!(told.to_string().contains("cannot listen on `nobody.invalid`"), "{told}");
    }
}
