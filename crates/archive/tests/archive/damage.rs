//! Whatever is wrong with a bundle is found, and told apart.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::LazyLock;

use ferry_archive::{Bundle, Error, Trust, member};
use ferry_content::{Failure as _, Kind};
use ferry_image::{Digest, media_type};
use proptest::prelude::*;

use crate::fixture::{build, check, empty, parts, secret, trust};

/// A signed bundle and its bytes.
fn sealed(folder: &Path) -> (std::path::PathBuf, Vec<u8>) {
    let path = folder.join("b.tar");
    build(&parts(), &path, Some(secret()), false).expect("build");
    let bytes = fs::read(&path).expect("bytes");
    (path, bytes)
}

/// The error of a bundle with these bytes; it must be of the class `Untrusted`.
fn refused(path: &Path, bytes: &[u8], what: &str) -> Error {
    fs::write(path, bytes).expect("write");
    let error = check(path, &trust()).map(|_| ()).expect_err(what);
    assert_eq!(error.kind(), Kind::Untrusted, "{what}: {error}");
    assert!(error.hint().is_some(), "{what}: {error}");
    error
}

#[test]
fn a_flip_of_any_byte_is_found() {
    let folder = tempfile::tempdir().expect("folder");
    let mut small = empty("tiny", None);
    let manifest = small.manifest(false, media_type::OCI_LAYER_GZIP, &[b"layer"]);
    small.image("a/b:1", &manifest, &manifest);
    small.file("yaml/a.yaml", "image: a/b:1\n");
    let path = folder.path().join("b.tar");
    build(&small, &path, Some(secret()), false).expect("build");
    let bytes = fs::read(&path).expect("bytes");
    std::thread::scope(|scope| {
        const WORKERS: usize = 4;
        for worker in 0..WORKERS {
            let (bytes, path) = (&bytes, folder.path().join(format!("{worker}.tar")));
            scope.spawn(move || {
                fs::write(&path, bytes).expect("copy");
                for i in (worker..bytes.len()).step_by(WORKERS) {
                    // Another bit in each of eight neighbouring bytes.
                    flip(&path, bytes, i, 1 << (i % 8));
                }
                check(&path, &trust()).expect("whole again");
            });
        }
    });
}

/// Flips bits of one byte, which must be found, and flips them back.
fn flip(path: &Path, bytes: &[u8], at: usize, mask: u8) {
    let file = fs::File::options().write(true).open(path).expect("open");
    file.write_all_at(&[bytes[at] ^ mask], at as u64).expect("flip");
    let error = check(path, &trust()).map(|_| ()).expect_err(&format!("bits {mask:#x} of byte {at}"));
    assert_eq!(error.kind(), Kind::Untrusted, "byte {at}: {error}");
    file.write_all_at(&[bytes[at]], at as u64).expect("flip back");
}

#[test]
fn every_bit_of_the_signature_counts() {
    let folder = tempfile::tempdir().expect("folder");
    let (path, bytes) = sealed(folder.path());
    let start = bytes.windows(17).position(|w| w == b"untrusted comment").expect("signature");
    for i in start..start + 512 {
        (0..8).for_each(|bit| flip(&path, &bytes, i, 1 << bit));
    }
}

#[test]
fn a_cut_anywhere_is_found() {
    let folder = tempfile::tempdir().expect("folder");
    let (path, bytes) = sealed(folder.path());
    for end in (0..bytes.len()).step_by(97).chain((0..bytes.len()).step_by(512)).chain([bytes.len() - 1]) {
        let error = refused(&path, &bytes[..end], &format!("cut at {end}"));
        let known = matches!(error, Error::Truncated { .. } | Error::NotABundle { .. });
        assert!(known, "cut at {end}: {error}");
    }
}

#[test]
fn whatever_follows_the_end_is_found() {
    let folder = tempfile::tempdir().expect("folder");
    let (path, bytes) = sealed(folder.path());
    for extra in [vec![0], vec![0; 512], vec![0; 10240], b"x".to_vec()] {
        let error = refused(&path, &[bytes.as_slice(), &extra].concat(), "appended");
        assert!(matches!(error, Error::TrailingBytes { .. }), "{error}");
    }
}

/// A member of a tar that ferry would not write.
fn foreign(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut header = member::header("x", content.len() as u64).expect("header");
    header[0..100].fill(0);
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[156] = kind;
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let padding = vec![0; member::padding(content.len() as u64) as usize];
    [header.as_slice(), content, &padding].concat()
}

#[test]
fn planted_members_are_named() {
    let folder = tempfile::tempdir().expect("folder");
    let (path, bytes) = sealed(folder.path());
    let end = bytes.len() - member::END as usize;
    let yaml = (0..end).step_by(512).find(|i| bytes[*i..].starts_with(b"yaml/")).expect("yaml header");
    let cases = [
        (foreign("files/evil", b'0', b"x"), "unknown member `files/evil`"),
        (foreign("/etc/passwd", b'0', b"x"), "absolute"),
        (foreign("files/../../x", b'0', b"x"), "`..`"),
        (foreign("files/link", b'2', b""), "symbolic link"),
        (foreign("files/link", b'1', b""), "hard link"),
        (foreign("files", b'5', b""), "a folder"),
        (foreign("x", b'x', b"11 path=/x\n"), "extension header"),
        (foreign("x", b'7', b""), "of an unknown kind"),
        (foreign("ferry.json", b'0', b"{}"), "twice, or out of its place"),
        (foreign("bin/ferry", b'0', b"x"), "twice, or out of its place"),
    ];
    for (member, expected) in cases {
        for at in [yaml, end] {
            if at == yaml && expected.contains("twice") && expected.contains("ferry.json") {
                continue;
            }
            let planted = [&bytes[..at], &member, &bytes[at..]].concat();
            let error = refused(&path, &planted, expected);
            assert!(error.to_string().contains(expected), "{expected} at {at}: {error}");
        }
    }
}

#[test]
fn all_damaged_members_are_listed_together() {
    let folder = tempfile::tempdir().expect("folder");
    let (path, mut bytes) = sealed(folder.path());
    let bundle = Bundle::open(&path, &trust()).expect("open");
    let layers = [Digest::of(b"its own layer"), Digest::of(&[7; 3000])];
    let parts = parts();
    for layer in &layers {
        let content = &parts.blobs[layer];
        let at = bytes.windows(content.len()).position(|w| w == content).expect("layer");
        bytes[at] ^= 0x80;
    }
    fs::write(&path, &bytes).expect("write");
    let error = bundle.verify(2, false, &|_| {}).expect_err("damaged");
    let Error::Damaged { members, .. } = &error else { panic!("{error}") };
    let mut names: Vec<&str> = members.iter().map(|m| m.name.as_str()).collect();
    names.sort_unstable();
    let mut expected = layers.each_ref().map(Digest::blob_path);
    expected.sort();
    assert_eq!(names, expected);
    assert!(bundle.read_small(&layers[0], 100).is_err());
    assert!(bundle.file("bin/ferry").is_ok());
}

/// Rewrites the head of an unsigned bundle, sums and sizes kept right: only the head's own claims are wrong.
fn with_head(bytes: &[u8], change: impl Fn(&str) -> String) -> Vec<u8> {
    let text = |range: std::ops::Range<usize>| std::str::from_utf8(&bytes[range]).expect("text").to_owned();
    let member = |name: &[u8]| {
        let at = (0..bytes.len()).step_by(512).find(|i| bytes[*i..].starts_with(name)).expect("member");
        let found = member::read(bytes[at..at + 512].try_into().expect("block")).expect("header");
        (at, found.size.expect("size") as usize)
    };
    let (head_at, head_size) = member(b"ferry.json\0");
    let (sums_at, sums_size) = member(b"SHA256SUMS\0");
    let head = text(head_at + 512..head_at + 512 + head_size);
    let changed = change(&head);
    assert_ne!(head, changed, "the change must do something");
    let sums = text(sums_at + 512..sums_at + 512 + sums_size)
        .replace(Digest::of(head.as_bytes()).hex(), Digest::of(changed.as_bytes()).hex());
    let rest = head_at + member::span(head_size as u64) as usize;
    [
        foreign("SHA256SUMS", b'0', sums.as_bytes()),
        foreign("ferry.json", b'0', changed.as_bytes()),
        bytes[rest..].to_vec(),
    ]
    .concat()
}

#[test]
fn a_head_that_lies_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("b.tar");
    build(&parts(), &path, None, false).expect("build");
    let bytes = fs::read(&path).expect("bytes");
    let lenient = Trust { allow_unsigned: true, ..Trust::default() };
    let cases = [
        ("\"size\": 13,\n", "\"size\": 14,\n", "ferry.json says 14"),
        ("\"offset\": 512", "\"offset\": 513", "is said to stand at 513"),
        ("\"format\": 1", "\"format\": 2", "bundle format 2"),
        ("\"format\": 1", "\"format\": \"1\"", "invalid type"),
        ("\"name\": \"demo\"", "\"name\": \"demo\", \"later\": 1", "unknown field `later`"),
        ("\"name\": \"demo\"", "\"name\": \"de\\u0000mo\"", "printable"),
        ("\"path\": \"bin/ferry\"", "\"path\": \"files/../x\"", "`..`"),
        ("\"path\": \"bin/ferry\"", "\"path\": \"files/other\"", "ferry.json has `files/other`"),
        ("docker.io/library/nginx:1.27", "registry.example/app/web:1.0", "listed twice"),
        ("\"size\": 18\n", "\"size\": 1152921504606846976\n", "add up"),
        ("\"size\": 18\n", "\"size\": 18446744073709551615\n", "add up"),
        ("\"size\": 18\n", "\"size\": 19\n", "ferry.json says 19"),
        ("{\n  \"format\"", "{{\n  \"format\"", "ferry.json: "),
    ];
    for (old, new, expected) in cases {
        fs::write(&path, with_head(&bytes, |head| head.replacen(old, new, 1))).expect("write");
        let error = check(&path, &lenient).map(|_| ()).expect_err(expected);
        assert!(error.to_string().contains(expected), "{expected}: {error}");
        assert_eq!(error.kind(), Kind::Untrusted);
    }
    // The same offsets, computed from lying sizes.
    fs::write(&path, with_head(&bytes, |head| head.replace("    {\n", "   {\n"))).expect("write");
    check(&path, &lenient).expect("the head's spelling is the signer's own");
}

#[test]
fn sums_that_do_not_list_what_is_there_are_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("b.tar");
    build(&parts(), &path, None, false).expect("build");
    let bytes = fs::read(&path).expect("bytes");
    let lenient = Trust { allow_unsigned: true, ..Trust::default() };
    let size = member::read(bytes[..512].try_into().expect("block")).and_then(|f| f.size).expect("size");
    let sums = std::str::from_utf8(&bytes[512..512 + size as usize]).expect("text").to_owned();
    let rest = &bytes[member::span(size) as usize..];
    let lines: Vec<&str> = sums.split_inclusive('\n').collect();
    let zeros = "0".repeat(64);
    let cases = [
        (lines[..lines.len() - 1].concat(), "is not listed"),
        (sums.clone() + &format!("{zeros}  files/evil\n"), "`files/evil` is listed"),
        (sums.replace("  bin/ferry", "  bin/FERRY"), "`bin/FERRY` stands where"),
        (sums.replace(lines[5], &format!("{zeros}{}", &lines[5][64..])), "another digest"),
        (sums.replace(lines[0], &format!("{zeros}{}", &lines[0][64..])), "`ferry.json`"),
        (sums.replace("  ", " *"), "line 1"),
        (sums.replacen("ferry.json", "ferry.jsom", 1), "stands where `ferry.json`"),
        (String::new(), "not listed"),
    ];
    for (changed, expected) in cases {
        assert_ne!(changed, sums, "{expected}");
        fs::write(&path, [foreign("SHA256SUMS", b'0', changed.as_bytes()), rest.to_vec()].concat()).expect("write");
        let error = check(&path, &lenient).map(|_| ()).expect_err(expected);
        assert!(error.to_string().contains(expected), "{expected}: {error}");
        assert_eq!(error.kind(), Kind::Untrusted);
    }
}

#[test]
fn other_files_are_not_called_damaged_bundles() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("x");
    let tar = foreign("etc/passwd", b'0', b"x");
    for (bytes, expected) in [
        (b"".to_vec(), "empty"),
        (b"hello".to_vec(), "too short"),
        (vec![0x1f, 0x8b, 8, 0], "gzip"),
        (vec![b'a'; 4096], "not a tar"),
        (tar, "first member is `etc/passwd`"),
    ] {
        let error = refused(&path, &bytes, expected);
        assert!(matches!(error, Error::NotABundle { .. }) && error.to_string().contains(expected), "{error}");
    }
    assert!(matches!(Bundle::open(folder.path(), &trust()), Err(Error::NotABundle { .. })));
    let absent = Bundle::open(&folder.path().join("absent"), &trust()).map(|_| ()).expect_err("absent");
    assert_eq!(absent.kind(), Kind::Local);
}

#[test]
fn sizes_beyond_the_limits_are_not_read() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("b.tar");
    let file = fs::File::create(&path).expect("create");
    file.write_all_at(&member::header("SHA256SUMS", 65 << 20).expect("header"), 0).expect("write");
    file.set_len(1 << 30).expect("grow");
    let error = Bundle::open(&path, &trust()).map(|_| ()).expect_err("too large");
    assert!(matches!(error, Error::TooLarge { limit, .. } if limit == 64 << 20), "{error}");
}

static UNSIGNED: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("b.tar");
    build(&parts(), &path, None, false).expect("build");
    fs::read(&path).expect("bytes")
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Even where nobody signed: whatever is cut out, written over or put in, it is an error and nothing worse.
    #[test]
    fn nothing_can_be_changed_unnoticed(
        at in 0_usize..30_000,
        length in prop_oneof![Just(0_usize), 1..20_usize, Just(512), 0..4000_usize],
        put in prop_oneof![prop::collection::vec(any::<u8>(), 0..20), Just(vec![0; 512]), Just(b"9999999".to_vec())],
        aligned: bool,
    ) {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("b.tar");
        let bytes = UNSIGNED.as_slice();
        let at = if aligned { at / 512 * 512 } else { at }.min(bytes.len());
        let end = (at + length).min(bytes.len());
        let changed = [&bytes[..at], put.as_slice(), &bytes[end..]].concat();
        prop_assume!(changed.as_slice() != bytes);
        fs::write(&path, changed).expect("write");
        let lenient = Trust { allow_unsigned: true, ..Trust::default() };
        match check(&path, &lenient) {
            Ok(_) => prop_assert!(false, "unnoticed"),
            Err(error) => prop_assert_eq!(error.kind(), Kind::Untrusted, "{}", error),
        }
    }
}
