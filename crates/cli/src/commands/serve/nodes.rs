//! What nodes need so that they pull from this server under the original names: lines to paste, and files for every kind of engine.
//! What those contain is decided in `ferry_rewrite::emit`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use ferry_content::store::{ManifestRef, Store};
use ferry_content::{Problems, texts};
use ferry_image::{Digest, Reference, Relocated, Relocation, Target};
use ferry_rewrite::emit::{self, Answers, Emitted, Form, Options};

use super::{readme, stale};
use crate::commands::emitted;
use crate::failure::{End, Error};
use crate::print;

/// The forms that engines on nodes read.
const FORMS: [Form; 4] = [Form::HostsToml, Form::RegistriesYaml, Form::RegistriesConf, Form::DaemonJson];

/// An image that is served.
#[derive(Debug, Clone)]
pub(super) struct Image {
    /// Its original name.
    pub(super) reference: Reference,
    /// Where it is served.
    pub(super) repository: String,
    pub(super) tag: Option<String>,
    pub(super) source_digest: Digest,
    /// What is served under its original name.
    pub(super) digest: Digest,
}

/// What was written, and what was taken away.
pub(super) struct Written {
    all: Vec<Emitted>,
    stale: Vec<PathBuf>,
}

/// Images, and how nodes reach them.
pub(super) struct Nodes {
    relocation: Relocation,
    options: Options,
}

impl Nodes {
    /// `host` is `HOST:PORT`; `ca` the certificate that nodes must be given, if any.
    pub(super) fn new(host: &str, images: Vec<Image>, options: Options) -> Result<Self, End> {
        let target: Target = host.parse().map_err(|e: ferry_image::Error| Error::usage(e.to_string(), HINT))?;
        let mut relocation = Relocation::new(&target);
        relocation.images = images
            .into_iter()
            .map(|image| Relocated {
                reference: image.reference,
                repository: format!("{host}/{}", image.repository),
                tag: image.tag,
                source_digest: image.source_digest,
                digest: image.digest,
            })
            .collect();
        relocation.images.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(Self { relocation, options })
    }

    /// Writes all forms below `folder`, with a `README`; what an earlier run left there and is not written now goes. `notes` stand in that.
    pub(super) fn write(&self, folder: &Path, notes: &[String]) -> Result<Written, End> {
        let all = FORMS.map(|form| emit::emit(form, &self.relocation, &self.options, &[]));
        let (host, lines) = (self.relocation.target.to_string(), self.lines());
        let address = format!("{}://{host}", self.scheme());
        let sum = self.options.ca.as_ref().map(|ca| Digest::of(ca.as_bytes()).hex().to_owned());
        let server = readme::Server { address: &address, host: &host, ca: sum.as_deref(), lines: &lines, notes };
        let mut files: Vec<(PathBuf, String)> = vec![(folder.join(readme::NAME), readme::text(&all, &server))];
        files.extend(self.options.ca.iter().map(|ca| (folder.join(readme::CA), ca.clone())));
        files.extend(all.iter().flat_map(|form| &form.files).map(|file| (folder.join(&file.path), file.text.clone())));
        let mut problems = Problems::default();
        for (path, text) in &files {
            if let Err(error) = texts::write(path, text.as_bytes()) {
                problems.add("", error);
            }
        }
        let stale = stale::find(folder, &files.into_iter().map(|(path, _)| path).collect());
        for (path, error) in stale::remove(folder, &stale) {
            problems.add("", ferry_content::Error::io("remove", path, error));
        }
        problems.or(Written { all: all.into(), stale }).map_err(End::from)
    }

    /// The same for people: what was written where, and what is not in it.
    pub(super) fn tell(written: &Written, folder: &Path) {
        print::talk("what nodes need was written:");
        emitted::talk(&written.all, folder);
        if !written.stale.is_empty() {
            print::talk("an earlier run had written what is not needed now; it was removed:");
            written.stale.iter().for_each(|path| print::talk(&format!("  {}", path.display())));
        }
        for emitted in written.all.iter().filter(|emitted| emitted.files.is_empty() && emitted.left_out.is_empty()) {
            let form = emitted.form.name();
            print::talk(&format!(
                "note: {form} has nothing: it needs names of hosts, and no repository here begins with one"
            ));
        }
        print::talk(&format!(
            "{} says what goes where, as do `ferry serve --help` and docs/serve.md",
            folder.join(readme::NAME).display()
        ));
    }

    fn scheme(&self) -> &'static str {
        if self.options.plain_http { "http" } else { "https" }
    }

    /// Lines for a shell on a node that has containerd.
    pub(super) fn lines(&self) -> String {
        let hosts: BTreeSet<&str> = self.relocation.images.iter().map(|image| image.reference.host()).collect();
        let hosts = match self.options.answers {
            Answers::OriginalOfAny => "_default".to_owned(),
            _ => hosts.into_iter().collect::<Vec<_>>().join(" "),
        };
        let scheme = self.scheme();
        let mut lines = format!(
            "for host in {hosts}; do\nmkdir -p \"/etc/containerd/certs.d/$host\"\ncat >\"/etc/containerd/certs.d/$host/hosts.toml\" <<'END'\n"
        );
        let _ = writeln!(lines, "[host.\"{scheme}://{}\"]", self.relocation.target);
        lines += "  capabilities = [\"pull\", \"resolve\"]\n";
        if self.options.ca.is_some() {
            let _ = writeln!(lines, "  ca = \"{CA}\"");
        } else if !self.options.plain_http {
            let _ = writeln!(lines, "  # ca = \"{CA}\"   # where the node does not know the CA of this certificate");
        }
        lines += "END\ndone";
        if let Some(ca) = &self.options.ca {
            lines = format!("mkdir -p /etc/containerd\ncat >{CA} <<'END'\n{ca}END\n{lines}");
        }
        lines
    }
}

/// Where nodes look for the CA of a certificate that is the site's own, when they do not know it: nobody can tell from here.
pub(super) fn foreign_ca(host: &str) -> String {
    format!(
        "where nodes do not know the CA of this certificate, its own certificate goes\n  \
         for containerd to {CA}, with `ca = \"{CA}\"` in hosts.toml\n  \
         for k3s and RKE2 anywhere, named in registries.yaml as `configs: \"{host}\": tls: ca_file:`\n  \
         for docker to /etc/docker/certs.d/{host}/ca.crt, for podman and CRI-O to /etc/containers/certs.d/{host}/ca.crt"
    )
}

/// Where every pull needs a password.
pub(super) const LOGIN: &str = "nodes need a login besides: for containerd in hosts.toml, below the server's lines, `[host.\"ADDRESS\".header]` with \
                                `Authorization = \"Basic …\"` (`printf 'USER:PASSWORD' | base64`); for others their own login; with `--anonymous-read` they \
                                need none";

const CA: &str = "/etc/containerd/ferry-ca.crt";
const HINT: &str = "name the address that nodes use with `--advertise HOST[:PORT]`";

/// The images of a store whose names say which hosts they came from (`--layout host`). Of others nobody knows it.
pub(super) fn of_store(store: &Store) -> Result<Vec<Image>, End> {
    let mut images = Vec::new();
    for repository in store.repositories()? {
        let Some((host, _)) = repository.split_once('/') else { continue };
        // as in a name that is written out: what has no dot and no port is no host
        if !host.contains(['.', ':']) && host != "localhost" {
            continue;
        }
        for tag in store.tags(&repository)?.unwrap_or_default() {
            let Ok(reference) = format!("{repository}:{tag}").parse::<Reference>() else { continue };
            let Some(record) = store.manifest(&repository, &ManifestRef::Tag(tag.clone()))? else { continue };
            let (repository, digest) = (repository.clone(), record.digest);
            images.push(Image { reference, repository, tag: Some(tag), source_digest: digest.clone(), digest });
        }
    }
    Ok(images)
}
