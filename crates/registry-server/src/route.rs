//! What a path asks for (distribution-spec, "Endpoints"). Pure.
//!
//! Paths are read from the RIGHT: a repository name may itself contain `blobs`, `manifests`, `uploads` or `tags`.

use ferry_content::store::ManifestRef;
use ferry_image::{Digest, reference};
use http::Method;

use crate::query::percent_decoded;

/// The longest repository name that registries take.
const MAX_NAME: usize = 255;

/// An endpoint, with its parameters parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `/v2/`: is this a registry, and may I in?
    Ping,
    /// `/v2/_catalog`.
    Catalog,
    /// `/v2/<name>/tags/list`.
    Tags {
        /// The repository.
        repository: String,
    },
    /// `/v2/<name>/manifests/<reference>`.
    Manifest {
        /// The repository.
        repository: String,
        /// Tag or digest.
        reference: ManifestRef,
    },
    /// `/v2/<name>/blobs/<digest>`.
    Blob {
        /// The repository.
        repository: String,
        /// The blob.
        digest: Digest,
    },
    /// `/v2/<name>/blobs/uploads/`.
    Uploads {
        /// The repository.
        repository: String,
    },
    /// `/v2/<name>/blobs/uploads/<id>`.
    Upload {
        /// The repository.
        repository: String,
        /// The session.
        id: String,
    },
    /// `/v2/<name>/referrers/<digest>`.
    Referrers {
        /// The repository.
        repository: String,
        /// The subject.
        digest: Digest,
    },
}

/// Why a request has no route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No such endpoint.
    #[error("there is no such endpoint")]
    NotFound,
    /// The endpoint has other methods.
    #[error("this endpoint answers {}", .allowed.join(", "))]
    Method {
        /// The methods it has.
        allowed: &'static [&'static str],
    },
    /// The repository name does not follow the grammar.
    #[error("`{name}` is not a repository name")]
    Name {
        /// As given, shortened.
        name: String,
    },
    /// Neither tag nor digest.
    #[error("`{reference}` is neither a tag nor a digest")]
    Reference {
        /// As given, shortened.
        reference: String,
    },
    /// Not a digest.
    #[error("`{digest}` is not a digest")]
    Digest {
        /// As given, shortened.
        digest: String,
    },
}

impl Route {
    /// The methods of the endpoint.
    #[must_use]
    pub fn methods(&self) -> &'static [&'static str] {
        match self {
            Self::Ping | Self::Catalog | Self::Tags { .. } | Self::Referrers { .. } => &["GET", "HEAD"],
            Self::Manifest { .. } => &["GET", "HEAD", "PUT", "DELETE"],
            Self::Blob { .. } => &["GET", "HEAD", "DELETE"],
            Self::Uploads { .. } => &["POST"],
            Self::Upload { .. } => &["GET", "PATCH", "PUT", "DELETE"],
        }
    }

    /// The repository, where there is one.
    #[must_use]
    pub fn repository(&self) -> Option<&str> {
        match self {
            Self::Ping | Self::Catalog => None,
            Self::Tags { repository }
            | Self::Manifest { repository, .. }
            | Self::Blob { repository, .. }
            | Self::Uploads { repository }
            | Self::Upload { repository, .. }
            | Self::Referrers { repository, .. } => Some(repository),
        }
    }
}

/// The route of a request. `path` is as it was sent, without the query.
///
/// # Errors
/// [`RouteError`]; a path of a known shape is told what is wrong with its parts.
pub fn route(method: &Method, path: &str) -> Result<Route, RouteError> {
    let path = percent_decoded(path).ok_or(RouteError::NotFound)?;
    let rest = match path.strip_prefix("/v2") {
        Some("" | "/") => "",
        Some(rest) => rest.strip_prefix('/').ok_or(RouteError::NotFound)?,
        None => return Err(RouteError::NotFound),
    };
    let found = parse(rest)?;
    if !found.methods().contains(&method.as_str()) {
        return Err(RouteError::Method { allowed: found.methods() });
    }
    Ok(found)
}

fn parse(rest: &str) -> Result<Route, RouteError> {
    if matches!(rest, "" | "_catalog") {
        return Ok(if rest.is_empty() { Route::Ping } else { Route::Catalog });
    }
    let (rest, last) = rest.rsplit_once('/').ok_or(RouteError::NotFound)?;
    let (above, kind) = rest.rsplit_once('/').unwrap_or(("", rest));
    match kind {
        "tags" if last == "list" => Ok(Route::Tags { repository: name(above)? }),
        "manifests" => Ok(Route::Manifest { repository: name(above)?, reference: manifest_ref(last)? }),
        "blobs" if last == "uploads" => Ok(Route::Uploads { repository: name(above)? }),
        "blobs" => Ok(Route::Blob { repository: name(above)?, digest: digest(last)? }),
        "referrers" => Ok(Route::Referrers { repository: name(above)?, digest: digest(last)? }),
        "uploads" => {
            let (above, kind) = above.rsplit_once('/').ok_or(RouteError::NotFound)?;
            match (kind, last) {
                ("blobs", "") => Ok(Route::Uploads { repository: name(above)? }),
                ("blobs", id) => Ok(Route::Upload { repository: name(above)?, id: id.to_owned() }),
                _ => Err(RouteError::NotFound),
            }
        }
        _ => Err(RouteError::NotFound),
    }
}

fn name(text: &str) -> Result<String, RouteError> {
    if text.len() <= MAX_NAME && reference::is_path(text) {
        return Ok(text.to_owned());
    }
    Err(RouteError::Name { name: shortened(text) })
}

fn manifest_ref(text: &str) -> Result<ManifestRef, RouteError> {
    text.parse().map_err(|_| match text.contains(':') {
        true => RouteError::Digest { digest: shortened(text) },
        false => RouteError::Reference { reference: shortened(text) },
    })
}

fn digest(text: &str) -> Result<Digest, RouteError> {
    text.parse().map_err(|_| RouteError::Digest { digest: shortened(text) })
}

fn shortened(text: &str) -> String {
    text.chars().take(160).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn get(path: &str) -> Result<Route, RouteError> {
        route(&Method::GET, path)
    }

    #[test]
    fn every_endpoint_is_found() {
        let (repository, digest) = ("a/b".to_owned(), D.parse::<Digest>().expect("digest"));
        let tag = ManifestRef::Tag("v1".to_owned());
        for (method, path, expected) in [
            ("GET", "/v2/".to_owned(), Route::Ping),
            ("HEAD", "/v2".to_owned(), Route::Ping),
            ("GET", "/v2/_catalog".to_owned(), Route::Catalog),
            ("GET", "/v2/a/b/tags/list".to_owned(), Route::Tags { repository: repository.clone() }),
            (
                "PUT",
                "/v2/a/b/manifests/v1".to_owned(),
                Route::Manifest { repository: repository.clone(), reference: tag },
            ),
            (
                "DELETE",
                format!("/v2/a/b/manifests/{D}"),
                Route::Manifest { repository: repository.clone(), reference: ManifestRef::Digest(digest.clone()) },
            ),
            (
                "HEAD",
                format!("/v2/a/b/blobs/{}", D.replace(':', "%3A")),
                Route::Blob { repository: repository.clone(), digest: digest.clone() },
            ),
            ("POST", "/v2/a/b/blobs/uploads/".to_owned(), Route::Uploads { repository: repository.clone() }),
            ("POST", "/v2/a/b/blobs/uploads".to_owned(), Route::Uploads { repository: repository.clone() }),
            (
                "PATCH",
                "/v2/a/b/blobs/uploads/x1".to_owned(),
                Route::Upload { repository: repository.clone(), id: "x1".to_owned() },
            ),
            ("GET", format!("/v2/a/b/referrers/{D}"), Route::Referrers { repository, digest }),
        ] {
            let method: Method = method.parse().expect("method");
            assert_eq!(route(&method, &path), Ok(expected), "{method} {path}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for path in [
            "",
            "/",
            "/v1/",
            "/v2x",
            "/v2/a",
            "/v2/a/tags",
            "/v2/a/tags/x",
            "/v2/a/uploads/x",
            "/v2/%zz/tags/list",
            "/v2/%ff/tags/list",
        ] {
            assert_eq!(get(path), Err(RouteError::NotFound), "{path}");
        }
        for name in ["", "A", "a//b", "..", "a/../b", "a/", "-a", "a%2f..%2fb", "a%00", &"a".repeat(256)] {
            let found = get(&format!("/v2/{name}/tags/list"));
            assert!(matches!(found, Err(RouteError::Name { .. })), "{name}: {found:?}");
        }
        for tag in [".a", "a b", "", &"a".repeat(129)] {
            let path = format!("/v2/a/manifests/{tag}").replace(' ', "%20");
            assert!(matches!(get(&path), Err(RouteError::Reference { .. })), "{tag}");
        }
        for digest in ["sha256:abc", "md5:d41d8cd98f00b204e9800998ecf8427e", "x:y"] {
            for kind in ["manifests", "blobs", "referrers"] {
                let found = get(&format!("/v2/a/{kind}/{digest}"));
                assert!(matches!(found, Err(RouteError::Digest { .. })), "{kind} {digest}");
            }
        }
        assert_eq!(route(&Method::POST, "/v2/a/tags/list"), Err(RouteError::Method { allowed: &["GET", "HEAD"] }));
        assert_eq!(get("/v2/a/blobs/uploads/"), Err(RouteError::Method { allowed: &["POST"] }));
    }

    /// Names of ordinary segments and of the very words that endpoints are made of.
    fn names() -> impl Strategy<Value = String> {
        let segment = prop_oneof![
            Just("blobs".to_owned()),
            Just("manifests".to_owned()),
            Just("uploads".to_owned()),
            Just("tags".to_owned()),
            Just("list".to_owned()),
            Just("referrers".to_owned()),
            Just("v2".to_owned()),
            "[a-z0-9]{1,8}([._-][a-z0-9]{1,4})?",
        ];
        prop::collection::vec(segment, 1..6).prop_map(|segments| segments.join("/"))
    }

    proptest! {
        #[test]
        fn any_repository_name_comes_through_whole(
            repository in names(), tag in "[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", id in "[0-9a-f]{32}",
        ) {
            let digest: Digest = D.parse().expect("digest");
            let post = route(&Method::POST, &format!("/v2/{repository}/blobs/uploads/"));
            prop_assert_eq!(post, Ok(Route::Uploads { repository: repository.clone() }));
            for (path, expected) in [
                ("tags/list".to_owned(), Route::Tags { repository: repository.clone() }),
                (format!("manifests/{tag}"), Route::Manifest { repository: repository.clone(), reference: ManifestRef::Tag(tag) }),
                (format!("manifests/{D}"), Route::Manifest { repository: repository.clone(), reference: ManifestRef::Digest(digest.clone()) }),
                (format!("blobs/{D}"), Route::Blob { repository: repository.clone(), digest: digest.clone() }),
                (format!("blobs/uploads/{id}"), Route::Upload { repository: repository.clone(), id }),
                (format!("referrers/{D}"), Route::Referrers { repository: repository.clone(), digest }),
            ] {
                prop_assert_eq!(get(&format!("/v2/{repository}/{path}")), Ok(expected));
            }
        }

        #[test]
        fn no_path_panics_or_yields_a_name_that_climbs(path in "(/v2)?(/|[a-zA-Z0-9._:%-]|\\PC|blobs|uploads|manifests|tags/list){0,40}") {
            if let Ok(found) = get(&path) && let Some(repository) = found.repository() {
                prop_assert!(reference::is_path(repository));
                prop_assert!(!repository.split('/').any(|s| s.is_empty() || s.starts_with('.')));
            }
        }
    }
}
