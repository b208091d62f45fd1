//! Registries on loopback: real ones (Debian's `docker-registry`), each in its own folder, and one that misbehaves ([`faulty`]).

mod access_log;
mod authority;
pub mod certificate;
mod door;
pub mod faulty;
mod front;
mod push;
mod token;

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::http::Endpoint;
use crate::images::Image;
use crate::tools;

pub use access_log::{Record, Records};
pub use authority::{Authority, Says, lay_out};
pub use certificate::{Certificate, self_signed, signed_by_private_ca};
pub use door::Door;
pub use front::Front;
pub use push::push;
pub use token::TokenServer;

/// The user that every registry with a login knows.
pub const USER: &str = "carrier";
/// Its password.
pub const PASSWORD: &str = "over-the-gap";

/// What a registry asks of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Plain HTTP, open to all.
    Plain,
    /// Plain HTTP, user and password by basic authentication.
    Basic,
    /// Plain HTTP, bearer tokens from a token server that asks for user and password.
    Token,
    /// TLS with a certificate of a private CA.
    Tls,
    /// TLS with a self-signed certificate as `openssl req -x509` makes it.
    SelfSigned,
    /// TLS of a private CA and basic authentication.
    TlsBasic,
    /// Plain HTTP; every write is refused.
    ReadOnly,
}

/// A running `docker-registry`; stopped when dropped.
#[derive(Debug)]
pub struct Registry {
    process: Process,
    folder: TempDir,
    port: u16,
    access: Access,
    certificate: Option<Certificate>,
    tokens: Option<TokenServer>,
}

/// What is special about a registry.
#[derive(Debug, Default)]
struct Special {
    /// How long its tokens hold, and how long they are said to.
    token_life: Option<(Duration, Duration)>,
    /// It is a pull-through cache of this one.
    origin: Option<String>,
}

impl Registry {
    /// Starts one on a free port and waits until it answers.
    ///
    /// # Panics
    /// When `docker-registry` is missing or does not come up: ask `require!("docker-registry")` first.
    #[must_use]
    pub fn start(access: Access) -> Self {
        Self::start_special(access, &Special::default())
    }

    /// One with tokens that hold for `life` and are said to hold for `said` (whole seconds both).
    #[must_use]
    pub fn with_tokens_for(life: Duration, said: Duration) -> Self {
        Self::start_special(Access::Token, &Special { token_life: Some((life, said)), ..Special::default() })
    }

    /// A pull-through cache of `origin`, which answers already.
    #[must_use]
    pub fn cache_of(origin: &Self) -> Self {
        let origin = Some(format!("http://{}", origin.host()));
        Self::start_special(Access::Plain, &Special { origin, ..Special::default() })
    }

    fn start_special(access: Access, special: &Special) -> Self {
        let folder = tempfile::Builder::new().prefix("ferry-registry-").tempdir().unwrap();
        let certificate = match access {
            Access::Tls | Access::TlsBasic => Some(signed_by_private_ca(folder.path())),
            Access::SelfSigned => Some(self_signed(folder.path())),
            _ => None,
        };
        let life = special.token_life.unwrap_or((Duration::from_secs(300), Duration::from_secs(300)));
        let tokens = (access == Access::Token).then(|| TokenServer::start(folder.path(), life));
        let realm = tokens.as_ref().map(TokenServer::realm);
        // another program may take the port between choosing and listening: then with a new one
        for _ in 0..5 {
            let port = free_port();
            let mut config = config(access, folder.path(), port, certificate.as_ref(), realm.as_deref());
            if let Some(origin) = &special.origin {
                config += &format!("proxy: {{remoteurl: \"{origin}\"}}\n");
            }
            fs::write(folder.path().join("config.yml"), config).unwrap();
            if let Some(process) = Process::start(folder.path(), SocketAddr::from(([127, 0, 0, 1], port))) {
                return Self { process, folder, port, access, certificate, tokens };
            }
        }
        panic!("docker-registry did not start: {}", fs::read_to_string(folder.path().join("error.log")).unwrap());
    }

    /// A plain one that is filled already: `(NAME:TAG, image)`. The access log starts empty.
    #[must_use]
    pub fn filled(access: Access, images: &[(&str, &Image)]) -> Self {
        let registry = Self::start(access);
        for (name, image) in images {
            registry.push(name, image);
        }
        registry.forget_requests();
        registry
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The address to connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// How the kit itself speaks to it.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        let login = matches!(self.access, Access::Basic | Access::Token | Access::TlsBasic);
        Endpoint {
            host: self.host(),
            tls: matches!(self.access, Access::Tls | Access::TlsBasic | Access::SelfSigned),
            login: login.then(|| (USER.to_owned(), PASSWORD.to_owned())),
        }
    }

    /// The certificate and its CA, for a registry with TLS.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        self.certificate.as_ref().expect("this registry has no TLS")
    }

    /// Pushes an image as `NAME:TAG`, or as `NAME` by its digest only.
    pub fn push(&self, name: &str, image: &Image) {
        push(&self.endpoint(), name, image);
    }

    /// The bytes of a manifest by tag or digest; none when the registry lacks it.
    #[must_use]
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<Vec<u8>> {
        let accept = [
            "application/vnd.oci.image.index.v1+json",
            "application/vnd.oci.image.manifest.v1+json",
            "application/vnd.docker.distribution.manifest.list.v2+json",
            "application/vnd.docker.distribution.manifest.v2+json",
        ]
        .join(", ");
        let path = format!("/v2/{repository}/manifests/{reference}");
        let answer = self.endpoint().send("GET", &path, &[("Accept", &accept)], &[]).unwrap();
        (answer.status == 200).then_some(answer.body)
    }

    /// The bytes of a blob; none when the repository lacks it.
    #[must_use]
    pub fn blob(&self, repository: &str, digest: &str) -> Option<Vec<u8>> {
        let answer = self.endpoint().send("GET", &format!("/v2/{repository}/blobs/{digest}"), &[], &[]).unwrap();
        (answer.status == 200).then_some(answer.body)
    }

    /// Whether everything an image consists of can be pulled from `repository`, byte for byte.
    #[must_use]
    pub fn holds(&self, repository: &str, image: &Image) -> bool {
        image.manifests.iter().all(|(d, bytes)| self.manifest(repository, &d.digest).as_ref() == Some(bytes))
            && image.blobs.iter().all(|(digest, bytes)| self.blob(repository, digest).as_ref() == Some(bytes))
    }

    /// The names of all repositories.
    #[must_use]
    pub fn repositories(&self) -> Vec<String> {
        let answer = self.endpoint().send("GET", "/v2/_catalog?n=1000", &[], &[]).unwrap();
        let catalog: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        catalog["repositories"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    }

    /// How many tokens its token server gave.
    #[must_use]
    pub fn tokens_given(&self) -> u64 {
        self.tokens.as_ref().map_or(0, TokenServer::asked)
    }

    /// Every request since the start or [`Self::forget_requests`], in order of completion.
    #[must_use]
    pub fn requests(&self) -> Records {
        // the log line is written after the answer: give the last one its moment
        std::thread::sleep(Duration::from_millis(100));
        access_log::parse(&fs::read_to_string(self.log()).unwrap())
    }

    /// Empties the access log.
    pub fn forget_requests(&self) {
        std::thread::sleep(Duration::from_millis(100));
        File::options().write(true).open(self.log()).unwrap().set_len(0).unwrap();
    }

    /// Ends it as a power cut would, and starts it again on the same port and folder.
    pub fn restart(&mut self) {
        self.process.end();
        self.process = Process::start(self.folder.path(), self.address()).expect("docker-registry starts again");
    }

    /// Ends it for good.
    pub fn stop(&mut self) {
        self.process.end();
    }

    /// Where it keeps its content.
    #[must_use]
    pub fn storage(&self) -> PathBuf {
        self.folder.path().join("storage")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("access.log")
    }
}

/// A port that was free a moment ago.
#[must_use]
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[derive(Debug)]
struct Process(Child);

impl Process {
    /// Starts `docker-registry` and waits until it listens; none when it ended before.
    fn start(folder: &Path, address: SocketAddr) -> Option<Self> {
        let program = tools::find("docker-registry").expect("docker-registry is installed");
        let append = |name: &str| File::options().create(true).append(true).open(folder.join(name)).unwrap();
        let child = Command::new(program)
            .args(["serve", "config.yml"])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(append("access.log"))
            .stderr(append("error.log"))
            .spawn()
            .unwrap();
        let mut process = Self(child);
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if process.0.try_wait().unwrap().is_some() {
                return None;
            }
            if TcpStream::connect(address).is_ok() {
                // the listener may be another program's: ours would end at once
                std::thread::sleep(Duration::from_millis(20));
                return process.0.try_wait().unwrap().is_none().then_some(process);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

fn config(access: Access, folder: &Path, port: u16, cert: Option<&Certificate>, realm: Option<&str>) -> String {
    let mut config = format!(
        "version: 0.1\n\
         log: {{level: error, accesslog: {{disabled: false}}}}\n\
         storage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\n\
         \x20 maintenance: {{uploadpurging: {{enabled: false}}, readonly: {{enabled: {}}}}}\n\
         http:\n  addr: 127.0.0.1:{port}\n  secret: only-for-tests\n",
        folder.join("storage").display(),
        access == Access::ReadOnly,
    );
    if let Some(cert) = cert {
        config += &format!("  tls: {{certificate: {}, key: {}}}\n", cert.chain.display(), cert.key.display());
    }
    if matches!(access, Access::Basic | Access::TlsBasic) {
        let line = tools::succeed("htpasswd", &["-Bbn", "-C", "4", USER, PASSWORD]);
        fs::write(folder.join("htpasswd"), line).unwrap();
        config += &format!("auth:\n  htpasswd: {{realm: tests, path: {}}}\n", folder.join("htpasswd").display());
    }
    if let Some(realm) = realm {
        let (service, roots) = (token::SERVICE, folder.join("token.crt"));
        config += &format!(
            "auth:\n  token: {{realm: \"{realm}\", service: {service}, issuer: {service}, rootcertbundle: {}}}\n",
            roots.display()
        );
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::{Format, Layer};
    use crate::require;

    fn crosses(access: Access) {
        let image = Image::single("linux/amd64", Format::Docker, vec![Layer::random(1, 1000), Layer::random(2, 10)]);
        let index = Image::index(Format::Oci, &[&image]);
        let registry = Registry::filled(access, &[("some/app:1", &index)]);
        assert!(registry.holds("some/app", &index));
        assert_eq!(registry.repositories(), ["some/app"]);
        assert_eq!(registry.manifest("some/app", "1").as_deref(), index.manifest(index.digest()));
        let requests = registry.requests();
        assert_eq!(requests.blobs_sent().len(), 3, "{requests:?}");
        assert!(requests.uploads().is_empty(), "{requests:?}");
    }

    #[test]
    fn plain() {
        require!("docker-registry");
        crosses(Access::Plain);
    }

    #[test]
    fn basic() {
        require!("docker-registry", "htpasswd");
        crosses(Access::Basic);
    }

    #[test]
    fn token() {
        require!("docker-registry");
        crosses(Access::Token);
    }

    #[test]
    fn tls() {
        require!("docker-registry");
        crosses(Access::Tls);
    }

    #[test]
    fn self_signed() {
        require!("docker-registry", "openssl");
        crosses(Access::SelfSigned);
    }

    #[test]
    fn read_only_refuses() {
        require!("docker-registry");
        let registry = Registry::start(Access::ReadOnly);
        let answer = registry.endpoint().send("POST", "/v2/a/blobs/uploads/", &[], &[]).unwrap();
        assert_eq!(answer.status, 405);
    }
}
