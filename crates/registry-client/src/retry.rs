//! When a request is made again, and after how long. One policy for all requests; pure.

use std::time::{Duration, SystemTime};

/// How patient the client is with one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// How often a request is made in all, the first time included.
    pub attempts: u32,
    /// The wait before the second attempt; it doubles from there.
    pub base: Duration,
    /// The longest wait of our own choosing.
    pub cap: Duration,
    /// The longest wait that a server may ask for; when it asks for more, the request fails at once. Also how long a server may
    /// go on saying 429.
    pub longest_retry_after: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 6,
            base: Duration::from_millis(500),
            cap: Duration::from_secs(20),
            longest_retry_after: Duration::from_secs(300),
        }
    }
}

/// How one attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The server answered.
    Status(u16, Option<Duration>),
    /// The server said 429, perhaps when to come back, and has said so for this long by now.
    TooMany(Option<Duration>, Duration),
    /// Another host refused, which a redirect had led to.
    Elsewhere,
    /// There was no answer; `true` when the reason may pass (connection refused or reset, a timeout).
    NoAnswer(bool),
}

/// What to do after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Wait, then make the request again.
    Retry(Duration),
    /// It stays as it is.
    Stop,
}

/// How often a redirect is asked for again when it leads to a refusal.
const REDIRECTS: u32 = 3;

/// Statuses that may pass (RFC 9110, RFC 6585, RFC 8470).
pub(crate) fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// What to do after attempt number `attempt` (from 1). `jitter` is a random number from 0 to 1.
pub(crate) fn decide(policy: &Retry, outcome: Outcome, attempt: u32, jitter: f64) -> Decision {
    let (passes, asked, attempts) = match outcome {
        // whoever is told to slow down is not failing, and the gate says when his turn is
        Outcome::TooMany(asked, lasting) => {
            let hopeless = asked.unwrap_or_default().max(lasting) > policy.longest_retry_after;
            return if hopeless { Decision::Stop } else { Decision::Retry(Duration::ZERO) };
        }
        // a signed address is good for minutes: the registry gives a new one
        Outcome::Elsewhere => (true, None, policy.attempts.min(REDIRECTS)),
        Outcome::Status(status, after) => (is_transient(status), after, policy.attempts),
        Outcome::NoAnswer(passes) => (passes, None, policy.attempts),
    };
    if !passes || attempt >= attempts || asked.is_some_and(|d| d > policy.longest_retry_after) {
        return Decision::Stop;
    }
    let doubled = policy.base.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(policy.cap);
    // full jitter would also retry at once; half keeps a floor
    let own = doubled.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
    Decision::Retry(asked.map_or(own, |asked| asked.max(own.min(policy.base))))
}

/// Reads `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3).
pub(crate) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        return value.parse().ok().map(Duration::from_secs);
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// A number from 0 to 1 that differs between callers; good enough to spread retries out.
pub(crate) fn jitter() -> f64 {
    use std::hash::{BuildHasher as _, RandomState};
    let bits = RandomState::new().hash_one(0u8) >> 32;
    f64::from(u32::try_from(bits).unwrap_or_default()) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn policy() -> Retry {
        Retry { attempts: 4, base: S(1), cap: S(3), longest_retry_after: S(60) }
    }

    #[test]
    fn what_is_tried_again_and_when() {
        use Decision::{Retry as R, Stop};
        let table = [
            (Outcome::Status(503, None), 1, R(S(1))),
            (Outcome::Status(503, None), 2, R(S(2))),
            (Outcome::Status(503, None), 3, R(S(3))),
            (Outcome::Status(503, None), 4, Stop),
            (Outcome::Status(503, Some(S(7))), 1, R(S(7))),
            (Outcome::Status(503, Some(S(0))), 3, R(S(1))),
            (Outcome::Status(503, Some(S(61))), 1, Stop),
            (Outcome::TooMany(Some(S(60)), S(0)), 99, R(S(0))),
            (Outcome::TooMany(Some(S(61)), S(0)), 1, Stop),
            (Outcome::TooMany(None, S(60)), 99, R(S(0))),
            (Outcome::TooMany(None, S(61)), 1, Stop),
            (Outcome::Elsewhere, 2, R(S(2))),
            (Outcome::Elsewhere, 3, Stop),
            (Outcome::Status(404, Some(S(1))), 1, Stop),
            (Outcome::Status(401, None), 1, Stop),
            (Outcome::Status(501, None), 1, Stop),
            (Outcome::NoAnswer(true), 1, R(S(1))),
            (Outcome::NoAnswer(true), 4, Stop),
            (Outcome::NoAnswer(false), 1, Stop),
        ];
        for (outcome, attempt, expected) in table {
            assert_eq!(decide(&policy(), outcome, attempt, 1.0), expected, "{outcome:?} {attempt}");
        }
        for status in [408, 425, 429, 500, 502, 503, 504] {
            assert_ne!(decide(&policy(), Outcome::Status(status, None), 1, 0.0), Stop, "{status}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + S(784_111_777 - 30);
        assert_eq!(retry_after(" 120 ", now), Some(S(120)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(S(30)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now + S(100)), Some(S(0)));
        for text in ["", "-1", "1.5", "soon", "99999999999999999999999"] {
            assert_eq!(retry_after(text, now), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn waits_stay_within_bounds(status in 100u16..600, attempt in 1u32..100, jitter in 0.0..1.0f64) {
            if let Decision::Retry(wait) = decide(&policy(), Outcome::Status(status, None), attempt, jitter) {
                prop_assert!(wait >= Duration::from_millis(500) && wait <= S(3));
            }
        }

        #[test]
        fn any_retry_after_is_survived(text in ".{0,60}") {
            retry_after(&text, SystemTime::UNIX_EPOCH);
        }

        #[test]
        fn a_wait_comes_back_in_both_forms(seconds in 0u64..100_000_000, now in 0u64..4_000_000_000, space in " {0,2}") {
            let now = SystemTime::UNIX_EPOCH + S(now);
            prop_assert_eq!(retry_after(&format!("{space}{seconds}{space}"), now), Some(S(seconds)));
            prop_assert_eq!(retry_after(&httpdate::fmt_http_date(now + S(seconds)), now), Some(S(seconds)));
            prop_assert_eq!(retry_after(&httpdate::fmt_http_date(now), now + S(seconds)), Some(S(0)));
        }

        #[test]
        fn the_server_s_wait_is_kept_or_given_up(asked in 0u64..200, status in 100u16..600, attempt in 1u32..10, jitter in 0.0..1.0f64) {
            match decide(&policy(), Outcome::Status(status, Some(S(asked))), attempt, jitter) {
                Decision::Retry(wait) => prop_assert!(wait >= S(asked) && wait <= S(60) && is_transient(status)),
                Decision::Stop => prop_assert!(asked > 60 || attempt >= 4 || !is_transient(status)),
            }
        }
    }
}
