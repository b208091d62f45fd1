//! Recovery files: Reed–Solomon data beside a sealed bundle, and mending a bundle with it (`docs/format.md`, "Recovery files").
//!
//! Nothing here is believed: what was mended is right when the bundle's own signature and digests say so.
//!
//! Reading order: [`geometry`] (what stands where), [`page`] (what a recovery file says), `codec` (columns in memory), `share`,
//! `beside` (names); writing: `write`, [`protect`]; mending: `found`, `parts`, `foreseen`, `scan`, `mend`, `writable`,
//! `companions`, `report`, [`repair`].

mod beside;
mod codec;
mod companions;
mod foreseen;
mod found;
pub mod geometry;
mod mend;
pub mod page;
mod parts;
pub mod protect;
pub mod repair;
mod report;
mod scan;
mod share;
mod writable;
mod write;

pub use beside::{Protected, is_recovery_file, protection};
pub use geometry::{Budget, Geometry, Survives};
pub use parts::Misnamed;
pub use protect::{Protection, check_room};
pub use repair::{Decided, Repair};
pub use report::{Patient, Report, Was};
