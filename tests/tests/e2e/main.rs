//! ferry from end to end: its binary, as users run it, against what it meets in life.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod bad_input;
mod crossing;
mod delta;
mod deltas;
mod digests;
mod emit;
mod errors;
mod export;
mod faults;
mod find;
mod full;
mod habits;
mod interruption;
mod kills;
mod load;
mod logins;
mod matrix;
mod mirror;
mod mirrors;
mod names;
mod operations;
mod page;
mod plan;
mod power;
mod proxies;
mod pulls;
mod pushes;
mod readers;
mod recheck;
mod recovery;
mod referrers;
mod reproducible;
mod reverse_proxy;
mod rewrite;
mod seed;
mod serve;
mod sources;
mod store;
mod targets;
mod tls;
mod trust;
mod volumes;

use ferry_tests::images::{Format, Image, Layer};
use ferry_tests::registry::{Access, Registry};
use ferry_tests::site::Site;

/// A small image for linux/amd64; another seed gives another one.
fn small(seed: u64) -> Image {
    Image::single("linux/amd64", Format::Oci, vec![Layer::random(seed, 3000), Layer::random(seed + 1000, 50)])
}

/// An index over linux/amd64 and linux/arm64/v8.
fn two_platforms(format: Format, seed: u64) -> Image {
    let amd64 = Image::single("linux/amd64", format, vec![Layer::random(seed, 3000), Layer::random(seed + 1000, 50)]);
    let arm64 = Image::single("linux/arm64/v8", format, vec![Layer::random(seed + 2000, 3000)]);
    Image::index(format, &[&amd64, &arm64])
}

/// An index over linux/amd64, linux/arm64/v8 and linux/s390x.
fn three_platforms(format: Format, seed: u64) -> Image {
    let one = |platform: &str, at: u64| Image::single(platform, format, vec![Layer::random(seed + at, 3000)]);
    let children = [one("linux/amd64", 0), one("linux/arm64/v8", 100), one("linux/s390x", 200)];
    Image::index(format, &children.iter().collect::<Vec<_>>())
}

/// What one small image needs to cross: a source that holds `app/one:1`, and a site with keys.
fn one() -> (Registry, Image, Site) {
    let image = small(1);
    let registry = Registry::filled(Access::Plain, &[("app/one:1", &image)]);
    (registry, image, Site::new())
}

/// `one`, bundled as `b.tar`.
fn bundled() -> (Registry, Image, Site) {
    let (registry, image, site) = one();
    let _ = site.ferry(&format!("bundle {}/app/one:1 {FOR} -o b.tar {SIGN}", registry.host())).ok();
    (registry, image, site)
}

/// The options of nearly every command line here.
const FOR: &str = "--platform linux/amd64";
const SIGN: &str = "--sign-key ferry.key";
const TRUST: &str = "--key ferry.pub";
