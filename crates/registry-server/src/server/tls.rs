//! Certificates: from files, or made here by a small authority that is kept. Both are looked at again while the server runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError};
use std::time::{Duration, Instant, SystemTime};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::authority;
use crate::{Error, Reread};

/// How long whoever wants a certificate read waits for one who is reading it; that takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where the server's certificate comes from.
#[derive(Debug, Clone)]
pub enum Tls {
    /// PEM files: the chain, the server's own certificate first, and its key.
    Files {
        /// The chain.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// A small certificate authority in a folder, and a certificate of its making: made where they are not there, and the certificate
    /// anew when it runs out or lacks a name.
    Kept {
        /// The folder.
        folder: PathBuf,
        /// Host names and IP addresses that clients will use.
        names: Vec<String>,
    },
}

/// What clients must trust when the certificate was made here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// The file.
    pub path: PathBuf,
    /// What is in it: one certificate.
    pub pem: String,
    /// Whether nodes can know it already.
    pub found: Found,
}

/// What there was of an authority when a server began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// All.
    There {
        /// When its certificate was written.
        since: Option<SystemTime>,
    },
    /// Nothing: it is a new one.
    New,
    /// Its key: the certificate is a new one. Who has the old one trusts what this key signs, but their sums differ.
    MadeAnew,
}

/// TLS as it is served.
pub(crate) struct Serving {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) authority: Option<Authority>,
    pub(crate) current: Arc<Current>,
}

/// The certificate in use: it can be another one for the next connection.
#[derive(Debug)]
pub(crate) struct Current {
    tls: Tls,
    provider: Arc<CryptoProvider>,
    key: RwLock<Arc<CertifiedKey>>,
    /// When the files were written that were read last.
    written: Mutex<Written>,
}

type Written = Vec<Option<SystemTime>>;
type Loaded = Option<(CertifiedKey, Option<Authority>)>;

impl Tls {
    /// Blocking.
    pub(crate) fn start(&self) -> Result<Serving, Error> {
        // Named, not taken from the process: a library must not depend on who installed a default.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let written = Mutex::new(self.written());
        let (key, authority) = match self.load(&provider, SystemTime::now(), None)? {
            Some((key, authority)) => (key, authority),
            None => return Err(self.unusable(&rustls::Error::NoCertificatesPresented)),
        };
        let current = Current { tls: self.clone(), provider, key: RwLock::new(Arc::new(key)), written };
        let current = Arc::new(current);
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&current.provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| self.unusable(&e))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as _);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Serving { acceptor: TlsAcceptor::from(Arc::new(config)), authority, current })
    }

    /// `None` where the one `in_use` stays.
    fn load(&self, provider: &CryptoProvider, now: SystemTime, in_use: Option<&CertifiedKey>) -> Result<Loaded, Error> {
        let (chain, key, authority) = match self {
            Self::Files { certificate, key } => (chain(certificate)?, read_key(key)?, None),
            Self::Kept { folder, names } => {
                let in_use = in_use.and_then(|key| key.cert.first());
                let Some(made) = authority::certificate(folder, names, provider, now, in_use)? else { return Ok(None) };
                (made.chain, made.key, Some(made.authority))
            }
        };
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|e| self.unusable(&e))?;
        Ok(Some((key, authority)))
    }

    fn unusable(&self, error: &rustls::Error) -> Error {
        let (Self::Files { certificate: path, .. } | Self::Kept { folder: path, .. }) = self;
        let why = match error {
            rustls::Error::InconsistentKeys(_) => "its first certificate is not that of the key".to_owned(),
            rustls::Error::NoCertificatesPresented => "there is no certificate in it".to_owned(),
            rustls::Error::InvalidCertificate(_) => "its first certificate cannot be read".to_owned(),
            other => other.to_string(),
        };
        Error::TlsFile { path: path.clone(), why }
    }

    fn written(&self) -> Written {
        let when = |path: &PathBuf| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        match self {
            Self::Files { certificate, key } => vec![when(certificate), when(key)],
            Self::Kept { .. } => Vec::new(),
        }
    }
}

impl Current {
    /// The same as [`refresh`](Self::refresh), whether or not the files look as if they had changed. Blocking.
    pub(crate) fn reload(&self, now: SystemTime) -> Reread {
        let end = Instant::now() + PATIENCE;
        let mut known = loop {
            match self.turn() {
                Some(known) => break known,
                None if Instant::now() < end => std::thread::sleep(Duration::from_millis(10)),
                None => {
                    tracing::error!("the certificate stays: it is being read already, and the disk does not answer");
                    return Reread::Kept;
                }
            }
        };
        known.clear();
        self.take(known, now)
    }

    /// Takes a new certificate where there is one. One that cannot be used is told, and the old one stays. Nothing is done where that is being
    /// done: on a disk that does not answer, every look would take a thread for itself. Blocking.
    pub(crate) fn refresh(&self, now: SystemTime) {
        if let Some(known) = self.turn() {
            self.take(known, now);
        }
    }

    /// Whether somebody looks at the files.
    #[cfg(test)]
    pub(crate) fn is_looking(&self) -> bool {
        self.turn().is_none()
    }

    /// The turn to look at the files. It is kept for as long as the disk takes.
    fn turn(&self) -> Option<MutexGuard<'_, Written>> {
        match self.written.try_lock() {
            Ok(known) => Some(known),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn take(&self, mut known: MutexGuard<'_, Written>, now: SystemTime) -> Reread {
        let found = self.tls.written();
        if let Tls::Files { certificate, .. } = &self.tls {
            if *known == found {
                return Reread::Done;
            }
            tracing::info!(path = %certificate.display(), "the certificate is read again");
        }
        let in_use = Arc::clone(&self.key.read().unwrap_or_else(PoisonError::into_inner));
        match self.tls.load(&self.provider, now, Some(&in_use)) {
            Ok(loaded) => {
                if let Some((key, _)) = loaded {
                    *self.key.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
                }
                // not before: what cannot be read this time may be the next, of the same age (a key that is not readable yet)
                *known = found;
                Reread::Done
            }
            Err(error) => {
                tracing::error!(%error, "the certificate stays the one that was there before");
                Reread::Kept
            }
        }
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.key.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

pub(crate) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let fail = |why: String| Error::TlsFile { path: path.to_owned(), why };
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match found {
        Ok(chain) if chain.is_empty() => Err(fail("there is no certificate in it".to_owned())),
        Ok(chain) => Ok(chain),
        Err(e) => Err(fail(words(&e, "certificate"))),
    }
}

pub(crate) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_file(path)
        .map_err(|e| Error::TlsFile { path: path.to_owned(), why: words(&e, "private key without a password") })
}

/// What is wrong with a PEM file that shall have a `what`.
fn words(error: &pem::Error, what: &str) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => format!("there is no {what} in it"),
        pem::Error::MissingSectionEnd { .. } => "it breaks off before its `-----END` line".to_owned(),
        _ => "it is no whole PEM text".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_change_are_read_again_and_a_broken_one_changes_nothing() {
        let folder = tempfile::tempdir().expect("folder");
        let provider = rustls::crypto::ring::default_provider();
        let make = |name: &str| {
            let folder = folder.path().join(name);
            let names = ["a.site".to_owned()];
            authority::certificate(&folder, &names, &provider, SystemTime::now(), None).expect("made");
            folder.join("server.pem")
        };
        let (one, two) = (make("one"), make("two"));
        let serving = Tls::Files { certificate: one.clone(), key: one.clone() }.start().expect("serving");
        let in_use = || serving.current.key.read().expect("lock").cert[0].clone();
        let write = |bytes: &[u8], seconds: u64| {
            std::fs::write(&one, bytes).expect("write");
            let time = SystemTime::now() + std::time::Duration::from_secs(seconds);
            std::fs::File::options().write(true).open(&one).expect("open").set_modified(time).expect("time");
            serving.current.refresh(SystemTime::now());
        };
        let first = in_use();
        write(b"half of", 1);
        assert_eq!(in_use(), first);
        write(&std::fs::read(&two).expect("read"), 2);
        assert_eq!(in_use(), chain(&two).expect("chain")[0]);
        assert!(serving.authority.is_none());
        // one that could not be read is tried again, though its time is the same
        let (third, aside) = (make("three"), folder.path().join("aside"));
        let time = SystemTime::now() + std::time::Duration::from_secs(3);
        std::fs::File::options().write(true).open(&third).expect("open").set_modified(time).expect("time");
        let serving = Tls::Files { certificate: two.clone(), key: two.clone() }.start().expect("serving");
        let in_use = || serving.current.key.read().expect("lock").cert[0].clone();
        let (good, before) = (std::fs::read(&third).expect("read"), in_use());
        for (bytes, expected) in [(&b"half of"[..], before.clone()), (&good, chain(&third).expect("chain")[0].clone())]
        {
            std::fs::write(&aside, bytes).expect("write");
            std::fs::File::options().write(true).open(&aside).expect("open").set_modified(time).expect("time");
            std::fs::rename(&aside, &two).expect("rename");
            serving.current.refresh(SystemTime::now());
            assert_eq!(in_use(), expected);
        }
        // who says so has it read again, whatever its time
        let (fourth, before) = (make("four"), in_use());
        let file = std::fs::File::options().write(true).open(&fourth).expect("open");
        file.set_modified(time).expect("time");
        std::fs::rename(&fourth, &two).expect("rename");
        serving.current.refresh(SystemTime::now());
        assert_eq!(in_use(), before);
        assert_eq!(serving.current.reload(SystemTime::now()), Reread::Done);
        assert_eq!(in_use(), chain(&two).expect("chain")[0]);
        std::fs::write(&two, "junk").expect("write");
        let before = in_use();
        assert_eq!(serving.current.reload(SystemTime::now()), Reread::Kept);
        assert_eq!(in_use(), before);
    }

    #[test]
    fn a_disk_that_does_not_answer_holds_one_look_and_no_other() {
        let folder = tempfile::tempdir().expect("folder");
        let (names, provider) = (["a.site".to_owned()], rustls::crypto::ring::default_provider());
        authority::certificate(folder.path(), &names, &provider, SystemTime::now(), None).expect("made");
        let file = folder.path().join("server.pem");
        let current = Tls::Files { certificate: file.clone(), key: file.clone() }.start().expect("serving").current;
        // whoever opens a pipe that nobody writes into waits
        std::fs::remove_file(&file).expect("remove");
        rustix::fs::mkfifoat(rustix::fs::CWD, &file, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).expect("a pipe");
        let looking = Arc::clone(&current);
        let looking = std::thread::spawn(move || looking.reload(SystemTime::now()));
        while !current.is_looking() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            current.refresh(SystemTime::now());
            done.send(current.reload(SystemTime::now()))
        });
        assert_eq!(is_done.recv_timeout(PATIENCE * 2), Ok(Reread::Kept));
        assert!(!looking.is_finished(), "it was held all the while");
        drop(std::fs::File::options().write(true).open(&file).expect("it answers"));
        looking.join().expect("it ends");
    }

    #[test]
    fn what_is_wrong_with_files_is_said_in_our_words() {
        let folder = tempfile::tempdir().expect("folder");
        let at = |name: &str| folder.path().join(name);
        for name in ["one", "two"] {
            Tls::Kept { folder: at(name), names: vec!["a.site".to_owned()] }.start().expect("made");
        }
        std::fs::write(at("junk"), "junk").expect("write");
        std::fs::write(at("half"), "-----BEGIN CERTIFICATE-----\nMIIB").expect("write");
        for (certificate, key, why) in [
            ("junk", "one/server.pem", "junk`: there is no certificate in it"),
            ("half", "one/server.pem", "half`: it breaks off before its `-----END` line"),
            ("one/server.pem", "one/ca.crt", "one/ca.crt`: there is no private key without a password in it"),
            ("one/server.pem", "two/server.pem", "one/server.pem`: its first certificate is not that of the key"),
            ("none", "one/server.pem", "none`: No such file"),
        ] {
            let told = Tls::Files { certificate: at(certificate), key: at(key) }.start().err().expect(why).to_string();
            assert!(told.contains(why), "{told}");
        }
    }

    #[test]
    fn two_servers_with_other_names_do_not_make_certificates_over_each_other() {
        let folder = tempfile::tempdir().expect("folder");
        let kept = |name: &str| Tls::Kept { folder: folder.path().to_owned(), names: vec![name.to_owned()] };
        let (one, two) = (kept("a.site").start().expect("one"), kept("b.site").start().expect("two"));
        let pem = |serving: &Serving| serving.authority.as_ref().map(|authority| authority.pem.clone());
        assert_eq!(pem(&one), pem(&two));
        let in_use = || [&one, &two].map(|serving| serving.current.key.read().expect("lock").cert[0].clone());
        let (first, file) = (in_use(), || std::fs::read(folder.path().join("server.pem")).expect("a file"));
        let (there, now) = (file(), SystemTime::now());
        assert_ne!(first[0], first[1]);
        for _ in 0..5 {
            one.current.refresh(now);
            two.current.refresh(now);
            assert!(in_use() == first && file() == there);
        }
        // it would run out in a month
        let later = now + std::time::Duration::from_secs(380 * 24 * 3600);
        one.current.refresh(later);
        two.current.refresh(later);
        let renewed = in_use();
        assert!(renewed[0] != first[0] && renewed[1] != first[1]);
        one.current.refresh(later);
        assert_eq!(in_use(), renewed);
    }
}
