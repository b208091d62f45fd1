//! Tars that were made to hurt.

use std::sync::LazyLock;

use ferry_image::media_type;
use proptest::prelude::*;
use serde_json::json;
use tar::EntryType;

use super::samples::{Layout, Node, Nodes, Place, assert_fails, file, gzip, layer, new_save, old_save, tarball, zstd};
use crate::local::{Limits, LocalSource, Options};
use crate::{Failure as _, Kind};

fn odd(name: &str, node: Node) -> Nodes {
    let mut nodes = vec![(name.to_owned(), node)];
    nodes.extend(old_save());
    nodes
}

fn pax(record: &str) -> Vec<u8> {
    let nodes = [("pax".to_owned(), Node::Odd(EntryType::XHeader, record.len() as u64, record.into()))];
    let mut bytes = tarball(&nodes);
    bytes.truncate(1024);
    bytes.extend(tarball(&old_save()[1..]));
    bytes
}

/// GNU tar and the `tar` crate would call the member `one`, others `two`.
fn two_names() -> Vec<u8> {
    let mut nodes = vec![("@LongLink".to_owned(), Node::Odd(EntryType::GNULongName, 4, b"one\0".into()))];
    nodes.push(("pax".to_owned(), Node::Odd(EntryType::XHeader, 12, b"12 path=two\n".into())));
    nodes.extend(old_save());
    tarball(&nodes)
}

#[test]
fn structure_that_no_tool_writes_is_refused() {
    let place = Place::new();
    let plain = tarball(&old_save());
    let flip = |at: usize| {
        let mut bytes = plain.clone();
        bytes[at] ^= 1;
        bytes
    };
    let mut wrong_checksum = gzip(&plain);
    let at = wrong_checksum.len() - 6;
    wrong_checksum[at] ^= 1;
    let huge = Node::Odd(EntryType::Regular, 1 << 40, vec![]);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("dots", tarball(&odd("a/../../x", Node::File(vec![]))), "leads out of the tar with `..`"),
        ("absolute", tarball(&odd("/etc/passwd", Node::File(vec![]))), "absolute name"),
        ("absolute folder", tarball(&odd("/etc/", Node::Folder)), "absolute name"),
        ("control characters", tarball(&odd("a\nb", Node::File(vec![]))), "`a\\nb` has control characters"),
        ("link outside", tarball(&odd("x/y", Node::Symlink("../../etc/shadow"))), "leads out of the tar"),
        ("absolute link", tarball(&odd("x", Node::Symlink("/etc/shadow"))), "leads out of the tar"),
        ("hard link outside", tarball(&odd("x/y", Node::Hardlink("../x"))), "leads out of the tar"),
        ("empty link", tarball(&odd("x", Node::Symlink(""))), "is empty"),
        ("link to itself", tarball(&odd("x", Node::Symlink("x"))), "in a circle"),
        (
            "circle",
            tarball(&[odd("x", Node::Symlink("y")), vec![("y".to_owned(), Node::Hardlink("x"))]].concat()),
            "in a circle",
        ),
        ("twice", tarball(&odd("manifest.json", Node::File(b"[]".to_vec()))), "two members `manifest.json`"),
        ("twice, in disguise", tarball(&odd(".//manifest.json", Node::File(b"[]".to_vec()))), "two members"),
        ("twice, as a link", tarball(&odd("manifest.json", Node::Symlink("l1/json"))), "two members"),
        ("character device", tarball(&odd("dev", Node::Odd(EntryType::Char, 0, vec![]))), "a device"),
        ("block device", tarball(&odd("dev", Node::Odd(EntryType::Block, 0, vec![]))), "a device"),
        ("pipe", tarball(&odd("p", Node::Odd(EntryType::Fifo, 0, vec![]))), "a pipe"),
        ("unknown type", tarball(&odd("p", Node::Odd(EntryType::new(b'Q'), 0, vec![]))), "type `Q`"),
        ("sparse", tarball(&odd("p", Node::Odd(EntryType::GNUSparse, 0, vec![]))), "sparse"),
        ("folder with content", tarball(&odd("d/", Node::Odd(EntryType::Directory, 5, vec![0; 5]))), "states 5 bytes"),
        ("size beyond the end", tarball(&odd("big", huge)), "cut off"),
        ("size beyond reason", tarball(&odd("big", Node::Odd(EntryType::Regular, u64::MAX >> 1, vec![]))), "cut off"),
        ("long name", tarball(&odd("n", Node::Odd(EntryType::GNULongName, 1 << 33, vec![]))), "extended header"),
        ("PAX", tarball(&odd("n", Node::Odd(EntryType::XHeader, 1 << 33, vec![]))), "extended header"),
        ("global PAX", tarball(&odd("n", Node::Odd(EntryType::XGlobalHeader, 1 << 33, vec![]))), "extended header"),
        ("PAX record", pax("99 path=x\n"), "whose length is wrong"),
        ("PAX size", pax("12 size=zzz\n"), "size that is no number"),
        ("PAX huge size", pax("29 size=18446744073709551615\n"), "more than any file can have"),
        ("PAX dots", pax("14 path=../xy\n"), "leads out of the tar"),
        ("two names", two_names(), "two names"),
        ("PAX sparse", pax("22 GNU.sparse.major=1\n"), "sparse"),
        ("flipped header", flip(600), "checksum is wrong"),
        ("no end", plain[..plain.len() - 1024].to_vec(), "without the end mark"),
        ("cut in a header", plain[..1024 + 100].to_vec(), "cut off"),
        ("cut in a member", plain[..plain.len() / 3].to_vec(), "cut off"),
        ("cut gzip", gzip(&plain)[..2000].to_vec(), "ends early"),
        ("gzip without its checksum", gzip(&plain)[..gzip(&plain).len() - 4].to_vec(), "ends early"),
        ("cut zstd", zstd(&plain)[..2000].to_vec(), "ends early"),
        ("damaged gzip", wrong_checksum, "is damaged"),
        ("damaged zstd", [&zstd(&plain)[..4], &[0xff; 5000]].concat(), "is damaged"),
        ("gzip of a damaged tar", gzip(&flip(600)), "checksum is wrong"),
    ];
    for (case, bytes, what) in cases {
        let (bytes, what) = (bytes.as_slice(), what);
        assert_fails(place.open_bytes(bytes), Kind::Untrusted, what, case);
    }
}

#[test]
fn a_bomb_stops_at_the_limit() {
    let place = Place::new();
    let limits = Limits { max_unpacked: 10 << 20 };
    let bomb = |after: &[u8]| {
        let mut bytes = after.to_vec();
        bytes.resize(after.len() + (40 << 20), 0);
        bytes
    };
    let member = tarball(&[file("zeros", vec![0; 40 << 20])]);
    for (case, bytes) in [
        ("gzip member", gzip(&member)),
        ("zstd member", zstd(&member)),
        ("gzip after the end", gzip(&bomb(&tarball(&old_save())))),
        ("zstd after the end", zstd(&bomb(&tarball(&old_save())))),
    ] {
        let result = LocalSource::open_blocking(&place.write(&bytes), &place.spool(), &limits);
        assert_fails(result, Kind::Invalid, "more than the 10485760 bytes that are allowed", case);
    }
    let raw = vec![0_u8; 40 << 20];
    let config = super::samples::config("amd64", &[&raw]);
    let list = json!([{"Config": "c.json", "Layers": ["l"]}]).to_string();
    let nodes = [file("c.json", config), file("l", gzip(&raw)), file("manifest.json", list)];
    let source = place.open_nodes(&nodes).expect("open");
    let options = Options { limits, ..Options::new(place.spool()) };
    let result = source.prepare_blocking(&source.images()[0], &options);
    assert_fails(result.map(|p| p.root), Kind::Untrusted, "layer `l` unpacks to more than", "layer");
}

#[test]
fn documents_have_a_limit() {
    let place = Place::new();
    let big = vec![b' '; (4 << 20) + 1];
    let cases = [
        ("manifest.json", vec![file("manifest.json", big.clone())]),
        ("index.json", vec![file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#), file("index.json", big)]),
        ("oci-layout", vec![file("oci-layout", vec![b' '; 5000]), file("index.json", "{}")]),
    ];
    for (what, nodes) in cases {
        assert_fails(place.open_nodes(&nodes), Kind::Untrusted, &format!("`{what}` has "), what);
    }
}

#[test]
fn contradictions_between_documents_are_refused() {
    let list = |value: serde_json::Value| vec![file("manifest.json", value.to_string()), file("l", layer("a", b"a"))];
    let twice = json!([{"Config": "c", "Layers": ["l"]}, {"Config": "c", "Layers": []}]);
    assert_fails(Place::new().open_nodes(&list(twice)), Kind::Untrusted, "lists the config `c` twice", "twice");

    let place = Place::new();
    let mut nodes = list(json!([{"Config": "c", "Layers": ["l", "l"]}]));
    nodes.push(file("c", super::samples::config("amd64", &[&layer("a", b"a")])));
    let source = place.open_nodes(&nodes).expect("open");
    let result = source.need(&source.images()[0], &Options::new(place.spool()));
    assert_fails(result, Kind::Untrusted, "lists 2 layers for `c`, but that config 1", "count");

    let mut nodes = list(json!([{"Config": "../c", "Layers": ["/etc/passwd"]}]));
    nodes.push(file("c", super::samples::config("amd64", &[&layer("a", b"a")])));
    let source = place.open_nodes(&nodes).expect("open");
    let result = source.need(&source.images()[0], &Options::new(place.spool()));
    assert_fails(result, Kind::Untrusted, "the config `../c` is not in it", "names outside");
}

#[tokio::test]
async fn a_layout_that_lies_about_its_blobs_is_refused() {
    let spoil = |change: &dyn Fn(&mut Nodes)| {
        let mut nodes = new_save();
        change(&mut nodes);
        nodes
    };
    let manifest = |nodes: &Nodes| {
        nodes
            .iter()
            .position(|(name, node)| {
                name.starts_with("blobs/") && matches!(node, Node::File(b) if b.starts_with(br#"{"config":"#) || b.starts_with(br#"{"schemaVersion""#))
            })
            .expect("manifest")
    };
    let cases: [(&str, Nodes, &str); 5] = [
        (
            "no manifest",
            spoil(&|n| {
                let i = manifest(n);
                n.remove(i);
            }),
            "which is not in it",
        ),
        (
            "no config",
            spoil(&|n| {
                n.remove(0);
            }),
            "needs blob",
        ),
        (
            "longer manifest",
            spoil(&|n| {
                let i = manifest(n);
                if let Node::File(b) = &mut n[i].1 {
                    b.push(b' ');
                }
            }),
            "bytes instead of",
        ),
        (
            "other manifest",
            spoil(&|n| {
                let i = manifest(n);
                if let Node::File(b) = &mut n[i].1 {
                    b[5] ^= 1;
                }
            }),
            "has other content",
        ),
        (
            "other layer",
            spoil(&|n| {
                if let Node::File(b) = &mut n[2].1 {
                    b[600] ^= 1;
                }
            }),
            "has other content",
        ),
    ];
    for (case, nodes, what) in cases {
        let place = Place::new();
        let source = place.open_nodes(&nodes).expect("open");
        let result = source.prepare_blocking(&source.images()[0], &Options::new(place.spool()));
        assert_fails(result.map(|p| p.root), Kind::Untrusted, what, case);
    }
}

#[test]
fn indexes_without_end_are_refused() {
    let mut layout = Layout::default();
    let mut entry = layout.image("amd64", &[(media_type::OCI_LAYER, layer("x", b"x"))]);
    for _ in 0..6 {
        entry = layout.index(&[entry]);
    }
    layout.list(entry, json!({}));
    let mut nodes = layout.finish();
    nodes.push(file("manifest.json", "[]"));
    let place = Place::new();
    let source = place.open_nodes(&nodes).expect("open");
    let result = source.need(&source.images()[0], &Options::new(place.spool()));
    assert_fails(result, Kind::Untrusted, "indexes name indexes", "");
}

/// Each index names the next one many times: 10^9 ways lead down.
#[test]
fn indexes_that_multiply_are_refused() {
    let mut layout = Layout::default();
    let mut entry = layout.index(&[]);
    for _ in 0..3 {
        entry = layout.index(&vec![entry; 1000]);
    }
    layout.list(entry, json!({}));
    let mut nodes = layout.finish();
    nodes.push(file("manifest.json", "[]"));
    let place = Place::new();
    let source = place.open_nodes(&nodes).expect("open");
    let result = source.need(&source.images()[0], &Options::new(place.spool()));
    assert_fails(result, Kind::Untrusted, "more than 512 manifests", "");
}

/// A save without its large layer.
static SMALL: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let nodes: Nodes = old_save().into_iter().filter(|(n, _)| n != "l1/layer.tar" && n != "l4/layer.tar").collect();
    tarball(&nodes)
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is changed: no panic, and whatever still opens gives an image with the right digests or an error.
    #[test]
    fn any_change_is_an_error_or_harmless(at in 0_usize..20_000, byte in any::<u8>(), cut in any::<bool>()) {
        let mut bytes = SMALL.clone();
        let at = at % bytes.len();
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        let place = Place::new();
        match place.open_bytes(&bytes) {
            Ok(source) => {
                for image in source.images() {
                    let _ = source.need(image, &Options::new(place.spool()));
                }
            }
            Err(error) => prop_assert!(matches!(error.kind(), Kind::Untrusted | Kind::Invalid), "{error}"),
        }
    }
}
