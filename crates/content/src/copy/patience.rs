//! When to try a broken transfer again, and when to give up.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// Failures are counted only while nothing moves: any byte that arrives starts the count anew.
#[derive(Debug, Clone)]
pub struct Patience {
    /// Failures in a row, without a byte between them, before a blob is given up.
    pub attempts: u32,
    /// The wait after the first failure; it doubles with each.
    pub first_wait: Duration,
    /// The longest wait.
    pub longest_wait: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { attempts: 6, first_wait: Duration::from_millis(200), longest_wait: Duration::from_secs(20) }
    }
}

impl Patience {
    /// The longest wait before the next try after `failures` in a row, or `None` to give up.
    #[must_use]
    pub fn wait_after(&self, failures: u32) -> Option<Duration> {
        (failures < self.attempts)
            .then(|| self.first_wait.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.longest_wait))
    }
}

/// Counts failures of one transfer.
#[derive(Debug)]
pub(crate) struct Count<'a> {
    patience: &'a Patience,
    failures: u32,
    ever_failed: bool,
}

impl<'a> Count<'a> {
    pub(crate) fn new(patience: &'a Patience) -> Self {
        Self { patience, failures: 0, ever_failed: false }
    }

    /// Whether more than one request was needed.
    pub(crate) fn ever_failed(&self) -> bool {
        self.ever_failed
    }

    pub(crate) fn moved(&mut self) {
        self.failures = 0;
    }

    /// Waits before the next try; false when it is time to give up.
    pub(crate) async fn again(&mut self) -> bool {
        self.failures += 1;
        self.ever_failed = true;
        match self.patience.wait_after(self.failures) {
            Some(wait) => {
                tokio::time::sleep(spread(wait)).await;
                true
            }
            None => false,
        }
    }
}

/// Between half of `wait` and all of it: tasks that failed together do not come back together.
pub(crate) fn spread(wait: Duration) -> Duration {
    let bits = RandomState::new().hash_one(0_u8) >> 32;
    let share = f64::from(u32::try_from(bits).unwrap_or_default()) / f64::from(u32::MAX);
    wait.mul_f64(0.5 + share / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_spread() {
        let waits: std::collections::BTreeSet<Duration> = (0..50).map(|_| spread(Duration::from_secs(2))).collect();
        assert!(waits.len() > 10 && waits.iter().all(|w| (1.0..=2.0).contains(&w.as_secs_f64())), "{waits:?}");
    }

    #[test]
    fn waits_double_and_end() {
        let patience =
            Patience { attempts: 4, first_wait: Duration::from_secs(1), longest_wait: Duration::from_secs(3) };
        let waits: Vec<Option<u64>> = (1..=4).map(|n| patience.wait_after(n).map(|d| d.as_secs())).collect();
        assert_eq!(waits, [Some(1), Some(2), Some(3), None]);
    }
}
