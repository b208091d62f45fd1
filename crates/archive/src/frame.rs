//! What stands around the content of members: headers, padding, the end marker. Made anew and compared, so that one flipped bit
//! anywhere is found (`docs/format.md`, "Reading").

use std::path::Path;

use ferry_content::files::read_range;

use crate::front::Front;
use crate::member::{self, BLOCK, END, Found, Header};
use crate::{Error, Slices, volumes};

/// No more faults than this are listed: a file that is something else has one in every place.
const MOST: usize = 100;

/// Everything around the members after the front that is not as it must be, in the order of the file; volumes that are not there or
/// not whole first.
pub(crate) fn faults(slices: &Slices, path: &Path, front: &Front) -> Vec<Error> {
    let mut faults: Vec<Error> = volumes::faults(slices, path, front.size).into_iter().collect();
    let length = slices.length();
    let is_one_file = slices.room().is_none();
    let names = |name: &str| front.members.iter().any(|m| m.name == name);
    let mut check = |start: u64, size: u64, compare: &dyn Fn(&[u8]) -> Result<(), Error>| {
        if faults.len() >= MOST || !slices.has(start, size) {
            return;
        }
        let (at, _) = slices.locate(start).map_or((path, 0), |(part, within)| (&part.path, within));
        let read = read_range(slices, &(start..start + size)).map_err(|e| Error::io("read", at, e));
        faults.extend(read.and_then(|bytes| compare(&bytes)).err());
    };
    // what is read at once: the padding of a member and the header of the next
    let mut zeros = 0;
    for member in &front.members[front.read..] {
        let start = member.offset - BLOCK - zeros;
        check(start, zeros + BLOCK, &|gap| {
            let (before, block) = gap.split_at(zeros as usize);
            header(path, block, member.offset - BLOCK, &member.name, member.size, names)?;
            padding(path, before, start, &member.name)
        });
        zeros = member::padding(member.size);
    }
    check(front.size - END - zeros, zeros + END, &|bytes| end(path, bytes, zeros, front.size, names));
    if is_one_file && length < front.size {
        faults.push(Error::Truncated { path: path.to_owned(), expected: front.size, found: length });
    } else if is_one_file && length > front.size {
        faults.push(Error::TrailingBytes { path: path.to_owned(), expected: front.size, found: length });
    }
    faults
}

/// The last padding and the end marker, which follows `zeros` bytes of it.
pub(crate) fn end(
    path: &Path,
    bytes: &[u8],
    zeros: u64,
    size: u64,
    is_listed: impl Fn(&str) -> bool,
) -> Result<(), Error> {
    let offset = size - END;
    let marker = &bytes[zeros as usize..];
    if let Some(extra) = as_header(&marker[..BLOCK as usize]).as_ref().and_then(member::read) {
        return Err(structure(path, offset, explain(&extra, "the end", is_listed)));
    }
    if bytes.iter().any(|b| *b != 0) {
        return Err(structure(path, offset - zeros, "the end marker is damaged".to_owned()));
    }
    Ok(())
}

/// Compares the header of a member with what it must be.
pub(crate) fn header(
    path: &Path,
    block: &[u8],
    at: u64,
    name: &str,
    size: u64,
    is_listed: impl Fn(&str) -> bool,
) -> Result<(), Error> {
    if member::header(name, size).is_some_and(|right| right == block) {
        return Ok(());
    }
    let why = match as_header(block).as_ref().and_then(member::read) {
        None if block.iter().all(|b| *b == 0) => format!("the archive ends where `{name}` should begin"),
        None => format!("no tar header stands where `{name}` should begin"),
        Some(found) if found.name == name && found.kind == b'0' => match found.size {
            Some(said) if said != size => format!("`{name}` says it has {said} bytes, and ferry.json says {size}"),
            _ => format!("the tar header of `{name}` is damaged"),
        },
        Some(found) => explain(&found, &format!("`{name}`"), is_listed),
    };
    Err(structure(path, at, why))
}

/// Compares padding with what it must be.
pub(crate) fn padding(path: &Path, zeros: &[u8], start: u64, near: &str) -> Result<(), Error> {
    match zeros.iter().position(|b| *b != 0) {
        Some(i) => Err(structure(path, start + i as u64, format!("the padding next to `{near}` is not zero"))),
        None => Ok(()),
    }
}

fn structure(path: &Path, offset: u64, why: String) -> Error {
    Error::Structure { path: path.to_owned(), offset, why }
}

pub(crate) fn as_header(block: &[u8]) -> Option<Header> {
    block.try_into().ok()
}
/// Why the member `found` may not stand where `wanted` is expected.
fn explain(found: &Found, wanted: &str, is_listed: impl Fn(&str) -> bool) -> String {
    let kind = match found.kind {
        b'0' => None,
        b'1' => Some("a hard link"),
        b'2' => Some("a symbolic link"),
        b'3' | b'4' => Some("a device"),
        b'5' => Some("a folder"),
        b'x' | b'g' | b'L' | b'K' => Some("an extension header"),
        _ => Some("of an unknown kind"),
    };
    let name = &found.name;
    if let Some(kind) = kind {
        return format!("`{name}` is {kind}; a bundle has regular files only");
    }
    if let Err(why) = member::check_name(name) {
        return format!("a member where {wanted} is expected: {why}");
    }
    if is_listed(name) {
        return format!("`{name}` stands where {wanted} is expected: twice, or out of its place");
    }
    format!("unknown member `{name}` where {wanted} is expected")
}
