//! `${VAR:-default}` as compose files write it: what it stands for when nobody sets the variable, and how to edit that.

use std::ops::Range;

/// A run of the resolved text and where it stands.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    /// Bytes of the written text.
    at: Range<usize>,
}

/// The runs that make up the resolved text, or the variable that has no default.
fn runs(text: &str, at: usize, depth: usize, out: &mut Vec<Run>) -> Result<(), String> {
    let mut rest = 0;
    while let Some(found) = text[rest..].find('$') {
        let dollar = rest + found;
        if dollar > rest {
            out.push(Run { at: at + rest..at + dollar });
        }
        let after = &text[dollar + 1..];
        let Some(body) = after.strip_prefix('{') else {
            let name: String = after.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            return Err(name);
        };
        let close = closing(body).ok_or_else(|| body.to_owned())?;
        let inside = &body[..close];
        let name_len = inside.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
        let default = inside[name_len..].strip_prefix(":-").or_else(|| inside[name_len..].strip_prefix('-'));
        let default = default.filter(|_| depth < 4).ok_or_else(|| inside[..name_len].to_owned())?;
        let start = dollar + 2 + close - default.len();
        runs(default, at + start, depth + 1, out)?;
        rest = dollar + 2 + close + 1;
    }
    if rest < text.len() {
        out.push(Run { at: at + rest..at + text.len() });
    }
    Ok(())
}

/// Where the `}` that closes stands.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    for (i, b) in text.bytes().enumerate() {
        match b {
            b'{' => depth += 1,
            b'}' if depth == 0 => return Some(i),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Whether it is one word but for what stands inside `${…}`, where a message may have spaces.
pub(crate) fn is_one_word(text: &str) -> bool {
    let mut rest = text;
    while let Some(dollar) = rest.find("${") {
        let Some(close) = closing(&rest[dollar + 2..]) else { break };
        if rest[..dollar].contains(char::is_whitespace) {
            return false;
        }
        rest = &rest[dollar + 2 + close + 1..];
    }
    !rest.contains(char::is_whitespace)
}

/// The text with every variable at its default; the name of the first variable that has none otherwise.
pub(crate) fn resolve(text: &str) -> Result<String, String> {
    let mut out = Vec::new();
    runs(text, 0, 0, &mut out)?;
    Ok(out.iter().map(|run| &text[run.at.clone()]).collect())
}

/// `text` edited so that it resolves to `new`, when the difference lies in one run.
pub(crate) fn replace(text: &str, new: &str) -> Option<String> {
    let mut out = Vec::new();
    runs(text, 0, 0, &mut out).ok()?;
    let old: String = out.iter().map(|run| &text[run.at.clone()]).collect();
    let boundary = |b: u8| matches!(b, b':' | b'/' | b'@');
    // the longest common ending that begins at a separator, or nothing
    let same = old.bytes().rev().zip(new.bytes().rev()).take_while(|(a, b)| a == b).count();
    let keep = (0..=same).rev().find(|n| *n == 0 || boundary(old.as_bytes()[old.len() - n])).unwrap_or(0);
    let mut candidates = vec![keep];
    candidates.extend((0..keep).rev().filter(|n| *n == 0 || boundary(old.as_bytes()[old.len() - n])));
    for keep in candidates {
        let end = old.len() - keep;
        let mut start = 0;
        for run in &out {
            let length = run.at.len();
            // the run must hold all of the beginning that changes
            if start == 0 && end <= length && end > 0 {
                let mut edited = text.to_owned();
                edited.replace_range(run.at.start..run.at.start + end, &new[..new.len() - keep]);
                return (resolve(&edited).as_deref() == Ok(new)).then_some(edited);
            }
            start += length;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_edited_where_they_stand() {
        for (text, resolved, new, edited) in [
            ("${IMG:-nginx:1}", "nginx:1", "r:5/nginx:1", Some("${IMG:-r:5/nginx:1}")),
            ("nginx:${TAG:-1}", "nginx:1", "r:5/library/nginx:1", Some("r:5/library/nginx:${TAG:-1}")),
            ("${REG:-docker.io}/a/b:${T:-2}", "docker.io/a/b:2", "r:5/a/b:2", Some("${REG:-r:5}/a/b:${T:-2}")),
            ("${REG-docker.io}/a/b:2", "docker.io/a/b:2", "r/x/b:2", None),
            ("${A:-${B:-a/b:1}}", "a/b:1", "r/a/b:1", Some("${A:-${B:-r/a/b:1}}")),
        ] {
            assert_eq!(resolve(text).as_deref(), Ok(resolved), "{text}");
            assert_eq!(replace(text, new).as_deref(), edited, "{text}");
        }
        for (text, one) in [
            ("${A:?need it}", true),
            ("a:${T:? x y}-b", true),
            ("${A:-b} c", false),
            ("a ${B}", false),
            ("${A b", false),
        ] {
            assert_eq!(is_one_word(text), one, "{text}");
        }
        for (text, name) in [("${X}", "X"), ("a:$TAG", "TAG"), ("a/${X:?set}", "X")] {
            assert_eq!(resolve(text), Err(name.to_owned()), "{text}");
        }
    }
}
