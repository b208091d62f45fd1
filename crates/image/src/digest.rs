//! Content digests (image-spec, descriptor.md, "Digests"): `sha256:<64 hex>` and `sha512:<128 hex>`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::Error;

/// A registered digest algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, the one everybody uses.
    Sha256,
    /// SHA-512, read but never carried (registries in the field refuse it).
    Sha512,
}

impl Algorithm {
    /// The registered name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// A digest that is well formed: lower-case hex of the right length.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest {
    algorithm: Algorithm,
    hex: Box<str>,
}

impl Digest {
    /// The SHA-256 of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(bytes);
        hasher.finish()
    }

    /// A SHA-256 digest from its 64 hex characters.
    ///
    /// # Errors
    /// When `hex` is not 64 lower-case hex characters.
    pub fn sha256(hex: &str) -> Result<Self, Error> {
        format!("sha256:{hex}").parse()
    }

    /// The algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hex part, lower case.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// The first 12 hex characters, for people.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.hex[..12]
    }

    /// Where the blob stands in an OCI image layout: `blobs/sha256/<hex>`.
    #[must_use]
    pub fn blob_path(&self) -> String {
        format!("blobs/{}/{}", self.algorithm.name(), self.hex)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let fail = |why| Error::Digest { text: text.chars().take(160).collect(), why };
        let (name, hex) = text.split_once(':').ok_or_else(|| fail("no `:` after the algorithm"))?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(fail("the algorithm is neither sha256 nor sha512")),
        };
        if hex.len() != algorithm.hex_len() {
            return Err(fail("wrong length for its algorithm"));
        }
        if !hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(fail("only 0-9 and a-f may follow the algorithm"));
        }
        Ok(Self { algorithm, hex: hex.into() })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// Hashes bytes as they pass.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(sha2::Sha256),
    Sha512(Box<sha2::Sha512>),
}

impl Hasher {
    /// An empty hasher.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Box::default()),
        })
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(h) => h.update(bytes),
            State::Sha512(h) => h.update(bytes),
        }
    }

    /// The digest of all bytes taken.
    #[must_use]
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(h) => Digest { algorithm: Algorithm::Sha256, hex: hex(&h.finalize()) },
            State::Sha512(h) => Digest { algorithm: Algorithm::Sha512, hex: hex(&h.finalize()) },
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

fn hex(bytes: &[u8]) -> Box<str> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_digest_of_nothing_is_the_known_one() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
    }

    #[test]
    fn what_is_not_a_digest_is_refused() {
        for text in ["", "sha256", "sha256:", "md5:00", "sha256:E3B0", &EMPTY.to_uppercase(), &format!("{EMPTY}0")] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_digest_prints_as_it_was_read() {
        assert_eq!(EMPTY.parse::<Digest>().map(|d| d.to_string()), Ok(EMPTY.to_owned()));
        assert_eq!(EMPTY.parse::<Digest>().map(|d| d.blob_path()), Ok(EMPTY.replace("sha256:", "blobs/sha256/")));
    }

    proptest! {
        #[test]
        fn hashing_in_pieces_is_hashing(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..6)) {
            let mut hasher = Hasher::new(Algorithm::Sha256);
            pieces.iter().for_each(|piece| hasher.update(piece));
            let digest = hasher.finish();
            prop_assert_eq!(&digest, &Digest::of(&pieces.concat()));
            prop_assert_eq!(digest.to_string().parse(), Ok(digest.clone()));
            prop_assert_eq!(Digest::sha256(digest.hex()), Ok(digest));
        }

        #[test]
        fn only_lower_case_hex_of_the_right_length_is_a_digest(
            name in "sha256|sha512|SHA256|sha384|", colon in ":?", hex in "[0-9a-fA-Fg]{62,66}|[0-9a-f]{64}|[0-9a-f]{128}",
        ) {
            let text = format!("{name}{colon}{hex}");
            let length = [("sha256", 64), ("sha512", 128)].iter().find(|(known, _)| *known == name).map(|(_, n)| *n);
            let lower = hex.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c));
            let expected = colon == ":" && length == Some(hex.len()) && lower;
            prop_assert_eq!(text.parse::<Digest>().map(|d| d.to_string()).ok(), expected.then_some(text));
        }
    }
}
