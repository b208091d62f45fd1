//! Reverse proxies before us: whom they speak for. Behind one, all clients have its address, and what one of them does would be laid to all.
//!
//! `X-Forwarded-For` grows at its right end, by the address that each proxy sees; what stands left of that comes from outside, and may be
//! anything. So it is read from the right, for as long as the addresses are those of proxies that are trusted. Not `Forwarded` (RFC 7239)
//! besides: whichever of the two a proxy does not write it passes on, and a client would have written it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use http::HeaderMap;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The proxies that are trusted; none by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies(Vec<Network>);

/// An address, or all addresses that begin with the same bits: `10.0.0.5`, `10.0.0.0/8`, `fd00::/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Proxies {
    /// Whether this is the address of one.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// Who asks, where the connection comes from `peer`: the last address in `X-Forwarded-For` that is no proxy's. Of what is no address
    /// nothing follows, nor of anything before it: then it is the proxy that told it.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.contains(client) {
            return client;
        }
        let lines = headers.get_all(FORWARDED_FOR).iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
        let lines: Vec<_> = lines.collect();
        let mut hops =
            lines.iter().rev().flat_map(|line| line.rsplit(',')).map(str::trim).filter(|hop| !hop.is_empty());
        while self.contains(client)
            && let Some(before) = hops.next().and_then(hop)
        {
            client = before;
        }
        client
    }
}

impl FromIterator<Network> for Proxies {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Self {
        Self(networks.into_iter().collect())
    }
}

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => ours == v4_prefix(theirs, self.bits),
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => ours == v6_prefix(theirs, self.bits),
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let wrong = || "not an address, or a network as in 10.0.0.0/8, fd00::/8".to_owned();
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) if bits.bytes().all(|b| b.is_ascii_digit()) => bits.parse().map_err(|_| wrong())?,
            Some(_) => return Err(wrong()),
        };
        // IPv4 as IPv6 writes it
        let (address, bits) = match address.to_canonical() {
            mapped @ IpAddr::V4(_) if !address.is_ipv4() && bits >= 96 => (mapped, bits - 96),
            _ => (address, bits),
        };
        if bits == 0 {
            return Err("that is everybody, and everybody could pass for anybody".to_owned());
        }
        match address {
            IpAddr::V4(address) if bits <= 32 => Ok(Self { address: v4_prefix(address, bits).into(), bits }),
            IpAddr::V6(address) if bits <= 128 => Ok(Self { address: v6_prefix(address, bits).into(), bits }),
            _ => Err(wrong()),
        }
    }
}

/// One address of the header: with a port or without, IPv6 in brackets or bare.
fn hop(text: &str) -> Option<IpAddr> {
    let bare = || text.parse::<IpAddr>().ok();
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    bare().or_else(bracketed).or_else(with_port).map(|address| address.to_canonical())
}

fn v4_prefix(address: Ipv4Addr, bits: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(address.to_bits() & u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0))
}

fn v6_prefix(address: Ipv6Addr, bits: u8) -> Ipv6Addr {
    Ipv6Addr::from_bits(address.to_bits() & u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    fn proxies() -> Proxies {
        ["10.0.0.0/8", "192.168.1.7", "fd00::/8"].iter().map(|text| text.parse::<Network>().expect("network")).collect()
    }

    fn client(peer: &str, lines: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, HeaderValue::from_bytes(line.as_bytes()).expect("a header"));
        }
        proxies().client(ip(peer), &headers).to_string()
    }

    #[test]
    fn networks_are_addresses_with_the_same_first_bits() {
        for (network, inside, outside) in [
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("10.1.2.3/8", "10.255.0.1", "11.0.0.1"),
            ("10.0.0.128/25", "10.0.0.128", "10.0.0.127"),
            ("0.0.0.0/1", "127.1.1.1", "128.0.0.0"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::2"),
            ("::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.1"),
            ("::1", "::1", "127.0.0.1"),
            ("10.0.0.0/8", "::ffff:10.0.0.1", "::10.0.0.1"),
        ] {
            let network: Network = network.parse().expect(network);
            assert!(network.contains(ip(inside)) && !network.contains(ip(outside)), "{network:?}");
        }
        for wrong in
            ["", "proxy", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0/8", "10.0.0.0/+8", "10.0.0.0/8/8", "1/1"]
        {
            assert!(wrong.parse::<Network>().expect_err(wrong).starts_with("not an address"), "{wrong}");
        }
        for all in ["0.0.0.0/0", "::/0", "::ffff:0.0.0.0/96"] {
            assert!(all.parse::<Network>().expect_err(all).contains("everybody"), "{all}");
        }
    }

    #[test]
    fn the_client_is_the_last_address_that_is_no_proxys() {
        for (peer, lines, expected) in [
            // nobody is believed who is no proxy
            ("1.2.3.4", &["9.9.9.9"][..], "1.2.3.4"),
            ("::ffff:1.2.3.4", &["9.9.9.9"], "1.2.3.4"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["1.2.3.4"], "1.2.3.4"),
            ("::ffff:10.0.0.1", &["1.2.3.4"], "1.2.3.4"),
            // several proxies, and what comes from outside before them
            ("10.0.0.1", &["9.9.9.9, 1.2.3.4"], "1.2.3.4"),
            ("10.0.0.1", &["9.9.9.9,1.2.3.4 ,192.168.1.7,\t10.0.0.2"], "1.2.3.4"),
            ("10.0.0.1", &["9.9.9.9", "1.2.3.4, 10.0.0.3", "fd00::5"], "1.2.3.4"),
            ("10.0.0.1", &["10.0.0.2, 10.0.0.3"], "10.0.0.2"),
            ("10.0.0.1", &["1.2.3.4, , "], "1.2.3.4"),
            // ports and brackets
            ("10.0.0.1", &["1.2.3.4:5678"], "1.2.3.4"),
            ("10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]:443, [fd00::1]:80"], "2001:db8::1"),
            ("10.0.0.1", &["::ffff:1.2.3.4"], "1.2.3.4"),
            // what is no address ends it
            ("10.0.0.1", &["1.2.3.4, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["1.2.3.4, unknown, 10.0.0.9"], "10.0.0.9"),
            ("10.0.0.1", &["1.2.3.4, _x", "5.6.7.8"], "5.6.7.8"),
            ("10.0.0.1", &["1.2.3.4, 1.2.3.256"], "10.0.0.1"),
            ("10.0.0.1", &["1.2.3.4, fe80::1%eth0"], "10.0.0.1"),
            ("10.0.0.1", &["1.2.3.4, [::1"], "10.0.0.1"),
            ("10.0.0.1", &["1.2.3.4, 5.6.7.8:x"], "10.0.0.1"),
            ("10.0.0.1", &["1.2.3.4, \"5.6.7.8\""], "10.0.0.1"),
            ("10.0.0.1", &["1.2.3.4, é"], "10.0.0.1"),
        ] {
            assert_eq!(client(peer, lines), expected, "{peer} {lines:?}");
        }
        assert_eq!(client("10.0.0.1", &["10.0.0.2,"; 2000]), "10.0.0.2");
        assert_eq!(Proxies::default().client(ip("10.0.0.1"), &HeaderMap::new()), ip("10.0.0.1"));
    }

    proptest! {
        #[test]
        fn nobody_can_pass_for_another(
            spoofed in proptest::collection::vec("[ -~é]{0,30}", 0..4),
            real in any::<IpAddr>(),
            through in proptest::collection::vec(any::<[u8; 3]>(), 0..3),
        ) {
            prop_assume!(!proxies().contains(real));
            let mut own = real.to_string();
            through.iter().for_each(|[a, b, c]| own += &format!(", 10.{a}.{b}.{c}"));
            let (last, before) = spoofed.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
            let mut lines: Vec<&str> = before.iter().map(String::as_str).collect();
            let joined = format!("{last}, {own}");
            lines.push(&joined);
            prop_assert_eq!(client("10.0.0.1", &lines), real.to_canonical().to_string());
        }
    }
}
