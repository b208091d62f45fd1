//! Whether bytes are a key's signature of an image. Pure.
//!
//! Two forms, both as cosign writes them: simple signing (cosign, SIGNATURE_SPEC.md), a payload whose signature stands in an
//! annotation beside it; and the sigstore bundle (BUNDLE_SPEC.md), here a DSSE envelope around an in-toto statement. The key alone
//! counts: no certificate and no transparency log is asked.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ferry_archive::SpkiKey as Key;
use ferry_image::{Digest, referrer};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Where the signature of a simple-signing payload stands.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// Where its certificate stands, if it was made with one.
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
const SIGNATURE_TYPE: &str = "cosign container image signature";
const IN_TOTO: &str = "application/vnd.in-toto+json";

/// Protobuf's JSON has padding; not everybody who writes it by hand does.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why something does not prove what is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("is signed by another key")]
    OtherKey,
    #[error("is signed with a certificate (keyless), which no key verifies")]
    Certificate,
    #[error("is signed by the key, and for another image: {0}")]
    OtherImage(String),
    #[error("is signed by the key, and says something else of the image: `{0}`")]
    OtherStatement(String),
    #[error("holds no signature of a form that is known here")]
    UnknownForm,
    #[error("cannot be read: {0}")]
    Unreadable(String),
}

#[derive(Deserialize)]
struct SimpleSigning {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest", alias = "Docker-manifest-digest")]
    digest: String,
}

/// The key of `keys` that signed `payload` for `subject`; `annotations` are those of the payload's layer.
pub(crate) fn simple_signing<'a>(
    payload: &[u8],
    annotations: &BTreeMap<String, String>,
    subject: &Digest,
    keys: &[&'a Key],
) -> Result<&'a Key, Refusal> {
    let signature = annotations.get(SIGNATURE).ok_or(Refusal::UnknownForm)?;
    let signature = BASE64.decode(signature).map_err(|e| Refusal::Unreadable(e.to_string()))?;
    let key = keys.iter().find(|key| key.verifies(payload, &signature)).ok_or_else(|| {
        let keyless = annotations.get(CERTIFICATE).is_some_and(|certificate| !certificate.is_empty());
        if keyless { Refusal::Certificate } else { Refusal::OtherKey }
    })?;
    let SimpleSigning { critical } = json(payload)?;
    if critical.kind != SIGNATURE_TYPE {
        return Err(Refusal::OtherStatement(cut(&critical.kind)));
    }
    if critical.image.digest != subject.to_string() {
        return Err(Refusal::OtherImage(cut(&critical.image.digest)));
    }
    Ok(key)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    verification_material: Option<Material>,
    dsse_envelope: Option<Envelope>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    public_key: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
struct EnvelopeSignature {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    subject: Vec<StatementSubject>,
    predicate_type: String,
}

#[derive(Deserialize)]
struct StatementSubject {
    #[serde(default)]
    digest: BTreeMap<String, String>,
}

/// The key of `keys` that signed the sigstore bundle `json` as the signature of `subject`.
pub(crate) fn sigstore_bundle<'a>(json: &[u8], subject: &Digest, keys: &[&'a Key]) -> Result<&'a Key, Refusal> {
    let bundle: Bundle = self::json(json)?;
    let envelope = bundle.dsse_envelope.ok_or(Refusal::UnknownForm)?;
    let decode = |text: &str| BASE64.decode(text).map_err(|e| Refusal::Unreadable(e.to_string()));
    let payload = decode(&envelope.payload)?;
    let message = pre_authentication(&envelope.payload_type, &payload);
    let mut found = None;
    for signature in &envelope.signatures {
        let signature = decode(&signature.sig)?;
        found = found.or_else(|| keys.iter().find(|key| key.verifies(&message, &signature)));
    }
    let keyless = bundle.verification_material.is_some_and(|material| material.public_key.is_none());
    let key = found.ok_or(if keyless { Refusal::Certificate } else { Refusal::OtherKey })?;
    if envelope.payload_type != IN_TOTO {
        return Err(Refusal::OtherStatement(cut(&envelope.payload_type)));
    }
    let statement: Statement = self::json(&payload)?;
    // the same key may sign that an image failed a test
    if statement.predicate_type != referrer::COSIGN_SIGN {
        return Err(Refusal::OtherStatement(cut(&statement.predicate_type)));
    }
    let mut digests = statement.subject.iter().filter_map(|s| s.digest.get(subject.algorithm().name()));
    if digests.clone().any(|hex| hex == subject.hex()) {
        return Ok(key);
    }
    Err(Refusal::OtherImage(digests.next().map_or_else(|| "none".to_owned(), |hex| cut(hex))))
}

/// JSON is UTF-8 throughout: what other readers refuse has no meaning here either.
fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    let text = std::str::from_utf8(bytes).map_err(|e| Refusal::Unreadable(e.to_string()))?;
    serde_json::from_str(text).map_err(|e| Refusal::Unreadable(e.to_string()))
}

/// What a DSSE signature is over (dsse, protocol.md, "PAE").
fn pre_authentication(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// A text of unknown length, for a message.
fn cut(text: &str) -> String {
    text.chars().take(100).collect::<String>().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    // made with openssl: `dgst -sha256 -sign`, and `pkeyutl -sign -rawin` for Ed25519
    const EC: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAELv/y+2IJNY8qh7N54PC9m1NZcqOr
bn7FKPjTfF0zqzY862WscCsR1ZS9tqf8KhG3Xu3OZqn10wxqkn9GGj6yBA==
-----END PUBLIC KEY-----
";
    const OTHER_EC: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEE08n3TxwCR8b+DwNxQ6btm5yV8ip
GqYe8YM+e+yzr+PCDbPLArh9VYH01QAUKapc5NZqB16yIgQ/zeLNHaeCWw==
-----END PUBLIC KEY-----
";
    const ED: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEARIGHn0OlGVZ2DhXHWmcIyNiWZcRq5fcb0E1OCpv8Kfo=
-----END PUBLIC KEY-----
";
    const PAYLOAD: &str = r#"{"critical":{"identity":{"docker-reference":"registry.example/app"},"image":{"docker-manifest-digest":"sha256:97e9d7a16021e6d07fbe28cce398f5847fc00c574991fbff65d95fd5e032d389"},"type":"cosign container image signature"},"optional":null}"#;
    const PAYLOAD_EC: &str =
        "MEQCICoYw9aeDyJ5M7CHUz1B/nn7yiKWkP0NUSTTCYC/ylICAiBauldLQ3p+0/+yZ33HNDROA3Mwo7HPSOmtecC0hTRQMA==";
    const PAYLOAD_ED: &str = "ipHkyj/wsj9m43tBCZ7vdErEQIaa9d0cM1O3p4y4h+1GJpwSPZYXpqeHTMkDKPJTuLYtSKJM3M+J4D9lZ79vCw==";
    const STATEMENT: &str = r#"{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"97e9d7a16021e6d07fbe28cce398f5847fc00c574991fbff65d95fd5e032d389"}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}"#;
    const STATEMENT_EC: &str =
        "MEUCIFdb5aWdn4rgJpiEUSZ8qN6y5cycFibjvqilib+tqQz1AiEAg9ZS11DQYgbDKXbchlG4gpgNmwMXo4XE7wk6LpHQPfY=";
    const STATEMENT_ED: &str =
        "e2RK5GSt2FH/txXuMO4Y93t4QlbayQ+VBIrzsj0O4APTiDFcMx4eM2yPlvX3ZpiirK1SZAXkUEykCslQn2I1BA==";

    fn key(pem: &str) -> Key {
        Key::from_pem(pem.as_bytes()).expect("key")
    }

    fn subject() -> Digest {
        Digest::of(b"the image")
    }

    fn signed(signature: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(SIGNATURE.to_owned(), signature.to_owned())])
    }

    /// What stands before an Ed25519 key (RFC 8410).
    const ED25519_PREFIX: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

    /// A pair of ours, for what openssl was not asked to sign.
    struct Pair(ring::signature::Ed25519KeyPair, Key);

    impl Pair {
        fn new() -> Self {
            use ring::signature::KeyPair as _;
            let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("pair");
            let der = [ED25519_PREFIX, pair.public_key().as_ref()].concat();
            let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(der));
            let key = key(&pem);
            Self(pair, key)
        }

        fn sign(&self, message: &[u8]) -> String {
            BASE64.encode(self.0.sign(message))
        }

        fn simple(&self, payload: &str) -> Result<(), Refusal> {
            simple_signing(payload.as_bytes(), &signed(&self.sign(payload.as_bytes())), &subject(), &[&self.1])
                .map(drop)
        }

        fn statement(&self, payload_type: &str, payload: &str) -> Result<(), Refusal> {
            let sig = self.sign(&pre_authentication(payload_type, payload.as_bytes()));
            sigstore_bundle(&bundle(payload_type, payload, &sig), &subject(), &[&self.1]).map(drop)
        }
    }

    fn bundle(payload_type: &str, payload: &str, sig: &str) -> Vec<u8> {
        let json = json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {"publicKey": {"hint": "x"}},
            "dsseEnvelope": {
                "payload": BASE64.encode(payload), "payloadType": payload_type, "signatures": [{"sig": sig}],
            },
        });
        json.to_string().into_bytes()
    }

    #[test]
    fn what_openssl_signed_verifies_and_nothing_else_does() {
        let (ec, other, ed) = (key(EC), key(OTHER_EC), key(ED));
        let simple = |payload: &str, signature: &str, keys: &[&Key]| {
            simple_signing(payload.as_bytes(), &signed(signature), &subject(), keys)
                .map(|key| key.fingerprint().clone())
        };
        let dsse = |payload: &str, signature: &str, keys: &[&Key]| {
            sigstore_bundle(&bundle(IN_TOTO, payload, signature), &subject(), keys).map(|key| key.fingerprint().clone())
        };
        for (check, payload, by_ec, by_ed) in [
            (&simple as &dyn Fn(&str, &str, &[&Key]) -> _, PAYLOAD, PAYLOAD_EC, PAYLOAD_ED),
            (&dsse, STATEMENT, STATEMENT_EC, STATEMENT_ED),
        ] {
            assert_eq!(check(payload, by_ec, &[&ec]), Ok(ec.fingerprint().clone()));
            assert_eq!(check(payload, by_ed, &[&ed]), Ok(ed.fingerprint().clone()));
            assert_eq!(check(payload, by_ec, &[&other, &ed, &ec]), Ok(ec.fingerprint().clone()), "any of the keys");
            for (signature, keys) in
                [(by_ec, &[&other][..]), (by_ec, &[&ed]), (by_ed, &[&ec]), ("", &[&ec]), (by_ec, &[])]
            {
                assert_eq!(check(payload, signature, keys), Err(Refusal::OtherKey), "{signature} {keys:?}");
            }
            for at in [0, payload.len() / 2, payload.len() - 1] {
                let mut flipped = payload.as_bytes().to_vec();
                flipped[at] ^= 1;
                let flipped = String::from_utf8(flipped).expect("ASCII");
                assert_eq!(check(&flipped, by_ec, &[&ec]), Err(Refusal::OtherKey), "byte {at}");
            }
            assert!(matches!(check(payload, "not base64!", &[&ec]), Err(Refusal::Unreadable(_))));
        }
        // a signature of the one form is none of the other: DSSE signs the type too
        assert_eq!(dsse(STATEMENT, PAYLOAD_EC, &[&ec]), Err(Refusal::OtherKey));
    }

    #[test]
    fn a_payload_must_be_an_image_signature_of_this_image() {
        let pair = Pair::new();
        assert_eq!(pair.simple(PAYLOAD), Ok(()));
        assert_eq!(
            pair.simple(&PAYLOAD.replace("docker-manifest", "Docker-manifest")),
            Ok(()),
            "as the specification spells it"
        );
        let table = [
            (PAYLOAD.replace("97e9", "0000"), "is signed by the key, and for another image: sha256:0000d7"),
            (PAYLOAD.replace("cosign container", "atomic container"), "something else of the image: `atomic container"),
            (PAYLOAD.replace("\"type\"", "\"kind\""), "cannot be read: missing field `type`"),
            (PAYLOAD.replace(r#""optional":null"#, r#""critical":{}"#), "cannot be read: "),
            ("not json".to_owned(), "cannot be read: "),
        ];
        for (payload, says) in table {
            let refusal = pair.simple(&payload).expect_err(&payload).to_string();
            assert!(refusal.contains(says), "{payload}: {refusal}");
        }
        let latin = PAYLOAD.replace("registry.example", "registry.\u{1}").into_bytes();
        let latin: Vec<u8> = latin.into_iter().map(|b| if b == 1 { 0xe9 } else { b }).collect();
        let signature = signed(&BASE64.encode(pair.0.sign(&latin)));
        let refused = simple_signing(&latin, &signature, &subject(), &[&pair.1]).map(drop);
        assert!(matches!(refused, Err(Refusal::Unreadable(_))), "{refused:?}");
        let keyless = BTreeMap::from([
            (SIGNATURE.to_owned(), PAYLOAD_EC.to_owned()),
            (CERTIFICATE.to_owned(), "-----BEGIN CERTIFICATE-----".to_owned()),
        ]);
        let refused = simple_signing(PAYLOAD.as_bytes(), &keyless, &subject(), &[&pair.1]).map(drop);
        assert_eq!(refused, Err(Refusal::Certificate));
        let bare = simple_signing(PAYLOAD.as_bytes(), &BTreeMap::new(), &subject(), &[&pair.1]).map(drop);
        assert_eq!(bare, Err(Refusal::UnknownForm));
    }

    #[test]
    fn a_statement_must_be_the_signature_of_this_image() {
        let pair = Pair::new();
        assert_eq!(pair.statement(IN_TOTO, STATEMENT), Ok(()));
        // one version of cosign left the predicate out
        assert_eq!(pair.statement(IN_TOTO, &STATEMENT.replace(r#","predicate":{}"#, "")), Ok(()));
        let two = STATEMENT.replace("\"subject\":[", "\"subject\":[{\"name\":\"x\"},{\"digest\":{\"sha256\":\"00\"}},");
        assert_eq!(pair.statement(IN_TOTO, &two), Ok(()));
        let table = [
            (IN_TOTO, STATEMENT.replace("97e9", "0000"), "for another image: 0000d7"),
            (IN_TOTO, STATEMENT.replace("\"sha256\"", "\"sha512\""), "for another image: none"),
            (
                IN_TOTO,
                STATEMENT.replace("sigstore.dev/cosign/sign/v1", "cosign.sigstore.dev/attestation/vuln/v1"),
                "attestation/vuln/v1",
            ),
            ("text/plain", STATEMENT.to_owned(), "something else of the image: `text/plain`"),
            (IN_TOTO, "[]".to_owned(), "cannot be read: "),
        ];
        for (payload_type, payload, says) in table {
            let refusal = pair.statement(payload_type, &payload).expect_err(&payload).to_string();
            assert!(refusal.contains(says), "{payload}: {refusal}");
        }
        for (json, refusal) in [
            (json!({"messageSignature": {}}), Refusal::UnknownForm),
            (
                json!({"verificationMaterial": {"certificate": {}}, "dsseEnvelope": {"payload": "", "payloadType": "", "signatures": []}}),
                Refusal::Certificate,
            ),
        ] {
            let refused = sigstore_bundle(json.to_string().as_bytes(), &subject(), &[&pair.1]).map(drop);
            assert_eq!(refused, Err(refusal));
        }
        assert!(matches!(sigstore_bundle(b"", &subject(), &[&pair.1]), Err(Refusal::Unreadable(_))));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400), sig in ".{0,80}") {
            let key = key(EC);
            let _ = Key::from_pem(&bytes);
            proptest::prop_assert!(simple_signing(&bytes, &signed(&sig), &subject(), &[&key]).is_err());
            proptest::prop_assert!(sigstore_bundle(&bytes, &subject(), &[&key]).is_err());
        }
    }
}
