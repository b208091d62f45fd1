//! Certificates as openssl makes them, shown by real registries.

use std::net::{IpAddr, Ipv4Addr};

use ferry_tests::ferry::Ferry;
use ferry_tests::registry::{Access, Authority, Door, Registry, Says, lay_out};
use ferry_tests::require;
use ferry_tests::site::Site;

use crate::{FOR, SIGN, TRUST, one, small};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn bundle(site: &Site, door: &Door) -> Ferry {
    site.ferry(&format!("bundle {}/app/one:1 {FOR} -o b.tar {SIGN}", door.host()))
}

#[test]
fn a_certificate_that_will_not_do_is_told_from_the_next() {
    require!("docker-registry", "openssl");
    let (registry, _, site) = one();
    let ca = Authority::new("ours");
    let other = Authority::new("ours");
    let good = Says::default();
    for (says, trusted, expected) in [
        (good, &ca, ""),
        (Says { years: (2020, 2021), ..good }, &ca, "its certificate expired on 2021-12-31 00:00 UTC"),
        (Says { years: (2101, 2102), ..good }, &ca, "its certificate is not valid before 2101-01-01 00:00 UTC"),
        (
            Says { names: Some("DNS:registry.example"), ..good },
            &ca,
            "its certificate is for other names: registry.example",
        ),
        (Says { name: "127.0.0.1", names: Some("DNS:127.0.0.1"), ..good }, &ca, "its certificate is for other names"),
        (Says { name: "127.0.0.1", names: Some("email:me@x.example"), ..good }, &ca, "has no subject alternative name"),
        (Says { name: "127.0.0.1", names: None, ..good }, &ca, "has no subject alternative name"),
        (good, &other, "its certificate is signed by nobody that is trusted here"),
    ] {
        let door = registry.door(HERE, Some(&ca.issue(&says)), None);
        let ferry = bundle(&site, &door).arg("--ca-file").arg(trusted.certificate());
        if expected.is_empty() {
            let _ = ferry.ok();
            std::fs::remove_file(site.at("b.tar")).unwrap();
        } else {
            let told = ferry.run().expect_code(5);
            told.says(&[&format!("{}: ", door.host()), expected, "hint"]);
            assert!(!site.at("b.tar").exists());
        }
    }
}

#[test]
fn a_ca_may_stand_in_a_folder() {
    require!("docker-registry", "openssl");
    let (registry, _, site) = one();
    let (ca, other) = (Authority::new("ours"), Authority::new("theirs"));
    let certificate = ca.issue(&Says::default());
    let door = registry.door(HERE, Some(&certificate), None);
    let copy = |from: &Authority, to: &str| site.write(to, std::fs::read(from.certificate()).unwrap());
    copy(&other, "cas/theirs.pem");
    site.write("cas/README", "not a certificate");
    site.write("cas/server.key.pem", std::fs::read(&certificate.key).unwrap());
    let _ = bundle(&site, &door).arg("--ca-file").arg("cas").run().expect_code(5);
    copy(&ca, "cas/ours.crt");
    let _ = bundle(&site, &door).arg("--ca-file").arg("cas").ok();

    // as docker and podman lay them out, at home
    for (folder, xdg) in [(".config/containers/certs.d", None), ("x/docker/certs.d", Some("x"))] {
        let ferry = || {
            let ferry = bundle(&site, &door);
            if let Some(xdg) = xdg { ferry.env("XDG_CONFIG_HOME", site.at(xdg)) } else { ferry }
        };
        let _ = ferry().run().expect_code(5);
        copy(&ca, &format!("{folder}/{}/ca.crt", door.host()));
        let _ = ferry().ok();
        std::fs::remove_dir_all(site.at(folder)).unwrap();
    }
    let told = bundle(&site, &door).arg("--ca-file").arg("none").run().expect_code(6);
    told.says(&["cannot use `none`"]);
}

#[test]
fn a_registry_that_asks_for_a_client_certificate() {
    require!("docker-registry", "openssl");
    let (registry, image, site) = one();
    let (ca, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let client = |authority: &Authority| {
        authority.issue(&Says { name: "carrier", names: Some("DNS:carrier"), ..Says::default() })
    };
    let (mine, wrong) = (client(&ca), client(&theirs));
    let door = registry.door(HERE, Some(&ca.issue(&Says::default())), Some(&ca.certificate()));
    let ca_file = ca.certificate();
    let bundle = || bundle(&site, &door).arg("--ca-file").arg(&ca_file);

    let told = bundle().run().expect_code(5);
    told.says(&[&door.host(), "it wants a client certificate, and none is configured for it", "hint", "client.cert"]);
    lay_out(&site.at(".config/containers/certs.d"), &door.host(), &wrong);
    bundle().run().expect_code(5).says(&["it does not accept our client certificate"]);

    // the config file goes before the folder
    let config = format!(
        "hosts:\n  {}:\n    clientCertificate: {}\n    clientKey: {}\n",
        door.host(),
        mine.chain.display(),
        mine.key.display()
    );
    site.write("ferry.yaml", config);
    let _ = bundle().arg("--config").arg("ferry.yaml").ok();
    lay_out(&site.at(".config/containers/certs.d"), &door.host(), &mine);
    let _ = bundle().ok();

    // uploads too: the same handshake, in the other direction
    let target = Registry::start(Access::Plain);
    let into = target.door(HERE, Some(&ca.issue(&Says::default())), Some(&ca.certificate()));
    let install = format!("install b.tar --registry {}/in {TRUST} --ca-file {}", into.host(), ca_file.display());
    site.ferry(&install).run().expect_code(5).says(&["it wants a client certificate"]);
    lay_out(&site.at(".config/docker/certs.d"), &into.host(), &mine);
    let _ = site.ferry(&install).ok();
    assert!(target.holds("in/app/one", &image));
}

#[test]
fn a_machine_without_any_ca_is_fine_as_long_as_none_is_needed() {
    require!("docker-registry", "openssl");
    let (registry, image, site) = one();
    let ca = Authority::new("ours");
    let door = registry.door(HERE, Some(&ca.issue(&Says::default())), None);
    let bare = |ferry: Ferry| ferry.env("SSL_CERT_FILE", "/nowhere/ca.pem").env("SSL_CERT_DIR", "/nowhere");
    let _ = bare(bundle(&site, &door).arg("--ca-file").arg(ca.certificate())).ok();
    let told = bare(bundle(&site, &door)).run().expect_code(5);
    told.says(&["there is not one CA on this machine", "hint", "ca-certificates", "--ca-file"]);
    let _ = bare(site.ferry(&format!("bundle {}/app/one:1 {FOR} -o plain.tar {SIGN}", registry.host()))).ok();
    let target = Registry::start(Access::Plain);
    let _ = bare(site.ferry(&format!("install plain.tar --registry {} {TRUST}", target.host()))).ok();
    assert!(target.holds("app/one", &image));
}

#[test]
fn what_the_config_file_says_of_a_host_holds_for_that_host() {
    require!("docker-registry", "openssl");
    let (registry, _, site) = one();
    let ca = Authority::new("ours");
    let door = registry.door(HERE, Some(&ca.issue(&Says::default())), None);
    let other = Registry::filled(Access::Plain, &[("app/one:1", &small(1))]);
    let with = |ferry: Ferry, config: &str| {
        site.write("ferry.yaml", config);
        ferry.env("FERRY_CONFIG", site.at("ferry.yaml"))
    };
    // a file or a folder, relative to the config file
    site.write("etc/ca.pem", std::fs::read(ca.certificate()).unwrap());
    for file in ["etc/ca.pem", "etc"] {
        let _ = with(bundle(&site, &door), &format!("hosts: {{\"{}\": {{caFile: {file}}}}}\n", door.host())).ok();
    }
    with(bundle(&site, &door), "hosts: {\"127.0.0.1:1\": {caFile: etc}}\n")
        .run()
        .expect_code(5)
        .says(&["signed by nobody"]);

    // `false` means it, even on this machine
    let bundle_other = || site.ferry(&format!("bundle {}/app/one:1 {FOR} -o c.tar {SIGN}", other.host()));
    let plain = |value: bool| format!("hosts: {{\"{}\": {{plainHttp: {value}}}}}\n", other.host());
    with(bundle_other(), &plain(false)).run().expect_code(5).says(&["speaks plain HTTP"]);
    let _ = with(bundle_other(), &plain(true)).ok();
    // the command line goes before it
    let _ = with(bundle_other().arg("--plain-http"), &plain(false)).ok();
}
