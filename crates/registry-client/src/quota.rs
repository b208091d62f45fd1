//! How much a registry still answers: `ratelimit-limit: 100;w=21600` and `ratelimit-remaining: 76;w=21600`, as Docker Hub writes
//! it, and the draft of the IETF that it follows (`RateLimit` header fields for HTTP). Pure.
//!
//! Docker Hub counts a GET of a manifest, but not a HEAD.

use std::fmt;
use std::time::{Duration, SystemTime};

use http::HeaderMap;

use crate::hint::duration;

/// What a registry says of how much it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Requests in a window.
    pub limit: u64,
    /// What is left of them.
    pub remaining: u64,
    /// The length of the window.
    pub window: Option<Duration>,
    /// The time until the count starts anew.
    pub reset: Option<Duration>,
}

impl Quota {
    /// The longest time until there is more; none where nobody says.
    #[must_use]
    pub fn renewed_within(&self) -> Option<Duration> {
        self.reset.or(self.window)
    }

    /// The same for people: `at the latest in 6 h`.
    #[must_use]
    pub fn renewal(&self) -> Option<String> {
        self.renewed_within().map(|time| format!("at the latest in {}", duration(time)))
    }
}

impl fmt::Display for Quota {
    /// `12 more requests (of 100 in 6 h)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} more requests (of {}", self.remaining, self.limit)?;
        match self.window {
            Some(window) => write!(f, " in {})", duration(window)),
            None => f.write_str(")"),
        }
    }
}

/// Reads what an answer says; `now` is the time at the server.
pub(crate) fn read(headers: &HeaderMap, now: SystemTime) -> Option<Quota> {
    let field = |name: &str| headers.get(name)?.to_str().ok();
    let (limit, of_limit) = item(field("ratelimit-limit")?)?;
    let (remaining, of_remaining) = item(field("ratelimit-remaining")?)?;
    let reset = field("ratelimit-reset").and_then(item).map(|(reset, _)| until(reset, now));
    Some(Quota { limit, remaining, window: of_remaining.or(of_limit), reset })
}

/// `100;w=21600`: the number, and the window. Of several, the first.
fn item(value: &str) -> Option<(u64, Option<Duration>)> {
    let first = value.split(',').next()?;
    let mut parts = first.split(';').map(str::trim);
    let number = digits(parts.next()?)?;
    let named = |part: &str| digits(part.strip_prefix("w=").or_else(|| part.strip_prefix("W="))?);
    // the number alone may stand first, what it means behind it: `100, 100;w=60`
    let window = parts.find_map(named).or_else(|| value.split([',', ';']).find_map(|part| named(part.trim())));
    Some((number, window.filter(|seconds| *seconds > 0).map(Duration::from_secs)))
}

fn digits(text: &str) -> Option<u64> {
    // `parse` would take a leading plus sign
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Some count seconds from now, some from 1970.
fn until(reset: u64, now: SystemTime) -> Duration {
    let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    Duration::from_secs(if reset > 1_000_000_000 { reset.saturating_sub(since_epoch) } else { reset })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn quota(limit: &str, remaining: &str, reset: Option<&str>) -> Option<Quota> {
        let mut headers = HeaderMap::new();
        let fields =
            [("RateLimit-Limit", Some(limit)), ("ratelimit-remaining", Some(remaining)), ("ratelimit-reset", reset)];
        for (name, value) in fields {
            if let Some(Ok(value)) = value.map(HeaderValue::from_str) {
                headers.insert(http::HeaderName::try_from(name).unwrap(), value);
            }
        }
        read(&headers, SystemTime::UNIX_EPOCH + S(1_700_000_000))
    }

    #[test]
    fn quotas_as_registries_write_them() {
        let of = |limit, remaining, window: Option<u64>, reset: Option<u64>| {
            Some(Quota { limit, remaining, window: window.map(S), reset: reset.map(S) })
        };
        let table = [
            ("100;w=21600", "76;w=21600", None, of(100, 76, Some(21600), None)),
            ("100 ; W=60", "0", None, of(100, 0, Some(60), None)),
            ("100, 100;w=60;burst=10, 5000;w=3600", "3", Some("40"), of(100, 3, Some(60), Some(40))),
            ("600", "599", Some("1700000030"), of(600, 599, None, Some(30))),
            ("600;w=0", "599", None, of(600, 599, None, None)),
            ("", "1", None, None),
            ("ten", "1", None, None),
            ("+1", "1", None, None),
            ("1", "99999999999999999999999", None, None),
        ];
        for (limit, remaining, reset, expected) in table {
            assert_eq!(quota(limit, remaining, reset), expected, "{limit} {remaining} {reset:?}");
        }
        assert_eq!(read(&HeaderMap::new(), SystemTime::now()), None);
    }

    #[test]
    fn a_quota_for_people() {
        assert_eq!(quota("100;w=21600", "12;w=21600", None).unwrap().to_string(), "12 more requests (of 100 in 6 h)");
        assert_eq!(quota("100", "12", None).unwrap().to_string(), "12 more requests (of 100)");
    }

    proptest! {
        #[test]
        fn any_text_is_survived(limit in "[ -~]{0,40}", remaining in "[0-9;w=, ]{0,40}", reset in "[0-9]{0,30}") {
            quota(&limit, &remaining, Some(&reset));
        }
    }
}
