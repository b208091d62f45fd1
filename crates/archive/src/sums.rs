//! `SHA256SUMS`: the list that `sha256sum -c` reads (`docs/format.md`, "The sums").

use ferry_image::Digest;

/// The largest list that is read, in bytes.
pub const MAX_SUMS: u64 = 64 << 20;

/// Adds the line of one member.
pub fn push(text: &mut String, name: &str, digest: &Digest) {
    text.push_str(digest.hex());
    text.push_str("  ");
    text.push_str(name);
    text.push('\n');
}

/// Reads a list strictly: what [`push`] would write, and nothing else.
///
/// # Errors
/// The number of the first line that is otherwise.
pub fn parse(text: &str) -> Result<Vec<(String, Digest)>, String> {
    let mut sums = Vec::new();
    for (i, line) in text.split_inclusive('\n').enumerate() {
        let parsed = line
            .strip_suffix('\n')
            .and_then(|line| line.split_once("  "))
            .and_then(|(hex, name)| Some((name.to_owned(), Digest::sha256(hex).ok()?)));
        sums.push(parsed.ok_or_else(|| format!("line {} is not `<sha256>  <name>`", i + 1))?);
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut text = String::new();
        push(&mut text, "files/a  b", &Digest::of(b"a"));
        push(&mut text, "ferry.json", &Digest::of(b"b"));
        let sums = parse(&text).expect("sums");
        assert_eq!(sums[0], ("files/a  b".to_owned(), Digest::of(b"a")));
        assert_eq!(sums.len(), 2);
        for bad in [text.trim_end(), &text.replace("  f", " *f"), &text.to_uppercase(), "\n"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
