//! Recovery files: what disks and people do to a bundle is mended within the budget, and never made worse.

use std::fs;

use ferry_tests::disks::SmallDisk;
use ferry_tests::images::{Format, Image, Layer, Random, layout};
use ferry_tests::require;
use ferry_tests::site::Site;

use crate::{SIGN, TRUST};

/// A site with `b.tar`, with layers of these sizes.
pub(crate) fn bundle(layers: &[usize]) -> Site {
    let site = Site::new();
    let layers = (1..).zip(layers).map(|(seed, size)| Layer::random(seed, *size)).collect();
    let image = Image::single("linux/amd64", Format::Oci, layers);
    layout::write_tar(&site.at("in.tar"), &[("v1", &image)]);
    site.write("notes.txt", "read me\n");
    site.write(
        "m.yaml",
        "name: m\nversion: 1\nplatforms: [linux/amd64]\nfiles: [notes.txt]\n\
         images: [{image: \"x/y:1\", archive: in.tar, archiveImage: v1}]\n",
    );
    let _ = site.ferry(&format!("bundle m.yaml -o b.tar {SIGN}")).ok();
    site
}

/// Cuts `b.tar` into volumes of so many bytes, which stand in its place.
pub(crate) fn split(site: &Site, volume: usize) {
    let bytes = site.bytes("b.tar");
    for (number, slice) in (1..).zip(bytes.chunks(volume)) {
        site.write(&format!("b.tar.{number:03}"), slice);
    }
    fs::remove_file(site.at("b.tar")).unwrap();
}

/// Everything whose name begins so, with its bytes.
pub(crate) fn files(site: &Site, start: &str) -> Vec<(String, Vec<u8>)> {
    let names = site.names().into_iter().filter(|name| name.starts_with(start) && !name.ends_with('/'));
    names.map(|name| (name.clone(), site.bytes(&name))).collect()
}

/// Writes them back, and nothing else stays whose name begins so.
pub(crate) fn put(site: &Site, start: &str, content: &[(String, Vec<u8>)]) {
    for (name, _) in files(site, start) {
        fs::remove_file(site.at(&name)).unwrap();
    }
    for (name, bytes) in content {
        site.write(name, bytes);
    }
}

fn repair(site: &Site, more: &str) -> ferry_tests::ferry::Outcome {
    site.ferry(&format!("repair b.tar {TRUST} {more}")).run()
}

/// A place in every kind of byte that a bundle has: name, position.
pub(crate) fn classes(bytes: &[u8]) -> Vec<(String, usize)> {
    let mut places = Vec::new();
    let mut archive = tar::Archive::new(bytes);
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let (header, start, size) = (entry.raw_header_position(), entry.raw_file_position(), entry.size());
        let mut add = |what: &str, at: u64| places.push((format!("{what} of {name}"), usize::try_from(at).unwrap()));
        add("header", header + 130);
        add("start", start);
        add("middle", start + size / 2);
        add("last byte", start + size - 1);
        if size % 512 != 0 {
            add("padding", start + size);
        }
    }
    let signature = bytes.windows(15).position(|window| window == b"trusted comment").unwrap();
    places.push(("comment line".to_owned(), signature + 20));
    places.push(("end marker".to_owned(), bytes.len() - 600));
    places.push(("last byte of all".to_owned(), bytes.len() - 1));
    places
}

#[test]
fn the_fault_matrix() {
    let site = bundle(&[200_000, 30_000]);
    let _ = site.ferry(&format!("protect b.tar --recovery 10% {TRUST}")).ok();
    let whole = files(&site, "b.tar");
    let good = site.bytes("b.tar");
    let budget = good.len() / 11;
    let mut mended = 0;
    for (what, at) in classes(&good) {
        let mut flipped = good.clone();
        flipped[at] ^= 4;
        let mut twice = good.clone();
        twice.splice(at..at, good[at..(at + 512).min(good.len())].to_vec());
        let appended = [&good[..], &good[..at.min(4000) + 1]].concat();
        for (kind, bad) in
            [("flipped", flipped), ("cut", good[..at].to_vec()), ("duplicated", twice), ("appended", appended)]
        {
            // what is said to be survived is survived: bits, ends, and what was shifted no more than the budget before the end
            let within = match kind {
                "flipped" | "appended" => true,
                _ => good.len() - at < budget,
            };
            site.write("b.tar", &bad);
            let told = repair(&site, "");
            let now = site.bytes("b.tar");
            match told.code {
                0 => {
                    assert!(files(&site, "b.tar") == whole, "{kind}, {what}");
                    mended += 1;
                }
                3 => {
                    assert!(!within, "{kind}, {what}: {}", told.stderr);
                    assert!(["beyond", "hardly anything"].iter().any(|w| told.stderr.contains(w)), "{}", told.stderr);
                    let worse = bad.iter().zip(&now).zip(&good).filter(|((bad, now), good)| bad == good && now != good);
                    assert_eq!(worse.count(), 0, "{kind}, {what}: made worse");
                    assert!(now.len() >= bad.len(), "{kind}, {what}: nothing is cut off what is not whole");
                    let _ = site.ferry(&format!("verify b.tar {TRUST}")).run().expect_code(3);
                }
                other => panic!("{kind}, {what}: exit code {other}: {}", told.stderr),
            }
            put(&site, "b.tar", &whole);
        }
    }
    assert!(mended > 60, "{mended}");
}

#[test]
fn damaged_recovery_files_are_written_anew() {
    let site = bundle(&[200_000]);
    let _ = site.ferry(&format!("protect b.tar --recovery 10% {TRUST}")).ok();
    let (whole, name) = (files(&site, "b.tar"), "b.tar.recovery-001");
    let good = site.bytes(name);
    for at in [0, 20, 200, 4090, good.len() / 2, good.len() - 4000, good.len() - 1] {
        let mut flipped = good.clone();
        flipped[at] ^= 1;
        let mut twice = good.clone();
        twice.splice(at..at, good[at..(at + 512).min(good.len())].to_vec());
        let appended = [&good[..], b"more"].concat();
        for bad in [flipped, twice, appended, good[..at.max(4096)].to_vec()] {
            site.write(name, bad);
            let told = repair(&site, "").expect_code(0);
            told.says(&[name, "anew"]);
            assert!(files(&site, "b.tar") == whole);
        }
    }
    // nothing of it is left: then there is nothing to mend with
    site.write(name, [0; 9000]);
    let told = repair(&site, "").expect_code(4);
    told.says(&["b.tar", "not one page left", "ferry protect"]);
}

#[test]
fn what_the_plan_says_is_what_is_survived() {
    let site = bundle(&[900_000]);
    let told = site.ferry(&format!("protect b.tar --dry-run --json {TRUST}")).ok().json();
    assert_eq!(site.names().iter().filter(|name| name.contains("recovery")).count(), 0, "a dry run writes nothing");
    let _ = site.ferry(&format!("protect b.tar {TRUST}")).ok().says(&["b.tar.recovery-001", "make up for"]);
    let size = site.bytes("b.tar.recovery-001").len();
    assert_eq!((told["files"][0]["size"].as_u64(), told["bytes"].as_u64()), (Some(size as u64), Some(size as u64)));
    let (whole, good) = (files(&site, "b.tar"), site.bytes("b.tar"));
    let stretch = usize::try_from(told["survives"]["stretch"].as_u64().unwrap()).unwrap();
    assert!(stretch > good.len() / 25, "{stretch}");
    let mut random = Random::new(7);
    for _ in 0..8 {
        let at = usize::try_from(random.draw()).unwrap() % (good.len() - stretch);
        let mut bad = good.clone();
        bad[at..at + stretch].iter_mut().for_each(|byte| *byte ^= 0xff);
        site.write("b.tar", bad);
        let _ = repair(&site, "").expect_code(0).says(&["b.tar was damaged", "mended", "b.tar is whole again"]);
        assert!(files(&site, "b.tar") == whole, "{at}");
    }
    let pieces = told["survives"]["pieces"].as_u64().unwrap();
    for _ in 0..4 {
        let mut bad = good.clone();
        for _ in 0..pieces {
            let at = usize::try_from(random.draw()).unwrap() % good.len();
            bad[at] ^= 1;
        }
        site.write("b.tar", bad);
        let _ = repair(&site, "").expect_code(0);
        assert!(files(&site, "b.tar") == whole);
    }
}

#[test]
fn beyond_the_budget_blobs_are_named() {
    let site = bundle(&[3_000_000, 1_000_000]);
    let plan = site.ferry(&format!("protect b.tar --json {TRUST}")).ok().json();
    let [shard, piece] = [&plan["shardBytes"], &plan["survives"]["pieceBytes"]].map(|n| n.as_u64().unwrap() as usize);
    assert!(plan["recoveryShards"] == 10 && shard > 3 * piece, "{plan}");
    let mut bad = site.bytes("b.tar");
    // in one column of the first layer two pieces more than can be made up for, and a bit of the head in another
    for n in 10..22 {
        bad[n * shard + piece + 7] ^= 1;
    }
    bad[1000] ^= 1;
    site.write("b.tar", &bad);
    let dry = repair(&site, "--dry-run").expect_code(3);
    dry.says(&["can be mended", "beyond repair"]);
    assert!(site.bytes("b.tar") == bad, "a dry run writes nothing");
    let told = repair(&site, "--json").expect_code(3);
    let json = told.json();
    assert_eq!((&json["succeeds"], &json["verified"]), (&false.into(), &false.into()));
    let lost = json["lost"].as_array().unwrap();
    assert!(lost.len() == 1 && lost[0].as_str().unwrap().starts_with("blobs/sha256/"), "{json}");
    told.says(&[lost[0].as_str().unwrap(), "ferry verify --want"]);
    // the head was mended all the same
    let verify = site.ferry(&format!("verify b.tar {TRUST}")).run().expect_code(3);
    verify.says(&[lost[0].as_str().unwrap()]);
}

#[test]
fn recovery_files_of_an_older_bundle_are_no_way_out_of_a_damaged_install() {
    let site = bundle(&[40_000]);
    let _ = site.ferry(&format!("protect b.tar --recovery 20% {TRUST}")).ok();
    let damage = || {
        let mut bytes = site.bytes("b.tar");
        // in the layer, the largest member
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        site.write("b.tar", bytes);
    };
    let install = || site.ferry(&format!("install b.tar --store shelf {TRUST}")).run().expect_code(3);
    let whole = site.bytes("b.tar");
    damage();
    install().says(&["`ferry repair b.tar` may mend"]);
    site.write("b.tar", whole);
    // the next release, under the same name: what stands beside it is stale
    site.write("notes.txt", "read me again\n");
    let _ = site.ferry(&format!("bundle m.yaml -o new.tar {SIGN}")).ok();
    fs::rename(site.at("new.tar"), site.at("b.tar")).unwrap();
    damage();
    let told = install();
    told.says(&["were made for another bundle and cannot mend this one", "--want want.json"]);
    assert!(!told.stderr.contains("may mend"), "{}", told.stderr);
    repair(&site, "").expect_code(3).says(&["another"]);
    let export = site.ferry(&format!("export b.tar --to oci -o layout {TRUST}")).run().expect_code(3);
    export.says(&["were made for another bundle"]);
}

#[test]
fn a_lost_volume_comes_back() {
    let site = bundle(&[500_000, 200_000]);
    split(&site, 150_000);
    let _ = site.ferry(&format!("protect b.tar --recovery 1vol {TRUST}")).ok().says(&["1 lost volume"]);
    let whole = files(&site, "b.tar");
    let of_recovery = whole.iter().filter(|(name, _)| name.contains("recovery"));
    assert!(of_recovery.clone().count() > 1 && of_recovery.clone().all(|(_, bytes)| bytes.len() <= 150_000));
    let is_volume = |name: &&String| name.trim_start_matches("b.tar.").parse::<u32>().is_ok();
    let volumes: Vec<&String> = whole.iter().map(|(name, _)| name).filter(is_volume).collect();
    for lost in &volumes {
        fs::remove_file(site.at(lost)).unwrap();
        let verify = site.ferry(&format!("verify b.tar {TRUST}")).run();
        verify.says(&["`ferry repair b.tar` may mend"]);
        let dry = repair(&site, "--dry-run").expect_code(0);
        dry.says(&[lost, "was not there", "everything can be mended"]);
        let _ = repair(&site, "").expect_code(0).says(&[lost, "is whole again"]);
        assert!(files(&site, "b.tar") == whole, "{lost}");
    }
    // two of them are too many, and neither is made up; the dry run names what is lost as the real one does
    fs::remove_file(site.at(volumes[1])).unwrap();
    fs::remove_file(site.at(volumes[2])).unwrap();
    let names = site.names();
    let [dry, real] = ["--dry-run --json", "--json"].map(|how| repair(&site, how).expect_code(3).json());
    assert!(dry["lost"] == real["lost"] && !real["lost"].as_array().unwrap().is_empty(), "{dry}\n{real}");
    assert_eq!(site.names(), names, "a volume that cannot be made anew stays lost");
    repair(&site, "").expect_code(3).says(&["beyond", volumes[1], volumes[2], "blobs/sha256/"]);
    let _ = repair(&site, "-o half/").expect_code(3);
    assert!(!site.at("half").join(volumes[1]).exists() && site.at("half").join(volumes[0]).exists());
    // one of them turns up
    let found = whole.iter().find(|(name, _)| name == volumes[1]).unwrap();
    site.write(volumes[1], &found.1);
    repair(&site, "").expect_code(0).says(&[volumes[2], "is whole again"]);
    assert!(files(&site, "b.tar") == whole);
    // names that were mixed up
    fs::rename(site.at(volumes[0]), site.at("t")).unwrap();
    fs::rename(site.at(volumes[3]), site.at(volumes[0])).unwrap();
    fs::rename(site.at("t"), site.at(volumes[3])).unwrap();
    let copy = repair(&site, "-o copy.tar").expect_code(0);
    copy.says(&[volumes[0], "is read as"]);
    let _ = site.ferry(&format!("verify copy.tar {TRUST}")).ok();
    let _ = repair(&site, "").expect_code(0).says(&[volumes[0], "is renamed"]);
    assert!(files(&site, "b.tar") == whole);
    // volumes in two folders
    fs::create_dir(site.at("second")).unwrap();
    fs::rename(site.at(volumes[1]), site.at("second").join(volumes[1])).unwrap();
    fs::write(site.at("second").join(volumes[1]), &site.bytes(&format!("second/{}", volumes[1]))[..1000]).unwrap();
    let _ = site.ferry(&format!("repair b.tar second/b.tar {TRUST}")).ok().says(&["cut at 1000 bytes"]);
    fs::rename(site.at("second").join(volumes[1]), site.at(volumes[1])).unwrap();
    assert!(files(&site, "b.tar") == whole);
}

#[test]
fn a_mended_copy_has_the_signatures_and_the_list() {
    let site = bundle(&[500_000, 200_000]);
    let _ = site.ferry(&format!("bundle m.yaml -o v.tar --volume-size 150KB --recovery 1vol {SIGN}")).ok();
    let second = Site::new();
    let [secret, public] = ["ferry.key", "ferry.pub"].map(|name| second.at(name).display().to_string());
    let both = format!("{TRUST} --key {public} --require 2");
    for name in ["b.tar", "v.tar"] {
        let _ = site.ferry(&format!("sign {name} --sign-key {secret} {TRUST}")).ok();
    }
    let _ = site.ferry(&format!("protect b.tar {TRUST}")).ok();
    let mut bad = site.bytes("b.tar");
    bad[100_000] ^= 1;
    site.write("b.tar", bad);
    site.ferry(&format!("repair b.tar -o c.tar {both}")).ok().says(&["c.tar is whole again"]);
    let _ = site.ferry(&format!("verify c.tar {both}")).ok();
    // volumes: into a folder that was not there, under the same name, or under another
    fs::remove_file(site.at("v.tar.002")).unwrap();
    let told = site.ferry(&format!("repair v.tar -o new/ {both}")).ok();
    told.says(&["new/v.tar.001 to .00", "are whole again"]);
    for end in ["sha256", "sha256.minisig"] {
        assert!(site.bytes(&format!("new/v.tar.{end}")) == site.bytes(&format!("v.tar.{end}")), "{end}");
    }
    let _ = site.ferry(&format!("verify new/v.tar {both}")).ok();
    let told = site.ferry(&format!("repair v.tar -o w.tar {both}")).ok();
    told.says(&["v.tar.sha256 is not copied", "w.tar.001 to .00", "are whole again"]);
    let _ = site.ferry(&format!("verify w.tar {both}")).ok();
    assert!(!site.at("v.tar.002").exists() && !site.at("w.tar.sha256").exists());
}

#[test]
fn recovery_files_on_another_disk_are_named() {
    let site = bundle(&[500_000, 200_000]);
    split(&site, 150_000);
    let _ = site.ferry(&format!("protect b.tar --recovery 1vol {TRUST}")).ok();
    let volumes = || files(&site, "b.tar.0");
    let whole = volumes();
    fs::create_dir(site.at("other")).unwrap();
    let recovery = files(&site, "b.tar.recovery-");
    assert!(recovery.len() > 1);
    for (name, _) in &recovery {
        fs::rename(site.at(name), site.at("other").join(name)).unwrap();
    }
    fs::remove_file(site.at("b.tar.002")).unwrap();
    repair(&site, "").expect_code(4).says(&["there is no `b.tar.recovery-001`", "name one of them"]);
    // one stands for all of its folder
    repair(&site, "other/b.tar.recovery-002").expect_code(0).says(&["b.tar.002", "is whole again"]);
    assert!(volumes() == whole && files(&site, "b.tar.recovery-").is_empty(), "none is made beside the bundle");
    // a damaged one is said and left
    let mut bad = recovery[0].1.clone();
    bad[5000] ^= 1;
    site.write("other/b.tar.recovery-001", &bad);
    let told = repair(&site, "other/b.tar.recovery-001").expect_code(0);
    told.says(&["other/b.tar.recovery-001 was damaged or lost, and left as it is"]);
    assert!(site.bytes("other/b.tar.recovery-001") == bad && volumes() == whole);
}

#[test]
fn bundle_makes_recovery_files_at_once() {
    let site = bundle(&[100_000]);
    let made = site.bytes("b.tar");
    let plan = site.ferry("bundle m.yaml -o c.tar --recovery 5% --dry-run").ok();
    assert!(plan.stdout.contains("recovery files: "), "{}", plan.stdout);
    let sizes = |options: &str| {
        let json = site.ferry(&format!("bundle m.yaml -o c.tar --dry-run --json {options}")).ok().json();
        ["size", "recoveryBytes", "freeSpaceNeeded"].map(|key| json[key].as_u64().unwrap())
    };
    let ([size, none, without], [same, recovery, with]) = (sizes(""), sizes("--recovery 5%"));
    assert_eq!((none, same), (0, size));
    assert!(recovery > size / 20 && with == without + recovery, "{recovery} {with}");
    let _ = site.ferry(&format!("bundle m.yaml -o c.tar --recovery 5% {SIGN}")).ok().says(&["c.tar.recovery-001"]);
    assert!(site.bytes("c.tar") == made);
    let _ = site.ferry(&format!("protect b.tar {TRUST}")).ok();
    assert!(site.bytes("b.tar.recovery-001") == site.bytes("c.tar.recovery-001"), "the same bundle, the same files");
    // found out before anything is fetched
    let _ = site.ferry(&format!("bundle m.yaml -o d.tar --recovery 1vol {SIGN}")).run().expect_code(2).says(&["1vol"]);
    assert!(!site.at("d.tar").exists());
    for bad in ["5", "0%", "200%", "x"] {
        let _ = site.ferry(&format!("protect b.tar --recovery {bad} {TRUST}")).run().expect_code(2).says(&["5%"]);
    }
}

#[test]
fn who_is_not_trusted_is_not_protected() {
    let site = bundle(&[50_000]);
    let stranger = Site::new();
    let key = stranger.at("ferry.pub").display().to_string();
    let _ = site.ferry("protect b.tar").run().expect_code(2).says(&["--key"]);
    let _ = site.ferry("repair b.tar").run().expect_code(2).says(&["--key"]);
    let _ = site.ferry(&format!("protect b.tar --key {key}")).run().expect_code(3);
    let _ = site.ferry(&format!("protect b.tar {TRUST} --expect other")).run().expect_code(3);
    let mut bad = site.bytes("b.tar");
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    site.write("b.tar", bad);
    // recovery data of damaged bytes would keep the damage
    let _ = site.ferry(&format!("protect b.tar {TRUST}")).run().expect_code(3).says(&["damaged"]);
    assert!(!site.names().iter().any(|name| name.contains("recovery")), "{:?}", site.names());
    bad = site.bytes("b.tar");
    bad[middle] ^= 1;
    site.write("b.tar", bad);
    let _ = site.ferry(&format!("protect b.tar {TRUST}")).ok();
    let _ = site.ferry(&format!("repair b.tar --key {key}")).run().expect_code(3);
    let _ = repair(&site, "").expect_code(0).says(&["b.tar is whole and was"]);
}

#[test]
fn a_full_disk_is_said_before_anything_is_written() {
    require!("root", "mount");
    let site = bundle(&[2_000_000, 700_000]);
    let size = site.bytes("b.tar").len();
    let disk = SmallDisk::mount(&site.at("disk"), "3m");
    fs::copy(site.at("b.tar"), site.at("disk/b.tar")).unwrap();
    let protect = |percent: &str| site.ferry(&format!("protect disk/b.tar --recovery {percent} {TRUST}"));
    let _ = protect("50%").run().expect_code(6).says(&["disk/b.tar.recovery-001", "bytes are needed"]);
    let names = || fs::read_dir(site.at("disk")).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
    assert_eq!(names().len(), 1, "{:?}", names());
    let _ = protect("5%").ok();
    // a copy does not fit; in place it does
    let mut bad = site.bytes("disk/b.tar");
    bad[100_000..150_000].fill(0);
    fs::write(site.at("disk/b.tar"), &bad).unwrap();
    let copy = site.ferry(&format!("repair disk/b.tar -o disk/c.tar {TRUST}")).run().expect_code(6);
    copy.says(&[&size.to_string(), "are free"]);
    assert_eq!(names().len(), 2, "{:?}", names());
    // cut, and something else took the room
    fs::write(site.at("disk/b.tar"), &site.bytes("b.tar")[..size - 100_000]).unwrap();
    let mut filler = fs::File::create(site.at("disk/filler")).unwrap();
    let _ = std::io::copy(&mut std::io::repeat(1), &mut filler);
    drop(filler);
    let repair = || site.ferry(&format!("repair disk/b.tar {TRUST}"));
    let _ = repair().run().expect_code(6).says(&["disk/b.tar", "100000 bytes are needed"]);
    fs::remove_file(site.at("disk/filler")).unwrap();
    let _ = repair().ok();
    assert!(site.bytes("disk/b.tar") == site.bytes("b.tar"));
    drop(disk);
}
