//! The HTTP clients: one connection pool for all hosts, and one more for each host that has certificates of its own.
//!
//! HTTP/1.1 only, on purpose: over one shared HTTP/2 connection parallel ranges would gain nothing on a line that limits each
//! connection. Redirects are followed by [`crate::transport`], which knows what may be sent where.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;
use url::Url;

use crate::certificates::{HostFiles, certificates};
use crate::config::Proxies;
use crate::dns::Names;
use crate::host::{DOCKER, authority};
use crate::{Config, Error, tls};

/// Never reached through a proxy.
const DIRECT: &str = "localhost,.localhost,127.0.0.0/8,::1";

pub(crate) struct Pool {
    config: Config,
    system: Vec<CertificateDer<'static>>,
    named: Vec<CertificateDer<'static>>,
    names: Arc<Names>,
    common: reqwest::Client,
    /// By authority; `None` where the common one serves.
    special: Mutex<HashMap<String, Option<reqwest::Client>>>,
}

impl Pool {
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let mut named = Vec::new();
        for path in &config.tls.ca_files {
            named.extend(certificates(path)?);
        }
        let system = if config.tls.system_roots {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::debug!(%error, "system certificates");
            }
            found.certs
        } else {
            Vec::new()
        };
        let names = Arc::new(Names::new(&config.resolve, config.resolver));
        let tls = tls::client_config(&system, &named, HostFiles::default())?;
        let common = build(config, &names, tls)?;
        Ok(Self { config: config.clone(), system, named, names, common, special: Mutex::default() })
    }

    /// The client for the host of `url`.
    pub(crate) fn client(&self, url: &Url) -> Result<reqwest::Client, Error> {
        if self.config.tls.certs_dirs.is_empty() {
            return Ok(self.common.clone());
        }
        let authority = authority(url);
        let mut special = self.special.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = special.get(&authority) {
            return Ok(known.as_ref().unwrap_or(&self.common).clone());
        }
        let made = match self.files(&authority)? {
            Some(files) => {
                Some(build(&self.config, &self.names, tls::client_config(&self.system, &self.named, files)?)?)
            }
            None => None,
        };
        special.insert(authority, made.clone());
        Ok(made.unwrap_or_else(|| self.common.clone()))
    }

    /// Whether the user named certificates that may be meant for this host.
    pub(crate) fn has_certificates(&self, authority: &str) -> bool {
        !self.named.is_empty() || self.config.tls.certs_dirs.iter().any(|d| d.join(authority).is_dir())
    }

    fn files(&self, authority: &str) -> Result<Option<HostFiles>, Error> {
        let dirs = &self.config.tls.certs_dirs;
        match HostFiles::read(dirs, authority)? {
            None if authority == "registry-1.docker.io" => HostFiles::read(dirs, DOCKER),
            files => Ok(files),
        }
    }
}

fn build(config: &Config, names: &Arc<Names>, tls: ClientConfig) -> Result<reqwest::Client, Error> {
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .user_agent(&config.user_agent)
        .connect_timeout(config.connect_timeout)
        .tcp_nodelay(true)
        .tcp_keepalive(std::time::Duration::from_secs(30))
        .pool_max_idle_per_host(config.concurrency.max(1))
        .dns_resolver(Arc::clone(names))
        .no_proxy();
    for proxy in proxies(&config.proxy)? {
        builder = builder.proxy(proxy);
    }
    builder.build().map_err(|e| Error::Config {
        what: "HTTP client",
        value: config.user_agent.clone(),
        why: crate::transport::innermost(&e),
    })
}

fn proxies(settings: &Proxies) -> Result<Vec<reqwest::Proxy>, Error> {
    type Make = fn(&str) -> reqwest::Result<reqwest::Proxy>;
    let exceptions = settings.no_proxy.as_deref().unwrap_or_default();
    let no_proxy = reqwest::NoProxy::from_string(&format!("{DIRECT},{exceptions}"));
    let kinds: [(&Option<String>, Make); 3] = [
        (&settings.http, |u| reqwest::Proxy::http(u)),
        (&settings.https, |u| reqwest::Proxy::https(u)),
        (&settings.all, |u| reqwest::Proxy::all(u)),
    ];
    let mut proxies = Vec::new();
    for (value, make) in kinds {
        if let Some(value) = value.as_deref().filter(|v| !v.is_empty()) {
            // the address may hold a password: neither it nor reqwest's words about it are shown
            let proxy = make(value).map_err(|_| Error::Config {
                what: "proxy",
                value: "of the environment or configuration".to_owned(),
                why: "it is not an address".to_owned(),
            })?;
            proxies.push(proxy.no_proxy(no_proxy.clone()));
        }
    }
    Ok(proxies)
}
