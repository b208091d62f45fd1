//! Who is let in: bearer tokens by the token specification, for scopes, with a short life if wanted; or basic credentials.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::http::{Message, Reply, base64};

use super::content::refusal;
use super::route::{Route, queries, query};
use crate::registry::{PASSWORD, USER};

/// What the registry asks of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Nothing.
    Open,
    /// User and password, by basic authentication.
    Basic,
    /// A token for the repository, which its own token server gives to the user; good for this long.
    Tokens(Duration),
    /// The same, and to anybody who only reads.
    PublicTokens(Duration),
}

/// The tokens given out.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// By their text: until when they hold, and what for.
    given: BTreeMap<String, (Instant, Vec<String>)>,
    count: u64,
}

impl Tokens {
    /// Every token is worth nothing from now on.
    pub(super) fn expire(&mut self) {
        self.given.clear();
    }

    /// What a request must be answered if it is not let in. `host` is the registry's own name.
    pub(super) fn refuse(&self, guard: Guard, request: &Message, route: &Route, host: &str) -> Option<Reply> {
        let given = request.header("authorization").unwrap_or_default();
        let challenge = match guard {
            Guard::Open => return None,
            Guard::Basic if given == login() => return None,
            Guard::Basic => "Basic realm=\"tests\"".to_owned(),
            Guard::Tokens(_) | Guard::PublicTokens(_) => {
                let wanted = wanted(request, route);
                let token = given.strip_prefix("Bearer ").and_then(|token| self.given.get(token));
                let token = token.filter(|(until, _)| *until > Instant::now());
                if token.is_some_and(|(_, scopes)| wanted.iter().all(|scope| scopes.contains(scope))) {
                    return None;
                }
                let scope = match wanted.join(" ") {
                    none if none.is_empty() => none,
                    scopes => format!(",scope=\"{scopes}\""),
                };
                let error = if token.is_some() { ",error=\"insufficient_scope\"" } else { "" };
                format!("Bearer realm=\"http://{host}/token\",service=\"tests\"{scope}{error}")
            }
        };
        let reply = refusal(401, "UNAUTHORIZED", "authentication required");
        Some(reply.header("WWW-Authenticate", challenge))
    }

    /// The token server: GET with basic credentials or without, POST with an identity token (the password).
    pub(super) fn give(&mut self, guard: Guard, request: &Message) -> Reply {
        let (Guard::Tokens(life) | Guard::PublicTokens(life)) = guard else {
            return refusal(404, "NOT_FOUND", "there is no token server here");
        };
        let form = String::from_utf8_lossy(&request.body).into_owned();
        let pairs = match request.method.as_str() {
            "POST" => queries(&form),
            _ => queries(request.path.split_once('?').map_or("", |(_, query)| query)),
        };
        let identity = pairs.iter().any(|(name, value)| name == "refresh_token" && value == PASSWORD);
        let known = identity || request.header("authorization") == Some(login().as_str());
        let anonymous = request.header("authorization").is_none() && request.method == "GET";
        if !(known || anonymous && matches!(guard, Guard::PublicTokens(_))) {
            let why = if anonymous { "authentication required" } else { "incorrect username or password" };
            return Reply::new(401, "application/json", json!({"details": why}).to_string());
        }
        let scopes = pairs.iter().filter(|(name, _)| name == "scope").flat_map(|(_, value)| value.split(' '));
        let scopes = scopes.flat_map(single).filter(|scope| known || scope.ends_with(":pull")).collect();
        self.count += 1;
        let token = format!("token-{}", self.count);
        self.given.insert(token.clone(), (Instant::now() + life, scopes));
        let body = json!({"token": token, "access_token": token, "expires_in": life.as_secs()});
        Reply::new(200, "application/json", body.to_string())
    }
}

fn login() -> String {
    format!("Basic {}", base64(format!("{USER}:{PASSWORD}")))
}

/// The scopes that a request needs, each for one action. A mount reads its source.
fn wanted(request: &Message, route: &Route) -> Vec<String> {
    let action = if matches!(request.method.as_str(), "GET" | "HEAD") { "pull" } else { "push" };
    let own = route.repository().map(|name| format!("repository:{name}:{action}"));
    let source = query(&request.path, "from").map(|name| format!("repository:{name}:pull"));
    own.into_iter().chain(source).collect()
}

/// `repository:NAME:pull,push` as one scope for each action.
fn single(scope: &str) -> Vec<String> {
    let Some((name, actions)) = scope.rsplit_once(':') else { return Vec::new() };
    actions.split(',').map(|action| format!("{name}:{action}")).collect()
}
