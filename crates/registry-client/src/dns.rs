//! Addresses of names: given ones first, then the system's resolver or our own (see [`Resolver`](crate::Resolver)).

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hickory_resolver::config::ResolverConfig;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{ResolverBuilder, TokioResolver};
use reqwest::dns::{Addrs, Name, Resolving};

use crate::config::{Resolve, Resolver};

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
#[derive(Clone)]
pub(crate) struct Names {
    given: Arc<HashMap<String, Vec<IpAddr>>>,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    System,
    Own(Arc<tokio::sync::OnceCell<TokioResolver>>),
}

impl Names {
    /// `given` are addresses of names, whatever the port.
    pub(crate) fn new(given: &[Resolve], resolver: Resolver) -> Self {
        let mut map: HashMap<String, Vec<IpAddr>> = HashMap::new();
        for Resolve { host, addresses, .. } in given {
            map.entry(host.to_ascii_lowercase()).or_default().extend(addresses);
        }
        let kind = match resolver {
            Resolver::System => Kind::System,
            Resolver::Own => Kind::Own(Arc::default()),
        };
        Self { given: Arc::new(map), kind }
    }

    /// The addresses of a name; an address is its own.
    pub(crate) async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, Unresolved> {
        let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
        if let Ok(address) = bare.parse() {
            return Ok(vec![address]);
        }
        if let Some(addresses) = self.given.get(&name.to_ascii_lowercase()) {
            return Ok(addresses.clone());
        }
        match &self.kind {
            Kind::System => system(name).await,
            Kind::Own(cell) => ask(cell.get_or_try_init(|| async { own() }).await?, name).await,
        }
    }
}

impl reqwest::dns::Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let names = self.clone();
        Box::pin(async move { Ok(with_any_port(names.lookup(name.as_str()).await?)) })
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

/// Only name servers that this machine lists. Without a list `/etc/hosts` is all there is, as on many machines without a net;
/// a public server is never asked.
fn own() -> Result<TokioResolver, Unresolved> {
    let builder = TokioResolver::builder_tokio().unwrap_or_else(|error| {
        tracing::debug!(%error, "no name server is configured on this machine");
        without_servers()
    });
    builder.build().map_err(|e| Unresolved { why: e.to_string(), passes: false })
}

fn without_servers() -> ResolverBuilder<TokioRuntimeProvider> {
    let nobody = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
    TokioResolver::builder_with_config(nobody, TokioRuntimeProvider::default())
}

async fn ask(resolver: &TokioResolver, name: &str) -> Result<Vec<IpAddr>, Unresolved> {
    match resolver.lookup_ip(name).await {
        Ok(found) => Ok(found.iter().collect()),
        Err(error) => Err(Unresolved { passes: !error.is_no_records_found(), why: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_name_servers_the_hosts_file_still_counts() {
        let resolver = without_servers().build().unwrap();
        let found = ask(&resolver, "localhost").await.unwrap();
        assert!(!found.is_empty() && found.iter().all(IpAddr::is_loopback), "{found:?}");
        let start = std::time::Instant::now();
        assert!(ask(&resolver, "registry.example").await.is_err());
        assert!(start.elapsed().as_secs() < 5, "nobody is there to be waited for");
    }
}
