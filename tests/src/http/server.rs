//! A server that streams its answers and breaks them as asked: late, slow, short, never ending.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::ServerConfig;

use super::message::{Body, Message, head};

/// The longest that a stalled answer keeps its connection.
const LONGEST_STALL: Duration = Duration::from_secs(120);
/// What is written at a time.
const PIECE: usize = 16 << 10;

/// An answer: its status, its headers and its body.
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

    /// An answer without one.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    /// The same with one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Takes a header out.
    pub fn remove(&mut self, name: &str) {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
    }
}

/// How an answer goes over the wire.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// What is to be answered.
    pub reply: Reply,
    /// What `Content-Length` says instead of the body's length.
    pub announced: Option<u64>,
    /// Where it breaks.
    pub breaks: Option<Break>,
    /// So many bytes of the body come at so many bytes a second, the others at once.
    pub drip: Option<(u64, u64)>,
    /// The body is followed by zeros for ever, and has no `Content-Length`.
    pub endless: bool,
}

/// Where an answer breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// The connection is closed before the answer.
    Unanswered,
    /// No answer comes, and the connection stays open.
    Mute,
    /// The connection is closed after so many bytes of the body.
    Close(u64),
    /// Nothing comes after so many bytes of the body, and the connection stays open.
    Stall(u64),
}

impl From<Reply> for Delivery {
    fn from(reply: Reply) -> Self {
        Self { reply, announced: None, breaks: None, drip: None, endless: false }
    }
}

/// What shows a certificate.
pub type Tls = Arc<ServerConfig>;

/// Answers a request, whose body is read by whoever answers, or not.
type Answer = dyn Fn(&Message, &mut Body<'_>) -> Delivery + Send + Sync;

/// A server on a free port of a loopback address; it ends when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    over: Arc<AtomicBool>,
}

impl Server {
    /// A plain one on 127.0.0.1 that answers every request with what `answer` says.
    pub fn start<D: Into<Delivery>>(answer: impl Fn(&Message, &mut Body<'_>) -> D + Send + Sync + 'static) -> Self {
        Self::listen(Ipv4Addr::LOCALHOST, None, answer)
    }

    /// The same on another address of this machine, and with TLS if wanted.
    pub fn listen<D: Into<Delivery>>(
        at: Ipv4Addr,
        tls: Option<Tls>,
        answer: impl Fn(&Message, &mut Body<'_>) -> D + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((IpAddr::V4(at), 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let answer: Arc<Answer> = Arc::new(move |request, body| answer(request, body).into());
        let stop = Arc::clone(&over);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let (answer, stop, tls) = (Arc::clone(&answer), Arc::clone(&stop), tls.clone());
                std::thread::spawn(move || {
                    let _ = stream.set_nodelay(true);
                    // whatever breaks a connection is the client's to notice
                    let _ = match tls {
                        None => serve(stream, answer.as_ref(), &stop),
                        Some(tls) => match rustls::ServerConnection::new(tls) {
                            Ok(tls) => serve(rustls::StreamOwned::new(tls, stream), answer.as_ref(), &stop),
                            Err(_) => Ok(()),
                        },
                    };
                });
            }
        });
        Self { address, over }
    }

    /// `HOST:PORT`.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The address to connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

/// One connection, request after request.
fn serve<S: Read + Write>(stream: S, answer: &Answer, over: &AtomicBool) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while !over.load(Ordering::Relaxed) {
        if stream.fill_buf()?.first().is_some_and(|first| !first.is_ascii_uppercase()) {
            // TLS, for one: as nginx answers it
            return stream.get_mut().write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
        let request = head(&mut stream)?;
        let mut body = Body::of(&request, &mut stream);
        let delivery = answer(&request, &mut body);
        // what was not read stands between this request and the next
        let last = !body.is_over() || request.header("connection") == Some("close");
        let to = stream.get_mut();
        if !deliver(to, &delivery, request.method == "HEAD", over)? || last {
            return Ok(());
        }
    }
    Ok(())
}

/// Writes an answer; false when the connection is not fit for another.
fn deliver(to: &mut impl Write, delivery: &Delivery, without_body: bool, over: &AtomicBool) -> io::Result<bool> {
    match delivery.breaks {
        Some(Break::Unanswered) => return Ok(false),
        Some(Break::Mute) => return Ok(stall(over)),
        _ => {}
    }
    let reply = &delivery.reply;
    let length = delivery.announced.unwrap_or(reply.body.len() as u64);
    let mut text = format!("HTTP/1.1 {} -\r\n", reply.status);
    for (name, value) in &reply.headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += &if delivery.endless {
        "Connection: close\r\n\r\n".into()
    } else {
        format!("Content-Length: {length}\r\n\r\n")
    };
    to.write_all(text.as_bytes())?;
    to.flush()?;
    if without_body {
        return Ok(true);
    }
    let end = match delivery.breaks {
        Some(Break::Close(at) | Break::Stall(at)) => usize::try_from(at).unwrap().min(reply.body.len()),
        _ => reply.body.len(),
    };
    write(to, &reply.body[..end], delivery.drip)?;
    match delivery.breaks {
        Some(Break::Close(_)) => return Ok(false),
        Some(Break::Stall(_)) => return Ok(stall(over)),
        _ => {}
    }
    while delivery.endless && !over.load(Ordering::Relaxed) {
        write(to, &[0; PIECE], None)?;
    }
    Ok(!delivery.endless && length == reply.body.len() as u64)
}

fn write(to: &mut impl Write, bytes: &[u8], drip: Option<(u64, u64)>) -> io::Result<()> {
    let (slow, rate) = drip.unwrap_or((0, 1));
    let (slow, rest) = bytes.split_at(usize::try_from(slow).unwrap().min(bytes.len()));
    for piece in slow.chunks(usize::try_from(rate.div_ceil(20)).unwrap()) {
        std::thread::sleep(Duration::from_millis(50));
        to.write_all(piece)?;
        to.flush()?;
    }
    for piece in rest.chunks(PIECE) {
        to.write_all(piece)?;
    }
    to.flush()
}

/// Holds a connection without a word. Always false.
fn stall(over: &AtomicBool) -> bool {
    let pause = Duration::from_millis(50);
    let mut waited = Duration::ZERO;
    while !over.load(Ordering::Relaxed) && waited < LONGEST_STALL {
        std::thread::sleep(pause);
        waited += pause;
    }
    false
}

impl fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body")
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::time::Instant;

    use super::*;
    use crate::http::Endpoint;

    fn delivering(change: impl Fn(&mut Delivery) + Send + Sync + 'static) -> io::Result<Message> {
        let server = Server::start(move |_, _| {
            let mut delivery = Delivery::from(Reply::new(200, "text/plain", vec![7; 1000]));
            change(&mut delivery);
            delivery
        });
        Endpoint::plain(&server.host()).send("GET", "/", &[], &[])
    }

    #[test]
    fn client_and_server_agree() {
        let server = Server::start(|request, body| {
            let mut text = format!("{} ", request.method).into_bytes();
            body.read_to_end(&mut text).unwrap();
            Reply::new(201, "text/plain", text).header("X", "y")
        });
        let answer = Endpoint::plain(&server.host()).send("POST", "/a?b", &[], b"body").unwrap();
        assert_eq!((answer.status, answer.body.as_slice(), answer.header("x")), (201, &b"POST body"[..], Some("y")));
        let answer = Endpoint::plain(&server.host()).send("HEAD", "/", &[], b"").unwrap();
        assert_eq!((answer.status, answer.body.len()), (201, 0));
    }

    #[test]
    fn a_connection_serves_several_requests_of_both_forms() {
        let server = Server::start(|request, body| {
            let mut text = Vec::new();
            body.read_to_end(&mut text).unwrap();
            Reply::new(200, "text/plain", [request.path.as_bytes(), b" ", &text].concat())
        });
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream
            .write_all(b"PUT /1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
            .unwrap();
        stream.write_all(b"PUT /2 HTTP/1.1\r\nContent-Length: 1\r\nConnection: close\r\n\r\nf").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.contains("/1 abcde") && text.ends_with("/2 f"), "{text}");
    }

    #[test]
    fn answers_break_where_they_should() {
        assert_eq!(delivering(|_| {}).unwrap().body, [7; 1000]);
        let early = |change: fn(&mut Delivery)| delivering(change).unwrap_err().kind();
        assert_eq!(early(|d| d.breaks = Some(Break::Close(999))), ErrorKind::UnexpectedEof);
        assert_eq!(early(|d| d.announced = Some(1001)), ErrorKind::UnexpectedEof);
        assert_eq!(early(|d| d.breaks = Some(Break::Unanswered)), ErrorKind::InvalidData);
        assert_eq!(delivering(|d| d.announced = Some(10)).unwrap().body.len(), 10);
    }

    #[test]
    fn a_stall_keeps_the_connection_and_a_drip_takes_its_time() {
        let server = Server::start(|_, _| Delivery {
            breaks: Some(Break::Stall(3)),
            ..Reply::new(200, "text/plain", *b"abcdef").into()
        });
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut text = Vec::new();
        let end = stream.read_to_end(&mut text).unwrap_err();
        assert!(text.ends_with(b"abc") && end.kind() == ErrorKind::WouldBlock, "{end}");

        let started = Instant::now();
        assert_eq!(delivering(|d| d.drip = Some((500, 1000))).unwrap().body.len(), 1000);
        assert!(started.elapsed() >= Duration::from_millis(450), "{:?}", started.elapsed());
    }
}
