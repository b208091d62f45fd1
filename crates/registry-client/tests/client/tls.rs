//! Certificates, good and bad.

use std::path::PathBuf;
use std::sync::Arc;

use ferry_registry_client::{Client, ClientCertificate, Config, HostConfig, Ping};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use crate::server::{Server, answer};
use crate::{config, shown};

pub(crate) struct Made {
    pub(crate) pem: String,
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
pub(crate) fn issued(names: &[&str]) -> Made {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    let leaf = params.signed_by(&key, &ca).unwrap();
    Made { pem: ca.pem(), chain: vec![leaf.der().clone()], key }
}

pub(crate) async fn serve(made: &Made) -> Server {
    Server::with(Some(acceptor(made, None, rustls::ALL_VERSIONS)), |_| answer(200)).await
}

/// Shows `made`, and lets in only whom `clients` issued a certificate.
fn acceptor(made: &Made, clients: Option<&Made>, versions: &[&'static SupportedProtocolVersion]) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = match clients {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(clients.pem.as_bytes()).unwrap()).unwrap();
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap()
        }
    };
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(made.chain.clone(), PrivateKeyDer::try_from(made.key.serialize_der()).unwrap())
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// Settings that name `pem` as trusted, and the folder where it stands.
pub(crate) fn trusting(pem: &str) -> (TempDir, Config) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    let path: PathBuf = dir.path().join("ca.pem");
    std::fs::write(&path, pem).unwrap();
    config.tls.ca_files.push(path);
    (dir, config)
}

/// Asks the server, with `pem` named as trusted.
async fn asked(server: &Server, pem: Option<&str>) -> Result<Ping, String> {
    match pem {
        Some(pem) => {
            let (_dir, config) = trusting(pem);
            ping(config, &server.host).await
        }
        None => ping(config(), &server.host).await,
    }
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
    assert!(error.contains("not one CA on this machine") && error.contains("ca-certificates"), "{error}");
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
async fn a_client_certificate_is_shown_to_the_host_that_it_is_for() {
    for versions in [&[&rustls::version::TLS13], &[&rustls::version::TLS12]] {
        let (made, me, other) = (issued(&["127.0.0.1"]), issued(&["me"]), issued(&["me"]));
        let server = Server::with(Some(acceptor(&made, Some(&me), versions)), |_| answer(200)).await;
        let (dir, plain) = trusting(&made.pem);
        let files = |name: &str, made: &Made| {
            let (certificate, key) = (dir.path().join(format!("{name}.pem")), dir.path().join(format!("{name}.key")));
            std::fs::write(&certificate, pem(&made.chain[0])).unwrap();
            std::fs::write(&key, made.key.serialize_pem()).unwrap();
            ClientCertificate { certificate, key }
        };
        let showing = |client: &ClientCertificate, host: &str| {
            let mut config = plain.clone();
            let own = HostConfig { client: Some(client.clone()), ..HostConfig::default() };
            config.hosts.insert(host, own).unwrap();
            config
        };
        let (mine, others) = (files("mine", &me), files("others", &other));
        ping(showing(&mine, &server.host), &server.host).await.unwrap();
        for config in [plain.clone(), showing(&mine, "r.example")] {
            let error = ping(config, &server.host).await.unwrap_err();
            let expected = format!(
                "{0}: it wants a client certificate, and none is configured for it | put client.cert and client.key into /etc/docker/certs.d/{0}/",
                server.host
            );
            assert!(error.starts_with(&expected), "{error}");
        }
        let error = ping(showing(&others, &server.host), &server.host).await.unwrap_err();
        assert!(error.contains("does not accept our client certificate: "), "{error}");

        let mixed = ClientCertificate { key: others.key.clone(), ..mine.clone() };
        let error = ping(showing(&mixed, &server.host), &server.host).await.unwrap_err();
        assert!(error.contains("others.key`: it is not the key of the certificate beside it"), "{error}");

        // as docker lays them out, and where both are given the settings count
        let folder = dir.path().join("certs.d").join(&server.host);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::copy(&mine.certificate, folder.join("client.cert")).unwrap();
        std::fs::copy(&mine.key, folder.join("client.key")).unwrap();
        let with_folder = |mut config: Config| {
            config.tls.certs_dirs.push(dir.path().join("certs.d"));
            config
        };
        ping(with_folder(plain.clone()), &server.host).await.unwrap();
        assert!(ping(with_folder(showing(&others, &server.host)), &server.host).await.is_err());
    }
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

#[tokio::test]
async fn an_ipv6_address_is_a_host_like_any_other() {
    let made = issued(&["::1"]);
    let server = Server::at("[::1]:0", Some(acceptor(&made, None, rustls::ALL_VERSIONS)), |_| answer(200)).await;
    let (_dir, config) = trusting(&made.pem);
    let ping_of = ping(config.clone(), &server.host).await.unwrap();
    assert_eq!(ping_of.address, format!("https://{}/", server.host));
    let long = server.host.replace("[::1]", "[0:0:0:0:0:0:0:1]");
    assert!(!ping(config.clone(), &long).await.unwrap().plain_http);

    let named = issued(&["localhost"]);
    let server = Server::at("[::1]:0", Some(acceptor(&named, None, rustls::ALL_VERSIONS)), |_| answer(200)).await;
    let (_dir, config) = trusting(&named.pem);
    let error = ping(config, &server.host).await.unwrap_err();
    assert!(error.contains("for other names: localhost") && error.contains("make one for `[::1]:"), "{error}");

    let plain = Server::at("[::1]:0", None, |_| answer(200)).await;
    assert!(asked(&plain, None).await.unwrap().plain_http);
}

#[tokio::test]
async fn on_this_machine_plain_http_needs_no_asking() {
    let server = Server::start(|_| answer(200)).await;
    assert!(asked(&server, None).await.unwrap().plain_http);
    let named = issued(&["127.0.0.1"]).pem;
    assert!(asked(&server, Some(&named)).await.unwrap().plain_http, "even with certificates named for others");
}

/// A body without a length ends where the connection is closed: over TLS that is told from one that was cut off.
#[tokio::test]
async fn a_connection_that_is_cut_off_is_no_end() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let made = issued(&["127.0.0.1"]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let tls = acceptor(&made, None, rustls::ALL_VERSIONS);
    let served = tokio::spawn(async move {
        let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
        for (body, closes) in [("", true), ("{\"schema", false), ("{\"schemaVersion\":2}", true)] {
            let mut stream = tls.accept(listener.accept().await.unwrap().0).await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            if closes {
                stream.shutdown().await.unwrap();
            }
        }
    });
    let (_dir, config) = trusting(&made.pem);
    let repository = Client::new(config).unwrap().repository(&host, "a").unwrap();
    assert_eq!(repository.manifest("v1").await.unwrap().bytes, "{\"schemaVersion\":2}");
    served.await.unwrap();
}
