//! Small bundles, and a store to install them into.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use ferry_archive::{
    Build, Bundle, Contents, File, FileContent, Head, HeadBase, HeadBlob, HeadImage, HeadPlatform, HeadRelied, Layout,
    Location, Partial, Trust,
};
use ferry_content::copy::{self, Silent};
use ferry_content::store::{ManifestRef, Store};
use ferry_content::{Ingester as _, Kind, Problems};
use ferry_image::{Descriptor, Digest, media_type};
use ferry_install::{Bundles, Destination, Options, Preflight, Pushed, preflight};

/// What a bundle is made of.
pub(crate) struct Parts {
    pub(crate) head: Head,
    blobs: BTreeMap<Digest, Bytes>,
    files: Vec<File>,
}

impl Parts {
    pub(crate) fn new() -> Self {
        let head = Head {
            format: 1,
            name: "shop".to_owned(),
            version: None,
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
        Self { head, blobs: BTreeMap::new(), files: Vec::new() }
    }

    pub(crate) fn blob(&mut self, media_type: &str, bytes: impl Into<Bytes>) -> Descriptor {
        let bytes = bytes.into();
        let descriptor = Descriptor::of(media_type, &bytes);
        if self.blobs.insert(descriptor.digest.clone(), bytes).is_none() {
            self.head.blobs.push(HeadBlob { digest: descriptor.digest.clone(), size: descriptor.size, offset: 0 });
        }
        descriptor
    }

    pub(crate) fn manifest(&mut self, layers: &[&str]) -> Descriptor {
        let config = self.blob(media_type::OCI_CONFIG, format!(r#"{{"os":"linux","layers":{layers:?}}}"#));
        let layers: Vec<Descriptor> =
            layers.iter().map(|l| self.blob("application/vnd.oci.image.layer.v1.tar+gzip", l.to_string())).collect();
        let json = serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": layers,
        });
        self.blob(media_type::OCI_MANIFEST, json.to_string())
    }

    /// An index of `here`, and of another manifest that is not carried.
    pub(crate) fn sparse(&mut self, here: &[&Descriptor]) -> Descriptor {
        let mut entries = vec![Descriptor::of(media_type::OCI_MANIFEST, b"elsewhere")];
        entries.extend(here.iter().map(|d| (*d).clone()));
        self.index(&entries.iter().collect::<Vec<_>>())
    }

    pub(crate) fn index(&mut self, entries: &[&Descriptor]) -> Descriptor {
        let json = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries});
        self.blob(media_type::OCI_INDEX, json.to_string())
    }

    pub(crate) fn image(&mut self, reference: &str, root: &Descriptor, manifests: &[&Descriptor]) {
        self.head.images.push(HeadImage {
            reference: reference.replace("ROOT", &root.digest.to_string()).parse().expect("reference"),
            target: None,
            source: "source".to_owned(),
            root: root.clone(),
            platforms: manifests.iter().map(|m| HeadPlatform { platform: None, manifest: (*m).clone() }).collect(),
            referrers: Vec::new(),
            verified: Vec::new(),
        });
    }

    pub(crate) fn yaml(&mut self, name: &str, text: &str) {
        let content = FileContent::Bytes(Bytes::copy_from_slice(text.as_bytes()));
        self.files.push(File { name: format!("yaml/{name}"), content });
    }

    /// Leaves blobs of these bytes to `base`, in the repositories that it says.
    pub(crate) fn leave(&mut self, base: &Bundle, blobs: &[(&str, &[&str])]) {
        let head = base.head();
        let (name, version, sums) = (head.name.clone(), head.version.clone(), Some(base.sums_digest().clone()));
        self.head.bases.push(HeadBase { name, version, sums });
        for (bytes, repositories) in blobs {
            let (digest, size) = (Digest::of(bytes.as_bytes()), bytes.len() as u64);
            self.head.blobs.retain(|blob| blob.digest != digest);
            self.blobs.remove(&digest);
            let repositories = repositories.iter().map(|name| (*name).to_owned()).collect();
            self.head.relies.push(HeadRelied { digest, size, repositories });
        }
        self.head.relies.sort_by(|a, b| a.digest.cmp(&b.digest));
    }

    pub(crate) async fn seal(self, folder: &Path) -> Arc<Bundle> {
        self.seal_as(&folder.join("shop.tar")).await
    }

    pub(crate) async fn seal_as(mut self, path: &Path) -> Arc<Bundle> {
        // manifests before layers, as a bundle has them
        let is_json = |digest: &Digest| self.blobs[digest].starts_with(b"{");
        self.head.blobs.sort_by_key(|blob| !is_json(&blob.digest));
        let contents = Contents { head: self.head, manifests: self.blobs.clone(), files: self.files };
        let layout = Layout::new(contents).expect("layout");
        let partial = Partial::create(path, layout, Build::default()).expect("partial");
        for bytes in self.blobs.into_values() {
            let blob = Descriptor::of("", &bytes);
            let ingest = partial.start(&blob).await.expect("start").expect("missing");
            ingest.write_at(0, vec![bytes]).await.expect("write");
            ingest.commit().await.expect("commit");
        }
        partial.seal(&|_| {}).expect("seal");
        Arc::new(Bundle::open(path, &anybody()).expect("open"))
    }
}

pub(crate) struct Site {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) store: Arc<Store>,
}

impl Site {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let store = Store::open(folder.path().join("store")).expect("store").with_sparse_indexes(true);
        Self { folder, store: Arc::new(store) }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn options(&self) -> Options {
        Options { out: Some(self.path("out")), strict: true, jobs: 4, ..Options::default() }
    }

    pub(crate) async fn look(&self, bundle: &Arc<Bundle>, options: Options) -> Result<Preflight, Problems> {
        self.look_at(Arc::clone(bundle).into(), options).await
    }

    pub(crate) async fn look_at(&self, bundles: Bundles, options: Options) -> Result<Preflight, Problems> {
        let target = "reg.local:5000/team".parse().expect("target");
        let destination = Destination::Store { store: Arc::clone(&self.store), target };
        preflight(Arc::new(bundles), destination, options).await
    }

    pub(crate) async fn push(&self, bundle: &Arc<Bundle>, options: Options) -> (Preflight, Pushed) {
        let preflight = self.look(bundle, options).await.expect("preflight");
        let pushed = preflight.push(&copy::Options::default(), Arc::new(Silent)).await.expect("push");
        (preflight, pushed)
    }

    pub(crate) fn at(&self, repository: &str, tag: &str) -> Option<Digest> {
        let found = self.store.manifest(repository, &ManifestRef::Tag(tag.to_owned())).expect("store");
        found.map(|record| record.digest)
    }
}

pub(crate) fn shown<T>(result: Result<T, Problems>) -> (Kind, Vec<String>) {
    match result {
        Ok(_) => panic!("nothing was found wrong"),
        Err(problems) => (problems.kind(), problems.iter().map(ToString::to_string).collect()),
    }
}

pub(crate) fn anybody() -> Trust {
    Trust { allow_unsigned: true, ..Trust::default() }
}

/// These bundles, as one.
pub(crate) fn together(all: &[&Arc<Bundle>]) -> Bundles {
    Bundles::new(Arc::clone(all[0]), all[1..].iter().map(|bundle| Arc::clone(bundle)))
}

/// A bundle of which a byte of a blob is wrong: a copy at `path`.
pub(crate) fn damaged(bundle: &Bundle, blob: &[u8], path: &Path) -> Arc<Bundle> {
    let mut bytes = std::fs::read(bundle.path()).expect("read");
    let at = bytes.windows(blob.len()).rposition(|window| window == blob).expect("the blob");
    bytes[at] ^= 1;
    std::fs::write(path, bytes).expect("write");
    let (bundle, faults) = Bundle::open_damaged(&Location::of(path).expect("location"), &anybody()).expect("open");
    assert!(faults.is_empty(), "the frame is whole: {faults:?}");
    Arc::new(bundle)
}

/// The digests of these bytes.
pub(crate) fn digests(all: &[&str]) -> BTreeSet<Digest> {
    all.iter().map(|bytes| Digest::of(bytes.as_bytes())).collect()
}
