//! Finding out what a repository takes.

use std::sync::Arc;

use bytes::Bytes;
use ferry_content::copy::{Job, Options, Outcome, Silent, copy_all};
use ferry_content::memory::Memory;
use ferry_content::{Failure as _, Kind};
use ferry_image::{Descriptor, Digest};
use ferry_registry_client::{Client, Product};

use crate::server::{Answer, Seen, Server, answer};
use crate::{config, repository, shown, status};

const CONTENT: &[u8] = b"0123456789abcdef";

fn opens(seen: &Seen) -> Answer {
    match seen.method.as_str() {
        "POST" => answer(202).header("location", "/upload/1?_state=a%2Fb="),
        "PATCH" => answer(202).header("location", "/upload/1?_state=c").header("range", "0-0"),
        "DELETE" => answer(204),
        _ => answer(200),
    }
}

#[tokio::test]
async fn whether_we_may_push_is_found_out_without_pushing() {
    let server = Server::start(opens).await;
    let trial = repository(&server).try_upload(None).await.unwrap();
    assert_eq!((trial.mounts, trial.smallest_chunk), (None, None));
    trial.give_up().await.unwrap();
    assert_eq!(server.lines()[1..], ["POST /v2/team/app/blobs/uploads/", "DELETE /upload/1?_state=a%2Fb="]);

    for (status, words) in
        [(403, "allowed to push to `team`"), (404, "make the project"), (405, "read-only"), (401, "--auth-file")]
    {
        let server = Server::start(move |seen| answer(if seen.method == "POST" { status } else { 200 })).await;
        let error = repository(&server).try_upload(None).await.unwrap_err();
        assert!(shown(&error).contains(words), "{status}: {}", shown(&error));
        assert_eq!(error.kind(), Kind::Remote);
    }
}

#[tokio::test]
async fn a_push_goes_on_with_the_upload_that_was_opened_for_its_blob() {
    let digest = Digest::of(CONTENT);
    let server = Server::start(|seen| if seen.method == "PUT" { answer(201) } else { opens(seen) }).await;
    let repository = repository(&server);
    let upload = async || {
        let mut memory = Memory::default();
        memory.insert(Bytes::from_static(CONTENT));
        let blob = Descriptor::of("layer", CONTENT);
        let job = Job::new(blob, Arc::new(memory), Arc::new(repository.uploads(None)));
        copy_all(vec![job], &Options::default(), Arc::new(Silent)).await.pop().unwrap().unwrap().unwrap()
    };
    let (post, put) = (
        format!("POST /v2/team/app/blobs/uploads/?mount={digest}&from=team/app"),
        format!("PUT /upload/1?_state=a%2Fb=&digest={}", digest.to_string().replace(':', "%3A")),
    );
    let kept = repository.try_upload(Some(&digest)).await.unwrap().keep_for(&digest);
    assert_eq!(upload().await, Outcome::Copied);
    kept.give_up().await.unwrap();
    assert_eq!(
        server.lines()[1..],
        [post.as_str(), put.as_str()],
        "one request to open it, and nothing is left to give up"
    );
    // it is used once
    assert_eq!(upload().await, Outcome::Copied);
    assert_eq!(server.lines()[3..], [post.as_str(), put.as_str()]);
    // another blob has nothing to do with it, and a session that was written to is not begun with
    let other = repository.try_upload(None).await.unwrap().keep_for(&Digest::of(b"other"));
    let mut tried = repository.try_upload(None).await.unwrap();
    assert_eq!(tried.takes_chunks().await.unwrap(), Some(true));
    let tried = tried.keep_for(&digest);
    let before = server.lines().len();
    assert_eq!(upload().await, Outcome::Copied);
    tried.give_up().await.unwrap();
    assert_eq!(server.lines()[before..], [post.as_str(), put.as_str()]);
    // what no push has gone on with is cancelled
    other.give_up().await.unwrap();
    assert_eq!(server.lines()[before + 2..], ["DELETE /upload/1?_state=a%2Fb="]);
}

#[tokio::test]
async fn a_mount_is_tried_in_the_same_request() {
    let digest = Digest::of(CONTENT);
    let mount = format!("POST /v2/team/app/blobs/uploads/?mount={digest}&from=team/app");
    let server = Server::start(|seen| answer(if seen.method == "POST" { 201 } else { 200 })).await;
    let trial = repository(&server).try_upload(Some(&digest)).await.unwrap();
    assert_eq!(trial.mounts, Some(true));
    trial.give_up().await.unwrap();
    assert_eq!(server.lines()[1..], [mount.as_str()], "there is nothing to give up");

    let server = Server::start(opens).await;
    assert_eq!(repository(&server).try_upload(Some(&digest)).await.unwrap().mounts, None);

    let server = Server::start(|seen| if seen.path.contains("mount=") { answer(405) } else { opens(seen) }).await;
    assert_eq!(repository(&server).try_upload(Some(&digest)).await.unwrap().mounts, Some(false));
    assert_eq!(server.lines()[1..], [mount.as_str(), "POST /v2/team/app/blobs/uploads/"]);

    // refused either way: it is not the mount
    let server = Server::start(|seen| answer(if seen.method == "POST" { 404 } else { 200 })).await;
    assert_eq!(status(&repository(&server).try_upload(Some(&digest)).await.unwrap_err()), Some(404));
}

#[tokio::test]
async fn a_chunk_of_one_byte_tells_whether_chunks_are_taken() {
    let server = Server::start(opens).await;
    let mut trial = repository(&server).try_upload(None).await.unwrap();
    assert_eq!(trial.takes_chunks().await.unwrap(), Some(true));
    trial.give_up().await.unwrap();
    let seen = server.seen();
    let patch = seen.iter().find(|s| s.method == "PATCH").unwrap();
    assert_eq!((patch.header("content-range"), patch.body.len(), patch.complete), (Some("0-0"), 1, true));
    assert_eq!(server.lines().last().unwrap(), "DELETE /upload/1?_state=c", "where the session went on");

    let server = Server::start(|seen| if seen.method == "PATCH" { answer(405) } else { opens(seen) }).await;
    let mut trial = repository(&server).try_upload(None).await.unwrap();
    assert_eq!(trial.takes_chunks().await.unwrap(), Some(false));

    let server = Server::start(|seen| match seen.method.as_str() {
        "POST" => opens(seen).header("oci-chunk-min-length", "5242880"),
        _ => opens(seen),
    })
    .await;
    assert_eq!(repository(&server).try_upload(None).await.unwrap().smallest_chunk, Some(5 << 20));
}

#[tokio::test]
async fn a_session_that_cannot_be_cancelled_is_told() {
    let server = Server::start(|seen| if seen.method == "DELETE" { answer(405) } else { opens(seen) }).await;
    let error = repository(&server).try_upload(None).await.unwrap().give_up().await.unwrap_err();
    assert_eq!(status(&error), Some(405));
}

#[tokio::test]
async fn a_manifest_is_deleted_and_a_repository_known() {
    let digest = Digest::of(CONTENT);
    for (answered, expected) in [(202, None), (404, None), (405, Some(405))] {
        let server = Server::start(move |seen| answer(if seen.method == "DELETE" { answered } else { 200 })).await;
        let result = repository(&server).delete_manifest(&digest).await;
        assert_eq!(result.err().and_then(|e| status(&e)), expected);
        assert_eq!(server.lines()[1..], [format!("DELETE /v2/team/app/manifests/{digest}")]);
    }
    for (answered, expected) in [(200, true), (404, false)] {
        let server = Server::start(move |seen| answer(if seen.path == "/v2/" { 200 } else { answered })).await;
        assert_eq!(repository(&server).is_known().await.unwrap(), expected);
        assert_eq!(server.lines()[1..], ["GET /v2/team/app/tags/list?n=1"]);
    }
}

#[tokio::test]
async fn a_registry_shows_what_it_is_with_its_first_answer() {
    let server = Server::start(|seen| match seen.path.as_str() {
        "/v2/" => answer(401).header(
            "www-authenticate",
            "Bearer realm=\"http://127.0.0.1:1/service/token\",service=\"harbor-registry\"",
        ),
        _ => answer(200),
    })
    .await;
    assert_eq!(Client::new(config()).unwrap().ping(&server.host).await.unwrap().product, Some(Product::Harbor));
    let server = Server::start(|_| answer(200)).await;
    assert_eq!(Client::new(config()).unwrap().ping(&server.host).await.unwrap().product, None);
}
