//! Public keys of either format, and the ones that are trusted.

use std::fmt;

use ferry_image::Digest;

use crate::keys::{KeyId, MinisignKey};
use crate::{Error, SpkiKey};

/// A public key that bundles are signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// minisign's, and ferry's own.
    Minisign(MinisignKey),
    /// cosign's.
    Spki(SpkiKey),
}

/// By what a key is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyRef {
    /// The id that minisign gives to its keys.
    Minisign(KeyId),
    /// The digest of a key in DER.
    Spki(Digest),
}

/// A key that is trusted, and what the user calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedKey {
    /// The stem of its file.
    pub name: Option<String>,
    /// The key.
    pub key: PublicKey,
}

impl PublicKey {
    /// Reads the text of a public key file: minisign's, its base64 line alone, or a PEM as cosign writes it.
    ///
    /// # Errors
    /// [`Error::Key`].
    pub fn from_text(text: &str) -> Result<Self, Error> {
        if text.contains("-----BEGIN ") {
            return SpkiKey::from_pem(text.as_bytes()).map(Self::Spki).map_err(|why| Error::PublicKey { why });
        }
        MinisignKey::from_text(text).map(Self::Minisign)
    }

    /// By what it is known.
    #[must_use]
    pub fn id(&self) -> KeyRef {
        match self {
            Self::Minisign(key) => KeyRef::Minisign(key.key_id()),
            Self::Spki(key) => KeyRef::Spki(key.fingerprint().clone()),
        }
    }

    /// Whether both are one key, in whatever format: the same Ed25519 key in minisign's and in cosign's is not two signers.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.material() == other.material()
    }

    fn material(&self) -> &[u8] {
        match self {
            Self::Minisign(key) => key.material(),
            Self::Spki(key) => key.material(),
        }
    }
}

impl From<PublicKey> for TrustedKey {
    fn from(key: PublicKey) -> Self {
        Self { name: None, key }
    }
}

/// minisign's sixteen hex digits, or `sha256:` and the first twelve of the fingerprint.
impl fmt::Display for KeyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Minisign(id) => write!(f, "{id}"),
            Self::Spki(digest) => write!(f, "{}:{}", digest.algorithm().name(), digest.short()),
        }
    }
}

/// `release-2026 (38291067FB5BFB9F)`, or the id alone.
impl fmt::Display for TrustedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} ({})", self.key.id()),
            None => write!(f, "{}", self.key.id()),
        }
    }
}
