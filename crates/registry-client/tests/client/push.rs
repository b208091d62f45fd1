//! Blobs and manifests going in.

use std::time::Duration;

use bytes::Bytes;
use ferry_content::{Failure as _, Ingester as _, Kind};
use ferry_image::{Digest, media_type};
use ferry_registry_client::Client;

use crate::server::{Answer, Seen, Server, answer};
use crate::{blob, config, repository, shown};

const CONTENT: &[u8] = b"0123456789abcdef";

fn opens(seen: &Seen) -> Answer {
    match seen.method.as_str() {
        "POST" => answer(202).header("location", "/upload/1?_state=a%2Fb="),
        "PUT" => answer(201),
        _ => answer(200),
    }
}

#[tokio::test]
async fn what_is_there_takes_one_request() {
    let server = Server::start(|seen| answer(if seen.method == "POST" { 201 } else { 200 })).await;
    let uploads = repository(&server).uploads(Some("other/app".to_owned()));
    assert!(uploads.start(&blob(CONTENT)).await.unwrap().is_none());
    let digest = Digest::of(CONTENT);
    assert_eq!(server.lines()[1..], [format!("POST /v2/team/app/blobs/uploads/?mount={digest}&from=other/app")]);
}

#[tokio::test]
async fn what_is_not_there_takes_two() {
    let server = Server::start(opens).await;
    let uploads = repository(&server).uploads(None);
    let upload = uploads.start(&blob(CONTENT)).await.unwrap().unwrap();
    assert_eq!(upload.missing(), [0..16]);
    upload.write_at(0, vec![Bytes::from_static(&CONTENT[..5]), Bytes::from_static(&CONTENT[5..9])]).await.unwrap();
    upload.write_at(9, vec![Bytes::from_static(&CONTENT[9..])]).await.unwrap();
    upload.commit().await.unwrap();
    let seen = server.seen();
    let digest = Digest::of(CONTENT);
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].path, format!("/v2/team/app/blobs/uploads/?mount={digest}&from=team/app"));
    assert_eq!(seen[1].path, format!("/upload/1?_state=a%2Fb=&digest=sha256%3A{}", digest.hex()));
    assert_eq!((seen[1].body.as_slice(), seen[1].complete), (CONTENT, true));
    assert_eq!((seen[1].header("content-length"), seen[1].header("transfer-encoding")), (Some("16"), None));
}

#[tokio::test]
async fn an_empty_blob_can_be_pushed() {
    let server = Server::start(opens).await;
    let upload = repository(&server).uploads(None).start(&blob(b"")).await.unwrap().unwrap();
    assert!(upload.missing().is_empty());
    upload.commit().await.unwrap();
    let seen = server.seen();
    assert_eq!((seen[1].header("content-length"), seen[1].complete), (Some("0"), true));
}

#[tokio::test]
async fn an_upload_that_is_given_up_never_ends_at_the_registry() {
    let server = Server::start(opens).await;
    let upload = repository(&server).uploads(None).start(&blob(CONTENT)).await.unwrap().unwrap();
    upload.write_at(0, vec![Bytes::from_static(&CONTENT[..15])]).await.unwrap();
    // let the bytes reach the other side, so that only the last one is missing there
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(upload);
    let seen = server.wait(2).await;
    assert_eq!((seen[1].method.as_str(), seen[1].complete), ("PUT", false));
    assert!(seen[1].body.len() < CONTENT.len());
}

#[tokio::test]
async fn a_commit_without_all_bytes_is_refused() {
    let server = Server::start(opens).await;
    let upload = repository(&server).uploads(None).start(&blob(CONTENT)).await.unwrap().unwrap();
    upload.write_at(0, vec![Bytes::from_static(&CONTENT[..15])]).await.unwrap();
    assert!(upload.commit().await.is_err());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(server.seen().iter().all(|s| s.method != "PUT" || !s.complete), "{:?}", server.lines());
}

#[tokio::test]
async fn the_servers_words_are_told_while_bytes_still_flow() {
    let refuses = |seen: &Seen| match seen.method.as_str() {
        "PUT" => answer(413).body("<html><body>413 Request Entity Too Large</body></html>").unread(),
        _ => opens(seen),
    };
    let server = Server::start(refuses).await;
    let chunk = Bytes::from(vec![7; 1 << 20]);
    let large = ferry_image::Descriptor { size: 1 << 40, ..blob(CONTENT) };
    let upload = repository(&server).uploads(None).start(&large).await.unwrap().unwrap();
    let mut offset = 0;
    let error = loop {
        match upload.write_at(offset, vec![chunk.clone()]).await {
            Ok(()) => offset += chunk.len() as u64,
            Err(error) => break error,
        }
        assert!(offset < 256 << 20, "written on and on");
    };
    assert!(shown(&error).contains("client_max_body_size") || error.is_transient(), "{}", shown(&error));
    assert!(upload.write_at(offset, vec![chunk]).await.is_err(), "it stays failed");
}

#[tokio::test]
async fn a_server_that_fails_an_upload_may_be_asked_again() {
    let server = Server::start(|seen| if seen.method == "PUT" { answer(503) } else { opens(seen) }).await;
    let upload = repository(&server).uploads(None).start(&blob(CONTENT)).await.unwrap().unwrap();
    upload.write_at(0, vec![Bytes::from_static(CONTENT)]).await.unwrap();
    let error = upload.commit().await.unwrap_err();
    assert!(error.is_transient() && error.kind() == Kind::Remote, "{error}");
    assert_eq!(server.seen().len(), 2, "a body that streamed by is not sent again from here");
}

#[tokio::test]
async fn a_lost_session_may_be_begun_anew_and_a_refusal_may_not() {
    for (status, code, expected) in
        [(404, "BLOB_UPLOAD_UNKNOWN", true), (400, "DIGEST_INVALID", true), (403, "DENIED", false)]
    {
        let body = format!(r#"{{"errors":[{{"code":"{code}"}}]}}"#);
        let server = Server::start(move |seen| match seen.method.as_str() {
            "PUT" => answer(status).body(body.as_str()),
            _ => opens(seen),
        })
        .await;
        let upload = repository(&server).uploads(None).start(&blob(CONTENT)).await.unwrap().unwrap();
        upload.write_at(0, vec![Bytes::from_static(CONTENT)]).await.unwrap();
        assert_eq!(upload.commit().await.unwrap_err().is_transient(), expected, "{code}");
    }
}

#[tokio::test]
async fn another_digest_in_the_answer_is_refused() {
    let server = Server::start(|seen| match seen.method.as_str() {
        "PUT" => answer(201).header("docker-content-digest", Digest::of(b"other").to_string()),
        _ => opens(seen),
    })
    .await;
    let repository = repository(&server);
    let upload = repository.uploads(None).start(&blob(CONTENT)).await.unwrap().unwrap();
    upload.write_at(0, vec![Bytes::from_static(CONTENT)]).await.unwrap();
    assert_eq!(upload.commit().await.unwrap_err().kind(), Kind::Untrusted);
    let error = repository.put_manifest("v1", media_type::OCI_MANIFEST, &Bytes::from_static(b"{}")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Untrusted);
}

#[tokio::test]
async fn a_registry_that_knows_no_mount_is_asked_twice_once() {
    let server = Server::start(|seen| match seen.method.as_str() {
        "POST" if seen.path.contains("mount=") => answer(405),
        "HEAD" => answer(404),
        _ => opens(seen),
    })
    .await;
    let client = Client::new(config()).unwrap();
    for content in [CONTENT, b"second"] {
        // known to whoever asks for the repository next
        let uploads = client.repository(&server.host, "team/app").unwrap().uploads(None);
        assert!(uploads.start(&blob(content)).await.unwrap().is_some());
    }
    let methods: Vec<String> = server.seen().iter().map(|s| s.method.clone()).collect();
    assert_eq!(methods, ["POST", "HEAD", "POST", "HEAD", "POST"]);
}

#[tokio::test]
async fn who_may_not_read_the_source_of_a_mount_may_still_upload() {
    for status in [401, 403] {
        let server = Server::start(move |seen| match seen.method.as_str() {
            "POST" if seen.path.contains("from=closed/app") => answer(status),
            "HEAD" => answer(404),
            _ => opens(seen),
        })
        .await;
        let client = Client::new(config()).unwrap();
        let start = async |from: &str| {
            let uploads = client.repository(&server.host, "team/app").unwrap().uploads(Some(from.to_owned()));
            uploads.start(&blob(CONTENT)).await.map(|upload| upload.is_some())
        };
        assert!(start("closed/app").await.unwrap(), "{status}");
        // another source is asked for all the same
        assert!(start("open/app").await.unwrap(), "{status}");
        let asked: Vec<String> = server.seen().into_iter().filter(|s| s.method == "POST").map(|s| s.path).collect();
        let mount = |from| format!("/v2/team/app/blobs/uploads/?mount={}&from={from}", Digest::of(CONTENT));
        assert_eq!(asked, [mount("closed/app"), "/v2/team/app/blobs/uploads/".to_owned(), mount("open/app")]);
    }
    // of the repository itself the same answers are the last word
    let server = Server::start(|seen| answer(if seen.method == "POST" { 403 } else { 200 })).await;
    let error = repository(&server).uploads(None).start(&blob(CONTENT)).await.err().unwrap();
    assert_eq!((error.kind(), server.lines().len()), (Kind::Remote, 2), "{error}");
}

#[tokio::test]
async fn an_upload_elsewhere_does_not_see_who_we_are() {
    let store = Server::start(|_| answer(201)).await;
    let to = format!("http://{}/put?sig=1", store.host);
    let server = Server::start(move |seen| match (seen.method.as_str(), seen.header("authorization")) {
        (_, None) => answer(401).header("www-authenticate", "Basic"),
        ("POST", _) => answer(202).header("location", &to),
        _ => answer(200),
    })
    .await;
    let repository = crate::auth::client(&server, "me", "pw").repository(&server.host, "team/app").unwrap();
    let upload = repository.uploads(None).start(&blob(CONTENT)).await.unwrap().unwrap();
    upload.write_at(0, vec![Bytes::from_static(CONTENT)]).await.unwrap();
    upload.commit().await.unwrap();
    let seen = store.wait(1).await;
    assert_eq!((seen[0].header("authorization"), seen[0].body.as_slice()), (None, CONTENT));
}

#[tokio::test]
async fn a_manifest_is_written_as_it_is() {
    let server = Server::start(|seen| answer(if seen.method == "PUT" { 201 } else { 200 })).await;
    let bytes = Bytes::from_static(br#"{ "schemaVersion": 2 }"#);
    repository(&server).put_manifest("v1", media_type::DOCKER_MANIFEST, &bytes).await.unwrap();
    let seen = server.seen();
    assert_eq!((seen[0].path.as_str(), seen[0].body.as_slice()), ("/v2/team/app/manifests/v1", bytes.as_ref()));
    assert_eq!(seen[0].header("content-type"), Some(media_type::DOCKER_MANIFEST));
}
