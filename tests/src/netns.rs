//! A network namespace with one line to this machine, which can be cut: what no proxy can do to a connection.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU8, Ordering};

use crate::tools;

static COUNT: AtomicU8 = AtomicU8::new(0);

/// A namespace; it goes away when dropped, and its line with it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    device: String,
    host: Ipv4Addr,
}

/// A way in which a line fails; it is mended when dropped.
#[derive(Debug)]
pub struct Cut<'a> {
    namespace: &'a Namespace,
    how: How,
}

/// How a line is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Packets to the namespace are lost, as behind a router that has forgotten everything.
    Lose,
    /// Connections from the namespace are reset, as by a firewall.
    Reject,
    /// The cable is out.
    Unplug,
}

/// Whether this machine lets us make one.
pub(crate) fn available() -> bool {
    let has = |program| tools::find(program).is_some();
    tools::has("root") && has("ip") && has("iptables") && {
        let name = format!("ferry-try-{}", std::process::id());
        tools::run("ip", &["netns", "add", &name]).status.success()
            && tools::run("ip", &["netns", "del", &name]).status.success()
    }
}

impl Namespace {
    /// Makes one. Ask `require!("netns")` first.
    #[must_use]
    pub fn new() -> Self {
        // tests run in processes of their own
        let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let name = format!("ferry-{process}-{count}");
        let (device, peer) = (format!("fh{process:x}{count}"), format!("fn{process:x}{count}"));
        let [_, _, high, low] = process.to_be_bytes();
        // each has four addresses of 10.128.0.0/9
        let first = u32::from(Ipv4Addr::new(10, 128 | high >> 1, low, count.wrapping_mul(4)));
        let (host, guest) = (Ipv4Addr::from(first + 1), Ipv4Addr::from(first + 2));
        let ip = |line: &str| drop(tools::succeed("ip", &line.split(' ').collect::<Vec<_>>()));
        ip(&format!("netns add {name}"));
        let namespace = Self { name: name.clone(), device: device.clone(), host };
        ip(&format!("link add {device} type veth peer name {peer} netns {name}"));
        ip(&format!("addr add {host}/30 dev {device}"));
        ip(&format!("link set {device} up"));
        ip(&format!("-n {name} addr add {guest}/30 dev {peer}"));
        ip(&format!("-n {name} link set {peer} up"));
        ip(&format!("-n {name} link set lo up"));
        namespace
    }

    /// Its name, for `ip netns exec`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Under which address it sees this machine.
    #[must_use]
    pub fn host(&self) -> IpAddr {
        IpAddr::V4(self.host)
    }

    /// Cuts the line.
    #[must_use]
    pub fn cut(&self, how: How) -> Cut<'_> {
        self.change(how, true);
        Cut { namespace: self, how }
    }

    fn change(&self, how: How, broken: bool) {
        let host = self.host.to_string();
        let inside = ["netns", "exec", &self.name, "iptables", if broken { "-I" } else { "-D" }];
        let reject = ["OUTPUT", "-p", "tcp", "-d", &host, "-j", "REJECT", "--reject-with", "tcp-reset"];
        let _ = match how {
            How::Lose => tools::succeed("ip", &[&inside[..], &["INPUT", "-s", &host, "-j", "DROP"]].concat()),
            How::Reject => tools::succeed("ip", &[&inside[..], &reject].concat()),
            How::Unplug => tools::succeed("ip", &["link", "set", &self.device, if broken { "down" } else { "up" }]),
        };
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Cut<'_> {
    fn drop(&mut self) {
        self.namespace.change(self.how, false);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = tools::run("ip", &["netns", "del", &self.name]);
    }
}
