//! What a kustomization matches by name, and what it names beside itself: enough to see that rewriting takes a name away from it.

use crate::tree::{self, Kind};

/// A kustomization, as far as it is about images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kustomization {
    /// `images:`, in order.
    pub images: Vec<Matched>,
    /// Every string in it: some name files and folders.
    pub words: Vec<String>,
}

/// An entry of `images:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matched {
    /// 1-based.
    pub line: usize,
    /// Which images it is for.
    pub name: String,
    /// What they are called then.
    pub new_name: String,
}

/// Whether a file of this name is a kustomization.
#[must_use]
pub fn is_kustomization(name: &str) -> bool {
    matches!(name, "kustomization.yaml" | "kustomization.yml" | "Kustomization")
}

/// Reads one.
#[must_use]
pub fn kustomization(text: &str) -> Kustomization {
    let mut out = Kustomization::default();
    for document in &tree::parse(text).documents {
        let strings = (0..document.nodes.len()).filter_map(|id| document.text(id));
        out.words.extend(strings.map(ToOwned::to_owned));
        let Some(images) = document.entry(document.root, "images") else { continue };
        let Kind::Sequence { items, .. } = &document.nodes[document.resolve(images)].kind else { continue };
        for item in items.iter().map(|item| document.resolve(*item)) {
            let own = |key| document.entry(item, key).and_then(|id| document.text(id)).filter(|t| !t.is_empty());
            let Some(name) = own("name") else { continue };
            let new_name = own("newName").unwrap_or(name).to_owned();
            if new_name != name || own("newTag").is_some() || own("digest").is_some() {
                out.images.push(Matched { line: document.nodes[item].line, name: name.to_owned(), new_name });
            }
        }
    }
    out
}

/// An image's name as kustomize takes it from what is written: without tag and digest.
#[must_use]
pub fn name_of(written: &str) -> &str {
    let name = written.split('@').next().unwrap_or(written);
    match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    }
}

/// Whether kustomize looks for images at `path`.
#[must_use]
pub fn is_matched(path: &str) -> bool {
    let list = path.strip_suffix("].image").and_then(|path| path.rsplit_once('['));
    list.is_some_and(|(list, _)| list.ends_with(".containers") || list.ends_with(".initContainers"))
}
