//! Proxies between ferry and registries.

use std::net::{IpAddr, Ipv4Addr};

use ferry_tests::ferry::{Ferry, Outcome};
use ferry_tests::proxy::{Proxy, Rules};
use ferry_tests::registry::{Access, Authority, Door, Registry, Says};
use ferry_tests::require;
use ferry_tests::site::Site;

use crate::{FOR, SIGN, TRUST, one, small};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOGIN: &str = "carrier:hunter2";

/// A registry that the proxy knows as `registry.example`, with TLS.
fn behind(registry: &Registry) -> (Door, Authority) {
    let ca = Authority::new("ours");
    let certificate = ca.issue(&Says { names: Some("DNS:registry.example"), ..Says::default() });
    (registry.door(HERE, Some(&certificate), None), ca)
}

fn bundle(site: &Site, door: &Door, ca: &Authority) -> Ferry {
    let _ = std::fs::remove_file(site.at("b.tar"));
    let source = format!("registry.example:{}/app/one:1", door.port());
    site.ferry(&format!("bundle {source} {FOR} -o b.tar {SIGN} -vvv --ca-file {}", ca.certificate().display()))
}

fn keeps_its_secret(told: &Outcome) {
    assert!(!told.stderr.contains("hunter2") && !told.stderr.contains("Y2Fycmllcjpod"), "{}", told.stderr);
}

#[test]
fn https_goes_through_any_kind_of_proxy_with_a_login() {
    require!("docker-registry", "openssl");
    let (registry, image, site) = one();
    let (door, ca) = behind(&registry);
    let target = Registry::start(Access::Plain);
    let (into, into_ca) = behind(&target);
    for (scheme, variable, word) in [
        ("http://", "HTTPS_PROXY", "CONNECT"),
        ("", "https_proxy", "CONNECT"),
        ("http://", "all_proxy", "CONNECT"),
        ("socks5h://", "ALL_PROXY", "SOCKS"),
        ("socks5h://", "HTTPS_PROXY", "SOCKS"),
    ] {
        let proxy = Proxy::start(Rules { login: Some(LOGIN), ..Rules::default() });
        let url = format!("{scheme}{LOGIN}@{}", proxy.host());
        keeps_its_secret(&bundle(&site, &door, &ca).env(variable, &url).ok());
        let through = format!("{word} registry.example:{}", door.port());
        assert!(!proxy.asked().is_empty() && proxy.asked().iter().all(|a| a == &through), "{:?}", proxy.asked());

        let prefix = format!("{}{word}", variable.to_ascii_lowercase().replace('_', "-")).to_ascii_lowercase();
        let install = format!(
            "install b.tar --registry registry.example:{}/{prefix} {TRUST} --ca-file {} -vvv",
            into.port(),
            into_ca.certificate().display()
        );
        keeps_its_secret(&site.ferry(&install).env(variable, &url).ok());
        assert!(target.holds(&format!("{prefix}/app/one"), &image));
    }
}

#[test]
fn socks5_takes_addresses_that_are_resolved_here() {
    require!("docker-registry", "openssl");
    let (registry, _, site) = one();
    let (door, ca) = behind(&registry);
    let proxy = Proxy::start(Rules::default());
    let url = format!("socks5://{}", proxy.host());
    let told = bundle(&site, &door, &ca).env("ALL_PROXY", &url).run().expect_code(5);
    told.says(&["the name cannot be resolved"]);
    let _ = bundle(&site, &door, &ca).env("ALL_PROXY", &url).arg("--resolve").arg("registry.example:192.0.2.9").ok();
    assert!(proxy.asked().contains(&format!("SOCKS 192.0.2.9:{}", door.port())), "{:?}", proxy.asked());
}

#[test]
fn a_proxy_that_refuses_is_named() {
    require!("docker-registry", "openssl");
    let (registry, _, site) = one();
    let (door, ca) = behind(&registry);
    let by = |url: &str| bundle(&site, &door, &ca).env("HTTPS_PROXY", url).run().expect_code(5);

    let asking = Proxy::start(Rules { login: Some(LOGIN), ..Rules::default() });
    for login in ["", "carrier:hunter2x@"] {
        let told = by(&format!("http://{login}{}", asking.host()));
        told.says(&[
            &format!("the proxy http://{} does not accept our login", asking.host()),
            "hint",
            "HTTPS_PROXY=http://USER",
        ]);
        keeps_its_secret(&told);
        by(&format!("socks5h://{login}{}", asking.host())).says(&["does not accept our login"]);
    }
    let strict = Proxy::start(Rules { refuse: Some(("403 Filtered", 2)), ..Rules::default() });
    let told = by(&format!("http://{LOGIN}@{}", strict.host()));
    told.says(&[&format!("the proxy http://{} refuses to connect: 403 Filtered", strict.host()), "NO_PROXY"]);
    keeps_its_secret(&told);
    let told = by(&format!("socks5h://{}", strict.host()));
    told.says(&[&format!("the proxy socks5h://{} refuses to connect", strict.host())]);
    let gone = format!("127.0.0.1:{}", ferry_tests::registry::free_port());
    by(&format!("http://{LOGIN}@{gone}"))
        .says(&[&format!("the proxy http://{gone} cannot be reached: connection refused")]);

    for bad in ["ftp://carrier:hunter2@p.example", "http://carrier:hunter2@"] {
        let told = bundle(&site, &door, &ca).env("HTTPS_PROXY", bad).run().expect_code(2);
        told.says(&["HTTPS_PROXY"]);
        keeps_its_secret(&told);
    }
}

#[test]
fn what_no_proxy_and_the_config_file_name_is_reached_directly() {
    require!("docker-registry", "openssl");
    let (registry, _, site) = one();
    let (door, ca) = behind(&registry);
    let proxy = Proxy::start(Rules::default());
    let bundle = |no_proxy: &str| {
        bundle(&site, &door, &ca)
            .env("https_proxy", proxy.host())
            .env("no_proxy", no_proxy)
            .arg("--resolve")
            .arg("registry.example:127.0.0.1")
    };
    let port = door.port();
    for no_proxy in ["registry.example", ".example", "a.example, *.example", &format!("registry.example:{port}"), "*"] {
        let _ = bundle(no_proxy).ok();
        assert!(proxy.asked().is_empty(), "{no_proxy}: {:?}", proxy.asked());
    }
    site.write("ferry.yaml", format!("hosts: {{\"registry.example:{port}\": {{noProxy: true}}}}\n"));
    let _ = bundle("other.example").arg("--config").arg("ferry.yaml").ok();
    assert!(proxy.asked().is_empty());
    // this machine itself, whatever is said
    let here = Registry::filled(Access::Plain, &[("app/one:1", &small(1))]);
    let ferry = site.ferry(&format!("bundle {}/app/one:1 {FOR} -o c.tar {SIGN}", here.host()));
    let _ = ferry.env("ALL_PROXY", proxy.host()).ok();
    assert!(proxy.asked().is_empty());
    for no_proxy in ["", "notregistry.example", "127.0.0.0/8", "registry.example:1"] {
        let before = proxy.asked().len();
        let _ = bundle(no_proxy).ok();
        assert!(proxy.asked().len() > before, "{no_proxy}");
    }
}

#[test]
fn an_address_in_a_network_that_no_proxy_names_is_reached_directly() {
    let site = Site::new();
    let proxy = Proxy::start(Rules { refuse: Some(("403 Filtered", 2)), ..Rules::default() });
    // nobody is there (TEST-NET-1 and the documentation prefix): what counts is who was asked
    for (host, no_proxy, direct) in [
        ("192.0.2.1:5000", "192.0.2.0/24", true),
        ("192.0.2.1:5000", "192.0.3.0/24", false),
        ("[2001:db8::1]:5000", "2001:db8::/32", true),
        ("[2001:db8::1]:5000", "2001:db9::/32", false),
    ] {
        let before = proxy.asked().len();
        site.write("ferry.yaml", format!("hosts: {{\"{host}\": {{connectTimeout: 1}}}}\n"));
        let ferry = site.ferry(&format!("bundle {host}/app/one:1 {FOR} -o b.tar {SIGN} --config ferry.yaml"));
        let told = ferry.env("ALL_PROXY", proxy.host()).env("NO_PROXY", no_proxy).run().expect_code(5);
        assert_eq!(proxy.asked().len() == before, direct, "{host} {no_proxy}: {}", told.stderr);
    }
}

#[test]
fn plain_http_is_forwarded() {
    require!("docker-registry");
    let (registry, image, site) = one();
    let proxy = Proxy::start(Rules { login: Some(LOGIN), ..Rules::default() });
    let port = registry.address().port();
    let ferry = |command: String| {
        site.ferry(&format!("{command} --plain-http -vvv")).env("http_proxy", format!("{LOGIN}@{}", proxy.host()))
    };
    keeps_its_secret(&ferry(format!("bundle registry.example:{port}/app/one:1 {FOR} -o b.tar {SIGN}")).ok());
    assert!(proxy.asked().contains(&format!("GET http://registry.example:{port}/v2/")), "{:?}", proxy.asked());
    let target = Registry::start(Access::Plain);
    let port = target.address().port();
    keeps_its_secret(&ferry(format!("install b.tar --registry registry.example:{port} {TRUST}")).ok());
    assert!(target.holds("app/one", &image));
}
