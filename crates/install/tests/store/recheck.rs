//! A target that has manifests, and not all that they name.

use std::fs;
use std::sync::Arc;

use ferry_content::store::Store;
use ferry_image::{Descriptor, Digest};
use ferry_install::{Options, State};

use crate::kit::{Parts, Site};

pub(crate) fn file(site: &Site, digest: &Digest) -> std::path::PathBuf {
    site.path("store").join(digest.blob_path())
}

/// The same site; its store believes no name.
pub(crate) fn rechecking(site: &Site) -> Site {
    let folder = tempfile::tempdir().expect("folder");
    let store = Store::open(site.path("store")).expect("store").with_sparse_indexes(true).with_rechecks();
    Site { folder, store: Arc::new(store) }
}

#[tokio::test]
async fn what_a_store_lost_or_damaged_is_brought_again_and_nothing_else() {
    let site = Site::new();
    let mut parts = Parts::new();
    let (a, b, whole) = (parts.manifest(&["base", "a"]), parts.manifest(&["b"]), parts.manifest(&["whole"]));
    let index = parts.index(&[&a, &b]);
    parts.image("nginx:1", &index, &[&a, &b]);
    parts.image("nginx:2", &index, &[&a, &b]);
    parts.image("redis:7", &whole, &[&whole]);
    let bundle = parts.seal(site.folder.path()).await;
    let (_, first) = site.push(&bundle, site.options()).await;
    let recheck = || Options { recheck: true, ..site.options() };

    let (preflight, pushed) = rechecking(&site).push(&bundle, recheck()).await;
    assert!(preflight.images.iter().all(|i| matches!(i.state, State::Present(_))));
    assert_eq!((pushed.images, pushed.mended, pushed.sent, pushed.spared), (0, 0, (0, 0), 0));

    // of one layer a bit is flipped, another is gone, a manifest is gone, another is damaged
    let layer = |bytes: &str| Descriptor::of("", bytes.as_bytes()).digest;
    fs::write(file(&site, &layer("base")), "bbse").expect("write");
    fs::remove_file(file(&site, &layer("b"))).expect("remove");
    fs::remove_file(file(&site, &b.digest)).expect("remove");
    fs::write(file(&site, &a.digest), "{}").expect("write");
    let untouched = fs::metadata(file(&site, &layer("a"))).and_then(|m| m.created()).expect("a");

    // a manifest that is there is believed
    let believing = site.look(&bundle, site.options()).await.expect("look");
    assert!(believing.images.iter().all(|i| matches!(i.state, State::Present(_))));

    let look = rechecking(&site).look(&bundle, recheck()).await.expect("look");
    let states: Vec<_> = look.images.iter().map(|i| i.state.clone()).collect();
    let [State::Incomplete(one, blobs), State::Incomplete(..), State::Present(_)] = &states[..] else {
        panic!("{states:?}")
    };
    assert_eq!(one, &index.digest);
    let lost: Vec<&Digest> = blobs.iter().map(|blob| &blob.digest).collect();
    assert_eq!(lost, [&layer("base"), &layer("b")]);
    assert_eq!(look.blobs().expect("blobs"), (2, 5));
    for words in [layer("base"), layer("b"), a.digest.clone(), b.digest.clone()] {
        assert!(look.notes.iter().any(|note| note.contains(&words.to_string())), "{words}: {:?}", look.notes);
    }
    assert!(!file(&site, &b.digest).exists(), "a look changes nothing");

    let (_, pushed) = rechecking(&site).push(&bundle, recheck()).await;
    assert_eq!((pushed.images, pushed.mended, pushed.sent), (0, 2, (2, 5)));
    assert_eq!(pushed.relocation, first.relocation);
    for (digest, bytes) in [(layer("base"), "base"), (layer("b"), "b")] {
        assert_eq!(fs::read(file(&site, &digest)).expect("read"), bytes.as_bytes());
    }
    for manifest in [&a, &b] {
        let bytes = fs::read(file(&site, &manifest.digest)).expect("read");
        assert_eq!(Digest::of(&bytes), manifest.digest);
    }
    assert_eq!(fs::metadata(file(&site, &layer("a"))).and_then(|m| m.created()).expect("a"), untouched);
    assert_eq!(site.at("team/library/nginx", "2"), Some(index.digest));
    let (preflight, _) = rechecking(&site).push(&bundle, recheck()).await;
    assert!(preflight.images.iter().all(|i| matches!(i.state, State::Present(_))));
}

#[tokio::test]
async fn a_damaged_root_is_put_again() {
    let site = Site::new();
    let mut parts = Parts::new();
    let manifest = parts.manifest(&["a"]);
    parts.image("nginx:1", &manifest, &[&manifest]);
    let bundle = parts.seal(site.folder.path()).await;
    site.push(&bundle, site.options()).await;
    for recheck in [false, true] {
        fs::write(file(&site, &manifest.digest), "{}").expect("write");
        let (_, pushed) = rechecking(&site).push(&bundle, Options { recheck, ..site.options() }).await;
        assert_eq!((pushed.images, pushed.mended), (1, 0));
        assert_eq!(site.at("team/library/nginx", "1").as_ref(), Some(&manifest.digest));
    }
}
