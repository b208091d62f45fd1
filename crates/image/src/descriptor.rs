//! Content descriptors (image-spec, descriptor.md).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, Platform};

/// What a blob is, how large, and its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type, as written.
    #[serde(default)]
    pub media_type: String,
    /// The digest of the bytes.
    pub digest: Digest,
    /// The number of bytes.
    pub size: u64,
    /// The platform an index entry is for.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "platform_fields")]
    pub platform: Option<Platform>,
    /// Other places the blob may stand at (foreign layers). Never fetched unless asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

impl Descriptor {
    /// A plain descriptor.
    #[must_use]
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            platform: None,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            artifact_type: None,
        }
    }

    /// The descriptor of `bytes`.
    #[must_use]
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }
}

/// In the specification a platform is an object, not our `os/arch` text.
mod platform_fields {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::Platform;

    #[derive(Serialize, Deserialize)]
    struct Fields {
        architecture: String,
        os: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        variant: Option<String>,
    }

    pub(super) fn serialize<S: Serializer>(platform: &Option<Platform>, s: S) -> Result<S::Ok, S::Error> {
        platform
            .as_ref()
            .map(|p| Fields {
                architecture: p.architecture.clone(),
                os: p.os.clone(),
                variant: (!p.variant.is_empty()).then(|| p.variant.clone()),
            })
            .serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Platform>, D::Error> {
        let fields = Option::<Fields>::deserialize(d)?;
        Ok(fields.and_then(|f| Platform::stated(&f.os, &f.architecture, f.variant.as_deref())))
    }
}
