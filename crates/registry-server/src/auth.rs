//! Who is let in: [`Access`] says what is needed, here it is looked at. Passwords that were right are remembered (`Passwords::is_known`),
//! others are checked a few at a time, and those of clients that guess wait.

pub mod access;
pub mod htpasswd;
mod penalty;
mod token;

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ferry_image::reference;
use http::StatusCode;
use http::header::AUTHORIZATION;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::auth::access::{Access, Credentials, Passwords};
use crate::auth::penalty::Penalties;
use crate::auth::token::{LIFE, Tokens};
use crate::query::Query;
use crate::refusal::Refusal;
use crate::registry::Asked;
use crate::server::client::network;

/// The path of our token server.
pub(crate) const TOKEN: &str = "/token";
const LINES: usize = 256;
/// How long a look at the users is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// What was found out of earlier requests.
pub(crate) struct Authenticator {
    penalties: Arc<Mutex<Penalties>>,
    /// Where the clients that have no penalty stand, each always in the same one: of a client's first guesses the second is looked at when
    /// it is known what the first one was. So many, that few share one.
    lines: Vec<Arc<tokio::sync::Mutex<()>>>,
    hasher: RandomState,
    /// A slow hash takes a core for itself.
    checks: Arc<Semaphore>,
    /// Who looks whether the users have changed.
    looking: Arc<tokio::sync::Mutex<()>>,
    /// Until when that is waited for, while somebody does.
    until: Arc<Mutex<Option<Instant>>>,
    tokens: Tokens,
}

impl Default for Authenticator {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            penalties: Arc::default(),
            lines: (0..LINES).map(|_| Arc::default()).collect(),
            hasher: RandomState::new(),
            checks: Arc::new(Semaphore::new(cores.div_ceil(2))),
            looking: Arc::default(),
            until: Arc::default(),
            tokens: Tokens::default(),
        }
    }
}

/// Who asks, once let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    Anonymous,
    User(String),
}

impl Authenticator {
    fn line(&self, client: IpAddr) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(&self.lines[self.hasher.hash_one(client) as usize % LINES])
    }

    /// Lets a request in, or says what it lacks.
    pub(crate) async fn authorize(&self, access: &Access, asked: &Asked, path: &str) -> Result<Identity, Refusal> {
        let (passwords, is_open) = match access {
            Access::Open => return Ok(Identity::Anonymous),
            Access::Users(passwords) => (passwords, false),
            Access::UsersToPush(passwords) => (passwords, true),
        };
        self.refresh(passwords).await;
        let credentials = asked.header(AUTHORIZATION.as_str()).map(Credentials::parse);
        let identity = match credentials {
            None => Identity::Anonymous,
            Some(Credentials::Basic { user, password }) => self
                .check(passwords, &user, &password, asked.client)
                .await?
                .map_or_else(|| Err(denied(asked, is_open, path)), Ok)?,
            Some(Credentials::Bearer(token)) if is_open => match self.tokens.user(&token, SystemTime::now()) {
                Some(user) if user.is_empty() => Identity::Anonymous,
                Some(user) if passwords.has(&user) => Identity::User(user),
                _ => return Err(denied(asked, is_open, path)),
            },
            Some(_) => return Err(denied(asked, is_open, path)),
        };
        // The question whether a login is needed: see `token`. Whoever asks whether a blob is here is about to push: helm has no other
        // request in which it could be told that a login is needed without having sent what it cannot send again.
        let is_question = matches!(path, "/v2/" | "/v2") || (asked.is_head() && path.contains("/blobs/"));
        let is_question = is_question && asked.header(AUTHORIZATION.as_str()).is_none();
        let is_enough = matches!(identity, Identity::User(_)) || (is_open && asked.is_read() && !is_question);
        if is_enough { Ok(identity) } else { Err(denied(asked, is_open, path)) }
    }

    /// What our token server answers, where there is one: a guest's token, or with a password that of its user, which stands in the header
    /// or in `form` (distribution's "OAuth2 Token Authentication").
    pub(crate) async fn token(
        &self,
        access: &Access,
        asked: &Asked,
        form: &Query,
    ) -> Option<Result<serde_json::Value, Refusal>> {
        let Access::UsersToPush(passwords) = access else { return None };
        self.refresh(passwords).await;
        let in_form = || {
            let (user, password) = (form.value("username")?.to_owned(), form.value("password")?.to_owned());
            Some(Credentials::Basic { user, password })
        };
        if form.value("grant_type").is_some_and(|grant| grant != "password") {
            let message = "only a password gets a token here: `grant_type=password`";
            return Some(Err(Refusal::new(StatusCode::BAD_REQUEST, "UNSUPPORTED", message)));
        }
        let user = match asked.header(AUTHORIZATION.as_str()).map(Credentials::parse).or_else(in_form) {
            None => String::new(),
            Some(Credentials::Basic { user, password }) => {
                match self.check(passwords, &user, &password, asked.client).await {
                    Ok(Some(Identity::User(user))) => user,
                    Ok(_) => return Some(Err(Refusal::unauthorized(BASIC.to_owned()))),
                    Err(refusal) => return Some(Err(refusal)),
                }
            }
            Some(_) => return Some(Err(Refusal::unauthorized(BASIC.to_owned()))),
        };
        let token = self.tokens.issue(&user, SystemTime::now());
        Some(Ok(json!({"token": token, "access_token": token, "expires_in": LIFE.as_secs()})))
    }

    /// Looks whether the users have changed, where it is time to. One request looks, away from the threads that move bytes, and others wait
    /// for it, all of them for no longer than [`PATIENCE`] after it began; a disk that does not answer leaves the users as they are.
    async fn refresh(&self, passwords: &Arc<dyn Passwords>) {
        if !passwords.is_stale() {
            return;
        }
        let end = Instant::now() + PATIENCE;
        let look = async {
            let turn = Arc::clone(&self.looking).lock_owned().await;
            if passwords.is_stale() {
                *lock(&self.until) = Some(end);
                let (passwords, until) = (Arc::clone(passwords), Arc::clone(&self.until));
                // the turn is kept for as long as the disk takes: a second look would wait for it as well
                let looked = tokio::task::spawn_blocking(move || {
                    passwords.refresh();
                    *lock(&until) = None;
                    drop(turn);
                });
                let _ = looked.await;
            }
        };
        let end = lock(&self.until).unwrap_or(end);
        let _ = tokio::time::timeout_at(end.into(), look).await;
    }

    async fn check(
        &self,
        passwords: &Arc<dyn Passwords>,
        user: &str,
        password: &str,
        client: Option<IpAddr>,
    ) -> Result<Option<Identity>, Refusal> {
        let known = || passwords.is_known(user, password).then(|| Identity::User(user.to_owned()));
        if let Some(identity) = known() {
            return Ok(Some(identity));
        }
        let address = client.map(network);
        let mut place = None;
        if let Some(address) = address {
            let first = self.line(address).lock_owned().await;
            if let Some(identity) = known() {
                return Ok(Some(identity));
            }
            let turn = lock(&self.penalties).turn(address, Instant::now());
            match turn {
                Ok(wait) if wait.is_zero() => place = Some(first),
                Ok(wait) => {
                    drop(first);
                    tokio::time::sleep(wait).await;
                    if let Some(identity) = known() {
                        return Ok(Some(identity));
                    }
                }
                Err(wait) => return Err(Refusal::too_many("too many wrong passwords came from here", wait)),
            }
        }
        let Ok(permit) = Arc::clone(&self.checks).acquire_owned().await else { return Ok(None) };
        let (passwords, name, word) = (Arc::clone(passwords), user.to_owned(), password.to_owned());
        let penalties = Arc::clone(&self.penalties);
        // Slow password hashes must not hold the other connections up. They end, and count, also where the client has gone away.
        let checked = tokio::task::spawn_blocking(move || {
            let is_right = passwords.verify(&name, &word);
            if let Some(address) = address {
                let mut penalties = lock(&penalties);
                if is_right { penalties.right(address) } else { penalties.wrong(address, Instant::now()) }
            }
            drop((place, permit));
            is_right
        });
        let is_right = checked.await.unwrap_or(false);
        if !is_right {
            let client = client.map_or_else(|| "-".to_owned(), |client| client.to_string());
            tracing::warn!(client, user = %user.escape_debug(), "a login failed");
        }
        Ok(is_right.then(|| Identity::User(user.to_owned())))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const BASIC: &str = r#"Basic realm="ferry", charset="UTF-8""#;

/// What must come with the request the next time (RFC 9110, section 11.6.1). Where to get a token is said by the name that the client has
/// for us, if it is one: what else it sends does not come back to it.
fn denied(asked: &Asked, is_open: bool, path: &str) -> Refusal {
    let named = asked.host.as_deref().filter(|host| is_open && reference::is_host(host));
    let Some(host) = named else { return Refusal::unauthorized(BASIC.to_owned()) };
    let scheme = if asked.is_secure { "https" } else { "http" };
    let mut challenge = format!("Bearer realm=\"{scheme}://{host}{TOKEN}\",service=\"ferry\"");
    if let Some(name) = repository(path) {
        let actions = if asked.is_read() { "pull" } else { "pull,push" };
        challenge += &format!(",scope=\"repository:{name}:{actions}\"");
    }
    Refusal::unauthorized(challenge)
}

/// The repository in a path, roughly: what clients need to ask for a token is not what gets them in.
fn repository(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/v2/")?;
    let end = ["/blobs/", "/manifests/", "/tags/", "/referrers/"].iter().filter_map(|part| rest.rfind(part)).max()?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    rest.get(..end).filter(|name| name.bytes().all(is_plain))
}
