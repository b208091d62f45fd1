//! What one client may have under way at once, on whatever connections.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::server::Limits;

/// Of the requests that a client may have under way, the part that may bring a body: an HTTP/2 connection takes megabytes of it unasked, and
/// no client pushes more than a handful of blobs at once. So many may wait besides.
const BODIES: usize = 4;

/// What one client has here.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) connections: usize,
    /// Requests that came by a proxy, whose connections are not this client's.
    pub(super) forwarded: usize,
    /// Requests that wait for their turn, and those of them that bring a body: so much as a connection takes of that unasked is in memory.
    pub(super) waiting: usize,
    pub(super) waiting_bodies: usize,
    pub(super) turns: Turns,
}

impl Client {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { connections: 0, forwarded: 0, waiting: 0, waiting_bodies: 0, turns: Turns::new(limits) }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.connections == 0 && self.forwarded == 0
    }

    /// One more request that waits, until [`goes_on`](Self::goes_on). Whether there is a place for it: for ever so many heads and bodies there
    /// is no memory.
    pub(super) fn waits(&mut self, limits: &Limits, has_body: bool) -> bool {
        if self.waiting >= limits.per_client || (has_body && self.waiting_bodies >= bodies(limits)) {
            return false;
        }
        self.waiting += 1;
        self.waiting_bodies += usize::from(has_body);
        true
    }

    pub(super) fn goes_on(&mut self, has_body: bool) {
        self.waiting -= 1;
        self.waiting_bodies -= usize::from(has_body);
    }
}

/// How many requests with a body one client may have under way.
fn bodies(limits: &Limits) -> usize {
    limits.requests.div_ceil(BODIES)
}

/// How many requests of one client are under way, and how many of them have a body.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    requests: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
}

/// The turn of one request, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _body: Option<OwnedSemaphorePermit>,
    _request: OwnedSemaphorePermit,
}

impl Turns {
    fn new(limits: &Limits) -> Self {
        Self { requests: Arc::new(Semaphore::new(limits.requests)), bodies: Arc::new(Semaphore::new(bodies(limits))) }
    }

    pub(super) fn take(&self, has_body: bool) -> Option<Turn> {
        let body = if has_body { Some(Arc::clone(&self.bodies).try_acquire_owned().ok()?) } else { None };
        Some(Turn { _body: body, _request: Arc::clone(&self.requests).try_acquire_owned().ok()? })
    }

    pub(super) async fn wait(&self, has_body: bool) -> Option<Turn> {
        let body = if has_body { Some(Arc::clone(&self.bodies).acquire_owned().await.ok()?) } else { None };
        Some(Turn { _body: body, _request: Arc::clone(&self.requests).acquire_owned().await.ok()? })
    }
}

/// Whoever has an IPv6 address has the whole network of it.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}
