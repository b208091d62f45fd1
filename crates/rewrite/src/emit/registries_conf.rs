//! `registries.conf`, version 2 (containers-registries.conf(5)): a mirror for each repository.

use std::fmt::Write as _;

use ferry_image::Relocation;

use super::mirror::{mirrors, unserved};
use super::{Emitted, Form, Options, head, host};

pub(super) fn emit(relocation: &Relocation, options: &Options) -> Emitted {
    let mut out = Emitted::new(Form::RegistriesConf);
    let mirrors = mirrors(relocation, |image| unserved(relocation, image), &mut out);
    if mirrors.is_empty() {
        return out;
    }
    let mut text = head(relocation, "For /etc/containers/registries.conf.d/ferry.conf.");
    text += &out.missing();
    for mirror in &mirrors {
        let (source, target) = (mirror.source(), mirror.target);
        let _ = write!(text, "\n[[registry]]\nprefix = \"{source}\"\nlocation = \"{source}\"\n");
        let _ = write!(text, "\n[[registry.mirror]]\nlocation = \"{target}\"\n");
        if options.plain_http {
            text += "insecure = true\n";
        }
    }
    if let Some(ca) = &options.ca {
        // the one place where these programs look for it by host
        out.file(&format!("certs.d/{}/ca.crt", host(relocation)), ca.clone());
    }
    out.file("registries.conf", text);
    out
}
