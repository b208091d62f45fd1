//! The main road: bundle, verify, inspect, install, rewrite.

use ferry_tests::images::Format;
use ferry_tests::registry::{Access, Registry};
use ferry_tests::require;
use ferry_tests::site::Site;

use crate::{FOR, SIGN, TRUST, bundled, one, small, two_platforms};

#[test]
fn a_plain_list_crosses() {
    require!("docker-registry");
    let (a, b) = (small(1), two_platforms(Format::Docker, 2));
    let source = Registry::filled(Access::Plain, &[("app/a:1", &a), ("team/b:v2", &b)]);
    let site = Site::new();
    let host = source.host();
    site.write("images.txt", format!("# what we need\n\n## apps\n{host}/app/a:1\n  {host}/team/b:v2  \n"));
    let _ = site.ferry(&format!("bundle images.txt {FOR} -o b.tar {SIGN}")).ok();
    let _ = site.ferry(&format!("verify b.tar {TRUST}")).ok();
    let _ = site.ferry(&format!("verify b.tar --cold {TRUST}")).ok();

    let json = site.ferry(&format!("inspect b.tar --json {TRUST}")).ok().json();
    let references: Vec<&str> =
        json["images"].as_array().unwrap().iter().map(|i| i["reference"].as_str().unwrap()).collect();
    assert_eq!(references, [format!("{host}/app/a:1"), format!("{host}/team/b:v2")]);
    let amd64 = b.platform("linux/amd64").unwrap();
    assert_eq!(json["images"][1]["platforms"][0]["platform"], "linux/amd64");
    assert_eq!(json["images"][1]["platforms"][0]["digest"], amd64.digest.as_str());
    assert_eq!(json["platforms"], serde_json::json!(["linux/amd64"]));
    assert!(json["blobs"]["count"].as_u64().unwrap() >= 8, "{json}");
    let human = site.ferry(&format!("inspect b.tar {TRUST}")).ok();
    assert!(human.stdout.contains("team/b:v2"), "{}", human.stdout);

    let target = Registry::start(Access::Plain);
    let _ = site.ferry(&format!("install b.tar --registry {} {TRUST}", target.host())).ok();
    assert!(target.holds("app/a", &a));
    assert!(target.manifest("team/b", "v2").is_some());
    assert_eq!(target.manifest("team/b", &amd64.digest).as_deref(), b.manifest(&amd64.digest));
}

#[test]
fn nothing_is_asked_for_twice_and_nothing_is_sent_twice() {
    require!("docker-registry");
    let images: Vec<_> = (0..4).map(|at| two_platforms(Format::Oci, at % 2)).collect();
    let names: Vec<String> = (0..4).map(|at| format!("app/n{at}:1")).collect();
    let sources: Vec<_> = names.iter().map(String::as_str).zip(&images).collect();
    let source = Registry::filled(Access::Plain, &sources);
    let site = Site::new();
    let references: Vec<String> = names.iter().map(|name| format!("{}/{name}", source.host())).collect();
    let _ = site.ferry(&format!("bundle {} {FOR} -o b.tar {SIGN}", references.join(" "))).ok();
    let asked = source.requests();
    assert!(asked.fetched_twice().is_empty(), "{:?}", asked.fetched_twice());
    assert_eq!(asked.blobs_sent().len(), 6, "two images of three blobs, whatever they are called: {asked:?}");

    let target = Registry::start(Access::Plain);
    let install = format!("install b.tar --registry {} {TRUST}", target.host());
    let _ = site.ferry(&install).ok();
    let sent = target.requests();
    assert_eq!(sent.blobs_stored().len(), 6, "each blob once per target: {sent:?}");
    // apart from the preflight, which opens an upload in each repository and gives it back
    let about = sent.matching(|r| r.path.contains("/blobs/") && (r.method != "POST" || r.path.contains('?')));
    let about = about.into_iter().filter(|r| r.method != "DELETE").count();
    assert!(about <= 2 * 6 + 6, "two requests for a blob sent, one for a blob mounted: {sent:?}");

    target.forget_requests();
    let _ = site.ferry(&install).ok();
    let again = target.requests();
    assert!(again.uploads().is_empty() && again.manifests_stored().is_empty(), "{again:?}");
}

#[test]
fn a_lock_gives_the_same_bytes_after_a_tag_has_moved() {
    require!("docker-registry");
    let (source, _, site) = one();
    let reference = format!("{}/app/one:1", source.host());
    let _ = site.ferry(&format!("bundle {reference} {FOR} --name n -o first.tar --lock l.lock {SIGN}")).ok();
    source.push("app/one:1", &small(77));
    let _ = site.ferry(&format!("bundle {reference} {FOR} --name n -o again.tar --lock l.lock --locked {SIGN}")).ok();
    assert!(site.bytes("first.tar") == site.bytes("again.tar"));
    let _ = site.ferry(&format!("bundle {reference} {FOR} --name n -o moved.tar {SIGN}")).ok();
    assert!(site.bytes("first.tar") != site.bytes("moved.tar"));
}

#[test]
fn a_dry_run_says_what_would_be_and_leaves_nothing() {
    require!("docker-registry");
    let (source, image, site) = one();
    let before = site.names();
    let plan = site.ferry(&format!("bundle {}/app/one:1 {FOR} -o b.tar --dry-run {SIGN}", source.host())).ok();
    let said = format!("{}{}", plan.stdout, plan.stderr);
    assert!(said.contains("app/one:1") && said.contains("linux/amd64"), "{said}");
    assert_eq!(site.names(), before);
    assert!(source.requests().blobs_sent().len() <= 1, "at most a config: {:?}", source.requests());

    let (source, site) = (source, site);
    let _ = site.ferry(&format!("bundle {}/app/one:1 {FOR} -o b.tar {SIGN}", source.host())).ok();
    let target = Registry::start(Access::Plain);
    let _ = site.ferry(&format!("install b.tar --registry {} --dry-run {TRUST}", target.host())).ok();
    assert!(target.repositories().is_empty());
    assert!(!target.holds("app/one", &image));
}

#[test]
fn all_problems_are_told_together() {
    require!("docker-registry");
    let (source, _, site) = one();
    let host = source.host();
    let command = format!("bundle {host}/app/one:1 {host}/app/none:1 {host}/other/gone:2 {FOR} -o b.tar {SIGN}");
    let told = site.ferry(&command).run().expect_code(4);
    told.says(&["app/none:1", "other/gone:2"]);
    assert!(!site.at("b.tar").exists());
}

#[test]
fn yaml_that_asks_for_more_than_is_carried_stops_the_build() {
    require!("docker-registry");
    let (source, _, site) = one();
    let host = source.host();
    site.write(
        "app.yaml",
        format!("kind: Pod\nspec:\n  containers:\n  - image: {host}/app/one:1\n  - image: redis:7.2\n"),
    );
    site.write(
        "m.yaml",
        format!("name: m\nplatforms: [linux/amd64]\nimages: [\"{host}/app/one:1\"]\nyaml: [app.yaml]\n"),
    );
    let told = site.ferry(&format!("bundle m.yaml -o b.tar {SIGN}")).run().expect_code(4);
    told.says(&["app.yaml:5", "redis:7.2"]);
    assert!(!site.at("b.tar").exists());

    // carried along, and rewritten on the far side without being named there
    site.write("app.yaml", format!("kind: Pod\nspec:\n  containers:\n  - image: {host}/app/one:1  # here\n"));
    let _ = site.ferry(&format!("bundle m.yaml -o b.tar {SIGN}")).ok();
    let target = Registry::start(Access::Plain);
    let _ = site.ferry(&format!("install b.tar --registry {} --out ready {TRUST}", target.host())).ok();
    let rewritten = site.read("ready/app.yaml");
    assert_eq!(rewritten, format!("kind: Pod\nspec:\n  containers:\n  - image: {}/app/one:1  # here\n", target.host()));
}

#[test]
fn yaml_that_is_not_carried_stops_the_install_before_anything_is_pushed() {
    require!("docker-registry");
    let (source, _, site) = bundled();
    let target = Registry::start(Access::Plain);
    site.write("a.yaml", format!("kind: Pod\nspec:\n  containers:\n  - image: {}/app/one:1\n", source.host()));
    site.write("b.yaml", "kind: Pod\nspec:\n  containers:\n  - image: nginx:1.27\n");
    let install = format!("install b.tar --registry {} --yaml a.yaml --yaml b.yaml --out ready {TRUST}", target.host());
    let told = site.ferry(&install).run().expect_code(4);
    told.says(&["b.yaml:4", "nginx:1.27"]);
    assert!(target.repositories().is_empty() && !site.at("ready/a.yaml").exists());
    let _ = site.ferry(&format!("{install} --no-strict")).ok().says(&["b.yaml:4"]);
    assert!(site.read("ready/a.yaml").contains(&format!("{}/app/one:1", target.host())));
}

#[test]
fn a_pin_to_an_index_follows_what_is_really_at_the_target() {
    require!("docker-registry");
    let index = two_platforms(Format::Oci, 9);
    let source = Registry::filled(Access::Plain, &[("app/pinned:1", &index)]);
    let site = Site::new();
    let reference = format!("{}/app/pinned:1@{}", source.host(), index.digest());
    site.write("pod.yaml", format!("kind: Pod\nspec:\n  containers:\n  - image: {reference}\n"));
    let _ = site.ferry(&format!("bundle {reference} {FOR} -o b.tar {SIGN}")).ok();
    let target = Registry::start(Access::Plain);
    let install = format!("install b.tar --registry {} --yaml pod.yaml --out ready {TRUST}", target.host());
    let _ = site.ferry(&install).ok();
    let rewritten = site.read("ready/pod.yaml");
    let (_, digest) = rewritten.trim_end().rsplit_once('@').expect("still pinned");
    assert!(target.manifest("app/pinned", digest).is_some(), "{rewritten}");
    // docker-registry refuses a sparse index, so the pin cannot be the old one
    assert_ne!(digest, index.digest());
}

#[test]
fn a_store_is_filled_without_a_server() {
    require!("docker-registry");
    let (source, image, site) = bundled();
    let install = |more: &str| site.ferry(&format!("install b.tar --store shelf {TRUST} {more}"));
    // nobody named it: nothing is named, and nothing is written but the store
    let before = site.names();
    let look = install("--dry-run").ok().stdout;
    assert!(look.contains("app/one:1") && !look.contains("localhost:5000"), "{look}");
    assert_eq!(install("--dry-run --json").ok().json()["target"], serde_json::Value::Null);
    assert_eq!(site.names(), before);
    let done = install("--json").ok().json();
    assert_eq!((&done["target"], &done["receipt"]), (&serde_json::Value::Null, &serde_json::Value::Null));
    assert_eq!(site.names().iter().filter(|name| !before.contains(name)).collect::<Vec<_>>(), ["shelf/"]);
    // who asks for them gets them, and is told what the name in them is
    install("--out asked").ok().says(&["asked/receipt.json", "`localhost:5000` stands for the store"]);
    assert!(site.read("asked/relocation.json").contains("localhost:5000/app/one"));
    let _ = install("--registry r.example --out named").ok();
    assert!(site.read("named/relocation.json").contains("r.example/app/one"));
    // a look changes nothing of the store, and asks only what can be asked of a folder
    let locks = ["shelf/ferry/lock", "shelf/ferry/blobs.lock"].map(|lock| site.at(lock));
    locks.iter().for_each(|lock| std::fs::remove_file(lock).unwrap());
    let look = install("--dry-run").ok().stdout;
    assert!(look.contains("existing tags") && !look.contains("may push"), "{look}");
    let _ = site.ferry("gc shelf --dry-run").ok();
    assert!(locks.iter().all(|lock| !lock.exists()));
    let (host, _serving) = site.serve("--store shelf");
    let endpoint = ferry_tests::http::Endpoint::plain(&host);
    let answer = endpoint.send("GET", "/v2/app/one/manifests/1", &[("Accept", "*/*")], &[]).unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, image.manifest(image.digest()).unwrap()));
    // as a mirror it is that of the host that it is from, and of no other
    let as_mirror =
        |of: &str| endpoint.send("GET", &format!("/v2/app/one/manifests/1?ns={of}"), &[], &[]).unwrap().status;
    assert_eq!((as_mirror(&source.host()), as_mirror("quay.io")), (200, 404));
}

#[test]
fn carried_yaml_does_not_keep_a_store_without_a_name_from_being_filled() {
    require!("docker-registry");
    let source = Registry::filled(Access::Plain, &[("app/one:1", &small(1))]);
    let (site, host) = (Site::new(), source.host());
    site.write("app.yaml", format!("kind: Pod\nspec:\n  containers:\n  - image: {host}/app/one:1\n"));
    site.write(
        "m.yaml",
        format!("name: m\nplatforms: [linux/amd64]\nimages: [\"{host}/app/one:1\"]\nyaml: [app.yaml]\n"),
    );
    let _ = site.ferry(&format!("bundle m.yaml -o b.tar {SIGN}")).ok();
    let install = |more: &str| site.ferry(&format!("install b.tar --store shelf {TRUST} {more}"));
    let aside = ["1 carried YAML file was left aside", "--registry HOST[:PORT] --out DIR"];
    let look = install("--dry-run").ok().stdout;
    assert!(aside.iter().all(|words| look.contains(words)), "{look}");
    let before = site.names();
    install("").ok().says(&aside).says(&["1 image pushed"]);
    install("--recheck").ok().says(&aside).says(&["1 was there"]);
    assert_eq!(site.names().iter().filter(|name| !before.contains(name)).collect::<Vec<_>>(), ["shelf/"]);
    // who asks for it gets it, by the name that stands in
    install("--out ready").ok().says(&["`localhost:5000` stands for the store"]);
    assert!(site.read("ready/app.yaml").contains("- image: localhost:5000/app/one:1\n"));
    // a file that was named is not left aside
    install("--yaml app.yaml --out here").run().expect_code(2).says(&["without a name", "--registry HOST[:PORT]"]);
    assert!(!site.at("here").exists());
}

#[test]
fn two_images_on_one_name_are_refused() {
    require!("docker-registry");
    let source = Registry::filled(Access::Plain, &[("a/app:1", &small(1)), ("b/app:1", &small(2))]);
    let site = Site::new();
    let host = source.host();
    site.write(
        "m.yaml",
        format!("name: m\nlayout: flat\nplatforms: [linux/amd64]\nimages: [\"{host}/a/app:1\", \"{host}/b/app:1\"]\n"),
    );
    let told = site.ferry(&format!("bundle m.yaml -o b.tar {SIGN}")).run().expect_code(7);
    told.says(&["a/app:1", "b/app:1"]);
    assert!(!site.at("b.tar").exists());
}

#[test]
fn an_existing_tag_is_treated_as_asked() {
    require!("docker-registry");
    let (_source, image, site) = bundled();
    let old = small(50);
    let target = Registry::filled(Access::Plain, &[("app/one:1", &old)]);
    let install = format!("install b.tar --registry {} {TRUST} --on-existing", target.host());
    let now = || target.manifest("app/one", "1").unwrap();
    let _ = site.ferry(&format!("{install} fail")).run().expect_code(7).says(&[
        "app/one:1",
        "see first what differs",
        "--dry-run",
    ]);
    assert_eq!(now(), old.manifest(old.digest()).unwrap());
    let _ = site.ferry(&format!("{install} skip")).ok();
    assert_eq!(now(), old.manifest(old.digest()).unwrap());
    let _ = site.ferry(&format!("{install} overwrite")).ok();
    assert_eq!(now(), image.manifest(image.digest()).unwrap());
}
