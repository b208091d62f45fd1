//! The private readers of signatures, for the fuzz targets and nobody else. Thin: one call each.
#![allow(missing_docs, clippy::missing_errors_doc, clippy::must_use_candidate)]

use std::collections::BTreeMap;

pub use ferry_archive::SpkiKey as Key;
use ferry_image::Digest;

use crate::signature;

pub fn simple_signing(
    payload: &[u8],
    annotations: &BTreeMap<String, String>,
    subject: &Digest,
    key: &Key,
) -> Result<(), String> {
    signature::simple_signing(payload, annotations, subject, &[key]).map(drop).map_err(|e| e.to_string())
}

pub fn sigstore_bundle(json: &[u8], subject: &Digest, key: &Key) -> Result<(), String> {
    signature::sigstore_bundle(json, subject, &[key]).map(drop).map_err(|e| e.to_string())
}
