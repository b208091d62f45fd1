//! What an install finds out of its target before it pushes, and what that costs.

use ferry_tests::http::Endpoint;
use ferry_tests::images::Format;
use ferry_tests::registry::{Access, PASSWORD, Registry, USER};
use ferry_tests::require;
use ferry_tests::site::Site;

use crate::{FOR, SIGN, TRUST, bundled, one, small, two_platforms};

#[test]
fn a_dry_run_asks_everything_and_leaves_nothing() {
    require!("docker-registry");
    let (source, _, site) = bundled();
    let target = Registry::start(Access::Plain);
    let install = format!("install b.tar --registry {}/team {TRUST}", target.host());
    let plan = site.ferry(&format!("{install} --dry-run --json")).ok().json();
    let probe = &plan["probe"];
    for (question, answer) in [
        ("reachable", "yes"),
        ("auth", "yes"),
        ("push", "yes"),
        ("createOnPush", "yes"),
        ("pathDepth", "yes"),
        ("sparseIndex", "not asked"),
        ("mount", "not asked"),
        ("chunks", "yes"),
        ("existingTags", "no"),
    ] {
        assert_eq!(probe[question]["answer"], answer, "{question}: {probe}");
        assert!(!probe[question]["how"].as_str().unwrap().is_empty(), "{question}: {probe}");
    }
    assert_eq!(probe["leaves"], serde_json::json!([]));
    assert!(target.repositories().is_empty());
    let asked = target.requests();
    assert!(asked.manifests_stored().is_empty() && asked.blobs_stored().is_empty(), "{asked:?}");
    let opened = asked.matching(|r| r.method == "POST" && r.status == 202).len();
    assert_eq!(asked.matching(|r| r.method == "DELETE" && r.status == 204).len(), opened, "{asked:?}");
    assert!(!site.at("ferry-out").exists());

    // with something there more can be said
    let _ = site.ferry(&install).ok();
    source.push("app/one:2", &small(7));
    let _ = site.ferry(&format!("bundle {0}/app/one:1 {0}/app/one:2 {FOR} -o two.tar {SIGN}", source.host())).ok();
    let install = format!("install two.tar --registry {}/team {TRUST}", target.host());
    let probe = &site.ferry(&format!("{install} --dry-run --json")).ok().json()["probe"];
    assert_eq!(probe["mount"]["answer"], "yes", "{probe}");
    assert_eq!(probe["existingTags"]["answer"], "yes", "{probe}");
    assert_eq!(probe["createOnPush"]["answer"], "not asked", "{probe}");
    let said = site.ferry(&format!("{install} --dry-run")).ok().stdout;
    for words in ["ASKED OF THE TARGET", "sparse index", "not asked", "of 2: 1 new, 1 there as they should be"] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn an_install_asks_no_more_than_it_must() {
    require!("docker-registry");
    let (_source, _, site) = bundled();
    let target = Registry::start(Access::Plain);
    let install = format!("install b.tar --registry {} {TRUST}", target.host());
    let _ = site.ferry(&install).ok();
    let asked: Vec<String> =
        target.requests().0.iter().map(|r| format!("{} {}", r.method, r.path.split('?').next().unwrap())).collect();
    let before: Vec<&str> = asked.iter().map(String::as_str).take(3).collect();
    assert_eq!(before, ["GET /v2/", "HEAD /v2/app/one/manifests/1", "POST /v2/app/one/blobs/uploads/"]);
    let count = |method: &str| asked.iter().filter(|line| line.starts_with(method)).count();
    // three blobs by POST and PUT, one manifest; the push goes on with the upload that the probe opened
    let counts = ["GET", "HEAD", "POST", "PATCH", "PUT", "DELETE"].map(count);
    assert_eq!(counts, [1, 1, 3, 0, 4, 0], "{asked:?}");

    target.forget_requests();
    let _ = site.ferry(&install).ok();
    let again = target.requests();
    assert_eq!(again.0.len(), 2, "the registry, and the name: {again:?}");
}

#[test]
fn a_login_is_named_in_the_plan_and_never_shown() {
    require!("docker-registry", "htpasswd");
    let (_source, _, site) = bundled();
    for (access, words) in [(Access::Basic, "name and password"), (Access::Token, "a token")] {
        let target = Registry::start(access);
        let config = site.login(&target.host(), USER, PASSWORD);
        let command = format!("install b.tar --registry {} {TRUST} --dry-run --json", target.host());
        let plan = site.ferry(&command).env("DOCKER_CONFIG", config).ok();
        let how = plan.json()["probe"]["auth"]["how"].as_str().unwrap().to_owned();
        assert!(how.contains(words) && how.contains("config.json"), "{how}");
        assert!(!plan.stdout.contains(PASSWORD) && !plan.stderr.contains(PASSWORD));
    }
}

#[test]
fn each_tag_is_said_to_be_new_there_or_moved() {
    require!("docker-registry");
    let (a, b, c) = (small(1), small(2), two_platforms(Format::Oci, 3));
    let source = Registry::filled(Access::Plain, &[("app/a:1", &a), ("app/b:1", &b), ("app/c:1", &c)]);
    let site = Site::new();
    let references: Vec<String> = ["a", "b", "c"].iter().map(|n| format!("{}/app/{n}:1", source.host())).collect();
    let _ = site.ferry(&format!("bundle {} {FOR} -o b.tar {SIGN}", references.join(" "))).ok();
    let old = small(50);
    let target = Registry::filled(Access::Plain, &[("app/a:1", &a), ("app/b:1", &old)]);
    let install = format!("install b.tar --registry {} {TRUST}", target.host());
    let plan = |options: &str| {
        let plan = site.ferry(&format!("{install} --dry-run --json {options}")).ok().json();
        let images = plan["images"].as_array().unwrap().clone();
        images.iter().map(|i| i["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(plan(""), ["is there", "moves from", "new"]);
    assert_eq!(plan("--on-existing skip"), ["is there", "stays at", "new"]);
    let told = site.ferry(&format!("{install} --on-existing fail")).run().expect_code(7);
    told.says(&["app/b:1", old.digest(), "--on-existing overwrite"]);
    assert!(target.requests().manifests_stored().is_empty(), "nothing is pushed");

    // what stays is told, and stands in relocation.json as it is
    let done = site.ferry(&format!("{install} --on-existing skip --out ready")).ok();
    done.says(&["1 image pushed, 1 was there, 1 skipped", "its tag stays at"]);
    let relocation: serde_json::Value = serde_json::from_str(&site.read("ready/relocation.json")).unwrap();
    assert_eq!(relocation["images"][1]["digest"], old.digest());
    assert_eq!(target.manifest("app/b", "1").as_deref(), old.manifest(old.digest()));
    target.forget_requests();
    let done = site.ferry(&format!("{install} --on-existing overwrite")).ok();
    done.says(&["1 image pushed, 2 were there", &format!("was {} before", old.digest())]);
    assert_eq!(target.manifest("app/b", "1").as_deref(), b.manifest(b.digest()));
    assert_eq!(target.requests().manifests_stored().len(), 1);
}

#[test]
fn a_store_is_asked_nothing_over_the_network() {
    let site = Site::new();
    let (public, _public) = site.serve("--store public");
    ferry_tests::registry::push(&Endpoint::plain(&public), "app/one:1", &small(1));
    let _ = site.ferry(&format!("bundle {public}/app/one:1 {FOR} -o b.tar {SIGN}")).ok();
    let plan = site.ferry(&format!("install b.tar --store shelf --dry-run --json {TRUST}")).ok().json();
    assert_eq!(plan["probe"]["push"]["answer"], "yes");
    assert!(!site.at("shelf").exists());
}

#[test]
fn what_is_wrong_with_the_target_is_told_with_everything_else() {
    require!("docker-registry");
    let (_source, _, site) = one();
    let source = Registry::filled(Access::Plain, &[("app/one:1", &small(1))]);
    let _ = site.ferry(&format!("bundle {}/app/one:1 {FOR} -o b.tar {SIGN}", source.host())).ok();
    let read_only = Registry::start(Access::ReadOnly);
    site.write("pod.yaml", "kind: Pod\nspec:\n  containers:\n  - image: nginx:1.27\n");
    let command = format!("install b.tar --registry {} --yaml pod.yaml {TRUST}", read_only.host());
    let told = site.ferry(&command).run().expect_code(4);
    told.says(&["pod.yaml:4", "nginx:1.27", "app/one", "read-only"]);
}
