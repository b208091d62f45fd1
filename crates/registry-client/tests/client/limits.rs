//! How much a registry wants to be asked.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use ferry_content::Failure as _;
use ferry_registry_client::{Client, Config};

use crate::server::{Answer, Seen, Server, answer};
use crate::{config, repository, shown, status};

/// Ten requests a second, ten saved up; 429 beyond that.
struct Bucket {
    tokens: f64,
    at: Instant,
    refused: usize,
}

fn ten_a_second(retry_after: bool) -> (impl Fn(&Seen) -> Answer, Arc<Mutex<Bucket>>) {
    let bucket = Arc::new(Mutex::new(Bucket { tokens: 10.0, at: Instant::now(), refused: 0 }));
    let shared = Arc::clone(&bucket);
    let script = move |_: &Seen| {
        let mut bucket = shared.lock().unwrap();
        bucket.tokens = (bucket.tokens + bucket.at.elapsed().as_secs_f64() * 10.0).min(10.0);
        bucket.at = Instant::now();
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return answer(200).body("{}");
        }
        bucket.refused += 1;
        if retry_after { answer(429).header("retry-after", "1") } else { answer(429) }
    };
    (script, bucket)
}

/// The number to meet: no request fails, and all take at most one and a half times as long as they must.
async fn a_hundred_requests(retry_after: bool) {
    let (script, bucket) = ten_a_second(retry_after);
    let server = Server::start(script).await;
    let repository = Client::new(config()).unwrap().repository(&server.host, "team/app").unwrap();
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..100 {
        let repository = repository.clone();
        tasks.spawn(async move { repository.manifest(&format!("v{n}")).await.map(drop).map_err(|e| e.to_string()) });
    }
    for result in tasks.join_all().await {
        assert_eq!(result, Ok(()));
    }
    let (took, refused) = (start.elapsed().as_secs_f64(), bucket.lock().unwrap().refused);
    assert!(took < 15.0, "{took:.1} s, {refused} refused");
    assert!(refused < 64 + 20, "{refused} refused");
}

#[tokio::test]
async fn ten_a_second_with_retry_after() {
    a_hundred_requests(true).await;
}

#[tokio::test]
async fn ten_a_second_without_retry_after() {
    a_hundred_requests(false).await;
}

#[tokio::test]
async fn retry_after_may_be_a_date_by_the_servers_own_clock() {
    let count = AtomicUsize::new(0);
    // a year behind, and two seconds to wait
    let then = SystemTime::now() - Duration::from_secs(365 * 24 * 3600);
    let server = Server::start(move |seen| match (seen.path.as_str(), count.fetch_add(1, Ordering::Relaxed)) {
        (_, 1) => answer(503)
            .header("date", httpdate::fmt_http_date(then))
            .header("retry-after", httpdate::fmt_http_date(then + Duration::from_secs(2))),
        _ => answer(200).body("{}"),
    })
    .await;
    let repository = repository(&server);
    let start = Instant::now();
    repository.manifest("v1").await.unwrap();
    assert!((1900..6000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn who_is_told_to_come_back_tomorrow_gives_up_at_once() {
    for (name, value) in [("retry-after", "86400"), ("ratelimit-remaining", "0;w=21600")] {
        let server = Server::start(move |seen| match seen.path.as_str() {
            "/v2/" => answer(200),
            _ => answer(429).header("ratelimit-limit", "100;w=21600").header(name, value),
        })
        .await;
        let repository = repository(&server);
        let start = Instant::now();
        for _ in 0..5 {
            let error = repository.manifest("v1").await.unwrap_err();
            assert_eq!((status(&error), error.is_transient()), (Some(429), false));
            assert!(
                shown(&error).contains("too many requests") && shown(&error).contains("log in"),
                "{}",
                shown(&error)
            );
            if name == "ratelimit-remaining" {
                assert!(shown(&error).contains("0 more requests (of 100 in 6 h)"), "{}", shown(&error));
            }
        }
        assert_eq!(server.seen().len(), 5);
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn patience_with_429_ends() {
    let server = Server::start(|seen| answer(if seen.path == "/v2/" { 200 } else { 429 })).await;
    let mut config: Config = config();
    config.retry.longest_retry_after = Duration::from_secs(2);
    let repository = Client::new(config).unwrap().repository(&server.host, "a").unwrap();
    let start = Instant::now();
    let error = repository.manifest("v1").await.unwrap_err();
    assert_eq!(status(&error), Some(429));
    assert!((2..20).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert!(server.seen().len() < 12, "{}", server.seen().len());
}

#[tokio::test]
async fn what_is_left_is_known_after_asking() {
    let server = Server::start(|_| {
        answer(200).header("ratelimit-limit", "100;w=21600").header("ratelimit-remaining", "76;w=21600").body("{}")
    })
    .await;
    let repository = repository(&server);
    assert_eq!(repository.quota(), None);
    repository.head("v1").await.unwrap();
    let quota = repository.quota().unwrap();
    assert_eq!((quota.limit, quota.remaining, quota.renewed_within()), (100, 76, Some(Duration::from_secs(21600))));
}
