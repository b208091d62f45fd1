//! A kustomize component with `images:`, to be named under `components:` of a kustomization.
//!
//! kustomize matches by the name as it is written in the resources, so every way to write a name of Docker Hub gets an entry. Where tags and
//! digests stay, only `newName` is given: it serves all tags of the name and never changes a version.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ferry_image::reference::DOCKER_HUB;
use ferry_image::{Reference, Relocated, Relocation};

use super::mirror::{mirrors, unserved};
use super::{Emitted, Form, head};

/// What becomes of a name.
struct Entry {
    name: String,
    lines: Vec<(&'static str, String)>,
}

pub(super) fn emit(relocation: &Relocation) -> Emitted {
    let mut out = Emitted::new(Form::Kustomize);
    let mut entries: Vec<Entry> = Vec::new();
    let mut add = |host: &str, path: &str, lines: &[(&'static str, String)]| {
        entries.extend(spellings(host, path).into_iter().map(|name| Entry { name, lines: lines.to_vec() }));
    };
    let mut images: BTreeMap<String, Vec<&Relocated>> = BTreeMap::new();
    for image in &relocation.images {
        images.entry(image.reference.repository()).or_default().push(image);
    }
    // what is alone under its name may get another tag or digest; that is found before what keeps them
    let alone = |image: &Relocated| images.get(&image.reference.repository()).is_some_and(|all| all.len() == 1);
    for image in relocation.images.iter().filter(|image| alone(image) && unserved(relocation, image).is_some()) {
        match relocation.replacement(image, &image.reference) {
            Ok(new) => add(image.reference.host(), image.reference.path(), &changed(&new)),
            Err(error) => out.leave(image, error.to_string()),
        }
    }
    let rest =
        |image: &Relocated| unserved(relocation, image).map(|why| format!("{why}; kustomize matches by name only"));
    let mut kept = Emitted::new(Form::Kustomize);
    for mirror in mirrors(relocation, rest, &mut kept) {
        add(mirror.host, mirror.path, &[("newName", mirror.target.to_owned())]);
    }
    let told = |left: &super::LeftOut| {
        relocation.images.iter().any(|image| alone(image) && image.reference.to_string() == left.image)
    };
    out.left_out.extend(kept.left_out.into_iter().filter(|left| !told(left)));
    if entries.is_empty() {
        return out;
    }
    let news: Vec<&String> = entries.iter().flat_map(|e| e.lines.iter().map(|(_, value)| value)).collect();
    // entries are applied one after the other: a name that is also a new name comes before it is made
    let (first, last): (Vec<&Entry>, Vec<&Entry>) = entries.iter().partition(|entry| news.contains(&&entry.name));
    let mut text = head(relocation, "Name this folder under `components:` of a kustomization.");
    text += &out.missing();
    text += "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nimages:\n";
    for entry in first.into_iter().chain(last) {
        let _ = writeln!(text, "  - name: \"{}\"", entry.name);
        for (key, value) in &entry.lines {
            let _ = writeln!(text, "    {key}: \"{value}\"");
        }
    }
    out.file("kustomization.yaml", text);
    out
}

fn changed(new: &Reference) -> Vec<(&'static str, String)> {
    let mut lines = vec![("newName", new.repository())];
    lines.extend(new.tag().filter(|_| new.has_written_tag()).map(|tag| ("newTag", tag.to_owned())));
    lines.extend(new.digest().map(|digest| ("digest", digest.to_string())));
    lines
}

/// The ways to write a repository that mean the same.
fn spellings(host: &str, path: &str) -> Vec<String> {
    let mut all = vec![format!("{host}/{path}")];
    if host == DOCKER_HUB {
        all.push(path.to_owned());
        if let Some(name) = path.strip_prefix("library/").filter(|name| !name.contains('/')) {
            all.extend([format!("{host}/{name}"), name.to_owned()]);
        }
    }
    all
}
