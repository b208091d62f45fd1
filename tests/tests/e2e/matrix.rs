//! The fault matrix: every kind of byte, hurt in every way, read in every way. `verify` says so, `install` brings no wrong byte, `repair` mends
//! what the recovery files make up for (`recovery.rs` has that for one file).

use std::collections::BTreeMap;
use std::fs;

use ferry_tests::ferry::Outcome;
use ferry_tests::images::digest;
use ferry_tests::registry::{Access, Registry};
use ferry_tests::site::Site;
use ferry_tests::{numbers, require};

use crate::recovery::{bundle, classes, files, put};
use crate::{SIGN, TRUST};

const VOLUME: usize = 66_000;
const FAULTS: [&str; 4] = ["flipped", "cut", "duplicated", "appended"];

/// The bytes with that fault at `at`.
fn hurt(fault: &str, good: &[u8], at: usize) -> Vec<u8> {
    let mut bad = good.to_vec();
    match fault {
        "flipped" => bad[at] ^= 4,
        "cut" => bad.truncate(at),
        "duplicated" => _ = bad.splice(at..at, good[at..(at + 512).min(good.len())].to_vec()),
        _ => bad.extend_from_slice(&good[..at.min(600) + 1]),
    }
    bad
}

/// What is at the target, and what must be: all of it, or some, and nothing else.
struct Target<'a> {
    site: &'a Site,
    registry: Registry,
    /// Every blob that may be there.
    blobs: Vec<Vec<u8>>,
    manifest: String,
    installs: usize,
}

impl Target<'_> {
    /// Installs into a store, every third time into a registry, and looks at every byte that is there then.
    fn install(&mut self, bundle: &str, stdin: Option<&str>) -> Outcome {
        self.installs += 1;
        let run = |to: String| {
            let command = self.site.ferry(&format!("install {bundle} {to} --out out {TRUST}"));
            match stdin {
                Some(file) => command.stdin(&self.site.at(file)).run(),
                None => command.run(),
            }
        };
        if self.installs.is_multiple_of(3) {
            return self.at_registry(bundle, &run);
        }
        let store = self.site.at("store");
        let _ = fs::remove_dir_all(&store);
        let told = run("--store store".to_owned());
        for entry in fs::read_dir(store.join("blobs/sha256")).into_iter().flatten().map(Result::unwrap) {
            let bytes = fs::read(entry.path()).unwrap();
            assert!(self.blobs.contains(&bytes), "{bundle}: a wrong byte is in the store");
            assert_eq!(digest(&bytes), format!("sha256:{}", entry.file_name().display()));
        }
        let index = fs::read_to_string(store.join("index.json")).unwrap_or_default();
        assert!(told.code == 0 || !index.contains("x/y"), "{bundle}: a tag of what is not whole");
        told
    }

    /// A registry checks what it gets; what it has is looked at all the same.
    fn at_registry(&self, bundle: &str, run: &dyn Fn(String) -> Outcome) -> Outcome {
        let prefix = format!("t{}", self.installs);
        let told = run(format!("--registry {}/{prefix}", self.registry.host()));
        let repository = format!("{prefix}/x/y");
        for blob in self.blobs.iter().filter_map(|blob| self.registry.blob(&repository, &digest(blob))) {
            assert!(self.blobs.contains(&blob));
        }
        let tagged = self.registry.manifest(&repository, "1").map(|bytes| digest(&bytes));
        assert!(tagged.is_none_or(|found| found == self.manifest && told.code == 0), "{bundle}: {}", told.stderr);
        told
    }
}

fn target(site: &Site, good: &[u8]) -> (Registry, Vec<Vec<u8>>, String) {
    let mut blobs = Vec::new();
    for entry in tar::Archive::new(good).entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().starts_with("blobs") {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
            blobs.push(bytes);
        }
    }
    let head = site.ferry(&format!("inspect b.tar --json {TRUST}")).ok().json();
    let text = head.to_string();
    let is_manifest = |blob: &&Vec<u8>| blob.starts_with(b"{") && blob.windows(8).any(|w| w == b"\"layers\"");
    let manifest = blobs.iter().find(is_manifest).map(|blob| digest(blob)).expect("one is the manifest");
    assert!(text.contains(&manifest), "{text}");
    (Registry::start(Access::Plain), blobs, manifest)
}

#[test]
fn every_kind_of_byte_hurt_in_every_way_and_read_in_every_way() {
    require!("docker-registry");
    let site = bundle(&[150_000, 20_000]);
    let good = site.bytes("b.tar");
    // volumes of the same bundle, with what makes up for one of them
    let _ = site.ferry(&format!("bundle m.yaml -o v.tar --volume-size {VOLUME} --recovery 1vol {SIGN}")).ok();
    let volumes = files(&site, "v.tar");
    let (registry, blobs, manifest) = target(&site, &good);
    let mut target = Target { site: &site, registry, blobs, manifest, installs: 0 };
    let mut table: BTreeMap<(usize, &str), String> = BTreeMap::new();
    for (row, (class, at)) in classes(&good).into_iter().enumerate() {
        for fault in FAULTS {
            let what = format!("{class}, {fault}");
            site.write("bad.tar", hurt(fault, &good, at));
            let untrusted = |told: Outcome, how: &str| {
                assert_eq!(told.code, 3, "{what}, {how}:\n{}", told.stderr);
                told
            };
            untrusted(site.ferry(&format!("verify bad.tar {TRUST}")).run(), "as a file").says(&["bad.tar"]);
            let piped = site.ferry(&format!("verify - {TRUST}")).stdin(&site.at("bad.tar")).run();
            untrusted(piped, "through a pipe").says(&["standard input"]);
            // a carried file that an install does not need is not looked at: `verify` is for that
            let is_used = !class.contains("files/") || class.starts_with("header") || fault != "flipped";
            let way = (row + FAULTS.iter().position(|known| *known == fault).unwrap()) % 3;
            match way {
                0 if is_used => _ = untrusted(target.install("bad.tar", None), "install of a file"),
                0 => _ = target.install("bad.tar", None),
                1 if is_used => _ = untrusted(target.install("-", Some("bad.tar")), "install out of a pipe"),
                1 => _ = target.install("-", Some("bad.tar")),
                _ => {}
            }
            // the same fault in the volume that has the byte
            let (number, within) = (at / VOLUME + 1, at % VOLUME);
            let name = format!("v.tar.{number:03}");
            let bytes = hurt(fault, &site.bytes(&name), within);
            let is_lost = bytes.is_empty();
            site.write(&name, bytes);
            let verify = site.ferry(&format!("verify v.tar {TRUST}")).run();
            untrusted(verify, "as volumes").says(&[&name]);
            if way == 2 {
                let told = target.install("v.tar", None);
                assert!(!is_used || told.code == 3, "{what}, install of volumes: {}", told.stderr);
            }
            let mut mended = "";
            if way == 2 {
                let repaired = site.ferry(&format!("repair v.tar {TRUST}")).run();
                assert_eq!(repaired.code, 0, "{what}, repair:\n{}", repaired.stderr);
                assert!(files(&site, "v.tar") == volumes, "{what}: repair does not give the same bytes");
                mended = "mended";
            } else {
                put(&site, "v.tar", &volumes);
            }
            let install = ["file", "pipe", "volumes"][way];
            let damage = if is_lost { "empty volume" } else { "" };
            table.insert((row, fault), format!("{class:<60} {fault:<10} 3 3 3  {install:<8} {mended} {damage}"));
        }
    }
    numbers::say(&format!(
        "{:<60} {:<10} verify a file, a pipe, volumes; install of; repair of volumes",
        "byte", "fault"
    ));
    table.values().for_each(|line| numbers::say(line));
    assert!(table.len() > 100);
}

#[test]
fn what_stands_beside_hurt_in_every_way() {
    require!("docker-registry");
    let site = bundle(&[150_000, 20_000]);
    let good = site.bytes("b.tar");
    let _ = site.ferry(&format!("bundle m.yaml -o v.tar --volume-size {VOLUME} --recovery 1vol {SIGN}")).ok();
    let second = Site::new();
    let (secret, public) = (second.at("ferry.key").display().to_string(), second.at("ferry.pub").display().to_string());
    let _ = site.ferry(&format!("sign v.tar --sign-key {secret} {TRUST}")).ok();
    let both = format!("{TRUST} --key {public} --require 2");
    let _ = site.ferry(&format!("verify v.tar {both}")).ok();
    let whole = files(&site, "v.tar");
    let (registry, blobs, manifest) = target(&site, &good);
    let mut target = Target { site: &site, registry, blobs, manifest, installs: 0 };
    let beside = |name: &&String| name.contains("sha256") || name.contains("recovery") || name.ends_with(".minisig");
    numbers::say(&format!("{:<40} {:<10} {:>8} verify repair", "file beside", "fault", "place"));
    for name in whole.iter().map(|(name, _)| name).filter(beside) {
        let bytes = site.bytes(name);
        let places = [20, bytes.len() / 2, bytes.len() - 2];
        for at in places {
            for fault in FAULTS {
                let what = format!("{name}, {fault} at {at}");
                site.write(name, hurt(fault, &bytes, at));
                let told = site.ferry(&format!("verify v.tar {both}")).run();
                let is_recovery = name.contains("recovery");
                assert_eq!(told.code, if is_recovery { 0 } else { 3 }, "{what}:\n{}", told.stderr);
                if at == 20 {
                    let install = target.install("v.tar", None);
                    assert!([0, 3].contains(&install.code), "{what}: {}", install.stderr);
                }
                let mut mended = "-";
                if is_recovery {
                    let repaired = site.ferry(&format!("repair v.tar {TRUST}")).run();
                    assert_eq!(repaired.code, 0, "{what}: {}", repaired.stderr);
                    assert!(files(&site, "v.tar") == whole, "{what}: it is not as it was");
                    mended = "anew";
                }
                numbers::say(&format!("{name:<40} {fault:<10} {at:>8} {:>6} {mended}", told.code));
                put(&site, "v.tar", &whole);
            }
        }
        // without it: a list or a recovery file is a help, a signature that is required is none
        fs::remove_file(site.at(name)).unwrap();
        let told = site.ferry(&format!("verify v.tar {both}")).run();
        let is_needed = name.ends_with(".minisig");
        assert_eq!(told.code, if is_needed { 3 } else { 0 }, "without {name}: {}", told.stderr);
        put(&site, "v.tar", &whole);
    }
    // a volume that is not there is missing, not damaged
    fs::remove_file(site.at("v.tar.002")).unwrap();
    let _ = site.ferry(&format!("verify v.tar {both}")).run().expect_code(4).says(&["v.tar.002` is not there"]);
}
