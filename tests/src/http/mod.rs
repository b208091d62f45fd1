//! HTTP/1.1 as small as tests need it. The client: one request, one connection, everything in memory. The [`Server`] streams, and can
//! break every rule of the protocol.

mod message;
mod server;

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

pub use message::{Body, Message};
pub use server::{Break, Delivery, Reply, Server, Tls};

/// A server's address and how to speak to it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// `HOST:PORT`.
    pub host: String,
    /// TLS, any certificate taken.
    pub tls: bool,
    /// User and password, also used to get tokens.
    pub login: Option<(String, String)>,
}

impl Endpoint {
    /// Plain HTTP without a login.
    #[must_use]
    pub fn plain(host: &str) -> Self {
        Self { host: host.to_owned(), tls: false, login: None }
    }

    /// Sends one request; a 401 with a bearer challenge is answered once, with a token.
    ///
    /// # Errors
    /// When the connection breaks or what comes back is not HTTP.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> std::io::Result<Message> {
        let basic =
            self.login.as_ref().map(|(user, password)| format!("Basic {}", base64(format!("{user}:{password}"))));
        let answer = self.once(method, path, headers, body, basic.as_deref())?;
        let challenge = answer.header("www-authenticate").unwrap_or_default();
        let Some(challenge) = challenge.strip_prefix("Bearer ").filter(|_| answer.status == 401) else {
            return Ok(answer);
        };
        let part = |name: &str| {
            challenge.split(&format!("{name}=\"")).nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default()
        };
        let (host, token_path) = part("realm").trim_start_matches("http://").split_once('/').unwrap_or_default();
        let token_path =
            format!("/{token_path}?service={}&scope={}", part("service"), part("scope").replace(' ', "%20"));
        let token = Self::plain(host).once("GET", &token_path, &[], &[], basic.as_deref())?;
        let token: serde_json::Value = serde_json::from_slice(&token.body)?;
        let bearer = format!("Bearer {}", token["token"].as_str().unwrap_or_default());
        self.once(method, path, headers, body, Some(&bearer))
    }

    fn once(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        authorization: Option<&str>,
    ) -> std::io::Result<Message> {
        let stream = TcpStream::connect(&self.host)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.host);
        for (name, value) in headers.iter().copied().chain(authorization.map(|value| ("Authorization", value))) {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
        if self.tls {
            exchange(wrap(&self.host, stream), &head, body, method)
        } else {
            exchange(stream, &head, body, method)
        }
    }
}

fn exchange<S: Read + Write>(mut stream: S, head: &str, body: &[u8], method: &str) -> std::io::Result<Message> {
    stream.write_all(head.as_bytes())?;
    // a server may answer and close before it has read everything: then the answer counts
    let _ = stream.write_all(body).and_then(|()| stream.flush());
    let mut from = BufReader::new(stream);
    let mut answer = message::head(&mut from)?;
    if method != "HEAD" {
        Body::of(&answer, &mut from).read_to_end(&mut answer.body)?;
    }
    Ok(answer)
}

/// Standard base64 with padding.
#[must_use]
pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    use ::base64::Engine;
    ::base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn wrap(host: &str, stream: TcpStream) -> rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).to_owned();
    let connection = rustls::ClientConnection::new(Arc::new(config), ServerName::try_from(name).unwrap()).unwrap();
    rustls::StreamOwned::new(connection, stream)
}

/// The kit talks to servers it started itself, on loopback; certificates are ferry's concern.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
