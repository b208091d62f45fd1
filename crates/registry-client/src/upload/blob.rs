//! One blob on its way to the registry.
//!
//! As one PUT, its last bytes come only once the copy loop has found the digest to agree: dropping it before leaves the registry
//! with a request that never ended. In chunks, nothing is there until the session is closed. Where it breaks off, the session is
//! left for the next attempt.

use std::ops::Range;
use std::sync::{MutexGuard, PoisonError};

use bytes::Bytes;
use ferry_content::{BoxFuture, Failure as _, Ingest};
use ferry_image::Descriptor;
use tokio::sync::Mutex;

use super::pieces::{Form, Pieces, Plan};
use super::refusal::{After, after};
use super::session::{Broke, Session};
use super::transfer::{End, Transfer};
use super::{Failed, Uploads, check_stated};
use crate::auth::Authorization;
use crate::transport::{Call, Reply};
use crate::{Error, What};

pub(super) struct Upload {
    uploads: Uploads,
    blob: Descriptor,
    state: Mutex<State>,
}

struct State {
    session: Session,
    /// Bytes taken from the copy loop.
    at: u64,
    running: Option<Running>,
    failed: bool,
}

struct Running {
    transfer: Transfer,
    plan: Plan,
    /// The position of its first byte in the blob.
    from: u64,
}

impl Upload {
    /// An upload that goes on after `at` bytes.
    pub(super) fn new(uploads: Uploads, blob: Descriptor, session: Session, at: u64) -> Self {
        Self { uploads, blob, state: Mutex::new(State { session, at, running: None, failed: false }) }
    }

    async fn write(&self, offset: u64, chunks: Vec<Bytes>) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        if offset != state.at {
            return Err(self.out_of_order(state.at, offset));
        }
        for mut chunk in chunks {
            let end = state.at + chunk.len() as u64;
            if end > self.blob.size {
                return Err(self.out_of_order(self.blob.size, end));
            }
            while !chunk.is_empty() {
                let running = self.ready(&mut state).await?;
                let fits = usize::try_from(running.transfer.left()).unwrap_or(usize::MAX);
                let piece = chunk.split_to(chunk.len().min(fits));
                let length = piece.len() as u64;
                match running.transfer.send(piece).await {
                    Ok(()) => state.at += length,
                    Err(end) => return self.ended(&mut state, end).await,
                }
            }
        }
        Ok(())
    }

    /// The request that takes what comes next: more bytes, or the end of the session.
    async fn ready<'a>(&self, state: &'a mut State) -> Result<&'a mut Running, Error> {
        if state.failed {
            return Err(self.interrupted(state.at, "it has failed before"));
        }
        if state.running.as_ref().is_some_and(|running| running.transfer.left() == 0) {
            self.settle(state).await?;
        }
        if state.running.is_none() {
            let pieces = *self.pieces();
            let plan = pieces.next(state.at, self.blob.size, state.session.least.unwrap_or(0));
            let from = state.at;
            let call = match plan.form {
                Form::Whole => state.session.whole(&self.blob.digest, self.blob.size),
                Form::Chunk => state.session.chunk(&(from..from + plan.length)),
                Form::Close => state.session.close(&self.blob.digest),
            };
            let call = Call { apart: pieces.apart(), ..call };
            match Transfer::begin(&self.uploads.repository.registry, call, plan.length).await {
                Ok(transfer) => state.running = Some(Running { transfer, plan, from }),
                Err(error) => {
                    state.failed = true;
                    self.uploads.leave(&self.blob, &state.session);
                    return Err(error);
                }
            }
        }
        match &mut state.running {
            Some(running) => Ok(running),
            None => Err(self.interrupted(state.at, "it has failed before")),
        }
    }

    /// Waits for the answer to what was sent.
    async fn settle(&self, state: &mut State) -> Result<(), Error> {
        let longest = self.uploads.repository.registry.config.commit_timeout;
        match &mut state.running {
            Some(running) => {
                let end = running.transfer.answer(longest).await;
                self.ended(state, end).await
            }
            None => Ok(()),
        }
    }

    /// A request is over.
    async fn ended(&self, state: &mut State, end: End) -> Result<(), Error> {
        let Some(running) = state.running.take() else { return Ok(()) };
        let result = match end {
            End::Answered(reply) if reply.response.status().is_success() => match running.plan.form {
                Form::Whole | Form::Close => self.accepted(&running, reply).await,
                Form::Chunk => self.took(state, &running, reply).await,
            },
            End::Answered(reply) => Err(self.refused(state, &running, reply).await),
            End::Failed(error) => Err(self.broke(state, &running, error)),
            End::Silent(why) => {
                let error = self.interrupted(running.from + running.transfer.moved(), &why);
                Err(self.broke(state, &running, error))
            }
        };
        state.failed = result.is_err();
        result
    }

    /// The PUT was answered well.
    async fn accepted(&self, running: &Running, reply: Reply) -> Result<(), Error> {
        let repository = &self.uploads.repository;
        let left = running.transfer.left();
        if left > 0 {
            let (size, place) = (self.blob.size, repository.to_string());
            let why = format!("accepted after {} of {size} bytes", size - left);
            return Err(Error::Protocol { place, what: self.what().to_string(), why });
        }
        check_stated(repository, &running.transfer.call, &reply, &self.blob)?;
        repository.registry.drain(&running.transfer.call, reply).await;
        Ok(())
    }

    /// The PATCH was answered well: but the registry may have taken less than it got.
    async fn took(&self, state: &mut State, running: &Running, reply: Reply) -> Result<(), Error> {
        let (repository, session) = (&self.uploads.repository, &mut state.session);
        let end = running.from + running.plan.length;
        let has = session.follow(repository, &reply)?.unwrap_or(end);
        repository.registry.drain(&running.transfer.call, reply).await;
        self.pieces().taken();
        session.sent = session.sent.max(state.at);
        (session.at, session.refused_at, session.renewed) = (Some(has), None, false);
        if has == end && running.transfer.left() == 0 {
            return Ok(());
        }
        self.uploads.leave(&self.blob, session);
        Err(self.interrupted(has, &format!("the registry has {has} bytes after {} were sent", state.at)))
    }

    /// What a refusal means for the session, and for the pieces in which bytes go from now on.
    async fn refused(&self, state: &mut State, running: &Running, reply: Reply) -> Error {
        let (repository, session, call) = (&self.uploads.repository, &mut state.session, &running.transfer.call);
        let registry = &repository.registry;
        let status = reply.status();
        session.at = None;
        session.sent = session.sent.max(running.from + running.transfer.moved());
        let mut renews = false;
        // a token may have grown too old; another host has not seen it
        if status == 401 && !session.renewed && reply.authorization.as_ref().is_some_and(Authorization::is_token) {
            session.renewed = true;
            renews = registry.challenged(&call.scopes, &reply).await;
        }
        if status == 416 {
            session.refused_at = Some(running.from);
            session.at = session.follow(repository, &reply).ok().flatten();
        }
        let mut error = registry.refusal(call, reply, false).await;
        if let Error::Status(told) = &mut error {
            let other_form = self.pieces().refused(running.plan, status);
            let after = if renews { After::Ask } else { after(status, &told.code, other_form) };
            told.passes = after != After::Stop;
            if after == After::Ask {
                self.uploads.leave(&self.blob, session);
            }
        }
        error
    }

    fn broke(&self, state: &mut State, running: &Running, error: Error) -> Error {
        let session = &mut state.session;
        let moved = running.transfer.moved();
        session.at = None;
        session.sent = session.sent.max(running.from + moved);
        session.broke = Some(Broke { plan: running.plan, from: running.from, moved });
        if error.is_transient() {
            self.uploads.leave(&self.blob, session);
        }
        error
    }

    async fn finish(self) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        if state.at != self.blob.size {
            return Err(self.out_of_order(self.blob.size, state.at));
        }
        if !state.running.as_ref().is_some_and(|running| running.plan.form == Form::Whole) {
            self.ready(&mut state).await?;
        }
        self.settle(&mut state).await
    }

    fn pieces(&self) -> MutexGuard<'_, Pieces> {
        self.uploads.repository.registry.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn what(&self) -> What {
        What::Upload(Some(self.blob.digest.clone()))
    }

    fn interrupted(&self, moved: u64, why: &str) -> Error {
        let (place, what) = (self.uploads.repository.to_string(), self.what().to_string());
        Error::Interrupted { place, what, moved, size: self.blob.size, why: why.to_owned() }
    }

    fn out_of_order(&self, expected: u64, found: u64) -> Error {
        let why = format!("bytes out of order: {found} instead of {expected}");
        Error::Protocol { place: self.uploads.repository.to_string(), what: self.what().to_string(), why }
    }
}

impl Ingest for Upload {
    fn missing(&self) -> Vec<Range<u64>> {
        let at = self.state.try_lock().map_or(0, |state| state.at);
        Some(at..self.blob.size).filter(|rest| !rest.is_empty()).into_iter().collect()
    }

    fn write_at<'a>(&'a self, offset: u64, chunks: Vec<Bytes>) -> BoxFuture<'a, Result<(), Failed>> {
        Box::pin(async move { self.write(offset, chunks).await.map_err(Failed::other) })
    }

    fn read_back<'a>(&'a self, _: Range<u64>) -> BoxFuture<'a, Result<Bytes, Failed>> {
        let error = Error::Protocol {
            place: self.uploads.repository.to_string(),
            what: self.what().to_string(),
            why: "what was sent cannot be read back".to_owned(),
        };
        Box::pin(async move { Err(Failed::other(error)) })
    }

    fn reset<'a>(&'a self) -> BoxFuture<'a, Result<(), Failed>> {
        // a session cannot be begun anew: the copy loop drops it and starts another
        Box::pin(async move {
            let mut state = self.state.lock().await;
            (state.running, state.failed) = (None, true);
            state.session.cancel(&self.uploads.repository.registry).await;
            Ok(())
        })
    }

    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<(), Failed>> {
        Box::pin(async move { self.finish().await.map_err(Failed::other) })
    }
}
