//! A proxy as companies have them: CONNECT and plain forwarding for HTTP, and SOCKS5, with a login if asked. It knows no names but
//! leads every connection to this machine.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::http::base64;

/// What it does.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    /// The login that it asks for, `user:password`.
    pub login: Option<&'static str>,
    /// Nobody is let through: the status line for HTTP, the reply code for SOCKS.
    pub refuse: Option<(&'static str, u8)>,
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Starts one on a free port; it lives as long as the test's process.
    #[must_use]
    pub fn start(rules: Rules) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let log = Arc::clone(&log);
                std::thread::spawn(move || serve(stream, rules, &log));
            }
        });
        Self { address, asked }
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Each request so far: `CONNECT HOST:PORT`, `GET http://…`, `SOCKS HOST:PORT`.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, rules: Rules, log: &Mutex<Vec<String>>) -> Option<()> {
    let mut first = [0];
    stream.peek(&mut first).ok()?;
    if first[0] == 5 { socks(stream, rules, log) } else { http(stream, rules, log) }
}

fn http(mut client: TcpStream, rules: Rules, log: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim_end().is_empty() {
            break;
        }
        head.push(line.trim_end().to_owned());
    }
    let words: Vec<&str> = head.first()?.split(' ').collect();
    let (method, target) = (*words.first()?, *words.get(1)?);
    log.lock().unwrap().push(format!("{method} {target}"));
    let expected = rules.login.map(|login| format!("basic {}", base64(login)));
    let shown = head.iter().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        let value = value.strip_prefix("Basic ").map(|rest| format!("basic {rest}"))?;
        name.eq_ignore_ascii_case("proxy-authorization").then_some(value)
    });
    if expected.is_some() && shown != expected {
        let challenge = "Proxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        return client.write_all(format!("HTTP/1.1 407 Proxy Authentication Required\r\n{challenge}").as_bytes()).ok();
    }
    if let Some((line, _)) = rules.refuse {
        return client
            .write_all(format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").as_bytes())
            .ok();
    }
    if method == "CONNECT" {
        let server = TcpStream::connect(("127.0.0.1", port(target)?)).ok()?;
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
        return splice(client, server);
    }
    // one request a connection: enough for plain HTTP
    let (authority, path) = target.strip_prefix("http://")?.split_once('/')?;
    let mut server = TcpStream::connect(("127.0.0.1", port(authority).unwrap_or(80))).ok()?;
    let mut request = format!("{method} /{path} HTTP/1.1\r\nConnection: close\r\n");
    for line in head.iter().skip(1).filter(|line| !line.to_ascii_lowercase().starts_with("proxy-")) {
        request += &format!("{line}\r\n");
    }
    server.write_all(format!("{request}\r\n").as_bytes()).ok()?;
    server.write_all(reader.buffer()).ok()?;
    splice(client, server)
}

/// RFC 1928, and RFC 1929 for the login.
fn socks(mut client: TcpStream, rules: Rules, log: &Mutex<Vec<String>>) -> Option<()> {
    let [_, count] = bytes::<2>(&mut client)?;
    let mut methods = vec![0; usize::from(count)];
    client.read_exact(&mut methods).ok()?;
    match rules.login {
        Some(_) if !methods.contains(&2) => return client.write_all(&[5, 0xff]).ok(),
        Some(login) => {
            client.write_all(&[5, 2]).ok()?;
            let [_] = bytes::<1>(&mut client)?;
            let shown = format!("{}:{}", text(&mut client)?, text(&mut client)?);
            client.write_all(&[1, u8::from(shown != login)]).ok()?;
            if shown != login {
                return None;
            }
        }
        None => client.write_all(&[5, 0]).ok()?,
    }
    let [_, _, _, kind] = bytes::<4>(&mut client)?;
    let host = match kind {
        1 => Ipv4Addr::from(bytes::<4>(&mut client)?).to_string(),
        3 => text(&mut client)?,
        _ => format!("[{}]", Ipv6Addr::from(bytes::<16>(&mut client)?)),
    };
    let port = u16::from_be_bytes(bytes::<2>(&mut client)?);
    log.lock().unwrap().push(format!("SOCKS {host}:{port}"));
    let code = rules.refuse.map_or(0, |(_, code)| code);
    client.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).ok()?;
    if code != 0 {
        return None;
    }
    splice(client, TcpStream::connect(("127.0.0.1", port)).ok()?)
}

fn bytes<const N: usize>(from: &mut TcpStream) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

fn text(from: &mut TcpStream) -> Option<String> {
    let [len] = bytes::<1>(from)?;
    let mut bytes = vec![0; usize::from(len)];
    from.read_exact(&mut bytes).ok()?;
    String::from_utf8(bytes).ok()
}

fn port(authority: &str) -> Option<u16> {
    authority.rsplit_once(':')?.1.parse().ok()
}

/// Moves bytes both ways until both ends are done.
fn splice(client: TcpStream, server: TcpStream) -> Option<()> {
    let (mut from_client, mut to_server) = (client.try_clone().ok()?, server.try_clone().ok()?);
    let up = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let (mut from_server, mut to_client) = (server, client);
    let _ = std::io::copy(&mut from_server, &mut to_client);
    let _ = to_client.shutdown(Shutdown::Both);
    up.join().ok()
}
