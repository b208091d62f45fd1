//! The members that make a bundle an OCI image layout and a file for `docker load`: `oci-layout`, `index.json`, `manifest.json`.
//!
//! The conditions were found by trying: skopeo finds an image in `oci-archive:` only by the whole value of the reference annotation;
//! containerd's import fails on artifacts that carry such annotations; docker 20.10 refuses the whole file when one layer
//! of one image is zstd.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ferry_image::media_type::{self, Compression};
use ferry_image::{Descriptor, Digest, ImageManifest, Manifest, Reference};
use serde::Serialize;

use crate::head::{Head, HeadImage};

/// The content of `oci-layout` (image-spec, image-layout.md).
pub const OCI_LAYOUT_JSON: &[u8] = b"{\"imageLayoutVersion\":\"1.0.0\"}";

/// The annotation that names an image, or a tag, in an OCI layout.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<Descriptor>,
}

/// One entry of `manifest.json`, as `docker save` writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DockerEntry {
    /// Where the config stands.
    pub config: String,
    /// The reference; `null` for one with a digest, which docker does not take as a tag.
    pub repo_tags: Option<Vec<String>>,
    /// Where the layers stand, lowest first.
    pub layers: Vec<String>,
}

/// `index.json`: one entry per reference, then everything that refers to them, each only if all of its blobs are in the file.
/// `manifests` holds the bytes of the manifests of every platform carried.
///
/// # Errors
/// A manifest that is missing in `manifests` or cannot be parsed; the text says which.
pub fn index(head: &Head, manifests: &BTreeMap<Digest, Bytes>) -> Result<Vec<u8>, String> {
    let relied: BTreeSet<&Digest> = head.relies.iter().map(|r| &r.digest).collect();
    let mut entries = Vec::new();
    let mut seen = BTreeSet::new();
    for image in &head.images {
        let mut lacks = false;
        for platform in &image.platforms {
            lacks |= relies(image, &platform.manifest, manifests, &relied)?;
        }
        if lacks {
            continue;
        }
        let mut entry = plain(&image.root);
        if is_container_image(image, manifests)? {
            let name = image.reference.to_string();
            entry.annotations.insert(REF_NAME.to_owned(), name.clone());
            entry.annotations.insert(CONTAINERD_NAME.to_owned(), name);
        } else if seen.contains(&image.root.digest) {
            continue;
        }
        seen.insert(&image.root.digest);
        entries.push(entry);
    }
    for (image, referrer) in head.images.iter().flat_map(|i| i.referrers.iter().map(move |r| (i, r))) {
        if !relies(image, referrer, manifests, &relied)? && seen.insert(&referrer.digest) {
            entries.push(plain(referrer));
        }
    }
    json(&Index { schema_version: 2, media_type: media_type::OCI_INDEX, manifests: entries })
}

/// Whether a blob of a manifest, or of those that an index names, is left to the far side.
fn relies(
    image: &HeadImage,
    descriptor: &Descriptor,
    manifests: &BTreeMap<Digest, Bytes>,
    relied: &BTreeSet<&Digest>,
) -> Result<bool, String> {
    if relied.is_empty() {
        return Ok(false);
    }
    Ok(match document(image, descriptor, manifests)? {
        Manifest::Image(manifest) => manifest.blobs().any(|blob| relied.contains(&blob.digest)),
        Manifest::Index(index) => {
            let carried = index.manifests.iter().filter(|below| manifests.contains_key(&below.digest));
            let below: Result<Vec<bool>, String> = carried.map(|b| relies(image, b, manifests, relied)).collect();
            below?.contains(&true)
        }
    })
}

/// `manifest.json`, and the images that cannot be in it.
///
/// # Errors
/// As [`index`].
pub fn docker(head: &Head, manifests: &BTreeMap<Digest, Bytes>) -> Result<(Vec<u8>, Vec<Reference>), String> {
    let carried: BTreeSet<&Digest> = head.blobs.iter().map(|b| &b.digest).collect();
    let (mut entries, mut left_out) = (Vec::new(), Vec::new());
    for image in &head.images {
        let first = image.platforms.first().map(|p| parse(image, &p.manifest, manifests)).transpose()?;
        let entry = first.and_then(|m| docker_entry(&image.reference, &m, |d| carried.contains(d)));
        match entry {
            Some(entry) => entries.push(entry),
            None => left_out.push(image.reference.clone()),
        }
    }
    Ok((json(&entries)?, left_out))
}

/// The entry of one image; `None` when docker could not load it: an artifact, a zstd layer, a layer that is not carried.
fn docker_entry(
    reference: &Reference,
    manifest: &ImageManifest,
    carried: impl Fn(&Digest) -> bool,
) -> Option<DockerEntry> {
    let readable = manifest
        .layers
        .iter()
        .all(|l| matches!(media_type::layer_compression(&l.media_type), Compression::None | Compression::Gzip));
    if !manifest.is_container_image() || !readable || !manifest.blobs().all(|b| carried(&b.digest)) {
        return None;
    }
    Some(DockerEntry {
        config: manifest.config.digest.blob_path(),
        repo_tags: reference.digest().is_none().then(|| vec![reference.to_string()]),
        layers: manifest.layers.iter().map(|l| l.digest.blob_path()).collect(),
    })
}

fn is_container_image(image: &HeadImage, manifests: &BTreeMap<Digest, Bytes>) -> Result<bool, String> {
    for platform in &image.platforms {
        if parse(image, &platform.manifest, manifests)?.is_container_image() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The manifest of one platform of `image`.
///
/// # Errors
/// When its bytes are not among `manifests` or it is no image manifest.
pub fn parse(
    image: &HeadImage,
    descriptor: &Descriptor,
    manifests: &BTreeMap<Digest, Bytes>,
) -> Result<ImageManifest, String> {
    match document(image, descriptor, manifests)? {
        Manifest::Image(manifest) => Ok(manifest),
        Manifest::Index(_) => {
            let why = "it is an index, not the manifest of one platform";
            Err(format!("image `{}`: manifest {}: {why}", image.reference, descriptor.digest))
        }
    }
}

/// A manifest or index of `image`.
///
/// # Errors
/// When its bytes are not among `manifests`, or are neither.
pub fn document(
    image: &HeadImage,
    descriptor: &Descriptor,
    manifests: &BTreeMap<Digest, Bytes>,
) -> Result<Manifest, String> {
    let fail = |why: String| format!("image `{}`: manifest {}: {why}", image.reference, descriptor.digest);
    let bytes = manifests.get(&descriptor.digest).ok_or_else(|| fail("its bytes are not known".to_owned()))?;
    let declared = Some(descriptor.media_type.as_str()).filter(|t| !t.is_empty());
    Manifest::parse(bytes, declared).map_err(|e| fail(e.to_string()))
}

/// What an index says of a blob, without the annotations that it had elsewhere.
fn plain(descriptor: &Descriptor) -> Descriptor {
    let mut entry = Descriptor::new(&descriptor.media_type, descriptor.digest.clone(), descriptor.size);
    entry.platform.clone_from(&descriptor.platform);
    entry.artifact_type.clone_from(&descriptor.artifact_type);
    entry
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, String> {
    serde_json::to_vec(value).map_err(|e| e.to_string())
}
