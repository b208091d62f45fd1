//! Who we are: the command line, files of docker and podman, their programs, and ferry's config file.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ferry_tests::ferry::Ferry;
use ferry_tests::http::base64;
use ferry_tests::registry::{Access, PASSWORD, Registry, USER};
use ferry_tests::require;
use ferry_tests::site::Site;

use crate::{FOR, SIGN, TRUST, small};

fn guarded() -> (Registry, Site) {
    (Registry::filled(Access::Basic, &[("app/one:1", &small(1))]), Site::new())
}

fn bundle(site: &Site, host: &str) -> Ferry {
    let _ = std::fs::remove_file(site.at("b.tar"));
    site.ferry(&format!("bundle {host}/app/one:1 {FOR} -o b.tar {SIGN}"))
}

/// A docker `config.json` that has this login.
fn auths(host: &str, password: &str) -> String {
    serde_json::json!({"auths": {host: {"auth": base64(format!("{USER}:{password}"))}}}).to_string()
}

#[test]
fn what_is_closer_goes_before_what_is_farther() {
    require!("docker-registry", "htpasswd");
    let (registry, site) = guarded();
    let host = registry.host();
    // each level in turn has the right password, those before it nothing, those behind it a wrong one
    const LEVELS: usize = 7;
    for right in 0..LEVELS {
        let site = Site::new();
        let password = |level: usize| if level == right { PASSWORD } else { "wrong" };
        let there = |level: usize| level >= right;
        let mut ferry = bundle(&site, &host);
        if there(0) {
            let stdin = site.write("stdin", format!("{}\n", password(0)));
            ferry = ferry.arg("--login").arg(format!("{host}={USER}")).arg("--password-stdin").stdin(&stdin);
        }
        if there(1) {
            ferry = ferry.arg("--auth-file").arg(site.write("auth-file.json", auths(&host, password(1))));
        }
        if there(2) {
            ferry = ferry.env("REGISTRY_AUTH_FILE", site.write("env.json", auths(&host, password(2))));
        }
        if there(3) {
            let file = site.write("docker/config.json", auths(&host, password(3)));
            ferry = ferry.env("DOCKER_CONFIG", file.parent().unwrap());
        }
        if there(4) {
            site.write(".config/ferry/secret", password(4));
            let login = format!("logins: {{\"{host}\": {{username: {USER}, passwordFile: secret}}}}\n");
            site.write(".config/ferry/config.yaml", login);
        }
        if there(5) {
            site.write(".docker/config.json", auths(&host, password(5)));
        }
        site.write(".config/containers/auth.json", auths(&host, password(6)));
        let told = ferry.run();
        assert_eq!(told.code, 0, "level {right}: {}", told.stderr);
    }
    // and a wrong one at the front is not made good by a right one behind it
    site.write(".docker/config.json", auths(&host, PASSWORD));
    let stdin = site.write("stdin", "wrong\n");
    let wrong = bundle(&site, &host).arg("--login").arg(format!("{host}={USER}")).arg("--password-stdin").stdin(&stdin);
    let told = wrong.run().expect_code(5);
    told.says(&[&host, "wrong user name or password for"]);
}

#[test]
fn several_logins_take_a_line_each() {
    require!("docker-registry", "htpasswd");
    let (one, site) = guarded();
    let two = Registry::filled(Access::Basic, &[("team/two:1", &small(2))]);
    let ferry = |passwords: &str| {
        let _ = std::fs::remove_file(site.at("b.tar"));
        let (one, two) = (one.host(), two.host());
        let stdin = site.write("stdin", passwords);
        site.ferry(&format!("bundle {one}/app/one:1 {two}/team/two:1 {FOR} -o b.tar {SIGN}"))
            .arg("--login")
            .arg(format!("{one}={USER}"))
            .arg("--login")
            .arg(format!("{two}={USER}x"))
            .arg("--login")
            .arg(format!("{two}/team={USER}"))
            .arg("--password-stdin")
            .stdin(&stdin)
    };
    let _ = ferry(&format!("{PASSWORD}\nwrong\n{PASSWORD}\n")).ok();
    let told = ferry(&format!("{PASSWORD}\nwrong\n")).run().expect_code(2);
    told.says(&["standard input has 2 lines, where 3 passwords should be"]);
    assert!(!told.stderr.contains(PASSWORD), "{}", told.stderr);
    site.ferry("bundle a:1 -o b.tar --login x.example=me").run().expect_code(2).says(&["--password-stdin"]);
    site.ferry("bundle a:1 -o b.tar --login me --password-stdin").run().expect_code(2).says(&["HOST[/PATH]=USER"]);
}

#[test]
fn install_takes_a_user_for_its_target() {
    require!("docker-registry", "htpasswd");
    let (registry, site) = guarded();
    site.write(".docker/config.json", auths(&registry.host(), PASSWORD));
    let _ = bundle(&site, &registry.host()).ok();
    let target = Registry::start(Access::Basic);
    let install = |password: &str| {
        let stdin = site.write("stdin", password);
        site.ferry(&format!("install b.tar --registry {} {TRUST} --username {USER} --password-stdin", target.host()))
            .stdin(&stdin)
    };
    let told = install("wrong").run().expect_code(5);
    told.says(&[&target.host(), "wrong user name or password for"]);
    install("\n").run().expect_code(2).says(&["standard input is empty, where a password should be"]);
    let _ = install(&format!("{PASSWORD}\r\n")).ok();
    assert!(target.holds("app/one", &small(1)));
}

#[test]
fn one_mistyped_password_is_one_failed_login_and_one_error() {
    require!("docker-registry", "htpasswd");
    let images: Vec<_> = (1..=6).map(|n| (format!("app/n{n}:1"), small(n))).collect();
    let of: Vec<_> = images.iter().map(|(name, image)| (name.as_str(), image)).collect();
    let source = Registry::filled(Access::Plain, &of);
    let site = Site::new();
    let all: String = images.iter().map(|(name, _)| format!("{}/{name} ", source.host())).collect();
    let _ = site.ferry(&format!("bundle {all} {FOR} -o b.tar {SIGN}")).ok();
    let hashed = std::process::Command::new("htpasswd").args(["-nbB", USER, PASSWORD]).output().unwrap().stdout;
    site.write("users", String::from_utf8(hashed).unwrap());
    let (host, _serving) = site.serve("--store shelf --htpasswd users --access-log log");
    let install = |password: &str| {
        let stdin = site.write("stdin", password);
        site.ferry(&format!("install b.tar --registry {host} {TRUST} --username {USER} --password-stdin")).stdin(&stdin)
    };
    let told = install("wrong").run().expect_code(5);
    told.says(&[&format!("and 5 more: wrong user name or password for {host} (401)")]);
    assert_eq!(told.stderr.matches("error:").count(), 1, "{}", told.stderr);
    let begun = std::time::Instant::now();
    let _ = install(PASSWORD).ok();
    // six wrong ones would make it wait for eight seconds
    assert!(begun.elapsed() < std::time::Duration::from_secs(6), "{:?}", begun.elapsed());
}

/// Makes `docker-credential-NAME` in the folder `bin`, and a docker config that names it for `host`.
fn program(site: &Site, host: &str, script: &str) {
    let path = site.write("bin/docker-credential-vault", format!("#!/bin/sh\n{script}\n"));
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    site.write(".docker/config.json", serde_json::json!({"credHelpers": {host: "vault"}}).to_string());
}

#[test]
fn a_credential_program_is_asked_and_what_it_says_is_told() {
    require!("docker-registry", "htpasswd");
    let (registry, site) = guarded();
    let host = registry.host();
    let path = format!("{}:{}", site.at("bin").display(), std::env::var("PATH").unwrap());
    let ferry = |script: &str| {
        program(&site, &host, script);
        bundle(&site, &host).env("PATH", &path)
    };
    let answer = |password: &str| {
        format!(
            r#"test "$1" = get || exit 9; read host; test "$host" = {host} || exit 8; echo '{{"ServerURL":"x","Username":"{USER}","Secret":"{password}"}}'"#
        )
    };
    let _ = ferry(&answer(PASSWORD)).ok();
    for (script, expected) in [
        (
            "echo 'the vault is sealed' >&2; exit 1",
            "`docker-credential-vault get`: it failed with code 1: the vault is sealed",
        ),
        ("echo hunter2", "its answer is not what the protocol says (line 1, column 1)"),
        (&answer("hunter2"), "wrong user name or password for"),
        ("echo 'credentials not found in native keychain'; exit 1", "credentials are required"),
    ] {
        let told = ferry(script).run().expect_code(5);
        told.says(&[&host, expected, "hint"]);
        assert!(!told.stderr.contains("hunter2"), "{}", told.stderr);
    }
    let _ = std::fs::remove_file(site.at("bin/docker-credential-vault"));
    bundle(&site, &host)
        .env("PATH", &path)
        .run()
        .expect_code(5)
        .says(&["docker-credential-vault", "no such program in PATH"]);
}

#[test]
fn the_config_file_is_strict_and_says_where() {
    let site = Site::new();
    let run = |ferry: Ferry| ferry.run();
    let dry = || site.ferry(&format!("bundle x.example/a:1 {FOR} --dry-run -o b.tar"));
    for (text, expected) in [
        ("hosts:\n  x.example:\n    plainHTTP: true\n", "ferry.yaml:3: unknown key `plainHTTP`; known here: plainHttp"),
        (
            "logins:\n  x.example:\n    username: me\n    password: hunter2\n",
            "ferry.yaml:4: unknown key `password`; known here: username, passwordFile",
        ),
        ("hosts:\n  x.example: {caFile: }\n  y.example/a: {}\n", "ferry.yaml:3: `y.example/a` is not a host"),
    ] {
        site.write("ferry.yaml", text);
        for ferry in [dry().arg("--config").arg("ferry.yaml"), dry().env("FERRY_CONFIG", "ferry.yaml")] {
            let told = run(ferry).expect_code(1);
            told.says(&[expected, "hint"]);
            assert!(!told.stderr.contains("hunter2"), "{}", told.stderr);
        }
    }
    site.write("ferry.yaml", "logins: {x.example: {username: me, passwordFile: none}}\n");
    run(dry().arg("--config").arg("ferry.yaml")).expect_code(6).says(&["none"]);
    run(dry().arg("--config").arg("absent.yaml")).expect_code(6).says(&["absent.yaml"]);
    // the command line's file goes before the environment's, and only one is read
    site.write("empty.yaml", "# nothing\n");
    site.write("broken.yaml", "{");
    let told = run(dry().arg("--config").arg("empty.yaml").env("FERRY_CONFIG", "broken.yaml"));
    assert!(!told.stderr.contains("broken.yaml"), "{}", told.stderr);
    // at home
    for at in [".config/ferry/config.yaml", "x/ferry/config.yaml"] {
        site.write(at, "hosts: 1\n");
        let ferry = if at.starts_with('x') { dry().env("XDG_CONFIG_HOME", site.at("x")) } else { dry() };
        run(ferry).expect_code(1).says(&[&format!("{at}:1: ")]);
        std::fs::remove_file(site.at(at)).unwrap();
    }
    assert!(!Path::new(&site.at("b.tar")).exists());
}

#[test]
fn mirrors_of_the_config_file_come_after_those_of_the_bundle_manifest() {
    require!("docker-registry");
    let image = small(1);
    let origin = Registry::filled(Access::Plain, &[("app/one:1", &image)]);
    let (first, second) =
        (Registry::start(Access::Plain), Registry::filled(Access::Plain, &[("hub/app/one:1", &image)]));
    let site = Site::new();
    let (o, f, s) = (origin.host(), first.host(), second.host());
    site.write(".config/ferry/config.yaml", format!("hosts: {{\"{o}\": {{mirrors: \"{s}/hub\"}}}}\n"));
    site.write(
        "m.yaml",
        format!("name: m\nplatforms: [linux/amd64]\nmirrors: {{\"{o}\": \"{f}\"}}\nimages: [\"{o}/app/one:1\"]\n"),
    );
    let _ = site.ferry(&format!("bundle m.yaml -o b.tar {SIGN}")).ok();
    let json = site.ferry(&format!("inspect b.tar --json {TRUST}")).ok().json();
    assert_eq!(json["images"][0]["source"], format!("{s}/hub/app/one"));
    assert!(!first.requests().0.is_empty(), "the manifest's mirror was asked, too");
    // references on the command line have no manifest: the site's mirrors hold for them
    let _ = site.ferry(&format!("bundle {o}/app/one:1 {FOR} -o c.tar {SIGN}")).ok();
    let json = site.ferry(&format!("inspect c.tar --json {TRUST}")).ok().json();
    assert_eq!(json["images"][0]["source"], format!("{s}/hub/app/one"));
}

#[test]
fn a_hosts_own_times_count_unless_the_command_line_has_one() {
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = mute.local_addr().unwrap().to_string();
    let site = Site::new();
    site.write("ferry.yaml", format!("hosts: {{\"{host}\": {{stallTimeout: 1, connectTimeout: 1}}}}\n"));
    let told = bundle(&site, &host).arg("--config").arg("ferry.yaml").run().expect_code(5);
    told.says(&["no answer in time"]);
    assert!(told.took.as_secs() < 20, "{:?}", told.took);
    site.write("ferry.yaml", format!("hosts: {{\"{host}\": {{stallTimeout: 3600}}}}\n"));
    let told =
        bundle(&site, &host).arg("--config").arg("ferry.yaml").arg("--stall-timeout").arg("1").run().expect_code(5);
    assert!(told.took.as_secs() < 20, "{:?}", told.took);
}
