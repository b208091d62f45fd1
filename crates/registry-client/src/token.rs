//! Bearer tokens (docker's token authentication specification): GET with basic credentials or none, OAuth2 POST with an
//! identity token.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method};
use serde::Deserialize;
use tokio::time::Instant;
use url::{Url, form_urlencoded};

use crate::auth::{Authorization, Scopes, basic, bearer};
use crate::credentials::Credential;
use crate::registry::Registry;
use crate::transport::Call;
use crate::{Error, Secret, What, location, reply};

/// What the specification says where a server does not.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// No token is longer.
const MAX_ANSWER: u64 = 1 << 20;

/// Where tokens are to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Realm {
    pub(crate) url: String,
    pub(crate) service: Option<String>,
}

/// A token that was got.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) header: HeaderValue,
    pub(crate) since: Instant,
    life: Duration,
}

impl Token {
    /// Whether it will do for one more request: not in the last tenth of its life.
    pub(crate) fn is_fresh(&self) -> bool {
        self.since.elapsed() < self.life - self.life / 10
    }
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<f64>,
}

/// Gets a token for `scopes`.
pub(crate) async fn fetch(
    registry: &Registry,
    realm: &Realm,
    repository: &str,
    scopes: &Scopes,
    credential: Option<&Credential>,
) -> Result<Token, Error> {
    let names: Vec<&str> = scopes.0.iter().map(String::as_str).collect();
    let what = What::Token(if names.is_empty() { "the registry".to_owned() } else { names.join(" ") });
    let root = registry.root().await?;
    let url = location::resolve(root, &realm.url).map_err(|why| Error::Protocol {
        place: registry.place(repository),
        what: what.to_string(),
        why: format!("its token server is `{}`, which {why}", realm.url.chars().take(200).collect::<String>()),
    })?;
    let service = realm.service.as_deref();
    let (mut call, authorization) = match credential {
        Some(Credential::IdentityToken(token)) => (refresh(url, what, service, &names, token), None),
        Some(Credential::Basic { username, password }) => {
            let header = basic(username, password).map_err(|why| Error::Credentials {
                host: registry.host.name.clone(),
                origin: registry.config.credentials.origin(&registry.host.name, repository),
                why: why.to_owned(),
            })?;
            (get(url, what, service, &names, Some(username)), Some(Authorization::basic(header)))
        }
        _ => (get(url, what, service, &names, None), None),
    };
    repository.clone_into(&mut call.repository);
    // a token is valid from before it was sent
    let since = Instant::now();
    let reply = registry.persist(&call, authorization.as_ref()).await?;
    if !(200..300).contains(&reply.status()) {
        return Err(match registry.refusal(&call, reply, false).await {
            // an identity token goes in the body, and not as authorisation
            Error::Status(mut status) if credential.is_some() => {
                status.credentials = Some(registry.config.credentials.origin(&registry.host.name, repository));
                Error::Status(status)
            }
            error => error,
        });
    }
    let body = registry.body(&call, reply, MAX_ANSWER).await?;
    read(&body, since).map_err(|why| registry.broken(&call, why))
}

fn get(mut url: Url, what: What, service: Option<&str>, scopes: &[&str], account: Option<&str>) -> Call {
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = service {
            query.append_pair("service", service);
        }
        for scope in scopes {
            query.append_pair("scope", scope);
        }
        if let Some(account) = account {
            query.append_pair("account", account);
        }
    }
    Call::new(Method::GET, url, what).header(ACCEPT, "application/json")
}

fn refresh(url: Url, what: What, service: Option<&str>, scopes: &[&str], token: &Secret) -> Call {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token");
    form.append_pair("service", service.unwrap_or_default());
    form.append_pair("client_id", "ferry");
    form.append_pair("scope", &scopes.join(" "));
    form.append_pair("refresh_token", token.reveal());
    let call = Call::new(Method::POST, url, what).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    Call { body: Some(Bytes::from(form.finish())), ..call }
}

/// Reads a token server's answer.
pub(crate) fn read(body: &[u8], since: Instant) -> Result<Token, String> {
    // serde's own words could quote the token
    let answer: Answer =
        serde_json::from_slice(body).map_err(|_| match reply::is_page(&String::from_utf8_lossy(body)) {
            true => reply::PAGE.to_owned(),
            false => "the token server's answer is not understood".to_owned(),
        })?;
    let filled = |text: Option<String>| text.filter(|t| !t.is_empty());
    let token =
        filled(answer.token).or(filled(answer.access_token)).ok_or("the token server's answer holds no token")?;
    let header = bearer(&Secret::new(token)).map_err(|why| format!("the token cannot be used: {why}"))?;
    let life = answer.expires_in.and_then(|s| Duration::try_from_secs_f64(s).ok()).filter(|l| !l.is_zero());
    Ok(Token { header, since, life: life.unwrap_or(DEFAULT_LIFE) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_as_servers_write_them() {
        let now = Instant::now();
        let life =
            |text: &str| read(text.as_bytes(), now).map(|t| (t.header.to_str().unwrap().to_owned(), t.life.as_secs()));
        assert_eq!(life(r#"{"token":"a","expires_in":300}"#), Ok(("Bearer a".to_owned(), 300)));
        assert_eq!(life(r#"{"access_token":"b"}"#), Ok(("Bearer b".to_owned(), 60)));
        assert_eq!(life(r#"{"token":"","access_token":"c","expires_in":0}"#), Ok(("Bearer c".to_owned(), 60)));
        assert_eq!(life(r#"{"token":"d","expires_in":-5}"#), Ok(("Bearer d".to_owned(), 60)));
        for text in ["", "{}", r#"{"token":1}"#, r#"{"token":"a\nb"}"#] {
            assert!(life(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_token_is_renewed_before_it_ends() {
        let token = |age| Token {
            header: HeaderValue::from_static("Bearer x"),
            since: Instant::now().checked_sub(Duration::from_secs(age)).unwrap(),
            life: Duration::from_secs(60),
        };
        assert!(token(50).is_fresh());
        assert!(!token(55).is_fresh());
    }

    #[test]
    fn requests_as_token_servers_want_them() {
        let url = || Url::parse("https://a/token?x=1").unwrap();
        let call = get(url(), What::Registry, Some("r s"), &["repository:a:pull", "repository:b:pull"], Some("me"));
        assert_eq!(
            call.url.as_str(),
            "https://a/token?x=1&service=r+s&scope=repository%3Aa%3Apull&scope=repository%3Ab%3Apull&account=me"
        );
        let call = refresh(url(), What::Registry, Some("s"), &["a", "b"], &Secret::new("t&t"));
        assert_eq!(
            call.body.unwrap(),
            "grant_type=refresh_token&service=s&client_id=ferry&scope=a+b&refresh_token=t%26t".as_bytes()
        );
    }
}
