//! What images become.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use ferry_image::{Descriptor, Digest, ImageManifest, Manifest, media_type};
use serde_json::json;

use super::samples::{
    Layout, Node, Nodes, Place, assert_fails, config, file, gunzip, gzip, layer, new_save, old_save, tarball,
    three_layers, zstd,
};
use crate::local::{Layers, LocalSource, Options, Prepared};
use crate::{Kind, read_all};

const LIMIT: u64 = 64 << 20;

async fn read(prepared: &Prepared, blob: &Descriptor) -> Bytes {
    read_all(prepared.provider.as_ref(), blob, LIMIT).await.expect("a blob that its provider has")
}

async fn manifest(prepared: &Prepared, descriptor: &Descriptor) -> ImageManifest {
    let bytes = read(prepared, descriptor).await;
    match Manifest::parse(&bytes, Some(&descriptor.media_type)).expect("manifest") {
        Manifest::Image(image) => image,
        Manifest::Index(_) => panic!("an image"),
    }
}

fn prepare(place: &Place, nodes: &Nodes, layers: Layers) -> Prepared {
    let source = place.open_nodes(nodes).expect("open");
    let image = source.choose(None).expect("one image").clone();
    let options = Options { layers, jobs: 3, ..Options::new(place.spool()) };
    source.prepare_blocking(&image, &options).expect("prepare")
}

#[tokio::test]
async fn raw_layers_are_compressed_and_the_config_stays() {
    let [a, b, _] = three_layers();
    for layers in [Layers::Gzip, Layers::Zstd, Layers::Verbatim] {
        let place = Place::new();
        let prepared = prepare(&place, &old_save(), layers);
        let manifest = manifest(&prepared, &prepared.root).await;
        assert_eq!(prepared.root.media_type, media_type::OCI_MANIFEST);
        assert_eq!(manifest.media_type, media_type::OCI_MANIFEST);
        assert_eq!(manifest.config.media_type, media_type::OCI_CONFIG);
        assert_eq!(read(&prepared, &manifest.config).await, config("amd64", &[&a, &b, &b]));
        let mut raw = Vec::new();
        for layer in &manifest.layers {
            let bytes = read(&prepared, layer).await;
            raw.push(match (layers, layer.media_type.as_str()) {
                (Layers::Gzip, media_type::OCI_LAYER_GZIP) => gunzip(&bytes),
                (Layers::Zstd, media_type::OCI_LAYER_ZSTD) => zstd::decode_all(&bytes[..]).expect("zstd"),
                (Layers::Verbatim, media_type::OCI_LAYER) => bytes.to_vec(),
                (_, other) => panic!("{layers:?} gave {other}"),
            });
        }
        assert!(raw == [a.clone(), b.clone(), b.clone()], "{layers:?}: other layers");
        assert_eq!(prepared.encoder, layers.encoder_id());
        assert_eq!(prepared.compressed.len(), if layers == Layers::Verbatim { 0 } else { 2 }, "each once");
        assert!(prepared.compressed.iter().all(|c| manifest.layers.contains(&c.layer)));
    }
}

#[tokio::test]
async fn the_same_image_gives_the_same_digest_whatever_it_comes_in() {
    let root = |nodes: &Nodes| prepare(&Place::new(), nodes, Layers::Gzip).root;
    let once = root(&old_save());
    assert_eq!(root(&old_save()), once);
    let place = Place::new();
    let source = place.open_bytes(&gzip(&tarball(&old_save()))).expect("open");
    let prepared = source.prepare(&source.images()[0], &Options::new(place.spool())).await.expect("prepare");
    assert_eq!(prepared.root, once);
    drop(source);
    manifest(&prepared, &prepared.root).await; // the provider keeps the unpacked tar alive
}

#[test]
fn an_interrupted_run_is_continued_from_whole_layers_only() {
    let place = Place::new();
    let first = prepare(&place, &old_save(), Layers::Gzip);
    let blobs = || -> Vec<_> {
        let mut found: Vec<_> = std::fs::read_dir(place.spool())
            .expect("spool")
            .map(|e| e.expect("entry").path())
            .filter(|p| p.extension().is_some_and(|e| e == "blob"))
            .collect();
        found.sort();
        found
    };
    let times =
        || -> Vec<_> { blobs().iter().map(|p| p.metadata().expect("file").modified().expect("time")).collect() };
    let before = times();
    assert_eq!(before.len(), 2);
    let second = prepare(&place, &old_save(), Layers::Gzip);
    assert_eq!(second.root, first.root);
    assert_eq!(times(), before, "nothing is compressed twice");

    let good: Vec<_> = blobs().iter().map(|p| std::fs::read(p).expect("read")).collect();
    let mut flipped = good[0].clone();
    *flipped.last_mut().expect("byte") ^= 1;
    std::fs::write(&blobs()[0], flipped).expect("write");
    std::fs::write(&blobs()[1], b"short").expect("write");
    let third = prepare(&place, &old_save(), Layers::Gzip);
    assert_eq!(third.root, first.root);
    assert!(blobs().iter().map(|p| std::fs::read(p).expect("read")).eq(good), "damaged ones are made again");

    for entry in std::fs::read_dir(place.spool()).expect("spool") {
        let path = entry.expect("entry").path();
        if path.extension().is_some_and(|e| e == "done") {
            std::fs::write(path, b"{").expect("write");
        }
    }
    assert_eq!(prepare(&place, &old_save(), Layers::Gzip).root, first.root);
}

#[test]
fn the_need_bounds_the_spool_and_the_progress_reaches_it() {
    let place = Place::new();
    let source = place.open_nodes(&old_save()).expect("open");
    let seen = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&seen);
    let mut options = Options::new(place.spool());
    options.progress = Some(Arc::new(move |bytes| {
        counter.fetch_add(bytes, Ordering::Relaxed);
    }));
    let image = &source.images()[0];
    let need = source.need(image, &options).expect("need");
    source.prepare_blocking(image, &options).expect("prepare");
    let taken: u64 = std::fs::read_dir(place.spool())
        .expect("spool")
        .map(|e| e.expect("entry").metadata().expect("file").len())
        .sum();
    let [a, b, _] = three_layers();
    assert!(taken <= need.spool, "{taken} > {}", need.spool);
    assert_eq!(need.input, (a.len() + b.len()) as u64);
    assert_eq!(seen.swap(0, Ordering::Relaxed), need.input);
    source.prepare_blocking(image, &options).expect("again");
    assert_eq!(seen.load(Ordering::Relaxed), need.input, "layers found in the spool count too");
}

#[tokio::test]
async fn compressed_layers_of_a_save_stay_as_they_are() {
    let [a, b, c] = three_layers();
    let config = config("amd64", &[&a, &b, &c]);
    let name = Digest::of(&config).to_string(); // as crane writes it
    let nodes = vec![
        file(name.clone(), config),
        file("a.tar.gz", gzip(&a)),
        file("b.tar.gz", zstd(&b)),
        file("c.tar", c),
        file(
            "manifest.json",
            json!([{"Config": name, "RepoTags": ["a"], "Layers": ["a.tar.gz", "b.tar.gz", "c.tar"]}]).to_string(),
        ),
    ];
    let place = Place::new();
    let prepared = prepare(&place, &nodes, Layers::Zstd);
    let manifest = manifest(&prepared, &prepared.root).await;
    let kinds: Vec<&str> = manifest.layers.iter().map(|l| l.media_type.as_str()).collect();
    assert_eq!(kinds, [media_type::OCI_LAYER_GZIP, media_type::OCI_LAYER_ZSTD, media_type::OCI_LAYER_ZSTD]);
    assert_eq!(read(&prepared, &manifest.layers[0]).await, gzip(&a));
    assert_eq!(read(&prepared, &manifest.layers[1]).await, zstd(&b));
    assert_eq!(prepared.compressed.len(), 1);
}

#[tokio::test]
async fn a_save_with_a_layout_is_made_anew_only_for_raw_layers() {
    let [a, b, _] = three_layers();
    let place = Place::new();
    let prepared = prepare(&place, &new_save(), Layers::Gzip);
    let made = manifest(&prepared, &prepared.root).await;
    assert_eq!(read(&prepared, &made.config).await, config("amd64", &[&a, &b]));
    assert_eq!(made.layers[0].media_type, media_type::OCI_LAYER_GZIP);
    assert_eq!(gunzip(&read(&prepared, &made.layers[1]).await), b);

    let source = place.open_nodes(&new_save()).expect("open");
    let crate::local::Root::Manifest(root) = &source.images()[0].root else { panic!("a manifest") };
    let kept = prepare(&place, &new_save(), Layers::Verbatim);
    assert_eq!((&kept.root.digest, kept.encoder.as_ref()), (&root.digest, None));

    let mut layout = Layout::default();
    let zipped = layout.image("amd64", &[(media_type::OCI_LAYER_GZIP, gzip(&a))]);
    let digest = zipped["digest"].as_str().expect("digest").to_owned();
    layout.list(zipped, json!({}));
    let mut nodes = layout.finish();
    nodes.push(file("manifest.json", "[]"));
    let kept = prepare(&place, &nodes, Layers::Gzip);
    assert_eq!(kept.root.digest.to_string(), digest);
    assert_eq!(manifest(&kept, &kept.root).await.layers.len(), 1);
}

/// An index as buildx makes it, saved for two of its three platforms.
fn multi_platform(raw: bool) -> (Nodes, String) {
    let mut layout = Layout::default();
    let mut absent = Layout::default();
    let one = |arch: &str| {
        let l = layer(arch, arch.as_bytes());
        if raw { (media_type::OCI_LAYER, l) } else { (media_type::OCI_LAYER_GZIP, gzip(&l)) }
    };
    let amd = layout.image("amd64", &[one("amd64")]);
    let arm = layout.image("arm64", &[one("arm64")]);
    let other = absent.image("s390x", &[one("s390x")]);
    let mut attestation = layout.image("unknown", &[(media_type::OCI_LAYER, b"{}".to_vec())]);
    attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    let index = layout.index(&[amd, arm, other, attestation]);
    let digest = index["digest"].as_str().expect("digest").to_owned();
    let nested = layout.index(&[index]);
    let nested_digest = nested["digest"].as_str().expect("digest").to_owned();
    layout.list(nested, json!({"io.containerd.image.name": "docker.io/library/multi:1"}));
    let mut nodes = layout.finish();
    nodes.push(file("manifest.json", "[]"));
    assert_ne!(digest, nested_digest);
    (nodes, nested_digest)
}

#[tokio::test]
async fn indexes_stay_when_compressed_and_are_made_anew_when_raw() {
    let place = Place::new();
    let (nodes, digest) = multi_platform(false);
    assert_eq!(prepare(&place, &nodes, Layers::Gzip).root.digest.to_string(), digest);

    let (nodes, _) = multi_platform(true);
    let both = prepare(&place, &nodes, Layers::Gzip);
    assert_eq!(both.root.media_type, media_type::OCI_INDEX);
    let bytes = read(&both, &both.root).await;
    let Manifest::Index(index) = Manifest::parse(&bytes, None).expect("index") else { panic!("an index") };
    let platforms: Vec<String> = index.platforms().iter().map(ToString::to_string).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
    for entry in &index.manifests {
        assert_eq!(manifest(&both, entry).await.layers[0].media_type, media_type::OCI_LAYER_GZIP);
    }

    let source = place.open_nodes(&nodes).expect("open");
    let wanted = |platform: &str| {
        let platforms = vec![platform.parse().expect("platform")];
        source.prepare_blocking(&source.images()[0], &Options { platforms, ..Options::new(place.spool()) })
    };
    let arm = wanted("linux/arm64").expect("arm64");
    assert_eq!(arm.root.digest, index.manifests[1].digest, "one platform needs no index");
    let missing = wanted("linux/s390x").map(|p| p.root);
    assert_fails(missing, Kind::Missing, "linux/s390x is missing; there are: linux/amd64, linux/arm64", "");
}

#[tokio::test]
async fn a_pure_layout_is_carried_as_it_is() {
    let mut layout = Layout::default();
    let raw = layout.image("amd64", &[(media_type::OCI_LAYER, layer("x", b"x"))]);
    let index = layout.index(&[raw]);
    let digest = index["digest"].as_str().expect("digest").to_owned();
    layout.list(index, json!({}));
    let nodes = layout.finish();
    let sources = [
        |place: &Place, nodes: &Nodes| place.open_nodes(nodes),
        |place: &Place, nodes: &Nodes| place.open_bytes(&zstd(&tarball(nodes))),
        |place: &Place, nodes: &Nodes| place.open(&place.unpack(nodes)),
    ];
    for open in sources {
        let place = Place::new();
        let source = open(&place, &nodes);
        let source: LocalSource = source.expect("open");
        let options = Options::new(place.spool());
        let prepared = source.prepare_blocking(&source.images()[0], &options).expect("prepare");
        assert_eq!(prepared.root.digest.to_string(), digest);
        assert_eq!(source.need(&source.images()[0], &options).expect("need").spool, 0);
        let bytes = read(&prepared, &prepared.root).await;
        let Manifest::Index(index) = Manifest::parse(&bytes, None).expect("index") else { panic!("an index") };
        let image = manifest(&prepared, &index.manifests[0]).await;
        for blob in image.blobs() {
            read(&prepared, blob).await;
            assert!(source.has(&blob.digest).expect("has"));
        }
    }
}

#[test]
fn broken_images_are_refused_with_the_layer_named() {
    type Spoil = fn(&mut Nodes);
    let cases: [(&str, Spoil, &str); 7] = [
        ("other layer", |n| replace(n, "l2/layer.tar", Node::File(layer("b", b"swapped"))), "l2/layer.tar"),
        (
            "no layer",
            |n| n.retain(|(name, _)| name != "l1/layer.tar" && name != "l4/layer.tar"),
            "layer `l1/layer.tar` is not in it",
        ),
        (
            "dangling",
            |n| replace(n, "l3/layer.tar", Node::Symlink("../l9/layer.tar")),
            "link to `l9/layer.tar`, which is not in it",
        ),
        ("no config", |n| n.retain(|(name, _)| !name.ends_with(".json") || name == "manifest.json"), "the config `"),
        ("gzip of another", |n| replace(n, "l2/layer.tar", Node::File(gzip(b"other"))), "l2/layer.tar"),
        (
            "cut gzip",
            |n| replace(n, "l2/layer.tar", Node::File(gzip(b"other")[..12].to_vec())),
            "layer `l2/layer.tar`: its compressed data ends early",
        ),
        (
            "other config",
            |n| {
                let i = n.iter().position(|(name, _)| name.len() == 69).expect("config");
                n[i].1 = Node::File(config("arm64", &[b"", b"", b""]));
            },
            "has other content",
        ),
    ];
    for (case, spoil, what) in cases {
        let place = Place::new();
        let mut nodes = old_save();
        spoil(&mut nodes);
        let result = place.open_nodes(&nodes).and_then(|source| {
            source.prepare_blocking(&source.images()[0], &Options { jobs: 2, ..Options::new(place.spool()) })
        });
        assert_fails(result.map(|p| p.root), Kind::Untrusted, what, case);
        let left = place.spool().read_dir().map(|d| d.filter_map(Result::ok).collect::<Vec<_>>()).unwrap_or_default();
        let swapped = Digest::of(&layer("b", b"second")).hex().to_owned();
        assert!(
            !left.iter().any(|e| {
                let name = e.file_name().to_string_lossy().into_owned();
                name.starts_with(&swapped) && name.ends_with(".done")
            }),
            "{case}"
        );
    }
}

fn replace(nodes: &mut Nodes, name: &str, node: Node) {
    let place = nodes.iter_mut().find(|(n, _)| n == name).expect("member");
    place.1 = node;
}

#[test]
fn a_full_or_forbidden_spool_is_a_local_error() {
    let place = Place::new();
    let source = place.open_nodes(&old_save()).expect("open");
    std::fs::write(place.spool(), b"a file").expect("write");
    let result = source.prepare_blocking(&source.images()[0], &Options::new(place.spool()));
    let error = result.map(|p| p.root).expect_err("a file is no folder");
    assert_eq!(crate::Failure::kind(&error), Kind::Local);
}

#[tokio::test]
async fn a_dropped_future_stops_the_work() {
    let place = Place::new();
    let source = place.open_nodes(&old_save()).expect("open");
    let (options, stop) = (Options::new(place.spool()), std::sync::atomic::AtomicBool::new(true));
    assert!(source.prepare_watched(&source.images()[0], &options, &stop).is_err(), "stopped");
    assert!(
        !place.spool().read_dir().expect("spool").any(|e| e
            .expect("entry")
            .path()
            .extension()
            .is_some_and(|x| x != "partial"))
    );

    let (sender, receiver) = std::sync::mpsc::channel();
    let progress: Arc<crate::local::Progress> = Arc::new(move |_| {
        let _ = sender.send(());
    });
    let options = Options { progress: Some(progress), ..options };
    let mut future = Box::pin(source.prepare(&source.images()[0], &options));
    let pending = std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_pending())).await;
    assert!(pending);
    receiver.recv().expect("it began");
    drop(future);
    drop(options);
    while receiver.recv().is_ok() {} // ends when the thread has dropped its end
    assert!(
        source.prepare(&source.images()[0], &Options::new(place.spool())).await.is_ok(),
        "and the next run goes on"
    );
}
