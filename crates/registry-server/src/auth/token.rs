//! Tokens, for registries that everybody may read and users may write to. docker and podman ask `/v2/` once whether a login is needed,
//! and never log in afterwards; where there is a token server (distribution-spec's "Token Authentication"), they ask that for a token
//! before each operation, with a password if they have one and without if not. So this is one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac::{HMAC_SHA256, Key, sign, verify};
use ring::rand::SystemRandom;

/// How long a token is good.
pub(crate) const LIFE: Duration = Duration::from_secs(300);
/// Bytes of the time and of the seal before the user's name.
const HEAD: usize = 8 + 32;

/// Makes tokens, and knows its own. Those of another run are not good any more: clients ask for new ones.
pub(crate) struct Tokens(Option<Key>);

impl Default for Tokens {
    fn default() -> Self {
        // without random numbers there are no tokens, and nobody gets in by one
        Self(Key::generate(HMAC_SHA256, &SystemRandom::new()).ok())
    }
}

impl Tokens {
    /// A token for `user`; for a guest where that is empty.
    pub(crate) fn issue(&self, user: &str, now: SystemTime) -> String {
        let Some(key) = &self.0 else { return String::new() };
        let until = seconds(now + LIFE).to_be_bytes();
        let seal = sign(key, &[&until, user.as_bytes()].concat());
        URL_SAFE_NO_PAD.encode([&until, seal.as_ref(), user.as_bytes()].concat())
    }

    /// Whose token it is, if it is good.
    pub(crate) fn user(&self, token: &str, now: SystemTime) -> Option<String> {
        let bytes = URL_SAFE_NO_PAD.decode(token.trim()).ok()?;
        let (head, user) = bytes.split_at_checked(HEAD)?;
        let (until, seal) = head.split_at(8);
        verify(self.0.as_ref()?, &[until, user].concat(), seal).ok()?;
        let until = u64::from_be_bytes(until.try_into().ok()?);
        (seconds(now) < until).then(|| String::from_utf8(user.to_owned()).ok())?
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_a_while_as_it_was_made() {
        let (tokens, now) = (Tokens::default(), SystemTime::now());
        for user in ["ann", "", "ünï"] {
            let token = tokens.issue(user, now);
            assert_eq!(tokens.user(&token, now).as_deref(), Some(user));
            assert_eq!(tokens.user(&token, now + LIFE), None, "too late");
            assert_eq!(Tokens::default().user(&token, now), None, "another server's");
            let mut bytes = URL_SAFE_NO_PAD.decode(&token).expect("base64");
            for at in 0..bytes.len() {
                bytes[at] ^= 1;
                assert_eq!(tokens.user(&URL_SAFE_NO_PAD.encode(&bytes), now), None, "byte {at}");
                bytes[at] ^= 1;
            }
            bytes.push(b'x');
            assert_eq!(tokens.user(&URL_SAFE_NO_PAD.encode(&bytes), now), None);
        }
        for junk in ["", "x", "!", "AAAA"] {
            assert_eq!(tokens.user(junk, now), None, "{junk}");
        }
    }
}
