//! `registries.yaml` of k3s and RKE2: an endpoint for each source host, and a rewriting of each repository's path there.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ferry_image::Relocation;

use super::mirror::{Mirror, mirrors, unserved};
use super::{Emitted, Form, Options, address, head, host};

/// Where both distributions find it; a relative path would be one of the server's working folder.
const CA: &str = "/etc/rancher/ferry-ca.crt";

pub(super) fn emit(relocation: &Relocation, options: &Options) -> Emitted {
    let mut out = Emitted::new(Form::RegistriesYaml);
    let mirrors = mirrors(relocation, |image| unserved(relocation, image), &mut out);
    let mut hosts: BTreeMap<&str, Vec<&Mirror<'_>>> = BTreeMap::new();
    for mirror in &mirrors {
        hosts.entry(mirror.host).or_default().push(mirror);
    }
    if hosts.is_empty() {
        return out;
    }
    let mut text = head(relocation, "For /etc/rancher/k3s/registries.yaml or /etc/rancher/rke2/registries.yaml.");
    text += &out.missing();
    text += "mirrors:\n";
    for (source, mirrors) in hosts {
        let _ = writeln!(text, "  \"{source}\":\n    endpoint:\n      - \"{}\"", address(relocation, options));
        text += "    rewrite:\n";
        for mirror in mirrors {
            let path = mirror.target.split_once('/').map_or("", |(_, path)| path);
            // of several expressions that fit, any may be taken: so each fits one repository only
            let _ = writeln!(text, "      '^{}$': \"{path}\"", mirror.path.replace('.', "\\."));
        }
    }
    if let Some(ca) = &options.ca {
        let _ = writeln!(text, "configs:\n  \"{}\":\n    tls:\n      ca_file: {CA}", host(relocation));
        out.file("ferry-ca.crt", ca.clone());
    }
    out.file("registries.yaml", text);
    out
}
