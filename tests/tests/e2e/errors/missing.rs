//! What is named is not there.

use ferry_tests::http::Reply;
use ferry_tests::images::Format;
use ferry_tests::registry::faulty::Fault::*;
use ferry_tests::registry::faulty::What::*;
use ferry_tests::registry::faulty::{FaultyRegistry, Guard, Rule};
use ferry_tests::registry::{PASSWORD, USER, free_port};
use ferry_tests::site::Site;
use insta::assert_snapshot;

use super::{bundle, bundled, install, registry, said};
use crate::{SIGN, small, two_platforms};

/// A repository with these tags.
fn tagged(tags: &[&str]) -> (FaultyRegistry, Site) {
    let image = small(1);
    let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
    (FaultyRegistry::holding(&[("app/one:1.27.3", &image)]).tags("app/one:1.27.3", tags).start([]), Site::new())
}

#[test]
fn a_slip_in_a_tag() {
    let (registry, site) = tagged(&["1.26.9", "1.27.1", "1.27.10-alpine", "latest"]);
    let host = registry.host();
    let told = site.ferry(&bundle(&format!("{host}/app/one:1.27.33"))).run();
    assert_snapshot!(said(told, 4, &site, &[("REGISTRY", &host)]), @r#"
    error: image `REGISTRY/app/one:1.27.33`: REGISTRY/app/one: there is no tag `1.27.33`
      hint: did you mean `1.27.3`?
    "#);
    let told = site.ferry(&bundle(&format!("{host}/app/one:1.27"))).run();
    assert_snapshot!(said(told, 4, &site, &[("REGISTRY", &host)]), @r#"
    error: image `REGISTRY/app/one:1.27`: REGISTRY/app/one: there is no tag `1.27`
      hint: did you mean `1.27.3`, `1.27.1` or `1.27.10-alpine`?
    "#);
}

#[test]
fn a_tag_like_no_other() {
    let (registry, site) = tagged(&["latest"]);
    let told = site.ferry(&bundle(&format!("{}/app/one:20240101", registry.host()))).run();
    assert_snapshot!(said(told, 4, &site, &[("REGISTRY", &registry.host())]), @r#"
    error: image `REGISTRY/app/one:20240101`: REGISTRY/app/one: there is no tag `20240101`
      hint: its tags are 1.27.3, latest
    "#);
}

/// The list of tags is asked for once it helps, and read to its end, but not for ever.
#[test]
fn a_slip_among_ten_thousand_tags() {
    let tags: Vec<String> = (0..10_000).map(|n| format!("build-{n:05}")).collect();
    for plan in [vec![], vec![Rule::always("GET", Tags, OnePage)]] {
        let image = small(1);
        let registry = FaultyRegistry::holding(&[("app/one:1", &image)]).tags("app/one:1", tags.clone()).start(plan);
        let site = Site::new();
        let told = site.ferry(&bundle(&format!("{}/app/one:biuld-09998", registry.host()))).run().expect_code(4);
        told.says(&["did you mean `build-09998`?"]);
        let asked = registry.count(|seen| seen.path.contains("/tags/list"));
        assert!(matches!(asked, 1 | 11), "{asked}");
        let fine = FaultyRegistry::holding(&[("app/one:1", &image)]).tags("app/one:1", tags.clone()).start([]);
        let _ = site.ferry(&bundle(&format!("{}/app/one:1", fine.host()))).ok();
        assert_eq!(fine.count(|seen| seen.path.contains("/tags/list")), 0);
    }
}

#[test]
fn a_list_of_tags_that_never_ends() {
    let image = small(1);
    let endless = Rule::always("GET", Tags, Header("Link", Some("</v2/app/one/tags/list?n=1>; rel=\"next\"".into())));
    let also = Rule::always("GET", Tags, Drip(u64::MAX, 10));
    for rule in [endless, also, Rule::always("GET", Tags, Endless), Rule::always("GET", Tags, Mute)] {
        let registry = FaultyRegistry::holding(&[("app/one:1", &image)]).start([rule]);
        let site = Site::new();
        let told = site.ferry(&bundle(&format!("{}/app/one:2", registry.host()))).run().expect_code(4);
        told.says(&["there is no tag `2`"]);
        assert!(told.took.as_secs() < 30, "{:?}", told.took);
    }
}

#[test]
fn a_repository() {
    let (registry, site) = registry(Guard::Open, vec![]);
    let told = site.ferry(&bundle(&format!("{}/app/onne:1", registry.host()))).run();
    assert_snapshot!(said(told, 4, &site, &[("REGISTRY", &registry.host())]), @r#"
    error: image `REGISTRY/app/onne:1`: REGISTRY/app/onne: there is no such repository
      hint: check the name `REGISTRY/app/onne`; if it is elsewhere, name that place with `from:`
    "#);
}

#[test]
fn a_digest() {
    let (registry, site) = registry(Guard::Open, vec![]);
    let told = site.ferry(&bundle(&format!("{}/app/one@sha256:{}", registry.host(), "ab".repeat(32)))).run();
    assert_snapshot!(said(told, 4, &site, &[("REGISTRY", &registry.host())]), @r#"
    error: image `REGISTRY/app/one@sha256:abababababababababababababababababababababababababababababababab`: REGISTRY/app/one: there is no manifest sha256:abababababababababababababababababababababababababababababababab (404 MANIFEST_UNKNOWN)
      hint: check name and digest; a private repository may answer so without credentials
    "#);
}

/// As Docker's hub tells it: a token is given to anybody, and does not help.
#[test]
fn a_repository_that_nobody_may_know_of() {
    let denied =
        r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":[{"Action":"pull"}]}]}"#;
    let plan = || vec![Rule::always("GET", Tag, Answer(Reply::new(401, "application/json", denied)))];
    let (anonymous, site) = registry(Guard::PublicTokens(std::time::Duration::from_secs(300)), plan());
    let told = site.ferry(&bundle(&format!("{}/app/onne:1", anonymous.host()))).run();
    assert_snapshot!(said(told, 5, &site, &[("REGISTRY", &anonymous.host())]), @r#"
    error: image `REGISTRY/app/onne:1`: REGISTRY/app/onne: there is no such repository, or it is not public (401 UNAUTHORIZED)
      hint: check the name; if it is private: `docker login REGISTRY` (or podman, skopeo), or `--auth-file FILE`
    "#);
    let (known, site) = registry(Guard::Tokens(std::time::Duration::from_secs(300)), plan());
    let login = site.login(&known.host(), USER, PASSWORD);
    let told = site.ferry(&bundle(&format!("{}/app/onne:1", known.host()))).env("DOCKER_CONFIG", login).run();
    assert_snapshot!(said(told, 5, &site, &[("REGISTRY", &known.host())]), @r#"
    error: image `REGISTRY/app/onne:1`: REGISTRY/app/onne: there is no such repository, or this account may not pull it (401 UNAUTHORIZED)
      hint: check the name `app/onne`; the account of `SITE/docker/config.json` must be allowed to use it at REGISTRY
    "#);
}

#[test]
fn a_web_server_that_is_no_registry() {
    let page = "<!DOCTYPE html><html><head><title>404 Not Found</title></head><body>Apache/2.4</body></html>";
    let plan = vec![Rule::always("GET", Any, Answer(Reply::new(404, "text/html", page)))];
    let (registry, site) = registry(Guard::Open, plan);
    let told = site.ferry(&bundle(&format!("{}/app/one:1", registry.host()))).run();
    assert_snapshot!(said(told, 4, &site, &[("REGISTRY", &registry.host())]), @r#"
    error: image `REGISTRY/app/one:1`: REGISTRY/app/one: manifest 1: not found (404): a web page says: 404 Not Found Apache/2.4
      hint: a web server answered, and no registry: check host, port and path of `REGISTRY/app/one`
    "#);
}

/// A source that could not be asked may have it: that is said, and decides the exit code and the hint.
#[test]
fn at_several_sources() {
    let (registry, site) = registry(Guard::Open, vec![]);
    let (host, gone) = (registry.host(), format!("127.0.0.1:{}", free_port()));
    let manifest = |from: &str| {
        format!("name: m\nplatforms: [linux/amd64]\nimages:\n- {{image: \"{host}/app/one:2\", from: [{from}]}}\n")
    };
    site.write("m.yaml", manifest(&format!("\"{host}/legacy/one:2\"")));
    let bundle = format!("bundle m.yaml -o b.tar {SIGN}");
    let told = site.ferry(&bundle).run();
    assert_snapshot!(said(told, 4, &site, &[("REGISTRY", &host)]), @r#"
    error: image `REGISTRY/app/one:2` (line 4): none of its 2 sources has it:
        REGISTRY/app/one: there is no tag `2`
        REGISTRY/legacy/one: there is no such repository
      hint: its only tag is `1`
    "#);
    site.write("m.yaml", manifest(&format!("\"{gone}/app/one:2\"")));
    let told = site.ferry(&bundle).run();
    assert_snapshot!(said(told, 5, &site, &[("REGISTRY", &host), ("GONE", &gone)]), @r#"
    error: image `REGISTRY/app/one:2` (line 4): none of its 2 sources could be used:
        REGISTRY/app/one: there is no tag `2` (404 MANIFEST_UNKNOWN)
        GONE: connection refused
      hint: check host and port, and that the registry is running
    "#);
}

/// One slip is told once, though the YAML asks for what was meant.
#[test]
fn a_tag_that_the_yaml_has_rightly() {
    let (registry, site) = tagged(&["1.26.9"]);
    let host = registry.host();
    site.write("pod.yaml", format!(
        "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - image: {host}/app/one:1.27.3\n  - image: {host}/app/two:1\n"
    ));
    site.write(
        "m.yaml",
        format!("name: m\nplatforms: [linux/amd64]\nimages: [\"{host}/app/one:1.27.33\"]\nyaml: [pod.yaml]\n"),
    );
    let told = site.ferry(&format!("bundle m.yaml -o b.tar {SIGN}")).run();
    assert_snapshot!(said(told, 4, &site, &[("REGISTRY", &host)]), @r#"
    error: pod.yaml:6: `REGISTRY/app/two:1` is not carried ($.spec.containers[1].image)
      hint: add it to `images:`, or to `ignore:` with the reason why it is not needed on the far side
    error: image `REGISTRY/app/one:1.27.33` (line 3): REGISTRY/app/one: there is no tag `1.27.33`
      hint: did you mean `1.27.3`?
    "#);
}

#[test]
fn a_platform() {
    let image = two_platforms(Format::Oci, 1);
    let registry = FaultyRegistry::holding(&[("app/one:1", &image), ("app/two:1", &image)]).start([]);
    let (host, site) = (registry.host(), Site::new());
    let bundle = |platform: &str| {
        let images = format!("{host}/app/one:1 {host}/app/two:1");
        site.ferry(&format!("bundle {images} --platform {platform} -o b.tar {SIGN}")).run()
    };
    assert_snapshot!(said(bundle("linux/amd46"), 4, &site, &[("REGISTRY", &host)]), @r#"
    error: image `REGISTRY/app/one:1`: platform linux/amd46 is missing at REGISTRY/app/one; there are: linux/amd64, linux/arm64
      hint: did you mean `linux/amd64`?
    error: image `REGISTRY/app/two:1`: platform linux/amd46 is missing at REGISTRY/app/two; there are: linux/amd64, linux/arm64
    "#);
    assert_snapshot!(said(bundle("windows/amd64"), 4, &site, &[("REGISTRY", &host)]), @r#"
    error: image `REGISTRY/app/one:1`: platform windows/amd64 is missing at REGISTRY/app/one; there are: linux/amd64, linux/arm64
      hint: choose one of those with `platforms:` at the image, or find a source that has it
    error: image `REGISTRY/app/two:1`: platform windows/amd64 is missing at REGISTRY/app/two; there are: linux/amd64, linux/arm64
    "#);
    assert_snapshot!(said(bundle("amd64"), 2, &site, &[("REGISTRY", &host)]), @r#"
    error: --platform: `amd64` is not a platform: write os/architecture[/variant], for example linux/amd64
      hint: write `--platform linux/amd64`, or `all`
    "#);
}

#[test]
fn a_project_at_the_target() {
    let site = bundled();
    let install = |status, body: &str| {
        let plan = vec![Rule::always("POST", Upload, Answer(Reply::new(status, "application/json", body)))];
        let registry = FaultyRegistry::holding(&[]).start(plan);
        let told = site.ferry(&install(&format!("{}/mirror", registry.host()))).run();
        said(told, 5, &site, &[("REGISTRY", &registry.host())])
    };
    let not_found = r#"{"errors":[{"code":"NOT_FOUND","message":"project mirror not found"}]}"#;
    assert_snapshot!(install(404, not_found), @r#"
    error: REGISTRY: there is no project `mirror` (404 NOT_FOUND): project mirror not found
      hint: make it first:
        curl -u USER -H 'Content-Type: application/json' -d '{"project_name":"mirror"}' http://REGISTRY/api/v2.0/projects
    "#);
    let unauthorised = r#"{"errors":[{"code":"UNAUTHORIZED","message":"project mirror not found"}]}"#;
    assert_snapshot!(install(401, unauthorised), @r#"
    error: REGISTRY: there is no project `mirror` (401 UNAUTHORIZED): project mirror not found
      hint: make it first:
        curl -u USER -H 'Content-Type: application/json' -d '{"project_name":"mirror"}' http://REGISTRY/api/v2.0/projects
    "#);
}

#[test]
fn a_repository_at_the_target() {
    let site = bundled();
    let body = r#"{"errors":[{"code":"NAME_UNKNOWN","message":"The repository with name 'app/one' does not exist in the registry with id '123456789012'"}]}"#;
    let plan = vec![
        Rule::always("POST", Upload, Answer(Reply::new(404, "application/json", body))),
        Rule::always("HEAD", Tag, Answer(Reply::new(404, "application/json", body))),
    ];
    let registry = FaultyRegistry::holding(&[]).start(plan);
    let told = site.ferry(&install(&registry.host())).run();
    assert_snapshot!(said(told, 5, &site, &[("REGISTRY", &registry.host())]), @r#"
    error: REGISTRY: there is no repository `app/one` (404 NAME_UNKNOWN): The repository with name 'app/one' does not exist in the registry with id '123456789012'
      hint: make it first: this registry makes none by itself
    "#);
}
