//! Where blobs come from and go to.
//!
//! Two small traits with containerd's words, [`Provider`] and [`Ingester`], and the one loop between them ([`copy`]): registries,
//! bundles, docker-save tars, OCI layouts and the store implement them, and every pull, push, install and
//! export is a copy from one to the other. Hashing, resuming, retrying and holding back the last bytes until the hash agrees
//! happen in that loop and nowhere else.
//!
//! Not here: what a manifest means (`ferry-image`), the bundle file (`ferry-archive`), HTTP (`ferry-registry-client`).
//!
//! Reading order: [`failure`], [`error`], [`provider`], [`ingester`], [`copy`], then the places: [`memory`], [`files`], [`local`], [`store`]; [`raw`] for layers without their compression;
//! [`texts`] for the user's YAML, with [`charts`] for Helm's;
//! [`disk`] for what is asked before anything is written, and [`scratch`] for what lives as long as one run.

pub mod charts;
pub mod copy;
pub mod disk;
pub mod error;
pub mod failure;
pub mod files;
pub mod ingester;
pub mod local;
pub mod memory;
pub mod problems;
pub mod provider;
pub mod raw;
pub mod scratch;
pub mod store;
pub mod texts;

pub use error::{Error, Side};
pub use failure::{Failure, Kind};
pub use ingester::{Ingest, Ingester};
pub use problems::{Problem, Problems};
pub use provider::{ByteStream, Provider, Version, read_all};

/// A boxed future that may move between threads.
pub type BoxFuture<'a, T> = futures_util::future::BoxFuture<'a, T>;
