//! Blobs and manifests coming out.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ferry_content::{Failure as _, Kind, Provider as _, read_all};
use ferry_image::{Digest, media_type};
use ferry_registry_client::{Error, Repository};
use futures_util::StreamExt as _;

use crate::server::{Answer, Seen, Server, answer};
use crate::{blob, repository, shown};

const CONTENT: &[u8] = b"0123456789abcdef";

/// Serves ranges of `CONTENT` as it should be done.
fn content(seen: &Seen) -> Answer {
    let Some(range) = seen.header("range").and_then(|r| r.strip_prefix("bytes=")) else {
        return answer(200).body(CONTENT);
    };
    let (first, last) = range.split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    answer(206).header("content-range", format!("bytes {first}-{last}/16")).body(&CONTENT[first..=last])
}

async fn read(repository: &Repository, range: std::ops::Range<u64>) -> Result<Vec<u8>, ferry_content::Error> {
    let mut stream = repository.open(&blob(CONTENT), range).await?;
    let mut all = Vec::new();
    while let Some(chunk) = stream.next().await {
        all.extend_from_slice(&chunk?);
    }
    Ok(all)
}

#[tokio::test]
async fn a_whole_blob_and_a_range_of_it_take_one_request_each() {
    let server = Server::start(content).await;
    let repository = repository(&server);
    assert_eq!(read(&repository, 0..16).await.unwrap(), CONTENT);
    assert_eq!(read(&repository, 4..10).await.unwrap(), &CONTENT[4..10]);
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].path, format!("/v2/team/app/blobs/{}", Digest::of(CONTENT)));
    assert_eq!((seen[0].header("range"), seen[0].header("accept-encoding")), (None, Some("identity")));
    assert_eq!(seen[1].header("range"), Some("bytes=4-9"));
    assert_eq!(server.lines()[0], "GET /v2/");
    assert!(repository.is_remote());
}

#[tokio::test]
async fn an_ignored_range_is_told_and_remembered() {
    let server = Server::start(|_| answer(200).body(CONTENT)).await;
    let repository = repository(&server);
    let error = read(&repository, 4..10).await.unwrap_err();
    assert!(matches!(error, ferry_content::Error::NoRanges { .. }), "{error}");
    assert!(!repository.is_remote());
    assert_eq!(read(&repository, 0..16).await.unwrap(), CONTENT, "the whole can still be had");
}

#[tokio::test]
async fn another_range_than_asked_for_is_refused() {
    let server = Server::start(|_| answer(206).header("content-range", "bytes 0-5/16").body(&CONTENT[..6])).await;
    let error = read(&repository(&server), 4..10).await.unwrap_err();
    assert!(error.to_string().contains("answers with 0..6"), "{error}");
    let server = Server::start(|_| answer(206).header("content-range", "bytes 4-9/99").body(&CONTENT[4..10])).await;
    let error = read(&repository(&server), 4..10).await.unwrap_err();
    assert!(matches!(error, ferry_content::Error::SizeMismatch { found: 99, .. }), "{error}");
    let server = Server::start(|_| answer(206).body(&CONTENT[4..10])).await;
    assert!(read(&repository(&server), 4..10).await.is_err());
}

#[tokio::test]
async fn a_body_that_breaks_off_or_stalls_may_be_asked_for_again() {
    let server = Server::start(|_| answer(200).body(&CONTENT[..9]).length(16)).await;
    let error = read(&repository(&server), 0..16).await.unwrap_err();
    assert!(error.is_transient() && error.kind() == Kind::Remote, "{error}");
    assert!(error.to_string().contains("broke off after 9 of 16 bytes"), "{error}");
    let server = Server::start(|_| answer(200).body(&CONTENT[..9]).length(16).stalling()).await;
    let error = read(&repository(&server), 0..16).await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("nothing came"), "{error}");
}

#[tokio::test]
async fn never_more_bytes_than_asked_for() {
    let server = Server::start(|_| answer(200).body([CONTENT, b"more"].concat())).await;
    let error = read(&repository(&server), 0..16).await.unwrap_err();
    assert!(matches!(error, ferry_content::Error::SizeMismatch { expected: 16, found: 20, .. }), "{error}");
    assert_eq!(error.kind(), Kind::Untrusted);
}

#[tokio::test]
async fn an_empty_blob_can_be_read() {
    let server = Server::start(|_| answer(200)).await;
    assert_eq!(read_all(&repository(&server), &blob(b""), 10).await.unwrap(), "");
}

#[tokio::test]
async fn a_redirect_to_another_host_does_not_see_who_we_are() {
    let store = Server::start(content).await;
    let target = store.host.clone();
    let server = Server::start(move |seen| match (seen.path.as_str(), seen.header("authorization")) {
        (_, None) => answer(401).header("www-authenticate", "Basic realm=\"r\""),
        (path, Some(_)) if path.contains("/blobs/") => {
            answer(307).header("location", format!("http://{target}/store?signature=1"))
        }
        _ => answer(200),
    })
    .await;
    let repository = crate::auth::client(&server, "me", "pw").repository(&server.host, "team/app").unwrap();
    assert_eq!(read(&repository, 4..10).await.unwrap(), &CONTENT[4..10]);
    assert!(server.seen()[0].header("authorization").is_some());
    let seen = store.seen();
    assert_eq!((seen[0].path.as_str(), seen[0].header("range")), ("/store?signature=1", Some("bytes=4-9")));
    assert_eq!(seen[0].header("authorization"), None);
}

#[tokio::test]
async fn redirects_end() {
    let server = Server::start(|seen| match seen.path.as_str() {
        "/v2/" => answer(200),
        path => answer(302).header("location", path),
    })
    .await;
    let error = read(&repository(&server), 0..16).await.unwrap_err();
    assert!(error.to_string().contains("more than 10 redirects"), "{error}");
}

#[tokio::test]
async fn failures_that_pass_are_waited_out_and_others_are_not() {
    let count = AtomicUsize::new(0);
    let server = Server::start(move |seen| match (seen.path.as_str(), count.fetch_add(1, Ordering::Relaxed)) {
        ("/v2/", _) => answer(200),
        (_, 1) => answer(503).body("<html><h1>busy</h1></html>"),
        (_, 2) => answer(429).header("retry-after", "0"),
        (_, 3) => answer(500),
        _ => content(seen),
    })
    .await;
    assert_eq!(read(&repository(&server), 0..16).await.unwrap(), CONTENT);
    assert_eq!(server.seen().len(), 4);

    let server = Server::start(|seen| answer(if seen.path == "/v2/" { 200 } else { 404 })).await;
    let error = read(&repository(&server), 0..16).await.unwrap_err();
    assert_eq!((error.kind(), error.is_transient(), server.seen().len()), (Kind::Missing, false, 1));
}

#[tokio::test]
async fn patience_ends() {
    let server =
        Server::start(|seen| answer(if seen.path == "/v2/" { 200 } else { 502 }).body("<title>Bad Gateway</title>"))
            .await;
    let error = repository(&server).manifest("v1").await.unwrap_err();
    assert_eq!((error.kind(), error.is_transient(), server.seen().len()), (Kind::Remote, false, 6));
    assert!(
        shown(&error).contains("the registry failed (502 to GET /v2/team/app/manifests/v1): Bad Gateway"),
        "{error}"
    );
}

#[tokio::test]
async fn a_manifest_is_what_its_digest_says() {
    const MANIFEST: &[u8] = br#"{"schemaVersion":2}"#;
    let server = Server::start(|seen| {
        let mut reply = answer(200).header("content-type", "application/vnd.oci.image.manifest.v1+json; charset=utf-8");
        if seen.path.ends_with("lying") {
            reply = reply.header("docker-content-digest", Digest::of(b"other").to_string());
        }
        reply.body(MANIFEST)
    })
    .await;
    let repository = repository(&server);
    let fetched = repository.manifest("v1").await.unwrap();
    assert_eq!((fetched.bytes.as_ref(), fetched.media_type.as_str()), (MANIFEST, media_type::OCI_MANIFEST));
    assert_eq!(fetched.digest, Digest::of(MANIFEST));
    let accept = server.seen()[0].header("accept").unwrap().to_owned();
    assert!(media_type::ACCEPT_MANIFESTS.iter().all(|t| accept.contains(t)), "{accept}");

    assert!(repository.manifest(&Digest::of(MANIFEST).to_string()).await.is_ok());
    for other in [Digest::of(b"x").to_string(), "lying".to_owned()] {
        let error = repository.manifest(&other).await.unwrap_err();
        assert!(matches!(error, Error::Digest { .. }), "{error}");
        assert_eq!(error.kind(), Kind::Untrusted);
    }
    let Err(error) = repository.manifest("../x").await else { panic!("that is no tag") };
    assert_eq!(error.kind(), Kind::Usage);
}

#[tokio::test]
async fn a_manifest_without_end_is_not_read() {
    let server = Server::start(|_| answer(200).body(vec![b' '; (4 << 20) + 1])).await;
    let error = repository(&server).manifest("v1").await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn asking_is_not_fetching() {
    let digest = Digest::of(b"m");
    let stated = digest.to_string();
    let server = Server::start(move |seen| match seen.path.as_str() {
        "/v2/team/app/manifests/v1" => answer(200)
            .header("docker-content-digest", &stated)
            .header("content-type", media_type::OCI_INDEX)
            .header("content-length", "77"),
        "/v2/" => answer(200),
        _ => answer(404),
    })
    .await;
    let repository = repository(&server);
    let head = repository.head("v1").await.unwrap().unwrap();
    assert_eq!((head.digest, head.media_type.as_str(), head.size), (Some(digest), media_type::OCI_INDEX, Some(77)));
    assert_eq!(repository.head("v2").await.unwrap(), None);
}

#[tokio::test]
async fn tags_come_in_pages_that_must_end() {
    let server = Server::start(|seen| match seen.path.split_once("last=") {
        _ if seen.path == "/v2/" => answer(200),
        None => answer(200)
            .header("link", r#"</v2/team/app/tags/list?last=b&n=2>; rel="next""#)
            .body(r#"{"tags":["a","b"]}"#),
        Some(("/v2/team/app/tags/list?", _)) => answer(200).body(r#"{"name":"team/app","tags":["c"]}"#),
        _ => answer(500),
    })
    .await;
    assert_eq!(repository(&server).tags(100).await.unwrap(), ["a", "b", "c"]);
    assert_eq!(repository(&server).tags(2).await.unwrap(), ["a", "b"]);

    let server = Server::start(|seen| {
        let n: usize = seen.path.rsplit('=').next().unwrap_or_default().parse().unwrap_or(0);
        answer(200)
            .header("link", format!(r#"</v2/team/app/tags/list?n={}>; rel="next""#, n + 1))
            .body(r#"{"tags":null}"#)
    })
    .await;
    let error = repository(&server).tags(20).await.unwrap_err();
    assert!(error.to_string().contains("do not end"), "{error}");
}

#[tokio::test]
async fn moved_images_are_pointed_out() {
    let error = Error::Status(Box::new(ferry_registry_client::Status {
        host: "docker.io".to_owned(),
        repository: "bitnami/etcd".to_owned(),
        what: ferry_registry_client::What::Manifest("3.5".to_owned()),
        request: "GET /v2/bitnami/etcd/manifests/3.5".to_owned(),
        answered_by: None,
        status: 404,
        code: "MANIFEST_UNKNOWN".to_owned(),
        message: "manifest unknown".to_owned(),
        page: false,
        retry_after: None,
        credentials: None,
        with_token: false,
        pushes: false,
        passes: false,
    }));
    assert!(shown(&error).ends_with("try `docker.io/bitnamilegacy/etcd`"), "{}", shown(&error));
    assert_eq!(error.kind(), Kind::Missing);
}

#[tokio::test]
async fn one_copy_within_a_busy_host_does_not_wait_for_itself() {
    let server = Server::start(content).await;
    let config = ferry_registry_client::Config { concurrency: 1, ..crate::config() };
    let repository = ferry_registry_client::Client::new(config).unwrap().repository(&server.host, "team/app").unwrap();
    let held = repository.open(&blob(CONTENT), 0..16).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), repository.head("v1")).await.unwrap().unwrap();
    drop(held);
    assert_eq!(read(&repository, 0..16).await.unwrap(), CONTENT);
}
