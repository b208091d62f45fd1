//! `registries.yaml` of k3s and RKE2: an endpoint for each source host, and a rewriting of each repository's path there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use ferry_image::{Relocated, Relocation};

use super::mirror::{Mirror, is_mistaken, mirrors, unserved};
use super::{Answers, Emitted, Form, Options, address, head, host};

/// Where both distributions find it; a relative path would be one of the server's working folder.
const CA: &str = "/etc/rancher/ferry-ca.crt";

pub(super) fn emit(relocation: &Relocation, options: &Options) -> Emitted {
    let mut out = Emitted::new(Form::RegistriesYaml);
    if options.answers != Answers::Own {
        return originals(relocation, options, out);
    }
    let mirrors = mirrors(relocation, |image| unserved(relocation, image), &mut out);
    let mut hosts: BTreeMap<&str, Vec<&Mirror<'_>>> = BTreeMap::new();
    for mirror in &mirrors {
        hosts.entry(mirror.host).or_default().push(mirror);
    }
    hosts.retain(|source, mirrors| {
        let Some(mistaken) = mistaken(relocation, source, mirrors) else { return true };
        let why = format!("a mirror of its host would answer `{}` with another image", mistaken.reference);
        for image in relocation.images.iter().filter(|image| image.reference.host() == *source) {
            if !out.left_out.iter().any(|left| left.image == image.reference.to_string()) {
                out.leave(image, why.clone());
            }
        }
        false
    });
    if hosts.is_empty() {
        return out;
    }
    let mut text = begin(relocation, &out);
    for (source, mirrors) in hosts {
        endpoint(&mut text, source, relocation, options);
        text += "    rewrite:\n";
        for mirror in mirrors {
            let path = mirror.target.split_once('/').map_or("", |(_, path)| path);
            // of several expressions that fit, any may be taken: so each fits one repository only
            let _ = writeln!(text, "      '^{}$': \"{path}\"", mirror.path.replace('.', "\\."));
        }
    }
    end(text, relocation, options, &mut out);
    out
}

/// The target is asked as the host itself would be.
fn originals(relocation: &Relocation, options: &Options, mut out: Emitted) -> Emitted {
    let mut hosts: BTreeSet<&str> = relocation.images.iter().map(|image| image.reference.host()).collect();
    if options.answers == Answers::OriginalOfAny {
        hosts = BTreeSet::from(["*"]);
    }
    if hosts.is_empty() {
        return out;
    }
    let mut text = begin(relocation, &out);
    hosts.into_iter().for_each(|source| endpoint(&mut text, source, relocation, options));
    end(text, relocation, options, &mut out);
    out
}

fn begin(relocation: &Relocation, out: &Emitted) -> String {
    let text = head(relocation, "For /etc/rancher/k3s/registries.yaml or /etc/rancher/rke2/registries.yaml.");
    text + &out.missing() + "mirrors:\n"
}

fn endpoint(text: &mut String, source: &str, relocation: &Relocation, options: &Options) {
    let _ = writeln!(text, "  \"{source}\":\n    endpoint:\n      - \"{}\"", address(relocation, options));
}

fn end(mut text: String, relocation: &Relocation, options: &Options, out: &mut Emitted) {
    if let Some(ca) = &options.ca {
        let _ = writeln!(text, "configs:\n  \"{}\":\n    tls:\n      ca_file: {CA}", host(relocation));
        out.file("ferry-ca.crt", ca.clone());
    }
    out.file("registries.yaml", text);
}

/// An image of a host that no mirror of it serves, and yet the target would answer for: paths that no expression fits are asked for there
/// as they are.
fn mistaken<'a>(relocation: &'a Relocation, source: &str, mirrors: &[&Mirror<'_>]) -> Option<&'a Relocated> {
    let unmirrored = |image: &&Relocated| {
        image.reference.host() == source && !mirrors.iter().any(|mirror| mirror.path == image.reference.path())
    };
    let there = |image: &Relocated| format!("{}/{}", host(relocation), image.reference.path());
    relocation.images.iter().filter(unmirrored).find(|image| is_mistaken(relocation, image, &there(image)))
}
