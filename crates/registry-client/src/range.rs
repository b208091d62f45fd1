//! `Range` and `Content-Range`, of downloads (RFC 9110, sections 14.2 and 14.4) and of uploads (distribution-spec, "Pushing a blob in
//! chunks"). Pure.

use std::ops::Range;

/// What a 206 says that it carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContentRange {
    /// The bytes, end exclusive.
    pub(crate) bytes: Range<u64>,
    /// The size of the whole, when stated.
    pub(crate) total: Option<u64>,
}

/// `bytes=a-b` for a range that is not empty.
pub(crate) fn range_header(range: &Range<u64>) -> String {
    format!("bytes={}-{}", range.start, range.end.saturating_sub(1))
}

/// Reads `bytes a-b/total` or `bytes a-b/*`.
pub(crate) fn content_range(value: &str) -> Option<ContentRange> {
    let (unit, rest) = value.trim().split_once(' ')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (bytes, total) = rest.split_once('/')?;
    let (first, last) = bytes.trim().split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    let total = match total.trim() {
        "*" => None,
        text => Some(number(text)?),
    };
    let end = last.checked_add(1)?;
    (first < end && total.is_none_or(|t| end <= t)).then_some(ContentRange { bytes: first..end, total })
}

/// Reads `bytes */total`, as it stands beside a 416.
pub(crate) fn unsatisfied(value: &str) -> Option<u64> {
    let (unit, rest) = value.trim().split_once(' ')?;
    unit.eq_ignore_ascii_case("bytes").then(|| rest.trim().strip_prefix("*/").and_then(number))?
}

/// The `Content-Range` of a chunk that is not empty: `a-b`, both ends included.
pub(crate) fn chunk_range(range: &Range<u64>) -> String {
    format!("{}-{}", range.start, range.end.saturating_sub(1))
}

/// How many bytes of an upload a registry has, as its `Range` says it: `0-<last byte>`, with a unit before it by some. A `0-0` is 1,
/// although most registries mean none by it.
pub(crate) fn uploaded(value: &str) -> Option<u64> {
    let value = value.trim();
    let range = match value.get(..5) {
        Some(unit) if unit.eq_ignore_ascii_case("bytes") => value[5..].trim_start_matches(['=', ' ']),
        _ => value,
    };
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    if first <= last { last.checked_add(1) } else { None }
}

fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    // `parse` would take a leading plus sign
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_a_content_range_is_refused() {
        for text in [
            "",
            "bytes",
            "bytes 1-2",
            "bytes 2-1/5",
            "bytes 0-5/5",
            "bytes */5",
            "items 0-1/2",
            "bytes +0-1/2",
            "bytes -1/2",
        ] {
            assert_eq!(content_range(text), None, "{text}");
        }
        assert_eq!(content_range("Bytes 0-0/*"), Some(ContentRange { bytes: 0..1, total: None }));
        assert_eq!(content_range("bytes 0-18446744073709551615/*"), None);
        for (text, expected) in [
            ("bytes */5", Some(5)),
            ("Bytes  */ 5", Some(5)),
            ("bytes 0-1/5", None),
            ("bytes */*", None),
            ("*/5", None),
        ] {
            assert_eq!(unsatisfied(text), expected, "{text}");
        }
    }

    #[test]
    fn what_registries_say_of_an_upload() {
        for (text, expected) in [
            ("0-0", Some(1)),
            ("0-1023", Some(1024)),
            ("bytes=0-1023", Some(1024)),
            ("Bytes 0-9", Some(10)),
            (" 5-9 ", Some(10)),
            ("9-5", None),
            ("0--1", None),
            ("0-", None),
            ("-5", None),
            ("bytes=", None),
            ("", None),
            ("0-18446744073709551615", None),
        ] {
            assert_eq!(uploaded(text), expected, "{text}");
        }
        assert_eq!(chunk_range(&(10..20)), "10-19");
    }

    proptest! {
        #[test]
        fn an_uploaded_range_comes_back(size in 1..u64::MAX) {
            prop_assert_eq!(uploaded(&chunk_range(&(0..size))), Some(size));
        }

        #[test]
        fn a_content_range_comes_back(start in 0..u64::MAX / 4, length in 1..u64::MAX / 4, more in 0..u64::MAX / 4) {
            let range = start..start + length;
            let total = range.end + more;
            let sent = range_header(&range).replace("bytes=", "bytes ");
            prop_assert_eq!(
                content_range(&format!("{sent}/{total}")),
                Some(ContentRange { bytes: range, total: Some(total) })
            );
        }

        #[test]
        fn any_text_is_survived(text in ".{0,60}") {
            content_range(&text);
            unsatisfied(&text);
            uploaded(&text);
        }

        #[test]
        fn only_what_the_grammar_allows_is_a_content_range(
            unit in "bytes|Bytes|items", first in "[0-9]{1,3}|\\+1||-1", dash in "-|--| ", last in "[0-9]{1,3}|\\*|", total in "[0-9]{1,3}|\\*|",
        ) {
            let text = format!("{unit} {first}{dash}{last}/{total}");
            let number = |text: &str| text.parse::<u64>().ok().filter(|_| !text.starts_with('+'));
            let whole = if total == "*" { Some(None) } else { number(&total).map(Some) };
            let expected = match (number(&first), number(&last), whole) {
                (Some(a), Some(b), Some(total)) if a <= b && total.is_none_or(|t| b < t) && dash == "-" && unit != "items" => {
                    Some(ContentRange { bytes: a..b + 1, total })
                }
                _ => None,
            };
            prop_assert_eq!(content_range(&text), expected, "{}", text);
        }
    }
}
