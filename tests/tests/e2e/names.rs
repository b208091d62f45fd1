//! Names and addresses: IPv6, and names that no name server knows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ferry_tests::registry::{Access, Authority, Registry, Says};
use ferry_tests::require;

use crate::{FOR, SIGN, TRUST, one};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

#[test]
fn an_ipv6_address_is_a_source_and_a_target() {
    require!("docker-registry", "openssl");
    let (registry, image, site) = one();
    let ca = Authority::new("ours");
    let certificate = ca.issue(&Says::default());
    let target = Registry::start(Access::Plain);
    for certificate in [None, Some(&certificate)] {
        let from = registry.door(V6, certificate, None);
        assert!(from.host().starts_with("[::1]:"));
        let ca = ca.certificate().display().to_string();
        let _ = site.ferry(&format!("bundle {}/app/one:1 {FOR} -o b.tar {SIGN} --ca-file {ca}", from.host())).ok();
        let json = site.ferry(&format!("inspect b.tar --json {TRUST}")).ok().json();
        assert_eq!(json["images"][0]["reference"], format!("{}/app/one:1", from.host()));
        assert_eq!(json["images"][0]["source"], format!("{}/app/one", from.host()));

        // the address has to be quoted in YAML, on the way in and on the way out
        let into = target.door(V6, certificate, None);
        let yaml =
            |host: &str| format!("kind: Pod\nspec:\n  containers:\n  - {{name: a, image: \"{host}/app/one:1\"}}\n");
        site.write("pod.yaml", yaml(&from.host()));
        let install =
            format!("install b.tar --registry {} {TRUST} --ca-file {ca} --yaml pod.yaml --out out", into.host());
        let _ = site.ferry(&install).ok();
        assert!(target.holds("app/one", &image));
        assert_eq!(site.read("out/pod.yaml"), yaml(&into.host()));
        for file in ["b.tar", "out"] {
            let _ = std::fs::remove_file(site.at(file));
        }
    }
}

#[test]
fn an_ipv6_target_is_quoted_where_the_source_was_not() {
    require!("docker-registry");
    let (registry, _, site) = one();
    let _ = site.ferry(&format!("bundle {}/app/one:1 {FOR} -o b.tar {SIGN}", registry.host())).ok();
    site.write(
        "pod.yaml",
        format!("kind: Pod\nspec:\n  containers:\n  - image: {}/app/one:1 # ours\n", registry.host()),
    );
    let target = Registry::start(Access::Plain);
    let into = target.door(V6, None, None);
    let _ = site.ferry(&format!("install b.tar --registry {}/p {TRUST} --yaml pod.yaml --out out", into.host())).ok();
    let expected = format!("kind: Pod\nspec:\n  containers:\n  - image: \"{}/p/app/one:1\" # ours\n", into.host());
    assert_eq!(site.read("out/pod.yaml"), expected);
}

#[test]
fn a_name_that_no_name_server_knows_can_be_given_an_address() {
    require!("docker-registry", "openssl");
    let (registry, image, site) = one();
    let ca = Authority::new("ours");
    let certificate = ca.issue(&Says { names: Some("DNS:registry.example"), ..Says::default() });
    let (v4, v6) = (registry.door(V4, Some(&certificate), None), registry.door(V6, Some(&certificate), None));
    let bundle = |port: u16, options: &str| {
        let _ = std::fs::remove_file(site.at("b.tar"));
        let ca = ca.certificate().display().to_string();
        site.ferry(&format!("bundle registry.example:{port}/app/one:1 {FOR} -o b.tar {SIGN} --ca-file {ca} {options}"))
    };
    let told = bundle(v4.port(), "").run().expect_code(5);
    told.says(&["registry.example", "the name cannot be resolved"]);
    let _ = bundle(v4.port(), "--resolve registry.example:127.0.0.1").ok();
    let _ = bundle(v6.port(), "--resolve Registry.Example:[::1]").ok();
    let (p4, p6) = (v4.port(), v6.port());
    let both = format!("--resolve registry.example:{p4}:127.0.0.1 --resolve registry.example:{p6}:[::1]");
    let _ = bundle(v4.port(), &both).ok();
    let _ = bundle(v6.port(), &both).ok();
    // an address for another port is none
    let other = format!("--resolve registry.example:{p6}:[::1]");
    bundle(v4.port(), &other).run().expect_code(5).says(&["the name cannot be resolved"]);
    // the first that answers is taken
    let _ = bundle(v6.port(), &format!("--resolve registry.example:{p6}:127.0.0.1,[::1]")).ok();

    // the config file's, and the command line before it
    site.write("ferry.yaml", format!("hosts:\n  registry.example:{p6}:\n    resolve: ::1\n"));
    let _ = bundle(v6.port(), "--config ferry.yaml").ok();
    let told = bundle(v6.port(), "--config ferry.yaml --resolve registry.example:127.0.0.1").run().expect_code(5);
    told.says(&["connection refused"]);

    for bad in ["registry.example", "registry.example:::1", "registry.example:nowhere"] {
        bundle(v4.port(), &format!("--resolve {bad}")).run().expect_code(2).says(&["--resolve", "HOST:ADDRESS"]);
    }

    // a target's name, too: YAML gets the name, not the address
    let _ = bundle(v4.port(), "--resolve registry.example:127.0.0.1").ok();
    let target = Registry::start(Access::Plain);
    let into = target.door(V4, Some(&certificate), None);
    let install = format!(
        "install b.tar --registry registry.example:{} {TRUST} --ca-file {} --resolve registry.example:{}:127.0.0.1",
        into.port(),
        ca.certificate().display(),
        into.port()
    );
    let _ = site.ferry(&install).ok();
    assert!(target.holds("app/one", &image));
    assert!(site.read("ferry-out/relocation.json").contains(&format!("registry.example:{}/app/one", into.port())));
}
