//! Many clients at once, for the benchmark: `pull-load IP:PORT CLIENTS PATH…`.
//!
//! Each client fetches every path over one connection and throws the bytes away: any server is measured by the same client. On stdout:
//! seconds, bytes, and how many answers were wrong or fell short.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a tool of the tests")]

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Barrier;
use std::time::Instant;

/// Bytes taken at a time.
const BUFFER: usize = 256 << 10;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, clients, paths @ ..] = arguments.as_slice() else {
        panic!("usage: pull-load IP:PORT CLIENTS PATH…")
    };
    let clients: usize = clients.parse().unwrap();
    let ready = Barrier::new(clients + 1);
    let (start, results) = std::thread::scope(|scope| {
        let client = || {
            let connection = TcpStream::connect(address);
            ready.wait();
            connection.map(|connection| fetch_all(connection, address, paths))
        };
        let clients: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        ready.wait();
        (Instant::now(), clients.into_iter().map(|client| client.join().unwrap()).collect::<Vec<_>>())
    });
    let seconds = start.elapsed().as_secs_f64();
    let all = paths.len() as u64;
    let ended = results.into_iter().map(|result| result.unwrap_or((0, all)));
    let (bytes, failed) = ended.fold((0, 0), |(bytes, failed), (b, f)| (bytes + b, failed + f));
    println!("{seconds:.6} {bytes} {failed}");
}

/// Bytes that came, and answers that failed.
fn fetch_all(mut connection: TcpStream, host: &str, paths: &[String]) -> (u64, u64) {
    let mut reader = BufReader::with_capacity(BUFFER, connection.try_clone().unwrap());
    let mut bytes = 0;
    for (at, path) in paths.iter().enumerate() {
        match fetch(&mut connection, &mut reader, host, path) {
            Ok(more) => bytes += more,
            Err(error) => {
                eprintln!("{path}: {error}");
                return (bytes, (paths.len() - at) as u64);
            }
        }
    }
    (bytes, 0)
}

fn fetch(connection: &mut TcpStream, reader: &mut BufReader<TcpStream>, host: &str, path: &str) -> io::Result<u64> {
    write!(connection, "GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\n\r\n")?;
    let (mut length, mut line) = (None, String::new());
    reader.read_line(&mut line)?;
    if !line.starts_with("HTTP/1.1 200 ") {
        return Err(io::Error::other(line));
    }
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse::<u64>().ok();
        }
    }
    let length = length.ok_or_else(|| io::Error::other("an answer without a length"))?;
    let mut left = length;
    while left > 0 {
        let here = reader.fill_buf()?.len();
        if here == 0 {
            return Err(io::Error::other(format!("{left} of {length} bytes did not come")));
        }
        let here = here.min(usize::try_from(left).unwrap_or(usize::MAX));
        reader.consume(here);
        left -= here as u64;
    }
    Ok(length)
}
