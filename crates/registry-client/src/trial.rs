//! Finding out what a repository takes without leaving anything there: an upload is opened and given up again.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use ferry_image::Digest;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION};
use http::{HeaderName, Method};

use crate::transport::{Call, Reply};
use crate::{Error, Repository, What};

/// Where a registry says how small a chunk may be (distribution-spec, "Pushing a blob in chunks").
pub(crate) const CHUNK_MIN: HeaderName = HeaderName::from_static("oci-chunk-min-length");

/// What opening an upload has shown. An open session waits for [`give_up`](Self::give_up); one that is dropped stays until the
/// registry forgets it.
#[derive(Debug)]
pub struct Trial {
    repository: Repository,
    /// The request that would cancel it; none where no session was opened.
    session: Option<Call>,
    /// Whether a blob that was asked for by `mount` was given: no when that was refused, unknown when an upload was opened instead.
    pub mounts: Option<bool>,
    /// The fewest bytes that a chunk may have, where the registry says so: it takes chunks then.
    pub smallest_chunk: Option<u64>,
}

impl Repository {
    /// Opens an upload, to see whether we may. With `mount`, a blob that may be in this repository is asked for in the same request, as
    /// a push does.
    ///
    /// # Errors
    /// Why no upload can be opened.
    pub async fn try_upload(&self, mount: Option<&Digest>) -> Result<Trial, Error> {
        self.learnt.writes.store(true, Ordering::Relaxed);
        let mut mounts = None;
        if let Some(digest) = mount {
            let (call, reply) = self.open(&format!("blobs/uploads/?mount={digest}&from={}", self.path)).await?;
            match reply.status() {
                200 | 201 => {
                    self.registry.drain(&call, reply).await;
                    return Ok(Trial {
                        repository: self.clone(),
                        session: None,
                        mounts: Some(true),
                        smallest_chunk: None,
                    });
                }
                202 => return self.trial(call, reply, None).await,
                // whether these are about the mount shows without it
                400 | 404 | 405 | 406 | 411 | 415 | 422 => mounts = Some(false),
                _ => return Err(self.registry.refusal(&call, reply, false).await),
            }
        }
        let (call, reply) = self.open("blobs/uploads/").await?;
        if reply.status() != 202 {
            return Err(self.registry.refusal(&call, reply, false).await);
        }
        if mounts == Some(false) {
            self.learnt.no_mount.store(true, Ordering::Relaxed);
        }
        self.trial(call, reply, mounts).await
    }

    async fn open(&self, rest: &str) -> Result<(Call, Reply), Error> {
        let call = self.call(Method::POST, rest, What::Upload(None)).await?.header(CONTENT_LENGTH, "0");
        let reply = self.registry.send(&call).await?;
        Ok((call, reply))
    }

    async fn trial(&self, call: Call, reply: Reply, mounts: Option<bool>) -> Result<Trial, Error> {
        let url = self.session(&call, &reply)?;
        let smallest_chunk = reply.header(CHUNK_MIN).and_then(|v| v.trim().parse().ok());
        self.registry.drain(&call, reply).await;
        let session = Call { method: Method::DELETE, url, ..call };
        Ok(Trial { repository: self.clone(), session: Some(session), mounts, smallest_chunk })
    }
}

impl Trial {
    /// Sends a chunk of one byte, to see whether chunks are taken. `None` when no session is open.
    ///
    /// # Errors
    /// When there is no answer, or one that says nothing about chunks.
    pub async fn takes_chunks(&mut self) -> Result<Option<bool>, Error> {
        let Some(session) = &mut self.session else { return Ok(None) };
        let mut chunk = Call { method: Method::PATCH, ..session.clone() }
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, "1")
            .header(CONTENT_RANGE, "0-0");
        chunk.body = Some(Bytes::from_static(&[0]));
        let registry = &self.repository.registry;
        let reply = registry.send(&chunk).await?;
        match reply.status() {
            200..300 => {
                // the session may go on elsewhere
                if reply.header(LOCATION).is_some() {
                    session.url = self.repository.session(&chunk, &reply)?;
                }
                registry.drain(&chunk, reply).await;
                Ok(Some(true))
            }
            400 | 404 | 405 | 411 | 415 | 416 | 501 => {
                registry.drain(&chunk, reply).await;
                Ok(Some(false))
            }
            _ => Err(registry.refusal(&chunk, reply, false).await),
        }
    }

    /// Cancels the upload.
    ///
    /// # Errors
    /// When the registry does not cancel: it forgets the session in its own time then.
    pub async fn give_up(self) -> Result<(), Error> {
        let Some(cancel) = self.session else { return Ok(()) };
        let registry = &self.repository.registry;
        let reply = registry.expect(&cancel, &[200, 202, 204, 404]).await?;
        registry.drain(&cancel, reply).await;
        Ok(())
    }
}
