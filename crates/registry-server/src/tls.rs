//! Certificates: from files, or self-made for as long as the server runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

use crate::Error;

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
    /// A small certificate authority and a certificate of its making, both new at each start.
    SelfMade {
        /// Host names and IP addresses that clients will use.
        names: Vec<String>,
    },
}

impl Tls {
    /// The acceptor, and for a self-made certificate the authority that clients must trust, in PEM.
    pub(crate) fn acceptor(&self) -> Result<(TlsAcceptor, Option<String>), Error> {
        let (chain, key, authority) = match self {
            Self::Files { certificate, key } => (chain(certificate)?, read_key(key)?, None),
            Self::SelfMade { names } => {
                let (chain, key, pem) = self_made(names).map_err(|e| Error::Tls { why: e.to_string() })?;
                (chain, key, Some(pem))
            }
        };
        // Named, not taken from the process: a library must not depend on who installed a default.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let unusable = |e: rustls::Error| match self {
            Self::Files { certificate, .. } => Error::TlsFile { path: certificate.clone(), why: e.to_string() },
            Self::SelfMade { .. } => Error::Tls { why: e.to_string() },
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(unusable)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok((TlsAcceptor::from(Arc::new(config)), authority))
    }
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let fail = |why: String| Error::TlsFile { path: path.to_owned(), why };
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match found {
        Ok(chain) if chain.is_empty() => Err(fail("there is no certificate in it".to_owned())),
        Ok(chain) => Ok(chain),
        Err(e) => Err(fail(e.to_string())),
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_file(path).map_err(|e| Error::TlsFile { path: path.to_owned(), why: e.to_string() })
}

type Made = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, String);

/// Two certificates and not one that signs itself: rustls takes no authority for a server, and others take nothing but authorities as roots.
fn self_made(names: &[String]) -> Result<Made, rcgen::Error> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    authority.distinguished_name.push(DnType::CommonName, "ferry serve");
    let authority_key = KeyPair::generate()?;
    let authority_pem = authority.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(authority, authority_key);

    let mut server = CertificateParams::new(names.to_vec())?;
    server.distinguished_name.push(DnType::CommonName, names.first().map_or("ferry", String::as_str));
    server.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = server.signed_by(&key, &issuer)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok((vec![certificate.der().clone()], key, authority_pem))
}
