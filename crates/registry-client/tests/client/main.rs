//! The client against a small server that misbehaves as each test tells it to.

#![allow(clippy::unwrap_used, clippy::single_range_in_vec_init, reason = "a test that cannot go on must say where")]

mod auth;
mod catalog;
mod drip;
mod limits;
mod names;
mod proxies;
mod proxy;
mod pull;
mod push;
mod referrers;
mod resume;
mod server;
mod tls;
mod trial;

use std::time::Duration;

use ferry_content::Failure;
use ferry_image::{Descriptor, media_type};
use ferry_registry_client::{Client, Config, Error, Repository, Retry};

/// Settings that do not make a test wait.
fn config() -> Config {
    Config {
        retry: Retry { base: Duration::from_millis(1), cap: Duration::from_millis(5), ..Retry::default() },
        stall_timeout: Duration::from_millis(400),
        tls: ferry_registry_client::Tls { system_roots: false, ..Default::default() },
        ..Config::default()
    }
}

fn repository(server: &server::Server) -> Repository {
    Client::new(config()).unwrap().repository(&server.host, "team/app").unwrap()
}

fn blob(bytes: &[u8]) -> Descriptor {
    Descriptor::of(media_type::OCI_LAYER_GZIP, bytes)
}

/// The crate's own error inside one of the copy loop's.
fn shown(error: &(impl Failure + ?Sized)) -> String {
    format!("{error} | {}", error.hint().unwrap_or_default())
}

fn status(error: &Error) -> Option<u16> {
    error.status()
}
