//! What clients ask of the embedded registry.

use std::sync::LazyLock;

use ferry_image::{Digest, reference};
use ferry_registry_server::{ManifestRef, Route, RouteError};
use ferry_registry_server::{fuzz as server, route as ask};
use http::Method;
use regex::Regex;

/// The endpoints of the distribution specification, each with a name that takes as much as it can.
static ENDPOINTS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    let word = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*";
    let name = format!("(?P<name>{word}(?:/{word})*)");
    let digest = "sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}";
    let endpoints = [
        "/v2/?$".to_owned(),
        "/v2/_catalog$".to_owned(),
        format!("/v2/{name}/tags/list$"),
        format!("/v2/{name}/manifests/(?:{digest}|[a-zA-Z0-9_][a-zA-Z0-9._-]{{0,127}})$"),
        format!("/v2/{name}/blobs/(?:{digest})$"),
        format!("/v2/{name}/blobs/uploads/?$"),
        format!("/v2/{name}/blobs/uploads/[^/]+$"),
        format!("/v2/{name}/referrers/(?:{digest})$"),
    ];
    endpoints.iter().map(|e| Regex::new(&format!("^{e}")).expect("expression")).collect()
});

/// `METHOD PATH?QUERY`.
pub fn route(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (method, target) = text.split_once(' ').unwrap_or(("GET", text));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let Ok(method) = method.parse::<Method>() else { return };
    for key in ["digest", "mount", "from", "n", "last", "artifactType"] {
        if let Some(value) = server::query(query, key) {
            assert_eq!(server::query(&format!("{key}={}", server::percent_encoded(&value)), key), Some(value));
        }
    }
    let Some(decoded) = server::percent_decoded(path) else {
        assert_eq!(ask(&method, path), Err(RouteError::NotFound));
        return;
    };
    assert_eq!(server::percent_decoded(&server::percent_encoded(&decoded)).as_ref(), Some(&decoded));
    let endpoint =
        ENDPOINTS.iter().any(|e| e.captures(&decoded).is_some_and(|c| c.name("name").is_none_or(|n| n.len() <= 255)));
    match ask(&method, path) {
        Ok(found) => {
            assert!(endpoint, "{path} is no endpoint, but {found:?}");
            assert!(found.methods().contains(&method.as_str()));
            assert!(found.repository().is_none_or(|name| name.len() <= 255 && reference::is_path(name)));
            let again = ask(&method, &server::percent_encoded(&path_of(&found)));
            assert_eq!(again, Ok(found), "{path}");
        }
        Err(RouteError::Method { allowed }) => assert!(endpoint && !allowed.contains(&method.as_str())),
        Err(error) => assert!(!endpoint, "{path} is an endpoint, but {error}"),
    }
}

fn path_of(found: &Route) -> String {
    let under = |digest: &Digest, repository: &str, kind: &str| format!("/v2/{repository}/{kind}/{digest}");
    match found {
        Route::Ping => "/v2/".to_owned(),
        Route::Catalog => "/v2/_catalog".to_owned(),
        Route::Tags { repository } => format!("/v2/{repository}/tags/list"),
        Route::Manifest { repository, reference: ManifestRef::Tag(tag) } => format!("/v2/{repository}/manifests/{tag}"),
        Route::Manifest { repository, reference: ManifestRef::Digest(digest) } => {
            under(digest, repository, "manifests")
        }
        Route::Blob { repository, digest } => under(digest, repository, "blobs"),
        Route::Uploads { repository } => format!("/v2/{repository}/blobs/uploads/"),
        Route::Upload { repository, id } => format!("/v2/{repository}/blobs/uploads/{id}"),
        Route::Referrers { repository, digest } => under(digest, repository, "referrers"),
    }
}
