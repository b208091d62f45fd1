//! HTTP/1.1 as small as tests need it: one request, one connection, everything in memory.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

/// What came back, or what was asked.
#[derive(Debug, Clone)]
pub struct Message {
    /// `200`, or of a request 0.
    pub status: u16,
    /// Of a request.
    pub method: String,
    /// Of a request: path and query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Message {
    /// The first header of that name (lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

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
    read(&mut BufReader::new(stream), method == "HEAD")
}

/// Reads a request or an answer.
fn read<R: BufRead>(from: &mut R, without_body: bool) -> std::io::Result<Message> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let broken = || std::io::Error::new(std::io::ErrorKind::InvalidData, format!("not HTTP: {line:?}"));
    let (&first, &second) = (words.first().ok_or_else(broken)?, words.get(1).ok_or_else(broken)?);
    let status = if first.starts_with("HTTP/") { second.parse().map_err(|_| broken())? } else { 0 };
    let mut message =
        Message { status, method: first.into(), path: second.into(), headers: Vec::new(), body: Vec::new() };
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        message.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    if without_body || matches!(status, 204 | 304) {
        return Ok(message);
    }
    if message.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        loop {
            let mut size = String::new();
            from.read_line(&mut size)?;
            let size = u64::from_str_radix(size.trim(), 16).map_err(|_| broken())?;
            from.by_ref().take(size).read_to_end(&mut message.body)?;
            from.read_line(&mut String::new())?;
            if size == 0 {
                return Ok(message);
            }
        }
    }
    match message.header("content-length").map(|len| len.parse::<u64>().unwrap_or_default()) {
        Some(len) => {
            let got = from.take(len).read_to_end(&mut message.body)? as u64;
            if got < len {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        None if status == 0 => {}
        None => {
            from.read_to_end(&mut message.body)?;
        }
    }
    Ok(message)
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

/// An answer that a [`Server`] gives.
#[derive(Debug, Clone)]
pub struct Reply {
    /// `200`.
    pub status: u16,
    /// Besides `Content-Length`.
    pub headers: Vec<(String, String)>,
    /// The whole body; left out for HEAD.
    pub body: Vec<u8>,
}

impl Reply {
    /// An answer with a body.
    #[must_use]
    pub fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: vec![("Content-Type".into(), content_type.into())], body: body.into() }
    }

    /// The same with one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// A plain HTTP server on a free loopback port; it ends when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    over: Arc<AtomicBool>,
}

impl Server {
    /// Answers every request with what `answer` says.
    pub fn start(answer: impl Fn(&Message) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let (stop, answer) = (Arc::clone(&over), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let answer = Arc::clone(&answer);
                std::thread::spawn(move || serve(&stream, answer.as_ref()));
            }
        });
        Self { address, over }
    }

    /// `HOST:PORT`.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(mut stream: &TcpStream, answer: &dyn Fn(&Message) -> Reply) {
    let Ok(request) = read(&mut BufReader::new(stream), false) else { return };
    let reply = answer(&request);
    let mut head = format!("HTTP/1.1 {} -\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("Content-Length: {}\r\n\r\n", reply.body.len());
    let body: &[u8] = if request.method == "HEAD" { &[] } else { &reply.body };
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_and_server_agree() {
        let server = Server::start(|request| {
            Reply::new(201, "text/plain", [request.method.as_bytes(), b" ", &request.body].concat()).header("X", "y")
        });
        let answer = Endpoint::plain(&server.host()).send("POST", "/a?b", &[], b"body").unwrap();
        assert_eq!((answer.status, answer.body.as_slice(), answer.header("x")), (201, &b"POST body"[..], Some("y")));
        let answer = Endpoint::plain(&server.host()).send("HEAD", "/", &[], b"").unwrap();
        assert_eq!((answer.status, answer.body.len()), (201, 0));
    }
}
