use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};

use ferry_image::media_type::{OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST};
use serde_json::json;

use super::*;
use crate::Failure as _;
use crate::store::{ManifestRef, Store};

const HOUR: Duration = Duration::from_secs(3600);

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("folder");
    let store = Store::open(folder.path()).expect("store").with_sparse_indexes(true);
    (folder, store)
}

fn how(grace: Duration) -> Collection {
    Collection { grace, uploads: HOUR, untagged: false, dry_run: false }
}

/// An image of three files; what they are called.
fn image(store: &Store, repository: &str, tag: Option<&str>, text: &str) -> Vec<Digest> {
    let config = store.put_blob(OCI_CONFIG, format!("{{\"of\":\"{text}\"}}").as_bytes()).expect("config");
    let layer = store.put_blob(OCI_LAYER_GZIP, text.as_bytes()).expect("layer");
    let bytes = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer]}).to_string();
    let digest = store.put_manifest(repository, tag, OCI_MANIFEST, bytes.as_bytes()).expect("manifest");
    vec![config.digest, layer.digest, digest]
}

fn index(store: &Store, repository: &str, tag: Option<&str>, children: &[&Digest]) -> Digest {
    let children: Vec<_> =
        children.iter().map(|digest| json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": 200})).collect();
    let bytes = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}).to_string();
    store.put_manifest(repository, tag, OCI_INDEX, bytes.as_bytes()).expect("index")
}

fn referrer(store: &Store, repository: &str, subject: &Digest, text: &str) -> Vec<Digest> {
    let config = store.put_blob("application/vnd.oci.empty.v1+json", b"{}").expect("config");
    let layer = store.put_blob("text/plain", text.as_bytes()).expect("layer");
    let subject = json!({"mediaType": OCI_MANIFEST, "digest": subject, "size": 200});
    let bytes =
        json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer], "subject": subject});
    let digest = store.put_manifest(repository, None, OCI_MANIFEST, bytes.to_string().as_bytes()).expect("referrer");
    vec![config.digest, layer.digest, digest]
}

fn here(store: &Store, digests: &[Digest]) -> usize {
    digests.iter().filter(|digest| store.has_blob(digest).expect("stat")).count()
}

/// Makes everything two hours old.
fn age(store: &Store) {
    let then = SystemTime::now() - 2 * HOUR;
    for folder in ["blobs/sha256", "blobs/sha512"] {
        for entry in fs::read_dir(store.folder().join(folder)).expect("blobs") {
            File::open(entry.expect("entry").path()).expect("open").set_modified(then).expect("age");
        }
    }
}

#[test]
fn only_what_is_old_and_named_by_nobody_goes() {
    let (_folder, store) = store();
    let whole = image(&store, "a/b", Some("v1"), "one");
    let by_digest = image(&store, "a/b", None, "two");
    let carried = image(&store, "c", None, "three");
    let absent = Digest::of(b"another platform");
    let list = index(&store, "c", Some("v1"), &[&carried[2], &absent]);
    let orphan = store.put_blob("x", b"orphan").expect("put").digest;
    let manifest = Digest::of(b"nobody's manifest");
    age(&store);
    let young = store.put_blob("x", b"young").expect("put").digest;
    fs::write(store.folder().join("blobs/sha256/README"), "not ours").expect("write");
    let _ = store.start_upload("a/b").expect("begin");

    let looked = store.collect(&Collection { dry_run: true, ..how(HOUR) }).expect("look");
    assert_eq!(
        (looked.removed.as_slice(), here(&store, std::slice::from_ref(&orphan))),
        ([(orphan.clone(), 6)].as_slice(), 1)
    );
    let collected = store.collect(&how(HOUR)).expect("collect");
    assert_eq!(collected, looked);
    assert_eq!((collected.bytes(), collected.young, collected.kept), (6, 1, 10));
    assert_eq!(here(&store, &[orphan, manifest]), 0);
    assert_eq!(here(&store, &[whole, by_digest, carried, vec![list, young]].concat()), 11);
    assert!(store.folder().join("blobs/sha256/README").exists());
    assert_eq!(fs::read_dir(store.layout.uploads()).expect("uploads").count(), 1, "an upload goes on");
    assert_eq!(store.collect(&how(HOUR)).expect("again").removed, []);
}

#[test]
fn an_abandoned_upload_goes_with_its_hash() {
    let (_folder, store) = store();
    let begin = || {
        let mut upload = store.start_upload("a/b").expect("begin");
        upload.append(&["half".into()]).expect("append");
        upload.id().to_owned()
    };
    let (abandoned, live) = (begin(), begin());
    let path = names(&store.layout.uploads()).expect("uploads").into_iter().find(|name| name.contains(&abandoned));
    let file = store.layout.uploads().join(path.expect("its file"));
    let old = SystemTime::now() - HOUR * 2;
    fs::File::options().write(true).open(&file).expect("open").set_modified(old).expect("age");
    assert_eq!(store.collect(&how(HOUR)).expect("collect").uploads, 4);
    assert!(!file.exists());
    assert!(store.hashers.take(&abandoned, 4).is_none() && store.hashers.take(&live, 4).is_some());
}

#[test]
fn shared_layers_go_with_the_last_image() {
    let (_folder, store) = store();
    let one = image(&store, "a", Some("v1"), "same");
    assert_eq!(image(&store, "b", Some("v1"), "same"), one);
    for (repository, left) in [("a", 3), ("b", 0)] {
        assert!(store.delete_manifest(repository, &ManifestRef::Digest(one[2].clone())).expect("delete"));
        age(&store);
        let _ = store.collect(&how(HOUR)).expect("collect");
        assert_eq!(here(&store, &one), left, "{repository}");
    }
}

#[test]
fn entries_of_other_tools_count() {
    let (_folder, store) = store();
    let theirs = image(&store, "a", Some("v1"), "one");
    let text = fs::read_to_string(store.layout.index()).expect("index").replace("a:v1", "just a name");
    assert!(store.delete_manifest("a", &ManifestRef::Digest(theirs[2].clone())).expect("delete"));
    fs::write(store.layout.index(), text).expect("write");
    age(&store);
    for untagged in [false, true] {
        let collected = store.collect(&Collection { untagged, ..how(HOUR) }).expect("collect");
        assert_eq!((collected.removed.len(), here(&store, &theirs)), (0, 3));
    }
    // an entry that says nothing may stand for anything
    fs::write(store.layout.index(), r#"{"manifests": [{"mediaType": "x"}]}"#).expect("write");
    assert!(matches!(store.collect(&how(HOUR)), Err(Error::NotAStore { .. })));
    assert_eq!(here(&store, &theirs), 3);
}

#[test]
fn a_manifest_that_cannot_be_read_stops_it() {
    let (_folder, store) = store();
    let damaged = image(&store, "a", Some("v1"), "one");
    let orphan = store.put_blob("x", b"orphan").expect("put").digest;
    let path = store.layout.blob(&damaged[2]);
    let good = fs::read(&path).expect("read");
    fs::write(&path, b"{}").expect("damage");
    age(&store);
    let error = store.collect(&how(HOUR)).expect_err("damaged");
    assert!(matches!(&error, Error::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("nothing was removed") && error.hint().is_some());
    assert_eq!(here(&store, std::slice::from_ref(&orphan)), 1);
    fs::write(&path, good).expect("mend");
    age(&store);
    assert_eq!(store.collect(&how(HOUR)).expect("collect").removed, [(orphan, 6)]);
}

#[test]
fn untagged_manifests_go_when_asked_with_what_they_alone_need() {
    let (_folder, store) = store();
    let child = image(&store, "r", None, "child");
    let list = index(&store, "r", Some("v1"), &[&child[2]]);
    let signature = referrer(&store, "r", &list, "signature");
    let of_signature = referrer(&store, "r", &signature[2], "signature of it");
    let old = image(&store, "r", None, "old");
    let lost = referrer(&store, "r", &old[2], "lost");
    let keep = [child, vec![list], signature.clone(), of_signature].concat();
    let all = |grace| Collection { untagged: true, ..how(grace) };
    age(&store);
    let collected = store.collect(&all(HOUR)).expect("collect");
    assert_eq!((collected.untagged.len(), collected.removed.len()), (0, 0), "their records are young");
    std::thread::sleep(Duration::from_millis(20));
    let looked = store.collect(&Collection { dry_run: true, ..all(Duration::ZERO) }).expect("look");
    assert_eq!(store.referrers("r", &old[2]).expect("list").len(), 1);
    let collected = store.collect(&all(Duration::ZERO)).expect("collect");
    assert_eq!(collected, looked);
    let mut expected = vec![("r".to_owned(), old[2].clone()), ("r".to_owned(), lost[2].clone())];
    expected.sort_by_key(|(_, digest)| digest.to_string());
    assert_eq!(collected.untagged, expected);
    assert_eq!((here(&store, &keep), here(&store, &old), here(&store, &lost[1..])), (keep.len(), 0, 0));
    assert!(store.referrers("r", &old[2]).expect("list").is_empty());
    assert_eq!(store.manifest("r", &ManifestRef::Digest(old[2].clone())).expect("read"), None);
}

/// With no grace at all a manifest may come too late, and is told so; once it is taken, everything that it names stays.
#[test]
fn what_was_taken_stays_whole_while_others_collect() {
    let (_folder, store) = store();
    let stop = AtomicBool::new(false);
    let (mut taken, mut late) = (Vec::new(), 0);
    /// Ends the other thread also when this one fails.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    std::thread::scope(|scope| {
        let ended = Stop(&stop);
        let collector = Store::open_existing(store.folder()).expect("another process");
        let stop = &stop;
        let collecting = scope.spawn(move || {
            let mut removed = 0;
            while !stop.load(Ordering::Relaxed) {
                removed += collector.collect(&how(Duration::ZERO)).expect("collect").removed.len();
            }
            removed
        });
        for n in 0..150 {
            let config = store.put_blob(OCI_CONFIG, format!("{{\"n\":{}}}", n % 7).as_bytes()).expect("config");
            let layer = store.put_blob(OCI_LAYER_GZIP, format!("layer {}", n % 5).as_bytes()).expect("layer");
            let bytes = json!({"schemaVersion": 2, "config": config, "layers": [layer]}).to_string();
            match store.put_manifest("r", Some(&format!("t{n}")), OCI_MANIFEST, bytes.as_bytes()) {
                Ok(digest) => taken.push((digest, config.digest, layer.digest)),
                Err(Error::BlobUnknown { .. }) => late += 1,
                Err(error) => panic!("{error}"),
            }
            for (manifest, config, layer) in &taken {
                assert_eq!(here(&store, &[manifest.clone(), config.clone(), layer.clone()]), 3, "at {n}");
            }
            // so that the same blobs become garbage again and again
            if n % 10 == 9 {
                for (manifest, ..) in taken.drain(..) {
                    let _ = store.delete_manifest("r", &ManifestRef::Digest(manifest)).expect("delete");
                }
            }
        }
        drop(ended);
        assert!(collecting.join().expect("collector") > 0, "something was collected meanwhile; {late} came late");
    });
}
