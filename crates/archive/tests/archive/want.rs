//! Want lists: what of a damaged bundle is asked for again.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use ferry_archive::{Bundle, Want};
use ferry_image::{Descriptor, Digest, media_type};

use crate::fixture::{Parts, build, parts, secret, trust};

fn opened(parts: &Parts, path: &Path) -> Bundle {
    build(parts, path, Some(secret()), false).expect("build");
    Bundle::open(path, &trust()).expect("open")
}

/// Flips a bit in the middle of a blob.
fn damage(bundle: &Bundle, path: &Path, digest: &Digest) {
    let bytes = std::fs::read(path).expect("read");
    let blob = bundle.read_small(digest, 1 << 20).expect("whole");
    let at = bytes.windows(blob.len()).position(|window| window == blob).expect("in the file") + blob.len() / 2;
    let file = std::fs::File::options().write(true).open(path).expect("open");
    file.write_all_at(&[bytes[at] ^ 1], at as u64).expect("write");
}

fn references(want: &Want) -> Vec<String> {
    want.images.iter().map(|image| image.reference.to_string()).collect()
}

fn digests(want: &Want) -> Vec<&Digest> {
    want.blobs.iter().map(|blob| &blob.digest).collect()
}

#[test]
fn the_images_that_need_what_is_damaged_are_named() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("b.tar");
    let bundle = opened(&parts(), &path);
    let shared = Digest::of(b"a shared layer");
    damage(&bundle, &path, &shared);
    let want = Want::of(&bundle, &[shared.clone(), Digest::of(b"not in this bundle")]);
    assert_eq!(digests(&want), [&shared]);
    assert_eq!((want.blobs[0].size, want.bytes()), (14, 14));
    let names = references(&want);
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(!names.iter().any(|name| name.contains("zstd")), "{names:?}");
    assert_eq!(want.images[0].target.as_ref().map(ToString::to_string).as_deref(), Some("web"));
    assert_eq!((want.bundle.name.as_str(), &want.bundle.sums), ("demo", bundle.sums_digest()));
    assert_eq!(Want::from_json(&want.to_json().expect("json")), Ok(want));
}

#[test]
fn what_a_damaged_manifest_names_is_not_needed_to_ask_for_it() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("b.tar");
    let mut parts = parts();
    let zstd = parts.contents.head.images[3].platforms[0].manifest.digest.clone();
    let image = &parts.contents.head.images[0].root.clone();
    let referrer = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "layers": [], "subject": image,
        "config": Descriptor::of(media_type::OCI_CONFIG, b"{}"),
    });
    parts.blob(media_type::OCI_CONFIG, "{}");
    let referrer_bytes = referrer.to_string();
    let referrer = parts.blob(media_type::OCI_MANIFEST, referrer_bytes.clone());
    parts.contents.manifests.insert(referrer.digest.clone(), referrer_bytes.into());
    parts.contents.head.images[0].referrers.push(referrer.clone());
    let bundle = opened(&parts, &path);
    damage(&bundle, &path, &zstd);
    // a manifest that nobody can read is wanted, whether it is named or not
    for named in [vec![zstd.clone()], Vec::new()] {
        let want = Want::of(&bundle, &named);
        assert_eq!((digests(&want), references(&want)), (vec![&zstd], vec!["quay.io/a/zstd:1".to_owned()]));
    }
    let want = Want::of(&bundle, &[parts.contents.head.images[0].root.digest.clone()]);
    let subjects: Vec<_> = want.images[0].referrers.iter().map(|referrer| referrer.subject.clone()).collect();
    assert_eq!(subjects, [None, Some(image.digest.clone())], "the first names no subject");
    damage(&bundle, &path, &referrer.digest);
    let want = Want::of(&bundle, &[]);
    assert_eq!((references(&want).len(), want.images[0].referrers[1].subject.as_ref()), (2, None));
}

#[test]
fn what_is_no_want_list_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let bundle = opened(&parts(), &folder.path().join("b.tar"));
    let want = Want::of(&bundle, &[Digest::of(b"a shared layer"), Digest::of(b"zstd layer")]);
    let good = serde_json::to_value(&want).expect("json");
    let changed = |path: &str, to: serde_json::Value| {
        let mut bad = good.clone();
        *bad.pointer_mut(path).expect("there") = to;
        bad
    };
    let mut extra = good.clone();
    extra["extra"] = 1.into();
    let mut backwards = want.blobs.clone();
    backwards.reverse();
    for (bad, why) in [
        (serde_json::json!({}), "version"),
        (extra, "unknown field"),
        (changed("/version", 2.into()), "its version is 2"),
        (changed("/blobs", serde_json::json!([])), "wants nothing"),
        (changed("/images", serde_json::json!([])), "wants nothing"),
        (changed("/blobs", serde_json::to_value(&backwards).expect("json")), "out of order"),
        (changed("/blobs/0/size", u64::MAX.into()), "exbibyte"),
        (changed("/blobs/0/digest", format!("sha512:{}", "ab".repeat(64)).into()), "sha512"),
        (changed("/bundle/name", "\u{7}".into()), "printable"),
        (changed("/images/1", good["images"][0].clone()), "listed twice"),
    ] {
        let error = Want::from_json(bad.to_string().as_bytes()).expect_err(why).to_string();
        assert!(error.contains(why), "{error}");
    }
}
