//! Who may in: basic authentication (RFC 7617).

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

/// Knows whether a password is a user's. An htpasswd file can be one, too.
pub trait Passwords: Send + Sync + 'static {
    /// Whether `password` is the one of `user`. May take the time that a slow hash takes.
    fn verify(&self, user: &str, password: &str) -> bool;
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

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "Open",
            Self::Users(_) => "Users",
            Self::UsersToPush(_) => "UsersToPush",
        })
    }
}

impl Access {
    /// Whether a request with this `Authorization` header may proceed.
    pub(crate) fn allows(&self, authorization: Option<&str>, is_change: bool) -> bool {
        let passwords = match self {
            Self::Open => return true,
            Self::UsersToPush(_) if !is_change && authorization.is_none() => return true,
            Self::Users(passwords) | Self::UsersToPush(passwords) => passwords,
        };
        let Some((user, password)) = authorization.and_then(basic) else { return false };
        passwords.verify(&user, &password)
    }
}

/// Who it says to be, unchecked: for the log.
pub(crate) fn user(authorization: &str) -> Option<String> {
    basic(authorization).map(|(user, _)| user)
}

fn basic(header: &str) -> Option<(String, String)> {
    let (scheme, token) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(token.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_password_of_the_right_user_opens() {
        let users: Arc<dyn Passwords> = Arc::new(Users::from_iter([("ann", "s:cret"), ("bob", "")]));
        let header = |text: &str| format!("Basic {}", STANDARD.encode(text));
        let access = Access::Users(Arc::clone(&users));
        assert!(access.allows(Some(&header("ann:s:cret")), true));
        assert!(access.allows(Some(&header("bob:").replace("Basic", "basic")), true));
        for wrong in ["ann:", "ann:s", "ann", ":", "eve:s:cret", "bob:x", "eve:"] {
            assert!(!access.allows(Some(&header(wrong)), false), "{wrong}");
        }
        for header in [None, Some("Basic"), Some("Basic !!"), Some("Bearer x"), Some("")] {
            assert!(!access.allows(header, false), "{header:?}");
        }
        let push = Access::UsersToPush(users);
        assert!(push.allows(None, false) && !push.allows(None, true));
        assert!(!push.allows(Some(&header("ann:wrong")), false), "a wrong password is an error, not a guest");
        assert!(Access::Open.allows(None, true));
    }
}
