//! minisign keys and signatures: Ed25519 over the BLAKE2b-512 of the sums, in minisign's own file formats.
//!
//! Signing is done here and not by the `minisign` crate, which mixes random bytes into every signature: the same key over
//! the same sums must give the same file.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use blake2::Digest as _;
use ring::signature::{ED25519 as ED25519_KEY, Ed25519KeyPair, UnparsedPublicKey};

use crate::{Error, PublicKey};

/// The largest key or signature file that is read, in bytes.
pub const MAX_SIGNATURE: u64 = 4 << 10;

const ED25519: &[u8; 2] = b"Ed";
const PREHASHED: &[u8; 2] = b"ED";
/// The bytes of a secret key.
const SECRET_SIZE: usize = 158;
const UNTRUSTED: &str = "untrusted comment: ";
const TRUSTED: &str = "trusted comment: ";

/// The eight bytes that name a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; 8]);

/// A public key of minisign.
#[derive(Clone, PartialEq, Eq)]
pub struct MinisignKey {
    id: KeyId,
    key: [u8; 32],
}

/// A secret key, unlocked.
pub struct SecretKey {
    id: KeyId,
    pair: Ed25519KeyPair,
}

/// Makes a key pair: the texts of the secret and the public file. Without a password the secret key is stored in the clear.
///
/// # Errors
/// When the system gives no random bytes.
pub fn generate(password: Option<&str>) -> Result<(String, String), Error> {
    let fail = |e: minisign::PError| Error::Key { why: e.to_string() };
    let pair = match password {
        Some(password) => minisign::KeyPair::generate_encrypted_keypair(Some(password.to_owned())),
        None => minisign::KeyPair::generate_unencrypted_keypair(),
    }
    .map_err(fail)?;
    let comment = if password.is_some() { "minisign encrypted secret key" } else { "minisign secret key" };
    let secret = pair.sk.to_box(Some(comment)).map_err(fail)?.into_string();
    let public = pair.pk.to_box().map_err(fail)?.into_string();
    Ok((secret, public))
}

impl KeyId {
    /// From the bytes of a key or signature file.
    fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.get(2..10)?.try_into().ok()?))
    }
}

impl MinisignKey {
    /// Reads the text of a public key file, or the bare key: the base64 line of such a file.
    ///
    /// # Errors
    /// [`Error::Key`].
    pub fn from_text(text: &str) -> Result<Self, Error> {
        let fail = |why: &str| Error::PublicKey { why: why.to_owned() };
        let line = match text.trim().split_once('\n') {
            Some((comment, rest)) if comment.starts_with(UNTRUSTED) => rest.lines().next().unwrap_or_default(),
            Some(_) => return Err(fail("its first line is not an untrusted comment")),
            None => text.trim(),
        };
        let bytes = BASE64.decode(line.trim()).map_err(|_| fail("it is not base64"))?;
        if bytes.len() == SECRET_SIZE && bytes.starts_with(ED25519) {
            return Err(fail("it is a secret key, which stays with its owner; the public one is beside it, NAME.pub"));
        }
        if bytes.len() != 42 || !bytes.starts_with(ED25519) {
            return Err(fail("it is no minisign public key"));
        }
        let (id, key) = KeyId::read(&bytes).zip(bytes[10..].try_into().ok()).ok_or_else(|| fail("it is too short"))?;
        Ok(Self { id, key })
    }

    /// Its id.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.id
    }

    /// The base64 line of its file.
    #[must_use]
    pub fn to_base64(&self) -> String {
        BASE64.encode([ED25519.as_slice(), &self.id.0, &self.key].concat())
    }

    /// Whether `text` is a signature of `data` by this key, trusted comment included.
    pub(crate) fn verifies(&self, data: &[u8], text: &str) -> bool {
        let key = minisign_verify::PublicKey::from_base64(&self.to_base64());
        let signature = minisign_verify::Signature::decode(text);
        matches!((key, signature), (Ok(key), Ok(signature)) if key.verify(data, &signature, false).is_ok())
    }

    /// Whether it made this signature of `data`, whatever key the signature names.
    pub(crate) fn made(&self, data: &[u8], signature: &Signature) -> bool {
        let key = UnparsedPublicKey::new(&ED25519_KEY, &self.key);
        let first = match signature.prehashed {
            true => key.verify(&blake2::Blake2b512::digest(data), &signature.first),
            false => key.verify(data, &signature.first),
        };
        let global = [signature.first.as_slice(), signature.comment.as_bytes()].concat();
        first.is_ok() && key.verify(&global, &signature.global).is_ok()
    }

    /// The key itself.
    pub(crate) fn material(&self) -> &[u8] {
        &self.key
    }

    /// Whether a signature file, sound or damaged, names it: in ferry's comment, or at the beginning of its base64, where one character may
    /// be another one.
    pub(crate) fn is_named_in(&self, content: &[u8]) -> bool {
        // Kind and id are ten bytes: thirteen characters and two bits.
        let beginning = |kind: &[u8; 2]| BASE64.encode([kind.as_slice(), &self.id.0].concat())[..13].to_owned();
        let similar = |a: &[u8], b: &[u8]| a.iter().zip(b).filter(|(a, b)| a != b).count() < 2;
        let is_begun = |kind| {
            let beginning = beginning(kind);
            content.windows(beginning.len()).any(|window| similar(window, beginning.as_bytes()))
        };
        content.starts_with(format!("{UNTRUSTED}{}", untrusted(self.id)).as_bytes())
            || [PREHASHED, ED25519].into_iter().any(is_begun)
    }
}

impl SecretKey {
    /// Reads the text of a secret key file. Unlocking a key that `minisign` itself protected takes 1 GiB for a moment.
    ///
    /// # Errors
    /// [`Error::PasswordNeeded`] when it is protected and `password` is `None`; [`Error::Key`] for a wrong password or a damaged file.
    pub fn from_text(text: &str, password: Option<&str>) -> Result<Self, Error> {
        let fail = |why: &str| Error::Key { why: why.to_owned() };
        let mut lines = text.lines();
        let comment = lines.next().unwrap_or_default();
        let line = lines.next().unwrap_or_default();
        let bytes = BASE64.decode(line.trim()).map_err(|_| fail("it is no minisign secret key"))?;
        if comment.starts_with(UNTRUSTED) && MinisignKey::from_text(text).is_ok() {
            return Err(fail("it is a public key; the secret one that signs is beside it, NAME.key"));
        }
        if !comment.starts_with(UNTRUSTED) || bytes.len() != SECRET_SIZE || !bytes.starts_with(ED25519) {
            return Err(fail("it is no minisign secret key"));
        }
        let raw = match (&bytes[2..4], password) {
            // Nothing to unlock; minisign itself leaves the checksum of such keys empty.
            (b"\0\0", _) => bytes,
            (b"Sc", Some(password)) => unlock(line.trim(), password)?,
            (b"Sc", None) => return Err(Error::PasswordNeeded),
            _ => return Err(fail("it is protected in a way that is not known")),
        };
        // Algorithms (6), salt (32), limits (16), id (8), seed (32), public key (32), checksum (32).
        let pair = Ed25519KeyPair::from_seed_and_public_key(&raw[62..94], &raw[94..126])
            .map_err(|_| fail("its two halves do not belong together"))?;
        let id = raw[54..62].try_into().map(KeyId).map_err(|_| fail("it is too short"))?;
        Ok(Self { id, pair })
    }

    /// Its id.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.id
    }

    /// Its public half.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        use ring::signature::KeyPair as _;
        let mut key = [0; 32];
        key.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey::Minisign(MinisignKey { id: self.id, key })
    }

    /// The signature file over `sums`, in its canonical form. The same input gives the same text.
    #[must_use]
    pub fn sign(&self, sums: &str, name: &str, version: Option<&str>) -> String {
        self.sign_as(sums, &trusted_comment(name, version))
    }

    /// A signature file over `text` with another trusted comment.
    #[must_use]
    pub fn sign_as(&self, text: &str, comment: &str) -> String {
        let signature = self.pair.sign(&blake2::Blake2b512::digest(text.as_bytes()));
        let global = self.pair.sign(&[signature.as_ref(), comment.as_bytes()].concat());
        signature_text(self.id, signature.as_ref(), comment, global.as_ref())
    }
}

fn unlock(line: &str, password: &str) -> Result<Vec<u8>, Error> {
    let boxed = minisign::SecretKeyBox::from(format!("{UNTRUSTED}\n{line}\n"));
    let key = boxed.into_secret_key(Some(password.to_owned()));
    Ok(key.map_err(|e| Error::Key { why: e.to_string().to_lowercase() })?.to_bytes())
}

/// The parts of a signature file that is in its canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parsed {
    pub(crate) key: KeyId,
    pub(crate) comment: String,
}

/// A signature file as minisign itself may have written it, with comments of its signer's choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signature {
    pub(crate) key: KeyId,
    /// Free text: nothing signs it.
    pub(crate) untrusted: String,
    pub(crate) comment: String,
    prehashed: bool,
    first: Vec<u8>,
    global: Vec<u8>,
}

impl Signature {
    /// Takes a signature file apart; line ends may be those of Windows.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n').unwrap_or(text).split('\n').map(|l| l.strip_suffix('\r').unwrap_or(l));
        let (untrusted, first, comment, global) = (lines.next()?, lines.next()?, lines.next()?, lines.next()?);
        let (untrusted, comment) = (untrusted.strip_prefix(UNTRUSTED)?, comment.strip_prefix(TRUSTED)?);
        let (first, global) = (BASE64.decode(first).ok()?, BASE64.decode(global).ok()?);
        let prehashed = first.starts_with(PREHASHED);
        let is_known = first.len() == 74 && global.len() == 64 && (prehashed || first.starts_with(ED25519));
        if !is_known || lines.next().is_some() || untrusted.contains(char::is_control) {
            return None;
        }
        let (key, first) = (KeyId::read(&first)?, first[10..].to_vec());
        Some(Self { key, untrusted: untrusted.to_owned(), comment: comment.to_owned(), prehashed, first, global })
    }

    /// Whether its untrusted comment is one that may stand there. With a trusted comment such as ferry writes it is ferry's, or the one that
    /// minisign writes by itself: so every flipped bit of a signature that ferry made is found.
    pub(crate) fn is_as_made(&self) -> bool {
        const MINISIGN: &str = "signature from minisign secret key";
        !self.comment.starts_with("bundle ") || self.untrusted == MINISIGN || self.untrusted == untrusted(self.key)
    }
}

fn untrusted(key: KeyId) -> String {
    format!("signature of a ferry bundle by key {key}")
}

/// Takes a signature file apart, and refuses any that [`SecretKey::sign`] would not write.
pub(crate) fn parse_signature(text: &str) -> Option<Parsed> {
    let mut lines = text.split('\n');
    let (_, first, comment, global) = (lines.next()?, lines.next()?, lines.next()?, lines.next()?);
    let (first, global) = (BASE64.decode(first).ok()?, BASE64.decode(global).ok()?);
    let (key, comment) = (KeyId::read(&first)?, comment.strip_prefix(TRUSTED)?);
    let canonical = signature_text(key, first.get(10..)?, comment, &global);
    (first.len() == 74 && global.len() == 64 && canonical == text).then(|| Parsed { key, comment: comment.to_owned() })
}

/// The trusted comment: what is signed, without a clock.
pub(crate) fn trusted_comment(name: &str, version: Option<&str>) -> String {
    match version {
        Some(version) => format!("bundle {name} version {version}"),
        None => format!("bundle {name}"),
    }
}

/// The size of a signature file.
pub(crate) fn signature_size(name: &str, version: Option<&str>) -> u64 {
    signature_text(KeyId([0; 8]), &[0; 64], &trusted_comment(name, version), &[0; 64]).len() as u64
}

fn signature_text(key: KeyId, signature: &[u8], comment: &str, global: &[u8]) -> String {
    let first = BASE64.encode([PREHASHED.as_slice(), &key.0, signature].concat());
    let global = BASE64.encode(global);
    format!("{UNTRUSTED}{}\n{first}\n{TRUSTED}{comment}\n{global}\n", untrusted(key))
}

/// As minisign prints it: sixteen upper-case hex digits.
impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", u64::from_le_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for MinisignKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MinisignKey({})", self.id)
    }
}

/// Never shows the secret.
impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.id)
    }
}
