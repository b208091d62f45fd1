//! Signatures, attestations, SBOMs and other artifacts: found, carried, pushed after what they refer to, and verified.

mod artifacts;
mod faults;
mod target;
mod verify;

use ferry_tests::cosign::{self, Signer, referrers_tag, tag};
use ferry_tests::images::{Format, Image};
use ferry_tests::registry::{Access, Registry};
use ferry_tests::require;
use ferry_tests::site::Site;
use serde_json::Value;

use crate::{FOR, SIGN, TRUST, small, two_platforms};

const SBOM: &str = "application/spdx+json";
const THING: &str = "application/vnd.example.thing";

/// An image of two platforms with something of every kind that refers to it.
struct Referred {
    image: Image,
    /// Under cosign's tags of the root.
    signature: Image,
    attestation: Image,
    /// By their subject: the root, the platform that is carried, the one that is not, the SBOM.
    sbom: Image,
    thing: Image,
    of_other: Image,
    of_sbom: Image,
}

impl Referred {
    fn new() -> Self {
        let image = two_platforms(Format::Oci, 1);
        let signer = Signer::p256();
        let platform = |name: &str| {
            let descriptor = image.platform(name).unwrap().clone();
            Image { root: descriptor, ..image.clone() }
        };
        let sbom = Image::referrer(&image, SBOM, b"what is inside");
        Self {
            signature: cosign::signatures(image.digest(), &[&signer]),
            attestation: cosign::tagged(&[("{}".into(), String::new())], "application/vnd.dsse.envelope.v1+json"),
            thing: Image::referrer(&platform("linux/amd64"), THING, b"of amd64"),
            of_other: Image::referrer(&platform("linux/arm64/v8"), THING, b"of arm64"),
            of_sbom: cosign::bundle(&sbom.root, &signer, cosign::SIGN),
            sbom,
            image,
        }
    }

    /// What is carried with linux/amd64: kind and digest.
    fn carried(&self) -> Vec<(String, String)> {
        let carried = [
            ("signature", &self.signature),
            ("attestation", &self.attestation),
            ("sbom", &self.sbom),
            ("other", &self.thing),
            ("signature", &self.of_sbom),
        ];
        carried.map(|(kind, image)| (kind.to_owned(), image.digest().to_owned())).to_vec()
    }

    /// Pushes all of it, and to a registry without a referrers API the lists that clients must keep there.
    fn push(&self, to: &Registry, name: &str) {
        let repository = name.rsplit_once(':').unwrap().0;
        to.push(name, &self.image);
        let digest = self.image.digest();
        to.push(&format!("{repository}:{}", tag(digest, "sig")), &self.signature);
        to.push(&format!("{repository}:{}", tag(digest, "att")), &self.attestation);
        let platform = |name: &str| self.image.platform(name).unwrap().digest.clone();
        for (subject, referrer) in [
            (digest.to_owned(), &self.sbom),
            (platform("linux/amd64"), &self.thing),
            (platform("linux/arm64/v8"), &self.of_other),
            (self.sbom.digest().to_owned(), &self.of_sbom),
        ] {
            to.push(repository, referrer);
            let list = Image::index(Format::Oci, &[referrer]);
            to.push(&format!("{repository}:{}", referrers_tag(&subject)), &list);
        }
        to.forget_requests();
    }
}

/// Kind and digest of all that `inspect` lists with the first image.
fn listed(site: &Site, bundle: &str) -> Vec<(String, String)> {
    let json = site.ferry(&format!("inspect {bundle} --json {TRUST}")).ok().json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    json["images"][0]["referrers"].as_array().unwrap().iter().map(|r| (text(&r["kind"]), text(&r["digest"]))).collect()
}

#[test]
fn all_that_refers_to_an_image_is_carried() {
    require!("docker-registry", "openssl");
    let referred = Referred::new();
    let source = Registry::start(Access::Plain);
    referred.push(&source, "app/one:1");
    let site = Site::new();
    let name = format!("{}/app/one:1", source.host());
    let _ = site.ferry(&format!("bundle {name} {FOR} -o b.tar {SIGN}")).ok();
    assert_eq!(listed(&site, "b.tar"), referred.carried());
    let told = site.ferry(&format!("inspect b.tar {TRUST}")).ok();
    assert!(told.stdout.contains("with 2 signatures, 1 attestation, 1 sbom, 1 other referrer"), "{}", told.stdout);
    let _ = site.ferry(&format!("verify b.tar {TRUST}")).ok();

    let _ = site.ferry(&format!("bundle {name} {FOR} --no-referrers -o none.tar {SIGN}")).ok();
    assert_eq!(listed(&site, "none.tar"), []);
    let manifest = |keys: &str| {
        site.write("m.yaml", format!("name: n\nplatforms: [linux/amd64]\n{keys}images:\n  - \"{name}\"\n"));
        let _ = site.ferry(&format!("bundle m.yaml -o m.tar {SIGN}")).ok();
        listed(&site, "m.tar")
    };
    assert_eq!(manifest("referrers: [sbom, signature]\n").len(), 3, "the SBOM's own signature, too");
    assert_eq!(manifest("referrers: signature\n"), referred.carried()[..1]);
    assert_eq!(manifest("referrers: false\n"), []);
}

#[test]
fn what_it_costs_to_ask() {
    require!("docker-registry");
    let image = two_platforms(Format::Oci, 1);
    let source = Registry::filled(Access::Plain, &[("app/one:1", &image)]);
    let site = Site::new();
    let mut counts = [0, 0];
    for (count, options) in counts.iter_mut().zip(["-o with.tar", "-o without.tar --no-referrers"]) {
        source.forget_requests();
        let _ = site.ferry(&format!("bundle {}/app/one:1 {FOR} {SIGN} {options}", source.host())).ok();
        let requests = source.requests();
        let manifests = requests.matching(|r| r.method == "GET" && r.path.contains("/manifests/"));
        assert_eq!(manifests.len(), 2, "index and manifest, as without: {requests:?}");
        *count = requests.0.len();
    }
    // for index and manifest four HEADs each, and the API once for both
    assert_eq!(counts[0] - counts[1], 9);
}

#[test]
fn a_locked_build_carries_what_the_lock_lists() {
    require!("docker-registry", "openssl");
    let referred = Referred::new();
    let source = Registry::start(Access::Plain);
    referred.push(&source, "app/one:1");
    let site = Site::new();
    let name = format!("{}/app/one:1", source.host());
    std::fs::create_dir_all(site.at("first")).unwrap();
    std::fs::create_dir_all(site.at("second")).unwrap();
    let _ = site.ferry(&format!("bundle {name} {FOR} --lock lock -o first/b.tar {SIGN}")).ok();
    // signed again by somebody else, and one more referrer
    let digest = referred.image.digest();
    let more = cosign::signatures(digest, &[&Signer::p256(), &Signer::ed25519()]);
    source.push(&format!("app/one:{}", tag(digest, "sig")), &more);
    let extra = Image::referrer(&referred.image, THING, b"extra");
    source.push("app/one", &extra);
    let list = Image::index(Format::Oci, &[&referred.sbom, &extra]);
    source.push(&format!("app/one:{}", referrers_tag(digest)), &list);
    let _ = site.ferry(&format!("bundle {name} {FOR} --lock lock --locked -o second/b.tar {SIGN}")).ok();
    assert!(site.bytes("first/b.tar") == site.bytes("second/b.tar"), "the same bytes");
    let _ = site.ferry(&format!("bundle {name} {FOR} -o third.tar {SIGN}")).ok();
    let now = listed(&site, "third.tar");
    assert!(now.iter().any(|(_, d)| d == more.digest()) && now.iter().any(|(_, d)| d == extra.digest()), "{now:?}");

    // what the lock lists must be there
    let path = format!("/v2/app/one/manifests/{}", referred.thing.digest());
    assert_eq!(source.endpoint().send("DELETE", &path, &[], &[]).unwrap().status, 202);
    let told = site.ferry(&format!("bundle {name} {FOR} --lock lock --locked -o 4.tar {SIGN}")).run().expect_code(7);
    told.says(&[referred.thing.digest(), "gone"]);
}

#[test]
fn a_layouts_own_referrers_are_carried() {
    require!("openssl");
    let image = small(1);
    let signature = cosign::signatures(image.digest(), &[&Signer::p256()]);
    let sbom = Image::referrer(&image, SBOM, b"inside");
    let site = Site::new();
    let sig = tag(image.digest(), "sig");
    let all = [("v1", &image), (sig.as_str(), &signature), ("", &sbom)];
    ferry_tests::images::layout::write_folder(&site.at("layout"), &all);
    let text =
        "name: n\nplatforms: [linux/amd64]\nimages:\n  - {image: 'app/one:1', archive: layout, archiveImage: v1}\n";
    site.write("m.yaml", text);
    let _ = site.ferry(&format!("bundle m.yaml -o b.tar {SIGN}")).ok();
    let expected = [("signature", &signature), ("sbom", &sbom)];
    assert_eq!(listed(&site, "b.tar"), expected.map(|(k, i)| (k.to_owned(), i.digest().to_owned())));
}

#[test]
fn what_is_listed_and_cannot_be_had_is_told() {
    require!("docker-registry");
    let image = small(1);
    let source = Registry::filled(Access::Plain, &[("app/one:1", &image)]);
    let stranger = Image::referrer(&small(2), SBOM, b"of another image");
    source.push("app/one", &stranger);
    let good = Image::referrer(&image, SBOM, b"inside");
    source.push("app/one", &good);
    let list = Image::index(Format::Oci, &[&stranger, &good]);
    source.push(&format!("app/one:{}", referrers_tag(image.digest())), &list);
    let site = Site::new();
    let told = site.ferry(&format!("bundle {}/app/one:1 {FOR} -o b.tar {SIGN}", source.host())).ok();
    told.says(&["warning: ", stranger.digest(), "refers to something else"]);
    assert_eq!(listed(&site, "b.tar"), [("sbom".to_owned(), good.digest().to_owned())]);
}
