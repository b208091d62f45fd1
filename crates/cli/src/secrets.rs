//! Passwords of registries, from standard input and from files.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ferry_image::reference::{is_host, is_path};
use ferry_registry_client::{Login, Secret};

use crate::failure::{End, Error};

/// No password is longer, in bytes; some are keys in JSON.
const MAX_BYTES: u64 = 64 << 10;

/// A user at a place; as text `HOST[:PORT][/PATH]=USER`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) place: String,
    pub(crate) username: String,
}

impl FromStr for Account {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (place, username) = text.split_once('=').ok_or("write HOST[/PATH]=USER")?;
        if !is_place(place) {
            return Err("what stands before `=` is not HOST[:PORT][/PATH]");
        }
        if username.is_empty() {
            return Err("the user is missing behind `=`");
        }
        Ok(Self { place: place.to_owned(), username: username.to_owned() })
    }
}

/// Whether `text` is `HOST[:PORT]`, or that and a path below which a login counts.
pub(crate) fn is_place(text: &str) -> bool {
    match text.split_once('/') {
        Some((host, path)) => is_host(host) && is_path(path),
        None => is_host(text),
    }
}

/// The password in a file.
pub(crate) fn from_file(path: &Path) -> Result<Secret, End> {
    let io = |source| Error::Io { action: "read", path: path.to_owned(), source };
    let mut text = String::new();
    std::fs::File::open(path).map_err(io)?.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(io)?;
    let text = whole(&text).map_err(|why| {
        Error::usage(format!("the password in `{}` {why}", path.display()), "put the password alone into that file")
    })?;
    Ok(Secret::new(text))
}

/// The passwords of these users, from standard input: one alone as it stands there, several each on a line of its own.
pub(crate) fn from_stdin(accounts: &[Account]) -> Result<Vec<Login>, End> {
    let mut text = String::new();
    let path = PathBuf::from("standard input");
    let io = |source| Error::Io { action: "read", path, source };
    std::io::stdin().take(MAX_BYTES + 1).read_to_string(&mut text).map_err(io)?;
    let passwords = passwords(&text, accounts.len()).map_err(|why| {
        Error::usage(format!("standard input {why}"), "for example `echo \"$PASSWORD\" | ferry … --password-stdin`")
    })?;
    let login = |(account, password): (&Account, &str)| Login {
        place: account.place.clone(),
        username: account.username.clone(),
        password: Secret::new(password),
    };
    Ok(accounts.iter().zip(passwords).map(login).collect())
}

fn passwords(text: &str, count: usize) -> Result<Vec<&str>, String> {
    if count == 1 {
        return Ok(vec![whole(text).map_err(|why| format!("{why}, where a password should be"))?]);
    }
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() != count {
        return Err(format!("has {} lines, where {count} passwords should be", lines.len()));
    }
    match lines.iter().position(|line| line.is_empty()) {
        Some(at) => Err(format!("is empty at line {}, where a password should be", at + 1)),
        None => Ok(lines),
    }
}

/// A text without the end of its line, as `docker login --password-stdin` takes it.
fn whole(text: &str) -> Result<&str, &'static str> {
    let bare = text.strip_suffix('\n').unwrap_or(text);
    let bare = bare.strip_suffix('\r').unwrap_or(bare);
    match bare.len() as u64 {
        0 => Err("is empty"),
        MAX_BYTES.. => Err("is longer than any password"),
        _ => Ok(bare),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_as_they_are_named() {
        for (text, place, username) in [
            ("r.example=me", "r.example", "me"),
            ("r.example:5000/team/app=robot$a=b", "r.example:5000/team/app", "robot$a=b"),
            ("[::1]:5000=me", "[::1]:5000", "me"),
        ] {
            let expected = Account { place: place.to_owned(), username: username.to_owned() };
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in ["", "me", "=me", "r.example=", "https://r.example=me", "r.example/=me", "r.example/A=me"] {
            assert!(text.parse::<Account>().is_err(), "{text}");
        }
    }

    #[test]
    fn passwords_as_they_come() {
        let one = |text: &'static str| passwords(text, 1);
        for (text, expected) in [
            ("pw", "pw"),
            ("pw\n", "pw"),
            ("pw\r\n", "pw"),
            (" pw \n\n", " pw \n"),
            ("{\n \"a\": 1\n}\n", "{\n \"a\": 1\n}"),
        ] {
            assert_eq!(one(text), Ok(vec![expected]));
        }
        assert!(one("").is_err() && one("\n").is_err());
        assert!(passwords(&"x".repeat(70_000), 1).is_err());
        assert_eq!(passwords("a\nb\n", 2), Ok(vec!["a", "b"]));
        assert_eq!(passwords("a\r\nb", 2), Ok(vec!["a", "b"]));
        assert_eq!(passwords("a\n", 2), Err("has 1 lines, where 2 passwords should be".to_owned()));
        assert_eq!(passwords("\nb\n", 2), Err("is empty at line 1, where a password should be".to_owned()));
    }
}
