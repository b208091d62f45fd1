//! Values that override those of a Helm chart: only what rewriting changed, with the other pieces of the same references.
//!
//! `helm … -f VALUES -f OVERRIDE` gives what the rewritten values give. Some charts refuse images from elsewhere unless a flag says so: that
//! flag is added, and is all that is there beyond the changes.

use std::collections::HashSet;

use ferry_image::{Reference, Relocated, Relocation};

use super::values::{self, Difference, Value};
use super::{Emitted, Form, Text};
use crate::finding::Finding;
use crate::list::is_list;
use crate::shapes;
use crate::tree::{self, Document};

/// The flag of charts that refuse images they do not know, as keys.
const ALLOW: [&str; 3] = ["global", "security", "allowInsecureImages"];
/// Where the images of such charts come from: their library compares the names.
const GUARDED: [&str; 3] = ["docker.io/bitnami/", "docker.io/bitnamilegacy/", "docker.io/bitnamisecure/"];
/// What a compose file has at its root.
const COMPOSE: [&str; 8] = ["name", "version", "services", "networks", "volumes", "configs", "secrets", "include"];

pub(super) fn emit(relocation: &Relocation, texts: &[Text<'_>]) -> Emitted {
    let mut out = Emitted::new(Form::HelmValues);
    let mut named: HashSet<&Reference> = HashSet::new();
    for text in texts {
        let (Some(before), Some(after)) = (values_of(text.name, text.before), values_of(text.name, text.after)) else {
            continue;
        };
        let findings = shapes::walk(&after, 0, false, 0);
        let here: Vec<&Relocated> = relocation.images.iter().filter(|i| findings.iter().any(|f| is_at(i, f))).collect();
        match overriding(&before, &after, &findings, &here) {
            Ok(Some((values, lists))) => {
                named.extend(here.iter().map(|image| &image.reference));
                out.file(&file_name(text.name), document(text.name, &values, &lists));
            }
            Ok(None) => named.extend(here.iter().map(|image| &image.reference)),
            Err(why) => {
                for image in here.into_iter().filter(|image| named.insert(&image.reference)) {
                    out.leave(image, format!("`{}` cannot be written as an override: {why}", text.name));
                }
            }
        }
    }
    for image in relocation.images.iter().filter(|image| !named.contains(&image.reference)) {
        out.leave(image, "no values that were given name it");
    }
    out
}

/// The document of a text that can be a chart's values: one mapping that is neither a resource, nor a kustomization, nor a compose file.
fn values_of(name: &str, text: &str) -> Option<Document> {
    let base = name.rsplit('/').next().unwrap_or(name);
    if is_list(base) || matches!(base, "kustomization.yaml" | "kustomization.yml" | "Kustomization") {
        return None;
    }
    let mut stream = tree::parse(text);
    let document = stream.documents.pop().filter(|_| stream.count == 1)?;
    let keys: Vec<&str> = document.entries(document.root).iter().filter_map(|(key, _)| document.scalar(*key)).collect();
    let is_compose = keys.contains(&"services") && keys.iter().all(|k| COMPOSE.contains(k) || k.starts_with("x-"));
    (!keys.is_empty() && !keys.contains(&"apiVersion") && !is_compose).then_some(document)
}

/// Whether `finding` names `image` at the target.
fn is_at(image: &Relocated, finding: &Finding) -> bool {
    finding.reference.as_ref().is_some_and(|found| {
        found.repository() == image.repository
            && match found.digest() {
                Some(digest) => *digest == image.digest,
                None => found.tag() == image.tag.as_deref(),
            }
    })
}

/// The values to override, and the paths of lists among them.
fn overriding(
    before: &Document,
    after: &Document,
    findings: &[Finding],
    here: &[&Relocated],
) -> Result<Option<(Value, Vec<String>)>, String> {
    let mut difference = Difference::new(before, after);
    if difference.values()?.is_none() {
        return Ok(None);
    }
    let changed = std::mem::take(&mut difference.changed);
    // without its other pieces, a piece would be joined with those that the chart has by default
    let moved = findings.iter().filter(|finding| finding.parts.iter().any(|part| changed.contains(&part.site)));
    difference.keep(moved.flat_map(|finding| finding.parts.iter().map(|part| part.site)));
    let Some(mut values) = difference.values()? else { return Ok(None) };
    let guarded = |image: &&Relocated| GUARDED.iter().any(|from| image.reference.repository().starts_with(from));
    match allowed(after) {
        Some(true) => {}
        Some(false) => values::set(&mut values, &ALLOW, "true"),
        None if here.iter().any(guarded) => values::set(&mut values, &ALLOW, "true"),
        None => {}
    }
    Ok(Some((values, difference.lists)))
}

/// What the flag says; none where it does not stand.
fn allowed(document: &Document) -> Option<bool> {
    let step = |id, key: &&str| document.entry(document.resolve(id), key);
    let id = ALLOW.iter().try_fold(document.root, step)?;
    Some(document.scalar(id) == Some("true"))
}

/// Values may be JSON; what is written is not.
fn file_name(name: &str) -> String {
    match name.strip_suffix(".json") {
        Some(stem) => format!("{stem}.yaml"),
        None => name.to_owned(),
    }
}

fn document(name: &str, values: &Value, lists: &[String]) -> String {
    let base = name.rsplit('/').next().unwrap_or(name);
    let mut text = format!("# What differs from {base}, by ferry: helm … -f {base} -f this file.\n");
    for path in lists {
        text += &format!("# {path} is a list, which Helm replaces as a whole: so all of it stands here.\n");
    }
    text + &values::render(values)
}
