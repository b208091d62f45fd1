//! Whose bundles are believed. Keys come from the user, never from a bundle. Pure.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::keys::{KeyId, Signature, parse_signature};
use crate::signers::{Beside, Form, Signed};
use crate::{Error, KeyRef, PublicKey, TrustedKey};

/// The keys that are trusted, and how many of them are asked.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// The trusted keys. Two that are the same count as one, under the first one's name.
    pub keys: Vec<TrustedKey>,
    /// Take unsigned bundles, and those signed by other keys. A signature by a trusted key must hold all the same.
    pub allow_unsigned: bool,
    /// How many distinct trusted keys must have signed; 0 counts as 1.
    pub require: usize,
}

/// What becomes of a signature beside the bundle.
enum Verdict<'a> {
    /// It is a trusted key's.
    Holds(&'a TrustedKey),
    /// It is not by a trusted key, and does not say so.
    Ignored(String),
    /// It is no signature, and does not say that it is a trusted key's.
    Nothing(String),
    /// It says that it is a trusted key's, and is not as that key made it.
    Broken(String),
}

impl Trust {
    /// Checks the signature of a list of volumes, which must also be the one of this bundle by its `comment`.
    ///
    /// # Errors
    /// As [`check`](Self::check); [`Error::VolumeList`] when it does not hold, or is of another bundle.
    pub(crate) fn check_list(
        &self,
        path: &Path,
        text: &[u8],
        signature: Option<&str>,
        comment: Option<&str>,
    ) -> Result<(), Error> {
        // one signature is all that a list has
        let one = Self { require: 1, ..self.clone() };
        let fail = |why: String| Error::VolumeList { path: path.to_owned(), why };
        one.check(path, text, signature, &[]).map_err(|e| match e {
            Error::Signature { why, .. } => fail(format!("bad signature: {why}")),
            other => other,
        })?;
        match signature.and_then(parse_signature) {
            Some(parsed) if comment.is_some_and(|comment| parsed.comment != comment) => Err(fail(
                "the trusted comment of its signature names another bundle, or another build of this one".to_owned(),
            )),
            _ => Ok(()),
        }
    }

    /// Whether a bundle that no trusted key signed is taken. Who asks for two signatures does not mean none.
    #[must_use]
    pub fn is_lenient(&self) -> bool {
        self.allow_unsigned && self.require < 2
    }

    /// Checks the signatures over the sums of the bundle at `path`: the one inside, and those beside it.
    ///
    /// # Errors
    /// [`Error::Signature`] for one that claims a trusted key and does not hold; [`Error::Unsigned`], [`Error::UnknownKey`],
    /// [`Error::TooFewSignatures`] unless enough of the trusted keys signed, or the trust is lenient.
    pub fn check(&self, path: &Path, sums: &[u8], inside: Option<&str>, beside: &[Beside]) -> Result<Signed, Error> {
        let mut signed = Signed::default();
        if let Some(text) = inside {
            self.inside(path, sums, text, &mut signed)?;
        }
        for file in beside {
            match self.judge(sums, file) {
                Verdict::Holds(key) => signed.add(key, Some(&file.path)),
                Verdict::Ignored(why) => signed.ignore(&file.path, why, true),
                Verdict::Nothing(why) => signed.ignore(&file.path, why, false),
                Verdict::Broken(why) => return Err(Error::Signature { path: file.path.clone(), why }),
            }
        }
        if self.is_lenient() || signed.signers.len() >= self.require.max(1) {
            return Ok(signed);
        }
        let (path, trusted) = (path.to_owned(), self.keys.iter().map(ToString::to_string).collect());
        let Signed { signers, uncounted, claimed } = signed;
        Err(match (signers.as_slice(), claimed) {
            ([], None) if uncounted.is_empty() => Error::Unsigned { path },
            ([], key) => Error::UnknownKey { path, key, trusted, uncounted },
            _ => {
                let found = signers.iter().map(|signer| signer.key.to_string()).collect();
                Error::TooFewSignatures { path, required: self.require, found, uncounted }
            }
        })
    }

    fn inside(&self, path: &Path, sums: &[u8], text: &str, signed: &mut Signed) -> Result<(), Error> {
        let fail = |why: &str| Error::Signature { path: path.to_owned(), why: why.to_owned() };
        let parsed = parse_signature(text).ok_or_else(|| fail("its text is not in the form that ferry writes"))?;
        signed.claimed = Some(parsed.key);
        // Key ids are not secret and can be made to collide: every key of that id is tried.
        let named: Vec<&TrustedKey> = self.keys.iter().filter(|k| k.key.id() == KeyRef::Minisign(parsed.key)).collect();
        let holds = |k: &&&TrustedKey| matches!(&k.key, PublicKey::Minisign(key) if key.verifies(sums, text));
        match named.iter().find(holds) {
            Some(key) => signed.add(key, None),
            None if named.is_empty() => {}
            None => return Err(fail(&format!("it is not by key {}, which it names", named[0]))),
        }
        Ok(())
    }

    fn judge(&self, sums: &[u8], file: &Beside) -> Verdict<'_> {
        let content = match &file.content {
            Ok(content) => content,
            Err(why) => return Verdict::Nothing(why.clone()),
        };
        match file.form {
            Form::Minisign => self.minisign(sums, &file.label, content),
            Form::Cosign => self.cosign(sums, &file.label, content),
        }
    }

    fn minisign(&self, sums: &[u8], label: &str, content: &[u8]) -> Verdict<'_> {
        let keys = || self.keys.iter().filter(|k| matches!(k.key, PublicKey::Minisign(_)));
        let is_claimed = |k: &&TrustedKey| matches!(&k.key, PublicKey::Minisign(key) if names(label, key.key_id()) || key.is_named_in(content));
        let claimed = keys().find(is_claimed);
        let broken = |claimed: &TrustedKey, why: &str| Verdict::Broken(format!("it names key {claimed}, and {why}"));
        let parsed = std::str::from_utf8(content).ok().and_then(Signature::parse);
        let Some(signature) = parsed else {
            let why = "is no signature in minisign's form";
            return claimed.map_or_else(|| Verdict::Nothing(format!("it {why}")), |key| broken(key, why));
        };
        let made = |k: &&TrustedKey| matches!(&k.key, PublicKey::Minisign(key) if key.made(sums, &signature));
        let maker =
            keys().find(|k| k.key.id() == KeyRef::Minisign(signature.key) && made(k)).or_else(|| keys().find(made));
        match (maker, claimed) {
            (Some(key), _) if key.key.id() != KeyRef::Minisign(signature.key) => {
                Verdict::Broken(format!("it is by key {key}, and names key {}", signature.key))
            }
            (Some(key), _) if !signature.is_as_made() => {
                broken(key, "its untrusted comment is not the one it was made with")
            }
            (Some(key), _) => Verdict::Holds(key),
            (None, Some(key)) => broken(key, "is not that key's signature of this bundle's SHA256SUMS"),
            (None, None) => Verdict::Ignored(format!("it is by key {}, which is not trusted here", signature.key)),
        }
    }

    /// Such a signature does not say whose it is; its file's name may.
    fn cosign(&self, sums: &[u8], label: &str, content: &[u8]) -> Verdict<'_> {
        let keys =
            || self.keys.iter().filter_map(|k| if let PublicKey::Spki(key) = &k.key { Some((k, key)) } else { None });
        let claimed = keys().find(|(k, key)| {
            k.name.as_deref() == Some(label) || [key.fingerprint().hex(), key.fingerprint().short()].contains(&label)
        });
        let text: Vec<u8> = content.iter().copied().filter(|b| !matches!(b, b'\r' | b'\n')).collect();
        let signature = BASE64.decode(&text).ok().filter(|signature| !signature.is_empty());
        if let Some((key, _)) = signature.as_ref().and_then(|s| keys().find(|(_, key)| key.verifies(sums, s))) {
            return Verdict::Holds(key);
        }
        let why = match signature {
            Some(_) => "is not by that key, over this bundle's SHA256SUMS",
            None => "is no signature in cosign's form (one in base64)",
        };
        match (claimed, signature) {
            (Some((key, _)), _) => Verdict::Broken(format!("it has the name of key {key}, and {why}")),
            (None, Some(_)) => Verdict::Ignored("it is by no key that is trusted here, or damaged".to_owned()),
            (None, None) => Verdict::Nothing(format!("it {why}")),
        }
    }
}

fn names(label: &str, id: KeyId) -> bool {
    label.eq_ignore_ascii_case(&id.to_string())
}
