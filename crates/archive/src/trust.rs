//! Whose bundles are believed. Keys come from the user, never from a bundle.

use std::collections::BTreeSet;
use std::path::Path;

use crate::Error;
use crate::keys::{KeyId, PublicKey, parse_signature};

/// The keys that are trusted, and how much of them is asked.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// The trusted keys.
    pub keys: Vec<PublicKey>,
    /// Take unsigned bundles, and those signed by other keys. A signature by a trusted key must hold all the same.
    pub allow_unsigned: bool,
    /// How many distinct trusted keys must have signed; 0 counts as 1.
    pub require: usize,
}

impl Trust {
    /// Whether a bundle that no trusted key signed is taken. Who asks for two signatures does not mean none.
    #[must_use]
    pub fn is_lenient(&self) -> bool {
        self.allow_unsigned && self.require < 2
    }

    /// Checks the signature file of a bundle over its sums; the trusted key that made it, if one did. `None` is returned only under
    /// `allow_unsigned`.
    ///
    /// # Errors
    /// [`Error::Unsigned`], [`Error::UnknownKey`], [`Error::Signature`], [`Error::TooFewSignatures`].
    pub fn check(&self, path: &Path, sums: &[u8], signature: Option<&str>) -> Result<Option<KeyId>, Error> {
        let lenient = self.is_lenient();
        let Some(text) = signature else {
            let unsigned = Error::Unsigned { path: path.to_owned() };
            return if lenient { Ok(None) } else { Err(unsigned) };
        };
        let fail = |why: &str| Error::Signature { path: path.to_owned(), why: why.to_owned() };
        let parsed = parse_signature(text).ok_or_else(|| fail("its text is not in the form that ferry writes"))?;
        // Key ids are not secret and can be made to collide: every key of that id is tried.
        let named: Vec<&PublicKey> = self.keys.iter().filter(|k| k.key_id() == parsed.key).collect();
        if named.is_empty() {
            let trusted = self.keys.iter().map(PublicKey::key_id).collect();
            let unknown = Error::UnknownKey { path: path.to_owned(), key: parsed.key, trusted };
            return if lenient { Ok(None) } else { Err(unknown) };
        }
        if !named.iter().any(|key| key.verifies(sums, text)) {
            return Err(fail(&format!("it is not by key {}, which it names", parsed.key)));
        }
        let signers = BTreeSet::from([parsed.key]);
        if signers.len() < self.require {
            let (required, found) = (self.require, signers.len());
            return Err(Error::TooFewSignatures { path: path.to_owned(), required, found });
        }
        Ok(Some(parsed.key))
    }
}
