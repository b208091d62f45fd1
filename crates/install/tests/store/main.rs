//! Installing small bundles into a store: everything but the network.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod kit;
mod pipes;
mod recheck;
mod several;

use std::path::Path;
use std::sync::Arc;

use ferry_content::Kind;
use ferry_content::store::Store;
use ferry_image::{Digest, Receipt};
use ferry_install::{Destination, IndexMode, OnExisting, Options, State, Which, inventory};
use kit::{Parts, Site, shown};

#[tokio::test]
async fn each_blob_once_and_nothing_twice() {
    let site = Site::new();
    let mut parts = Parts::new();
    let (a, b) = (parts.manifest(&["base", "a"]), parts.manifest(&["base", "b"]));
    parts.image("nginx:1", &a, &[&a]);
    parts.image("redis:7", &b, &[&b]);
    let bundle = parts.seal(site.folder.path()).await;

    let (preflight, pushed) = site.push(&bundle, site.options()).await;
    assert_eq!(preflight.blobs().expect("blobs").0, 5, "two configs, three layers");
    assert_eq!((pushed.images, pushed.sent.0), (2, 5));
    assert_eq!(site.at("team/library/nginx", "1"), Some(a.digest.clone()));

    let (preflight, again) = site.push(&bundle, site.options()).await;
    assert!(preflight.images.iter().all(|i| matches!(i.state, State::Present(_))));
    assert_eq!((again.images, again.sent, again.relocation), (0, (0, 0), pushed.relocation));
}

#[tokio::test]
async fn a_name_that_is_pinned_and_not_pinned_is_one_image() {
    let site = Site::new();
    let mut parts = Parts::new();
    let manifest = parts.manifest(&["a"]);
    let index = parts.sparse(&[&manifest]);
    parts.image("nginx:1", &index, &[&manifest]);
    parts.image("nginx:1@ROOT", &index, &[&manifest]);
    let bundle = parts.seal(site.folder.path()).await;
    for _ in 0..2 {
        let (_, pushed) = site.push(&bundle, site.options()).await;
        let digests: Vec<_> = pushed.relocation.images.iter().map(|i| &i.digest).collect();
        assert_eq!(digests, [&index.digest, &index.digest]);
        assert_eq!(site.at("team/library/nginx", "1"), Some(index.digest.clone()));
    }
}

#[tokio::test]
async fn an_index_shared_by_tags_and_nested_ones_arrives_whole() {
    let site = Site::new();
    let mut parts = Parts::new();
    let (a, b) = (parts.manifest(&["a"]), parts.manifest(&["b"]));
    let inner = parts.index(&[&b]);
    let outer = parts.index(&[&a, &inner]);
    for reference in ["app:1", "app:2", "app@ROOT"] {
        parts.image(reference, &outer, &[&a, &b]);
    }
    parts.image("app:inner", &inner, &[&b]);
    let bundle = parts.seal(site.folder.path()).await;
    // a store that takes whole indexes only, so that the order counts
    let strict = Site { store: Arc::new(Store::open(site.path("strict")).expect("store")), ..site };
    let (_, pushed) = strict.push(&bundle, strict.options()).await;
    assert_eq!(pushed.images, 4);
    assert_eq!(strict.at("team/library/app", "2"), Some(outer.digest));
    assert_eq!(strict.at("team/library/app", "inner"), Some(inner.digest));
}

#[tokio::test]
async fn a_refused_sparse_index_gives_way_to_something_whole() {
    let site = Site::new();
    let site = Site { store: Arc::new(Store::open(site.path("strict")).expect("store")), ..site };
    let mut parts = Parts::new();
    let manifest = parts.manifest(&["a"]);
    let index = parts.sparse(&[&manifest]);
    parts.image("nginx:1@ROOT", &index, &[&manifest]);
    parts.image("nginx@ROOT", &index, &[&manifest]);
    let bundle = parts.seal(site.folder.path()).await;
    let (_, pushed) = site.push(&bundle, site.options()).await;
    assert_eq!(pushed.notes.len(), 2, "{:?}", pushed.notes);
    assert!(pushed.relocation.images.iter().all(|i| i.digest == manifest.digest && i.source_digest == index.digest));
    assert_eq!(site.at("team/library/nginx", "1"), Some(manifest.digest));

    let options = Options { index: IndexMode::Sparse, ..site.options() };
    // there is nothing to give way to, and that is known before anything is pushed
    let problems = site.look(&bundle, options).await.err().expect("refused");
    let hint = problems.iter().next().and_then(|p| p.failure.hint());
    assert!(hint.is_some_and(|hint| hint.contains("--index auto")), "{problems}");
}

#[tokio::test]
async fn a_tag_that_is_there_is_kept_moved_or_refused() {
    let site = Site::new();
    let mut parts = Parts::new();
    let old = parts.manifest(&["old"]);
    parts.image("nginx:1", &old, &[&old]);
    let bundle = parts.seal(site.folder.path()).await;
    site.push(&bundle, site.options()).await;

    let mut parts = Parts::new();
    let (new, other) = (parts.manifest(&["new"]), parts.manifest(&["other"]));
    parts.image("nginx:1", &new, &[&new]);
    parts.image("redis:7", &other, &[&other]);
    let bundle = parts.seal(site.folder.path()).await;
    let with = |on_existing| Options { on_existing, ..site.options() };

    let (kind, problems) = shown(site.look(&bundle, with(OnExisting::Fail)).await);
    assert_eq!((kind, problems.len()), (Kind::Conflict, 1), "{problems:?}");

    let (preflight, pushed) = site.push(&bundle, with(OnExisting::Skip)).await;
    assert_eq!((pushed.images, pushed.skipped, pushed.notes.len()), (1, 1, 1));
    assert_eq!(site.at("team/library/nginx", "1"), Some(old.digest));
    let written = preflight.write(&pushed, jiff::Timestamp::UNIX_EPOCH).expect("write");
    let receipt =
        Receipt::from_json(&std::fs::read(written.receipt.expect("written")).expect("read")).expect("receipt");
    // what was left out is not at the target
    let repositories: Vec<&str> = receipt.repositories.iter().map(|held| held.name.as_str()).collect();
    assert_eq!(repositories, ["reg.local:5000/team/library/redis"]);
    let images: Vec<String> = receipt.images.iter().map(|image| image.reference.to_string()).collect();
    assert_eq!(images, ["docker.io/library/redis:7"]);
    // YAML is rewritten to what stays
    assert_eq!(pushed.relocation.images.len(), 2);
    let held: Vec<&Digest> = receipt.repositories[0].blobs.iter().map(|blob| &blob.digest).collect();
    assert!(held.contains(&&other.digest) && held.contains(&&Digest::of(b"other")));
    assert!(held.is_sorted() && receipt.repositories[0].blobs.iter().any(|blob| blob.size == other.size));

    let (_, pushed) = site.push(&bundle, with(OnExisting::Overwrite)).await;
    assert_eq!((pushed.images, pushed.skipped), (1, 0));
    assert_eq!(site.at("team/library/nginx", "1"), Some(new.digest));
}

#[tokio::test]
async fn everything_wrong_is_told_at_once_and_nothing_is_pushed() {
    let site = Site::new();
    let mut parts = Parts::new();
    for (n, reference) in ["a/etcd:1", "b/etcd:1", "a/app:1", "b/app:1"].into_iter().enumerate() {
        let manifest = parts.manifest(&[&n.to_string()]);
        parts.image(reference, &manifest, &[&manifest]);
    }
    parts.yaml("deploy.yaml", "spec:\n  containers:\n    - image: quay.io/not/carried:1\n");
    let bundle = parts.seal(site.folder.path()).await;
    std::fs::write(site.path("out"), "in the way").expect("write");
    let options =
        Options { layout: Some(ferry_image::Layout::Flat), yaml: vec![site.path("nothing.yaml")], ..site.options() };
    let (kind, problems) = shown(site.look(&bundle, options).await);
    assert_eq!(kind, Kind::Missing);
    let all = problems.join("\n");
    for part in ["`etcd:1`", "`app:1`", "deploy.yaml:3", "nothing.yaml", "--out"] {
        assert!(all.contains(part), "{part} in {all}");
    }
    assert_eq!(site.at("team/etcd", "1"), None);
}

#[tokio::test]
async fn yaml_is_never_read_from_where_it_is_written_to() {
    let site = Site::new();
    let mut parts = Parts::new();
    let manifest = parts.manifest(&["a"]);
    parts.image("nginx:1", &manifest, &[&manifest]);
    parts.yaml("app.yaml", "image: nginx:1 # carried\n");
    let bundle = parts.seal(site.folder.path()).await;
    let work = site.path("work");
    std::fs::create_dir_all(&work).expect("folder");
    std::fs::write(work.join("app.yaml"), "image: nginx:1 # the user's\n").expect("write");

    // a folder that holds the output of an earlier run
    let options = || Options { yaml: vec![work.clone()], out: Some(work.join("out")), ..site.options() };
    for _ in 0..2 {
        let (preflight, pushed) = site.push(&bundle, options()).await;
        let written = preflight.write(&pushed, jiff::Timestamp::UNIX_EPOCH).expect("write");
        let names: Vec<_> = written.yaml.iter().map(|(p, n)| (p.strip_prefix(&work).expect("below"), *n)).collect();
        assert_eq!(names, [(Path::new("out/app.yaml"), 1), (Path::new("out/work/app.yaml"), 1)]);
    }
    let text = std::fs::read_to_string(work.join("out/work/app.yaml")).expect("read");
    assert_eq!(text, "image: reg.local:5000/team/library/nginx:1 # the user's\n");

    // a file of the user's wins over a carried one of its name, and is not replaced itself
    let options = Options { yaml: vec![work.join("app.yaml")], out: Some(work.clone()), ..site.options() };
    let (kind, problems) = shown(site.look(&bundle, options).await);
    assert_eq!((kind, problems.len()), (Kind::Conflict, 1), "{problems:?}");

    // names of ferry's own
    std::fs::write(site.path("receipt.json"), "{}").expect("write");
    let options = Options { yaml: vec![site.path("receipt.json")], ..site.options() };
    assert_eq!(shown(site.look(&bundle, options).await).0, Kind::Conflict);
}

#[tokio::test]
async fn an_inventory_tells_what_an_install_left() {
    let site = Site::new();
    let mut parts = Parts::new();
    let (a, b) = (parts.manifest(&["a", "shared"]), parts.manifest(&["b", "shared"]));
    let sparse = parts.sparse(&[&a]);
    parts.image("nginx:1", &sparse, &[&a]);
    parts.image("nginx:2", &b, &[&b]);
    parts.image("redis@ROOT", &b, &[&b]);
    let bundle = parts.seal(site.folder.path()).await;
    let (preflight, pushed) = site.push(&bundle, Options { index: IndexMode::Sparse, ..site.options() }).await;
    let written = preflight.write(&pushed, jiff::Timestamp::UNIX_EPOCH).expect("write");
    let receipt =
        Receipt::from_json(&std::fs::read(written.receipt.expect("written")).expect("read")).expect("receipt");
    let target = || "reg.local:5000/team".parse().expect("target");
    let destination = Destination::Store { store: Arc::clone(&site.store), target: target() };
    let ask = async |which: Which| inventory(&destination, &which, 3, jiff::Timestamp::UNIX_EPOCH).await;

    let images = receipt.images.clone();
    let found = ask(Which::From { images: images.clone(), others: Vec::new() }).await.expect("inventory");
    assert_eq!((found.receipt.images, found.receipt.repositories), (images.clone(), receipt.repositories.clone()));
    assert!(found.notes.is_empty() && found.receipt.bundles.is_empty());

    // of itself a target knows names there, and nothing that stands under no tag
    let found = ask(Which::Listed).await.expect("inventory").receipt;
    let names: Vec<String> = found.images.iter().map(|image| image.reference.to_string()).collect();
    assert_eq!(names, ["reg.local:5000/team/library/nginx:1", "reg.local:5000/team/library/nginx:2"]);
    assert_eq!(found.repositories, receipt.repositories[..1]);
    let named = ask(Which::These(vec!["library/nginx".to_owned()])).await.expect("inventory").receipt;
    assert_eq!(named, found);
    let (kind, problems) = shown(ask(Which::These(vec!["a".to_owned(), "b".to_owned()])).await);
    assert_eq!((kind, problems.len()), (Kind::Missing, 2), "{problems:?}");

    let mut lost = images[0].clone();
    lost.tag = Some("gone".to_owned());
    let found = ask(Which::From { images: vec![lost], others: vec![] }).await.expect("inventory");
    assert!(found.notes.len() == 1 && found.notes[0].contains("is no longer at"), "{:?}", found.notes);
    let elsewhere =
        Destination::Store { store: Arc::clone(&site.store), target: "reg.local:5000/other".parse().expect("t") };
    let nothing = inventory(&elsewhere, &Which::Listed, 3, jiff::Timestamp::UNIX_EPOCH).await.expect("inventory");
    assert!(nothing.receipt.images.is_empty() && nothing.receipt.repositories.is_empty(), "below the prefix alone");
}
