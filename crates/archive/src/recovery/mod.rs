//! Recovery files: Reed–Solomon data beside a sealed bundle, and mending a bundle with it (`docs/format.md`, "Recovery files").
//!
//! Nothing here is believed: what was mended is right when the bundle's own signature and digests say so.
//!
//! Reading order: [`geometry`] (what stands where), [`page`] (what a recovery file says), `codec` (columns in memory), `share`,
//! `beside` (names); writing: `write`, [`protect`]; mending: `found`, `parts`, `scan`, `mend`, `companions`, [`repair`].

mod beside;
mod codec;
mod companions;
mod found;
pub mod geometry;
mod mend;
pub mod page;
mod parts;
pub mod protect;
pub mod repair;
mod scan;
mod share;
mod write;

pub use beside::{is_protected, is_recovery_file};
pub use geometry::{Budget, Geometry, Survives};
pub use parts::Misnamed;
pub use protect::Protection;
pub use repair::{Patient, Repair, Report, Was};
