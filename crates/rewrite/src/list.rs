//! Plain lists of images: one reference a line, `#` comments, blank lines, `##` headings.

use ferry_image::Reference;

use crate::finding::{Confidence, Finding, Found, Inner, Part, Refused, Role, Shape};
use crate::tree::MAX_TEXT;

/// Whether a file of this name is a plain list rather than YAML or JSON.
#[must_use]
pub fn is_list(file_name: &str) -> bool {
    file_name
        .rsplit_once('.')
        .is_some_and(|(_, end)| ["txt", "list", "lst"].iter().any(|e| end.eq_ignore_ascii_case(e)))
}

/// Finds the references of a plain list. A line that is none is refused.
#[must_use]
pub fn find_list(text: &str) -> Found {
    let mut found = Found::default();
    if text.len() > MAX_TEXT {
        let reason = format!("the text has {} bytes, the limit is {MAX_TEXT}", text.len());
        found.refused.push(Refused { line: 1, reason });
        return found;
    }
    let mut at = 0;
    for (i, line) in text.split_inclusive('\n').enumerate() {
        let start = at;
        at += line.len();
        let content = line.strip_prefix('\u{feff}').unwrap_or(line);
        let value = without_comment(content).trim();
        if value.is_empty() {
            continue;
        }
        let value = value.strip_prefix("- ").unwrap_or(value).trim();
        let value = value.trim_matches(['"', '\'']);
        let from = start + (value.as_ptr() as usize - line.as_ptr() as usize);
        match value.parse::<Reference>() {
            Err(error) => found.refused.push(Refused { line: i + 1, reason: error.to_string() }),
            Ok(reference) => {
                let path = format!("line {}", i + 1);
                let part = Part {
                    role: Role::Whole,
                    node: 0,
                    site: 0,
                    path: path.clone(),
                    range: Some(from..from + value.len()),
                    inner: Inner::Literal,
                    current: value.to_owned(),
                    elsewhere: None,
                };
                found.findings.push(Finding {
                    line: i + 1,
                    path,
                    value: value.to_owned(),
                    reference: Some(reference),
                    shape: Shape::List,
                    confidence: Confidence::Certain,
                    reason: None,
                    parts: vec![part],
                    document: 0,
                    site: 0,
                });
            }
        }
    }
    found
}

/// The line up to a `#` that begins it or follows white space.
#[must_use]
pub fn without_comment(line: &str) -> &str {
    let comment =
        line.match_indices('#').find(|(at, _)| line[..*at].chars().next_back().is_none_or(char::is_whitespace));
    comment.map_or(line, |(at, _)| &line[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_follows_white_space() {
        for (line, rest) in
            [("a\t# b # c", "a\t"), ("a #b\t#c", "a "), ("a\u{3000}#", "a\u{3000}"), ("a#b", "a#b"), ("#", "")]
        {
            assert_eq!(without_comment(line), rest, "{line:?}");
        }
    }
}
