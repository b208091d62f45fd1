//! A repository as a provider of blobs: one GET for each range, checked to be that range of the same bytes and no more.
//!
//! What breaks off in mid-stream is told and not mended here: the copy loop opens the rest.

use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ferry_content::{BoxFuture, ByteStream, Provider};
use ferry_image::{Descriptor, Digest};
use futures_util::stream;
use http::Method;
use http::header::{CONTENT_RANGE, RANGE};
use tokio::sync::{Mutex, MutexGuard};

use crate::gate::Kind;
use crate::range::{content_range, range_header, unsatisfied};
use crate::repository::{content_type, stated_digest};
use crate::transport::{Call, Reply};
use crate::validator::Validator;
use crate::{Error, Repository, What, reply};

type Failed = ferry_content::Error;

/// How long the first range is waited for before others are asked for too.
const FIRST_RANGE: Duration = Duration::from_secs(5);

impl Provider for Repository {
    fn open<'a>(&'a self, blob: &'a Descriptor, range: Range<u64>) -> BoxFuture<'a, Result<ByteStream, Failed>> {
        Box::pin(self.open_range(blob, range))
    }

    fn is_remote(&self) -> bool {
        self.learnt.ranges.served() != Some(false)
    }

    fn place(&self) -> String {
        self.to_string()
    }
}

/// Whether a server serves ranges. It is found out by one request: one that fetches what it is asked for, as pull-through caches do,
/// would fetch the whole blob for each range.
#[derive(Debug, Default)]
pub(crate) struct Ranges {
    /// 0 as long as nobody knows, 1 for yes, 2 for no.
    served: AtomicU8,
    first: Mutex<()>,
}

impl Ranges {
    fn served(&self) -> Option<bool> {
        match self.served.load(Ordering::Relaxed) {
            0 => None,
            known => Some(known == 1),
        }
    }

    fn learn(&self, served: bool) {
        self.served.store(if served { 1 } else { 2 }, Ordering::Relaxed);
    }

    /// Waits while another request finds out. `Err` when it turned out meanwhile that there are no ranges.
    async fn ask(&self) -> Result<Option<MutexGuard<'_, ()>>, ()> {
        if self.served().is_some() {
            return Ok(None);
        }
        let first = tokio::time::timeout(FIRST_RANGE, self.first.lock()).await.ok();
        if self.served() == Some(false) { Err(()) } else { Ok(first.filter(|_| self.served().is_none())) }
    }
}

/// A body that is being read.
struct Body {
    repository: Repository,
    call: Call,
    reply: Reply,
    blob: Descriptor,
    moved: u64,
    /// Bytes that this answer has.
    length: u64,
    /// Bytes that were asked for.
    wanted: u64,
    failed: bool,
}

impl Repository {
    /// Whether a blob is there, by HEAD.
    ///
    /// # Errors
    /// When the registry cannot be asked, or does not say.
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool, Error> {
        let call = self.call(Method::HEAD, &format!("blobs/{digest}"), What::Blob(digest.clone())).await?;
        let reply = self.registry.expect(&call, &[200, 404]).await?;
        Ok(reply.status() == 200)
    }

    async fn open_range(&self, blob: &Descriptor, range: Range<u64>) -> Result<ByteStream, Failed> {
        let whole = range == (0..blob.size);
        if range.is_empty() && !whole {
            return Ok(Box::pin(stream::empty()));
        }
        let url = format!("blobs/{}", blob.digest);
        let mut call = self.call(Method::GET, &url, What::Blob(blob.digest.clone())).await.map_err(Failed::other)?;
        call.kind = Kind::Pull;
        let mut first = None;
        if !whole {
            call = call.header(RANGE, &range_header(&range));
            first = self.learnt.ranges.ask().await.map_err(|()| self.no_ranges(blob))?;
        }
        let reply = self.registry.send(&call).await.map_err(Failed::other)?;
        let length = match reply.status() {
            200 | 206 | 416 => self.check(&call, &reply, blob, &range)?,
            status => {
                // what authorises was renewed already, and the gate has waited
                let again = !matches!(status, 401 | 429);
                return Err(Failed::other(self.registry.refusal(&call, reply, again).await));
            }
        };
        drop(first);
        let (repository, blob, wanted) = (self.clone(), blob.clone(), range.end - range.start);
        let body = Body { repository, call, reply, blob, moved: 0, length, wanted, failed: false };
        Ok(Box::pin(stream::unfold(body, Body::next)))
    }

    /// Whether the answer is the range that was asked for, or begins with it; returns its length.
    fn check(&self, call: &Call, reply: &Reply, blob: &Descriptor, range: &Range<u64>) -> Result<u64, Failed> {
        let whole = *range == (0..blob.size);
        let length = reply.response.content_length();
        match stated_digest(reply) {
            Some(stated) if stated.algorithm() != blob.digest.algorithm() => {}
            Some(stated) if stated != blob.digest => {
                return Err(Failed::other(self.wrong_digest(call, blob.digest.clone(), stated)));
            }
            Some(_) => {}
            // who says that it is this blob need not prove that it is the same as before
            None if reply.status() != 416 => {
                let validator = Validator::of(reply.response.headers());
                if !self.learnt.validators.agree(&blob.digest, validator, whole) {
                    return Err(Failed::Changed { place: self.to_string(), digest: blob.digest.clone() });
                }
            }
            None => {}
        }
        if whole && reply.status() != 206 {
            return match length {
                _ if reply.status() == 416 => Err(self.broken(call, "not one byte of it can be had".to_owned())),
                Some(found) if found != blob.size && content_type(reply) == "text/html" => {
                    Err(self.broken(call, reply::PAGE.to_owned()))
                }
                Some(found) if found != blob.size => Err(self.wrong_size(blob, found)),
                _ => Ok(blob.size),
            };
        }
        let found = match reply.status() {
            206 => reply.header(CONTENT_RANGE).and_then(content_range),
            416 => {
                if let Some(total) = reply.header(CONTENT_RANGE).and_then(unsatisfied).filter(|t| *t != blob.size) {
                    return Err(self.wrong_size(blob, total));
                }
                None
            }
            _ => None,
        };
        if let Some(total) = found.as_ref().and_then(|f| f.total).filter(|total| *total != blob.size) {
            return Err(self.wrong_size(blob, total));
        }
        // a server may send less than was asked for (RFC 9110, section 15.3.7), but not something else
        let fits = found.map(|f| f.bytes).filter(|f| {
            f.start == range.start && f.end <= range.end && length.is_none_or(|length| length == f.end - f.start)
        });
        match fits {
            Some(bytes) => {
                self.learnt.ranges.learn(true);
                Ok(bytes.end - bytes.start)
            }
            None if whole => Err(self.broken(call, "a part was sent where the whole was asked for".to_owned())),
            None => {
                tracing::debug!(place = %self, blob = blob.digest.short(), status = reply.status(), "no ranges here");
                self.learnt.ranges.learn(false);
                Err(self.no_ranges(blob))
            }
        }
    }

    fn broken(&self, call: &Call, why: String) -> Failed {
        Failed::other(self.registry.broken(call, why))
    }

    fn no_ranges(&self, blob: &Descriptor) -> Failed {
        Failed::NoRanges { place: self.to_string(), digest: blob.digest.clone() }
    }

    fn wrong_size(&self, blob: &Descriptor, found: u64) -> Failed {
        Failed::SizeMismatch { place: self.to_string(), digest: blob.digest.clone(), expected: blob.size, found }
    }
}

impl Body {
    async fn next(mut self) -> Option<(Result<Bytes, Failed>, Self)> {
        if self.failed {
            return None;
        }
        let result = self.chunk().await.transpose()?;
        self.failed = result.is_err();
        Some((result, self))
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, Failed> {
        let chunk = self.repository.registry.chunk(&self.call, &mut self.reply, self.moved).await;
        let chunk = match chunk.map_err(|e| Failed::other(self.of_length(e)))? {
            Some(chunk) => chunk,
            None if self.moved == self.wanted => return Ok(None),
            None if self.moved == self.length => return Err(self.interrupted("the server sent a part of the range")),
            None => return Err(self.interrupted("the body ended")),
        };
        self.moved += chunk.len() as u64;
        if self.moved > self.length {
            return Err(self.repository.wrong_size(&self.blob, self.blob.size + (self.moved - self.length)));
        }
        Ok(Some(chunk))
    }

    fn interrupted(&self, why: &str) -> Failed {
        Failed::other(Error::Interrupted {
            place: self.repository.to_string(),
            what: self.call.what.to_string(),
            moved: self.moved,
            size: self.wanted,
            why: why.to_owned(),
        })
    }

    /// The size in an error is that of what was asked for, whatever the server stated.
    fn of_length(&self, error: Error) -> Error {
        match error {
            Error::Interrupted { place, what, moved, why, .. } => {
                Error::Interrupted { place, what, moved, size: self.wanted, why }
            }
            error => error,
        }
    }
}
