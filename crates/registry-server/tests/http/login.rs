//! Users: passwords, tokens, and what everybody may do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ferry_image::Digest;
use ferry_registry_server::{Access, Limits, Passwords, Reread, Settings, Users};
use http::StatusCode;

use crate::site::{Image, Site};
use crate::socket::{run, say};

fn site(access: impl FnOnce(Arc<Users>) -> Access) -> Site {
    let users = Arc::new(Users::from_iter([("ann", "s:cret")]));
    let site = Site::with_store(Settings { access: access(users), ..Settings::default() });
    Image::new("one").put(site.store(), "team/app", Some("1"));
    site
}

fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

async fn status(site: &Site, request: &str, authorization: Option<&str>) -> (u16, String) {
    let headers: Vec<(&str, &str)> = authorization.iter().map(|value| ("authorization", *value)).collect();
    let answer = site.ask(request, &headers, b"").await;
    (answer.status.as_u16(), answer.header("www-authenticate").to_owned())
}

const READ: &str = "GET /v2/team/app/manifests/1";
const PUSH: &str = "POST /v2/team/app/blobs/uploads/";
const BASIC: &str = "Basic realm=\"ferry\", charset=\"UTF-8\"";

#[tokio::test]
async fn with_users_nobody_gets_anything_without_a_password() {
    let site = site(|users| Access::Users(users));
    let good = basic("ann:s:cret");
    for request in ["GET /v2/", READ, PUSH, "GET /v2/_catalog", "GET /nothing"] {
        for wrong in [
            None,
            Some("Bearer x"),
            Some("junk"),
            Some(basic("ann:wrong").as_str()),
            Some(basic("eve:s:cret").as_str()),
        ] {
            assert_eq!(status(&site, request, wrong).await, (401, BASIC.to_owned()), "{request} {wrong:?}");
        }
        assert_ne!(status(&site, request, Some(&good)).await.0, 401, "{request}");
    }
    assert_eq!(status(&site, "GET /token", Some(&good)).await.0, 404, "there is no token server");
    let refused = site.get("/v2/").await;
    assert_eq!(refused.code(), "UNAUTHORIZED");
}

#[tokio::test]
async fn where_all_may_read_a_push_takes_a_password_or_its_token() {
    let site = site(|users| Access::UsersToPush(users));
    let (good, bad) = (basic("ann:s:cret"), basic("ann:wrong"));
    assert_eq!(status(&site, READ, None).await.0, 200);
    assert_eq!(status(&site, PUSH, Some(&good)).await.0, 202);
    assert_eq!(status(&site, READ, Some(&bad)).await.0, 401, "a wrong password is an error, not a guest");
    let realm = "Bearer realm=\"http://here:5000/token\",service=\"ferry\"";
    // who asks whether a login is needed is told where to get a token, with a password or without
    assert_eq!(status(&site, "GET /v2/", None).await, (401, realm.to_owned()));
    let (code, told) = status(&site, PUSH, None).await;
    assert_eq!((code, told), (401, format!("{realm},scope=\"repository:team/app:pull,push\"")));

    for host in ["a\",scope=\"x", "a/b", "u@a", ""] {
        let answer = site.ask(PUSH, &[("host", host)], b"").await;
        assert_eq!((answer.status.as_u16(), answer.header("www-authenticate")), (401, BASIC), "{host}");
    }

    let token = async |authorization: Option<&str>| {
        let headers: Vec<(&str, &str)> = authorization.iter().map(|value| ("authorization", *value)).collect();
        let answer = site.ask("GET /token?service=ferry&scope=repository:team/app:pull,push", &headers, b"").await;
        (answer.status == StatusCode::OK).then(|| {
            assert_eq!(answer.header("cache-control"), "no-store");
            let json = answer.json();
            assert_eq!(json["token"], json["access_token"]);
            format!("Bearer {}", json["token"].as_str().expect("a token"))
        })
    };
    let (guest, ann) = (token(None).await.expect("a guest's"), token(Some(&good)).await.expect("a user's"));
    assert_eq!(token(Some(&bad)).await, None);
    for (request, as_guest) in [("GET /v2/", 200), (READ, 200), (PUSH, 401)] {
        assert_eq!(status(&site, request, Some(&guest)).await.0, as_guest, "{request}");
        assert!(matches!(status(&site, request, Some(&ann)).await.0, 200 | 202), "{request}");
    }
    // as OAuth 2 has it, with the password in the body
    let post = async |form: &str| {
        let answer =
            site.ask("POST /token", &[("content-type", "application/x-www-form-urlencoded")], form.as_bytes()).await;
        let token = || format!("Bearer {}", answer.json()["access_token"].as_str().expect("a token"));
        (answer.status.as_u16(), if answer.status == StatusCode::OK { token() } else { String::new() })
    };
    let scope = "service=ferry&scope=repository%3Ateam%2Fapp%3Apull%2Cpush&client_id=helm";
    let (code, by_form) = post(&format!("grant_type=password&username=ann&password=s%3Acret&{scope}")).await;
    assert_eq!((code, status(&site, PUSH, Some(&by_form)).await.0), (200, 202));
    assert_eq!(post(&format!("grant_type=password&username=ann&password=wrong&{scope}")).await.0, 401);
    assert_eq!(post("grant_type=refresh_token&refresh_token=x").await.0, 400);
    let (code, by_nobody) = post(scope).await;
    assert_eq!((code, status(&site, PUSH, Some(&by_nobody)).await.0), (200, 401), "a guest's");
    assert_eq!(post(&"x".repeat(17 << 10)).await.0, 413);
    // whoever asks whether a blob is here is told that there are logins, while it has sent nothing that it could not send again
    let head = format!("HEAD /v2/team/app/blobs/sha256:{}", "0".repeat(64));
    assert_eq!((status(&site, &head, None).await.0, status(&site, &head, Some(&guest)).await.0), (401, 404));
    for forged in [format!("{ann}x"), guest.replacen("Bearer ", "Bearer A", 1), "Bearer ".to_owned()] {
        assert_eq!(status(&site, READ, Some(&forged)).await.0, 401, "{forged}");
    }
}

/// Whoever may not push keeps nothing from being collected.
#[tokio::test]
async fn what_a_guest_asks_about_grows_old_all_the_same() {
    let site = site(|users| Access::UsersToPush(users));
    let image = Image::new("one");
    let name = image.digest.to_string();
    let (layer, folder) = (Digest::of(&image.layer), site.store().folder());
    let record = folder.join("ferry/repositories/team/app/_manifests").join(name.replace(':', "-"));
    let (files, kinds) =
        ([folder.join(layer.blob_path()), record], [format!("blobs/{layer}"), format!("manifests/{name}")]);
    let requests = kinds.map(|kind| format!("HEAD /v2/team/app/{kind}"));
    let old = SystemTime::now() - Duration::from_secs(7200);
    let good = basic("ann:s:cret");
    let token = site.get("/token").await.json()["token"].as_str().expect("a guest's").to_owned();
    let guest = format!("Bearer {token}");
    for (file, request) in files.iter().zip(&requests) {
        for (authorization, is_young) in [(Some(guest.as_str()), false), (Some(good.as_str()), true)] {
            std::fs::File::open(file).expect("open").set_modified(old).expect("age");
            assert_eq!(status(&site, request, authorization).await.0, 200, "{request}");
            let modified = file.metadata().and_then(|metadata| metadata.modified()).expect("a time");
            assert_eq!(modified > old, is_young, "{request} {authorization:?}");
        }
    }
}

#[tokio::test]
async fn whoever_guesses_waits_longer_each_time_and_who_is_known_does_not() {
    let site = site(|users| Access::Users(users));
    let server = run(&site, None, Limits::default()).await;
    let ask = async |pair: &str| {
        let head =
            format!("GET /v2/ HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nConnection: close\r\n\r\n", basic(pair));
        let begun = Instant::now();
        let answer = say(server.address, head.as_bytes()).await;
        (answer.split(' ').nth(1).map(str::to_owned), begun.elapsed())
    };
    let mut waits = Vec::new();
    for _ in 0..3 {
        let (status, wait) = ask("ann:wrong").await;
        assert_eq!(status.as_deref(), Some("401"));
        waits.push(wait);
    }
    assert!(waits[1] > Duration::from_millis(200) && waits[2] > waits[1] + Duration::from_millis(100), "{waits:?}");
    let (status, wait) = ask("ann:s:cret").await;
    assert!(status.as_deref() == Some("200") && wait < Duration::from_millis(500), "{status:?} {wait:?}");
}

/// Passwords whose hash takes its time, and what was looked at.
#[derive(Default)]
struct Slow {
    verified: AtomicUsize,
    is_known: AtomicBool,
}

impl Passwords for Slow {
    fn verify(&self, _: &str, password: &str) -> bool {
        self.verified.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(50));
        let is_right = password == "s:cret";
        self.is_known.fetch_or(is_right, Ordering::SeqCst);
        is_right
    }

    fn is_known(&self, _: &str, password: &str) -> bool {
        password == "s:cret" && self.is_known.load(Ordering::SeqCst)
    }

    fn has(&self, _: &str) -> bool {
        true
    }
}

#[tokio::test]
async fn the_first_guesses_of_a_client_wait_for_one_another_and_a_right_password_is_looked_at_once() {
    for (pair, expected) in [("ann:wrong", "401"), ("ann:s:cret", "200")] {
        let slow = Arc::new(Slow::default());
        let site = Site::with_store(Settings { access: Access::Users(slow.clone()), ..Settings::default() });
        let server = run(&site, None, Limits::default()).await;
        let head =
            format!("GET /v2/ HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nConnection: close\r\n\r\n", basic(pair));
        let (begun, address) = (Instant::now(), server.address);
        let ask = || async {
            let answer = say(address, head.as_bytes()).await;
            (answer.split(' ').nth(1) == Some(expected), begun.elapsed())
        };
        let answers = futures_util::future::join_all((0..6).map(|_| ask())).await;
        assert!(answers.iter().all(|(is_expected, _)| *is_expected), "{answers:?}");
        let last = answers.iter().map(|(_, took)| *took).max().expect("some");
        match expected {
            // five waits of a quarter of a second
            "401" => assert!(last > Duration::from_millis(1250), "{last:?}"),
            _ => assert_eq!(slow.verified.load(Ordering::SeqCst), 1, "then it was known"),
        }
    }
}

/// Users on a disk that does not answer.
#[derive(Default)]
struct Hung(AtomicUsize);

impl Passwords for Hung {
    fn is_stale(&self) -> bool {
        true
    }

    fn refresh(&self) -> Reread {
        self.0.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_secs(3));
        Reread::Done
    }

    fn verify(&self, _: &str, password: &str) -> bool {
        password == "s:cret"
    }

    fn is_known(&self, user: &str, password: &str) -> bool {
        self.verify(user, password)
    }

    fn has(&self, _: &str) -> bool {
        true
    }
}

/// One thread moves all bytes here, so that whoever blocks it blocks all.
#[tokio::test]
async fn a_disk_of_users_that_does_not_answer_holds_no_thread_and_no_client_up_for_long() {
    let users = Arc::new(Hung::default());
    let access = Access::Users(Arc::clone(&users) as Arc<dyn Passwords>);
    let site = Site::with_store(Settings { access, ..Settings::default() });
    let good = basic("ann:s:cret");
    let begun = Instant::now();
    let ask = async || status(&site, "GET /v2/", Some(&good)).await.0;
    let open = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        (site.get("/healthz").await.status.as_u16(), begun.elapsed())
    };
    let (one, two, (three, took)) = tokio::join!(ask(), ask(), open);
    assert_eq!((one, two, three), (200, 200, 200));
    assert!(took < Duration::from_millis(900), "{took:?}");
    assert!(begun.elapsed() < Duration::from_millis(2500), "{:?}", begun.elapsed());
    // it has been waited for
    let later = Instant::now();
    assert_eq!((ask().await, ask().await), (200, 200));
    assert!(later.elapsed() < Duration::from_millis(300), "{:?}", later.elapsed());
    assert_eq!(users.0.load(Ordering::SeqCst), 1, "one looks, and the others wait for it");
}
