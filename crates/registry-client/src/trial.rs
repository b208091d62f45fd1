//! Finding out what a repository takes without leaving anything there: an upload is opened, and given up again or gone on with.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use ferry_image::Digest;
use http::Method;
use http::header::{CONTENT_LENGTH, LOCATION};

use crate::transport::{Call, Reply};
use crate::upload::session::Session;
use crate::{Error, Repository, What};

/// What opening an upload has shown. An open session waits for [`keep_for`](Self::keep_for) or [`give_up`](Self::give_up); one that is
/// dropped stays until the registry forgets it.
#[derive(Debug)]
pub struct Trial {
    repository: Repository,
    /// None where none was opened.
    session: Option<Session>,
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
        let session = Session::new(self, call.clone(), &reply)?;
        self.registry.drain(&call, reply).await;
        let smallest_chunk = session.least;
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
        let mut chunk = session.chunk(&(0..1));
        chunk.body = Some(Bytes::from_static(&[0]));
        // whatever comes of it, the session is no longer one to begin a blob with
        session.at = None;
        let registry = &self.repository.registry;
        let reply = registry.send(&chunk).await?;
        match reply.status() {
            200..300 => {
                // the session may go on elsewhere
                if reply.header(LOCATION).is_some() {
                    session.call.url = self.repository.session(&chunk, &reply)?;
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

    /// Leaves the open session to the next upload of `blob` into this repository.
    pub fn keep_for(self, blob: &Digest) -> Kept {
        if let Some(session) = self.session.filter(|session| session.at == Some(0)) {
            self.repository.learnt.keep(blob, session);
        }
        Kept { repository: self.repository, blob: blob.clone() }
    }

    /// Cancels the upload.
    ///
    /// # Errors
    /// When the registry does not cancel: it forgets the session in its own time then.
    pub async fn give_up(self) -> Result<(), Error> {
        give_up(&self.repository, self.session).await
    }
}

/// An open upload that waits for its blob.
#[derive(Debug)]
#[must_use = "what no push has gone on with is to be given up"]
pub struct Kept {
    repository: Repository,
    blob: Digest,
}

impl Kept {
    /// Cancels the upload, if nobody has gone on with it.
    ///
    /// # Errors
    /// As [`Trial::give_up`].
    pub async fn give_up(self) -> Result<(), Error> {
        give_up(&self.repository, self.repository.learnt.take(&self.blob)).await
    }
}

async fn give_up(repository: &Repository, session: Option<Session>) -> Result<(), Error> {
    let Some(session) = session else { return Ok(()) };
    let (registry, cancel) = (&repository.registry, session.cancellation());
    let reply = registry.expect(&cancel, &[200, 202, 204, 404]).await?;
    registry.drain(&cancel, reply).await;
    Ok(())
}
