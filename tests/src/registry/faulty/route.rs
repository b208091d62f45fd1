//! What a path asks for (distribution-spec, "Endpoints"). Pure; read from the right, since names may hold any of its words.

/// A request's meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Ping,
    Manifest { repository: String, reference: String },
    Blob { repository: String, digest: String },
    Uploads { repository: String },
    Session { repository: String, id: u64 },
    Tags { repository: String },
    Token,
    Unknown,
}

impl Route {
    /// What a token must allow.
    pub(super) fn repository(&self) -> Option<&str> {
        match self {
            Self::Manifest { repository, .. }
            | Self::Blob { repository, .. }
            | Self::Uploads { repository }
            | Self::Session { repository, .. }
            | Self::Tags { repository } => Some(repository),
            Self::Ping | Self::Token | Self::Unknown => None,
        }
    }
}

/// Reads a path with its query.
pub(super) fn read(path: &str) -> Route {
    let path = path.split('?').next().unwrap_or_default();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let name = |parts: &[&str]| parts.join("/");
    match parts.as_slice() {
        ["token"] => Route::Token,
        ["v2"] | ["v2", ""] => Route::Ping,
        ["v2", repository @ .., "manifests", reference] => {
            Route::Manifest { repository: name(repository), reference: (*reference).to_owned() }
        }
        ["v2", repository @ .., "blobs", "uploads", ""] => Route::Uploads { repository: name(repository) },
        ["v2", repository @ .., "blobs", "uploads", id] if id.parse::<u64>().is_ok() => {
            Route::Session { repository: name(repository), id: id.parse().unwrap() }
        }
        ["v2", repository @ .., "blobs", digest] => {
            Route::Blob { repository: name(repository), digest: (*digest).to_owned() }
        }
        ["v2", repository @ .., "tags", "list"] => Route::Tags { repository: name(repository) },
        _ => Route::Unknown,
    }
}

/// A value of the query, percent-encoding undone.
pub(super) fn query(path: &str, name: &str) -> Option<String> {
    let (_, query) = path.split_once('?')?;
    queries(query).into_iter().find(|(n, _)| n == name).map(|(_, value)| value)
}

/// Every pair of a query or a form.
pub(super) fn queries(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), crate::registry::token::decode(&value.replace('+', " ")))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_from_the_right() {
        let blob = Route::Blob { repository: "a/blobs/b".into(), digest: "sha256:0".into() };
        assert_eq!(read("/v2/a/blobs/b/blobs/sha256:0?x=1"), blob);
        assert_eq!(read("/v2/a/b/blobs/uploads/?mount=x"), Route::Uploads { repository: "a/b".into() });
        assert_eq!(read("/v2/a/b/blobs/uploads/7"), Route::Session { repository: "a/b".into(), id: 7 });
        assert_eq!(read("/v2/a/tags/list?n=1"), Route::Tags { repository: "a".into() });
        assert_eq!(read("/v2/"), Route::Ping);
        assert_eq!(read("/v3/"), Route::Unknown);
        assert_eq!(query("/token?scope=repository%3Aa%3Apull+x&b=1", "scope").as_deref(), Some("repository:a:pull x"));
    }
}
