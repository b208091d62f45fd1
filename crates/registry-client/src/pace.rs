//! How fast requests may start at one host, learnt from its refusals (429). Pure: the clock is handed in.
//!
//! Nothing is held back until a host refuses for the first time. Then single requests ask whether it takes any again, further and
//! further apart (or as `Retry-After` says), and what it took until then, over the time it took, is the rate from there. The rate
//! grows slowly at first and ever faster, until the next refusal or until it counts no more.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The shortest time that a rate is measured over: limits are given for a second or longer.
const SHORTEST_WINDOW: Duration = Duration::from_secs(1);
/// A rate is measured over this many times the length of the refusal that ended it.
const WINDOW: u32 = 8;
/// What was measured is approached from below.
const MARGIN: f64 = 0.9;
/// A known rate falls to a share of itself between these: what is measured may also be what was wanted, or what was saved up.
const FALL: std::ops::RangeInclusive<f64> = 0.8..=0.9;
/// Requests a second: nobody is slower.
const SLOWEST: f64 = 0.02;
/// Requests a second from which on a limit counts no more.
const FREE: f64 = 1000.0;
/// The rate has grown by e after this time; the first measurement knows little and is left behind soon.
const FIRST_GROWTH: Duration = Duration::from_secs(4);
/// The same for later ones, where a refusal costs little; where it costs much, as many times its length.
const GROWTH: std::ops::RangeInclusive<Duration> = Duration::from_secs(8)..=Duration::from_secs(60);
const GROWTH_PER_REFUSAL: u32 = 40;
/// Between two requests that ask whether the host takes any again: at first, and at most.
const FIRST_HOLD: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(1);
const LONGEST_HOLD: Duration = Duration::from_secs(5);
/// Accepted requests that are remembered.
const REMEMBERED: usize = 1024;

/// What one host bears.
#[derive(Debug)]
pub(crate) struct Pace {
    known: Option<Known>,
    refusing: Option<Refusing>,
    /// Nobody starts before, to keep the pace.
    next: Option<Instant>,
    /// Nobody starts before, because the host asked for it.
    closed_until: Option<Instant>,
    /// Counts refusals and their ends, so that answers to requests from before are told apart.
    round: u64,
    accepted: VecDeque<Instant>,
    /// Since when requests have followed one another without a rest.
    busy_since: Option<Instant>,
    last: Option<Instant>,
}

/// A rate that was learnt.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// Requests a second, at `since`.
    rate: f64,
    since: Instant,
    growth: Duration,
}

/// The host takes nothing at the moment.
#[derive(Debug)]
struct Refusing {
    since: Instant,
    /// Requests of this round and later ones were made since.
    round: u64,
    hold: Duration,
    /// The rate at which it came to this.
    at: Option<f64>,
}

/// Says when a request started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

impl Pace {
    pub(crate) fn new() -> Self {
        Self {
            known: None,
            refusing: None,
            next: None,
            closed_until: None,
            round: 0,
            accepted: VecDeque::new(),
            busy_since: None,
            last: None,
        }
    }

    /// Starts a request, or says when to ask again.
    pub(crate) fn start(&mut self, now: Instant) -> Result<Ticket, Instant> {
        if let Some(wait) = self.next.max(self.closed_until).filter(|until| *until > now) {
            return Err(wait);
        }
        let rate = self.rate(now);
        let spacing = self.refusing.as_ref().map(|r| r.hold).or(rate.map(|r| Duration::from_secs_f64(1.0 / r)));
        let rest = Duration::from_secs(2) + rate.map_or(Duration::ZERO, |r| Duration::from_secs_f64(2.0 / r));
        if self.refusing.is_none() && self.last.is_none_or(|last| now.duration_since(last) > rest) {
            self.busy_since = Some(now);
        }
        self.last = Some(now);
        self.next = spacing.map(|spacing| match self.next {
            // whoever wakes a little late must not slow everybody down
            Some(due) if self.refusing.is_none() && now.duration_since(due) < spacing => due + spacing,
            _ => now + spacing,
        });
        Ok(Ticket(self.round))
    }

    /// The host answered with anything but a refusal. Says whether that ends a time in which it refused everything.
    pub(crate) fn accepted(&mut self, ticket: Ticket, now: Instant) -> bool {
        if self.accepted.len() == REMEMBERED {
            self.accepted.pop_front();
        }
        self.accepted.push_back(now);
        let Some(refusing) = self.refusing.take_if(|r| ticket.0 >= r.round) else { return false };
        let took = now.duration_since(refusing.since);
        let measured = self.measure(took, now) * MARGIN;
        let (rate, growth) = match refusing.at {
            None => (measured, FIRST_GROWTH),
            Some(at) => (
                measured.clamp(at * FALL.start(), at * FALL.end()),
                (took * GROWTH_PER_REFUSAL).clamp(*GROWTH.start(), *GROWTH.end()),
            ),
        };
        let rate = rate.max(SLOWEST);
        self.known = Some(Known { rate, since: now, growth });
        self.next = Some(now + Duration::from_secs_f64(1.0 / rate));
        self.round += 1;
        true
    }

    /// The host said 429, and perhaps when to come back. `jitter` is a random number from 0 to 1. Returns for how long it has
    /// refused everything.
    pub(crate) fn refused(&mut self, ticket: Ticket, now: Instant, asked: Option<Duration>, jitter: f64) -> Duration {
        if let Some(asked) = asked {
            self.close(now, asked);
        }
        // made before it was known that the host refuses
        if ticket.0 != self.round {
            return self.refusing_for(now);
        }
        self.round += 1;
        let rate = self.rate(now);
        let hold = match &mut self.refusing {
            Some(refusing) => {
                refusing.hold = (refusing.hold * 2).min(LONGEST_HOLD);
                refusing.hold
            }
            None => {
                let one = rate.map_or(*FIRST_HOLD.start(), |rate| Duration::from_secs_f64(1.0 / rate));
                let hold = one.clamp(*FIRST_HOLD.start(), *FIRST_HOLD.end());
                self.refusing = Some(Refusing { since: now, round: self.round, hold, at: rate });
                hold
            }
        };
        self.next = self.next.max(Some(now + hold.mul_f64(0.75 + jitter.clamp(0.0, 1.0) / 2.0)));
        self.refusing_for(now)
    }

    fn refusing_for(&self, now: Instant) -> Duration {
        self.refusing.as_ref().map_or(Duration::ZERO, |refusing| now.duration_since(refusing.since))
    }

    /// Nobody starts for `wait`.
    pub(crate) fn close(&mut self, now: Instant, wait: Duration) {
        self.closed_until = self.closed_until.max(now.checked_add(wait));
    }

    /// Requests a second; none where no limit is known.
    fn rate(&mut self, now: Instant) -> Option<f64> {
        let Known { rate, since, growth } = self.known?;
        let grown = now.duration_since(since).as_secs_f64() / growth.as_secs_f64();
        let rate = rate * (grown * grown).exp();
        if rate > FREE {
            self.known = None;
        }
        self.known.map(|_| rate)
    }

    /// Accepted requests a second, before a refusal that lasted `took` and while it lasted.
    fn measure(&self, took: Duration, now: Instant) -> f64 {
        let longest = (took * WINDOW).max(SHORTEST_WINDOW);
        let oldest = match self.accepted.front() {
            Some(first) if self.accepted.len() == REMEMBERED => Some(*first),
            _ => self.busy_since,
        };
        let busy = oldest.map_or(Duration::ZERO, |since| now.duration_since(since));
        let window = busy.clamp(SHORTEST_WINDOW, longest);
        let count = self.accepted.iter().rev().take_while(|at| now.duration_since(**at) <= window).count();
        u32::try_from(count).map_or(FREE, f64::from) / window.as_secs_f64()
    }
}
