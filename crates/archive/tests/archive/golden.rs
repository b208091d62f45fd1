//! Format 1, frozen: a bundle written today is the one written years ago.

use std::fs;

use ferry_image::Digest;

use crate::fixture::{build, parts, secret};

#[test]
fn the_bytes_of_format_1_do_not_change() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("b.tar");
    let sealed = build(&parts(), &path, Some(secret()), false).expect("build");
    let bytes = fs::read(&path).expect("bytes");
    assert_eq!(
        sealed.sums_digest.to_string(),
        "sha256:d36bf1669641d562105ff173828f09124f92bac0f40132529c00c8444c66808e"
    );
    assert_eq!(
        Digest::of(&bytes).to_string(),
        "sha256:3e0855402358fe9f56496a9ec18ee107ef048608ed25248a59e47a7695b1b4c0"
    );
}
