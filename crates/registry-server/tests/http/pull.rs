use std::sync::Arc;

use base64::Engine as _;
use ferry_image::Digest;
use ferry_image::media_type::{OCI_INDEX, OCI_MANIFEST};
use ferry_registry_server::{Access, Settings, Users};
use http::StatusCode;
use serde_json::json;

use crate::site::{Image, Site};

#[tokio::test]
async fn the_ping_says_what_this_is() {
    let site = Site::with_store(Settings::default());
    for path in ["/v2/", "/v2"] {
        let answer = site.get(path).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0");
    }
}

#[tokio::test]
async fn a_manifest_comes_by_tag_and_by_digest_with_its_headers() {
    let site = Site::with_store(Settings::default());
    let image = Image::new("one");
    image.put(site.store(), "a/b", Some("v1"));
    for reference in ["v1".to_owned(), image.digest.to_string()] {
        for method in ["GET", "HEAD"] {
            let answer = site.ask(&format!("{method} /v2/a/b/manifests/{reference}"), &[], b"").await;
            assert_eq!(answer.status, StatusCode::OK);
            assert_eq!(answer.header("content-type"), OCI_MANIFEST);
            assert_eq!(answer.header("docker-content-digest"), image.digest.to_string());
            assert_eq!(answer.header("content-length"), image.manifest.len().to_string());
            assert_eq!(answer.body(), if method == "GET" { image.manifest.as_slice() } else { b"" });
        }
    }
    for path in ["/v2/a/b/manifests/v2", "/v2/a/manifests/v1", &format!("/v2/a/manifests/{}", image.digest)] {
        let answer = site.get(path).await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"), "{path}");
    }
}

#[tokio::test]
async fn blobs_come_whole_and_in_ranges() {
    let site = Site::with_store(Settings::default());
    let image = Image::new("one");
    image.put(site.store(), "r", Some("t"));
    let path = format!("/v2/r/blobs/{}", Digest::of(&image.layer));
    let size = image.layer.len();
    for (range, expected) in
        [("bytes=0-9", 0..10), ("bytes=10-", 10..size), ("bytes=-7", size - 7..size), ("bytes=0-", 0..size)]
    {
        let answer = site.ask(&format!("GET {path}"), &[("range", range)], b"").await;
        assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT);
        assert_eq!(answer.body(), &image.layer[expected.clone()], "{range}");
        assert_eq!(answer.header("content-range"), format!("bytes {}-{}/{size}", expected.start, expected.end - 1));
        assert_eq!(answer.header("content-length"), expected.len().to_string());
    }
    let answer = site.ask(&format!("GET {path}"), &[("range", &format!("bytes={size}-"))], b"").await;
    assert_eq!(answer.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(answer.header("content-range"), format!("bytes */{size}"));
    let whole = site.get(&path).await;
    assert_eq!((whole.status, whole.body()), (StatusCode::OK, image.layer.as_slice()));
    assert_eq!(whole.header("accept-ranges"), "bytes");
    let head = site.ask(&format!("HEAD {path}"), &[], b"").await;
    assert_eq!((head.status, head.header("content-length")), (StatusCode::OK, size.to_string().as_str()));
    let absent = site.get(&format!("/v2/r/blobs/{}", Digest::of(b"absent"))).await;
    assert_eq!((absent.status, absent.code().as_str()), (StatusCode::NOT_FOUND, "BLOB_UNKNOWN"));
}

#[tokio::test]
async fn an_empty_blob_is_served_too() {
    let site = Site::with_store(Settings::default());
    let blob = site.store().put_blob("x", b"").expect("put");
    let answer = site.get(&format!("/v2/r/blobs/{}", blob.digest)).await;
    assert_eq!((answer.status, answer.header("content-length"), answer.body()), (StatusCode::OK, "0", b"".as_ref()));
}

#[tokio::test]
async fn tags_and_repositories_are_listed_in_pages() {
    let site = Site::with_store(Settings::default());
    let image = Image::new("one");
    for tag in ["c", "a", "b"] {
        image.put(site.store(), "x/y", Some(tag));
    }
    image.put(site.store(), "tags", None);
    assert_eq!(site.get("/v2/x/y/tags/list").await.json(), json!({"name": "x/y", "tags": ["a", "b", "c"]}));
    let first = site.get("/v2/x/y/tags/list?n=2").await;
    assert_eq!(first.json()["tags"], json!(["a", "b"]));
    assert_eq!(first.header("link"), "</v2/x/y/tags/list?n=2&last=b>; rel=\"next\"");
    let second = site.get("/v2/x/y/tags/list?n=2&last=b").await;
    assert_eq!((second.json()["tags"].clone(), second.header("link")), (json!(["c"]), ""));
    assert_eq!(site.get("/v2/tags/tags/list").await.json(), json!({"name": "tags", "tags": []}));
    let absent = site.get("/v2/absent/tags/list").await;
    assert_eq!((absent.status, absent.code().as_str()), (StatusCode::NOT_FOUND, "NAME_UNKNOWN"));
    assert_eq!(site.get("/v2/_catalog").await.json(), json!({"repositories": ["tags", "x/y"]}));
    assert_eq!(site.get("/v2/_catalog?n=1").await.header("link"), "</v2/_catalog?n=1&last=tags>; rel=\"next\"");
    assert_eq!(site.get("/v2/_catalog?n=x").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn what_cannot_be_is_refused_in_the_specified_words() {
    let site = Site::with_store(Settings::default());
    for (request, status, code) in [
        ("GET /v3/", StatusCode::NOT_FOUND, "UNSUPPORTED"),
        ("GET /v2/A/tags/list", StatusCode::BAD_REQUEST, "NAME_INVALID"),
        ("GET /v2/_catalog/tags/list", StatusCode::BAD_REQUEST, "NAME_INVALID"),
        // nothing can be there, says the suite; a push of it is a mistake
        ("GET /v2/a/manifests/.x", StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
        ("HEAD /v2/a/manifests/.x", StatusCode::NOT_FOUND, ""),
        ("PUT /v2/a/manifests/.x", StatusCode::BAD_REQUEST, "TAG_INVALID"),
        ("GET /v2/a/blobs/sha256:12", StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
        ("GET /v2/a/../../etc/passwd/blobs/sha256:12", StatusCode::BAD_REQUEST, "NAME_INVALID"),
        ("POST /v2/a/tags/list", StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
        ("DELETE /v2/a/manifests/t", StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
        (&format!("DELETE /v2/a/blobs/{}", Digest::of(b"")), StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
        (&format!("GET /v2/a/manifests/{}?tag=x", Digest::of(b"")), StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
    ] {
        let answer = site.ask(request, &[], b"").await;
        let found = if answer.body().is_empty() { String::new() } else { answer.code() };
        assert_eq!((answer.status, found.as_str()), (status, code), "{request}");
        assert_eq!(answer.header("allow").is_empty(), status != StatusCode::METHOD_NOT_ALLOWED, "{request}");
    }
}

#[tokio::test]
async fn referrers_are_an_index_and_can_be_filtered() {
    let site = Site::with_store(Settings::default());
    let image = Image::new("one");
    image.put(site.store(), "r", Some("t"));
    let path = format!("/v2/r/referrers/{}", image.digest);
    let none = site.get(&path).await;
    assert_eq!((none.status, none.header("content-type")), (StatusCode::OK, OCI_INDEX));
    assert_eq!(none.json()["manifests"], json!([]));

    let config = site.store().put_blob("application/vnd.oci.empty.v1+json", b"{}").expect("config");
    let signature = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "application/vnd.sig",
        "config": config, "layers": [], "subject": {"mediaType": OCI_MANIFEST, "digest": image.digest, "size": image.manifest.len()}})
    .to_string();
    let put = site.ask("PUT /v2/r/manifests/sig", &[("content-type", OCI_MANIFEST)], signature.as_bytes()).await;
    assert_eq!((put.status, put.header("oci-subject")), (StatusCode::CREATED, image.digest.to_string().as_str()));
    let found = site.get(&path).await.json();
    assert_eq!(found["manifests"][0]["digest"], json!(Digest::of(signature.as_bytes())));
    let filtered = site.get(&format!("{path}?artifactType=application%2Fvnd.sig")).await;
    assert_eq!(filtered.header("oci-filters-applied"), "artifactType");
    assert_eq!(filtered.json()["manifests"].as_array().expect("list").len(), 1);
    assert_eq!(site.get(&format!("{path}?artifactType=x")).await.json()["manifests"], json!([]));
}

#[tokio::test]
async fn a_password_opens_and_nothing_else() {
    let users = Arc::new(Users::from_iter([("ann", "secret")]));
    let right = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode("ann:secret"));
    let site = Site::with_store(Settings { access: Access::Users(users.clone()), ..Settings::default() });
    for headers in [vec![], vec![("authorization", "Basic YW5uOndyb25n")], vec![("authorization", "Bearer x")]] {
        // Before anything else: also a path that does not exist tells nothing.
        for path in ["/v2/", "/v2/A/tags/list", "/nothing"] {
            let answer = site.ask(&format!("GET {path}"), &headers, b"").await;
            assert_eq!((answer.status, answer.code().as_str()), (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"));
            assert!(answer.header("www-authenticate").starts_with("Basic realm="));
        }
    }
    assert_eq!(site.ask("GET /v2/", &[("authorization", &right)], b"").await.status, StatusCode::OK);

    let site = Site::with_store(Settings { access: Access::UsersToPush(users), ..Settings::default() });
    let begin = "POST /v2/r/blobs/uploads/";
    assert_eq!(site.ask(begin, &[], b"").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(site.ask(begin, &[("authorization", &right)], b"").await.status, StatusCode::ACCEPTED);
}
