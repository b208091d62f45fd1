//! What can be typed after `ferry serve`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, ValueEnum};
use ferry_image::reference::is_host;
use ferry_registry_server::Network;

use super::{Layout, Trust};
use crate::commands::serve::{Advertise, Listen};

/// Be a registry: straight from bundles (read-only), or over a writable store
///
/// Once it listens, it prints what to paste on a node so that it pulls from here under the original names, with no YAML changed. It ends with
/// Ctrl-C, and lets transfers end for a while before; a second Ctrl-C ends it at once. SIGHUP makes it read certificates and users again,
/// and open the access log anew.
#[derive(Debug, clap::Args)]
#[command(
    group = ArgGroup::new("content").required(true).args(["bundles", "store"]),
    after_help = "\
Examples:
  ferry serve shop.tar --key ferry.pub --listen 0.0.0.0:5000
  ferry serve shop.tar more.tar --key ferry.pub --listen 0.0.0.0:443 --tls auto
  ferry serve --store /srv/images --listen 0.0.0.0:5000 --tls auto \\
      --htpasswd users --anonymous-read

What nodes need (`--emit DIR` writes it, with a README that says all this):
  containerd   DIR/hosts-toml/HOST/ goes to /etc/containerd/certs.d/HOST/; config.toml must have
               `config_path = \"/etc/containerd/certs.d\"`
  k3s, RKE2    DIR/registries-yaml/registries.yaml goes to /etc/rancher/k3s/ or
               /etc/rancher/rke2/, and ferry-ca.crt to /etc/rancher/; then restart it
  CRI-O, podman, skopeo
               DIR/registries-conf/registries.conf goes to
               /etc/containers/registries.conf.d/ferry.conf, and certs.d/ into
               /etc/containers/; then restart CRI-O
  docker       DIR/daemon-json/daemon.json is joined with /etc/docker/daemon.json, and certs.d/
               goes into /etc/docker/; then `systemctl reload docker`
ferry-ca.crt and certs.d/ are there with `--tls auto` only"
)]
pub(crate) struct Serve {
    /// Bundles to serve without unpacking: files, or volumes (any of them, or their common name; those in other folders too)
    #[arg(value_name = "BUNDLE")]
    pub(crate) bundles: Vec<PathBuf>,
    /// A store's folder; it is made when it is not there, which is said. One that can only be read is served without pushes
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// Let clients delete tags, manifests and blobs; the bytes go with the next `ferry gc`
    #[arg(long, requires = "store", conflicts_with = "bundles")]
    pub(crate) allow_delete: bool,
    /// Where to listen: 0.0.0.0:5000 or :5000 for the whole network, 5000 for this machine only; a name of this machine does too
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000")]
    pub(crate) listen: Listen,
    /// How names are made, for bundles [default: the bundle's choice, usually path]; a store has the names that were pushed
    #[arg(long, value_enum, conflicts_with = "store")]
    pub(crate) layout: Option<Layout>,
    /// How nodes reach this server, in what is printed for them [default: a guess from --listen and this machine's interfaces]; with
    /// `https://` before it where a proxy does TLS
    #[arg(long, value_name = "[https://]HOST[:PORT]", help_heading = "Nodes")]
    pub(crate) advertise: Option<Advertise>,
    /// Write what nodes need below DIR: for containerd, k3s and RKE2, CRI-O and podman, docker
    #[arg(long, value_name = "DIR", help_heading = "Nodes")]
    pub(crate) emit: Option<PathBuf>,
    /// Serve HTTPS with a certificate made here, by a small CA that is kept and that nodes must be given
    #[arg(long, value_enum, value_name = "auto", hide_possible_values = true, help_heading = "TLS", conflicts_with_all = ["tls_cert", "tls_key"])]
    pub(crate) tls: Option<Certificate>,
    /// The folder of that CA [default: ferry/tls in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "DIR", help_heading = "TLS", requires = "tls")]
    pub(crate) tls_dir: Option<PathBuf>,
    /// A name or address that the certificate shall be good for, beside those of this machine; repeatable
    #[arg(long, value_name = "NAME", help_heading = "TLS", requires = "tls", value_parser = certificate_name)]
    pub(crate) tls_name: Vec<String>,
    /// The server's certificate chain (PEM), read again when it changes
    #[arg(long, value_name = "FILE", help_heading = "TLS", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's key (PEM)
    #[arg(long, value_name = "FILE", help_heading = "TLS", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Let in only users of this file, made with `htpasswd -B`; read again when it changes
    #[arg(long, value_name = "FILE", help_heading = "Users")]
    pub(crate) htpasswd: Option<PathBuf>,
    /// Let everybody read; users are for pushes
    #[arg(long, help_heading = "Users", requires = "htpasswd")]
    pub(crate) anonymous_read: bool,
    /// A reverse proxy before this server (an address, or a network): the clients that it names in X-Forwarded-For are whom limits and the
    /// access log are about; repeatable
    #[arg(long, value_name = "ADDRESS[/BITS]")]
    pub(crate) trusted_proxy: Vec<Network>,
    /// Where each request is logged, in the combined form of Apache and nginx: a file, `-` for standard error, or `off`
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub(crate) access_log: LogTo,
    /// How long transfers may go on after the first signal to end: 10s, 2m, or seconds alone
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = crate::span::parse)]
    pub(crate) grace: Duration,
    #[command(flatten)]
    pub(crate) trust: Trust,
}

/// Where requests are logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogTo {
    /// Nowhere.
    Off,
    /// Among the other talk.
    Stderr,
    /// At the end of a file.
    File(PathBuf),
}

impl std::str::FromStr for LogTo {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "off" => Self::Off,
            "-" => Self::Stderr,
            path => Self::File(PathBuf::from(path)),
        })
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Certificate {
    /// One made here
    Auto,
}

/// A host name, an IP address, or `*.` before a name of two labels and more, as clients take it.
fn certificate_name(text: &str) -> Result<String, String> {
    let is_name = match text.strip_prefix("*.") {
        Some(rest) => rest.contains('.') && is_host(rest),
        None => is_host(text),
    };
    let is_good = text.parse::<IpAddr>().is_ok() || (is_name && !text.contains([':', '[']));
    if is_good { Ok(text.to_owned()) } else { Err("not a host name or an IP address, without a port".to_owned()) }
}
