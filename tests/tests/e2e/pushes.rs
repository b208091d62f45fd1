//! Large uploads over lines that break, and registries that go away in the middle.

use std::net::SocketAddr;
use std::time::Duration;

use ferry_tests::faults::{Direction, Fault, Line, Proxy};
use ferry_tests::images::{Format, Image, Layer};
use ferry_tests::netns::{How, Namespace};
use ferry_tests::numbers;
use ferry_tests::registry::{Access, Registry, free_port};
use ferry_tests::require;
use ferry_tests::site::Site;

use crate::{FOR, SIGN, TRUST};

const MB: usize = 1_000_000;

/// `layers` layers of `size` bytes each, bundled as `b.tar`.
fn bundled(layers: u64, size: usize) -> (Image, Site) {
    let layers = (1..=layers).map(|seed| Layer::random(seed, size)).collect();
    let image = Image::single("linux/amd64", Format::Oci, layers);
    let (source, site) = (Registry::filled(Access::Plain, &[("app/large:1", &image)]), Site::new());
    let _ = site.ferry(&format!("bundle {}/app/large:1 {FOR} -o b.tar {SIGN}", source.host())).ok();
    (image, site)
}

/// Every connection breaks after 8 MiB from the client.
fn breaking() -> Line {
    Line::broken(Direction::Up, Fault::Reset(8 << 20), u64::MAX)
}

/// `layers` layers of `size` MB to a registry that keeps what a broken request brought.
fn kept(layers: u64, size: usize) {
    let (image, site) = bundled(layers, size * MB);
    let (store, _serving) = site.serve("--store store");
    let proxy = Proxy::start(store.parse().unwrap(), breaking());
    let told = site.ferry(&format!("install b.tar --registry {} {TRUST}", proxy.host())).ok();
    let (up, faults, all) = (proxy.counts().up, proxy.counts().faults, image.blob_bytes());
    numbers::tell("push, kept: beyond the bytes themselves", (up - all) as f64 * 100.0 / all as f64, "%");
    numbers::tell("push, kept: breaks", faults as f64, "");
    numbers::tell("push, kept: time", told.took.as_secs_f64(), "s");
    assert!(faults >= all / (10 << 20), "{faults}");
    assert!(up < all * 102 / 100, "{up} of {all}");
}

#[test]
fn a_registry_that_keeps_what_came_gets_it_once() {
    require!("docker-registry");
    kept(4, 30);
}

#[test]
#[ignore = "half a gigabyte: `scripts/soak numbers`"]
fn a_registry_that_keeps_what_came_of_half_a_gigabyte_gets_it_once() {
    require!("docker-registry");
    kept(5, 100);
}

#[test]
fn a_line_that_falls_silent_is_left_and_the_upload_goes_on() {
    require!("docker-registry");
    // more than the buffers on the way take
    let (image, site) = bundled(1, 70 * MB);
    let (store, _serving) = site.serve("--store store");
    // to the server, the connection is still there
    let proxy = Proxy::start(store.parse().unwrap(), Line::broken(Direction::Up, Fault::Stall(8 << 20), 3));
    let install = format!("install b.tar --registry {} --stall-timeout 1 {TRUST}", proxy.host());
    let _ = site.ferry(&install).ok();
    let (up, faults) = (proxy.counts().up, proxy.counts().faults);
    assert_eq!(faults, 3);
    assert!(up < image.blob_bytes() + 3 * (2 << 20), "{up} of {}", image.blob_bytes());
}

/// `layers` layers of `size` MB to docker-registry 2.8, which loses what a broken request brought: each layer under way at the first
/// break begins once more.
fn forgotten(layers: u64, size: usize) {
    let (image, site) = bundled(layers, size * MB);
    let target = Registry::start(Access::Plain);
    let proxy = Proxy::start(target.address(), breaking());
    let told = site.ferry(&format!("install b.tar --registry {} {TRUST}", proxy.host())).ok();
    let (up, faults, all) = (proxy.counts().up, proxy.counts().faults, image.blob_bytes());
    numbers::tell("push, forgotten: beyond the bytes themselves", (up - all) as f64 * 100.0 / all as f64, "%");
    numbers::tell("push, forgotten: breaks", faults as f64, "");
    numbers::tell("push, forgotten: time", told.took.as_secs_f64(), "s");
    assert!(target.holds("app/large", &image));
    assert!(faults >= 1 && up < all + (faults + 1) * (8 << 20), "{up}, {faults} faults");
    assert!(faults <= layers.max(4), "{faults}");
}

#[test]
fn a_registry_that_forgets_gets_pieces_that_come_through() {
    require!("docker-registry");
    forgotten(4, 30);
}

#[test]
#[ignore = "half a gigabyte: `scripts/soak numbers`"]
fn a_registry_that_forgets_gets_pieces_of_half_a_gigabyte_that_come_through() {
    require!("docker-registry");
    forgotten(5, 100);
}

/// The line is cut in the middle of the push, for so long.
fn outlives(how: How, time: Duration) {
    let (image, site) = bundled(2, 14 * MB);
    let target = Registry::start(Access::Plain);
    let namespace = Namespace::new();
    let line = Line::slow(Duration::from_millis(5), 2_000_000);
    let line = Proxy::listen(SocketAddr::new(namespace.host(), 0), target.address(), line);
    let command = format!("install b.tar --registry {} {TRUST} --plain-http --stall-timeout 2", line.host());
    let mut running = site.ferry(&command).within(&namespace).start();
    running.until("a third is there", || line.counts().up > image.blob_bytes() / 3);
    let cut = namespace.cut(how);
    std::thread::sleep(time);
    assert!(line.counts().up < image.blob_bytes(), "it was not over yet");
    assert!(target.manifest("app/large", "1").is_none(), "no tag before all of it is there");
    drop(cut);
    let _ = running.wait().expect_code(0);
    assert!(target.holds("app/large", &image));
    // what was under way is begun once more, at the worst
    assert!(line.counts().up < 2 * image.blob_bytes(), "{:?}", line.counts());
}

#[test]
fn lost_packets() {
    require!("docker-registry", "netns");
    outlives(How::Lose, Duration::from_secs(7));
}

#[test]
fn a_firewall_that_resets_everything() {
    require!("docker-registry", "netns");
    outlives(How::Reject, Duration::from_secs(3));
}

#[test]
fn a_cable_that_is_out() {
    require!("docker-registry", "netns");
    outlives(How::Unplug, Duration::from_secs(4));
}

#[test]
fn a_registry_that_is_killed_in_the_middle_and_comes_back_ends_it_in_the_same_run() {
    require!("docker-registry");
    let (image, site) = bundled(3, 12 * MB);
    let mut target = Registry::start(Access::Plain);
    let slow = Proxy::start(target.address(), Line::slow(Duration::from_millis(5), 4_000_000));
    let mut running = site.ferry(&format!("install b.tar --registry {} {TRUST}", slow.host())).start();
    for part in [3, 2] {
        running.until("some is there", || slow.counts().up > image.blob_bytes() / part);
        target.restart();
    }
    let _ = running.wait().expect_code(0);
    assert!(target.holds("app/large", &image));
}

#[test]
fn a_registry_that_stays_away_is_told_and_the_next_run_ends_it() {
    require!("docker-registry");
    let (image, site) = bundled(3, 12 * MB);
    let mut target = Registry::start(Access::Plain);
    let port = free_port();
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    let slow = Proxy::listen(at, target.address(), Line::slow(Duration::from_millis(5), 4_000_000));
    let command = format!("install b.tar --registry 127.0.0.1:{port} {TRUST}");
    let mut running = site.ferry(&command).start();
    running.until("half is there", || slow.counts().up > image.blob_bytes() / 2);
    drop(slow);
    target.stop();
    let told = running.timeout_after(Duration::from_secs(170)).wait().expect_code(5);
    eprintln!("{:?}\n{}", told.took, told.stderr);
    told.says(&["127.0.0.1", "hint:"]);
    target.restart();
    let _good = Proxy::listen(at, target.address(), Line::good());
    let _ = site.ferry(&command).ok();
    assert!(target.holds("app/large", &image));
}
