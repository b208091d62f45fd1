//! The embedded registry with very many clients at once.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use ferry_tests::http::Endpoint;
use ferry_tests::images::{Format, Image, Layer};
use ferry_tests::registry::push;
use ferry_tests::site::Site;
use ferry_tests::tools;
use tokio::net::{TcpSocket, TcpStream};

use crate::small;

/// Files that this process, or the server that it starts, may open.
fn open_files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap_or_default();
    line.split_whitespace().next().and_then(|soft| soft.parse().ok()).unwrap_or(usize::MAX)
}

async fn connect(to: SocketAddr, from: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(from)?;
    socket.connect(to).await
}

/// The value of a metric.
fn metric(endpoint: &Endpoint, name: &str) -> u64 {
    let text = endpoint.send("GET", "/metrics", &[], &[]).unwrap().body;
    let text = String::from_utf8(text).unwrap();
    let line = text.lines().find(|line| line.split(' ').next() == Some(name)).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn ten_thousand_idle_connections_are_held_and_others_are_served_at_once() {
    const IDLE: usize = 10_000;
    /// Each client has fewer than one may.
    const OF_ONE: usize = 2_000;
    // the server holds three quarters of what it may open
    if open_files() / 4 * 3 < IDLE + 100 {
        tools::skip(&format!("ten thousand connections: only {} files may be open", open_files()));
        return;
    }
    let site = Site::without_keys();
    let (host, serving) = site.serve("--store shelf --access-log off");
    let endpoint = Endpoint::plain(&host);
    push(&endpoint, "app/one:1", &small(1));
    let to: SocketAddr = host.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let begun = Instant::now();
    let idle: Vec<TcpStream> = runtime.block_on(async {
        let mut idle = Vec::with_capacity(IDLE);
        for at in 0..IDLE {
            let from = SocketAddr::from(([127, 0, 0, u8::try_from(2 + at / OF_ONE).unwrap()], 0));
            idle.push(connect(to, from).await.unwrap());
        }
        idle
    });
    // whoever finds the kernel's queue full asks again after a second
    assert!(begun.elapsed() < Duration::from_secs(15), "{IDLE} connections took {:?}", begun.elapsed());
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(endpoint.send("GET", "/v2/app/one/manifests/1", &[], &[]).unwrap().status, 200);
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "20 answers took {:?}", begun.elapsed());
    let open = metric(&endpoint, "ferry_http_connections");
    assert!(open >= IDLE as u64, "of {IDLE} idle connections and this one {open} are open");
    assert!(serving.peak_memory() < 300 << 20, "{} bytes", serving.peak_memory());
    drop(idle);
}

#[test]
fn two_hundred_clients_pull_at_once_and_none_fails() {
    const CLIENTS: usize = 200;
    let site = Site::without_keys();
    let image = Image::single("linux/amd64", Format::Oci, vec![Layer::random(1, 3 << 20), Layer::random(2, 1 << 20)]);
    let (host, serving) = site.serve("--store shelf --access-log off");
    push(&Endpoint::plain(&host), "app/one:1", &image);
    let layers = image.single.as_ref().unwrap().layers.iter();
    let paths = layers.map(|layer| format!("/v2/app/one/blobs/{}", layer.digest()));
    let mut load = Command::new(env!("CARGO_BIN_EXE_pull-load"));
    let load = load.args([&host, &CLIENTS.to_string()]).arg("/v2/app/one/manifests/1").args(paths);
    let output = load.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let [_, bytes, failed]: [u64; 3] = {
        let numbers: Vec<u64> = said.split_whitespace().map(|n| n.parse::<f64>().unwrap() as u64).collect();
        numbers.try_into().unwrap()
    };
    assert_eq!(failed, 0, "{}", String::from_utf8_lossy(&output.stderr));
    assert!(bytes > CLIENTS as u64 * (4 << 20));
    assert!(serving.peak_memory() < 100 << 20, "{} bytes", serving.peak_memory());
}
