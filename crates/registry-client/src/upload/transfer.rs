//! One request whose body streams: its length is announced, and it ends well only after exactly so many bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};

use crate::Error;
use crate::registry::Registry;
use crate::transport::{Call, Reply};

/// Chunks that wait to be sent; each may have 1 MiB.
const WAITING: usize = 1;

/// Dropped before its end, it leaves the registry with a request that never ended.
pub(super) struct Transfer {
    pub(super) call: Call,
    length: u64,
    queued: u64,
    moved: Arc<AtomicU64>,
    chunks: mpsc::Sender<Bytes>,
    answer: JoinHandle<Result<Reply, Error>>,
    stall: Duration,
}

/// How a request ended, before all of it was sent or after.
pub(super) enum End {
    Answered(Reply),
    Failed(Error),
    /// Broken off by us, or by the runtime.
    Silent(String),
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.answer.abort();
    }
}

impl Transfer {
    /// Begins a request with a body of `length` bytes. The token is fetched now: an upload may have waited long.
    pub(super) async fn begin(registry: &Arc<Registry>, call: Call, length: u64) -> Result<Self, Error> {
        // a session on another host carries its own permission in its address
        let ours = crate::location::same_origin(&call.url, registry.root().await?);
        let authorization = if ours { registry.authorize(&call.repository, &call.scopes).await? } else { None };
        let (chunks, received) = mpsc::channel(WAITING);
        let moved = Arc::new(AtomicU64::new(0));
        let body = body(received, length, Arc::clone(&moved));
        let (shared, sent) = (Arc::clone(registry), call.clone());
        let answer = tokio::spawn(async move { shared.stream(&sent, authorization.as_ref(), body).await });
        Ok(Self { call, length, queued: 0, moved, chunks, answer, stall: registry.config.stall_timeout })
    }

    /// Bytes that are still to be given.
    pub(super) fn left(&self) -> u64 {
        self.length - self.queued
    }

    /// Bytes that left this process.
    pub(super) fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// Gives the next bytes, no more than are left.
    pub(super) async fn send(&mut self, chunk: Bytes) -> Result<(), End> {
        let length = chunk.len() as u64;
        tokio::select! {
            biased;
            // an answer before the end is a refusal: its words, not those of a closed channel, are what counts
            answer = &mut self.answer => return Err(End::from(answer)),
            taken = tokio::time::timeout(self.stall, self.chunks.send(chunk)) => match taken {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(End::from((&mut self.answer).await)),
                Err(_) => return Err(End::Silent(format!("nothing was taken for {} s", self.stall.as_secs()))),
            },
        }
        self.queued += length;
        Ok(())
    }

    /// Waits for the answer, once everything was given.
    pub(super) async fn answer(&mut self, longest: Duration) -> End {
        match tokio::time::timeout(longest, &mut self.answer).await {
            Ok(answer) => End::from(answer),
            Err(_) => End::Silent(format!("no answer for {} s after the last byte", longest.as_secs())),
        }
    }
}

impl From<Result<Result<Reply, Error>, JoinError>> for End {
    fn from(answer: Result<Result<Reply, Error>, JoinError>) -> Self {
        match answer {
            Ok(Ok(reply)) => Self::Answered(reply),
            Ok(Err(error)) => Self::Failed(error),
            Err(join) => Self::Silent(join.to_string()),
        }
    }
}

/// Ends well after exactly `length` bytes, and breaks the request off when the sender goes before.
fn body(chunks: mpsc::Receiver<Bytes>, length: u64, moved: Arc<AtomicU64>) -> reqwest::Body {
    reqwest::Body::wrap_stream(stream::unfold((chunks, length, moved), |(mut chunks, left, moved)| async move {
        if left == 0 {
            return None;
        }
        match chunks.recv().await {
            Some(chunk) => {
                let length = chunk.len() as u64;
                moved.fetch_add(length, Ordering::Relaxed);
                Some((Ok(chunk), (chunks, left.saturating_sub(length), moved)))
            }
            None => {
                let gone = std::io::Error::new(std::io::ErrorKind::ConnectionAborted, "the upload was given up");
                Some((Err(gone), (chunks, 0, moved)))
            }
        }
    }))
}
