//! What authorises a request at one registry: basic credentials, or a bearer token for the scopes it needs.
//!
//! Tokens are kept for each set of scopes and shared by all tasks: while one fetches a token, the others wait for it, and hear of
//! it when it cannot be had. Whatever is configured is used; a refusal never turns into an anonymous attempt.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use tokio::time::Instant;

use crate::challenge::{self, Challenge};
use crate::credentials::Credential;
use crate::login::{Logins, Shown, Turn};
use crate::registry::Registry;
use crate::token::{self, Realm, Token};
use crate::transport::Reply;
use crate::{Error, Secret};

/// What a request needs to be allowed, as the token specification writes it: `repository:NAME:pull,push`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Scopes(pub(crate) BTreeSet<String>);

impl Scopes {
    pub(crate) fn pull(repository: &str) -> Self {
        Self([format!("repository:{repository}:pull")].into())
    }

    pub(crate) fn push(repository: &str) -> Self {
        Self([format!("repository:{repository}:pull,push")].into())
    }

    /// The list of all repositories.
    pub(crate) fn catalog() -> Self {
        Self(["registry:catalog:*".to_owned()].into())
    }

    /// A mount reads its source (trap 6).
    pub(crate) fn and_pull(mut self, repository: &str) -> Self {
        self.0.insert(format!("repository:{repository}:pull"));
        self
    }
}

/// A header that was made for a request.
#[derive(Debug, Clone)]
pub(crate) struct Authorization {
    pub(crate) header: HeaderValue,
    pub(crate) with_credentials: bool,
    /// Of a token.
    fresh_until: Option<Instant>,
}

impl Authorization {
    /// Made of what is configured.
    pub(crate) fn configured(header: HeaderValue) -> Self {
        Self { header, with_credentials: true, fresh_until: None }
    }

    fn token(token: &Token, with_credentials: bool) -> Self {
        Self { header: token.header.clone(), with_credentials, fresh_until: Some(token.fresh_until) }
    }

    /// Whether it has grown too old to begin another request with.
    pub(crate) fn is_stale(&self) -> bool {
        self.fresh_until.is_some_and(|until| Instant::now() >= until)
    }

    /// Whether it is a name and a password.
    pub(crate) fn is_login(&self) -> bool {
        self.with_credentials && self.header.as_bytes().starts_with(b"Basic ")
    }

    /// Whether a token server gave it.
    pub(crate) fn is_token(&self) -> bool {
        self.fresh_until.is_some()
    }
}

/// What the registry asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Nothing so far.
    #[default]
    Nothing,
    /// A name and a password.
    Basic,
    /// A token from there.
    Bearer(Realm),
}

/// The state for one registry.
#[derive(Debug, Default)]
pub(crate) struct Auth {
    wanted: Mutex<Wanted>,
    pub(crate) logins: Logins,
    tokens: Mutex<HashMap<Scopes, Arc<tokio::sync::Mutex<Slot>>>>,
}

#[derive(Debug, Default)]
struct Slot {
    /// Scopes that the server named beyond those we ask for.
    more: BTreeSet<String>,
    token: Option<Token>,
    /// Why the last one could not be had, and since when that is known.
    failed: Option<(Instant, Error)>,
}

impl Auth {
    pub(crate) fn wanted(&self) -> Wanted {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the challenges of an answer and returns the one to be met. A bearer token is preferred.
    pub(crate) fn learn(&self, headers: &http::HeaderMap) -> Option<Challenge> {
        let all = headers.get_all(http::header::WWW_AUTHENTICATE);
        let challenges: Vec<Challenge> =
            // a realm is for people, too, and not always in ASCII
            all.iter().flat_map(|value| challenge::parse(&String::from_utf8_lossy(value.as_bytes()))).collect();
        let bearer = challenges.iter().find(|c| c.scheme == "bearer" && c.parameter("realm").is_some());
        let chosen = bearer.or_else(|| challenges.iter().find(|c| c.scheme == "basic"))?.clone();
        let wanted = match chosen.parameter("realm") {
            Some(realm) if chosen.scheme == "bearer" => {
                Wanted::Bearer(Realm { url: realm.to_owned(), service: chosen.parameter("service").map(str::to_owned) })
            }
            _ => Wanted::Basic,
        };
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = wanted;
        Some(chosen)
    }

    fn slot(&self, scopes: &Scopes) -> Arc<tokio::sync::Mutex<Slot>> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(tokens.entry(scopes.clone()).or_default())
    }
}

impl Registry {
    /// The header for a request; `None` when nothing is wanted or nothing is configured.
    pub(crate) async fn authorize(&self, repository: &str, scopes: &Scopes) -> Result<Option<Authorization>, Error> {
        let credential = self.config.credentials.find(&self.host.name, repository).await?;
        let configured = |header| Ok(Some(Authorization::configured(header)));
        match (self.auth.wanted(), credential) {
            (_, Some(Credential::RegistryToken(token))) => {
                configured(bearer(&token).map_err(|why| self.unusable(repository, why))?)
            }
            // unasked, too: a registry that lets anybody in shows more to those it knows
            (Wanted::Basic | Wanted::Nothing, Some(Credential::Basic { username, password })) => {
                configured(basic(&username, &password).map_err(|why| self.unusable(repository, why))?)
            }
            (Wanted::Basic, Some(Credential::IdentityToken(_))) => {
                Err(self.unusable(repository, "the registry wants a user name and a password, not an identity token"))
            }
            (Wanted::Nothing | Wanted::Basic, _) => Ok(None),
            (Wanted::Bearer(realm), credential) => {
                self.token(&realm, repository, scopes, credential.as_ref()).await.map(Some)
            }
        }
    }

    /// The turn of a request that will show a name and a password to the registry itself, if this one will.
    pub(crate) async fn turn(&self, repository: &str) -> Result<Option<Turn>, Error> {
        if matches!(self.auth.wanted(), Wanted::Bearer(_)) {
            return Ok(None);
        }
        match self.config.credentials.find(&self.host.name, repository).await? {
            Some(Credential::Basic { username, password }) => {
                let login = basic(&username, &password).map_err(|why| self.unusable(repository, why))?;
                self.auth.logins.enter(Shown::ToRegistry, &login).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The token for `scopes`: the one that is there, or a new one.
    async fn token(
        &self,
        realm: &Realm,
        repository: &str,
        scopes: &Scopes,
        credential: Option<&Credential>,
    ) -> Result<Authorization, Error> {
        let asked = Instant::now();
        let slot = self.auth.slot(scopes);
        let mut slot = slot.lock().await;
        if let Some(token) = slot.token.as_ref().filter(|token| Instant::now() < token.fresh_until) {
            return Ok(Authorization::token(token, credential.is_some()));
        }
        // it failed while we waited: asking once more for each who waits would take as many times as long
        if let Some((at, error)) = &slot.failed
            && *at >= asked
        {
            return Err(error.clone());
        }
        let mut all = scopes.clone();
        all.0.extend(slot.more.iter().cloned());
        match token::fetch(self, realm, repository, &all, credential).await {
            Ok(token) => {
                let made = Authorization::token(&token, credential.is_some());
                (slot.token, slot.failed) = (Some(token), None);
                Ok(made)
            }
            Err(error) => {
                slot.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// After a 401: takes what the server says and tells whether asking again makes sense.
    pub(crate) async fn challenged(&self, scopes: &Scopes, reply: &Reply) -> bool {
        let before = self.auth.wanted();
        let Some(challenge) = self.auth.learn(reply.response.headers()) else { return false };
        let Wanted::Bearer(_) = self.auth.wanted() else { return before != Wanted::Basic };
        let slot = self.auth.slot(scopes);
        let mut slot = slot.lock().await;
        if let Some(scope) = challenge.parameter("scope") {
            let more = scope.split_ascii_whitespace().filter(|s| s.len() <= 1024 && !scopes.0.contains(*s));
            slot.more = more.take(8).map(str::to_owned).collect();
        }
        // another task may have renewed it meanwhile
        let refused = reply.authorization.as_ref().map(|a| &a.header);
        if slot.token.as_ref().is_some_and(|t| Some(&t.header) == refused) {
            slot.token = None;
        }
        true
    }

    fn unusable(&self, repository: &str, why: &str) -> Error {
        let origin = self.config.credentials.origin(&self.host.name, repository);
        Error::Credentials { host: self.host.name.clone(), origin, why: why.to_owned() }
    }
}

/// `Basic …`.
pub(crate) fn basic(username: &str, password: &Secret) -> Result<HeaderValue, &'static str> {
    if username.contains(':') {
        return Err("a user name cannot hold `:`");
    }
    sensitive(&format!("Basic {}", STANDARD.encode(format!("{username}:{}", password.reveal()))))
}

/// `Bearer …`.
pub(crate) fn bearer(token: &Secret) -> Result<HeaderValue, &'static str> {
    sensitive(&format!("Bearer {}", token.reveal()))
}

fn sensitive(text: &str) -> Result<HeaderValue, &'static str> {
    let mut value = HeaderValue::from_str(text).map_err(|_| "it holds characters that cannot be sent")?;
    value.set_sensitive(true);
    Ok(value)
}
