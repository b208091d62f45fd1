//! By which address nodes reach this server: what the user says, what it listens on, or a guess from this machine's interfaces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::str::FromStr;

use ferry_image::reference::is_host;

/// `HOST[:PORT]`, IPv6 in brackets, as in an image's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Advertise(String);

impl FromStr for Advertise {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bare_ipv6 = text.parse::<Ipv6Addr>().is_ok();
        if bare_ipv6 || !is_host(text) {
            return Err("not a host, or a host and a port: registry.local:5000, 10.0.0.5, [fd00::5]:5000".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

impl Advertise {
    /// Without its port.
    pub(crate) fn name(&self) -> &str {
        if self.0.ends_with(']') { &self.0 } else { self.0.rsplit_once(':').map_or(&self.0, |(name, _)| name) }
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
    /// `HOST:PORT`.
    pub(crate) host: String,
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

/// The address to print.
pub(crate) fn choose(listens: SocketAddr, advertise: Option<&Advertise>, machine: &Machine) -> Reach {
    let at = |ip: IpAddr| SocketAddr::new(ip, listens.port()).to_string();
    if let Some(Advertise(host)) = advertise {
        let has_port = host.len() > advertise.map_or(0, |a| a.name().len());
        let host = if has_port { host.clone() } else { format!("{host}:{}", listens.port()) };
        return Reach { host, how: How::Known };
    }
    if listens.ip().is_loopback() {
        let network = machine.routed.or_else(|| machine.interfaces.first().map(|(_, address)| *address));
        return Reach { host: at(listens.ip()), how: How::Here { network } };
    }
    if !listens.ip().is_unspecified() {
        return Reach { host: at(listens.ip()), how: How::Known };
    }
    let heard = |address: &IpAddr| address.is_ipv4() || listens.is_ipv6();
    let mut candidates: Vec<&(String, IpAddr)> = machine.interfaces.iter().filter(|(_, a)| heard(a)).collect();
    candidates.sort_by_key(|(_, address)| (Some(*address) != machine.routed, address.is_ipv6()));
    match candidates.split_first() {
        None => Reach { host: at(Ipv4Addr::LOCALHOST.into()), how: How::Nowhere },
        Some(((interface, address), others)) => {
            let others = others.iter().map(|(_, address)| *address).collect();
            Reach { host: at(*address), how: How::Guessed { interface: interface.clone(), others } }
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
        let reach = choose(listens.parse().expect("address"), advertise.as_ref(), machine);
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
        for wrong in ["", "fd00::7", "http://x", "a/b", "a b", "x:port", "-x"] {
            assert!(wrong.parse::<Advertise>().is_err(), "{wrong}");
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
