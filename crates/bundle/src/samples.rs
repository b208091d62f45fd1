//! Images in memory, for the tests of this crate.

use std::sync::Arc;

use ferry_content::memory::Memory;
use ferry_image::{Descriptor, media_type};
use serde_json::{Value, json};

use crate::place::Place;

/// A source that is filled by hand.
#[derive(Default, Clone)]
pub(crate) struct Sample(Memory);

impl Sample {
    /// Adds a blob.
    pub(crate) fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Descriptor {
        self.0.insert(bytes.to_vec());
        Descriptor::of(media_type, bytes)
    }

    /// Adds a document.
    pub(crate) fn json(&mut self, media_type: &str, value: &Value) -> Descriptor {
        self.blob(media_type, value.to_string().as_bytes())
    }

    /// Adds an image whose config says `platform`, with these layers.
    pub(crate) fn image(&mut self, platform: &str, layers: &[Descriptor]) -> Descriptor {
        let mut words = platform.split('/');
        let config = json!({"os": words.next(), "architecture": words.next(), "variant": words.next(),
            "rootfs": {"type": "layers", "diff_ids": []}});
        let config = self.json(media_type::OCI_CONFIG, &config);
        self.manifest(&config, layers)
    }

    /// Adds a manifest.
    pub(crate) fn manifest(&mut self, config: &Descriptor, layers: &[Descriptor]) -> Descriptor {
        let manifest =
            json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": layers});
        self.json(media_type::OCI_MANIFEST, &manifest)
    }

    /// Adds an index.
    pub(crate) fn index(&mut self, entries: &[Value]) -> Descriptor {
        let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries});
        self.json(media_type::OCI_INDEX, &index)
    }

    /// The source.
    pub(crate) fn place(self) -> Place {
        Place::local(Arc::new(self.0), [])
    }
}

/// A layer's descriptor alone.
pub(crate) fn layer(bytes: &[u8]) -> Descriptor {
    Descriptor::of(media_type::OCI_LAYER_GZIP, bytes)
}

/// An index entry that states `platform`.
pub(crate) fn entry(of: &Descriptor, platform: &str) -> Value {
    let mut words = platform.split('/');
    let mut platform = json!({"os": words.next(), "architecture": words.next()});
    if let Some(variant) = words.next() {
        platform["variant"] = variant.into();
    }
    json!({"mediaType": of.media_type, "digest": of.digest, "size": of.size, "platform": platform})
}
