//! Bundles in pieces: volumes, and pipes.

use std::process::Command;

use ferry_tests::images::{Format, Image, Layer};
use ferry_tests::registry::{Access, Registry};
use ferry_tests::site::Site;
use ferry_tests::{require, tools};

use crate::{FOR, SIGN, TRUST};

/// 900 kB in three layers.
fn shop() -> (Registry, Site) {
    let layers = (1..=3).map(|seed| Layer::random(seed, 300_000)).collect();
    let image = Image::single("linux/amd64", Format::Oci, layers);
    (Registry::filled(Access::Plain, &[("shop/app:1", &image)]), Site::new())
}

fn bundle(registry: &Registry, output: &str) -> String {
    format!("bundle {}/shop/app:1 {FOR} --name shop -o {output} {SIGN}", registry.host())
}

#[test]
fn volumes_join_to_the_file_that_would_have_been() {
    require!("docker-registry");
    let (registry, site) = shop();
    let _ = site.ferry(&bundle(&registry, "whole.tar")).ok();
    let planned = site.ferry(&format!("{} --volume-size 250K --dry-run", bundle(&registry, "v.tar"))).ok();
    assert!(planned.stdout.contains("4 volumes of"), "{}", planned.stdout);
    let told = site.ferry(&format!("{} --volume-size 250K --read-back", bundle(&registry, "v.tar"))).ok();
    told.says(&["in 4 volumes", "read back from the medium, and whole"]);
    let pieces: Vec<Vec<u8>> = (1..=4).map(|number| site.bytes(&format!("v.tar.{number:03}"))).collect();
    assert!(pieces[..3].iter().all(|piece| piece.len() == 250_000));
    assert!(pieces.concat() == site.bytes("whole.tar"));
    let mut listed = Command::new("sha256sum");
    listed.args(["--strict", "--quiet", "-c", "v.tar.sha256"]).current_dir(site.path());
    assert!(listed.status().unwrap().success());
    if tools::has("minisign") {
        let (list, key) = (site.at("v.tar.sha256"), site.at("ferry.pub"));
        let signed = tools::succeed("minisign", &["-Vm", list.to_str().unwrap(), "-p", key.to_str().unwrap()]);
        assert!(signed.contains("volumes of bundle shop"), "{signed}");
    }
    for name in ["v.tar", "v.tar.001", "v.tar.004"] {
        let _ = site.ferry(&format!("verify {name} --cold {TRUST}")).ok().says(&["shop is whole"]);
        let _ = site.ferry(&format!("inspect {name} --json {TRUST}")).ok();
    }
    let both = site.ferry(&format!("verify v.tar whole.tar --json {TRUST}")).ok().json();
    assert_eq!(both[0]["sums"], both[1]["sums"]);
    // the other kind of bundle is not put beside it
    let _ = site
        .ferry(&bundle(&registry, "v.tar"))
        .run()
        .expect_code(7)
        .says(&["v.tar.001", "one name must be one bundle"]);
    let _ = site.ferry(&format!("{} --volume-size 1M", bundle(&registry, "whole.tar"))).run().expect_code(7);
    for (size, word) in [("10", "too few"), ("4X", "is no size"), ("-1", "unexpected")] {
        let _ = site
            .ferry(&format!("{} --volume-size {size}", bundle(&registry, "x.tar")))
            .run()
            .expect_code(2)
            .says(&[word]);
    }
}

#[test]
fn volumes_that_are_not_at_hand_are_named_or_waited_for() {
    require!("docker-registry");
    let (registry, site) = shop();
    let _ = site.ferry(&format!("{} --volume-size 250K", bundle(&registry, "v.tar"))).ok();
    let keep = |name: &str| std::fs::rename(site.at(name), site.at(&format!("kept/{name}"))).unwrap();
    let bring = |name: &str| std::fs::rename(site.at(&format!("kept/{name}")), site.at(name)).unwrap();
    site.write("kept/x", "");
    keep("v.tar.002");
    keep("v.tar.004");
    let told = site.ferry(&format!("verify v.tar {TRUST}")).run().expect_code(4);
    told.says(&["v.tar.002` is not there", "v.tar.004` is not there", "--wait-for-volume"]);
    let told = site.ferry(&format!("inspect v.tar {TRUST}")).ok();
    told.says(&["v.tar.002` is not there"]);
    assert!(told.stdout.contains("shop/app:1"));
    let _ = site.ferry(&format!("verify v.tar kept/v.tar.002 {TRUST}")).ok();
    let _ = site
        .ferry(&format!("verify v.tar --wait-for-volume=1 {TRUST}"))
        .run()
        .expect_code(4)
        .says(&["v.tar.002` did not come"]);
    let told = site.ferry(&format!("verify v.tar --wait-for-volume 600 {TRUST}")).run().expect_code(2);
    told.says(&["`600` is taken for a bundle", "write `--wait-for-volume=600`"]);

    let mut waiting = site.ferry(&format!("verify v.tar --wait-for-volume {TRUST}")).start();
    waiting.until("it asks for the second", || true);
    for name in ["v.tar.002", "v.tar.004"] {
        let asked = format!("waiting for {name}");
        for _ in 0..200 {
            if waiting.stderr().contains(&asked) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        assert!(waiting.stderr().contains(&asked), "{}", waiting.stderr());
        // as in a drive that takes one at a time
        if name == "v.tar.004" {
            keep("v.tar.001");
        }
        bring(name);
    }
    waiting.wait().expect_code(0).says(&["shop is whole"]);
    bring("v.tar.001");
    // what needs all of them at once waits until they are there
    let export = |more: &str| {
        site.ferry(&format!("export v.tar --to containerd --platform linux/amd64 -o x.tar {TRUST} {more}"))
    };
    keep("v.tar.002");
    keep("v.tar.004");
    export("").run().expect_code(4).says(&["v.tar.002` is not there", "v.tar.004` is not there"]);
    export("--wait-for-volume=1").run().expect_code(4).says(&["waiting for v.tar.002", "v.tar.004` is not there"]);
    let mut waiting = export("--wait-for-volume").start();
    waiting.until_it_says("waiting for v.tar.004");
    bring("v.tar.002");
    // half of it is not all of it
    let whole = site.bytes("kept/v.tar.004");
    site.write("v.tar.004", &whole[..whole.len() / 2]);
    std::thread::sleep(std::time::Duration::from_millis(700));
    assert!(waiting.runs(), "{}", waiting.stderr());
    bring("v.tar.004");
    waiting.wait().expect_code(0).says(&["exported for containerd"]);
    assert!(site.at("x.tar").exists());
    let damaged = [&site.bytes("v.tar.003")[..100], b"x", &site.bytes("v.tar.003")[101..]].concat();
    site.write("v.tar.003", damaged);
    let told = site.ferry(&format!("verify v.tar {TRUST}")).run().expect_code(3);
    told.says(&["volume `v.tar.003`: its content is damaged", "in `v.tar.00"]);
    // two are swapped
    site.write("v.tar.003", site.bytes("v.tar.002"));
    let told = site.ferry(&format!("verify v.tar {TRUST}")).run().expect_code(3);
    told.says(&["error: volume `v.tar.003`: it holds what volume 002 must hold"]);
    // the first, too, so that nothing at the front holds: the cause comes first
    let (first, second) = (site.bytes("v.tar.001"), site.bytes("v.tar.002"));
    site.write("v.tar.001", second);
    site.write("v.tar.002", first);
    let cause = |line: &str| {
        let told = site.ferry(&format!("{line} {TRUST}")).run().expect_code(3);
        let first = told.stderr.lines().find(|line| line.starts_with("error:")).expect("an error");
        assert!(first.contains(": it holds what volume 00"), "{}", told.stderr);
    };
    cause("verify v.tar");
    cause("install v.tar --store store");
    // the shorter last one with another
    site.write("v.tar.001", site.bytes("v.tar.002"));
    site.write("v.tar.002", site.bytes("v.tar.004"));
    site.write("v.tar.004", site.bytes("v.tar.003"));
    cause("verify v.tar");
    cause("install v.tar --store store");
}

#[test]
fn a_bundle_goes_through_pipes() {
    require!("docker-registry");
    let (registry, site) = shop();
    let _ = site.ferry(&bundle(&registry, "whole.tar")).ok();
    let before = site.names();
    let _ = site.ferry(&bundle(&registry, "-")).stdout(&site.at("piped.tar")).ok().says(&["the bundle is complete"]);
    assert!(site.bytes("piped.tar") == site.bytes("whole.tar"));
    std::fs::rename(site.at("piped.tar"), site.at("whole.tar")).unwrap();
    assert_eq!(site.names(), before, "nothing else is written");
    let told = site.ferry(&format!("verify - {TRUST}")).stdin(&site.at("whole.tar")).ok();
    told.says(&["shop is whole: signed by"]);
    let whole = site.bytes("whole.tar");
    let half = whole.len() / 2;
    site.write("cut.tar", &whole[..half]);
    site.write("flipped.tar", [&whole[..half], &[whole[half] ^ 1], &whole[half + 1..]].concat());
    for (bad, word) in [("cut.tar", "truncated"), ("flipped.tar", "damaged: `blobs/sha256/")] {
        let _ = site.ferry(&format!("verify - {TRUST}")).stdin(&site.at(bad)).run().expect_code(3).says(&[word]);
    }
    for (options, word) in [
        ("--volume-size 1M", "no volumes"),
        ("--json", "standard output"),
        ("--recovery 5%", "ferry protect"),
        ("--read-back", "read back"),
    ] {
        let command = format!("{} {options}", bundle(&registry, "-"));
        let _ = site.ferry(&command).run().expect_code(2).says(&[word]);
    }
}

#[test]
fn every_command_takes_volumes_from_several_folders() {
    require!("docker-registry");
    let (registry, site) = shop();
    let _ = site.ferry(&format!("{} --volume-size 250K", bundle(&registry, "v.tar"))).ok();
    let _ = site.ferry(&bundle(&registry, "whole.tar")).ok();
    site.write("b/x", "");
    std::fs::rename(site.at("v.tar.002"), site.at("b/v.tar.002")).unwrap();
    let both = "v.tar.001 b/v.tar.002";
    let told = site.ferry(&format!("inspect {both} {TRUST}")).ok();
    assert!(told.stdout.contains("shop/app:1") && !told.stderr.contains("is not there"), "{}", told.stderr);
    let diff = site.ferry(&format!("diff {both} whole.tar --exit-code {TRUST}")).ok();
    assert!(diff.stdout.contains("1 unchanged"), "{}", diff.stdout);
    let bundles = "--bundle v.tar.001 --bundle b/v.tar.002";
    let listed = site.ferry(&format!("rewrite {bundles} --registry r.local:5000 --print0 {TRUST}")).ok();
    assert!(listed.stdout.contains("r.local:5000/shop/app:1"));
    // what is several bundles, or none, is told
    for (line, words) in [
        ("inspect v.tar whole.tar", &["several are named"][..]),
        ("inspect -", &["`-` is standard input", "write it into a file first"]),
        ("diff v.tar.001 b/v.tar.002 v.tar.003", &["these are volumes of one bundle"]),
        ("diff v.tar.001 b/v.tar.002 whole.tar whole.tar", &["these are more than two"]),
    ] {
        let _ = site.ferry(&format!("{line} {TRUST}")).run().expect_code(2).says(words);
    }
}

#[test]
fn too_many_volumes_are_found_out_by_the_plan() {
    require!("docker-registry");
    let image = Image::single("linux/amd64", Format::Oci, vec![Layer::random(9, 70_000_000)]);
    let registry = Registry::filled(Access::Plain, &[("shop/app:1", &image)]);
    let site = Site::new();
    for dry_run in ["--dry-run", ""] {
        let told = site.ferry(&format!("{} --volume-size 65536 {dry_run}", bundle(&registry, "x.tar"))).run();
        told.expect_code(1).says(&["volumes would be needed, and 999 is the most", "give `--volume-size 7"]);
    }
    let fits = site.ferry(&format!("{} --volume-size 74K --dry-run", bundle(&registry, "x.tar"))).ok();
    assert!(fits.stdout.contains("in 99"), "{}", fits.stdout);
    assert_eq!(registry.requests().blob_bytes_sent() / 1_000_000, 0, "nothing was fetched");
}
