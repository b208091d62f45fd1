//! Archives for the tests.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use ferry_image::{Digest, media_type};
use serde_json::{Value, json};
use tar::{EntryType, Header};

use crate::local::{Limits, LocalSource};
use crate::{Error, Failure as _, Kind};

/// One member of a tar.
#[derive(Clone)]
pub(super) enum Node {
    File(Vec<u8>),
    Symlink(&'static str),
    Hardlink(&'static str),
    Folder,
    /// Any type, any stated size, then these bytes.
    Odd(EntryType, u64, Vec<u8>),
}

pub(super) type Nodes = Vec<(String, Node)>;

/// Writes names as they are, `..` and `/` included.
pub(super) fn tarball(nodes: &[(String, Node)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, node) in nodes {
        let (kind, size, link, data): (_, _, _, &[u8]) = match node {
            Node::File(bytes) => (EntryType::Regular, bytes.len() as u64, "", bytes),
            Node::Symlink(target) => (EntryType::Symlink, 0, *target, &[]),
            Node::Hardlink(target) => (EntryType::Link, 0, *target, &[]),
            Node::Folder => (EntryType::Directory, 0, "", &[]),
            Node::Odd(kind, size, data) => (*kind, *size, "", data),
        };
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        header.set_entry_type(kind);
        header.set_size(size);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

/// A raw layer with one file.
pub(super) fn layer(file: &str, content: &[u8]) -> Vec<u8> {
    tarball(&[(file.to_owned(), Node::File(content.to_vec()))])
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("write");
    encoder.finish().expect("finish")
}

pub(super) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("zstd")
}

pub(super) fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(bytes), &mut out).expect("gzip");
    out
}

pub(super) fn file(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> (String, Node) {
    (name.into(), Node::File(bytes.into()))
}

pub(super) fn config(architecture: &str, layers: &[&[u8]]) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|l| Digest::of(l).to_string()).collect();
    // spaces that a re-serialised config would lose
    format!(
        r#"{{ "os":"linux",  "architecture":"{architecture}", "rootfs":{{"type":"layers","diff_ids":{}}} }}"#,
        json!(diff_ids)
    )
    .into_bytes()
}

pub(super) fn three_layers() -> [Vec<u8>; 3] {
    let big: Vec<u8> = (0..300_000_u32).flat_map(|i| (i % 1009 * (i >> 8)).to_le_bytes()).collect();
    [layer("bin/a", &big), layer("b", b"second"), layer("c", b"third")]
}

/// What Docker up to 24 writes: a folder for each layer, the second time a layer occurs as a symlink.
pub(super) fn old_save() -> Nodes {
    let [a, b, c] = three_layers();
    let one = config("amd64", &[&a, &b, &b]);
    let two = config("amd64", &[&a, &c]);
    let name = |config: &[u8]| format!("{}.json", Digest::of(config).hex());
    let manifest = json!([
        {"Config": name(&one), "RepoTags": ["alluxio/operator:3.2.1", "localhost/3.2.1:latest"],
         "Layers": ["l1/layer.tar", "l2/layer.tar", "l3/layer.tar"]},
        {"Config": name(&two), "RepoTags": null, "Layers": ["l4/layer.tar", "l5/layer.tar"]},
    ]);
    vec![
        ("l1/".to_owned(), Node::Folder),
        file("l1/VERSION", "1.0"),
        file("l1/json", "{}"),
        file("l1/layer.tar", a),
        file("l2/layer.tar", b),
        ("l3/layer.tar".to_owned(), Node::Symlink("../l2/layer.tar")),
        ("l4/layer.tar".to_owned(), Node::Hardlink("l1/layer.tar")),
        file("l5/layer.tar", c),
        file(name(&one), one),
        file(name(&two), two),
        file("manifest.json", manifest.to_string()),
        file("repositories", "{}"),
    ]
}

/// A layout under construction.
#[derive(Default)]
pub(super) struct Layout {
    pub(super) nodes: Nodes,
    pub(super) entries: Vec<Value>,
}

impl Layout {
    pub(super) fn blob(&mut self, kind: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        if !self.nodes.iter().any(|(n, _)| *n == digest.blob_path()) {
            self.nodes.push(file(digest.blob_path(), bytes));
        }
        json!({"mediaType": kind, "digest": digest.to_string(), "size": bytes.len()})
    }

    /// A manifest over `layers`, each with its media type; gives its descriptor.
    pub(super) fn image(&mut self, architecture: &str, layers: &[(&str, Vec<u8>)]) -> Value {
        let raw: Vec<Vec<u8>> =
            layers.iter().map(|(kind, l)| if kind.ends_with("gzip") { gunzip(l) } else { l.clone() }).collect();
        let config = config(architecture, &raw.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let config = self.blob(media_type::OCI_CONFIG, &config);
        let layers: Vec<Value> = layers.iter().map(|(kind, l)| self.blob(kind, l)).collect();
        let manifest =
            json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": layers});
        let mut descriptor = self.blob(media_type::OCI_MANIFEST, manifest.to_string().as_bytes());
        descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
        descriptor
    }

    pub(super) fn index(&mut self, manifests: &[Value]) -> Value {
        let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests});
        self.blob(media_type::OCI_INDEX, index.to_string().as_bytes())
    }

    pub(super) fn list(&mut self, mut descriptor: Value, annotations: Value) {
        descriptor["annotations"] = annotations;
        self.entries.push(descriptor);
    }

    pub(super) fn finish(mut self) -> Nodes {
        let index = json!({"schemaVersion": 2, "manifests": self.entries});
        self.nodes.push(file("index.json", index.to_string()));
        self.nodes.push(file("oci-layout", r#"{"imageLayoutVersion": "1.0.0"}"#));
        self.nodes
    }
}

/// What Docker 25 and newer write with `docker save`: raw layers, two tags of one image.
pub(super) fn new_save() -> Nodes {
    let [a, b, _] = three_layers();
    let mut layout = Layout::default();
    let image = layout.image("amd64", &[(media_type::OCI_LAYER, a), (media_type::OCI_LAYER, b)]);
    for tag in ["1.0", "latest"] {
        let name = format!("docker.io/library/app:{tag}");
        layout.list(image.clone(), json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag}));
    }
    let mut nodes = layout.finish();
    nodes.push(file("manifest.json", "[]"));
    nodes
}

/// A folder with a spool, and a file in it.
pub(super) struct Place {
    pub(super) folder: tempfile::TempDir,
}

impl Place {
    pub(super) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("folder") }
    }

    pub(super) fn spool(&self) -> PathBuf {
        self.folder.path().join("spool")
    }

    pub(super) fn write(&self, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join("image.tar");
        std::fs::write(&path, bytes).expect("write");
        path
    }

    pub(super) fn open(&self, path: &Path) -> Result<LocalSource, Error> {
        LocalSource::open_blocking(path, &self.spool(), &Limits::default())
    }

    pub(super) fn open_bytes(&self, bytes: &[u8]) -> Result<LocalSource, Error> {
        self.open(&self.write(bytes))
    }

    pub(super) fn open_nodes(&self, nodes: &[(String, Node)]) -> Result<LocalSource, Error> {
        self.open_bytes(&tarball(nodes))
    }

    /// The same files in a folder.
    pub(super) fn unpack(&self, nodes: &[(String, Node)]) -> PathBuf {
        let root = self.folder.path().join("layout");
        for (name, node) in nodes {
            let Node::File(bytes) = node else { continue };
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
            std::fs::write(path, bytes).expect("write");
        }
        root
    }
}

/// The error must be of `kind`, say `what`, and say what next.
#[track_caller]
pub(super) fn assert_fails<T>(result: Result<T, Error>, kind: Kind, what: &str, case: &str) {
    let error = result.err().unwrap_or_else(|| panic!("{case}: should fail"));
    assert_eq!(error.kind(), kind, "{case}: {error}");
    let text = error.to_string();
    assert!(text.contains(what), "{case}: `{text}` should say `{what}`");
    assert!(!text.ends_with('.') && !text.contains('\n'), "{case}: `{text}`");
    assert!(error.hint().is_some_and(|h| !h.is_empty()), "{case}: no hint for `{text}`");
}
