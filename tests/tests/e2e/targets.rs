//! Registries as sources and targets, each with what it asks of its clients.

use ferry_tests::images::Image;
use ferry_tests::registry::{Access, PASSWORD, Registry, USER};
use ferry_tests::require;
use ferry_tests::site::Site;

use crate::{FOR, SIGN, TRUST, small};

/// Bundles from one registry of that kind and installs into another; the second install must send nothing.
fn crosses(access: Access) {
    let image = small(1);
    let source = Registry::filled(access, &[("app/one:1", &image)]);
    let target = Registry::start(access);
    let site = Site::new();
    let options = |registry: &Registry| match access {
        Access::Tls | Access::TlsBasic | Access::SelfSigned => {
            format!("--ca-file {}", registry.certificate().trusted.display())
        }
        _ => String::new(),
    };
    let login = matches!(access, Access::Basic | Access::Token | Access::TlsBasic);
    let run = |registry: &Registry, command: String| {
        let ferry = site.ferry(&format!("{command} {}", options(registry)));
        if login { ferry.env("DOCKER_CONFIG", site.login(&registry.host(), USER, PASSWORD)) } else { ferry }
    };
    let _ = run(&source, format!("bundle {}/app/one:1 {FOR} -o b.tar {SIGN}", source.host())).ok();
    let install = format!("install b.tar --registry {}/deep/prefix {TRUST}", target.host());
    let _ = run(&target, install.clone()).ok();
    assert!(target.holds("deep/prefix/app/one", &image));
    target.forget_requests();
    let _ = run(&target, install).ok();
    let again = target.requests();
    assert!(again.uploads().is_empty() && again.manifests_stored().is_empty(), "{again:?}");
    refuses_without(access, &site, &source, &image);
}

/// Without the login or the certificate it fails by name, and never half.
fn refuses_without(access: Access, site: &Site, source: &Registry, _image: &Image) {
    if access == Access::Plain {
        return;
    }
    let told = site.ferry(&format!("bundle {}/app/one:1 {FOR} -o no.tar {SIGN}", source.host())).run().expect_code(5);
    told.says(&[&source.host()]);
    match access {
        Access::Tls | Access::TlsBasic | Access::SelfSigned => told.says(&["certificate", "--ca-file"]),
        _ => told.says(&["hint"]),
    };
    assert!(!site.at("no.tar").exists());
}

#[test]
fn plain() {
    require!("docker-registry");
    crosses(Access::Plain);
}

#[test]
fn basic() {
    require!("docker-registry", "htpasswd");
    crosses(Access::Basic);
}

#[test]
fn token() {
    require!("docker-registry");
    crosses(Access::Token);
}

#[test]
fn private_ca() {
    require!("docker-registry");
    crosses(Access::Tls);
}

#[test]
fn private_ca_and_login() {
    require!("docker-registry", "htpasswd");
    crosses(Access::TlsBasic);
}

#[test]
fn self_signed() {
    require!("docker-registry", "openssl");
    crosses(Access::SelfSigned);
}

#[test]
fn a_wrong_password_is_told_from_a_missing_image() {
    require!("docker-registry", "htpasswd");
    let source = Registry::filled(Access::Basic, &[("app/one:1", &small(1))]);
    let site = Site::new();
    let config = site.login(&source.host(), USER, "wrong");
    let command = format!("bundle {}/app/one:1 {FOR} -o b.tar {SIGN}", source.host());
    let told = site.ferry(&command).env("DOCKER_CONFIG", config).run().expect_code(5);
    told.says(&[&source.host()]);
    assert!(!told.stderr.contains("wrong\"") && !told.stderr.contains(":wrong"), "a secret is told: {}", told.stderr);
}

#[test]
fn a_target_that_refuses_is_found_in_the_preflight() {
    require!("docker-registry");
    let source = Registry::filled(Access::Plain, &[("app/one:1", &small(1))]);
    let site = Site::new();
    let _ = site.ferry(&format!("bundle {}/app/one:1 {FOR} -o b.tar {SIGN}", source.host())).ok();
    let read_only = Registry::start(Access::ReadOnly);
    let told = site.ferry(&format!("install b.tar --registry {} {TRUST}", read_only.host())).run().expect_code(5);
    told.says(&[&read_only.host()]);
    assert!(read_only.requests().matching(|r| r.method == "PUT").is_empty());
    let gone = format!("127.0.0.1:{}", ferry_tests::registry::free_port());
    let told = site.ferry(&format!("install b.tar --registry {gone} {TRUST}")).run().expect_code(5);
    told.says(&[&gone]);
}
