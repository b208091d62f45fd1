//! A CA as an administrator makes it with openssl, and the certificates that it issues.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::Certificate;
use crate::tools;

/// A private CA.
#[derive(Debug)]
pub struct Authority(TempDir);

/// What a certificate is to say; by default it is for this machine and valid now.
#[derive(Debug, Clone, Copy)]
pub struct Says<'a> {
    /// Its common name.
    pub name: &'a str,
    /// Its subject alternative names, in openssl's form; none for a certificate of the old kind, version 1.
    pub names: Option<&'a str>,
    /// The years of its first and last day.
    pub years: (u16, u16),
}

impl Default for Says<'_> {
    fn default() -> Self {
        Self { name: "localhost", names: Some("DNS:localhost,IP:127.0.0.1,IP:::1"), years: (2020, 2120) }
    }
}

impl Authority {
    /// Makes one.
    ///
    /// # Panics
    /// Without openssl: ask `require!("openssl")` first.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("ferry-ca-").tempdir().unwrap();
        let ca = Self(folder);
        let at = |file: &str| ca.0.path().join(file).display().to_string();
        let config = format!(
            "[ca]\ndefault_ca = x\n[x]\ndatabase = {}\nnew_certs_dir = {}\nrand_serial = yes\ndefault_md = sha256\npolicy = p\n\
             certificate = {}\nprivate_key = {}\nunique_subject = no\ncopy_extensions = copy\n[p]\ncommonName = optional\n",
            at("index.txt"),
            ca.0.path().display(),
            at("ca.pem"),
            at("ca.key"),
        );
        fs::write(at("ca.cnf"), config).unwrap();
        fs::write(at("index.txt"), "").unwrap();
        let subject = format!("/CN={name}");
        let own = ["req", "-x509", "-days", "30", "-subj", &subject, "-keyout", &at("ca.key"), "-out", &at("ca.pem")];
        tools::succeed("openssl", &[&own[..], &NEW_KEY].concat());
        ca
    }

    /// Its own certificate.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.0.path().join("ca.pem")
    }

    /// Issues a certificate; its files lie in a folder of the CA's.
    #[must_use]
    pub fn issue(&self, says: &Says) -> Certificate {
        let folder = tempfile::Builder::new().tempdir_in(self.0.path()).unwrap().keep();
        let at = |file: &str| folder.join(file).display().to_string();
        let subject = format!("/CN={}", says.name);
        let mut request = vec!["req", "-new", "-subj", &subject];
        let names = says.names.map(|names| format!("subjectAltName={names}"));
        if let Some(names) = &names {
            request.extend(["-addext", names]);
        }
        let (key, csr, chain) = (at("key.pem"), at("request.pem"), at("certificate.pem"));
        request.extend(["-keyout", &key, "-out", &csr]);
        request.extend(NEW_KEY);
        tools::succeed("openssl", &request);
        let config = self.0.path().join("ca.cnf").display().to_string();
        let (first, last) = (format!("{}0101000000Z", says.years.0), format!("{}1231000000Z", says.years.1));
        let sign = ["ca", "-batch", "-notext", "-config", &config, "-startdate", &first, "-enddate", &last];
        tools::succeed("openssl", &[&sign[..], &["-in", &csr, "-out", &chain]].concat());
        Certificate { chain: chain.into(), key: key.into(), trusted: self.certificate() }
    }
}

const NEW_KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

/// A copy of a client's certificate and key as docker lays them out: `FOLDER/HOST/client.cert` and `client.key`.
pub fn lay_out(folder: &Path, host: &str, certificate: &Certificate) {
    let folder = folder.join(host);
    fs::create_dir_all(&folder).unwrap();
    fs::copy(&certificate.chain, folder.join("client.cert")).unwrap();
    fs::copy(&certificate.key, folder.join("client.key")).unwrap();
}
