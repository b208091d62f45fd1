//! A build that is interrupted continues where it was, and a line that breaks is mended.

use std::time::Duration;

use ferry_tests::faults::{Direction, Fault, Line, Proxy};
use ferry_tests::ferry::{Outcome, Running};
use ferry_tests::images::{Format, Image, Layer};
use ferry_tests::registry::{Access, Registry};
use ferry_tests::require;
use ferry_tests::site::Site;

use crate::{FOR, SIGN, TRUST};

const MB: usize = 1_000_000;

/// Three layers of 12 MB each.
fn large() -> Image {
    Image::single("linux/amd64", Format::Oci, (1..=3).map(|seed| Layer::random(seed, 12 * MB)).collect())
}

fn source() -> (Registry, Image, Site) {
    let image = large();
    (Registry::filled(Access::Plain, &[("app/large:1", &image)]), image, Site::new())
}

/// The build over a slow line, stopped by `stop` when two thirds are there, and then finished over a good one: the same bytes as an
/// undisturbed build, and at most `lost` bytes fetched twice.
fn continues_after(stop: impl FnOnce(Running) -> Outcome, code: i32, lost: u64) {
    let (registry, image, site) = source();
    // one name for both lines: the reference is part of the bundle
    let port = ferry_tests::registry::free_port();
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let slow = Proxy::listen(at, registry.address(), Line::slow(Duration::from_millis(5), 2_000_000));
    let command = format!("bundle 127.0.0.1:{port}/app/large:1 {FOR} --name n -o b.tar {SIGN}");
    let mut running = site.ferry(&command).start();
    let most = image.blob_bytes() * 2 / 3;
    running.until("most is there", || slow.counts().down > most);
    let stopped = stop(running);
    assert_eq!(stopped.code, code, "{}", stopped.stderr);
    assert!(!site.at("b.tar").exists());
    assert!(site.at("b.tar.partial").exists(), "{:?}", site.names());
    let first = slow.counts().down;
    drop(slow);

    let good = Proxy::listen(at, registry.address(), Line::good());
    let _ = site.ferry(&command).ok();
    let second = good.counts().down;
    let _ = site.ferry(&format!("verify b.tar {TRUST}")).ok();
    assert!(first + second < image.blob_bytes() + lost, "{first} + {second} of {}", image.blob_bytes());
    assert_eq!(site.names().iter().filter(|name| name.contains("partial")).count(), 0, "{:?}", site.names());

    let _ = site.ferry(&command.replace("b.tar", "again.tar")).ok();
    assert!(site.bytes("again.tar") == site.bytes("b.tar"), "the same bytes, interrupted or not");
}

#[test]
fn after_a_power_cut() {
    require!("docker-registry");
    // what arrives is synced and written down every two seconds: 12 MB on this line, and what is in flight
    continues_after(Running::kill, 128 + 9, 18 * MB as u64);
}

#[test]
fn after_ctrl_c() {
    require!("docker-registry");
    let stop = |running: Running| {
        running.signal("INT");
        running.wait()
    };
    // nothing but what is in flight: a batch or two of each connection, and what the sockets hold
    continues_after(stop, 130, 12 * MB as u64);
}

#[test]
fn a_partial_file_that_was_damaged_is_not_trusted() {
    require!("docker-registry");
    let (registry, image, site) = source();
    let port = ferry_tests::registry::free_port();
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let slow = Proxy::listen(at, registry.address(), Line::slow(Duration::from_millis(5), 2_000_000));
    let command = format!("bundle 127.0.0.1:{port}/app/large:1 {FOR} --name n -o b.tar {SIGN}");
    let mut running = site.ferry(&command).start();
    running.until("most is there", || slow.counts().down > image.blob_bytes() * 2 / 3);
    let _ = running.kill();
    drop(slow);
    let mut partial = site.bytes("b.tar.partial");
    for byte in partial.iter_mut().step_by(100_000) {
        *byte ^= 0x55;
    }
    site.write("b.tar.partial", partial);
    let _good = Proxy::listen(at, registry.address(), Line::good());
    let _ = site.ferry(&command).ok();
    let _ = site.ferry(&format!("verify b.tar {TRUST}")).ok();
}

/// A pull over a line with these faults ends well, and fetches at most `most` bytes.
fn mends(line: Line, most: u64) {
    let (registry, _, site) = source();
    let proxy = Proxy::start(registry.address(), line);
    let _ = site.ferry(&format!("bundle {}/app/large:1 {FOR} -o b.tar {SIGN}", proxy.host())).ok();
    assert!(proxy.counts().faults > 0, "the line did break");
    assert!(proxy.counts().down <= most, "{:?}, at most {most}", proxy.counts());
    let _ = site.ferry(&format!("verify b.tar {TRUST}")).ok();
}

#[test]
fn a_dropped_connection_is_taken_up_inside_the_blob() {
    require!("docker-registry");
    mends(Line::broken(Direction::Down, Fault::Reset(2 * MB as u64), 3), 44 * MB as u64);
}

#[test]
fn many_dropped_connections_are_not_too_many_while_something_moves() {
    require!("docker-registry");
    mends(Line::broken(Direction::Down, Fault::Reset(4 * MB as u64), 8), 60 * MB as u64);
}

#[test]
fn a_corrupted_byte_is_found_and_its_blob_fetched_anew() {
    require!("docker-registry");
    let (registry, image, site) = source();
    let proxy = Proxy::start(registry.address(), Line::broken(Direction::Down, Fault::Corrupt(5 * MB as u64), 1));
    let command = format!("bundle {}/app/large:1 {FOR} -o b.tar {SIGN}", proxy.host());
    let told = site.ferry(&command).run().expect_code(3);
    told.says(&["blob sha256:", &proxy.host()]);
    assert!(!site.at("b.tar").exists());
    let first = proxy.counts().down;
    let _ = site.ferry(&command).ok();
    let _ = site.ferry(&format!("verify b.tar {TRUST}")).ok();
    let again = proxy.counts().down - first;
    assert!(again < image.blob_bytes() / 2, "only the bad one is fetched again: {again}");
}

#[test]
fn a_push_over_a_breaking_line_is_finished() {
    require!("docker-registry");
    let (registry, image, site) = source();
    let _ = site.ferry(&format!("bundle {}/app/large:1 {FOR} -o b.tar {SIGN}", registry.host())).ok();
    let target = Registry::start(Access::Plain);
    let line = Line::broken(Direction::Up, Fault::Reset(2 * MB as u64), 2);
    let proxy = Proxy::start(target.address(), line);
    let _ = site.ferry(&format!("install b.tar --registry {} {TRUST}", proxy.host())).ok();
    assert!(target.holds("app/large", &image));
    assert!(proxy.counts().faults > 0);
}

#[test]
fn an_install_that_was_killed_is_finished_by_the_same_command() {
    require!("docker-registry");
    let (registry, image, site) = source();
    let _ = site.ferry(&format!("bundle {}/app/large:1 {FOR} -o b.tar {SIGN}", registry.host())).ok();
    let target = Registry::start(Access::Plain);
    let port = ferry_tests::registry::free_port();
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let slow = Proxy::listen(at, target.address(), Line::slow(Duration::from_millis(5), 2_000_000));
    let command = format!("install b.tar --registry 127.0.0.1:{port} {TRUST}");
    let mut running = site.ferry(&command).start();
    running.until("half is there", || slow.counts().up > image.blob_bytes() / 2);
    let _ = running.kill();
    assert!(target.manifest("app/large", "1").is_none(), "tags come last");
    drop(slow);
    let _good = Proxy::listen(at, target.address(), Line::good());
    let _ = site.ferry(&command).ok();
    assert!(target.holds("app/large", &image));
}
