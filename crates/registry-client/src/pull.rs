//! A repository as a provider of blobs: one GET for each range, checked to be that range and no more.
//!
//! What breaks off in mid-stream is told and not mended here: the copy loop opens the rest.

use std::ops::Range;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use ferry_content::{BoxFuture, ByteStream, Provider};
use ferry_image::Descriptor;
use futures_util::stream;
use http::Method;
use http::header::{CONTENT_RANGE, RANGE};

use crate::range::{content_range, range_header};
use crate::repository::content_type;
use crate::transport::{Call, Reply};
use crate::{Error, Repository, What, reply};

type Failed = ferry_content::Error;

impl Provider for Repository {
    fn open<'a>(&'a self, blob: &'a Descriptor, range: Range<u64>) -> BoxFuture<'a, Result<ByteStream, Failed>> {
        Box::pin(self.open_range(blob, range))
    }

    fn is_remote(&self) -> bool {
        !self.learnt.no_ranges.load(Ordering::Relaxed)
    }

    fn place(&self) -> String {
        self.to_string()
    }
}

/// A body that is being read.
struct Body {
    repository: Repository,
    call: Call,
    reply: Reply,
    blob: Descriptor,
    moved: u64,
    length: u64,
    failed: bool,
}

impl Repository {
    async fn open_range(&self, blob: &Descriptor, range: Range<u64>) -> Result<ByteStream, Failed> {
        let whole = range == (0..blob.size);
        if range.is_empty() && !whole {
            return Ok(Box::pin(stream::empty()));
        }
        let url = format!("blobs/{}", blob.digest);
        let mut call = self.call(Method::GET, &url, What::Blob(blob.digest.clone())).await.map_err(Failed::other)?;
        call.streams = true;
        if !whole {
            call = call.header(RANGE, &range_header(&range));
        }
        let reply = self.registry.expect(&call, &[200, 206]).await.map_err(Failed::other)?;
        self.check(&call, &reply, blob, &range)?;
        let length = range.end - range.start;
        let body = Body { repository: self.clone(), call, reply, blob: blob.clone(), moved: 0, length, failed: false };
        Ok(Box::pin(stream::unfold(body, Body::next)))
    }

    /// Whether the answer is the range that was asked for.
    fn check(&self, call: &Call, reply: &Reply, blob: &Descriptor, range: &Range<u64>) -> Result<(), Failed> {
        let whole = *range == (0..blob.size);
        let length = reply.response.content_length();
        let broken = |why: String| Failed::other(self.registry.broken(call, why));
        if reply.status() == 200 {
            if !whole {
                self.learnt.no_ranges.store(true, Ordering::Relaxed);
                return Err(Failed::NoRanges { place: self.to_string(), digest: blob.digest.clone() });
            }
            return match length {
                Some(found) if found != blob.size && content_type(reply) == "text/html" => {
                    Err(broken(reply::PAGE.to_owned()))
                }
                Some(found) if found != blob.size => Err(self.wrong_size(blob, found)),
                _ => Ok(()),
            };
        }
        let stated = reply.header(CONTENT_RANGE).and_then(content_range);
        let Some(stated) = stated else {
            return Err(broken("a partial answer without a usable `Content-Range`".to_owned()));
        };
        if let Some(total) = stated.total.filter(|t| *t != blob.size) {
            return Err(self.wrong_size(blob, total));
        }
        if stated.bytes != *range || length.is_some_and(|l| l != range.end - range.start) {
            return Err(broken(format!("asked for bytes {range:?}, it answers with {:?}", stated.bytes)));
        }
        Ok(())
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
            None if self.moved == self.length => return Ok(None),
            None => {
                let why = "the body ended".to_owned();
                return Err(Failed::other(self.of_length(Error::Interrupted {
                    place: self.repository.to_string(),
                    what: self.call.what.to_string(),
                    moved: self.moved,
                    size: self.length,
                    why,
                })));
            }
        };
        self.moved += chunk.len() as u64;
        if self.moved > self.length {
            return Err(self.repository.wrong_size(&self.blob, self.blob.size + (self.moved - self.length)));
        }
        Ok(Some(chunk))
    }

    /// The size in an error is that of what was asked for, whatever the server stated.
    fn of_length(&self, error: Error) -> Error {
        match error {
            Error::Interrupted { place, what, moved, why, .. } => {
                Error::Interrupted { place, what, moved, size: self.length, why }
            }
            error => error,
        }
    }
}
