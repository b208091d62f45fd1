//! Connected side: what to carry, resolved, planned, fetched and sealed into a bundle.
//!
//! Not here: the bundle file's form (`ferry-archive`), HTTP (`ferry-registry-client`), references in YAML (`ferry-rewrite`).
//!
//! Reading order: [`manifest`], [`list`], [`lock`].

pub mod list;
pub mod lock;
pub mod manifest;
