//! The gate of one host: how many requests are on their way at a time, shared by all tasks.
//!
//! Additive increase, multiplicative decrease: a 429 halves the limit (once for a burst of them), successes let it grow back. A
//! `Retry-After` holds everybody back, not only the task that heard it.
//!
//! A place in the gate is held while a body streams in, never while one streams out: a copy within one host holds both ends, and
//! would wait for itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Several 429 within this time are one event.
const BURST: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
    moved: Notify,
    most: usize,
}

#[derive(Debug)]
struct State {
    limit: usize,
    inside: usize,
    successes: usize,
    closed_until: Option<Instant>,
    halved: Option<Instant>,
}

/// A place inside; leaves when dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<Gate>);

impl Gate {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        let most = most.max(1);
        let state = State { limit: most, inside: 0, successes: 0, closed_until: None, halved: None };
        Arc::new(Self { state: Mutex::new(state), moved: Notify::new(), most })
    }

    /// Waits for a place.
    pub(crate) async fn enter(self: &Arc<Self>) -> Place {
        loop {
            self.open().await;
            let moved = self.moved.notified();
            {
                let mut state = self.state();
                if state.inside < state.limit {
                    state.inside += 1;
                    return Place(Arc::clone(self));
                }
            }
            moved.await;
        }
    }

    /// Waits only while the host wants no requests at all.
    pub(crate) async fn open(&self) {
        loop {
            let until = self.state().closed_until;
            match until {
                Some(until) if until > Instant::now() => tokio::time::sleep_until(until).await,
                _ => return,
            }
        }
    }

    /// The host said 429: fewer at a time, and none for `wait`.
    pub(crate) fn slow_down(&self, wait: Option<Duration>) {
        let now = Instant::now();
        let mut state = self.state();
        if state.halved.is_none_or(|at| now.duration_since(at) >= BURST) {
            // count from what was really on its way: the limit may never have been reached
            state.limit = (state.limit.min(state.inside.max(1)) / 2).max(1);
            state.halved = Some(now);
        }
        state.successes = 0;
        if let Some(until) = wait.and_then(|w| now.checked_add(w)) {
            state.closed_until = Some(state.closed_until.map_or(until, |old| old.max(until)));
        }
    }

    /// A request was answered as wished.
    pub(crate) fn went_well(&self) {
        let mut state = self.state();
        if state.limit >= self.most {
            return;
        }
        state.successes += 1;
        if state.successes >= state.limit * 4 {
            state.successes = 0;
            state.limit += 1;
            drop(state);
            self.moved.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.state().inside -= 1;
        self.0.moved.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(gate: &Gate) -> usize {
        gate.state().limit
    }

    #[tokio::test]
    async fn a_429_halves_the_limit_and_success_restores_it() {
        let gate = Gate::new(4);
        let places = [gate.enter().await, gate.enter().await, gate.enter().await, gate.enter().await];
        gate.slow_down(None);
        gate.slow_down(None);
        assert_eq!(limit(&gate), 2, "a burst counts once");
        drop(places);
        for _ in 0..2 * 4 + 3 * 4 {
            gate.went_well();
        }
        assert_eq!(limit(&gate), 4);
        gate.went_well();
        assert_eq!(limit(&gate), 4, "never above where it began");
    }

    #[tokio::test]
    async fn whoever_waits_gets_the_place_that_is_left() {
        let gate = Gate::new(1);
        let first = gate.enter().await;
        let second = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { drop(gate.enter().await) }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        tokio::time::timeout(Duration::from_secs(5), second).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn retry_after_holds_everybody_back() {
        let gate = Gate::new(8);
        gate.slow_down(Some(Duration::from_millis(60)));
        let start = Instant::now();
        drop(gate.enter().await);
        assert!(start.elapsed() >= Duration::from_millis(60));
    }
}
