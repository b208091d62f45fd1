//! Members of the tar: their names and their headers (POSIX ustar), byte for byte (`docs/format.md`, "Members").

use std::collections::BTreeSet;

/// Headers and padding come in blocks of this many bytes.
pub const BLOCK: u64 = 512;
/// The archive ends with this many zero bytes.
pub const END: u64 = 2 * BLOCK;
/// Sizes from here on do not fit eleven octal digits and are written in base 256.
const OCTAL_LIMIT: u64 = 1 << 33;

/// The sums of everything else.
pub const SUMS: &str = "SHA256SUMS";
/// The signature of the sums.
pub const SIGNATURE: &str = "SHA256SUMS.minisig";
/// The head.
pub const HEAD: &str = "ferry.json";
/// The marker of an OCI layout.
pub const OCI_LAYOUT: &str = "oci-layout";
/// The index of the OCI layout.
pub const INDEX: &str = "index.json";
/// The list that `docker load` reads.
pub const MANIFEST: &str = "manifest.json";
/// The installer, if it travels along.
pub const BIN: &str = "bin/ferry";

/// A tar header, ready to be written.
pub type Header = [u8; BLOCK as usize];

/// Zero bytes after `size` bytes of content.
#[must_use]
pub fn padding(size: u64) -> u64 {
    (BLOCK - size % BLOCK) % BLOCK
}

/// Bytes that a member of `size` bytes takes: header, content, padding.
#[must_use]
pub fn span(size: u64) -> u64 {
    BLOCK + size + padding(size)
}

/// The header of a regular file of `size` bytes. `None` when the name does not fit (see [`check_name`]).
#[must_use]
pub fn header(name: &str, size: u64) -> Option<Header> {
    let (prefix, rest) = split(name)?;
    let mut block = [0; BLOCK as usize];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, rest.as_bytes());
    put(100, if name == BIN { b"0000755\0" } else { b"0000644\0" });
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    if size < OCTAL_LIMIT {
        put(124, format!("{size:011o}\0").as_bytes());
    } else {
        put(124, &[0x80, 0, 0, 0]);
        put(128, &size.to_be_bytes());
    }
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    put(329, b"0000000\0");
    put(337, b"0000000\0");
    put(345, prefix.as_bytes());
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Some(block)
}

/// Splits a name into ustar's prefix and name: whole where it fits 100 bytes, else at the first `/` that leaves 100 or fewer.
fn split(name: &str) -> Option<(&str, &str)> {
    if name.len() <= 100 {
        return Some(("", name));
    }
    let (prefix, rest) =
        name.match_indices('/').map(|(i, _)| (&name[..i], &name[i + 1..])).find(|(_, rest)| rest.len() <= 100)?;
    (prefix.len() <= 155 && !rest.is_empty()).then_some((prefix, rest))
}

/// What a header found in a file says: as much as is needed to explain what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The name, unprintable characters escaped.
    pub name: String,
    /// The size, if it can be read.
    pub size: Option<u64>,
    /// The kind of the member, as tar's type flag.
    pub kind: u8,
}

/// Reads a header loosely. `None` when the block is no tar header at all.
#[must_use]
pub fn read(block: &Header) -> Option<Found> {
    if &block[257..262] != b"ustar" {
        return None;
    }
    let text = |range: std::ops::Range<usize>| {
        let field = &block[range];
        let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
        field[..end].escape_ascii().to_string()
    };
    let (name, prefix) = (text(0..100), text(345..500));
    let name = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
    let field = &block[124..136];
    let size = if field[0] == 0x80 && field[1..4] == [0, 0, 0] {
        field[4..].iter().try_fold(0_u64, |n, b| n.checked_mul(256)?.checked_add(u64::from(*b)))
    } else {
        field.strip_suffix(&[0]).and_then(|digits| {
            digits.iter().try_fold(0_u64, |n, b| (b'0'..=b'7').contains(b).then(|| n * 8 + u64::from(b - b'0')))
        })
    };
    Some(Found { name, size, kind: block[156] })
}

/// Checks the name of a carried file: it must be safe to extract anywhere and fit ustar.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), String> {
    let shown = name.escape_debug().to_string();
    if name.bytes().any(|b| !(0x20..0x7f).contains(&b) || b == b'\\') {
        return Err(format!("the name `{shown}` has characters other than printable ASCII, or a backslash"));
    }
    if name.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Err(format!("the name `{shown}` is absolute, or has an empty, `.` or `..` segment"));
    }
    if split(name).is_none() {
        return Err(format!("the name `{shown}` is too long for a tar archive (100 bytes, or 155/100 split at a `/`)"));
    }
    Ok(())
}

/// Checks names together: each alone, all unique ignoring case, and none a folder of another.
///
/// # Errors
/// The first thing that is wrong.
pub fn check_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<(), String> {
    let (mut files, mut folders) = (BTreeSet::new(), BTreeSet::new());
    for name in names {
        check_name(name)?;
        let lower = name.to_ascii_lowercase();
        folders.extend(lower.match_indices('/').map(|(i, _)| lower[..i].to_owned()));
        if !files.insert(lower) {
            return Err(format!("the name `{name}` stands twice (upper and lower case count as one)"));
        }
    }
    match files.intersection(&folders).next() {
        Some(both) => Err(format!("the name `{both}` is both a file and a folder")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back() {
        for size in [0, 1, 511, OCTAL_LIMIT - 1, OCTAL_LIMIT, 1 << 40, u64::MAX] {
            let block = header("files/a", size).expect("header");
            let found = read(&block).expect("ustar");
            assert_eq!(found, Found { name: "files/a".to_owned(), size: Some(size), kind: b'0' });
        }
    }

    #[test]
    fn long_names_are_split_so_that_both_parts_fit() {
        let name = format!("files/{}/{}", "d".repeat(100), "f".repeat(90));
        let found = read(&header(&name, 7).expect("header")).expect("ustar");
        assert_eq!(found.name, name);
        assert!(header(&format!("files/{}", "f".repeat(101)), 7).is_none());
        assert!(header(&format!("{}/f", "d/".repeat(130)), 7).is_none());
    }

    #[test]
    fn dangerous_names_are_refused() {
        for name in ["", "/a", "a/../b", "a/./b", "a//b", "a/", "a\\b", "a\nb", "é", "a\0"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        assert!(check_names(["files/a", "files/A"]).is_err());
        assert!(check_names(["files/a/b", "files/A"]).is_err());
        assert!(check_names(["files/a", "files/ab", "files/b/a"]).is_ok());
    }
}
