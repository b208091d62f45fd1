//! What refers to an image: signatures by a key, and the lists of them that stand at a target.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ferry_bundle::fuzz::{Key, sigstore_bundle, simple_signing};
use ferry_image::{Descriptor, Digest, Manifest};
use ferry_install::fuzz::{Merged, merge, with_entries};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";
const IN_TOTO: &str = "application/vnd.in-toto+json";

/// What stands before an Ed25519 key (RFC 8410).
const ED25519: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A pair of the test's own, and the key of somebody who signs nothing here.
struct Pairs {
    ours: Ed25519KeyPair,
    key: Key,
    strangers: Key,
}

static PAIRS: LazyLock<Pairs> = LazyLock::new(|| {
    let pair = |seed: u8| Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("seed");
    let key = |pair: &Ed25519KeyPair| {
        let der = [&ED25519, pair.public_key().as_ref()].concat();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(&der));
        let key = Key::from_pem(pem.as_bytes()).expect("key");
        assert_eq!(*key.fingerprint(), Digest::of(&der));
        key
    };
    let ours = pair(7);
    Pairs { key: key(&ours), strangers: key(&pair(8)), ours }
});

/// A payload that is signed is good for what it says, read as a plain JSON value, and for nothing else; one that is not is good for nothing.
pub fn cosign(data: &[u8]) {
    let Pairs { ours, key, strangers } = &*PAIRS;
    let subject = Digest::of(b"the image");
    let value: Value = serde_json::from_slice(data).unwrap_or_default();
    let _ = Key::from_pem(data);
    assert!(sigstore_bundle(data, &subject, strangers).is_err());

    let sign = |message: &[u8]| STANDARD.encode(ours.sign(message));
    let annotations = BTreeMap::from([(SIGNATURE.to_owned(), sign(data))]);
    assert!(simple_signing(data, &annotations, &subject, strangers).is_err());
    match simple_signing(data, &annotations, &subject, key) {
        Ok(()) => {
            let image = &value["critical"]["image"];
            let stated = [&image["docker-manifest-digest"], &image["Docker-manifest-digest"]];
            assert!(stated.contains(&&json!(subject.to_string())));
            assert_eq!(value["critical"]["type"], "cosign container image signature");
        }
        Err(why) => is_a_line(&why),
    }

    let head = format!("DSSEv1 {} {IN_TOTO} {} ", IN_TOTO.len(), data.len());
    let signature = sign(&[head.as_bytes(), data].concat());
    let bundle = json!({"dsseEnvelope": {
        "payload": STANDARD.encode(data), "payloadType": IN_TOTO, "signatures": [{"sig": signature}],
    }})
    .to_string();
    assert!(sigstore_bundle(bundle.as_bytes(), &subject, strangers).is_err());
    match sigstore_bundle(bundle.as_bytes(), &subject, key) {
        Ok(()) => {
            assert_eq!(value["predicateType"], SIGN);
            let subjects = value["subject"].as_array().into_iter().flatten();
            assert!(subjects.map(|s| &s["digest"]["sha256"]).any(|hex| hex == subject.hex()));
        }
        Err(why) => is_a_line(&why),
    }
}

fn is_a_line(text: &str) {
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

/// Two lines: what stands at a target, and what is to join it. Nothing that is there is lost, and the second time there is nothing to do.
pub fn referrer_lists(data: &[u8]) {
    let at = data.iter().position(|b| *b == b'\n').unwrap_or(data.len());
    let (there, ours) = (&data[..at], data.get(at + 1..).unwrap_or_default());
    if let Merged::Both { manifest, config } = merge(there, ours) {
        for list in [there, ours] {
            assert_eq!(merge(&manifest, list), Merged::There);
        }
        match Manifest::parse(&manifest, None) {
            Ok(Manifest::Image(image)) => assert_eq!(image.config.digest, Digest::of(&config)),
            other => panic!("{other:?}"),
        }
    }
    let entries = [Descriptor::of("a/a", b"a"), Descriptor::of("b/b", b"b")];
    if let Ok(Some(list)) = with_entries(there, &entries) {
        assert_eq!(with_entries(&list, &entries), Ok(None));
        let digests = |bytes: &[u8]| match Manifest::parse(bytes, None) {
            Ok(Manifest::Index(index)) => index.manifests.into_iter().map(|d| d.digest).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        let (before, after) = (digests(there), digests(&list));
        assert_eq!(after[..before.len()], before);
        assert!(entries.iter().all(|entry| after.contains(&entry.digest)));
    }
}
