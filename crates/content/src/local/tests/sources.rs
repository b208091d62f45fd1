//! Recognising, listing, choosing.

use ferry_image::media_type;
use serde_json::json;

use super::samples::{Layout, Node, Place, assert_fails, file, gzip, layer, new_save, old_save, tarball, zstd};
use crate::Kind;
use crate::local::{LocalSource, Root, SourceKind};

fn names(source: &LocalSource) -> Vec<Vec<&str>> {
    source.images().iter().map(|i| i.names.iter().map(String::as_str).collect()).collect()
}

#[test]
fn an_old_save_lists_its_images() {
    let place = Place::new();
    let source = place.open_nodes(&old_save()).expect("open");
    assert_eq!(source.kind(), SourceKind::DockerSave);
    assert_eq!(names(&source), [vec!["alluxio/operator:3.2.1", "localhost/3.2.1:latest"], vec![]]);
    assert!(source.choose(Some("operator:3.2.1")).is_ok());
    assert_eq!(source.choose(None).expect("the named one"), &source.images()[0]);
    assert_fails(source.choose(Some("etcd")), Kind::Missing, "`alluxio/operator:3.2.1` = `localhost/3.2.1:latest`", "");
    assert!(!place.spool().exists(), "a plain tar needs no spool");
}

#[test]
fn one_digest_under_two_tags_is_one_image() {
    let source = Place::new().open_nodes(&new_save()).expect("open");
    assert_eq!(source.kind(), SourceKind::DockerOci);
    assert_eq!(names(&source), [["docker.io/library/app:1.0", "docker.io/library/app:latest"]]);
    assert!(source.choose(Some("app")).is_ok());
}

#[test]
fn several_images_must_be_told_apart() {
    let mut layout = Layout::default();
    for tag in ["1", "2"] {
        let image = layout.image("amd64", &[(media_type::OCI_LAYER_GZIP, gzip(&layer(tag, b"x")))]);
        layout.list(image, json!({"org.opencontainers.image.ref.name": tag}));
    }
    let source = Place::new().open_nodes(&layout.finish()).expect("open");
    assert_eq!(source.kind(), SourceKind::OciLayout);
    assert_fails(source.choose(None), Kind::Missing, "it has several images: `1`, `2`", "");
    assert_eq!(source.choose(Some("app:2")).expect("by tag"), &source.images()[1]);
}

#[test]
fn compression_is_told_by_content_and_leaves_no_file() {
    let place = Place::new();
    let plain = tarball(&old_save());
    let (first, second) = plain.split_at(plain.len() / 2);
    let members = [gzip(first), gzip(second)].concat();
    let frames = [zstd(first), zstd(second)].concat();
    for (case, bytes) in [("gzip", gzip(&plain)), ("zstd", zstd(&plain)), ("pigz", members), ("pzstd", frames)] {
        let source = place.open_bytes(&bytes).expect(case);
        assert_eq!(names(&source)[0][0], "alluxio/operator:3.2.1", "{case}");
        assert_eq!(source.unpacked(), plain.len() as u64 - 512, "{case}: up to the end mark");
        assert_eq!(std::fs::read_dir(place.spool()).expect("spool").count(), 0, "{case}");
    }
}

#[test]
fn a_tar_of_a_folder_has_names_with_a_dot() {
    let nodes: Vec<_> = old_save().into_iter().map(|(name, node)| (format!("./{name}"), node)).collect();
    let nodes: Vec<_> = nodes
        .into_iter()
        .map(|(name, node)| match node {
            Node::Hardlink(_) => (name, Node::Hardlink("./l1/layer.tar")),
            node => (name, node),
        })
        .collect();
    assert!(Place::new().open_nodes(&nodes).is_ok());
}

#[test]
fn a_layout_folder_is_read_in_place_and_not_beyond() {
    let place = Place::new();
    let mut layout = Layout::default();
    let image = layout.image("amd64", &[(media_type::OCI_LAYER, layer("x", b"x"))]);
    layout.list(image, json!({}));
    let root = place.unpack(&layout.finish());
    let source = place.open(&root).expect("open");
    assert_eq!(source.kind(), SourceKind::OciLayout);
    let Root::Manifest(descriptor) = &source.choose(None).expect("only").root else { panic!("a manifest") };
    assert_eq!(source.read_manifest(&descriptor.digest).expect("manifest").len() as u64, descriptor.size);

    let blob = root.join(descriptor.digest.blob_path());
    std::fs::rename(&blob, place.folder.path().join("outside")).expect("move");
    std::os::unix::fs::symlink("../../../outside", &blob).expect("link");
    assert_fails(source.read_manifest(&descriptor.digest), Kind::Untrusted, "leads out of the folder", "");
    std::fs::remove_file(&blob).expect("remove");
    assert!(!source.has(&descriptor.digest).expect("has"));
}

#[test]
fn long_names_and_sizes_in_pax_records_are_read() {
    let mut builder = tar::Builder::new(Vec::new());
    let long = format!("{}/layer.tar", "d".repeat(200));
    let content = layer("a", b"a");
    let config = super::samples::config("amd64", &[&content]);
    let manifest = json!([{"Config": "config.json", "RepoTags": ["a:1"], "Layers": [long]}]).to_string();
    let mut add = |name: &str, bytes: &[u8], stated: u64| {
        let mut header = tar::Header::new_ustar();
        header.set_size(stated);
        header.set_mode(0o644);
        if stated != bytes.len() as u64 {
            let size = bytes.len().to_string();
            builder.append_pax_extensions([("size", size.as_bytes()), ("path", name.as_bytes())]).expect("pax");
            header.set_path("short").expect("path");
            header.set_cksum();
            // the crate would write as many bytes as the header states
            let inner = builder.get_mut();
            inner.extend_from_slice(header.as_bytes());
            inner.extend_from_slice(bytes);
            inner.resize(inner.len().next_multiple_of(512), 0);
        } else {
            let mut header = tar::Header::new_gnu();
            header.set_size(stated);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, bytes).expect("append");
        }
    };
    add(&long, &content, content.len() as u64);
    add("config.json", &config, 0);
    add("manifest.json", manifest.as_bytes(), manifest.len() as u64);
    let bytes = builder.into_inner().expect("tar");
    let place = Place::new();
    let source = place.open_bytes(&bytes).expect("open");
    let options = crate::local::Options::new(place.spool());
    assert!(source.need(&source.images()[0], &options).is_ok());
}

#[test]
fn what_is_no_source_is_said_to_be_none() {
    let place = Place::new();
    let save = |name: &str| tarball(&[file(name, "x")]);
    for (case, bytes, what) in [
        ("empty", vec![], "it is empty"),
        ("empty gzip", gzip(b""), "it is empty"),
        ("text", b"hello\n".repeat(200), "neither a tar"),
        ("short text", b"hello\n".to_vec(), "neither a tar"),
        ("web page", b"\n<!DOCTYPE html><html>".to_vec(), "web page"),
        ("zip", b"PK\x03\x04aaaa".to_vec(), "zip"),
        ("xz", b"\xfd7zXZ\0aa".to_vec(), "`xz -d`"),
        ("empty tar", vec![0; 1024], "without any file"),
        ("other tar", save("etc/passwd"), "no `manifest.json`"),
        ("ancient", save("repositories"), "older than 1.10"),
        ("no json", save("manifest.json"), "not that of a saved image"),
        ("no list", tarball(&[file("manifest.json", "{}")]), "not that of a saved image"),
        ("no images", tarball(&[file("manifest.json", "[]")]), "lists no image"),
        ("twice", tarball(&[file("manifest.json", r#"[{"Config":"a","Config":"b"}]"#)]), "duplicate field"),
        (
            "future",
            tarball(&[file("oci-layout", r#"{"imageLayoutVersion":"2.0"}"#), file("index.json", "{}")]),
            "version `2.0`",
        ),
        (
            "index",
            tarball(&[file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#), file("index.json", "{}")]),
            "`index.json` is",
        ),
    ] {
        let result = place.open_bytes(&bytes);
        let text = result.as_ref().err().map(|e| format!("{e} {:?}", crate::Failure::hint(e))).unwrap_or_default();
        assert!(text.contains(what), "{case}: {text}");
        assert_fails(result, Kind::Invalid, "image.tar` is not usable as an image source: ", case);
    }
    let exported = [
        file("etc/hostname", "x"),
        ("etc/mtab".to_owned(), Node::Symlink("/proc/mounts")),
        ("dev/null".to_owned(), Node::Odd(tar::EntryType::Char, 0, vec![])),
    ];
    assert_fails(
        place.open_nodes(&exported),
        Kind::Invalid,
        "it is a tar, but neither a docker-save one",
        "docker export",
    );
    let folder = place.unpack(&[file("manifest.json", "[]")]);
    assert_fails(place.open(&folder), Kind::Invalid, "unpacked docker-save tar", "unpacked");
    std::fs::write(folder.join("version"), "Directory Transport Version: 1.1").expect("write");
    assert_fails(place.open(&folder), Kind::Invalid, "that `skopeo copy … dir:` wrote", "dir:");
    assert_fails(place.open(place.folder.path()), Kind::Invalid, "the folder is not an OCI layout", "folder");
    assert_fails(place.open(&place.folder.path().join("none")), Kind::Local, "cannot read", "nothing there");
    assert_fails(place.open("/dev/null".as_ref()), Kind::Invalid, "neither a file nor a folder", "device");
}
