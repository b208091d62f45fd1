//! The gate of one host, shared by all tasks: how many requests are on their way at a time, and how soon the next may start.
//!
//! Additive increase, multiplicative decrease: a 429 halves what is on its way (once for a burst of them), and each second without
//! one lets one more in. The pace between starts is learnt by [`crate::pace`]. Whoever was refused comes again through the gate:
//! nobody waits by himself, and a `Retry-After` holds everybody back, not only the task that heard it.
//!
//! A place in the gate is held while a body streams in, never while one streams out: a copy within one host holds both ends, and
//! would wait for itself.

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::pace::{Pace, Ticket};
use crate::retry::jitter;

/// Several 429 within this time are one event.
const BURST: Duration = Duration::from_secs(1);
/// After this time without a 429 one more may be on its way.
const GROWTH: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
    /// One for each kind that has places.
    left: [Notify; 2],
    /// The host takes requests again.
    opened: Notify,
    /// Who starts next.
    turn: tokio::sync::Mutex<()>,
    most: usize,
}

/// What is counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Over once answered.
    Request,
    /// Its answer streams in; apart from the others, so that a copy within one registry cannot wait for itself.
    Pull,
    /// Its body streams out. Not counted: the copy loop does that.
    Upload,
}

#[derive(Debug)]
struct State {
    crowds: [Crowd; 2],
    halved: Option<Instant>,
    grown: Instant,
    pace: Pace,
}

#[derive(Debug)]
struct Crowd {
    inside: usize,
    limit: usize,
}

/// A request that may start, and its place inside, which is left when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    seat: Seat,
    ticket: Ticket,
}

#[derive(Debug)]
struct Seat {
    gate: Arc<Gate>,
    /// `None` where there are no places.
    crowd: Option<usize>,
}

impl Gate {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        let most = most.max(1);
        let crowd = || Crowd { inside: 0, limit: most };
        let state = State { crowds: [crowd(), crowd()], halved: None, grown: Instant::now(), pace: Pace::new() };
        Arc::new(Self {
            state: Mutex::new(state),
            left: [Notify::new(), Notify::new()],
            opened: Notify::new(),
            turn: tokio::sync::Mutex::default(),
            most,
        })
    }

    /// Waits until a request may start.
    pub(crate) async fn enter(self: &Arc<Self>, kind: Kind) -> Place {
        let crowd = match kind {
            Kind::Request => Some(0),
            Kind::Pull => Some(1),
            Kind::Upload => None,
        };
        let seat = self.sit_down(crowd).await;
        Place { seat, ticket: self.start().await }
    }

    async fn sit_down(self: &Arc<Self>, crowd: Option<usize>) -> Seat {
        let seat = || Seat { gate: Arc::clone(self), crowd };
        let Some(at) = crowd else { return seat() };
        loop {
            let left = self.left[at].notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if self.state().take(at, self.most) {
                return seat();
            }
            // the limit grows with time, too
            let _ = tokio::time::timeout(GROWTH, left).await;
        }
    }

    /// Waits for the pace, one after the other.
    async fn start(&self) -> Ticket {
        let _turn = self.turn.lock().await;
        loop {
            let opened = self.opened.notified();
            tokio::pin!(opened);
            opened.as_mut().enable();
            let started = self.state().pace.start(Instant::now());
            match started {
                Ok(ticket) => return ticket,
                Err(until) => tokio::select! {
                    () = tokio::time::sleep_until(until) => {}
                    () = opened => {}
                },
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes a place, if there is one.
    fn take(&mut self, at: usize, most: usize) -> bool {
        self.grow(Instant::now(), most);
        let crowd = &mut self.crowds[at];
        let free = crowd.inside < crowd.limit;
        crowd.inside += usize::from(free);
        free
    }

    fn grow(&mut self, now: Instant, most: usize) {
        while self.crowds.iter().any(|crowd| crowd.limit < most) && now.duration_since(self.grown) >= GROWTH {
            self.grown += GROWTH;
            for crowd in &mut self.crowds {
                crowd.limit = (crowd.limit + 1).min(most);
            }
        }
    }

    fn halve(&mut self, now: Instant) {
        self.grown = now;
        if self.halved.is_some_and(|at| now.duration_since(at) < BURST) {
            return;
        }
        self.halved = Some(now);
        for crowd in &mut self.crowds {
            // from what was really on its way: the limit may never have been reached; one alone was not too many
            if crowd.inside > 1 {
                crowd.limit = crowd.limit.min(crowd.inside) / 2;
            }
        }
    }
}

impl Place {
    /// The host answered with anything but a refusal.
    pub(crate) fn accepted(&self) {
        if self.gate().state().pace.accepted(self.ticket, Instant::now()) {
            self.gate().opened.notify_waiters();
        }
    }

    /// The host said 429, and perhaps when to come back. Returns for how long it has refused everything.
    pub(crate) fn refused(&self, asked: Option<Duration>) -> Duration {
        let now = Instant::now();
        let mut state = self.gate().state();
        state.halve(now);
        state.pace.refused(self.ticket, now, asked, jitter())
    }

    /// The host asks to be left alone for `wait`.
    pub(crate) fn close(&self, wait: Duration) {
        self.gate().state().pace.close(Instant::now(), wait);
    }

    fn gate(&self) -> &Gate {
        &self.seat.gate
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(at) = self.crowd {
            self.gate.state().crowds[at].inside -= 1;
            self.gate.left[at].notify_one();
        }
    }
}
