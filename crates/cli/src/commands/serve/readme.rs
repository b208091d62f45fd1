//! The `README` beside what `--emit` writes: what goes where on a node, and what to do then. It is carried to the nodes with the files, where
//! ferry's documents are not.

use std::fmt::Write as _;

use ferry_rewrite::emit::{Emitted, Form};

/// Its name.
pub(super) const NAME: &str = "README";
/// The CA's certificate beside it, for programs that take it by an option.
pub(super) const CA: &str = "ferry-ca.crt";

/// What is said of a server.
pub(super) struct Server<'a> {
    /// `SCHEME://HOST:PORT`.
    pub(super) address: &'a str,
    /// `HOST:PORT`.
    pub(super) host: &'a str,
    /// The SHA-256 of the CA's certificate that is among the files.
    pub(super) ca: Option<&'a str>,
    /// What a shell on a node with containerd is given instead of files.
    pub(super) lines: &'a str,
    /// More to know, a paragraph each.
    pub(super) notes: &'a [String],
}

/// The text.
pub(super) fn text(all: &[Emitted], server: &Server<'_>) -> String {
    let mut text = format!(
        "What nodes need to pull from {} under the original names, by `ferry serve --emit`.\nEverything is done as root, on each node.\n",
        server.address
    );
    for emitted in all.iter().filter(|emitted| !emitted.files.is_empty()) {
        section(&mut text, emitted.form, server);
    }
    if let Some(sum) = server.ca {
        let _ = write!(
            text,
            "\nOther programs\n  {CA} is the CA's certificate: `curl --cacert`, `helm --ca-file`, `ferry --ca-file`, `ctr --tlscacert`\n  \
             its sha256: {sum}\n"
        );
    }
    for note in server.notes {
        let _ = write!(text, "\n{note}\n");
    }
    text
}

fn section(text: &mut String, form: Form, server: &Server<'_>) {
    let (engines, files, ca, then) = match form {
        Form::HostsToml => (
            "containerd",
            "each folder in hosts-toml/, with all in it  ->  /etc/containerd/certs.d/".to_owned(),
            None,
            "nothing: it is read at each pull. Once, if it is not there yet, in /etc/containerd/config.toml:\n    \
             [plugins.\"io.containerd.grpc.v1.cri\".registry]\n      config_path = \"/etc/containerd/certs.d\"\n  \
             (containerd 2: [plugins.\"io.containerd.cri.v1.images\".registry]), and systemctl restart containerd",
        ),
        Form::RegistriesYaml => (
            "k3s, RKE2",
            "registries-yaml/registries.yaml  ->  /etc/rancher/k3s/ or /etc/rancher/rke2/".to_owned(),
            Some("registries-yaml/ferry-ca.crt  ->  /etc/rancher/ferry-ca.crt".to_owned()),
            "restart it: systemctl restart k3s, k3s-agent, rke2-server or rke2-agent",
        ),
        Form::RegistriesConf => (
            "CRI-O, podman, skopeo",
            "registries-conf/registries.conf  ->  /etc/containers/registries.conf.d/ferry.conf".to_owned(),
            Some(format!("registries-conf/certs.d/{0}/  ->  /etc/containers/certs.d/{0}/", server.host)),
            "systemctl restart crio; podman and skopeo need nothing",
        ),
        Form::DaemonJson => (
            "docker",
            "daemon-json/daemon.json  ->  /etc/docker/daemon.json (joined with one that is there)".to_owned(),
            Some(format!("daemon-json/certs.d/{0}/  ->  /etc/docker/certs.d/{0}/", server.host)),
            "systemctl reload docker",
        ),
        _ => return,
    };
    let _ = write!(text, "\n{engines}\n  {files}\n");
    if let Some(ca) = ca.filter(|_| server.ca.is_some()) {
        let _ = writeln!(text, "  {ca}");
    }
    let _ = writeln!(text, "  then: {then}");
    if form == Form::HostsToml {
        let _ = write!(text, "  or, instead of copying, paste this:\n\n{}\n", server.lines);
    }
}
