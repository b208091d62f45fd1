use std::fs;
use std::time::Duration;

use ferry_image::media_type::{OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST};
use ferry_image::{Algorithm, Hasher};
use futures_util::TryStreamExt as _;
use serde_json::{Value, json};

use super::*;
use crate::{Failure as _, Ingester as _, Provider as _, read_all};

pub(super) fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("folder");
    let store = Store::open(folder.path().join("s")).expect("store");
    (folder, store)
}

/// An image with one layer; its blobs are stored, its manifest is not.
pub(super) fn image(store: &Store, layer: &str) -> Vec<u8> {
    let config = store.put_blob(OCI_CONFIG, format!("{{\"of\":\"{layer}\"}}").as_bytes()).expect("config");
    let layer = store.put_blob(OCI_LAYER_GZIP, layer.as_bytes()).expect("layer");
    json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer]}).to_string().into_bytes()
}

fn tag(text: &str) -> ManifestRef {
    text.parse().expect("reference")
}

fn in_uploads(store: &Store) -> usize {
    fs::read_dir(store.layout.uploads()).expect("uploads").count()
}

fn index_names(store: &Store) -> Vec<String> {
    let index: Value = serde_json::from_slice(&fs::read(store.layout.index()).expect("index")).expect("json");
    let entries = index["manifests"].as_array().expect("list");
    entries.iter().map(|e| e["annotations"][index::REF_NAME].as_str().unwrap_or("-").to_owned()).collect()
}

#[test]
fn a_tag_is_an_entry_of_the_layout_and_survives_reopening() {
    let (_folder, store) = store();
    let bytes = image(&store, "one");
    let digest = store.put_manifest("a/b", Some("1.0"), OCI_MANIFEST, &bytes).expect("put");
    assert_eq!(index_names(&store), ["a/b:1.0"]);
    for store in [store.clone(), Store::open_existing(store.folder()).expect("reopen")] {
        let by_tag = store.manifest("a/b", &tag("1.0")).expect("read").expect("there");
        assert_eq!((by_tag.bytes.as_ref(), by_tag.media_type.as_str()), (bytes.as_slice(), OCI_MANIFEST));
        assert_eq!(store.manifest("a/b", &ManifestRef::Digest(digest.clone())).expect("read"), Some(by_tag));
        assert_eq!(store.manifest("a/b", &tag("2.0")).expect("read"), None);
        assert_eq!(store.manifest("a", &ManifestRef::Digest(digest.clone())).expect("read"), None);
        assert_eq!(store.tags("a/b").expect("tags"), Some(vec!["1.0".to_owned()]));
        assert_eq!(store.tags("a").expect("tags"), None);
        assert_eq!(store.repositories().expect("list"), ["a/b"]);
    }
    let layout: Value =
        serde_json::from_slice(&fs::read(store.folder().join("oci-layout")).expect("file")).expect("json");
    assert_eq!(layout, json!({"imageLayoutVersion": "1.0.0"}));
    assert_eq!(in_uploads(&store), 0);
}

#[test]
fn a_tag_moves_and_the_old_manifest_stays_by_digest() {
    let (_folder, store) = store();
    let (one, two) = (image(&store, "one"), image(&store, "two"));
    let first = store.put_manifest("r", Some("t"), OCI_MANIFEST, &one).expect("put");
    let second = store.put_manifest("r", Some("t"), OCI_MANIFEST, &two).expect("put");
    store.put_manifest("r", Some("u"), OCI_MANIFEST, &two).expect("put");
    assert_eq!(store.manifest("r", &tag("t")).expect("read").expect("there").digest, second);
    assert!(store.manifest("r", &ManifestRef::Digest(first)).expect("read").is_some());
    assert_eq!(index_names(&store), ["r:t", "r:u"]);
}

#[test]
fn repositories_see_only_their_own_manifests() {
    let (_folder, store) = store();
    let bytes = image(&store, "one");
    let digest = store.put_manifest("x", None, OCI_MANIFEST, &bytes).expect("put");
    store.put_manifest("x/y/z", Some("t"), OCI_MANIFEST, &image(&store, "two")).expect("put");
    assert_eq!(store.repositories().expect("list"), ["x", "x/y/z"]);
    assert_eq!(store.tags("x").expect("tags"), Some(vec![]));
    assert_eq!(store.manifest("x/y/z", &ManifestRef::Digest(digest)).expect("read"), None);
}

#[test]
fn a_manifest_waits_for_what_it_names() {
    let (_folder, store) = store();
    let absent = Descriptor::of(OCI_LAYER_GZIP, b"absent");
    let config = store.put_blob(OCI_CONFIG, b"{}").expect("config");
    let bytes = json!({"schemaVersion": 2, "config": config, "layers": [absent]}).to_string();
    let error = store.put_manifest("r", Some("t"), OCI_MANIFEST, bytes.as_bytes()).expect_err("refused");
    assert!(matches!(&error, Error::BlobUnknown { missing, .. } if *missing == [absent.digest.clone()]), "{error}");
    assert!(error.to_string().contains(&absent.digest.to_string()));
    assert_eq!(store.repositories().expect("list"), Vec::<String>::new());

    // A child must be a manifest of the same repository, or a pull by digest would not find it.
    let child = Descriptor::of(OCI_MANIFEST, &image(&store, "one"));
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]}).to_string();
    store.put_manifest("other", None, OCI_MANIFEST, &image(&store, "one")).expect("put");
    assert!(store.put_manifest("r", Some("t"), OCI_INDEX, index.as_bytes()).is_err());
    let sparse = store.clone().with_sparse_indexes(true);
    sparse.put_manifest("sparse", Some("t"), OCI_INDEX, index.as_bytes()).expect("a sparse index, if allowed");
    store.put_manifest("r", None, OCI_MANIFEST, &image(&store, "one")).expect("put");
    store.put_manifest("r", Some("t"), OCI_INDEX, index.as_bytes()).expect("put");
}

#[test]
fn names_that_would_leave_the_store_are_refused() {
    let (_folder, store) = store();
    let bytes = image(&store, "one");
    for name in ["", "..", "a/../b", "/a", "a/", "A", "a/_manifests", &"a/".repeat(200)] {
        assert!(matches!(store.put_manifest(name, Some("t"), OCI_MANIFEST, &bytes), Err(Error::Name { .. })), "{name}");
        assert!(matches!(store.start_upload(name), Err(Error::Name { .. })), "{name}");
    }
    for name in ["", "a/b", ".", "-"] {
        assert!(matches!(store.put_manifest("r", Some(name), OCI_MANIFEST, &bytes), Err(Error::Name { .. })), "{name}");
    }
    for id in ["", "../../../etc/passwd", &"/".repeat(32)] {
        assert!(matches!(store.resume_upload("r", id), Err(Error::UploadUnknown { .. })), "{id}");
    }
}

#[test]
fn referrers_are_listed_under_their_subject_until_deleted() {
    let (_folder, store) = store();
    let subject = Digest::of(b"not here, and need not be");
    let config = store.put_blob("application/vnd.example", b"{}").expect("config");
    let bytes = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [],
        "subject": {"mediaType": OCI_MANIFEST, "digest": subject, "size": 1}, "annotations": {"k": "v"}})
    .to_string();
    let digest = store.put_manifest("r", None, OCI_MANIFEST, bytes.as_bytes()).expect("put");
    let found = store.referrers("r", &subject).expect("list");
    assert_eq!(found.iter().map(|d| &d.digest).collect::<Vec<_>>(), [&digest]);
    assert_eq!(found[0].artifact_type.as_deref(), Some("application/vnd.example"));
    assert_eq!(found[0].annotations["k"], "v");
    assert_eq!(store.referrers("other", &subject).expect("list"), []);
    assert!(store.delete_manifest("r", &ManifestRef::Digest(digest.clone())).expect("delete"));
    assert!(!store.delete_manifest("r", &ManifestRef::Digest(digest)).expect("delete"));
    assert_eq!(store.referrers("r", &subject).expect("list"), []);
    assert_eq!(store.repositories().expect("list"), Vec::<String>::new());
}

#[test]
fn deleting_a_digest_takes_its_tags_along_and_no_other() {
    let (_folder, store) = store();
    let (one, two) = (image(&store, "one"), image(&store, "two"));
    let digest = store.put_manifest("r", Some("a"), OCI_MANIFEST, &one).expect("put");
    store.put_manifest("r", Some("b"), OCI_MANIFEST, &one).expect("put");
    store.put_manifest("r", Some("c"), OCI_MANIFEST, &two).expect("put");
    store.put_manifest("s", Some("a"), OCI_MANIFEST, &one).expect("put");
    assert!(store.delete_manifest("r", &ManifestRef::Digest(digest)).expect("delete"));
    assert_eq!(index_names(&store), ["r:c", "s:a"]);
    assert!(store.delete_manifest("r", &tag("c")).expect("delete"));
    assert!(!store.delete_manifest("r", &tag("c")).expect("delete"));
    assert_eq!(store.tags("r").expect("tags"), Some(vec![]));
}

#[test]
fn another_tools_entries_are_kept_and_served() {
    let (_folder, store) = store();
    let bytes = image(&store, "one");
    let blob = store.put_blob(OCI_MANIFEST, &bytes).expect("blob");
    // In place, as skopeo writes.
    let foreign = json!({"schemaVersion": 2, "x": 1, "manifests": [
        {"mediaType": OCI_MANIFEST, "digest": blob.digest, "size": blob.size, "y": 2},
        {"mediaType": OCI_MANIFEST, "digest": blob.digest, "size": blob.size, "annotations": {index::REF_NAME: "f/g:h"}},
    ]});
    fs::write(store.layout.index(), foreign.to_string()).expect("write");
    assert_eq!(store.tags("f/g").expect("tags"), Some(vec!["h".to_owned()]));
    assert!(store.manifest("f/g", &ManifestRef::Digest(blob.digest)).expect("read").is_some());
    store.put_manifest("r", Some("t"), OCI_MANIFEST, &bytes).expect("put");
    let index: Value = serde_json::from_slice(&fs::read(store.layout.index()).expect("index")).expect("json");
    assert_eq!((&index["x"], &index["manifests"][0]["y"]), (&json!(1), &json!(2)));
    assert_eq!(index_names(&store), ["-", "f/g:h", "r:t"]);
}

#[test]
fn a_damaged_manifest_is_not_served() {
    let (_folder, store) = store();
    let bytes = image(&store, "one");
    let digest = store.put_manifest("r", Some("t"), OCI_MANIFEST, &bytes).expect("put");
    fs::write(store.layout.blob(&digest), vec![b' '; bytes.len()]).expect("damage");
    let error = store.manifest("r", &tag("t")).expect_err("refused");
    assert!(matches!(&error, Error::Content(crate::Error::DigestMismatch { .. })), "{error}");
}

#[tokio::test]
async fn a_blob_is_visible_only_after_commit() {
    let (_folder, store) = store();
    let blob = Descriptor::of("x", b"hello world");
    let ingest = store.start(&blob).await.expect("start").expect("wanted");
    assert!(ingest.is_random_access());
    ingest.write_at(5, vec![b" wor".as_ref().into(), b"ld".as_ref().into()]).await.expect("write");
    assert_eq!(ingest.missing(), vec![0..5; 1]);
    assert!(ingest.write_at(8, vec![b"more".as_ref().into()]).await.is_err(), "past the end");
    ingest.write_at(0, vec![b"hello".as_ref().into()]).await.expect("write");
    assert_eq!(ingest.read_back(3..8).await.expect("read"), "lo wo");
    assert_eq!((ingest.missing(), store.has_blob(&blob.digest).expect("stat")), (vec![], false));
    ingest.commit().await.expect("commit");
    assert!(store.has_blob(&blob.digest).expect("stat"));
    assert!(store.start(&blob).await.expect("start").is_none(), "nothing left to do");
    assert_eq!(read_all(&store, &blob, 100).await.expect("read"), "hello world");
    let part: Vec<Bytes> = store.open(&blob, 4..7).await.expect("open").try_collect().await.expect("read");
    assert_eq!(part.concat(), b"o w");
    assert_eq!(in_uploads(&store), 0);
}

#[tokio::test]
async fn what_is_not_whole_is_not_committed_and_leaves_nothing() {
    let (_folder, store) = store();
    let blob = Descriptor::of("x", b"hello world");
    let ingest = store.start(&blob).await.expect("start").expect("wanted");
    ingest.write_at(0, vec![b"hello".as_ref().into()]).await.expect("write");
    assert_eq!(in_uploads(&store), 1);
    assert!(ingest.commit().await.is_err());
    assert_eq!((in_uploads(&store), store.has_blob(&blob.digest).expect("stat")), (0, false));
    let ingest = store.start(&blob).await.expect("start").expect("wanted");
    ingest.write_at(0, vec![b"HELLO".as_ref().into()]).await.expect("write");
    ingest.reset().await.expect("reset");
    assert_eq!(ingest.missing(), vec![0..11; 1]);
    drop(ingest);
    assert_eq!(in_uploads(&store), 0);
}

#[tokio::test]
async fn a_truncated_file_is_not_taken_for_the_blob() {
    let (_folder, store) = store();
    let blob = store.put_blob("x", b"hello world").expect("put");
    fs::write(store.layout.blob(&blob.digest), "hello").expect("truncate");
    assert!(matches!(store.open(&blob, 0..11).await, Err(crate::Error::SizeMismatch { found: 5, .. })));
    assert!(store.start(&blob).await.expect("start").is_some(), "wanted again");
    store.put_blob("x", b"hello world").expect("repair");
    assert_eq!(read_all(&store, &blob, 100).await.expect("read"), "hello world");
}

#[tokio::test]
async fn the_same_blob_twice_at_once_ends_well() {
    let (_folder, store) = store();
    let blob = Descriptor::of("x", b"twice");
    let first = store.start(&blob).await.expect("start").expect("wanted");
    let second = store.start(&blob).await.expect("start").expect("wanted");
    for ingest in [first, second] {
        ingest.write_at(0, vec![b"twice".as_ref().into()]).await.expect("write");
        ingest.commit().await.expect("commit");
    }
    assert_eq!(read_all(&store, &blob, 100).await.expect("read"), "twice");
}

#[test]
fn many_writers_lose_no_tag() {
    let (_folder, store) = store();
    let bytes = image(&store, "one");
    std::thread::scope(|scope| {
        for writer in 0..4 {
            // A store of its own each, as processes have.
            let (store, bytes) = (Store::open(store.folder()).expect("open"), &bytes);
            scope.spawn(move || {
                for n in 0..5 {
                    let name = format!("t{writer}-{n}");
                    store.put_manifest("r", Some(&name), OCI_MANIFEST, bytes).expect("put");
                }
            });
        }
    });
    assert_eq!(store.tags("r").expect("tags").expect("there").len(), 20);
}

#[test]
fn a_held_lock_is_a_clear_error_after_a_while() {
    let (_folder, store) = store();
    let other = Store::open(store.folder()).expect("open");
    let _guard = other.layout.lock().expect("lock");
    let error = store.layout.lock_within(Duration::from_millis(20)).err().expect("held");
    assert!(error.is_transient() && error.to_string().contains("ferry/lock"), "{error}");
}

#[test]
fn an_upload_goes_on_after_a_restart() {
    let (_folder, store) = store();
    let mut upload = store.start_upload("r").expect("start");
    upload.append(&["hel".into(), "lo ".into()]).expect("append");
    let id = upload.id().to_owned();
    drop(upload);
    let again = Store::open(store.folder()).expect("reopen");
    assert_eq!(again.upload_offset("r", &id).expect("offset"), 6);
    assert!(matches!(again.resume_upload("s", &id), Err(Error::UploadUnknown { .. })), "another repository's");
    let mut upload = again.resume_upload("r", &id).expect("resume");
    upload.append(&["world".into()]).expect("append");
    drop(upload);
    let digest = Digest::of(b"hello world");
    let blob = again.resume_upload("r", &id).expect("resume").finish(&digest).expect("finish");
    assert_eq!((blob.size, store.blob_size(&digest).expect("stat")), (11, Some(11)));
    assert!(matches!(again.resume_upload("r", &id), Err(Error::UploadUnknown { .. })));
    assert_eq!(in_uploads(&store), 0);
}

#[test]
fn an_upload_with_another_digest_is_thrown_away() {
    let (_folder, store) = store();
    let digest = Digest::of(b"right");
    let mut upload = store.start_upload("r").expect("start");
    upload.append(&["wrong".into()]).expect("append");
    let error = upload.finish(&digest).expect_err("refused");
    assert!(matches!(&error, Error::Content(crate::Error::DigestMismatch { .. })), "{error}");
    assert_eq!((in_uploads(&store), store.has_blob(&digest).expect("stat")), (0, false));
    store.start_upload("r").expect("start").cancel().expect("cancel");
    assert_eq!(in_uploads(&store), 0);
}

#[test]
fn an_upload_may_have_a_sha512_digest() {
    let (_folder, store) = store();
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(b"long");
    let digest = hasher.finish();
    let mut upload = store.start_upload("r").expect("start");
    upload.append(&["long".into()]).expect("append");
    upload.finish(&digest).expect("finish");
    assert!(store.folder().join(digest.blob_path()).is_file());
}

#[test]
fn a_session_that_ends_leaves_no_hash_behind_and_a_long_one_is_cancelled_without_being_read() {
    let (_folder, store) = store();
    let begin = || {
        let mut upload = store.start_upload("r").expect("start");
        upload.append(&["hello".into()]).expect("append");
        upload.id().to_owned()
    };
    let resume = |id: &str| store.resume_upload("r", id);
    let ids: [String; 4] = std::array::from_fn(|_| begin());
    assert_eq!(store.hashers.len(), 4);
    resume(&ids[0]).expect("there").finish(&Digest::of(b"hello")).expect("finish");
    resume(&ids[1]).expect("there").cancel().expect("cancel");
    let path = |id: &str| store.layout.uploads().join(format!("session-{id}-{}", Digest::of(b"r").short()));
    // by another process
    fs::remove_file(path(&ids[2])).expect("remove");
    assert!(matches!(resume(&ids[2]), Err(Error::UploadUnknown { .. })));
    assert_eq!(store.hashers.len(), 1);
    // so long that no disk reads it in the time of a test
    fs::File::options().write(true).open(path(&ids[3])).expect("open").set_len(1 << 40).expect("length");
    drop(resume(&ids[3]).expect("there"));
    resume(&ids[3]).expect("there").cancel().expect("cancel");
    assert_eq!((store.hashers.len(), in_uploads(&store)), (0, 0));
}

#[test]
fn what_a_killed_process_left_is_swept_but_not_what_is_in_use() {
    let (_folder, store) = store();
    let old = std::time::SystemTime::now() - Duration::from_secs(30 * 24 * 3600);
    let age = |path: &Path| fs::File::options().write(true).open(path).expect("open").set_modified(old).expect("age");
    let dead = store.layout.uploads().join("blob-dead");
    fs::write(&dead, "half").expect("write");
    age(&dead);
    let live = store.start_upload("r").expect("start");
    age(&store.layout.uploads().join(format!("session-{}-{}", live.id(), Digest::of(b"r").short())));
    fs::write(store.layout.uploads().join("blob-fresh"), "half").expect("write");
    let held = super::durable::Temp::create(&store.layout.uploads(), "blob-").expect("create");
    Store::open(store.folder()).expect("reopen");
    assert!(!dead.exists());
    assert!(held.path().exists());
    assert_eq!((in_uploads(&store), store.upload_offset("r", live.id()).expect("there")), (2, 0));
}

#[test]
fn a_folder_that_is_something_else_is_left_alone() {
    let folder = tempfile::tempdir().expect("folder");
    fs::write(folder.path().join("notes.txt"), "mine").expect("write");
    for result in [Store::open(folder.path()), Store::open_existing(folder.path())] {
        assert!(matches!(result, Err(Error::NotAStore { .. })));
    }
    assert_eq!(fs::read_dir(folder.path()).expect("list").count(), 1);
    let layout = tempfile::tempdir().expect("folder");
    fs::write(layout.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("write");
    let error = Store::open(layout.path()).expect_err("another tool's");
    assert!(error.to_string().contains("another tool"), "{error}");
    assert!(Store::open_existing(folder.path().join("absent")).is_err());
    assert!(!folder.path().join("absent").exists());
}

#[tokio::test]
async fn the_copy_loop_fills_it_and_finds_what_is_there() {
    use crate::copy::{Job, Options, Outcome, Silent, copy_all};
    let (_folder, store) = store();
    let bytes: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    let blob = Descriptor::of("x", &bytes);
    let mut memory = crate::memory::Memory::default();
    memory.insert(bytes.clone());
    let job = Job::new(blob.clone(), Arc::new(memory), Arc::new(store.clone()));
    for expected in [Outcome::Copied, Outcome::Present] {
        let options = Options { smallest_range: 50_000, ..Options::default() };
        let outcomes = copy_all(vec![job.clone()], &options, Arc::new(Silent)).await;
        assert_eq!(outcomes[0].as_ref().expect("begun").as_ref().expect("copied"), &expected);
    }
    assert_eq!(read_all(&store, &blob, 1 << 20).await.expect("read"), bytes);
}
