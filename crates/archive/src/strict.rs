//! Strict reading of everything but the content of blobs and carried files: headers, padding, end marker and signature text
//! are made anew and compared, so that one flipped bit anywhere is found (`docs/format.md`, "Reading").

use std::fs::File;
use std::path::Path;

use bytes::Bytes;
use ferry_content::files::read_range;
use ferry_image::Digest;
use serde::Deserialize;

use crate::bundle::Member;
use crate::head::{FORMAT, MAX_HEAD};
use crate::keys::{self, MAX_SIGNATURE};
use crate::member::{BLOCK, END, Found, Header};
use crate::sums::MAX_SUMS;
use crate::{Error, Head, KeyId, Trust, layout, member, oci, sums};

/// The largest `index.json` and `manifest.json` that are read, in bytes.
const MAX_INDEX: u64 = 64 << 20;

/// What opening finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) head: Head,
    /// The key that the signature names, trusted or not.
    pub(crate) claimed: Option<KeyId>,
    pub(crate) signer: Option<KeyId>,
    pub(crate) sums_digest: Digest,
    pub(crate) size: u64,
    /// Every member but sums and signature, in the order of the file; blobs last.
    pub(crate) members: Vec<Member>,
}

/// A position in the file.
struct Reader<'a> {
    file: &'a File,
    path: &'a Path,
    length: u64,
    at: u64,
}

/// Reads and checks a bundle as far as its structure goes.
pub(crate) fn open(file: &File, path: &Path, trust: &Trust) -> Result<Opened, Error> {
    let length = file.metadata().map_err(|e| Error::io("read", path, e))?.len();
    let mut reader = Reader { file, path, length, at: 0 };
    reader.refuse_other_files()?;
    let sums_bytes = reader.small(member::SUMS, MAX_SUMS)?;
    let signature = match reader.header()? {
        Some(found) if found.name == member::SIGNATURE => Some(reader.small(member::SIGNATURE, MAX_SIGNATURE)?),
        _ => None,
    };
    let bad_signature = |why: &str| Error::Signature { path: path.to_owned(), why: why.to_owned() };
    let signature = signature.as_deref().map(std::str::from_utf8).transpose();
    let signature = signature.map_err(|_| bad_signature("its text is not in the form that ferry writes"))?;
    let signer = trust.check(path, &sums_bytes, signature)?;

    // From here on the sums are believed as far as the signer is.
    let bad_sums = |why: String| Error::Sums { path: path.to_owned(), why };
    let text = std::str::from_utf8(&sums_bytes).map_err(|_| bad_sums("it is not text".to_owned()))?;
    let listed = sums::parse(text).map_err(bad_sums)?;
    let mut members = Vec::with_capacity(listed.len());
    let head_json = reader.summed(&listed, &mut members, member::HEAD, MAX_HEAD)?;
    let head = parse_head(path, &head_json)?;
    drop(head_json);
    let comment = keys::trusted_comment(&head.name, head.version.as_deref());
    if signature.and_then(keys::parse_signature).is_some_and(|parsed| parsed.comment != comment) {
        return Err(bad_signature("its trusted comment does not name this bundle"));
    }
    if reader.summed(&listed, &mut members, member::OCI_LAYOUT, BLOCK)? != oci::OCI_LAYOUT_JSON {
        return Err(bad_sums("oci-layout is not of version 1.0.0".to_owned()));
    }
    reader.summed(&listed, &mut members, member::INDEX, MAX_INDEX)?;
    reader.summed(&listed, &mut members, member::MANIFEST, MAX_INDEX)?;
    compare_lists(&head, &listed[members.len()..]).map_err(bad_sums)?;
    reader.rest(&head, &mut members)?;
    let sums_digest = Digest::of(&sums_bytes);
    Ok(Opened {
        claimed: signature.and_then(keys::parse_signature).map(|parsed| parsed.key),
        head,
        signer,
        sums_digest,
        size: reader.length,
        members,
    })
}

fn parse_head(path: &Path, json: &[u8]) -> Result<Head, Error> {
    #[derive(Deserialize)]
    struct Version {
        format: u64,
    }
    let fail = |why: String| Error::Head { path: path.to_owned(), why };
    let Version { format } = serde_json::from_slice(json).map_err(|e| fail(e.to_string()))?;
    if format != u64::from(FORMAT) {
        return Err(Error::Format { path: path.to_owned(), found: format });
    }
    let head: Head = serde_json::from_slice(json).map_err(|e| fail(e.to_string()))?;
    head.check().map_err(fail)?;
    let mut placed = head.blobs.clone();
    layout::place(&mut placed);
    match placed.iter().zip(&head.blobs).find(|(a, b)| a != b) {
        Some((right, said)) => {
            let (digest, said, right) = (&said.digest, said.offset, right.offset);
            Err(fail(format!("blob {digest} is said to stand at {said}, and by the sizes it stands at {right}")))
        }
        None => Ok(head),
    }
}

/// The sums must list what the head lists, in the same order.
fn compare_lists(head: &Head, listed: &[(String, Digest)]) -> Result<(), String> {
    let mut listed = listed.iter();
    for (name, digest) in layout::carried(head) {
        match listed.next() {
            Some((found, sum)) if *found == name && sum == digest => {}
            Some((found, _)) if *found == name => {
                return Err(format!("another digest for `{name}` than in ferry.json"));
            }
            Some((found, _)) => {
                return Err(format!("`{}` stands where ferry.json has `{name}`", found.escape_debug()));
            }
            None => return Err(format!("`{name}` of ferry.json is not listed")),
        }
    }
    match listed.next() {
        Some((extra, _)) => Err(format!("`{}` is listed and not in ferry.json", extra.escape_debug())),
        None => Ok(()),
    }
}

impl Reader<'_> {
    /// A file that is something else altogether is not called damaged.
    fn refuse_other_files(&self) -> Result<(), Error> {
        let fail = |why: &str| Err(Error::NotABundle { path: self.path.to_owned(), why: why.to_owned() });
        if self.length == 0 {
            return fail("it is empty");
        }
        if self.path.extension().is_some_and(|e| e == "partial") {
            return fail("it is an unfinished build; run the `ferry bundle` that made it again");
        }
        let start = self.read(0, self.length.min(BLOCK))?;
        match start.as_ref() {
            [0x1f, 0x8b, ..] => fail("it is gzip-compressed"),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => fail("it is zstd-compressed"),
            short if short.len() < BLOCK as usize => fail("it is too short"),
            block => match as_header(block).as_ref().and_then(member::read) {
                None => fail("it is not a tar archive"),
                Some(found) if found.name != member::SUMS && found.kind == b'0' => {
                    fail(&format!("its first member is `{}` and not `{}`", found.name, member::SUMS))
                }
                Some(_) => Ok(()),
            },
        }
    }

    fn read(&self, at: u64, size: u64) -> Result<Bytes, Error> {
        let expected = at.saturating_add(size);
        if expected > self.length {
            return Err(Error::Truncated { path: self.path.to_owned(), expected, found: self.length });
        }
        read_range(self.file, &(at..expected)).map_err(|e| Error::io("read", self.path, e))
    }

    /// The header at the current position, read loosely.
    fn header(&self) -> Result<Option<Found>, Error> {
        let block = self.read(self.at, BLOCK)?;
        Ok(as_header(&block).as_ref().and_then(member::read))
    }

    /// Takes the next member, which must be `name` and no larger than `limit`, content and padding included.
    fn small(&mut self, name: &str, limit: u64) -> Result<Bytes, Error> {
        let block = self.read(self.at, BLOCK)?;
        let size = as_header(&block).as_ref().and_then(member::read).and_then(|f| f.size).unwrap_or(0);
        self.compare_header(&block, self.at, name, size, |_| false)?;
        if size > limit {
            let (path, member) = (self.path.to_owned(), name.to_owned());
            return Err(Error::TooLarge { path, member, size, limit });
        }
        let content = self.read(self.at + BLOCK, size)?;
        self.at += BLOCK + size;
        let padding = self.read(self.at, member::padding(size))?;
        self.compare_padding(&padding, self.at, name)?;
        self.at += padding.len() as u64;
        Ok(content)
    }

    /// Takes the next member, which must be `name` and hash to its line in the sums.
    fn summed(
        &mut self,
        listed: &[(String, Digest)],
        members: &mut Vec<Member>,
        name: &str,
        limit: u64,
    ) -> Result<Bytes, Error> {
        let offset = self.at + BLOCK;
        let content = self.small(name, limit)?;
        let fail = |why: String| Error::Sums { path: self.path.to_owned(), why };
        let (first, digest) = listed.get(members.len()).ok_or_else(|| fail(format!("`{name}` is not listed")))?;
        if first != name {
            return Err(fail(format!("`{}` stands where `{name}` should", first.escape_debug())));
        }
        let found = Digest::of(&content);
        let size = content.len() as u64;
        if found != *digest {
            let damage = crate::Damage { name: name.to_owned(), offset, size, found: Some(found) };
            return Err(Error::Damaged { path: self.path.to_owned(), members: vec![damage] });
        }
        members.push(Member { name: name.to_owned(), digest: found, offset, size });
        Ok(content)
    }

    /// Checks headers and padding of everything that the head lists, the end marker, and the size of the file.
    fn rest(&mut self, head: &Head, members: &mut Vec<Member>) -> Result<(), Error> {
        let sizes = head.yaml.iter().chain(&head.files).map(|f| f.size).chain(head.blobs.iter().map(|b| b.size));
        let mut offset = self.at;
        let first = members.len();
        for ((name, digest), size) in layout::carried(head).zip(sizes) {
            members.push(Member { name, digest: digest.clone(), offset: offset + BLOCK, size });
            // Cannot overflow: `Head::check` bounds the sum of all sizes.
            offset += member::span(size);
        }
        let expected = offset + END;
        let short = self.length < expected;
        let names = |name: &str| members.iter().any(|m| m.name == name);
        let mut padding = 0;
        for member in &members[first..] {
            let start = member.offset - BLOCK - padding;
            if short && member.offset > self.length {
                break;
            }
            let gap = self.read(start, padding + BLOCK)?;
            let (zeros, block) = gap.split_at(padding as usize);
            self.compare_header(block, member.offset - BLOCK, &member.name, member.size, names)?;
            self.compare_padding(zeros, start, &member.name)?;
            padding = member::padding(member.size);
        }
        if short {
            return Err(Error::Truncated { path: self.path.to_owned(), expected, found: self.length });
        }
        let end = self.read(offset - padding, padding + END)?;
        if let Some(extra) = as_header(&end[padding as usize..][..BLOCK as usize]).as_ref().and_then(member::read) {
            return Err(self.structure(offset, explain(&extra, "the end", names)));
        }
        if end.iter().any(|b| *b != 0) {
            return Err(self.structure(offset - padding, "the end marker is damaged".to_owned()));
        }
        if self.length > expected {
            return Err(Error::TrailingBytes { path: self.path.to_owned(), expected, found: self.length });
        }
        Ok(())
    }

    fn compare_header(
        &self,
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
        Err(self.structure(at, why))
    }

    fn compare_padding(&self, zeros: &[u8], start: u64, near: &str) -> Result<(), Error> {
        match zeros.iter().position(|b| *b != 0) {
            Some(i) => Err(self.structure(start + i as u64, format!("the padding next to `{near}` is not zero"))),
            None => Ok(()),
        }
    }

    fn structure(&self, offset: u64, why: String) -> Error {
        Error::Structure { path: self.path.to_owned(), offset, why }
    }
}

fn as_header(block: &[u8]) -> Option<Header> {
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
