//! The registry client, from arguments, environment and config file, in this order of importance.

use std::path::Path;
use std::time::Duration;

use ferry_registry_client::{
    Client, Commands, Config, Credentials, Hosts, Login, PlainHttp, Proxies, Secret, Source, Tls,
};

use crate::args::Registry;
use crate::config::Settings;
use crate::environment;
use crate::failure::{End, Error};

/// The client that `args` ask for, with `logins` of the command line.
pub(crate) fn client(args: &Registry, settings: &Settings, logins: Vec<Login>) -> Result<Client, End> {
    let commands = Commands { path: environment::path(), timeout: Duration::from_secs(60) };
    let proxy = |name: &str| environment::proxy(name).map(Secret::new);
    let config = Config {
        tls: Tls { ca_files: args.ca_file.clone(), certs_dirs: environment::certificate_folders(), ..Tls::default() },
        plain_http: plain_http(&args.plain_http),
        credentials: Credentials::from_sources(credentials(args, settings, logins)?, commands)?,
        proxy: Proxies {
            // upper case HTTP_PROXY may come from a request header in CGI programs; ferry is none
            http: proxy("http_proxy"),
            https: proxy("https_proxy"),
            all: proxy("all_proxy"),
            no_proxy: environment::proxy("no_proxy"),
        },
        resolve: args.resolve.clone(),
        hosts: hosts(args, settings)?,
        ..Config::default()
    };
    let stall_timeout = args.stall_timeout.map_or(config.stall_timeout, Duration::from_secs);
    Ok(Client::new(Config { stall_timeout, ..config })?)
}

/// All sources of credentials, the most important first: the command line, files that the environment names, the config file,
/// and where docker and podman keep them.
fn credentials(args: &Registry, settings: &Settings, logins: Vec<Login>) -> Result<Vec<Source>, End> {
    let mut sources = vec![Source::Logins { origin: "the command line".to_owned(), logins }];
    let (named, usual) = match &args.auth_file {
        Some(path) => {
            sources.push(read(path)?);
            (Vec::new(), Vec::new())
        }
        None => (environment::named_credential_files(), environment::usual_credential_files()),
    };
    for path in named.iter().filter(|path| path.is_file()) {
        sources.push(read(path)?);
    }
    let origin = format!("`{}`", settings.path.display());
    sources.push(Source::Logins { origin, logins: settings.logins.clone() });
    for path in usual.iter().filter(|path| path.is_file()) {
        sources.push(read(path)?);
    }
    Ok(sources)
}

fn hosts(args: &Registry, settings: &Settings) -> Result<Hosts, End> {
    let mut hosts = Hosts::default();
    for (name, config) in &settings.hosts {
        let mut config = config.clone();
        if args.stall_timeout.is_some() {
            config.stall_timeout = None;
        }
        hosts.insert(name, config)?;
    }
    Ok(hosts)
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
