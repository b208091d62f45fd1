//! Over real sockets: HTTP/1.1 by hand, TLS, broken clients, the end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ferry_image::Digest;
use ferry_registry_server::{Limits, Server, Settings, Tls};
use rustls_pki_types::pem::PemObject as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::site::{Image, Site};

const LOOPBACK: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    authority: Option<String>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

pub(crate) async fn run(site: &Site, tls: Option<Tls>, limits: Limits) -> Running {
    let server = Server::bind(LOOPBACK.into(), site.registry.clone(), tls.as_ref(), limits).await.expect("bind");
    let (stop, stopped) = oneshot::channel::<()>();
    let (address, authority) = (server.local_addr(), server.authority().map(|a| a.pem.clone()));
    let task = tokio::spawn(server.serve(async { drop(stopped.await) }, std::future::pending()));
    Running { address, authority, stop, task }
}

pub(crate) async fn say(address: SocketAddr, text: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connect");
    stream.write_all(text).await.expect("write");
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer))
        .await
        .expect("in time")
        .expect("read");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_plain_client_pulls_and_the_server_ends_when_told() {
    let site = Site::with_store(Settings::default());
    let image = Image::new("one");
    image.put(site.store(), "r", Some("t"));
    let server = run(&site, None, Limits::default()).await;
    let request =
        format!("GET /v2/r/blobs/{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", Digest::of(&image.layer));
    let answer = say(server.address, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with(std::str::from_utf8(&image.layer).expect("text")));
    // HEAD keeps the length and sends no body.
    let answer = say(server.address, b"HEAD /v2/r/manifests/t HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(answer.contains(&format!("content-length: {}\r\n", image.manifest.len())) && answer.ends_with("\r\n\r\n"));
    // An idle connection does not hold the end up.
    let idle = TcpStream::connect(server.address).await.expect("connect");
    server.stop.send(()).expect("running");
    tokio::time::timeout(Duration::from_secs(5), server.task).await.expect("in time").expect("ended well");
    assert!(TcpStream::connect(server.address).await.is_err());
    drop(idle);
}

#[tokio::test]
async fn a_broken_transfer_is_seen_as_one() {
    let site = Site::with_store(Settings::default());
    let blob = site.store().put_blob("x", &[b'x'; 5000]).expect("put");
    std::fs::write(site.store().folder().join(blob.digest.blob_path()), [b'y'; 5000]).expect("damage");
    let server = run(&site, None, Limits::default()).await;
    let answer =
        say(server.address, format!("GET /v2/r/blobs/{} HTTP/1.1\r\nHost: x\r\n\r\n", blob.digest).as_bytes()).await;
    assert!(!answer.contains("yy"), "not one wrong byte: {answer}");
}

#[tokio::test]
async fn what_a_lost_connection_sent_is_kept_and_the_upload_goes_on() {
    let site = Site::with_store(Settings::default());
    let server = run(&site, None, Limits::default()).await;
    let begin = site.ask("POST /v2/r/blobs/uploads/", &[], b"").await;
    let location = begin.header("location").to_owned();
    let mut stream = TcpStream::connect(server.address).await.expect("connect");
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\nhello");
    stream.write_all(head.as_bytes()).await.expect("write");
    stream.flush().await.expect("flush");
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(stream);
    let digest = Digest::of(b"hello world");
    // The next request waits until the server has noticed that the first is gone.
    let mut offset = String::new();
    for _ in 0..100 {
        offset = site.get(&location).await.header("range").to_owned();
        if offset == "0-4" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(offset, "0-4");
    let rest = format!(
        "PUT {location}?digest={digest} HTTP/1.1\r\nHost: x\r\nContent-Range: 5-10\r\nContent-Length: 6\r\nConnection: close\r\n\r\n world"
    );
    let answer = say(server.address, rest.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 201 Created\r\n"), "{answer}");
    assert!(site.store().has_blob(&digest).expect("stat"));
}

#[tokio::test]
async fn a_client_that_comes_back_need_not_wait_for_its_lost_connection() {
    let site = Site::with_store(Settings::default());
    let server = run(&site, None, Limits::default()).await;
    let begin = site.ask("POST /v2/r/blobs/uploads/", &[], b"").await;
    let location = begin.header("location").to_owned();
    // to the server this one is well, and only slow
    let mut lost = TcpStream::connect(server.address).await.expect("connect");
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\nhello");
    lost.write_all(head.as_bytes()).await.expect("write");
    tokio::time::sleep(Duration::from_millis(50)).await;
    let start = std::time::Instant::now();
    let answer = site.ask(&format!("PATCH {location}"), &[("content-range", "0-10")], b"hello world").await;
    assert_eq!((answer.status.as_u16(), answer.header("range")), (416, "0-4"), "what came is kept");
    let put = format!("PUT {location}?digest={}", Digest::of(b"hello world"));
    assert_eq!(site.ask(&put, &[("content-range", "5-10")], b" world").await.status.as_u16(), 201);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let mut told = [0; 12];
    lost.read_exact(&mut told).await.expect("an answer");
    assert_eq!(&told, b"HTTP/1.1 409");
}

#[tokio::test]
async fn what_came_of_an_upload_that_goes_slowly_is_written_all_the_same() {
    let site = Site::with_store(Settings::default());
    let server = run(&site, None, Limits::default()).await;
    let begin = site.ask("POST /v2/r/blobs/uploads/", &[], b"").await;
    let location = begin.header("location").to_owned();
    let mut slow = TcpStream::connect(server.address).await.expect("connect");
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n");
    slow.write_all(head.as_bytes()).await.expect("write");
    let mut offset = String::new();
    // a byte now and then: with each a pause begins anew
    for _ in 0..12 {
        slow.write_all(b"x").await.expect("write");
        tokio::time::sleep(Duration::from_millis(250)).await;
        offset = site.get(&location).await.header("range").to_owned();
    }
    assert!(!matches!(offset.as_str(), "0-0" | ""), "{offset}");
}

#[tokio::test]
async fn slow_and_endless_heads_are_cut_off() {
    let site = Site::with_store(Settings::default());
    let limits = Limits { header_timeout: Duration::from_millis(200), ..Limits::default() };
    let server = run(&site, None, limits).await;
    say(server.address, b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Slow: ").await;
    let many = format!("GET /v2/ HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(200));
    let answer = say(server.address, many.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn a_self_made_certificate_is_good_for_who_trusts_its_authority() {
    let site = Site::with_store(Settings::default());
    let folder = tempfile::tempdir().expect("folder");
    let tls = Tls::Kept { folder: folder.path().to_owned(), names: vec!["localhost".into(), "127.0.0.1".into()] };
    let server = run(&site, Some(tls), Limits::default()).await;
    let pem = server.authority.as_deref().expect("an authority");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).expect("pem")).expect("root");
    for (roots, trusted) in [(roots, true), (rustls::RootCertStore::empty(), false)] {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = rustls_pki_types::ServerName::try_from("127.0.0.1").expect("name");
        let stream = TcpStream::connect(server.address).await.expect("connect");
        let connected = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        assert_eq!(connected.is_ok(), trusted);
        if let Ok(mut stream) = connected {
            stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("write");
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_listened_on_or_trusted_is_a_clear_error() {
    let site = Site::with_store(Settings::default());
    let server = run(&site, None, Limits::default()).await;
    let bind = |tls: Option<Tls>, address| {
        let registry = site.registry.clone();
        async move { Server::bind(address, registry, tls.as_ref(), Limits::default()).await.err().expect("refused") }
    };
    let error = bind(None, server.address).await;
    assert!(error.to_string().starts_with(&format!("cannot listen on {}", server.address)), "{error}");
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("cert.pem");
    let tls = Tls::Files { certificate: path.clone(), key: path.clone() };
    for content in
        [None, Some(""), Some("junk"), Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")]
    {
        if let Some(content) = content {
            std::fs::write(&path, content).expect("write");
        }
        let error = bind(Some(tls.clone()), LOOPBACK.into()).await;
        assert!(error.to_string().contains("cert.pem"), "{error}");
    }
}

#[tokio::test]
async fn who_is_refused_in_mid_sentence_hears_why_and_may_go_on() {
    let site = Site::with_store(Settings::default());
    let server = run(&site, None, Limits::default()).await;
    let large = vec![b' '; (4 << 20) + 1];
    let mut stream = TcpStream::connect(server.address).await.expect("connect");
    let refused = [
        ("PUT /v2/r/manifests/t", "413 Payload Too Large"),
        ("PATCH /v2/r/blobs/uploads/0123456789abcdef0123456789abcdef", "404 Not Found"),
        ("POST /v2/R/blobs/uploads/", "400 Bad Request"),
        ("PUT /nothing", "404 Not Found"),
    ];
    for (request, status) in refused {
        // a client like many: it sends everything before it reads
        let head = format!("{request} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", large.len());
        stream.write_all(head.as_bytes()).await.expect("head");
        stream.write_all(&large).await.expect("body");
        let mut answer = vec![0; 4096];
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer[..read.expect("in time").expect("read")]).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request}: {answer}");
    }
}

#[tokio::test]
async fn who_waits_to_be_asked_is_refused_without_sending() {
    let site = Site::with_store(Settings::default());
    let server = run(&site, None, Limits::default()).await;
    let head = "PUT /v2/r/manifests/t HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5000000\r\n\r\n";
    let start = std::time::Instant::now();
    let answer = say(server.address, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 Payload Too Large\r\n"), "{answer}");
    assert!(start.elapsed() < Duration::from_secs(4));
}
