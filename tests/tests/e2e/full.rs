//! Disks that are full, in every phase: the same command on a disk that gets a little larger each time. It says which file has no room, leaves
//! nothing half-written under a final name, and goes on when there is room.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use ferry_tests::disks::{FileDisk, SmallDisk};
use ferry_tests::faults::{Line, Proxy};
use ferry_tests::ferry::Ferry;
use ferry_tests::images::docker_save::{Wrap, write_old};
use ferry_tests::images::{Compression, Format, Image, Layer};
use ferry_tests::registry::{Access, Registry, free_port};
use ferry_tests::require;
use ferry_tests::site::Site;

use crate::{FOR, SIGN, TRUST};

const PAGE: u64 = 4096;

fn image() -> Image {
    Image::single("linux/amd64", Format::Oci, (1..=10).map(|seed| Layer::random(seed, 50_000)).collect())
}

/// The files below a folder, with their bytes.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
        let name = entry.file_name().to_string_lossy().into_owned();
        match entry.path().is_dir() {
            true => {
                found.extend(files(&entry.path()).into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)))
            }
            false => _ = found.insert(name, fs::read(entry.path()).unwrap()),
        }
    }
    found
}

/// What a bundle or a copy of it takes on a disk of pages.
fn pages(files: &BTreeMap<String, Vec<u8>>) -> u64 {
    files.values().map(|bytes| (bytes.len() as u64).next_multiple_of(PAGE)).sum()
}

/// Runs the command until it ends right, on `disk` with one step more each time; how often there was no room. `good` is what is there in the
/// end, by name, except what says when it was made.
fn grows(
    site: &Site,
    disk: &SmallDisk,
    command: &dyn Fn() -> Ferry,
    good: &BTreeMap<String, Vec<u8>>,
    sizes: impl Iterator<Item = u64>,
) -> Vec<String> {
    // the lock of a store says who held it last
    let dated = |name: &String| ["receipt.json", ".report.json", "ferry/lock"].iter().any(|end| name.ends_with(end));
    let mut told = Vec::new();
    for size in sizes {
        disk.resize(&size.max(PAGE).to_string());
        let outcome = command().run();
        let now = files(&site.at("disk"));
        // the index of a store is there from the start, and says what is tagged so far
        let grows = |name: &String| outcome.code != 0 && name.ends_with("store/index.json");
        for (name, bytes) in good.iter().filter(|(name, _)| !dated(name) && !grows(name)) {
            assert!(now.get(name).is_none_or(|found| found == bytes), "{size}: {name} is half-written");
        }
        if outcome.code == 0 {
            assert!(now.keys().eq(good.keys()), "{:?}, and not {:?}", now.keys(), good.keys());
            return told;
        }
        let outcome = outcome.expect_code(6);
        outcome.says(&["disk"]);
        told.push(outcome.stderr);
    }
    panic!("there is never enough room; at last it said:\n{}", told.last().cloned().unwrap_or_default());
}

/// From well below what is needed to a little more than it: twelfths, then pages.
fn around(need: u64) -> impl Iterator<Item = u64> {
    let below = (1..=11).map(move |n| (need * n / 12).next_multiple_of(PAGE));
    below.chain((0..40).map(move |n| need.next_multiple_of(PAGE) + n * PAGE))
}

/// Builds into `good` first, then into `disk`; what was told there.
fn bundle(site: &Site, command: &str, spool: u64) -> Vec<String> {
    fs::create_dir(site.at("good")).unwrap();
    let _ = site.ferry(&command.replace("OUT", "good")).ok();
    let good = files(&site.at("good"));
    let disk = SmallDisk::mount(&site.at("disk"), "4k");
    let command = command.replace("OUT", "disk");
    let told = grows(site, &disk, &|| site.ferry(&command), &good, around(pages(&good) + spool));
    assert!(told.iter().any(|said| said.contains("bytes are needed")), "{told:?}");
    told
}

#[test]
fn a_bundle() {
    require!("docker-registry", "root", "mount");
    let source = Registry::filled(Access::Plain, &[("app/large:1", &image())]);
    let site = Site::new();
    let told = bundle(&site, &format!("bundle {}/app/large:1 {FOR} -o OUT/b.tar {SIGN}", source.host()), 0);
    // pages that are left over are too few for the journal, or the report
    assert!(told.len() > 4, "{told:?}");
    let sent = source.requests().blob_bytes_sent();
    assert!(sent < 3 * 600_000, "{sent} bytes: what is there is not fetched again");
}

#[test]
fn a_bundle_in_volumes_with_recovery_files() {
    require!("docker-registry", "root", "mount");
    let source = Registry::filled(Access::Plain, &[("app/large:1", &image())]);
    let site = Site::new();
    let options = "--volume-size 100K --recovery 10%";
    let told = bundle(&site, &format!("bundle {}/app/large:1 {FOR} -o OUT/b.tar {SIGN} {options}", source.host()), 0);
    for file in ["disk/b.tar.partial", "disk/b.tar.recovery-001"] {
        let said = |said: &String| said.contains(file) && said.contains("bytes are needed");
        assert!(told.iter().any(said), "{file}: {told:?}");
    }
    let sent = source.requests().blob_bytes_sent();
    assert!(sent < 3 * 600_000, "{sent} bytes: what is there is not fetched again");
}

#[test]
fn a_bundle_of_a_docker_save_tar() {
    require!("root", "mount");
    let layers = (1..=3).map(|seed| Layer::mixed(seed, 300_000, 0.5).with(Compression::None)).collect();
    let saved = Image::single("linux/amd64", Format::Docker, layers);
    let site = Site::new();
    write_old(&site.at("saved.tar"), &[(&["app/saved:1"], &saved)], Wrap::Plain);
    let list = "name: m\nplatforms: [linux/amd64]\nimages: [{image: \"app/saved:1\", archive: saved.tar}]\n";
    site.write("m.yaml", list);
    fs::create_dir(site.at("good")).unwrap();
    let _ = site.ferry(&format!("bundle m.yaml -o good/b.tar {SIGN}")).ok();
    let good = files(&site.at("good"));
    let disk = SmallDisk::mount(&site.at("disk"), "4k");
    let command = || site.ferry(&format!("bundle m.yaml -o disk/b.tar {SIGN}"));
    // the layers twice: compressed beside the bundle, and in it
    let sizes = (0..200).map(|n| (n + 1) * 16 * PAGE);
    let told = grows(&site, &disk, &command, &good, sizes);
    assert!(told.len() > 4, "{told:?}");
}

/// Somebody else fills a disk that cannot reserve room while a build goes on.
#[test]
fn a_disk_that_is_filled_by_somebody_else() {
    require!("docker-registry", "root", "mount", "mkfs.ext2", "losetup");
    let source = Registry::filled(Access::Plain, &[("app/large:1", &image())]);
    let site = Site::new();
    for (options, first) in [("", "b.tar.partial"), ("--volume-size 100K", "b.tar.partial.006")] {
        let at = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let slow = Proxy::listen(at, source.address(), Line::slow(Duration::from_millis(2), 200_000));
        let disk = FileDisk::new(&site.at("image"), &site.at("disk"), "ext2", 4 << 20);
        let command = format!("bundle {}/app/large:1 {FOR} -o disk/b.tar {SIGN} --jobs 2 {options}", slow.host());
        let mut running = site.ferry(&command).start();
        running.until("it fetches", || site.at("disk").join(first).exists() && slow.counts().down > 100_000);
        let mut filler = fs::File::create(site.at("disk/filler")).unwrap();
        while filler.write_all(&[1; 1024]).is_ok() {}
        drop(filler);
        let told = running.wait().expect_code(6);
        told.says(&["disk/b.tar.partial"]);
        assert!(
            disk.names()
                .iter()
                .all(|name| name.contains("partial") || name == "filler" || name.ends_with(".manifests")),
            "{:?}",
            disk.names()
        );
        fs::remove_file(site.at("disk/filler")).unwrap();
        let before = slow.counts().down;
        let _ = site.ferry(&command).ok();
        assert!(slow.counts().down - before < 520_000, "what was there is not fetched again");
        let _ = site.ferry(&format!("verify disk/b.tar {TRUST}")).ok();
        assert!(disk.names().iter().all(|name| !name.contains("partial")), "{:?}", disk.names());
    }
}

/// A site with `b.tar`, volumes `v.tar`, YAML, and nothing else.
fn bundled() -> (Site, Image) {
    let image = image();
    let source = Registry::filled(Access::Plain, &[("app/large:1", &image)]);
    let site = Site::new();
    site.write("a.yaml", "kind: Pod\nspec: {containers: [{name: a, image: reg.example/app/large:1}]}\n");
    let from = format!("{}/app/large", source.host());
    site.write(
        "m.yaml",
        format!("name: n\nplatforms: [linux/amd64]\nyaml: [a.yaml]\nimages: [{{image: \"reg.example/app/large:1\", from: [\"{from}\"]}}]\n"),
    );
    let _ = site.ferry(&format!("bundle m.yaml -o b.tar {SIGN}")).ok();
    let _ = site.ferry(&format!("bundle m.yaml -o v.tar --volume-size 100K {SIGN}")).ok();
    (site, image)
}

#[test]
fn an_install() {
    require!("docker-registry", "root", "mount");
    let (site, _) = bundled();
    let size = site.bytes("b.tar").len() as u64;
    for (bundle, spool) in [("b.tar", 0), ("-", size.next_multiple_of(PAGE))] {
        let out = |folder: &str| {
            let spool = if bundle == "-" { format!("--spool {folder}") } else { String::new() };
            let to = format!("--store {folder}/store --registry r.example --out {folder}/out");
            site.ferry(&format!("install {bundle} {to} {spool} {TRUST}")).stdin(&site.at("b.tar"))
        };
        fs::create_dir(site.at("good")).unwrap();
        let _ = out("good").ok();
        let good = files(&site.at("good"));
        let disk = SmallDisk::mount(&site.at("disk"), "4k");
        let told = grows(&site, &disk, &|| out("disk"), &good, around(pages(&good) + spool));
        assert!(told.len() > 4, "{told:?}");
        assert!(bundle == "b.tar" || told.iter().any(|said| said.contains("bytes are needed")), "{told:?}");
        fs::remove_dir_all(site.at("good")).unwrap();
    }
}

#[test]
fn a_store_that_has_no_room_for_what_is_new_is_told_before_anything_is_written() {
    require!("docker-registry", "root", "mount");
    let (site, _) = bundled();
    let small = Image::single("linux/amd64", Format::Oci, vec![Layer::random(99, 1000)]);
    let source = Registry::filled(Access::Plain, &[("app/small:1", &small)]);
    let _ = site.ferry(&format!("bundle {}/app/small:1 {FOR} -o small.tar {SIGN}", source.host())).ok();
    let disk = SmallDisk::mount(&site.at("disk"), "300k");
    let install = |bundle: &str, more: &str| {
        site.ferry(&format!("install {bundle} --store disk/store --registry r.example --out out {TRUST} {more}"))
    };
    for more in ["--dry-run", ""] {
        install("b.tar", more).run().expect_code(6).says(&["no room for `disk/store`", "bytes are needed there and"]);
        let blobs: Vec<_> = files(&site.at("disk")).into_keys().filter(|name| name.contains("blobs/sha256/")).collect();
        assert!(blobs.is_empty(), "{blobs:?}");
    }
    // only what is not there yet counts
    disk.resize("2m");
    let _ = install("b.tar", "").ok();
    let used = pages(&files(&site.at("disk")));
    disk.resize(&(used + 32 * PAGE).to_string());
    install("b.tar", "").ok().says(&["no blob was needed"]);
    let _ = install("small.tar", "").ok();
}

/// What an install into a registry writes beside it, and what `inventory` does.
#[test]
fn files_for_the_way_back() {
    require!("docker-registry", "root", "mount");
    let (site, image) = bundled();
    let target = Registry::start(Access::Plain);
    let out = |folder: &str| format!("install b.tar --registry {} --out {folder}/out {TRUST}", target.host());
    fs::create_dir(site.at("good")).unwrap();
    let _ = site.ferry(&out("good")).ok();
    let good = files(&site.at("good"));
    let disk = SmallDisk::mount(&site.at("disk"), "4k");
    let told = grows(&site, &disk, &|| site.ferry(&out("disk")), &good, (1..40).map(|n| n * PAGE));
    assert!(!told.is_empty());
    assert!(target.holds("app/large", &image));
    drop(disk);
    let inventory = |folder: &str| {
        let from = "--from good/out/relocation.json";
        format!("inventory --registry {} {from} -o {folder}/receipt.json", target.host())
    };
    let _ = site.ferry(&inventory("good")).ok();
    let good = [("receipt.json".to_owned(), site.bytes("good/receipt.json")), ("filler".to_owned(), vec![1; 4096])];
    let disk = SmallDisk::mount(&site.at("disk"), "4k");
    site.write("disk/filler", [1; 4096]);
    let told = grows(&site, &disk, &|| site.ferry(&inventory("disk")), &good.into(), (1..40).map(|n| n * PAGE));
    assert!(told.iter().all(|said| said.contains("disk/receipt.json")), "{told:?}");
}

/// What is written beside a bundle, and mended copies of it: on a disk that has no page left.
#[test]
fn what_is_written_beside_a_bundle() {
    require!("docker-registry", "root", "mount");
    let (site, _) = bundled();
    let _ = site.ferry(&format!("protect v.tar --recovery 2vol {TRUST}")).ok();
    let starts = |name: &str| {
        site.names().into_iter().filter(|n| n.starts_with(name) && !n.ends_with(".json")).collect::<Vec<_>>()
    };
    let commands: [(&str, &str, &dyn Fn()); 5] = [
        ("b.tar", "sign disk/b.tar --sign-key ferry.key --key ferry.pub", &|| {}),
        ("b.tar", "protect disk/b.tar --recovery 20% --key ferry.pub", &|| {}),
        ("v.tar", "repair disk/v.tar -o disk/c.tar --key ferry.pub", &|| {
            let mut bytes = site.bytes("disk/v.tar.002");
            bytes[5000] ^= 1;
            site.write("disk/v.tar.002", bytes);
        }),
        ("v.tar", "repair disk/v.tar --key ferry.pub", &|| {
            fs::remove_file(site.at("disk/v.tar.003")).unwrap();
            site.write("disk/filler", vec![1; 100 << 10]);
        }),
        ("v.tar", "verify disk/v.tar --want disk/want.json --key ferry.pub", &|| {
            let mut bytes = site.bytes("disk/v.tar.004");
            bytes[50_000] ^= 1;
            site.write("disk/v.tar.004", bytes);
        }),
    ];
    for (bundle, command, prepare) in commands {
        let fill = |folder: &str| {
            for name in starts(bundle) {
                fs::copy(site.at(&name), site.at(folder).join(&name)).unwrap();
            }
        };
        let disk = SmallDisk::mount(&site.at("disk"), "8m");
        fill("disk");
        prepare();
        let ends = if command.starts_with("verify") { 3 } else { 0 };
        let _ = site.ferry(command).run().expect_code(ends);
        let good = files(&site.at("disk"));
        drop(disk);
        let disk = SmallDisk::mount(&site.at("disk"), "8m");
        fill("disk");
        prepare();
        let before = files(&site.at("disk"));
        disk.resize(&pages(&before).to_string());
        let full = site.ferry(command).run().expect_code(6);
        full.says(&["disk/"]);
        assert!(files(&site.at("disk")) == before, "{command}: {:?}", disk.names());
        disk.resize("8m");
        let _ = site.ferry(command).run().expect_code(ends);
        assert!(files(&site.at("disk")) == good, "{command}: {:?}", disk.names());
    }
}
