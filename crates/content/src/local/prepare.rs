//! From an image as it stands in a local source to one that can be carried: root, manifests, blobs.
//!
//! A pure OCI layout is carried as it is. In what `docker save` writes, old kind or new, nobody pins the digests of raw layers, so
//! they are compressed and the manifest over them is ferry's own, in OCI media types: config bytes verbatim, layers in order.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use ferry_image::media_type::{self, Compression};
use ferry_image::{Descriptor, Digest, ImageConfig, ImageManifest, Manifest, Platform};
use serde::Serialize;

use super::compress::Layers;
use super::docker_save::{self, MAX_CONFIG, SavedImage};
use super::extent::Extent;
use super::files::Files;
use super::spool::{Watch, Work, Worked, compress, examine};
use super::{Limits, fault, oci_layout};
use crate::Error;

/// How deep indexes may name indexes.
const MAX_DEPTH: usize = 4;
/// The most manifests and indexes under one root that are read, each as often as it is listed.
const MAX_MANIFESTS: usize = 512;

/// What is to be done for an image; nothing large was read yet.
pub(super) enum Draft {
    /// It is carried as it is; the bytes are those of its root.
    Verbatim(Box<(Descriptor, Bytes)>),
    /// Its manifests are made anew.
    Made(Vec<DraftImage>),
}

/// One image of one platform, with a manifest to be made.
pub(super) struct DraftImage {
    config: Bytes,
    platform: Platform,
    annotations: BTreeMap<String, String>,
    layers: Vec<DraftLayer>,
}

enum DraftLayer {
    /// As it is.
    Keep(Descriptor, Extent),
    /// To be compressed or at least hashed.
    Work(Work),
}

/// What came of a draft.
#[derive(Default)]
pub(super) struct Made {
    /// Manifests, the root last.
    pub(super) manifests: Vec<(Descriptor, Bytes)>,
    pub(super) configs: Vec<Bytes>,
    pub(super) extents: BTreeMap<Digest, Extent>,
    /// (diff id, descriptor) of each layer that was compressed.
    pub(super) compressed: Vec<(Digest, Descriptor)>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ManifestOut<'a> {
    schema_version: u32,
    media_type: &'a str,
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IndexOut<'a> {
    schema_version: u32,
    media_type: &'a str,
    manifests: Vec<Descriptor>,
}

/// An image manifest that the source has, under a root.
struct Leaf {
    descriptor: Descriptor,
    manifest: ImageManifest,
    layers: Vec<Extent>,
    config: Bytes,
    view: ImageConfig,
}

/// Drafts an image of the kind without OCI manifests.
pub(super) fn draft_saved(files: &Files, saved: &SavedImage, layers: Layers) -> Result<Draft, Error> {
    let (config, view) = docker_save::config(files, saved)?;
    let mut drafted = Vec::new();
    for (name, diff_id) in saved.layers.iter().zip(&view.diff_ids) {
        let extent = files.require(name, "layer")?;
        let compression = extent.compression()?;
        drafted.push(if compression == Compression::None && layers == Layers::Verbatim {
            // its digest is its diff id: whoever copies it checks that
            DraftLayer::Keep(Descriptor::new(media_type::OCI_LAYER, diff_id.clone(), extent.length), extent)
        } else {
            DraftLayer::Work(Work { extent, name: name.clone(), diff_id: diff_id.clone(), compression })
        });
    }
    let image = DraftImage { config, platform: view.platform, annotations: BTreeMap::new(), layers: drafted };
    Ok(Draft::Made(vec![image]))
}

/// Drafts an image that has OCI manifests. `remake`: whether raw layers may be compressed at all.
pub(super) fn draft_listed(
    files: &Files,
    root: &Descriptor,
    remake: bool,
    layers: Layers,
    platforms: &[Platform],
) -> Result<Draft, Error> {
    let Some((bytes, parsed)) = oci_layout::parsed(files, root)? else {
        return Err(fault::damaged(
            files.path(),
            format!("its `index.json` lists {}, which is not in it", root.digest),
        ));
    };
    let verbatim = Descriptor::new(parsed.media_type(), root.digest.clone(), root.size);
    if !remake || layers == Layers::Verbatim {
        return Ok(Draft::Verbatim(Box::new((verbatim, bytes))));
    }
    let mut leaves = Vec::new();
    gather(files, root, parsed, 0, &mut 0, &mut leaves)?;
    let leaves = select(files, leaves, platforms)?;
    let mut images = Vec::new();
    let mut any_raw = false;
    for leaf in leaves {
        let (image, raw) = draft_leaf(files, leaf)?;
        any_raw |= raw;
        images.push(image);
    }
    Ok(if any_raw { Draft::Made(images) } else { Draft::Verbatim(Box::new((verbatim, bytes))) })
}

/// Collects the container images under a manifest that the source has with all their blobs.
fn gather(
    files: &Files,
    descriptor: &Descriptor,
    parsed: Manifest,
    depth: usize,
    read: &mut usize,
    leaves: &mut Vec<Leaf>,
) -> Result<(), Error> {
    *read += 1;
    if *read > MAX_MANIFESTS {
        return Err(fault::damaged(files.path(), format!("one image has more than {MAX_MANIFESTS} manifests")));
    }
    match parsed {
        Manifest::Image(manifest) => {
            let is_image = manifest.is_container_image() && manifest.subject.is_none();
            if is_image && let Some(leaf) = leaf(files, descriptor, manifest, depth == 0)? {
                leaves.push(leaf);
            }
        }
        Manifest::Index(index) => {
            if depth >= MAX_DEPTH {
                return Err(fault::damaged(files.path(), format!("indexes name indexes more than {MAX_DEPTH} deep")));
            }
            for child in &index.manifests {
                if child.platform.as_ref().is_some_and(Platform::is_unknown) {
                    continue; // an attestation of the manifest that would be replaced
                }
                if let Some((_, parsed)) = oci_layout::parsed(files, child)? {
                    gather(files, child, parsed, depth + 1, read, leaves)?;
                }
            }
        }
    }
    Ok(())
}

/// `None` where blobs are missing, as for the platforms that `docker save` left out, unless it is the image itself.
fn leaf(files: &Files, descriptor: &Descriptor, manifest: ImageManifest, must: bool) -> Result<Option<Leaf>, Error> {
    let mut extents = Vec::new();
    for blob in manifest.blobs() {
        let found = files.find(&blob.digest.blob_path())?;
        match found {
            Some(extent) if extent.length == blob.size => extents.push(extent),
            Some(extent) => {
                let place = files.path().display().to_string();
                let (digest, expected, found) = (blob.digest.clone(), blob.size, extent.length);
                return Err(Error::SizeMismatch { place, digest, expected, found });
            }
            None if must => {
                let why = format!("{} needs blob {}, which is not in it", descriptor.digest, blob.digest);
                return Err(fault::damaged(files.path(), why));
            }
            None => return Ok(None),
        }
    }
    let config = extents.remove(0).read_small(&manifest.config.digest.to_string(), MAX_CONFIG)?;
    let found = Digest::of(&config);
    if found != manifest.config.digest {
        let place = files.path().display().to_string();
        return Err(Error::DigestMismatch { place, expected: manifest.config.digest, found });
    }
    let view = ImageConfig::parse(&config)
        .map_err(|e| fault::damaged(files.path(), format!("config {} is {e}", manifest.config.digest)))?;
    Ok(Some(Leaf { descriptor: descriptor.clone(), manifest, layers: extents, config, view }))
}

/// Keeps the leaves for the wanted platforms; all when none is wanted in particular.
fn select(files: &Files, leaves: Vec<Leaf>, wanted: &[Platform]) -> Result<Vec<Leaf>, Error> {
    if wanted.is_empty() || leaves.is_empty() {
        return Ok(leaves);
    }
    let platform = |l: &Leaf| l.descriptor.platform.clone().unwrap_or_else(|| l.view.platform.clone());
    let there: Vec<Platform> = leaves.iter().map(platform).collect();
    let mut keep = vec![false; leaves.len()];
    for platform in wanted {
        let best = platform.best(&there).map_err(|e| {
            fault::missing(files.path(), e.to_string(), "save the image again on, or for, that platform")
        })?;
        keep[best] = true;
    }
    Ok(leaves.into_iter().zip(keep).filter_map(|(leaf, keep)| keep.then_some(leaf)).collect())
}

fn draft_leaf(files: &Files, leaf: Leaf) -> Result<(DraftImage, bool), Error> {
    let Leaf { descriptor, manifest, layers, config, view } = leaf;
    if view.diff_ids.len() != manifest.layers.len() {
        let (has, says) = (manifest.layers.len(), view.diff_ids.len());
        let why = format!("{} has {has} layers, but its config lists {says}", descriptor.digest);
        return Err(fault::damaged(files.path(), why));
    }
    let mut any_raw = false;
    let mut drafted = Vec::new();
    for ((layer, extent), diff_id) in manifest.layers.into_iter().zip(layers).zip(view.diff_ids) {
        let raw = media_type::layer_compression(&layer.media_type) == Compression::None
            && extent.compression()? == Compression::None;
        any_raw |= raw;
        drafted.push(if raw {
            let name = layer.digest.blob_path();
            DraftLayer::Work(Work { extent, name, diff_id, compression: Compression::None })
        } else {
            DraftLayer::Keep(Descriptor { media_type: oci(&layer.media_type).to_owned(), ..layer }, extent)
        });
    }
    let platform = descriptor.platform.unwrap_or(view.platform);
    Ok((DraftImage { config, platform, annotations: manifest.annotations, layers: drafted }, any_raw))
}

/// OCI's own type for a layer that Docker's type names: a manifest does not mix the two.
fn oci(layer: &str) -> &str {
    if !layer.starts_with("application/vnd.docker.") || media_type::is_foreign_layer(layer) {
        return layer;
    }
    match media_type::layer_compression(layer) {
        Compression::None => media_type::OCI_LAYER,
        Compression::Gzip => media_type::OCI_LAYER_GZIP,
        Compression::Zstd => media_type::OCI_LAYER_ZSTD,
        Compression::Unknown => layer,
    }
}

/// The layers to work on, each once.
fn works(images: &[DraftImage]) -> Vec<&Work> {
    let mut by_diff_id: BTreeMap<&Digest, &Work> = BTreeMap::new();
    for layer in images.iter().flat_map(|i| &i.layers) {
        if let DraftLayer::Work(work) = layer {
            by_diff_id.entry(&work.diff_id).or_insert(work);
        }
    }
    let mut works: Vec<&Work> = by_diff_id.into_values().collect();
    // the largest first: nobody waits for it alone in the end
    works.sort_by_key(|work| std::cmp::Reverse(work.extent.length));
    works
}

impl Draft {
    /// The most bytes that the spool will take.
    pub(super) fn bound(&self, layers: Layers) -> u64 {
        let Self::Made(images) = self else { return 0 };
        let raw = works(images).into_iter().filter(|w| w.compression == Compression::None);
        raw.map(|w| layers.bound(w.extent.length)).sum()
    }

    /// The bytes that will be worked through.
    pub(super) fn input(&self) -> u64 {
        let Self::Made(images) = self else { return 0 };
        works(images).into_iter().map(|w| w.extent.length).sum()
    }
}

/// Works on the layers, `jobs` at a time, and makes the manifests.
pub(super) fn make(
    images: &[DraftImage],
    layers: Layers,
    spool: &Path,
    jobs: usize,
    limits: &Limits,
    watch: &Watch<'_>,
) -> Result<Made, Error> {
    let works = works(images);
    if works.iter().any(|w| w.compression == Compression::None) {
        std::fs::create_dir_all(spool).map_err(|e| Error::io("create", spool, e))?;
    }
    let worked = in_parallel(&works, jobs, |work| match work.compression {
        Compression::None => compress(work, layers, spool, watch),
        _ => examine(work, limits, watch),
    })?;
    let worked: BTreeMap<&Digest, (&Work, &Worked)> =
        works.iter().zip(&worked).map(|(work, worked)| (&work.diff_id, (*work, worked))).collect();
    let mut made = Made::default();
    for (diff_id, (work, worked)) in &worked {
        if work.compression == Compression::None {
            let layer = Descriptor::new(layers.media_type(), worked.digest.clone(), worked.extent.length);
            made.compressed.push(((*diff_id).clone(), layer));
        }
        made.extents.insert(worked.digest.clone(), worked.extent.clone());
    }
    let mut entries = Vec::new();
    for image in images {
        let descriptors = image.layers.iter().map(|layer| match layer {
            DraftLayer::Keep(descriptor, extent) => (descriptor.clone(), extent.clone()),
            DraftLayer::Work(work) => {
                let (first, worked) = worked[&work.diff_id];
                let kind = match first.compression {
                    Compression::Zstd => media_type::OCI_LAYER_ZSTD,
                    Compression::Gzip => media_type::OCI_LAYER_GZIP,
                    _ => layers.media_type(),
                };
                let descriptor = Descriptor::new(kind, worked.digest.clone(), worked.extent.length);
                (descriptor, worked.extent.clone())
            }
        });
        let descriptors: Vec<Descriptor> = descriptors
            .map(|(descriptor, extent)| {
                made.extents.insert(descriptor.digest.clone(), extent);
                descriptor
            })
            .collect();
        let (descriptor, bytes) = json(
            media_type::OCI_MANIFEST,
            &ManifestOut {
                schema_version: 2,
                media_type: media_type::OCI_MANIFEST,
                config: Descriptor::of(media_type::OCI_CONFIG, &image.config),
                layers: descriptors,
                annotations: &image.annotations,
            },
        )?;
        entries.push(Descriptor { platform: Some(image.platform.clone()), ..descriptor.clone() });
        made.manifests.push((descriptor, bytes));
        made.configs.push(image.config.clone());
    }
    if entries.len() > 1 {
        let index = IndexOut { schema_version: 2, media_type: media_type::OCI_INDEX, manifests: entries };
        made.manifests.push(json(media_type::OCI_INDEX, &index)?);
    }
    Ok(made)
}

fn json(media_type: &str, document: &impl Serialize) -> Result<(Descriptor, Bytes), Error> {
    let bytes = serde_json::to_vec(document).map_err(|e| Error::io("write", "manifest", e.into()))?;
    Ok((Descriptor::of(media_type, &bytes), bytes.into()))
}

/// Runs `task` on every item, at most `jobs` at a time; results in the items' order. The first error ends it.
fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    jobs: usize,
    task: impl Fn(&T) -> Result<R, Error> + Sync,
) -> Result<Vec<R>, Error> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, Result<R, Error>)>> = Mutex::new(Vec::new());
    let run = || {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(i) else { break };
            let result = task(item);
            if result.is_err() {
                next.store(items.len(), Ordering::Relaxed);
            }
            results.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((i, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..jobs.clamp(1, items.len().max(1)) {
            scope.spawn(run);
        }
        run();
    });
    let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    results.sort_by_key(|(i, _)| *i);
    results.into_iter().map(|(_, result)| result).collect()
}
