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
async fn whoever_answers_ranges_wrongly_is_asked_for_the_whole() {
    let part = |range: &'static str, body: &'static [u8]| answer(206).header("content-range", range).body(body);
    for wrong in [
        part("bytes 0-5/16", &CONTENT[..6]),
        part("bytes 4-10/16", &CONTENT[4..11]),
        part("bytes 4-9/16", &CONTENT[4..8]),
        part("4-9", &CONTENT[4..10]),
        answer(206).body(&CONTENT[4..10]),
        answer(416).header("content-range", "bytes */16"),
        answer(416),
    ] {
        let server = Server::start(move |seen| match seen.header("range") {
            Some(_) => wrong.clone(),
            None => answer(200).body(CONTENT),
        })
        .await;
        let repository = repository(&server);
        let error = read(&repository, 4..10).await.unwrap_err();
        assert!(matches!(error, ferry_content::Error::NoRanges { .. }), "{error}");
        assert!(!repository.is_remote());
        assert_eq!(read(&repository, 0..16).await.unwrap(), CONTENT);
    }
    for wrong in [part("bytes 4-9/99", &CONTENT[4..10]), answer(416).header("content-range", "bytes */99")] {
        let server = Server::start(move |_| wrong.clone()).await;
        let error = read(&repository(&server), 4..10).await.unwrap_err();
        assert!(matches!(error, ferry_content::Error::SizeMismatch { found: 99, .. }), "{error}");
    }
}

#[tokio::test]
async fn less_than_the_range_is_a_beginning() {
    let server = Server::start(|_| answer(206).header("content-range", "bytes 4-6/16").body(&CONTENT[4..7])).await;
    let repository = repository(&server);
    let mut stream = repository.open(&blob(CONTENT), 4..10).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), &CONTENT[4..7]);
    let error = stream.next().await.unwrap().unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("3 of 6 bytes"), "{error}");
    assert!(repository.is_remote());
}

#[tokio::test]
async fn what_is_stated_to_be_another_blob_is_not_read() {
    let server =
        Server::start(|seen| content(seen).header("docker-content-digest", Digest::of(b"other").to_string())).await;
    for range in [0..16, 4..10] {
        let error = read(&repository(&server), range).await.unwrap_err();
        assert_eq!((error.kind(), error.is_transient()), (Kind::Untrusted, false), "{error}");
    }
}

#[tokio::test]
async fn parts_of_two_versions_do_not_belong_together() {
    let asked = AtomicUsize::new(0);
    let server = Server::start(move |seen| match asked.fetch_add(1, Ordering::Relaxed) {
        0..3 => content(seen).header("etag", "\"one\""),
        _ => content(seen).header("etag", "\"two\""),
    })
    .await;
    let repository = repository(&server);
    assert!(read(&repository, 0..4).await.is_ok() && read(&repository, 4..10).await.is_ok());
    let error = read(&repository, 10..16).await.unwrap_err();
    assert!(matches!(error, ferry_content::Error::Changed { .. }), "{error}");
    assert!(read(&repository, 10..16).await.is_ok(), "told once: the digest decides");

    // a registry that vouches for each part by the digest may be many servers
    let asked = AtomicUsize::new(0);
    let server = Server::start(move |seen| {
        let tag = format!("\"{}\"", asked.fetch_add(1, Ordering::Relaxed));
        content(seen).header("etag", tag).header("docker-content-digest", Digest::of(CONTENT).to_string())
    })
    .await;
    let repository = crate::repository(&server);
    for range in [0..4, 4..10, 10..16] {
        assert!(read(&repository, range).await.is_ok());
    }
}

#[tokio::test]
async fn one_request_finds_out_whether_there_are_ranges() {
    for serves in [true, false] {
        let server = Server::start(move |seen| if serves { content(seen) } else { answer(200).body(CONTENT) }).await;
        let repository = repository(&server);
        let mut tasks = tokio::task::JoinSet::new();
        for at in 0..8 {
            let repository = repository.clone();
            tasks.spawn(async move { read(&repository, at..at + 2).await.is_ok() });
        }
        assert_eq!(tasks.join_all().await, [serves; 8]);
        assert_eq!(server.seen().len(), if serves { 8 } else { 1 });
    }
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
async fn a_body_without_end_is_not_read() {
    let server = Server::start(|seen| match seen.header("range") {
        None => answer(200).body(CONTENT).endless(),
        Some(_) => answer(206).header("content-range", "bytes 4-9/16").body(CONTENT).endless(),
    })
    .await;
    for range in [0..16, 4..10] {
        let error = read(&repository(&server), range).await.unwrap_err();
        assert!(matches!(error, ferry_content::Error::SizeMismatch { .. }), "{error}");
    }
    let error = repository(&server).manifest("v1").await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
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
async fn an_address_that_grew_too_old_is_asked_for_again() {
    let issued = AtomicUsize::new(0);
    let store = Server::start(|seen| match seen.path.as_str() {
        "/store?signature=0" => {
            answer(403).body("<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>")
        }
        "/store?signature=1" => answer(400).body("<Error><Code>ExpiredToken</Code></Error>"),
        _ => content(seen),
    })
    .await;
    let target = store.host.clone();
    let server = Server::start(move |seen| match seen.path.as_str() {
        "/v2/" => answer(200),
        _ => {
            let n = issued.fetch_add(1, Ordering::Relaxed);
            answer(307).header("location", format!("http://{target}/store?signature={n}"))
        }
    })
    .await;
    assert_eq!(read(&repository(&server), 4..10).await.unwrap(), &CONTENT[4..10]);
    assert_eq!((server.seen().len(), store.seen().len()), (3, 3));

    let target = Server::start(|_| answer(403).body("<Error><Message>Request has expired</Message></Error>")).await;
    let to = format!("http://{}/store?signature=secret", target.host);
    let server = Server::start(move |seen| match seen.path.as_str() {
        "/v2/" => answer(200),
        _ => answer(307).header("location", &to),
    })
    .await;
    let error = read(&repository(&server), 0..16).await.unwrap_err();
    let words = shown(&error);
    assert!(
        words.contains("Request has expired") && words.contains("clock") && words.contains(&target.host),
        "{words}"
    );
    assert!(!words.contains("signature"), "{words}");
    assert_eq!(target.seen().len(), 3);
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

    // each of those that pass, by itself
    for status in [408, 425, 429, 500, 502, 503, 504] {
        let count = AtomicUsize::new(0);
        let server = Server::start(move |seen| match (seen.path.as_str(), count.fetch_add(1, Ordering::Relaxed)) {
            (_, 1) => answer(status),
            _ => content(seen),
        })
        .await;
        assert_eq!(read(&repository(&server), 0..16).await.unwrap(), CONTENT, "{status}");
        assert_eq!(server.seen().len(), 2, "{status}");
    }

    let server = Server::start(|seen| answer(if seen.path == "/v2/" { 200 } else { 404 })).await;
    let error = read(&repository(&server), 0..16).await.unwrap_err();
    assert_eq!((error.kind(), error.is_transient(), server.seen().len()), (Kind::Missing, false, 1));
}

#[tokio::test]
async fn a_manifest_or_a_list_that_breaks_off_is_asked_for_again() {
    let count = AtomicUsize::new(0);
    let server = Server::start(move |seen| {
        let whole = if seen.path.contains("tags") { r#"{"tags":["a","b"]}"# } else { r#"{"schemaVersion":2}"# };
        match count.fetch_add(1, Ordering::Relaxed) % 3 {
            1 => answer(200).body(&whole.as_bytes()[..5]).length(whole.len()),
            2 => answer(200).body(&whole.as_bytes()[..7]).length(whole.len()).stalling(),
            _ => answer(200).body(whole),
        }
    })
    .await;
    let repository = repository(&server);
    assert_eq!(repository.manifest("v1").await.unwrap().bytes, r#"{"schemaVersion":2}"#);
    assert_eq!(repository.tags(10).await.unwrap(), ["a", "b"]);
    assert_eq!(server.seen().len(), 6, "{:?}", server.lines());
}

#[tokio::test]
async fn a_small_blob_that_breaks_off_is_read_on() {
    let count = AtomicUsize::new(0);
    let server = Server::start(move |seen| match (seen.path.as_str(), count.fetch_add(1, Ordering::Relaxed)) {
        ("/v2/", _) => answer(200),
        (_, 1) => answer(200).body(&CONTENT[..9]).length(16),
        _ => content(seen),
    })
    .await;
    assert_eq!(read_all(&repository(&server), &blob(CONTENT), 100).await.unwrap(), CONTENT);
    let ranges: Vec<Option<String>> = server.seen().iter().map(|s| s.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, [None, Some("bytes=9-15".to_owned())]);
}

#[tokio::test]
async fn a_registry_that_fails_for_longer_may_be_waited_for() {
    let server = Server::start(|seen| answer(if seen.path == "/v2/" { 200 } else { 503 })).await;
    let error = read(&repository(&server), 0..16).await.unwrap_err();
    assert!(error.is_transient(), "the copy loop knows whether anything moved: {error}");
    for status in [400, 403, 404, 405, 501] {
        let server = Server::start(move |seen| answer(if seen.path == "/v2/" { 200 } else { status })).await;
        let error = read(&repository(&server), 0..16).await.unwrap_err();
        assert_eq!((error.is_transient(), server.seen().len()), (false, 1), "{status}: {error}");
    }
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

    // one header each, and the next page in the last
    let server = Server::start(|seen| match seen.path.contains("last=") {
        true => answer(200).body(r#"{"tags":["b"]}"#),
        false => answer(200)
            .header("link", r#"</v2/team/app/tags/list?n=1>; rel="first""#)
            .header("link", r#"</v2/team/app/tags/list?last=a>; rel="next""#)
            .body(r#"{"tags":["a"]}"#),
    })
    .await;
    assert_eq!(repository(&server).tags(100).await.unwrap(), ["a", "b"]);

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
        quota: None,
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
