//! Names, addresses and the lack of them.

use ferry_content::{Failure as _, Kind};
use ferry_registry_client::{Client, Config, PlainHttp, Proxies, Resolver, Secret};

use crate::server::{Server, answer};
use crate::{config, shown};

#[tokio::test]
async fn nobody_listening_is_told() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = Client::new(config()).unwrap().ping(&host).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Remote);
    assert!(
        shown(&error).starts_with(&format!("{host}: connection refused | check host and port")),
        "{}",
        shown(&error)
    );
}

#[tokio::test]
async fn a_name_without_address_is_told() {
    let error = Client::new(config()).unwrap().ping("no-such-host.invalid").await.unwrap_err();
    assert!(shown(&error).contains("the name cannot be resolved"), "{}", shown(&error));
}

#[tokio::test]
async fn an_address_can_be_given_for_a_name() {
    let server = Server::start(|_| answer(200)).await;
    let host = server.host.replace("127.0.0.1", "registry.example");
    for resolver in [Resolver::System, Resolver::Own] {
        let config = Config {
            resolve: vec!["registry.example:127.0.0.1".parse().unwrap()],
            resolver,
            plain_http: PlainHttp::Hosts(vec![host.clone()]),
            ..config()
        };
        let ping = Client::new(config).unwrap().ping(&host).await.unwrap();
        assert_eq!((ping.address, ping.plain_http), (format!("http://{host}/"), true));
    }
    assert_eq!(server.seen().len(), 0);
}

#[tokio::test]
async fn another_host_is_not_spoken_to_without_tls_unasked() {
    let server = Server::start(|_| answer(200)).await;
    let host = server.host.replace("127.0.0.1", "registry.example");
    let resolve = vec!["registry.example:127.0.0.1".parse().unwrap()];
    let error = Client::new(Config { resolve, ..config() }).unwrap().ping(&host).await.unwrap_err();
    assert!(shown(&error).contains("speaks plain HTTP") && shown(&error).contains("--plain-http"), "{}", shown(&error));
    assert!(server.lines().is_empty());
}

#[tokio::test]
async fn a_proxy_is_used_but_for_this_machine_and_exceptions() {
    let proxy = Server::start(|_| answer(200)).await;
    let direct = Server::start(|_| answer(200)).await;
    let config = Config {
        plain_http: PlainHttp::All,
        proxy: Proxies {
            http: Some(Secret::new(format!("http://{}", proxy.host))),
            no_proxy: Some(".direct.example".to_owned()),
            ..Proxies::default()
        },
        resolve: vec!["r.direct.example:127.0.0.1".parse().unwrap()],
        ..config()
    };
    let client = Client::new(config).unwrap();
    client.ping("registry.example").await.unwrap();
    assert_eq!(proxy.lines(), ["GET /v2/"]);
    client.ping(&direct.host).await.unwrap();
    client.ping(&direct.host.replace("127.0.0.1", "r.direct.example")).await.unwrap();
    assert_eq!((proxy.lines().len(), direct.lines().len()), (1, 2));
}

#[test]
fn a_repository_has_a_path() {
    let client = Client::new(config()).unwrap();
    assert_eq!(client.repository("docker.io", "library/nginx").unwrap().to_string(), "docker.io/library/nginx");
    for path in ["", "a/../b", "a?b", "/a"] {
        assert!(client.repository("r.example", path).is_err(), "{path}");
    }
}
