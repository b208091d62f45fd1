//! A body that only drips is a body that has stalled: one byte now and then would keep a transfer waiting for years. Pure.
//!
//! Counted is the time that was spent waiting for bytes, not the time that whoever takes them needs.

use std::time::Duration;

/// Bytes a second. Thirty connections that share the slowest line that anybody carries images over have more each.
const LEAST: u64 = 100;

/// What came of a body in the last while.
#[derive(Debug, Default)]
pub(crate) struct Drip {
    waited: Duration,
    bytes: u64,
}

impl Drip {
    /// Bytes came, after so long a wait. Says what is wrong where less came in the time `stall` than a line brings.
    pub(crate) fn came(&mut self, bytes: u64, waited: Duration, stall: Duration) -> Result<(), String> {
        self.waited += waited;
        self.bytes += bytes;
        if self.waited < stall {
            return Ok(());
        }
        let Self { waited, bytes } = std::mem::take(self);
        if bytes as f64 >= LEAST as f64 * waited.as_secs_f64() {
            return Ok(());
        }
        Err(format!("only {bytes} bytes came in {} s", waited.as_secs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn what_drips_is_told_after_the_time_of_a_stall_and_what_comes_is_not() {
        let mut drip = Drip::default();
        for second in 1..60 {
            assert_eq!(drip.came(10, S(1), S(60)), Ok(()), "{second}");
        }
        assert_eq!(drip.came(10, S(1), S(60)), Err("only 600 bytes came in 60 s".to_owned()));
        // much at first does not make good for what drips later
        assert_eq!(drip.came(1 << 30, S(60), S(60)), Ok(()));
        assert_eq!(drip.came(10, S(59), S(60)), Ok(()));
        assert!(drip.came(10, S(1), S(60)).is_err());
        // a slow line is a line
        for _ in 0..300 {
            assert_eq!(drip.came(100, S(1), S(60)), Ok(()));
        }
        // whoever takes the bytes late was not kept waiting
        for _ in 0..300 {
            assert_eq!(drip.came(1, Duration::ZERO, S(60)), Ok(()));
        }
    }
}
