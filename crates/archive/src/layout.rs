//! Every member's bytes and place, from what is to be carried. Pure: known before the first layer is fetched.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use bytes::Bytes;
use ferry_image::{Descriptor, Digest, Manifest, Reference, media_type};

use crate::head::{FORMAT, Head, HeadBlob, HeadFile, HeadImage, MAX_HEAD};
use crate::{Error, keys, member, oci, sums};

/// What a bundle shall hold.
#[derive(Debug, Clone)]
pub struct Contents {
    /// The head, its `blobs` with digest and size in their final order (the offsets are computed here, and so are `yaml` and
    /// `files`).
    pub head: Head,
    /// The bytes of the manifests of every platform and referrer carried; further ones do no harm.
    pub manifests: BTreeMap<Digest, Bytes>,
    /// YAML, other files, the installer.
    pub files: Vec<File>,
}

/// A file to carry.
#[derive(Debug, Clone)]
pub struct File {
    /// The name of its member: `yaml/…`, `files/…` or `bin/ferry`.
    pub name: String,
    /// Its bytes, or where they are.
    pub content: FileContent,
}

/// The bytes of a file, or where they are.
#[derive(Debug, Clone)]
pub enum FileContent {
    /// Held in memory.
    Bytes(Bytes),
    /// To be copied from the disk; checked against digest and size on the way.
    Path {
        /// The file.
        path: PathBuf,
        /// The digest that it had when it was looked at.
        digest: Digest,
        /// Its size then, in bytes.
        size: u64,
    },
}

/// A bundle laid out.
#[derive(Debug, Clone)]
pub struct Layout {
    head: Head,
    files: Vec<File>,
    front: Vec<(&'static str, Bytes)>,
    sums: String,
    sums_digest: Digest,
    left_out: Vec<Reference>,
}

/// A member before the data section and its place.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) name: String,
    /// Where its header stands, from the start of the file.
    pub(crate) offset: u64,
    pub(crate) content: FileContent,
}

impl FileContent {
    /// The size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Path { size, .. } => *size,
        }
    }

    fn digest(&self) -> Digest {
        match self {
            Self::Bytes(bytes) => Digest::of(bytes),
            Self::Path { digest, .. } => digest.clone(),
        }
    }
}

impl Layout {
    /// Lays out `contents`.
    ///
    /// # Errors
    /// [`Error::Contents`] when they contradict themselves, name content that is not sha256, or lack a blob of an image.
    pub fn new(contents: Contents) -> Result<Self, Error> {
        Self::arrange(contents).map_err(|why| Error::Contents { why })
    }

    fn arrange(Contents { mut head, manifests, mut files }: Contents) -> Result<Self, String> {
        files.sort_by(|a, b| (a.name == member::BIN, &a.name).cmp(&(b.name == member::BIN, &b.name)));
        let listed = |f: &File| HeadFile { path: f.name.clone(), digest: f.content.digest(), size: f.content.size() };
        let (yaml, others): (Vec<_>, Vec<_>) = files.into_iter().partition(|f| f.name.starts_with("yaml/"));
        head.format = FORMAT;
        head.yaml = yaml.iter().map(listed).collect();
        head.files = others.iter().map(listed).collect();
        place(&mut head.blobs);
        head.check()?;
        check_whole(&head, &manifests)?;
        let (docker, left_out) = oci::docker(&head, &manifests)?;
        let front = vec![
            (member::HEAD, Bytes::from(readable(head.to_json().map_err(|e| e.to_string())?)?)),
            (member::OCI_LAYOUT, Bytes::from_static(oci::OCI_LAYOUT_JSON)),
            (member::INDEX, oci::index(&head, &manifests)?.into()),
            (member::MANIFEST, docker.into()),
        ];
        let mut text = String::new();
        for (name, bytes) in &front {
            sums::push(&mut text, name, &Digest::of(bytes));
        }
        for (name, digest) in carried(&head) {
            sums::push(&mut text, &name, digest);
        }
        let sums_digest = Digest::of(text.as_bytes());
        let files = yaml.into_iter().chain(others).collect();
        Ok(Self { head, files, front, sums: text, sums_digest, left_out })
    }

    /// The head as it will be written.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The text of `ferry.json`.
    #[must_use]
    pub fn head_json(&self) -> &[u8] {
        self.front.first().map_or(&[], |(_, json)| json)
    }

    /// The blobs in the order of the file, with their offsets.
    #[must_use]
    pub fn blobs(&self) -> &[HeadBlob] {
        &self.head.blobs
    }

    /// The text of `SHA256SUMS`.
    #[must_use]
    pub fn sums(&self) -> &str {
        &self.sums
    }

    /// The digest of that text: it names the bundle's content.
    #[must_use]
    pub fn sums_digest(&self) -> &Digest {
        &self.sums_digest
    }

    /// Images that `docker load` will not find: artifacts, zstd layers, layers that are not carried.
    #[must_use]
    pub fn without_docker(&self) -> &[Reference] {
        &self.left_out
    }

    /// The size of the finished file in bytes, with or without a signature.
    #[must_use]
    pub fn total_size(&self, signed: bool) -> u64 {
        self.data_start(signed) + data_size(&self.head.blobs) + member::END
    }

    /// Where the data section starts.
    #[must_use]
    pub fn data_start(&self, signed: bool) -> u64 {
        let mut size = member::span(self.sums.len() as u64);
        if signed {
            size += member::span(keys::signature_size(&self.head.name, self.head.version.as_deref()));
        }
        size += self.front.iter().map(|(_, bytes)| member::span(bytes.len() as u64)).sum::<u64>();
        size + self.files.iter().map(|f| member::span(f.content.size())).sum::<u64>()
    }

    /// The members before the data section.
    pub(crate) fn front(&self, signature: Option<&str>) -> Vec<Placed> {
        let mut members: Vec<(String, FileContent)> = Vec::new();
        let mut small = |name: &str, bytes: Bytes| members.push((name.to_owned(), FileContent::Bytes(bytes)));
        small(member::SUMS, Bytes::copy_from_slice(self.sums.as_bytes()));
        if let Some(text) = signature {
            small(member::SIGNATURE, Bytes::copy_from_slice(text.as_bytes()));
        }
        for (name, bytes) in &self.front {
            small(name, bytes.clone());
        }
        members.extend(self.files.iter().map(|f| (f.name.clone(), f.content.clone())));
        let mut offset = 0;
        let mut placed = Vec::with_capacity(members.len());
        for (name, content) in members {
            let size = content.size();
            placed.push(Placed { name, offset, content });
            offset += member::span(size);
        }
        placed
    }
}

/// Refuses a head that no reader would take.
fn readable(head: Vec<u8>) -> Result<Vec<u8>, String> {
    match head.len() as u64 {
        0..=MAX_HEAD => Ok(head),
        size => Err(format!("`{}` would have {size} bytes, and readers take at most {MAX_HEAD}", member::HEAD)),
    }
}

/// Everything that a head lists, in the order of the file: files, then blobs.
pub(crate) fn carried(head: &Head) -> impl Iterator<Item = (String, &Digest)> {
    let files = head.yaml.iter().chain(&head.files).map(|f| (f.path.clone(), &f.digest));
    files.chain(head.blobs.iter().map(|b| (b.digest.blob_path(), &b.digest)))
}

/// The size of the data section.
pub(crate) fn data_size(blobs: &[HeadBlob]) -> u64 {
    blobs.iter().map(|b| member::span(b.size)).sum()
}

/// Computes every offset.
pub(crate) fn place(blobs: &mut [HeadBlob]) {
    let mut at: u64 = 0;
    for blob in blobs {
        blob.offset = at + member::BLOCK;
        // Sums beyond 64 bits are refused by `Head::check`.
        at = at.wrapping_add(member::BLOCK).wrapping_add(blob.size).wrapping_add(member::padding(blob.size));
    }
}

/// Nothing may be found missing on the far side: every blob of every manifest is carried or relied on, but for foreign layers.
fn check_whole(head: &Head, manifests: &BTreeMap<Digest, Bytes>) -> Result<(), String> {
    let carried = head.blobs.iter().map(|b| (&b.digest, b.size));
    let sizes: BTreeMap<&Digest, u64> = carried.chain(head.relies.iter().map(|r| (&r.digest, r.size))).collect();
    let mut checked = BTreeSet::new();
    for image in &head.images {
        for descriptor in [&image.root].into_iter().chain(&image.referrers) {
            if descriptor.media_type.is_empty() {
                return Err(format!("image `{}`: {} has no media type", image.reference, descriptor.digest));
            }
        }
        for platform in &image.platforms {
            if checked.insert(platform.manifest.digest.clone()) {
                let manifest = oci::parse(image, &platform.manifest, manifests)?;
                check_blobs(image, manifest.blobs(), &sizes)?;
            }
        }
        // of an index that refers to an image all is carried
        let mut open = image.referrers.clone();
        while let Some(descriptor) = open.pop() {
            if !checked.insert(descriptor.digest.clone()) {
                continue;
            }
            match oci::document(image, &descriptor, manifests)? {
                Manifest::Image(manifest) => check_blobs(image, manifest.blobs(), &sizes)?,
                Manifest::Index(index) => {
                    check_blobs(image, index.manifests.iter(), &sizes)?;
                    open.extend(index.manifests);
                }
            }
        }
    }
    Ok(())
}

fn check_blobs<'a>(
    image: &HeadImage,
    blobs: impl Iterator<Item = &'a Descriptor>,
    sizes: &BTreeMap<&Digest, u64>,
) -> Result<(), String> {
    for blob in blobs {
        match sizes.get(&blob.digest) {
            Some(size) if *size == blob.size => {}
            Some(size) => {
                return Err(format!(
                    "image `{}`: {} has {} bytes in its manifest and {size} among the blobs",
                    image.reference, blob.digest, blob.size
                ));
            }
            None if media_type::is_foreign_layer(&blob.media_type) => {}
            None => return Err(format!("image `{}`: {} is not among the blobs", image.reference, blob.digest)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_no_reader_takes_is_not_written() {
        let most = usize::try_from(MAX_HEAD).expect("a size");
        assert_eq!(readable(vec![0; most]).map(|head| head.len()), Ok(most));
        assert!(readable(vec![0; most + 1]).is_err_and(|why| why.contains("ferry.json")));
    }
}
