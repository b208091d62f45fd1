//! What will be in the bundle, from what was resolved. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use ferry_archive::{Absent, Contents, Head, HeadBlob, HeadImage, HeadPlatform, Layout};
use ferry_content::{Provider, memory::Memory};
use ferry_image::{Descriptor, Digest, Reference, relocation};

use crate::Error;
use crate::lock::Lock;
use crate::manifest::{BundleManifest, Platforms};
use crate::resolve::Outcome;

/// A bundle that can be built.
pub struct Plan {
    /// The file, laid out.
    pub layout: Layout,
    /// What every reference was resolved to.
    pub lock: Lock,
    /// What there is to say of each image.
    pub images: Vec<PlannedImage>,
    /// Things that are no errors but that somebody should know.
    pub warnings: Vec<String>,
    /// Bytes that more than one image needs, counted as often as they are saved.
    pub shared_bytes: u64,
    /// Bytes that wait in the spool folder until the bundle is written.
    pub spooled_bytes: u64,
    pub(crate) blobs: Vec<(Descriptor, Arc<dyn Provider>)>,
}

/// One image of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedImage {
    /// Its reference.
    pub reference: Reference,
    /// Where it comes from.
    pub source: String,
    /// The platforms carried; empty for an artifact.
    pub platforms: Vec<String>,
    /// Bytes of all its blobs, shared ones included.
    pub bytes: u64,
    /// How many blobs it has.
    pub blobs: usize,
}

/// Lays out what was resolved.
///
/// # Errors
/// When two images would have one name at the target, or the bundle format cannot hold it.
pub(crate) fn plan(
    manifest: &BundleManifest,
    chosen: Option<&Platforms>,
    outcome: Outcome,
    files: Vec<ferry_archive::File>,
    mut warnings: Vec<String>,
) -> Result<Plan, Error> {
    let Outcome { images, absent } = outcome;
    let named: Vec<_> = images
        .iter()
        .map(|r| {
            let image = &manifest.images[r.index];
            (&image.reference, &r.root.digest, manifest.target_of(image))
        })
        .collect();
    relocation::check_collisions(named.iter().map(|(r, d, n)| (*r, *d, n))).map_err(Error::Collision)?;

    let mut documents: BTreeMap<Digest, Bytes> = BTreeMap::new();
    for resolved in &images {
        documents.extend(resolved.documents.iter().map(|(d, b)| (d.clone(), b.clone())));
    }
    let mut memory = Memory::default();
    for bytes in documents.values() {
        memory.insert(bytes.clone());
    }
    let memory: Arc<dyn Provider> = Arc::new(memory);

    // manifests and configs first, then layers in order of first use
    let mut blobs: Vec<(Descriptor, Arc<dyn Provider>)> = Vec::new();
    let mut seen: BTreeSet<Digest> = BTreeSet::new();
    let mut place = |blob: &Descriptor, provider: &Arc<dyn Provider>| {
        if seen.insert(blob.digest.clone()) {
            let known = documents.contains_key(&blob.digest);
            blobs.push((blob.clone(), Arc::clone(if known { &memory } else { provider })));
        }
    };
    for resolved in &images {
        resolved.selected.documents.iter().chain(&resolved.selected.configs).for_each(|b| place(b, &resolved.provider));
    }
    for resolved in &images {
        resolved.selected.layers.iter().for_each(|b| place(b, &resolved.provider));
    }

    let mut planned = Vec::new();
    let mut wanted_bytes = 0;
    for resolved in &images {
        let selected = &resolved.selected;
        let all = || selected.documents.iter().chain(&selected.configs).chain(&selected.layers);
        let bytes = all().map(|b| b.size).sum();
        wanted_bytes += bytes;
        let reference = &manifest.images[resolved.index].reference;
        for layer in &selected.foreign {
            warnings
                .push(format!("{reference}: layer {} is only named by the image, and is not carried", layer.digest));
        }
        planned.push(PlannedImage {
            reference: reference.clone(),
            source: resolved.place.clone(),
            platforms: selected.manifests.iter().filter_map(|(p, _)| Some(p.as_ref()?.to_string())).collect(),
            bytes,
            blobs: all().count(),
        });
    }
    let unique: u64 = blobs.iter().map(|(b, _)| b.size).sum();

    let lock = Lock::new(
        chosen.or(manifest.platforms.as_ref()).cloned().unwrap_or(Platforms::These(Vec::new())),
        images.iter().map(|r| r.locked(&manifest.images[r.index].reference)).collect(),
        absent.iter().map(|(reference, _)| reference.clone()).collect(),
    );
    let head = head(manifest, &lock.platforms, &images, &absent, &blobs);
    for (reference, reason) in &absent {
        warnings.push(format!("optional image {reference} is left out: {reason}"));
    }
    let layout = Layout::new(Contents { head, manifests: documents, files })?;
    let spooled_bytes = images.iter().map(|r| r.spooled).sum();
    Ok(Plan { layout, lock, images: planned, warnings, shared_bytes: wanted_bytes - unique, spooled_bytes, blobs })
}

fn head(
    manifest: &BundleManifest,
    platforms: &Platforms,
    images: &[crate::resolve::Resolved],
    absent: &[(Reference, String)],
    blobs: &[(Descriptor, Arc<dyn Provider>)],
) -> Head {
    let left_out = |image: &Reference| absent.iter().any(|(reference, _)| reference == image);
    Head {
        format: ferry_archive::head::FORMAT,
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        platforms: platforms.clone().into(),
        layout: manifest.layout,
        images: images
            .iter()
            .map(|resolved| {
                let image = &manifest.images[resolved.index];
                HeadImage {
                    reference: image.reference.clone(),
                    target: image.target.clone(),
                    source: source_of(resolved),
                    root: resolved.root.clone(),
                    platforms: resolved
                        .selected
                        .manifests
                        .iter()
                        .map(|(platform, manifest)| HeadPlatform {
                            platform: platform.clone(),
                            manifest: Descriptor::new(&manifest.media_type, manifest.digest.clone(), manifest.size),
                        })
                        .collect(),
                    referrers: Vec::new(),
                }
            })
            .collect(),
        absent: absent
            .iter()
            .map(|(reference, _)| Absent {
                reference: reference.clone(),
                // the exact words depend on the network; the bundle's bytes must not
                reason: "optional, and not there when the bundle was resolved".to_owned(),
            })
            .collect(),
        yaml: Vec::new(),
        files: Vec::new(),
        set: manifest.set.iter().filter(|rule| !left_out(&rule.image)).cloned().collect(),
        ignore: manifest.ignore.clone(),
        blobs: blobs
            .iter()
            .map(|(blob, _)| HeadBlob { digest: blob.digest.clone(), size: blob.size, offset: 0 })
            .collect(),
    }
}

/// The source for the head: no path of the machine that built it.
fn source_of(resolved: &crate::resolve::Resolved) -> String {
    match &resolved.source {
        crate::lock::Source::Registry { reference } => reference.repository(),
        crate::lock::Source::Archive(archive) => archive.path.clone(),
    }
}
