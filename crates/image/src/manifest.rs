//! Views over the bytes of a manifest or an index (image-spec manifest.md and image-index.md; Docker schema 2).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{Descriptor, Error, Platform, media_type};

/// The largest manifest anybody takes (distribution-spec: registries should refuse more than 4 MiB).
pub const MAX_MANIFEST: u64 = 4 << 20;

/// What stands under a digest that a reference names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manifest {
    /// One image, or one artifact.
    Image(ImageManifest),
    /// A list of manifests.
    Index(Index),
}

/// An image (or artifact) manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageManifest {
    /// Its media type.
    pub media_type: String,
    /// The type of an artifact.
    pub artifact_type: Option<String>,
    /// The config blob.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// What this refers to (a signature names its image).
    pub subject: Option<Descriptor>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// An index or manifest list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Its media type.
    pub media_type: String,
    /// The type of an artifact.
    pub artifact_type: Option<String>,
    /// The entries, in order.
    pub manifests: Vec<Descriptor>,
    /// What this refers to.
    pub subject: Option<Descriptor>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u32>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl Manifest {
    /// Reads `bytes`; `declared` is the media type of the descriptor or of the `Content-Type` header.
    ///
    /// # Errors
    /// When it is no manifest, is both kinds at once (CVE-2021-41190), contradicts `declared`, or is schema 1.
    pub fn parse(bytes: &[u8], declared: Option<&str>) -> Result<Self, Error> {
        let fail = |why: String| Error::Document { what: "manifest", why };
        if bytes.len() as u64 > MAX_MANIFEST {
            return Err(fail(format!("{} bytes, more than the {MAX_MANIFEST} that registries take", bytes.len())));
        }
        // a reader of JSON need not look into strings that it passes over, but whoever reads the whole later will
        let text = std::str::from_utf8(bytes).map_err(|e| fail(format!("not UTF-8: {e}")))?;
        let raw: Raw = serde_json::from_str(text).map_err(|e| fail(e.to_string()))?;
        match raw.schema_version {
            Some(2) => {}
            Some(1) => {
                return Err(fail(
                    "Docker schema 1, which nothing current can run; rebuild or re-push the image".to_owned(),
                ));
            }
            Some(n) => return Err(fail(format!("unknown schemaVersion {n}"))),
            None => return Err(fail("no schemaVersion".to_owned())),
        }
        let index = match (&raw.config, &raw.layers, &raw.manifests) {
            (None, None, Some(_)) => true,
            (Some(_), Some(_), None) => false,
            _ => return Err(fail("it must have either `manifests`, or `config` and `layers`".to_owned())),
        };
        let known = |t: &&str| media_type::is_index(t) || media_type::is_manifest(t);
        let declared = declared.map(|t| t.split(';').next().unwrap_or(t).trim()).filter(known);
        if let (Some(declared), Some(inside)) = (declared, raw.media_type.as_deref())
            && declared != inside
        {
            return Err(fail(format!("announced as {declared}, but says of itself {inside}")));
        }
        let implied = if index { media_type::OCI_INDEX } else { media_type::OCI_MANIFEST };
        let media_type = raw.media_type.unwrap_or_else(|| declared.unwrap_or(implied).to_owned());
        if media_type::is_index(&media_type) != index {
            return Err(fail(format!("its content does not fit its media type {media_type}")));
        }
        let annotations = raw.annotations.unwrap_or_default();
        let (artifact_type, subject) = (raw.artifact_type, raw.subject);
        Ok(match (raw.config, raw.layers, raw.manifests) {
            (Some(config), Some(layers), _) => {
                Self::Image(ImageManifest { media_type, artifact_type, config, layers, subject, annotations })
            }
            (_, _, manifests) => {
                let manifests = manifests.unwrap_or_default();
                Self::Index(Index { media_type, artifact_type, manifests, subject, annotations })
            }
        })
    }

    /// Its media type.
    #[must_use]
    pub fn media_type(&self) -> &str {
        match self {
            Self::Image(image) => &image.media_type,
            Self::Index(index) => &index.media_type,
        }
    }
}

impl ImageManifest {
    /// Config and layers: every blob the manifest needs.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.config).chain(&self.layers)
    }

    /// Whether this is a container image, and not an artifact such as a chart or a signature.
    #[must_use]
    pub fn is_container_image(&self) -> bool {
        matches!(self.config.media_type.as_str(), media_type::OCI_CONFIG | media_type::DOCKER_CONFIG)
    }
}

impl Index {
    /// The platforms its entries state, attestations left out, in order.
    #[must_use]
    pub fn platforms(&self) -> Vec<Platform> {
        self.manifests.iter().filter_map(|d| d.platform.clone()).filter(|p| !p.is_unknown()).collect()
    }

    /// The entry that fits `wanted` best.
    ///
    /// # Errors
    /// [`Error::PlatformMissing`].
    pub fn select(&self, wanted: &Platform) -> Result<&Descriptor, Error> {
        let stated: Vec<(&Descriptor, Platform)> =
            self.manifests.iter().filter_map(|d| Some((d, d.platform.clone()?))).collect();
        let platforms: Vec<Platform> = stated.iter().map(|(_, p)| p.clone()).collect();
        wanted.best(&platforms).map(|i| stated[i].0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn image(extra: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"{}","digest":"{D}","size":0}},"layers":[]{extra}}}"#,
            media_type::OCI_CONFIG
        )
    }

    #[test]
    fn the_kind_follows_from_the_content() {
        let manifest = Manifest::parse(image("").as_bytes(), None).expect("image");
        assert_eq!(manifest.media_type(), media_type::OCI_MANIFEST);
        let list = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{{"mediaType":"x","digest":"{D}","size":7,"platform":{{"os":"linux","architecture":"arm64","variant":"v8"}}}}]}}"#,
            media_type::DOCKER_INDEX
        );
        let Manifest::Index(index) = Manifest::parse(list.as_bytes(), None).expect("index") else { panic!("an index") };
        assert_eq!(index.platforms(), ["linux/arm64".parse().expect("platform")]);
        assert_eq!(index.select(&"linux/arm64".parse().expect("platform")).map(|d| d.size), Ok(7));
    }

    #[test]
    fn a_platform_that_cannot_be_written_is_none() {
        for (fields, expected) in [
            (r#"{"os":"","architecture":""}"#, None),
            (r#"{"os":"linux","architecture":"a/b"}"#, None),
            (r#"{"os":"linux","architecture":"arm","variant":"v 6"}"#, None),
            (r#"{"os":"linux","architecture":"arm","variant":""}"#, Some("linux/arm/v7")),
        ] {
            let text = format!(
                r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"x","digest":"{D}","size":7,"platform":{fields}}}]}}"#
            );
            let Ok(Manifest::Index(index)) = Manifest::parse(text.as_bytes(), None) else { panic!("an index: {text}") };
            let found = index.manifests[0].platform.as_ref().map(ToString::to_string);
            assert_eq!(found.as_deref(), expected, "{fields}");
        }
        assert!(crate::ImageConfig::parse(br#"{"os":"linux","architecture":"a/b"}"#).is_err());
        let old = crate::ImageConfig::parse(br#"{"os":"","architecture":""}"#).expect("config");
        assert_eq!(old.platform.to_string(), "linux/amd64");
    }

    #[test]
    fn ambiguous_and_foreign_documents_are_refused() {
        for text in [
            "{}".to_owned(),
            "not json".to_owned(),
            r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(),
            image(r#","manifests":[]"#),
            image(&format!(r#","mediaType":"{}""#, media_type::OCI_INDEX)),
            r#"{"schemaVersion":2}"#.to_owned(),
        ] {
            assert!(Manifest::parse(text.as_bytes(), None).is_err(), "{text}");
        }
        let latin = [image(r#","x":""#).trim_end_matches('}').as_bytes(), b"\xe9\"}"].concat();
        let why = Manifest::parse(&latin, None).expect_err("not UTF-8").to_string();
        assert!(why.contains("not UTF-8"), "{why}");
        let typed = image(&format!(r#","mediaType":"{}""#, media_type::OCI_MANIFEST));
        assert!(Manifest::parse(typed.as_bytes(), Some(media_type::DOCKER_MANIFEST)).is_err());
        assert!(Manifest::parse(typed.as_bytes(), Some("application/json; charset=utf-8")).is_ok());
    }
}
