//! The `manifest.json` that `docker save` writes (moby, image/spec/v1.2.md, "Combined Image JSON + Filesystem Changeset Format").
//!
//! Members it names: `Config`, a file named by its own SHA-256 (`<hex>.json`; `blobs/sha256/<hex>`; `sha256:<hex>` by crane), and
//! `Layers`, lowest first (`<id>/layer.tar`, `<hex>.tar`, `<hex>.tar.gz`). Docker up to 24 saves a layer that stands in several
//! images once, and symlinks to it from the other places.

use std::path::Path;

use bytes::Bytes;
use ferry_image::manifest::MAX_MANIFEST;
use ferry_image::{Digest, ImageConfig};
use serde::Deserialize;

use super::files::Files;
use super::{LocalImage, Root, fault};
use crate::Error;

/// The largest config read, in bytes.
pub(super) const MAX_CONFIG: u64 = 8 << 20;

/// An image that is known only by the names of its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedImage {
    pub(super) config: String,
    pub(super) layers: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// The images that `manifest.json` lists. One image under two entries counts once, with the names of both.
pub(super) fn images(files: &Files) -> Result<Vec<LocalImage>, Error> {
    let path = files.path();
    let bytes = files.require("manifest.json", "the list of images")?.read_small("manifest.json", MAX_MANIFEST)?;
    let entries: Vec<Entry> = serde_json::from_slice(&bytes).map_err(|e| {
        let hint = "it should be what `docker save` writes: a list of {Config, RepoTags, Layers}";
        fault::invalid(path, format!("its `manifest.json` is not that of a saved image: {e}"), hint)
    })?;
    let mut images: Vec<LocalImage> = Vec::new();
    for entry in entries {
        let saved = SavedImage { config: entry.config, layers: entry.layers.unwrap_or_default() };
        let names = entry.repo_tags.unwrap_or_default().into_iter().filter(|n| is_name(n)).collect();
        add(&mut images, path, names, saved)?;
    }
    Ok(images)
}

fn add(images: &mut Vec<LocalImage>, path: &Path, names: Vec<String>, saved: SavedImage) -> Result<(), Error> {
    let twin = images.iter_mut().find(|i| matches!(&i.root, Root::Saved(s) if s.config == saved.config));
    match twin {
        None => images.push(LocalImage { names, root: Root::Saved(saved) }),
        Some(image) if image.root == Root::Saved(saved.clone()) => image.add_names(names),
        Some(_) => {
            let why = format!("its `manifest.json` lists the config `{}` twice, with different layers", saved.config);
            return Err(fault::damaged(path, why));
        }
    }
    Ok(())
}

/// `<none>:<none>` is how some tools write that there is no name.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 512 && !name.contains("<none>") && !name.chars().any(char::is_control)
}

/// The config of a saved image, checked against its name, and its view.
pub(super) fn config(files: &Files, saved: &SavedImage) -> Result<(Bytes, ImageConfig), Error> {
    let path = files.path();
    let bytes = files.require(&saved.config, "the config")?.read_small(&saved.config, MAX_CONFIG)?;
    if let Some(expected) = digest_in(&saved.config) {
        let found = Digest::of(&bytes);
        if found != expected {
            let place = format!("`{}` in `{}`", saved.config, path.display());
            return Err(Error::DigestMismatch { place, expected, found });
        }
    }
    let view = ImageConfig::parse(&bytes).map_err(|e| fault::damaged(path, format!("`{}` is {e}", saved.config)))?;
    if view.diff_ids.len() != saved.layers.len() {
        let why = format!(
            "its `manifest.json` lists {} layers for `{}`, but that config {}",
            saved.layers.len(),
            saved.config,
            view.diff_ids.len()
        );
        return Err(fault::damaged(path, why));
    }
    Ok((bytes, view))
}

/// The digest that a config's member name promises.
fn digest_in(name: &str) -> Option<Digest> {
    let last = name.rsplit('/').next().unwrap_or(name);
    let last = last.strip_suffix(".json").unwrap_or(last);
    Digest::sha256(last.strip_prefix("sha256:").unwrap_or(last)).ok()
}
