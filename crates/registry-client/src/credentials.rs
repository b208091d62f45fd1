//! Who we are at which registry: docker's `config.json`, containers' `auth.json`, and what the user gave on the command line.
//!
//! Both files have one format (`auths`, `credHelpers`, `credsStore`). Of one source, the program in `credHelpers` for this very
//! host is asked first, as docker and podman do; then the entry of `auths` with the longest prefix of `host/path` applies; then
//! `credsStore` is asked. Earlier sources win over later ones. Once an entry applies it is used: there is no falling back to
//! anonymous.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::config::Commands;
use crate::{Error, Secret, credential_program, host};

/// What to show to a registry or its token server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    /// A name and a password.
    Basic {
        /// The name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A refresh token for the token server.
    IdentityToken(Secret),
    /// A ready-made bearer token.
    RegistryToken(Secret),
}

/// A user at a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// `host[:port][/path]`.
    pub place: String,
    /// The name.
    pub username: String,
    /// The password or token.
    pub password: Secret,
}

/// Where credentials come from, most important first. `Debug` shows where, and not what.
pub enum Source {
    /// Given by the user.
    Logins {
        /// Where they were given, for errors: `the command line`.
        origin: String,
        /// Each for a host or a prefix of its repositories.
        logins: Vec<Login>,
    },
    /// The content of a docker `config.json` or a containers `auth.json`.
    File {
        /// Where it was read, for errors.
        path: PathBuf,
        /// Its bytes.
        bytes: Vec<u8>,
    },
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Logins { origin, logins } => write!(f, "Logins({origin}: {logins:?})"),
            Self::File { path, .. } => write!(f, "File({})", path.display()),
        }
    }
}

/// All credentials there are.
#[derive(Debug, Clone, Default)]
pub struct Credentials(Arc<All>);

#[derive(Debug, Default)]
struct All {
    sources: Vec<Entries>,
    commands: Commands,
    /// What programs answered; each is asked once for a server.
    answers: Mutex<HashMap<(String, String), Option<Credential>>>,
}

#[derive(Debug)]
struct Entries {
    origin: String,
    /// By normalised `host[:port][/path]`.
    inline: BTreeMap<String, Credential>,
    /// By normalised host: the program's name.
    programs: BTreeMap<String, String>,
    /// The program for all other hosts.
    store: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: Option<String>,
}

#[derive(Deserialize)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl Credentials {
    /// Reads all sources, the most important first. `commands` says where credential programs are found.
    ///
    /// # Errors
    /// When a file is not what it should be.
    pub fn from_sources(sources: impl IntoIterator<Item = Source>, commands: Commands) -> Result<Self, Error> {
        let sources = sources.into_iter().map(Entries::read).collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(All { sources, commands, answers: Mutex::default() })))
    }

    /// What applies to `repository` (empty for the registry as such) at `host` (normalised); `None` when nothing is configured.
    pub(crate) async fn find(&self, host: &str, repository: &str) -> Result<Option<Credential>, Error> {
        for entries in &self.0.sources {
            if let Some(program) = entries.programs.get(host)
                && let Some(credential) = self.ask(program, host).await?
            {
                return Ok(Some(credential));
            }
            if let Some(credential) = entries.inline(host, repository) {
                return Ok(Some(credential.clone()));
            }
            if let Some(program) = &entries.store
                && let Some(credential) = self.ask(program, host).await?
            {
                return Ok(Some(credential));
            }
        }
        Ok(None)
    }

    /// Where what applies comes from, for messages.
    pub(crate) fn origin(&self, host: &str, repository: &str) -> String {
        let applies =
            |e: &&Entries| e.inline(host, repository).is_some() || e.programs.contains_key(host) || e.store.is_some();
        self.0.sources.iter().find(applies).map_or_else(|| "nowhere".to_owned(), |e| e.origin.clone())
    }

    async fn ask(&self, program: &str, host: &str) -> Result<Option<Credential>, Error> {
        // docker stores its hub under an address of its own
        let server = if host == host::DOCKER { "https://index.docker.io/v1/" } else { host };
        let key = (program.to_owned(), server.to_owned());
        let mut answers = self.0.answers.lock().await;
        if let Some(answer) = answers.get(&key) {
            return Ok(answer.clone());
        }
        let answer = credential_program::ask(&self.0.commands, program, server).await?;
        answers.insert(key, answer.clone());
        Ok(answer)
    }
}

impl Entries {
    fn read(source: Source) -> Result<Self, Error> {
        let mut entries =
            Self { origin: String::new(), inline: BTreeMap::new(), programs: BTreeMap::new(), store: None };
        let (path, bytes) = match source {
            Source::Logins { origin, logins } => {
                entries.origin = origin;
                for Login { place, username, password } in logins {
                    entries.inline.insert(normalised(&place), Credential::Basic { username, password });
                }
                return Ok(entries);
            }
            Source::File { path, bytes } => (path, bytes),
        };
        entries.origin = format!("`{}`", path.display());
        // an empty file is what `touch` and secret mounts leave
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(entries);
        }
        // serde's own words would quote the value, which may be a password
        let file: File = serde_json::from_slice(&bytes).map_err(|e| {
            let place = format!("line {}, column {}", e.line(), e.column());
            Error::content(&path, format!("not a docker `config.json` or containers `auth.json`: {place}"))
        })?;
        for (key, auth) in file.auths {
            let credential = auth.credential().map_err(|why| Error::content(&path, format!("entry `{key}`: {why}")))?;
            if let Some(credential) = credential {
                entries.inline.insert(normalised(&key), credential);
            }
        }
        entries.programs = file.cred_helpers.into_iter().map(|(host, name)| (normalised(&host), name)).collect();
        entries.store = file.creds_store.filter(|name| !name.is_empty());
        Ok(entries)
    }

    /// The entry for the longest prefix of `host/repository`.
    fn inline(&self, host: &str, repository: &str) -> Option<&Credential> {
        let name = format!("{host}/{repository}");
        let mut prefix = name.trim_end_matches('/');
        loop {
            if let Some(credential) = self.inline.get(prefix) {
                return Some(credential);
            }
            prefix = prefix.rsplit_once('/')?.0;
        }
    }
}

impl Auth {
    fn credential(self) -> Result<Option<Credential>, &'static str> {
        let filled = |text: Option<String>| text.filter(|t| !t.is_empty());
        if let Some(token) = filled(self.registrytoken) {
            return Ok(Some(Credential::RegistryToken(token.into())));
        }
        if let Some(token) = filled(self.identitytoken) {
            return Ok(Some(Credential::IdentityToken(token.into())));
        }
        if let Some(auth) = filled(self.auth) {
            let engine = base64::engine::GeneralPurpose::new(
                &base64::alphabet::STANDARD,
                base64::engine::GeneralPurposeConfig::new()
                    .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
            );
            let decoded = engine.decode(auth.trim()).map_err(|_| "`auth` is not base64")?;
            let text = String::from_utf8(decoded).map_err(|_| "`auth` is not text")?;
            let (username, password) = text.split_once(':').ok_or("`auth` holds no `:`")?;
            // docker once wrote a NUL behind the password
            let password = Secret::new(password.trim_end_matches('\0'));
            return Ok(Some(Credential::Basic { username: username.to_owned(), password }));
        }
        Ok(match (filled(self.username), filled(self.password)) {
            (Some(username), Some(password)) => Some(Credential::Basic { username, password: password.into() }),
            _ => None,
        })
    }
}

/// `https://index.docker.io/v1/` → `docker.io`, `http://r:5000/v2/` → `r:5000`, `r/team` stays.
fn normalised(key: &str) -> String {
    let key = key.trim();
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let rest = bare.unwrap_or(key).trim_end_matches('/');
    let (name, path) = rest.split_once('/').unwrap_or((rest, ""));
    let name = match name.to_ascii_lowercase().as_str() {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => host::DOCKER.to_owned(),
        name => name.to_owned(),
    };
    match path {
        "" | "v1" | "v2" => name,
        // only containers' auth.json has paths, and writes no scheme; docker looks at the host alone
        _ if bare.is_some() => name,
        path => format!("{name}/{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Source {
        Source::File { path: "config.json".into(), bytes: text.as_bytes().to_vec() }
    }

    fn logins(logins: &[(&str, &str)]) -> Source {
        let login = |(place, user): &(&str, &str)| {
            let (username, password) = user.split_once(':').unwrap();
            Login { place: (*place).to_owned(), username: username.to_owned(), password: Secret::new(password) }
        };
        Source::Logins { origin: "the command line".to_owned(), logins: logins.iter().map(login).collect() }
    }

    fn auth(text: &str) -> String {
        base64::engine::general_purpose::STANDARD.encode(text)
    }

    async fn user(credentials: &Credentials, host: &str, repository: &str) -> Option<String> {
        match credentials.find(host, repository).await.unwrap()? {
            Credential::Basic { username, password } => Some(format!("{username}:{}", password.reveal())),
            Credential::IdentityToken(token) => Some(format!("identity {}", token.reveal())),
            Credential::RegistryToken(token) => Some(format!("registry {}", token.reveal())),
        }
    }

    #[tokio::test]
    async fn the_longest_prefix_applies() {
        let text = format!(
            r#"{{"auths":{{"r.example":{{"auth":"{}"}},"r.example/team":{{"auth":"{}"}},"r.example/team/app":{{"auth":"{}"}},"r.example:5000":{{"auth":"{}"}}}}}}"#,
            auth("host:1"),
            auth("team:2"),
            auth("app:3"),
            auth("port:4")
        );
        let all = Credentials::from_sources([file(&text)], Commands::default()).unwrap();
        for (host, repository, expected) in [
            ("r.example", "", Some("host:1")),
            ("r.example", "other/x", Some("host:1")),
            ("r.example", "teams/x", Some("host:1")),
            ("r.example", "team/x", Some("team:2")),
            ("r.example", "team/app", Some("app:3")),
            ("r.example", "team/app/deep", Some("app:3")),
            ("r.example:5000", "team/x", Some("port:4")),
            ("r.example:6000", "team/x", None),
            ("example", "", None),
        ] {
            assert_eq!(user(&all, host, repository).await.as_deref(), expected, "{host}/{repository}");
        }
    }

    #[tokio::test]
    async fn keys_as_docker_and_podman_write_them() {
        for (key, host) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("docker.io", "docker.io"),
            ("index.docker.io", "docker.io"),
            ("https://r.example", "r.example"),
            ("http://r.example:5000/v2/", "r.example:5000"),
            ("https://R.example/v1/", "r.example"),
        ] {
            let text = format!(r#"{{"auths":{{"{key}":{{"auth":"{}"}}}}}}"#, auth("u:a:b"));
            let all = Credentials::from_sources([file(&text)], Commands::default()).unwrap();
            assert_eq!(user(&all, host, "x/y").await.as_deref(), Some("u:a:b"), "{key}");
        }
    }

    #[tokio::test]
    async fn earlier_sources_win_and_empty_entries_do_not_count() {
        let given = logins(&[("r.example", "me:pw")]);
        let first = file(r#"{"auths":{"r.example":{},"q.example":{"identitytoken":"t"}}}"#);
        let text =
            format!(r#"{{"auths":{{"r.example":{{"auth":"{0}"}},"s.example":{{"auth":"{0}"}}}}}}"#, auth("late:1"));
        let all = Credentials::from_sources([given, first, file(&text), file(" \n")], Commands::default()).unwrap();
        assert_eq!(user(&all, "r.example", "").await.as_deref(), Some("me:pw"));
        assert_eq!(user(&all, "q.example", "").await.as_deref(), Some("identity t"));
        assert_eq!(user(&all, "s.example", "").await.as_deref(), Some("late:1"));
        assert_eq!(user(&all, "none.example", "").await, None);
    }

    #[tokio::test]
    async fn of_logins_too_the_longest_prefix_applies() {
        let given = logins(&[("r.example", "a:1"), ("R.example/team", "b:2"), ("docker.io/team/app", "c:3")]);
        let all = Credentials::from_sources([given, file("{}")], Commands::default()).unwrap();
        for (host, repository, expected) in [
            ("r.example", "x", Some("a:1")),
            ("r.example", "team/app", Some("b:2")),
            ("docker.io", "team/app", Some("c:3")),
            ("docker.io", "team", None),
        ] {
            assert_eq!(user(&all, host, repository).await.as_deref(), expected, "{host}/{repository}");
        }
        assert_eq!(all.origin("r.example", "x"), "the command line");
    }

    #[tokio::test]
    async fn a_hosts_own_program_goes_before_entries_and_the_store_after_them() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        for name in ["own", "all", "empty"] {
            let path = dir.path().join(format!("docker-credential-{name}"));
            let answer = match name {
                "empty" => "echo credentials not found in native keychain; exit 1".to_owned(),
                _ => format!(r#"read s; echo "{{\"Username\":\"{name}\",\"Secret\":\"$s\"}}""#),
            };
            std::fs::write(&path, format!("#!/bin/sh\n{answer}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let text = format!(
            r#"{{"auths":{{"r.example":{{"auth":"{0}"}},"q.example":{{"auth":"{0}"}},"s.example":{{}}}},
                "credHelpers":{{"r.example":"own","https://q.example":"empty"}},"credsStore":"all"}}"#,
            auth("inline:1")
        );
        let commands = Commands { path: dir.path().into(), ..Commands::default() };
        let all = Credentials::from_sources([file(&text)], commands).unwrap();
        for (host, expected) in [
            ("r.example", "own:r.example"),
            ("q.example", "inline:1"),
            ("s.example", "all:s.example"),
            ("docker.io", "all:https://index.docker.io/v1/"),
        ] {
            assert_eq!(user(&all, host, "a/b").await.as_deref(), Some(expected), "{host}");
        }
    }

    #[tokio::test]
    async fn a_program_that_fails_is_an_error_and_not_anonymous() {
        let source = file(r#"{"auths":{},"credHelpers":{"r.example":"absent"}}"#);
        let all = Credentials::from_sources([source], Commands::default()).unwrap();
        assert!(all.find("r.example", "").await.is_err());
        assert_eq!(user(&all, "s.example", "").await, None);
    }

    #[test]
    fn errors_do_not_show_secrets() {
        for text in [
            r#"{"auths":{"r":{"auth":"hunter2!"}}}"#,
            r#"{"auths":{"r":"hunter2"}}"#,
            r#"{"auths":"hunter2"}"#,
            "hunter2",
        ] {
            let error = Credentials::from_sources([file(text)], Commands::default()).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }
}
