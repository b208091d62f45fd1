//! Sockets: accept, TLS, HTTP/1.1 and HTTP/2, limits, a graceful end.

mod authority;
pub(crate) mod client;
pub(crate) mod connections;
mod handshake;
pub mod proxies;
pub mod reload;
mod rounds;
pub mod tls;
mod write_timeout;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::refusal::Refusal;
use crate::registry::{Peer, Secure};
use crate::server::connections::{ConnectionGuard, Connections, Room};
use crate::server::handshake::Handshakes;
use crate::server::proxies::Proxies;
use crate::server::reload::Reload;
use crate::server::rounds::ROUND;
use crate::server::tls::Serving;
use crate::server::write_timeout::WriteTimeout;
use crate::{Authority, Error, Registry, Tls, body};

/// What one client, or all together, may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once. One more, and that which is idle for the longest time gives way; where all are at work, new ones wait.
    pub connections: usize,
    /// Connections of one client at once: an IPv4 address, or a /64 of IPv6. One more, and one of its own gives way. Where a client comes
    /// by a proxy, its requests at once, those that wait included.
    pub per_client: usize,
    /// Requests of one client under way at once, a quarter of them with a body; more wait, for as long as `header_timeout`: as many as it may
    /// have connections, and with a body a quarter of these.
    pub requests: usize,
    /// Whose word counts for who the client is. Their connections are limited by `connections` alone.
    pub proxies: Proxies,
    /// For a TLS handshake, for the head of a request, and between two requests of HTTP/1.1.
    pub header_timeout: Duration,
    /// After this a connection without a request is ended.
    pub idle_timeout: Duration,
    /// A client that takes nothing of an answer for this long is given up.
    pub stall: Duration,
    /// For transfers that are under way when the server is told to stop.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            per_client: 2048,
            requests: 512,
            proxies: Proxies::default(),
            header_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(180),
            stall: Duration::from_secs(120),
            grace: Duration::from_secs(10),
        }
    }
}

/// The most that the head of a request may take, in bytes. Bodies are read in pieces of this size as well, and as much of an answer waits
/// in a connection: with hundreds of them that counts.
const MAX_HEAD: usize = 64 << 10;
/// Bytes of requests in flight per HTTP/2 connection, on one stream or on all together: the default of 64 KiB crawls over a line with any
/// delay, and with less than this pushes are slower even without one. It is also what each connection may make us keep of bodies that nobody
/// has looked at yet; hence fewer requests with a body than others (`client::BODIES`).
const WINDOW: u32 = 4 << 20;

/// A registry that listens.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Serving>,
    registry: Registry,
    limits: Limits,
    /// How often idle connections are looked for.
    round: Duration,
}

impl Server {
    /// Listens on `address`; port 0 takes a free one. Nothing is answered before [`serve`](Self::serve).
    ///
    /// # Errors
    /// [`Error::Bind`]; [`Error::TlsFile`], [`Error::Authority`] and [`Error::Tls`] for certificates that do not do.
    pub async fn bind(
        address: SocketAddr,
        mut registry: Registry,
        tls: Option<&Tls>,
        limits: Limits,
    ) -> Result<Self, Error> {
        let tls = tls.map(Tls::start).transpose()?;
        registry.authority = tls.as_ref().and_then(|tls| tls.authority.as_ref()).map(|made| made.pem.as_str().into());
        let fail = |source| Error::Bind { address, source };
        let listener = listen(address).map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        Ok(Self { listener, address, tls, registry, limits, round: ROUND })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The authority that clients must trust when the certificate was made here.
    #[must_use]
    pub fn authority(&self) -> Option<&Authority> {
        self.tls.as_ref()?.authority.as_ref()
    }

    /// How many requests are under way, answers that are not sent whole yet included.
    pub fn under_way(&self) -> impl Fn() -> u64 + Send + 'static {
        let watch = Arc::clone(&self.registry.watch);
        move || watch.metrics.in_flight()
    }

    /// What reads certificate, users and log again while it serves.
    #[must_use]
    pub fn reload(&self) -> Reload {
        let certificate = self.tls.as_ref().map(|tls| Arc::clone(&tls.current));
        Reload { certificate, registry: self.registry.clone() }
    }

    /// Serves until `shutdown` is done, then lets transfers end for as long as [`Limits::grace`], or until `cut` is done, which is waited
    /// for only then. Dropped before, it cuts them off.
    pub async fn serve(self, shutdown: impl Future<Output = ()>, cut: impl Future<Output = ()>) {
        let Self { listener, tls, registry, limits, round, .. } = self;
        let slots = Arc::new(Semaphore::new(limits.connections));
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        let shared = Arc::new(Shared {
            builder: builder(&limits),
            tls: tls.as_ref().map(|tls| Handshakes::new(tls.acceptor.clone(), limits.header_timeout, limits.stall)),
            connections: Connections::new(&limits),
            registry,
            limits,
        });
        // dropped before the connections, also when all of this is
        let cutting = shared.registry.watch.cutting();
        let certificate = tls.map(|tls| tls.current);
        connections.spawn(rounds::run(round, Arc::clone(&shared.connections), certificate));
        tokio::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                accepted = listener.accept() => accepted,
            };
            while connections.try_join_next().is_some() {}
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Too many open files, most likely: some are closed.
                    tracing::warn!(%error, "cannot accept a connection");
                    shared.connections.make_room();
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let counted = shared.registry.connected();
            let Some(room) = shared.connections.room_for(peer.ip()) else {
                tracing::warn!(%peer, "a client has too many connections at work");
                continue;
            };
            let slot = tokio::select! {
                () = &mut shutdown => break,
                slot = slot(&slots, &shared.connections, room) => slot,
            };
            let guard = shared.connections.admit(peer.ip());
            let task = Arc::clone(&shared).receive(stream, peer, guard, graceful.watcher());
            connections.spawn(async move {
                task.await;
                drop((slot, counted));
            });
        }
        drop(listener);
        let ended = tokio::select! {
            ended = tokio::time::timeout(shared.limits.grace, graceful.shutdown()) => ended.is_ok(),
            () = cut => false,
        };
        if !ended {
            tracing::warn!(connections = shared.connections.len(), "transfers were cut off at shutdown");
        }
        drop(cutting);
        connections.shutdown().await;
    }
}

/// Connections that the kernel may hold for us until they are accepted, as nginx and Go have it: of a whole cluster that begins to pull at
/// once, none must wait a second to ask again. The kernel has a limit of its own (`net.core.somaxconn`).
const WAITING: u32 = 4096;

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // a server that was ended a moment ago leaves its port in use otherwise
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(WAITING)
}

/// A slot for one more connection; idle ones make room.
async fn slot(slots: &Arc<Semaphore>, connections: &Connections, room: Room) -> Option<OwnedSemaphorePermit> {
    loop {
        if let Ok(slot) = Arc::clone(slots).try_acquire_owned() {
            return Some(slot);
        }
        if room == Room::Anybodys {
            connections.make_room();
        }
        let wait = tokio::time::timeout(Duration::from_millis(50), Arc::clone(slots).acquire_owned());
        if let Ok(slot) = wait.await {
            return slot.ok();
        }
    }
}

fn builder(limits: &Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(100)
        .max_buf_size(MAX_HEAD)
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.header_timeout)
        .max_header_list_size(64 << 10)
        .max_send_buf_size(MAX_HEAD)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_concurrent_streams(64);
    builder
}

/// What all connections share.
struct Shared {
    builder: Builder<TokioExecutor>,
    tls: Option<Handshakes>,
    connections: Arc<Connections>,
    registry: Registry,
    limits: Limits,
}

impl Shared {
    async fn receive(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, guard: ConnectionGuard, watcher: Watcher) {
        let _ = stream.set_nodelay(true);
        let guard = Arc::new(guard);
        let conversation = async {
            match &self.tls {
                None => self.converse(WriteTimeout::new(stream, self.limits.stall), peer, &guard, watcher).await,
                Some(tls) => {
                    if let Some(stream) = tls.accept(stream, peer).await {
                        self.converse(stream, peer, &guard, watcher).await;
                    }
                }
            }
        };
        tokio::select! {
            () = conversation => {}
            () = guard.evicted() => tracing::debug!(%peer, "an idle connection was ended"),
        }
    }

    async fn converse(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: SocketAddr,
        guard: &Arc<ConnectionGuard>,
        watcher: Watcher,
    ) {
        let (registry, is_secure, patience) = (&self.registry, self.tls.is_some(), self.limits.header_timeout);
        let service = service_fn(move |mut request: Request<Incoming>| {
            let (registry, guard) = (registry.clone(), Arc::clone(guard));
            let client = self.limits.proxies.client(peer.ip(), request.headers());
            request.extensions_mut().insert(Peer(client));
            if is_secure {
                request.extensions_mut().insert(Secure);
            }
            async move {
                let has_body = !request.body().is_end_stream();
                let Some(served) = guard.begin_request(client, has_body, patience).await else {
                    let refusal = Refusal::too_many("too many requests from here are under way", ROUND);
                    return Ok::<_, Infallible>(registry.refuse(request, refusal));
                };
                // it is under way until the last byte is taken
                Ok(registry.answer(request).await.map(|body| body::with(body, served, guard.begin_answer())))
            }
        });
        let connection = self.builder.serve_connection(TokioIo::new(stream), service).into_owned();
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(%peer, %error, "a connection ended early");
        }
    }
}
