//! A registry to ask, without sockets.

use std::sync::Arc;

use bytes::Bytes;
use ferry_content::store::Store;
use ferry_image::media_type::{OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST};
use ferry_image::{Descriptor, Digest};
use ferry_registry_server::{Backend, Registry, Settings};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};

pub(crate) struct Site {
    pub(crate) registry: Registry,
    pub(crate) store: Option<Store>,
    _folder: Option<tempfile::TempDir>,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// `None` when the transfer broke.
    pub(crate) body: Option<Bytes>,
}

impl Site {
    pub(crate) fn with_store(settings: Settings) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let store = Store::open(folder.path()).expect("store");
        let registry = Registry::new(Arc::new(store.clone()), settings);
        Self { registry, store: Some(store), _folder: Some(folder) }
    }

    pub(crate) fn over(backend: impl Backend, settings: Settings) -> Self {
        Self { registry: Registry::new(Arc::new(backend), settings), store: None, _folder: None }
    }

    /// The same folder under another server, as after a restart.
    pub(crate) fn restarted(&self) -> Self {
        let store = Store::open_existing(self.store().folder()).expect("store");
        Self {
            registry: Registry::new(Arc::new(store.clone()), Settings::default()),
            store: Some(store),
            _folder: None,
        }
    }

    pub(crate) fn store(&self) -> &Store {
        self.store.as_ref().expect("a store")
    }

    pub(crate) async fn ask(&self, request: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let (method, uri) = request.split_once(' ').expect("METHOD PATH");
        let mut builder = Request::builder().method(method).uri(uri);
        if !headers.iter().any(|(name, _)| *name == "host") {
            builder = builder.header("host", "here:5000");
        }
        if !headers.iter().any(|(name, _)| *name == "content-length") {
            builder = builder.header("content-length", body.len());
        }
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        let request = builder.body(Full::new(Bytes::copy_from_slice(body))).expect("request");
        let (parts, body) = self.registry.answer(request).await.into_parts();
        let body = body.collect().await.ok().map(http_body_util::Collected::to_bytes);
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path}"), &[], b"").await
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    pub(crate) fn body(&self) -> &[u8] {
        self.body.as_deref().expect("a whole transfer")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(self.body()).expect("json")
    }

    /// The code in the body of an error answer.
    pub(crate) fn code(&self) -> String {
        assert_eq!(self.header("content-type"), "application/json");
        self.json()["errors"][0]["code"].as_str().expect("a code").to_owned()
    }
}

pub(crate) struct Image {
    pub(crate) layer: Vec<u8>,
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
    pub(crate) digest: Digest,
}

impl Image {
    pub(crate) fn new(text: &str) -> Self {
        let layer = text.repeat(1000).into_bytes();
        let config = format!("{{\"os\":\"linux\",\"text\":\"{text}\"}}").into_bytes();
        let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": Descriptor::of(OCI_CONFIG, &config), "layers": [Descriptor::of(OCI_LAYER_GZIP, &layer)]});
        let manifest = manifest.to_string().into_bytes();
        let digest = Digest::of(&manifest);
        Self { layer, config, manifest, digest }
    }

    pub(crate) fn put(&self, store: &Store, repository: &str, tag: Option<&str>) {
        store.put_blob(OCI_CONFIG, &self.config).expect("config");
        store.put_blob(OCI_LAYER_GZIP, &self.layer).expect("layer");
        store.put_manifest(repository, tag, OCI_MANIFEST, &self.manifest).expect("manifest");
    }
}
