//! One repository: its manifests and tags. Blobs come out of it in [`crate::pull`] and go into it in [`crate::upload`].

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use ferry_image::manifest::MAX_MANIFEST;
use ferry_image::{Digest, Hasher, media_type};
use http::Method;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use serde::Deserialize;

use crate::auth::Scopes;
use crate::pull::Ranges;
use crate::registry::Registry;
use crate::transport::{Call, Reply};
use crate::upload::session::Session;
use crate::validator::Validators;
use crate::{Error, Quota, Uploads, What, host, location, reply};

/// The header in which registries state a digest (distribution-spec).
const CONTENT_DIGEST: &str = "docker-content-digest";
/// The header in which registries with a referrers API name the subject of a manifest that they took.
const SUBJECT: &str = "oci-subject";
/// The longest page of tags.
const MAX_PAGE: u64 = 8 << 20;

/// A repository at a registry. Cheap to make and to clone; all of one client share what was learnt about it.
#[derive(Clone)]
pub struct Repository {
    pub(crate) registry: Arc<Registry>,
    pub(crate) path: Arc<str>,
    pub(crate) learnt: Arc<Learnt>,
}

/// What was learnt about a repository.
#[derive(Debug, Default)]
pub(crate) struct Learnt {
    /// Whether its server serves ranges.
    pub(crate) ranges: Ranges,
    /// By which its blobs are known to be the same as before.
    pub(crate) validators: Validators,
    /// It refuses `mount` on the request that opens an upload.
    pub(crate) no_mount: AtomicBool,
    /// Whether its server has a referrers API; unknown until it was asked.
    pub(crate) lists_referrers: OnceLock<bool>,
    /// Held by whoever asks for that first: the others wait for what he learns.
    pub(crate) asking_referrers: tokio::sync::Mutex<()>,
    /// We write to it: one token for reading and writing does for all.
    pub(crate) writes: AtomicBool,
    /// Uploads that were opened to see whether one may be, each for a blob that is to come.
    opened: Mutex<HashMap<Digest, Session>>,
}

impl Learnt {
    pub(crate) fn keep(&self, blob: &Digest, session: Session) {
        self.opened().insert(blob.clone(), session);
    }

    /// What was kept for `blob`.
    pub(crate) fn take(&self, blob: &Digest) -> Option<Session> {
        self.opened().remove(blob)
    }

    fn opened(&self) -> MutexGuard<'_, HashMap<Digest, Session>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A manifest that was fetched; its digest is that of its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The manifest, exactly as it came.
    pub bytes: Bytes,
    /// What the server says that it is; may be empty.
    pub media_type: String,
    /// The digest of the bytes.
    pub digest: Digest,
}

/// What a registry says about a manifest without sending it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its digest, where the server states one. Not to be trusted alone.
    pub digest: Option<Digest>,
    /// What the server says that it is; may be empty.
    pub media_type: String,
    /// Its size in bytes, where the server states one.
    pub size: Option<u64>,
}

#[derive(Deserialize)]
struct TagPage {
    tags: Option<Vec<String>>,
}

impl Repository {
    pub(crate) fn new(registry: Arc<Registry>, path: &str) -> Result<Self, Error> {
        if !host::is_path(path) {
            let why = "a repository's path is words of letters, digits and `._-`, separated by `/`".to_owned();
            return Err(Error::Config { what: "repository", value: path.to_owned(), why });
        }
        let path = path.into();
        let learnt = registry.learnt(&path);
        Ok(Self { registry, path, learnt })
    }

    /// The same repository, to be written to: whatever is asked of it is asked with the right to push. One token does for all then,
    /// and registries that make repositories by themselves say of a new one that it is empty, not that it is forbidden.
    #[must_use]
    pub fn to_push(self) -> Self {
        self.learnt.writes.store(true, Ordering::Relaxed);
        self
    }

    /// The registry's host as references name it.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.registry.host.name
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Fetches a manifest or index by tag or digest: at most 4 MiB, and with the digest asked for.
    ///
    /// # Errors
    /// When it is not there, cannot be had, or is not what the digest (asked for, or stated by the server) says.
    pub async fn manifest(&self, tag_or_digest: &str) -> Result<Fetched, Error> {
        let call = self.manifest_call(Method::GET, tag_or_digest).await?;
        let (reply, bytes) = self.registry.read(&call, &[200], MAX_MANIFEST).await?;
        let (media_type, stated) = (content_type(&reply), stated_digest(&reply));
        if media_type == "text/html" && bytes.trim_ascii_start().starts_with(b"<") {
            return Err(self.registry.broken(&call, reply::PAGE.to_owned()));
        }
        let wanted = tag_or_digest.parse::<Digest>().ok();
        for expected in wanted.iter().chain(&stated) {
            let mut hasher = Hasher::new(expected.algorithm());
            hasher.update(&bytes);
            let found = hasher.finish();
            if found != *expected {
                return Err(self.wrong_digest(&call, expected.clone(), found));
            }
        }
        let digest = wanted.unwrap_or_else(|| Digest::of(&bytes));
        Ok(Fetched { bytes, media_type, digest })
    }

    /// Asks whether a manifest is there. `None` when it is not (or the whole repository is not).
    ///
    /// # Errors
    /// When the registry cannot be asked.
    pub async fn head(&self, tag_or_digest: &str) -> Result<Option<Head>, Error> {
        let call = self.manifest_call(Method::HEAD, tag_or_digest).await?;
        let reply = self.registry.expect(&call, &[200, 404]).await?;
        if reply.status() == 404 {
            return Ok(None);
        }
        let size = reply.header(CONTENT_LENGTH).and_then(|v| v.parse().ok());
        Ok(Some(Head { digest: stated_digest(&reply), media_type: content_type(&reply), size }))
    }

    /// How many more requests its registry answers, as it said last; none where it does not say.
    #[must_use]
    pub fn quota(&self) -> Option<Quota> {
        self.registry.quota()
    }

    /// Writes a manifest under a tag or its digest.
    ///
    /// # Errors
    /// When the registry refuses it, or states another digest than that of the bytes.
    pub async fn put_manifest(&self, tag_or_digest: &str, media_type: &str, bytes: &Bytes) -> Result<(), Error> {
        self.put(tag_or_digest, media_type, bytes).await.map(drop)
    }

    /// As [`put_manifest`](Self::put_manifest). Gives the subject that the registry says it took note of.
    pub(crate) async fn put(
        &self,
        tag_or_digest: &str,
        media_type: &str,
        bytes: &Bytes,
    ) -> Result<Option<Digest>, Error> {
        self.learnt.writes.store(true, Ordering::Relaxed);
        let url = format!("manifests/{}", self.checked(tag_or_digest)?);
        let what = What::PutManifest(tag_or_digest.to_owned());
        let mut call = self.call(Method::PUT, &url, what).await?.header(CONTENT_TYPE, media_type);
        call.body = Some(bytes.clone());
        let reply = self.registry.expect(&call, &[200, 201, 202, 204]).await?;
        self.check_stated(&call, &reply, bytes)?;
        let subject = reply.header(SUBJECT).and_then(|subject| subject.trim().parse().ok());
        self.registry.drain(&call, reply).await;
        Ok(subject)
    }

    /// All tags, in the registry's order; reading ends after `limit` of them.
    ///
    /// # Errors
    /// When the registry cannot be asked, or its pages do not end.
    pub async fn tags(&self, limit: usize) -> Result<Vec<String>, Error> {
        let mut call = self.call(Method::GET, "tags/list?n=1000", What::Tags).await?;
        let mut tags: Vec<String> = Vec::new();
        // a page may be empty, but not many of them
        for _ in 0..limit.max(1) {
            let (reply, body) = self.registry.read(&call, &[200], MAX_PAGE).await?;
            let next = reply.next_page().map(str::to_owned);
            let page = tag_page(&body)
                .map_err(|e| self.registry.broken(&call, format!("its answer is not understood: {e}")))?;
            tags.extend(page);
            if tags.len() >= limit {
                tags.truncate(limit);
                return Ok(tags);
            }
            let Some(next) = next else { return Ok(tags) };
            call.url = self.next_page(&call, &next)?;
        }
        Err(self.registry.broken(&call, "its pages do not end".to_owned()))
    }

    /// The page after the one that `call` asked for.
    pub(crate) fn next_page(&self, call: &Call, next: &str) -> Result<url::Url, Error> {
        self.registry.next_page(call, next)
    }

    /// Takes blobs. `mount_from` is another repository at the same registry that may have them; without one this repository
    /// itself is named, which makes the one request that opens an upload an existence check as well.
    #[must_use]
    pub fn uploads(&self, mount_from: Option<String>) -> Uploads {
        Uploads::new(self.clone(), mount_from)
    }

    /// Deletes a manifest by its digest; one that is not there is deleted.
    ///
    /// # Errors
    /// When the registry does not delete it.
    pub async fn delete_manifest(&self, digest: &Digest) -> Result<(), Error> {
        self.learnt.writes.store(true, Ordering::Relaxed);
        let what = What::Manifest(digest.to_string());
        let call = self.call(Method::DELETE, &format!("manifests/{digest}"), what).await?;
        let reply = self.registry.expect(&call, &[200, 202, 204, 404]).await?;
        self.registry.drain(&call, reply).await;
        Ok(())
    }

    /// Whether the registry knows this repository (one that is empty may be unknown).
    ///
    /// # Errors
    /// When the registry cannot be asked.
    pub async fn is_known(&self) -> Result<bool, Error> {
        let call = self.call(Method::GET, "tags/list?n=1", What::Tags).await?;
        let reply = self.registry.expect(&call, &[200, 404]).await?;
        let is_known = reply.status() == 200;
        self.registry.drain(&call, reply).await;
        Ok(is_known)
    }

    /// Where the credentials for this repository come from; none where it is asked by nobody in particular.
    ///
    /// # Errors
    /// When a credential program fails.
    pub async fn login(&self) -> Result<Option<String>, Error> {
        let credentials = &self.registry.config.credentials;
        let found = credentials.find(self.host(), &self.path).await?;
        Ok(found.map(|_| credentials.origin(self.host(), &self.path)))
    }

    /// A request about this repository. `rest` is what follows `/v2/PATH/`.
    pub(crate) async fn call(&self, method: Method, rest: &str, what: What) -> Result<Call, Error> {
        let root = self.registry.root().await?;
        let url = root.join(&format!("v2/{}/{rest}", self.path)).map_err(|e| Error::Config {
            what: "repository",
            value: self.path.to_string(),
            why: e.to_string(),
        })?;
        let scopes = if self.learnt.writes.load(Ordering::Relaxed) {
            Scopes::push(&self.path)
        } else {
            Scopes::pull(&self.path)
        };
        let call = Call::new(method, url, what).header(ACCEPT_ENCODING, "identity");
        Ok(Call { repository: self.path.to_string(), scopes, ..call })
    }

    /// Where an upload goes on.
    pub(crate) fn session(&self, call: &Call, reply: &Reply) -> Result<url::Url, Error> {
        let to = reply
            .header(LOCATION)
            .ok_or_else(|| self.registry.broken(call, "the upload has no `Location`".to_owned()))?;
        location::resolve(reply.response.url(), to)
            .map_err(|why| self.registry.broken(call, format!("the upload's `Location` {why}")))
    }

    pub(crate) fn wrong_digest(&self, call: &Call, expected: Digest, found: Digest) -> Error {
        Error::Digest { place: self.to_string(), what: call.what.to_string(), expected, found }
    }

    async fn manifest_call(&self, method: Method, tag_or_digest: &str) -> Result<Call, Error> {
        let url = format!("manifests/{}", self.checked(tag_or_digest)?);
        let call = self.call(method, &url, What::Manifest(tag_or_digest.to_owned())).await?;
        Ok(call.header(ACCEPT, &media_type::ACCEPT_MANIFESTS.join(", ")))
    }

    /// A tag or digest that can stand in a path.
    fn checked<'a>(&self, tag_or_digest: &'a str) -> Result<&'a str, Error> {
        let is_tag = host::is_path(tag_or_digest) && !tag_or_digest.contains('/') && tag_or_digest.len() <= 128;
        if is_tag || tag_or_digest.parse::<Digest>().is_ok() {
            return Ok(tag_or_digest);
        }
        let why = "it must be a tag of letters, digits and `._-`, or a digest".to_owned();
        Err(Error::Config { what: "tag or digest", value: tag_or_digest.to_owned(), why })
    }

    fn check_stated(&self, call: &Call, reply: &Reply, bytes: &Bytes) -> Result<(), Error> {
        let Some(stated) = stated_digest(reply) else { return Ok(()) };
        let mut hasher = Hasher::new(stated.algorithm());
        hasher.update(bytes);
        let ours = hasher.finish();
        if ours == stated { Ok(()) } else { Err(self.wrong_digest(call, ours, stated)) }
    }
}

/// The tags of one page; a repository without any may say `null`.
pub(crate) fn tag_page(body: &[u8]) -> Result<Vec<String>, serde_json::Error> {
    serde_json::from_slice::<TagPage>(body).map(|page| page.tags.unwrap_or_default())
}

/// The digest in an answer's header; what is none there is passed over.
pub(crate) fn stated_digest(reply: &Reply) -> Option<Digest> {
    reply.header(CONTENT_DIGEST)?.trim().parse().ok()
}

pub(crate) fn content_type(reply: &Reply) -> String {
    let value = reply.header(CONTENT_TYPE).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry.host.name, self.path)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Repository({self})")
    }
}
