//! What comes is not what was asked for.

use ferry_tests::http::Reply;
use ferry_tests::images::{Format, Image, Layer};
use ferry_tests::registry::faulty::Fault::{self, *};
use ferry_tests::registry::faulty::{FaultyRegistry, Rule, What};
use ferry_tests::site::Site;
use insta::assert_snapshot;

use super::said;
use crate::{FOR, SIGN};

/// What is said of images that share a layer, when that has this fault.
fn shared(names: &[&str], fault: Fault) -> String {
    let base = Layer::random(1, 30_000);
    let image = |seed| Image::single("linux/amd64", Format::Oci, vec![base.clone(), Layer::random(seed, 500)]);
    let images: Vec<Image> = (2..).take(names.len()).map(image).collect();
    let held: Vec<(&str, &Image)> = names.iter().copied().zip(&images).collect();
    let registry = FaultyRegistry::holding(&held).start([Rule::always("GET", What::Layer, fault)]);
    let site = Site::new();
    let names: Vec<String> = names.iter().map(|name| format!("{}/{name}", registry.host())).collect();
    let told = site.ferry(&format!("bundle {} {FOR} -o b.tar {SIGN}", names.join(" "))).run();
    let (code, digest) = (told.code, base.digest());
    said(told, code, &site, &[("REGISTRY", &registry.host()), ("DIGEST", &digest)])
}

#[test]
fn a_layer_with_other_content() {
    assert_snapshot!(shared(&["app/one:1"], Corrupt(20_000)), @r#"
    1 image, 4 blobs, 33.3 kB to b.tar
    error: image `REGISTRY/app/one:1`: REGISTRY/app/one: blob DIGEST has other content: it hashes to sha256:b3d399ed00bea239d2e853b36b6446c8b3d86486dfdbeab399d3fa48292c8831
      hint: the copy at that place is damaged or was replaced; fetch it anew, or from elsewhere
    "#);
    assert_snapshot!(shared(&["app/one:1", "app/two:1", "app/three:1"], Short(30_001)), @r#"
    3 images, 10 blobs, 36.5 kB to b.tar
     WARN ferry_bundle::fallback: asking the next source place="REGISTRY/app/one" blob="c9d919e5748b" error=REGISTRY/app/one: blob DIGEST has 1744 bytes instead of 31745
     WARN ferry_bundle::fallback: asking the next source place="REGISTRY/app/two" blob="c9d919e5748b" error=REGISTRY/app/two: blob DIGEST has 1744 bytes instead of 31745
    error: image `REGISTRY/app/one:1` and 2 others: source: REGISTRY/app/one: blob DIGEST has 1744 bytes instead of 31745
      hint: the copy at that place is damaged or was replaced; fetch it anew, or from elsewhere
    "#);
}

#[test]
fn a_layer_that_the_registry_has_lost() {
    let lost = r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry","detail":"sha256:0"}]}"#;
    assert_snapshot!(shared(&["app/one:1", "app/two:1"], Answer(Reply::new(404, "application/json", lost))), @r#"
    2 images, 7 blobs, 34.9 kB to b.tar
     WARN ferry_bundle::fallback: asking the next source place="REGISTRY/app/one" blob="c9d919e5748b" error=REGISTRY/app/one: there is no blob DIGEST (404 BLOB_UNKNOWN): blob unknown to registry: sha256:0
    error: image `REGISTRY/app/one:1` and another: source: REGISTRY/app/one: there is no blob DIGEST (404 BLOB_UNKNOWN): blob unknown to registry: sha256:0
      hint: the registry has lost this blob; fetch the image from elsewhere or push it again
    "#);
}

#[test]
fn a_page_in_place_of_a_layer() {
    let page = "<html><head><title>Log in to the network</title></head></html>";
    assert_snapshot!(shared(&["app/one:1"], Answer(Reply::new(200, "text/html", page))), @r#"
    1 image, 4 blobs, 33.3 kB to b.tar
    what was fetched is kept: the same command continues
    error: image `REGISTRY/app/one:1`: source: REGISTRY/app/one: blob DIGEST: a web page came instead of an answer
      hint: check that the address is a registry's, and what stands in front of it
    "#);
}
