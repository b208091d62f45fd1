//! Variables of compose files, from the `.env` beside them.

use std::collections::HashMap;
use std::path::Path;

use ferry_content::texts;
use ferry_image::Reference;
use ferry_rewrite::{Confidence, Finding, Shape};

/// Values by name, each with its line.
type Variables = HashMap<String, (String, usize)>;

/// Fills variables in where `.env` in `folder` sets them. `text` must be a compose file: it has `services:` at its top.
pub(super) fn fill(findings: &mut [Finding], text: &str, folder: &Path) {
    if !text.lines().any(|line| line.starts_with("services:")) {
        return;
    }
    let path = folder.join(".env");
    let Ok(env) = texts::read(&path) else { return };
    let variables = read(&env);
    for finding in findings.iter_mut().filter(|f| f.shape == Shape::Variable) {
        let mut used = Vec::new();
        let Some(value) = expand(&finding.value, &variables, &mut used, 0) else { continue };
        let Some(reference) = value.parse::<Reference>().ok().filter(|_| !used.is_empty()) else { continue };
        let places: Vec<String> =
            used.iter().map(|(name, line)| format!("`{name}` from {}:{line}", path.display())).collect();
        finding.reference = Some(reference);
        finding.confidence = Confidence::Computed;
        finding.reason = Some(places.join(", "));
    }
}

/// `NAME=VALUE` lines, as compose reads them: comments, `export`, quotes.
fn read(text: &str) -> Variables {
    let mut out = Variables::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim().strip_prefix("export ").unwrap_or(line.trim());
        let Some((name, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) else { continue };
        let value = value.trim();
        let value = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => value[1..].split(quote).next().unwrap_or_default(),
            _ => value.split(" #").next().unwrap_or_default().trim_end(),
        };
        out.insert(name.trim().to_owned(), (value.to_owned(), i + 1));
    }
    out
}

/// `text` with its variables filled in; none when one is neither set nor has a default. Names the variables that were set.
fn expand(text: &str, variables: &Variables, used: &mut Vec<(String, usize)>, depth: usize) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let braced = after.strip_prefix('{');
        let body = braced.unwrap_or(after);
        let length = body.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
        let name = &body[..length];
        let (operator, next) = match braced {
            None => ("", &body[length..]),
            Some(body) => {
                let close = closing(body)?;
                (&body[length..close], &body[close + 1..])
            }
        };
        let set = variables.get(name).filter(|(value, _)| !(value.is_empty() && operator.starts_with(':')));
        match (set, operator.strip_prefix(":-").or_else(|| operator.strip_prefix('-'))) {
            (Some((value, line)), _) => {
                used.push((name.to_owned(), *line));
                out.push_str(value);
            }
            (None, Some(default)) if depth < 4 => out.push_str(&expand(default, variables, used, depth + 1)?),
            (None, _) => return None,
        }
        rest = next;
    }
    out.push_str(rest);
    Some(out)
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_come_from_env_and_then_from_defaults() {
        let variables = read("# x\nexport REG=r.io\nTAG='1.5' # why\nEMPTY=\nN=2 # two\n");
        for (text, wanted) in [
            ("${REG}/a:${TAG}", Some("r.io/a:1.5")),
            ("$REG/a:$N", Some("r.io/a:2")),
            ("a:${MISSING:-${TAG}}", Some("a:1.5")),
            ("a:${EMPTY:-3}", Some("a:3")),
            ("a:${EMPTY-3}", Some("a:")),
            ("a:${TAG:?must}", Some("a:1.5")),
            ("a:${MISSING}", None),
            ("a:${MISSING:?must}", None),
            ("a:${TAG", None),
        ] {
            assert_eq!(expand(text, &variables, &mut Vec::new(), 0).as_deref(), wanted, "{text}");
        }
    }
}
