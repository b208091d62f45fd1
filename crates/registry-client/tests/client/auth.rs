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
    assert!(shown(&error).contains("wrong user name or password for"), "{error}");
    assert!(!format!("{error:?}").contains("wrong"));
    let asked = server.seen();
    let anonymous = asked.iter().filter(|seen| seen.header("authorization").is_none());
    assert_eq!(anonymous.filter(|seen| seen.path != "/v2/").count(), 0, "nor does it go on as nobody: {asked:?}");

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

/// How six who ask at once for an image each fare with a password.
async fn six(server: &Server, password: &str) -> Vec<Result<(), ferry_registry_client::Error>> {
    let client = client(server, "me", password);
    let ask = |n: usize| {
        let repository = client.repository(&server.host, &format!("team/app{n}")).unwrap();
        async move { repository.manifest("v1").await.map(|_| ()) }
    };
    futures_util::future::join_all((0..6).map(ask)).await
}

#[tokio::test]
async fn a_wrong_password_is_sent_once_whoever_asks() {
    let server = Server::start(|seen| match seen.header("authorization") {
        Some("Basic bWU6cHc=") => answer(200).body("{}"),
        _ => answer(401).header("www-authenticate", "basic realm=\"x\""),
    })
    .await;
    let told: Vec<String> = six(&server, "wrong").await.into_iter().map(|one| one.unwrap_err().to_string()).collect();
    let words = format!("wrong user name or password for {} (401)", server.host);
    assert_eq!(told, vec![words; 6]);
    let sent = || server.seen().iter().filter(|seen| seen.header("authorization").is_some()).count();
    assert_eq!(sent(), 1, "{:?}", server.lines());
    assert!(six(&server, "pw").await.into_iter().all(|one| one.is_ok()));
    assert_eq!(sent(), 7);
}

#[tokio::test]
async fn nor_does_a_token_server_see_it_more_than_once() {
    let tokens = Server::start(|seen| match seen.header("authorization") {
        Some("Basic bWU6cHc=") => answer(200).body(r#"{"token":"t1"}"#),
        _ => answer(401).body(r#"{"details":"incorrect username or password"}"#),
    })
    .await;
    let server =
        Server::start(with_tokens(format!("http://{}/token", tokens.host), Arc::new(AtomicUsize::new(1)))).await;
    let told: Vec<String> = six(&server, "wrong").await.into_iter().map(|one| one.unwrap_err().to_string()).collect();
    assert!(told.iter().all(|one| *one == told[0] && one.starts_with("wrong user name or password for")), "{told:?}");
    assert_eq!(tokens.seen().len(), 1, "{:?}", tokens.lines());
    assert!(six(&server, "pw").await.into_iter().all(|one| one.is_ok()));
}

#[tokio::test]
async fn a_login_that_was_accepted_is_not_given_up_for_one_repository() {
    let server = Server::start(|seen| match seen.header("authorization") {
        Some("Basic bWU6cHc=") if !seen.path.contains("closed") => answer(200).body("{}"),
        _ => answer(401).header("www-authenticate", "basic realm=\"x\""),
    })
    .await;
    let client = client(&server, "me", "pw");
    let ask = |path: &str| client.repository(&server.host, path).unwrap();
    ask("open").manifest("v1").await.unwrap();
    assert_eq!(status(&ask("closed").manifest("v1").await.unwrap_err()), Some(401));
    ask("open").manifest("v1").await.unwrap();
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

/// As of registries whose tokens are for one namespace.
#[tokio::test]
async fn where_no_token_is_given_for_a_mount_one_for_the_push_alone_is_asked_for() {
    let tokens = Server::start(|seen| match seen.path.contains("closed") {
        true => answer(403),
        false => answer(200).body(r#"{"token":"t"}"#),
    })
    .await;
    let challenge = format!(r#"Bearer realm="http://{}/token",service="s""#, tokens.host);
    let server = Server::start(move |seen| match (seen.method.as_str(), seen.header("authorization")) {
        (_, None) => answer(401).header("www-authenticate", &challenge),
        ("HEAD", _) => answer(404),
        ("POST", _) => answer(202).header("location", "/upload/1"),
        _ => answer(200),
    })
    .await;
    let uploads = repository(&server).uploads(Some("closed/os".to_owned()));
    assert!(uploads.start(&blob(b"x")).await.unwrap().is_some());
    let asked: Vec<bool> = tokens.lines().iter().map(|line| line.contains("closed")).collect();
    assert!(asked.contains(&true) && asked.last() == Some(&false), "{:?}", tokens.lines());
    let last = server.lines().pop();
    assert_eq!(last.as_deref(), Some("POST /v2/team/app/blobs/uploads/"));
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

#[tokio::test]
async fn challenges_of_every_kind_are_understood() {
    let tokens = token_server(Arc::default()).await;
    let realm = format!("http://{}/token", tokens.host);
    let bearer = format!(r#"realm="{realm}",service="a, b""#);
    for challenges in [
        vec![format!("Bearer {bearer}")],
        vec![format!("bEaReR {bearer},error=\"invalid_token\"")],
        vec![format!(r#"Negotiate, Basic realm="x, Bearer realm=y", Bearer {bearer}"#)],
        vec!["Negotiate YWJj==".to_owned(), "Basic realm=\"x\"".to_owned(), format!("Bearer {bearer}")],
        vec![format!("BEARER  SERVICE=\"a, b\" ,Realm=\"{realm}\"")],
    ] {
        let shown = challenges.clone();
        let server = Server::start(move |seen| match seen.header("authorization") {
            Some(header) if header.starts_with("Bearer t") => answer(200).body("{}"),
            _ => challenges.iter().fold(answer(401), |answer, one| answer.header("www-authenticate", one)),
        })
        .await;
        repository(&server).manifest("v1").await.unwrap_or_else(|e| panic!("{shown:?}: {e}"));
        assert!(tokens.seen().last().unwrap().path.contains("service=a%2C+b&scope="), "{shown:?}");
    }
}

#[tokio::test]
async fn a_ready_made_token_that_is_refused_is_not_shown_again() {
    let tokens = token_server(Arc::default()).await;
    let server =
        Server::start(with_tokens(format!("http://{}/token", tokens.host), Arc::new(AtomicUsize::new(1)))).await;
    for (token, good) in [("t1", true), ("old", false)] {
        let text = format!(r#"{{"auths":{{"{}":{{"registrytoken":"{token}"}}}}}}"#, server.host);
        let client = with(Source::File { path: "config.json".into(), bytes: text.into_bytes() });
        let before = server.seen().len();
        let result = client.repository(&server.host, "a").unwrap().manifest("v1").await;
        assert_eq!(result.map(drop).map_err(|e| status(&e)), if good { Ok(()) } else { Err(Some(401)) });
        assert_eq!(server.seen().len(), before + 1, "there is no other");
    }
    assert!(tokens.lines().is_empty(), "nor is one asked for: {:?}", tokens.lines());
}

#[tokio::test]
async fn an_identity_token_is_a_password_where_tokens_cannot_be_posted_for() {
    for (post, works) in [(404, true), (405, true), (401, false), (400, false)] {
        let tokens = Server::start(move |seen| match (seen.method.as_str(), seen.header("authorization")) {
            ("POST", _) => answer(post),
            // `<token>:id`
            (_, Some("Basic PHRva2VuPjppZA==")) => answer(200).body(r#"{"token":"t1"}"#),
            _ => answer(403),
        })
        .await;
        let server =
            Server::start(with_tokens(format!("http://{}/token", tokens.host), Arc::new(AtomicUsize::new(1)))).await;
        let text = format!(r#"{{"auths":{{"{}":{{"identitytoken":"id"}}}}}}"#, server.host);
        let client = with(Source::File { path: "config.json".into(), bytes: text.into_bytes() });
        let result = client.repository(&server.host, "a").unwrap().manifest("v1").await;
        assert_eq!(result.is_ok(), works, "{post}: {:?}", tokens.lines());
        assert!(!tokens.seen().iter().any(|s| s.method == "GET" && s.header("authorization").is_none()), "anonymous");
        if let Err(error) = result {
            assert!(tokens.seen().len() == 1 && !format!("{error:?}").contains("refresh_token"), "{error:?}");
        }
    }
}

#[tokio::test]
async fn an_identity_token_is_not_sent_on_to_another_host() {
    let other = Server::start(|_| answer(200).body(r#"{"token":"t1"}"#)).await;
    let to = format!("http://{}/token", other.host);
    let tokens = Server::start(move |_| answer(307).header("location", &to)).await;
    let server =
        Server::start(with_tokens(format!("http://{}/token", tokens.host), Arc::new(AtomicUsize::new(1)))).await;
    let text = format!(r#"{{"auths":{{"{}":{{"identitytoken":"id"}}}}}}"#, server.host);
    let client = with(Source::File { path: "config.json".into(), bytes: text.into_bytes() });
    let error = client.repository(&server.host, "a").unwrap().manifest("v1").await.unwrap_err();
    assert!(error.to_string().contains(&other.host) && error.to_string().contains("must not see"), "{error}");
    assert!(other.lines().is_empty());
}

#[tokio::test]
async fn a_token_server_is_asked_as_patiently_as_any_other() {
    let count = AtomicUsize::new(0);
    let tokens = Server::start(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 => answer(503),
        1 => answer(429).header("retry-after", "0"),
        2 => answer(200).body(r#"{"tok"#).length(40),
        _ => answer(200).body(r#"{"token":"t1"}"#),
    })
    .await;
    let server =
        Server::start(with_tokens(format!("http://{}/token", tokens.host), Arc::new(AtomicUsize::new(1)))).await;
    repository(&server).manifest("v1").await.unwrap();
    assert_eq!(tokens.seen().len(), 4);
}

#[tokio::test]
async fn who_waits_for_a_token_that_cannot_be_had_hears_of_it() {
    let tokens = Server::start(|_| answer(503)).await;
    let server = Server::start(with_tokens(format!("http://{}/token", tokens.host), Arc::default())).await;
    let repository = client(&server, "me", "pw").repository(&server.host, "a").unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let repository = repository.clone();
        tasks.spawn(async move { repository.manifest("v1").await.map(drop).map_err(|e| status(&e)) });
    }
    assert!(tasks.join_all().await.into_iter().all(|result| result == Err(Some(503))));
    assert_eq!(tokens.seen().len(), 6, "one attempt after another, for all of them");
    assert_eq!(server.seen().len(), 0, "and nothing without a token");
}

#[tokio::test]
async fn a_transfer_goes_on_with_a_new_token() {
    // every token is good for four blob requests; each blob comes in pieces
    const PIECE: u64 = 5;
    let content: Vec<u8> = (0..100).collect();
    let (issued, valid) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(1)));
    let tokens = token_server(Arc::clone(&issued)).await;
    let gate = with_tokens(format!("http://{}/token", tokens.host), Arc::clone(&valid));
    let (served, bytes) = (AtomicUsize::new(0), content.clone());
    let server = Server::start(move |seen| {
        let mut answer = gate(seen);
        if seen.path.contains("/blobs/") && answer.is(200) {
            let range = seen.header("range").and_then(|r| r.strip_prefix("bytes="));
            let first: usize = range.and_then(|r| r.split('-').next()?.parse().ok()).unwrap_or(0);
            let status = if range.is_some() { 206 } else { 200 };
            let end = bytes.len().min(first + usize::try_from(PIECE).unwrap());
            answer = crate::server::answer(status)
                .header("content-range", format!("bytes {first}-{}/{}", bytes.len() - 1, bytes.len()))
                .body(&bytes[first..end])
                .length(bytes.len() - first);
            if served.fetch_add(1, Ordering::Relaxed) % 4 == 3 {
                valid.fetch_add(1, Ordering::Relaxed);
            }
        }
        answer
    })
    .await;
    let repository = client(&server, "me", "pw").repository(&server.host, "team/app").unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (repository, blob) = (repository.clone(), blob(&content));
        tasks.spawn(async move { ferry_content::read_all(&repository, &blob, 1000).await });
    }
    for read in tasks.join_all().await {
        assert_eq!(read.unwrap(), content);
    }
    let requests = 4 * content.len() / usize::try_from(PIECE).unwrap();
    let issued = issued.load(Ordering::Relaxed);
    assert!(issued <= requests / 4 + 1, "one token for four requests, not for each that was refused: {issued}");
}
