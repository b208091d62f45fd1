//! There is no registry to speak to, or not as it was spoken to.

use ferry_tests::registry::certificate::{Flaw, flawed};
use ferry_tests::registry::faulty::Fault::*;
use ferry_tests::registry::faulty::What::*;
use ferry_tests::registry::faulty::{FaultyRegistry, Guard, Rule};
use ferry_tests::registry::free_port;
use ferry_tests::site::Site;
use insta::assert_snapshot;

use super::{bundle, bundled, install, registry, said};
use crate::{FOR, SIGN, small};

#[test]
fn nobody_listens() {
    let gone = format!("127.0.0.1:{}", free_port());
    let site = Site::new();
    let told = site.ferry(&bundle(&format!("{gone}/app/one:1"))).run();
    assert_snapshot!(said(told, 5, &site, &[("GONE", &gone)]), @r#"
    error: image `GONE/app/one:1`: GONE: connection refused
      hint: check host and port, and that the registry is running
    "#);
    let site = bundled();
    let told = site.ferry(&install(&gone)).run();
    assert_snapshot!(said(told, 5, &site, &[("GONE", &gone)]), @r#"
    error: target: GONE: connection refused
      hint: check host and port, and that the registry is running
    "#);
}

/// Twenty images of a registry that is gone take no longer than one.
#[test]
fn nobody_listens_and_many_ask() {
    let gone = format!("127.0.0.1:{}", free_port());
    let site = Site::new();
    let images: Vec<String> = (0..20).map(|n| format!("{gone}/app/one:{n}")).collect();
    let told = site.ferry(&format!("bundle {} {FOR} -o b.tar {SIGN}", images.join(" "))).run().expect_code(5);
    // and it is told once
    told.says(&["image `", "` and 19 more: ", "connection refused"]);
    assert_eq!(told.stderr.matches("connection refused").count(), 1, "{}", told.stderr);
    assert_eq!(told.stderr.matches("hint:").count(), 1, "{}", told.stderr);
    assert!(told.took.as_secs() < 10, "{:?}", told.took);
}

#[test]
fn a_name_that_has_no_address() {
    let site = Site::new();
    // the resolver's own words differ from machine to machine
    let words = |text: String| -> String {
        let cut = |line: &str| match line.split_once("cannot be resolved: ") {
            Some((start, _)) => format!("{start}cannot be resolved: WHY"),
            None => line.to_owned(),
        };
        text.lines().map(cut).collect::<Vec<_>>().join("\n")
    };
    let told = site.ferry(&bundle("no-such-registry.invalid/app/one:1")).run();
    assert_snapshot!(words(said(told, 5, &site, &[])), @r#"
    error: image `no-such-registry.invalid/app/one:1`: no-such-registry.invalid: the name cannot be resolved: WHY
      hint: check the spelling of `no-such-registry.invalid` and this machine's name servers
    "#);
    let site = bundled();
    let told = site.ferry(&install("no-such-registry.invalid:5000")).run();
    assert_snapshot!(words(said(told, 5, &site, &[])), @r#"
    error: target: no-such-registry.invalid:5000: the name cannot be resolved: WHY
      hint: check the spelling of `no-such-registry.invalid:5000` and this machine's name servers
    "#);
}

#[test]
fn nobody_answers() {
    let (mute, site) = registry(Guard::Open, vec![Rule::always("GET", Ping, Mute)]);
    let told = site.ferry(&bundle(&format!("{}/app/one:1", mute.host()))).run();
    assert_snapshot!(said(told, 5, &site, &[("REGISTRY", &mute.host())]), @r#"
    error: image `REGISTRY/app/one:1`: REGISTRY: no answer in time
      hint: check the network, a firewall on the way, and whether a proxy is needed
    "#);
}

/// A registry with a certificate of that kind, and what is said about it; its CA is trusted if asked.
fn certified(flaw: Flaw, trusted: bool) -> String {
    let site = Site::new();
    let (tls, ca) = flawed(site.path(), flaw);
    let registry = FaultyRegistry::holding(&[("app/one:1", &small(1))]).tls(tls).start([]);
    let ferry = site.ferry(&bundle(&format!("{}/app/one:1", registry.host())));
    let ferry = if trusted { ferry.arg("--ca-file").arg(ca) } else { ferry };
    said(ferry.run(), 5, &site, &[("REGISTRY", &registry.host())])
}

#[test]
fn a_certificate_that_will_not_do() {
    assert_snapshot!(certified(Flaw::Expired, true), @r#"
    error: image `REGISTRY/app/one:1`: REGISTRY: its certificate expired on 2021-01-01 00:00 UTC
      hint: renew the registry's certificate, or correct this machine's clock
    "#);
    assert_snapshot!(certified(Flaw::NotYetValid, true), @r#"
    error: image `REGISTRY/app/one:1`: REGISTRY: its certificate is not valid before 2090-01-01 00:00 UTC
      hint: correct this machine's clock
    "#);
    assert_snapshot!(certified(Flaw::OtherNames, true), @r#"
    error: image `REGISTRY/app/one:1`: REGISTRY: its certificate is for other names: registry.example, *.internal.example
      hint: use the name that the certificate is for (registry.example), or make one for `REGISTRY`
    "#);
    assert_snapshot!(certified(Flaw::NoNames, true), @r#"
    error: image `REGISTRY/app/one:1`: REGISTRY: its certificate has no subject alternative name (a common name is not enough)
      hint: make a new certificate with `-addext subjectAltName=IP:127.0.0.1`
    "#);
    assert_snapshot!(certified(Flaw::None, false), @r#"
    error: image `REGISTRY/app/one:1`: REGISTRY: its certificate is signed by nobody that is trusted here
      hint: give the CA's (or the registry's own) certificate with `--ca-file`, or put it in /etc/docker/certs.d/REGISTRY/ca.crt
    "#);
}

#[test]
fn a_certificate_that_nobody_vouches_for_at_the_target() {
    let site = bundled();
    let (tls, _) = flawed(site.path(), Flaw::None);
    let registry = FaultyRegistry::holding(&[]).tls(tls).start([]);
    let told = site.ferry(&install(&registry.host())).run();
    assert_snapshot!(said(told, 5, &site, &[("REGISTRY", &registry.host())]), @r#"
    error: target: REGISTRY: its certificate is signed by nobody that is trusted here
      hint: give the CA's (or the registry's own) certificate with `--ca-file`, or put it in /etc/docker/certs.d/REGISTRY/ca.crt
    "#);
}

#[test]
fn something_else_listens() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = std::io::Write::write_all(&mut stream, b"SSH-2.0-OpenSSH_9.2\r\n");
            let _ = std::io::Read::read(&mut stream, &mut [0; 1000]);
        }
    });
    let site = Site::new();
    let told = site.ferry(&bundle(&format!("{host}/app/one:1"))).run();
    assert_snapshot!(said(told, 5, &site, &[("HOST", &host)]), @r#"
    error: image `HOST/app/one:1`: HOST: it speaks neither HTTPS nor plain HTTP
      hint: something else than a registry listens there: check host and port
    "#);
}

/// Only this machine itself may be spoken to without TLS unasked: here it has another name.
#[test]
fn https_where_http_is_spoken() {
    let (registry, site) = registry(Guard::Open, vec![]);
    let host = registry.host().replace("127.0.0.1", "registry.example");
    let command = format!("{} --resolve registry.example:127.0.0.1", bundle(&format!("{host}/app/one:1")));
    let told = site.ferry(&command).run();
    assert_snapshot!(said(told, 5, &site, &[("REGISTRY", &host)]), @r#"
    error: image `REGISTRY/app/one:1`: REGISTRY: it speaks plain HTTP, not HTTPS
      hint: if REGISTRY is meant to have no TLS, add `--plain-http=REGISTRY`
    "#);
    let _ = site.ferry(&format!("{command} --plain-http={host}")).ok();
}

#[test]
fn http_where_https_is_spoken() {
    let site = Site::new();
    let (tls, _) = flawed(site.path(), Flaw::None);
    let registry = FaultyRegistry::holding(&[("app/one:1", &small(1))]).tls(tls).start([]);
    let told = site.ferry(&bundle(&format!("{}/app/one:1", registry.host()))).arg("--plain-http").run();
    assert_snapshot!(said(told, 5, &site, &[("REGISTRY", &registry.host())]), @r#"
    error: image `REGISTRY/app/one:1`: REGISTRY: it does not speak plain HTTP
      hint: if REGISTRY has TLS, leave `--plain-http` out
    "#);
}
