//! Power that is lost at any moment: what was not synced is not there. Nothing half-written is believed, and the same command ends right.
//!
//! The work goes on in a file system in a file. While the program stands still the file is copied: what was written and not synced is in the
//! page cache only, and not in the copy.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ferry_tests::disks::FileDisk;
use ferry_tests::faults::{Line, Proxy};
use ferry_tests::ferry::Ferry;
use ferry_tests::images::{Format, Image, Layer, Random, digest};
use ferry_tests::registry::{Access, Registry, free_port};
use ferry_tests::site::Site;
use ferry_tests::{kills, numbers, require};

use crate::{FOR, SIGN, TRUST};

/// Losses of power: `$FERRY_POWER_LOSSES`, or 10.
fn losses() -> usize {
    std::env::var("FERRY_POWER_LOSSES").map_or(10, |text| text.parse().expect("FERRY_POWER_LOSSES is a number"))
}

fn image(layers: u64, size: usize) -> Image {
    Image::single("linux/amd64", Format::Oci, (1..=layers).map(|seed| Layer::random(seed, size)).collect())
}

/// What loses power, and how it is looked at. Everything happens below `disk`.
struct Power<'a> {
    what: &'a str,
    site: &'a Site,
    /// Fills the new disk.
    prepare: &'a dyn Fn(),
    /// The command that loses power, and the same once more.
    first: &'a dyn Fn() -> Ferry,
    again: &'a dyn Fn() -> Ferry,
    /// What must hold when power is back.
    back: &'a dyn Fn(),
    /// What must hold when the same command has ended.
    ended: &'a dyn Fn(),
}

impl Power<'_> {
    fn run(&self) {
        let memory = Path::new("/dev/shm");
        let images = tempfile::tempdir_in(if memory.is_dir() { memory } else { self.site.path() }).unwrap();
        let image = |name: &str| images.path().join(name);
        let at = self.site.at("disk");
        let disk = FileDisk::new(&image("disk"), &at, "ext4", 32 << 20);
        (self.prepare)();
        drop(disk);
        fs::copy(image("disk"), image("start")).unwrap();
        let disk = FileDisk::mount(&image("disk"), &at, "ext4");
        let undisturbed = (self.first)().ok().took;
        (self.ended)();
        drop(disk);
        let mut random = Random::new(kills::seed(self.what));
        let mut lost = 0;
        while lost < losses() {
            fs::copy(image("start"), image("disk")).unwrap();
            let disk = FileDisk::mount(&image("disk"), &at, "ext4");
            let mut moments: Vec<Duration> =
                (0..4).map(|_| undisturbed.mul_f64((random.draw() % 1100) as f64 / 1000.0)).collect();
            moments.sort();
            let mut copies: Vec<PathBuf> = Vec::new();
            let mut running = (self.first)().start();
            let started = Instant::now();
            for moment in moments {
                std::thread::sleep(moment.saturating_sub(started.elapsed()));
                if !running.runs() {
                    break;
                }
                copies.push(image(&format!("copy-{}", copies.len())));
                disk.lose_power(&running, &copies[copies.len() - 1]);
            }
            let _ = running.wait().expect_code(0);
            drop(disk);
            for copy in copies {
                let _disk = FileDisk::mount(&copy, &at, "ext4");
                (self.back)();
                let _ = (self.again)().ok();
                (self.ended)();
                lost += 1;
            }
        }
        numbers::tell(&format!("{}: losses of power", self.what), lost as f64, "");
    }
}

/// The files below `disk` whose names begin so.
fn files(site: &Site, start: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(site.at("disk")).unwrap().map(|entry| entry.unwrap().path());
    let named = entries.filter(|path| path.is_file() && path.file_name().unwrap().to_string_lossy().starts_with(start));
    named.map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap())).collect()
}

/// What the journal says is kept is there, wherever the blobs of `good` stand. Returns its bytes.
fn kept(journal: &[u8], good: &[u8], partial: impl Fn(usize) -> Option<u8>) -> usize {
    let mut blobs = Vec::new();
    for entry in tar::Archive::new(good).entries().unwrap() {
        let entry = entry.unwrap();
        if entry.path().unwrap().starts_with("blobs") {
            blobs.push(usize::try_from(entry.raw_file_position()).unwrap());
        }
    }
    let mut found = 0;
    for line in String::from_utf8_lossy(journal).lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [check, "kept", blob, start, end] = words.as_slice() else { continue };
        let record = format!("kept {blob} {start} {end}");
        if !digest(record.as_bytes()).starts_with(&format!("sha256:{check}")) {
            continue;
        }
        let [blob, start, end] = [blob, start, end].map(|number| number.parse::<usize>().unwrap());
        let is_there = |at: usize| partial(at) == Some(good[at]);
        let all_there = (blobs[blob] + start..blobs[blob] + end).all(is_there);
        assert!(all_there, "{record} is in the journal, and not on the disk");
        found += end - start;
    }
    found
}

fn bundle(what: &str, options: &str, volume: Option<usize>, rate: u64) {
    let image = image(20, 50_000);
    let source = Registry::filled(Access::Plain, &[("app/large:1", &image)]);
    // two lines of one name: it is part of the bundle
    let at = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let line = RefCell::new(None);
    let over = |new: Line| {
        line.take();
        line.replace(Some(Proxy::listen(at, source.address(), new)));
    };
    let site = Site::new();
    let command =
        |out: &str| format!("bundle {at}/app/large:1 {FOR} --name n -o {out}/b.tar {SIGN} --jobs 2 {options}");
    fs::create_dir(site.at("good")).unwrap();
    over(Line::good());
    let _ = site.ferry(&command("good")).ok();
    let names = || fs::read_dir(site.at("good")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let good: BTreeMap<String, Vec<u8>> =
        names().map(|name| (name.clone(), site.bytes(&format!("good/{name}")))).collect();
    let pieces = good.iter().filter(|(name, _)| *name == "b.tar" || name["b.tar.".len()..].parse::<u32>().is_ok());
    let whole: Vec<u8> = pieces.flat_map(|(_, bytes)| bytes.clone()).collect();
    let kept_bytes = std::cell::Cell::new(0);
    Power {
        what,
        site: &site,
        prepare: &|| {},
        first: &|| {
            over(Line::slow(Duration::from_millis(2), rate));
            site.ferry(&command("disk"))
        },
        again: &|| {
            over(Line::good());
            site.ferry(&command("disk"))
        },
        back: &|| {
            let now = files(&site, "b.tar");
            for (name, bytes) in good.iter().filter(|(name, _)| !name.ends_with(".json")) {
                assert!(now.get(name).is_none_or(|found| found == bytes), "{name} is half-written");
            }
            let Some(journal) = now.get("b.tar.partial.journal") else { return };
            let partial = |at: usize| match volume {
                None => now.get("b.tar.partial").or_else(|| now.get("b.tar"))?.get(at).copied(),
                Some(size) => {
                    let number = at / size + 1;
                    let piece = now.get(&format!("b.tar.partial.{number:03}"));
                    piece.or_else(|| now.get(&format!("b.tar.{number:03}")))?.get(at % size).copied()
                }
            };
            kept_bytes.set(kept_bytes.get() + kept(journal, &whole, partial));
        },
        ended: &|| {
            let now = files(&site, "");
            assert!(now.keys().eq(good.keys()), "{:?}", now.keys());
            for (name, bytes) in good.iter().filter(|(name, _)| !name.ends_with(".json")) {
                assert!(now[name] == *bytes, "{name}");
            }
        },
    }
    .run();
    numbers::tell(&format!("{what}: bytes that journals said were kept"), f64::from(kept_bytes.get() as u32), "");
}

#[test]
fn a_bundle() {
    require!("docker-registry", "root", "mount", "mkfs.ext4", "losetup");
    bundle("power, bundle", "", None, 220_000);
}

#[test]
fn a_bundle_in_volumes() {
    require!("docker-registry", "root", "mount", "mkfs.ext4", "losetup");
    bundle("power, bundle --volume-size", "--volume-size 100K --recovery 10%", Some(100_000), 1_500_000);
}

#[test]
fn an_install_into_a_store() {
    require!("root", "mount", "mkfs.ext4", "losetup");
    let image = image(10, 400_000);
    let site = Site::new();
    ferry_tests::images::layout::write_tar(&site.at("in.tar"), &[("v1", &image)]);
    site.write(
        "m.yaml",
        "name: m\nplatforms: [linux/amd64]\nimages: [{image: \"x/y:1\", archive: in.tar, archiveImage: v1}]\n",
    );
    let _ = site.ferry(&format!("bundle m.yaml -o b.tar {SIGN}")).ok();
    let command = || site.ferry(&format!("install b.tar --store disk/store --out disk/out {TRUST} --jobs 2"));
    Power {
        what: "power, install --store",
        site: &site,
        prepare: &|| {},
        first: &command,
        again: &command,
        back: &|| whole_blobs(&site.at("disk/store")),
        ended: &|| {
            whole_blobs(&site.at("disk/store"));
            let index: serde_json::Value = serde_json::from_slice(&site.bytes("disk/store/index.json")).unwrap();
            assert_eq!(index["manifests"][0]["digest"], image.digest());
            assert_eq!(fs::read_dir(site.at("disk/store/blobs/sha256")).unwrap().count(), 12);
            assert_eq!(fs::read_dir(site.at("disk/store/ferry/uploads")).unwrap().count(), 0);
            let out: Vec<String> = files_of(&site.at("disk/out"));
            assert!(out.iter().all(|name| !name.starts_with('.')), "{out:?}");
        },
    }
    .run();
}

fn files_of(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// Every blob of the store is what its name says, and what is tagged is there.
fn whole_blobs(store: &Path) {
    let Ok(blobs) = fs::read_dir(store.join("blobs/sha256")) else { return };
    for blob in blobs.map(|entry| entry.unwrap().path()) {
        let name = blob.file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(digest(&fs::read(&blob).unwrap()), format!("sha256:{name}"), "half-written");
    }
    let Ok(index) = fs::read(store.join("index.json")) else { return };
    let index: serde_json::Value = serde_json::from_slice(&index).expect("the index is whole");
    for entry in index["manifests"].as_array().unwrap() {
        let blob = entry["digest"].as_str().unwrap().replace(':', "/");
        assert!(store.join("blobs").join(blob).is_file(), "a tag for what is not there");
    }
}

#[test]
fn a_repair() {
    require!("root", "mount", "mkfs.ext4", "losetup");
    let image = image(4, 700_000);
    let site = Site::new();
    ferry_tests::images::layout::write_tar(&site.at("in.tar"), &[("v1", &image)]);
    site.write(
        "m.yaml",
        "name: m\nplatforms: [linux/amd64]\nimages: [{image: \"x/y:1\", archive: in.tar, archiveImage: v1}]\n",
    );
    fs::create_dir(site.at("good")).unwrap();
    let made = format!("bundle m.yaml -o good/b.tar --volume-size 500K --recovery 2vol {SIGN}");
    let _ = site.ferry(&made).ok();
    let good: BTreeMap<String, Vec<u8>> = files_of(&site.at("good"))
        .into_iter()
        .map(|name| (name.clone(), site.bytes(&format!("good/{name}"))))
        .collect();
    let command = || site.ferry(&format!("repair disk/b.tar {TRUST}"));
    Power {
        what: "power, repair",
        site: &site,
        prepare: &|| {
            for (name, bytes) in &good {
                let mut bytes = bytes.clone();
                match name.as_str() {
                    "b.tar.002" => continue,
                    "b.tar.003" => bytes.iter_mut().step_by(9000).take(25).for_each(|byte| *byte ^= 8),
                    "b.tar.004" => bytes.truncate(300_000),
                    "b.tar.recovery-001" => bytes[5000] ^= 1,
                    _ => {}
                }
                site.write(&format!("disk/{name}"), bytes);
            }
        },
        first: &command,
        again: &command,
        back: &|| {
            let now = files(&site, "b.tar");
            assert!(now.get("b.tar.002").is_none_or(|bytes| *bytes == good["b.tar.002"]), "half-written");
        },
        ended: &|| {
            let now = files(&site, "b.tar");
            assert!(now.keys().eq(good.keys()), "{:?}", now.keys());
            assert!(now == good);
        },
    }
    .run();
}
