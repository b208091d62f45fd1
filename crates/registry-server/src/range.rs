//! `Range` of downloads (RFC 9110, section 14) and `Content-Range` of chunks (distribution-spec, "Pushing a blob in chunks"). Pure.

use std::ops::Range;

/// More ranges in one request are not answered as ranges; the clients that ask for many (of a zstd:chunked layer) stop at this number too.
const MAX_PARTS: usize = 1024;

/// What a `Range` header asks of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// No range, or what may be ignored: other units, nonsense, ranges that together are more than the blob.
    Whole,
    /// One range.
    Part(Range<u64>),
    /// Several, in the order asked for.
    Parts(Vec<Range<u64>>),
    /// Nothing but ranges outside the blob.
    Unsatisfiable,
}

/// Reads a `Range` header for a blob of `size` bytes.
pub(crate) fn wanted(header: Option<&str>, size: u64) -> Wanted {
    let Some(specs) = header.and_then(|h| h.trim().strip_prefix("bytes=")) else { return Wanted::Whole };
    let specs: Vec<&str> = specs.split(',').map(str::trim).filter(|spec| !spec.is_empty()).collect();
    let ranges: Option<Vec<Range<u64>>> = specs.iter().map(|spec| part(spec, size)).collect();
    let Some(mut ranges) = ranges.filter(|ranges| !ranges.is_empty()) else { return Wanted::Whole };
    ranges.retain(|range| range.start < range.end);
    let total = ranges.iter().fold(0u64, |total, range| total.saturating_add(range.end - range.start));
    match ranges.as_slice() {
        [] => Wanted::Unsatisfiable,
        [one] => Wanted::Part(one.clone()),
        many if many.len() > MAX_PARTS || total > size => Wanted::Whole,
        _ => Wanted::Parts(ranges),
    }
}

/// One range, empty when it is outside the blob; `None` when it is none.
fn part(spec: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = spec.split_once('-')?;
    match (number(first), number(last), first.is_empty(), last.is_empty()) {
        (Some(first), Some(last), ..) if first > last => None,
        (Some(first), Some(last), ..) => Some(first..last.saturating_add(1).min(size)),
        (Some(first), None, _, true) => Some(first..size),
        (None, Some(suffix), true, _) => Some(size.saturating_sub(suffix)..size),
        _ => None,
    }
}

/// Reads the `Content-Range` of a chunk: `0-1023`, and the form of RFC 9110 `bytes 0-1023/4096`. Both ends are included; the result's end
/// is not. `None` when it is neither.
pub(crate) fn chunk(header: &str) -> Option<Range<u64>> {
    let text = header.trim();
    let text = text.strip_prefix("bytes").map_or(text, |rest| rest.trim_start_matches([' ', '=']));
    let text = text.split('/').next().unwrap_or(text);
    let (first, last) = text.split_once('-')?;
    let range = number(first)?..number(last)?.checked_add(1)?;
    (range.start < range.end).then_some(range)
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_of_downloads() {
        for (header, expected) in [
            ("bytes=0-0", Wanted::Part(0..1)),
            ("bytes=5-", Wanted::Part(5..10)),
            ("bytes=5-99", Wanted::Part(5..10)),
            ("bytes=-3", Wanted::Part(7..10)),
            ("bytes=-99", Wanted::Part(0..10)),
            ("bytes=0-99999999999999999999999", Wanted::Part(0..10)),
            ("bytes=10-", Wanted::Unsatisfiable),
            ("bytes=10-12", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=3-2", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Parts(vec![0..2, 3..5])),
            ("bytes= 8-, ,-1,0-0 ", Wanted::Parts(vec![8..10, 9..10, 0..1])),
            ("bytes=0-0,90-99", Wanted::Part(0..1)),
            ("bytes=90-99,10-", Wanted::Unsatisfiable),
            ("bytes=0-5,2-9", Wanted::Whole), // more than there is
            ("bytes=0-1,x", Wanted::Whole),
            ("bytes=0-1,5-3", Wanted::Whole),
            ("bytes=,", Wanted::Whole),
            ("bytes=", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("lines=0-1", Wanted::Whole),
        ] {
            assert_eq!(wanted(Some(header), 10), expected, "{header}");
        }
        assert_eq!(wanted(None, 10), Wanted::Whole);
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::Unsatisfiable);
    }

    #[test]
    fn ranges_of_chunks() {
        for (header, expected) in [
            ("0-1023", Some(0..1024)),
            ("bytes 5-9/10", Some(5..10)),
            ("bytes=5-9", Some(5..10)),
            ("9-5", None),
            ("x", None),
            ("-5", None),
            ("5-", None),
            ("0-18446744073709551615", None),
        ] {
            assert_eq!(chunk(header), expected, "{header}");
        }
    }

    proptest! {
        #[test]
        fn a_range_is_the_bytes_that_it_names(size in 0u64..12, first in prop::option::of(0u64..14), last in prop::option::of(0u64..14)) {
            let text = |number: Option<u64>| number.map(|n| n.to_string()).unwrap_or_default();
            let header = format!("bytes={}-{}", text(first), text(last));
            let named = |at: u64| match (first, last) {
                (Some(first), last) => at >= first && last.is_none_or(|last| at <= last),
                (None, suffix) => suffix.is_some_and(|n| at + n >= size),
            };
            let bytes: Vec<u64> = (0..size).filter(|at| named(*at)).collect();
            let ignored = matches!((first, last), (None, None)) || matches!((first, last), (Some(a), Some(b)) if a > b);
            match wanted(Some(&header), size) {
                Wanted::Whole => prop_assert!(ignored, "{}", header),
                Wanted::Part(part) => prop_assert_eq!(part.collect::<Vec<_>>(), bytes, "{}", header),
                Wanted::Parts(parts) => prop_assert!(false, "{header}: {parts:?}"),
                Wanted::Unsatisfiable => prop_assert!(bytes.is_empty() && !ignored, "{}", header),
            }
        }

        #[test]
        fn several_ranges_are_what_each_is_alone(size in 1u64..200, asked in prop::collection::vec((0u64..220, 0u64..20), 2..6)) {
            let header = |ranges: &[(u64, u64)]| {
                let ranges: Vec<String> = ranges.iter().map(|(first, length)| format!("{first}-{}", first + length)).collect();
                format!("bytes={}", ranges.join(","))
            };
            let alone: Vec<Range<u64>> = asked.iter().filter_map(|one| match wanted(Some(&header(&[*one])), size) {
                Wanted::Part(part) => Some(part),
                _ => None,
            }).collect();
            let total: u64 = alone.iter().map(|part| part.end - part.start).sum();
            let expected = match alone.len() {
                0 => Wanted::Unsatisfiable,
                1 => Wanted::Part(alone[0].clone()),
                _ if total > size => Wanted::Whole,
                _ => Wanted::Parts(alone),
            };
            prop_assert_eq!(wanted(Some(&header(&asked)), size), expected);
        }

        #[test]
        fn a_chunk_comes_back(start in 0..u64::MAX / 2, length in 1..u64::MAX / 2, form in 0..3) {
            let last = start + length - 1;
            let header = match form {
                0 => format!("{start}-{last}"),
                1 => format!("bytes {start}-{last}/*"),
                _ => format!("bytes={start}-{last}"),
            };
            prop_assert_eq!(chunk(&header), Some(start..start + length));
        }

        #[test]
        fn any_text_is_survived(text in ".{0,60}", size: u64) {
            wanted(Some(&text), size);
            chunk(&text);
        }
    }
}
