//! Reading certificates and keys from files: `--ca-file`, and folders laid out as docker's `certs.d`.

use std::path::{Path, PathBuf};

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::Error;

/// No bundle of certificates is larger.
const MAX_FILE: u64 = 16 << 20;

/// What one host's folder holds.
#[derive(Debug, Default)]
pub(crate) struct HostFiles {
    /// Trusted for this host.
    pub(crate) trusted: Vec<CertificateDer<'static>>,
    /// Shown to this host: a chain, leaf first, and its key.
    pub(crate) client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl HostFiles {
    /// Reads the folders of `host` under `certs_dirs`; `None` when there is none.
    pub(crate) fn read(certs_dirs: &[PathBuf], host: &str) -> Result<Option<Self>, Error> {
        let folders: Vec<PathBuf> = certs_dirs.iter().map(|d| d.join(host)).filter(|d| d.is_dir()).collect();
        if folders.is_empty() {
            return Ok(None);
        }
        let mut files = Self::default();
        for folder in folders {
            files.add(&folder)?;
        }
        Ok(Some(files))
    }

    fn add(&mut self, folder: &Path) -> Result<(), Error> {
        let entries = std::fs::read_dir(folder).map_err(|e| Error::unreadable(folder, &e))?;
        let mut paths = Vec::new();
        for entry in entries {
            paths.push(entry.map_err(|e| Error::unreadable(folder, &e))?.path());
        }
        paths.sort();
        for path in paths {
            match path.extension().and_then(|e| e.to_str()) {
                Some("crt") => self.trusted.extend(certificates(&path)?),
                Some("cert") if self.client.is_none() => {
                    let key = path.with_extension("key");
                    self.client = Some((certificates(&path)?, private_key(&key)?));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// All certificates in a file: PEM, or one in DER.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bytes = read(path)?;
    if bytes.first() == Some(&0x30) {
        return Ok(vec![CertificateDer::from(bytes)]);
    }
    let all: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|e| Error::content(path, format!("not a PEM file: {e}")))?;
    if all.is_empty() {
        return Err(Error::content(path, "it holds no certificate"));
    }
    Ok(all)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(&read(path)?)
        .map_err(|e| Error::content(path, format!("not a private key in PEM: {e}")))
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
        let files = HostFiles::read(&dirs, "r.example:5000").unwrap().unwrap();
        assert_eq!(files.trusted, [made.cert.der().clone()]);
        assert_eq!(files.client.unwrap().0.len(), 1);
        assert!(HostFiles::read(&dirs, "r.example").unwrap().is_none());

        std::fs::remove_file(folder.join("client.key")).unwrap();
        assert!(HostFiles::read(&dirs, "r.example:5000").is_err(), "a certificate without its key");
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, "hello").unwrap();
        assert!(certificates(&path).unwrap_err().to_string().contains("no certificate"));
        assert!(certificates(&dir.path().join("none")).is_err());
    }
}
