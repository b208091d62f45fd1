//! The private readers of what registries send, for the fuzz targets and nobody else. Thin: one call each.
#![allow(missing_docs, clippy::missing_errors_doc, clippy::must_use_candidate)]

use std::ops::Range;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use tokio::time::Instant;
use url::Url;

use crate::credentials::Credential;
use crate::quota::Quota;
use crate::{Commands, Credentials, Source};

/// Schemes with their parameters.
pub fn challenges(header: &str) -> Vec<(String, Vec<(String, String)>)> {
    crate::challenge::parse(header).into_iter().map(|c| (c.scheme, c.parameters)).collect()
}

pub fn next_link(header: &str) -> Option<&str> {
    crate::link::next(header)
}

pub fn resolve(base: &Url, location: &str) -> Result<Url, &'static str> {
    crate::location::resolve(base, location)
}

pub fn same_origin(a: &Url, b: &Url) -> bool {
    crate::location::same_origin(a, b)
}

pub fn with_digest(session: &Url, digest: &str) -> Url {
    crate::location::with_digest(session, digest)
}

/// The bytes and the size of the whole.
pub fn content_range(value: &str) -> Option<(Range<u64>, Option<u64>)> {
    crate::range::content_range(value).map(|found| (found.bytes, found.total))
}

pub fn range_header(range: &Range<u64>) -> String {
    crate::range::range_header(range)
}

/// The size that stands beside a 416.
pub fn unsatisfied(value: &str) -> Option<u64> {
    crate::range::unsatisfied(value)
}

pub fn chunk_range(range: &Range<u64>) -> String {
    crate::range::chunk_range(range)
}

/// How much of an upload a registry has.
pub fn uploaded(value: &str) -> Option<u64> {
    crate::range::uploaded(value)
}

pub fn quota(headers: &http::HeaderMap, now: SystemTime) -> Option<Quota> {
    crate::quota::read(headers, now)
}

pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    crate::retry::retry_after(value, now)
}

/// Code and message.
pub fn refusal(body: &[u8]) -> (String, String) {
    let words = crate::reply::words(body);
    (words.code, words.message)
}

/// The value of `Authorization`.
pub fn token(body: &[u8]) -> Result<http::HeaderValue, String> {
    let (since, now) = (Instant::now(), SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    crate::token::read(body, since, now).map(|token| {
        assert!(token.fresh_until > since);
        token.header
    })
}

pub fn tags(body: &[u8]) -> Result<Vec<String>, serde_json::Error> {
    crate::repository::tag_page(body)
}

pub fn catalog(body: &[u8]) -> Result<Vec<String>, serde_json::Error> {
    crate::catalog::page(body)
}

/// What a docker `config.json` says for a repository: name and secret. No program is ever run.
pub fn credential(file: &[u8], host: &str, repository: &str) -> Result<Option<(String, String)>, String> {
    let source = Source::File { path: "config.json".into(), bytes: file.to_vec() };
    let all = Credentials::from_sources([source], Commands::default()).map_err(|e| format!("{e} {e:?}"))?;
    let found = all.find(host, repository).now_or_never().ok_or("it waits")?.map_err(|e| format!("{e} {e:?}"))?;
    Ok(found.map(|credential| match credential {
        Credential::Basic { username, password } => (username, password.reveal().to_owned()),
        Credential::IdentityToken(token) => ("identity".to_owned(), token.reveal().to_owned()),
        Credential::RegistryToken(token) => ("registry".to_owned(), token.reveal().to_owned()),
    }))
}
