//! The read-only side: a catalog over blobs that are elsewhere.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use ferry_content::memory::Memory;
use ferry_content::{BoxFuture, ByteStream, Error as ContentError, Provider};
use ferry_image::media_type::{OCI_INDEX, OCI_MANIFEST};
use ferry_image::{Descriptor, Digest};
use ferry_registry_server::catalog::Entry;
use ferry_registry_server::{Catalog, Error, Settings};
use futures_util::stream;
use http::StatusCode;
use serde_json::json;

use crate::site::{Image, Site};

fn entry(image: &Image, repository: &str, tag: Option<&str>, origin: Option<&str>) -> Entry {
    Entry {
        repository: repository.to_owned(),
        tag: tag.map(str::to_owned),
        origin: origin.map(|text| text.parse().expect("reference")),
        media_type: OCI_MANIFEST.to_owned(),
        bytes: image.manifest.clone().into(),
    }
}

fn blobs_of(images: &[&Image]) -> Memory {
    let mut memory = Memory::default();
    for image in images {
        memory.insert(image.layer.clone());
        memory.insert(image.config.clone());
        memory.insert(image.manifest.clone());
    }
    memory
}

#[tokio::test]
async fn a_catalog_serves_an_index_with_its_children_and_takes_no_pushes() {
    let image = Image::new("one");
    let child = Descriptor::of(OCI_MANIFEST, &image.manifest);
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]}).to_string().into_bytes();
    let mut catalog = Catalog::new();
    let source = catalog.add_source(Arc::new(blobs_of(&[&image])));
    let origin = Some("quay.io/x/y:v1");
    catalog.add(source, entry(&image, "p/y", None, origin)).expect("child");
    let whole = Entry {
        media_type: OCI_INDEX.to_owned(),
        bytes: index.clone().into(),
        ..entry(&image, "p/y", Some("v1"), origin)
    };
    catalog.add(source, whole).expect("index");
    let site = Site::over(catalog, Settings { deletes: true, ..Settings::default() });

    let found = site.get("/v2/p/y/manifests/v1").await;
    assert_eq!((found.header("content-type"), found.body()), (OCI_INDEX, index.as_slice()));
    assert_eq!(site.get(&format!("/v2/p/y/manifests/{}", image.digest)).await.body(), image.manifest);
    assert_eq!(site.get(&format!("/v2/p/y/blobs/{}", Digest::of(&image.layer))).await.body(), image.layer);
    assert_eq!(site.get("/v2/p/y/tags/list").await.json()["tags"], json!(["v1"]));
    assert_eq!(site.get("/v2/_catalog").await.json()["repositories"], json!(["p/y"]));
    for request in ["POST /v2/p/y/blobs/uploads/", "PUT /v2/p/y/manifests/v2", "DELETE /v2/p/y/manifests/v1"] {
        let answer = site.ask(request, &[], b"").await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
            "{request}"
        );
    }
}

#[tokio::test]
async fn as_a_mirror_it_answers_for_the_original_names_and_no_other_host() {
    let (ours, hub, nameless) = (Image::new("quay"), Image::new("hub"), Image::new("nameless"));
    let moved = Image::new("moved");
    let mut catalog = Catalog::new();
    let source = catalog.add_source(Arc::new(blobs_of(&[&ours, &hub, &nameless, &moved])));
    catalog.add(source, entry(&ours, "site/nginx", Some("local"), Some("quay.io/library/nginx:1"))).expect("add");
    catalog.add(source, entry(&hub, "library/nginx", Some("1"), Some("nginx:1"))).expect("add");
    catalog.add(source, entry(&nameless, "plain/app", Some("1"), None)).expect("add");
    catalog.add(source, entry(&moved, "new/app", Some("2"), Some("moved/app:1"))).expect("add");
    let site = Site::over(catalog, Settings::default());
    for (path, expected) in [
        ("/v2/library/nginx/manifests/1?ns=quay.io", Some(&ours)),
        ("/v2/library/nginx/manifests/1?ns=docker.io", Some(&hub)),
        ("/v2/library/nginx/manifests/1?ns=registry-1.docker.io", Some(&hub)),
        ("/v2/library/nginx/manifests/1?ns=here:5000", Some(&hub)), // our own Host: no mirror at all
        ("https://here:5000/v2/library/nginx/manifests/1?ns=here:5000", Some(&hub)), // the same in HTTP/2
        ("/v2/library/nginx/manifests/1", Some(&hub)),
        ("/v2/library/nginx/manifests/1?ns=ghcr.io", None),
        // docker does not say that it means docker.io
        ("/v2/moved/app/manifests/1", Some(&moved)),
        ("/v2/new/app/manifests/2", Some(&moved)),
        ("/v2/new/app/manifests/1", None),
        ("/v2/site/nginx/manifests/local?ns=quay.io", None),
        ("/v2/plain/app/manifests/1?ns=ghcr.io", Some(&nameless)),
    ] {
        let answer = site.get(path).await;
        let expected = expected.map(|image| image.manifest.as_slice());
        assert_eq!((answer.status == StatusCode::OK).then(|| answer.body()), expected, "{path}");
    }
}

#[tokio::test]
async fn a_store_as_a_mirror_gives_out_no_other_hosts_image_where_it_knows_whose_they_are() {
    let site = Site::with_store(Settings::default());
    let (hub, quay, pushed) = (Image::new("hub"), Image::new("quay"), Image::new("pushed"));
    for image in [&hub, &quay] {
        image.put(site.store(), "somewhere/else", None);
    }
    let put = |host: &str, repository: &str, image: &Image| {
        let store = site.store();
        store.put_manifest_of(host, repository, "1", OCI_MANIFEST, &image.manifest).expect("put");
    };
    put("docker.io", "library/nginx", &hub);
    put("quay.io", "quay.io/library/nginx", &quay);
    pushed.put(site.store(), "plain/app", Some("1"));
    for (path, expected) in [
        ("/v2/library/nginx/manifests/1?ns=docker.io", Some(&hub)),
        ("/v2/library/nginx/manifests/1?ns=registry-1.docker.io", Some(&hub)),
        ("/v2/library/nginx/manifests/1", Some(&hub)),
        ("/v2/library/nginx/manifests/1?ns=quay.io", Some(&quay)),
        ("/v2/library/nginx/manifests/1?ns=ghcr.io", None),
        ("/v2/plain/app/manifests/1?ns=ghcr.io", Some(&pushed)),
    ] {
        let answer = site.get(path).await;
        let expected = expected.map(|image| image.manifest.as_slice());
        assert_eq!((answer.status == StatusCode::OK).then(|| answer.body()), expected, "{path}");
    }
    assert_eq!(site.get("/v2/library/nginx/tags/list?ns=ghcr.io").await.status, StatusCode::NOT_FOUND);
    // what is pushed may be of anywhere
    let type_ = [("content-type", OCI_MANIFEST)];
    let answer = site.ask("PUT /v2/library/nginx/manifests/2", &type_, &pushed.manifest).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(site.get("/v2/library/nginx/manifests/2?ns=ghcr.io").await.body(), pushed.manifest);
    // and is told by its own tag, not by its neighbours
    assert_eq!(site.get("/v2/library/nginx/manifests/1?ns=ghcr.io").await.status, StatusCode::NOT_FOUND);
    assert_eq!(site.get("/v2/library/nginx/tags/list?ns=ghcr.io").await.json()["tags"], json!(["2"]));
    let by_digest = format!("/v2/library/nginx/manifests/{}?ns=ghcr.io", hub.digest);
    assert_eq!(site.get(&by_digest).await.body(), hub.manifest, "a digest is the same everywhere");
    let answer = site.ask("PUT /v2/library/nginx/manifests/1", &type_, &hub.manifest).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(site.get("/v2/library/nginx/manifests/1?ns=ghcr.io").await.body(), hub.manifest, "pushed, too");
}

#[test]
fn two_images_cannot_have_one_name() {
    let (a, b) = (Image::new("a"), Image::new("b"));
    let mut catalog = Catalog::new();
    let source = catalog.add_source(Arc::new(Memory::default()));
    catalog.add(source, entry(&a, "r", Some("t"), None)).expect("add");
    catalog.add(source, entry(&a, "r", Some("t"), None)).expect("the same again is fine");
    let error = catalog.add(source, entry(&b, "r", Some("t"), None)).expect_err("collision");
    assert!(matches!(&error, Error::Collision { name, .. } if name == "r:t"), "{error}");
    let junk = Entry { bytes: Bytes::from_static(b"{}"), ..entry(&a, "r", None, None) };
    assert!(matches!(catalog.add(source, junk), Err(Error::Manifest { .. })));
    assert!(matches!(catalog.add(source, entry(&a, "../r", None, None)), Err(Error::Manifest { .. })));
}

/// One blob that is not what it should be, in chunks of 100 bytes; counts how often it is read.
struct Rotten {
    bytes: Mutex<Bytes>,
    reads: AtomicUsize,
}

impl Provider for Rotten {
    fn open<'a>(&'a self, _: &'a Descriptor, range: Range<u64>) -> BoxFuture<'a, Result<ByteStream, ContentError>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let bytes = self.bytes.lock().expect("lock").clone();
        let part =
            bytes.slice(usize::try_from(range.start).expect("small")..usize::try_from(range.end).expect("small"));
        let chunks: Vec<_> = part.chunks(100).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        Box::pin(async move { Ok(Box::pin(stream::iter(chunks)) as ByteStream) })
    }

    fn place(&self) -> String {
        "b.tar".to_owned()
    }
}

fn rotten(flip: Option<usize>) -> (Site, Arc<Rotten>, Image, String) {
    let image = Image::new("one");
    let mut bytes = image.layer.clone();
    if let Some(at) = flip {
        bytes[at] ^= 1;
    }
    let provider = Arc::new(Rotten { bytes: Mutex::new(bytes.into()), reads: AtomicUsize::new(0) });
    let mut catalog = Catalog::new();
    let source = catalog.add_source(provider.clone());
    catalog.add(source, entry(&image, "r", Some("t"), None)).expect("add");
    let path = format!("/v2/r/blobs/{}", Digest::of(&image.layer));
    (Site::over(catalog, Settings::default()), provider, image, path)
}

#[tokio::test]
async fn a_corrupt_blob_is_never_served_whole_and_refused_from_then_on() {
    let (site, provider, _, path) = rotten(Some(5));
    let first = site.get(&path).await;
    assert_eq!((first.status, first.body), (StatusCode::OK, None), "the transfer breaks");
    for method in ["GET", "HEAD"] {
        assert_eq!(site.ask(&format!("{method} {path}"), &[], b"").await.status, StatusCode::NOT_FOUND);
    }
    let message = site.get(&path).await.json()["errors"][0]["message"].as_str().expect("text").to_owned();
    assert!(message.contains("damaged in b.tar"), "{message}");
    assert_eq!(provider.reads.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn of_many_that_read_a_corrupt_blob_at_once_none_gets_it_whole() {
    let (site, _, image, path) = rotten(Some(350));
    let answers = futures_util::future::join_all((0..8).map(|_| site.get(&path))).await;
    for answer in answers {
        assert!(answer.body.as_ref().is_none_or(|body| body.len() < image.layer.len()), "{}", answer.status);
    }
    let (site, source, image, path) = rotten(None);
    for answer in futures_util::future::join_all((0..8).map(|_| site.get(&path))).await {
        assert_eq!(answer.body(), image.layer);
    }
    assert_eq!(source.reads.load(Ordering::SeqCst), 8);
}

#[tokio::test]
async fn a_corrupt_blob_is_not_served_in_ranges_either() {
    let (site, _, _, path) = rotten(Some(2999));
    let answer = site.ask(&format!("GET {path}"), &[("range", "bytes=0-99")], b"").await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::NOT_FOUND, "BLOB_UNKNOWN"));
}

#[tokio::test]
async fn a_good_blob_is_checked_once_also_for_ranges() {
    let (site, provider, image, path) = rotten(None);
    for start in [0, 100, 200] {
        let range = format!("bytes={start}-{}", start + 9);
        let answer = site.ask(&format!("GET {path}"), &[("range", &range)], b"").await;
        assert_eq!(answer.body(), &image.layer[start..start + 10]);
    }
    assert_eq!(provider.reads.load(Ordering::SeqCst), 4, "one whole read, three parts");
}
