//! Proxies on the way, and in the way.

use ferry_content::{Failure as _, Kind};
use ferry_registry_client::{Client, Config, PlainHttp, Proxies, Secret};

use crate::proxy::{Proxy, Rule};
use crate::server::{Server, answer};
use crate::tls::{issued, serve, trusting};
use crate::{config, shown};

/// Everything by way of `url`, and `registry.example` is trusted.
fn by_way_of(url: String, mut config: Config) -> Config {
    config.proxy = Proxies { all: Some(Secret::new(url)), ..Proxies::default() };
    config.resolve = vec!["registry.example:192.0.2.7".parse().unwrap()];
    config
}

async fn told(config: Config, host: &str) -> String {
    let error = Client::new(config).unwrap().ping(host).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Remote);
    let told = shown(&error);
    assert!(!told.contains("hunter2") && !format!("{error:?}").contains("hunter2"), "a secret is told: {told}");
    told
}

#[tokio::test]
async fn tls_goes_through_a_tunnel_and_the_certificate_is_still_the_registrys() {
    let made = issued(&["registry.example"]);
    let server = serve(&made).await;
    let (_dir, trusting) = trusting(&made.pem);
    let address = server.host.parse().unwrap();
    for (scheme, asked) in
        [("http", "registry.example:5000"), ("socks5h", "registry.example:5000"), ("socks5", "192.0.2.7:5000")]
    {
        for login in [None, Some("me:hunter2@")] {
            let proxy = Proxy::start(Rule::To(address), login.map(|l| l.trim_end_matches('@'))).await;
            let url = format!("{scheme}://{}{}", login.unwrap_or_default(), proxy.host);
            let client = Client::new(by_way_of(url, trusting.clone())).unwrap();
            let ping = client.ping("registry.example:5000").await.unwrap();
            assert_eq!(ping.address, "https://registry.example:5000/");
            assert_eq!(proxy.asked(), [asked], "{scheme} {login:?}");
        }
    }
    let proxy = Proxy::start(Rule::To(address), None).await;
    let told = told(by_way_of(format!("http://{}", proxy.host), config()), "registry.example:5000").await;
    assert!(told.contains("certificate"), "{told}");
}

#[tokio::test]
async fn a_login_may_hold_any_character() {
    let made = issued(&["registry.example"]);
    let server = serve(&made).await;
    let (_dir, trusting) = trusting(&made.pem);
    for scheme in ["http", "socks5h"] {
        let proxy = Proxy::start(Rule::To(server.host.parse().unwrap()), Some("m@e:hun:ter/2%+")).await;
        let url = format!("{scheme}://m%40e:hun%3Ater%2F2%25%2B@{}", proxy.host);
        Client::new(by_way_of(url, trusting.clone())).unwrap().ping("registry.example:5000").await.unwrap();
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_with_its_reason() {
    let host = "registry.example:5000";
    for (rule, login, schemes, expected) in [
        (
            Rule::Refuse("403 Forbidden", 2),
            None,
            "http",
            "refuses to connect: 403 Forbidden | have the proxy allow registry.example",
        ),
        (Rule::Refuse("403 Forbidden", 2), Some("me:hunter2"), "http", "refuses to connect: 403 Forbidden"),
        (Rule::Refuse("403", 2), None, "socks5h", "refuses to connect: connection not allowed"),
        (Rule::Refuse("504 Gateway Timeout", 4), None, "http", "does not get through: 504 Gateway Timeout"),
        (Rule::Refuse("504", 4), None, "socks5h", "does not get through: host unreachable"),
        (
            Rule::Refuse("", 0),
            Some("me:other"),
            "http,socks5h",
            "does not accept our login, or the lack of one | give user and password",
        ),
    ] {
        for scheme in schemes.split(',') {
            let proxy = Proxy::start(rule, login).await;
            let told = told(by_way_of(format!("{scheme}://me:hunter2@{}", proxy.host), config()), host).await;
            let expected = format!("{host}: the proxy {scheme}://{} {expected}", proxy.host);
            assert!(told.starts_with(&expected), "{told}\n{expected}");
            let transient = expected.contains("does not get through");
            assert_eq!(proxy.asked().len() > 2, transient, "tried again only where that may help: {:?}", proxy.asked());
        }
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_named() {
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    for scheme in ["http", "socks5", "socks5h"] {
        for (host, plain) in [("registry.example:5000", false), ("registry.example:80", true)] {
            let mut config = by_way_of(format!("{scheme}://me:hunter2@{gone}"), config());
            config.plain_http = if plain { PlainHttp::All } else { PlainHttp::Never };
            let told = told(config, host).await;
            let expected =
                format!("the proxy {scheme}://{gone} cannot be reached: connection refused | check `HTTPS_PROXY`");
            assert!(told.contains(&expected), "{told}\n{expected}");
        }
    }
    let told = told(by_way_of("http://no-such-proxy.invalid:3128".to_owned(), config()), "registry.example").await;
    assert!(
        told.contains("the proxy http://no-such-proxy.invalid:3128 cannot be reached: the name cannot be"),
        "{told}"
    );
}

#[tokio::test]
async fn plain_http_is_forwarded_and_the_forwarders_refusal_told() {
    let forwarder = Server::start(|seen| match seen.header("proxy-authorization") {
        Some("Basic bWU6aHVudGVyMg==") => answer(if seen.path.ends_with("/v2/") { 200 } else { 403 }),
        _ => answer(407).header("proxy-authenticate", "Basic"),
    })
    .await;
    let at = |login: &str| Config {
        plain_http: PlainHttp::All,
        ..by_way_of(format!("{login}{}", forwarder.host), config())
    };
    let client = Client::new(at("me:hunter2@")).unwrap();
    client.ping("registry.example:5000").await.unwrap();
    let error = client.repository("registry.example:5000", "a").unwrap().manifest("1").await.unwrap_err();
    let by = format!("registry.example:5000 by way of the proxy http://{}", forwarder.host);
    assert!(shown(&error).contains(&by), "{}", shown(&error));
    let told = told(at(""), "registry.example:5000").await;
    assert!(told.contains(&format!("the proxy http://{} does not accept our login", forwarder.host)), "{told}");
}

#[tokio::test]
async fn a_host_can_be_kept_from_the_proxy() {
    let direct = Server::start(|_| answer(200)).await;
    let proxy = Proxy::start(Rule::Refuse("403 Forbidden", 2), None).await;
    let host = direct.host.replace("127.0.0.1", "registry.example");
    let mut config = by_way_of(format!("http://{}", proxy.host), config());
    config.plain_http = PlainHttp::All;
    config.resolve = vec!["registry.example:127.0.0.1".parse().unwrap()];
    let own = ferry_registry_client::HostConfig { no_proxy: true, ..Default::default() };
    config.hosts.insert(&host, own).unwrap();
    Client::new(config).unwrap().ping(&host).await.unwrap();
    assert!(proxy.asked().is_empty());
}

#[tokio::test]
async fn a_bare_ipv6_address_behind_a_proxy_is_a_limit_that_is_told() {
    let made = issued(&["2001:db8::1"]);
    let server = serve(&made).await;
    let (_dir, trusting) = trusting(&made.pem);
    for scheme in ["http", "socks5h"] {
        let proxy = Proxy::start(Rule::To(server.host.parse().unwrap()), None).await;
        let told = told(by_way_of(format!("{scheme}://{}", proxy.host), trusting.clone()), "[2001:db8::1]:5000").await;
        assert!(told.contains("a bare IPv6 address is not reached by way of a proxy"), "{told}");
        assert_eq!(proxy.asked(), ["[2001:db8::1]:5000"]);
    }
}
