//! Bodies of requests and answers.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ferry_content::ByteStream;
use ferry_image::Descriptor;
use futures_util::{StreamExt as _, stream};
use http::StatusCode;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::{Frame, SizeHint};
use tokio::sync::mpsc;

use crate::check::{Checks, SharedHash};
use crate::refusal::Refusal;
use crate::server::connections::Delivery;

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;
/// The body of a request.
pub(crate) type Incoming = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Chunks read ahead while the client takes one: disk, hash and network work side by side.
const AHEAD: usize = 1;
/// What is taken off a refused request, so that the client gets to the answer and the connection can be used again. With more unread, the
/// kernel resets the connection, and many clients then tell of a broken pipe instead of the reason.
const DISCARD: usize = 8 << 20;
/// How long that may take.
const DISCARD_TIME: Duration = Duration::from_secs(5);
/// A client that sends nothing for this long is given up.
const STALL: Duration = Duration::from_secs(60);

pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// The same body, with something that lasts as long as it does, and somebody who is told whenever a client takes of it.
pub(crate) fn with<T: Send + Unpin + 'static>(body: Body, held: T, answer: Arc<Delivery>) -> Body {
    Holding { body, answer, _held: held }.boxed_unsync()
}

struct Holding<T> {
    body: Body,
    answer: Arc<Delivery>,
    _held: T,
}

impl<T: Unpin> http_body::Body for Holding<T> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.answer.taken();
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A whole read that must be checked while it is sent.
pub(crate) struct Checked {
    pub(crate) checks: Arc<Checks>,
    pub(crate) blob: Descriptor,
    pub(crate) place: String,
    pub(crate) hash: Arc<SharedHash>,
}

/// Sends a stream as it is.
pub(crate) fn streamed(stream: ByteStream) -> Body {
    let frames = stream.map(|chunk| chunk.map(Frame::data).map_err(broken));
    StreamBody::new(frames).boxed_unsync()
}

/// Sends a stream whose last chunk is sent only if the hash agrees; otherwise the transfer breaks.
pub(crate) fn checked(stream: ByteStream, checked: Checked) -> Body {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        if let Err(error) = pump(stream, checked, &sender).await {
            let _ = sender.send(Err(broken(error))).await;
        }
    });
    let frames = stream::unfold(receiver, |mut receiver| async {
        let next: io::Result<Bytes> = receiver.recv().await?;
        Some((next.map(Frame::data), receiver))
    });
    StreamBody::new(frames).boxed_unsync()
}

fn broken(error: ferry_content::Error) -> io::Error {
    tracing::error!(%error, "a transfer was broken off");
    io::Error::other(error)
}

async fn pump(
    mut stream: ByteStream,
    Checked { checks, blob, place, hash }: Checked,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> Result<(), ferry_content::Error> {
    let (mut held, mut size) = (None, 0);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.inspect_err(|_| checks.abandon(&blob))?;
        hash.update(size, &chunk);
        size += chunk.len() as u64;
        if let Some(previous) = held.replace(chunk)
            && sender.send(Ok(previous)).await.is_err()
        {
            return Ok(()); // the client has gone
        }
    }
    checks.conclude(&hash, &place, &blob, size)?;
    if let Some(last) = held {
        let _ = sender.send(Ok(last)).await;
    }
    Ok(())
}

/// The next bytes of a request, `None` at its end.
pub(crate) async fn next(body: &mut Incoming) -> Result<Option<Bytes>, Refusal> {
    next_within(body, STALL).await
}

async fn next_within(body: &mut Incoming, stall: Duration) -> Result<Option<Bytes>, Refusal> {
    loop {
        let frame = match tokio::time::timeout(stall, body.frame()).await {
            Err(_) => return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "UNKNOWN", "the client stopped sending")),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => {
                return Err(Refusal::new(
                    StatusCode::BAD_REQUEST,
                    "UNKNOWN",
                    format!("the request broke off: {error}"),
                ));
            }
            Ok(Some(Ok(frame))) => frame,
        };
        if let Ok(data) = frame.into_data()
            && !data.is_empty()
        {
            return Ok(Some(data));
        }
    }
}

/// Reads on for a while after a refusal. Of what is longer nothing is read: the connection would break all the same, and who sends it
/// would only learn later that it was for nothing.
pub(crate) async fn discard(body: &mut Incoming, length: Option<u64>) {
    if length.is_some_and(|length| length > DISCARD as u64) {
        return;
    }
    let rest = async {
        let mut size = 0;
        while size < DISCARD
            && let Some(Ok(frame)) = body.frame().await
        {
            size += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    let _ = tokio::time::timeout(DISCARD_TIME, rest).await;
}

/// All of a small request; `None` when it is larger than `limit` bytes.
pub(crate) async fn collected(body: &mut Incoming, limit: u64) -> Result<Option<Bytes>, Refusal> {
    let mut bytes = BytesMut::new();
    while let Some(data) = next(body).await? {
        if (bytes.len() + data.len()) as u64 > limit {
            return Ok(None);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Some(bytes.freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_that_stops_sending_is_given_up() {
        let frames = stream::iter([Ok(Frame::data(Bytes::from_static(b"hello")))]).chain(stream::pending());
        let mut body: Incoming = StreamBody::new(frames).boxed_unsync();
        let stall = Duration::from_millis(20);
        assert_eq!(next_within(&mut body, stall).await.expect("data"), Some(Bytes::from_static(b"hello")));
        let refusal = next_within(&mut body, stall).await.expect_err("nothing more");
        assert_eq!(refusal.status, StatusCode::REQUEST_TIMEOUT);
    }
}
