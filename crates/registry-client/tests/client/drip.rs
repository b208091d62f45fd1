//! Bodies that come a byte at a time: not silent, and no line that anybody would wait for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ferry_content::{Failure as _, Kind, Provider as _, read_all};
use ferry_registry_client::{Client, Config};
use futures_util::StreamExt as _;

use crate::server::{Answer, Seen, Server, answer};
use crate::{blob, repository, shown, status};

/// A whole minute's worth of drops.
const LONG: [u8; 3000] = [b' '; 3000];

/// What every request but the first contact gets: `drips` while `times` lasts, then `right`.
fn at_first(times: usize, drips: Answer, right: Answer) -> impl Fn(&Seen) -> Answer {
    let count = AtomicUsize::new(0);
    move |seen| match seen.path.as_str() {
        "/v2/" => answer(200),
        _ if count.fetch_add(1, Ordering::Relaxed) < times => drips.clone(),
        _ => right.clone(),
    }
}

#[tokio::test]
async fn a_manifest_that_drips_is_asked_for_again_and_given_up_in_the_end() {
    let right = || answer(200).body(r#"{"schemaVersion":2}"#);
    let server = Server::start(at_first(2, answer(200).body(LONG).dripping(), right())).await;
    assert_eq!(repository(&server).manifest("v1").await.unwrap().bytes, r#"{"schemaVersion":2}"#);
    assert_eq!(server.seen().len(), 3);

    let server = Server::start(at_first(99, answer(200).body(LONG).dripping(), right())).await;
    let start = Instant::now();
    let error = repository(&server).manifest("v1").await.unwrap_err();
    assert!(error.to_string().contains("bytes came in"), "{error}");
    assert_eq!((error.kind(), server.seen().len()), (Kind::Remote, 6));
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_blob_that_drips_is_read_on_from_where_it_was() {
    let content: &[u8] = &LONG;
    let count = AtomicUsize::new(0);
    let server = Server::start(move |seen| {
        let range = seen.header("range").and_then(|r| r.strip_prefix("bytes="));
        let first: usize = range.and_then(|r| r.split('-').next()?.parse().ok()).unwrap_or(0);
        let whole = match range {
            Some(_) => answer(206).header("content-range", format!("bytes {first}-2999/3000")),
            None => answer(200),
        };
        let whole = whole.body(&content[first..]);
        let drips = seen.path != "/v2/" && count.fetch_add(1, Ordering::Relaxed) < 3;
        if drips { whole.dripping() } else { whole }
    })
    .await;
    let repository = repository(&server);
    let mut stream = repository.open(&blob(content), 0..3000).await.unwrap();
    let start = Instant::now();
    let error = loop {
        match stream.next().await.unwrap() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(error.is_transient() && error.to_string().contains("bytes came in"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(read_all(&repository, &blob(content), 3000).await.unwrap(), content);
    let froms: Vec<bool> = server.seen().iter().map(|s| s.header("range").is_some_and(|r| r > "bytes=0")).collect();
    assert_eq!(froms, [false, false, true, true], "what has come is not asked for again");
}

#[tokio::test]
async fn words_that_drip_do_not_hide_the_status() {
    let server = Server::start(at_first(99, answer(403).body(LONG).dripping(), answer(200))).await;
    let start = Instant::now();
    let error = repository(&server).manifest("v1").await.unwrap_err();
    assert_eq!(status(&error), Some(403));
    assert!(shown(&error).contains("not allowed to pull"), "{}", shown(&error));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[tokio::test]
async fn an_answer_that_nobody_needs_is_not_waited_for() {
    for rest in [answer(201).body(LONG).dripping(), answer(201).body("x").length(9).stalling()] {
        let server = Server::start(at_first(99, rest, answer(200))).await;
        let config = Config { stall_timeout: Duration::from_secs(60), ..crate::config() };
        let repository = Client::new(config).unwrap().repository(&server.host, "team/app").unwrap();
        let start = Instant::now();
        repository.put_manifest("v1", "application/json", &"{}".into()).await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }
}
