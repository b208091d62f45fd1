//! Which proxy leads to an address, and what it means when it does not. Pure; [`crate::tunnel`] asks one why it refuses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use http::HeaderValue;
use percent_encoding::percent_decode_str;
use url::{Host, Url};

use crate::auth::basic;
use crate::config::Proxies;
use crate::host::is_loopback;
use crate::{Cause, Error, Secret};

/// Schemes that lead somewhere; one without is `http`.
const SCHEMES: [&str; 6] = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"];

/// A proxy's address. Its user and password are in it, but are not printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proxy(Url);

impl Proxy {
    /// The whole address, for whoever connects to it.
    pub(crate) fn url(&self) -> &Url {
        &self.0
    }

    /// `Basic …`, where the address has a user.
    pub(crate) fn login(&self) -> Option<HeaderValue> {
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        if self.0.username().is_empty() {
            return None;
        }
        let password = Secret::new(decoded(self.0.password().unwrap_or_default()));
        basic(&decoded(self.0.username()), &password).ok()
    }
}

impl FromStr for Proxy {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url = Url::parse(&with_scheme).map_err(|_| "it is not an address: write `http://HOST:PORT`")?;
        if !SCHEMES.contains(&url.scheme()) {
            return Err("its scheme is none of http, https, socks5, socks5h, socks4, socks4a");
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err("it names no host: write `http://HOST:PORT`");
        }
        Ok(Self(url))
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.0.scheme(), self.0.host_str().unwrap_or_default())?;
        self.0.port().map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// All proxies, and what is reached without one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Routes {
    http: Option<Arc<Proxy>>,
    https: Option<Arc<Proxy>>,
    direct: Vec<Exception>,
}

impl Routes {
    pub(crate) fn new(settings: &Proxies) -> Result<Self, Error> {
        let read = |variable: &str, value: &Option<Secret>| match value {
            Some(text) if !text.reveal().trim().is_empty() => match text.reveal().parse::<Proxy>() {
                Ok(proxy) => Ok(Some(Arc::new(proxy))),
                // the address may hold a password: it is not shown
                Err(why) => Err(Error::Config { what: "proxy of", value: variable.to_owned(), why: why.to_owned() }),
            },
            _ => Ok(None),
        };
        let all = read("ALL_PROXY", &settings.all)?;
        let exceptions = settings.no_proxy.as_deref().unwrap_or_default();
        Ok(Self {
            http: read("HTTP_PROXY", &settings.http)?.or_else(|| all.clone()),
            https: read("HTTPS_PROXY", &settings.https)?.or(all),
            direct: exceptions.split([',', ' ', '\t']).filter_map(Exception::read).collect(),
        })
    }

    /// Whether there is any proxy.
    pub(crate) fn is_empty(&self) -> bool {
        self.http.is_none() && self.https.is_none()
    }

    /// The proxy that leads to `url`; `None` where it is reached directly.
    pub(crate) fn proxy(&self, url: &Url) -> Option<&Arc<Proxy>> {
        let proxy = if url.scheme() == "http" { &self.http } else { &self.https };
        let proxy = proxy.as_ref()?;
        let direct = is_loopback(url) || self.direct.iter().any(|exception| exception.covers(url));
        (!direct).then_some(proxy)
    }
}

/// An entry of `NO_PROXY`, as curl and Go read them: a name stands for itself and all below it, with or without a dot or `*.`
/// in front; an address or a network for addresses that are written as such; each may have a port.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Exception {
    All,
    Name { name: String, port: Option<u16> },
    Network { address: IpAddr, prefix: u32, port: Option<u16> },
}

impl Exception {
    fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        if text == "*" {
            return Some(Self::All);
        }
        if let Some((address, prefix)) = text.split_once('/') {
            let address: IpAddr = bare(address).parse().ok()?;
            let prefix: u32 = prefix.parse().ok()?;
            return (prefix <= width(address)).then_some(Self::Network { address, prefix, port: None });
        }
        let (host, port) = match text.rsplit_once(':') {
            // more colons are those of an IPv6 address without brackets
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port.parse().ok()?)),
            _ => (text, None),
        };
        if let Ok(address) = bare(host).parse::<IpAddr>() {
            return Some(Self::Network { address, prefix: width(address), port });
        }
        let name = host.strip_prefix('*').unwrap_or(host).trim_matches('.').to_ascii_lowercase();
        (!name.is_empty()).then_some(Self::Name { name, port })
    }

    fn covers(&self, url: &Url) -> bool {
        let at = |port: &Option<u16>| port.is_none_or(|port| url.port_or_known_default() == Some(port));
        match (self, url.host()) {
            (Self::All, _) => true,
            (Self::Name { name, port }, Some(Host::Domain(host))) => {
                let host = host.trim_end_matches('.');
                let below = host.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
                below && at(port)
            }
            (Self::Network { address, prefix, port }, Some(Host::Ipv4(ip))) => {
                within(IpAddr::V4(ip), *address, *prefix) && at(port)
            }
            (Self::Network { address, prefix, port }, Some(Host::Ipv6(ip))) => {
                within(IpAddr::V6(ip), *address, *prefix) && at(port)
            }
            _ => false,
        }
    }
}

fn bare(address: &str) -> &str {
    address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address)
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn within(ip: IpAddr, network: IpAddr, prefix: u32) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    let different = bits(ip) ^ bits(network);
    ip.is_ipv4() == network.is_ipv4() && different.checked_shr(width(ip) - prefix).unwrap_or(0) == 0
}

/// What a proxy did instead of letting a connection through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyFault {
    /// It cannot be reached itself.
    Unreachable(Box<Cause>),
    /// It wants a user and a password, or others than it got.
    Login,
    /// It does not allow this host; in its own words.
    Refuses(String),
    /// It does not reach the host; in its own words.
    Fails(String),
    /// There was no answer through it in time.
    TimedOut,
}

impl ProxyFault {
    /// Whether it may work when tried again.
    pub(crate) fn passes(&self) -> bool {
        match self {
            Self::Unreachable(cause) => cause.passes(),
            Self::Login | Self::Refuses(_) => false,
            Self::Fails(_) | Self::TimedOut => true,
        }
    }

    /// What the status means that a proxy answers to CONNECT with; `None` for what is no refusal.
    pub(crate) fn of_status(status: u16, reason: &str) -> Option<Self> {
        let words = if reason.is_empty() { status.to_string() } else { format!("{status} {reason}") };
        Some(match status {
            200..300 => return None,
            407 => Self::Login,
            408 | 425 | 429 | 500.. => Self::Fails(words),
            _ => Self::Refuses(words),
        })
    }
}

/// How a connection by way of a proxy failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The proxy's doing.
    Fault(ProxyFault),
    /// Only the proxy knows.
    AskWhy,
    /// Not the proxy's doing: what is behind it, or a connection that had come about.
    NotItsDoing,
}

/// Reads the words of the HTTP library, which exports no types for them. `chain` are an error's sources, outermost first;
/// `cause` is what they say otherwise.
pub(crate) fn verdict(chain: &[String], cause: &Cause) -> Verdict {
    let after = |words: &str| chain.iter().find_map(|text| text.strip_prefix(words));
    if let Some(words) = after("tunnel error: ") {
        return match words {
            "proxy authorization required" => Verdict::Fault(ProxyFault::Login),
            "unsuccessful" => Verdict::AskWhy,
            "failed to create underlying connection" => unreachable(cause),
            other => Verdict::Fault(ProxyFault::Fails(other.to_owned())),
        };
    }
    if let Some(words) = after("SOCKS error: ") {
        return Verdict::Fault(match words {
            // the reason is not passed on here
            "failed to create underlying connection" => return Verdict::AskWhy,
            "connection not allowed" => ProxyFault::Refuses(words.to_owned()),
            words if words.contains("credentials") || words.contains("authentication") => ProxyFault::Login,
            other => ProxyFault::Fails(other.to_owned()),
        });
    }
    match cause {
        Cause::TimedOut => Verdict::Fault(ProxyFault::TimedOut),
        // plain HTTP: the only connection is the one to the proxy
        Cause::Refused | Cause::Name { .. } => unreachable(cause),
        _ => Verdict::NotItsDoing,
    }
}

fn unreachable(cause: &Cause) -> Verdict {
    Verdict::Fault(ProxyFault::Unreachable(Box::new(cause.clone())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn routes(no_proxy: &str) -> Routes {
        Routes::new(&Proxies {
            http: Some(Secret::new("plain.example:3128")),
            https: None,
            all: Some(Secret::new("socks5h://me:hunter2@all.example")),
            no_proxy: Some(no_proxy.to_owned()),
        })
        .unwrap()
    }

    fn leads(no_proxy: &str, url: &str) -> Option<String> {
        routes(no_proxy).proxy(&Url::parse(url).unwrap()).map(ToString::to_string)
    }

    #[test]
    fn a_scheme_has_its_proxy_and_this_machine_none() {
        let all = Some("socks5h://all.example".to_owned());
        assert_eq!(leads("", "http://r.example/"), Some("http://plain.example:3128".to_owned()));
        assert_eq!(leads("", "https://r.example/"), all);
        assert_eq!(leads("", "https://192.0.2.1:5000/"), all);
        for here in ["https://localhost/", "http://a.localhost:5000/", "http://127.9.9.9/", "https://[::1]:5000/"] {
            assert_eq!(leads("", here), None, "{here}");
        }
    }

    #[test]
    fn exceptions_as_curl_and_go_read_them() {
        let table = [
            ("example.com", "https://example.com/", true),
            ("example.com", "https://r.example.com:5000/", true),
            (".example.com", "https://example.com/", true),
            (".example.com", "https://r.example.com/", true),
            ("*.example.com", "https://r.example.com/", true),
            ("Example.COM.", "https://r.example.com./", true),
            ("example.com", "https://notexample.com/", false),
            ("example.com", "https://example.com.evil/", false),
            ("example.com:5000", "https://example.com:5000/", true),
            ("example.com:5000", "https://example.com/", false),
            ("example.com:443", "https://example.com/", true),
            ("10.0.0.0/8", "https://10.20.30.40:5000/", true),
            ("10.0.0.0/8", "https://11.0.0.1/", false),
            ("10.0.0.0/8", "https://10.example.com/", false),
            ("0.0.0.0/0", "https://11.0.0.1/", true),
            ("192.0.2.1", "https://192.0.2.1/", true),
            ("192.0.2.1:5000", "https://192.0.2.1:5001/", false),
            ("2001:db8::/32", "https://[2001:db8:1::2]/", true),
            ("2001:db8::/32", "https://[2001:db9::2]/", false),
            ("2001:db8::1", "https://[2001:db8::1]:5000/", true),
            ("[2001:db8::1]:5000", "https://[2001:db8::1]:5000/", true),
            ("[2001:db8::1]:5000", "https://[2001:db8::1]/", false),
            ("::/0", "https://192.0.2.1/", false),
            ("*", "https://r.example/", true),
            (" a.example , r.example", "https://r.example/", true),
            ("a.example r.example", "https://r.example/", true),
            (",, .", "https://r.example/", false),
            ("10.0.0.0/33", "https://10.0.0.1/", false),
        ];
        for (no_proxy, url, direct) in table {
            assert_eq!(leads(no_proxy, url).is_none(), direct, "{no_proxy} {url}");
        }
    }

    #[test]
    fn a_password_is_not_printed() {
        let shown = format!("{:?}", routes(""));
        assert!(shown.contains("all.example") && !shown.contains("hunter2"), "{shown}");
        for bad in ["ftp://me:hunter2@p.example", "http://me:hunter2@", "http://me:hunter2@p:x"] {
            let error = Routes::new(&Proxies { https: Some(Secret::new(bad)), ..Proxies::default() }).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(shown.contains("HTTPS_PROXY") && !shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn whose_doing_it_is() {
        use ProxyFault::{Fails, Login, Refuses, TimedOut, Unreachable};
        let other = || Cause::Other("x".to_owned());
        let table = [
            ("tunnel error: proxy authorization required", other(), Verdict::Fault(Login)),
            ("tunnel error: unsuccessful", other(), Verdict::AskWhy),
            (
                "tunnel error: failed to create underlying connection",
                Cause::Refused,
                Verdict::Fault(Unreachable(Box::new(Cause::Refused))),
            ),
            (
                "tunnel error: unexpected end of file",
                other(),
                Verdict::Fault(Fails("unexpected end of file".to_owned())),
            ),
            ("SOCKS error: failed to create underlying connection", other(), Verdict::AskWhy),
            ("SOCKS error: credentials not accepted", other(), Verdict::Fault(Login)),
            (
                "SOCKS error: connection not allowed",
                other(),
                Verdict::Fault(Refuses("connection not allowed".to_owned())),
            ),
            ("SOCKS error: host unreachable", other(), Verdict::Fault(Fails("host unreachable".to_owned()))),
            ("connect", Cause::TimedOut, Verdict::Fault(TimedOut)),
            ("connect", Cause::Refused, Verdict::Fault(Unreachable(Box::new(Cause::Refused)))),
            ("connect", Cause::UnknownIssuer, Verdict::NotItsDoing),
        ];
        for (words, cause, expected) in table {
            assert_eq!(verdict(&["error sending request".to_owned(), words.to_owned()], &cause), expected, "{words}");
        }
        for (status, expected) in [
            (200, None),
            (407, Some(Login)),
            (403, Some(Refuses("403 Forbidden".to_owned()))),
            (502, Some(Fails("502 Forbidden".to_owned()))),
        ] {
            assert_eq!(ProxyFault::of_status(status, "Forbidden"), expected);
        }
    }

    proptest! {
        #[test]
        fn any_exception_is_survived(text in "[a-z0-9.:/*\\[\\], ]{0,40}", host in "[a-z0-9.]{1,12}") {
            if let Ok(url) = Url::parse(&format!("https://{host}/")) {
                routes(&text).proxy(&url);
            }
        }
    }
}
