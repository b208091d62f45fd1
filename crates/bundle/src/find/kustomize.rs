//! Kustomizations: the files that they name, and the images that they put in the place of others.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use ferry_image::Reference;
use ferry_rewrite::{Confidence, Shape};
use serde::Deserialize;

use super::Item;
use super::gather::{Gathered, Source};

const NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];
/// The most kustomizations.
const MAX: usize = 1000;

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
    /// Those that stand on no other, in the order in which they were met.
    tops: Vec<PathBuf>,
}

/// Reads the kustomizations among the sources, and takes in the local files and folders that they name.
pub(super) fn follow(gathered: &mut Gathered) -> Kustomizations {
    let mut out = Kustomizations::default();
    let real = |source: &Source| source.disk.as_deref().and_then(|disk| disk.canonicalize().ok());
    let mut known: HashSet<PathBuf> = gathered.sources.iter().filter_map(real).collect();
    let mut order = Vec::new();
    let mut at = 0;
    while at < gathered.sources.len() {
        let source = &gathered.sources[at];
        at += 1;
        let Some(disk) = source.disk.as_deref().filter(|disk| is_kustomization(disk)) else { continue };
        let Some(folder) = canonical_parent(disk).filter(|folder| !out.all.contains_key(folder)) else { continue };
        let text = match serde_saphyr::from_str::<Text>(&source.text) {
            Ok(text) if order.len() < MAX => text,
            Ok(_) => {
                gathered.skipped.push(format!("{}: there are more than {MAX} kustomizations", source.file));
                continue;
            }
            Err(error) => {
                let why = error.to_string();
                let why = why.lines().next().unwrap_or_default();
                gathered.skipped.push(format!("{}: it cannot be read as a kustomization: {why}", source.file));
                continue;
            }
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
            take(gathered, &mut known, &path, &real);
            resources.push(real);
        }
        order.push(folder.clone());
        out.all.insert(folder, Kustomization { file, folder: base, resources, images: text.images });
    }
    let used: HashSet<&PathBuf> = out.all.values().flat_map(|other| &other.resources).collect();
    out.tops = order.into_iter().filter(|folder| !used.contains(folder)).collect();
    out
}

/// Adds a resource unless it was read before.
fn take(gathered: &mut Gathered, known: &mut HashSet<PathBuf>, path: &Path, real: &Path) {
    let file = if real.is_dir() {
        match NAMES.iter().map(|name| path.join(name)).find(|file| file.is_file()) {
            Some(file) => file,
            None => return,
        }
    } else {
        path.to_owned()
    };
    if !file.canonicalize().is_ok_and(|real| known.insert(real)) {
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
        self.tops.iter().map(|folder| self.all[folder].folder.clone()).collect()
    }

    /// What becomes of the items of a resource: once for each kustomization at the top that uses it. Also says which references are
    /// replaced in all of them.
    pub(super) fn apply(&self, source: &Source, items: Vec<Item>) -> (Vec<Item>, Vec<(Reference, String)>) {
        let Some(disk) = source.disk.as_deref().filter(|disk| !is_kustomization(disk)) else {
            return (items, Vec::new());
        };
        let Ok(real) = disk.canonicalize() else { return (items, Vec::new()) };
        let ways: Vec<Vec<&Kustomization>> =
            self.tops.iter().filter_map(|top| self.way(top, &real, &mut HashSet::new())).collect();
        let (mut out, mut replaced) = (Vec::new(), Vec::new());
        for item in items {
            let Some(written) = item.reference.clone().filter(|_| is_container(&item.path)) else {
                out.push(item);
                continue;
            };
            let mut results: Vec<(Reference, Option<String>)> = Vec::new();
            for way in &ways {
                let result = result(way, &item.value, &written);
                if !results.iter().any(|(known, _)| *known == result.0) {
                    results.push(result);
                }
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

    /// The kustomizations by which the one in `folder` uses the file `real`, from that file up; none when it does not. `seen` is what
    /// was looked at before in vain.
    fn way<'a>(
        &'a self,
        folder: &'a Path,
        real: &Path,
        seen: &mut HashSet<&'a Path>,
    ) -> Option<Vec<&'a Kustomization>> {
        let kustomization = self.all.get(folder).filter(|_| seen.insert(folder))?;
        let mut way = kustomization
            .resources
            .iter()
            .find_map(|resource| if resource == real { Some(Vec::new()) } else { self.way(resource, real, seen) })?;
        way.push(kustomization);
        Some(way)
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

/// What kustomizations make of a reference, one after the other, and which of them last changed it.
fn result(way: &[&Kustomization], value: &str, written: &Reference) -> (Reference, Option<String>) {
    let (mut reference, mut current, mut why) = (written.clone(), value.to_owned(), None);
    for kustomization in way {
        let matching = kustomization.images.iter().filter(|entry| entry.matches(&current, &reference));
        if let Some(new) = matching.filter_map(|entry| entry.applied(&current)).next() {
            why = Some(format!("`{}` puts `{new}` in its place", kustomization.file));
            current = if new == *written { value.to_owned() } else { new.to_string() };
            reference = new;
        }
    }
    (reference, why)
}

/// Whether kustomize changes an image at this path: only in containers and init containers, wherever these stand.
fn is_container(path: &str) -> bool {
    let list = path.strip_suffix(".image").filter(|_| !path.contains("::")).unwrap_or_default();
    let key = list.strip_suffix(']').and_then(|list| list.rsplit_once('[')).map_or(list, |(key, _)| key);
    key.ends_with(".containers") || key.ends_with(".initContainers")
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

#[cfg(test)]
mod tests {
    use ferry_content::Problems;

    use super::super::{Input, Report, Request, find};

    fn report(files: &[(&str, &str)]) -> (tempfile::TempDir, Report) {
        let folder = tempfile::tempdir().expect("folder");
        for (path, text) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("create");
            std::fs::write(path, text).expect("write");
        }
        let inputs = vec![Input::Path(folder.path().to_owned())];
        let report = find(&Request { inputs, values: Vec::new(), render: None });
        assert!(report.problems.or(()).is_ok());
        (folder, Report { problems: Problems::default(), ..report })
    }

    #[test]
    fn only_images_of_containers_are_replaced() {
        let pod = "spec:\n  initContainers: [{image: 'quay.io/op/side:2'}]\n  containers:\n    - image: quay.io/op/side:3\n      env: [{name: SIDE_IMAGE, value: 'quay.io/op/side:1'}]\n  ephemeralContainers: [{image: 'quay.io/op/side:4'}]\n";
        let images = "resources: [pod.yaml]\nimages: [{name: quay.io/op/side, newName: r.io/side}]\n";
        let (_folder, report) = report(&[("kustomization.yaml", images), ("pod.yaml", pod)]);
        let pod = report.items.iter().filter(|item| item.file.ends_with("pod.yaml"));
        let mut found: Vec<String> = pod.filter_map(|i| i.reference.as_ref()).map(ToString::to_string).collect();
        found.sort();
        assert_eq!(found, ["quay.io/op/side:1", "quay.io/op/side:4", "r.io/side:2", "r.io/side:3"]);
        let mut replaced: Vec<String> = report.replaced.iter().map(|(reference, _)| reference.to_string()).collect();
        replaced.sort();
        assert_eq!(replaced, ["quay.io/op/side:2", "quay.io/op/side:3"]);
    }

    #[test]
    fn folders_that_are_named_twice_take_no_time() {
        let mut files = vec![("top/kustomization.yaml".to_owned(), "resources: [../loop, ../0]\n".to_owned())];
        files.push(("loop/kustomization.yaml".to_owned(), "resources: [., .]\n".to_owned()));
        for i in 0..60 {
            files.push((format!("{i}/kustomization.yaml"), format!("resources: [../{0}, ../{0}]\n", i + 1)));
        }
        files.push((
            "60/kustomization.yaml".to_owned(),
            "resources: [a.yaml]\nimages: [{name: a, newTag: '2'}]\n".to_owned(),
        ));
        files.push(("60/a.yaml".to_owned(), "containers: [{image: 'a:1'}]\n".to_owned()));
        files.push(("60/b.yaml".to_owned(), "containers: [{image: 'a:1'}]\n".to_owned()));
        let files: Vec<(&str, &str)> = files.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let (_folder, report) = report(&files);
        let of = |end: &str| {
            let item = report.items.iter().find(|item| item.file.ends_with(end)).expect(end);
            item.reference.as_ref().expect("reference").to_string()
        };
        assert_eq!(
            (of("60/a.yaml"), of("60/b.yaml")),
            ("docker.io/library/a:2".to_owned(), "docker.io/library/a:1".to_owned())
        );
    }

    #[test]
    fn one_that_cannot_be_read_is_told() {
        let (_folder, report) = report(&[("kustomization.yaml", "resources: {a: b}\nimages: 3\n")]);
        let told = |s: &String| s.contains("kustomization.yaml: it cannot be read as a kustomization: ");
        assert!(report.skipped.iter().any(told), "{:?}", report.skipped);
    }
}
