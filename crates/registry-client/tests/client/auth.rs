//! Who we are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ferry_content::{Failure as _, Ingester as _, Kind};
use ferry_registry_client::{Authentication, Client, Commands, Config, Credentials, Login, Secret, Source};

use crate::server::{Answer, Seen, Server, answer};
use crate::{blob, config, repository, shown, status};

pub(crate) fn client(server: &Server, username: &str, password: &str) -> Client {
    let login = Login { place: server.host.clone(), username: username.to_owned(), password: Secret::new(password) };
    with(Source::Logins { origin: "the test".to_owned(), logins: vec![login] })
}

fn with(source: Source) -> Client {
    let credentials = Credentials::from_sources([source], Commands::default()).unwrap();
    Client::new(Config { credentials, ..config() }).unwrap()
}

/// A registry whose tokens are `t1`, `t2`, …; only the newest that `valid` names is good.
fn with_tokens(realm: String, valid: Arc<AtomicUsize>) -> impl Fn(&Seen) -> Answer {
    move |seen| {
        let good = format!("Bearer t{}", valid.load(Ordering::Relaxed));
        match seen.header("authorization") {
            Some(header) if header == good => match seen.method.as_str() {
                "POST" => answer(201),
                _ => answer(200).body("{}"),
            },
            _ => answer(401).header("www-authenticate", format!(r#"Bearer realm="{realm}",service="reg, one""#)),
        }
    }
}

async fn token_server(issued: Arc<AtomicUsize>) -> Server {
    Server::start(move |_| {
        let n = issued.fetch_add(1, Ordering::Relaxed) + 1;
        answer(200).body(format!(r#"{{"token":"t{n}","expires_in":300}}"#))
    })
    .await
}

#[tokio::test]
async fn basic() {
    let server = Server::start(|seen| match seen.header("authorization") {
        Some("Basic bWU6cHc=") => answer(200).body("{}"),
        _ => answer(401)
            .header("www-authenticate", "basic REALM=\"x\"")
            .body(r#"{"errors":[{"code":"UNAUTHORIZED","message":"no"}]}"#),
    })
    .await;
    client(&server, "me", "pw").repository(&server.host, "a").unwrap().manifest("v1").await.unwrap();
    assert_eq!(server.lines().len(), 2, "the first contact tells what is wanted");

    let error = client(&server, "me", "wrong").repository(&server.host, "a").unwrap().manifest("v1").await.unwrap_err();
    assert_eq!((status(&error), error.kind()), (Some(401), Kind::Remote));
    assert!(shown(&error).contains("not accepted"), "{error}");
    assert!(!format!("{error:?}").contains("wrong"));

    let before = server.seen().len();
    let error = repository(&server).manifest("v1").await.unwrap_err();
    assert!(
        shown(&error).contains("credentials are required") && shown(&error).contains("docker login"),
        "{}",
        shown(&error)
    );
    assert_eq!(server.seen().len(), before + 1, "and nothing is tried again");
}

#[tokio::test]
async fn one_token_serves_many_tasks_and_is_renewed_once() {
    let (issued, valid) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(1)));
    let tokens = token_server(Arc::clone(&issued)).await;
    let server = Server::start(with_tokens(format!("http://{}/token", tokens.host), Arc::clone(&valid))).await;
    let client = client(&server, "me", "pw");
    let repository = client.repository(&server.host, "team/app").unwrap();
    let many = || async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..12 {
            let repository = repository.clone();
            tasks.spawn(async move { repository.manifest("v1").await.map(drop).map_err(|e| e.to_string()) });
        }
        for result in tasks.join_all().await {
            assert_eq!(result, Ok(()));
        }
    };
    many().await;
    assert_eq!(issued.load(Ordering::Relaxed), 1);
    let asked = tokens.seen();
    assert_eq!(asked[0].path, "/token?service=reg%2C+one&scope=repository%3Ateam%2Fapp%3Apull&account=me");
    assert_eq!(asked[0].header("authorization"), Some("Basic bWU6cHc="));

    // the registry forgets the token while it is in use
    valid.store(2, Ordering::Relaxed);
    many().await;
    assert_eq!(issued.load(Ordering::Relaxed), 2);
    assert_eq!(client.ping(&server.host).await.unwrap().authentication, Authentication::Bearer);
}

#[tokio::test]
async fn a_token_that_is_never_good_ends_in_an_error() {
    let tokens = token_server(Arc::default()).await;
    let server =
        Server::start(with_tokens(format!("http://{}/token", tokens.host), Arc::new(AtomicUsize::new(99)))).await;
    let error = repository(&server).manifest("v1").await.unwrap_err();
    assert_eq!(status(&error), Some(401));
    assert!(tokens.seen().len() <= 3 && server.seen().len() <= 3, "{:?}", server.lines());
}

#[tokio::test]
async fn a_refused_exchange_does_not_become_anonymous() {
    let tokens = Server::start(|seen| match seen.header("authorization") {
        Some(_) => answer(401).body(r#"{"details":"incorrect username or password"}"#),
        None => answer(200).body(r#"{"token":"t1"}"#),
    })
    .await;
    let server =
        Server::start(with_tokens(format!("http://{}/token", tokens.host), Arc::new(AtomicUsize::new(1)))).await;
    let error = client(&server, "me", "pw").repository(&server.host, "a").unwrap().manifest("v1").await.unwrap_err();
    assert!(shown(&error).contains("incorrect username or password"), "{error}");
    assert_eq!((tokens.seen().len(), server.seen().len()), (1, 0));
    // where nothing is configured, anonymous is what is meant
    repository(&server).manifest("v1").await.unwrap();
}

#[tokio::test]
async fn one_token_does_for_what_is_looked_at_and_then_pushed() {
    let tokens = token_server(Arc::default()).await;
    let server =
        Server::start(with_tokens(format!("http://{}/token", tokens.host), Arc::new(AtomicUsize::new(1)))).await;
    let client = client(&server, "me", "pw");
    let app = || client.repository(&server.host, "team/app").unwrap();
    app().to_push().head("v1").await.unwrap();
    app().uploads(None).start(&blob(b"new")).await.unwrap();
    let seen = tokens.lines();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(seen[0].contains("push"), "{seen:?}");
}

#[tokio::test]
async fn pushing_with_a_mount_asks_for_its_source_too() {
    let tokens = token_server(Arc::default()).await;
    let server =
        Server::start(with_tokens(format!("http://{}/token", tokens.host), Arc::new(AtomicUsize::new(1)))).await;
    let uploads = repository(&server).uploads(Some("base/os".to_owned()));
    assert!(uploads.start(&blob(b"x")).await.unwrap().is_none());
    let path = &tokens.seen()[0].path;
    assert!(
        path.ends_with("scope=repository%3Abase%2Fos%3Apull&scope=repository%3Ateam%2Fapp%3Apull%2Cpush"),
        "{path}"
    );
}

#[tokio::test]
async fn an_identity_token_is_posted() {
    let tokens = token_server(Arc::default()).await;
    let server =
        Server::start(with_tokens(format!("http://{}/token", tokens.host), Arc::new(AtomicUsize::new(1)))).await;
    let text = format!(r#"{{"auths":{{"{}":{{"auth":"PHRva2VuPjo=","identitytoken":"id&1"}}}}}}"#, server.host);
    let client = with(Source::File { path: "config.json".into(), bytes: text.into_bytes() });
    client.repository(&server.host, "a").unwrap().manifest("v1").await.unwrap();
    let seen = &tokens.seen()[0];
    let body = String::from_utf8_lossy(&seen.body).into_owned();
    assert_eq!((seen.method.as_str(), seen.header("authorization")), ("POST", None));
    assert!(body.contains("refresh_token=id%261") && body.contains("grant_type=refresh_token"), "{body}");
}

#[tokio::test]
async fn scopes_that_the_server_names_are_asked_for() {
    let tokens = token_server(Arc::default()).await;
    let realm = format!("http://{}/token", tokens.host);
    let server = Server::start(move |seen| match (seen.path.as_str(), seen.header("authorization")) {
        ("/v2/", _) => answer(401).header("www-authenticate", format!(r#"Bearer realm="{realm}""#)),
        (_, Some("Bearer t2")) => answer(200).body("{}"),
        _ => answer(401).header("www-authenticate", format!(r#"Bearer realm="{realm}",scope="registry:special:*""#)),
    })
    .await;
    repository(&server).manifest("v1").await.unwrap();
    assert!(tokens.seen()[1].path.contains("registry%3Aspecial%3A*"), "{:?}", tokens.lines());
}
