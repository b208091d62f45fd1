//! Serves a store on loopback until killed: `cargo run --example serve_store -- DIR [PORT]`.

use std::sync::Arc;

use ferry_content::store::Store;
use ferry_registry_server::{Limits, Registry, Server, Settings};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let store = Store::open(args.next().ok_or("which folder?")?)?;
    let port: u16 = args.next().map_or(Ok(0), |port| port.parse())?;
    let registry = Registry::new(Arc::new(store), Settings { deletes: true, ..Settings::default() });
    let server = Server::bind(([127, 0, 0, 1], port).into(), registry, None, Limits::default()).await?;
    std::fs::write("/dev/stdout", format!("{}\n", server.local_addr()))?;
    server.serve(std::future::pending()).await;
    Ok(())
}
