//! Signatures in the layout that cosign writes, made with openssl: simple signing under a tag, and sigstore bundles as referrers.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::base64;
use crate::images::{Descriptor, Image, digest};
use crate::tools;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const IN_TOTO: &str = "application/vnd.in-toto+json";
/// The predicate of an image's signature.
pub const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

/// A key pair in files.
#[derive(Debug)]
pub struct Signer {
    folder: TempDir,
    is_ed25519: bool,
}

impl Signer {
    /// ECDSA on the curve P-256, cosign's usual kind.
    #[must_use]
    pub fn p256() -> Self {
        Self::make(&["ecparam", "-name", "prime256v1", "-genkey", "-noout"], false)
    }

    /// Ed25519.
    #[must_use]
    pub fn ed25519() -> Self {
        Self::make(&["genpkey", "-algorithm", "ed25519"], true)
    }

    fn make(generate: &[&str], is_ed25519: bool) -> Self {
        let signer = Self { folder: tempfile::tempdir().unwrap(), is_ed25519 };
        let (secret, public) = (signer.at("key.pem"), signer.at("cosign.pub"));
        tools::succeed("openssl", &[generate, &["-out", &secret]].concat());
        tools::succeed("openssl", &["pkey", "-in", &secret, "-pubout", "-out", &public]);
        signer
    }

    fn at(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// The public key's file.
    #[must_use]
    pub fn public(&self) -> PathBuf {
        self.at("cosign.pub").into()
    }

    /// The digest of the public key in DER.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let der = self.at("public.der");
        tools::succeed("openssl", &["pkey", "-pubin", "-in", &self.at("cosign.pub"), "-outform", "DER", "-out", &der]);
        digest(&fs::read(der).unwrap())
    }

    /// A signature of `message` in base64, as `cosign sign-blob` writes it.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> String {
        let (input, output, key) = (self.at("message"), self.at("signature"), self.at("key.pem"));
        fs::write(&input, message).unwrap();
        let arguments = match self.is_ed25519 {
            true => vec!["pkeyutl", "-sign", "-inkey", &key, "-rawin", "-in", &input, "-out", &output],
            false => vec!["dgst", "-sha256", "-sign", &key, "-out", &output, &input],
        };
        tools::succeed("openssl", &arguments);
        base64(fs::read(output).unwrap())
    }
}

/// The tag beside an image: `tag(image.digest(), "sig")`.
#[must_use]
pub fn tag(digest: &str, suffix: &str) -> String {
    format!("{}.{suffix}", referrers_tag(digest))
}

/// The tag under which clients keep the list of referrers where a registry does not.
#[must_use]
pub fn referrers_tag(digest: &str) -> String {
    digest.replace(':', "-")
}

/// What cosign signs to say that an image has this digest.
#[must_use]
pub fn payload(digest: &str) -> String {
    format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"registry.example/app"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"cosign container image signature"}},"optional":null}}"#
    )
}

/// What stands under the tag `.sig` of the image `digest`: a layer for each signer.
#[must_use]
pub fn signatures(digest: &str, signers: &[&Signer]) -> Image {
    let layers: Vec<(String, String)> =
        signers.iter().map(|signer| (payload(digest), signer.sign(payload(digest).as_bytes()))).collect();
    tagged(&layers, SIMPLE_SIGNING)
}

/// A manifest as `cosign sign` makes it: a config as of an image, and a layer for each payload with its signature.
#[must_use]
pub fn tagged(layers: &[(String, String)], media_type: &str) -> Image {
    let diff_ids: Vec<String> = layers.iter().map(|(payload, _)| digest(payload.as_bytes())).collect();
    let history: Vec<Value> = layers.iter().map(|_| json!({"created": "0001-01-01T00:00:00Z"})).collect();
    let config = json!({
        "architecture": "", "created": "0001-01-01T00:00:00Z", "history": history, "os": "",
        "rootfs": {"type": "layers", "diff_ids": diff_ids}, "config": {},
    });
    let config = config.to_string().into_bytes();
    let layer = |(payload, signature): &(String, String)| {
        let mut layer = Descriptor::new(media_type, payload.as_bytes());
        layer.annotations = BTreeMap::from([("dev.cosignproject.cosign/signature".to_owned(), signature.clone())]);
        layer
    };
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": Descriptor::new("application/vnd.oci.image.config.v1+json", &config),
        "layers": layers.iter().map(layer).collect::<Vec<_>>(),
    });
    let payloads = layers.iter().map(|(payload, _)| payload.clone().into_bytes());
    image(&manifest, payloads.chain([config]))
}

/// A sigstore bundle that refers to the image, as `cosign sign` of version 3 makes it; `predicate` is what it states.
#[must_use]
pub fn bundle(subject: &Descriptor, signer: &Signer, predicate: &str) -> Image {
    let hex = subject.digest.rsplit(':').next().unwrap();
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1", "subject": [{"digest": {"sha256": hex}}],
        "predicateType": predicate, "predicate": {},
    })
    .to_string();
    let message = format!("DSSEv1 {} {IN_TOTO} {} {statement}", IN_TOTO.len(), statement.len());
    let bundle = json!({
        "mediaType": BUNDLE, "verificationMaterial": {"publicKey": {"hint": "x"}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64(&statement), "payloadType": IN_TOTO,
            "signatures": [{"sig": signer.sign(message.as_bytes())}],
        },
    })
    .to_string()
    .into_bytes();
    let empty = b"{}".to_vec();
    let subject = Descriptor { platform: None, ..subject.clone() };
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": BUNDLE,
        "config": Descriptor::new("application/vnd.oci.empty.v1+json", &empty),
        "layers": [Descriptor::new(BUNDLE, &bundle)], "subject": subject,
        "annotations": {
            "dev.sigstore.bundle.content": "dsse-envelope", "dev.sigstore.bundle.predicateType": predicate,
            "org.opencontainers.image.created": "2026-01-01T00:00:00Z",
        },
    });
    image(&manifest, [empty, bundle])
}

/// The image of a manifest and its blobs.
#[must_use]
pub fn image(manifest: &Value, blobs: impl IntoIterator<Item = Vec<u8>>) -> Image {
    let bytes = serde_json::to_vec(manifest).unwrap();
    let mut root = Descriptor::new(manifest["mediaType"].as_str().unwrap(), &bytes);
    root.artifact_type = manifest["artifactType"].as_str().map(ToOwned::to_owned);
    let blobs = blobs.into_iter().map(|blob| (digest(&blob), Arc::new(blob))).collect();
    Image { manifests: vec![(root.clone(), bytes)], root, blobs, single: None }
}
