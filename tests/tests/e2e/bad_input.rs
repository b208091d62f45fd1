//! Bad input of every kind: a clear error, the right exit code, and nothing half-written under a final name.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ferry_tests::disks::SmallDisk;
use ferry_tests::images::{Format, Image, Layer, Random};
use ferry_tests::registry::{Access, Registry};
use ferry_tests::site::Site;
use ferry_tests::{require, tools};

use crate::{FOR, SIGN, TRUST, bundled, one};

/// Every command that opens a bundle must refuse `bad.tar` as not trusted, and push nothing.
fn refused(site: &Site, what: &str) {
    let verify = site.ferry(&format!("verify bad.tar {TRUST}")).run();
    assert_eq!(verify.code, 3, "verify, {what}:\n{}", verify.stderr);
    assert!(verify.stderr.contains("bad.tar"), "{what}: it does not say which file:\n{}", verify.stderr);
    let install = site.ferry(&format!("install bad.tar --store never {TRUST}")).run();
    assert_eq!(install.code, 3, "install, {what}:\n{}", install.stderr);
    let tags = fs::read_to_string(site.at("never/index.json")).unwrap_or_default();
    assert!(!tags.contains("app/one"), "{what}: an image was installed from a bad bundle");
}

#[test]
fn a_truncated_bundle() {
    require!("docker-registry");
    let (_source, _, site) = bundled();
    let good = site.bytes("b.tar");
    for len in [0, 1, 511, 512, 1024, good.len() / 2, good.len() - 1024, good.len() - 512, good.len() - 1] {
        site.write("bad.tar", &good[..len]);
        refused(&site, &format!("the first {len} of {} bytes", good.len()));
    }
    site.write("bad.tar", [&good[..], &[0; 512]].concat());
    refused(&site, "512 bytes too many");
}

#[test]
fn swapped_volumes() {
    require!("docker-registry");
    let (_source, _, site) = bundled();
    let good = site.bytes("b.tar");
    let third = good.len().div_ceil(3);
    let parts: Vec<&[u8]> = good.chunks(third).collect();
    for order in [[1, 0, 2], [0, 2, 1], [2, 1, 0]] {
        site.write("bad.tar", order.map(|i| parts[i]).concat());
        refused(&site, &format!("thirds joined in the order {order:?}"));
    }
    site.write("bad.tar", parts[0]);
    refused(&site, "the first third alone");
}

#[test]
fn one_flipped_bit_anywhere() {
    require!("docker-registry");
    let (_source, _, site) = bundled();
    let good = site.bytes("b.tar");
    let mut random = Random::new(4);
    // every header and padding is met by chance sooner or later; the first and last bytes by name
    let mut places: Vec<usize> = (0..60).map(|_| usize::try_from(random.draw()).unwrap() % good.len()).collect();
    places.extend([0, 100, 156, 257, 511, 512, good.len() - 1, good.len() - 1024]);
    for place in places {
        let mut bad = good.clone();
        bad[place] ^= 1 << (place % 8);
        site.write("bad.tar", &bad);
        let verify = site.ferry(&format!("verify bad.tar {TRUST}")).run();
        assert_eq!(verify.code, 3, "byte {place} of {}:\n{}", good.len(), verify.stderr);
    }
}

/// `b.tar` as a list of (header, content with its padding), to be put together otherwise.
fn members(tar: &[u8]) -> Vec<Vec<u8>> {
    let mut members = Vec::new();
    let mut rest = tar;
    while rest[0] != 0 {
        let size = u64::from_str_radix(std::str::from_utf8(&rest[124..135]).unwrap(), 8).unwrap();
        let len = 512 + usize::try_from(size.next_multiple_of(512)).unwrap();
        members.push(rest[..len].to_vec());
        rest = &rest[len..];
    }
    members
}

fn member(name: &str, kind: tar::EntryType, link: &str, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(content.len() as u64);
    if !link.is_empty() {
        header.set_link_name(link).unwrap();
    }
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

#[test]
fn members_that_do_not_belong() {
    require!("docker-registry");
    let (_source, _, site) = bundled();
    let good = members(&site.bytes("b.tar"));
    let write = |members: &[Vec<u8>]| {
        let mut bytes = members.concat();
        bytes.resize(bytes.len() + 1024, 0);
        site.write("bad.tar", bytes)
    };
    write(&good);
    assert_eq!(site.bytes("bad.tar"), site.bytes("b.tar"), "this test takes the bundle apart rightly");
    let file = tar::EntryType::Regular;
    for (what, extra) in [
        ("..", member("../evil", file, "", b"x")),
        ("inner ..", member("blobs/../../evil", file, "", b"x")),
        ("absolute", member("/etc/evil", file, "", b"x")),
        ("unknown", member("surprise.txt", file, "", b"x")),
        ("symlink", member("files/link", tar::EntryType::Symlink, "/etc/passwd", b"")),
        ("hard link", member("files/link", tar::EntryType::Link, "ferry.json", b"")),
        ("folder", member("files/", tar::EntryType::Directory, "", b"")),
        ("pax header", member("pax", tar::EntryType::XHeader, "", b"11 path=..\n")),
        ("duplicate", good[0].clone()),
        ("duplicate blob", good.last().unwrap().clone()),
    ] {
        for at in [1, 3, good.len()] {
            let mut bad = good.clone();
            bad.insert(at, extra.clone());
            write(&bad);
            refused(&site, &format!("{what} at member {at}"));
        }
    }
    let mut swapped = good.clone();
    let last = swapped.len() - 1;
    swapped.swap(last, last - 1);
    write(&swapped);
    refused(&site, "two members changed places");
    write(&good[..last]);
    refused(&site, "a member is missing");
    write(&good[2..]);
    refused(&site, "no sums and no signature");
    assert!(!Path::new("/etc/evil").exists());
    assert!(!site.path().parent().unwrap().join("evil").exists());
}

#[test]
fn a_head_that_lies() {
    require!("docker-registry");
    let (_source, _, site) = bundled();
    let good = members(&site.bytes("b.tar"));
    let at = good.iter().position(|m| m.starts_with(b"ferry.json\0")).expect("the head is a member");
    let text = String::from_utf8(good[at][512..].to_vec()).unwrap();
    let head: serde_json::Value = serde_json::from_str(text.trim_end_matches('\0')).unwrap();
    type Lie = (&'static str, fn(&mut serde_json::Value));
    let lies: [Lie; 4] = [
        ("a blob's size", |h| h["blobs"][0]["size"] = 1.into()),
        ("a huge size", |h| h["blobs"][0]["size"] = u64::MAX.into()),
        ("an offset", |h| h["blobs"][1]["offset"] = 7.into()),
        ("the format", |h| h["format"] = 99.into()),
    ];
    for (what, lie) in lies {
        let mut lying = head.clone();
        lie(&mut lying);
        let mut bad = good.clone();
        bad[at] = member("ferry.json", tar::EntryType::Regular, "", &serde_json::to_vec_pretty(&lying).unwrap());
        let mut bytes = bad.concat();
        bytes.resize(bytes.len() + 1024, 0);
        site.write("bad.tar", bytes);
        refused(&site, what);
        // whoever waives the signature still gets the truth
        let told = site.ferry("verify bad.tar --allow-unsigned").run();
        assert_eq!(told.code, 3, "{what}: {}", told.stderr);
    }
}

#[test]
fn unsigned_and_wrongly_signed_bundles() {
    require!("docker-registry");
    let (source, image, site) = bundled();
    let stranger = Site::new();
    let key = stranger.at("ferry.pub").display().to_string();
    let target = Registry::start(Access::Plain);
    for command in [
        format!("verify b.tar --key {key}"),
        format!("install b.tar --registry {} --key {key}", target.host()),
        format!("serve b.tar --listen 127.0.0.1:0 --key {key}"),
    ] {
        let told = site.ferry(&command).run().expect_code(3);
        told.says(&["key"]);
    }
    // without any key there is nobody to trust
    let told = site.ferry(&format!("install b.tar --registry {}", target.host())).run();
    assert!(matches!(told.code, 2 | 3), "{} {}", told.code, told.stderr);
    told.says(&["--key"]);
    let unsigned = format!("bundle {}/app/one:1 {FOR} -o u.tar", source.host());
    let told = site.ferry(&unsigned).run();
    assert_ne!(told.code, 0, "signing is the rule");
    told.says(&["--sign-key", "--unsigned"]);
    let _ = site.ferry(&format!("{unsigned} --unsigned")).ok();
    let _ = site.ferry(&format!("verify u.tar {TRUST}")).run().expect_code(3).says(&["--allow-unsigned"]);
    assert!(target.repositories().is_empty());
    let _ = site.ferry(&format!("install u.tar --registry {} --allow-unsigned", target.host())).ok();
    assert!(target.holds("app/one", &image));
}

#[test]
fn sources_that_are_not_what_they_should_be() {
    let site = Site::new();
    site.write("junk.tar", Random::new(1).bytes(5000));
    site.write("text.tar", "not a tar\n");
    site.write("empty.tar", "");
    let mut other = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(1);
    header.set_mode(0o644);
    other.append_data(&mut header, "readme.txt", &b"x"[..]).unwrap();
    site.write("other.tar", other.into_inner().unwrap());
    for file in ["junk.tar", "text.tar", "empty.tar", "other.tar", "absent.tar"] {
        site.write(
            "m.yaml",
            format!("name: m\nplatforms: [linux/amd64]\nimages: [{{image: \"x/y:1\", archive: {file}}}]\n"),
        );
        let told = site.ferry(&format!("bundle m.yaml -o b.tar {SIGN}")).run();
        assert!((1..=6).contains(&told.code) && told.code != 2, "{file}: {} {}", told.code, told.stderr);
        told.says(&[file]);
        assert!(!site.at("b.tar").exists(), "{file}");
    }
}

#[test]
fn lists_that_name_nothing_or_nonsense() {
    let site = Site::new();
    for (name, content, words) in [
        ("empty.txt", "", vec!["empty.txt"]),
        ("comments.txt", "# nothing\n\n## here\n", vec!["comments.txt"]),
        ("bad.txt", "nginx:1\nUPPER/Case:1\nhttp://x/y\n", vec!["bad.txt:2", "UPPER/Case:1", "bad.txt:3"]),
        ("bad.yaml", "name: x\nimages: [nginx:1]\nimagez: []\n", vec!["imagez"]),
        ("broken.yaml", "name: x\nimages: [nginx:1\n", vec!["broken.yaml"]),
        ("none.yaml", "name: x\nimages: []\n", vec!["none.yaml"]),
    ] {
        site.write(name, content);
        let told = site.ferry(&format!("bundle {name} {FOR} -o b.tar {SIGN}")).run();
        assert!(matches!(told.code, 1 | 2 | 4), "{name}: {} {}", told.code, told.stderr);
        told.says(&words);
        assert!(!site.at("b.tar").exists());
    }
    let told = site.ferry(&format!("bundle app/Upper:1 {FOR} -o b.tar {SIGN}")).run().expect_code(2);
    told.says(&["app/Upper:1"]);
    let _ = site.ferry("bundle").run().expect_code(2);
    let _ = site.ferry("no-such-command").run().expect_code(2);
}

#[test]
fn a_full_disk() {
    require!("docker-registry", "root", "mount");
    let image =
        Image::single("linux/amd64", Format::Oci, vec![Layer::random(1, 3_000_000), Layer::random(2, 3_000_000)]);
    let source = Registry::filled(Access::Plain, &[("app/big:1", &image)]);
    let site = Site::new();
    let disk = SmallDisk::mount(&site.at("disk"), "4m");
    let bundle = format!("bundle {}/app/big:1 {FOR} -o disk/b.tar {SIGN}", source.host());
    let told = site.ferry(&bundle).run().expect_code(6);
    told.says(&["disk"]);
    assert!(!site.at("disk/b.tar").exists());
    assert!(source.requests().blobs_sent().len() <= 1, "the space is checked before the first layer");

    // a store that fills up has no broken image, and says why
    let _ = site.ferry(&format!("bundle {}/app/big:1 {FOR} -o b.tar {SIGN}", source.host())).ok();
    let told = site.ferry(&format!("install b.tar --store disk/store {TRUST}")).run().expect_code(6);
    told.says(&["disk/store"]);
    drop(disk);
}

#[test]
fn a_folder_that_cannot_be_written() {
    require!("docker-registry");
    let (source, _, site) = one();
    let bundle = |out: &str| site.ferry(&format!("bundle {}/app/one:1 {FOR} -o {out} {SIGN}", source.host()));
    bundle("absent/b.tar").run().expect_code(6).says(&["absent"]);
    fs::create_dir(site.at("folder")).unwrap();
    assert_ne!(bundle("folder").run().code, 0, "a folder is not a file name");
    if tools::has("root") && tools::has("mount") {
        let disk = SmallDisk::mount(&site.at("ro"), "1m");
        disk.protect();
        bundle("ro/b.tar").run().expect_code(6).says(&["cannot write to `ro`"]);
        let _ = bundle("good.tar").ok();
        let target = Registry::start(Access::Plain);
        site.write("a.yaml", "kind: Pod\n");
        let install = format!("install good.tar --registry {} --yaml a.yaml --out ro/ready {TRUST}", target.host());
        site.ferry(&install).run().expect_code(6).says(&["ro/ready"]);
        assert_eq!(target.repositories(), [""; 0], "it is found before anything is pushed");
        drop(disk);
    } else {
        fs::create_dir(site.at("ro")).unwrap();
        fs::set_permissions(site.at("ro"), fs::Permissions::from_mode(0o555)).unwrap();
        bundle("ro/b.tar").run().expect_code(6).says(&["ro/"]);
    }
}

#[test]
fn keys_are_never_overwritten() {
    let site = Site::new();
    let key = site.bytes("ferry.key");
    assert_ne!(site.ferry("keygen --out . --no-password").run().code, 0);
    assert_eq!(site.bytes("ferry.key"), key);
    assert_eq!(fs::metadata(site.at("ferry.key")).unwrap().permissions().mode() & 0o77, 0, "nobody else's business");
}
