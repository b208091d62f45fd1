//! Addresses of names: given ones first, then the system's resolver or our own (see [`Resolver`](crate::Resolver)).

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hickory_resolver::TokioResolver;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::Resolver;

/// A name without address.
#[derive(Debug)]
pub(crate) struct Unresolved {
    /// The resolver's own words.
    pub(crate) why: String,
    /// Whether the name server itself failed.
    pub(crate) passes: bool,
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Unresolved {}

/// The resolver that is handed to the HTTP library.
pub(crate) struct Names {
    given: HashMap<String, Vec<IpAddr>>,
    kind: Kind,
}

enum Kind {
    System,
    Own(Arc<tokio::sync::OnceCell<TokioResolver>>),
}

impl Names {
    pub(crate) fn new(given: &[(String, IpAddr)], resolver: Resolver) -> Self {
        let mut map: HashMap<String, Vec<IpAddr>> = HashMap::new();
        for (name, address) in given {
            map.entry(name.to_ascii_lowercase()).or_default().push(*address);
        }
        let kind = match resolver {
            Resolver::System => Kind::System,
            Resolver::Own => Kind::Own(Arc::default()),
        };
        Self { given: map, kind }
    }
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_owned();
        if let Some(addresses) = self.given.get(&name.to_ascii_lowercase()) {
            let addresses = addresses.clone();
            return Box::pin(async move { Ok(with_any_port(addresses)) });
        }
        match &self.kind {
            Kind::System => Box::pin(async move { Ok(with_any_port(system(&name).await?)) }),
            Kind::Own(cell) => {
                let cell = Arc::clone(cell);
                Box::pin(async move {
                    let resolver = cell.get_or_try_init(|| async { own() }).await?;
                    Ok(with_any_port(ask(resolver, &name).await?))
                })
            }
        }
    }
}

/// Port 0 stands for the one in the URL.
fn with_any_port(addresses: Vec<IpAddr>) -> Addrs {
    Box::new(addresses.into_iter().map(|ip| SocketAddr::new(ip, 0)))
}

async fn system(name: &str) -> Result<Vec<IpAddr>, Unresolved> {
    match tokio::net::lookup_host((name, 0)).await {
        Ok(addresses) => Ok(addresses.map(|a| a.ip()).collect()),
        Err(error) => {
            let why = error.to_string();
            let why = why.strip_prefix("failed to lookup address information: ").unwrap_or(&why).to_owned();
            // EAI_AGAIN has no kind of its own
            Err(Unresolved { passes: why.contains("Temporary failure"), why })
        }
    }
}

/// Only name servers that this machine lists: without a list there is an error, not a public server.
fn own() -> Result<TokioResolver, Unresolved> {
    let fail = |e: &dyn fmt::Display| Unresolved {
        why: format!("no name server is configured on this machine: {e}"),
        passes: false,
    };
    TokioResolver::builder_tokio().map_err(|e| fail(&e))?.build().map_err(|e| fail(&e))
}

async fn ask(resolver: &TokioResolver, name: &str) -> Result<Vec<IpAddr>, Unresolved> {
    match resolver.lookup_ip(name).await {
        Ok(found) => Ok(found.iter().collect()),
        Err(error) => Err(Unresolved { passes: !error.is_no_records_found(), why: error.to_string() }),
    }
}
