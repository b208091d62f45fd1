//! Air-gapped side: names at the target, a look at everything before the first byte, the push, what is left behind.
//!
//! ```text
//! bundle ─▶ preflight (names, forms, target, YAML) ─▶ push (blobs, manifests, tags) ─▶ receipt, relocation.json, YAML
//! ```
//!
//! Not here: opening and verifying the bundle file (`ferry-archive`), HTTP (`ferry-registry-client`), references in YAML
//! (`ferry-rewrite`), what connected machines do (`ferry-bundle`).
//!
//! Reading order: [`destination`], [`names`], [`form`], [`yaml`], [`preflight`](mod@preflight), [`push`], [`receipt`].

pub mod destination;
pub mod error;
pub mod form;
pub mod names;
pub mod preflight;
pub mod push;
pub mod receipt;
pub mod yaml;

pub use destination::Destination;
pub use error::Error;
pub use form::IndexMode;
pub use names::{Named, named};
pub use preflight::{OnExisting, Options, Planned, Preflight, State, preflight};
pub use push::Pushed;
pub use receipt::{Receipt, Written};
