//! What cosign keeps under one tag is a list: each layer a signature or an attestation. Where the target has a list of its own there, both
//! are kept. Pure.

use bytes::Bytes;
use ferry_image::referrer::SIMPLE_SIGNING;
use ferry_image::{Descriptor, Manifest, media_type};
use serde_json::{Value, json};

/// The media type of an attestation under a tag.
const DSSE: &str = "application/vnd.dsse.envelope.v1+json";

/// What becomes of two lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Merged {
    /// All of ours is there.
    There,
    /// Ours has all that is there.
    Ours,
    /// A list of both, and its config.
    Both {
        /// The new manifest.
        manifest: Bytes,
        /// The new config.
        config: Bytes,
    },
    /// They are no such lists.
    Neither,
}

/// Merges what is `there` with `ours`.
pub(crate) fn merge(there: &[u8], ours: &[u8]) -> Merged {
    let (Some((mut manifest, mut layers)), Some((_, mine))) = (list(there), list(ours)) else { return Merged::Neither };
    let lacking: Vec<Value> = mine.iter().filter(|layer| !layers.contains(layer)).cloned().collect();
    if lacking.is_empty() {
        return Merged::There;
    }
    if layers.iter().all(|layer| mine.contains(layer)) {
        return Merged::Ours;
    }
    layers.extend(lacking);
    let diff_ids: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
    let history: Vec<Value> = layers.iter().map(|_| json!({"created": "0001-01-01T00:00:00Z"})).collect();
    // as cosign makes it: no platform, no clock
    let config = json!({
        "architecture": "", "created": "0001-01-01T00:00:00Z", "history": history, "os": "",
        "rootfs": {"type": "layers", "diff_ids": diff_ids}, "config": {},
    });
    let config = Bytes::from(config.to_string());
    manifest["config"] = json!(Descriptor::of(media_type::OCI_CONFIG, &config));
    manifest["layers"] = Value::Array(layers);
    Merged::Both { manifest: Bytes::from(manifest.to_string()), config }
}

/// A manifest of nothing but signatures and attestations, and its layers as they are written.
fn list(bytes: &[u8]) -> Option<(Value, Vec<Value>)> {
    let Manifest::Image(image) = Manifest::parse(bytes, None).ok()? else { return None };
    let is_one = |layer: &Descriptor| matches!(layer.media_type.as_str(), SIMPLE_SIGNING | DSSE);
    if image.media_type != media_type::OCI_MANIFEST || image.subject.is_some() || !image.layers.iter().all(is_one) {
        return None;
    }
    let json: Value = serde_json::from_slice(bytes).ok()?;
    let layers = json.get("layers")?.as_array()?.clone();
    Some((json, layers))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str) -> Value {
        let mut layer = json!(Descriptor::of(SIMPLE_SIGNING, b"the payload, which both sign"));
        layer["annotations"] = json!({"dev.cosignproject.cosign/signature": name});
        layer
    }

    fn manifest(layers: &[Value]) -> Vec<u8> {
        let config = Descriptor::of(media_type::OCI_CONFIG, b"{}");
        let json = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": layers, "x": 1});
        json.to_string().into_bytes()
    }

    #[test]
    fn no_signature_is_lost_on_either_side() {
        let (a, b) = (layer("a"), layer("b"));
        let lists =
            [manifest(std::slice::from_ref(&a)), manifest(std::slice::from_ref(&b)), manifest(&[a.clone(), b.clone()])];
        let [only_a, only_b, both] = &lists;
        assert_eq!(merge(both, only_a), Merged::There);
        assert_eq!(merge(only_b, both), Merged::Ours);
        assert_eq!(merge(only_b, only_b), Merged::There);
        let Merged::Both { manifest, config } = merge(only_a, only_b) else { panic!("both") };
        let json: Value = serde_json::from_slice(&manifest).expect("JSON");
        assert_eq!((&json["layers"], &json["x"]), (&json!([a, b]), &json!(1)));
        assert_eq!(json["config"], json!(Descriptor::of(media_type::OCI_CONFIG, &config)));
        let config: Value = serde_json::from_slice(&config).expect("JSON");
        assert_eq!(config["rootfs"]["diff_ids"].as_array().map(Vec::len), Some(2));
        // once merged there is nothing to do
        for list in &lists {
            assert_eq!(merge(&manifest, list), Merged::There);
        }
    }

    #[test]
    fn what_is_no_list_is_not_merged() {
        let list = manifest(&[layer("a")]);
        let sbom = manifest(&[json!(Descriptor::of("text/spdx+json", b"sbom"))]);
        let index = json!({"schemaVersion": 2, "manifests": []}).to_string().into_bytes();
        let about = String::from_utf8(manifest(&[layer("b")])).expect("text");
        let about = about.replace("\"x\":1", &format!("\"subject\":{}", json!(Descriptor::of("x", b"y")))).into_bytes();
        for other in [&sbom, &index, &about, &b"not json".to_vec()] {
            assert_eq!(merge(&list, other), Merged::Neither);
            assert_eq!(merge(other, &list), Merged::Neither);
        }
    }
}
