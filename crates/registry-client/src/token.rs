//! Bearer tokens (docker's token authentication specification): GET with basic credentials or none, OAuth2 POST with an
//! identity token.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method};
use serde::Deserialize;
use tokio::time::Instant;
use url::{Url, form_urlencoded};

use crate::auth::{Authorization, Scopes, basic, bearer};
use crate::credentials::Credential;
use crate::login::Shown;
use crate::registry::Registry;
use crate::transport::{Call, Who};
use crate::{Error, Secret, What, location, reply};

/// What the specification says where a server does not.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// None is believed to last longer.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);
/// No token is longer.
const MAX_ANSWER: u64 = 1 << 20;

/// Where tokens are to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Realm {
    pub(crate) url: String,
    pub(crate) service: Option<String>,
}

/// What stands for a user name beside an identity token (docker's credential helper protocol).
const NO_NAME: &str = "<token>";

/// A token that was got.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) header: HeaderValue,
    /// Until when it will do for one more request.
    pub(crate) fresh_until: Instant,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    // some write numbers as text
    expires_in: Option<serde_json::Value>,
    issued_at: Option<serde_json::Value>,
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
    let unusable = |why: &str| Error::Credentials {
        host: registry.host.name.clone(),
        origin: registry.config.credentials.origin(&registry.host.name, repository),
        why: why.to_owned(),
    };
    let by_get = |login: Option<(&str, &Secret)>| {
        let authorization = match login {
            Some((name, secret)) => Some(Authorization::configured(basic(name, secret).map_err(unusable)?)),
            None => None,
        };
        let account = login.map(|(name, _)| name).filter(|name| *name != NO_NAME);
        let call = get(url.clone(), what.clone(), realm.service.as_deref(), &names, account);
        Ok::<_, Error>((Call { repository: repository.to_owned(), ..call }, authorization))
    };
    match credential {
        Some(Credential::IdentityToken(token)) => {
            let call = refresh(url.clone(), what.clone(), realm.service.as_deref(), &names, token);
            let call = Call { repository: repository.to_owned(), ..call };
            match ask(registry, &call, None).await {
                // some token servers know no POST; they take the token for a password
                Err(Error::Status(status)) if matches!(status.status, 404 | 405) => {
                    let (call, authorization) = by_get(Some((NO_NAME, token)))?;
                    ask(registry, &call, authorization.as_ref()).await
                }
                result => result,
            }
        }
        Some(Credential::Basic { username, password }) => {
            let (call, authorization) = by_get(Some((username, password)))?;
            ask(registry, &call, authorization.as_ref()).await
        }
        Some(Credential::RegistryToken(_)) | None => {
            let (call, _) = by_get(None)?;
            ask(registry, &call, None).await
        }
    }
}

/// Makes the request, as patiently as any other, and reads its answer.
async fn ask(registry: &Registry, call: &Call, authorization: Option<&Authorization>) -> Result<Token, Error> {
    let with_credentials = authorization.is_some() || call.is_secret();
    let answered = || async {
        let reply = registry.persist(call, Who::Given(authorization)).await?;
        if (200..300).contains(&reply.status()) {
            return Ok(reply);
        }
        Err(match registry.refusal(call, reply, false).await {
            // an identity token goes in the body, and not as authorisation
            Error::Status(mut status) if with_credentials => {
                status.credentials = Some(registry.config.credentials.origin(&registry.host.name, &call.repository));
                Error::Status(status)
            }
            error => error,
        })
    };
    let turn = match authorization.filter(|authorization| authorization.is_login()) {
        Some(login) => Some(registry.auth.logins.enter(Shown::ToTokenServer, &login.header).await?),
        None => None,
    };
    let answer = registry.whole(call, MAX_ANSWER, answered).await;
    if let Some(turn) = turn {
        match &answer {
            Ok(_) => turn.accepted().await,
            Err(error) if error.status() == Some(401) => {
                turn.refused(error).await;
            }
            Err(_) => turn.unsettled().await,
        }
    }
    let (reply, body) = answer?;
    // a token is valid from before it was sent
    read(&body, reply.asked, reply.date()).map_err(|why| registry.broken(call, why))
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

/// Reads the answer to a request that was made at `since`; `now` is the time at the server.
pub(crate) fn read(body: &[u8], since: Instant, now: SystemTime) -> Result<Token, String> {
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
    let seconds = answer.expires_in.and_then(|s| s.as_f64().or_else(|| s.as_str()?.trim().parse().ok()));
    let life = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()).filter(|life| !life.is_zero());
    let life = life.unwrap_or(DEFAULT_LIFE).min(LONGEST_LIFE);
    // it may have been made for somebody who asked before; where that does not fit, a clock is wrong
    let issued: Option<jiff::Timestamp> = answer.issued_at.and_then(|at| at.as_str()?.parse().ok());
    let age = issued.and_then(|at| now.duration_since(SystemTime::from(at)).ok()).unwrap_or_default();
    let left = life.checked_sub(age).filter(|left| !left.is_zero()).unwrap_or(life);
    Ok(Token { header, fresh_until: since + left - left / 10 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_as_servers_write_them() {
        let since = Instant::now();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let life = |text: &str| {
            read(text.as_bytes(), since, now)
                .map(|t| (t.header.to_str().unwrap().to_owned(), (t.fresh_until - since).as_secs()))
        };
        let found = |token: &str, seconds: u64| Ok((format!("Bearer {token}"), seconds));
        // renewed in the last tenth of its life
        assert_eq!(life(r#"{"token":"a","expires_in":300}"#), found("a", 270));
        assert_eq!(life(r#"{"access_token":"b"}"#), found("b", 54));
        assert_eq!(life(r#"{"token":"","access_token":"c","expires_in":0}"#), found("c", 54));
        assert_eq!(life(r#"{"token":"d","expires_in":-5}"#), found("d", 54));
        assert_eq!(life(r#"{"token":"e","expires_in":1e300}"#), found("e", 54));
        assert_eq!(life(r#"{"token":"e","expires_in":"100","issued_at":5}"#), found("e", 90));
        assert_eq!(life(r#"{"token":"f","expires_in":1e9}"#), found("f", 24 * 3600 * 9 / 10));
        // 1 700 000 000 is 22:13:20 of that day
        let issued = |at: &str| life(&format!(r#"{{"token":"g","expires_in":300,"issued_at":"{at}"}}"#));
        assert_eq!(issued("2023-11-14T22:11:40Z"), found("g", 180), "100 s old");
        assert_eq!(issued("2023-11-14T23:11:40.5+01:00"), found("g", 180), "100 s old");
        assert_eq!(issued("2023-11-14T22:13:50Z"), found("g", 270), "made in the future");
        assert_eq!(issued("2023-11-14T20:00:00Z"), found("g", 270), "of yore");
        assert_eq!(issued("yesterday"), found("g", 270));
        for text in ["", "{}", r#"{"token":1}"#, r#"{"token":"a\nb"}"#] {
            assert!(life(text).is_err(), "{text}");
        }
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
