//! An interrupted build goes on where it was.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ferry_archive::{Build, Earlier, Error, Partial};
use ferry_content::{Failure as _, Ingester as _, Kind};
use ferry_image::Digest;

use crate::fixture::{Parts, build, check, fill, parts, runtime, secret, start, trust};

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn create(parts: &Parts, path: &Path) -> Partial {
    let (inputs, lock) = ("what was asked".to_owned(), "what it was".to_owned());
    let build = Build { sign: Some(secret()), inputs, lock, volume: None };
    Partial::create(path, parts.layout(), build).expect("create")
}

#[test]
fn a_dropped_build_keeps_what_it_wrote() {
    let folder = tempfile::tempdir().expect("folder");
    let (path, whole) = (folder.path().join("b.tar"), folder.path().join("whole.tar"));
    let parts = parts();
    build(&parts, &whole, Some(secret()), false).expect("build");
    assert_eq!(Partial::peek(&path).expect("peek"), None);
    let (first, second) = (Digest::of(b"its own layer"), Digest::of(&[7; 3000]));
    let runtime = runtime();

    let partial = create(&parts, &path);
    assert_eq!(partial.resumed_bytes(), 0);
    runtime.block_on(async {
        fill(&partial, &parts.descriptor(&first), &parts.blobs[&first], 5).await;
        assert!(partial.start(&parts.descriptor(&first)).await.expect("start").is_none(), "there already");
        let ingest = start(&partial, &parts.descriptor(&second)).await;
        ingest.write_at(100, vec![Bytes::from(vec![7; 50]), Bytes::from(vec![7; 60])]).await.expect("write");
        assert_eq!(ingest.missing(), [0..100, 210..3000]);
    });
    assert!(matches!(Partial::create(&path, parts.layout(), Build::default()), Err(Error::Busy { .. })));
    drop(partial);
    assert!(!path.exists());
    let earlier = Earlier { inputs: "what was asked".to_owned(), lock: "what it was".to_owned(), volume: None };
    assert_eq!(Partial::peek(&path).expect("peek"), Some(earlier));

    let partial = create(&parts, &path);
    assert_eq!(partial.resumed_bytes(), 13 + 110);
    runtime.block_on(async {
        let ingest = start(&partial, &parts.descriptor(&first)).await;
        assert!(ingest.missing().is_empty(), "only to be hashed again");
        assert_eq!(ingest.read_back(0..13).await.expect("read"), "its own layer");
        ingest.commit().await.expect("commit");
        let ingest = start(&partial, &parts.descriptor(&second)).await;
        assert_eq!(ingest.missing(), [0..100, 210..3000]);
        ingest.reset().await.expect("reset");
        assert_eq!(ingest.missing().len(), 1);
    });
    drop(partial);

    let partial = create(&parts, &path);
    assert_eq!(partial.resumed_bytes(), 13, "a reset is remembered");
    runtime.block_on(async {
        for (digest, bytes) in &parts.blobs {
            fill(&partial, &parts.descriptor(digest), bytes, 1000).await;
        }
    });
    partial.seal(&|_| {}).expect("seal");
    assert!(fs::read(&path).expect("bytes") == fs::read(&whole).expect("bytes"), "the same bytes as in one run");
    assert!(!beside(&path, ".partial").exists() && !beside(&path, ".partial.journal").exists());
}

#[test]
fn a_pause_keeps_what_was_written_while_workers_still_hold_the_file() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("b.tar");
    let parts = parts();
    let second = Digest::of(&[7; 3000]);
    let partial = create(&parts, &path);
    runtime().block_on(async {
        let ingest = start(&partial, &parts.descriptor(&second)).await;
        ingest.write_at(100, vec![Bytes::from(vec![7; 50])]).await.expect("write");
        partial.pause();
        // a worker that has not noticed yet
        ingest.write_at(150, vec![Bytes::from(vec![7; 10])]).await.expect("write");
        let journal = fs::read_to_string(beside(&path, ".partial.journal")).expect("journal");
        assert_eq!(journal.lines().filter(|line| line.ends_with(" 100 150")).count(), 1, "{journal}");
    });
}

#[test]
fn other_content_starts_anew() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("b.tar");
    let mut parts = parts();
    let partial = create(&parts, &path);
    let digest = Digest::of(&[7; 3000]);
    runtime().block_on(fill(&partial, &parts.descriptor(&digest), &parts.blobs[&digest], 1 << 20));
    drop(partial);
    parts.contents.head.version = Some("1.3".to_owned());
    assert_eq!(create(&parts, &path).resumed_bytes(), 0);
    build(&parts, &path, Some(secret()), false).expect("build");
    check(&path, &trust()).expect("check");
}

#[test]
fn a_journal_that_cannot_be_believed_costs_time_only() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("b.tar");
    let (partial_path, journal) = (beside(&path, ".partial"), beside(&path, ".partial.journal"));
    let parts = parts();
    let interrupted = || {
        let partial = create(&parts, &path);
        runtime().block_on(async {
            for (digest, bytes) in &parts.blobs {
                fill(&partial, &parts.descriptor(digest), bytes, 1 << 20).await;
            }
        });
        drop(partial);
        fs::read(&journal).expect("journal")
    };
    let text = interrupted();
    let header = text.iter().position(|b| *b == b'\n').expect("line") + 1;
    let total: u64 = parts.blobs.values().map(|b| b.len() as u64).sum();
    let resumed = |bytes: &[u8]| {
        fs::write(&journal, bytes).expect("journal");
        create(&parts, &path).resumed_bytes()
    };
    assert_eq!(resumed(&text), total);
    let records = |word: &str| String::from_utf8_lossy(&text).matches(word).count();
    assert_eq!(records(" finished "), parts.blobs.len(), "a blob is written down when it is whole");
    assert!(records(" kept ") > 0, "and what was synced as well");
    assert_eq!(resumed(&text[..header + 20]), 0, "a torn line is passed over");
    interrupted();
    assert_eq!(resumed(&[&text[..header], b"\0\0\0\0garbage\n".as_slice(), &text[header..]].concat()), total);
    assert_eq!(resumed(&text[..header - 1]), 0);
    interrupted();
    assert_eq!(resumed(b"not a journal"), 0);
    interrupted();
    fs::remove_file(&partial_path).expect("remove");
    assert_eq!(resumed(&text), 0, "a journal without its file");
    assert_eq!(Partial::peek(&path).expect("peek").map(|e| e.lock), Some("what it was".to_owned()));
    fs::remove_file(&journal).expect("remove");
    assert_eq!(Partial::peek(&path).expect("peek"), None);
}

#[test]
fn a_place_that_cannot_be_written_is_said_at_once() {
    let folder = tempfile::tempdir().expect("folder");
    let layout = || parts().layout();
    let is_folder = Partial::create(folder.path(), layout(), Build::default()).expect_err("a folder");
    assert!(matches!(is_folder, Error::NotAFile { .. }), "{is_folder}");
    let absent = folder.path().join("absent/b.tar");
    let error = Partial::create(&absent, layout(), Build::default()).expect_err("no such folder");
    assert_eq!(error.kind(), Kind::Local, "{error}");
    assert!(error.to_string().contains("absent/b.tar"), "{error}");
}

#[test]
fn a_full_disk_is_said_before_anything_is_written() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("b.tar");
    let mut parts = parts();
    let huge = ferry_image::Descriptor::new("", Digest::of(b"huge"), 1 << 55);
    parts.contents.head.blobs.push(ferry_archive::HeadBlob { digest: huge.digest, size: huge.size, offset: 0 });
    let error = Partial::create(&path, parts.layout(), Build::default()).expect_err("no room");
    let Error::DiskFull { needed, available, .. } = error else { panic!("{error}") };
    assert!(needed > 1 << 55 && available < needed);
    assert_eq!(fs::read_dir(folder.path()).expect("list").count(), 0, "nothing is left");
}
