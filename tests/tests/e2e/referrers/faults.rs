//! Registries that misbehave where referrers are concerned.

use ferry_tests::cosign::referrers_tag;
use ferry_tests::http::Reply;
use ferry_tests::images::{Format, Image};
use ferry_tests::registry::faulty::{Fault, FaultyRegistry, Rule, What};
use ferry_tests::registry::{Access, Registry};
use ferry_tests::require;
use ferry_tests::site::Site;
use serde_json::json;

use super::{SBOM, listed};
use crate::{FOR, SIGN, TRUST, small};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn answers(status: u16, media_type: &str, body: &str) -> Rule {
    Rule::always("GET", What::Any, Fault::Answer(Reply::new(status, media_type, body))).of("/referrers/")
}

/// A source whose image has an SBOM, listed under the referrers tag.
fn source(plan: impl IntoIterator<Item = Rule>) -> (FaultyRegistry, Image) {
    let image = small(1);
    let sbom = Image::referrer(&image, SBOM, b"inside");
    let list = Image::index(Format::Oci, &[&sbom]);
    let name = format!("app/one:{}", referrers_tag(image.digest()));
    let registry = FaultyRegistry::holding(&[("app/one:1", &image), ("app/one", &sbom), (&name, &list)]).start(plan);
    (registry, sbom)
}

#[test]
fn whatever_is_no_api_leads_to_the_tag() {
    let error = r#"{"errors":[{"code":"UNSUPPORTED","message":"no"}]}"#;
    for rule in [
        answers(404, "application/json", error),
        answers(404, "text/html", "<html>not here</html>"),
        answers(400, "application/json", error),
        answers(405, "text/plain", "method not allowed"),
        answers(200, "text/html", "<html>welcome</html>"),
    ] {
        let shown = format!("{rule:?}");
        let (registry, sbom) = source([rule]);
        let site = Site::new();
        let _ = site.ferry(&format!("bundle {}/app/one:1 {FOR} -o b.tar {SIGN}", registry.host())).ok();
        assert_eq!(listed(&site, "b.tar"), [("sbom".to_owned(), sbom.digest().to_owned())], "{shown}");
    }
}

#[test]
fn a_list_of_lies_is_told_and_left() {
    let (absent, long) = (ferry_tests::images::digest(b"absent"), format!("sha512:{}", "ab".repeat(64)));
    let list = |digest: &str| {
        let entry = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 7});
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).to_string()
    };
    for digest in [&absent, &long] {
        let (registry, _) = source([answers(200, INDEX, &list(digest))]);
        let site = Site::new();
        let told = site.ferry(&format!("bundle {}/app/one:1 {FOR} -o b.tar {SIGN}", registry.host())).ok();
        told.says(&["warning: ", digest, "is not carried"]);
        assert_eq!(listed(&site, "b.tar"), []);
    }
}

#[test]
fn what_must_not_be_asked_is_told() {
    let (registry, _) = source([answers(403, "application/json", r#"{"errors":[{"code":"DENIED"}]}"#)]);
    let site = Site::new();
    let told = site.ferry(&format!("bundle {}/app/one:1 {FOR} -o b.tar {SIGN}", registry.host())).ok();
    told.says(&["warning: ", "whether anything else refers to", "403"]);
}

#[test]
fn what_cannot_be_found_out_is_an_error_and_can_be_left() {
    for rule in [answers(500, "text/plain", "oops"), answers(200, INDEX, "{"), answers(200, INDEX, "{}")] {
        let (registry, _) = source([rule]);
        let site = Site::new();
        let bundle = format!("bundle {}/app/one:1 {FOR} -o b.tar {SIGN}", registry.host());
        let told = site.ferry(&bundle).run().expect_code(5);
        told.says(&["app/one: what refers to", "cannot be found out", "--no-referrers"]);
        let _ = site.ferry(&format!("{bundle} --no-referrers")).ok();
    }
}

#[test]
fn endless_pages_end() {
    let list = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).to_string();
    let next = Reply::new(200, INDEX, list).header("Link", "</v2/app/one/referrers/next>; rel=\"next\"");
    let (registry, _) = source([Rule::always("GET", What::Any, Fault::Answer(next)).of("/referrers/")]);
    let site = Site::new();
    let told = site.ferry(&format!("bundle {}/app/one:1 {FOR} -o b.tar {SIGN}", registry.host())).run().expect_code(5);
    told.says(&["next page"]);
}

#[test]
fn a_target_that_refuses_them_is_told_and_has_the_image() {
    require!("docker-registry");
    let image = small(1);
    let sbom = Image::referrer(&image, SBOM, b"inside");
    let source = Registry::filled(Access::Plain, &[("app/one:1", &image), ("app/one", &sbom)]);
    source.push(&format!("app/one:{}", referrers_tag(image.digest())), &Image::index(Format::Oci, &[&sbom]));
    let site = Site::new();
    let _ = site.ferry(&format!("bundle {}/app/one:1 {FOR} -o b.tar {SIGN}", source.host())).ok();
    let refusal = Reply::new(
        400,
        "application/json",
        r#"{"errors":[{"code":"MANIFEST_INVALID","message":"unknown config type"}]}"#,
    );
    let rule = Rule::always("PUT", What::Manifest, Fault::Answer(refusal)).of(sbom.digest());
    let target = FaultyRegistry::holding(&[]).start([rule]);
    let install = format!("install b.tar --registry {} {TRUST}", target.host());
    let told = site.ferry(&install).run().expect_code(5);
    told.says(&["the sbom", sbom.digest(), "cannot be pushed", "unknown config type", "hint", "--no-referrers"]);
    assert!(!site.at("ferry-out/receipt.json").exists());
    let before = target.count(|seen| seen.method == "PUT" && seen.path.contains("/manifests/1"));
    let _ = site.ferry(&format!("{install} --no-referrers")).ok();
    let after = target.count(|seen| seen.method == "PUT" && seen.path.contains("/manifests/1"));
    assert_eq!((before, after), (1, 1), "the image was there already");
    assert!(site.at("ferry-out/receipt.json").exists());
}
