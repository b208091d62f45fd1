//! ferry's config file: what is known of hosts, and logins. Reference: `docs/config.md`.
//!
//! [`parse`] is pure; [`load`] finds and reads the file. A password never stands in it, only the name of the file that holds one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ferry_bundle::manifest::yaml_words;
use ferry_image::Target;
use ferry_image::reference::{DOCKER_HUB, is_host};
use ferry_registry_client::{ClientCertificate, HostConfig, Login};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::failure::{End, Error};
use crate::{environment, secrets};

/// No config file is larger, in bytes.
const MAX_BYTES: usize = 1 << 20;
/// The longest time that a host may be given, in seconds.
const MAX_SECONDS: u64 = 3600;

/// What the file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// How hosts are reached, by `HOST[:PORT]`.
    pub(crate) hosts: Vec<(String, HostConfig)>,
    /// What is asked before a host itself, in order.
    pub(crate) mirrors: BTreeMap<String, Vec<Target>>,
    /// Who we are there, and the file for messages.
    pub(crate) logins: Vec<Login>,
    pub(crate) path: PathBuf,
}

/// Something is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Counted from 1; 0 for the file as a whole.
    line: usize,
    why: String,
}

/// A login as the file gives it.
#[derive(Debug, PartialEq, Eq)]
struct LoginFile {
    place: String,
    username: String,
    password: PathBuf,
}

/// Reads the file that was named, or else the user's own if there is one.
pub(crate) fn load(named: Option<&Path>) -> Result<Settings, End> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => match environment::config_file().filter(|path| path.is_file()) {
            Some(path) => path,
            None => return Ok(Settings::default()),
        },
    };
    let bytes = std::fs::read(&path).map_err(|source| Error::Io { action: "read", path: path.clone(), source })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let (mut settings, logins) =
        parse(&bytes, folder).map_err(|Problem { line, why }| Error::Config { path: path.clone(), line, why })?;
    for LoginFile { place, username, password } in logins {
        settings.logins.push(Login { place, username, password: secrets::from_file(&password)? });
    }
    settings.path = path;
    Ok(settings)
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Document {
    logins: Entries<Option<LoginEntry>>,
    hosts: Entries<Option<HostEntry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct LoginEntry {
    username: String,
    password_file: PathBuf,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct HostEntry {
    plain_http: Option<bool>,
    ca_file: OneOrMany,
    client_certificate: Option<Spanned<PathBuf>>,
    client_key: Option<Spanned<PathBuf>>,
    resolve: OneOrMany,
    no_proxy: Option<bool>,
    connect_timeout: Option<Spanned<u64>>,
    stall_timeout: Option<Spanned<u64>>,
    mirrors: OneOrMany,
}

/// Reads the file's content; relative paths are taken from `folder`.
fn parse(bytes: &[u8], folder: &Path) -> Result<(Settings, Vec<LoginFile>), Problem> {
    let whole = |why: String| Problem { line: 0, why };
    if bytes.len() > MAX_BYTES {
        return Err(whole(format!("it has {} bytes; the limit is {MAX_BYTES}", bytes.len())));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| whole("it is not UTF-8".to_owned()))?;
    if text.lines().all(|line| line.trim_start().is_empty() || line.trim_start().starts_with('#')) {
        return Ok((Settings::default(), Vec::new()));
    }
    let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
    let document: Document = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let line = error.location().map_or(0, |l| usize::try_from(l.line()).unwrap_or(0));
        Problem { line, why: yaml_words(&error) }
    })?;
    let mut settings = Settings::default();
    let mut seen = BTreeSet::new();
    for (key, host) in document.hosts.0 {
        let host = host.unwrap_or_default();
        let name = match key.value.to_ascii_lowercase().as_str() {
            "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB.to_owned(),
            name if is_host(name) => name.to_owned(),
            _ => return Err(at(&key, format!("`{}` is not a host: write HOST or HOST:PORT", key.value))),
        };
        if !seen.insert(name.clone()) {
            return Err(at(&key, format!("the host `{name}` is there twice")));
        }
        let mirrors = host.mirrors.0.iter().map(|mirror| mirror.value.parse().map_err(|e| at(mirror, format!("{e}"))));
        let mirrors = mirrors.collect::<Result<Vec<Target>, _>>()?;
        if !mirrors.is_empty() {
            settings.mirrors.insert(name.clone(), mirrors);
        }
        let config = host.config(folder)?;
        settings.hosts.push((name, config));
    }
    let mut logins = Vec::new();
    for (key, login) in document.logins.0 {
        let Some(login) = login else { continue };
        if !secrets::is_place(&key.value) {
            return Err(at(&key, format!("`{}` is not a place: write HOST[:PORT] or HOST[:PORT]/PATH", key.value)));
        }
        logins.push(LoginFile {
            place: key.value,
            username: login.username,
            password: folder.join(login.password_file),
        });
    }
    Ok((settings, logins))
}

impl HostEntry {
    fn config(self, folder: &Path) -> Result<HostConfig, Problem> {
        let client = match (self.client_certificate, self.client_key) {
            (Some(certificate), Some(key)) => {
                Some(ClientCertificate { certificate: folder.join(certificate.value), key: folder.join(key.value) })
            }
            (Some(one), None) => return Err(at(&one, "`clientCertificate:` needs `clientKey:`")),
            (None, Some(one)) => return Err(at(&one, "`clientKey:` needs `clientCertificate:`")),
            (None, None) => None,
        };
        let address = |text: &Spanned<String>| {
            let bare = text.value.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(&text.value);
            bare.parse::<IpAddr>().map_err(|_| at(text, format!("`{}` is not an IP address", text.value)))
        };
        let seconds = |key: &str, value: Option<Spanned<u64>>| match value {
            Some(n) if !(1..=MAX_SECONDS).contains(&n.value) => {
                Err(at(&n, format!("`{key}: {}` is not from 1 to {MAX_SECONDS} seconds", n.value)))
            }
            other => Ok(other.map(|n| Duration::from_secs(n.value))),
        };
        Ok(HostConfig {
            plain_http: self.plain_http,
            ca_files: self.ca_file.0.iter().map(|file| folder.join(&file.value)).collect(),
            client,
            resolve: self.resolve.0.iter().map(address).collect::<Result<_, _>>()?,
            no_proxy: self.no_proxy.unwrap_or(false),
            connect_timeout: seconds("connectTimeout", self.connect_timeout)?,
            stall_timeout: seconds("stallTimeout", self.stall_timeout)?,
        })
    }
}

fn at<T>(value: &Spanned<T>, why: impl Into<String>) -> Problem {
    Problem { line: usize::try_from(value.referenced.line()).unwrap_or(0), why: why.into() }
}

/// A mapping with free keys, each with its line.
struct Entries<T>(Vec<(Spanned<String>, T)>);

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for All<T> {
            type Value = Entries<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    all.push(entry);
                }
                Ok(Entries(all))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Entries::default())
            }
        }
        deserializer.deserialize_any(All(PhantomData))
    }
}

/// A list of texts, or one alone.
#[derive(Default)]
struct OneOrMany(Vec<Spanned<String>>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Vec<Spanned<String>>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or a list of texts")
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(vec![Spanned::new(
                    text.to_owned(),
                    serde_saphyr::Location::UNKNOWN,
                    serde_saphyr::Location::UNKNOWN,
                )])
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = seq.next_element()? {
                    all.push(one);
                }
                Ok(all)
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Vec::new())
            }
        }
        // the line of a text alone is that of the whole
        let whole = Spanned::<Whole>::deserialize(deserializer)?;
        let referenced = whole.referenced;
        let known = |one: Spanned<String>| match one.referenced.line() {
            0 => Spanned::new(one.value, referenced, referenced),
            _ => one,
        };
        struct Whole(Vec<Spanned<String>>);
        impl<'de> Deserialize<'de> for Whole {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Either).map(Whole)
            }
        }
        Ok(Self(whole.value.0.into_iter().map(known).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Settings, Vec<LoginFile>), String> {
        parse(text.as_bytes(), Path::new("/c")).map_err(|p| format!("{}: {}", p.line, p.why))
    }

    fn host(text: &str) -> HostConfig {
        let (settings, _) = read(&format!("hosts:\n  r.example:5000: {{{text}}}\n")).unwrap();
        assert_eq!(settings.hosts.len(), 1);
        let (name, config) = settings.hosts.into_iter().next().unwrap();
        assert_eq!(name, "r.example:5000");
        config
    }

    #[test]
    fn every_key_of_a_host() {
        let with = |change: fn(&mut HostConfig)| {
            let mut config = HostConfig::default();
            change(&mut config);
            config
        };
        let client = ClientCertificate { certificate: "/c/me.pem".into(), key: "/k/me.key".into() };
        for nothing in ["", "plainHttp: , caFile: , resolve: , noProxy: , clientKey: , stallTimeout: , mirrors: "] {
            assert_eq!(host(nothing), HostConfig::default(), "{nothing}");
        }
        assert_eq!(host("plainHttp: true"), with(|c| c.plain_http = Some(true)));
        assert_eq!(host("plainHttp: false"), with(|c| c.plain_http = Some(false)));
        assert_eq!(host("caFile: ca.pem"), with(|c| c.ca_files = vec!["/c/ca.pem".into()]));
        assert_eq!(host("caFile: [a, /b]"), with(|c| c.ca_files = vec!["/c/a".into(), "/b".into()]));
        assert_eq!(
            host("clientCertificate: me.pem, clientKey: /k/me.key"),
            HostConfig { client: Some(client), ..HostConfig::default() }
        );
        assert_eq!(host("resolve: 192.0.2.1"), with(|c| c.resolve = vec!["192.0.2.1".parse().unwrap()]));
        assert_eq!(
            host("resolve: ['::1', '[2001:db8::1]']"),
            with(|c| c.resolve = vec!["::1".parse().unwrap(), "2001:db8::1".parse().unwrap()])
        );
        assert_eq!(host("noProxy: true"), with(|c| c.no_proxy = true));
        assert_eq!(host("connectTimeout: 5"), with(|c| c.connect_timeout = Some(Duration::from_secs(5))));
        assert_eq!(host("stallTimeout: 600"), with(|c| c.stall_timeout = Some(Duration::from_secs(600))));
    }

    #[test]
    fn mirrors_and_logins() {
        let text = "\
logins:
  r.example: {username: all, passwordFile: all.password}
  r.example:5000/team/app:
    username: robot$x
    passwordFile: /run/secrets/team
hosts:
  index.docker.io: {mirrors: m.example/hub}
  quay.io:
    mirrors: [a.example, \"[::1]:5000/q\"]
  '[2001:db8::1]:5000': {}
";
        let (settings, logins) = read(text).unwrap();
        let target = |text: &str| text.parse::<Target>().unwrap();
        let expected = [
            ("docker.io".to_owned(), vec![target("m.example/hub")]),
            ("quay.io".to_owned(), vec![target("a.example"), target("[::1]:5000/q")]),
        ];
        assert_eq!(settings.mirrors, expected.into());
        let hosts: Vec<&str> = settings.hosts.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(hosts, ["docker.io", "quay.io", "[2001:db8::1]:5000"]);
        let login = |place: &str, username: &str, password: &str| LoginFile {
            place: place.to_owned(),
            username: username.to_owned(),
            password: password.into(),
        };
        assert_eq!(
            logins,
            [
                login("r.example", "all", "/c/all.password"),
                login("r.example:5000/team/app", "robot$x", "/run/secrets/team")
            ]
        );
    }

    #[test]
    fn nothing_is_fine() {
        for text in ["", "# only words\n\n", "hosts:\n", "{}", "logins: {}\nhosts: {}\n", "logins: {a.example: }\n"] {
            assert_eq!(read(text), Ok((Settings::default(), Vec::new())), "{text:?}");
        }
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        for (text, expected) in [
            ("- a\n", "1: "),
            ("hosts: [a]\n", "1: "),
            ("host: {}\n", "1: unknown key `host`; known here: logins, hosts"),
            ("hosts:\n  r.example:\n    plainHTTP: true\n", "3: unknown key"),
            ("hosts:\n  r.example:\n    plainHttp: yes please\n", "3: `true` or `false` is expected here"),
            ("hosts:\n  r.example:\n    password: hunter2\n", "3: unknown key"),
            ("logins:\n  r.example:\n    username: me\n    password: hunter2\n", "4: unknown key"),
            ("logins:\n  r.example:\n    username: me\n", "3: `passwordFile:` is missing"),
            ("logins:\n  http://r.example: {username: a, passwordFile: b}\n", "2: `http://r.example` is not a place"),
            ("logins:\n  r.example/UP: {username: a, passwordFile: b}\n", "2: `r.example/UP` is not a place"),
            ("hosts:\n\n  r.example/team: {}\n", "3: `r.example/team` is not a host"),
            ("hosts:\n  docker.io: {}\n  index.docker.io: {}\n", "3: the host `docker.io` is there twice"),
            ("hosts:\n  a.example: {}\n  a.example: {}\n", "3: the key `a.example` is there twice"),
            ("hosts:\n  a.example:\n    resolve: a.example\n", "3: `a.example` is not an IP address"),
            (
                "hosts:\n  a.example:\n    resolve:\n      - 192.0.2.1\n      - 192.0.2\n",
                "5: `192.0.2` is not an IP address",
            ),
            ("hosts:\n  a.example:\n    mirrors: https://m.example\n", "3: "),
            ("hosts:\n  a.example:\n    clientKey: k\n", "3: `clientKey:` needs `clientCertificate:`"),
            ("hosts:\n  a.example:\n    clientCertificate: k\n", "3: `clientCertificate:` needs `clientKey:`"),
            ("hosts:\n  a.example:\n    stallTimeout: 0\n", "3: `stallTimeout: 0` is not from 1 to 3600 seconds"),
            ("hosts:\n  a.example:\n    connectTimeout: 1m\n", "3: a whole number is expected here"),
            ("hosts:\n  a.example: [b]\n", "2: a mapping (`key: value`) is expected here"),
            ("hosts:\n  a.example: {\n", "2: "),
        ] {
            let why = read(text).unwrap_err();
            assert!(why.starts_with(expected) && !why.contains("hunter2"), "{text}\n{why}\n{expected}");
            assert!(why.len() > 10, "{why}");
        }
        assert!(parse(&vec![b'#'; MAX_BYTES + 1], Path::new("")).is_err());
        assert!(parse(b"\xff", Path::new("")).is_err());
    }

    /// The reference has every key, and its examples can be used.
    #[test]
    fn the_reference_is_in_step() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/config.md");
        let text = std::fs::read_to_string(page).unwrap();
        let examples: Vec<&str> =
            text.split("```yaml\n").skip(1).filter_map(|block| block.split("```").next()).collect();
        assert!(!examples.is_empty());
        for example in examples {
            read(example).unwrap();
        }
        // serde lists the keys that there are
        for probe in ["x: 1\n", "hosts: {a.example: {x: 1}}\n", "logins: {a.example: {x: 1}}\n"] {
            let why = read(probe).unwrap_err();
            let keys: Vec<&str> = why.split_once("known here: ").unwrap().1.split(", ").collect();
            assert!(keys.len() > 1, "{why}");
            for key in keys {
                assert!(text.contains(&format!("| `{key}` |")), "`{key}` is not in the reference");
            }
        }
    }
}
