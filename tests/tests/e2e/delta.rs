//! The second crossing, on the connected side: what is left out of a delta, and what a patch holds.

use std::collections::BTreeSet;

use ferry_tests::cosign;
use ferry_tests::http::Reply;
use ferry_tests::images::docker_save::{Wrap, write_old};
use ferry_tests::images::{Format, Image, Layer};
use ferry_tests::registry::{Access, Front, Registry};
use ferry_tests::site::Site;
use ferry_tests::{require, tools};
use serde_json::{Value, json};

use crate::{FOR, SIGN, TRUST, small, two_platforms};

/// The layer that all versions share, the largest by far.
fn shared() -> Layer {
    Layer::random(500, 400_000)
}

/// A version of the app: the shared layer and one of its own.
fn app(version: u64) -> Image {
    Image::single("linux/amd64", Format::Oci, vec![shared(), Layer::random(600 + version, 2000)])
}

/// `ferry.json` of a bundle, as anybody reads it.
fn head(site: &Site, bundle: &str) -> Value {
    let text = tools::succeed("tar", &["xOf", &site.at(bundle).display().to_string(), "ferry.json"]);
    serde_json::from_str(&text).unwrap()
}

fn digests(list: &Value) -> BTreeSet<String> {
    list.as_array().into_iter().flatten().map(|entry| entry["digest"].as_str().unwrap().to_owned()).collect()
}

/// The blobs that stand in the file, by the tar's own list.
fn members(site: &Site, bundle: &str) -> BTreeSet<String> {
    let list = tools::succeed("tar", &["tf", &site.at(bundle).display().to_string()]);
    list.lines().filter_map(|name| name.strip_prefix("blobs/sha256/")).map(|hex| format!("sha256:{hex}")).collect()
}

fn size(site: &Site, file: &str) -> u64 {
    std::fs::metadata(site.at(file)).unwrap().len()
}

/// A source with two versions of the app, of which the first was bundled (`one.tar`, with `one.lock`) and installed (`out/receipt.json`).
struct Crossed {
    source: Registry,
    target: Registry,
    site: Site,
}

impl Crossed {
    fn new() -> Self {
        let source = Registry::filled(Access::Plain, &[("shop/app:1", &app(1)), ("shop/app:2", &app(2))]);
        let (target, site) = (Registry::start(Access::Plain), Site::new());
        let crossed = Self { source, target, site };
        let _ = crossed.bundle("shop/app:1", "one.tar", "--lock one.lock").ok();
        let (site, host) = (&crossed.site, crossed.target.host());
        let _ = site.ferry(&format!("install one.tar --registry {host}/team --out out {TRUST}")).ok();
        crossed
    }

    fn bundle(&self, name: &str, output: &str, options: &str) -> ferry_tests::ferry::Ferry {
        let reference = format!("{}/{name}", self.source.host());
        self.site.ferry(&format!("bundle {reference} {FOR} --name shop -o {output} {SIGN} {options}"))
    }
}

#[test]
fn what_the_far_side_has_is_left_out_whatever_says_so() {
    require!("docker-registry");
    let crossed = Crossed::new();
    let (site, new) = (&crossed.site, app(2));
    let _ = crossed.bundle("shop/app:2", "whole.tar", "").ok();
    for (base, options) in [
        ("out/receipt.json", "--have out/receipt.json".to_owned()),
        ("one.tar", format!("--have one.tar {TRUST}")),
        ("one.lock", "--have one.lock".to_owned()),
    ] {
        crossed.source.forget_requests();
        let plan = crossed.bundle("shop/app:2", "two.tar", &format!("{options} --dry-run --json")).ok().json();
        assert_eq!(
            plan["leftOut"],
            json!({"count": 1, "bytes": 400_000 + plan_overhead(), "images": 1}),
            "{base}: {plan}"
        );
        let told = crossed.bundle("shop/app:2", "two.tar", &format!("{options} --dry-run")).ok().stdout;
        assert!(told.contains("LEFT OUT") && told.contains("left out: 1 blob"), "{told}");
        let told = crossed.bundle("shop/app:2", "two.tar", &options).ok();
        told.says(&["left out: 1 blob of 1 image, 4", " kB, which are said to be there by"]);
        let head = head(site, "two.tar");
        assert_eq!(digests(&head["relies"]), [shared().digest()].into(), "{base}");
        assert_eq!(head["relies"][0]["repositories"], json!(["shop/app"]), "{base}");
        assert_eq!(head["bases"][0]["name"], if base == "one.lock" { "one" } else { "shop" }, "{base}");
        let there = members(site, "two.tar");
        assert!(!there.contains(&shared().digest()) && there.contains(new.digest()), "{base}");
        assert_eq!(there, digests(&head["blobs"]), "{base}");
        let requests = crossed.source.requests();
        let sent = requests.blobs_sent();
        assert!(
            !sent.iter().any(|r| r.path.contains(&shared().digest())),
            "{base}: it is not fetched either: {sent:?}"
        );
        assert!(size(site, "two.tar") + 400_000 <= size(site, "whole.tar"), "{base}");
        let _ = site.ferry(&format!("verify two.tar {TRUST}")).ok();
        let shown = site.ferry(&format!("inspect two.tar --json {TRUST}")).ok().json();
        assert_eq!((&shown["bases"], &shown["relies"]["count"]), (&head["bases"], &json!(1)), "{base}");
    }
    // the same image again: manifests and nothing else
    let _ = crossed.bundle("shop/app:1", "same.tar", "--have out/receipt.json").ok();
    assert_eq!(members(site, "same.tar"), [app(1).digest().to_owned()].into());
}

/// What a layer of random bytes has beside them: headers of tar and gzip.
fn plan_overhead() -> u64 {
    let of = app(1);
    let manifest: Value = serde_json::from_slice(of.manifest(of.digest()).unwrap()).unwrap();
    manifest["layers"][0]["size"].as_u64().unwrap() - 400_000
}

#[test]
fn the_second_crossing_sends_what_is_new() {
    require!("docker-registry");
    let crossed = Crossed::new();
    let (site, target) = (&crossed.site, &crossed.target);
    let install = format!("--registry {}/team {TRUST}", target.host());
    let mut receipt = "out/receipt.json".to_owned();
    // twice: what the second receipt says is from a delta
    for version in [2, 3] {
        crossed.source.push(&format!("shop/app:{version}"), &app(version));
        let _ = crossed.bundle(&format!("shop/app:{version}"), "next.tar", &format!("--have {receipt}")).ok();
        target.forget_requests();
        let _ = site.ferry(&format!("install next.tar {install} --out out{version}")).ok();
        assert!(target.holds("team/shop/app", &app(version)), "version {version}");
        let requests = target.requests();
        let sent: Vec<&str> = requests.blobs_stored().iter().map(|r| r.path.as_str()).collect();
        assert!(sent.len() <= 2 && !sent.iter().any(|path| path.contains(&shared().digest()[7..])), "{sent:?}");
        receipt = format!("out{version}/receipt.json");
        let held: Value = serde_json::from_str(&site.read(&receipt)).unwrap();
        assert!(digests(&held["repositories"][0]["blobs"]).contains(&shared().digest()), "{held}");
    }
}

#[test]
fn a_patch_mends_a_damaged_bundle() {
    require!("docker-registry");
    let crossed = Crossed::new();
    let (site, target) = (&crossed.site, Registry::start(Access::Plain));
    let layer = shared().digest();
    let blob = crossed.source.blob("shop/app", &layer).unwrap();
    let mut bytes = site.bytes("one.tar");
    let at = bytes.windows(64).position(|window| *window == blob[1000..1064]).unwrap();
    bytes[at] ^= 1;
    site.write("damaged.tar", bytes);
    let _ = site.ferry(&format!("verify damaged.tar --want want.json {TRUST}")).run().expect_code(3);
    let found: Value = serde_json::from_str(&site.read("want.json")).unwrap();
    assert_eq!(digests(&found["blobs"]), [layer.clone()].into());
    let _ = site.ferry(&format!("bundle --patch want.json -o patch.tar {SIGN}")).ok();
    assert_eq!(members(site, "patch.tar"), [app(1).digest().to_owned(), layer].into());
    let install = format!("install damaged.tar patch.tar --registry {} {TRUST}", target.host());
    let _ = site.ferry(&install).ok();
    assert!(target.holds("shop/app", &app(1)));
}

#[test]
fn the_same_bases_give_the_same_bytes() {
    require!("docker-registry");
    let crossed = Crossed::new();
    let options = format!("--have out/receipt.json --have one.tar --have one.lock {TRUST}");
    let _ = crossed.bundle("shop/app:2", "a.tar", &format!("{options} --jobs 1")).ok();
    let _ = crossed.bundle("shop/app:2", "b.tar", &format!("{options} --jobs 16")).ok();
    assert!(crossed.site.bytes("a.tar") == crossed.site.bytes("b.tar"));
    // a receipt and its bundle are one base
    let head = head(&crossed.site, "a.tar");
    assert_eq!(head["bases"].as_array().unwrap().len(), 2, "{head}");
}

#[test]
fn a_base_may_be_volumes_in_several_folders() {
    require!("docker-registry");
    let crossed = Crossed::new();
    let site = &crossed.site;
    let _ = crossed.bundle("shop/app:1", "cut.tar", "--volume-size 150KB").ok();
    let parts: Vec<String> = site.names().into_iter().filter(|n| n.starts_with("cut.tar.00")).collect();
    assert_eq!(parts.len(), 3, "{:?}", site.names());
    let _ = crossed.bundle("shop/app:2", "a.tar", &format!("--have cut.tar {TRUST}")).ok();
    let over = crossed.bundle("shop/app:2", "cut.tar", &format!("--have cut.tar.003 --volume-size 9MB {TRUST}")).run();
    over.expect_code(2).says(&["cut.tar.001", "which the bundle is made from"]);
    site.write("usb/cut.tar.002", site.bytes("cut.tar.002"));
    std::fs::remove_file(site.at("cut.tar.002")).unwrap();
    let options = format!("--have cut.tar.001 --have one.lock --have usb/cut.tar.002 {TRUST}");
    let _ = crossed.bundle("shop/app:2", "b.tar", &options).ok();
    for (bundle, bases) in [("a.tar", 1), ("b.tar", 2)] {
        let head = head(site, bundle);
        assert_eq!(digests(&head["relies"]), [shared().digest()].into(), "{bundle}");
        assert_eq!(head["bases"].as_array().unwrap().len(), bases, "{bundle}");
    }
    let told = crossed.bundle("shop/app:2", "c.tar", &format!("--have cut.tar.001 {TRUST}")).run().expect_code(4);
    told.says(&["cut.tar.002"]);
}

#[test]
fn a_delta_is_a_base_with_all_that_it_relies_on() {
    require!("docker-registry");
    let crossed = Crossed::new();
    crossed.source.push("shop/app:3", &app(3));
    let _ = crossed.bundle("shop/app:2", "two.tar", "--have out/receipt.json").ok();
    let _ = crossed.bundle("shop/app:3", "three.tar", &format!("--have two.tar {TRUST}")).ok();
    let head = head(&crossed.site, "three.tar");
    assert_eq!(digests(&head["relies"]), [shared().digest()].into());
    assert_eq!(head["relies"][0]["repositories"], json!(["shop/app"]));
}

#[test]
fn what_stayed_as_it_was_at_the_target_is_not_had() {
    require!("docker-registry");
    let crossed = Crossed::new();
    let (site, host) = (&crossed.site, crossed.target.host());
    crossed.target.push("other/shop/app:1", &small(50));
    let install = format!("install one.tar --registry {host}/other --out skipped --on-existing skip {TRUST}");
    let _ = site.ferry(&install).ok();
    let _ = crossed.bundle("shop/app:2", "two.tar", "--have skipped/receipt.json").ok();
    assert_eq!(head(site, "two.tar")["relies"], Value::Null);
    assert!(members(site, "two.tar").contains(&shared().digest()));
}

#[test]
fn what_a_lock_does_not_tell_is_carried_with_a_note() {
    require!("docker-registry");
    let crossed = Crossed::new();
    let site = &crossed.site;
    // as when the source has forgotten the old image
    let lock = site.read("one.lock").replace(app(1).digest(), &format!("sha256:{}", "ab".repeat(32)));
    site.write("old.lock", lock);
    let told = crossed.bundle("shop/app:2", "two.tar", "--have old.lock").ok();
    told.says(&["warning: old.lock: not all that", "shop/app:1", "is carried"]);
    assert!(members(site, "two.tar").contains(&shared().digest()));
    // an archive's layers are known by what became of them
    write_old(&site.at("saved.tar"), &[(&["vendor/saved:1"], &app(7))], Wrap::Plain);
    let images = "images:\n- {image: \"vendor/saved:1\", archive: saved.tar}\n";
    site.write("m.yaml", format!("name: m\nplatforms: [linux/amd64]\n{images}"));
    let _ = site.ferry(&format!("bundle m.yaml -o m.tar --lock m.lock {SIGN}")).ok();
    let _ = site.ferry(&format!("bundle m.yaml -o again.tar --have m.lock {SIGN}")).ok();
    let head = head(site, "again.tar");
    assert_eq!(head["relies"].as_array().unwrap().len(), 3, "a config and two layers: {head}");
}

#[test]
fn bases_that_cannot_be_used_are_told_at_once_and_together() {
    require!("docker-registry");
    let crossed = Crossed::new();
    let site = &crossed.site;
    site.write("broken.json", r#"{"version": 9, "target": "x", "images": [], "repositories": []}"#);
    site.write("other.json", r#"{"a": 1}"#);
    crossed.source.forget_requests();
    let have = "--have out/relocation.json --have broken.json --have other.json --have gone.json";
    let told = crossed.bundle("shop/app:2", "two.tar", have).run().expect_code(6);
    told.says(&["relocation.json` is a relocation", "ferry inventory --from", "broken.json", "version is 9"]);
    told.says(&["other.json` is neither a receipt, nor a bundle, nor a lock", "gone.json"]);
    site.write("shop.yaml", "name: shop\n");
    let told = crossed.bundle("shop/app:2", "two.tar", "--have shop.yaml").run().expect_code(2);
    told.says(&["shop.yaml` is neither", "`ferry install` left as `receipt.json`"]);
    assert!(crossed.source.requests().matching(|r| r.path != "/v2/").is_empty(), "before anything is asked");
    let _ = crossed.bundle("shop/app:2", "two.tar", "--have one.tar").run().expect_code(2).says(&["no public key"]);
    let _ = site.ferry("keygen --out others --no-password").ok();
    let _ = crossed.bundle("shop/app:2", "two.tar", "--have one.tar --key others/ferry.pub").run().expect_code(3);
    let _ = crossed.bundle("shop/app:2", "two.tar", "--have one.tar --allow-unsigned").ok();
    let _ = crossed.bundle("shop/app:2", "out/receipt.json", "--have out/receipt.json").run().expect_code(2);
}

#[test]
fn an_inventory_is_a_base() {
    require!("docker-registry");
    let crossed = Crossed::new();
    let (site, target) = (&crossed.site, &crossed.target);
    target.push("else/where:1", &small(3));
    let index = two_platforms(Format::Oci, 9);
    target.push("team/tools/many:1", &index);
    let host = target.host();
    let told = site.ferry(&format!("inventory --registry {host}/team -o inv.json")).ok();
    told.says(&["2 repositories", "2 images"]);
    let receipt: Value = serde_json::from_str(&site.read("inv.json")).unwrap();
    assert_eq!((&receipt["version"], &receipt["bundles"]), (&json!(2), &json!([])));
    let names: Vec<&str> =
        receipt["images"].as_array().unwrap().iter().map(|i| i["reference"].as_str().unwrap()).collect();
    assert_eq!(names, [format!("{host}/team/shop/app:1"), format!("{host}/team/tools/many:1")]);
    let held = digests(&receipt["repositories"][1]["blobs"]);
    assert_eq!(held.len(), 3 + 2 + 3, "an index with all below it: {receipt}");
    let of_install: Value = serde_json::from_str(&site.read("out/receipt.json")).unwrap();
    assert_eq!(receipt["repositories"][0], of_install["repositories"][0]);
    let _ = crossed.bundle("shop/app:2", "two.tar", "--have inv.json").ok();
    let head = head(site, "two.tar");
    assert_eq!(digests(&head["relies"]), [shared().digest()].into());
    assert_eq!(head["bases"][0], json!({"name": format!("{host}/team")}));

    // by an install's own names
    let _ = site.ferry(&format!("inventory --registry {host}/team --from out/relocation.json -o from.json")).ok();
    let from: Value = serde_json::from_str(&site.read("from.json")).unwrap();
    assert_eq!((&from["images"], &from["repositories"]), (&of_install["images"], &of_install["repositories"]));
    let _ = site.ferry(&format!("inventory --registry {host}/team shop/app -o named.json")).ok();
    assert_eq!(serde_json::from_str::<Value>(&site.read("named.json")).unwrap()["repositories"], from["repositories"]);
    let _ = site.ferry(&format!("install one.tar --store shelf {TRUST}")).ok();
    let _ = site.ferry("inventory --store shelf -o shelf.json").ok().says(&["1 repository, 1 image"]);
    // the name that stands for the store is no bundle, and the store that was not filled is none
    let _ = crossed.bundle("shop/app:2", "three.tar", "--have shelf.json").ok();
    let told = site.ferry(&format!("install three.tar --store fresh {TRUST}")).run().expect_code(4);
    told.says(&["the inventory of `localhost:5000` lists it", "was built on an inventory of `localhost:5000`"]);
    assert!(!told.stderr.contains("install `localhost:5000`") && !site.at("fresh").exists(), "{}", told.stderr);
    let _ = site.ferry(&format!("install three.tar --store shelf {TRUST}")).ok();
}

#[test]
fn half_an_inventory_is_not_written() {
    require!("docker-registry");
    let crossed = Crossed::new();
    let (site, host) = (&crossed.site, crossed.target.host());
    site.write("inv.json", "as it was");
    let missing = format!("inventory --registry {host}/team shop/app no/such also/gone -o inv.json");
    let _ = site.ferry(&missing).run().expect_code(4).says(&["team/no/such", "team/also/gone"]);
    let elsewhere = format!("inventory --registry {host}/other --from out/receipt.json -o inv.json");
    let _ = site.ferry(&elsewhere).run().expect_code(2).says(&["is of", "/team", "/other"]);
    let without = Front::start(|request, _| {
        let status = match &request.path {
            path if path.contains("_catalog") => 404,
            path if path.contains("/manifests/2") => 403,
            _ => return None,
        };
        Some(Reply::new(status, "application/json", "{}"))
    });
    without.registry().push("a/b:1", &small(1));
    without.registry().push("c/d:2", &small(2));
    let ask = format!("inventory --registry {} -o inv.json", without.host());
    let told = site.ferry(&ask).run().expect_code(5);
    told.says(&["does not list its repositories", "name the repositories", "--from receipt.json"]);
    let _ = site.ferry(&format!("{ask} a/b c/d")).run().expect_code(5).says(&["c/d:2"]);
    assert_eq!(site.read("inv.json"), "as it was");
    let _ = site.ferry(&format!("{ask} a/b")).ok();
    assert!(site.read("inv.json").contains("/a/b:1"));
}

#[test]
fn what_differs_is_told() {
    require!("docker-registry");
    let crossed = Crossed::new();
    let (site, host) = (&crossed.site, crossed.source.host());
    let list = format!("bundle {host}/shop/app:1 {host}/shop/app:2 {FOR} --name shop -o both.tar {SIGN}");
    let _ = site.ferry(&list).ok();
    let diff = format!("diff one.tar both.tar {TRUST}");
    let told = site.ferry(&diff).ok().stdout;
    assert!(told.contains("images: 1 added, 0 removed, 0 changed, 1 unchanged"), "{told}");
    assert!(told.contains("blobs: 3 added") && told.contains("4 unchanged"), "{told}");
    let json = site.ferry(&format!("{diff} --json")).ok().json();
    assert_eq!(json["images"][1]["change"], "added");
    assert_eq!(json["images"][1]["to"], app(2).digest());
    assert_eq!(json["images"][1]["newBytes"], json["blobs"]["added"]["bytes"], "{json}");
    assert!(json["images"][1]["bytes"].as_u64().unwrap() > 400_000, "{json}");
    let _ = site.ferry(&format!("{diff} --exit-code")).run().expect_code(1);
    let _ = site.ferry(&format!("diff one.tar out/receipt.json {TRUST} --exit-code")).ok();
    let _ = site.ferry("diff one.lock out/receipt.json --exit-code").ok();
    let told = site.ferry(&format!("diff one.lock both.tar {TRUST}")).ok().stdout;
    assert!(told.contains("one.lock is a lock") && !told.contains("blobs: "), "{told}");
    crossed.source.push("shop/app:1", &app(4));
    let _ = crossed.bundle("shop/app:1", "moved.tar", "").ok();
    let json = site.ferry(&format!("diff one.tar moved.tar {TRUST} --json")).ok().json();
    assert_eq!(json["images"][0]["change"], "changed");
    assert_eq!(
        (&json["images"][0]["from"], &json["images"][0]["to"]),
        (&json!(app(1).digest()), &json!(app(4).digest()))
    );
    let _ = site.ferry(&format!("diff one.tar out/relocation.json {TRUST}")).run().expect_code(2);
}

/// The want list of a bundle with these damaged blobs, for these of its images.
fn want(site: &Site, bundle: &str, images: &[usize], damaged: &[&str]) -> Value {
    let head = head(site, bundle);
    let shown = site.ferry(&format!("inspect {bundle} --json {TRUST}")).ok().json();
    let image = |at: &usize| {
        let image = &head["images"][*at];
        let referrer = |referrer: &Value| {
            let mut listed = json!({"manifest": {"digest": referrer["digest"], "size": referrer["size"]}});
            listed["manifest"]["mediaType"] = referrer["mediaType"].clone();
            if let Some(tag) = referrer["annotations"]["org.opencontainers.image.ref.name"].as_str() {
                listed["tag"] = tag.into();
            }
            listed
        };
        let referrers: Vec<Value> = image["referrers"].as_array().into_iter().flatten().map(referrer).collect();
        json!({
            "reference": image["reference"], "source": image["source"], "root": image["root"],
            "platforms": image["platforms"], "referrers": referrers,
        })
    };
    let mut blobs: Vec<&Value> =
        head["blobs"].as_array().unwrap().iter().filter(|b| damaged.contains(&b["digest"].as_str().unwrap())).collect();
    assert_eq!(blobs.len(), damaged.len());
    blobs.sort_by_key(|blob| blob["digest"].as_str().unwrap().to_owned());
    let blobs: Vec<Value> = blobs.iter().map(|b| json!({"digest": b["digest"], "size": b["size"]})).collect();
    json!({
        "version": 1, "bundle": {"name": head["name"], "sums": shown["sums"]}, "platforms": head["platforms"],
        "layout": head["layout"], "images": images.iter().map(image).collect::<Vec<_>>(), "blobs": blobs,
    })
}

#[test]
fn a_patch_holds_manifests_and_the_wanted_blobs() {
    require!("docker-registry");
    let crossed = Crossed::new();
    let (site, source) = (&crossed.site, &crossed.source);
    let index = two_platforms(Format::Docker, 20);
    source.push("shop/many:1", &index);
    let host = source.host();
    let images = format!("{host}/shop/app:1 {host}/shop/app:2 {host}/shop/many:1");
    let _ = site.ferry(&format!("bundle {images} {FOR} --name shop -o b.tar {SIGN}")).ok();
    let own = Layer::random(602, 2000).digest();
    let amd64 = &index.platform("linux/amd64").unwrap().digest;
    let want = want(site, "b.tar", &[1, 2], &[&own, amd64]);
    site.write("want.json", want.to_string());
    // a tag that moved is no matter: digests are asked for
    source.push("shop/app:2", &app(9));
    source.forget_requests();
    let _ = site.ferry(&format!("bundle --patch want.json -o patch.tar {SIGN}")).ok();
    let head = head(site, "patch.tar");
    assert_eq!((&head["name"], &head["platforms"]), (&json!("shop-patch"), &json!(["linux/amd64"])));
    let expected: BTreeSet<String> =
        [app(2).digest(), own.as_str(), index.digest(), amd64].into_iter().map(str::to_owned).collect();
    assert_eq!(members(site, "patch.tar"), expected);
    assert_eq!(head["bases"], json!([want["bundle"]]));
    assert_eq!(head["relies"].as_array().unwrap().len(), 2 + 3, "{head}");
    let references: Vec<&Value> = head["images"].as_array().unwrap().iter().map(|image| &image["reference"]).collect();
    assert_eq!(references, [&want["images"][0]["reference"], &want["images"][1]["reference"]]);
    assert_eq!(head["images"][0]["root"], want["images"][0]["root"]);
    let _ = site.ferry(&format!("verify patch.tar {TRUST}")).ok();
    let _ = site.ferry(&format!("bundle --patch want.json -o again.tar --jobs 1 {SIGN}")).ok();
    assert!(site.bytes("patch.tar") == site.bytes("again.tar"));
}

#[test]
fn a_patch_brings_signatures_and_the_like_too() {
    require!("docker-registry");
    let image = small(30);
    let signed = [(cosign::payload(image.digest()), "AAAA".to_owned())];
    let signature = cosign::tagged(&signed, "application/vnd.dev.cosign.simplesigning.v1+json");
    let sbom = Image::referrer(&image, "application/spdx+json", b"what is inside");
    let list = Image::index(Format::Oci, &[&sbom]);
    let (tag, listed) = (cosign::tag(image.digest(), "sig"), cosign::referrers_tag(image.digest()));
    let (tag, listed) = (format!("app/x:{tag}"), format!("app/x:{listed}"));
    let content = [("app/x:1", &image), (tag.as_str(), &signature), ("app/x", &sbom), (listed.as_str(), &list)];
    let source = Registry::filled(Access::Plain, &content);
    let site = Site::new();
    let _ = site.ferry(&format!("bundle {}/app/x:1 {FOR} --name x -o x.tar {SIGN}", source.host())).ok();
    // the manifest of one is damaged: what it refers to is found out anew
    site.write("want.json", want(&site, "x.tar", &[0], &[sbom.digest()]).to_string());
    let _ = site.ferry(&format!("bundle --patch want.json -o patch.tar {SIGN}")).ok();
    let (whole, patch) = (head(&site, "x.tar"), head(&site, "patch.tar"));
    assert_eq!(patch["images"][0]["referrers"], whole["images"][0]["referrers"]);
    let manifests = [image.digest(), signature.digest(), sbom.digest()].map(str::to_owned);
    assert_eq!(members(&site, "patch.tar"), manifests.into());
}

#[test]
fn a_patch_uses_the_bundle_manifest_where_it_is_given() {
    require!("docker-registry");
    let crossed = Crossed::new();
    let (site, host) = (&crossed.site, crossed.source.host());
    let saved = app(7);
    write_old(&site.at("saved.tar"), &[(&["vendor/saved:1"], &saved)], Wrap::Plain);
    let images = format!("images:\n- {{image: \"{host}/vendor/saved:1\", archive: saved.tar}}\n- {host}/shop/app:1\n");
    site.write("m.yaml", format!("name: m\nversion: '2'\nplatforms: [linux/amd64]\n{images}"));
    let _ = site.ferry(&format!("bundle m.yaml -o m.tar --lock m.lock {SIGN}")).ok();
    let lock: Value = serde_json::from_str(&site.read("m.lock")).unwrap();
    let locked = lock["images"].as_array().unwrap().iter().find(|i| i["source"]["kind"] == "archive").unwrap();
    let layer = locked["source"]["encoded"][1]["digest"].as_str().unwrap();
    site.write("want.json", want(site, "m.tar", &[0], &[layer]).to_string());
    let told = site.ferry(&format!("bundle --patch want.json -o patch.tar {SIGN}")).run().expect_code(7);
    told.says(&["came from `saved.tar`", "vendor/saved:1", "the damaged bundle has", "beside `--patch`"]);
    assert!(!site.at("patch.tar").exists());
    for lock in ["", "--lock m.lock --locked"] {
        let _ = site.ferry(&format!("bundle --patch want.json m.yaml {lock} -o patch.tar {SIGN}")).ok();
        assert_eq!(members(site, "patch.tar").len(), 2, "the manifest and the layer");
        assert!(members(site, "patch.tar").contains(layer));
    }
    site.write("other.yaml", format!("name: m\nplatforms: [linux/amd64]\nimages: [\"{host}/shop/app:1\"]\n"));
    let told = site.ferry(&format!("bundle --patch want.json other.yaml -o p.tar {SIGN}")).run().expect_code(4);
    told.says(&["vendor/saved:1", "does not list it"]);
}

#[test]
fn what_cannot_be_had_again_is_told_with_what_to_do() {
    require!("docker-registry");
    let crossed = Crossed::new();
    let (site, host) = (&crossed.site, crossed.source.host());
    let layer = shared().digest();
    let good = want(site, "one.tar", &[0], &[&layer]);
    let changed = |path: &str, to: Value| {
        let mut bad = good.clone();
        *bad.pointer_mut(path).unwrap() = to;
        site.write("want.json", bad.to_string());
        site.ferry(&format!("bundle --patch want.json -o patch.tar {SIGN}")).run()
    };
    let gone = format!("sha256:{}", "cd".repeat(32));
    let told = changed("/images/0/root/digest", json!(gone)).expect_code(7);
    told.says(&["the damaged bundle has", "it is gone from", &host, "name a source that still has it"]);
    let told = changed("/blobs/0/digest", json!(gone)).expect_code(4);
    told.says(&[&gone, "none of the wanted images has it", "ferry verify --want"]);
    let _ = changed("/version", json!(2)).expect_code(1).says(&["want.json", "version is 2"]);
    let _ = changed("/blobs", json!([])).expect_code(1).says(&["wants nothing"]);
    let _ = site.ferry(&format!("bundle --patch one.tar -o p.tar {SIGN}")).run().expect_code(2).says(&["no want list"]);
    let both = format!("bundle --patch want.json --have one.lock -o p.tar {SIGN}");
    let _ = site.ferry(&both).run().expect_code(2);
    assert!(!site.at("patch.tar").exists() && !site.at("p.tar").exists());
}
