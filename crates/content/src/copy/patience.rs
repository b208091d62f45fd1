//! When to try a broken transfer again, and when to give up.

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
    /// The wait before the next try after `failures` in a row, or `None` to give up.
    #[must_use]
    pub fn wait_after(&self, failures: u32) -> Option<Duration> {
        (failures < self.attempts)
            .then(|| self.first_wait.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.longest_wait))
    }
}

/// Counts failures of one transfer.
#[derive(Debug)]
pub(super) struct Count<'a> {
    patience: &'a Patience,
    failures: u32,
}

impl<'a> Count<'a> {
    pub(super) fn new(patience: &'a Patience) -> Self {
        Self { patience, failures: 0 }
    }

    pub(super) fn moved(&mut self) {
        self.failures = 0;
    }

    /// Waits before the next try; false when it is time to give up.
    pub(super) async fn again(&mut self) -> bool {
        self.failures += 1;
        match self.patience.wait_after(self.failures) {
            Some(wait) => {
                tokio::time::sleep(wait).await;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_end() {
        let patience =
            Patience { attempts: 4, first_wait: Duration::from_secs(1), longest_wait: Duration::from_secs(3) };
        let waits: Vec<Option<u64>> = (1..=4).map(|n| patience.wait_after(n).map(|d| d.as_secs())).collect();
        assert_eq!(waits, [Some(1), Some(2), Some(3), None]);
    }
}
