//! Certificates for 127.0.0.1 and localhost: of a private CA, self-signed as `openssl req -x509` makes them, and with flaws.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;

use crate::http::Tls;
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
    let (ca, ca_pem) = authority();
    let mut leaf = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    leaf.distinguished_name.push(DnType::CommonName, "localhost");
    let key = KeyPair::generate().unwrap();
    let certificate = leaf.signed_by(&key, &ca).unwrap();
    let files = files(folder, "ca.crt");
    fs::write(&files.trusted, ca_pem).unwrap();
    fs::write(&files.chain, certificate.pem()).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

/// What is wrong with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing, where its CA is trusted.
    None,
    /// It ended in 2021.
    Expired,
    /// It begins in 2090.
    NotYetValid,
    /// It is for names that are not this machine's.
    OtherNames,
    /// It has a common name only.
    NoNames,
}

/// A server with a certificate for `127.0.0.1`, and the file of the CA that signed it.
#[must_use]
pub fn flawed(folder: &Path, flaw: Flaw) -> (Tls, PathBuf) {
    let (ca, ca_pem) = authority();
    let names = match flaw {
        Flaw::OtherNames => vec!["registry.example".to_owned(), "*.internal.example".to_owned()],
        Flaw::NoNames => Vec::new(),
        _ => vec!["127.0.0.1".to_owned()],
    };
    let mut leaf = CertificateParams::new(names).unwrap();
    leaf.distinguished_name.push(DnType::CommonName, "127.0.0.1");
    match flaw {
        Flaw::Expired => (leaf.not_before, leaf.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1)),
        Flaw::NotYetValid => (leaf.not_before, leaf.not_after) = (date_time_ymd(2090, 1, 1), date_time_ymd(2091, 1, 1)),
        _ => {}
    }
    let key = KeyPair::generate().unwrap();
    let certificate = leaf.signed_by(&key, &ca).unwrap();
    let file = folder.join("ca.crt");
    fs::write(&file, ca_pem).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .unwrap();
    (Arc::new(config), file)
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

/// A CA of its own, and its certificate.
fn authority() -> (Issuer<'static, KeyPair>, String) {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.distinguished_name.push(DnType::CommonName, "ferry tests CA");
    let key = KeyPair::generate().unwrap();
    let pem = ca.self_signed(&key).unwrap().pem();
    (Issuer::new(ca, key), pem)
}

fn files(folder: &Path, trusted: &str) -> Certificate {
    Certificate { chain: folder.join("server.crt"), key: folder.join("server.key"), trusted: folder.join(trusted) }
}
