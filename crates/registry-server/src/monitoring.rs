//! What people and their monitoring look at: the page at `/`, `/metrics`, `/healthz`; and the certificate that nodes need before they can look
//! at anything, `/ca.crt`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ferry_content::Provider as _;
use ferry_content::store::Store;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, WARNING};
use http::{Method, Response, StatusCode};

use crate::body::{self, Body};
use crate::refusal::Refusal;
use crate::registry::Asked;
use crate::watch::Scraped;
use crate::{Backend, Error, Registry, page};

/// A disk that does not give a few bytes in this time is not there, as far as a client can tell.
const PATIENCE: Duration = Duration::from_secs(5);
/// For so long what one probe found is told to others: anybody may ask, and the whole place is looked through.
const TRUE_FOR: Duration = Duration::from_secs(1);
/// Less than this is a full disk: not even an index of the store can be written anew.
const FULL: u64 = 1 << 20;

/// A path outside of `/v2/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Monitoring {
    Page,
    Metrics,
    Health,
    Authority,
}

impl Monitoring {
    pub(crate) fn at(path: &str) -> Option<Self> {
        match path {
            "/" => Some(Self::Page),
            "/metrics" => Some(Self::Metrics),
            "/healthz" => Some(Self::Health),
            "/ca.crt" => Some(Self::Authority),
            _ => None,
        }
    }

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Metrics => "metrics",
            Self::Health => "healthz",
            Self::Authority => "ca",
        }
    }

    /// Probes have no login, and are told nothing but yes or no. A certificate is public: the server shows it to everybody who connects, and
    /// who has no certificate yet cannot send a password. Everything else is a read as any other.
    pub(crate) fn is_open(self) -> bool {
        matches!(self, Self::Health | Self::Authority)
    }
}

pub(crate) async fn serve(registry: &Registry, asked: &Asked, endpoint: Monitoring) -> Result<Response<Body>, Refusal> {
    if !matches!(asked.method, Method::GET | Method::HEAD) {
        return Err(Refusal::unsupported("this endpoint answers GET, HEAD", "GET, HEAD"));
    }
    match endpoint {
        Monitoring::Page => page::serve(registry, asked).await,
        Monitoring::Metrics => metrics(registry).await,
        Monitoring::Health => Ok(health(registry).await),
        Monitoring::Authority => authority(registry),
    }
}

fn authority(registry: &Registry) -> Result<Response<Body>, Refusal> {
    let Some(pem) = &registry.authority else {
        return Err(Refusal::not_found("UNSUPPORTED", "the certificate of this server was not made by it"));
    };
    Ok(answer("application/x-pem-file", pem.to_string()))
}

async fn metrics(registry: &Registry) -> Result<Response<Body>, Refusal> {
    let checks = Arc::clone(&registry.checks);
    let look = move |backend: &dyn Backend| {
        checks.review(backend);
        Ok(backend.store().and_then(|store| room(store).ok()))
    };
    let store = registry.ask(look).await?;
    let (verified, damaged) = registry.checks.counts();
    let store = store.map(|room| (room.free, room.size));
    let text = registry.watch.metrics.text(Scraped { verified, damaged, store });
    Ok(answer("text/plain; version=0.0.4; charset=utf-8", text))
}

/// What a file system has.
struct Room {
    free: u64,
    size: u64,
    is_read_only: bool,
}

fn room(store: &Store) -> std::io::Result<Room> {
    let found = rustix::fs::statvfs(store.folder())?;
    Ok(Room {
        free: found.f_bavail.saturating_mul(found.f_frsize),
        size: found.f_blocks.saturating_mul(found.f_frsize),
        is_read_only: found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
    })
}

/// What the last probe found, and when.
#[derive(Clone, Default)]
pub(crate) struct Health(Arc<tokio::sync::Mutex<Option<(Instant, bool)>>>);

/// 200 while blobs can be read, and for a store also written; 503 otherwise.
async fn health(registry: &Registry) -> Response<Body> {
    // those that come while one is examining wait for what it finds
    let mut last = registry.health.0.lock().await;
    let is_healthy = match *last {
        Some((at, found)) if at.elapsed() < TRUE_FOR => found,
        _ => {
            let found = is_healthy(registry).await;
            *last = Some((Instant::now(), found));
            found
        }
    };
    drop(last);
    if is_healthy {
        return answer("text/plain; charset=utf-8", "ok\n".to_owned());
    }
    let mut response = answer("text/plain; charset=utf-8", "not healthy; the log says why\n".to_owned());
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

/// Why not is said in the log: whoever asks may be anybody.
async fn is_healthy(registry: &Registry) -> bool {
    let found = match tokio::time::timeout(PATIENCE, examine(registry)).await {
        Ok(found) => found,
        Err(_) => {
            Err(format!("the disk of {} gave nothing for {} s", registry.backend.blobs().place(), PATIENCE.as_secs()))
        }
    };
    if let Err(why) = &found {
        tracing::error!(why, "not healthy");
    }
    found.is_ok()
}

async fn examine(registry: &Registry) -> Result<(), String> {
    let turn = registry.watch.metrics.probe();
    let is_written = registry.store().is_some();
    let blob =
        registry.ask(move |backend| ready(backend, is_written, turn)).await.map_err(|error| error.to_string())??;
    let Some(blob) = blob else { return Ok(()) };
    // another blob with each probe: what was read before may come out of memory long after its disk has gone
    let mut stream = registry.backend.blobs().open(&blob, 0..blob.size.min(512)).await.map_err(|e| e.to_string())?;
    match futures_util::StreamExt::next(&mut stream).await {
        Some(Err(error)) => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// Whether the place can be asked and, if it is a store that takes pushes, written to; and the blob that is to be read this time.
fn ready(
    backend: &dyn Backend,
    is_written: bool,
    turn: usize,
) -> Result<Result<Option<ferry_image::Descriptor>, String>, Error> {
    backend.repositories()?;
    if let Err(error) = backend.blobs().check() {
        return Ok(Err(error.to_string()));
    }
    if let Some(store) = backend.store().filter(|_| is_written) {
        let place = store.place();
        let room = match room(store) {
            Ok(room) => room,
            Err(error) => return Ok(Err(format!("{place}: {error}"))),
        };
        if room.is_read_only {
            return Ok(Err(format!("the disk of {place} can only be read; the kernel's log may say why")));
        }
        if room.free < FULL {
            return Ok(Err(format!("the disk of {place} is full: {} bytes are free", room.free)));
        }
    }
    Ok(Ok(backend.sample(turn)))
}

/// Whether what is served was written to since it was opened, so that blobs of it are refused while lists still have them.
pub(crate) async fn has_changed(registry: &Registry) -> bool {
    registry.ask(|backend| Ok(backend.blobs().check()?)).await.is_err()
}

/// A list, which says so if what it lists can no longer be had (distribution-spec, "Warnings").
pub(crate) async fn warned(registry: &Registry, mut list: Response<Body>) -> Response<Body> {
    if has_changed(registry).await {
        let words = HeaderValue::from_static(
            "299 - \"a bundle has changed on the disk since it was opened: its blobs are refused until this registry is started again\"",
        );
        list.headers_mut().insert(WARNING, words);
    }
    list
}

/// An answer that is true now, and may not be in a minute.
pub(crate) fn answer(media_type: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    let text = text.into();
    let length = HeaderValue::from(text.len());
    let mut response = Response::new(body::full(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CONTENT_LENGTH, length);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}
