//! Small bundles, always the same.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ferry_archive::{
    Absent, Build, Bundle, Contents, Error, File, FileContent, Head, HeadBlob, HeadImage, HeadPlatform, Incoming,
    Inflow, Layout, Outgoing, Partial, PublicKey, Sealed, SecretKey, Trust, volumes,
};
use ferry_content::{Ingest, Ingester};
use ferry_image::{Descriptor, Digest, Ignore, Platform, media_type};
use tempfile::TempDir;

/// A key pair that is used nowhere else, made by `minisign -G -W`.
pub const SECRET: &str = "untrusted comment: minisign encrypted secret key\nRWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAmboFMlHeBxjII8XKDc7ParQVGr0Gz0km2PkqP9Ny8tAPa8KtrH5v4OYIfhuKfowFkFlfay4ZzF1C1HcVwqJZrdfyCjPyVTKrAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
pub const PUBLIC: &str = "RWSZugUyUd4HGOYIfhuKfowFkFlfay4ZzF1C1HcVwqJZrdfyCjPyVTKr";

/// What a bundle is made of.
#[derive(Clone)]
pub struct Parts {
    pub contents: Contents,
    pub blobs: BTreeMap<Digest, Bytes>,
}

pub fn secret() -> Arc<SecretKey> {
    Arc::new(SecretKey::from_text(SECRET, None).expect("key"))
}

pub fn trust() -> Trust {
    Trust { keys: vec![PublicKey::from_text(PUBLIC).expect("key").into()], ..Trust::default() }
}

/// An empty bundle to add to.
pub fn empty(name: &str, version: Option<&str>) -> Parts {
    let head = Head {
        format: 1,
        name: name.to_owned(),
        version: version.map(ToOwned::to_owned),
        platforms: vec!["linux/amd64".to_owned()],
        layout: ferry_image::Layout::Path,
        images: Vec::new(),
        absent: Vec::new(),
        yaml: Vec::new(),
        files: Vec::new(),
        set: Vec::new(),
        ignore: Vec::new(),
        bases: Vec::new(),
        relies: Vec::new(),
        blobs: Vec::new(),
    };
    Parts { contents: Contents { head, manifests: BTreeMap::new(), files: Vec::new() }, blobs: BTreeMap::new() }
}

impl Parts {
    /// Adds a blob, once.
    pub fn blob(&mut self, media_type: &str, bytes: impl Into<Bytes>) -> Descriptor {
        let bytes = bytes.into();
        let descriptor = Descriptor::of(media_type, &bytes);
        if self.blobs.insert(descriptor.digest.clone(), bytes).is_none() {
            let blob = HeadBlob { digest: descriptor.digest.clone(), size: descriptor.size, offset: 0 };
            self.contents.head.blobs.push(blob);
        }
        descriptor
    }

    /// Adds a manifest of an image for linux/amd64.
    pub fn manifest(&mut self, docker: bool, layer_type: &str, layers: &[&[u8]]) -> Descriptor {
        let (manifest_type, config_type) = if docker {
            (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG)
        } else {
            (media_type::OCI_MANIFEST, media_type::OCI_CONFIG)
        };
        let config =
            format!(r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","n":{}}}}}"#, layers.len());
        let config = self.blob(config_type, config);
        let layers: Vec<Descriptor> = layers.iter().map(|l| self.blob(layer_type, l.to_vec())).collect();
        let json = serde_json::json!({
            "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": layers,
        });
        let descriptor = self.blob(manifest_type, json.to_string());
        self.contents.manifests.insert(descriptor.digest.clone(), json.to_string().into());
        descriptor
    }

    /// Adds an index, of which only `manifest` is carried.
    pub fn sparse_index(&mut self, manifest: &Descriptor) -> Descriptor {
        let mut here = manifest.clone();
        here.platform = Some(Platform::new("linux", "amd64", None));
        let mut elsewhere = Descriptor::of(media_type::OCI_MANIFEST, b"another manifest");
        elsewhere.platform = Some(Platform::new("linux", "arm64", None));
        let json = serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [elsewhere, here],
        });
        self.blob(media_type::OCI_INDEX, json.to_string())
    }

    /// Lists an image.
    pub fn image(&mut self, reference: &str, root: &Descriptor, manifest: &Descriptor) -> &mut HeadImage {
        let images = &mut self.contents.head.images;
        images.push(HeadImage {
            reference: reference.parse().expect("reference"),
            target: None,
            source: "registry.example/source".to_owned(),
            root: root.clone(),
            platforms: vec![HeadPlatform {
                platform: Some(Platform::new("linux", "amd64", None)),
                manifest: manifest.clone(),
            }],
            referrers: Vec::new(),
            verified: Vec::new(),
        });
        images.last_mut().expect("image")
    }

    pub fn file(&mut self, name: &str, bytes: impl Into<Bytes>) {
        self.contents.files.push(File { name: name.to_owned(), content: FileContent::Bytes(bytes.into()) });
    }

    pub fn layout(&self) -> Layout {
        Layout::new(self.contents.clone()).expect("layout")
    }

    pub fn descriptor(&self, digest: &Digest) -> Descriptor {
        Descriptor::new("", digest.clone(), self.blobs[digest].len() as u64)
    }
}

/// Two OCI images that share a layer, one of them behind a sparse index, a schema 2 image, a zstd image, an artifact with its
/// signature, YAML and files.
pub fn parts() -> Parts {
    let mut parts = empty("demo", Some("1.2"));
    let shared = b"a shared layer".as_slice();
    let manifest = parts.manifest(false, media_type::OCI_LAYER_GZIP, &[shared, b"its own layer"]);
    let root = parts.sparse_index(&manifest);
    let signature = parts.manifest(false, "application/vnd.dev.cosign.simplesigning.v1+json", &[b"{}"]);
    let image = parts.image("registry.example/app/web:1.0", &root, &manifest);
    image.target = Some("web".parse().expect("name"));
    image.referrers.push(signature);
    let second = parts.manifest(true, media_type::DOCKER_LAYER_GZIP, &[shared, &[7; 3000], b""]);
    parts.image("nginx:1.27", &second, &second);
    parts.image(&format!("quay.io/a/b@{}", second.digest), &second, &second);
    let zstd = parts.manifest(false, media_type::OCI_LAYER_ZSTD, &[b"zstd layer"]);
    parts.image("quay.io/a/zstd:1", &zstd, &zstd);
    parts.contents.head.absent.push(Absent {
        reference: "quay.io/a/gone:1".parse().expect("reference"),
        reason: "manifest unknown".to_owned(),
    });
    parts
        .contents
        .head
        .ignore
        .push(Ignore { image: "k8s.gcr.io/pause:*".to_owned(), reason: "there already".to_owned() });
    parts.file("yaml/deployment.yaml", "image: nginx:1.27\n");
    parts.file("files/notes/read me.txt", "hello\n");
    parts.file("bin/ferry", "#!/bin/sh\n");
    parts
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime")
}

/// Begins a blob that must still be wanted.
pub async fn start(partial: &dyn Ingester, blob: &Descriptor) -> Box<dyn Ingest> {
    partial.start(blob).await.expect("start").expect("wanted")
}

/// What the copy loop does, without hashing: writes what is missing, in pieces of `piece` bytes.
pub async fn fill(partial: &dyn Ingester, blob: &Descriptor, bytes: &Bytes, piece: usize) {
    let ingest = start(partial, blob).await;
    for range in ingest.missing() {
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at + piece as u64);
            ingest.write_at(at, vec![bytes.slice(at as usize..end as usize)]).await.expect("write");
            at = end;
        }
    }
    assert_eq!(ingest.read_back(0..blob.size).await.expect("read"), bytes);
    ingest.commit().await.expect("commit");
}

/// Writes the bundle `output`; the blobs arrive in the order of their digests, or the other way round.
pub fn build(parts: &Parts, output: &Path, sign: Option<Arc<SecretKey>>, backwards: bool) -> Result<Sealed, Error> {
    build_split(parts, output, Build { sign, ..Build::default() }, backwards)
}

/// [`build`], in whatever way.
pub fn build_split(parts: &Parts, output: &Path, how: Build, backwards: bool) -> Result<Sealed, Error> {
    let partial = Partial::create(output, parts.layout(), how)?;
    runtime().block_on(async {
        let mut order: Vec<_> = parts.blobs.iter().collect();
        if backwards {
            order.reverse();
        }
        for (digest, bytes) in order {
            fill(&partial, &parts.descriptor(digest), bytes, if backwards { 7 } else { 1 << 20 }).await;
        }
    });
    partial.seal(&|_| {})
}

/// Writes the bundle as into a pipe.
pub fn stream(parts: &Parts, output: &Path, sign: Option<&SecretKey>) -> Result<Sealed, Error> {
    let file = std::fs::File::create(output).expect("create");
    let outgoing = Outgoing::create(Box::new(file), output, &parts.layout(), sign)?;
    runtime().block_on(async {
        for blob in parts.layout().blobs() {
            let ingest = start(&outgoing, &parts.descriptor(&blob.digest)).await;
            let bytes = &parts.blobs[&blob.digest];
            let half = bytes.len() / 2;
            ingest.write_at(0, vec![bytes.slice(..half)]).await.expect("write");
            assert_eq!(ingest.missing().first().map_or(bytes.len() as u64, |range| range.start), half as u64);
            ingest.write_at(half as u64, vec![bytes.slice(half..)]).await.expect("write");
            ingest.commit().await.expect("commit");
        }
    });
    outgoing.finish()
}

/// Cuts a file into volumes in a folder of their own.
pub fn split(path: &Path, room: usize) -> TempDir {
    let folder = tempfile::tempdir().expect("folder");
    let base = folder.path().join(path.file_name().expect("name"));
    for (number, piece) in (1..).zip(std::fs::read(path).expect("read").chunks(room)) {
        std::fs::write(volumes::name(&base, number), piece).expect("write");
    }
    folder
}

/// Opens and verifies: by position, from a pipe and from volumes, which must come to the same.
pub fn check(path: &Path, trust: &Trust) -> Result<Bundle, Error> {
    let whole = Bundle::open(path, trust).and_then(|bundle| bundle.verify(2, false, &|_| {}).map(|_| bundle));
    let piped = std::fs::File::open(path).map(|file| pipe(Box::new(file), path, trust));
    if let Ok(piped) = piped.map(|piped| piped.map_err(|e| e.to_string())) {
        assert_eq!(piped.is_ok(), whole.is_ok(), "{piped:?}, {:?}", whole.as_ref().err());
    }
    let room = std::fs::metadata(path).map_or(0, |m| m.len() / 3 + 1);
    if room > 1 && path.is_file() {
        let folder = split(path, room as usize);
        let volumes = Bundle::open(&folder.path().join(path.file_name().expect("name")), trust);
        let volumes = volumes.and_then(|bundle| bundle.verify(1, false, &|_| {})).map_err(|e| e.to_string());
        assert_eq!(volumes.is_ok(), whole.is_ok(), "{volumes:?}, {:?}", whole.as_ref().err());
    }
    whole
}

/// Reads a bundle from front to end.
pub fn pipe(reader: impl Into<Inflow>, path: &Path, trust: &Trust) -> Result<(), Error> {
    let mut incoming = Incoming::open(reader, path, trust)?;
    while let Some(member) = incoming.advance()? {
        if member.size < 100 {
            incoming.read_small(100)?;
        } else if let Some(damage) = incoming.check(&|_| {})? {
            return Err(Error::Damaged { path: path.to_owned(), members: vec![damage] });
        }
    }
    incoming.finish()
}
