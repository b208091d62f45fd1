//! Who may in: basic authentication (RFC 7617).

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use crate::Reread;

/// Knows whether a password is a user's. An htpasswd file can be one, too. What does not say that it may take its time is told out of memory.
pub trait Passwords: Send + Sync + 'static {
    /// Whether it is time for [`refresh`](Self::refresh).
    fn is_stale(&self) -> bool {
        false
    }

    /// Takes what changed where the users come from. May take the time that a disk takes.
    fn refresh(&self) -> Reread {
        Reread::Done
    }

    /// Whether `password` is the one of `user`. May take the time that a slow hash takes.
    fn verify(&self, user: &str, password: &str) -> bool;

    /// The same where it can be told at once, as of a password that was right before; false where it cannot.
    fn is_known(&self, user: &str, password: &str) -> bool;

    /// Whether there is such a user.
    fn has(&self, user: &str) -> bool;
}

/// Users and their passwords, in memory as hashes.
#[derive(Clone, Default)]
pub struct Users(BTreeMap<String, [u8; 32]>);

impl Users {
    /// Adds a user, or gives one a new password.
    pub fn add(&mut self, user: &str, password: &str) {
        self.0.insert(user.to_owned(), hash(password));
    }
}

impl<U: AsRef<str>, P: AsRef<str>> FromIterator<(U, P)> for Users {
    fn from_iter<I: IntoIterator<Item = (U, P)>>(pairs: I) -> Self {
        let mut users = Self::default();
        pairs.into_iter().for_each(|(user, password)| users.add(user.as_ref(), password.as_ref()));
        users
    }
}

/// Names only: passwords are not for logs.
impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Passwords for Users {
    fn verify(&self, user: &str, password: &str) -> bool {
        // The same work for a user that is not there: the time taken tells nothing.
        let expected = self.0.get(user);
        let same = constant_time_eq(expected.unwrap_or(&[0; 32]), &hash(password));
        same && expected.is_some()
    }

    fn is_known(&self, user: &str, password: &str) -> bool {
        self.verify(user, password)
    }

    fn has(&self, user: &str) -> bool {
        self.0.contains_key(user)
    }
}

fn hash(password: &str) -> [u8; 32] {
    Sha256::digest(password.as_bytes()).into()
}

fn constant_time_eq(a: &[u8; 32], b: &[u8; 32]) -> bool {
    std::hint::black_box(a.iter().zip(b).fold(0, |different, (a, b)| different | (a ^ b))) == 0
}

/// What a request needs to be let in.
#[derive(Clone, Default)]
pub enum Access {
    /// Nothing: anybody may do anything.
    #[default]
    Open,
    /// A user and password for everything.
    Users(Arc<dyn Passwords>),
    /// A user and password for changes only; anybody may read.
    UsersToPush(Arc<dyn Passwords>),
}

impl Access {
    pub(crate) fn passwords(&self) -> Option<&Arc<dyn Passwords>> {
        match self {
            Self::Open => None,
            Self::Users(passwords) | Self::UsersToPush(passwords) => Some(passwords),
        }
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "Open",
            Self::Users(_) => "Users",
            Self::UsersToPush(_) => "UsersToPush",
        })
    }
}

/// What an `Authorization` header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    Basic {
        user: String,
        password: String,
    },
    Bearer(String),
    /// Something else, or nothing that can be read.
    Other,
}

impl Credentials {
    pub(crate) fn parse(header: &str) -> Self {
        let (scheme, token) = header.split_once(' ').unwrap_or((header, ""));
        if scheme.eq_ignore_ascii_case("bearer") {
            return Self::Bearer(token.trim().to_owned());
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Self::Other;
        }
        let bytes = STANDARD.decode(token.trim()).ok();
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = text.as_deref().and_then(|text| text.split_once(':'));
        pair.map_or(Self::Other, |(user, password)| Self::Basic {
            user: user.to_owned(),
            password: password.to_owned(),
        })
    }
}

/// Who a header says to be, unchecked: for the log.
pub(crate) fn user(authorization: &str) -> Option<String> {
    match Credentials::parse(authorization) {
        Credentials::Basic { user, .. } => Some(user),
        Credentials::Bearer(_) | Credentials::Other => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_password_of_the_right_user_is_one() {
        let users = Users::from_iter([("ann", "s:cret"), ("bob", "")]);
        assert!(users.verify("ann", "s:cret") && users.verify("bob", "") && users.is_known("ann", "s:cret"));
        for (user, wrong) in [("ann", ""), ("ann", "s"), ("", ""), ("eve", "s:cret"), ("bob", "x"), ("eve", "")] {
            assert!(!users.verify(user, wrong), "{user} {wrong}");
        }
    }

    #[test]
    fn headers_are_read_whatever_their_case() {
        let basic = |text: &str| Credentials::parse(&format!("basic  {}", STANDARD.encode(text)));
        let (user, password) = ("ann".to_owned(), "s:cret".to_owned());
        assert_eq!(basic("ann:s:cret"), Credentials::Basic { user, password });
        assert_eq!(basic("ann"), Credentials::Other);
        assert_eq!(Credentials::parse("BEARER abc"), Credentials::Bearer("abc".to_owned()));
        for header in ["", "Basic", "Basic !!", "Digest x"] {
            assert_eq!(Credentials::parse(header), Credentials::Other, "{header}");
        }
    }
}
