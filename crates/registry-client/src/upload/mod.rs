//! A repository as an ingester of blobs: one POST that is existence check, mount and upload session at once, then one PUT whose
//! body streams.
//!
//! What breaks off is left as a [`session`] for the next attempt, which asks the registry how much it has and sends the rest. Whether
//! bytes go as one PUT or in chunks is decided in [`pieces`], what a refusal means in [`refusal`]; [`blob`] is one blob on its pieces,
//! [`transfer`] one request of it.

mod blob;
pub(crate) mod pieces;
mod refusal;
pub(crate) mod session;
mod transfer;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ferry_content::{BoxFuture, Ingest, Ingester};
use ferry_image::{Descriptor, Digest};
use http::Method;
use http::header::CONTENT_LENGTH;

use self::blob::Upload;
use self::session::Session;
use crate::auth::Scopes;
use crate::repository::stated_digest;
use crate::transport::{Call, Reply};
use crate::{Error, Repository, What, host};

type Failed = ferry_content::Error;

/// A session that was opened longer ago than this is not begun with: registries forget them, some after minutes.
const FRESH: Duration = Duration::from_secs(60);

/// Takes blobs into one repository.
#[derive(Debug, Clone)]
pub struct Uploads {
    repository: Repository,
    mount_from: Option<String>,
    /// What attempts that broke off left at the registry.
    left: Arc<Mutex<HashMap<Digest, Session>>>,
}

impl Uploads {
    pub(crate) fn new(repository: Repository, mount_from: Option<String>) -> Self {
        let mount_from = mount_from.filter(|from| host::is_path(from) && **from != *repository.path);
        Self { repository, mount_from, left: Arc::default() }
    }

    /// Goes on with what an attempt left, or opens an upload; `None` when the blob is there.
    async fn begin(&self, blob: &Descriptor) -> Result<Option<Upload>, Error> {
        let renewed = self.left().get(&blob.digest).is_some_and(|session| session.renewed);
        let begun = match self.resume(blob).await? {
            None => self.open(blob).await?.map(|session| (Session { renewed, ..session }, 0)),
            resumed => resumed,
        };
        Ok(begun.map(|(session, at)| Upload::new(self.clone(), blob.clone(), session, at)))
    }

    /// The session that an attempt left, and how many bytes the registry has of it; `None` where it has none, or nothing that helps.
    async fn resume(&self, blob: &Descriptor) -> Result<Option<(Session, u64)>, Error> {
        let Some(mut session) = self.left().get(&blob.digest).cloned() else { return Ok(None) };
        let has = match session.at {
            None => session.ask(&self.repository).await?,
            known => known,
        };
        self.left().remove(&blob.digest);
        // `0-0` is said of nothing, too; and nobody can have more than was sent
        let at = has.filter(|at| (2..=session.sent.min(blob.size)).contains(at));
        session.learn(&self.repository.registry, at);
        let mut pieces = self.repository.registry.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        // the chunk that it refused is the one that it says to want: it takes none, or only one
        if session.refused_at.is_some_and(|refused| refused == at.unwrap_or(0)) {
            pieces.refuses_chunks();
        }
        tracing::debug!(blob = blob.digest.short(), ?has, ?at, pieces = ?*pieces, "an upload broke off");
        Ok(at.filter(|_| pieces.continues()).map(|at| (session, at)))
    }

    /// Opens a session; `None` when the blob is there.
    async fn open(&self, blob: &Descriptor) -> Result<Option<Session>, Error> {
        let repository = &self.repository;
        repository.learnt.writes.store(true, Ordering::Relaxed);
        if let Some(session) = repository.learnt.take(&blob.digest) {
            if session.opened.elapsed() < FRESH {
                let what = What::Upload(Some(blob.digest.clone()));
                return Ok(Some(Session { call: Call { what, ..session.call.clone() }, ..session }));
            }
            session.cancel(&repository.registry).await;
        }
        let mut refused = None;
        if !repository.learnt.no_mount.load(Ordering::Relaxed) {
            let from = self.mount_from.as_deref().unwrap_or(&repository.path);
            let rest = format!("blobs/uploads/?mount={}&from={from}", blob.digest);
            match self.post(&rest, blob, self.scopes()).await {
                Ok((call, reply)) => match reply.status() {
                    200 | 201 => {
                        check_stated(repository, &call, &reply, blob)?;
                        repository.registry.drain(&call, reply).await;
                        return Ok(None);
                    }
                    202 => return self.session(call, reply).await.map(Some),
                    400 | 404 | 405 | 406 | 411 | 415 | 422 => refused = Some(reply.status()),
                    // whoever may push here may not read there: that is no word on an upload
                    401 | 403 if self.mount_from.is_some() => {}
                    // what says that nobody may, or not now, says it of every upload
                    _ => return Err(repository.registry.refusal(&call, reply, false).await),
                },
                // nor does whoever gives tokens give one for both
                Err(error) if self.mount_from.is_some() && matches!(error.status(), Some(401 | 403)) => {
                    tracing::debug!(%error, "no token for a mount");
                }
                Err(error) => return Err(error),
            }
            tracing::debug!(repository = %repository, status = refused, "mount refused, trying without");
        }
        if repository.has_blob(&blob.digest).await? {
            return Ok(None);
        }
        let (call, reply) = self.post("blobs/uploads/", blob, Scopes::push(&repository.path)).await?;
        match reply.status() {
            202 => {
                // what was refused for the sake of one source says nothing of others
                if refused.is_some() {
                    repository.learnt.no_mount.store(true, Ordering::Relaxed);
                }
                self.session(call, reply).await.map(Some)
            }
            _ => Err(repository.registry.refusal(&call, reply, false).await),
        }
    }

    async fn session(&self, call: Call, reply: Reply) -> Result<Session, Error> {
        let session = Session::new(&self.repository, call.clone(), &reply)?;
        self.repository.registry.drain(&call, reply).await;
        Ok(session)
    }

    async fn post(&self, rest: &str, blob: &Descriptor, scopes: Scopes) -> Result<(Call, Reply), Error> {
        let what = What::Upload(Some(blob.digest.clone()));
        let mut call = self.repository.call(Method::POST, rest, what).await?.header(CONTENT_LENGTH, "0");
        call.scopes = scopes;
        let reply = self.repository.registry.send(&call).await?;
        Ok((call, reply))
    }

    /// What a mount takes.
    fn scopes(&self) -> Scopes {
        let scopes = Scopes::push(&self.repository.path);
        match &self.mount_from {
            Some(from) => scopes.and_pull(from),
            None => scopes,
        }
    }

    fn leave(&self, blob: &Descriptor, session: &Session) {
        self.left().insert(blob.digest.clone(), session.clone());
    }

    fn left(&self) -> MutexGuard<'_, HashMap<Digest, Session>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ingester for Uploads {
    fn start<'a>(&'a self, blob: &'a Descriptor) -> BoxFuture<'a, Result<Option<Box<dyn Ingest>>, Failed>> {
        Box::pin(async move {
            let upload = self.begin(blob).await.map_err(Failed::other)?;
            Ok(upload.map(|u| Box::new(u) as Box<dyn Ingest>))
        })
    }

    fn place(&self) -> String {
        self.repository.to_string()
    }
}

fn check_stated(repository: &Repository, call: &Call, reply: &Reply, blob: &Descriptor) -> Result<(), Error> {
    match stated_digest(reply) {
        Some(stated) if stated != blob.digest && stated.algorithm() == blob.digest.algorithm() => {
            Err(repository.wrong_digest(call, blob.digest.clone(), stated))
        }
        _ => Ok(()),
    }
}
