//! An embedded OCI registry (distribution-spec 1.1) over anything that has blobs: bundles, read-only and without unpacking, or the
//! on-disk store, writable.
//!
//! ```text
//! client ── Server (sockets, TLS) ── Registry (one request → one answer) ── Backend ─┬─ Catalog (bundles)
//!                                        │                                           └─ Store (a folder)
//!              │                         ├─ route, query, range (pure)
//!              │                         ├─ door (who may: access, htpasswd, token), check (are the bytes what their digest says)
//!              │                         └─ see (page, metrics, health), watch (access log, counters)
//!              └─ crowd (who is connected), tls (from files, or by an authority of our own)
//! ```
//!
//! Not here: the file formats (`ferry-archive`), the store's files (`ferry_content::store`), the command line.
//!
//! Reading order: [`route`](mod@route), [`backend`], [`catalog`], [`registry`], [`server`]; then [`page`].

pub mod access;
mod authority;
pub mod backend;
mod blobs;
mod body;
pub mod catalog;
mod check;
mod crowd;
mod door;
pub mod error;
#[doc(hidden)]
pub mod fuzz;
pub mod htpasswd;
mod lists;
mod manifests;
pub mod page;
mod patient;
mod penalty;
mod query;
mod range;
mod refusal;
pub mod registry;
pub mod route;
mod see;
pub mod server;
pub mod tls;
mod token;
mod turns;
mod uploads;
mod watch;

pub use access::{Access, Passwords, Users};
pub use backend::{Backend, Name, Tagged};
pub use catalog::Catalog;
pub use error::Error;
pub use ferry_content::store::{ManifestRecord, ManifestRef};
pub use htpasswd::Htpasswd;
pub use registry::{Registry, Settings};
pub use route::{Route, RouteError, route};
pub use server::{Limits, Server};
pub use tls::{Authority, Tls};
pub use watch::AccessLog;
