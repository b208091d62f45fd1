//! A proxy that speaks CONNECT and SOCKS5, leads wherever a test says, and remembers what it was asked.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// What it does with a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rule {
    /// Leads to this server, whatever is asked for.
    To(SocketAddr),
    /// CONNECT is answered with this status line, SOCKS with this reply code.
    Refuse(&'static str, u8),
}

/// A proxy on a free port of this machine; ends when dropped.
pub(crate) struct Proxy {
    pub(crate) host: String,
    asked: Arc<Mutex<Vec<String>>>,
    task: AbortHandle,
}

impl Proxy {
    /// `login` (`user:password`) is asked for where there is one.
    pub(crate) async fn start(rule: Rule, login: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, rule, login, Arc::clone(&log)));
            }
        });
        Self { host, asked, task: task.abort_handle() }
    }

    /// `HOST:PORT` of every request, with `!` for those that showed a wrong login or none.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, rule: Rule, login: Option<&str>, log: Arc<Mutex<Vec<String>>>) -> Option<()> {
    let mut first = [0];
    stream.peek(&mut first).await.ok()?;
    let to = if first[0] == 5 {
        socks(&mut stream, rule, login, &log).await?
    } else {
        connect(&mut stream, rule, login, &log).await?
    };
    let mut server = TcpStream::connect(to).await.ok()?;
    copy_bidirectional(&mut stream, &mut server).await.ok()?;
    Some(())
}

async fn connect(
    stream: &mut TcpStream,
    rule: Rule,
    login: Option<&str>,
    log: &Mutex<Vec<String>>,
) -> Option<SocketAddr> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.strip_prefix("CONNECT ")?.split(' ').next()?.to_owned();
    let shown =
        head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("proxy-authorization: basic ").map(|_| &l[27..]));
    let good = login.is_none_or(|login| shown == Some(base64(login).as_str()));
    log.lock().unwrap().push(if good { target } else { format!("!{target}") });
    let (line, to) = match rule {
        _ if !good => ("407 Proxy Authentication Required", None),
        Rule::To(to) => ("200 OK", Some(to)),
        Rule::Refuse(line, _) => (line, None),
    };
    stream.write_all(format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await.ok()?;
    to
}

/// RFC 1928 and 1929.
async fn socks(
    stream: &mut TcpStream,
    rule: Rule,
    login: Option<&str>,
    log: &Mutex<Vec<String>>,
) -> Option<SocketAddr> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await.ok()?;
    let mut methods = vec![0; usize::from(head[1])];
    stream.read_exact(&mut methods).await.ok()?;
    let mut good = true;
    if login.is_some() || !methods.contains(&0) {
        if !methods.contains(&2) {
            log.lock().unwrap().push("!".to_owned());
            stream.write_all(&[5, 0xff]).await.ok()?;
            return None;
        }
        stream.write_all(&[5, 2]).await.ok()?;
        stream.read_u8().await.ok()?;
        let user = text(stream).await?;
        let password = text(stream).await?;
        good = login.is_none_or(|login| format!("{user}:{password}") == login);
        stream.write_all(&[1, u8::from(!good)]).await.ok()?;
    } else {
        stream.write_all(&[5, 0]).await.ok()?;
    }
    if !good {
        log.lock().unwrap().push("!".to_owned());
        return None;
    }
    let mut request = [0; 4];
    stream.read_exact(&mut request).await.ok()?;
    let name = match request[3] {
        1 => std::net::Ipv4Addr::from(stream.read_u32().await.ok()?).to_string(),
        3 => text(stream).await?,
        _ => format!("[{}]", Ipv6Addr::from(stream.read_u128().await.ok()?)),
    };
    let port = stream.read_u16().await.ok()?;
    log.lock().unwrap().push(format!("{name}:{port}"));
    let (code, to) = match rule {
        Rule::To(to) => (0, Some(to)),
        Rule::Refuse(_, code) => (code, None),
    };
    stream.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await.ok()?;
    to
}

async fn text(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = vec![0; usize::from(stream.read_u8().await.ok()?)];
    stream.read_exact(&mut bytes).await.ok()?;
    String::from_utf8(bytes).ok()
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}
