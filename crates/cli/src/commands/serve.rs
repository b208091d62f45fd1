//! `ferry serve`.

mod about;
mod folder;
mod images;
mod listen;
mod nodes;
mod reach;
mod readme;
mod stale;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ferry_image::Digest;
use ferry_registry_server::page::{self, About};
use ferry_registry_server::{
    Access, Authority, Backend, Found, Htpasswd, Limits, Registry, Reload, Reloaded, Reread, Server, Settings, Tls,
};
use ferry_rewrite::emit::{Answers, Options};
use tokio::signal::unix::Signal;

pub(crate) use self::listen::Listen;
use self::nodes::{Image, Nodes};
pub(crate) use self::reach::Advertise;
use self::reach::{How, Machine, Reach, Scheme};
use crate::failure::{End, Error};
use crate::{args, environment, print, signals};

pub(crate) async fn run(args: args::Serve) -> Result<(), End> {
    // before anything that takes its time: until then this signal ends the process
    let hangups = signals::hangups()?;
    let access_log = about::access_log(&args.access_log)?;
    let log = access_log.clone();
    let Content { backend, what, new, images, about, no_pushes } = content(&args)?;
    let machine = Machine::look();
    let listen = args.listen.address().await?;
    let tls = tls(&args, listen, &machine)?;
    let read_only = no_pushes.as_ref().map(system_words);
    let settings = Settings { access: access(&args)?, deletes: args.allow_delete, read_only, access_log, about };
    let proxies = args.trusted_proxy.iter().copied().collect();
    let limits = Limits { grace: args.grace, proxies, ..limits() };
    let registry = Registry::new(backend, settings);
    // before anybody can see that it runs: whoever ends it then must be heard
    let mut interruptions = signals::Interruptions::listen()?;
    let server = Server::bind(listen, registry, tls.as_ref(), limits).await?;

    let address = server.local_addr();
    let reach = reach::choose(address, Scheme::of(tls.is_some()), args.advertise.as_ref(), &machine);
    let options = Options {
        plain_http: reach.scheme == Scheme::Http,
        ca: server.authority().filter(|_| reach.scheme == Scheme::Https).map(|authority| authority.pem.clone()),
        answers: if args.store.is_some() { Answers::OriginalOfAny } else { Answers::Original },
    };
    // a name that no image can have, such as one without a dot, may still be good for a browser
    let nodes = match Nodes::new(&reach.host, images, options) {
        Err(end) if args.emit.is_some() || args.advertise.is_some() => return Err(end),
        nodes => nodes.ok().filter(|_| reach.how != How::Nowhere),
    };
    let mut notes = Vec::new();
    // made by a CA that may be the site's own: this server's, or that of a proxy before it
    if nodes.is_some() && reach.scheme == Scheme::Https && server.authority().is_none() {
        notes.push(nodes::foreign_ca(&reach.host));
    }
    if args.htpasswd.is_some() && !args.anonymous_read {
        notes.push(nodes::LOGIN.to_owned());
    }
    // before anything is said to be served: it may fail
    let written = match (&nodes, &args.emit) {
        (Some(nodes), Some(folder)) => Some((nodes.write(folder, &notes)?, folder)),
        _ => None,
    };
    if let Some(new) = &new {
        print::talk(new);
    }
    introduce(&what, address, &reach);
    print::warnings(&warnings(&args, address, no_pushes.as_ref()));
    if let Some(authority) = server.authority() {
        tell_authority(authority, &reach);
    }
    if nodes.is_some() {
        notes.iter().for_each(|note| print::talk(note));
    }
    match (written, &nodes) {
        (Some((written, folder)), _) => Nodes::tell(&written, folder),
        (None, Some(nodes)) => tell_nodes(nodes, &reach),
        (None, None) => {}
    }

    let (grace, under_way) = (args.grace.as_secs(), server.under_way());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let twice = tokio::spawn(async move {
        interruptions.next().await;
        let count = usize::try_from(under_way()).unwrap_or(usize::MAX);
        if count > 0 {
            let transfers = print::count(count, "transfer");
            print::talk(&format!("ending: {transfers} may go on for {grace} s; once more ends them now"));
        }
        let _ = stop.send(());
        interruptions.next().await;
    });
    let reloading = tokio::spawn(reload_at(hangups, server.reload()));
    server.serve(async { drop(stopped.await) }, async { drop(twice.await) }).await;
    reloading.abort();
    // it holds the access log, whose last lines are written when nobody does any more
    let _ = reloading.await;
    if let Some(log) = log {
        log.end();
    }
    print::talk("ended");
    Ok(())
}

/// How long what is read again at SIGHUP is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads again what is in files, at each SIGHUP.
async fn reload_at(mut hangups: Signal, reload: Reload) {
    while hangups.recv().await.is_some() {
        let reload = reload.clone();
        let reloading = tokio::task::spawn_blocking(move || reload.run());
        match tokio::time::timeout(PATIENCE, reloading).await {
            Ok(Ok(reloaded)) => tell_reloaded(reloaded),
            // a panic has told of itself
            Ok(Err(_)) => {}
            Err(_) => print::warnings(&[format!(
                "SIGHUP: what is to be read again could not be for {} s, for a disk does not answer",
                PATIENCE.as_secs()
            )]),
        }
    }
}

fn tell_reloaded(Reloaded { access_log, users, certificate }: Reloaded) {
    let all = [("certificate", certificate), ("users", users), ("access log", access_log)];
    let those = |which: Reread| {
        let names: Vec<&str> = all.iter().filter(|(_, what)| *what == Some(which)).map(|(name, _)| *name).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    let (done, kept) = (those(Reread::Done), those(Reread::Kept));
    if let Some(done) = &done {
        print::talk(&format!("SIGHUP: read again or opened anew: {done}"));
    }
    if let Some(kept) = &kept {
        print::warnings(&[format!("SIGHUP: as before, for it cannot be read: {kept}")]);
    }
    if done.is_none() && kept.is_none() {
        print::talk("SIGHUP: there is no certificate, users or access log in a file to read again");
    }
}

/// What is served.
struct Content {
    backend: Arc<dyn Backend>,
    /// In a few words.
    what: String,
    /// That a store was made, and what that may mean.
    new: Option<String>,
    images: Vec<Image>,
    about: About,
    /// Why a store takes no pushes.
    no_pushes: Option<ferry_content::Error>,
}

fn content(args: &args::Serve) -> Result<Content, End> {
    let Some(folder) = &args.store else {
        let (catalog, images, about) = images::catalog(args)?;
        let what = format!("{} (read-only)", counted(&catalog, &about)?);
        return Ok(Content { backend: Arc::new(catalog), what, new: None, images, about, no_pushes: None });
    };
    let (store, new) = folder::open(folder)?;
    // an image may be pushed for some of its platforms under the index that its digest names
    let store = store.with_sparse_indexes(true);
    // to no other end: a store may have very many
    let images = if args.emit.is_some() { nodes::of_store(&store)? } else { Vec::new() };
    let about = About::default();
    let what = format!("the store {}: {}", folder.display(), counted(&store, &about)?);
    let no_pushes = store.check_writable().err();
    let what = if no_pushes.is_some() { format!("{what} (read-only)") } else { what };
    Ok(Content { backend: Arc::new(store), what, new, images, about, no_pushes })
}

/// As many as the page lists.
fn counted(backend: &dyn Backend, about: &About) -> Result<String, End> {
    Ok(print::count(page::count(backend, about)?, "image"))
}

/// Without the path, which is nobody's business who is not at this machine.
fn system_words(error: &ferry_content::Error) -> String {
    match error {
        ferry_content::Error::Io { source, .. } => source.to_string(),
        other => other.to_string(),
    }
}

fn tls(args: &args::Serve, listen: SocketAddr, machine: &Machine) -> Result<Option<Tls>, End> {
    if let (Some(certificate), Some(key)) = (&args.tls_cert, &args.tls_key) {
        return Ok(Some(Tls::Files { certificate: certificate.clone(), key: key.clone() }));
    }
    let Some(args::Certificate::Auto) = args.tls else { return Ok(None) };
    let folder = args.tls_dir.clone().or_else(|| Some(environment::state_folder()?.join("tls")));
    let folder =
        folder.ok_or_else(|| Error::usage("there is no home to keep the CA in", "name a folder with `--tls-dir`"))?;
    let mut names = machine.names();
    names.extend(args.advertise.as_ref().map(|advertise| advertise.name().to_owned()));
    names.extend(args.tls_name.iter().cloned());
    names.extend(args.listen.name().map(str::to_owned));
    if !listen.ip().is_unspecified() {
        names.push(listen.ip().to_string());
    }
    for name in &mut names {
        *name = name.trim_matches(['[', ']']).to_ascii_lowercase();
    }
    names.sort();
    names.dedup();
    Ok(Some(Tls::Kept { folder, names }))
}

fn access(args: &args::Serve) -> Result<Access, End> {
    let Some(file) = &args.htpasswd else { return Ok(Access::Open) };
    let users = Arc::new(Htpasswd::open(file)?);
    Ok(if args.anonymous_read { Access::UsersToPush(users) } else { Access::Users(users) })
}

/// As many connections as this process may have files open, with room for those.
fn limits() -> Limits {
    let open = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let open = open.and_then(|open| usize::try_from(open).ok()).unwrap_or(65_536);
    let connections = (open - open / 4).clamp(64, 49_152);
    let usual = Limits::default();
    Limits { per_client: usual.per_client.min(connections - connections / 4), connections, ..usual }
}

fn introduce(what: &str, address: SocketAddr, reach: &Reach) {
    let scheme = reach.scheme.name();
    let listens = if reach.host == address.to_string() { String::new() } else { format!(" (listening on {address})") };
    print::talk(&format!("serving {what} at {scheme}://{}{listens}", reach.host));
    match &reach.how {
        How::Known => {}
        How::Here { network } => {
            let there = network.map(|at| format!(", where this machine is {at}")).unwrap_or_default();
            print::talk(&format!(
                "only this machine reaches it; for nodes: `--listen 0.0.0.0:{}`, on the whole network{there}",
                address.port()
            ));
        }
        How::Guessed { interface, others } => {
            let others: Vec<String> = others.iter().map(ToString::to_string).collect();
            let more = if others.is_empty() { String::new() } else { format!("; others are {}", others.join(", ")) };
            print::talk(&format!(
                "the address is that of {interface}{more}; `--advertise HOST` names the one for nodes"
            ));
        }
        How::Nowhere => {
            print::talk("no interface leads anywhere: `--advertise HOST` names the address that nodes will use");
        }
    }
}

fn warnings(args: &args::Serve, address: SocketAddr, no_pushes: Option<&ferry_content::Error>) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(why) = no_pushes {
        let deletes =
            if args.allow_delete { ", and nothing is deleted: `--allow-delete` does nothing here" } else { "" };
        warnings.push(format!("no pushes are taken{deletes}: {why}"));
    }
    if address.ip().is_loopback() {
        return warnings;
    }
    let is_plain = args.tls.is_none() && args.tls_cert.is_none();
    if is_plain && args.htpasswd.is_some() {
        warnings.push("passwords cross the network readable by anybody on it; `--tls auto` hides them".to_owned());
    } else if is_plain {
        warnings.push(
            "the network is served without TLS; with `--tls auto` nobody on it can change what nodes get".to_owned(),
        );
    }
    if args.store.is_some() && no_pushes.is_none() && args.htpasswd.is_none() {
        warnings.push(
            "whoever reaches this address can push into the store; `--htpasswd FILE` asks for a password".to_owned(),
        );
    }
    warnings
}

fn tell_authority(authority: &Authority, reach: &Reach) {
    let folder = authority.path.parent().unwrap_or(&authority.path).display();
    print::talk(&match authority.found {
        Found::New => format!("a new CA was made in {folder}: no node knows it yet"),
        Found::MadeAnew => format!(
            "`ca.crt` was missing in {folder}, and was made anew from `ca.key`: its sum is another one; nodes that have the old one trust \
             this server as before"
        ),
        Found::There { since: Some(since) } => format!("the CA is that in {folder}, of {}", day(since)),
        Found::There { since: None } => format!("the CA is that in {folder}"),
    });
    let sha256 = Digest::of(authority.pem.as_bytes()).to_string();
    print::talk(&format!(
        "nodes must trust its CA: {}, or https://{}/ca.crt (`curl -k`)\n  sha256 of that file: {}",
        authority.path.display(),
        reach.host,
        sha256.trim_start_matches("sha256:")
    ));
}

fn day(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| "no date".to_owned(), |time| time.strftime("%Y-%m-%d").to_string())
}

fn tell_nodes(nodes: &Nodes, reach: &Reach) {
    let node = if matches!(reach.how, How::Here { .. }) { "this machine, as root," } else { "a node, as root," };
    print::talk(&format!(
        "paste this on {node} and containerd (with `config_path = \"/etc/containerd/certs.d\"` in its config.toml) pulls from here under \
         the original names:\n\n{}\n\n\
         for k3s, RKE2, docker, podman and CRI-O, and to have these lines in a file: `ferry serve … --emit DIR` (more in `ferry serve --help` \
         and docs/serve.md)",
        nodes.lines()
    ));
}
