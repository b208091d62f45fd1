//! Which repositories a registry has (`GET /v2/_catalog`). The distribution-spec knows no such list; the registry that everybody copies has
//! one, and many others do. Docker Hub, GHCR and Quay have none, and some show it to administrators only.

use http::Method;
use http::header::ACCEPT_ENCODING;
use serde::Deserialize;

use crate::auth::Scopes;
use crate::transport::Call;
use crate::{Client, Error, What, reply, repository};

/// The longest page.
const MAX_PAGE: u64 = 8 << 20;
/// Repositories that are asked for at a time.
const PAGE: usize = 1000;
/// Pages in a row that bring nothing new.
const EMPTY_PAGES: usize = 100;

#[derive(Deserialize)]
struct Page {
    repositories: Option<Vec<String>>,
}

impl Client {
    /// The paths of all repositories that the registry at `host` shows, in its order; reading ends with the page that brings more than
    /// `limit`, and those are given too.
    ///
    /// # Errors
    /// When the registry cannot be asked, has no such list, or its pages do not end.
    pub async fn catalog(&self, host: &str, limit: usize) -> Result<Vec<String>, Error> {
        let registry = self.registry(host)?;
        let root = registry.root().await?;
        let url = root.join(&format!("v2/_catalog?n={PAGE}")).map_err(|e| Error::Config {
            what: "registry",
            value: host.to_owned(),
            why: e.to_string(),
        })?;
        let call = Call::new(Method::GET, url, What::Catalog).header(ACCEPT_ENCODING, "identity");
        let mut call = Call { scopes: Scopes::catalog(), ..call };
        let mut found: Vec<String> = Vec::new();
        let mut empty = 0;
        loop {
            let (reply, body) = registry.read(&call, &[200], MAX_PAGE).await?;
            if repository::content_type(&reply) == "text/html" {
                return Err(registry.broken(&call, reply::PAGE.to_owned()));
            }
            let next = reply.next_page().map(str::to_owned);
            let page = page(&body).map_err(|e| registry.broken(&call, format!("its answer is not understood: {e}")))?;
            empty = if page.is_empty() { empty + 1 } else { 0 };
            found.extend(page);
            match next {
                Some(_) if empty > EMPTY_PAGES => return Err(registry.broken(&call, "its pages do not end".to_owned())),
                Some(next) if found.len() <= limit => call.url = registry.next_page(&call, &next)?,
                _ => return Ok(found),
            }
        }
    }
}

/// The repositories of one page; a registry without any may say `null`.
pub(crate) fn page(body: &[u8]) -> Result<Vec<String>, serde_json::Error> {
    serde_json::from_slice::<Page>(body).map(|page| page.repositories.unwrap_or_default())
}
