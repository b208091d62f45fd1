//! Sockets: accept, TLS, HTTP/1.1 and HTTP/2, limits, a graceful end.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::registry::Peer;
use crate::{Error, Registry, Tls};

/// What one client, or all together, may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once; more wait to be accepted.
    pub connections: usize,
    /// For a TLS handshake, for the head of a request, and between two requests.
    pub header_timeout: Duration,
    /// For transfers that are under way when the server is told to stop.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 4096, header_timeout: Duration::from_secs(60), grace: Duration::from_secs(10) }
    }
}

/// The most that the head of a request may take, in bytes. Bodies are read in pieces of this size as well, and as much of an answer waits
/// in a connection: with hundreds of them that counts.
const MAX_HEAD: usize = 64 << 10;
/// Bytes in flight per HTTP/2 stream: the default of 64 KiB crawls over a line with any delay.
const WINDOW: u32 = 4 << 20;

/// A registry that listens.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    authority: Option<String>,
    registry: Registry,
    limits: Limits,
}

impl Server {
    /// Listens on `address`; port 0 takes a free one. Nothing is answered before [`serve`](Self::serve).
    ///
    /// # Errors
    /// [`Error::Bind`]; [`Error::TlsFile`] and [`Error::Tls`] for certificates that do not do.
    pub async fn bind(
        address: SocketAddr,
        registry: Registry,
        tls: Option<&Tls>,
        limits: Limits,
    ) -> Result<Self, Error> {
        let (tls, authority) = match tls.map(Tls::acceptor).transpose()? {
            Some((acceptor, authority)) => (Some(acceptor), authority),
            None => (None, None),
        };
        let fail = |source| Error::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        Ok(Self { listener, address, tls, authority, registry, limits })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The authority, in PEM, that clients must trust when the certificate is self-made.
    #[must_use]
    pub fn authority_pem(&self) -> Option<&str> {
        self.authority.as_deref()
    }

    /// Serves until `shutdown` is done, then lets transfers end for as long as [`Limits::grace`].
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let Self { listener, tls, registry, limits, .. } = self;
        let (builder, tls) = (Arc::new(builder(&limits)), tls.map(Arc::new));
        let slots = Arc::new(Semaphore::new(limits.connections));
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            let accept = async {
                let slot = Arc::clone(&slots).acquire_owned().await;
                (slot, listener.accept().await)
            };
            let (slot, accepted) = tokio::select! {
                () = &mut shutdown => break,
                accepted = accept => accepted,
            };
            while connections.try_join_next().is_some() {}
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Too many open files, most likely: wait for some to close.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let task = connection(
                stream,
                peer,
                tls.clone(),
                Arc::clone(&builder),
                registry.clone(),
                graceful.watcher(),
                limits.header_timeout,
            );
            let counted = registry.connected();
            connections.spawn(async move {
                task.await;
                drop((slot, counted));
            });
        }
        drop(listener);
        if tokio::time::timeout(limits.grace, graceful.shutdown()).await.is_err() {
            tracing::warn!(connections = connections.len(), "transfers were cut off at shutdown");
        }
        connections.shutdown().await;
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
        .initial_connection_window_size(WINDOW * 4)
        .max_concurrent_streams(256);
    builder
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<TlsAcceptor>>,
    builder: Arc<Builder<TokioExecutor>>,
    registry: Registry,
    watcher: Watcher,
    timeout: Duration,
) {
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return converse(stream, peer, &builder, registry, watcher).await };
    match tokio::time::timeout(timeout, tls.accept(stream)).await {
        Ok(Ok(stream)) => converse(stream, peer, &builder, registry, watcher).await,
        Ok(Err(error)) => tracing::info!(%peer, %error, "a TLS handshake failed"),
        Err(_) => tracing::info!(%peer, "a TLS handshake took too long"),
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    builder: &Builder<TokioExecutor>,
    registry: Registry,
    watcher: Watcher,
) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        let registry = registry.clone();
        request.extensions_mut().insert(Peer(peer));
        async move { Ok::<_, Infallible>(registry.answer(request).await) }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}
