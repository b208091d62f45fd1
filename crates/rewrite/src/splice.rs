//! Edits as byte splices, and the scalars that hold them. Nothing here knows what an image is.

use std::ops::Range;

use crate::tree::{Kind, Node, Style, is_null};

/// Bytes of a text and what to put there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Splice {
    pub(crate) at: Range<usize>,
    pub(crate) text: String,
}

/// Applies splices that do not overlap, in any order.
pub(crate) fn apply(text: &str, splices: &mut [Splice]) -> String {
    splices.sort_by_key(|s| (s.at.start, s.at.end));
    let mut out = String::with_capacity(text.len() + splices.iter().map(|s| s.text.len()).sum::<usize>());
    let mut at = 0;
    for splice in splices {
        if splice.at.start < at {
            continue;
        }
        out.push_str(&text[at..splice.at.start]);
        out.push_str(&splice.text);
        at = splice.at.end;
    }
    out.push_str(&text[at..]);
    out
}

/// Where the bytes of a decoded scalar stand in the text.
pub(crate) enum Map<'a> {
    /// All at this distance.
    Offset { by: usize },
    /// In runs that are written as they are.
    Runs(Vec<Run>),
    /// Found by counting: the same number of equal pieces before it, decoded and written.
    Search { decoded: &'a str, raw: &'a str, by: usize },
}

/// Bytes that stand in the text as they are decoded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run {
    decoded: usize,
    raw: usize,
    len: usize,
}

impl<'a> Map<'a> {
    pub(crate) fn of(node: &'a Node, text: &'a str) -> Self {
        let raw = &text[node.span.clone()];
        let by = node.span.start;
        let Kind::Scalar { value, style, .. } = &node.kind else { return Map::Search { decoded: "", raw: "", by } };
        let quoted = raw.get(1..raw.len().max(1) - 1) == Some(value);
        let runs = match style {
            Style::Plain if raw == value => return Map::Offset { by },
            Style::Single | Style::Double if quoted => return Map::Offset { by: by + 1 },
            Style::Plain => None,
            Style::Block => by_lines(value, raw, by),
            Style::Single => single_quoted(raw, by),
            Style::Double => double_quoted(raw, by),
        };
        runs.map_or(Map::Search { decoded: value, raw, by }, Map::Runs)
    }

    /// The written bytes of a decoded range. The caller compares them, and its re-parse decides whether that was right.
    pub(crate) fn locate(&self, range: &Range<usize>) -> Option<Range<usize>> {
        match self {
            Map::Offset { by } => Some(range.start + by..range.end + by),
            Map::Runs(runs) => {
                let run = &runs[runs.partition_point(|run| run.decoded <= range.start).checked_sub(1)?];
                let fits = range.end <= run.decoded + run.len;
                fits.then(|| range.start - run.decoded + run.raw..range.end - run.decoded + run.raw)
            }
            Map::Search { decoded, raw, by } => {
                let wanted = decoded.get(range.clone())?;
                if wanted.is_empty() || count(decoded, wanted) != count(raw, wanted) {
                    return None;
                }
                let before = occurrences(decoded, wanted).position(|at| at == range.start)?;
                let at = occurrences(raw, wanted).nth(before)?;
                Some(at + by..at + by + wanted.len())
            }
        }
    }
}

/// A literal block has its lines one to one, each behind the same indentation.
fn by_lines(value: &str, raw: &str, by: usize) -> Option<Vec<Run>> {
    let mut runs = Vec::new();
    let (mut decoded, mut raw_at) = (0, by);
    let mut raw_lines = raw.split_inclusive('\n');
    for line in value.split_inclusive('\n') {
        let raw_line = raw_lines.next()?;
        let content = line.trim_end_matches('\n');
        let raw_content = raw_line.trim_end_matches('\n').trim_end_matches('\r');
        if !content.is_empty() {
            let indent = raw_content.len().checked_sub(content.len())?;
            if !raw_content.ends_with(content) || !raw_content[..indent].bytes().all(|b| b == b' ') {
                return None;
            }
            runs.push(Run { decoded, raw: raw_at + indent, len: content.len() });
        }
        decoded += line.len();
        raw_at += raw_line.len();
    }
    Some(runs)
}

/// Between single quotes only the quote itself is escaped, by doubling. One line only.
fn single_quoted(raw: &str, by: usize) -> Option<Vec<Run>> {
    let body = raw.get(1..raw.len().checked_sub(1)?)?;
    if body.contains('\n') {
        return None;
    }
    let mut runs = Vec::new();
    let (mut decoded, mut at) = (0, by + 1);
    for piece in body.split("''") {
        runs.push(Run { decoded, raw: at, len: piece.len() });
        decoded += piece.len() + 1;
        at += piece.len() + 2;
    }
    Some(runs)
}

/// Between double quotes an escape stands for one character. One line only.
fn double_quoted(raw: &str, by: usize) -> Option<Vec<Run>> {
    let body = raw.get(1..raw.len().checked_sub(1)?)?;
    if body.contains('\n') {
        return None;
    }
    let mut runs = Vec::new();
    let (mut decoded, mut at) = (0, 0);
    while let Some(found) = body[at..].find('\\') {
        runs.push(Run { decoded, raw: by + 1 + at, len: found });
        let escape = at + found + 1;
        let (digits, width) = match body.as_bytes().get(escape)? {
            b'x' => (2, None),
            b'u' => (4, None),
            b'U' => (8, None),
            b'N' | b'_' => (0, Some(2)),
            b'L' | b'P' => (0, Some(3)),
            _ => (0, Some(1)),
        };
        let code = body.get(escape + 1..escape + 1 + digits)?;
        let width = match width {
            Some(width) => width,
            None => char::from_u32(u32::from_str_radix(code, 16).ok()?)?.len_utf8(),
        };
        decoded += found + width;
        at = escape + 1 + digits;
        if !body.is_char_boundary(at) {
            return None;
        }
    }
    runs.push(Run { decoded, raw: by + 1 + at, len: body.len() - at });
    Some(runs)
}

fn occurrences<'a>(text: &'a str, wanted: &'a str) -> impl Iterator<Item = usize> + 'a {
    let mut at = 0;
    std::iter::from_fn(move || {
        let found = at + text.get(at..)?.find(wanted)?;
        at = found + wanted.chars().next().map_or(1, char::len_utf8);
        Some(found)
    })
}

fn count(text: &str, wanted: &str) -> usize {
    occurrences(text, wanted).count()
}

/// `value` as a scalar in `style`. A plain one is quoted where it would otherwise be read as something else; `was` is the
/// plain value before, which may have been a number already.
pub(crate) fn encode(value: &str, style: Style, was: Option<&str>) -> String {
    match style {
        Style::Single => format!("'{}'", value.replace('\'', "''")),
        Style::Double | Style::Block => format!("\"{}\"", escape_double(value)),
        Style::Plain
            if may_stay_plain(value, was) && (!is_typed(value) || (is_integer(value) && was.is_some_and(is_typed))) =>
        {
            value.to_owned()
        }
        Style::Plain => format!("\"{}\"", escape_double(value)),
    }
}

/// Digits that read back as they are written. `1.10` would not: as a number it is 1.1.
fn is_integer(value: &str) -> bool {
    value.len() < 16 && value.bytes().all(|b| b.is_ascii_digit()) && (value == "0" || !value.starts_with('0'))
}

/// What was plain before (`${TAG:-1}`) may be so again with the same characters.
fn may_stay_plain(value: &str, was: Option<&str>) -> bool {
    let Some(was) = was else { return is_plain(value) };
    let beginning = value.get(..1).is_some_and(|first| is_plain(first) || was.starts_with(first));
    beginning && value.bytes().all(|b| is_plain_byte(b) || was.as_bytes().contains(&b)) && !value.ends_with(':')
}

/// The text inside double quotes; valid in YAML and in JSON.
pub(crate) fn escape_double(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out
}

/// Whether `value` can stand without quotes, in block and in flow context.
pub(crate) fn is_plain(value: &str) -> bool {
    let first = value.chars().next();
    first.is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '/' | '.'))
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/' | b':' | b'@' | b'+'))
        && !value.ends_with(':')
}

fn is_plain_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/' | b':' | b'@' | b'+')
}

/// Whether a plain scalar would be read as something other than a string, by YAML 1.1 or 1.2.
pub(crate) fn is_typed(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    if is_null(value) || matches!(lower.as_str(), "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n") {
        return true;
    }
    let number = lower.trim_start_matches(['+', '-']).replace('_', "");
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    number.parse::<f64>().is_ok()
        || matches!(number.as_str(), ".inf" | ".nan")
        || number.strip_prefix("0x").is_some_and(|t| t.bytes().all(|b| b.is_ascii_hexdigit()))
        || number.strip_prefix("0o").or_else(|| number.strip_prefix("0b")).is_some_and(digits)
        || is_sexagesimal(&number)
        || is_date(value)
}

/// `12:30`, `1:30:00.5`: numbers to the base of 60 in YAML 1.1.
fn is_sexagesimal(number: &str) -> bool {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut groups = whole.split(':');
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let first = groups.next().is_some_and(digits);
    let rest: Vec<&str> = groups.collect();
    let below_sixty = |group: &&str| {
        digits(group) && group.len() <= 2 && group.as_bytes()[0] <= if group.len() == 2 { b'5' } else { b'9' }
    };
    first && !rest.is_empty() && rest.iter().all(below_sixty) && fraction.bytes().all(|b| b.is_ascii_digit())
}

fn is_date(value: &str) -> bool {
    let mut pieces = value.splitn(3, '-');
    let digits = |text: Option<&str>, least: usize, most: usize| {
        text.is_some_and(|t| (least..=most).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_digit()))
    };
    digits(pieces.next(), 4, 4)
        && digits(pieces.next(), 1, 2)
        && pieces.next().is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_stay_strings() {
        for (value, was, written) in [
            ("3.2.1", None, "3.2.1"),
            ("v1", None, "v1"),
            ("10.4", None, "\"10.4\""),
            ("8", Some("7"), "8"),
            ("8", Some("v7"), "\"8\""),
            ("1.10", Some("1.9"), "\"1.10\""),
            ("08", Some("7"), "\"08\""),
            ("1e3", None, "\"1e3\""),
            ("0x1f", None, "\"0x1f\""),
            ("2024-01-02", None, "\"2024-01-02\""),
            ("2024-x", None, "2024-x"),
            ("true", None, "\"true\""),
            ("null", None, "\"null\""),
            ("12:30", None, "\"12:30\""),
            ("190:20:30.15", None, "\"190:20:30.15\""),
            ("127.0.0.1:5000", None, "127.0.0.1:5000"),
            ("12:99", None, "12:99"),
            ("10.0.0.1:5000/a", None, "10.0.0.1:5000/a"),
            ("[::1]:5000/a", None, "\"[::1]:5000/a\""),
        ] {
            assert_eq!(encode(value, Style::Plain, was), written);
        }
        assert_eq!(encode("1.5", Style::Single, None), "'1.5'");
        assert_eq!(encode("1.5", Style::Double, None), "\"1.5\"");
    }

    #[test]
    fn splices_leave_the_rest() {
        let mut splices = [
            Splice { at: 4..5, text: "B".to_owned() },
            Splice { at: 0..1, text: "long".to_owned() },
            Splice { at: 5..5, text: "+".to_owned() },
        ];
        assert_eq!(apply("a = b\r\n", &mut splices), "long = B+\r\n");
    }
}
