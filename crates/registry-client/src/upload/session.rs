//! One upload session at a registry: where it goes on, how much of it the registry has, and the requests of it.

use std::fmt;
use std::ops::Range;
use std::sync::PoisonError;

use ferry_image::Digest;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use http::{HeaderName, Method};
use tokio::time::Instant;

use super::pieces::Plan;
use crate::range::{chunk_range, uploaded};
use crate::registry::Registry;
use crate::transport::{Call, Reply};
use crate::{Error, Repository, location};

/// Where a registry says how small a chunk may be (distribution-spec, "Pushing a blob in chunks").
const CHUNK_MIN: HeaderName = HeaderName::from_static("oci-chunk-min-length");

#[derive(Clone)]
pub(crate) struct Session {
    /// What its requests have in common; the address is that of the next one.
    pub(crate) call: Call,
    /// The registry's least size of a chunk, where it says one.
    pub(crate) least: Option<u64>,
    pub(super) opened: Instant,
    /// How many bytes the registry has; it must be asked where that is unknown.
    pub(crate) at: Option<u64>,
    /// It has no more than this, whatever it says.
    pub(super) sent: u64,
    /// The request that broke off, while it is unknown what became of its bytes.
    pub(super) broke: Option<Broke>,
    /// A chunk that began here was not the next one, said the registry.
    pub(super) refused_at: Option<u64>,
    /// A new token was got since bytes were last taken.
    pub(super) renewed: bool,
}

/// Without its address: what stands in that may give access.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("at", &self.at).field("sent", &self.sent).finish_non_exhaustive()
    }
}

/// A request that broke off.
#[derive(Debug, Clone, Copy)]
pub(super) struct Broke {
    pub(super) plan: Plan,
    /// The position of its first byte in the blob.
    pub(super) from: u64,
    /// Bytes that left this process.
    pub(super) moved: u64,
}

impl Session {
    /// From the answer to the request that opened it.
    pub(crate) fn new(repository: &Repository, call: Call, reply: &Reply) -> Result<Self, Error> {
        let url = repository.session(&call, reply)?;
        let least = reply.header(CHUNK_MIN).and_then(|v| v.trim().parse().ok());
        let mut call = Call { url, ..call };
        call.headers.remove(CONTENT_LENGTH);
        let opened = Instant::now();
        Ok(Self { call, least, opened, at: Some(0), sent: 0, broke: None, refused_at: None, renewed: false })
    }

    /// One PUT for the whole blob.
    pub(super) fn whole(&self, digest: &Digest, size: u64) -> Call {
        self.close(digest).header(CONTENT_TYPE, "application/octet-stream").header(CONTENT_LENGTH, &size.to_string())
    }

    /// The PATCH that brings a chunk.
    pub(crate) fn chunk(&self, range: &Range<u64>) -> Call {
        Call { method: Method::PATCH, ..self.call.clone() }
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_RANGE, &chunk_range(range))
            .header(CONTENT_LENGTH, &(range.end - range.start).to_string())
    }

    /// The PUT that ends it; all bytes are there.
    pub(super) fn close(&self, digest: &Digest) -> Call {
        let url = location::with_digest(&self.call.url, &digest.to_string());
        Call { method: Method::PUT, url, ..self.call.clone() }.header(CONTENT_LENGTH, "0")
    }

    /// Takes from an answer where the next request goes. Tells how many bytes the registry says to have.
    pub(super) fn follow(&mut self, repository: &Repository, reply: &Reply) -> Result<Option<u64>, Error> {
        if reply.header(LOCATION).is_some() {
            self.call.url = repository.session(&self.call, reply)?;
        }
        Ok(reply.header(RANGE).and_then(uploaded))
    }

    /// Asks how many bytes the registry has; `None` when it knows nothing of the session any more.
    pub(super) async fn ask(&mut self, repository: &Repository) -> Result<Option<u64>, Error> {
        let call = Call { method: Method::GET, ..self.call.clone() };
        let reply = repository.registry.send(&call).await?;
        match reply.status() {
            200 | 202 | 204 => {
                let has = self.follow(repository, &reply)?;
                repository.registry.drain(&call, reply).await;
                Ok(has)
            }
            408 | 425 | 429 | 502..=504 => Err(repository.registry.refusal(&call, reply, true).await),
            _ => {
                repository.registry.drain(&call, reply).await;
                Ok(None)
            }
        }
    }

    /// The request that gives it up.
    pub(crate) fn cancellation(&self) -> Call {
        Call { method: Method::DELETE, ..self.call.clone() }.header(CONTENT_LENGTH, "0")
    }

    /// Gives it up; a registry that cannot do that forgets it in time.
    pub(super) async fn cancel(&self, registry: &Registry) {
        let call = self.cancellation();
        match registry.send(&call).await {
            Ok(reply) => registry.drain(&call, reply).await,
            Err(error) => tracing::debug!(%error, "cancelling an upload"),
        }
    }

    /// What has become of the request that broke off: whether the registry kept anything of it.
    pub(super) fn learn(&mut self, registry: &Registry, at: Option<u64>) {
        let Some(broke) = self.broke.take() else { return };
        if at.is_some_and(|at| at > broke.from) {
            self.renewed = false;
        } else {
            registry.uploads.lock().unwrap_or_else(PoisonError::into_inner).lost(broke.plan, broke.moved);
        }
    }
}
