//! Public keys as cosign and openssl write them: a `SubjectPublicKeyInfo` in PEM, ECDSA over P-256 or Ed25519. Pure.
//!
//! Images may be signed with them (`ferry-bundle`), and bundles, in a signature beside them.

use ferry_image::Digest;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;

/// What stands before the point of an uncompressed P-256 key (RFC 5480).
const P256_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// What stands before an Ed25519 key (RFC 8410).
const ED25519_PREFIX: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The object identifier of RSA keys (RFC 8017), in DER.
const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const IS_RSA: &str = "it is an RSA key, which ferry does not take: ECDSA of the curve P-256, or Ed25519";

/// A public key in cosign's format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpkiKey {
    algorithm: Algorithm,
    bytes: Vec<u8>,
    fingerprint: Digest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    P256,
    Ed25519,
}

impl SpkiKey {
    /// Reads a PEM file, as cosign and openssl write it.
    ///
    /// # Errors
    /// What it is instead, in words that follow its name.
    pub fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let text = String::from_utf8_lossy(pem);
        if text.contains("PRIVATE KEY-----") {
            return Err("it is a private key; name the public one".to_owned());
        }
        if text.contains("BEGIN RSA PUBLIC KEY-----") {
            return Err(IS_RSA.to_owned());
        }
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem)
            .map_err(|_| "it is no public key in PEM (`-----BEGIN PUBLIC KEY-----`)".to_owned())?;
        let (algorithm, bytes) = match (der.strip_prefix(P256_PREFIX), der.strip_prefix(ED25519_PREFIX)) {
            (Some(point), _) if point.len() == 65 && point[0] == 4 => (Algorithm::P256, point),
            (_, Some(key)) if key.len() == 32 => (Algorithm::Ed25519, key),
            _ if contains(&der, RSA) => return Err(IS_RSA.to_owned()),
            _ => return Err("it is neither an ECDSA key of the curve P-256 nor an Ed25519 key".to_owned()),
        };
        Ok(Self { algorithm, bytes: bytes.to_vec(), fingerprint: Digest::of(&der) })
    }

    /// The digest of its DER form (`SubjectPublicKeyInfo`), by which people know it.
    #[must_use]
    pub fn fingerprint(&self) -> &Digest {
        &self.fingerprint
    }

    /// Whether `signature` is this key's, over `message`: ECDSA in ASN.1 over its SHA-256, or plain Ed25519.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &dyn VerificationAlgorithm = match self.algorithm {
            Algorithm::P256 => &ECDSA_P256_SHA256_ASN1,
            Algorithm::Ed25519 => &ED25519,
        };
        UnparsedPublicKey::new(algorithm, &self.bytes).verify(message, signature).is_ok()
    }

    /// The key itself: an Ed25519 key has the same 32 bytes in minisign's files.
    pub(crate) fn material(&self) -> &[u8] {
        &self.bytes
    }
}

fn contains(der: &[u8], part: &[u8]) -> bool {
    der.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EC: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAELv/y+2IJNY8qh7N54PC9m1NZcqOr
bn7FKPjTfF0zqzY862WscCsR1ZS9tqf8KhG3Xu3OZqn10wxqkn9GGj6yBA==
-----END PUBLIC KEY-----
";

    #[test]
    fn keys_are_named_by_what_they_are() {
        let key = |pem: &str| SpkiKey::from_pem(pem.as_bytes());
        // openssl pkey -pubin -in ec.pub -outform DER | sha256sum
        let fingerprint = "28d869871325d3fb23776149cb42d9b35916885d6523e865fd7b290da02233f5";
        assert_eq!(key(EC).expect("key").fingerprint.hex(), fingerprint);
        assert_eq!(key(&format!("a line before\r\n{}", EC.replace('\n', "\r\n"))), key(EC));
        let compressed = "-----BEGIN PUBLIC KEY-----\nMDkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDIgACLv/y+2IJNY8qh7N54PC9m1NZcqOr\nbn7FKPjTfF0zqzY=\n-----END PUBLIC KEY-----\n";
        // openssl genrsa 1024 | openssl rsa -pubout
        let rsa = "-----BEGIN PUBLIC KEY-----\nMIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC6ZUYa+j2Q1WkpAyYYDFc5gU6w\nN/j2jeOqsgJU0neYsc7lcvPBjueWNEGS+tses2uwtZEhsp3sMOi1TaIybMxngslm\nMfDMTfxizsedynYQ3f8BUwJdptNlcyFhSmO4tUxokBhiSPgHljw/cxZZhMC/ssE8\nWxFadrz4lkbe37glRQIDAQAB\n-----END PUBLIC KEY-----\n";
        for (pem, says) in [
            ("", "no public key in PEM"),
            ("untrusted comment: minisign public key 1\nRWQ=\n", "no public key in PEM"),
            (
                "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAA==\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n",
                "private key",
            ),
            ("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", "no public key in PEM"),
            ("-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n", "neither an ECDSA key"),
            (compressed, "neither an ECDSA key"),
            (rsa, "an RSA key"),
            ("-----BEGIN RSA PUBLIC KEY-----\nAA==\n-----END RSA PUBLIC KEY-----\n", "an RSA key"),
        ] {
            let why = key(pem).map(|_| ()).expect_err(pem);
            assert!(why.contains(says), "{pem}: {why}");
        }
    }
}
