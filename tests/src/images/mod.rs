//! Sample images, made without any outside tool and the same on every run.
//!
//! An [`Image`] is everything that one reference leads to: a single manifest, or an index with all it names. Where it is written
//! to (a registry, an OCI layout, a docker-save tar) is decided elsewhere.

mod busybox;
pub mod docker_save;
mod layer;
pub mod layout;
mod random;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub use busybox::{architecture, busybox, busybox_available};
pub use layer::{Compression, Entry, Layer, gzip};
pub use random::Random;

/// Whose media types a manifest uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OCI image-spec 1.0 and later.
    Oci,
    /// Docker schema 2.
    Docker,
}

/// A descriptor as manifests and indexes hold it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type of what is described.
    pub media_type: String,
    /// `sha256:…`.
    pub digest: String,
    /// In bytes.
    pub size: u64,
    /// For a child of an index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Value>,
    /// For artifacts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Free text.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// That of these bytes.
    #[must_use]
    pub fn new(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: digest(bytes),
            size: bytes.len() as u64,
            platform: None,
            artifact_type: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// What a single-platform image was made from.
#[derive(Debug, Clone)]
pub struct Single {
    /// The lowest first.
    pub layers: Vec<Layer>,
    /// The config's bytes.
    pub config: Vec<u8>,
}

/// A manifest or an index, with everything it leads to.
#[derive(Debug, Clone)]
pub struct Image {
    /// The topmost manifest or index.
    pub root: Descriptor,
    /// Every manifest and index, children before parents, the root last.
    pub manifests: Vec<(Descriptor, Vec<u8>)>,
    /// Every config and layer by digest.
    pub blobs: BTreeMap<String, Arc<Vec<u8>>>,
    /// Present when the root is an image manifest.
    pub single: Option<Single>,
}

impl Image {
    /// An image for `platform` (`os/architecture[/variant]`).
    #[must_use]
    pub fn single(platform: &str, format: Format, layers: Vec<Layer>) -> Self {
        Self::with_config(platform, format, layers, &json!({"Cmd": ["/bin/true"]}))
    }

    /// An image for `platform` whose config has `run` as its `config` object.
    #[must_use]
    pub fn with_config(platform: &str, format: Format, layers: Vec<Layer>, run: &Value) -> Self {
        let mut config = platform_object(platform);
        let fields = config.as_object_mut().unwrap();
        fields.insert("created".into(), json!("1970-01-01T00:00:00Z"));
        fields.insert("config".into(), run.clone());
        fields.insert(
            "rootfs".into(),
            json!({"type": "layers", "diff_ids": layers.iter().map(Layer::diff_id).collect::<Vec<_>>()}),
        );
        fields.insert(
            "history".into(),
            layers.iter().map(|_| json!({"created": "1970-01-01T00:00:00Z", "created_by": "ferry-tests"})).collect(),
        );
        let config = serde_json::to_vec(&config).unwrap();
        let (media_type, config_type) = match format {
            Format::Oci => ("application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.config.v1+json"),
            Format::Docker => (
                "application/vnd.docker.distribution.manifest.v2+json",
                "application/vnd.docker.container.image.v1+json",
            ),
        };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": Descriptor::new(config_type, &config),
            "layers": layers.iter().map(|l| Descriptor::new(l.media_type(format), &l.stored)).collect::<Vec<_>>(),
        });
        // docker indents its manifests: whoever writes them anew changes the digest, and is caught
        let bytes = match format {
            Format::Oci => serde_json::to_vec(&manifest).unwrap(),
            Format::Docker => serde_json::to_vec_pretty(&manifest).unwrap(),
        };
        let mut root = Descriptor::new(media_type, &bytes);
        root.platform = Some(platform_object(platform));
        let mut blobs: BTreeMap<String, Arc<Vec<u8>>> =
            layers.iter().map(|layer| (layer.digest(), Arc::clone(&layer.stored))).collect();
        blobs.insert(digest(&config), Arc::new(config.clone()));
        Self { manifests: vec![(root.clone(), bytes)], root, blobs, single: Some(Single { layers, config }) }
    }

    /// An index over `children`, which may be indexes themselves.
    #[must_use]
    pub fn index(format: Format, children: &[&Image]) -> Self {
        let media_type = match format {
            Format::Oci => "application/vnd.oci.image.index.v1+json",
            Format::Docker => "application/vnd.docker.distribution.manifest.list.v2+json",
        };
        let index = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "manifests": children.iter().map(|child| &child.root).collect::<Vec<_>>(),
        });
        let bytes = serde_json::to_vec_pretty(&index).unwrap();
        let root = Descriptor::new(media_type, &bytes);
        let mut image = Self { root: root.clone(), manifests: Vec::new(), blobs: BTreeMap::new(), single: None };
        let mut seen = BTreeSet::new();
        for child in children {
            image.blobs.extend(child.blobs.clone());
            let fresh = child.manifests.iter().filter(|(d, _)| seen.insert(d.digest.clone()));
            image.manifests.extend(fresh.cloned());
        }
        image.manifests.push((root, bytes));
        image
    }

    /// An artifact: a manifest of `artifact_type` with the empty config and one blob.
    #[must_use]
    pub fn artifact(artifact_type: &str, payload: &[u8]) -> Self {
        Self::artifact_about(artifact_type, payload, None)
    }

    /// An artifact that refers to `subject`: a signature, an SBOM.
    #[must_use]
    pub fn referrer(subject: &Image, artifact_type: &str, payload: &[u8]) -> Self {
        Self::artifact_about(artifact_type, payload, Some(&subject.root))
    }

    fn artifact_about(artifact_type: &str, payload: &[u8], subject: Option<&Descriptor>) -> Self {
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let empty = b"{}".to_vec();
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "artifactType": artifact_type,
            "config": Descriptor::new("application/vnd.oci.empty.v1+json", &empty),
            "layers": [Descriptor::new("application/octet-stream", payload)],
        });
        if let Some(subject) = subject {
            let subject = Descriptor { platform: None, ..subject.clone() };
            manifest.as_object_mut().unwrap().insert("subject".into(), json!(subject));
        }
        let bytes = serde_json::to_vec(&manifest).unwrap();
        let mut root = Descriptor::new(media_type, &bytes);
        root.artifact_type = Some(artifact_type.to_owned());
        let blobs = [empty, payload.to_vec()].into_iter().map(|blob| (digest(&blob), Arc::new(blob))).collect();
        Self { manifests: vec![(root.clone(), bytes)], root, blobs, single: None }
    }

    /// The root's digest.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.root.digest
    }

    /// The bytes of the manifest or index `digest`.
    #[must_use]
    pub fn manifest(&self, digest: &str) -> Option<&[u8]> {
        self.manifests.iter().find(|(d, _)| d.digest == digest).map(|(_, bytes)| bytes.as_slice())
    }

    /// The manifest that an index holds for `platform`.
    #[must_use]
    pub fn platform(&self, platform: &str) -> Option<&Descriptor> {
        let wanted = platform_object(platform);
        self.manifests.iter().map(|(d, _)| d).find(|d| d.platform.as_ref() == Some(&wanted))
    }

    /// The bytes of all blobs together.
    #[must_use]
    pub fn blob_bytes(&self) -> u64 {
        self.blobs.values().map(|blob| blob.len() as u64).sum()
    }
}

/// `sha256:…` of bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

/// SHA-256 in hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn platform_object(platform: &str) -> Value {
    let mut parts = platform.split('/');
    let (os, architecture) = (parts.next().unwrap(), parts.next().expect("os/architecture"));
    match parts.next() {
        None => json!({"architecture": architecture, "os": os}),
        Some(variant) => json!({"architecture": architecture, "os": os, "variant": variant}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_indexes_list_children_first_and_once() {
        let a = Image::single("linux/amd64", Format::Oci, vec![Layer::random(1, 100)]);
        let b = Image::single("linux/arm64/v8", Format::Docker, vec![Layer::random(1, 100), Layer::random(2, 100)]);
        let inner = Image::index(Format::Oci, &[&a, &b]);
        let outer = Image::index(Format::Oci, &[&inner, &a]);
        let order: Vec<&str> = outer.manifests.iter().map(|(d, _)| d.digest.as_str()).collect();
        assert_eq!(order, [a.digest(), b.digest(), inner.digest(), outer.digest()]);
        assert_eq!(outer.blobs.len(), 4, "two configs, two layers, the shared one once");
        assert_eq!(outer.platform("linux/arm64/v8").unwrap().digest, b.digest());
    }

    #[test]
    fn images_are_the_same_on_every_run() {
        let image = Image::single("linux/amd64", Format::Docker, vec![Layer::mixed(3, 5000, 0.5)]);
        let again = Image::single("linux/amd64", Format::Docker, vec![Layer::mixed(3, 5000, 0.5)]);
        assert_eq!(image.digest(), again.digest());
    }
}
