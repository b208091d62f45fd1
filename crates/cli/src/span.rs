//! Spans of time as people write them.

use std::time::Duration;

/// `90s`, `30m`, `2h`, `1d`; a number alone is seconds.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let fail = || format!("`{text}` is no span of time; write 90s, 30m, 2h or 1d");
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let number: u64 = number.parse().map_err(|_| fail())?;
    let seconds = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(fail()),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_as_they_are_written() {
        for (text, seconds) in
            [("0", 0), ("0s", 0), ("90", 90), ("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86400)]
        {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "h", "1h30m", "-1h", "1.5h", "1H", "1 h", "99999999999999999d"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
