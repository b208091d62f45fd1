//! `verify:`: an image that is not signed as asked is refused, with what was found instead.

use std::fs;

use ferry_tests::cosign::{self, Signer, referrers_tag, tag};
use ferry_tests::ferry::Outcome;
use ferry_tests::images::{Format, Image};
use ferry_tests::registry::{Access, Registry};
use ferry_tests::require;
use ferry_tests::site::Site;
use serde_json::{Value, json};

use crate::{SIGN, TRUST, small, two_platforms};

/// A source with `app/one:1`, and a site with the key of whoever should have signed it.
struct Signed {
    source: Registry,
    site: Site,
    vendor: Signer,
    image: Image,
}

impl Signed {
    fn new(image: Image, vendor: Signer) -> Self {
        let source = Registry::filled(Access::Plain, &[("app/one:1", &image)]);
        let site = Site::new();
        fs::create_dir(site.at("keys")).unwrap();
        fs::copy(vendor.public(), site.at("keys/vendor.pub")).unwrap();
        Self { source, site, vendor, image }
    }

    /// Puts this under the image's tag `.sig`.
    fn tagged(&self, signature: &Image) {
        self.source.push(&format!("app/one:{}", tag(self.image.digest(), "sig")), signature);
    }

    /// Puts these as referrers of the image.
    fn referring(&self, referrers: &[&Image]) {
        for referrer in referrers {
            self.source.push("app/one", referrer);
        }
        let list = Image::index(Format::Oci, referrers);
        self.source.push(&format!("app/one:{}", referrers_tag(self.image.digest())), &list);
    }

    fn bundle(&self, options: &str) -> Outcome {
        let host = self.source.host();
        let manifest = format!(
            "name: n\nplatforms: [linux/amd64]\nverify:\n  {host}/app/*: keys/vendor.pub\nimages:\n  - \"{host}/app/one:1\"\n"
        );
        self.site.write("m.yaml", manifest);
        self.site.ferry(&format!("bundle m.yaml -o b.tar {SIGN} {options}")).run()
    }

    /// What the bundle says was verified.
    fn verified(&self, options: &str) -> Value {
        let _ = self.bundle(options).expect_code(0);
        let json = self.site.ferry(&format!("inspect b.tar --json {TRUST}")).ok().json();
        json["images"][0]["verified"].clone()
    }

    /// What the bundle must say, the signature standing in `signature`.
    fn expected(&self, subject: &str, signature: &Image) -> Value {
        json!([{
            "key": self.vendor.fingerprint(), "keyFile": "keys/vendor.pub",
            "subject": subject, "signature": signature.digest(),
        }])
    }

    /// It is refused, and these words say why.
    fn refused(&self, words: &[&str]) {
        let told = self.bundle("").expect_code(7);
        told.says(&["app/one", self.image.digest(), "is not signed by `keys/vendor.pub`", "hint"]).says(words);
        assert!(!self.site.at("b.tar").exists());
    }
}

#[test]
fn what_cosign_signs_is_accepted_and_recorded() {
    require!("docker-registry", "openssl");
    for vendor in [Signer::p256(), Signer::ed25519()] {
        let signed = Signed::new(small(1), vendor);
        // among others, as cosign adds signatures
        let signature = cosign::signatures(signed.image.digest(), &[&Signer::p256(), &signed.vendor]);
        signed.tagged(&signature);
        let expected = signed.expected(signed.image.digest(), &signature);
        assert_eq!(signed.verified(""), expected);
        let told = signed.site.ferry(&format!("inspect b.tar {TRUST}")).ok();
        assert!(told.stdout.contains("was signed by keys/vendor.pub"), "{}", told.stdout);
        // it counts, and is recorded, where it is not carried
        assert_eq!(signed.verified("--no-referrers"), expected);
        let plan = signed.bundle("--dry-run --json").expect_code(0).json();
        assert_eq!(plan["images"][0]["signedBy"], json!(["keys/vendor.pub"]));
    }
}

#[test]
fn a_sigstore_bundle_is_accepted() {
    require!("docker-registry", "openssl");
    for vendor in [Signer::p256(), Signer::ed25519()] {
        let signed = Signed::new(two_platforms(Format::Oci, 1), vendor);
        let provenance = cosign::bundle(&signed.image.root, &signed.vendor, "https://slsa.dev/provenance/v1");
        signed.referring(&[&provenance]);
        signed.refused(&[provenance.digest(), "says something else of the image: `https://slsa.dev/provenance/v1`"]);
        let signature = cosign::bundle(&signed.image.root, &signed.vendor, cosign::SIGN);
        signed.referring(&[&provenance, &signature]);
        assert_eq!(signed.verified(""), signed.expected(signed.image.digest(), &signature));
    }
}

#[test]
fn a_platforms_own_signature_will_do() {
    require!("docker-registry", "openssl");
    let signed = Signed::new(two_platforms(Format::Oci, 1), Signer::p256());
    let platform = signed.image.platform("linux/amd64").unwrap().digest.clone();
    let signature = cosign::signatures(&platform, &[&signed.vendor]);
    signed.source.push(&format!("app/one:{}", tag(&platform, "sig")), &signature);
    assert_eq!(signed.verified(""), signed.expected(&platform, &signature));
    // not where the other platform is carried, too
    let host = signed.source.host();
    let two = format!(
        "name: n\nplatforms: all\nverify: {{'{host}/app/one': keys/vendor.pub}}\nimages: ['{host}/app/one:1']\n"
    );
    signed.site.write("two.yaml", two);
    let told = signed.site.ferry(&format!("bundle two.yaml -o two.tar {SIGN}")).run().expect_code(7);
    told.says(&["is not signed by"]);
}

#[test]
fn what_is_not_signed_as_asked_is_refused_with_the_reason() {
    require!("docker-registry", "openssl");
    let signed = Signed::new(small(1), Signer::p256());
    let digest = signed.image.digest();
    signed.refused(&["no signature is found", &tag(digest, "sig")]);
    signed.tagged(&cosign::signatures(digest, &[&Signer::p256()]));
    signed.refused(&[&tag(digest, "sig"), "is signed by another key"]);
    // the signature of another image, put under this one's tag
    let other = small(2);
    signed.tagged(&cosign::signatures(other.digest(), &[&signed.vendor]));
    signed.refused(&["is signed by the key, and for another image", other.digest()]);
    // a true signature over changed bytes
    let (payload, genuine) = (cosign::payload(digest), cosign::signatures(other.digest(), &[&signed.vendor]));
    let manifest: Value = serde_json::from_slice(&genuine.manifests[0].1).unwrap();
    let signature = manifest["layers"][0]["annotations"]["dev.cosignproject.cosign/signature"].as_str().unwrap();
    let simple = "application/vnd.dev.cosign.simplesigning.v1+json";
    signed.tagged(&cosign::tagged(&[(payload, signature.to_owned())], simple));
    signed.refused(&["is signed by another key"]);
    signed.tagged(&cosign::tagged(&[("not json".to_owned(), "AAAA".to_owned())], simple));
    signed.refused(&["is signed by another key"]);
}

#[test]
fn a_lock_keeps_the_proof() {
    require!("docker-registry", "openssl");
    let signed = Signed::new(small(1), Signer::p256());
    let signature = cosign::signatures(signed.image.digest(), &[&signed.vendor]);
    signed.tagged(&signature);
    for options in ["", "--no-referrers"] {
        let _ = signed.bundle(&format!("--lock lock {options}")).expect_code(0);
        let first = signed.site.bytes("b.tar");
        signed.tagged(&cosign::signatures(signed.image.digest(), &[&Signer::ed25519(), &signed.vendor]));
        let _ = signed.bundle(&format!("--lock lock --locked {options}")).expect_code(0);
        assert!(signed.site.bytes("b.tar") == first, "the same bytes: {options}");
        signed.tagged(&signature);
    }
    // a lock from before anything was to be verified has no proof
    let host = signed.source.host();
    signed.site.write(
        "bare.yaml",
        format!("name: n\nplatforms: [linux/amd64]\nreferrers: false\nimages: ['{host}/app/one:1']\n"),
    );
    let _ = signed.site.ferry(&format!("bundle bare.yaml --lock bare.lock -o bare.tar {SIGN}")).ok();
    let told = signed.bundle("--lock bare.lock --locked").expect_code(7);
    told.says(&["the lock has no signature of it"]);
}

#[test]
fn keys_that_cannot_be_used_are_told_together() {
    require!("docker-registry", "openssl");
    let signed = Signed::new(small(1), Signer::p256());
    let host = signed.source.host();
    let site = &signed.site;
    site.write("rsa.pub", "-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n");
    let images = format!("images:\n  - {{image: '{host}/app/one:1', verify: [gone.pub, rsa.pub, ferry.key]}}\n");
    site.write("m.yaml", format!("name: n\nplatforms: [linux/amd64]\n{images}"));
    let told = site.ferry(&format!("bundle m.yaml -o b.tar {SIGN}")).run().expect_code(6);
    told.says(&[
        "(line 4)",
        "gone.pub",
        "rsa.pub` cannot be used: it is neither an ECDSA key",
        "ferry.key` cannot be used: it is no public key",
    ]);
    // the output must not be a key
    site.write(
        "m.yaml",
        format!("name: n\nplatforms: [linux/amd64]\nverify: {{'*': keys/vendor.pub}}\nimages: ['{host}/app/one:1']\n"),
    );
    let told = site.ferry(&format!("bundle m.yaml -o keys/vendor.pub {SIGN}")).run().expect_code(2);
    told.says(&["would replace"]);
}
