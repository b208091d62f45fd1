//! The bundle file: a signed, checksummed tar that is also an OCI image layout (`docs/format.md` is its specification).
//!
//! Two sides. Writing: [`Contents`] → [`Layout`] (pure: every member's bytes and place are known before the first layer is
//! fetched) → [`Partial`] (an ingester over the unfinished file, resumable) → [`Sealed`]. Reading: [`Bundle::open`]
//! (signature first, then the structure, byte for byte) → a provider of blobs by position → [`Bundle::verify`].
//!
//! Not here: where blobs come from, what to put in, what to do with a bundle (`ferry-bundle`, `ferry-install`).
//!
//! Reading order: [`head`], [`member`], [`sums`], [`oci`], [`layout`], [`keys`], [`spki`], [`public_key`], [`signers`], [`trust`], [`want`],
//! [`slices`], [`volumes`], [`list`]; writing: `disk`, [`ranges`], `journal`, `durable`, `unfinished`, [`partial`], [`outgoing`]; reading: `source`, `front`, `frame`,
//! [`bundle`], [`verify`], [`incoming`]; beside the bundle: [`recovery`].

pub mod bundle;
mod disk;
mod durable;
pub mod error;
mod file_name;
mod frame;
mod front;
#[doc(hidden)]
pub mod fuzz;
pub mod head;
pub mod incoming;
mod journal;
pub mod keys;
pub mod layout;
pub mod list;
pub mod member;
pub mod oci;
pub mod outgoing;
pub mod partial;
pub mod public_key;
pub mod ranges;
pub mod recovery;
pub mod signers;
pub mod slices;
mod source;
pub mod spki;
mod steady;
pub mod sums;
pub mod trust;
mod unfinished;
pub mod verify;
pub mod volumes;
pub mod want;

pub use bundle::Bundle;
pub use error::{Damage, Error};
pub use head::{Absent, Head, HeadBase, HeadBlob, HeadFile, HeadImage, HeadPlatform, HeadRelied, HeadVerified};
pub use incoming::{Arriving, Incoming, Inflow};
pub use keys::{KeyId, MinisignKey, SecretKey};
pub use layout::{Contents, File, FileContent, Layout};
pub use outgoing::Outgoing;
pub use partial::{Build, Earlier, Partial, Sealed};
pub use public_key::{KeyRef, PublicKey, TrustedKey};
pub use signers::{Signed, Signer, Uncounted};
pub use slices::{Slice, Slices};
pub use spki::SpkiKey;
pub use trust::Trust;
pub use verify::Verified;
pub use volumes::Location;
pub use want::{Want, WantBlob, WantBundle, WantImage, WantReferrer};
