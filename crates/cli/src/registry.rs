//! The registry client, from arguments and environment.

use std::path::Path;
use std::time::Duration;

use ferry_registry_client::{Client, Commands, Config, Credentials, Login, PlainHttp, Proxies, Secret, Source, Tls};

use crate::args::Registry;
use crate::environment;
use crate::failure::{End, Error};

/// The client that `args` ask for.
pub(crate) fn client(args: &Registry, login: Option<Login>) -> Result<Client, End> {
    let mut sources = Vec::new();
    if let Some(login) = login {
        sources.push(Source::Logins { origin: "the command line".to_owned(), logins: vec![login] });
    }
    match &args.auth_file {
        Some(path) => sources.push(read(path)?),
        None => {
            for path in environment::credential_files() {
                if path.is_file() {
                    sources.push(read(&path)?);
                }
            }
        }
    }
    let commands = Commands { path: environment::path(), timeout: Duration::from_secs(60) };
    let config = Config {
        tls: Tls { ca_files: args.ca_file.clone(), certs_dirs: environment::certificate_folders(), ..Tls::default() },
        plain_http: plain_http(&args.plain_http),
        credentials: Credentials::from_sources(sources, commands)?,
        proxy: Proxies {
            // upper case HTTP_PROXY may come from a request header in CGI programs; ferry is none
            http: environment::proxy("http_proxy").map(Secret::new),
            https: environment::proxy("https_proxy").map(Secret::new),
            all: environment::proxy("all_proxy").map(Secret::new),
            no_proxy: environment::proxy("no_proxy"),
        },
        stall_timeout: Duration::from_secs(args.stall_timeout),
        ..Config::default()
    };
    Ok(Client::new(config)?)
}

fn read(path: &Path) -> Result<Source, Error> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io { action: "read", path: path.to_owned(), source })?;
    Ok(Source::File { path: path.to_owned(), bytes })
}

fn plain_http(hosts: &[String]) -> PlainHttp {
    if hosts.is_empty() {
        PlainHttp::Never
    } else if hosts.iter().any(|h| h == "*") {
        PlainHttp::All
    } else {
        PlainHttp::Hosts(hosts.to_vec())
    }
}
