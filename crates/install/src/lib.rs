//! Air-gapped side: names at the target, a look at everything before the first byte, the push, what is left behind.
//!
//! ```text
//! bundles ─▶ preflight (names, forms, YAML, probe of the target) ─▶ push (blobs, manifests, tags) ─▶ receipt, relocation.json, YAML
//! ```
//!
//! Not here: opening and verifying the bundle file (`ferry-archive`), HTTP (`ferry-registry-client`), references in YAML
//! (`ferry-rewrite`), what connected machines do (`ferry-bundle`).
//!
//! Reading order: [`bundles`], [`destination`], [`names`], [`form`], [`yaml`], [`emit`], [`preflight`](mod@preflight) with `existing`, `recheck`, `relied`, [`probe`] and `notes`,
//! [`push`], [`pipe`], [`referrers`], [`receipt`]; and [`redirect`](mod@redirect), the part for YAML by itself,
//! and [`inventory`](mod@inventory), a receipt without an install. Where there is no registry: [`export`], [`node`].

pub mod bundles;
pub mod destination;
pub mod emit;
pub mod error;
mod existing;
pub mod export;
pub mod form;
#[doc(hidden)]
pub mod fuzz;
pub mod inventory;
pub mod names;
pub mod node;
mod notes;
pub mod pipe;
pub mod preflight;
pub mod probe;
pub mod push;
pub mod receipt;
mod recheck;
pub mod redirect;
pub mod referrers;
mod relied;
pub mod yaml;

pub use bundles::{Bundles, Passing};
pub use destination::Destination;
pub use error::Error;
pub use form::{FormKind, IndexMode};
pub use inventory::{Inventory, Which, inventory};
pub use names::Named;
pub use pipe::Pipe;
pub use preflight::{OnExisting, Options, Planned, Preflight, State, preflight};
pub use probe::{Answer, Probe, Verdict};
pub use push::Pushed;
pub use receipt::Written;
pub use redirect::{Place, Redirect, Redirected, redirect};
pub use referrers::{PlannedReferrer, ReferrerState};
pub use yaml::{Carried, Text};
