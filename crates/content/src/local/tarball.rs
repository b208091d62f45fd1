//! The members of a tar and where their bytes stand, from one pass over its headers.
//!
//! Not here: unpacking. Nothing is ever written under a member's name, names are only looked up; still, a tar whose names or
//! links lead out of itself is refused, because no program that saves images writes one.
//!
//! Headers are walked by hand over the `tar` crate's header type, since the crate's own walk reads long names and PAX records
//! of any stated size into memory.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;

use tar::{EntryType, Header};

use super::fault;
use crate::Error;

const BLOCK: u64 = 512;
/// The longest name or link (`PATH_MAX` of Linux).
const MAX_NAME: u64 = 4096;
/// The largest PAX header.
const MAX_PAX: u64 = 1 << 20;
/// The most members; the largest image archives have some ten thousand.
const MAX_MEMBERS: usize = 1 << 20;
/// The most bytes in all names together, so that the index stays small.
const MAX_NAMES: usize = 32 << 20;
/// How many links may lead to one another.
const MAX_LINKS: usize = 16;

/// The bytes of a tar, in order.
pub(super) trait Input {
    /// How many bytes of the tar were passed.
    fn position(&self) -> u64;

    /// Fills `buffer` as far as there are bytes.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Error>;

    /// Passes over `length` bytes; false when there are fewer.
    fn skip(&mut self, length: u64) -> Result<bool, Error>;
}

/// Where a member's bytes stand, or which member it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Member {
    File { start: u64, length: u64 },
    Link(String),
}

/// The regular members of a tar by their names (without `./`), links followed.
#[derive(Debug, Default)]
pub(super) struct Members {
    by_name: BTreeMap<String, Member>,
    names: usize,
    fault: Option<String>,
}

/// What goes before a member and describes it: GNU long names, PAX records.
#[derive(Default)]
struct Extra {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

#[derive(Default)]
struct Pax {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Members {
    /// Start and length of a member, through links. `None` when there is no such member, or a link leads to none.
    pub(super) fn find(&self, name: &str) -> Option<(u64, u64)> {
        let mut name = name;
        for _ in 0..=MAX_LINKS {
            match self.by_name.get(name)? {
                Member::File { start, length } => return Some((*start, *length)),
                Member::Link(target) => name = target,
            }
        }
        None
    }

    /// The member that a link means in the end, there or not. `None` when `name` is no link.
    pub(super) fn target(&self, name: &str) -> Option<&str> {
        let mut found = None;
        let mut name = name;
        for _ in 0..=MAX_LINKS {
            let Some(Member::Link(target)) = self.by_name.get(name) else { break };
            found = Some(target.as_str());
            name = target;
        }
        found
    }

    /// Whether there is no file and no link at all.
    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The first thing that no program that saves images would write. Other tars (of a root file system, say) may well have
    /// such members: they should be told what they are, not that they are dangerous.
    pub(super) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    fn complain(&mut self, why: String) {
        self.fault.get_or_insert(why);
    }

    fn add(&mut self, name: String, member: Member) -> Result<(), String> {
        self.names += name.len()
            + match &member {
                Member::Link(target) => target.len(),
                Member::File { .. } => 0,
            };
        if self.by_name.len() >= MAX_MEMBERS || self.names > MAX_NAMES {
            return Err(format!("it has more than {MAX_MEMBERS} members, or {MAX_NAMES} bytes of names"));
        }
        match self.by_name.entry(name) {
            Entry::Occupied(there) => {
                let why = format!("it has two members `{}`, and which one counts is anybody's guess", there.key());
                self.complain(why);
            }
            Entry::Vacant(free) => {
                free.insert(member);
            }
        }
        Ok(())
    }

    /// Links in a circle would hang whoever follows them.
    fn check_links(&self) -> Result<(), String> {
        for (name, member) in &self.by_name {
            let Member::Link(mut target) = member.clone() else { continue };
            let mut hops = 1;
            while let Some(Member::Link(next)) = self.by_name.get(&target) {
                target.clone_from(next);
                hops += 1;
                if hops > MAX_LINKS {
                    return Err(format!("the link `{name}` leads in a circle, or over more than {MAX_LINKS} links"));
                }
            }
        }
        Ok(())
    }
}

/// Walks over all headers. `path` is for errors.
///
/// # Errors
/// When it is no tar, ends early, or its headers are damaged. Members that no image archive has are remembered as
/// [`Members::fault`]: names and links that lead out, a name twice, devices.
pub(super) fn index(input: &mut dyn Input, path: &Path) -> Result<Members, Error> {
    let damaged = |why: String| fault::damaged(path, why);
    let mut members = Members::default();
    let mut extra = Extra::default();
    loop {
        let at = input.position();
        let mut block = [0; BLOCK as usize];
        let filled = input.fill(&mut block)?;
        if filled == 0 && at > 0 {
            return Err(damaged(format!("it ends at byte {at} without the end mark of a tar: it was cut off")));
        }
        if block.iter().all(|b| *b == 0) && filled == block.len() {
            break;
        }
        let header = Header::from_byte_slice(&block);
        if filled < block.len() || !has_right_checksum(header) {
            return Err(match (at, filled == block.len()) {
                (0, _) => not_a_tar(path, &block[..filled]),
                (_, false) => damaged(format!("it ends in the middle of the header at byte {at}: it was cut off")),
                (_, true) => damaged(format!("the header at byte {at} is damaged: its checksum is wrong")),
            });
        }
        step(input, header, &mut extra, &mut members, path)?;
    }
    if extra.name.is_some() || extra.link.is_some() || extra.pax.is_some() {
        return Err(damaged("its last header announces a member that does not follow".to_owned()));
    }
    if let Err(why) = members.check_links() {
        members.complain(why);
    }
    Ok(members)
}

/// Takes one header and passes over its data.
fn step(
    input: &mut dyn Input,
    header: &Header,
    extra: &mut Extra,
    members: &mut Members,
    path: &Path,
) -> Result<(), Error> {
    let at = input.position() - BLOCK;
    let damaged = |why: String| fault::damaged(path, why);
    let stated = header.entry_size().map_err(|_| damaged(format!("the header at byte {at} states no usable size")))?;
    match header.entry_type() {
        EntryType::GNULongName => return announce(input, &mut extra.name, stated, MAX_NAME, at, path, trimmed),
        EntryType::GNULongLink => return announce(input, &mut extra.link, stated, MAX_NAME, at, path, trimmed),
        EntryType::XHeader => return announce(input, &mut extra.pax, stated, MAX_PAX, at, path, pax),
        EntryType::XGlobalHeader => {
            let mut global = None;
            announce(input, &mut global, stated, MAX_PAX, at, path, pax)?;
            return match global {
                Some(Pax { path: None, link: None, size: None }) | None => Ok(()),
                Some(_) => Err(damaged(format!("the global header at byte {at} gives all members one name or size"))),
            };
        }
        _ => {}
    }
    let extra = std::mem::take(extra);
    if extra.is_named_twice() {
        let why = "is given two names by extended headers, and which one counts is anybody's guess";
        return Err(damaged(format!("the member at byte {at} {why}")));
    }
    let size = extra.pax.as_ref().and_then(|p| p.size).unwrap_or(stated);
    let start = input.position();
    let padded = size.checked_next_multiple_of(BLOCK).filter(|p| start.checked_add(*p).is_some());
    let name = extra.name(header);
    let shown_name = shown(&name);
    let Some(padded) = padded else {
        return Err(damaged(format!("`{shown_name}` states {size} bytes, more than any file can have")));
    };
    if header.entry_type() == EntryType::GNUSparse {
        return Err(damaged(format!("`{shown_name}` is a sparse member, which no image tool writes")));
    }
    if has_no_content(header.entry_type()) && size != 0 {
        return Err(damaged(format!("`{shown_name}` has no content of its own, but states {size} bytes")));
    }
    if !input.skip(padded)? {
        let why = format!("`{shown_name}` should have {size} bytes, but the tar ends before that: it was cut off");
        return Err(damaged(why));
    }
    match member(header, &name, &extra, start, size) {
        Ok(Some((name, member))) => members.add(name, member).map_err(damaged),
        Ok(None) => Ok(()),
        Err(why) => {
            members.complain(why);
            Ok(())
        }
    }
}

fn has_no_content(kind: EntryType) -> bool {
    matches!(
        kind,
        EntryType::Symlink
            | EntryType::Link
            | EntryType::Directory
            | EntryType::Char
            | EntryType::Block
            | EntryType::Fifo
    )
}

impl Extra {
    /// By GNU's headers and by POSIX's: programs differ in which they prefer.
    fn is_named_twice(&self) -> bool {
        self.pax.as_ref().is_some_and(|pax| {
            (self.name.is_some() && pax.path.is_some()) || (self.link.is_some() && pax.link.is_some())
        })
    }

    fn name(&self, header: &Header) -> Vec<u8> {
        let long = self.pax.as_ref().and_then(|p| p.path.as_ref()).or(self.name.as_ref());
        long.cloned().unwrap_or_else(|| header.path_bytes().into_owned())
    }

    fn link(&self, header: &Header) -> Vec<u8> {
        let long = self.pax.as_ref().and_then(|p| p.link.as_ref()).or(self.link.as_ref());
        long.cloned().unwrap_or_else(|| header.link_name_bytes().map(Into::into).unwrap_or_default())
    }
}

/// Name and content of a member; `None` for a folder. The error is one that matters only if this is an image archive.
fn member(
    header: &Header,
    raw_name: &[u8],
    extra: &Extra,
    start: u64,
    length: u64,
) -> Result<Option<(String, Member)>, String> {
    let name = clean(raw_name).map_err(|why| format!("the member `{}` {why}", shown(raw_name)))?;
    let member = match header.entry_type() {
        EntryType::Directory => return Ok(None),
        // tars from before POSIX have no type for folders
        EntryType::Regular if raw_name.ends_with(b"/") && length == 0 => return Ok(None),
        EntryType::Regular | EntryType::Continuous => Member::File { start, length },
        kind @ (EntryType::Symlink | EntryType::Link) => {
            let base = if kind == EntryType::Symlink { parent(&name) } else { "" };
            let link = extra.link(header);
            let target = follow(base, &link).map_err(|why| format!("the link `{name}` to `{}` {why}", shown(&link)))?;
            Member::Link(target)
        }
        other => {
            let kind = char::from(other.as_byte()).escape_default().to_string();
            return Err(format!(
                "`{name}` is neither file, folder nor link (a device, a pipe or the like: type `{kind}`)"
            ));
        }
    };
    if name.is_empty() {
        return Err(format!("the member at byte {} has no name", start - BLOCK));
    }
    Ok(Some((name, member)))
}

/// Reads the data of a header that describes the next one.
fn announce<T>(
    input: &mut dyn Input,
    place: &mut Option<T>,
    size: u64,
    limit: u64,
    at: u64,
    path: &Path,
    parse: fn(Vec<u8>) -> Result<T, &'static str>,
) -> Result<(), Error> {
    let damaged = |why: String| fault::damaged(path, why);
    if size > limit {
        return Err(damaged(format!("the extended header at byte {at} has {size} bytes; {limit} are allowed")));
    }
    if place.is_some() {
        return Err(damaged(format!("two extended headers of one kind at byte {at} describe the same member")));
    }
    let mut data = vec![0; usize::try_from(size.next_multiple_of(BLOCK)).unwrap_or_default()];
    if input.fill(&mut data)? < data.len() {
        return Err(damaged(format!("it ends in the extended header at byte {at}: it was cut off")));
    }
    data.truncate(usize::try_from(size).unwrap_or_default());
    *place =
        Some(parse(data).map_err(|why| damaged(format!("the extended header at byte {at} is not readable: {why}")))?);
    Ok(())
}

/// A GNU long name ends at its first NUL.
#[expect(clippy::unnecessary_wraps, reason = "one of several parsers")]
fn trimmed(mut data: Vec<u8>) -> Result<Vec<u8>, &'static str> {
    if let Some(end) = data.iter().position(|b| *b == 0) {
        data.truncate(end);
    }
    Ok(data)
}

/// PAX records: `LENGTH KEY=VALUE\n`, the length counting itself.
fn pax(data: Vec<u8>) -> Result<Pax, &'static str> {
    let mut found = Pax::default();
    let mut rest = data.as_slice();
    while !rest.is_empty() && !rest.iter().all(|b| *b == 0) {
        let space = rest.iter().take(8).position(|b| *b == b' ').ok_or("a record without a length")?;
        let digits = std::str::from_utf8(&rest[..space]).map_err(|_| "a length that is no number")?;
        let length: usize = digits.parse().map_err(|_| "a length that is no number")?;
        if length <= space + 1 || length > rest.len() || rest[length - 1] != b'\n' {
            return Err("a record whose length is wrong");
        }
        let record = &rest[space + 1..length - 1];
        let equals = record.iter().position(|b| *b == b'=').ok_or("a record without `=`")?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"path" => found.path = Some(value.to_vec()),
            b"linkpath" => found.link = Some(value.to_vec()),
            b"size" => {
                let text = std::str::from_utf8(value).map_err(|_| "a size that is no number")?;
                found.size = Some(text.parse().map_err(|_| "a size that is no number")?);
            }
            key if key.starts_with(b"GNU.sparse.") => return Err("sparse members are not supported"),
            _ => {}
        }
        rest = &rest[length..];
    }
    Ok(found)
}

fn has_right_checksum(header: &Header) -> bool {
    let bytes = header.as_bytes();
    let sum: u32 =
        bytes.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) }).sum();
    header.cksum().is_ok_and(|stated| stated == sum)
}

/// A member's name without `./` and doubled slashes.
fn clean(raw: &[u8]) -> Result<String, &'static str> {
    if raw.len() as u64 > MAX_NAME {
        return Err("has a name that is too long");
    }
    let text = std::str::from_utf8(raw).map_err(|_| "has a name that is not UTF-8")?;
    if text.chars().any(char::is_control) {
        return Err("has control characters in its name");
    }
    if text.starts_with('/') {
        return Err("has an absolute name");
    }
    let mut parts = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err("leads out of the tar with `..`"),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

/// The name that a link means, seen from the folder `base`.
fn follow(base: &str, raw: &[u8]) -> Result<String, &'static str> {
    let text = std::str::from_utf8(raw).map_err(|_| "is not UTF-8")?;
    if text.is_empty() || text.len() as u64 > MAX_NAME || text.chars().any(char::is_control) {
        return Err("is empty, too long or has control characters");
    }
    if text.starts_with('/') {
        return Err("leads out of the tar");
    }
    let mut parts: Vec<&str> = base.split('/').filter(|p| !p.is_empty()).collect();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or("leads out of the tar")?;
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// A name for an error message: whatever it is made of, short and on one line.
fn shown(raw: &[u8]) -> String {
    String::from_utf8_lossy(raw).chars().take(200).flat_map(char::escape_debug).collect()
}

/// Says what a file is instead of a tar, as far as its first bytes tell.
fn not_a_tar(path: &Path, first: &[u8]) -> Error {
    let save = "make one with `docker save -o FILE IMAGE` or `skopeo copy docker://IMAGE oci-archive:FILE`";
    let text = || String::from_utf8_lossy(first).trim_start().to_ascii_lowercase();
    match first {
        [] => fault::invalid(path, "it is empty", save),
        [b'P', b'K', 3 | 5, ..] => fault::invalid(path, "it is a zip file, not a tar", "unzip it first"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => {
            fault::invalid(path, "it is compressed with xz", "unpack it with `xz -d`")
        }
        [b'B', b'Z', b'h', ..] => fault::invalid(path, "it is compressed with bzip2", "unpack it with `bzip2 -d`"),
        _ if text().starts_with("<!doctype") || text().starts_with("<html") => fault::invalid(
            path,
            "it is a web page, not a tar",
            "the download got an error or a login page instead of the file: fetch it again",
        ),
        _ => fault::invalid(path, "it is neither a tar (plain, gzip or zstd) nor an OCI layout folder", save),
    }
}
