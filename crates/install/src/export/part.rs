//! What goes into one archive or one folder: its documents, and which blobs in which order. Pure.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ferry_archive::member;
use ferry_archive::oci::OCI_LAYOUT_JSON;
use ferry_image::{Descriptor, Digest};
use serde_json::Value;

use super::{Chosen, Exported, To, documents};

/// Some images together.
#[derive(Debug, Clone)]
pub struct Part {
    /// A name for its file, without an end.
    pub stem: String,
    /// What is in it.
    pub images: Vec<Exported>,
    /// The entries of its `index.json`.
    pub(super) entries: Vec<Value>,
    /// `manifest.json`, where it is for docker.
    pub(super) docker: Option<Vec<u8>>,
    /// Manifests and indexes.
    pub(super) documents: Vec<(Digest, Bytes)>,
    /// Configs, then layers, in the order of their first use.
    pub(super) blobs: Vec<Descriptor>,
    /// The image that needs a blob first, for messages.
    pub(super) needed_by: BTreeMap<Digest, String>,
}

/// A member of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Member {
    /// Its name and its content.
    Bytes(String, Bytes),
    /// What is copied.
    Blob(Descriptor),
}

impl Part {
    /// These images.
    pub(super) fn of(to: To, stem: String, images: &[&Chosen]) -> Self {
        let (mut entries, mut unnamed) = (Vec::new(), Vec::new());
        let (mut documents, mut needed_by) = (Vec::new(), BTreeMap::new());
        let (mut small, mut large) = (Vec::new(), Vec::new());
        let mut seen = BTreeSet::new();
        for chosen in images {
            let entry = documents::entry(&chosen.root, Some(&chosen.exported.name));
            if !entries.contains(&entry) {
                entries.push(entry);
            }
            for referrer in &chosen.referrers {
                let entry = documents::entry(referrer, None);
                if !unnamed.contains(&entry) {
                    unnamed.push(entry);
                }
            }
            for (descriptor, bytes) in &chosen.manifests {
                if seen.insert(&descriptor.digest) {
                    documents.push((descriptor.digest.clone(), bytes.clone()));
                }
            }
            for blob in &chosen.blobs {
                if seen.insert(&blob.digest) {
                    let subject = format!("image `{}`", chosen.exported.reference.written());
                    needed_by.insert(blob.digest.clone(), subject);
                    if is_layer(blob) { large.push(blob.clone()) } else { small.push(blob.clone()) }
                }
            }
        }
        entries.extend(unnamed);
        small.extend(large);
        Self {
            stem,
            images: images.iter().map(|chosen| chosen.exported.clone()).collect(),
            entries,
            docker: (to == To::Docker).then(|| documents::docker(images)),
            documents,
            blobs: small,
            needed_by,
        }
    }

    /// The members of an archive: what says what is in it, then blobs.
    pub(super) fn members(&self) -> Vec<Member> {
        let bytes = |name: &str, content: Vec<u8>| Member::Bytes(name.to_owned(), content.into());
        let mut members = vec![
            bytes(member::OCI_LAYOUT, OCI_LAYOUT_JSON.to_vec()),
            bytes(member::INDEX, documents::index(self.entries.clone())),
        ];
        members.extend(self.docker.clone().map(|text| bytes(member::MANIFEST, text)));
        members.extend(self.documents.iter().map(|(digest, text)| Member::Bytes(digest.blob_path(), text.clone())));
        members.extend(self.blobs.iter().cloned().map(Member::Blob));
        members
    }

    /// How many bytes its archive has.
    #[must_use]
    pub fn size(&self) -> u64 {
        let size = |member: &Member| match member {
            Member::Bytes(_, content) => content.len() as u64,
            Member::Blob(blob) => blob.size,
        };
        self.members().iter().map(|member| member::span(size(member))).sum::<u64>() + member::END
    }

    /// How many blobs are copied, and their bytes.
    #[must_use]
    pub fn blobs(&self) -> (usize, u64) {
        (self.blobs.len(), self.blobs.iter().map(|blob| blob.size).sum())
    }

    /// How the image that needs a blob is named in messages.
    pub(super) fn subject(&self, digest: &Digest) -> String {
        self.needed_by.get(digest).cloned().unwrap_or_default()
    }
}

/// Layers come last, as they are large and nobody looks into them to know what there is.
fn is_layer(blob: &Descriptor) -> bool {
    blob.media_type.contains("layer") || blob.media_type.contains("rootfs")
}
