//! A second `docker-registry` over the content of another: with a certificate of the test's choice, at another address, or for
//! those only who show a certificate themselves.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use tempfile::TempDir;

use super::{Certificate, Process, Registry, free_port};

/// Another way in; closed when dropped.
#[derive(Debug)]
pub struct Door {
    _process: Process,
    _folder: TempDir,
    address: SocketAddr,
}

impl Registry {
    /// Opens one. With `certificate` it speaks TLS; with `clients` it asks for a certificate of that CA.
    ///
    /// # Panics
    /// When `docker-registry` does not come up.
    #[must_use]
    pub fn door(&self, at: IpAddr, certificate: Option<&Certificate>, clients: Option<&Path>) -> Door {
        let folder = tempfile::Builder::new().prefix("ferry-door-").tempdir().unwrap();
        for _ in 0..5 {
            let address = SocketAddr::new(at, free_port());
            let mut config = format!(
                "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n\
                 http:\n  addr: \"{address}\"\n  secret: only-for-tests\n",
                self.storage().display()
            );
            if let Some(Certificate { chain, key, .. }) = certificate {
                config += &format!("  tls:\n    certificate: {}\n    key: {}\n", chain.display(), key.display());
            }
            if let Some(clients) = clients {
                config += &format!("    clientcas: [{}]\n", clients.display());
            }
            std::fs::write(folder.path().join("config.yml"), config).unwrap();
            if let Some(process) = Process::start(folder.path(), address) {
                return Door { _process: process, _folder: folder, address };
            }
        }
        panic!("docker-registry did not start: {}", std::fs::read_to_string(folder.path().join("error.log")).unwrap());
    }
}

impl Door {
    /// `127.0.0.1:PORT`, `[::1]:PORT`.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The port alone.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }
}
