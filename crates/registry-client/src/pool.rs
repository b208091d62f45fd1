//! The ways to hosts: one HTTP client with its connections for all of them, and one more for each that has certificates or
//! settings of its own.
//!
//! HTTP/1.1 only, on purpose: over one shared HTTP/2 connection parallel ranges would gain nothing on a line that limits each
//! connection. Redirects are followed by [`crate::transport`], which knows what may be sent where.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustls_pki_types::CertificateDer;
use url::Url;

use crate::certificates::{HostFiles, Shown, trusted};
use crate::dns::Names;
use crate::host::{DOCKER, Host, authority};
use crate::proxy::{Proxy, Routes, Verdict, verdict};
use crate::{Cause, Config, Error, tls, tunnel};

pub(crate) struct Pool {
    config: Config,
    system: Vec<CertificateDer<'static>>,
    common: Arc<Way>,
    /// By authority; `None` where the common one serves.
    special: Mutex<HashMap<String, Option<Arc<Way>>>>,
    /// See [`Pool::apart`].
    apart: OnceLock<Box<Pool>>,
}

/// How to get to a host, or to all that have nothing of their own.
struct Way {
    client: reqwest::Client,
    routes: Arc<Routes>,
    names: Arc<Names>,
    /// Whether there is a certificate to be shown.
    shows: bool,
}

impl Pool {
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let system = if config.tls.system_roots {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::debug!(%error, "system certificates");
            }
            found.certs
        } else {
            Vec::new()
        };
        let mut common = config.clone();
        // an address that is for one port only needs a client of its own
        common.resolve.retain(|r| r.port.is_none());
        let common = Arc::new(Way::new(&common, &system, HostFiles::default())?);
        Ok(Self { config: config.clone(), system, common, special: Mutex::default(), apart: OnceLock::new() })
    }

    /// The same without a pool: a new connection for each request, for lines that break after so many bytes of one.
    pub(crate) fn apart(&self) -> Result<&Self, Error> {
        if let Some(apart) = self.apart.get() {
            return Ok(apart);
        }
        let made = Self::new(&Config { concurrency: 0, ..self.config.clone() })?;
        Ok(self.apart.get_or_init(|| Box::new(made)))
    }

    /// The client for the host of `url`.
    pub(crate) fn client(&self, url: &Url) -> Result<reqwest::Client, Error> {
        Ok(self.way(url)?.client.clone())
    }

    /// The proxy on the way to `url`.
    pub(crate) fn proxy(&self, url: &Url) -> Option<Arc<Proxy>> {
        self.way(url).ok()?.routes.proxy(url).cloned()
    }

    /// What is behind an error that says `cause` and, layer by layer, `chain`: a proxy on the way, or our own certificate, may
    /// have to do with it.
    pub(crate) async fn explain(&self, url: &Url, cause: Cause, chain: &[String]) -> Cause {
        let Ok(way) = self.way(url) else { return cause };
        if let Cause::ClientCertificate { why, .. } = cause {
            return Cause::ClientCertificate { shown: way.shows, why };
        }
        let Some(proxy) = way.routes.proxy(url) else { return cause };
        // the HTTP library takes the brackets for part of the name that the certificate must have
        if matches!(url.host(), Some(url::Host::Ipv6(_))) && chain.iter().any(|words| words == "Invalid Server Name") {
            return Cause::Tls("a bare IPv6 address is not reached by way of a proxy; give it a name".to_owned());
        }
        let fault = match verdict(chain, &cause) {
            Verdict::NotItsDoing => return cause,
            Verdict::Fault(fault) => fault,
            Verdict::AskWhy => tunnel::why(proxy, &way.names, url).await,
        };
        Cause::Proxy { address: proxy.to_string(), fault }
    }

    /// Whether the user named certificates that may be meant for this host.
    pub(crate) fn has_certificates(&self, host: &Host) -> bool {
        let tls = &self.config.tls;
        let own = host.root("https").ok().and_then(|url| self.config.for_host(&url));
        let named = own.map_or(tls.ca_files.len(), |own| own.tls.ca_files.len());
        named > 0 || tls.certs_dirs.iter().any(|dir| dir.join(&host.api).is_dir())
    }

    fn way(&self, url: &Url) -> Result<Arc<Way>, Error> {
        let authority = authority(url);
        let mut special = self.special.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = special.get(&authority) {
            return Ok(Arc::clone(known.as_ref().unwrap_or(&self.common)));
        }
        let files = HostFiles::read(&self.config.tls.certs_dirs, &folders(url))?;
        let made = match self.config.for_host(url) {
            None if files.is_empty() => None,
            own => Some(Arc::new(Way::new(own.as_ref().unwrap_or(&self.config), &self.system, files)?)),
        };
        special.insert(authority, made.clone());
        Ok(made.unwrap_or_else(|| Arc::clone(&self.common)))
    }
}

/// What the folder of a host's certificates may be called.
fn folders(url: &Url) -> Vec<String> {
    let authority = authority(url);
    let hub = (authority == "registry-1.docker.io").then(|| DOCKER.to_owned());
    let with_port = url.port_or_known_default().map(|p| format!("{}:{p}", url.host_str().unwrap_or_default()));
    let mut names: Vec<String> = [hub, with_port, Some(authority)].into_iter().flatten().collect();
    names.dedup();
    names
}

impl Way {
    fn new(config: &Config, system: &[CertificateDer<'static>], files: HostFiles) -> Result<Self, Error> {
        let mut named = files.trusted;
        for path in &config.tls.ca_files {
            named.extend(trusted(path)?);
        }
        let shown = match &config.tls.client {
            Some(files) => Some(Shown::read(files)?),
            None => files.client,
        };
        let shows = shown.is_some();
        let names = Arc::new(Names::new(&config.resolve, config.resolver));
        let routes = Arc::new(Routes::new(&config.proxy)?);
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::client_config(system, named, shown)?)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .user_agent(&config.user_agent)
            .connect_timeout(config.connect_timeout)
            .tcp_nodelay(true)
            .tcp_keepalive(std::time::Duration::from_secs(30))
            .pool_max_idle_per_host(config.concurrency)
            .dns_resolver(Arc::clone(&names))
            .no_proxy();
        if !routes.is_empty() {
            let routes = Arc::clone(&routes);
            builder = builder.proxy(reqwest::Proxy::custom(move |url| routes.proxy(url).map(|p| p.url().clone())));
        }
        let client = builder.build().map_err(|e| Error::Config {
            what: "HTTP client",
            value: config.user_agent.clone(),
            why: crate::transport::innermost(&e),
        })?;
        Ok(Self { client, routes, names, shows })
    }
}
