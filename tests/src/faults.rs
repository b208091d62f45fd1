//! A line between two programs, with its faults: a TCP proxy that delays, slows, resets, stalls and corrupts.
//!
//! Bytes are counted per connection and in the direction from the server to the client, where blobs flow on a pull; a fault on a
//! push is asked for with [`Direction::Up`]. A line keeps its delay and rate for each connection by itself, as a long line does for
//! which the receive window, not the wire, is the limit.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, tcp};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// What happens to a connection at byte N.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Both ends are reset.
    Reset(u64),
    /// Nothing more comes, and the connection stays open.
    Stall(u64),
    /// One bit of that byte is flipped.
    Corrupt(u64),
}

/// The properties of a line.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// There and back; a new connection waits it once more, as a handshake does.
    pub round_trip: Duration,
    /// For each connection and direction; unlimited when absent.
    pub bytes_per_second: Option<u64>,
    /// What breaks, and which way.
    pub fault: Option<(Direction, Fault)>,
    /// How many faults there are in all; connections beyond that are good.
    pub faults: u64,
}

impl Line {
    /// A line without any fault, delay or limit.
    #[must_use]
    pub fn good() -> Self {
        Self { round_trip: Duration::ZERO, bytes_per_second: None, fault: None, faults: 0 }
    }

    /// A line slower than the machine.
    #[must_use]
    pub fn slow(round_trip: Duration, bytes_per_second: u64) -> Self {
        Self { round_trip, bytes_per_second: Some(bytes_per_second), ..Self::good() }
    }

    /// A line on which the first `faults` connections that come so far break.
    #[must_use]
    pub fn broken(direction: Direction, fault: Fault, faults: u64) -> Self {
        Self { fault: Some((direction, fault)), faults, ..Self::good() }
    }
}

#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
    faults: AtomicU64,
}

/// What went over a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Accepted so far.
    pub connections: u64,
    /// Bytes from clients to the server.
    pub up: u64,
    /// Bytes from the server to clients.
    pub down: u64,
    /// Faults that happened.
    pub faults: u64,
}

/// A running proxy; it ends when dropped, and all its connections with it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    counters: Arc<Counters>,
    _runtime: tokio::runtime::Runtime,
}

impl Proxy {
    /// Starts a proxy to `server` on a free loopback port.
    #[must_use]
    pub fn start(server: SocketAddr, line: Line) -> Self {
        Self::listen(SocketAddr::from(([127, 0, 0, 1], 0)), server, line)
    }

    /// Starts a proxy to `server` at a given address.
    #[must_use]
    pub fn listen(at: SocketAddr, server: SocketAddr, line: Line) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(async { listener(at, line.fault.is_some()) }).unwrap();
        let address = listener.local_addr().unwrap();
        let counters = Arc::new(Counters::default());
        let shared = Arc::clone(&counters);
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(connection(client, server, line, Arc::clone(&shared)));
            }
        });
        Self { address, counters, _runtime: runtime }
    }

    /// Where clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `HOST:PORT` of the same.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// What went over the line so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let c = &self.counters;
        Counts { connections: read(&c.connections), up: read(&c.up), down: read(&c.down), faults: read(&c.faults) }
    }
}

async fn connection(client: TcpStream, server: SocketAddr, line: Line, counters: Arc<Counters>) {
    let opened = Instant::now();
    let Ok(server) = connect(server, line.fault.is_some()).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let up = Pump { line, direction: Direction::Up, counters: Arc::clone(&counters), start: opened + line.round_trip };
    let down = Pump { line, direction: Direction::Down, counters, start: opened };
    let mut up = tokio::spawn(up.run(client_in, server_out));
    let mut down = tokio::spawn(down.run(server_in, client_out));
    // a reset in one direction ends the other too; a plain end of stream does not
    tokio::select! {
        over = &mut up => { if matches!(over, Ok(Over::Reset)) { down.abort() } else { let _ = down.await; } }
        over = &mut down => { if matches!(over, Ok(Over::Reset)) { up.abort() } else { let _ = up.await; } }
    }
}

/// A reset loses what is on its way: little on a line that breaks, and not the megabytes that loopback buffers.
fn socket(peer: SocketAddr, breaks: bool) -> std::io::Result<TcpSocket> {
    let socket = if peer.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if breaks {
        socket.set_send_buffer_size(32 << 10)?;
    }
    Ok(socket)
}

fn listener(at: SocketAddr, breaks: bool) -> std::io::Result<TcpListener> {
    let socket = socket(at, breaks)?;
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    socket.listen(1024)
}

async fn connect(server: SocketAddr, breaks: bool) -> std::io::Result<TcpStream> {
    socket(server, breaks)?.connect(server).await
}

enum Over {
    End,
    Reset,
}

struct Pump {
    line: Line,
    direction: Direction,
    counters: Arc<Counters>,
    start: Instant,
}

impl Pump {
    /// Moves bytes from one end to the other, each chunk not before its time.
    async fn run(self, mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf) -> Over {
        let (send, receive) = mpsc::channel(64);
        // the reader never ends by itself: what it read last still has to be written
        let over = tokio::select! {
            () = self.read(&mut from, send) => Over::End,
            over = self.write(receive, &mut to) => over,
        };
        if matches!(over, Over::Reset) {
            let _ = (to.as_ref().set_zero_linger(), from.as_ref().set_zero_linger());
            to.forget();
        }
        over
    }

    async fn read(&self, from: &mut tcp::OwnedReadHalf, send: mpsc::Sender<(Instant, Vec<u8>)>) {
        let mut free = self.start;
        let mut chunk = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut chunk).await {
            free = free.max(Instant::now());
            if let Some(rate) = self.line.bytes_per_second {
                free += Duration::from_secs_f64(count as f64 / rate as f64);
            }
            if send.send((free + self.line.round_trip / 2, chunk[..count].to_vec())).await.is_err() {
                break;
            }
        }
        drop(send);
        std::future::pending::<()>().await;
    }

    async fn write(&self, mut receive: mpsc::Receiver<(Instant, Vec<u8>)>, to: &mut tcp::OwnedWriteHalf) -> Over {
        let mut passed = 0_u64;
        while let Some((when, mut chunk)) = receive.recv().await {
            if when > Instant::now() {
                sleep_until(when).await;
            }
            let end = passed + chunk.len() as u64;
            let within = |at: u64| usize::try_from(at - passed).unwrap();
            let counter = if self.direction == Direction::Up { &self.counters.up } else { &self.counters.down };
            let count = |bytes: usize| counter.fetch_add(bytes as u64, Ordering::Relaxed);
            match self.due(passed, end) {
                Some(Fault::Corrupt(at)) => chunk[within(at)] ^= 1,
                Some(Fault::Stall(at)) => {
                    count(within(at));
                    let _ = to.write_all(&chunk[..within(at)]).await;
                    std::future::pending::<()>().await;
                }
                Some(Fault::Reset(at)) => {
                    count(within(at));
                    let _ = to.write_all(&chunk[..within(at)]).await;
                    return Over::Reset;
                }
                None => {}
            }
            passed = end;
            count(chunk.len());
            if to.write_all(&chunk).await.is_err() {
                return Over::End;
            }
        }
        let _ = to.shutdown().await;
        Over::End
    }

    /// The fault that falls between two counts, if its turn has come.
    fn due(&self, from: u64, to: u64) -> Option<Fault> {
        let (direction, fault) = self.line.fault?;
        let (Fault::Reset(at) | Fault::Stall(at) | Fault::Corrupt(at)) = fault;
        if direction != self.direction || at < from || at >= to {
            return None;
        }
        let claim = |count: u64| (count < self.line.faults).then_some(count + 1);
        self.counters.faults.fetch_update(Ordering::Relaxed, Ordering::Relaxed, claim).ok().map(|_| fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net;

    /// A server that answers every connection with `len` bytes of `x` and closes it.
    fn server(len: usize) -> SocketAddr {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 1]);
                let _ = stream.write_all(&vec![b'x'; len]);
            }
        });
        address
    }

    fn fetch(at: SocketAddr) -> (Vec<u8>, std::io::Result<usize>) {
        let mut stream = net::TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        stream.write_all(b"?").unwrap();
        let mut bytes = Vec::new();
        let end = stream.read_to_end(&mut bytes);
        (bytes, end)
    }

    #[test]
    fn a_reset_comes_at_its_byte_and_only_as_often_as_asked() {
        let line = Proxy::start(server(1000), Line::broken(Direction::Down, Fault::Reset(600), 1));
        let (bytes, end) = fetch(line.address());
        assert!(bytes.len() <= 600, "{}", bytes.len());
        assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        let (bytes, end) = fetch(line.address());
        assert_eq!((bytes.len(), end.unwrap()), (1000, 1000));
        assert_eq!(line.counts().faults, 1);
        assert_eq!(line.counts().connections, 2);
    }

    #[test]
    fn one_bit_is_flipped() {
        let line = Proxy::start(server(1000), Line::broken(Direction::Down, Fault::Corrupt(999), 1));
        let (bytes, _) = fetch(line.address());
        assert_eq!((bytes.len(), bytes[998], bytes[999]), (1000, b'x', b'x' ^ 1));
    }

    #[test]
    fn a_stall_sends_no_more_and_stays_open() {
        let line = Proxy::start(server(1000), Line::broken(Direction::Down, Fault::Stall(10), 1));
        let (bytes, end) = fetch(line.address());
        assert_eq!(bytes.len(), 10);
        assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "timed out, not closed");
    }

    #[test]
    fn a_slow_line_takes_its_time() {
        let line = Proxy::start(server(500_000), Line::slow(Duration::from_millis(40), 1_000_000));
        let start = std::time::Instant::now();
        let (bytes, _) = fetch(line.address());
        let took = start.elapsed();
        assert_eq!(bytes.len(), 500_000);
        assert!(took > Duration::from_millis(500) && took < Duration::from_millis(1500), "{took:?}");
    }
}
