//! The client: cheap to clone, one for a whole run.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::auth::Wanted;
use crate::host::Host;
use crate::pool::Pool;
use crate::registry::Registry;
use crate::{Config, Error, Product, Repository};

/// Speaks to any number of registries. Connections, tokens and rate limits are shared by all clones.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    config: Arc<Config>,
    pool: Arc<Pool>,
    /// By normalised host.
    registries: Mutex<HashMap<String, Arc<Registry>>>,
}

/// What a registry answers to the first request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ping {
    /// `SCHEME://HOST/`.
    pub address: String,
    /// Whether there is no TLS.
    pub plain_http: bool,
    /// What it wants to see.
    pub authentication: Authentication,
    /// Which program it is, if it shows that.
    pub product: Option<Product>,
}

/// How a registry wants to be authenticated at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authentication {
    /// Not at all, as far as it says.
    None,
    /// Name and password with each request.
    Basic,
    /// A token from a token server.
    Bearer,
}

impl Client {
    /// Makes a client. Certificates are read now; nothing is sent.
    ///
    /// # Errors
    /// When a file of certificates or a proxy's address cannot be used.
    pub fn new(config: Config) -> Result<Self, Error> {
        let pool = Arc::new(Pool::new(&config)?);
        Ok(Self(Arc::new(Inner { config: Arc::new(config), pool, registries: Mutex::default() })))
    }

    /// The repository `path` at `host` (`name[:port]`; `docker.io` stands for Docker's hub). Nothing is sent.
    ///
    /// # Errors
    /// When host or path cannot be those of a registry.
    pub fn repository(&self, host: &str, path: &str) -> Result<Repository, Error> {
        Repository::new(self.registry(host)?, path)
    }

    /// Finds out where the registry's API stands and what it wants. Asks at most once in a run.
    ///
    /// # Errors
    /// When there is no answer, or none of a registry.
    pub async fn ping(&self, host: &str) -> Result<Ping, Error> {
        let registry = self.registry(host)?;
        let root = registry.root().await?;
        let authentication = match registry.auth.wanted() {
            Wanted::Nothing => Authentication::None,
            Wanted::Basic => Authentication::Basic,
            Wanted::Bearer(_) => Authentication::Bearer,
        };
        Ok(Ping {
            address: root.to_string(),
            plain_http: root.scheme() == "http",
            authentication,
            product: registry.product(),
        })
    }

    pub(crate) fn registry(&self, host: &str) -> Result<Arc<Registry>, Error> {
        let host = Host::parse(host)?;
        let config = match self.0.config.for_host(&host.root("https")?) {
            Some(own) => Arc::new(own),
            None => Arc::clone(&self.0.config),
        };
        let mut registries = self.0.registries.lock().unwrap_or_else(PoisonError::into_inner);
        let registry = registries
            .entry(host.name.clone())
            .or_insert_with(|| Arc::new(Registry::new(host, config, Arc::clone(&self.0.pool))));
        Ok(Arc::clone(registry))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}
