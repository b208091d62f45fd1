//! The same lock and the same key give the same bytes: on any machine, over any line, with any parallelism, in one piece or in many.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use ferry_tests::faults::{Direction, Fault, Line, Proxy};
use ferry_tests::ferry::binary;
use ferry_tests::images::{Format, Image, Layer};
use ferry_tests::registry::{Access, Registry, free_port};
use ferry_tests::require;
use ferry_tests::site::Site;

use crate::{SIGN, TRUST};

/// Two platforms that share a layer, and layers of several sizes.
fn image(seed: u64) -> Image {
    let layer = |n: u64, size| Layer::random(seed + n, size);
    let shared = layer(0, 200_000);
    let amd64 = Image::single("linux/amd64", Format::Oci, vec![shared.clone(), layer(1, 90_000), layer(2, 10)]);
    let arm64 = Image::single("linux/arm64/v8", Format::Oci, vec![shared, layer(3, 70_000)]);
    Image::index(Format::Oci, &[&amd64, &arm64])
}

fn list(host: &str, mirror: Option<&str>) -> String {
    let mirrors = mirror.map(|mirror| format!("mirrors: {{\"{host}\": \"{mirror}\"}}\n")).unwrap_or_default();
    format!("name: n\nversion: 1\nplatforms: [all]\n{mirrors}files: [notes.txt]\nimages: [\"{host}/app/two:1\"]\n")
}

/// Another machine: the same key, lock and files.
fn copy_of(site: &Site, list: &str) -> Site {
    let other = Site::without_keys();
    for name in ["ferry.key", "ferry.pub", "lock.json", "notes.txt"] {
        fs::copy(site.at(name), other.at(name)).unwrap();
    }
    other.write("deep/down/m.yaml", list.replace("notes.txt", "../../notes.txt"));
    other
}

#[test]
fn the_same_lock_and_key_give_the_same_bytes() {
    require!("docker-registry", "sh");
    let image = image(1);
    let source = Registry::filled(Access::Plain, &[("app/two:1", &image)]);
    let at = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let host = at.to_string();
    let good = Proxy::listen(at, source.address(), Line::good());
    let site = Site::new();
    site.write("notes.txt", "read me\n");
    site.write("m.yaml", list(&host, None));
    let _ = site.ferry(&format!("bundle m.yaml -o first.tar --lock lock.json {SIGN}")).ok();
    let bytes = site.bytes("first.tar");
    let locked = format!("bundle m.yaml --lock lock.json --locked {SIGN}");
    let same = |site: &Site, file: &str, how: &str| assert!(site.bytes(file) == bytes, "{how}: other bytes");

    for jobs in [1, 16] {
        let _ = site.ferry(&format!("{locked} -o j.tar --jobs {jobs}")).ok();
        same(&site, "j.tar", &format!("--jobs {jobs}"));
        fs::remove_file(site.at("j.tar")).unwrap();
    }
    for size in ["66K", "100K", "250001", "1M"] {
        let _ = site.ferry(&format!("{locked} -o v{size}.tar --volume-size {size}")).ok();
        let pieces = (1..).map(|number| site.at(&format!("v{size}.tar.{number:03}"))).take_while(|path| path.exists());
        let joined: Vec<u8> = pieces.flat_map(|path| fs::read(path).unwrap()).collect();
        assert!(joined == bytes, "volumes of {size} join to other bytes");
    }
    let _ = site.ferry(&format!("{locked} -o -")).stdout(&site.at("piped.tar")).ok();
    same(&site, "piped.tar", "-o -");

    // another machine, day, language and umask
    let other = copy_of(&site, &list(&host, None));
    let script = format!(
        "umask 077; exec {} bundle deep/down/m.yaml --lock lock.json --locked -o o.tar {SIGN}",
        binary().display()
    );
    let status = Command::new("sh")
        .args(["-c", &script])
        .current_dir(other.path())
        .envs([("HOME", "/nowhere"), ("TZ", "Pacific/Kiritimati"), ("LC_ALL", "tr_TR.UTF-8"), ("LANG", "tr_TR.UTF-8")])
        .env("TMPDIR", other.path())
        .stderr(Stdio::from(File::create(other.at("said")).unwrap()))
        .status()
        .unwrap();
    assert!(status.success(), "{}", other.read("said"));
    same(&other, "o.tar", "another machine");

    // the registry is gone, and on yet another machine a pull-through cache has what it had
    drop(good);
    let cache = Registry::cache_of(&source);
    let third = copy_of(&site, &list(&host, Some(&cache.host())));
    let _ = third.ferry(&format!("bundle deep/down/m.yaml --lock lock.json --locked -o c.tar {SIGN}")).ok();
    same(&third, "c.tar", "through a cache");
    let asked = cache.requests();
    assert!(asked.blob_bytes_sent() > 300_000, "the cache was asked: {:?}", asked.0);

    // a line that is slow and breaks
    let line = Line { bytes_per_second: Some(500_000), ..Line::broken(Direction::Down, Fault::Reset(60_000), 6) };
    let bad = Proxy::listen(at, source.address(), line);
    let _ = site.ferry(&format!("{locked} -o bad.tar --jobs 3")).ok();
    same(&site, "bad.tar", "a line that breaks");
    assert!(bad.counts().faults > 1, "{:?}", bad.counts());
    let _ = site.ferry(&format!("verify bad.tar {TRUST}")).ok();
}

#[test]
fn a_lock_holds_as_long_as_its_digest_is_served() {
    require!("docker-registry");
    let (old, new) = (image(10), image(20));
    let source = Registry::filled(Access::Plain, &[("app/two:1", &old)]);
    let at = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let proxy = Proxy::listen(at, source.address(), Line::good());
    let site = Site::new();
    site.write("notes.txt", "read me\n");
    site.write("m.yaml", list(&proxy.host(), None));
    let _ = site.ferry(&format!("bundle m.yaml -o b.tar --lock lock.json {SIGN}")).ok();
    let locked = |out: &str| site.ferry(&format!("bundle m.yaml --lock lock.json --locked -o {out} {SIGN}"));
    // the tag moved, and the digest is still there
    source.push("app/two:1", &new);
    let _ = locked("moved.tar").ok();
    assert!(site.bytes("moved.tar") == site.bytes("b.tar"));
    // a registry that has only the new one
    drop(proxy);
    let without = Registry::filled(Access::Plain, &[("app/two:1", &new)]);
    let proxy = Proxy::listen(at, without.address(), Line::good());
    let told = locked("gone.tar").run().expect_code(7);
    told.says(&["app/two:1", old.digest(), "hint", "--lock"]);
    assert!(!site.names().iter().any(|name| name.starts_with("gone.tar")), "{:?}", site.names());
    assert_eq!(without.requests().blob_bytes_sent(), 0, "nothing is fetched for what cannot be");
    // and one that has nothing of that name
    drop(proxy);
    let empty = Registry::start(Access::Plain);
    let _proxy = Proxy::listen(at, empty.address(), Line::good());
    locked("gone.tar").run().expect_code(7).says(&["app/two:1", old.digest()]);
}
