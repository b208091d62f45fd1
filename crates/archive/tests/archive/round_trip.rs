//! What is written reads back, whatever the order of arrival.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use std::sync::Arc;

use bytes::Bytes;
use ferry_archive::{Build, Bundle, Error, FileContent, Layout, Partial, PublicKey, SecretKey, Trust, keys, member};
use ferry_content::{Failure as _, Kind, Provider, read_all};
use ferry_image::{Descriptor, Digest, media_type};
use proptest::prelude::*;

use crate::fixture::{Parts, build, check, empty, parts, runtime, secret, start, trust};

#[test]
fn everything_reads_back() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("b.tar");
    let parts = parts();
    let layout = parts.layout();
    let sealed = build(&parts, &path, Some(secret()), false).expect("build");
    assert_eq!(sealed.size, layout.total_size(true));
    assert_eq!(sealed.size, fs::metadata(&path).expect("there").len());
    let bundle = Bundle::open(&path, &trust()).expect("open");
    assert_eq!(bundle.signed().signers[0].key.key, secret().public_key());
    assert_eq!(bundle.signed().claimed, Some(secret().key_id()));
    assert_eq!((bundle.size(), bundle.sums_digest()), (sealed.size, &sealed.sums_digest));
    assert_eq!(bundle.head(), layout.head());
    let read = AtomicU64::new(0);
    let verified = bundle.verify(3, true, &|n| _ = read.fetch_add(n, Ordering::Relaxed)).expect("verify");
    assert_eq!(verified.blobs, parts.blobs.len());
    assert_eq!(verified.bytes, read.into_inner());

    for (digest, bytes) in &parts.blobs {
        let blob = bundle.blob(digest).expect("blob");
        assert_eq!(&runtime().block_on(read_all(&bundle, &blob, 1 << 20)).expect("read"), bytes);
        assert_eq!(&bundle.read_small(digest, 1 << 20).expect("read"), bytes);
    }
    let manifest = &bundle.head().images[1].root;
    assert_eq!(bundle.blob(&manifest.digest).as_ref(), Some(manifest));
    let error = bundle.read_small(&manifest.digest, 3).expect_err("limit");
    assert_eq!(error.kind(), Kind::Untrusted, "{error}");
    assert_eq!(bundle.read_small(&Digest::of(b"x"), 3).expect_err("absent").kind(), Kind::Missing);

    assert_eq!(bundle.file("bin/ferry").expect("file"), "#!/bin/sh\n");
    let mut copied = Vec::new();
    bundle.copy_file("files/notes/read me.txt", &mut copied).expect("copy");
    assert_eq!(copied, b"hello\n");
    assert!(bundle.file("ferry.json").is_err(), "not a carried file");
    let left_out: Vec<String> = bundle.without_docker().expect("list").iter().map(ToString::to_string).collect();
    assert_eq!(left_out, ["quay.io/a/zstd:1"]);
    assert_eq!(bundle.without_docker().expect("list"), layout.without_docker());
}

#[test]
fn only_bytes_of_the_blob_are_given() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("b.tar");
    let parts = parts();
    build(&parts, &path, None, false).expect("build");
    let lenient = Trust { allow_unsigned: true, ..Trust::default() };
    let bundle = Bundle::open(&path, &lenient).expect("open");
    let digest = Digest::of(&[7; 3000]);
    let blob = bundle.blob(&digest).expect("blob");
    runtime().block_on(async {
        use futures_util::TryStreamExt as _;
        let provider: &dyn Provider = &bundle;
        let part: Vec<Bytes> = provider.open(&blob, 10..2999).await.expect("open").try_collect().await.expect("read");
        assert_eq!(part.concat(), [7; 2989]);
        assert!(provider.open(&blob, 0..3001).await.is_err());
        #[allow(clippy::reversed_empty_ranges, reason = "that it is refused is what is tested")]
        let backwards = provider.open(&blob, 9..3).await;
        assert!(backwards.is_err());
    });
}

#[test]
fn the_order_of_arrival_does_not_show() {
    let folder = tempfile::tempdir().expect("folder");
    let (a, b) = (folder.path().join("a.tar"), folder.path().join("b.tar"));
    let mut parts = parts();
    build(&parts, &a, Some(secret()), false).expect("build");
    parts.contents.files.reverse();
    build(&parts, &b, Some(secret()), true).expect("build");
    assert!(fs::read(&a).expect("a") == fs::read(&b).expect("b"), "the same bytes");
    let names: Vec<_> = fs::read_dir(folder.path()).expect("list").map(|e| e.expect("entry").file_name()).collect();
    assert_eq!(names.len(), 2, "no stray file: {names:?}");
}

#[test]
fn the_members_are_those_of_the_format_in_its_order() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("b.tar");
    let parts = parts();
    build(&parts, &path, Some(secret()), false).expect("build");
    let mut archive = tar::Archive::new(fs::File::open(&path).expect("open"));
    let mut names = Vec::new();
    for entry in archive.entries().expect("entries") {
        let entry = entry.expect("entry");
        let header = entry.header();
        let name = entry.path().expect("name").display().to_string();
        assert_eq!(header.mode().expect("mode"), if name == "bin/ferry" { 0o755 } else { 0o644 });
        assert_eq!((header.uid().expect("uid"), header.mtime().expect("mtime")), (0, 0));
        names.push(name);
    }
    let front = [
        "SHA256SUMS",
        "SHA256SUMS.minisig",
        "ferry.json",
        "oci-layout",
        "index.json",
        "manifest.json",
        "yaml/deployment.yaml",
        "files/notes/read me.txt",
        "bin/ferry",
    ];
    assert_eq!(names[..9], front);
    let blobs: Vec<String> = parts.contents.head.blobs.iter().map(|b| b.digest.blob_path()).collect();
    assert_eq!(names[9..], blobs);
}

#[test]
fn docker_and_oci_indexes_say_what_the_tools_need() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("b.tar");
    let parts = parts();
    build(&parts, &path, None, false).expect("build");
    let mut archive = tar::Archive::new(fs::File::open(&path).expect("open"));
    let mut documents: BTreeMap<String, serde_json::Value> = BTreeMap::new();
    for entry in archive.entries().expect("entries") {
        let entry = entry.expect("entry");
        let name = entry.path().expect("name").display().to_string();
        if name.ends_with(".json") {
            documents.insert(name, serde_json::from_reader(entry).expect("json"));
        }
    }
    let index = documents["index.json"]["manifests"].as_array().expect("entries");
    let named = |d: &serde_json::Value| {
        let annotations = &d["annotations"];
        assert_eq!(annotations["org.opencontainers.image.ref.name"], annotations["io.containerd.image.name"]);
        annotations["io.containerd.image.name"].as_str().map(ToOwned::to_owned)
    };
    let names: Vec<Option<String>> = index.iter().map(named).collect();
    let digest = &parts.contents.head.images[1].root.digest;
    let pinned = format!("quay.io/a/b@{digest}");
    let expected = [
        Some("registry.example/app/web:1.0"),
        Some("docker.io/library/nginx:1.27"),
        Some(&pinned),
        Some("quay.io/a/zstd:1"),
        None,
    ];
    assert_eq!(names, expected.map(|n| n.map(ToOwned::to_owned)));
    let docker = documents["manifest.json"].as_array().expect("entries");
    let tags: Vec<&serde_json::Value> = docker.iter().map(|e| &e["RepoTags"]).collect();
    assert_eq!(
        tags,
        [
            &serde_json::json!(["registry.example/app/web:1.0"]),
            &serde_json::json!(["docker.io/library/nginx:1.27"]),
            &serde_json::Value::Null
        ]
    );
    assert_eq!(docker[1]["Layers"][1], Digest::of(&[7; 3000]).blob_path());
}

#[test]
fn what_cannot_be_carried_is_refused() {
    type Change = fn(&mut Parts);
    let cases: [(&str, Change); 12] = [
        ("sha512", |p| {
            let digest = format!("sha512:{}", "0".repeat(128)).parse().expect("digest");
            p.contents.head.blobs[0].digest = digest;
        }),
        ("listed twice", |p| p.contents.head.blobs.push(p.contents.head.blobs[0].clone())),
        ("not among the blobs", |p| {
            let layer = Digest::of(b"its own layer");
            p.contents.head.blobs.retain(|b| b.digest != layer);
        }),
        ("bytes in its manifest", |p| {
            let layer = Digest::of(b"its own layer");
            p.contents.head.blobs.iter_mut().filter(|b| b.digest == layer).for_each(|b| b.size += 1);
        }),
        ("its bytes are not known", |p| p.contents.manifests.clear()),
        ("listed twice", |p| p.contents.head.images.push(p.contents.head.images[0].clone())),
        ("`..`", |p| p.file("files/../x", "")),
        ("does not stand under", |p| p.file("etc/x", "")),
        ("stands twice", |p| p.file("files/NOTES/read me.txt", "")),
        ("too long", |p| p.file(&format!("files/{}", "x".repeat(101)), "")),
        ("128 printable", |p| p.contents.head.name = "a\nb".to_owned()),
        ("exbibyte", |p| p.contents.head.blobs[0].size = u64::MAX),
    ];
    for (expected, change) in cases {
        let mut parts = parts();
        change(&mut parts);
        let error = Layout::new(parts.contents).expect_err(expected);
        assert!(error.to_string().contains(expected), "{expected}: {error}");
        assert_eq!(error.kind(), Kind::Invalid);
    }
}

#[test]
fn files_are_copied_from_the_disk_if_they_are_still_the_same() {
    let folder = tempfile::tempdir().expect("folder");
    let (path, source) = (folder.path().join("b.tar"), folder.path().join("source"));
    let mut parts = empty("files", None);
    let content = vec![3; (2 << 20) + 5];
    fs::write(&source, &content).expect("source");
    let listed = FileContent::Path { path: source.clone(), digest: Digest::of(&content), size: content.len() as u64 };
    parts.contents.files.push(ferry_archive::File { name: "files/big".to_owned(), content: listed });
    build(&parts, &path, Some(secret()), false).expect("build");
    assert_eq!(check(&path, &trust()).expect("check").file("files/big").expect("file"), content);
    for changed in [vec![4; content.len()], vec![3; 9]] {
        fs::write(&source, changed).expect("source");
        let error = build(&parts, &folder.path().join("c.tar"), None, false).expect_err("changed");
        assert!(matches!(error, Error::FileChanged { .. }), "{error}");
        assert!(!folder.path().join("c.tar").exists());
    }
}

#[test]
fn trust_is_asked_of_the_user() {
    let folder = tempfile::tempdir().expect("folder");
    let (signed, unsigned) = (folder.path().join("s.tar"), folder.path().join("u.tar"));
    build(&parts(), &signed, Some(secret()), false).expect("build");
    build(&parts(), &unsigned, None, false).expect("build");
    let (other, _) = keys::generate(None).expect("key");
    let other = SecretKey::from_text(&other, None).expect("key").public_key();
    let strangers = Trust { keys: vec![other.clone().into()], ..Trust::default() };
    let lenient = |trust: Trust| Trust { allow_unsigned: true, ..trust };
    let open = |path, trust: &Trust| check(path, trust).map(|b| !b.signed().signers.is_empty());

    assert!(matches!(open(&signed, &trust()), Ok(true)));
    assert!(matches!(open(&signed, &Trust::default()), Err(Error::UnknownKey { .. })));
    assert!(matches!(open(&signed, &strangers), Err(Error::UnknownKey { .. })));
    assert!(matches!(open(&unsigned, &trust()), Err(Error::Unsigned { .. })));
    assert!(matches!(open(&signed, &lenient(strangers)), Ok(false)));
    assert!(matches!(open(&unsigned, &lenient(trust())), Ok(false)));
    let mut two = trust();
    two.keys.push(other.into());
    two.require = 2;
    assert!(matches!(open(&signed, &two), Err(Error::TooFewSignatures { required: 2, found, .. }) if found.len() == 1));
    assert!(matches!(open(&unsigned, &lenient(two)), Err(Error::Unsigned { .. })));
}

#[test]
fn protected_keys_need_their_password() {
    let (secret_text, public) = keys::generate(Some("secret")).expect("pair");
    let key = SecretKey::from_text(&secret_text, Some("secret")).expect("unlock");
    assert_eq!(PublicKey::from_text(&public).expect("public"), key.public_key());
    assert!(public.contains(&key.key_id().to_string()), "{public}");
    assert!(matches!(SecretKey::from_text(&secret_text, None), Err(Error::PasswordNeeded)));
    assert!(matches!(SecretKey::from_text(&secret_text, Some("other")), Err(Error::Key { .. })));
    assert!(!format!("{key:?}").contains(&secret_text[60..80]));
    for bad in ["", "a\nb", "untrusted comment: x\nAAAA\n", &public] {
        assert!(SecretKey::from_text(bad, None).is_err(), "{bad}");
    }
    for bad in ["", "a\nb", "untrusted comment: x\nAAAA\n", &secret_text] {
        assert!(PublicKey::from_text(bad).is_err(), "{bad}");
    }
}

#[test]
fn places_of_other_bundles_are_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let parts = parts();
    let partial = Partial::create(&folder.path().join("b.tar"), parts.layout(), Build::default()).expect("create");
    runtime().block_on(async {
        use ferry_content::Ingester as _;
        assert!(partial.start(&Descriptor::of("", b"unknown")).await.is_err());
        let mut blob = parts.descriptor(&Digest::of(&[7; 3000]));
        let ingest = start(&partial, &blob).await;
        assert!(ingest.write_at(2999, vec![Bytes::from_static(b"ab")]).await.is_err(), "never over its neighbour");
        assert!(ingest.read_back(0..3001).await.is_err());
        assert!(ingest.commit().await.is_err(), "not whole");
        blob.size += 1;
        assert!(partial.start(&blob).await.is_err());
    });
    let error = partial.seal(&|_| {}).expect_err("unfinished");
    assert!(matches!(error, Error::Unfinished { missing, .. } if missing == parts.blobs.len()), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn bundles_of_any_shape_read_back(
        sizes in prop::collection::vec(prop_oneof![0_usize..3, 500..530_usize, 1000..5000_usize], 0..6),
        files in prop::collection::vec(0_usize..1200, 0..3),
        signed: bool,
        backwards: bool,
    ) {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("b.tar");
        let mut parts = empty("shape", signed.then_some("7"));
        let layers: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(i, n)| vec![i as u8; *n]).collect();
        let slices: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
        let manifest = parts.manifest(false, media_type::OCI_LAYER, &slices);
        parts.image("a/b:c", &manifest, &manifest);
        for (i, n) in files.iter().enumerate() {
            parts.file(&format!("files/{i}"), vec![b'f'; *n]);
        }
        let key = secret();
        let sealed = build(&parts, &path, signed.then(|| Arc::clone(&key)), backwards).expect("build");
        let trust = Trust { allow_unsigned: !signed, ..trust() };
        let bundle = check(&path, &trust).expect("check");
        prop_assert_eq!(bundle.size(), sealed.size);
        prop_assert_eq!(sealed.size % member::BLOCK, 0);
        prop_assert_eq!(bundle.head().blobs.len(), parts.blobs.len());
    }
}
