//! Forms of the relocation, as `install` and `rewrite` ask for them and tell of them.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ferry_content::texts;
use ferry_rewrite::emit::{Emitted, Options};

use crate::failure::{End, Error};
use crate::{args, print};

/// How nodes reach the target, for `forms`: the certificates are those that ferry itself is given.
pub(crate) fn options(forms: &[args::Emit], ca: &[PathBuf], plain_http: bool) -> Result<Options, End> {
    let mut pem = String::new();
    // without a form nobody asks for them, and they need not be files that can be passed on
    for entry in ca.iter().filter(|_| !forms.is_empty()) {
        let is_certificate = |path: &Path| {
            path.extension()
                .is_some_and(|e| ["pem", "crt", "cert", "cer"].iter().any(|known| e.eq_ignore_ascii_case(known)))
        };
        for (_, file) in texts::walk(entry, is_certificate)? {
            let text = texts::read(&file)?;
            if !text.contains("-----BEGIN CERTIFICATE-----") {
                let why = format!("`{}` has no certificate in it", file.display());
                return Err(Error::usage(why, "give certificates as PEM with `--ca-file`").into());
            }
            pem += text.trim_end();
            pem.push('\n');
        }
    }
    Ok(Options { plain_http, ca: (!pem.is_empty()).then_some(pem), ..Options::default() })
}

/// Whether `host` (with its port) is this machine itself, where TLS is not expected.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.ends_with(".localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// What was written, and what is missing in it.
pub(crate) fn json(emitted: &[Emitted], out: &Path) -> Vec<serde_json::Value> {
    let one = |emitted: &Emitted| {
        let files: Vec<String> = emitted.files.iter().map(|file| out.join(&file.path).display().to_string()).collect();
        serde_json::json!({"form": emitted.form.name(), "files": files, "leftOut": emitted.left_out})
    };
    emitted.iter().map(one).collect()
}

/// The same for people.
pub(crate) fn talk(emitted: &[Emitted], out: &Path) {
    for file in emitted.iter().flat_map(|emitted| &emitted.files) {
        print::talk(&format!("  {}", out.join(&file.path).display()));
    }
    missing(emitted);
}

/// The images that a form leaves out.
pub(crate) fn missing(emitted: &[Emitted]) {
    for emitted in emitted {
        for left in &emitted.left_out {
            print::talk(&format!("note: {} leaves out {}: {}", emitted.form.name(), left.image, left.why));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_told_by_name_or_address() {
        for (host, expected) in [
            ("localhost:5000", true),
            ("127.0.0.1:80", true),
            ("[::1]:5000", true),
            ("registry.local:5000", false),
            ("10.0.0.1", false),
            ("localhost.example", false),
        ] {
            assert_eq!(is_loopback(host), expected, "{host}");
        }
    }
}
