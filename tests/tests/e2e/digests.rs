//! Indexes of which some platforms are carried: what stands at the target, what the plan says of it, and what becomes of pins.

use ferry_tests::http::Endpoint;
use ferry_tests::images::{Format, Image, digest};
use ferry_tests::registry::{Access, Registry};
use ferry_tests::require;
use ferry_tests::site::Site;
use serde_json::Value;

use crate::{FOR, SIGN, TRUST, three_platforms};

const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                      application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.docker.distribution.manifest.v2+json";

/// A source with `app/x:1`, of three platforms.
fn source(format: Format) -> (Registry, Image, Site) {
    let index = three_platforms(format, 1);
    (Registry::filled(Access::Plain, &[("app/x:1", &index)]), index, Site::new())
}

/// The bytes under a tag or digest, wherever.
fn manifest(host: &str, reference: &str) -> Option<Vec<u8>> {
    let path = format!("/v2/app/x/manifests/{reference}");
    let answer = Endpoint::plain(host).send("GET", &path, &[("Accept", ACCEPT)], &[]).unwrap();
    (answer.status == 200).then_some(answer.body)
}

/// The digests that an index names.
fn children(index: &[u8]) -> Vec<String> {
    let json: Value = serde_json::from_slice(index).unwrap();
    json["manifests"].as_array().unwrap().iter().map(|m| m["digest"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_will_stand_there_is_known_before_anything_is_pushed() {
    require!("docker-registry");
    for format in [Format::Oci, Format::Docker] {
        let (source, index, site) = source(format);
        let reference = format!("{}/app/x:1@{}", source.host(), index.digest());
        let _ = site.ferry(&format!("bundle {reference} {FOR} -o b.tar {SIGN}")).ok();
        let amd64 = index.platform("linux/amd64").unwrap();
        site.write("pod.yaml", format!("kind: Pod\nspec:\n  containers:\n  - image: {reference}\n"));

        // docker-registry refuses
        let target = Registry::start(Access::Plain);
        let install = format!("install b.tar --registry {} --yaml pod.yaml --out strict {TRUST}", target.host());
        let plan = site.ferry(&format!("{install} --dry-run --json")).ok().json();
        assert_eq!(plan["probe"]["sparseIndex"]["answer"], "no", "{plan}");
        let image = &plan["images"][0];
        assert_eq!(image["digest"], amd64.digest.as_str(), "{plan}");
        assert_eq!((&image["form"], &image["ifRefused"]), (&"platform".into(), &Value::Null));
        assert_eq!(image["sourceDigest"], index.digest());
        let note = plan["notes"][0].as_str().unwrap();
        assert!(note.contains(&amd64.digest) && note.contains(index.digest()) && note.contains("mirror"), "{note}");
        let asked = target.requests();
        assert!(asked.manifests_stored().is_empty() && target.repositories().is_empty());
        assert_eq!(asked.matching(|r| r.method == "PUT").len(), 1, "one question: {asked:?}");
        let _ = site.ferry(&install).ok().says(&["instead of the index", index.digest()]);
        assert_eq!(manifest(&target.host(), "1").map(|m| digest(&m)), Some(amd64.digest.clone()));
        let relocation: Value = serde_json::from_str(&site.read("strict/relocation.json")).unwrap();
        let relocated = &relocation["images"][0];
        assert_eq!(relocated["source_digest"], index.digest());
        assert_eq!(relocated["digest"], amd64.digest.as_str());
        assert!(site.read("strict/pod.yaml").contains(&format!("app/x:1@{}", amd64.digest)));
        target.forget_requests();
        let _ = site.ferry(&install).ok();
        let again = target.requests();
        assert!(again.matching(|r| !matches!(r.method.as_str(), "GET" | "HEAD")).is_empty(), "{again:?}");

        // ferry's own takes it
        let (host, _serving) = site.serve("--store shelf");
        let install = format!("install b.tar --registry {host} --yaml pod.yaml --out kept {TRUST}");
        let plan = site.ferry(&format!("{install} --dry-run --json")).ok().json();
        assert_eq!(plan["probe"]["sparseIndex"]["answer"], "yes", "{plan}");
        assert_eq!(plan["images"][0]["digest"], index.digest());
        assert_eq!(plan["notes"], serde_json::json!([]));
        // it deletes nothing, so that the question stays there, and is named
        let left = plan["probe"]["leaves"].as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect::<Vec<_>>();
        let question = left[0].split("sha256:").nth(1).and_then(|rest| rest.get(..64)).unwrap();
        assert!(left.len() == 1 && manifest(&host, &format!("sha256:{question}")).is_some(), "{left:?}");
        let tags = Endpoint::plain(&host).send("GET", "/v2/app/x/tags/list", &[], &[]).unwrap();
        assert!(String::from_utf8_lossy(&tags.body).contains(r#""tags":[]"#), "without a tag");
        let _ = site.ferry(&install).ok().says(&[question]);
        assert_eq!(manifest(&host, "1").as_deref(), index.manifest(index.digest()));
        assert_eq!(manifest(&host, index.digest()).as_deref(), index.manifest(index.digest()));
        assert!(manifest(&host, &amd64.digest).is_some());
        assert!(site.read("kept/pod.yaml").contains(&format!("app/x:1@{}", index.digest())));
    }
}

#[test]
fn each_choice_of_index_does_what_it_says() {
    require!("docker-registry");
    let (source, index, site) = source(Format::Oci);
    let amd64 = &index.platform("linux/amd64").unwrap().digest;
    let arm64 = &index.platform("linux/arm64/v8").unwrap().digest;
    let reference = format!("{}/app/x:1", source.host());
    let bundle = |name: &str, options: &str| {
        let _ = site.ferry(&format!("bundle {reference} {options} -o {name} {SIGN}")).ok();
    };
    bundle("one.tar", FOR);
    bundle("two.tar", "--platform linux/amd64 --platform linux/arm64");
    bundle("all.tar", "--platform all");
    let (store, _serving) = site.serve("--store shelf");
    let there = |host: &str, bundle: &str, choice: &str| {
        let _ = site.ferry(&format!("install {bundle} --registry {host} --index {choice} {TRUST}")).ok();
        manifest(host, "1").unwrap()
    };
    let target = Registry::start(Access::Plain);
    for host in [&target.host(), &store] {
        // for a tag alone, something whole
        assert_eq!(&digest(&there(host, "one.tar", "auto")), amd64);
        assert_eq!(&digest(&there(host, "one.tar", "platform")), amd64);
        assert_eq!(children(&there(host, "one.tar", "filtered")), std::slice::from_ref(amd64));
        for choice in ["auto", "filtered", "platform"] {
            assert_eq!(children(&there(host, "two.tar", choice)), [amd64.clone(), arm64.clone()], "{choice}");
        }
        for choice in ["auto", "sparse", "filtered"] {
            assert_eq!(digest(&there(host, "all.tar", choice)), index.digest(), "{choice}");
        }
    }
    assert_eq!(digest(&there(&store, "one.tar", "sparse")), index.digest());
    assert_eq!(digest(&there(&store, "two.tar", "sparse")), index.digest());

    let fresh = Registry::start(Access::Plain);
    let told = site.ferry(&format!("install one.tar --registry {} --index sparse {TRUST}", fresh.host()));
    told.run().expect_code(5).says(&["refuses an index with absent platforms", "--index auto"]);
    let asked = fresh.requests();
    assert!(asked.blobs_stored().is_empty() && asked.manifests_stored().is_empty(), "found before the push: {asked:?}");
}

#[test]
fn several_platforms_of_a_pinned_index_are_filtered_where_it_must_be_whole() {
    require!("docker-registry", "skopeo");
    let (source, index, site) = source(Format::Docker);
    let reference = format!("{}/app/x@{}", source.host(), index.digest());
    let _ = site.ferry(&format!("bundle {reference} --platform linux/amd64,linux/s390x -o b.tar {SIGN}")).ok();
    let target = Registry::start(Access::Plain);
    let install = format!("install b.tar --registry {} {TRUST}", target.host());
    let plan = site.ferry(&format!("{install} --dry-run --json")).ok().json();
    let digest = plan["images"][0]["digest"].as_str().unwrap().to_owned();
    assert_eq!(plan["images"][0]["form"], "filtered");
    assert_eq!(plan["images"][0]["target"], format!("{}/app/x@{digest}", target.host()));
    let _ = site.ferry(&install).ok();
    let filtered = target.manifest("app/x", &digest).unwrap();
    let kept = ["linux/amd64", "linux/s390x"].map(|p| index.platform(p).unwrap().digest.clone());
    assert_eq!(children(&filtered), kept);
    // whole, so that other tools copy it on
    let to = site.at("copied").display().to_string();
    let from = format!("docker://{}/app/x@{digest}", target.host());
    ferry_tests::tools::succeed("skopeo", &["copy", "--all", "--src-tls-verify=false", &from, &format!("dir:{to}")]);
    let _ = site.ferry(&install).ok();
    assert_eq!(manifest(&target.host(), &digest), Some(filtered));
}

#[test]
fn pins_and_tags_of_one_index_agree() {
    require!("docker-registry");
    let (source, index, site) = source(Format::Oci);
    let host = source.host();
    let pin = format!("{host}/app/x@{}", index.digest());
    site.write(
        "pods.yaml",
        format!("a:\n  image: {pin}\nb:\n  image: {host}/app/x:1\nc:\n  image: {host}/app/x:1@{}\n", index.digest()),
    );
    let _ = site.ferry(&format!("bundle {pin} {host}/app/x:1 {FOR} -o b.tar {SIGN}")).ok();
    let target = Registry::start(Access::Plain);
    let install = format!("install b.tar --registry {} --yaml pods.yaml --out ready {TRUST}", target.host());
    let _ = site.ferry(&install).ok();
    let amd64 = &index.platform("linux/amd64").unwrap().digest;
    let there = format!("{}/app/x", target.host());
    let expected = format!("a:\n  image: {there}@{amd64}\nb:\n  image: {there}:1\nc:\n  image: {there}:1@{amd64}\n");
    assert_eq!(site.read("ready/pods.yaml"), expected);
    assert!(target.manifest("app/x", amd64).is_some() && target.manifest("app/x", "1").is_some());
}

#[test]
fn a_platform_that_an_image_lacks_is_named_with_those_it_has() {
    require!("docker-registry");
    let (source, _, site) = source(Format::Oci);
    let told = site.ferry(&format!("bundle {}/app/x:1 --platform linux/riscv64 -o b.tar {SIGN}", source.host()));
    told.run().expect_code(4).says(&["linux/riscv64", "linux/amd64", "linux/arm64", "linux/s390x"]);
}

#[test]
fn bundles_that_share_an_image_are_served_together() {
    require!("docker-registry");
    let (source, index, site) = source(Format::Oci);
    let host = source.host();
    let bundle = |name: &str, reference: &str, platform: &str| {
        let command = format!("bundle {host}/app/x{reference} --platform {platform} -o {name} {SIGN}");
        let _ = site.ferry(&command).ok();
    };
    bundle("plain.tar", ":1", "linux/amd64");
    bundle("pinned.tar", &format!(":1@{}", index.digest()), "linux/amd64");
    bundle("other.tar", ":1", "linux/s390x");
    for bundles in ["plain.tar pinned.tar", "plain.tar other.tar", "pinned.tar other.tar plain.tar"] {
        let (host, _serving) = site.serve(&format!("{bundles} {TRUST}"));
        assert_eq!(manifest(&host, "1").map(|m| digest(&m)).as_deref(), Some(index.digest()), "{bundles}");
        assert!(manifest(&host, &index.platform("linux/amd64").unwrap().digest).is_some(), "{bundles}");
    }
    let (host, _serving) = site.serve(&format!("plain.tar {TRUST}"));
    assert_eq!(manifest(&host, "1").map(|m| digest(&m)).as_ref(), Some(&index.platform("linux/amd64").unwrap().digest));
}
