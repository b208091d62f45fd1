//! OCI distribution client: a registry's repositories as places that blobs come from and go to, and their manifests and tags.
//!
//! Owns everything between here and a registry: TLS, names, proxies, credentials, tokens, redirects, retries, rate limits.
//! Not here: which blobs to copy, hashing them and holding back the last bytes (`ferry_content::copy`); what a manifest means
//! (`ferry-image`); where settings and credentials are read from (the command line): this library reads neither environment nor
//! home directory. What streams is never held in memory.
//!
//! Reading order: [`config`] and [`credentials`]; [`client`], [`repository`] and [`catalog`], then [`pull`], [`upload`] and [`trial`]; underneath
//! `registry` (where the API stands, what authorises), `transport` (one request until it is answered), `auth` and `token`,
//! `gate`, `pace`, `retry`, `drip`, `pool`, `tls`, `dns`, `proxy`, `tunnel`; and the pure readers `challenge`, `location`, `link`,
//! `range`, `validator`, `quota`, `reply`, `host`, `product`.

mod auth;
pub mod catalog;
mod certificates;
mod challenge;
pub mod client;
pub mod config;
mod credential_program;
pub mod credentials;
mod dns;
mod drip;
pub mod error;
#[doc(hidden)]
pub mod fuzz;
mod gate;
mod hint;
mod host;
mod link;
mod location;
mod login;
mod pace;
mod pool;
pub mod product;
mod proxy;
pub mod pull;
pub mod quota;
mod range;
pub mod referrers;
mod registry;
mod reply;
pub mod repository;
pub mod retry;
pub mod secret;
mod tls;
mod token;
mod transport;
pub mod trial;
mod tunnel;
pub mod upload;
mod validator;

pub use client::{Authentication, Client, Ping};
pub use config::{ClientCertificate, Commands, Config, HostConfig, Hosts, PlainHttp, Proxies, Resolve, Resolver, Tls};
pub use credentials::{Credentials, Login, Source};
pub use error::{Cause, Error, Status, What};
pub use product::Product;
pub use proxy::ProxyFault;
pub use quota::Quota;
pub use referrers::{ListedBy, Referrers};
pub use repository::{Fetched, Head, Repository};
pub use retry::Retry;
pub use secret::Secret;
pub use trial::{Kept, Trial};
pub use upload::Uploads;
