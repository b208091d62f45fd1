//! What somebody may have meant who named something that is not there. Pure.

use std::cmp::Reverse;

/// The most that is suggested.
const MOST: usize = 3;

/// Those of `there` that `wanted` is most likely a slip for: plain versions first, the newest of them first.
pub(crate) fn near<'a>(wanted: &str, there: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let slips: Vec<(usize, &str)> = there.into_iter().filter_map(|name| Some((slip(wanted, name)?, name))).collect();
    let least = slips.iter().map(|(slip, _)| *slip).min();
    let mut near: Vec<&str> = slips.iter().filter(|(slip, _)| Some(*slip) == least).map(|(_, name)| *name).collect();
    near.sort_by_key(|name| (name.contains(char::is_alphabetic), Reverse(parts(name))));
    near.dedup();
    near.truncate(MOST);
    near
}

/// How far `name` is from `wanted`, where it is near at all: another way to write it, an end that was left out, wrong letters.
#[must_use]
pub fn slip(wanted: &str, name: &str) -> Option<usize> {
    let (wanted, name) = (wanted.to_lowercase(), name.to_lowercase());
    match bare(&name).strip_prefix(bare(&wanted)) {
        Some("") => return Some(0),
        Some(rest) if rest.starts_with(['.', '-', '_']) => return Some(1),
        _ => {}
    }
    let most = match wanted.chars().count() {
        0..=2 => 0,
        3..=5 => 1,
        6..=12 => 2,
        _ => 3,
    };
    Some(distance(&wanted, &name, most)).filter(|distance| *distance <= most)
}

/// A version without the `v` that some write before it.
fn bare(text: &str) -> &str {
    text.strip_prefix('v').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit())).unwrap_or(text)
}

/// Letters left out, added, exchanged or swapped with their neighbour (optimal string alignment). What is further than `most` is not
/// counted to its end.
fn distance(a: &str, b: &str, most: usize) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > most {
        return most + 1;
    }
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// A name as versions are ordered: numbers by their value, the others as text.
fn parts(name: &str) -> Vec<(u64, &str)> {
    name.split(['.', '-', '_']).map(|part| (part.trim_start_matches('v').parse().unwrap_or(0), part)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant() {
        let versions = ["1.26.9", "1.27.1", "1.27.2", "1.27.3", "1.27.10", "1.27.3-alpine", "latest", "stable"];
        let table: [(&str, &[&str]); 10] = [
            ("1.27.33", &["1.27.3"]),
            ("1.27", &["1.27.10", "1.27.3", "1.27.2"]),
            ("v1.27.3", &["1.27.3"]),
            ("1.27.3-apline", &["1.27.3-alpine"]),
            ("lates", &["latest"]),
            ("Latest", &["latest"]),
            ("stabel", &["stable"]),
            ("1.27.9", &["1.27.3", "1.27.2", "1.27.1"]),
            ("20240101", &[]),
            ("a", &[]),
        ];
        for (wanted, expected) in table {
            assert_eq!(near(wanted, versions), expected, "{wanted}");
        }
        assert_eq!(near("linux/amd46", ["linux/arm64", "linux/amd64", "linux/386"]), ["linux/amd64"]);
    }

    #[test]
    fn letters_are_counted_once_each() {
        for (a, b, expected) in
            [("", "", 0), ("abc", "abc", 0), ("abc", "acb", 1), ("abc", "ab", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!((distance(a, b, 9), distance(b, a, 9)), (expected, expected), "{a} {b}");
        }
        assert_eq!(distance("abcdef", "a", 2), 3, "not counted to its end");
    }
}
