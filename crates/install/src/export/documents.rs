//! `index.json` and `manifest.json` of what is exported. Pure.

use ferry_archive::oci::{DockerEntry, REF_NAME};
use ferry_image::{Descriptor, Reference, media_type};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Chosen;
use super::names;

/// The annotation from which containerd takes an image's name.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// The entry of an image in `index.json`, by its name there; one that nobody asks for by name has none.
pub(super) fn entry(root: &Descriptor, name: Option<&str>) -> Value {
    let mut entry = Descriptor::new(&root.media_type, root.digest.clone(), root.size);
    entry.artifact_type.clone_from(&root.artifact_type);
    for annotation in [REF_NAME, CONTAINERD_NAME] {
        entry.annotations.extend(name.map(|name| (annotation.to_owned(), name.to_owned())));
    }
    json!(entry)
}

/// `index.json` with these entries.
pub(super) fn index(entries: Vec<Value>) -> Vec<u8> {
    json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries}).to_string().into_bytes()
}

/// An `index.json` that was there, with these entries in the place of those of the same name (or, for those without one, digest).
///
/// # Errors
/// When it is no index; the text says why.
pub(super) fn joined(there: &[u8], entries: Vec<Value>) -> Result<Vec<u8>, String> {
    let mut index: Map<String, Value> = serde_json::from_slice(there).map_err(|e| e.to_string())?;
    let manifests = index.get_mut("manifests").and_then(Value::as_array_mut);
    let manifests = manifests.ok_or_else(|| "it has no `manifests`".to_owned())?;
    let key = |entry: &Value| {
        let name = entry.pointer("/annotations/org.opencontainers.image.ref.name");
        (name.cloned(), name.is_none().then(|| entry.get("digest").cloned()))
    };
    manifests.retain(|had| entries.iter().all(|entry| key(entry) != key(had)));
    manifests.extend(entries);
    Ok(Value::Object(index).to_string().into_bytes())
}

/// `manifest.json` of these images. Docker reads tags in full as it reads short ones, and podman takes short ones for names of its own
/// (`localhost/…`). Images without a tag are there by their id.
pub(super) fn docker(images: &[&Chosen]) -> Vec<u8> {
    let entry = |chosen: &&Chosen| {
        let docker = chosen.docker.as_ref()?;
        let full = !chosen.exported.tags.is_empty();
        Some(DockerEntry {
            config: docker.config.digest.blob_path(),
            repo_tags: full.then(|| vec![chosen.exported.name.clone()]),
            layers: docker.layers.iter().map(|layer| layer.digest.blob_path()).collect(),
        })
    };
    let entries: Vec<DockerEntry> = images.iter().filter_map(entry).collect();
    text(&entries)
}

fn text(value: &impl Serialize) -> Vec<u8> {
    json!(value).to_string().into_bytes()
}

/// The tags of images for docker, in their order. A reference with a tag alone comes before one that is also pinned: of two that want one
/// tag, the other has none.
pub(super) fn tags(references: &[&Reference]) -> Vec<Vec<String>> {
    let plain: Vec<Option<String>> =
        references.iter().map(|r| names::familiar(r).filter(|_| r.digest().is_none())).collect();
    let mut taken: Vec<&String> = plain.iter().flatten().collect();
    let pinned: Vec<Option<String>> =
        references.iter().map(|r| names::familiar(r).filter(|_| r.digest().is_some())).collect();
    let mut all = Vec::with_capacity(references.len());
    for (plain, pinned) in plain.iter().zip(&pinned) {
        let tag = match (plain, pinned) {
            (Some(tag), _) => Some(tag),
            (None, Some(tag)) if !taken.contains(&tag) => {
                taken.push(tag);
                Some(tag)
            }
            _ => None,
        };
        all.push(tag.cloned().into_iter().collect());
    }
    all
}

/// A manifest with other layers, everything else as it was.
pub(super) fn with_layers(manifest: &[u8], layers: &[Descriptor]) -> Result<Vec<u8>, serde_json::Error> {
    let mut value: Map<String, Value> = serde_json::from_slice(manifest)?;
    value.insert("layers".to_owned(), json!(layers));
    Ok(Value::Object(value).to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_tag_is_one_images() {
        let all: Vec<Reference> = ["nginx:1@D", "nginx:1", "app:2@D", "app@D", "docker.io/library/app:2@D"]
            .iter()
            .map(|text| text.replace('D', D).parse().expect("reference"))
            .collect();
        let tags = tags(&all.iter().collect::<Vec<_>>());
        assert_eq!(tags, [vec![], vec!["nginx:1".to_owned()], vec!["app:2".to_owned()], vec![], vec![]]);
    }

    #[test]
    fn a_layout_keeps_what_it_had_under_other_names() {
        let (old, new) = (Descriptor::of("m", b"old"), Descriptor::of("m", b"new"));
        let there = json!({
            "schemaVersion": 2, "x": 1,
            "manifests": [entry(&old, Some("a:1")), entry(&old, Some("b:1")), entry(&old, None), {"odd": true}],
        });
        let entries = vec![entry(&new, Some("a:1")), entry(&old, None)];
        let text = joined(there.to_string().as_bytes(), entries).expect("joined");
        let expected = json!({
            "schemaVersion": 2, "x": 1,
            "manifests": [entry(&old, Some("b:1")), {"odd": true}, entry(&new, Some("a:1")), entry(&old, None)],
        });
        assert_eq!(serde_json::from_slice::<Value>(&text).expect("json"), expected);
        assert!(joined(b"{}", vec![]).is_err() && joined(b"[", vec![]).is_err());
    }
}
