//! Referrers at the target: after what they refer to, under cosign's tags, and listed, by the registry or by us.

use ferry_tests::cosign::{self, Signer, referrers_tag, tag};
use ferry_tests::http::Endpoint;
use ferry_tests::images::{Format, Image};
use ferry_tests::registry::{Access, Registry};
use ferry_tests::require;
use ferry_tests::site::Site;
use serde_json::{Value, json};

use super::{Referred, SBOM, THING};
use crate::{FOR, SIGN, TRUST, small};

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// The digests that the list under the referrers tag of `subject` has at a registry.
fn listed_by_tag(registry: &Registry, repository: &str, subject: &str) -> Vec<String> {
    let Some(bytes) = registry.manifest(repository, &referrers_tag(subject)) else { return Vec::new() };
    digests(&parsed(&bytes))
}

fn digests(index: &Value) -> Vec<String> {
    index["manifests"].as_array().unwrap().iter().map(|entry| entry["digest"].as_str().unwrap().to_owned()).collect()
}

/// What a registry's referrers API says.
fn listed_by_api(host: &str, repository: &str, subject: &str) -> Value {
    let path = format!("/v2/{repository}/referrers/{subject}");
    let answer = Endpoint::plain(host).send("GET", &path, &[], &[]).unwrap();
    assert_eq!(answer.status, 200, "{path}");
    parsed(&answer.body)
}

/// A bundle of everything, from a docker-registry.
fn bundled(referred: &Referred, options: &str) -> (Registry, Site) {
    let source = Registry::start(Access::Plain);
    referred.push(&source, "app/one:1");
    let site = Site::new();
    let name = format!("{}/app/one:1", source.host());
    let _ = site.ferry(&format!("bundle {name} {options} -o b.tar {SIGN}")).ok();
    (source, site)
}

#[test]
fn a_registry_without_the_api_gets_the_lists_too() {
    require!("docker-registry", "openssl");
    let referred = Referred::new();
    // all platforms, for docker-registry takes no index with absent ones
    let (_source, site) = bundled(&referred, "--platform all");
    let target = Registry::start(Access::Plain);
    let install = format!("install b.tar --registry {} {TRUST}", target.host());
    let plan = site.ferry(&format!("{install} --dry-run")).ok();
    let after = "after the images: 2 signatures, 1 attestation, 1 sbom, 2 other referrers";
    assert!(plan.stdout.contains(after), "{}", plan.stdout);
    let told = site.ferry(&install).ok();
    told.says(&["6 referrers (signatures and the like) pushed after them, 0 were there"]);
    let digest = referred.image.digest();
    let (amd64, arm64) = ("linux/amd64", "linux/arm64/v8");
    let platform = |name: &str| referred.image.platform(name).unwrap().digest.clone();
    for image in [
        &referred.image,
        &referred.signature,
        &referred.attestation,
        &referred.sbom,
        &referred.thing,
        &referred.of_other,
        &referred.of_sbom,
    ] {
        assert!(target.holds("app/one", image), "{}", image.digest());
    }
    for (suffix, image) in [("sig", &referred.signature), ("att", &referred.attestation)] {
        let bytes = target.manifest("app/one", &tag(digest, suffix)).expect(suffix);
        assert_eq!(Some(bytes.as_slice()), image.manifest(image.digest()));
    }
    for (subject, image) in [
        (digest, &referred.sbom),
        (&platform(amd64), &referred.thing),
        (&platform(arm64), &referred.of_other),
        (referred.sbom.digest(), &referred.of_sbom),
    ] {
        assert_eq!(listed_by_tag(&target, "app/one", subject), [image.digest()]);
    }
    let list = parsed(&target.manifest("app/one", &referrers_tag(referred.sbom.digest())).unwrap());
    let entry = &list["manifests"][0];
    assert_eq!(entry["artifactType"], "application/vnd.dev.sigstore.bundle.v0.3+json");
    assert_eq!(entry["annotations"]["dev.sigstore.bundle.content"], "dsse-envelope", "as the specification says");

    // after what they refer to: the image's tag before the first of them
    let requests = target.requests();
    let stored: Vec<&str> = requests.manifests_stored().iter().map(|r| r.path.rsplit('/').next().unwrap()).collect();
    let at = |name: &str| stored.iter().position(|s| *s == name).unwrap_or_else(|| panic!("{name}: {stored:?}"));
    let signature = tag(digest, "sig");
    for (first, then) in
        [("1", signature.as_str()), ("1", referred.sbom.digest()), (referred.sbom.digest(), referred.of_sbom.digest())]
    {
        assert!(at(first) < at(then), "{first} before {then}: {stored:?}");
    }

    // again: nothing to do
    target.forget_requests();
    let told = site.ferry(&install).ok();
    told.says(&["0 referrers (signatures and the like) pushed after them, 6 were there"]);
    let again = target.requests();
    assert!(again.uploads().is_empty() && again.manifests_stored().is_empty(), "{again:?}");
    // what it left carries on: a bundle from there has the same
    let name = format!("{}/app/one:1", target.host());
    let _ = site.ferry(&format!("bundle {name} --platform all -o c.tar {SIGN}")).ok();
    assert_eq!(super::listed(&site, "c.tar"), super::listed(&site, "b.tar"));
}

#[test]
fn an_install_that_was_cut_short_is_mended() {
    require!("docker-registry", "openssl");
    let referred = Referred::new();
    let (_source, site) = bundled(&referred, "--platform all");
    let target = Registry::start(Access::Plain);
    let install = format!("install b.tar --registry {} {TRUST}", target.host());
    let _ = site.ferry(&install).ok();
    // as if it had ended before the list was put, and before the signature
    let delete = |name: &str| {
        let digest = ferry_tests::images::digest(&target.manifest("app/one", name).unwrap());
        let path = format!("/v2/app/one/manifests/{digest}");
        assert_eq!(target.endpoint().send("DELETE", &path, &[], &[]).unwrap().status, 202);
    };
    let digest = referred.image.digest();
    delete(&referrers_tag(digest));
    delete(&tag(digest, "sig"));
    site.ferry(&install).ok().says(&["1 referrer (signatures and the like) pushed after them, 5 were there"]);
    assert_eq!(listed_by_tag(&target, "app/one", digest), [referred.sbom.digest()]);
    assert!(target.manifest("app/one", &tag(digest, "sig")).is_some());
}

#[test]
fn a_registry_with_the_api_lists_by_itself() {
    require!("openssl");
    let referred = Referred::new();
    let site = Site::new();
    let (public, _public) = site.serve("--store public");
    let endpoint = Endpoint::plain(&public);
    let digest = referred.image.digest();
    for (name, image) in [
        ("app/one:1".to_owned(), &referred.image),
        (format!("app/one:{}", tag(digest, "sig")), &referred.signature),
        (format!("app/one:{}", tag(digest, "att")), &referred.attestation),
        ("app/one".to_owned(), &referred.sbom),
        ("app/one".to_owned(), &referred.thing),
        ("app/one".to_owned(), &referred.of_other),
        ("app/one".to_owned(), &referred.of_sbom),
    ] {
        ferry_tests::registry::push(&endpoint, &name, image);
    }
    let _ = site.ferry(&format!("bundle {public}/app/one:1 {FOR} -o b.tar {SIGN}")).ok();
    assert_eq!(super::listed(&site, "b.tar"), referred.carried(), "as from a registry without the API");
    let (closed, _closed) = site.serve("--store closed");
    // one platform of two: the store takes the index with one absent, so its signature is good there
    let install = format!("install b.tar --registry {closed}/team {TRUST}");
    site.ferry(&install).ok().says(&["5 referrers (signatures and the like) pushed"]);
    let list = listed_by_api(&closed, "team/app/one", digest);
    assert_eq!(digests(&list), [referred.sbom.digest()]);
    assert_eq!(list["manifests"][0]["artifactType"], SBOM);
    let of_sbom = listed_by_api(&closed, "team/app/one", referred.sbom.digest());
    assert_eq!(digests(&of_sbom), [referred.of_sbom.digest()]);
    let tags = Endpoint::plain(&closed).send("GET", "/v2/team/app/one/tags/list", &[], &[]).unwrap();
    let tags = parsed(&tags.body);
    assert_eq!(tags["tags"], json!(["1", tag(digest, "att"), tag(digest, "sig")]), "no list of ours: {tags}");
    site.ferry(&install).ok().says(&["0 referrers (signatures and the like) pushed after them, 5 were there"]);
    // and a bundle from there is the same again
    let _ = site.ferry(&format!("bundle {closed}/team/app/one:1 {FOR} -o c.tar {SIGN}")).ok();
    assert_eq!(super::listed(&site, "c.tar"), referred.carried());
    // straight into a store's folder
    let _ = site.ferry(&format!("install b.tar --store folder {TRUST}")).ok();
    let (folder, _folder) = site.serve("--store folder");
    assert_eq!(digests(&listed_by_api(&folder, "app/one", digest)), [referred.sbom.digest()]);
}

#[test]
fn a_served_bundle_answers_the_api() {
    require!("docker-registry", "openssl");
    let referred = Referred::new();
    let (source, site) = bundled(&referred, FOR);
    let (host, _serving) = site.serve(&format!("b.tar {TRUST}"));
    let digest = referred.image.digest();
    let amd64 = &referred.image.platform("linux/amd64").unwrap().digest;
    for (subject, referrer) in
        [(digest, &referred.sbom), (amd64, &referred.thing), (referred.sbom.digest(), &referred.of_sbom)]
    {
        assert_eq!(digests(&listed_by_api(&host, "app/one", subject)), [referrer.digest()]);
    }
    let filtered = format!("/v2/app/one/referrers/{amd64}?artifactType={SBOM}");
    let answer = Endpoint::plain(&host).send("GET", &filtered, &[], &[]).unwrap();
    assert_eq!((answer.header("oci-filters-applied"), digests(&parsed(&answer.body)).len()), (Some("artifactType"), 0));
    for path in [
        format!("/v2/app/one/manifests/{}", tag(digest, "sig")),
        // as a mirror of where it came from
        format!("/v2/app/one/manifests/{}?ns={}", tag(digest, "sig"), source.host()),
    ] {
        let answer = Endpoint::plain(&host).send("GET", &path, &[], &[]).unwrap();
        assert_eq!(Some(answer.body.as_slice()), referred.signature.manifest(referred.signature.digest()), "{path}");
    }
    // all of it can be bundled from there
    let _ = site.ferry(&format!("bundle {host}/app/one@{digest} {FOR} -o c.tar {SIGN}")).ok();
    assert_eq!(super::listed(&site, "c.tar"), referred.carried());
}

#[test]
fn what_is_there_already_is_kept() {
    require!("docker-registry", "openssl");
    let image = small(1);
    let digest = image.digest();
    let (vendor, ours) = (Signer::p256(), Signer::ed25519());
    let source = Registry::filled(Access::Plain, &[("app/one:1", &image)]);
    source.push(&format!("app/one:{}", tag(digest, "sig")), &cosign::signatures(digest, &[&vendor]));
    let sbom = Image::referrer(&image, SBOM, b"inside");
    source.push("app/one", &sbom);
    source.push(&format!("app/one:{}", referrers_tag(digest)), &Image::index(Format::Oci, &[&sbom]));
    let site = Site::new();
    let _ = site.ferry(&format!("bundle {}/app/one:1 {FOR} -o b.tar {SIGN}", source.host())).ok();
    // at the target the image was signed, and something was attached to it
    let target = Registry::filled(Access::Plain, &[("app/one:1", &image)]);
    target.push(&format!("app/one:{}", tag(digest, "sig")), &cosign::signatures(digest, &[&ours]));
    let thing = Image::referrer(&image, THING, b"our own");
    target.push("app/one", &thing);
    target.push(&format!("app/one:{}", referrers_tag(digest)), &Image::index(Format::Oci, &[&thing]));
    let install = format!("install b.tar --registry {} {TRUST}", target.host());
    let plan = site.ferry(&format!("{install} --dry-run --json")).ok().json();
    let states: Vec<&str> =
        plan["referrers"].as_array().unwrap().iter().map(|r| r["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["joins others", "new"]);
    let _ = site.ferry(&install).ok();
    assert_eq!(listed_by_tag(&target, "app/one", digest), [thing.digest(), sbom.digest()]);
    // both signatures hold there
    for (name, signer) in [("vendor.pub", &vendor), ("ours.pub", &ours)] {
        std::fs::copy(signer.public(), site.at(name)).unwrap();
        let host = target.host();
        let images = format!("images: ['{host}/app/one:1']\n");
        site.write("m.yaml", format!("name: n\nplatforms: [linux/amd64]\nverify: {{'*': {name}}}\n{images}"));
        let _ = site.ferry(&format!("bundle m.yaml -o c.tar {SIGN}")).ok();
    }
    target.forget_requests();
    let _ = site.ferry(&install).ok();
    let again = target.requests();
    assert!(again.uploads().is_empty() && again.manifests_stored().is_empty(), "{again:?}");
}

#[test]
fn what_cannot_be_merged_goes_by_on_existing() {
    require!("docker-registry");
    let image = small(1);
    let name = tag(image.digest(), "sbom");
    let (theirs, ours) = (Image::artifact(SBOM, b"theirs"), Image::artifact(SBOM, b"ours"));
    let source = Registry::filled(Access::Plain, &[("app/one:1", &image), (&format!("app/one:{name}"), &ours)]);
    let site = Site::new();
    let _ = site.ferry(&format!("bundle {}/app/one:1 {FOR} -o b.tar {SIGN}", source.host())).ok();
    let target = Registry::filled(Access::Plain, &[("app/one:1", &image), (&format!("app/one:{name}"), &theirs)]);
    let install = |choice: &str| {
        site.ferry(&format!("install b.tar --registry {} {TRUST} --on-existing {choice}", target.host())).run()
    };
    let there = || ferry_tests::images::digest(&target.manifest("app/one", &name).unwrap());
    install("fail").expect_code(7).says(&[&name, theirs.digest()]);
    install("skip").expect_code(0).says(&["note: ", "stays at", theirs.digest()]);
    assert_eq!(there(), theirs.digest());
    let _ = install("overwrite").expect_code(0);
    assert_eq!(there(), ours.digest());
}

#[test]
fn what_the_index_was_signed_for_is_not_pretended() {
    require!("docker-registry", "openssl");
    let referred = Referred::new();
    let (_source, site) = bundled(&referred, FOR);
    let target = Registry::start(Access::Plain);
    let told = site.ferry(&format!("install b.tar --registry {} {TRUST}", target.host())).ok();
    let digest = referred.image.digest();
    // docker-registry refuses an index with absent platforms, so the platform's own manifest stands there
    told.says(&["note: ", &format!("1 signature, 1 attestation, 1 sbom refer to the index {digest}")]);
    told.says(&["will not be there, and are not pushed", "1 referrer (signatures and the like) pushed"]);
    assert!(target.manifest("app/one", &tag(digest, "sig")).is_none());
    let amd64 = &referred.image.platform("linux/amd64").unwrap().digest;
    assert_eq!(listed_by_tag(&target, "app/one", amd64), [referred.thing.digest()]);
    let receipt = parsed(&site.bytes("ferry-out/receipt.json"));
    let held = receipt["repositories"][0]["blobs"].as_array().unwrap();
    let held: Vec<&str> = held.iter().map(|blob| blob["digest"].as_str().unwrap()).collect();
    assert_eq!(receipt["repositories"][0]["name"], format!("{}/app/one", target.host()));
    assert!(held.contains(&referred.thing.digest()) && !held.contains(&referred.sbom.digest()), "{held:?}");
}

#[test]
fn they_can_be_left_behind() {
    require!("docker-registry", "openssl");
    let referred = Referred::new();
    let (_source, site) = bundled(&referred, "--platform all");
    let target = Registry::start(Access::Plain);
    let _ = site.ferry(&format!("install b.tar --registry {} {TRUST} --no-referrers", target.host())).ok();
    assert!(target.holds("app/one", &referred.image));
    assert_eq!(listed_by_tag(&target, "app/one", referred.image.digest()), [] as [String; 0]);
    assert!(target.manifest("app/one", &tag(referred.image.digest(), "sig")).is_none());
}
