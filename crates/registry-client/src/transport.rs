//! One request, made until it is answered: gate, redirects, retries. What authorises it is [`crate::registry`]'s business.

use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use ferry_content::{BoxFuture, Failure as _};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, DATE, LINK, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tokio::time::Instant;
use url::Url;

use crate::auth::{Authorization, Scopes};
use crate::dns::Unresolved;
use crate::drip::Drip;
use crate::gate::{Kind, Place};
use crate::proxy::ProxyFault;
use crate::registry::Registry;
use crate::retry::{Decision, Outcome, decide, is_transient, jitter, retry_after};
use crate::{Cause, Error, Quota, Status, What, host, link, location, quota, reply, tls};

/// The most redirects that are followed.
const MAX_REDIRECTS: usize = 10;

/// A request without its authorisation. `Debug` shows neither body nor query, which may give access.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
    pub(crate) what: What,
    /// Empty where it is about none.
    pub(crate) repository: String,
    pub(crate) scopes: Scopes,
    /// How it counts at the gate.
    pub(crate) kind: Kind,
    /// Whether a body that streams out wants a connection of its own.
    pub(crate) apart: bool,
}

impl Call {
    pub(crate) fn new(method: Method, url: Url, what: What) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            body: None,
            what,
            repository: String::new(),
            scopes: Scopes::default(),
            kind: Kind::Request,
            apart: false,
        }
    }

    /// Adds a header; a value that cannot stand in one is an error of ours and left out.
    #[must_use]
    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// Whether it is about bringing something to the repository.
    fn pushes(&self) -> bool {
        let push = |scope: &str| scope.ends_with(":pull,push");
        match &self.what {
            What::Upload(_) | What::PutManifest(_) => true,
            What::Token(scopes) => scopes.split(' ').any(push),
            _ => self.scopes.0.iter().any(|scope| push(scope)),
        }
    }

    /// Method and path, for people: a query may hold what gives access.
    fn request(&self) -> String {
        format!("{} {}", self.method, self.url.path())
    }

    /// Whether its body is for its own host only.
    pub(crate) fn is_secret(&self) -> bool {
        matches!(self.what, What::Token(_)) && self.body.is_some()
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Call({})", self.request())
    }
}

/// Who makes a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Who<'a> {
    /// As said here.
    Given(Option<&'a Authorization>),
    /// As the registry is known to want it.
    Known,
}

/// An answer, whatever its status.
pub(crate) struct Reply {
    pub(crate) response: reqwest::Response,
    pub(crate) authorization: Option<Authorization>,
    /// When the request was made.
    pub(crate) asked: Instant,
    /// How its body comes.
    drip: Drip,
    /// Left when the body has been read.
    _place: Option<Place>,
}

impl Reply {
    fn new(response: reqwest::Response, authorization: Option<&Authorization>, asked: Instant) -> Self {
        Self { response, authorization: authorization.cloned(), asked, drip: Drip::default(), _place: None }
    }

    pub(crate) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub(crate) fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        retry_after(self.header(RETRY_AFTER)?, self.date())
    }

    /// The time at the server, if it tells: its clock may differ from ours.
    pub(crate) fn date(&self) -> SystemTime {
        let stated = self.header(DATE).and_then(|date| httpdate::parse_http_date(date).ok());
        stated.unwrap_or_else(SystemTime::now)
    }

    /// Where the next page is; links may stand in one header or in several.
    pub(crate) fn next_page(&self) -> Option<&str> {
        let links = self.response.headers().get_all(LINK).iter().filter_map(|link| link.to_str().ok());
        links.filter_map(link::next).next()
    }

    pub(crate) fn quota(&self) -> Option<Quota> {
        quota::read(self.response.headers(), self.date())
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // its address may give access
        write!(f, "Reply({})", self.status())
    }
}

impl Registry {
    /// Makes a request until it is answered with something that waiting will not change, or patience ends. The answer may still
    /// be a refusal.
    pub(crate) async fn persist(&self, call: &Call, who: Who<'_>) -> Result<Reply, Error> {
        let gate = if matches!(call.what, What::Token(_)) { &self.tokens } else { &self.gate };
        let mut attempt = 1;
        let mut refused = None;
        loop {
            let mut authorization = self.authorization(call, who).await?;
            let place = gate.enter(call.kind).await;
            // there may have been a long queue
            if authorization.as_ref().is_some_and(Authorization::is_stale) {
                authorization = self.authorization(call, who).await?;
            }
            let result = self.follow(call, authorization.as_ref()).await;
            let outcome = self.outcome(call, &place, &result, &mut refused);
            match decide(&self.config.retry, outcome, attempt, jitter()) {
                Decision::Stop => {
                    let held = (call.kind == Kind::Pull).then_some(place);
                    return result.map(|reply| Reply { _place: held, ..reply });
                }
                Decision::Retry(wait) => {
                    tracing::debug!(request = call.request(), ?outcome, attempt, ?wait, "trying again");
                    drop((place, result));
                    tokio::time::sleep(wait).await;
                    attempt += u32::from(!matches!(outcome, Outcome::TooMany(..)));
                }
            }
        }
    }

    fn authorization<'a>(
        &'a self,
        call: &'a Call,
        who: Who<'a>,
    ) -> BoxFuture<'a, Result<Option<Authorization>, Error>> {
        // boxed: a token is got by a request
        Box::pin(async move {
            match who {
                Who::Given(authorization) => Ok(authorization.cloned()),
                Who::Known => self.authorize(&call.repository, &call.scopes).await,
            }
        })
    }

    /// What an attempt came to; the gate is told. `refused` is since when it was refused each time.
    pub(crate) fn outcome(
        &self,
        call: &Call,
        place: &Place,
        result: &Result<Reply, Error>,
        refused: &mut Option<Instant>,
    ) -> Outcome {
        let reply = match result {
            Ok(reply) => reply,
            Err(error) => return Outcome::NoAnswer(error.is_transient()),
        };
        let (status, asked) = (reply.status(), reply.retry_after());
        let elsewhere = !location::same_origin(reply.response.url(), &call.url);
        let quota = reply.quota().filter(|_| !elsewhere);
        if let Some(quota) = quota {
            self.note(quota);
        }
        let longest = self.config.retry.longest_retry_after;
        match status {
            429 => {
                let asked = asked.or_else(|| quota.filter(|q| q.remaining == 0)?.renewed_within());
                let since = *refused.get_or_insert_with(Instant::now);
                // who is told to come back tomorrow gives up; the others will be told so themselves
                if asked.is_some_and(|asked| asked > longest) {
                    return Outcome::TooMany(asked, Duration::ZERO);
                }
                Outcome::TooMany(asked, place.refused(asked).max(since.elapsed()))
            }
            // the ways in which object stores say that an address has grown too old
            400 | 401 | 403 | 410 if elsewhere => Outcome::Elsewhere,
            _ if is_transient(status) => {
                if let Some(asked) = asked.filter(|asked| *asked <= longest) {
                    place.close(asked);
                }
                Outcome::Status(status, asked)
            }
            _ => {
                place.accepted();
                Outcome::Status(status, asked)
            }
        }
    }

    /// One attempt, redirects followed. `authorization` is sent to the origin of the call's own address and nowhere else.
    pub(crate) async fn follow(&self, call: &Call, authorization: Option<&Authorization>) -> Result<Reply, Error> {
        let asked = Instant::now();
        let mut url = call.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let authorization = authorization.filter(|_| location::same_origin(&url, &call.url));
            let mut request =
                self.pool.client(&url)?.request(call.method.clone(), url.clone()).headers(call.headers.clone());
            if let Some(body) = &call.body {
                request = request.body(body.clone());
            }
            if let Some(authorization) = authorization {
                request = request.header(AUTHORIZATION, authorization.header.clone());
            }
            let sent = tokio::time::timeout(self.config.stall_timeout, request.send()).await;
            let response = match sent {
                Err(_) => return Err(self.no_answer(&url, Cause::TimedOut)),
                Ok(Err(error)) => return Err(self.unanswered(&url, &error).await),
                Ok(Ok(response)) => response,
            };
            if let Some(error) = self.stopped_by_proxy(&url, &response) {
                return Err(error);
            }
            match self.redirect(call, &url, &response)? {
                Some(next) => url = next,
                None => return Ok(Reply::new(response, authorization, asked)),
            }
        }
        Err(self.broken(call, format!("more than {MAX_REDIRECTS} redirects")))
    }

    /// Where a redirect leads; `None` when the answer is none that can be followed.
    fn redirect(&self, call: &Call, from: &Url, response: &reqwest::Response) -> Result<Option<Url>, Error> {
        let follows = match response.status() {
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => {
                matches!(call.method, Method::GET | Method::HEAD)
            }
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
            _ => false,
        };
        let Some(to) = response.headers().get(LOCATION).filter(|_| follows) else { return Ok(None) };
        let to =
            to.to_str().map_err(|_| self.broken(call, "redirects to something that is not an address".to_owned()))?;
        match location::resolve(from, to) {
            Ok(url) if call.is_secret() && !location::same_origin(&url, &call.url) => {
                Err(self.broken(call, format!("is sent on to {}, which must not see it", host::authority(&url))))
            }
            Ok(url) => Ok(Some(url)),
            Err(why) => {
                let to = to.split('?').next().unwrap_or_default();
                Err(self.broken(call, format!("redirects to `{to}`, which {why}")))
            }
        }
    }

    /// Sends a body as it comes. One attempt: what has streamed by cannot be sent again from here.
    pub(crate) async fn stream(
        &self,
        call: &Call,
        authorization: Option<&Authorization>,
        body: reqwest::Body,
    ) -> Result<Reply, Error> {
        let place = self.gate.enter(Kind::Upload).await;
        let asked = Instant::now();
        let pool = if call.apart { self.pool.apart()? } else { &self.pool };
        let mut request =
            pool.client(&call.url)?.request(call.method.clone(), call.url.clone()).headers(call.headers.clone());
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization.header.clone());
        }
        let response = match request.body(body).send().await {
            Ok(response) => response,
            Err(error) => return Err(self.unanswered(&call.url, &error).await),
        };
        let result = Ok(Reply::new(response, authorization, asked));
        self.outcome(call, &place, &result, &mut None);
        result
    }

    /// As [`expect`](Registry::expect), with the whole body of at most `limit` bytes.
    pub(crate) async fn read(&self, call: &Call, fine: &[u16], limit: u64) -> Result<(Reply, Bytes), Error> {
        self.whole(call, limit, || self.expect(call, fine)).await
    }

    /// An answer and its whole body. One that breaks off in the middle is asked for again.
    pub(crate) async fn whole<A>(
        &self,
        call: &Call,
        limit: u64,
        mut ask: impl FnMut() -> A,
    ) -> Result<(Reply, Bytes), Error>
    where
        A: Future<Output = Result<Reply, Error>>,
    {
        let mut attempt = 1;
        loop {
            let mut reply = ask().await?;
            let error = match self.body(call, &mut reply, limit).await {
                Ok(bytes) => return Ok((reply, bytes)),
                Err(error) => error,
            };
            match decide(&self.config.retry, Outcome::NoAnswer(error.is_transient()), attempt, jitter()) {
                Decision::Stop => return Err(error),
                Decision::Retry(wait) => tokio::time::sleep(wait).await,
            }
            attempt += 1;
        }
    }

    /// Reads a whole body of at most `limit` bytes.
    async fn body(&self, call: &Call, reply: &mut Reply, limit: u64) -> Result<Bytes, Error> {
        let mut bytes = BytesMut::new();
        while let Some(chunk) = self.chunk(call, reply, bytes.len() as u64).await? {
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Err(Error::TooLarge {
                    place: self.place(&call.repository),
                    what: call.what.to_string(),
                    limit,
                });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }

    /// The next bytes of a body; `moved` is how many there were before.
    pub(crate) async fn chunk(&self, call: &Call, reply: &mut Reply, moved: u64) -> Result<Option<Bytes>, Error> {
        let stall = self.config.stall_timeout;
        let waits = Instant::now();
        let why = match tokio::time::timeout(stall, reply.response.chunk()).await {
            Ok(Ok(None)) => return Ok(None),
            Ok(Ok(Some(chunk))) => match reply.drip.came(chunk.len() as u64, waits.elapsed(), stall) {
                Ok(()) => return Ok(Some(chunk)),
                Err(why) => why,
            },
            Ok(Err(error)) => innermost(&error),
            Err(_) => format!("nothing came for {} s", stall.as_secs()),
        };
        // what the response calls its length is what is left of it
        let size = reply.header(CONTENT_LENGTH).and_then(|length| length.parse().ok()).unwrap_or(moved);
        Err(Error::Interrupted { place: self.place(&call.repository), what: call.what.to_string(), moved, size, why })
    }

    /// The error that a refusal is. `again` says whether whoever asked may simply ask again.
    pub(crate) async fn refusal(&self, call: &Call, mut reply: Reply, again: bool) -> Error {
        let mut body = BytesMut::new();
        // a message that does not come, or only by and by, must not hide the status
        let until = Instant::now() + self.config.stall_timeout;
        while body.len() < reply::MAX_BODY {
            match tokio::time::timeout_at(until, self.chunk(call, &mut reply, 0)).await {
                Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk),
                _ => break,
            }
        }
        body.truncate(reply::MAX_BODY);
        let reply::Words { code, message, page } = reply::words(&body);
        let url = reply.response.url();
        let address = host::authority(url);
        let answered_by = match self.pool.proxy(url).filter(|_| url.scheme() == "http") {
            // it may be the proxy's own answer
            Some(proxy) => Some(format!("{address} by way of the proxy {proxy}")),
            None => (address != self.host.api).then_some(address),
        };
        let status = reply.status();
        let origin = || self.config.credentials.origin(&self.host.name, &call.repository);
        let used = |credentials: bool| credentials.then(origin);
        Error::Status(Box::new(Status {
            host: self.host.name.clone(),
            repository: call.repository.clone(),
            what: call.what.clone(),
            request: call.request(),
            answered_by,
            status,
            message,
            retry_after: reply.retry_after(),
            quota: reply.quota(),
            page,
            credentials: used(reply.authorization.as_ref().is_some_and(|a| a.with_credentials)),
            pushes: call.pushes(),
            with_token: reply.authorization.as_ref().is_some_and(Authorization::is_token),
            passes: again && (is_transient(status) || is_of_this_attempt(status, &code, reply.authorization.as_ref())),
            code,
        }))
    }

    /// The server does something that the specification does not know.
    pub(crate) fn broken(&self, call: &Call, why: String) -> Error {
        Error::Protocol { place: self.place(&call.repository), what: call.what.to_string(), why }
    }

    /// Why a request was not answered.
    async fn unanswered(&self, url: &Url, error: &reqwest::Error) -> Error {
        let cause = self.pool.explain(url, not_http(url, cause(error)), &chain(error)).await;
        self.no_answer(url, cause)
    }

    /// A proxy that forwards plain HTTP answers in the server's place; one status is certainly its own.
    fn stopped_by_proxy(&self, url: &Url, response: &reqwest::Response) -> Option<Error> {
        let proxy = self.pool.proxy(url).filter(|_| response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED)?;
        Some(self.no_answer(url, Cause::Proxy { address: proxy.to_string(), fault: ProxyFault::Login }))
    }

    pub(crate) fn no_answer(&self, url: &Url, cause: Cause) -> Error {
        let address = host::authority(url);
        let own = self.host.root(url.scheme()).is_ok_and(|root| location::same_origin(&root, url));
        let address = if own { self.host.name.clone() } else { address };
        Error::Connect { host: self.host.name.clone(), address, cause }
    }

    /// `host/path`, for people.
    pub(crate) fn place(&self, repository: &str) -> String {
        if repository.is_empty() { self.host.name.clone() } else { format!("{}/{repository}", self.host.name) }
    }
}

/// Whether a refused upload may do well when begun anew: its session was lost (the registry restarted, or another replica
/// answers), its bytes were damaged on the way, or its token grew too old meanwhile.
fn is_of_this_attempt(status: u16, code: &str, authorization: Option<&Authorization>) -> bool {
    status == 401 && authorization.is_some_and(Authorization::is_token)
        || matches!(code, "BLOB_UPLOAD_UNKNOWN" | "BLOB_UPLOAD_INVALID" | "DIGEST_INVALID" | "SIZE_INVALID")
}

/// A TLS server sends an alert when it is spoken to without TLS, and others something else that is no HTTP: these are hyper's words.
fn not_http(url: &Url, cause: Cause) -> Cause {
    match cause {
        Cause::Closed(why)
            if url.scheme() == "http" && (why.starts_with("invalid HTTP") || why.contains("unexpected message")) =>
        {
            Cause::Https
        }
        other => other,
    }
}

/// What kept a request from being answered: the first known error in the chain.
fn cause(error: &reqwest::Error) -> Cause {
    if let Some(cause) = known(error) {
        return cause;
    }
    if error.is_timeout() {
        return Cause::TimedOut;
    }
    let why = innermost(error);
    if error.is_connect() { Cause::Other(why) } else { Cause::Closed(why) }
}

fn known(error: &(dyn std::error::Error + 'static)) -> Option<Cause> {
    use std::io::ErrorKind as E;
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return Some(tls::cause(tls));
    }
    if let Some(unresolved) = error.downcast_ref::<Unresolved>() {
        return Some(Cause::Name { why: unresolved.why.clone(), passes: unresolved.passes });
    }
    let Some(io) = error.downcast_ref::<std::io::Error>() else { return known(error.source()?) };
    // the source of an I/O error skips the error inside it
    if let Some(cause) = io.get_ref().and_then(|inner| known(inner)) {
        return Some(cause);
    }
    match io.kind() {
        E::ConnectionRefused => Some(Cause::Refused),
        E::TimedOut => Some(Cause::TimedOut),
        E::ConnectionReset | E::ConnectionAborted | E::BrokenPipe | E::UnexpectedEof | E::NotConnected => {
            Some(Cause::Closed(io.to_string()))
        }
        _ => None,
    }
}

/// The words of all errors, outermost first.
fn chain(error: &reqwest::Error) -> Vec<String> {
    let mut words = vec![error.to_string()];
    let mut inner: &dyn std::error::Error = error;
    while let Some(next) = inner.source() {
        words.push(next.to_string());
        inner = next;
    }
    words
}

/// The words of the innermost error: the outer ones repeat the address.
pub(crate) fn innermost(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(next) = inner.source() {
        inner = next;
    }
    inner.to_string()
}
