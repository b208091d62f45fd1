//! One request in, one answer out: access, route, endpoint. [`crate::watch`] tells of it.

mod blobs;
mod gathered;
mod large;
mod lists;
mod manifests;
mod turns;
mod uploads;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use ferry_content::store::{self, Store};
use ferry_image::reference;
use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, EXPECT, HOST, HeaderMap, HeaderValue, IF_NONE_MATCH,
    IF_RANGE, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;

use crate::auth::access::Access;
use crate::auth::{Authenticator, Identity, TOKEN};
use crate::check::Checks;
use crate::monitoring::{self, Health, Monitoring};
use crate::query::Query;
use crate::refusal::Refusal;
use crate::registry::gathered::Gathered;
use crate::registry::large::Large;
use crate::registry::turns::Turns;
use crate::route::{Route, RouteError, route};
use crate::watch::{AccessLog, Connected, Watch};
use crate::{Backend, Error, Name, page};

pub use crate::body::Body;

/// What the operator decides.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Who may in.
    pub access: Access,
    /// Whether tags, manifests and blobs may be deleted.
    pub deletes: bool,
    /// Why nothing is written to the store, where that is so: told to who pushes, in the system's words and without a path.
    pub read_only: Option<String>,
    /// Where requests are logged.
    pub access_log: Option<AccessLog>,
    /// What is known of the images beyond what the backend tells, for the page.
    pub about: page::About,
}

/// A registry over a backend. Cloning it is cheap.
#[derive(Clone)]
pub struct Registry {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) checks: Arc<Checks>,
    pub(crate) turns: Arc<Turns>,
    pub(crate) gathered: Arc<Gathered>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) page: Arc<page::State>,
    pub(crate) large: Arc<Large>,
    pub(crate) health: Health,
    /// The certificate (PEM) that clients must trust, where the server made its own.
    pub(crate) authority: Option<Arc<str>>,
    auth: Arc<Authenticator>,
}

/// Who asks: who is at the other end, or whom a trusted proxy there speaks for. [`crate::Server`] puts it into a request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// Set by [`crate::Server`] where a request came over TLS.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Secure;

/// What is left of a request when its body and path are taken off.
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) query: Query,
    /// Our own name, as the client knows it.
    pub(crate) host: Option<String>,
    /// Whether it came over TLS, to us or to a proxy before us.
    pub(crate) is_secure: bool,
    /// Where it came from.
    pub(crate) client: Option<IpAddr>,
    /// Whether it is from somebody who may push.
    pub(crate) may_push: bool,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether it changes nothing.
    pub(crate) fn is_read(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }

    pub(crate) fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    /// The repository, with the host that the client means when it takes us for a mirror.
    pub(crate) fn name(&self, repository: String) -> Name {
        Name { repository, ns: self.namespace().map(ToOwned::to_owned) }
    }

    fn namespace(&self) -> Option<&str> {
        self.query.value("ns").filter(|ns| reference::is_host(ns) && Some(*ns) != self.host.as_deref())
    }

    /// Whether the client has what `etag` stands for already (RFC 9110, section 13.1.2).
    pub(crate) fn knows(&self, etag: &str) -> bool {
        self.header(IF_NONE_MATCH.as_str()).is_some_and(|header| {
            header.split(',').map(|one| one.trim().trim_start_matches("W/")).any(|one| one == etag || one == "*")
        })
    }

    /// The `Range` that counts: none when it is about something else than `etag` (RFC 9110, section 13.1.5).
    pub(crate) fn range(&self, etag: &str) -> Option<&str> {
        let range = self.header(RANGE.as_str())?;
        self.header(IF_RANGE.as_str()).is_none_or(|validator| validator.trim() == etag).then_some(range)
    }
}

impl Registry {
    /// A registry over `backend`.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>, settings: Settings) -> Self {
        let page = Arc::new(page::State::new(settings.about.clone()));
        Self {
            backend,
            checks: Arc::default(),
            turns: Arc::default(),
            gathered: Arc::default(),
            watch: Arc::new(Watch::new(settings.access_log.clone())),
            settings: Arc::new(settings),
            page,
            large: Arc::default(),
            health: Health::default(),
            authority: None,
            auth: Arc::default(),
        }
    }

    /// Counts a connection for as long as what is returned lives.
    pub(crate) fn connected(&self) -> Connected {
        Connected::new(&self.watch)
    }

    /// Answers a request. What goes wrong becomes an error answer.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let watched = self.watch.begin(&parts);
        let client = parts.extensions.get::<Peer>().map(|peer| peer.0.to_canonical());
        let forwarded = parts.headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
        let is_secure = forwarded || parts.extensions.get::<Secure>().is_some();
        let (path, method) = (parts.uri.path().to_owned(), parts.method.clone());
        // HTTP/2 has the name in the URI, HTTP/1.1 in a header.
        let header = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = parts.uri.authority().map(|a| a.as_str()).or(header).map(str::to_owned);
        let query = Query::parse(parts.uri.query());
        let asked =
            Asked { method: parts.method, headers: parts.headers, query, host, is_secure, client, may_push: false };
        let length = asked.header(CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok());
        let announces = asked.header(EXPECT.as_str()).is_some();
        let namespace = asked.namespace().and_then(|ns| HeaderValue::try_from(ns).ok());
        let mut body = watched.counted(body.map_err(Into::into).boxed_unsync());

        let mut response = match self.dispatch(&path, asked, &mut body).await {
            Ok(response) => response,
            Err(refusal) => {
                // Who waits for `100 Continue` will not send it; everybody else has sent it already.
                if !announces {
                    crate::body::discard(&mut body, length).await;
                }
                refusal.into_response()
            }
        };
        dress(&method, &mut response);
        if let Some(namespace) = namespace {
            response.headers_mut().insert("oci-namespace", namespace);
        }
        watched.answered(&method, response)
    }

    /// Refuses a request without a look at what it asks for, or for whom.
    pub(crate) fn refuse<B>(&self, request: Request<B>, refusal: Refusal) -> Response<Body> {
        let (parts, _) = request.into_parts();
        let watched = self.watch.begin(&parts);
        let mut response = refusal.into_response();
        dress(&parts.method, &mut response);
        watched.answered(&parts.method, response)
    }

    async fn dispatch(
        &self,
        path: &str,
        mut asked: Asked,
        body: &mut crate::body::Incoming,
    ) -> Result<Response<Body>, Refusal> {
        if path == TOKEN
            && (asked.is_read() || asked.method == Method::POST)
            && let Some(answer) = self.auth.token(&self.settings.access, &asked, &form(&asked, body).await?).await
        {
            let mut response = answer.map(|token| lists::answer("application/json", &token))?;
            // whoever asks this next is somebody else, and what is between us and them must not hand it out
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            return Ok(response);
        }
        let endpoint = Monitoring::at(path);
        if !endpoint.is_some_and(Monitoring::is_open) {
            let identity = self.auth.authorize(&self.settings.access, &asked, path).await?;
            asked.may_push = matches!((&self.settings.access, identity), (Access::Open, _) | (_, Identity::User(_)));
        }
        if let Some(endpoint) = endpoint {
            return monitoring::serve(self, &asked, endpoint).await;
        }
        let found = match route(&asked.method, path) {
            // Nothing can have such a tag: not there, for who reads.
            Err(error @ RouteError::Reference { .. }) if asked.method != Method::PUT => {
                return Err(Refusal::not_found("MANIFEST_UNKNOWN", error.to_string()));
            }
            found => found?,
        };
        match found {
            Route::Ping => Ok(lists::ping()),
            Route::Catalog => Ok(monitoring::warned(self, lists::catalog(self, &asked).await?).await),
            Route::Tags { repository } => {
                Ok(monitoring::warned(self, lists::tags(self, &asked, repository).await?).await)
            }
            Route::Referrers { repository, digest } => lists::referrers(self, &asked, repository, digest).await,
            Route::Manifest { repository, reference } => match asked.method {
                Method::PUT => manifests::put(self, &asked, repository, reference, body).await,
                Method::DELETE => manifests::delete(self, repository, reference).await,
                _ => manifests::serve(self, &asked, repository, reference).await,
            },
            Route::Blob { repository, digest } => match asked.method {
                Method::DELETE => blobs::delete(self, repository, digest).await,
                _ => blobs::serve(self, &asked, repository, digest).await,
            },
            Route::Uploads { repository } => uploads::begin(self, &asked, repository, body).await,
            Route::Upload { repository, id } => match asked.method {
                Method::PATCH => uploads::patch(self, &asked, repository, id, body).await,
                Method::PUT => uploads::finish(self, &asked, repository, id, body).await,
                Method::DELETE => uploads::cancel(self, repository, id).await,
                _ => uploads::status(self, repository, id).await,
            },
        }
    }

    /// Asks the backend, away from the threads that move bytes.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Backend) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let backend = Arc::clone(&self.backend);
        blocking(move || question(&*backend)).await?
    }

    /// The store, where pushes are taken.
    pub(crate) fn store(&self) -> Option<&Store> {
        self.backend.store().filter(|_| self.settings.read_only.is_none())
    }

    /// The store, for changes.
    pub(crate) fn writable(&self) -> Result<&Store, Refusal> {
        self.store().ok_or_else(|| {
            let message = match &self.settings.read_only {
                Some(why) => format!("this registry takes no pushes: its store can only be read ({why})"),
                None => "this registry serves bundles and takes no pushes".to_owned(),
            };
            Refusal::unsupported(message, "GET, HEAD")
        })
    }

    /// Whether the operator allowed deletion; `others` are the methods that there are without it.
    pub(crate) fn may_delete(&self, others: &str) -> Result<(), Refusal> {
        self.writable()?;
        match self.settings.deletes {
            true => Ok(()),
            false => Err(Refusal::unsupported("this registry was started without deletion", others)),
        }
    }

    /// Changes the store, away from the threads that move bytes.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Store) -> Result<T, store::Error> + Send + 'static,
    ) -> Result<T, Refusal> {
        let store = self.writable()?.clone();
        Ok(blocking(move || change(&store)).await??)
    }
}

/// The most that a form may take, in bytes.
const MAX_FORM: u64 = 16 << 10;

/// The form in the body of a POST; none in that of anything else.
async fn form(asked: &Asked, body: &mut crate::body::Incoming) -> Result<Query, Refusal> {
    if asked.method != Method::POST {
        return Ok(Query::default());
    }
    let too_large = || {
        let message = format!("a form has at most {MAX_FORM} bytes");
        Refusal::new(http::StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", message)
    };
    let bytes = crate::body::collected(body, MAX_FORM).await?.ok_or_else(too_large)?;
    Ok(Query::parse(std::str::from_utf8(&bytes).ok()))
}

/// What all answers have; and those to HEAD have no body.
fn dress(method: &Method, response: &mut Response<Body>) {
    if *method == Method::HEAD {
        *response.body_mut() = crate::body::empty();
    }
    let version = HeaderValue::from_static("registry/2.0");
    response.headers_mut().insert("docker-distribution-api-version", version);
    // What was pushed is for registry clients, and no page of ours, whatever a browser would make of it.
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let nothing = HeaderValue::from_static("default-src 'none'; sandbox");
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(nothing);
}

pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|join| ferry_content::Error::io("serve", "request", std::io::Error::other(join)).into())
}
