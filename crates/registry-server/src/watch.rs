//! A request from its first byte to the last of its answer: what the access log and the metrics tell of it.
//!
//! An answer is counted when its body is dropped, not when it is made: most of a registry's work happens in between. What ends before
//! its time, in either direction, is told as broken off.

mod line;
mod log;
mod metrics;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, REFERER, USER_AGENT};
use http::request::Parts;
use http::{Method, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame, SizeHint};

use crate::auth::access;
use crate::body::{Body, Incoming};
use crate::registry::Peer;

use line::Line;
pub use line::log_time;
pub use log::{AccessLog, Lines};
pub(crate) use metrics::{Metrics, Scraped};

/// nginx's number for a request whose client went away before it was answered.
const CLIENT_CLOSED: u16 = 499;
/// The same of a request that the end of this server has cut off.
const ENDED: u16 = 503;

/// Everything that watches.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    pub(crate) metrics: Metrics,
    log: Option<AccessLog>,
    /// What breaks off from now on does so because of this server.
    is_cutting: AtomicBool,
}

/// Somebody who ends all transfers when it is dropped.
pub(crate) struct Cutting(Arc<Watch>);

impl Drop for Cutting {
    fn drop(&mut self) {
        self.0.is_cutting.store(true, Ordering::SeqCst);
    }
}

impl Watch {
    pub(crate) fn new(log: Option<AccessLog>) -> Self {
        Self { log, ..Self::default() }
    }

    /// To be dropped just before transfers are cut off at the end.
    pub(crate) fn cutting(self: &Arc<Self>) -> Cutting {
        Cutting(Arc::clone(self))
    }

    /// Takes a request up.
    pub(crate) fn begin(self: &Arc<Self>, parts: &Parts) -> Watched {
        self.metrics.begin();
        let text = |name| parts.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let user = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(access::user);
        let line = self.log.is_some().then(|| Line {
            client: parts.extensions.get::<Peer>().map(|peer| peer.0.to_canonical()),
            user,
            method: parts.method.to_string(),
            target: parts.uri.path_and_query().map_or_else(|| parts.uri.path().to_owned(), ToString::to_string),
            version: parts.version,
            referer: text(REFERER),
            agent: text(USER_AGENT),
        });
        Watched {
            watch: Arc::clone(self),
            start: Instant::now(),
            labels: metrics::labels(&parts.method, parts.uri.path()),
            mounts: parts.uri.query().is_some_and(|query| query.split('&').any(|pair| pair.starts_with("mount="))),
            line,
            status: CLIENT_CLOSED,
            expected: None,
            sent: 0,
            received: Arc::default(),
            broken: Some(Broken::Dropped),
        }
    }
}

/// A request that is watched; told of when it is dropped.
pub(crate) struct Watched {
    watch: Arc<Watch>,
    start: Instant,
    labels: metrics::Labels,
    /// Asks for a blob of another repository.
    mounts: bool,
    line: Option<Line>,
    status: u16,
    /// The bytes of the answer's body, where that is known.
    expected: Option<u64>,
    sent: u64,
    received: Arc<AtomicU64>,
    /// Why it did not end well; taken away when it has.
    broken: Option<Broken>,
}

/// Why a transfer ended before its time.
enum Broken {
    /// Nobody goes on with it: the client went away, or this server has ended.
    Dropped,
    /// What is sent could not be had.
    Failed(String),
}

impl Watched {
    /// The body of the request, its bytes counted.
    pub(crate) fn counted(&self, body: Incoming) -> Incoming {
        let received = Arc::clone(&self.received);
        let count = move |frame: Frame<Bytes>| {
            let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
            received.fetch_add(bytes, Ordering::Relaxed);
            frame
        };
        body.map_frame(count).boxed_unsync()
    }

    /// The answer, which is watched to its end.
    pub(crate) fn answered(mut self, method: &Method, response: Response<Body>) -> Response<Body> {
        self.status = response.status().as_u16();
        let (parts, body) = response.into_parts();
        self.expected = match *method {
            Method::HEAD => Some(0),
            _ => length(&parts.headers).or_else(|| body.size_hint().exact()),
        };
        if self.expected == Some(0) {
            self.broken = None;
            return Response::from_parts(parts, body);
        }
        let body = Sent { body, watched: self };
        Response::from_parts(parts, body.boxed_unsync())
    }
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl Drop for Watched {
    fn drop(&mut self) {
        let is_cut = matches!(self.broken, Some(Broken::Dropped)) && self.watch.is_cutting.load(Ordering::SeqCst);
        if is_cut && self.status == CLIENT_CLOSED {
            self.status = ENDED;
        }
        let Self { watch, labels, status, sent, mounts, .. } = self;
        let took = self.start.elapsed();
        let end = metrics::End {
            labels: *labels,
            status: *status,
            mounts: *mounts,
            received: self.received.load(Ordering::Relaxed),
            sent: *sent,
            took,
            is_broken: self.broken.is_some(),
        };
        watch.metrics.end(&end);
        if let (Some(log), Some(line)) = (&watch.log, &self.line) {
            let why = self.broken.as_ref().map(|broken| match broken {
                Broken::Dropped if is_cut => "cut off at the end of the server",
                Broken::Dropped => "the client went away",
                Broken::Failed(why) => why,
            });
            log.write(line.text(jiff::Timestamp::now(), *status, *sent, took, why));
        }
    }
}

/// The body of an answer, counted as it is handed to the connection: what is in its buffers counts as sent.
struct Sent {
    body: Body,
    watched: Watched,
}

impl hyper::body::Body for Sent {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Self { body, watched } = self.get_mut();
        let frame = ready!(Pin::new(body).poll_frame(context));
        match &frame {
            None => watched.broken = None,
            Some(Err(error)) => {
                watched.broken = Some(Broken::Failed(error.to_string()));
                // whatever is sent from now on does not make it whole
                watched.expected = None;
            }
            Some(Ok(frame)) => {
                watched.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
                // a connection that knows the length does not ask for the end
                if watched.expected.is_some_and(|expected| watched.sent >= expected) {
                    watched.broken = None;
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection, counted while it is open.
pub(crate) struct Connected(Arc<Watch>);

impl Connected {
    pub(crate) fn new(watch: &Arc<Watch>) -> Self {
        watch.metrics.connected();
        Self(Arc::clone(watch))
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.metrics.disconnected();
    }
}

/// Milliseconds, for people.
fn milliseconds(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}
