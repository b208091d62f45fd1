//! The second crossing, on the far side: deltas onto what is there, several bundles in one install, damaged ones with what mends them, and
//! bundles out of a pipe.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use ferry_tests::faults::{Line, Proxy};
use ferry_tests::http::{Endpoint, Reply};
use ferry_tests::images::{Format, Image, Layer};
use ferry_tests::registry::faulty::{Fault, FaultyRegistry, Rule, What};
use ferry_tests::registry::{Access, PASSWORD, Registry, USER};
use ferry_tests::site::Site;
use ferry_tests::{require, tools};

use crate::{FOR, SIGN, TRUST};

/// The layer that all versions share.
const SHARED: usize = 300_000;

fn shared() -> Layer {
    Layer::random(700, SHARED)
}

/// A version of the app: the shared layer and one of its own.
fn app(version: u64) -> Image {
    Image::single("linux/amd64", Format::Oci, vec![shared(), Layer::random(800 + version, 3000)])
}

/// A source with versions of an app, and a site.
struct Shop {
    source: Registry,
    site: Site,
}

impl Shop {
    fn new() -> Self {
        let images = [("shop/app:1", &app(1)), ("shop/app:2", &app(2)), ("shop/other:1", &app(3))];
        Self { source: Registry::filled(Access::Plain, &images), site: Site::new() }
    }

    fn bundle(&self, names: &[&str], output: &str, options: &str) {
        let references: Vec<String> = names.iter().map(|name| format!("{}/{name}", self.source.host())).collect();
        let command = format!("bundle {} {FOR} --name shop -o {output} {SIGN} {options}", references.join(" "));
        let _ = self.site.ferry(&command).ok();
    }

    fn install(&self, bundles: &str, target: &str) -> ferry_tests::ferry::Ferry {
        self.site.ferry(&format!("install {bundles} --registry {target} --out out {TRUST}"))
    }

    /// `one.tar` with `app:1`, and `two.tar` with `app:2`, which leaves to the first what that has.
    fn two(&self) {
        self.bundle(&["shop/app:1"], "one.tar", "");
        self.bundle(&["shop/app:2"], "two.tar", &format!("--have one.tar {TRUST}"));
    }

    /// `file` with one bit of the bytes of a blob changed.
    fn damage(&self, file: &str, blob: &[u8], to: &str) {
        let mut bytes = self.site.bytes(file);
        let at = bytes.windows(blob.len()).rposition(|window| window == blob).expect("the blob is there");
        bytes[at + blob.len() / 2] ^= 1;
        self.site.write(to, bytes);
    }
}

fn layer(image: &Image, at: usize) -> &Layer {
    &image.single.as_ref().unwrap().layers[at]
}

#[test]
fn nothing_of_the_base_is_sent_again_and_it_is_asked_for_once() {
    require!("docker-registry");
    let shop = Shop::new();
    shop.bundle(&["shop/app:1"], "one.tar", "");
    let target = Registry::start(Access::Plain);
    let line = Proxy::start(target.address(), Line::good());
    let host = format!("{}/team", line.host());
    let _ = shop.install("one.tar", &host).ok();
    shop.bundle(&["shop/app:2", "shop/other:1"], "two.tar", "--have out/receipt.json");
    target.forget_requests();
    let before = line.counts().up;
    let _ = shop.install("two.tar", &host).ok();
    let up = line.counts().up - before;
    assert!(up < SHARED as u64 / 4, "{up} bytes");
    assert!(target.holds("team/shop/app", &app(2)) && target.holds("team/shop/other", &app(3)));
    let requests = target.requests();
    assert_eq!(requests.blobs_stored().len(), 4, "a config and a layer of each: {requests:?}");
    let heads = requests.matching(|r| r.method == "HEAD" && r.path.contains("/blobs/"));
    assert_eq!(heads.len(), 2, "two images need it, it is asked for once, and once more where it stays: {heads:?}");
    let mounts = requests.matching(|r| r.method == "POST" && r.status == 201 && r.path.contains(&shared().digest()));
    assert_eq!(mounts.len(), 1, "it is given to the other: {mounts:?}");
    assert!(mounts.iter().all(|r| r.path.contains("from=team/shop/app") || r.path.contains("from=team%2Fshop%2Fapp")));
}

#[test]
fn what_lies_in_another_repository_is_mounted_from_there() {
    require!("docker-registry");
    let shop = Shop::new();
    shop.bundle(&["shop/app:1"], "one.tar", "");
    shop.bundle(&["shop/other:1"], "two.tar", &format!("--have one.tar {TRUST}"));
    let target = Registry::start(Access::Plain);
    let _ = shop.install("one.tar", &target.host()).ok();
    target.forget_requests();
    let _ = shop.install("two.tar", &target.host()).ok();
    let requests = target.requests();
    let stored = requests.blobs_stored().len();
    let heads: Vec<u16> = requests
        .matching(|r| r.method == "HEAD" && r.path.contains(&format!("/blobs/{}", shared().digest())))
        .iter()
        .map(|r| r.status)
        .collect();
    assert_eq!((stored, heads), (2, vec![404, 200]), "where it is needed, then where it is said to be: {requests:?}");
    assert!(target.holds("shop/other", &app(3)));
    // images that are there need nothing: nobody asks for their blobs
    target.forget_requests();
    let _ = shop.install("two.tar", &target.host()).ok();
    let again = target.requests();
    assert!(again.matching(|r| r.path.contains("/blobs/")).is_empty(), "{again:?}");
}

#[test]
fn each_blob_of_many_is_asked_for_once_in_a_place() {
    require!("docker-registry");
    let layers: Vec<Layer> = (0..12).map(|at| Layer::random(900 + at, 200)).collect();
    let old = Image::single("linux/amd64", Format::Oci, layers.clone());
    let news: Vec<Image> = (0..4)
        .map(|at| {
            Image::single("linux/amd64", Format::Oci, [layers.clone(), vec![Layer::random(990 + at, 100)]].concat())
        })
        .collect();
    let names: Vec<String> = (0..4).map(|at| format!("n{at}/app:2")).collect();
    let mut images: Vec<(&str, &Image)> = names.iter().map(String::as_str).zip(&news).collect();
    images.push(("old/app:1", &old));
    let shop = Shop { source: Registry::filled(Access::Plain, &images), site: Site::new() };
    shop.bundle(&["old/app:1"], "one.tar", "");
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    shop.bundle(&names, "two.tar", &format!("--have one.tar {TRUST}"));
    let target = Registry::start(Access::Plain);
    let _ = shop.install("one.tar", &target.host()).ok();
    target.forget_requests();
    let _ = shop.install("two.tar", &target.host()).ok();
    let requests = target.requests();
    let mut asked: BTreeMap<&str, usize> = BTreeMap::new();
    for head in requests.matching(|r| r.method == "HEAD" && r.path.contains("/blobs/")) {
        *asked.entry(&head.path).or_default() += 1;
    }
    // in the four repositories that need it, then in that which is said to have it
    assert_eq!(asked.len(), 60, "{asked:?}");
    assert!(asked.values().all(|count| *count == 1), "{asked:?}");
    assert_eq!(requests.blobs_stored().len(), 8, "a config and a layer of each");
    for (name, image) in ["n0/app", "n1/app", "n2/app", "n3/app"].iter().zip(&news) {
        assert!(target.holds(name, image), "{name}");
    }
}

#[test]
fn a_base_that_is_not_there_is_named_before_anything_is_pushed() {
    require!("docker-registry");
    let shop = Shop::new();
    shop.two();
    let target = Registry::start(Access::Plain);
    let _ = shop.install("one.tar", &format!("{}/team", target.host())).ok();
    // another prefix is another place
    target.forget_requests();
    let elsewhere = format!("{}/other", target.host());
    let told = shop.install("two.tar --want want.json", &elsewhere).run().expect_code(4);
    told.says(&["shop/app:2", &shared().digest(), "`shop`", "--want", "install", "want.json"]);
    assert!(target.manifest("other/shop/app", "2").is_none());
    assert!(target.requests().blobs_stored().is_empty() && target.requests().manifests_stored().is_empty());
    // what is missing, and nothing else, is brought by a patch
    shop.bundle_patch("want.json", "patch.tar");
    assert!(shop.site.bytes("patch.tar").len() < SHARED + 40_000);
    let _ = shop.install("two.tar patch.tar", &elsewhere).ok();
    assert!(target.holds("other/shop/app", &app(2)));
}

impl Shop {
    fn bundle_patch(&self, want: &str, output: &str) {
        let _ = self.site.ferry(&format!("bundle --patch {want} -o {output} {SIGN}")).ok();
    }
}

#[test]
fn both_in_one_command_in_any_order() {
    require!("docker-registry");
    let shop = Shop::new();
    shop.two();
    for bundles in ["one.tar two.tar", "two.tar one.tar"] {
        let target = Registry::start(Access::Plain);
        let _ = shop.install(bundles, &target.host()).ok();
        assert!(target.holds("shop/app", &app(1)) && target.holds("shop/app", &app(2)), "{bundles}");
        assert_eq!(target.requests().blobs_stored().len(), 5, "{bundles}: each once");
    }
    let told = shop.site.ferry(&format!("install two.tar one.tar --store shelf {TRUST}")).ok();
    assert!(told.stderr.contains("2 images pushed"), "{}", told.stderr);
    let receipt: serde_json::Value = serde_json::from_str(&shop.site.read("out/receipt.json")).unwrap();
    assert_eq!(receipt["bundles"].as_array().unwrap().len(), 2);
}

#[test]
fn with_tokens_for_each_repository_it_is_the_same() {
    require!("docker-registry");
    let shop = Shop::new();
    shop.bundle(&["shop/app:1"], "one.tar", "");
    shop.bundle(&["shop/other:1"], "two.tar", &format!("--have one.tar {TRUST}"));
    let target = Registry::start(Access::Token);
    let docker = shop.site.login(&target.host(), USER, PASSWORD);
    for bundle in ["one.tar", "two.tar"] {
        target.forget_requests();
        let _ = shop.install(bundle, &target.host()).env("DOCKER_CONFIG", &docker).ok();
    }
    let requests = target.requests();
    assert_eq!(requests.blobs_stored().len(), 2, "{requests:?}");
    assert_eq!(requests.blobs_sent().len(), 0, "it is mounted, not fetched: {requests:?}");
    let refused = requests.matching(|r| matches!(r.status, 401 | 403) && r.path != "/v2/");
    assert!(refused.len() <= 2, "a token is asked for once in each repository: {refused:?}");
}

#[test]
fn a_registry_that_mounts_nothing_gets_the_blob_from_itself() {
    require!("docker-registry");
    let shop = Shop::new();
    shop.bundle(&["shop/app:1"], "one.tar", "");
    shop.bundle(&["shop/other:1"], "two.tar", &format!("--have one.tar {TRUST}"));
    let target =
        FaultyRegistry::holding(&[("shop/app:1", &app(1))]).start([Rule::always("POST", What::Upload, Fault::NoMount)]);
    let _ = shop.install("two.tar", &target.host()).ok();
    assert!(target.holds("shop/other", &app(3)));
    let fetched = target.count(|seen| seen.method == "GET" && seen.path.contains(&shared().digest()));
    assert_eq!(fetched, 1, "{:?}", target.seen());
    // where it is already, nothing is fetched and nothing sent
    shop.bundle(&["shop/app:2"], "same.tar", &format!("--have one.tar {TRUST}"));
    let target =
        FaultyRegistry::holding(&[("shop/app:1", &app(1))]).start([Rule::always("POST", What::Upload, Fault::NoMount)]);
    let _ = shop.install("same.tar", &target.host()).ok();
    assert!(target.holds("shop/app", &app(2)));
    let moved = target.count(|seen| seen.method != "HEAD" && seen.path.contains(&shared().digest()));
    assert_eq!(moved, 0, "{:?}", target.seen());
}

#[test]
fn a_blob_that_was_tidied_away_in_between_is_told_and_no_tag_is_set() {
    require!("docker-registry");
    let shop = Shop::new();
    shop.two();
    shop.bundle(&["shop/other:1"], "other.tar", &format!("--have one.tar {TRUST}"));
    let gone = || {
        Fault::Answer(Reply::new(404, "application/json", r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"gone"}]}"#))
    };
    // in the repository that needs it, where it is asked for once more; and in another, from where it would be fetched
    for (bundle, repository, tag, rule) in [
        ("two.tar", "shop/app", "2", Rule::always("HEAD", What::Layer, gone()).from(2)),
        ("other.tar", "shop/other", "1", Rule::always("GET", What::Layer, gone())),
    ] {
        let target = FaultyRegistry::holding(&[("shop/app:1", &app(1))])
            .start([Rule::always("POST", What::Upload, Fault::NoMount), rule.of("blobs/")]);
        let told = shop.install(bundle, &target.host()).run().expect_code(4);
        told.says(&[&format!("{repository}:{tag}"), &shared().digest(), "is gone"]);
        assert!(target.manifest(repository, tag).is_none(), "{bundle}");
    }
}

#[test]
fn strangers_that_differ_are_refused_with_both_names() {
    require!("docker-registry");
    let shop = Shop::new();
    shop.bundle(&["shop/app:1"], "one.tar", "");
    shop.source.push("shop/app:1", &app(9));
    shop.bundle(&["shop/app:1"], "nine.tar", "");
    let target = Registry::start(Access::Plain);
    let _ =
        shop.install("one.tar nine.tar", &target.host()).run().expect_code(7).says(&["one.tar", "nine.tar", "app:1"]);
    assert!(target.repositories().is_empty());
    // the newer one counts, whatever the order
    shop.bundle(&["shop/app:1"], "nine.tar", &format!("--have one.tar {TRUST}"));
    for bundles in ["one.tar nine.tar", "nine.tar one.tar"] {
        let target = Registry::start(Access::Plain);
        let _ = shop.install(bundles, &target.host()).ok().says(&["nine.tar", "newer"]);
        assert!(target.holds("shop/app", &app(9)), "{bundles}");
        assert_eq!(target.manifest("shop/app", "1").as_deref(), app(9).manifest(app(9).digest()), "{bundles}");
    }
}

#[test]
fn a_signature_that_does_not_hold_stops_all_of_them() {
    require!("docker-registry");
    let shop = Shop::new();
    shop.two();
    let _ = shop.site.ferry("keygen --out other --no-password").ok();
    let target = Registry::start(Access::Plain);
    let command = format!("install one.tar two.tar --registry {} --key other/ferry.pub", target.host());
    let _ = shop.site.ferry(&command).run().expect_code(3);
    let mut bytes = shop.site.bytes("two.tar");
    bytes[600] ^= 1;
    shop.site.write("two.tar", bytes);
    let _ = shop.install("one.tar two.tar", &target.host()).run().expect_code(3).says(&["two.tar"]);
    assert!(target.requests().0.is_empty(), "nothing was asked");
}

#[test]
fn a_damaged_bundle_and_what_mends_it_are_a_whole_one() {
    require!("docker-registry");
    let shop = Shop::new();
    shop.bundle(&["shop/app:1", "shop/other:1"], "whole.tar", "");
    let (app1, app3) = (app(1), app(3));
    shop.damage("whole.tar", &layer(&app1, 1).stored, "broken.tar");
    shop.damage("whole.tar", &shared().stored, "copy.tar");
    let target = Registry::start(Access::Plain);
    let told = shop.install("broken.tar", &target.host()).run().expect_code(3);
    told.says(&["app:1", "`ferry verify broken.tar --want want.json` lists what a small patch must bring"]);
    assert!(target.manifest("shop/app", "1").is_none());
    // what is no damage has no such hint
    let told = shop.install("whole.tar --expect shp", &target.host()).run().expect_code(3);
    told.says(&["`whole.tar` is bundle `shop`, and `shp` is expected", "did you mean `--expect shop`?"]);
    assert!(!told.stderr.contains("patch"), "{}", told.stderr);
    // cut behind its front: the last layer is missing, and the end
    let whole = shop.site.bytes("whole.tar");
    shop.site.write("cut.tar", &whole[..whole.len() - 4000]);
    let _ = shop.install("cut.tar", &target.host()).run().expect_code(3);
    for pair in ["broken.tar copy.tar", "copy.tar broken.tar", "cut.tar broken.tar", "copy.tar cut.tar"] {
        let target = Registry::start(Access::Plain);
        let _ = shop.install(pair, &target.host()).ok().says(&["cannot be had whole from"]);
        assert!(target.holds("shop/app", &app1) && target.holds("shop/other", &app3), "{pair}");
    }
    // what neither has
    let _ = shop.install("broken.tar broken.tar", &target.host()).run().expect_code(3);
    assert!(target.manifest("shop/app", "1").is_none());
}

#[test]
fn what_verify_wants_is_brought_by_a_patch() {
    require!("docker-registry");
    let shop = Shop::new();
    shop.bundle(&["shop/app:1", "shop/other:1"], "whole.tar", "");
    shop.damage("whole.tar", &layer(&app(1), 1).stored, "broken.tar");
    std::os::unix::fs::symlink("broken.tar", shop.site.at("list.json")).unwrap();
    let replaced = shop.site.ferry(&format!("verify broken.tar --want list.json {TRUST}")).run().expect_code(2);
    replaced.says(&["list.json", "would replace `broken.tar`"]);
    let _ = shop.site.ferry(&format!("verify broken.tar --want want.json {TRUST}")).run().expect_code(3);
    shop.bundle_patch("want.json", "patch.tar");
    for pair in ["broken.tar patch.tar", "patch.tar broken.tar"] {
        let target = Registry::start(Access::Plain);
        let told = shop.install(pair, &target.host()).ok();
        told.says(&["note: 1 blob (", "came from `patch.tar` instead of `broken.tar`"]);
        assert!(target.holds("shop/app", &app(1)) && target.holds("shop/other", &app(3)), "{pair}");
        assert!(target.manifest("shop/other", "1").is_some(), "{pair}: what the patch does not have, too");
        assert_eq!(target.requests().blobs_stored().len(), 5, "{pair}");
    }
    // a whole volume is missing, with the layer that all share
    shop.bundle(&["shop/app:1", "shop/other:1"], "split.tar", "--volume-size 100K");
    std::fs::remove_file(shop.site.at("split.tar.002")).unwrap();
    let _ = shop.site.ferry(&format!("verify split.tar --want want.json {TRUST}")).run().expect_code(4);
    shop.bundle_patch("want.json", "patch.tar");
    let target = Registry::start(Access::Plain);
    let _ = shop.install("split.tar", &target.host()).run().expect_code(4).says(&["split.tar.002"]);
    let _ = shop.install("split.tar patch.tar", &target.host()).ok().says(&["split.tar.002"]);
    assert!(target.holds("shop/app", &app(1)) && target.holds("shop/other", &app(3)));
}

#[test]
fn volumes_are_one_bundle_wherever_they_are_and_whenever_they_come() {
    require!("docker-registry");
    let shop = Shop::new();
    shop.bundle(&["shop/app:1"], "v.tar", "--volume-size 100K");
    let target = Registry::start(Access::Plain);
    shop.site.write("b/x", "");
    std::fs::rename(shop.site.at("v.tar.002"), shop.site.at("b/v.tar.002")).unwrap();
    let _ = shop.install("v.tar.001 b/v.tar.002", &target.host()).ok();
    assert!(target.holds("shop/app", &app(1)));
    let target = Registry::start(Access::Plain);
    let mut waiting = shop.install("v.tar --wait-for-volume=60", &target.host()).start();
    waiting.until("the target was asked", || !target.requests().0.is_empty());
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(target.manifest("shop/app", "1").is_none());
    std::fs::rename(shop.site.at("b/v.tar.002"), shop.site.at("v.tar.002")).unwrap();
    let _ = waiting.wait().expect_code(0);
    assert!(target.holds("shop/app", &app(1)));
    let (host, _serving) = shop.site.serve(&format!("v.tar {TRUST}"));
    let got =
        Endpoint::plain(&host).send("GET", &format!("/v2/shop/app/blobs/{}", shared().digest()), &[], &[]).unwrap();
    assert!(got.body == *shared().stored);
}

#[test]
fn a_delta_is_served_with_its_base_and_refused_without() {
    require!("docker-registry");
    let shop = Shop::new();
    shop.two();
    let refused = shop.site.ferry(&format!("serve two.tar --listen 127.0.0.1:0 {TRUST}")).run().expect_code(4);
    refused.says(&["shop/app:2", &shared().digest(), "only `shop` has", "ferry serve"]);
    let (host, _serving) = shop.site.serve(&format!("two.tar one.tar {TRUST}"));
    let endpoint = Endpoint::plain(&host);
    for image in [app(1), app(2)] {
        for (digest, bytes) in &image.blobs {
            let got = endpoint.send("GET", &format!("/v2/shop/app/blobs/{digest}"), &[], &[]).unwrap();
            assert!(got.status == 200 && got.body == **bytes, "{digest}");
        }
    }
    shop.site.write("pod.yaml", format!("image: {}/shop/app:2\n", shop.source.host()));
    let rewritten =
        shop.site.ferry(&format!("rewrite pod.yaml --bundle two.tar --registry reg.local:5000 {TRUST}")).ok();
    assert_eq!(rewritten.stdout, "image: reg.local:5000/shop/app:2\n");
}

#[test]
fn a_pipe_is_installed_in_one_pass() {
    require!("docker-registry");
    let shop = Shop::new();
    shop.bundle(&["shop/app:1", "shop/other:1"], "b.tar", "");
    let (file, target) = (shop.site.at("b.tar"), Registry::start(Access::Plain));
    let _ = shop.install("-", &target.host()).stdin(&file).ok().says(&["2 images pushed"]);
    assert!(target.holds("shop/app", &app(1)) && target.holds("shop/other", &app(3)));
    assert_eq!(target.requests().blobs_stored().len(), 5, "each once");
    target.forget_requests();
    let _ = shop.install("-", &target.host()).stdin(&file).ok().says(&["0 images pushed"]);
    assert!(target.requests().uploads().is_empty());

    // no end, no tag; with a bit changed neither
    let whole = shop.site.bytes("b.tar");
    shop.site.write("cut.tar", &whole[..whole.len() - 1024]);
    shop.site.write("longer.tar", [&whole[..], &[0; 512]].concat());
    shop.damage("b.tar", &layer(&app(3), 1).stored, "broken.tar");
    for bad in ["cut.tar", "longer.tar", "broken.tar"] {
        for options in ["", "--spool ."] {
            let target = Registry::start(Access::Plain);
            let command = format!("- {options}");
            let _ = shop.install(&command, &target.host()).stdin(&shop.site.at(bad)).run().expect_code(3);
            assert!(target.manifest("shop/app", "1").is_none(), "{bad} {options}");
            assert!(target.manifest("shop/other", "1").is_none(), "{bad} {options}");
        }
    }
    let names = shop.site.names();
    assert!(!names.iter().any(|name| name.contains("spool")), "{names:?}");

    // what goes on after its end is not written down to its end
    ferry_tests::tools::succeed("mkfifo", &[shop.site.at("pipe").to_str().unwrap()]);
    let endless = "(cat b.tar; head -c 64000000 /dev/zero && touch all) >pipe 2>/dev/null";
    let mut writer =
        std::process::Command::new("sh").args(["-c", endless]).current_dir(shop.site.at(".")).spawn().unwrap();
    let target = Registry::start(Access::Plain);
    let _ = shop.install("- --spool .", &target.host()).stdin(&shop.site.at("pipe")).run().expect_code(3);
    let _ = writer.wait().unwrap();
    assert!(!shop.site.at("all").exists(), "64 MB after the end of a small bundle were taken");
}

#[test]
fn an_upload_out_of_a_pipe_that_fails_is_told_and_the_next_run_sends_the_rest() {
    require!("docker-registry");
    let shop = Shop::new();
    shop.bundle(&["shop/app:1", "shop/other:1"], "b.tar", "");
    let file = shop.site.at("b.tar");
    let digest = shared().digest();
    let hex = digest.trim_start_matches("sha256:");
    let plan = || [Rule::once("PUT", What::Session, Fault::DropRequest(100_000)).of(hex)];
    let target = FaultyRegistry::holding(&[]).start(plan());
    let told = shop.install("-", &target.host()).stdin(&file).run().expect_code(5);
    told.says(&["cannot be read again", "--spool"]);
    assert!(target.manifest("shop/app", "1").is_none() && target.manifest("shop/other", "1").is_none());
    let sent = |seen: &ferry_tests::registry::faulty::Seen| {
        seen.method == "PUT" && seen.path.contains("digest=") && seen.status == 201
    };
    let first = target.count(sent);
    assert!(first >= 3, "the others are there: {:?}", target.seen());
    let _ = shop.install("-", &target.host()).stdin(&file).ok();
    assert_eq!(target.count(sent), 5, "only the rest was sent");
    assert!(target.holds("shop/app", &app(1)) && target.holds("shop/other", &app(3)));
    // what is kept in a file can be read again
    let target = FaultyRegistry::holding(&[]).start(plan());
    let _ = shop.install("- --spool .", &target.host()).stdin(&file).ok();
    assert!(target.holds("shop/app", &app(1)));
}

#[test]
fn a_target_that_takes_nothing_ends_the_pipe() {
    require!("docker-registry");
    let layers = (0..8).map(|seed| Layer::random(50 + seed, 200_000)).collect();
    let image = Image::single("linux/amd64", Format::Oci, layers);
    let shop = Shop { source: Registry::filled(Access::Plain, &[("app/many:1", &image)]), site: Site::new() };
    shop.bundle(&["app/many:1"], "b.tar", "");
    let target = FaultyRegistry::holding(&[]).start([Rule::always("PUT", What::Session, Fault::DropRequest(1000))]);
    let told = shop.install("- --jobs 1", &target.host()).stdin(&shop.site.at("b.tar")).run().expect_code(5);
    told.says(&["app/many:1", "cannot be read again"]);
    let tried = target.count(|seen| seen.method == "PUT" && seen.path.contains("digest="));
    assert!(tried < 8 * 2, "three failures are enough: {tried}");
    assert!(target.manifest("app/many", "1").is_none());
}

#[test]
fn memory_stays_flat_while_a_pipe_is_installed() {
    require!("docker-registry");
    let Some(time) = tools::find("time") else {
        return tools::skip("memory_stays_flat_while_a_pipe_is_installed: needs time");
    };
    let huge = Image::single("linux/amd64", Format::Oci, vec![Layer::random(1, 150_000_000)]);
    let shop = Shop { source: Registry::filled(Access::Plain, &[("app/huge:1", &huge)]), site: Site::new() };
    shop.bundle(&["app/huge:1"], "b.tar", "");
    let target = Registry::start(Access::Plain);
    let mut cat = Command::new("cat").arg(shop.site.at("b.tar")).stdout(Stdio::piped()).spawn().unwrap();
    let output = Command::new(time)
        .args(["-f", "%M", "-o"])
        .arg(shop.site.at("peak"))
        .arg(ferry_tests::ferry::binary())
        .args(["install", "-", "--key", "ferry.pub", "--registry", &target.host()])
        .current_dir(shop.site.path())
        .env("HOME", shop.site.path())
        .stdin(cat.stdout.take().unwrap())
        .output()
        .unwrap();
    let _ = cat.wait();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(target.holds("app/huge", &huge));
    let kilobytes: u64 = shop.site.read("peak").trim().parse().unwrap();
    ferry_tests::numbers::tell("install out of a pipe: memory", kilobytes as f64 / 1024.0, "MiB");
    assert!(kilobytes < 80 << 10, "{kilobytes} kB");
}
