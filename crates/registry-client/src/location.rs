//! `Location` of redirects and upload sessions: relative or absolute, on the same host or another, with a query. Pure.

use url::Url;

/// The address that `location` names, seen from the answer at `base`.
///
/// Never leads from https to http: a registry behind a TLS-terminating proxy often writes `http://` and its own name; that is
/// corrected to https. An `http://` address elsewhere is refused.
///
/// # Errors
/// What is wrong with it, for people.
pub(crate) fn resolve(base: &Url, location: &str) -> Result<Url, &'static str> {
    let mut url = base.join(location.trim()).map_err(|_| "is not an address")?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err("is not an http or https address");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("contains a user name");
    }
    url.set_fragment(None);
    if base.scheme() == "https" && url.scheme() == "http" {
        if url.host_str() != base.host_str() || !matches!(url.port(), None | Some(80)) && url.port() != base.port() {
            return Err("leads from https to http");
        }
        let port = base.port();
        if url.set_scheme("https").is_err() || url.set_port(port).is_err() {
            return Err("leads from https to http");
        }
    }
    Ok(url)
}

/// Whether two addresses are of one origin, so that what authorises at one may be sent to the other.
pub(crate) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme() && a.host_str() == b.host_str() && a.port_or_known_default() == b.port_or_known_default()
}

/// The address for the last request of an upload: the session's own query stays as it was.
pub(crate) fn with_digest(session: &Url, digest: &str) -> Url {
    let mut url = session.clone();
    url.query_pairs_mut().append_pair("digest", digest);
    url
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resolved(base: &str, location: &str) -> Result<String, &'static str> {
        resolve(&Url::parse(base).unwrap(), location).map(String::from)
    }

    #[test]
    fn locations_as_registries_write_them() {
        let base = "https://r.example:5000/v2/a/blobs/uploads/?mount=x";
        let table = [
            ("/v2/a/blobs/uploads/1?_state=b%3D", Ok("https://r.example:5000/v2/a/blobs/uploads/1?_state=b%3D")),
            ("https://other.example/u?x=1#frag", Ok("https://other.example/u?x=1")),
            ("//other.example/u", Ok("https://other.example/u")),
            ("2", Ok("https://r.example:5000/v2/a/blobs/uploads/2")),
            ("http://r.example/v2/u", Ok("https://r.example:5000/v2/u")),
            ("http://r.example:5000/v2/u", Ok("https://r.example:5000/v2/u")),
            ("http://r.example:81/v2/u", Err("leads from https to http")),
            ("http://other.example/u", Err("leads from https to http")),
            ("ftp://r.example/u", Err("is not an http or https address")),
            ("https://user:pw@r.example/u", Err("contains a user name")),
            ("http://[", Err("is not an address")),
        ];
        for (location, expected) in table {
            assert_eq!(resolved(base, location), expected.map(str::to_owned), "{location}");
        }
        assert_eq!(resolved("http://a/x", "http://b/y"), Ok("http://b/y".to_owned()));
    }

    #[test]
    fn the_digest_is_added_and_the_session_left_alone() {
        let url = |t: &str| Url::parse(t).unwrap();
        assert_eq!(
            with_digest(&url("http://a/u?_state=x%2F=="), "sha256:0").as_str(),
            "http://a/u?_state=x%2F==&digest=sha256%3A0"
        );
        assert_eq!(with_digest(&url("http://a/u"), "sha256:0").as_str(), "http://a/u?digest=sha256%3A0");
    }

    proptest! {
        #[test]
        fn https_never_becomes_http(location in "(http:|https:)?/?/?[a-z0-9.:/?@\\[\\]]{0,30}") {
            if let Ok(url) = resolve(&Url::parse("https://r.example/v2/").unwrap(), &location) {
                prop_assert_eq!(url.scheme(), "https");
            }
        }

        #[test]
        fn an_address_resolves_to_itself_and_a_path_stays_at_home(
            base in "https?://[a-z]{1,5}\\.example(:[0-9]{2,4})?/v2/", path in "/[a-z0-9/._-]{0,20}(\\?[a-z0-9=&%]{0,10})?",
            other in "https?://[a-z]{1,5}\\.example(:[0-9]{2,4})?",
        ) {
            let base = Url::parse(&base).unwrap();
            for location in [path.clone(), format!("{other}{path}")] {
                let Ok(url) = resolve(&base, &location) else { continue };
                prop_assert_eq!(resolve(&base, url.as_str()), Ok(url.clone()));
                prop_assert_eq!(same_origin(&base, &url), base.origin() == url.origin());
            }
            let at_home = path.starts_with("//") || resolve(&base, &path).is_ok_and(|url| same_origin(&base, &url));
            prop_assert!(at_home, "{} from {}", path, base);
        }

        #[test]
        fn the_session_s_query_is_not_touched(query in "[a-zA-Z0-9=&%._~+/-]{0,30}") {
            let session = Url::parse(&format!("https://r.example/u?{query}")).unwrap();
            let gap = if query.is_empty() { "" } else { "&" };
            let expected = format!("https://r.example/u?{query}{gap}digest=sha256%3A0");
            prop_assert_eq!(String::from(with_digest(&session, "sha256:0")), expected);
        }
    }
}
