//! Who is connected. However many connections there are, the next one is served: where there would be too many, altogether or of one client,
//! the one that has done nothing for the longest time gives way.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::server::Limits;

/// How many times the stall limit of a connection one of its answers may stand still: buffers on the way may take that long to drain for a
/// slow client.
const STALLS: u32 = 10;
/// Of the requests that a client may have under way, the part that may bring a body: an HTTP/2 connection takes megabytes of it unasked, and
/// no client pushes more than a handful of blobs at once. So many may wait besides.
const BODIES: usize = 4;

/// All connections.
#[derive(Debug)]
pub(crate) struct Connections {
    table: Mutex<Table>,
    limits: Limits,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    all: HashMap<u64, Connection>,
    clients: HashMap<IpAddr, Client>,
}

#[derive(Debug)]
struct Connection {
    client: IpAddr,
    /// Requests that are not answered yet.
    busy: usize,
    /// When the last one was, or when it came.
    since: Instant,
    leave: Arc<Notify>,
    is_leaving: bool,
    /// The answers that are being sent.
    answers: Vec<Weak<Delivery>>,
}

/// When a client last took something of an answer. Over HTTP/2 it may take nothing for ever, and the connection is well all the same.
#[derive(Debug)]
pub(crate) struct Delivery(Mutex<Instant>);

impl Delivery {
    pub(crate) fn taken(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn since(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Client {
    connections: usize,
    /// Requests that came by a proxy, whose connections are not this client's.
    forwarded: usize,
    /// Requests that wait for their turn, and those of them that bring a body: so much as a connection takes of that unasked is in memory.
    waiting: usize,
    waiting_bodies: usize,
    turns: Turns,
}

impl Client {
    fn new(limits: &Limits) -> Self {
        Self { connections: 0, forwarded: 0, waiting: 0, waiting_bodies: 0, turns: Turns::new(limits) }
    }
}

/// Whose connection ends where there is no room for a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// That which has been idle for the longest time.
    Anybodys,
    /// One of the same client, which is on its way out already.
    ItsOwn,
}

/// How many requests of one client are under way, and how many of them have a body.
#[derive(Debug, Clone)]
struct Turns {
    requests: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
}

/// The turn of one request, until it is dropped.
#[derive(Debug)]
struct Turn {
    _body: Option<OwnedSemaphorePermit>,
    _request: OwnedSemaphorePermit,
}

impl Turns {
    fn new(limits: &Limits) -> Self {
        let bodies = limits.requests.div_ceil(BODIES);
        Self { requests: Arc::new(Semaphore::new(limits.requests)), bodies: Arc::new(Semaphore::new(bodies)) }
    }

    fn take(&self, has_body: bool) -> Option<Turn> {
        let body = if has_body { Some(Arc::clone(&self.bodies).try_acquire_owned().ok()?) } else { None };
        Some(Turn { _body: body, _request: Arc::clone(&self.requests).try_acquire_owned().ok()? })
    }

    async fn wait(&self, has_body: bool) -> Option<Turn> {
        let body = if has_body { Some(Arc::clone(&self.bodies).acquire_owned().await.ok()?) } else { None };
        Some(Turn { _body: body, _request: Arc::clone(&self.requests).acquire_owned().await.ok()? })
    }
}

/// The place of one connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionGuard {
    connections: Arc<Connections>,
    id: u64,
    client: IpAddr,
    leave: Arc<Notify>,
    turns: Turns,
}

/// One request of a connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct RequestGuard {
    _busy: Busy,
    _forwarded: Option<Forwarded>,
    _turn: Turn,
}

/// A request that came by a proxy, from whoever it speaks for, until it is dropped.
#[derive(Debug)]
struct Forwarded {
    connections: Arc<Connections>,
    client: IpAddr,
    turns: Turns,
}

/// A request that waits for its client's turn, until it is dropped.
#[derive(Debug)]
struct Waiting<'a> {
    connections: &'a Connections,
    client: IpAddr,
    has_body: bool,
}

/// Something that is to be answered on a connection, until it is dropped: a connection that has any is not idle.
#[derive(Debug)]
struct Busy(Arc<ConnectionGuard>);

impl Connections {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self { table: Mutex::default(), limits: limits.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who makes room for a new connection, before anything else is done for it: a client that has as many as it may have gets room of
    /// its own only, however often it comes. `None` where all of its connections are at work.
    /// A proxy's are not counted as those of one client: [`ConnectionGuard::begin_request`] counts what comes by them.
    pub(crate) fn room_for(&self, from: IpAddr) -> Option<Room> {
        if self.limits.proxies.contains(from) {
            return Some(Room::Anybodys);
        }
        let client = network(from);
        let mut table = self.lock();
        if table.clients.get(&client).is_none_or(|c| c.connections < self.limits.per_client) {
            return Some(Room::Anybodys);
        }
        table.evict(Some(client)).then_some(Room::ItsOwn)
    }

    /// A place for a new connection, for which there is room.
    pub(crate) fn admit(self: &Arc<Self>, from: IpAddr) -> ConnectionGuard {
        let client = network(from);
        let mut table = self.lock();
        let id = table.next;
        table.next += 1;
        let leave = Arc::new(Notify::new());
        let connection = Connection {
            client,
            busy: 0,
            since: Instant::now(),
            leave: Arc::clone(&leave),
            is_leaving: false,
            answers: Vec::new(),
        };
        table.all.insert(id, connection);
        let entry = table.clients.entry(client).or_insert_with(|| Client::new(&self.limits));
        entry.connections += 1;
        let turns = entry.turns.clone();
        ConnectionGuard { connections: Arc::clone(self), id, client, leave, turns }
    }

    /// A place among the requests of a client that wait. `None` where too many do: for ever so many heads and bodies there is no memory.
    fn wait(&self, client: IpAddr, has_body: bool) -> Option<Waiting<'_>> {
        let mut table = self.lock();
        let entry = table.clients.get_mut(&client)?;
        if entry.waiting >= self.limits.per_client
            || (has_body && entry.waiting_bodies >= self.limits.requests.div_ceil(BODIES))
        {
            return None;
        }
        entry.waiting += 1;
        entry.waiting_bodies += usize::from(has_body);
        Some(Waiting { connections: self, client, has_body })
    }

    /// A request of a client whose connections we do not see. `None` where it has as many as others may have connections: they would
    /// fill those of the proxy with requests that wait.
    fn forwarded(self: &Arc<Self>, client: IpAddr) -> Option<Forwarded> {
        let mut table = self.lock();
        let entry = table.clients.entry(client).or_insert_with(|| Client::new(&self.limits));
        if entry.forwarded >= self.limits.per_client {
            return None;
        }
        entry.forwarded += 1;
        Some(Forwarded { connections: Arc::clone(self), client, turns: entry.turns.clone() })
    }

    /// Makes room for one more, if any connection is idle.
    pub(crate) fn make_room(&self) {
        self.lock().evict(None);
    }

    /// Ends what has been idle for too long, or takes nothing of an answer.
    pub(crate) fn end_idle(&self, now: Instant) {
        let (limit, patience) = (self.limits.idle_timeout, self.limits.stall * STALLS);
        for connection in self.lock().all.values_mut() {
            let is_idle = connection.busy == 0 && now.saturating_duration_since(connection.since) >= limit;
            connection.answers.retain(|answer| answer.strong_count() > 0);
            let stalls = |answer: Arc<Delivery>| now.saturating_duration_since(answer.since()) >= patience;
            if is_idle || connection.answers.iter().filter_map(Weak::upgrade).any(stalls) {
                connection.evict();
            }
        }
    }

    /// How many are connected.
    pub(crate) fn len(&self) -> usize {
        self.lock().all.len()
    }
}

impl Table {
    /// Something of a client has ended. One that has nothing left is forgotten.
    fn leave(&mut self, address: IpAddr, end: impl FnOnce(&mut Client)) {
        let Some(client) = self.clients.get_mut(&address) else { return };
        end(client);
        if client.connections == 0 && client.forwarded == 0 {
            self.clients.remove(&address);
        }
    }

    /// Ends the connection, of this client or of any, that has been idle for the longest time; whether there was one.
    fn evict(&mut self, of: Option<IpAddr>) -> bool {
        let idle = self.all.values_mut().filter(|g| g.busy == 0 && !g.is_leaving && of.is_none_or(|c| c == g.client));
        let oldest = idle.min_by_key(|connection| connection.since);
        oldest.map(Connection::evict).is_some()
    }
}

impl Connection {
    fn evict(&mut self) {
        self.is_leaving = true;
        self.leave.notify_one();
    }
}

impl ConnectionGuard {
    /// Waits until the connection must give way.
    pub(crate) async fn evicted(&self) {
        self.leave.notified().await;
    }

    /// Begins a request of `client`, who is at the other end or before a proxy: its turn, where it has many under way. `None` when that
    /// does not come in time, or too many wait for it.
    pub(crate) async fn begin_request(
        self: &Arc<Self>,
        client: IpAddr,
        has_body: bool,
        patience: Duration,
    ) -> Option<RequestGuard> {
        // before it waits: a client may take the request back while it does, and the rest of this is never run
        let busy = Busy::begin(self);
        let client = network(client);
        let forwarded = if client == self.client { None } else { Some(self.connections.forwarded(client)?) };
        let turns = forwarded.as_ref().map_or(&self.turns, |forwarded| &forwarded.turns);
        let turn = match turns.take(has_body) {
            Some(turn) => turn,
            None => {
                let _waiting = self.connections.wait(client, has_body)?;
                tokio::time::timeout(patience, turns.wait(has_body)).await.ok()??
            }
        };
        Some(RequestGuard { _busy: busy, _forwarded: forwarded, _turn: turn })
    }

    /// An answer is on its way, until what is returned is dropped.
    pub(crate) fn begin_answer(&self) -> Arc<Delivery> {
        let answer = Arc::new(Delivery(Mutex::new(Instant::now())));
        self.change(|connection| connection.answers.push(Arc::downgrade(&answer)));
        answer
    }

    fn change(&self, change: impl FnOnce(&mut Connection)) {
        if let Some(connection) = self.connections.lock().all.get_mut(&self.id) {
            change(connection);
        }
    }
}

impl Busy {
    fn begin(guard: &Arc<ConnectionGuard>) -> Self {
        guard.change(|connection| connection.busy += 1);
        Self(Arc::clone(guard))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.change(|connection| {
            connection.busy = connection.busy.saturating_sub(1);
            connection.since = Instant::now();
        });
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let mut table = self.connections.lock();
        if table.all.remove(&self.id).is_some() {
            table.leave(self.client, |client| client.connections -= 1);
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.connections.lock().leave(self.client, |client| {
            client.waiting -= 1;
            client.waiting_bodies -= usize::from(self.has_body);
        });
    }
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        self.connections.lock().leave(self.client, |client| client.forwarded -= 1);
    }
}

/// Whoever has an IPv6 address has the whole network of it.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(per_client: usize, requests: usize) -> Arc<Connections> {
        Connections::new(&Limits { per_client, requests, ..Limits::default() })
    }

    async fn must_leave(guard: &ConnectionGuard) -> bool {
        tokio::time::timeout(Duration::from_millis(10), guard.evicted()).await.is_ok()
    }

    const HERE: [&str; 2] = ["10.0.0.1", "10.0.0.2"];

    fn ip(client: usize) -> IpAddr {
        HERE[client].parse().expect("address")
    }

    fn guard(connections: &Arc<Connections>, client: usize) -> Option<Arc<ConnectionGuard>> {
        let address = ip(client);
        connections.room_for(address).map(|_| Arc::new(connections.admit(address)))
    }

    #[tokio::test]
    async fn the_one_that_is_idle_for_the_longest_time_gives_way() {
        let connections = connections(2, 9);
        let (first, second, other) = (
            guard(&connections, 0).expect("a"),
            guard(&connections, 0).expect("b"),
            guard(&connections, 1).expect("c"),
        );
        // the first asks for something, and is then not the longest idle one
        drop(first.begin_request(ip(0), false, Duration::ZERO).await.expect("its turn"));
        let third = guard(&connections, 0).expect("room is made");
        assert!(must_leave(&second).await && !must_leave(&first).await && !must_leave(&other).await);
        drop(second);
        let busy = (
            first.begin_request(ip(0), false, Duration::ZERO).await,
            third.begin_request(ip(0), false, Duration::ZERO).await,
        );
        assert!(guard(&connections, 0).is_none(), "both are at work");
        assert!(guard(&connections, 1).is_some(), "others are not in the way");
        drop(busy);
        connections.make_room();
        assert!(must_leave(&other).await);
        drop((first, third, other));
        assert_eq!((connections.len(), connections.lock().clients.len()), (0, 0));
    }

    #[tokio::test]
    async fn a_client_at_its_limit_makes_room_by_its_own_connections_only() {
        let connections = connections(2, 9);
        let other = guard(&connections, 1).expect("the one that is idle for the longest time");
        let mut own = Vec::from([0, 0].map(|client| guard(&connections, client).expect("below the limit")));
        assert_eq!(connections.room_for(ip(1)), Some(Room::Anybodys));
        for _ in 0..5 {
            assert_eq!(connections.room_for(ip(0)), Some(Room::ItsOwn));
            assert!(must_leave(&own.remove(0)).await);
            own.push(Arc::new(connections.admit(ip(0))));
        }
        assert!(!must_leave(&other).await);
    }

    #[tokio::test]
    async fn requests_of_one_client_wait_for_one_another_on_whatever_connection() {
        let connections = connections(9, 1);
        let (first, second, other) = (
            guard(&connections, 0).expect("a"),
            guard(&connections, 0).expect("b"),
            guard(&connections, 1).expect("c"),
        );
        let served = first.begin_request(ip(0), false, Duration::ZERO).await.expect("its turn");
        assert!(second.begin_request(ip(0), false, Duration::from_millis(10)).await.is_none());
        assert!(other.begin_request(ip(1), false, Duration::ZERO).await.is_some());
        drop(served);
        assert!(second.begin_request(ip(0), false, Duration::from_millis(10)).await.is_some());
        connections.end_idle(Instant::now() + Duration::from_secs(3600));
        assert!(must_leave(&first).await && must_leave(&second).await);
    }

    #[tokio::test]
    async fn of_the_requests_that_wait_few_bring_a_body_and_no_more_than_there_may_be_connections() {
        let connections = Connections::new(&Limits { per_client: 5, requests: 16, ..Limits::default() });
        let guard = guard(&connections, 0).expect("a");
        let mut served = Vec::new();
        for n in 0..16 {
            served.push(guard.begin_request(ip(0), n % 4 == 0, Duration::ZERO).await.expect("its turn"));
        }
        let mut waiting = Vec::new();
        for has_body in [true, true, true, true, false] {
            let mut next = Box::pin(guard.begin_request(ip(0), has_body, Duration::from_secs(60)));
            assert!(tokio::time::timeout(Duration::from_millis(5), &mut next).await.is_err());
            waiting.push(next);
            let at_once = guard.begin_request(ip(0), true, Duration::from_secs(60));
            let is_refused = tokio::time::timeout(Duration::from_millis(5), at_once).await.is_ok();
            assert_eq!(is_refused, waiting.len() >= 4);
        }
        assert!(guard.begin_request(ip(0), false, Duration::from_secs(60)).await.is_none());
        drop(waiting.pop());
        let client = |of: fn(&Client) -> usize| of(&connections.lock().clients[&ip(0)]);
        assert_eq!((client(|c| c.waiting), client(|c| c.waiting_bodies)), (4, 4));
        served.clear();
        for next in waiting {
            served.push(next.await.expect("its turn"));
        }
        served.truncate(2);
        assert_eq!((client(|c| c.waiting), client(|c| c.waiting_bodies)), (0, 0));
        assert!(guard.begin_request(ip(0), true, Duration::from_millis(5)).await.is_some(), "two of four have a body");
        served.push(guard.begin_request(ip(0), true, Duration::ZERO).await.expect("three"));
        served.push(guard.begin_request(ip(0), true, Duration::ZERO).await.expect("four"));
        assert!(guard.begin_request(ip(0), true, Duration::from_millis(5)).await.is_none(), "and no more have");
        assert!(guard.begin_request(ip(0), false, Duration::ZERO).await.is_some(), "which is nothing to others");
    }

    #[tokio::test]
    async fn a_request_that_is_taken_back_while_it_waits_leaves_its_connection_idle() {
        let connections = connections(9, 1);
        let (first, second) = (guard(&connections, 0).expect("a"), guard(&connections, 0).expect("b"));
        let served = first.begin_request(ip(0), false, Duration::ZERO).await.expect("its turn");
        let mut waiting = Box::pin(second.begin_request(ip(0), false, Duration::from_secs(60)));
        assert!(tokio::time::timeout(Duration::from_millis(10), &mut waiting).await.is_err());
        connections.end_idle(Instant::now() + Duration::from_secs(3600));
        assert!(!must_leave(&second).await, "it waits for an answer");
        drop((waiting, served));
        connections.end_idle(Instant::now() + Duration::from_secs(3600));
        assert!(must_leave(&second).await);
    }

    #[tokio::test]
    async fn requests_by_a_proxy_are_those_of_whom_it_speaks_for() {
        let proxies = [HERE[0].parse().expect("network")].into_iter().collect();
        let connections = Connections::new(&Limits { per_client: 3, requests: 1, proxies, ..Limits::default() });
        let by: Vec<_> = (0..9).map(|_| guard(&connections, 0).expect("a proxy has as many as it needs")).collect();
        let (one, two): (IpAddr, IpAddr) = ("1.1.1.1".parse().expect("ip"), "2001:db8::1".parse().expect("ip"));
        let served = by[0].begin_request(one, false, Duration::ZERO).await.expect("its turn");
        assert!(by[1].begin_request(one, false, Duration::from_millis(10)).await.is_none(), "one at a time");
        let _others = (
            by[1].begin_request(two, false, Duration::ZERO).await.expect("another's turn"),
            by[2].begin_request(ip(0), false, Duration::ZERO).await.expect("the proxy's own"),
        );
        // so many may wait, and one more is told at once
        let mut waiting: Vec<_> =
            by[3..5].iter().map(|by| Box::pin(by.begin_request(one, false, Duration::from_secs(60)))).collect();
        for waiting in &mut waiting {
            assert!(tokio::time::timeout(Duration::from_millis(10), waiting).await.is_err());
        }
        assert!(by[5].begin_request(one, false, Duration::from_secs(60)).await.is_none());
        drop(served);
        assert!(waiting.remove(0).await.is_some());
        drop(waiting);
        assert!(by[5].begin_request(one, false, Duration::from_secs(60)).await.is_some());
        assert_eq!(connections.lock().clients.len(), 2, "who has nothing under way is forgotten");
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let of = |text: &str| network(text.parse().expect("address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }

    #[tokio::test]
    async fn who_takes_nothing_of_an_answer_is_ended_and_who_takes_is_not() {
        let connections = connections(9, 9);
        let (still, takes) = (guard(&connections, 0).expect("a"), guard(&connections, 1).expect("b"));
        let _served = (
            still.begin_request(ip(0), false, Duration::ZERO).await,
            takes.begin_request(ip(1), false, Duration::ZERO).await,
        );
        let (_answer, taken) = (still.begin_answer(), takes.begin_answer());
        let limit = Limits::default().stall * STALLS;
        connections.end_idle(Instant::now() + limit / 2);
        assert!(!must_leave(&still).await && !must_leave(&takes).await);
        std::thread::sleep(Duration::from_millis(30));
        taken.taken();
        connections.end_idle(Instant::now() + limit - Duration::from_millis(20));
        assert!(must_leave(&still).await && !must_leave(&takes).await);
    }
}
