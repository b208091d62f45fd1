//! By which address nodes reach this server: what the user says, what it listens on, or a guess from this machine's interfaces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::str::FromStr;

use ferry_image::reference::is_host;

/// `[SCHEME://]HOST[:PORT]`, IPv6 in brackets, as in an image's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Advertise {
    /// With its port, where one was given.
    host: String,
    scheme: Option<Scheme>,
}

/// What nodes speak: not what this server does, where a proxy stands before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(crate) fn of(is_tls: bool) -> Self {
        if is_tls { Self::Https } else { Self::Http }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl FromStr for Advertise {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, host) = match text.split_once("://") {
            Some(("http", host)) => (Some(Scheme::Http), host),
            Some(("https", host)) => (Some(Scheme::Https), host),
            Some(_) => (None, ""),
            None => (None, text),
        };
        // as an address is copied from a browser
        let host = if scheme.is_some() { host.strip_suffix('/').unwrap_or(host) } else { host };
        if host.parse::<Ipv6Addr>().is_ok() || !is_host(host) {
            return Err("not a host, or a host and a port, with `http://` or `https://` before it or without: \
                        registry.local:5000, 10.0.0.5, [fd00::5]:5000, https://registry.site"
                .to_owned());
        }
        Ok(Self { host: host.to_owned(), scheme })
    }
}

impl Advertise {
    /// Without its port.
    pub(crate) fn name(&self) -> &str {
        let host = &self.host;
        if host.ends_with(']') { host } else { host.rsplit_once(':').map_or(host, |(name, _)| name) }
    }

    /// As nodes must name it: without a scheme the port is the one that is listened on, with one the scheme's own.
    fn host_or(&self, listens: u16) -> String {
        let host = &self.host;
        match self.scheme {
            _ if host.len() > self.name().len() => host.clone(),
            None => format!("{host}:{listens}"),
            Some(Scheme::Http) => format!("{host}:80"),
            // the name of an image begins with a host only where that has a dot or a port
            Some(Scheme::Https) if host.contains('.') => host.clone(),
            Some(Scheme::Https) => format!("{host}:443"),
        }
    }
}

/// What this machine is called, and where it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Interfaces that are up, with an address each, loopback and link-local ones left out.
    pub(crate) interfaces: Vec<(String, IpAddr)>,
    /// The address that packets to elsewhere leave from, where there is a route.
    pub(crate) routed: Option<IpAddr>,
    /// Its own name for itself.
    pub(crate) name: Option<String>,
}

impl Machine {
    pub(crate) fn look() -> Self {
        let all = if_addrs::get_if_addrs().unwrap_or_default();
        let up = all.into_iter().filter(|i| i.is_oper_up() && !i.is_loopback() && !i.is_link_local());
        let name = rustix::system::uname().nodename().to_str().ok().map(str::to_owned);
        Self {
            interfaces: up.map(|i| (i.name.clone(), i.ip())).collect(),
            routed: routed(),
            name: name.filter(|n| is_host(n)),
        }
    }

    /// What a certificate must be good for, whichever of this machine's names and addresses a node uses.
    pub(crate) fn names(&self) -> Vec<String> {
        let here = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let addresses = self.interfaces.iter().map(|(_, address)| address.to_string());
        let mut names: Vec<String> = here.into_iter().chain(self.name.clone()).chain(addresses).collect();
        names.sort();
        names.dedup();
        names
    }
}

/// Asks the kernel for a route to an address that is nobody's (RFC 5737). Nothing is sent.
fn routed() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback())
}

/// How nodes are told to reach this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reach {
    /// `HOST:PORT`; without the port where it is that of HTTPS, and said so.
    pub(crate) host: String,
    /// What nodes speak there.
    pub(crate) scheme: Scheme,
    /// How sure that is.
    pub(crate) how: How,
}

/// Where an address comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum How {
    /// The user said so, or it listens there and nowhere else.
    Known,
    /// Only this machine reaches it. Its address for others, would it listen for them.
    Here { network: Option<IpAddr> },
    /// An interface's, and the others that might be meant as well.
    Guessed { interface: String, others: Vec<IpAddr> },
    /// It listens everywhere, and no interface leads anywhere.
    Nowhere,
}

/// The address to print; `own` is what this server speaks.
pub(crate) fn choose(listens: SocketAddr, own: Scheme, advertise: Option<&Advertise>, machine: &Machine) -> Reach {
    if let Some(advertise) = advertise {
        let scheme = advertise.scheme.unwrap_or(own);
        return Reach { host: advertise.host_or(listens.port()), scheme, how: How::Known };
    }
    let at = |ip: IpAddr, how| Reach { host: SocketAddr::new(ip, listens.port()).to_string(), scheme: own, how };
    if listens.ip().is_loopback() {
        let network = machine.routed.or_else(|| machine.interfaces.first().map(|(_, address)| *address));
        return at(listens.ip(), How::Here { network });
    }
    if !listens.ip().is_unspecified() {
        return at(listens.ip(), How::Known);
    }
    let heard = |address: &IpAddr| address.is_ipv4() || listens.is_ipv6();
    let mut candidates: Vec<&(String, IpAddr)> = machine.interfaces.iter().filter(|(_, a)| heard(a)).collect();
    candidates.sort_by_key(|(_, address)| (Some(*address) != machine.routed, address.is_ipv6()));
    match candidates.split_first() {
        None => at(Ipv4Addr::LOCALHOST.into(), How::Nowhere),
        Some(((interface, address), others)) => {
            let others = others.iter().map(|(_, address)| *address).collect();
            at(*address, How::Guessed { interface: interface.clone(), others })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(routed: Option<&str>) -> Machine {
        let interface = |name: &str, address: &str| (name.to_owned(), address.parse().expect("address"));
        let interfaces =
            vec![interface("br0", "172.17.0.1"), interface("eth0", "fd00::5"), interface("eth0", "10.0.0.5")];
        Machine { interfaces, routed: routed.map(|a| a.parse().expect("address")), name: Some("node".to_owned()) }
    }

    fn host(listens: &str, advertise: Option<&str>, machine: &Machine) -> (String, How) {
        let advertise = advertise.map(|a| a.parse().expect("a host"));
        let reach = choose(listens.parse().expect("address"), Scheme::Http, advertise.as_ref(), machine);
        (reach.host, reach.how)
    }

    #[test]
    fn what_the_user_says_goes_first() {
        let machine = machine(None);
        for (advertise, expected) in [
            ("registry.local", "registry.local:5000"),
            ("registry.local:80", "registry.local:80"),
            ("10.1.1.1", "10.1.1.1:5000"),
            ("[fd00::7]", "[fd00::7]:5000"),
            ("[fd00::7]:80", "[fd00::7]:80"),
        ] {
            assert_eq!(host("0.0.0.0:5000", Some(advertise), &machine), (expected.to_owned(), How::Known));
        }
        for wrong in
            ["", "fd00::7", "ftp://x.y", "https://", "https://x.y/z", "http://a b", "a/b", "a b", "x:port", "-x"]
        {
            assert!(wrong.parse::<Advertise>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_a_proxy_speaks_is_what_nodes_are_told() {
        for (advertise, own, host, scheme) in [
            ("https://registry.site", Scheme::Http, "registry.site", Scheme::Https),
            ("https://registry.site/", Scheme::Https, "registry.site", Scheme::Https),
            ("https://registry.site:8443", Scheme::Http, "registry.site:8443", Scheme::Https),
            ("https://registry", Scheme::Http, "registry:443", Scheme::Https),
            ("https://[fd00::7]", Scheme::Http, "[fd00::7]:443", Scheme::Https),
            ("http://registry.site", Scheme::Https, "registry.site:80", Scheme::Http),
            ("registry.site", Scheme::Https, "registry.site:5000", Scheme::Https),
        ] {
            let given: Advertise = advertise.parse().expect(advertise);
            let reach = choose("127.0.0.1:5000".parse().expect("address"), own, Some(&given), &machine(None));
            assert_eq!(reach, Reach { host: host.to_owned(), scheme, how: How::Known }, "{advertise}");
        }
    }

    #[test]
    fn the_address_of_the_route_is_guessed_and_the_others_are_told() {
        let (found, how) = host("0.0.0.0:5000", None, &machine(Some("10.0.0.5")));
        assert_eq!(found, "10.0.0.5:5000");
        assert_eq!(how, How::Guessed { interface: "eth0".into(), others: vec!["172.17.0.1".parse().expect("ip")] });
        // inside an air gap there may be no route
        assert_eq!(host("0.0.0.0:5000", None, &machine(None)).0, "172.17.0.1:5000");
        let (_, how) = host("[::]:5000", None, &machine(Some("10.0.0.5")));
        assert!(matches!(how, How::Guessed { others, .. } if others.len() == 2));
        assert_eq!(host("0.0.0.0:1", None, &Machine::default()), ("127.0.0.1:1".to_owned(), How::Nowhere));
    }

    #[test]
    fn an_address_that_is_listened_on_alone_is_the_one() {
        let here = |machine: &Machine| host("127.0.0.1:5000", None, machine);
        let network = |text: &str| How::Here { network: text.parse().ok() };
        assert_eq!(here(&machine(Some("10.0.0.5"))), ("127.0.0.1:5000".to_owned(), network("10.0.0.5")));
        assert_eq!(here(&machine(None)).1, network("172.17.0.1"));
        assert_eq!(here(&Machine::default()).1, network(""));
        assert_eq!(host("172.17.0.1:5000", None, &machine(None)), ("172.17.0.1:5000".to_owned(), How::Known));
    }
}
