//! Whoever gives wrong passwords must wait, longer each time: guessing is slow, however many connections are used for it. Pure but for the
//! clock that is handed in.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The wait after the first wrong password; it doubles with each one more.
const FIRST: Duration = Duration::from_millis(250);
/// The longest time between two guesses.
const MOST: Duration = Duration::from_secs(8);
/// Whoever would have to wait longer than this is sent away.
const PATIENCE: Duration = Duration::from_secs(10);
/// When a wrong password is forgotten.
const MEMORY: Duration = Duration::from_secs(300);
/// The most clients that are remembered; then the oldest is forgotten.
const CLIENTS: usize = 4096;

/// Clients that gave wrong passwords.
#[derive(Debug, Default)]
pub(crate) struct Penalties(HashMap<IpAddr, Penalty>);

#[derive(Debug)]
struct Penalty {
    failures: u32,
    /// Before this nothing of theirs is looked at.
    free: Instant,
    last: Instant,
}

impl Penalties {
    /// How long a client's next password must wait: its turn is taken by asking. `Err` is for one that comes too often, with how long it
    /// should stay away.
    pub(crate) fn turn(&mut self, client: IpAddr, now: Instant) -> Result<Duration, Duration> {
        let Some(penalty) = self.0.get_mut(&client).filter(|p| now.duration_since(p.last) < MEMORY) else {
            return Ok(Duration::ZERO);
        };
        let wait = penalty.free.saturating_duration_since(now);
        if wait > PATIENCE {
            return Err(wait);
        }
        penalty.free = now + wait + pause(penalty.failures);
        Ok(wait)
    }

    /// A password was wrong.
    pub(crate) fn wrong(&mut self, client: IpAddr, now: Instant) {
        if self.0.len() >= CLIENTS && !self.0.contains_key(&client) {
            self.0.retain(|_, penalty| now.duration_since(penalty.last) < MEMORY);
            let oldest = self.0.iter().min_by_key(|(_, penalty)| penalty.last).map(|(client, _)| *client);
            if let Some(oldest) = oldest.filter(|_| self.0.len() >= CLIENTS) {
                self.0.remove(&oldest);
            }
        }
        let penalty = self.0.entry(client).or_insert(Penalty { failures: 0, free: now, last: now });
        if now.duration_since(penalty.last) >= MEMORY {
            penalty.failures = 0;
        }
        penalty.failures = penalty.failures.saturating_add(1);
        penalty.last = now;
        penalty.free = penalty.free.max(now + pause(penalty.failures));
    }

    /// A password was right: what went before were slips.
    pub(crate) fn right(&mut self, client: IpAddr) {
        self.0.remove(&client);
    }
}

fn pause(failures: u32) -> Duration {
    FIRST.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn each_wrong_password_makes_the_next_one_wait_longer() {
        let (mut penalties, mut now) = (Penalties::default(), Instant::now());
        assert_eq!(penalties.turn(CLIENT, now), Ok(Duration::ZERO));
        let mut waits = Vec::new();
        for _ in 0..8 {
            penalties.wrong(CLIENT, now);
            let wait = penalties.turn(CLIENT, now).expect("a turn");
            waits.push(wait.as_millis());
            now += wait;
        }
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 8000, 8000]);
        assert_eq!(penalties.turn("10.0.0.1".parse().expect("ip"), now), Ok(Duration::ZERO), "others do not wait");
        penalties.right(CLIENT);
        assert_eq!(penalties.turn(CLIENT, now), Ok(Duration::ZERO));
    }

    #[test]
    fn many_guesses_at_once_stand_in_one_line_and_the_rest_is_sent_away() {
        let (mut penalties, now) = (Penalties::default(), Instant::now());
        (0..4).for_each(|_| penalties.wrong(CLIENT, now));
        let turns: Vec<_> = (0..50).map(|_| penalties.turn(CLIENT, now)).collect();
        let waits: Vec<u64> = turns.iter().filter_map(|turn| turn.ok().map(|wait| wait.as_secs())).collect();
        assert_eq!(waits, [2, 4, 6, 8, 10]);
        assert!(turns[5..].iter().all(Result::is_err));
        let later = now + MEMORY;
        assert_eq!(penalties.turn(CLIENT, later), Ok(Duration::ZERO), "forgotten");
    }

    #[test]
    fn a_million_clients_do_not_fill_the_memory() {
        let (mut penalties, now) = (Penalties::default(), Instant::now());
        for n in 0..10_000_u32 {
            penalties.wrong(IpAddr::V4(n.into()), now + Duration::from_millis(n.into()));
        }
        assert_eq!(penalties.0.len(), CLIENTS);
        assert!(penalties.0.contains_key(&IpAddr::V4(9_999.into())), "the newest are kept");
    }
}
