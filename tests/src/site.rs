//! A folder to work in, with keys, as each side of the gap has one.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::ferry::{Ferry, Running};
use crate::registry::free_port;

/// A temporary folder with a key pair.
#[derive(Debug)]
pub struct Site {
    folder: TempDir,
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

impl Site {
    /// A new folder; `ferry keygen` makes `ferry.key` and `ferry.pub` in it.
    #[must_use]
    pub fn new() -> Self {
        let site = Self::without_keys();
        let _ = site.ferry("keygen --out . --no-password").ok();
        site
    }

    /// A new empty folder.
    #[must_use]
    pub fn without_keys() -> Self {
        Self { folder: tempfile::Builder::new().prefix("ferry-site-").tempdir().unwrap() }
    }

    /// `ferry` with these arguments, split at spaces, run in this folder.
    #[must_use]
    pub fn ferry(&self, arguments: &str) -> Ferry {
        Ferry::new(self.path(), arguments.split_whitespace())
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A path in it.
    #[must_use]
    pub fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file in it, its folders included.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Reads a file in it.
    #[must_use]
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Reads a file in it.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.at(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// The names of everything in it, sorted, folders with a `/` at the end.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path()).unwrap().map(Result::unwrap);
        let slash = |e: &fs::DirEntry| if e.path().is_dir() { "/" } else { "" };
        let mut names: Vec<String> = entries.map(|e| format!("{}{}", e.file_name().display(), slash(&e))).collect();
        names.sort();
        names
    }

    /// A docker `config.json` with this login, in a folder for `DOCKER_CONFIG`.
    pub fn login(&self, host: &str, user: &str, password: &str) -> PathBuf {
        let auth = crate::http::base64(format!("{user}:{password}"));
        let config = serde_json::json!({"auths": {host: {"auth": auth}}});
        let file = self.write("docker/config.json", config.to_string());
        file.parent().unwrap().to_owned()
    }

    /// Starts `ferry serve ARGUMENTS` on a free port and waits until it listens; returns `HOST:PORT`.
    #[must_use]
    pub fn serve(&self, arguments: &str) -> (String, Running) {
        let host = format!("127.0.0.1:{}", free_port());
        let mut running = self.ferry(&format!("serve {arguments} --listen {host}")).start();
        running.until("it listens", || TcpStream::connect(&host).is_ok());
        (host, running)
    }

    /// The same, with all that it says once it listens.
    #[must_use]
    pub fn serve_and_hear(&self, arguments: &str) -> (String, Running, String) {
        let (host, mut running) = self.serve(arguments);
        running.until_it_says("docs/serve.md");
        let said = running.stderr();
        (host, running, said)
    }
}
