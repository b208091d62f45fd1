//! A repository as an ingester of blobs: one POST that is existence check, mount and upload session at once, then one PUT whose
//! body streams.
//!
//! The body's length is announced and its last bytes come only once the copy loop has found the digest to agree: dropping an
//! upload before leaves the registry with a request that never ended, and so with nothing.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use ferry_content::{BoxFuture, Ingest, Ingester};
use ferry_image::Descriptor;
use futures_util::stream;
use http::Method;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

use crate::auth::Scopes;
use crate::registry::Registry;
use crate::repository::stated_digest;
use crate::transport::{Call, Reply};
use crate::{Error, Repository, What, host, location};

type Failed = ferry_content::Error;

/// Chunks that wait to be sent; each may have 1 MiB.
const WAITING: usize = 1;

/// Takes blobs into one repository.
#[derive(Debug, Clone)]
pub struct Uploads {
    repository: Repository,
    mount_from: Option<String>,
}

impl Uploads {
    pub(crate) fn new(repository: Repository, mount_from: Option<String>) -> Self {
        let mount_from = mount_from.filter(|from| host::is_path(from) && **from != *repository.path);
        Self { repository, mount_from }
    }

    /// Opens an upload; `None` when the blob is there.
    async fn open(&self, blob: &Descriptor) -> Result<Option<Upload>, Error> {
        let repository = &self.repository;
        repository.learnt.writes.store(true, Ordering::Relaxed);
        if !repository.learnt.no_mount.load(Ordering::Relaxed) {
            let from = self.mount_from.as_deref().unwrap_or(&repository.path);
            let rest = format!("blobs/uploads/?mount={}&from={from}", blob.digest);
            let (call, reply) = self.post(&rest, blob).await?;
            match reply.status() {
                200 | 201 => {
                    self.check_stated(&call, &reply, blob)?;
                    repository.registry.drain(&call, reply).await;
                    return Ok(None);
                }
                202 => return self.begin(call, reply, blob).await.map(Some),
                // what says that nobody may, or not now, says it of every upload
                400 | 404 | 405 | 406 | 411 | 415 | 422 => {}
                _ => return Err(repository.registry.refusal(&call, reply, false).await),
            }
            tracing::debug!(repository = %repository, status = reply.status(), "mount refused, trying without");
        }
        if self.exists(blob).await? {
            return Ok(None);
        }
        let (call, reply) = self.post("blobs/uploads/", blob).await?;
        match reply.status() {
            202 => {
                repository.learnt.no_mount.store(true, Ordering::Relaxed);
                self.begin(call, reply, blob).await.map(Some)
            }
            _ => Err(repository.registry.refusal(&call, reply, false).await),
        }
    }

    async fn post(&self, rest: &str, blob: &Descriptor) -> Result<(Call, Reply), Error> {
        let what = What::Upload(Some(blob.digest.clone()));
        let mut call = self.repository.call(Method::POST, rest, what).await?.header(CONTENT_LENGTH, "0");
        call.scopes = self.scopes();
        let reply = self.repository.registry.send(&call).await?;
        Ok((call, reply))
    }

    fn scopes(&self) -> Scopes {
        let scopes = Scopes::push(&self.repository.path);
        match &self.mount_from {
            Some(from) => scopes.and_pull(from),
            None => scopes,
        }
    }

    async fn exists(&self, blob: &Descriptor) -> Result<bool, Error> {
        let what = What::Blob(blob.digest.clone());
        let call = self.repository.call(Method::HEAD, &format!("blobs/{}", blob.digest), what).await?;
        let reply = self.repository.registry.expect(&call, &[200, 404]).await?;
        Ok(reply.status() == 200)
    }

    async fn begin(&self, call: Call, reply: Reply, blob: &Descriptor) -> Result<Upload, Error> {
        let session = self.repository.session(&call, &reply)?;
        self.repository.registry.drain(&call, reply).await;
        let put = Call { method: Method::PUT, url: location::with_digest(&session, &blob.digest.to_string()), ..call }
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, &blob.size.to_string());
        let sending = Sending { sent: 0, state: State::Ready(Box::new(put)) };
        Ok(Upload { repository: self.repository.clone(), blob: blob.clone(), sending: Mutex::new(sending) })
    }

    fn check_stated(&self, call: &Call, reply: &Reply, blob: &Descriptor) -> Result<(), Error> {
        check_stated(&self.repository, call, reply, blob)
    }
}

impl Ingester for Uploads {
    fn start<'a>(&'a self, blob: &'a Descriptor) -> BoxFuture<'a, Result<Option<Box<dyn Ingest>>, Failed>> {
        Box::pin(async move {
            let upload = self.open(blob).await.map_err(Failed::other)?;
            Ok(upload.map(|u| Box::new(u) as Box<dyn Ingest>))
        })
    }

    fn place(&self) -> String {
        self.repository.to_string()
    }
}

/// One blob on its way to the registry.
struct Upload {
    repository: Repository,
    blob: Descriptor,
    sending: Mutex<Sending>,
}

struct Sending {
    sent: u64,
    state: State,
}

enum State {
    /// Nothing sent yet.
    Ready(Box<Call>),
    /// The request is on its way.
    Running(Running),
    /// It has failed or was taken.
    Over,
}

struct Running {
    chunks: mpsc::Sender<Bytes>,
    answer: JoinHandle<Result<(), Error>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.answer.abort();
    }
}

impl Upload {
    /// The request under way, started where it was not. The token is fetched now: an upload may have waited long.
    async fn running<'a>(&self, sending: &'a mut Sending) -> Result<&'a mut Running, Error> {
        if let State::Ready(call) = &sending.state {
            let registry = Arc::clone(&self.repository.registry);
            let ours = location::same_origin(&call.url, registry.root().await?);
            let authorization = if ours { registry.authorize(&call.repository, &call.scopes).await? } else { None };
            let (chunks, received) = mpsc::channel(WAITING);
            let body = body(received, self.blob.size);
            let (call, blob, repository) = (call.clone(), self.blob.clone(), self.repository.clone());
            let answer = tokio::spawn(async move {
                let reply = registry.stream(&call, authorization.as_ref(), body).await?;
                finish(&registry, &repository, &call, reply, &blob).await
            });
            sending.state = State::Running(Running { chunks, answer });
        }
        match &mut sending.state {
            State::Running(running) => Ok(running),
            _ => Err(self.interrupted(sending.sent, "it has failed before")),
        }
    }

    async fn write(&self, offset: u64, chunks: Vec<Bytes>) -> Result<(), Error> {
        let mut sending = self.sending.lock().await;
        if offset != sending.sent {
            return Err(self.out_of_order(sending.sent, offset));
        }
        for chunk in chunks.into_iter().filter(|c| !c.is_empty()) {
            let length = chunk.len() as u64;
            let sent = sending.sent;
            if sent + length > self.blob.size {
                return Err(self.out_of_order(self.blob.size, sent + length));
            }
            if let Err(error) = self.send(&mut sending, chunk).await {
                sending.state = State::Over;
                return Err(error);
            }
            sending.sent = sent + length;
        }
        Ok(())
    }

    async fn send(&self, sending: &mut Sending, chunk: Bytes) -> Result<(), Error> {
        let sent = sending.sent;
        let stall = self.repository.registry.config.stall_timeout;
        let running = self.running(sending).await?;
        tokio::select! {
            biased;
            // an answer before the end is a refusal: its words, not those of a closed channel, are what counts
            answer = &mut running.answer => Err(self.early(answer, sent)),
            taken = tokio::time::timeout(stall, running.chunks.send(chunk)) => match taken {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(self.early((&mut running.answer).await, sent)),
                Err(_) => Err(self.interrupted(sent, &format!("nothing was taken for {} s", stall.as_secs()))),
            },
        }
    }

    fn early(&self, answer: Result<Result<(), Error>, tokio::task::JoinError>, sent: u64) -> Error {
        match answer {
            Ok(Err(error)) => error,
            Ok(Ok(())) => Error::Protocol {
                place: self.repository.to_string(),
                what: self.what().to_string(),
                why: format!("accepted after {sent} of {} bytes", self.blob.size),
            },
            Err(join) => self.interrupted(sent, &join.to_string()),
        }
    }

    async fn finish(self) -> Result<(), Error> {
        let mut sending = self.sending.lock().await;
        if sending.sent != self.blob.size {
            return Err(self.out_of_order(self.blob.size, sending.sent));
        }
        let sent = sending.sent;
        let longest = self.repository.registry.config.commit_timeout;
        let running = self.running(&mut sending).await?;
        match tokio::time::timeout(longest, &mut running.answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(join)) => Err(self.interrupted(sent, &join.to_string())),
            Err(_) => {
                Err(self.interrupted(sent, &format!("no answer for {} s after the last byte", longest.as_secs())))
            }
        }
    }

    fn what(&self) -> What {
        What::Upload(Some(self.blob.digest.clone()))
    }

    fn interrupted(&self, moved: u64, why: &str) -> Error {
        let (place, what) = (self.repository.to_string(), self.what().to_string());
        Error::Interrupted { place, what, moved, size: self.blob.size, why: why.to_owned() }
    }

    fn out_of_order(&self, expected: u64, found: u64) -> Error {
        let why = format!("bytes out of order: {found} instead of {expected}");
        Error::Protocol { place: self.repository.to_string(), what: self.what().to_string(), why }
    }
}

impl Ingest for Upload {
    fn missing(&self) -> Vec<Range<u64>> {
        let sent = self.sending.try_lock().map_or(0, |s| s.sent);
        Some(sent..self.blob.size).filter(|rest| !rest.is_empty()).into_iter().collect()
    }

    fn write_at<'a>(&'a self, offset: u64, chunks: Vec<Bytes>) -> BoxFuture<'a, Result<(), Failed>> {
        Box::pin(async move { self.write(offset, chunks).await.map_err(Failed::other) })
    }

    fn read_back<'a>(&'a self, _: Range<u64>) -> BoxFuture<'a, Result<Bytes, Failed>> {
        let error = Error::Protocol {
            place: self.repository.to_string(),
            what: self.what().to_string(),
            why: "what was sent cannot be read back".to_owned(),
        };
        Box::pin(async move { Err(Failed::other(error)) })
    }

    fn reset<'a>(&'a self) -> BoxFuture<'a, Result<(), Failed>> {
        // a session cannot be begun anew: the copy loop drops it and starts another
        Box::pin(async move {
            self.sending.lock().await.state = State::Over;
            Ok(())
        })
    }

    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<(), Failed>> {
        Box::pin(async move { self.finish().await.map_err(Failed::other) })
    }
}

/// The request's body: ends well after exactly `size` bytes, and breaks the request off when the sender goes before.
fn body(chunks: mpsc::Receiver<Bytes>, size: u64) -> reqwest::Body {
    reqwest::Body::wrap_stream(stream::unfold((chunks, size), |(mut chunks, left)| async move {
        if left == 0 {
            return None;
        }
        match chunks.recv().await {
            Some(chunk) => {
                let left = left.saturating_sub(chunk.len() as u64);
                Some((Ok(chunk), (chunks, left)))
            }
            None => {
                let gone = std::io::Error::new(std::io::ErrorKind::ConnectionAborted, "the upload was given up");
                Some((Err(gone), (chunks, 0)))
            }
        }
    }))
}

/// Takes the answer to the PUT.
async fn finish(
    registry: &Registry,
    repository: &Repository,
    call: &Call,
    reply: Reply,
    blob: &Descriptor,
) -> Result<(), Error> {
    match reply.status() {
        200 | 201 | 204 => {
            check_stated(repository, call, &reply, blob)?;
            registry.drain(call, reply).await;
            Ok(())
        }
        401 => {
            // the next attempt begins with a new token
            registry.challenged(&call.scopes, &reply).await;
            Err(registry.refusal(call, reply, true).await)
        }
        _ => Err(registry.refusal(call, reply, true).await),
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
