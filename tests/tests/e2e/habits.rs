//! Targets with habits of their own, in their own words: what they want is said before anything is pushed, with the remedy.

use ferry_tests::http::Reply;
use ferry_tests::images::Format;
use ferry_tests::registry::{Access, Front, PASSWORD, Registry, USER};
use ferry_tests::site::Site;
use ferry_tests::{require, tools};

use crate::{FOR, SIGN, TRUST, bundled, small, two_platforms};

/// A bundle `b.tar` of these repositories, each with its tag 1.
fn carrying(repositories: &[&str]) -> Site {
    let images: Vec<_> = (0..).map(small).take(repositories.len()).collect();
    let names: Vec<String> = repositories.iter().map(|name| format!("{name}:1")).collect();
    let filled: Vec<_> = names.iter().map(String::as_str).zip(&images).collect();
    let source = Registry::filled(Access::Plain, &filled);
    let site = Site::new();
    let references: Vec<String> = names.iter().map(|name| format!("{}/{name}", source.host())).collect();
    let _ = site.ferry(&format!("bundle {} {FOR} -o b.tar {SIGN}", references.join(" "))).ok();
    site
}

/// `ferry install b.tar`, logged in.
fn install(site: &Site, front: &Front, prefix: &str, options: &str) -> ferry_tests::ferry::Ferry {
    let config = site.login(&front.host(), USER, PASSWORD);
    site.ferry(&format!("install b.tar --registry {}{prefix} {TRUST} {options}", front.host()))
        .env("DOCKER_CONFIG", config)
}

fn puts(front: &Front) -> Vec<String> {
    front.asked().into_iter().filter(|line| line.starts_with("PUT")).collect()
}

#[test]
fn harbor_names_the_project_that_must_be_made() {
    require!("docker-registry");
    let site = carrying(&["app/one", "app/two"]);
    let front = Front::harbor(&["library"]);
    let told = install(&site, &front, "/team", "").run().expect_code(5);
    told.says(&["there is no project `team`", "/api/v2.0/projects", r#"{"project_name":"team"}"#]);
    assert_eq!(told.stderr.matches("error:").count(), 1, "one project, said once: {}", told.stderr);
    assert!(puts(&front).is_empty());
    let plan = install(&site, &front, "/library", "--dry-run --json").ok().json();
    assert_eq!(plan["probe"]["product"], "Harbor");
    let _ = install(&site, &front, "/library", "").ok();
    assert!(front.registry().manifest("library/app/one", "1").is_some());
}

#[test]
fn ecr_names_every_repository_that_must_be_made_at_once() {
    require!("docker-registry");
    let site = carrying(&["app/one", "app/two", "app/three"]);
    let front = Front::ecr(&["team/app/one"], false);
    let told = install(&site, &front, "/team", "").run().expect_code(5);
    told.says(&[
        "2 repositories are not there: `team/app/three`, `team/app/two`",
        "\n    aws ecr create-repository --repository-name team/app/three\n    aws ecr create-repository --repository-name team/app/two\n",
    ]);
    assert!(puts(&front).is_empty(), "nor is the one that is there pushed to");
    let front = Front::ecr(&["team/app/one", "team/app/two", "team/app/three"], false);
    let _ = install(&site, &front, "/team", "").ok();
    // as it does to this day for some: the connection ends without an answer
    let front = Front::ecr(&["team/app/one"], true);
    let told = install(&site, &front, "/team", "").run().expect_code(5);
    told.says(&["2 repositories are not there", "aws ecr create-repository --repository-name team/app/two"]);
}

#[test]
fn gitlab_takes_names_of_some_depth_only() {
    require!("docker-registry");
    let site = carrying(&["mirror/org/team/app", "mirror/org/team/db", "short"]);
    let front = Front::gitlab("group/project");
    let told = install(&site, &front, "/group/project", "").run().expect_code(5);
    told.says(&["no name of 6 parts: `group/project/mirror/org/team/app` and 1 more", "--layout flat"]);
    assert!(puts(&front).is_empty());
    let _ = install(&site, &front, "/group/project", "--layout flat").ok();
    assert!(front.registry().manifest("group/project/app", "1").is_some());
    // no project at all is another matter
    let told = install(&site, &front, "/nobody", "").run().expect_code(5);
    told.says(&["--registry HOST/GROUP/PROJECT"]);
    assert!(!told.stderr.contains("--layout flat"), "{}", told.stderr);
}

#[test]
fn a_tag_that_must_not_move_is_a_conflict_with_a_way_out() {
    require!("docker-registry");
    let (_source, _, site) = bundled();
    let words: [(u16, &str, &str); 5] = [
        (
            400,
            "TAG_INVALID",
            "The image tag '1' already exists in the 'app/one' repository and cannot be overwritten because the repository is immutable.",
        ),
        (412, "PRECONDITION", "Failed to process request due to 'one:1' configured as immutable."),
        (409, "TAG_IMMUTABLE", "tag is immutable"),
        (400, "UNKNOWN", "Repository does not allow updating assets: docker-hosted"),
        (403, "DENIED", "Not enough permissions to overwrite artifact 'app/one/1/manifest.json'"),
    ];
    for (status, code, message) in words {
        let front = Front::immutable(status, code, message);
        let old = small(50);
        front.registry().push("app/one:1", &old);
        let told = install(&site, &front, "", "").run().expect_code(7);
        told.says(&["app/one:1", "cannot be moved", old.digest(), message, "--on-existing skip"]);
        assert_eq!(front.registry().manifest("app/one", "1").as_deref(), old.manifest(old.digest()));
        let _ = install(&site, &front, "", "--on-existing skip").ok();
        // a tag that is new is none of its business
        let _ = install(&site, &front, "/elsewhere", "").ok();
    }
}

#[test]
fn a_sparse_index_is_refused_in_many_words() {
    require!("docker-registry");
    let index = two_platforms(Format::Oci, 3);
    let source = Registry::filled(Access::Plain, &[("app/x:1", &index)]);
    let site = Site::new();
    let reference = format!("{}/app/x:1@{}", source.host(), index.digest());
    let _ = site.ferry(&format!("bundle {reference} {FOR} -o b.tar {SIGN}")).ok();
    let amd64 = &index.platform("linux/amd64").unwrap().digest;
    for (status, body) in [
        (
            400,
            r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry","detail":{"digest":"x"}}]}"#,
        ),
        (400, r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry","detail":"sha256:00"}]}"#),
        (400, r#"{"errors":[{"code":"MANIFEST_INVALID","message":"manifest invalid","detail":{}}]}"#),
        (
            404,
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"The named manifest is not known to the registry."}]}"#,
        ),
        (422, "no"),
    ] {
        let front = Front::whole_indexes(status, body);
        let plan = install(&site, &front, "", "--dry-run --json").ok().json();
        assert_eq!(plan["probe"]["sparseIndex"]["answer"], "no", "{status}: {plan}");
        assert!(plan["probe"]["sparseIndex"]["how"].as_str().unwrap().contains(&status.to_string()), "{plan}");
        assert_eq!(plan["images"][0]["digest"], amd64.as_str());
        let _ = install(&site, &front, "", "").ok();
        assert!(front.registry().manifest("app/x", "1").is_some_and(|m| ferry_tests::images::digest(&m) == *amd64));
    }
}

/// What takes the question and not the real index is given something whole all the same.
#[test]
fn a_target_that_does_not_keep_its_word_on_indexes() {
    require!("docker-registry");
    let index = two_platforms(Format::Oci, 3);
    let source = Registry::filled(Access::Plain, &[("app/x:1", &index), ("app/y:1", &small(1))]);
    let site = Site::new();
    let reference = format!("{}/app/x:1@{}", source.host(), index.digest());
    let _ = site.ferry(&format!("bundle {reference} {}/app/y:1 {FOR} -o b.tar {SIGN}", source.host())).ok();
    let fickle = || {
        let asked = std::sync::atomic::AtomicBool::new(false);
        Front::start(move |request, _| {
            let is_index = request.header("content-type").is_some_and(|t| t.contains("index"));
            let first = |wanted| wanted && !asked.swap(true, std::sync::atomic::Ordering::Relaxed);
            match request.method.as_str() {
                "PUT" if first(is_index) => Some(Reply::empty(201)),
                "DELETE" if request.path.contains("/manifests/") => Some(Reply::empty(202)),
                _ => None,
            }
        })
    };
    let front = fickle();
    let plan = install(&site, &front, "", "--dry-run --json").ok().json();
    assert_eq!(plan["probe"]["sparseIndex"]["answer"], "yes", "{plan}");
    let amd64 = &index.platform("linux/amd64").unwrap().digest;
    assert_eq!(
        (&plan["images"][0]["digest"], &plan["images"][0]["ifRefused"]),
        (&index.digest().into(), &amd64.as_str().into())
    );

    let front = fickle();
    let done = install(&site, &front, "", "--out ready").ok();
    done.says(&["the target refuses an index with absent platforms", amd64]);
    assert!(front.registry().manifest("app/x", "1").is_some_and(|m| ferry_tests::images::digest(&m) == *amd64));
    let relocation: serde_json::Value = serde_json::from_str(&site.read("ready/relocation.json")).unwrap();
    assert_eq!(relocation["images"][0]["digest"], amd64.as_str(), "what is there, not what was planned");
    let told = install(&site, &fickle(), "", "--index sparse").run().expect_code(5);
    told.says(&["app/x:1", "refuses an index with absent platforms", "--index auto"]);
}

#[test]
fn what_is_no_file_is_not_replaced() {
    let site = Site::without_keys();
    tools::succeed("mkfifo", &[site.at("pipe").to_str().unwrap()]);
    let (host, _serving) = site.serve("--store shelf");
    let told = site.ferry(&format!("inventory --registry {host} -o pipe")).run().expect_code(6);
    told.says(&["pipe", "not a regular file"]);
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(&std::fs::metadata(site.at("pipe")).unwrap().file_type()));
}
