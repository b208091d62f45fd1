//! containerd's `certs.d`: a folder for each source host, with a `hosts.toml` that names the target before it.
//!
//! A host has one path under which all of its repositories are asked for (`override_path`), so a single image cannot be renamed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use ferry_image::{Relocated, Relocation};

use super::mirror::{is_mistaken, most, unserved};
use super::{Answers, Emitted, Form, Options, address, head};

/// Beside each `hosts.toml`, which takes relative paths from there.
const CA: &str = "ca.crt";
/// The folder that containerd looks into for a host that has none of its own.
const ANY: &str = "_default";

pub(super) fn emit(relocation: &Relocation, options: &Options) -> Emitted {
    let mut out = Emitted::new(Form::HostsToml);
    if options.answers != Answers::Own {
        originals(relocation, options, &mut out);
        return out;
    }
    let mut hosts: BTreeMap<&str, Vec<&Relocated>> = BTreeMap::new();
    for image in &relocation.images {
        hosts.entry(image.reference.host()).or_default().push(image);
    }
    for (source, images) in hosts {
        let mut here = Emitted::new(Form::HostsToml);
        if let Some(base) = base(relocation, &images, &mut here) {
            let mut text = head(relocation, &format!("For /etc/containerd/certs.d/{source}/hosts.toml."));
            text += &here.missing();
            // a client with an `override_path` leaves out the `/v2` that it would put there by itself
            let below = base.split_once('/').map_or(String::new(), |(_, path)| format!("/{path}"));
            let _ = writeln!(text, "\n[host.\"{}/v2{below}\"]", address(relocation, options));
            text += "  capabilities = [\"pull\", \"resolve\"]\n  override_path = true\n";
            file(&mut out, source, text, options);
        }
        out.left_out.append(&mut here.left_out);
    }
    out
}

/// The target is asked as the host itself would be: nothing in front of paths, and every image is found.
fn originals(relocation: &Relocation, options: &Options, out: &mut Emitted) {
    let mut hosts: BTreeSet<&str> = relocation.images.iter().map(|image| image.reference.host()).collect();
    if options.answers == Answers::OriginalOfAny {
        hosts = BTreeSet::from([ANY]);
    }
    for source in hosts {
        let mut text = head(relocation, &format!("For /etc/containerd/certs.d/{source}/hosts.toml."));
        let _ = writeln!(text, "\n[host.\"{}\"]", address(relocation, options));
        text += "  capabilities = [\"pull\", \"resolve\"]\n";
        file(out, source, text, options);
    }
}

fn file(out: &mut Emitted, source: &str, mut text: String, options: &Options) {
    if let Some(ca) = &options.ca {
        let _ = writeln!(text, "  ca = \"{CA}\"");
        out.file(&format!("{source}/{CA}"), ca.clone());
    }
    out.file(&format!("{source}/hosts.toml"), text);
}

/// Where the repositories of a host went, their own paths left off; none where nothing could be asked for there.
fn base<'a>(relocation: &'a Relocation, images: &[&'a Relocated], out: &mut Emitted) -> Option<&'a str> {
    let base_of = |image: &'a Relocated| image.repository.strip_suffix(image.reference.path())?.strip_suffix('/');
    let base = most(images.iter().filter(|i| unserved(relocation, i).is_none()).filter_map(|i| base_of(i)));
    let mut served = Vec::new();
    let mut mistaken = None;
    for image in images {
        let why = match unserved(relocation, image) {
            None if base.is_some() && base_of(image) == base => {
                served.push(image);
                continue;
            }
            None => format!("it went to `{}`, and a host has no names of its own for single images", image.repository),
            Some(why) => why,
        };
        if base.is_some_and(|b| is_mistaken(relocation, image, &format!("{b}/{}", image.reference.path()))) {
            mistaken = Some(image);
        }
        out.leave(image, why);
    }
    if let Some(mistaken) = mistaken {
        let why = format!("a mirror of its host would answer `{}` with another image", mistaken.reference);
        served.iter().for_each(|image| out.leave(image, why.clone()));
        return None;
    }
    base
}
