//! Certificates, good and bad.

use std::path::PathBuf;
use std::sync::Arc;

use ferry_registry_client::{Client, Config, Ping};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::server::{Server, answer};
use crate::{config, shown};

struct Made {
    pem: String,
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

/// As `openssl req -x509` makes it: a CA and a server's certificate at once.
fn self_signed(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Made {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    change(&mut params);
    let certificate = params.self_signed(&key).unwrap();
    Made { pem: certificate.pem(), chain: vec![certificate.der().clone()], key }
}

/// A server's certificate under a CA of its own; the PEM is the CA's.
fn issued(names: &[&str]) -> Made {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    let leaf = params.signed_by(&key, &ca).unwrap();
    Made { pem: ca.pem(), chain: vec![leaf.der().clone()], key }
}

async fn serve(made: &Made) -> Server {
    let key = PrivateKeyDer::try_from(made.key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(made.chain.clone(), key)
        .unwrap();
    Server::with(Some(TlsAcceptor::from(Arc::new(config))), |_| answer(200)).await
}

/// Asks the server, with `pem` named as trusted.
async fn asked(server: &Server, pem: Option<&str>) -> Result<Ping, String> {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    if let Some(pem) = pem {
        let path: PathBuf = dir.path().join("ca.pem");
        std::fs::write(&path, pem).unwrap();
        config.tls.ca_files.push(path);
    }
    ping(config, &server.host).await
}

async fn ping(config: Config, host: &str) -> Result<Ping, String> {
    Client::new(config).unwrap().ping(host).await.map_err(|e| shown(&e))
}

#[tokio::test]
async fn a_private_ca_is_trusted_when_named() {
    let made = issued(&["127.0.0.1"]);
    let server = serve(&made).await;
    let ping = asked(&server, Some(&made.pem)).await.unwrap();
    assert_eq!((ping.address, ping.plain_http), (format!("https://{}/", server.host), false));
    let error = asked(&server, Some(&issued(&["127.0.0.1"]).pem)).await.unwrap_err();
    assert!(error.contains("signed by nobody") && error.contains("--ca-file"), "{error}");
    let error = asked(&server, None).await.unwrap_err();
    assert!(error.contains("signed by nobody"), "without any CA on the machine: {error}");
}

#[tokio::test]
async fn a_self_signed_certificate_is_trusted_when_named() {
    let made = self_signed(&["127.0.0.1"], |_| {});
    let server = serve(&made).await;
    asked(&server, Some(&made.pem)).await.unwrap();
    let error = asked(&server, Some(&self_signed(&["127.0.0.1"], |_| {}).pem)).await.unwrap_err();
    assert!(error.contains("signed by nobody"), "{error}");

    let made = self_signed(&["127.0.0.1"], |p| p.is_ca = IsCa::NoCa);
    asked(&serve(&made).await, Some(&made.pem)).await.unwrap();
}

#[tokio::test]
async fn a_named_certificate_must_still_be_for_this_name_and_day() {
    for ca in [IsCa::Ca(BasicConstraints::Unconstrained), IsCa::NoCa] {
        let made = self_signed(&["other.example", "*.more.example"], |p| p.is_ca = ca);
        let error = asked(&serve(&made).await, Some(&made.pem)).await.unwrap_err();
        assert!(error.contains("for other names: other.example, *.more.example"), "{error}");

        let made = self_signed(&[], |p| p.is_ca = ca);
        let error = asked(&serve(&made).await, Some(&made.pem)).await.unwrap_err();
        assert!(
            error.contains("no subject alternative name") && error.contains("subjectAltName=IP:127.0.0.1"),
            "{error}"
        );

        let made = self_signed(&["127.0.0.1"], |p| {
            p.is_ca = ca;
            p.not_before = date_time_ymd(2019, 1, 1);
            p.not_after = date_time_ymd(2020, 1, 31);
        });
        let error = asked(&serve(&made).await, Some(&made.pem)).await.unwrap_err();
        assert!(error.contains("expired on 2020-01-31"), "{error}");

        let made = self_signed(&["127.0.0.1"], |p| {
            p.is_ca = ca;
            p.not_before = date_time_ymd(2090, 1, 1);
            p.not_after = date_time_ymd(2091, 1, 1);
        });
        let error = asked(&serve(&made).await, Some(&made.pem)).await.unwrap_err();
        assert!(error.contains("not valid before 2090-01-01"), "{error}");
    }
}

#[tokio::test]
async fn certificates_as_docker_lays_them_out() {
    let made = issued(&["127.0.0.1"]);
    let server = serve(&made).await;
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join(&server.host);
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("ca.crt"), &made.pem).unwrap();
    let mut config = config();
    config.tls.certs_dirs.push(dir.path().to_owned());
    assert!(!ping(config.clone(), &server.host).await.unwrap().plain_http);
    let other = serve(&made).await;
    assert!(ping(config, &other.host).await.is_err(), "trusted for that host only");
}

#[tokio::test]
async fn on_this_machine_plain_http_needs_no_asking() {
    let server = Server::start(|_| answer(200)).await;
    assert!(asked(&server, None).await.unwrap().plain_http);
    let named = issued(&["127.0.0.1"]).pem;
    assert!(asked(&server, Some(&named)).await.unwrap().plain_http, "even with certificates named for others");
}
