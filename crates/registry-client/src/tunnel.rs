//! Asking a proxy once more, by hand, why it does not let a connection through: the HTTP library keeps its answer to itself.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use url::Url;

use crate::Cause;
use crate::dns::Names;
use crate::proxy::{Proxy, ProxyFault};

/// No status line is longer.
const MAX_LINE: usize = 4096;
/// A proxy that refuses does so at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the proxy does not connect to `url`. One that does so this time, or gives no reason, has failed the time before.
pub(crate) async fn why(proxy: &Proxy, names: &Names, url: &Url) -> ProxyFault {
    let asking = async {
        let stream = match connect(proxy.url(), names).await {
            Ok(stream) => stream,
            Err(cause) => return Some(ProxyFault::Unreachable(Box::new(cause))),
        };
        // SOCKS, and a proxy that is spoken to in TLS, are not asked
        let line = if proxy.url().scheme() == "http" { status_line(proxy, stream, url).await? } else { return None };
        let mut words = line.splitn(3, ' ').skip(1);
        let status = words.next()?.parse().ok()?;
        ProxyFault::of_status(status, words.next().unwrap_or_default().trim())
    };
    let answer = tokio::time::timeout(PATIENCE, asking).await.unwrap_or(Some(ProxyFault::TimedOut));
    answer.unwrap_or_else(|| ProxyFault::Fails("it does not say why".to_owned()))
}

async fn connect(proxy: &Url, names: &Names) -> Result<TcpStream, Cause> {
    let host = proxy.host_str().unwrap_or_default();
    // the port that the HTTP library takes for SOCKS, too
    let port = proxy.port_or_known_default().unwrap_or(1080);
    let unresolved = |e: crate::dns::Unresolved| Cause::Name { why: e.why, passes: e.passes };
    let addresses = names.lookup(host).await.map_err(unresolved)?;
    let mut cause = Cause::Name { why: "it has no address".to_owned(), passes: false };
    for address in addresses {
        match TcpStream::connect((address, port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => cause = Cause::Refused,
            Err(error) => cause = Cause::Other(error.to_string()),
        }
    }
    Err(cause)
}

/// `HTTP/1.1 403 Forbidden`, as printable text.
async fn status_line(proxy: &Proxy, mut stream: TcpStream, url: &Url) -> Option<String> {
    let target = format!("{}:{}", url.host_str()?, url.port_or_known_default()?);
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
    if let Some(login) = proxy.login() {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(login.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await.ok()?;
    let mut answer = Vec::new();
    while answer.len() < MAX_LINE && !answer.contains(&b'\n') {
        if stream.read_buf(&mut answer).await.ok()? == 0 {
            break;
        }
    }
    let line = answer.split(|b| *b == b'\n').next()?;
    Some(line.iter().filter(|b| (0x20..0x7f).contains(*b)).take(200).map(|b| char::from(*b)).collect())
}
