//! Certificates for 127.0.0.1 and localhost: of a private CA, and self-signed as `openssl req -x509` makes them.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use crate::tools;

/// Files of a server's certificate, all PEM.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// What the server shows.
    pub chain: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// What a client is given to trust: the CA, or the self-signed certificate itself.
    pub trusted: PathBuf,
}

/// A leaf with SANs `127.0.0.1` and `localhost`, signed by a CA of its own.
#[must_use]
pub fn signed_by_private_ca(folder: &Path) -> Certificate {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.distinguished_name.push(DnType::CommonName, "ferry tests CA");
    let ca_key = KeyPair::generate().unwrap();
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let mut leaf = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    leaf.distinguished_name.push(DnType::CommonName, "localhost");
    let key = KeyPair::generate().unwrap();
    let certificate = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    let files = files(folder, "ca.crt");
    fs::write(&files.trusted, ca_certificate.pem()).unwrap();
    fs::write(&files.chain, certificate.pem()).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

/// What half of all lab registries have: `openssl req -x509`, which says `CA:TRUE` of the leaf.
#[must_use]
pub fn self_signed(folder: &Path) -> Certificate {
    let files = files(folder, "server.crt");
    let (chain, key) = (files.chain.to_str().unwrap(), files.key.to_str().unwrap());
    let names = "subjectAltName=DNS:localhost,IP:127.0.0.1";
    let kind = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=localhost", "-addext"];
    tools::succeed("openssl", &[&kind[..], &[names, "-keyout", key, "-out", chain]].concat());
    files
}

fn files(folder: &Path, trusted: &str) -> Certificate {
    Certificate { chain: folder.join("server.crt"), key: folder.join("server.key"), trusted: folder.join(trusted) }
}
