//! Killed at any moment, any number of times: the same command ends right, nothing that was finished is moved again, nothing is left over.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use ferry_tests::faults::{Line, Proxy};
use ferry_tests::images::docker_save::{Wrap, write_old};
use ferry_tests::images::{Compression, Format, Image, Layer};
use ferry_tests::kills::Trial;
use ferry_tests::registry::{Access, Registry, free_port};
use ferry_tests::require;
use ferry_tests::site::Site;

use crate::recovery::{self, files, put, split};
use crate::{FOR, SIGN, TRUST};

const LAYER: usize = 50_000;
const LAYERS: u64 = 8;
/// What an unfinished blob of each stream, with the requests around it, may cost a kill.
const LOST: u64 = 3 * LAYER as u64;
/// Requests and answers that are no blobs, of one run.
const TALK: u64 = 40_000;

fn image() -> Image {
    Image::single("linux/amd64", Format::Oci, (1..=LAYERS).map(|seed| Layer::random(seed, LAYER)).collect())
}

fn slow(server: SocketAddr) -> (String, Proxy) {
    let at = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let proxy = Proxy::listen(at, server, Line::slow(Duration::from_millis(2), 3_000_000));
    (proxy.host(), proxy)
}

/// Everything below a folder, with its bytes.
fn tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(here) = folders.pop() {
        let Ok(entries) = fs::read_dir(&here) else { continue };
        for entry in entries.map(Result::unwrap) {
            let path = entry.path();
            let name = path.strip_prefix(folder).unwrap().display().to_string();
            if path.is_dir() {
                found.insert(format!("{name}/"), Vec::new());
                folders.push(path);
            } else if let Ok(bytes) = fs::read(&path) {
                found.insert(name, bytes);
            }
        }
    }
    found
}

/// A folder `out` of a site, emptied for every row of kills; what an undisturbed run leaves there.
struct Out<'a> {
    site: &'a Site,
    good: BTreeMap<String, Vec<u8>>,
}

impl<'a> Out<'a> {
    /// Runs the command once. It writes below `out`.
    fn of(site: &'a Site, command: &str) -> Self {
        fs::create_dir_all(site.at("out")).unwrap();
        let _ = site.ferry(command).ok();
        Self { site, good: tree(&site.at("out")) }
    }

    fn reset(&self) {
        fs::remove_dir_all(self.site.at("out")).unwrap();
        fs::create_dir(self.site.at("out")).unwrap();
    }

    /// Whatever has a final name is what it must be. A report says how the build went.
    fn is_right_as_far_as_it_goes(&self) {
        let now = tree(&self.site.at("out"));
        for (name, good) in self.good.iter().filter(|(name, _)| !name.ends_with(".report.json")) {
            assert!(now.get(name).is_none_or(|bytes| bytes == good), "{name} is half-written");
        }
    }

    /// The very same files with the very same bytes, and nothing else.
    fn is_right(&self) {
        self.is_right_as_far_as_it_goes();
        let (now, good) = (tree(&self.site.at("out")), &self.good);
        assert!(now.keys().eq(good.keys()), "{:?}, and not {:?}", now.keys(), good.keys());
    }
}

/// A build from a registry: how it is asked for, and files whose appearance is a moment to be killed.
fn bundle(what: &'static str, options: &str, moments: &[&str]) {
    let image = image();
    let source = Registry::filled(Access::Plain, &[("app/large:1", &image)]);
    let (host, line) = slow(source.address());
    let site = Site::new();
    let command = format!("bundle {host}/app/large:1 {FOR} --name n -o out/b.tar {SIGN} --jobs 2 {options}");
    let out = Out::of(&site, &command);
    let before = std::cell::Cell::new(0);
    Trial {
        what,
        command: &|| site.ferry(&command),
        moments: moments.iter().map(|name| site.at("out").join(name)).collect(),
        reset: &|| {
            out.reset();
            before.set(line.counts().down);
        },
        killed: &|| out.is_right_as_far_as_it_goes(),
        ended: &|kills| {
            out.is_right();
            let _ = site.ferry(&format!("verify out/b.tar {TRUST}")).ok();
            let down = line.counts().down - before.get();
            let most = image.blob_bytes() + (kills + 1) * TALK + kills * LOST;
            assert!(down <= most, "{what}: {down} bytes came after {kills} kills, of {}", image.blob_bytes());
        },
    }
    .run();
}

#[test]
fn a_bundle() {
    require!("docker-registry");
    bundle("bundle", "", &["b.tar.partial.journal", "b.tar"]);
}

#[test]
fn a_bundle_in_volumes_with_recovery_files() {
    require!("docker-registry");
    let moments = [
        "b.tar.partial.004",
        "b.tar.partial.sha256",
        "b.tar.001",
        "b.tar.sha256",
        "b.tar.sha256.minisig",
        "b.tar.report.json",
        "b.tar.recovery-001.partial",
        "b.tar.recovery-001",
    ];
    bundle("bundle --volume-size --recovery", "--volume-size 100K --recovery 10%", &moments);
}

#[test]
fn a_bundle_of_a_docker_save_tar() {
    let layers = (1..=4).map(|seed| Layer::mixed(seed, 500_000, 0.5).with(Compression::None)).collect();
    let image = Image::single("linux/amd64", Format::Docker, layers);
    let site = Site::new();
    write_old(&site.at("saved.tar"), &[(&["app/saved:1"], &image)], Wrap::Gzip);
    site.write("m.yaml", "name: m\nplatforms: [linux/amd64]\nimages: [{image: \"app/saved:1\", archive: saved.tar}]\n");
    let command = format!("bundle m.yaml -o out/b.tar {SIGN}");
    let out = Out::of(&site, &command);
    Trial {
        what: "bundle of a docker-save tar",
        command: &|| site.ferry(&command),
        moments: ["b.tar.spool", "b.tar.partial", "b.tar"].map(|name| site.at("out").join(name)).to_vec(),
        reset: &|| out.reset(),
        killed: &|| out.is_right_as_far_as_it_goes(),
        ended: &|_| {
            out.is_right();
            let _ = site.ferry(&format!("verify out/b.tar {TRUST}")).ok();
        },
    }
    .run();
}

/// A site with `b.tar` of the image.
fn bundled(image: &Image) -> Site {
    let source = Registry::filled(Access::Plain, &[("app/large:1", image)]);
    let site = Site::new();
    site.write("a.yaml", "kind: Pod\nspec: {containers: [{name: a, image: reg.example/app/large:1}]}\n");
    site.write(
        "m.yaml",
        format!(
            "name: n\nplatforms: [linux/amd64]\nyaml: [a.yaml]\nimages: [{{image: \"reg.example/app/large:1\", from: [\"{}/app/large\"]}}]\n",
            source.host()
        ),
    );
    let _ = site.ferry(&format!("bundle m.yaml -o b.tar {SIGN}")).ok();
    site
}

#[test]
fn an_install_into_a_registry() {
    require!("docker-registry");
    let image = image();
    let site = bundled(&image);
    let target = Registry::start(Access::Plain);
    let (host, line) = slow(target.address());
    let (round, before) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let command = || format!("install b.tar --registry {host}/r{} --out out {TRUST} --jobs 2", round.get());
    let out = Out::of(&site, &command());
    Trial {
        what: "install into a registry",
        command: &|| site.ferry(&command()),
        moments: ["out/receipt.json", "out/relocation.json"].map(|name| site.at(name)).to_vec(),
        reset: &|| {
            out.reset();
            round.set(round.get() + 1);
            before.set(line.counts().up);
        },
        killed: &|| {
            // tags come last
            let repository = format!("r{}/app/large", round.get());
            assert!(target.manifest(&repository, "1").is_none() || target.holds(&repository, &image));
        },
        ended: &|kills| {
            assert!(tree(&site.at("out")).keys().eq(out.good.keys()), "{:?}", tree(&site.at("out")).keys());
            assert!(target.holds(&format!("r{}/app/large", round.get()), &image));
            let up = line.counts().up - before.get();
            let most = image.blob_bytes() + (kills + 1) * TALK + kills * LOST;
            assert!(up <= most, "{up} bytes were sent after {kills} kills, of {}", image.blob_bytes());
        },
    }
    .run();
}

/// Into a store below `out`, from a file or through a pipe with a spool.
fn store(what: &'static str, bundle: &str, moments: &[&str]) {
    let image =
        Image::single("linux/amd64", Format::Oci, (1..=8).map(|seed| Layer::random(seed, 16 * LAYER)).collect());
    let site = bundled(&image);
    let command = format!("install {bundle} --store out/store --registry r.example --out out/ready {TRUST}");
    let start = || site.ferry(&command).stdin(&site.at("b.tar"));
    fs::create_dir_all(site.at("out")).unwrap();
    let _ = start().ok();
    let out = Out { site: &site, good: tree(&site.at("out")) };
    let is_dated = |name: &str| name.ends_with("receipt.json") || name.ends_with("lock");
    Trial {
        what,
        command: &start,
        moments: moments.iter().map(|name| site.at("out").join(name)).collect(),
        reset: &|| out.reset(),
        killed: &|| {
            let now = tree(&site.at("out"));
            for (name, good) in out.good.iter().filter(|(name, _)| name.contains("/blobs/")) {
                assert!(now.get(name).is_none_or(|bytes| bytes == good), "{name} is half-written");
            }
        },
        ended: &|_| {
            let now = tree(&site.at("out"));
            assert!(now.keys().eq(out.good.keys()), "{:?}, and not {:?}", now.keys(), out.good.keys());
            for (name, good) in out.good.iter().filter(|(name, _)| !is_dated(name)) {
                assert!(now[name] == *good, "{name}");
            }
            let left = site.names().into_iter().filter(|name| name.starts_with("ferry-spool-")).count();
            assert_eq!(left, 0, "{:?}", site.names());
        },
    }
    .run();
}

/// What `ferry export` writes below `out`. A blob of a layout may be there, and its index only in the end.
fn export(what: &'static str, to: &str, output: &str, moments: &[&str]) {
    let image =
        Image::single("linux/amd64", Format::Oci, (1..=8).map(|seed| Layer::random(seed, 16 * LAYER)).collect());
    let site = bundled(&image);
    let command = format!("export b.tar --to {to} -o out/{output} {TRUST}");
    let out = Out::of(&site, &command);
    Trial {
        what,
        command: &|| site.ferry(&command),
        moments: moments.iter().map(|name| site.at("out").join(name)).collect(),
        reset: &|| out.reset(),
        killed: &|| out.is_right_as_far_as_it_goes(),
        ended: &|_| out.is_right(),
    }
    .run();
}

#[test]
fn an_export_into_a_file() {
    require!("docker-registry");
    export("export --to docker", "docker", "x.tar", &[".x.tar.new", "x.tar"]);
}

#[test]
fn an_export_into_an_images_folder() {
    require!("docker-registry");
    export("export --to k3s", "k3s", "images/", &["images", "images/.n.tar.new"]);
}

#[test]
fn an_export_into_a_layout() {
    require!("docker-registry");
    export("export --to oci", "oci", "layout", &["layout/blobs", "layout/oci-layout", "layout/index.json"]);
}

/// Another image into a layout that a killed run left something in: what is in use by nobody goes.
#[test]
fn a_layout_is_rid_of_what_a_killed_export_left() {
    require!("docker-registry");
    let site = bundled(&image());
    let _ = site.ferry(&format!("export b.tar --to oci -o layout {TRUST}")).ok();
    let good = tree(&site.at("layout"));
    let left = format!("layout/blobs/sha256/.{}.new", "0a".repeat(32));
    for name in [&left, "layout/blobs/sha256/.notes.new"] {
        site.write(name, "half of it");
    }
    let _ = site.ferry(&format!("export b.tar --to oci -o layout {TRUST}")).ok();
    assert!(!site.at(&left).exists() && site.at("layout/blobs/sha256/.notes.new").exists());
    fs::remove_file(site.at("layout/blobs/sha256/.notes.new")).unwrap();
    assert!(tree(&site.at("layout")) == good);
}

#[test]
fn an_install_into_a_store() {
    require!("docker-registry");
    store("install --store", "b.tar", &["store/oci-layout", "store/ferry/uploads", "ready/receipt.json"]);
}

#[test]
fn an_install_out_of_a_pipe_with_a_spool() {
    require!("docker-registry");
    store("install - --spool", "- --spool .", &["store/ferry/uploads", "store/index.json"]);
}

#[test]
fn a_repair() {
    let site = recovery::bundle(&[1_200_000, 600_000]);
    split(&site, 300_000);
    let _ = site.ferry(&format!("protect b.tar --recovery 3vol {TRUST}")).ok();
    let whole = files(&site, "b.tar");
    Trial {
        what: "repair",
        command: &|| site.ferry(&format!("repair b.tar {TRUST}")),
        moments: ["b.tar.002.partial", "b.tar.002", "b.tar.recovery-001.partial"].map(|name| site.at(name)).to_vec(),
        reset: &|| {
            put(&site, "b.tar", &whole);
            fs::remove_file(site.at("b.tar.002")).unwrap();
            for (name, step) in [("b.tar.004", 10_000), ("b.tar.recovery-001", 50_000)] {
                let mut bad = site.bytes(name);
                bad.iter_mut().skip(5000).step_by(step).for_each(|byte| *byte ^= 1);
                site.write(name, bad);
            }
            site.write("b.tar.005", &site.bytes("b.tar.005")[..200_000]);
        },
        killed: &|| {
            let lost = files(&site, "b.tar.002");
            assert!(lost.iter().all(|file| file.0 != "b.tar.002" || whole.contains(file)), "half-written");
        },
        ended: &|_| {
            let (now, names) = (files(&site, "b.tar"), site.names());
            assert!(now == whole, "{names:?}");
        },
    }
    .run();
}

#[test]
fn recovery_files() {
    let site = recovery::bundle(&[2_000_000]);
    let _ = site.ferry(&format!("protect b.tar --recovery 50% {TRUST}")).ok();
    fs::remove_file(site.at("b.tar.report.json")).unwrap();
    let whole = files(&site, "b.tar");
    Trial {
        what: "protect",
        command: &|| site.ferry(&format!("protect b.tar --recovery 50% {TRUST}")),
        moments: ["b.tar.recovery-001.partial", "b.tar.recovery-001"].map(|name| site.at(name)).to_vec(),
        reset: &|| put(&site, "b.tar", &whole[..1]),
        killed: &|| {
            let now = files(&site, "b.tar");
            assert!(now.iter().all(|file| file.0.ends_with(".partial") || whole.contains(file)), "half-written");
        },
        ended: &|_| assert!(files(&site, "b.tar") == whole, "{:?}", site.names()),
    }
    .run();
}

/// What a second run finds that has nothing to do: not a byte of a blob is fetched, and a damaged bundle is built anew.
#[test]
fn a_bundle_that_stands_there_whole_is_left_alone() {
    require!("docker-registry");
    let image = image();
    let source = Registry::filled(Access::Plain, &[("app/large:1", &image)]);
    let site = Site::new();
    for options in ["", "--volume-size 300K"] {
        let command = format!("bundle {}/app/large:1 {FOR} --name n -o out/b.tar {SIGN} {options}", source.host());
        let out = Out::of(&site, &command);
        source.forget_requests();
        let _ = site.ferry(&command).ok().says(&["were there from an earlier run"]);
        out.is_right();
        assert!(source.requests().blob_bytes_sent() < 10_000, "{}", source.requests().blob_bytes_sent());
        for name in out.good.keys().filter(|name| !name.ends_with(".json")) {
            let mut bad = out.good[name].clone();
            let middle = bad.len() / 2;
            bad[middle] ^= 1;
            site.write(&format!("out/{name}"), bad);
            let _ = site.ferry(&command).ok();
            out.is_right();
        }
        out.reset();
    }
}
