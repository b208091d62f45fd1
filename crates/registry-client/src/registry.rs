//! One registry: where its API stands, whether it speaks TLS, and requests with the authorisation they need.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use ferry_content::Failure as _;
use http::Method;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use url::Url;

use crate::auth::{Auth, Authorization};
use crate::gate::{Gate, Kind};
use crate::host::Host;
use crate::pool::Pool;
use crate::repository::Learnt;
use crate::retry::{Decision, Outcome, Retry, decide, jitter};
use crate::transport::{Call, Reply, Who};
use crate::upload::pieces::Pieces;
use crate::{Cause, Config, Error, Product, Quota, What, product, reply};

/// The first contact is tried less often: a wrong host name should be told soon.
const FIRST_ATTEMPTS: u32 = 3;
/// How long a first contact that failed stands for those who waited for it.
const LATELY: Duration = Duration::from_secs(5);
/// How long the rest of an answer is waited for that nobody needs.
const LEFTOVERS: Duration = Duration::from_secs(2);

/// The state that all tasks share for one registry.
pub(crate) struct Registry {
    pub(crate) host: Host,
    pub(crate) config: Arc<Config>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) auth: Auth,
    pub(crate) gate: Arc<Gate>,
    /// Of its token server, which is another host as a rule.
    pub(crate) tokens: Arc<Gate>,
    /// As last heard.
    quota: Mutex<Option<Quota>>,
    /// The pieces in which uploads go.
    pub(crate) uploads: Mutex<Pieces>,
    root: OnceCell<Url>,
    /// When the first contact failed last, and why.
    failed: Mutex<Option<(Instant, Error)>>,
    product: OnceLock<Option<Product>>,
    /// By path.
    learnt: Mutex<HashMap<Arc<str>, Arc<Learnt>>>,
}

impl Registry {
    pub(crate) fn new(host: Host, config: Arc<Config>, pool: Arc<Pool>) -> Self {
        let (gate, tokens) = (Gate::new(config.concurrency), Gate::new(config.concurrency));
        Self {
            host,
            config,
            pool,
            auth: Auth::default(),
            gate,
            tokens,
            quota: Mutex::default(),
            uploads: Mutex::default(),
            root: OnceCell::new(),
            failed: Mutex::default(),
            product: OnceLock::new(),
            learnt: Mutex::default(),
        }
    }

    /// What is known about the repository `path`, in one place for all who ask for it.
    pub(crate) fn learnt(&self, path: &Arc<str>) -> Arc<Learnt> {
        let mut learnt = self.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(learnt.entry(Arc::clone(path)).or_default())
    }

    /// `SCHEME://HOST/`, found out by the first request.
    pub(crate) async fn root(&self) -> Result<&Url, Error> {
        self.root.get_or_try_init(|| self.first_contact()).await
    }

    /// Finds the root. Many tasks may wait for it: what one found out the hard way is told to the others.
    async fn first_contact(&self) -> Result<Url, Error> {
        let lately = |(when, error): &(Instant, Error)| error.again().filter(|_| when.elapsed() < LATELY);
        if let Some(error) = self.failed().as_ref().and_then(lately) {
            return Err(error);
        }
        let found = self.find_root().await;
        *self.failed() = found.as_ref().err().and_then(Error::again).map(|error| (Instant::now(), error));
        found
    }

    fn failed(&self) -> MutexGuard<'_, Option<(Instant, Error)>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which program this is, if its first answer showed that.
    pub(crate) fn product(&self) -> Option<Product> {
        self.product.get().copied().flatten()
    }

    /// Makes a request and authorises it: with what is known first, and as the server wants it after a 401. A login is tried by one before
    /// others use it.
    pub(crate) async fn send(&self, call: &Call) -> Result<Reply, Error> {
        // a session on another host carries its own permission in its address
        let ours = crate::location::same_origin(&call.url, self.root().await?);
        let turn = if ours { self.turn(&call.repository).await? } else { None };
        let result = self.authorised(call, ours).await;
        let Some(turn) = turn else { return result };
        match result {
            Ok(reply) if !reply.authorization.as_ref().is_some_and(Authorization::is_login) => {
                turn.unsettled().await;
                Ok(reply)
            }
            Ok(reply) if reply.status() == 401 && crate::location::same_origin(reply.response.url(), &call.url) => {
                let error = self.refusal(call, reply, false).await;
                turn.refused(&error).await;
                Err(error)
            }
            Ok(reply) => {
                match reply.status() {
                    408 | 429 | 500.. => turn.unsettled().await,
                    _ => turn.accepted().await,
                }
                Ok(reply)
            }
            Err(error) => {
                turn.unsettled().await;
                Err(error)
            }
        }
    }

    async fn authorised(&self, call: &Call, ours: bool) -> Result<Reply, Error> {
        let who = if ours { Who::Known } else { Who::Given(None) };
        let mut renewals = 0;
        loop {
            let reply = self.persist(call, who).await?;
            let from_here = crate::location::same_origin(reply.response.url(), &call.url);
            if reply.status() != 401 || !ours || !from_here || renewals == 2 {
                return Ok(reply);
            }
            if !self.challenged(&call.scopes, &reply).await {
                return Ok(reply);
            }
            // no new attempt where it would be the same again: nothing is configured, or what is cannot be renewed
            let next = self.authorize(&call.repository, &call.scopes).await?;
            if next.as_ref().map(|next| &next.header) == reply.authorization.as_ref().map(|used| &used.header) {
                return Ok(reply);
            }
            renewals += 1;
        }
    }

    /// As [`send`](Self::send), with every status but those of `fine` an error.
    pub(crate) async fn expect(&self, call: &Call, fine: &[u16]) -> Result<Reply, Error> {
        let reply = self.send(call).await?;
        if fine.contains(&reply.status()) { Ok(reply) } else { Err(self.refusal(call, reply, false).await) }
    }

    /// The page after the one that `call` asked for.
    pub(crate) fn next_page(&self, call: &Call, next: &str) -> Result<Url, Error> {
        let url = crate::location::resolve(&call.url, next)
            .map_err(|why| self.broken(call, format!("its next page {why}")))?;
        if url == call.url || !crate::location::same_origin(&url, &call.url) {
            return Err(self.broken(call, "its next page is elsewhere, or the same again".to_owned()));
        }
        Ok(url)
    }

    /// What is left of what the registry answers, as it said last.
    pub(crate) fn quota(&self) -> Option<Quota> {
        *self.quota.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, quota: Quota) {
        *self.quota.lock().unwrap_or_else(PoisonError::into_inner) = Some(quota);
    }

    async fn find_root(&self) -> Result<Url, Error> {
        let policy = Retry { attempts: self.config.retry.attempts.min(FIRST_ATTEMPTS), ..self.config.retry.clone() };
        let mut attempt = 1;
        let mut refused: Option<Instant> = None;
        loop {
            let error = match self.try_schemes().await {
                Ok(root) => return Ok(root),
                Err(error) => error,
            };
            let outcome = match &error {
                Error::Status(status) if status.status == 429 => {
                    Outcome::TooMany(status.retry_after, refused.get_or_insert_with(Instant::now).elapsed())
                }
                Error::Status(status) => Outcome::Status(status.status, status.retry_after),
                error => Outcome::NoAnswer(error.is_transient()),
            };
            match decide(&policy, outcome, attempt, jitter()) {
                Decision::Retry(wait) => tokio::time::sleep(wait).await,
                Decision::Stop => return Err(error),
            }
            attempt += u32::from(!matches!(outcome, Outcome::TooMany(..)));
        }
    }

    /// HTTPS, unless the user says otherwise. On this machine itself both are tried, in the likelier order, but a certificate
    /// that is not trusted is never a reason to go on without TLS.
    async fn try_schemes(&self) -> Result<Url, Error> {
        let schemes: &[&str] = match self.config.plain_http(&self.host) {
            Some(true) => &["http"],
            Some(false) => &["https"],
            None if !self.host.is_loopback() => &["https"],
            None if self.pool.has_certificates(&self.host) => &["https", "http"],
            None => &["http", "https"],
        };
        let mut first: Option<Error> = None;
        for scheme in schemes {
            let root = self.host.root(scheme)?;
            let error = match self.ping(&root).await {
                Ok(()) => return Ok(root),
                Err(error) => error,
            };
            if schemes.len() == 1 || !speaks_otherwise(scheme, &error) {
                return Err(error);
            }
            first = first.or(Some(error));
        }
        if let Some(Error::Connect { cause: cause @ Cause::Https, .. }) = &mut first {
            *cause = Cause::NotHttp;
        }
        Err(first.unwrap_or_else(|| Error::Config {
            what: "registry",
            value: self.host.name.clone(),
            why: "no scheme".to_owned(),
        }))
    }

    /// `GET /v2/`: anything but a failure will do, since it also tells what authorisation is wanted.
    async fn ping(&self, root: &Url) -> Result<(), Error> {
        let url = root.join("v2/").map_err(|e| Error::Config {
            what: "registry",
            value: self.host.name.clone(),
            why: e.to_string(),
        })?;
        let call = Call::new(Method::GET, url, What::Registry);
        let place = self.gate.enter(Kind::Request).await;
        let result = self.follow(&call, None).await;
        self.outcome(&call, &place, &result, &mut None);
        drop(place);
        let reply = result?;
        // what is in front of the registry may refuse in its place
        if !matches!(reply.status(), 400 | 429 | 500..) {
            self.product.get_or_init(|| product::guess(&self.host.name, reply.response.headers()));
        }
        match reply.status() {
            400 | 429 | 500.. => match self.refusal(&call, reply, true).await {
                // Go: "Client sent an HTTP request to an HTTPS server", nginx: "The plain HTTP request was sent to HTTPS port"
                Error::Status(status) if root.scheme() == "http" && status.message.contains("HTTPS") => {
                    Err(self.no_answer(&call.url, Cause::Https))
                }
                error => Err(error),
            },
            401 => {
                self.auth.learn(reply.response.headers());
                self.drain(&call, reply).await;
                Ok(())
            }
            _ => {
                self.drain(&call, reply).await;
                Ok(())
            }
        }
    }

    /// Reads what is left of a small answer, so that its connection can be used again. One that does not come at once is not worth
    /// the wait: a new connection is made sooner.
    pub(crate) async fn drain(&self, call: &Call, mut reply: Reply) {
        let mut read = 0;
        let until = Instant::now() + LEFTOVERS;
        while let Ok(Ok(Some(chunk))) = tokio::time::timeout_at(until, self.chunk(call, &mut reply, 0)).await {
            read += chunk.len();
            if read > reply::MAX_BODY {
                return;
            }
        }
    }
}

/// Whether an error means that the server speaks the other of HTTP and HTTPS.
fn speaks_otherwise(scheme: &str, error: &Error) -> bool {
    match error {
        Error::Connect { cause: Cause::PlainHttp, .. } => scheme == "https",
        Error::Connect { cause: Cause::Closed(_) | Cause::Other(_) | Cause::Https, .. } => scheme == "http",
        _ => false,
    }
}
