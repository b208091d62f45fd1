//! One relocation in every form a site may prefer: configuration of container engines and clusters that sends pulls of the original names to
//! the target, or values and patches that put the new names in place. Pure: what is written where is the caller's affair.
//!
//! Not here: rewriting the user's own files ([`mod@crate::rewrite`]). What a form cannot express is named, with why, never dropped in
//! silence; and what would send a name to another image than its own is left out as a whole.

mod daemon_json;
mod helm;
mod hosts_toml;
mod kustomize;
mod member;
mod mirror;
mod openshift;
mod registries_conf;
mod registries_yaml;
mod values;

use std::fmt::Write as _;

use ferry_image::{Relocated, Relocation};
use serde::Serialize;

pub use member::Member;

use crate::chart::Around;

/// A form that a relocation is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// Values that override those of a Helm chart.
    HelmValues,
    /// A kustomize component with `images:`.
    Kustomize,
    /// containerd's tree of `hosts.toml`.
    HostsToml,
    /// `registries.yaml` of k3s and RKE2.
    RegistriesYaml,
    /// `registries.conf` of CRI-O, Podman, Buildah and Skopeo.
    RegistriesConf,
    /// `daemon.json` of docker.
    DaemonJson,
    /// An `ImageDigestMirrorSet` of OpenShift.
    Idms,
    /// An `ImageTagMirrorSet` of OpenShift.
    Itms,
    /// `relocation.json`.
    Relocation,
}

impl Form {
    /// What the form is called, and its folder.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HelmValues => "helm-values",
            Self::Kustomize => "kustomize",
            Self::HostsToml => "hosts-toml",
            Self::RegistriesYaml => "registries-yaml",
            Self::RegistriesConf => "registries-conf",
            Self::DaemonJson => "daemon-json",
            Self::Idms => "idms",
            Self::Itms => "itms",
            Self::Relocation => "relocation",
        }
    }
}

/// How nodes reach the target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether it speaks HTTP without TLS.
    pub plain_http: bool,
    /// The certificates to trust there, PEM, where the system's do not do.
    pub ca: Option<String>,
    /// By which names it answers.
    pub answers: Answers,
}

/// By which names a target answers a mirror's requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Answers {
    /// By those that images were given there: so every registry does.
    #[default]
    Own,
    /// By the original ones too, with the host that the client says (containerd's `?ns=`), and of docker.io without it. Nothing need be
    /// rewritten then, and nothing left out.
    Original,
    /// The same, and which hosts its images came from is not known: whatever host is meant, it is asked.
    OriginalOfAny,
}

/// A text of the user's, for the form that is made of texts.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    /// Its path below the output folder.
    pub name: &'a str,
    /// As given.
    pub before: &'a str,
    /// As rewritten.
    pub after: &'a str,
    /// What the texts around it say of it.
    pub around: &'a Around,
    /// The chart that it is a file of.
    pub chart: Option<&'a Member>,
}

/// A file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Below the output folder, segments joined by `/`.
    pub path: String,
    /// Its content.
    pub text: String,
}

/// An image that a form does not express.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LeftOut {
    /// The reference as carried.
    pub image: String,
    /// Why.
    pub why: String,
}

/// A relocation in one form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emitted {
    /// Which.
    pub form: Form,
    /// Its files; none where no image could be expressed.
    pub files: Vec<File>,
    /// The images that are not in them, sorted.
    pub left_out: Vec<LeftOut>,
}

impl Emitted {
    fn new(form: Form) -> Self {
        Self { form, files: Vec::new(), left_out: Vec::new() }
    }

    fn leave(&mut self, image: &Relocated, why: impl Into<String>) {
        self.left_out.push(LeftOut { image: image.reference.to_string(), why: why.into() });
    }

    fn file(&mut self, name: &str, text: String) {
        self.files.push(File { path: format!("{}/{name}", self.form.name()), text });
    }

    /// `# …` lines that name what is missing in a file.
    fn missing(&self) -> String {
        let mut sorted: Vec<&LeftOut> = self.left_out.iter().collect();
        sorted.sort();
        sorted.iter().fold(String::new(), |mut lines, left| {
            let _ = writeln!(lines, "# not in here: {}: {}", left.image, left.why);
            lines
        })
    }
}

/// Writes `relocation` in one form. Only [`Form::HelmValues`] looks at `texts`.
#[must_use]
pub fn emit(form: Form, relocation: &Relocation, options: &Options, texts: &[Text<'_>]) -> Emitted {
    let mut out = match form {
        Form::HelmValues => helm::emit(relocation, texts),
        Form::Kustomize => kustomize::emit(relocation),
        Form::HostsToml => hosts_toml::emit(relocation, options),
        Form::RegistriesYaml => registries_yaml::emit(relocation, options),
        Form::RegistriesConf => registries_conf::emit(relocation, options),
        Form::DaemonJson => daemon_json::emit(relocation, options),
        Form::Idms => openshift::by_digest(relocation),
        Form::Itms => openshift::by_tag(relocation),
        Form::Relocation => whole(relocation),
    };
    out.left_out.sort();
    out.left_out.dedup();
    out
}

/// `SOURCE NUL TARGET NUL` for each image, for `xargs -0`; and those that have no name that is known.
#[must_use]
pub fn print0(relocation: &Relocation) -> (String, Vec<LeftOut>) {
    let mut left_out = Emitted::new(Form::Relocation);
    let mut text = String::new();
    for image in &relocation.images {
        match relocation.replacement(image, &image.reference) {
            Ok(target) => {
                let _ = write!(text, "{}\0{target}\0", image.reference);
            }
            Err(error) => left_out.leave(image, error.to_string()),
        }
    }
    (text, left_out.left_out)
}

/// `relocation.json`, without what is not known for sure.
fn whole(relocation: &Relocation) -> Emitted {
    let mut out = Emitted::new(Form::Relocation);
    let mut known = relocation.clone();
    known.images.retain(|image| {
        let is_known = !relocation.unknown.contains(&image.reference);
        if !is_known {
            out.leave(image, UNKNOWN);
        }
        is_known
    });
    if !known.images.is_empty()
        && let Ok(json) = serde_json::to_string_pretty(&known)
    {
        out.files.push(File { path: "relocation.json".to_owned(), text: format!("{json}\n") });
    }
    out
}

/// What stands at the head of a file that people will meet on a node.
fn head(relocation: &Relocation, what: &str) -> String {
    format!("# Images at {}, by ferry. {what}\n", relocation.target)
}

const UNKNOWN: &str = "its digest at the target cannot be told from the bundle alone";

/// `SCHEME://HOST`.
fn address(relocation: &Relocation, options: &Options) -> String {
    let host = relocation.target.split('/').next().unwrap_or_default();
    format!("{}://{host}", if options.plain_http { "http" } else { "https" })
}

/// The host of the target.
fn host(relocation: &Relocation) -> &str {
    relocation.target.split('/').next().unwrap_or_default()
}
