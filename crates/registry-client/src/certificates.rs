//! Reading certificates and keys from files: `--ca-file`, and folders laid out as docker's `certs.d`.

use std::path::{Path, PathBuf};

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::Error;
use crate::config::ClientCertificate;

/// No bundle of certificates is larger.
const MAX_FILE: u64 = 16 << 20;

/// What one host's folder holds.
#[derive(Debug, Default)]
pub(crate) struct HostFiles {
    /// Trusted for this host.
    pub(crate) trusted: Vec<CertificateDer<'static>>,
    /// Shown to this host.
    pub(crate) client: Option<Shown>,
}

/// What we show when we are asked who we are.
#[derive(Debug)]
pub(crate) struct Shown {
    /// Leaf first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    /// The key's file, for errors.
    pub(crate) path: PathBuf,
}

impl Shown {
    pub(crate) fn read(files: &ClientCertificate) -> Result<Self, Error> {
        let ClientCertificate { certificate, key } = files;
        Ok(Self { chain: certificates(certificate)?, key: private_key(key)?, path: key.clone() })
    }
}

impl HostFiles {
    /// Reads the folders of a host under `certs_dirs`; `names` are all it is called.
    pub(crate) fn read(certs_dirs: &[PathBuf], names: &[String]) -> Result<Self, Error> {
        let mut files = Self::default();
        for folder in certs_dirs.iter().flat_map(|dir| names.iter().map(move |name| dir.join(name))) {
            if folder.is_dir() {
                files.add(&folder)?;
            }
        }
        Ok(files)
    }

    /// Whether there is nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.trusted.is_empty() && self.client.is_none()
    }

    fn add(&mut self, folder: &Path) -> Result<(), Error> {
        for path in entries(folder)? {
            match path.extension().and_then(|e| e.to_str()) {
                Some("crt") => self.trusted.extend(certificates(&path)?),
                Some("cert") if self.client.is_none() => {
                    let key = path.with_extension("key");
                    self.client = Some(Shown::read(&ClientCertificate { certificate: path, key })?);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// All certificates to trust that stand in a file, or in the files of a folder.
pub(crate) fn trusted(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    if !path.is_dir() {
        return certificates(path);
    }
    let mut all = Vec::new();
    for file in entries(path)? {
        let ends = |known: &str| file.extension().is_some_and(|e| e.eq_ignore_ascii_case(known));
        // a key may stand beside its certificate
        if ["crt", "pem", "cer", "der"].into_iter().any(ends) && file.is_file() {
            all.extend(in_file(&file)?);
        }
    }
    if all.is_empty() {
        return Err(Error::content(path, "no file in it ends in .crt, .pem, .cer or .der and holds a certificate"));
    }
    Ok(all)
}

/// All certificates in a file, at least one: PEM, or one in DER.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all = in_file(path)?;
    if all.is_empty() { Err(Error::content(path, "it holds no certificate")) } else { Ok(all) }
}

fn in_file(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bytes = read(path)?;
    if bytes.first() == Some(&0x30) {
        return Ok(vec![CertificateDer::from(bytes)]);
    }
    let all: Result<_, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    all.map_err(|e| Error::content(path, format!("not a PEM file: {e}")))
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let bytes = read(path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|e| {
        let locked = String::from_utf8_lossy(&bytes).contains("ENCRYPTED");
        let why = if locked {
            "it has a password; take it off with `openssl pkey`".to_owned()
        } else {
            format!("not a private key in PEM: {e}")
        };
        Error::content(path, why)
    })
}

/// What stands in a folder, in order of name.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let unreadable = |e: std::io::Error| Error::unreadable(folder, &e);
    let all = std::fs::read_dir(folder).map_err(unreadable)?;
    let mut paths = all.map(|entry| entry.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let size = std::fs::metadata(path).map_err(|e| Error::unreadable(path, &e))?.len();
    if size > MAX_FILE {
        return Err(Error::content(path, format!("{size} bytes is too large for certificates")));
    }
    std::fs::read(path).map_err(|e| Error::unreadable(path, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_as_docker_lays_it_out() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("r.example:5000");
        std::fs::create_dir(&folder).unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["r.example".to_owned()]).unwrap();
        std::fs::write(folder.join("ca.crt"), made.cert.pem()).unwrap();
        std::fs::write(folder.join("client.cert"), made.cert.pem()).unwrap();
        std::fs::write(folder.join("client.key"), made.signing_key.serialize_pem()).unwrap();
        std::fs::write(folder.join("notes.txt"), "x").unwrap();

        let dirs = [dir.path().join("absent"), dir.path().to_owned()];
        let of = |names: &[&str]| HostFiles::read(&dirs, &names.iter().map(ToString::to_string).collect::<Vec<_>>());
        let files = of(&["other.example", "r.example:5000"]).unwrap();
        assert_eq!(files.trusted, [made.cert.der().clone()]);
        assert_eq!(files.client.unwrap().chain.len(), 1);
        assert!(of(&["r.example"]).unwrap().is_empty());

        std::fs::write(folder.join("client.key"), "-----BEGIN ENCRYPTED PRIVATE KEY-----\n").unwrap();
        assert!(of(&["r.example:5000"]).unwrap_err().to_string().contains("it has a password"));
        std::fs::remove_file(folder.join("client.key")).unwrap();
        assert!(of(&["r.example:5000"]).is_err(), "a certificate without its key");
    }

    #[test]
    fn a_folder_of_certificates() {
        let dir = tempfile::tempdir().unwrap();
        let made = || rcgen::generate_simple_self_signed(vec!["r.example".to_owned()]).unwrap();
        assert!(trusted(dir.path()).unwrap_err().to_string().contains("holds a certificate"));
        std::fs::write(dir.path().join("a.crt"), made().cert.pem()).unwrap();
        std::fs::write(dir.path().join("b.PEM"), format!("{}{}", made().cert.pem(), made().cert.pem())).unwrap();
        std::fs::write(dir.path().join("c.der"), made().cert.der()).unwrap();
        std::fs::write(dir.path().join("key.pem"), made().signing_key.serialize_pem()).unwrap();
        std::fs::write(dir.path().join("README"), "-----BEGIN CERTIFICATE-----").unwrap();
        assert_eq!(trusted(dir.path()).unwrap().len(), 4);
        std::fs::write(dir.path().join("z.crt"), "-----BEGIN CERTIFICATE-----\nbroken").unwrap();
        assert!(trusted(dir.path()).unwrap_err().to_string().contains("z.crt"));
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, "hello").unwrap();
        assert!(trusted(&path).unwrap_err().to_string().contains("no certificate"));
        assert!(trusted(&dir.path().join("none")).is_err());
    }
}
