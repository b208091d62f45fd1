//! The beginning of a connection at a port that speaks TLS: the handshake, and what is done with clients that do not get through it. A node
//! that does not trust the CA, or speaks HTTP, shows nothing of why on its side; so it is told in the log here, each client once a minute.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::AlertDescription;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::server::write_timeout::WriteTimeout;

/// A client is told of once in this time.
const QUIET: Duration = Duration::from_secs(60);
/// Clients that are remembered for that.
const REMEMBERED: usize = 4096;
/// What is still read of a request that is refused, so that its client reads the answer and is not cut off (RFC 9112, section 9.6).
const LINGER: (Duration, usize) = (Duration::from_secs(2), 64 << 10);

/// The handshakes of one server.
pub(super) struct Handshakes {
    acceptor: TlsAcceptor,
    patience: Duration,
    stall: Duration,
    told: Told,
}

/// What a connection begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begins {
    /// Nothing came: a probe that a port is open.
    Empty,
    Http,
    /// TLS, or what TLS will have words for.
    Other,
}

impl Handshakes {
    pub(super) fn new(acceptor: TlsAcceptor, patience: Duration, stall: Duration) -> Self {
        Self { acceptor, patience, stall, told: Told::default() }
    }

    /// The connection, once it is encrypted. What goes wrong is told in the log.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Option<TlsStream<WriteTimeout<TcpStream>>> {
        let shake = async {
            match begins(&stream).await? {
                Begins::Empty => Ok(None),
                Begins::Http => {
                    self.tell(peer, "it spoke plain HTTP, and this port speaks HTTPS");
                    refuse(stream).await.map(|()| None)
                }
                Begins::Other => self.acceptor.accept(WriteTimeout::new(stream, self.stall)).await.map(Some),
            }
        };
        match tokio::time::timeout(self.patience, shake).await {
            Ok(Ok(stream)) => return stream,
            Ok(Err(error)) => self.tell(peer, &words(&error)),
            Err(_) => self.tell(peer, "it took too long"),
        }
        None
    }

    fn tell(&self, peer: SocketAddr, why: &str) {
        let client = peer.ip().to_canonical();
        if self.told.is_due(client, Instant::now()) {
            tracing::warn!(%client, "no TLS with a client (told once a minute): {why}");
        } else {
            tracing::info!(%client, "no TLS with a client: {why}");
        }
    }
}

/// Whom somebody was told of, and when.
#[derive(Default)]
struct Told(Mutex<HashMap<IpAddr, Instant>>);

impl Told {
    /// Whether it is time to tell of this client; then it is taken for told.
    fn is_due(&self, client: IpAddr, now: Instant) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= REMEMBERED {
            told.retain(|_, at| now.duration_since(*at) < QUIET);
        }
        let is_known = told.get(&client).is_some_and(|at| now.duration_since(*at) < QUIET);
        // as many different clients in a minute are an attack or a scan, and enough was said of it
        let is_due = !is_known && told.len() < REMEMBERED;
        if is_due {
            told.insert(client, now);
        }
        is_due
    }
}

/// Looks without taking anything away. Every request of HTTP/1 begins with a word in capitals, and so does what opens HTTP/2; a TLS
/// handshake begins with 0x16.
async fn begins(stream: &TcpStream) -> io::Result<Begins> {
    let mut first = [0];
    Ok(match stream.peek(&mut first).await? {
        0 => Begins::Empty,
        _ if first[0].is_ascii_uppercase() => Begins::Http,
        _ => Begins::Other,
    })
}

/// Answers whoever speaks HTTP: a browser shows it, and so does `curl`.
async fn refuse(mut stream: TcpStream) -> io::Result<()> {
    const WORDS: &str = "this port speaks HTTPS: say https:// instead of http://\n";
    let length = WORDS.len();
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{WORDS}"
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    let (time, most) = LINGER;
    let rest = async {
        let mut piece = [0; 4096];
        let mut read = 0;
        while read < most {
            match stream.read(&mut piece).await {
                Ok(size @ 1..) => read += size,
                _ => break,
            }
        }
    };
    let _ = tokio::time::timeout(time, rest).await;
    Ok(())
}

/// Why there was no handshake, for who runs the server.
fn words(error: &io::Error) -> String {
    use AlertDescription as Alert;
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return "it went away in the middle of the handshake".to_owned();
    }
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(
            alert @ (Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateExpired
            | Alert::CertificateUnknown),
        )) => format!("it does not take the certificate ({alert:?}): does it know the CA, and is its clock right?"),
        Some(error @ rustls::Error::PeerIncompatible(_)) => format!("it is too old, or too new: {error}"),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_of_once_a_minute_and_a_scan_fills_no_memory() {
        let (told, start) = (Told::default(), Instant::now());
        let client = |n: u32| IpAddr::V4(n.into());
        assert!(told.is_due(client(1), start) && told.is_due(client(2), start));
        assert!(!told.is_due(client(1), start + QUIET / 2));
        assert!(told.is_due(client(1), start + QUIET));
        let due = (0..10_000).filter(|n| told.is_due(client(10 + n), start + QUIET)).count();
        assert!(due <= REMEMBERED && told.0.lock().expect("lock").len() <= REMEMBERED, "{due}");
        assert!(told.is_due(client(3), start + QUIET * 2), "it begins anew");
    }
}
