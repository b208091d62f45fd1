//! Long downloads over bad lines and from registries that have their own ideas.

use std::net::SocketAddr;
use std::time::Duration;

use ferry_tests::faults::{Direction, Fault as LineFault, Line, Proxy};
use ferry_tests::images::{Format, Image, Layer};
use ferry_tests::netns::{How, Namespace};
use ferry_tests::numbers;
use ferry_tests::registry::faulty::{Fault, FaultyRegistry, Rule, What};
use ferry_tests::registry::{Access, PASSWORD, Registry, USER};
use ferry_tests::require;
use ferry_tests::site::Site;

use crate::{FOR, SIGN, TRUST, two_platforms};

const MB: u64 = 1_000_000;
const SECOND: Duration = Duration::from_secs(1);

/// Layers of so many MB.
fn layers(sizes: &[usize]) -> Image {
    let layers = sizes.iter().zip(1..).map(|(size, seed)| Layer::random(seed, size * MB as usize)).collect();
    Image::single("linux/amd64", Format::Oci, layers)
}

/// Every connection is reset after so many bytes, at most so many bytes a second each.
fn breaking(every: u64, bytes_per_second: Option<u64>) -> Line {
    let fault = Some((Direction::Down, LineFault::Reset(every)));
    Line { fault, faults: u64::MAX, bytes_per_second, ..Line::good() }
}

fn verified(site: &Site, image: &Image) {
    let _ = site.ferry(&format!("verify b.tar {TRUST}")).ok();
    assert!(std::fs::metadata(site.at("b.tar")).unwrap().len() > image.blob_bytes());
}

/// The number to meet: a drop for each 8 MB costs less than two in a hundred. A range has about as many bytes, so a connection that
/// breaks after half of that breaks in every one of them.
fn drops(sizes: &[usize]) {
    let image = layers(sizes);
    let source = Registry::filled(Access::Plain, &[("app/large:1", &image)]);
    let line = Proxy::start(source.address(), breaking(4 << 20, None));
    let site = Site::new();
    let told = site.ferry(&format!("bundle {}/app/large:1 {FOR} -o b.tar {SIGN}", line.host())).ok();
    verified(&site, &image);
    let counts = line.counts();
    let (extra, all) = (counts.down - image.blob_bytes(), image.blob_bytes());
    let said = format!("{extra} bytes beyond {all}: {counts:?}");
    numbers::tell("pull: beyond the bytes themselves", extra as f64 * 100.0 / all as f64, "%");
    numbers::tell("pull: breaks", counts.faults as f64, "");
    numbers::tell("pull: time", told.took.as_secs_f64(), "s");
    assert!(counts.faults >= all / (8 << 20), "{said}");
    assert!(extra * 50 < all, "{said}");
}

#[test]
fn a_drop_for_each_eight_megabytes_costs_next_to_nothing() {
    require!("docker-registry");
    drops(&[40, 15, 5, 3, 1]);
}

#[test]
#[ignore = "half a gigabyte: `scripts/soak numbers`"]
fn a_drop_for_each_eight_megabytes_of_half_a_gigabyte() {
    require!("docker-registry");
    drops(&[240, 120, 60, 40, 20, 10, 5, 3, 1, 1]);
}

/// A registry that takes a token for three seconds, whatever its token server says.
fn short_tokens(said: u64) {
    let image = layers(&[6, 5]);
    let source = Registry::with_tokens_for(3 * SECOND, Duration::from_secs(said));
    source.push("app/large:1", &image);
    source.forget_requests();
    let before = source.tokens_given();
    let line = Proxy::start(source.address(), breaking(MB, Some(800_000)));
    let site = Site::new();
    let login = site.login(&line.host(), USER, PASSWORD);
    let command = format!("bundle {}/app/large:1 {FOR} -o b.tar {SIGN}", line.host());
    let told = site.ferry(&command).env("DOCKER_CONFIG", login).ok();
    verified(&site, &image);
    let seconds = told.took.as_secs();
    let tokens = source.tokens_given() - before;
    assert!(tokens >= 2, "{tokens} tokens in {seconds} s");
    assert!(tokens <= seconds / 2 + 2, "one for all tasks: {tokens} tokens in {seconds} s");
    let refused = source.requests().matching(|r| r.status == 401 && r.path.contains("/blobs/")).len();
    // both tasks may have sent the old one before the first was refused
    assert!(refused as u64 <= 2 * tokens, "{refused} refused, {tokens} tokens in {seconds} s");
    if said <= 3 {
        assert!(refused <= 1, "renewed before they end: {refused}");
    }
}

#[test]
fn tokens_that_end_in_mid_pull_are_renewed() {
    require!("docker-registry");
    short_tokens(3);
}

#[test]
fn tokens_that_end_sooner_than_said_are_renewed() {
    require!("docker-registry");
    short_tokens(300);
}

#[test]
fn a_pull_through_cache_fills_itself_once() {
    require!("docker-registry");
    let image = layers(&[40, 4]);
    let origin = Registry::filled(Access::Plain, &[("app/large:1", &image)]);
    let cache = Registry::cache_of(&origin);
    let site = Site::new();
    // one name for both lines: the reference is part of the bundle
    let at = SocketAddr::from(([127, 0, 0, 1], ferry_tests::registry::free_port()));
    let bundle = |line: Line| {
        let line = Proxy::listen(at, cache.address(), line);
        let _ = site.ferry(&format!("bundle {at}/app/large:1 {FOR} --name n -o b.tar {SIGN}")).ok();
        verified(&site, &image);
        line.counts()
    };
    // cold: it sends whole blobs only, and breaks off three times
    bundle(Line::broken(Direction::Down, LineFault::Reset(6 * MB), 3));
    let cold = site.bytes("b.tar");
    let sent = origin.requests();
    let large = image.blobs.iter().find(|(_, blob)| blob.len() as u64 > 30 * MB).unwrap().0;
    let times = sent.matching(|r| r.method == "GET" && r.path.contains(large.as_str())).len();
    // the cache itself asks once for whoever waits, and once to keep it; each break asks once more until it is kept
    assert!(times <= 2 + 3, "{times} times: {sent:?}");
    // warm: ranges, and nothing from the origin
    origin.forget_requests();
    let warm = bundle(Line::good());
    assert!(site.bytes("b.tar") == cold);
    assert_eq!(origin.requests().blobs_sent().len(), 0, "{:?}", origin.requests());
    assert!(warm.down < image.blob_bytes() + MB, "{warm:?}");
}

#[test]
fn a_registry_that_is_killed_and_comes_back_is_gone_on_with() {
    require!("docker-registry");
    let image = layers(&[20, 8, 8]);
    let mut source = Registry::filled(Access::Plain, &[("app/large:1", &image)]);
    let line = Proxy::start(source.address(), Line::slow(Duration::from_millis(5), 2 * MB));
    let site = Site::new();
    let mut running = site.ferry(&format!("bundle {}/app/large:1 {FOR} -o b.tar {SIGN}", line.host())).start();
    running.until("a third is there", || line.counts().down > image.blob_bytes() / 3);
    source.stop();
    std::thread::sleep(2 * SECOND);
    source.restart();
    running.until("two thirds are there", || line.counts().down > image.blob_bytes() * 2 / 3);
    source.restart();
    assert_eq!(running.wait().code, 0);
    verified(&site, &image);
    let extra = line.counts().down - image.blob_bytes();
    assert!(extra < 2 * MB, "{extra}");
}

/// The line is cut in the middle of a transfer, for so long.
fn outlives(how: How, time: Duration) {
    let image = layers(&[20, 8]);
    let source = Registry::filled(Access::Plain, &[("app/large:1", &image)]);
    let namespace = Namespace::new();
    let line = Line::slow(Duration::from_millis(5), 2 * MB);
    let line = Proxy::listen(SocketAddr::new(namespace.host(), 0), source.address(), line);
    let site = Site::new();
    let options = format!("--plain-http --stall-timeout 2 -o b.tar {SIGN}");
    let command = format!("bundle {}/app/large:1 {FOR} {options}", line.host());
    let mut running = site.ferry(&command).within(&namespace).start();
    running.until("a third is there", || line.counts().down > image.blob_bytes() / 3);
    let cut = namespace.cut(how);
    std::thread::sleep(time);
    let before = line.counts().down;
    assert!(before < image.blob_bytes(), "it was not over yet");
    drop(cut);
    let told = running.wait().expect_code(0);
    verified(&site, &image);
    let extra = line.counts().down - image.blob_bytes();
    // what was under way, in the buffers of each connection
    assert!(extra < 12 * MB, "{extra}: {}", told.stderr);
}

#[test]
fn lost_packets() {
    require!("docker-registry", "netns");
    outlives(How::Lose, 7 * SECOND);
}

#[test]
fn a_firewall_that_resets_everything() {
    require!("docker-registry", "netns");
    outlives(How::Reject, 3 * SECOND);
}

#[test]
fn a_cable_that_is_out() {
    require!("docker-registry", "netns");
    outlives(How::Unplug, 4 * SECOND);
}

#[test]
fn a_quota_that_will_not_do_is_told_before_and_what_it_gave_is_kept() {
    let images: Vec<(String, Image)> = (0..6).map(|n| (format!("app/n{n}:1"), two_platforms(Format::Oci, n))).collect();
    let held: Vec<(&str, &Image)> = images.iter().map(|(name, image)| (name.as_str(), image)).collect();
    // twelve manifests: six indexes with one platform each
    let source = FaultyRegistry::holding(&held).start([Rule::always("*", What::Manifest, Fault::Quota(100, 7))]);
    let site = Site::new();
    let names: Vec<String> = images.iter().map(|(name, _)| format!("{}/{name}", source.host())).collect();
    let command = format!("bundle {} {FOR} --name n -o b.tar {SIGN}", names.join(" "));
    let fetched =
        || source.count(|seen| seen.method == "GET" && seen.path.contains("/manifests/") && seen.status == 200);

    let before = site.names();
    let told = site.ferry(&format!("{command} --dry-run --json")).run().expect_code(5);
    let host = source.host();
    let warning = format!(
        "warning: {host} answers 7 more requests (of 100 in 6 h), and up to 12 manifests are still to be asked for"
    );
    told.says(&[&warning, "too many requests", "log in to"]);
    assert_eq!(fetched(), 7);
    assert_eq!(site.names(), before, "a dry run keeps nothing");

    source.renew();
    site.ferry(&command).run().expect_code(5).says(&[&warning]);
    assert_eq!(fetched(), 14);
    assert!(site.names().contains(&"b.tar.manifests".to_owned()), "{:?}", site.names());

    source.renew();
    let told = site.ferry(&command).ok();
    assert!(!told.stderr.contains("warning"), "{}", told.stderr);
    assert_eq!(fetched(), 14 + 5, "what was read before is not asked for again");
    let _ = site.ferry(&format!("verify b.tar {TRUST}")).ok();
    assert!(!site.names().iter().any(|name| name.contains("manifests")), "{:?}", site.names());
}

#[test]
fn one_manifest_under_several_tags_is_charged_once() {
    let image = two_platforms(Format::Oci, 1);
    let held = [("app/one:1", &image), ("app/one:1.2", &image), ("app/two:1", &image)];
    let source = FaultyRegistry::holding(&held).start([Rule::always("*", What::Manifest, Fault::Quota(100, 2))]);
    let site = Site::new();
    let names = held.map(|(name, _)| format!("{}/{name}", source.host())).join(" ");
    let _ = site.ferry(&format!("bundle {names} {FOR} -o b.tar {SIGN}")).ok();
    let _ = site.ferry(&format!("verify b.tar {TRUST}")).ok();
}

#[test]
fn an_interrupted_build_asks_for_no_manifest_again() {
    require!("docker-registry");
    let (large, index) = (layers(&[10, 3]), two_platforms(Format::Docker, 7));
    let source = Registry::filled(Access::Plain, &[("app/large:1", &large), ("app/index:1", &index)]);
    let site = Site::new();
    let at = SocketAddr::from(([127, 0, 0, 1], ferry_tests::registry::free_port()));
    let command = format!("bundle {at}/app/large:1 {at}/app/index:1 {FOR} --name n -o b.tar {SIGN}");
    let slow = Proxy::listen(at, source.address(), Line::slow(Duration::from_millis(5), 2 * MB));
    let mut running = site.ferry(&command).start();
    running.until("a part is there", || slow.counts().down > large.blob_bytes() / 3);
    let _ = running.kill();
    drop(slow);
    source.forget_requests();
    let _good = Proxy::listen(at, source.address(), Line::good());
    let _ = site.ferry(&command).ok();
    let asked = source.requests();
    let documents = asked.matching(|r| r.method == "GET" && r.path.contains("/manifests/"));
    assert!(documents.is_empty(), "{documents:?}");
    let _ = site.ferry(&command.replace("b.tar", "again.tar")).ok();
    assert!(site.bytes("again.tar") == site.bytes("b.tar"), "the same bytes, interrupted or not");
}
