//! An embedded OCI registry (distribution-spec 1.1) over anything that has blobs: bundles, read-only and without unpacking, or the
//! on-disk store, writable.
//!
//! ```text
//! client ── Server (sockets, TLS) ── Registry (one request → one answer) ── Backend ─┬─ Catalog (bundles)
//!              │                         │                                           └─ Store (a folder)
//!              │                         ├─ route, query, range (pure)
//!              │                         ├─ auth (who may), check (are the bytes what their digest says)
//!              │                         ├─ registry/ (the endpoints of the API)
//!              │                         └─ monitoring (page, metrics, health), watch (access log, counters)
//!              └─ server/ (who is connected, proxies, timeouts, certificates from files or by an authority of our own)
//! ```
//!
//! Not here: the file formats (`ferry-archive`), the store's files (`ferry_content::store`), the command line.
//!
//! Reading order: [`route`](mod@route), [`backend`], [`catalog`], [`registry`], [`server`]; then [`page`].

pub mod auth;
pub mod backend;
mod body;
pub mod catalog;
mod check;
pub mod error;
#[doc(hidden)]
pub mod fuzz;
mod monitoring;
pub mod page;
mod query;
mod range;
mod refusal;
pub mod registry;
pub mod route;
pub mod server;
mod watch;

pub use auth::access::{Access, Passwords, Users};
pub use auth::htpasswd::Htpasswd;
pub use backend::{Backend, Name, Tagged};
pub use catalog::Catalog;
pub use error::Error;
pub use ferry_content::store::{ManifestRecord, ManifestRef};
pub use registry::{Registry, Settings};
pub use route::{Route, RouteError, route};
pub use server::proxies::{Network, Proxies};
pub use server::reload::{Reload, Reloaded, Reread};
pub use server::tls::{Authority, Found, Tls};
pub use server::{Limits, Server};
pub use watch::{AccessLog, Lines, log_time};
