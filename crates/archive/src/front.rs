//! The front of a bundle, strictly: sums, signature, head and the small members, before anything else is believed
//! (`docs/format.md`, "Reading").

use std::path::Path;

use bytes::Bytes;
use ferry_image::Digest;
use serde::Deserialize;

use crate::bundle::Member;
use crate::frame::{self, as_header};
use crate::head::{FORMAT, MAX_HEAD};
use crate::keys::{self, MAX_SIGNATURE};
use crate::member::{BLOCK, END, Found};
use crate::signers::{Beside, Signed};
use crate::source::Source;
use crate::sums::MAX_SUMS;
use crate::{Error, Head, Trust, layout, member, oci, sums};

/// The largest `index.json` and `manifest.json` that are read, in bytes.
const MAX_INDEX: u64 = 64 << 20;

/// What the front says, and where everything stands by it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Front {
    pub(crate) head: Head,
    pub(crate) signed: Signed,
    pub(crate) sums_digest: Digest,
    /// The size that the whole must have.
    pub(crate) size: u64,
    /// Every member but sums and signature, in the order of the file; blobs last.
    pub(crate) members: Vec<Member>,
    /// How many of them were read.
    pub(crate) read: usize,
}

/// A position in the file.
struct Reader<'a> {
    source: &'a mut dyn Source,
    path: &'a Path,
    at: u64,
}

/// Reads and checks the front. `beside` are the signatures that stand beside the bundle.
pub(crate) fn read(source: &mut dyn Source, path: &Path, trust: &Trust, beside: &[Beside]) -> Result<Front, Error> {
    let mut reader = Reader { source, path, at: 0 };
    reader.refuse_other_files()?;
    let sums_bytes = reader.small(member::SUMS, MAX_SUMS)?;
    let signature = match reader.header()? {
        Some(found) if found.name == member::SIGNATURE => Some(reader.small(member::SIGNATURE, MAX_SIGNATURE)?),
        _ => None,
    };
    let bad_signature = |why: &str| Error::Signature { path: path.to_owned(), why: why.to_owned() };
    let signature = signature.as_deref().map(std::str::from_utf8).transpose();
    let signature = signature.map_err(|_| bad_signature("its text is not in the form that ferry writes"))?;
    let signed = trust.check(path, &sums_bytes, signature, beside)?;

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
    let sums_digest = Digest::of(&sums_bytes);
    let read = members.len();
    let size = place(&head, reader.at, &mut members);
    Ok(Front { head, signed, sums_digest, size, members, read })
}

/// Where everything that the head lists stands, from `start` on. Gives the size of the whole.
fn place(head: &Head, start: u64, members: &mut Vec<Member>) -> u64 {
    let sizes = head.yaml.iter().chain(&head.files).map(|f| f.size).chain(head.blobs.iter().map(|b| b.size));
    let mut offset = start;
    for ((name, digest), size) in layout::carried(head).zip(sizes) {
        members.push(Member { name, digest: digest.clone(), offset: offset + BLOCK, size });
        // Cannot overflow: `Head::check` bounds the sum of all sizes.
        offset += member::span(size);
    }
    offset + END
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
    fn refuse_other_files(&mut self) -> Result<(), Error> {
        let fail = |why: &str| Err(Error::NotABundle { path: self.path.to_owned(), why: why.to_owned() });
        if self.source.length() == Some(0) {
            return fail("it is empty");
        }
        if self.path.extension().is_some_and(|e| e == "partial") {
            return fail("it is an unfinished build; run the `ferry bundle` that made it again");
        }
        let start = match self.source.read(0, self.source.length().unwrap_or(BLOCK).min(BLOCK)) {
            Err(Error::Truncated { found: 0, .. }) => return fail("it is empty"),
            Err(Error::Truncated { .. }) => return fail("it is too short"),
            other => other?,
        };
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

    /// The header at the current position, read loosely.
    fn header(&mut self) -> Result<Option<Found>, Error> {
        let block = self.source.read(self.at, BLOCK)?;
        Ok(as_header(&block).as_ref().and_then(member::read))
    }

    /// Takes the next member, which must be `name` and no larger than `limit`, content and padding included.
    fn small(&mut self, name: &str, limit: u64) -> Result<Bytes, Error> {
        let block = self.source.read(self.at, BLOCK)?;
        let size = as_header(&block).as_ref().and_then(member::read).and_then(|f| f.size).unwrap_or(0);
        frame::header(self.path, &block, self.at, name, size, |_| false)?;
        if size > limit {
            let (path, member) = (self.path.to_owned(), name.to_owned());
            return Err(Error::TooLarge { path, member, size, limit });
        }
        let content = self.source.read(self.at + BLOCK, size)?;
        self.at += BLOCK + size;
        let padding = self.source.read(self.at, member::padding(size))?;
        frame::padding(self.path, &padding, self.at, name)?;
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
            let damage = crate::Damage { name: name.to_owned(), offset, size, volumes: Vec::new(), found: Some(found) };
            return Err(Error::Damaged { path: self.path.to_owned(), members: vec![damage] });
        }
        members.push(Member { name: name.to_owned(), digest: found, offset, size });
        Ok(content)
    }
}
