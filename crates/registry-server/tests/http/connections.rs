//! Many clients, slow ones, and ones that do nothing.

use std::time::Duration;

use ferry_image::Digest;
use ferry_registry_server::{AccessLog, Limits, Settings};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::site::Site;
use crate::socket::{Running, run, say};

const PING: &[u8] = b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

async fn ping(server: &Running) -> String {
    say(server.address, PING).await
}

/// A blob larger than what sockets hold, and a client that asks for it and takes nothing.
async fn takes_nothing(site: &Site, server: &Running) -> TcpStream {
    let blob = site.store().put_blob("x", &vec![7; 40 << 20]).expect("put");
    let socket = TcpSocket::new_v4().expect("socket");
    socket.set_recv_buffer_size(4096).expect("buffer");
    let mut stream = socket.connect(server.address).await.expect("connect");
    let get = format!("GET /v2/r/blobs/{} HTTP/1.1\r\nHost: x\r\n\r\n", blob.digest);
    stream.write_all(get.as_bytes()).await.expect("write");
    stream.readable().await.expect("it begins");
    stream
}

#[tokio::test]
async fn an_idle_connection_gives_way_and_one_at_work_does_not() {
    let site = Site::with_store(Settings::default());
    let server = run(&site, None, Limits { connections: 1, ..Limits::default() }).await;
    let mut idle = TcpStream::connect(server.address).await.expect("connect");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(ping(&server).await.starts_with("HTTP/1.1 200 OK"));
    assert_eq!(idle.read(&mut [0]).await.unwrap_or(0), 0, "it was ended");
    let busy = takes_nothing(&site, &server).await;
    let (address, waiting) = (server.address, async |address| say(address, PING).await);
    let waiting = tokio::spawn(async move { waiting(address).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished(), "it waits for the one at work");
    drop(busy);
    assert!(waiting.await.expect("ran").starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn a_client_at_its_limit_pushes_nobody_else_out() {
    let site = Site::with_store(Settings::default());
    let server = run(&site, None, Limits { connections: 3, per_client: 2, ..Limits::default() }).await;
    let socket = TcpSocket::new_v4().expect("socket");
    socket.bind(([127, 0, 0, 2], 0).into()).expect("another client");
    let mut other = socket.connect(server.address).await.expect("connect");
    tokio::time::sleep(Duration::from_millis(20)).await;
    let mut own = Vec::new();
    for _ in 0..20 {
        own.push(TcpStream::connect(server.address).await.expect("connect"));
    }
    assert!(ping(&server).await.starts_with("HTTP/1.1 200 OK"));
    other.write_all(PING).await.expect("it is still there");
    let mut answer = [0; 12];
    other.read_exact(&mut answer).await.expect("it is still there");
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_given_up_and_its_turn_passes_on() {
    let site = Site::with_store(Settings::default());
    let limits = Limits { requests: 1, stall: Duration::from_millis(700), ..Limits::default() };
    let server = run(&site, None, limits).await;
    let mut stands = takes_nothing(&site, &server).await;
    let begun = std::time::Instant::now();
    assert!(ping(&server).await.starts_with("HTTP/1.1 200 OK"));
    assert!(begun.elapsed() >= Duration::from_millis(500), "one request of a client at a time: {:?}", begun.elapsed());
    let mut rest = Vec::new();
    let _ = stands.read_to_end(&mut rest).await;
    assert!(rest.len() < 40 << 20, "it was cut off");
}

#[tokio::test]
async fn a_client_with_too_many_requests_under_way_is_told_so_and_so_is_who_watches() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("log");
    let log = AccessLog::to_file(&path).expect("a log");
    let site = Site::with_store(Settings { access_log: Some(log), ..Settings::default() });
    let limits = Limits { requests: 1, header_timeout: Duration::from_millis(300), ..Limits::default() };
    let server = run(&site, None, limits).await;
    let _stands = takes_nothing(&site, &server).await;
    let answer = ping(&server).await;
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("retry-after: "), "{answer}");
    let metrics = site.get("/metrics").await;
    let metrics = std::str::from_utf8(metrics.body()).expect("text");
    assert!(metrics.contains("code=\"429\""), "{metrics}");
    let logged = || std::fs::read_to_string(&path).expect("the log").contains("\"GET /v2/ HTTP/1.1\" 429 ");
    for _ in 0..100 {
        if logged() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it is not in the log");
}

/// Asks for a blob over HTTP/2 with a window of nothing: the connection is well, its pings are answered, and no byte of the answer is taken.
async fn takes_nothing_over_http2(site: &Site, server: &Running) -> TcpStream {
    let blob = site.store().put_blob("x", &vec![7; 4 << 20]).expect("put");
    let mut stream = TcpStream::connect(server.address).await.expect("connect");
    let path = format!("/v2/r/blobs/{}", blob.digest);
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let length = u8::try_from(payload.len()).expect("short");
        [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
    };
    // SETTINGS_INITIAL_WINDOW_SIZE is 0; then GET, http, the path and a host, as HPACK has them
    let settings = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let length = u8::try_from(path.len()).expect("short");
    let head = [&[0x82, 0x86, 0x04, length], path.as_bytes(), &[0x01, 0x01, b'x']].concat();
    let bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), settings, frame(1, 5, 1, &head)].concat();
    stream.write_all(&bytes).await.expect("write");
    stream.readable().await.expect("it begins");
    stream
}

#[tokio::test]
async fn who_takes_nothing_is_ended_also_where_another_waits_for_its_connection() {
    let site = Site::with_store(Settings::default());
    let limits = Limits { connections: 1, stall: Duration::from_millis(50), ..Limits::default() };
    let server = run(&site, None, limits).await;
    let _stands = takes_nothing_over_http2(&site, &server).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut waits = TcpStream::connect(server.address).await.expect("connect");
    waits.write_all(PING).await.expect("write");
    let mut answer = [0; 12];
    let read = tokio::time::timeout(Duration::from_secs(20), waits.read_exact(&mut answer)).await;
    read.expect("in time").expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[tokio::test]
async fn a_connection_that_does_nothing_is_ended() {
    let site = Site::with_store(Settings::default());
    let server = run(&site, None, Limits { idle_timeout: Duration::ZERO, ..Limits::default() }).await;
    let mut idle = TcpStream::connect(server.address).await.expect("connect");
    let ended = tokio::time::timeout(Duration::from_secs(20), idle.read(&mut [0])).await.expect("in time");
    assert_eq!(ended.unwrap_or(0), 0);
}

#[tokio::test]
async fn two_thousand_idle_connections_keep_nobody_from_being_served() {
    const IDLE: usize = 2000;
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    if getrlimit(Resource::Nofile).current.is_some_and(|most| most < 2 * IDLE as u64 + 200) {
        eprintln!("SKIP two_thousand_idle_connections_keep_nobody_from_being_served: too few files may be open");
        return;
    }
    let site = Site::with_store(Settings::default());
    let layer = vec![1; 1 << 20];
    let digest = site.store().put_blob("x", &layer).expect("put").digest;
    assert_eq!(digest, Digest::of(&layer));
    // all of them held, and then more than may be: those from before give way
    for limits in [
        Limits { connections: 4096, per_client: 4096, ..Limits::default() },
        Limits { connections: 4096, per_client: 100, ..Limits::default() },
        Limits { connections: 300, per_client: 4096, ..Limits::default() },
    ] {
        let server = run(&site, None, limits).await;
        let mut idle = Vec::with_capacity(IDLE);
        for _ in 0..IDLE {
            idle.push(TcpStream::connect(server.address).await.expect("connect"));
        }
        let begun = std::time::Instant::now();
        let get = format!("GET /v2/r/blobs/{digest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = say(server.address, get.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.len() > layer.len());
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}
