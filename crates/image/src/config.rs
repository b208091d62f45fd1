//! The part of an image config that ferry looks at (image-spec, config.md).

use serde::Deserialize;

use crate::{Digest, Error, Platform};

/// A view over an image config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// What the image runs on.
    pub platform: Platform,
    /// The digests of the uncompressed layers, lowest first.
    pub diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct Raw {
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
    rootfs: Option<RootFs>,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<Digest>,
}

impl ImageConfig {
    /// Reads the bytes of a config. Where os or architecture is missing or empty, `linux` and `amd64` are meant,
    /// as docker reads old images.
    ///
    /// # Errors
    /// When it is no image config.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let raw: Raw =
            serde_json::from_slice(bytes).map_err(|e| Error::Document { what: "config", why: e.to_string() })?;
        let given =
            |field: Option<String>, usual: &str| field.filter(|f| !f.is_empty()).unwrap_or_else(|| usual.to_owned());
        let (os, architecture) = (given(raw.os, "linux"), given(raw.architecture, "amd64"));
        let platform = Platform::stated(&os, &architecture, raw.variant.as_deref()).ok_or_else(|| {
            let why = format!("os `{os}`, architecture `{architecture}` and its variant name no platform");
            Error::Document { what: "config", why }
        })?;
        Ok(Self { platform, diff_ids: raw.rootfs.map(|r| r.diff_ids).unwrap_or_default() })
    }
}
