//! A target that has lost or damaged blobs, and `ferry install --recheck`.

use ferry_tests::http::Endpoint;
use ferry_tests::images::Image;
use ferry_tests::registry::{Access, Registry};
use ferry_tests::require;
use ferry_tests::site::Site;

use crate::{FOR, SIGN, TRUST, small};

/// Two images, bundled as `b.tar`.
fn bundled() -> (Site, Image, Image) {
    let (one, two) = (small(1), small(2));
    let source = Registry::filled(Access::Plain, &[("app/one:1", &one), ("app/two:1", &two)]);
    let (site, host) = (Site::new(), source.host());
    site.write("b.yaml", format!("name: b\nmirrors: {{docker.io: [{host}]}}\nimages: [app/one:1, app/two:1]\n"));
    let _ = site.ferry(&format!("bundle b.yaml {FOR} -o b.tar {SIGN}")).ok();
    (site, one, two)
}

/// The largest blob of an image.
fn layer(image: &Image) -> (String, Vec<u8>) {
    let (digest, bytes) = image.blobs.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    (digest.to_string(), bytes.to_vec())
}

#[test]
fn a_blob_that_a_registry_lost_is_pushed_again() {
    require!("docker-registry");
    let (site, one, two) = bundled();
    let target = Registry::start(Access::Plain);
    let install = |more: &str| site.ferry(&format!("install b.tar --registry {} {TRUST} {more}", target.host()));
    install("").ok().says(&["2 images pushed"]);
    let (digest, bytes) = layer(&one);
    let hex = digest.strip_prefix("sha256:").unwrap();
    let blobs = target.storage().join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex);
    std::fs::remove_dir_all(&blobs).unwrap();
    assert!(!target.holds("app/one", &one));

    install("").ok().says(&["0 images pushed, 2 were there", "no blob was needed"]);
    assert!(!target.holds("app/one", &one), "a manifest that is there is believed");
    let look = install("--recheck --dry-run --json").ok().json();
    let state = |at: usize| look["images"][at]["state"].as_str().unwrap().to_owned();
    assert_eq!((state(0), state(1)), ("is incomplete".to_owned(), "is there".to_owned()));
    assert_eq!(look["blobs"], serde_json::json!({"count": 1, "bytes": bytes.len()}));
    let text = install("--recheck --dry-run").ok().stdout;
    assert!(text.contains(&digest) && text.contains("is incomplete"), "{text}");
    assert!(!target.holds("app/one", &one), "a look pushes nothing");

    target.forget_requests();
    let done = install("--recheck --json").ok().json();
    assert_eq!(done["images"], serde_json::json!({"pushed": 0, "mended": 1, "skipped": 0, "present": 1}));
    assert_eq!(done["blobs"]["sent"], 1, "{done}");
    assert!(target.holds("app/one", &one) && target.holds("app/two", &two));
    assert_eq!(target.requests().blobs_stored().len(), 1);
    let tags: Vec<_> = target.requests().manifests_stored().iter().map(|record| record.path.clone()).collect();
    assert_eq!(tags, [format!("/v2/app/one/manifests/{}", one.digest())], "no tag is set that stands");
    install("--recheck").ok().says(&[
        "0 images pushed, 2 were there",
        "no blob was needed",
        "asked for by name, not read",
    ]);
}

#[test]
fn a_blob_that_is_damaged_in_a_store_is_replaced() {
    require!("docker-registry");
    let (site, one, _) = bundled();
    let _ = site.ferry(&format!("install b.tar --store shelf {TRUST}")).ok();
    let (digest, bytes) = layer(&one);
    let path = format!("shelf/blobs/sha256/{}", digest.strip_prefix("sha256:").unwrap());
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    let install = |more: &str| site.ferry(&format!("install b.tar --store shelf {TRUST} {more}"));

    site.write(&path, &flipped);
    install("").ok().says(&["no blob was needed"]);
    assert_eq!(site.bytes(&path), flipped, "a manifest that is there is believed");
    let look = install("--recheck --dry-run").ok().stdout;
    assert!(look.contains(&digest) && look.contains("at most 1 blob"), "{look}");
    assert_eq!(site.bytes(&path), flipped, "a look writes nothing");
    install("--recheck").ok().says(&["0 images pushed, 1 mended, 1 was there", "1 blob sent", &digest]);
    assert_eq!(site.bytes(&path), bytes);
    assert_eq!(std::fs::read_dir(site.at("shelf/ferry/uploads")).unwrap().count(), 0);
}

#[test]
fn a_blob_that_a_server_found_damaged_is_pushed_again() {
    require!("docker-registry");
    let (site, one, _) = bundled();
    let (host, _serving) = site.serve("--store shelf");
    let install = |more: &str| site.ferry(&format!("install b.tar --registry {host} {TRUST} {more}"));
    install("").ok().says(&["2 images pushed"]);
    let (digest, bytes) = layer(&one);
    let path = format!("shelf/blobs/sha256/{}", digest.strip_prefix("sha256:").unwrap());
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    let endpoint = Endpoint::plain(&host);
    let get = || endpoint.send("GET", &format!("/v2/app/one/blobs/{digest}"), &[], &[]);
    site.write(&path, &flipped);
    // who reads it gets no whole answer, and from then on there is none
    assert!(get().is_err() || get().unwrap().status == 404);
    assert_eq!(get().unwrap().status, 404);
    install("").ok().says(&["no blob was needed"]);
    assert_eq!(get().unwrap().status, 404);
    install("--recheck").ok().says(&["1 mended", "1 blob sent"]);
    let now = get().unwrap();
    assert!(now.status == 200 && now.body == bytes, "{}", now.status);
    assert_eq!(site.bytes(&path), bytes);
    // the folder itself, while another serves it
    site.write(&path, &flipped);
    let (host, _other) = site.serve("--store shelf");
    let endpoint = Endpoint::plain(&host);
    let get = || endpoint.send("GET", &format!("/v2/app/one/blobs/{digest}"), &[], &[]);
    assert!(get().is_err() || get().unwrap().status == 404);
    let _ = site.ferry(&format!("install b.tar --store shelf --recheck {TRUST}")).ok();
    // one that starts now knows nothing bad of it
    let (host, _third) = site.serve("--store shelf");
    let now = Endpoint::plain(&host).send("GET", &format!("/v2/app/one/blobs/{digest}"), &[], &[]).unwrap();
    assert!(now.status == 200 && now.body == bytes, "{}", now.status);
}

#[test]
fn damage_in_a_store_is_found_and_named_with_its_images() {
    require!("docker-registry");
    let (site, one, two) = bundled();
    let install = |more: &str| site.ferry(&format!("install b.tar --store shelf {TRUST} {more}"));
    let _ = install("").ok();
    site.ferry("verify --store shelf").ok().says(&["shelf is whole: 2 images, ", " checked"]);
    // a folder that is a store is taken for one
    assert_eq!(site.ferry("verify shelf --json").ok().json()["faults"], serde_json::json!([]));
    let ((damaged, bytes), (lost, size)) = (layer(&one), layer(&two));
    let at = |digest: &str| site.at(&format!("shelf/blobs/sha256/{}", digest.strip_prefix("sha256:").unwrap()));
    std::fs::write(at(&damaged), vec![0; bytes.len()]).unwrap();
    std::fs::remove_file(at(&lost)).unwrap();

    let told = site.ferry("verify --store shelf").run().expect_code(3);
    let what =
        |image: &str, digest: &str, size: usize, how: &str| format!("`{image}`: blob {digest} ({size} bytes) is {how}");
    told.says(&[
        &what("app/one:1", &damaged, bytes.len(), "damaged: its file hashes to sha256:"),
        &what("app/two:1", &lost, size.len(), "missing"),
        "ferry install BUNDLE --store shelf --recheck",
    ]);
    let json = site.ferry("verify shelf --json").run().expect_code(3).json();
    let fault =
        |digest: &str| json["faults"].as_array().unwrap().iter().find(|fault| fault["digest"] == digest).unwrap();
    assert_eq!((&fault(&damaged)["what"], &fault(&lost)["what"]), (&"damaged".into(), &"missing".into()));

    // what a look at the folder shows is said by who works on it
    site.ferry("gc shelf").ok().says(&[&what("app/two:1", &lost, size.len(), "missing"), "--recheck"]);
    assert_eq!(site.ferry("gc shelf --json").ok().json()["lost"][0]["digest"], lost.as_str());
    site.ferry("inventory --store shelf").ok().says(&["warning: ", &lost, "app/two:1", "left out", "--recheck"]);
    let receipt = site.read("receipt.json");
    assert!(!receipt.contains(&lost) && receipt.contains(&two.digest().to_string()), "{receipt}");

    install("--recheck").ok().says(&["2 mended"]);
    let _ = site.ferry("verify --store shelf").ok();
    let _ = site.ferry("verify b.tar --store shelf").run().expect_code(2);
}
