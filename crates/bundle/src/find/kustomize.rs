//! Kustomizations: the files that they name, and the images that they put in the place of others.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ferry_image::Reference;
use ferry_rewrite::{Confidence, Shape};
use serde::Deserialize;

use super::Item;
use super::gather::{Gathered, Source};

const NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];
/// The most kustomizations, and how deep they may stand on each other.
const MAX: usize = 1000;
const MAX_DEPTH: usize = 50;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Text {
    resources: Vec<String>,
    bases: Vec<String>,
    components: Vec<String>,
    images: Vec<Entry>,
}

/// An entry of `images:`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Entry {
    name: String,
    new_name: Option<String>,
    new_tag: Option<String>,
    digest: Option<String>,
}

/// One kustomization.
#[derive(Debug)]
struct Kustomization {
    /// As people name it.
    file: String,
    folder: PathBuf,
    /// Files and folders, canonical.
    resources: Vec<PathBuf>,
    images: Vec<Entry>,
}

/// All that were met, by their canonical folders.
#[derive(Debug, Default)]
pub(super) struct Kustomizations {
    all: HashMap<PathBuf, Kustomization>,
    /// In the order in which they were met.
    order: Vec<PathBuf>,
}

/// Reads the kustomizations among the sources, and takes in the local files and folders that they name.
pub(super) fn follow(gathered: &mut Gathered) -> Kustomizations {
    let mut out = Kustomizations::default();
    let mut at = 0;
    while at < gathered.sources.len() && out.order.len() < MAX {
        let source = &gathered.sources[at];
        at += 1;
        let Some(disk) = source.disk.as_deref().filter(|disk| is_kustomization(disk)) else { continue };
        let (Some(folder), Ok(text)) = (canonical_parent(disk), serde_saphyr::from_str::<Text>(&source.text)) else {
            continue;
        };
        let (base, file) = (disk.parent().unwrap_or(Path::new("")).to_owned(), source.file.clone());
        let mut resources = Vec::new();
        for name in text.resources.iter().chain(&text.bases).chain(&text.components) {
            let path = base.join(name);
            // what is fetched from elsewhere is none of ours
            let Ok(real) = path.canonicalize() else {
                gathered.notes.push(format!("{file}: `{name}` is not a file here, so its images are not known"));
                continue;
            };
            take(gathered, &path, &real);
            resources.push(real);
        }
        out.order.push(folder.clone());
        out.all.insert(folder, Kustomization { file, folder: base, resources, images: text.images });
    }
    out
}

/// Adds a resource unless it was read before.
fn take(gathered: &mut Gathered, path: &Path, real: &Path) {
    let file = if real.is_dir() {
        match NAMES.iter().map(|name| path.join(name)).find(|file| file.is_file()) {
            Some(file) => file,
            None => return,
        }
    } else {
        path.to_owned()
    };
    let same = |source: &Source| {
        let disk = source.disk.as_deref().and_then(|disk| disk.canonicalize().ok());
        disk.is_some() && disk == file.canonicalize().ok()
    };
    if gathered.sources.iter().any(same) {
        return;
    }
    match gathered.file(&file) {
        Ok(source) => gathered.sources.push(source),
        Err(error) => gathered.problems.add("", error),
    }
}

impl Kustomizations {
    /// Folders of those that stand on no other.
    pub(super) fn tops(&self) -> Vec<PathBuf> {
        self.order.iter().filter(|folder| self.is_top(folder)).map(|folder| self.all[folder].folder.clone()).collect()
    }

    fn is_top(&self, folder: &Path) -> bool {
        !self.all.values().any(|other| other.resources.iter().any(|resource| resource == folder))
    }

    /// What becomes of the items of a resource: once for each kustomization at the top that uses it. Also says which references are
    /// replaced in all of them.
    pub(super) fn apply(&self, source: &Source, items: Vec<Item>) -> (Vec<Item>, Vec<(Reference, String)>) {
        let Some(disk) = source.disk.as_deref().filter(|disk| !is_kustomization(disk)) else {
            return (items, Vec::new());
        };
        let Ok(real) = disk.canonicalize() else { return (items, Vec::new()) };
        let tops: Vec<&PathBuf> = self.order.iter().filter(|folder| self.is_top(folder)).collect();
        let (mut out, mut replaced) = (Vec::new(), Vec::new());
        for item in items {
            let Some(written) = item.reference.clone() else {
                out.push(item);
                continue;
            };
            let mut results: Vec<(Reference, Option<String>)> = Vec::new();
            for top in &tops {
                let result = self.result(top, &real, &item.value, &written, 0);
                results.extend(result.filter(|(new, _)| !results.iter().any(|(known, _)| known == new)));
            }
            if results.is_empty() {
                results.push((written.clone(), None));
            }
            if let Some((_, Some(why))) = results.first().filter(|_| results.iter().all(|(new, _)| *new != written)) {
                replaced.push((written.clone(), why.clone()));
            }
            for (reference, why) in results {
                let mut item = Item { reference: Some(reference), ..item.clone() };
                if let Some(why) = why {
                    item.add_reason(&why);
                }
                out.push(item);
            }
        }
        (out, replaced)
    }

    /// What the kustomization in `folder` makes of a reference in the file `real`; none when it does not use the file.
    fn result(
        &self,
        folder: &Path,
        real: &Path,
        value: &str,
        written: &Reference,
        depth: usize,
    ) -> Option<(Reference, Option<String>)> {
        let kustomization = self.all.get(folder).filter(|_| depth < MAX_DEPTH)?;
        let below = kustomization.resources.iter().find_map(|resource| {
            if resource == real {
                return Some((written.clone(), value.to_owned(), None));
            }
            let (reference, why) = self.result(resource, real, value, written, depth + 1)?;
            let value = if reference == *written { value.to_owned() } else { reference.to_string() };
            Some((reference, value, why))
        });
        let (reference, value, why) = below?;
        for entry in &kustomization.images {
            if !entry.matches(&value, &reference) {
                continue;
            }
            if let Some(new) = entry.applied(&value) {
                let why = format!("`{}` puts `{new}` in its place", kustomization.file);
                return Some((new, Some(why)));
            }
        }
        Some((reference, why))
    }

    /// Entries that leave the tag to the resources get the reference that was made with them.
    pub(super) fn complete(&self, items: &mut [Item]) {
        let made: Vec<(String, Reference)> = items
            .iter()
            .filter(|item| item.shape != Shape::Kustomize)
            .filter_map(|item| Some((item.reason.clone()?, item.reference.clone()?)))
            .collect();
        for item in items.iter_mut().filter(|i| i.shape == Shape::Kustomize && i.reference.is_none()) {
            let place = format!("`{}` puts `", item.file);
            let mut new = made.iter().filter(|(why, new)| {
                why.contains(&place) && new.repository() == normal(&item.value).unwrap_or_default()
            });
            let Some((_, first)) = new.next() else { continue };
            if new.all(|(_, other)| other == first) {
                item.reference = Some(first.clone());
                item.confidence = Confidence::Certain;
                item.reason = Some("with the tag of the resources".to_owned());
            }
        }
    }
}

fn normal(name: &str) -> Option<String> {
    name.parse::<Reference>().ok().map(|reference| reference.repository())
}

impl Entry {
    /// kustomize compares names as they are written, without tag and digest.
    fn matches(&self, value: &str, reference: &Reference) -> bool {
        let name = value.split('@').next().unwrap_or(value);
        let slash = name.rfind('/').map_or(0, |at| at + 1);
        let name = name[slash..].find(':').map_or(name, |at| &name[..slash + at]);
        name == self.name || (value == reference.to_string() && normal(&self.name) == Some(reference.repository()))
    }

    fn applied(&self, value: &str) -> Option<Reference> {
        let name = value.split('@').next().unwrap_or(value);
        let slash = name.rfind('/').map_or(0, |at| at + 1);
        let at = name[slash..].find(':').map_or(name.len(), |at| slash + at);
        let old = &value[at..];
        let new = self.new_name.as_deref().unwrap_or(&value[..at]);
        let text = match (&self.digest, &self.new_tag) {
            (Some(digest), _) if !digest.is_empty() => format!("{new}@{digest}"),
            (_, Some(tag)) if !tag.is_empty() => format!("{new}:{tag}"),
            _ => format!("{new}{old}"),
        };
        text.parse().ok()
    }
}

fn is_kustomization(path: &Path) -> bool {
    path.file_name().is_some_and(|name| NAMES.iter().any(|known| name == *known))
}

fn canonical_parent(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok()?.parent().map(Path::to_owned)
}
