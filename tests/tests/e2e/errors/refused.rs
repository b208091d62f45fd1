//! The registry answers, and will not.

use std::time::Duration;

use ferry_tests::http::Reply;
use ferry_tests::registry::faulty::Fault::*;
use ferry_tests::registry::faulty::What::*;
use ferry_tests::registry::faulty::{FaultyRegistry, Guard, Rule};
use ferry_tests::registry::{PASSWORD, USER};
use insta::assert_snapshot;

use super::{bundle, bundled, install, registry, said};

const TOKENS: Guard = Guard::Tokens(Duration::from_secs(300));

#[test]
fn without_credentials() {
    let (basic, site) = registry(Guard::Basic, vec![]);
    let told = site.ferry(&bundle(&format!("{}/app/one:1", basic.host()))).run();
    assert_snapshot!(said(told, 5, &site, &[("REGISTRY", &basic.host())]), @r#"
    error: image `REGISTRY/app/one:1`: REGISTRY/app/one: credentials are required to pull (401 UNAUTHORIZED)
      hint: `docker login REGISTRY` (or podman, skopeo), or `--auth-file FILE`
    "#);
    let (tokens, site) = registry(TOKENS, vec![]);
    let told = site.ferry(&bundle(&format!("{}/app/one:1", tokens.host()))).run();
    assert_snapshot!(said(told, 5, &site, &[("REGISTRY", &tokens.host())]), @r#"
    error: image `REGISTRY/app/one:1`: REGISTRY/app/one: credentials are required to pull (401)
      hint: `docker login REGISTRY` (or podman, skopeo), or `--auth-file FILE`
    "#);
    let site = bundled();
    let target = FaultyRegistry::holding(&[]).guard(Guard::Basic).start([]);
    let told = site.ferry(&install(&target.host())).run();
    assert_snapshot!(said(told, 5, &site, &[("REGISTRY", &target.host())]), @r#"
    error: image `registry.example/app/one:1`: REGISTRY/app/one: credentials are required to push (401)
      hint: `docker login REGISTRY` (or podman, skopeo), `--auth-file FILE`, or `--username NAME --password-stdin`
    "#);
}

#[test]
fn with_credentials_that_are_wrong() {
    for guard in [Guard::Basic, TOKENS] {
        let (source, site) = registry(guard, vec![]);
        let login = site.login(&source.host(), USER, "wrong");
        let told = site.ferry(&bundle(&format!("{}/app/one:1", source.host()))).env("DOCKER_CONFIG", login).run();
        let told = said(told, 5, &site, &[("REGISTRY", &source.host())]);
        match guard {
            Guard::Basic => assert_snapshot!(told, @r#"
            error: image `REGISTRY/app/one:1`: wrong user name or password for REGISTRY (401 UNAUTHORIZED)
              hint: check user name and password (or token) for REGISTRY in `SITE/docker/config.json`; log in again: `docker login REGISTRY`
            "#),
            _ => assert_snapshot!(told, @r#"
            error: image `REGISTRY/app/one:1`: wrong user name or password for REGISTRY (401): incorrect username or password
              hint: check user name and password (or token) for REGISTRY in `SITE/docker/config.json`; log in again: `docker login REGISTRY`
            "#),
        }
    }
    let site = bundled();
    let target = FaultyRegistry::holding(&[]).guard(TOKENS).start([]);
    let password = site.write("password", "wrong");
    let told = site.ferry(&install(&target.host())).arg("--username").arg(USER).arg("--password-stdin");
    let told = told.stdin(&password).run();
    assert_snapshot!(said(told, 5, &site, &[("REGISTRY", &target.host())]), @r#"
    error: image `registry.example/app/one:1`: wrong user name or password for REGISTRY (401): incorrect username or password
      hint: check user name and password (or token) for REGISTRY from the command line
    "#);
}

#[test]
fn credentials_that_do_not_suffice() {
    let denied = r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#;
    let site = bundled();
    let plan = vec![Rule::always("POST", Upload, Answer(Reply::new(403, "application/json", denied)))];
    let target = FaultyRegistry::holding(&[]).guard(TOKENS).start(plan);
    let login = site.login(&target.host(), USER, PASSWORD);
    let told = site.ferry(&install(&format!("{}/mirror", target.host()))).env("DOCKER_CONFIG", &login).run();
    assert_snapshot!(said(told, 5, &site, &[("REGISTRY", &target.host())]), @r#"
    error: image `registry.example/app/one:1`: REGISTRY/mirror/app/one: not allowed to push (403 DENIED)
      hint: the account must be allowed to push to `mirror` at REGISTRY; some registries answer so when it does not exist
    "#);
}

#[test]
fn a_proxy_that_denies() {
    let page = "<html><head><title>Access Denied</title></head><body>Category: cloud storage</body></html>";
    let plan = vec![Rule::always("GET", Tag, Answer(Reply::new(403, "text/html", page)))];
    let (source, site) = registry(Guard::Open, plan);
    let told = site.ferry(&bundle(&format!("{}/app/one:1", source.host()))).run();
    assert_snapshot!(said(told, 5, &site, &[("REGISTRY", &source.host())]), @r#"
    error: image `REGISTRY/app/one:1`: REGISTRY/app/one: not allowed to pull (403): a web page says: Access Denied Category: cloud storage
      hint: a proxy on the way denies it: have REGISTRY allowed there, or reach it directly with `NO_PROXY`
    "#);
}

/// As Docker's hub says it.
#[test]
fn too_many_requests() {
    let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit"}]}"#;
    let reply = Reply::new(429, "application/json", body).header("Retry-After", "21600");
    let plan = || vec![Rule::always("GET", Tag, Answer(reply.clone()))];
    let (anonymous, site) = registry(Guard::PublicTokens(Duration::from_secs(300)), plan());
    let told = site.ferry(&bundle(&format!("{}/app/one:1", anonymous.host()))).run();
    assert_snapshot!(said(told, 5, &site, &[("REGISTRY", &anonymous.host())]), @r#"
    error: image `REGISTRY/app/one:1`: REGISTRY/app/one: too many requests (429 TOOMANYREQUESTS): You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit
      hint: wait 6 h, or log in to REGISTRY: most registries allow more to accounts
    "#);
    let (known, site) = registry(TOKENS, plan());
    let login = site.login(&known.host(), USER, PASSWORD);
    let told = site.ferry(&bundle(&format!("{}/app/one:1", known.host()))).env("DOCKER_CONFIG", login).run();
    assert_snapshot!(said(told, 5, &site, &[("REGISTRY", &known.host())]), @r#"
    error: image `REGISTRY/app/one:1`: REGISTRY/app/one: too many requests (429 TOOMANYREQUESTS): You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit
      hint: wait 6 h, or run the same command again later: it goes on where it was
    "#);
}

#[test]
fn a_gateway_without_its_registry() {
    let page = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>";
    let plan = vec![Rule::always("GET", Ping, Answer(Reply::new(502, "text/html", page)))];
    let (source, site) = registry(Guard::Open, plan);
    let told = site.ferry(&bundle(&format!("{}/app/one:1", source.host()))).run();
    assert_snapshot!(said(told, 5, &site, &[("REGISTRY", &source.host())]), @r#"
    error: image `REGISTRY/app/one:1`: REGISTRY: the registry's API: the registry failed (502 to GET /v2/): a web page says: 502 Bad Gateway nginx
      hint: a proxy or gateway answered in place of REGISTRY: run the same command again later; if it stays, look at the registry behind it
    "#);
}
