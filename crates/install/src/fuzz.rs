//! The private readers of what stands at a target, for the fuzz targets and nobody else. Thin: one call each.
#![allow(missing_docs, clippy::missing_errors_doc, clippy::must_use_candidate)]

use ferry_image::Descriptor;

use crate::referrers::{list, merge};

/// What becomes of two lists of signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merged {
    There,
    Ours,
    Both { manifest: Vec<u8>, config: Vec<u8> },
    Neither,
}

pub fn merge(there: &[u8], ours: &[u8]) -> Merged {
    match merge::merge(there, ours) {
        merge::Merged::There => Merged::There,
        merge::Merged::Ours => Merged::Ours,
        merge::Merged::Both { manifest, config } => {
            Merged::Both { manifest: manifest.to_vec(), config: config.to_vec() }
        }
        merge::Merged::Neither => Merged::Neither,
    }
}

pub fn with_entries(list: &[u8], entries: &[Descriptor]) -> Result<Option<Vec<u8>>, String> {
    list::with_entries(Some(list), entries).map_err(|e| e.to_string())
}
