//! Images for nodes without a registry: an archive for docker or containerd, the images folder of k3s, an OCI layout.
//!
//! ```text
//! bundles ─▶ plan (which images, for which platforms, in which form, under which names) ─▶ parts ─▶ a tar, a folder, a command's stdin
//! ```
//!
//! Names stay as they are: what is exported is found by the names that are in users' YAML already. Everything is decided before the first
//! byte is written, except how many bytes a zstd layer is without compression, which docker's archive needs: such a layer is read twice.
//!
//! Reading order: [`names`], `documents`, `choose`, `part`, `tar`, `folder`.

mod choose;
mod documents;
mod error;
mod folder;
pub mod names;
mod part;
mod tar;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use ferry_content::raw::Raw;
use ferry_image::{Descriptor, Digest, Platform, Reference};
use serde::Serialize;

pub use choose::plan;
pub(crate) use error::DENIED;
pub use error::Fault;
pub use folder::write_folder;
pub use part::Part;
pub use tar::{Sink, refuse_other_than_file, write_file, write_pipe};

use crate::form::FormKind;

/// For whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// `docker load`, from 20.10 on.
    Docker,
    /// `ctr images import`.
    Containerd,
    /// The images folder of k3s and RKE2, which import every platform of an index, and fail on one that is not there.
    K3s,
    /// An OCI layout in a folder.
    Oci,
}

impl To {
    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::K3s => "k3s",
            Self::Oci => "oci",
        }
    }
}

/// What to export.
#[derive(Debug, Clone)]
pub struct Options {
    /// For whom.
    pub to: To,
    /// Only these: references, repositories, patterns with `*`; all when empty.
    pub images: Vec<String>,
    /// Only these platforms; all that are carried when empty.
    pub platforms: Vec<Platform>,
}

/// An image as it is exported.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Exported {
    /// As in the bundle.
    pub reference: Reference,
    /// What it is found by: in `index.json`.
    pub name: String,
    /// Its tags for docker.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// What the bundle has under the reference.
    pub source_digest: Digest,
    /// What is exported under it.
    pub digest: Digest,
    /// How that relates to the other.
    pub form: FormKind,
    /// For which platforms; empty for an artifact.
    pub platforms: Vec<Platform>,
    /// The digest of its config, by which docker knows it, where it is for docker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Digest>,
}

/// An image that is exported, with all that belongs to it.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// What it is.
    pub exported: Exported,
    root: Descriptor,
    /// Manifests and indexes, the root last.
    manifests: Vec<(Descriptor, Bytes)>,
    /// Configs and layers.
    blobs: Vec<Descriptor>,
    /// Signatures and the like, which an index lists without names.
    referrers: Vec<Descriptor>,
    docker: Option<ForDocker>,
}

impl Chosen {
    /// Everything that it consists of.
    pub(crate) fn digests(&self) -> impl Iterator<Item = &Digest> {
        let manifests = self.manifests.iter().map(|(manifest, _)| manifest);
        manifests.chain(&self.blobs).map(|descriptor| &descriptor.digest)
    }
}

/// What `manifest.json` says of an image.
#[derive(Debug, Clone)]
struct ForDocker {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// What will be exported.
pub struct Export {
    /// For whom.
    pub to: To,
    /// The images, in the order of the bundles.
    pub images: Vec<Chosen>,
    /// What somebody should know.
    pub notes: Vec<String>,
    /// The bundle's name, for a file's.
    pub stem: String,
    /// The files that are read.
    sources: Vec<PathBuf>,
    provider: Arc<Raw>,
}

impl Export {
    /// One part with all images; none where there are none.
    #[must_use]
    pub fn whole(&self) -> Option<Part> {
        (!self.images.is_empty()).then(|| Part::of(self.to, self.stem.clone(), &self.images.iter().collect::<Vec<_>>()))
    }

    /// A part for each image, with names of their own.
    #[must_use]
    pub fn each(&self) -> Vec<Part> {
        let mut taken = std::collections::BTreeSet::new();
        let part = |chosen: &Chosen| {
            let name = &chosen.exported.name;
            let mut stem = names::stem(name);
            // two names may differ in nothing but what a file's name cannot have
            if !taken.insert(stem.to_ascii_lowercase()) {
                stem = format!("{stem}-{}", Digest::of(name.as_bytes()).short());
                taken.insert(stem.to_ascii_lowercase());
            }
            Part::of(self.to, stem, &[chosen])
        };
        self.images.iter().map(part).collect()
    }

    /// Leaves images out that are where they should go already.
    pub fn without(&mut self, is_there: impl Fn(&Exported) -> bool) {
        self.images.retain(|chosen| !is_there(&chosen.exported));
    }
}
