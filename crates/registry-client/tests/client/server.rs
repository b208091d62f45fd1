//! An HTTP server whose every answer is a test's.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// What came in.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    /// How many bytes of body came, and whether it came to its end.
    pub(crate) body: Vec<u8>,
    pub(crate) complete: bool,
    /// The number of the connection that it came on.
    pub(crate) connection: usize,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }
}

/// What goes out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    length: Option<usize>,
    stall: bool,
    unread: bool,
    endless: bool,
    drips: bool,
    cut: Option<usize>,
    deaf: Option<usize>,
}

pub(crate) fn answer(status: u16) -> Answer {
    Answer { status, ..Answer::default() }
}

impl Answer {
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn is(&self, status: u16) -> bool {
        self.status == status
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Announces another length than there is.
    pub(crate) fn length(mut self, length: usize) -> Self {
        self.length = Some(length);
        self
    }

    /// Sends the body, then nothing, but stays.
    pub(crate) fn stalling(mut self) -> Self {
        self.stall = true;
        self
    }

    /// Sends the body again and again, and states no length.
    pub(crate) fn endless(mut self) -> Self {
        self.endless = true;
        self
    }

    /// Sends the body a byte at a time, fifty of them a second.
    pub(crate) fn dripping(mut self) -> Self {
        self.drips = true;
        self
    }

    /// Breaks the connection off once so many bytes of the request's body were read; there is no answer.
    pub(crate) fn cut(mut self, after: usize) -> Self {
        self.cut = Some(after);
        self
    }

    /// Stays, but reads no more once so many bytes of the request's body were read.
    pub(crate) fn deaf(mut self, after: usize) -> Self {
        self.deaf = Some(after);
        self
    }

    /// Answers before the request's body was read.
    pub(crate) fn unread(mut self) -> Self {
        self.unread = true;
        self
    }
}

type Script = Arc<dyn Fn(&Seen) -> Answer + Send + Sync>;

/// A server on a free port of this machine; ends when dropped.
pub(crate) struct Server {
    pub(crate) host: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: AbortHandle,
}

impl Server {
    pub(crate) async fn start(script: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        Self::with(None, script).await
    }

    pub(crate) async fn with(
        tls: Option<TlsAcceptor>,
        script: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::at("127.0.0.1:0", tls, script).await
    }

    /// At an address of this machine.
    pub(crate) async fn at(
        address: &str,
        tls: Option<TlsAcceptor>,
        script: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (script, log): (Script, _) = (Arc::new(script), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            let mut number = 0;
            while let Ok((stream, _)) = listener.accept().await {
                number += 1;
                let (script, log, tls) = (Arc::clone(&script), Arc::clone(&log), tls.clone());
                connections.spawn(async move {
                    match tls {
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(TokioIo::new(stream), script, log, number).await;
                            }
                        }
                        None => serve(TokioIo::<TcpStream>::new(stream), script, log, number).await,
                    }
                });
            }
        });
        Self { host, seen, task: task.abort_handle() }
    }

    /// Everything that came in but the first contact (`GET /v2/`).
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().iter().filter(|s| s.path != "/v2/").cloned().collect()
    }

    /// `METHOD path` of everything, the first contact included.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|s| format!("{} {}", s.method, s.path)).collect()
    }

    /// Waits until `count` requests have come in to their end.
    pub(crate) async fn wait(&self, count: usize) -> Vec<Seen> {
        for _ in 0..500 {
            if self.seen().len() >= count {
                return self.seen();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("only {:?}", self.lines())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve<I>(io: I, script: Script, log: Arc<Mutex<Vec<Seen>>>, connection: usize)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (script, log) = (Arc::clone(&script), Arc::clone(&log));
        async move { respond(request, &script, &log, connection).await }
    });
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(io, service).await;
}

async fn respond(
    request: Request<Incoming>,
    script: &Script,
    log: &Mutex<Vec<Seen>>,
    connection: usize,
) -> std::io::Result<Response<Out>> {
    let (head, mut incoming) = request.into_parts();
    let path = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let method = head.method.to_string();
    let mut seen = Seen { method, path, headers: head.headers, body: Vec::new(), complete: false, connection };
    let answer = script(&seen);
    if !answer.unread {
        // recorded even when the connection goes away in the middle
        let mut record = Record { log, seen: Some(seen.clone()) };
        loop {
            match incoming.frame().await {
                Some(Ok(frame)) => {
                    if let (Ok(data), Some(seen)) = (frame.into_data(), &mut record.seen) {
                        seen.body.extend_from_slice(&data);
                        if let Some(most) = answer.deaf.filter(|most| seen.body.len() >= *most) {
                            seen.body.truncate(most);
                            std::future::pending::<()>().await;
                        }
                        if let Some(most) = answer.cut.filter(|most| seen.body.len() >= *most) {
                            seen.body.truncate(most);
                            return Err(std::io::ErrorKind::ConnectionReset.into());
                        }
                    }
                }
                Some(Err(_)) => break,
                None => {
                    if let Some(seen) = &mut record.seen {
                        seen.complete = true;
                    }
                    break;
                }
            }
        }
    } else {
        seen.complete = false;
        log.lock().unwrap().push(seen);
    }
    let mut response = Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(*name, value);
    }
    let length = answer.length.unwrap_or(answer.body.len());
    let bodiless = head.method == "HEAD" || answer.status == 204;
    if answer.status != 204 && !answer.endless && !answer.headers.iter().any(|(n, _)| *n == "content-length") {
        response = response.header("content-length", length);
    }
    let data = (!bodiless && !answer.body.is_empty()).then(|| Bytes::from(answer.body));
    let short = (length > data.as_ref().map_or(0, Bytes::len) && !bodiless).then(|| {
        // what was sent must arrive before the connection is closed
        Box::pin(tokio::time::sleep(Duration::from_millis(50)))
    });
    let drip = answer.drips.then(|| Box::pin(tokio::time::sleep(DROP)));
    Ok(response.body(Out { data, stall: answer.stall, endless: answer.endless, drip, short }).unwrap())
}

/// Writes down what was seen, also when the connection's task is dropped in mid-body.
struct Record<'a> {
    log: &'a Mutex<Vec<Seen>>,
    seen: Option<Seen>,
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        if let Some(seen) = self.seen.take() {
            self.log.lock().unwrap().push(seen);
        }
    }
}

/// Between two bytes of a body that drips.
const DROP: Duration = Duration::from_millis(20);

struct Out {
    data: Option<Bytes>,
    stall: bool,
    endless: bool,
    drip: Option<Pin<Box<tokio::time::Sleep>>>,
    short: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Body for Out {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        let out = &mut *self;
        if let (Some(drop), Some(data)) = (&mut out.drip, &mut out.data) {
            std::task::ready!(drop.as_mut().poll(cx));
            drop.as_mut().reset(tokio::time::Instant::now() + DROP);
            let byte = data.split_to(1);
            if data.is_empty() {
                out.data = None;
            }
            return Poll::Ready(Some(Ok(Frame::data(byte))));
        }
        if let Some(data) = self.data.clone().filter(|_| self.endless).or_else(|| self.data.take()) {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if self.stall {
            return Poll::Pending;
        }
        match &mut self.short {
            Some(sleep) => sleep.as_mut().poll(cx).map(|()| Some(Err(std::io::ErrorKind::BrokenPipe.into()))),
            None => Poll::Ready(None),
        }
    }
}
