//! The list of repositories.

use ferry_content::Failure as _;
use ferry_content::Kind;
use ferry_registry_client::Client;
use serde_json::json;

use crate::server::{Answer, Seen, Server, answer};
use crate::{config, shown, status};

fn page(names: &[&str]) -> Answer {
    answer(200).header("content-type", "application/json").body(json!({"repositories": names}).to_string())
}

fn number(seen: &Seen) -> Option<usize> {
    seen.path.split_once("page=").map(|(_, n)| n.parse().unwrap())
}

async fn catalog(server: &Server, limit: usize) -> Result<Vec<String>, ferry_registry_client::Error> {
    Client::new(config()).unwrap().catalog(&server.host, limit).await
}

#[tokio::test]
async fn it_is_read_page_by_page() {
    let server = Server::start(|seen| match number(seen) {
        _ if seen.path == "/v2/" => answer(200),
        None => page(&["a", "b/c"]).header("link", "</v2/_catalog?page=1>; rel=\"next\""),
        // a page may be empty, and an empty registry may say `null`
        Some(1) => answer(200).body("{\"repositories\":null}").header("link", "<?page=2>; rel=next"),
        Some(_) => page(&["d"]),
    })
    .await;
    assert_eq!(catalog(&server, 100).await.unwrap(), ["a", "b/c", "d"]);
    let seen = server.seen();
    let paths: Vec<&str> = seen.iter().map(|seen| seen.path.as_str()).collect();
    assert_eq!(paths, ["/v2/_catalog?n=1000", "/v2/_catalog?page=1", "/v2/_catalog?page=2"]);
    assert_eq!(catalog(&server, 1).await.unwrap(), ["a", "b/c"], "more than the limit tells that it is passed");
}

#[tokio::test]
async fn pages_end() {
    let endless = |names: &'static [&'static str]| {
        move |seen: &Seen| match number(seen) {
            _ if seen.path == "/v2/" => answer(200),
            n => page(names).header("link", format!("<?page={}>; rel=next", n.unwrap_or_default() + 1)),
        }
    };
    let found = catalog(&Server::start(endless(&["a"])).await, 5).await.unwrap();
    assert_eq!(found.len(), 6);
    let error = catalog(&Server::start(endless(&[])).await, 5).await.unwrap_err();
    assert!(error.to_string().contains("do not end"), "{error}");
    for link in ["<https://elsewhere.example/x>; rel=next", "<>; rel=next"] {
        let server = Server::start(move |_| page(&["a"]).header("link", link)).await;
        let error = catalog(&server, 5).await.unwrap_err();
        assert!(error.to_string().contains("next page"), "{link}: {error}");
    }
}

#[tokio::test]
async fn a_registry_without_one_says_how_to_go_on() {
    for (refusal, words) in [
        (404, "does not list its repositories"),
        (405, "does not list its repositories"),
        (403, "not allowed to list its repositories"),
        (401, "credentials are required to list its repositories"),
    ] {
        let server = Server::start(move |seen| answer(if seen.path == "/v2/" { 200 } else { refusal })).await;
        let error = catalog(&server, 5).await.unwrap_err();
        assert_eq!((status(&error), error.kind()), (Some(refusal), Kind::Remote));
        let told = shown(&error);
        assert!(told.contains(words) && told.contains("name the repositories"), "{told}");
    }
    for body in ["<html>", "[]", "{\"repositories\":[1]}"] {
        let server = Server::start(move |_| answer(200).body(body)).await;
        assert!(catalog(&server, 5).await.unwrap_err().to_string().contains("not understood"), "{body}");
    }
}

#[tokio::test]
async fn a_token_is_asked_for_with_its_scope() {
    let tokens = Server::start(|_| answer(200).body("{\"token\":\"t\"}")).await;
    let realm = format!("Bearer realm=\"http://{}/token\",service=\"s\"", tokens.host);
    let server = Server::start(move |seen| match seen.header("authorization") {
        Some("Bearer t") => page(&["a"]),
        _ => answer(401).header("www-authenticate", realm.clone()),
    })
    .await;
    assert_eq!(catalog(&server, 5).await.unwrap(), ["a"]);
    let asked = tokens.seen().remove(0);
    assert!(
        asked.path.contains("registry%3Acatalog%3A*") || asked.path.contains("registry:catalog:*"),
        "{}",
        asked.path
    );
}
