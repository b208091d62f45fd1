//! What the OCI specifications name: references, digests, platforms, descriptors, and read-only views
//! over the raw bytes of manifests, indexes and configs. Also where an image goes at the target.
//!
//! Not here: any I/O, any async, any re-serialising of what has a digest. A manifest is bytes first;
//! the views only look.
//!
//! Reading order: [`digest`], [`reference`](mod@reference), [`platform`], [`descriptor`], [`manifest`],
//! [`config`], [`referrer`], [`target`], [`relocation`], [`receipt`], [`rules`].

pub mod config;
pub mod descriptor;
pub mod digest;
pub mod manifest;
pub mod media_type;
pub mod platform;
pub mod receipt;
pub mod reference;
pub mod referrer;
pub mod relocation;
pub mod rules;
pub mod target;

pub use config::ImageConfig;
pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, Hasher};
pub use manifest::{ImageManifest, Index, Manifest};
pub use platform::Platform;
pub use receipt::{Held, HeldBlob, Receipt, ReceiptBundle};
pub use reference::Reference;
pub use referrer::{CosignTag, ReferrerKind};
pub use relocation::{Relocated, Relocation};
pub use rules::{Form, Ignore, SetRule};
pub use target::{Layout, Target, TargetName};

/// Why a text or a document is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not `algorithm:hex` (image-spec, descriptor.md, "Digests").
    #[error("`{text}` is not a digest: {why}")]
    Digest {
        /// The text as given.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Not `[host/]path[:tag][@digest]` (distribution-spec, "Pulling manifests").
    #[error("`{text}` is not an image reference: {why}")]
    Reference {
        /// The text as given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// Not `os/arch[/variant]`.
    #[error("`{text}` is not a platform: {why}")]
    Platform {
        /// The text as given.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Not `HOST[:PORT][/PREFIX]`.
    #[error("`{text}` is not a registry: {why}")]
    Target {
        /// The text as given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A manifest, index or config that does not follow its specification.
    #[error("not a valid {what}: {why}")]
    Document {
        /// `manifest`, `index` or `config`.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// What stands at the target is known by tag only.
    #[error("the digest of `{reference}` at the target cannot be told from the bundle alone")]
    DigestUnknown {
        /// The reference as carried.
        reference: String,
    },
    /// No manifest of an index fits the wanted platform.
    #[error("platform {wanted} is missing; there are: {}", list(.available))]
    PlatformMissing {
        /// What was asked for.
        wanted: Platform,
        /// What the index has.
        available: Vec<Platform>,
    },
    /// Two references would land on one name at the target.
    #[error("`{first}` and `{second}` would both be `{name}` at the target")]
    Collision {
        /// The name both want.
        name: String,
        /// The one listed first.
        first: String,
        /// The other.
        second: String,
    },
}

fn list(platforms: &[Platform]) -> String {
    if platforms.is_empty() {
        return "none".to_owned();
    }
    let names: Vec<String> = platforms.iter().map(ToString::to_string).collect();
    names.join(", ")
}
