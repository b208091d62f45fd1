//! `/v2/`, the catalog, tags, referrers.

use bytes::Bytes;
use ferry_image::{Digest, media_type};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LINK};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::Registry;
use crate::body::{self, Body};
use crate::query::{Query, percent_encoded};
use crate::refusal::Refusal;
use crate::registry::Asked;

pub(crate) fn ping() -> Response<Body> {
    answer("application/json", &json!({}))
}

pub(crate) async fn catalog(registry: &Registry, asked: &Asked) -> Result<Response<Body>, Refusal> {
    let page = Page::of(&asked.query)?;
    let _turn = registry.large.turn().await;
    let all = registry.ask(|backend| backend.repositories()).await?;
    let (repositories, next) = page.cut(&all);
    let response = list(registry, &json!({"repositories": repositories}))?;
    Ok(linked(response, "/v2/_catalog", next))
}

pub(crate) async fn tags(registry: &Registry, asked: &Asked, repository: String) -> Result<Response<Body>, Refusal> {
    let page = Page::of(&asked.query)?;
    let name = asked.name(repository.clone());
    let Some(all) = registry.ask(move |backend| backend.tags(&name)).await? else {
        return Err(Refusal::not_found("NAME_UNKNOWN", format!("there is no repository `{repository}`")));
    };
    let (tags, next) = page.cut(&all);
    let response = list(registry, &json!({"name": repository, "tags": tags}))?;
    Ok(linked(response, &format!("/v2/{repository}/tags/list"), next))
}

pub(crate) async fn referrers(
    registry: &Registry,
    asked: &Asked,
    repository: String,
    digest: Digest,
) -> Result<Response<Body>, Refusal> {
    let name = asked.name(repository);
    let mut found = registry.ask(move |backend| backend.referrers(&name, &digest)).await?;
    let wanted = asked.query.value("artifactType").filter(|t| !t.is_empty());
    if let Some(wanted) = wanted {
        found.retain(|descriptor| descriptor.artifact_type.as_deref() == Some(wanted));
    }
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": found});
    let mut response = answer(media_type::OCI_INDEX, &index);
    if wanted.is_some() {
        response.headers_mut().insert("oci-filters-applied", HeaderValue::from_static("artifactType"));
    }
    Ok(response)
}

fn list(registry: &Registry, value: &Value) -> Result<Response<Body>, Refusal> {
    Ok(with("application/json", registry.large.share(value.to_string())?))
}

pub(crate) fn answer(media_type: &'static str, value: &Value) -> Response<Body> {
    with(media_type, value.to_string().into())
}

fn with(media_type: &'static str, bytes: Bytes) -> Response<Body> {
    let length = HeaderValue::from(bytes.len());
    let mut response = Response::new(body::full(bytes));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(CONTENT_LENGTH, length);
    response
}

fn linked(mut response: Response<Body>, path: &str, next: Option<String>) -> Response<Body> {
    let link = next.and_then(|query| HeaderValue::try_from(format!("<{path}?{query}>; rel=\"next\"")).ok());
    if let Some(link) = link {
        response.headers_mut().insert(LINK, link);
    }
    response
}

/// The most items of one slice. Who asks for no slice gets all: clients that do not know of slices would take one for the whole.
const MOST: usize = 1000;

/// A slice of a list (distribution-spec, "Listing Tags").
#[derive(Debug)]
struct Page {
    n: Option<usize>,
    last: Option<String>,
}

impl Page {
    fn of(query: &Query) -> Result<Self, Refusal> {
        let n = query.value("n").filter(|n| !n.is_empty()).map(str::parse).transpose();
        let n = n.map_err(|_| {
            Refusal::new(StatusCode::BAD_REQUEST, "PAGINATION_NUMBER_INVALID", "`n` must be a number of 0 or more")
        })?;
        let last = query.value("last").map(ToOwned::to_owned);
        // who knows where to go on knows of slices
        let n = n.or(last.as_ref().map(|_| MOST)).map(|n: usize| n.min(MOST));
        Ok(Self { n, last })
    }

    /// The items of this page, and the query of the next one. `last` need not be an item.
    fn cut<'a>(&self, all: &'a [String]) -> (&'a [String], Option<String>) {
        let start = self.last.as_ref().map_or(0, |last| all.partition_point(|item| item <= last));
        let end = self.n.map_or(all.len(), |n| start.saturating_add(n).min(all.len()));
        let items = &all[start..end];
        let next = match (self.n, items.last()) {
            (Some(n), Some(last)) if end < all.len() => Some(format!("n={n}&last={}", percent_encoded(last))),
            _ => None,
        };
        (items, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_one_another_to_the_end() {
        let all: Vec<String> = ["a", "b/c", "d", "e"].map(str::to_owned).to_vec();
        let cut = |query: &str| {
            let page = Page::of(&Query::parse(Some(query))).expect("page");
            let (items, next) = page.cut(&all);
            (items.join(" "), next.unwrap_or_default())
        };
        assert_eq!(cut(""), ("a b/c d e".to_owned(), String::new()));
        assert_eq!(cut("n=2"), ("a b/c".to_owned(), "n=2&last=b/c".to_owned()));
        assert_eq!(cut("n=2&last=b/c"), ("d e".to_owned(), String::new()));
        assert_eq!(cut("n=2&last=bb"), ("d e".to_owned(), String::new()));
        assert_eq!(cut("n=0"), (String::new(), String::new()));
        assert_eq!(cut("n=9&last=z"), (String::new(), String::new()));
        assert_eq!(cut("last=d"), ("e".to_owned(), String::new()));
        assert!(Page::of(&Query::parse(Some("n=-1"))).is_err());
        let all: Vec<String> = (0..2500).map(|n| format!("{n:04}")).collect();
        for (query, count, next) in [
            ("", 2500, None),
            ("n=9999", MOST, Some("n=1000&last=0999")),
            ("last=0999", MOST, Some("n=1000&last=1999")),
            ("n=1000&last=1999", 500, None),
        ] {
            let page = Page::of(&Query::parse(Some(query))).expect("page");
            let (items, found) = page.cut(&all);
            assert_eq!((items.len(), found.as_deref()), (count, next), "{query}");
        }
        assert!(Page::of(&Query::parse(Some("n=x"))).is_err());
    }
}
