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

/// All connections.
#[derive(Debug)]
pub(crate) struct Crowd {
    guests: Mutex<Guests>,
    limits: Limits,
}

#[derive(Debug, Default)]
struct Guests {
    next: u64,
    all: HashMap<u64, Guest>,
    clients: HashMap<IpAddr, Client>,
}

#[derive(Debug)]
struct Guest {
    client: IpAddr,
    /// Requests that are not answered yet.
    busy: usize,
    /// When the last one was, or when it came.
    since: Instant,
    leave: Arc<Notify>,
    is_leaving: bool,
    /// The answers that are being sent.
    answers: Vec<Weak<Answer>>,
}

/// When a client last took something of an answer. Over HTTP/2 it may take nothing for ever, and the connection is well all the same.
#[derive(Debug)]
pub(crate) struct Answer(Mutex<Instant>);

impl Answer {
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
    requests: Arc<Semaphore>,
}

/// The place of one connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    crowd: Arc<Crowd>,
    id: u64,
    leave: Arc<Notify>,
    requests: Arc<Semaphore>,
}

/// One request of a connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct Served {
    _busy: Busy,
    _permit: OwnedSemaphorePermit,
}

/// Something that is to be answered on a connection, until it is dropped: a connection that has any is not idle.
#[derive(Debug)]
struct Busy(Arc<Seat>);

impl Crowd {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self { guests: Mutex::default(), limits: limits.clone() })
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection. `None` where all of its client's are at work.
    pub(crate) fn seat(self: &Arc<Self>, from: IpAddr) -> Option<Seat> {
        let client = network(from);
        let mut guests = self.guests();
        if guests.clients.get(&client).is_some_and(|c| c.connections >= self.limits.per_client)
            && !guests.dismiss(Some(client))
        {
            return None;
        }
        let id = guests.next;
        guests.next += 1;
        let leave = Arc::new(Notify::new());
        let guest = Guest {
            client,
            busy: 0,
            since: Instant::now(),
            leave: Arc::clone(&leave),
            is_leaving: false,
            answers: Vec::new(),
        };
        guests.all.insert(id, guest);
        let most = self.limits.requests;
        let entry = guests.clients.entry(client);
        let entry = entry.or_insert_with(|| Client { connections: 0, requests: Arc::new(Semaphore::new(most)) });
        entry.connections += 1;
        let requests = Arc::clone(&entry.requests);
        Some(Seat { crowd: Arc::clone(self), id, leave, requests })
    }

    /// Makes room for one more, if any connection is idle.
    pub(crate) fn make_room(&self) {
        self.guests().dismiss(None);
    }

    /// Ends what has been idle for too long, or takes nothing of an answer.
    pub(crate) fn end_idle(&self, now: Instant) {
        let (limit, patience) = (self.limits.idle_timeout, self.limits.stall * STALLS);
        for guest in self.guests().all.values_mut() {
            let is_idle = guest.busy == 0 && now.saturating_duration_since(guest.since) >= limit;
            guest.answers.retain(|answer| answer.strong_count() > 0);
            let stalls = |answer: Arc<Answer>| now.saturating_duration_since(answer.since()) >= patience;
            if is_idle || guest.answers.iter().filter_map(Weak::upgrade).any(stalls) {
                guest.dismiss();
            }
        }
    }

    /// How many are connected.
    pub(crate) fn len(&self) -> usize {
        self.guests().all.len()
    }
}

impl Guests {
    /// Ends the connection, of this client or of any, that has been idle for the longest time; whether there was one.
    fn dismiss(&mut self, of: Option<IpAddr>) -> bool {
        let idle = self.all.values_mut().filter(|g| g.busy == 0 && !g.is_leaving && of.is_none_or(|c| c == g.client));
        let oldest = idle.min_by_key(|guest| guest.since);
        oldest.map(Guest::dismiss).is_some()
    }
}

impl Guest {
    fn dismiss(&mut self) {
        self.is_leaving = true;
        self.leave.notify_one();
    }
}

impl Seat {
    /// Waits until the connection must give way.
    pub(crate) async fn dismissed(&self) {
        self.leave.notified().await;
    }

    /// Begins a request: the client's turn, where it has many under way. `None` when that does not come in time.
    pub(crate) async fn serve(self: &Arc<Self>, patience: Duration) -> Option<Served> {
        // before it waits: a client may take the request back while it does, and the rest of this is never run
        let busy = Busy::begin(self);
        let permit = tokio::time::timeout(patience, Arc::clone(&self.requests).acquire_owned()).await.ok()?.ok()?;
        Some(Served { _busy: busy, _permit: permit })
    }

    /// An answer is on its way, until what is returned is dropped.
    pub(crate) fn answers(&self) -> Arc<Answer> {
        let answer = Arc::new(Answer(Mutex::new(Instant::now())));
        self.change(|guest| guest.answers.push(Arc::downgrade(&answer)));
        answer
    }

    fn change(&self, change: impl FnOnce(&mut Guest)) {
        if let Some(guest) = self.crowd.guests().all.get_mut(&self.id) {
            change(guest);
        }
    }
}

impl Busy {
    fn begin(seat: &Arc<Seat>) -> Self {
        seat.change(|guest| guest.busy += 1);
        Self(Arc::clone(seat))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.change(|guest| {
            guest.busy = guest.busy.saturating_sub(1);
            guest.since = Instant::now();
        });
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut guests = self.crowd.guests();
        let Some(guest) = guests.all.remove(&self.id) else { return };
        if let Some(client) = guests.clients.get_mut(&guest.client) {
            client.connections -= 1;
            if client.connections == 0 {
                guests.clients.remove(&guest.client);
            }
        }
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

    fn crowd(per_client: usize, requests: usize) -> Arc<Crowd> {
        Crowd::new(&Limits { per_client, requests, ..Limits::default() })
    }

    async fn must_leave(seat: &Seat) -> bool {
        tokio::time::timeout(Duration::from_millis(10), seat.dismissed()).await.is_ok()
    }

    const HERE: [&str; 2] = ["10.0.0.1", "10.0.0.2"];

    fn seat(crowd: &Arc<Crowd>, client: usize) -> Option<Arc<Seat>> {
        crowd.seat(HERE[client].parse().expect("address")).map(Arc::new)
    }

    #[tokio::test]
    async fn the_one_that_is_idle_for_the_longest_time_gives_way() {
        let crowd = crowd(2, 9);
        let (first, second, other) =
            (seat(&crowd, 0).expect("a"), seat(&crowd, 0).expect("b"), seat(&crowd, 1).expect("c"));
        // the first asks for something, and is then not the longest idle one
        drop(first.serve(Duration::ZERO).await.expect("its turn"));
        let third = seat(&crowd, 0).expect("room is made");
        assert!(must_leave(&second).await && !must_leave(&first).await && !must_leave(&other).await);
        drop(second);
        let busy = (first.serve(Duration::ZERO).await, third.serve(Duration::ZERO).await);
        assert!(seat(&crowd, 0).is_none(), "both are at work");
        assert!(seat(&crowd, 1).is_some(), "others are not in the way");
        drop(busy);
        crowd.make_room();
        assert!(must_leave(&other).await);
        drop((first, third, other));
        assert_eq!((crowd.len(), crowd.guests().clients.len()), (0, 0));
    }

    #[tokio::test]
    async fn requests_of_one_client_wait_for_one_another_on_whatever_connection() {
        let crowd = crowd(9, 1);
        let (first, second, other) =
            (seat(&crowd, 0).expect("a"), seat(&crowd, 0).expect("b"), seat(&crowd, 1).expect("c"));
        let served = first.serve(Duration::ZERO).await.expect("its turn");
        assert!(second.serve(Duration::from_millis(10)).await.is_none());
        assert!(other.serve(Duration::ZERO).await.is_some());
        drop(served);
        assert!(second.serve(Duration::from_millis(10)).await.is_some());
        crowd.end_idle(Instant::now() + Duration::from_secs(3600));
        assert!(must_leave(&first).await && must_leave(&second).await);
    }

    #[tokio::test]
    async fn a_request_that_is_taken_back_while_it_waits_leaves_its_connection_idle() {
        let crowd = crowd(9, 1);
        let (first, second) = (seat(&crowd, 0).expect("a"), seat(&crowd, 0).expect("b"));
        let served = first.serve(Duration::ZERO).await.expect("its turn");
        let mut waiting = Box::pin(second.serve(Duration::from_secs(60)));
        assert!(tokio::time::timeout(Duration::from_millis(10), &mut waiting).await.is_err());
        crowd.end_idle(Instant::now() + Duration::from_secs(3600));
        assert!(!must_leave(&second).await, "it waits for an answer");
        drop((waiting, served));
        crowd.end_idle(Instant::now() + Duration::from_secs(3600));
        assert!(must_leave(&second).await);
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
        let crowd = crowd(9, 9);
        let (still, takes) = (seat(&crowd, 0).expect("a"), seat(&crowd, 1).expect("b"));
        let _served = (still.serve(Duration::ZERO).await, takes.serve(Duration::ZERO).await);
        let (_answer, taken) = (still.answers(), takes.answers());
        let limit = Limits::default().stall * STALLS;
        crowd.end_idle(Instant::now() + limit / 2);
        assert!(!must_leave(&still).await && !must_leave(&takes).await);
        std::thread::sleep(Duration::from_millis(30));
        taken.taken();
        crowd.end_idle(Instant::now() + limit - Duration::from_millis(20));
        assert!(must_leave(&still).await && !must_leave(&takes).await);
    }
}
