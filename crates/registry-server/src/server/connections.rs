//! Who is connected. However many connections there are, the next one is served: where there would be too many, altogether or of one client,
//! the one that has done nothing for the longest time gives way.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::server::Limits;
use crate::server::client::{Client, Turn, Turns, network};

/// How many times the stall limit of a connection one of its answers may stand still: buffers on the way may take that long to drain for a
/// slow client.
const STALLS: u32 = 10;

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

/// Whose connection ends where there is no room for a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// That which has been idle for the longest time.
    Anybodys,
    /// One of the same client, which is on its way out already.
    ItsOwn,
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

    /// A place among the requests of a client that wait. `None` where too many do.
    fn wait(&self, client: IpAddr, has_body: bool) -> Option<Waiting<'_>> {
        let mut table = self.lock();
        let entry = table.clients.get_mut(&client)?;
        entry.waits(&self.limits, has_body).then(|| Waiting { connections: self, client, has_body })
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
        if client.is_gone() {
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
        self.connections.lock().leave(self.client, |client| client.goes_on(self.has_body));
    }
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        self.connections.lock().leave(self.client, |client| client.forwarded -= 1);
    }
}

#[cfg(test)]
mod tests;
