//! Serves a store on loopback until killed: `cargo run --example serve_store -- DIR [PORT [TLS-DIR]]`. With a third argument it speaks TLS
//! and keeps its authority there.

use std::io::Write as _;
use std::sync::Arc;

use ferry_content::store::Store;
use ferry_registry_server::{Limits, Registry, Server, Settings, Tls};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let store = Store::open(args.next().ok_or("which folder?")?)?;
    let port: u16 = args.next().map_or(Ok(0), |port| port.parse())?;
    let names = vec!["localhost".into(), "127.0.0.1".into()];
    let tls = args.next().map(|folder| Tls::Kept { folder: folder.into(), names });

    let registry = Registry::new(Arc::new(store), Settings { deletes: true, ..Settings::default() });
    let server = Server::bind(([127, 0, 0, 1], port).into(), registry, tls.as_ref(), Limits::default()).await?;
    writeln!(std::io::stdout(), "{}", server.local_addr())?;
    server.serve(std::future::pending(), std::future::pending()).await;
    Ok(())
}
