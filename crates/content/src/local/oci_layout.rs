//! The OCI image layout (image-spec, image-layout.md): `oci-layout`, `index.json`, `blobs/<algorithm>/<hex>`.
//!
//! Names of images stand in annotations of `index.json`: containerd and docker write the full name into
//! `io.containerd.image.name` and the tag alone into `org.opencontainers.image.ref.name`; skopeo and buildah write what the user
//! said into the latter.

use std::collections::BTreeMap;

use bytes::Bytes;
use ferry_image::manifest::MAX_MANIFEST;
use ferry_image::media_type::{is_index, is_manifest};
use ferry_image::{Descriptor, Digest, Manifest};
use serde::Deserialize;

use super::docker_save::is_name;
use super::files::Files;
use super::{LocalImage, Root, fault};
use crate::Error;

const CONTAINERD_NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

/// Refuses layouts of a version that does not exist yet.
pub(super) fn check_version(files: &Files) -> Result<(), Error> {
    let bytes = files.require("oci-layout", "the file that marks an OCI layout,")?.read_small("oci-layout", 4096)?;
    let hint = "image-layout.md of the OCI image specification says what it should be";
    let marker: Marker = serde_json::from_slice(&bytes)
        .map_err(|e| fault::invalid(files.path(), format!("its `oci-layout` is not readable: {e}"), hint))?;
    if marker.image_layout_version.split('.').next() != Some("1") {
        let version: String = marker.image_layout_version.chars().take(40).collect();
        return Err(fault::invalid(files.path(), format!("it is an OCI layout of unknown version `{version}`"), hint));
    }
    Ok(())
}

/// The images that `index.json` lists. One digest under several entries (tags) counts once, with all names.
pub(super) fn images(files: &Files) -> Result<Vec<LocalImage>, Error> {
    let path = files.path();
    let bytes = files.require("index.json", "the list of images")?.read_small("index.json", MAX_MANIFEST)?;
    let parsed = Manifest::parse(&bytes, None)
        .map_err(|e| fault::invalid(path, format!("its `index.json` is {e}"), "save or export the image again"))?;
    let Manifest::Index(index) = parsed else {
        let hint = "its place is under `blobs/`, with an index naming it";
        return Err(fault::invalid(path, "its `index.json` is a manifest, not an index", hint));
    };
    let mut images: Vec<LocalImage> = Vec::new();
    let mut seen: BTreeMap<Digest, usize> = BTreeMap::new();
    for descriptor in index.manifests {
        let kind = descriptor.media_type.as_str();
        if !(is_index(kind) || is_manifest(kind) || kind.is_empty()) {
            continue; // other things may be listed too (image-layout.md, "index.json")
        }
        let names = names(&descriptor.annotations);
        match seen.get(&descriptor.digest) {
            Some(i) => images[*i].add_names(names),
            None => {
                seen.insert(descriptor.digest.clone(), images.len());
                images.push(LocalImage { names, root: Root::Manifest(descriptor) });
            }
        }
    }
    Ok(images)
}

/// The full name, where it is given; the tag beside it says nothing more then.
fn names(annotations: &BTreeMap<String, String>) -> Vec<String> {
    let full = annotations.get(CONTAINERD_NAME).filter(|n| is_name(n));
    full.or_else(|| annotations.get(REF_NAME).filter(|n| is_name(n))).cloned().into_iter().collect()
}

/// The bytes of a manifest or index, checked. `None` when the layout does not have it (saved for some platforms only).
pub(super) fn manifest(files: &Files, digest: &Digest, size: Option<u64>) -> Result<Option<Bytes>, Error> {
    let Some(extent) = files.find(&digest.blob_path())? else { return Ok(None) };
    let place = || files.path().display().to_string();
    if let Some(expected) = size
        && expected != extent.length
    {
        let (digest, found) = (digest.clone(), extent.length);
        return Err(Error::SizeMismatch { place: place(), digest, expected, found });
    }
    let bytes = extent.read_small(&digest.to_string(), MAX_MANIFEST)?;
    let mut hasher = ferry_image::Hasher::new(digest.algorithm());
    hasher.update(&bytes);
    let found = hasher.finish();
    if found != *digest {
        return Err(Error::DigestMismatch { place: place(), expected: digest.clone(), found });
    }
    Ok(Some(bytes))
}

/// The same for one that must be there, parsed.
pub(super) fn parsed(files: &Files, descriptor: &Descriptor) -> Result<Option<(Bytes, Manifest)>, Error> {
    let Some(bytes) = manifest(files, &descriptor.digest, Some(descriptor.size))? else { return Ok(None) };
    let parsed = Manifest::parse(&bytes, Some(&descriptor.media_type))
        .map_err(|e| fault::damaged(files.path(), format!("{} is {e}", descriptor.digest)))?;
    Ok(Some((bytes, parsed)))
}
