//! Large uploads over lines that break, and registries that go away in the middle.

use std::net::SocketAddr;
use std::time::Duration;

use ferry_tests::faults::{Direction, Fault, Line, Proxy};
use ferry_tests::images::{Format, Image, Layer};
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

#[test]
fn a_registry_that_keeps_what_came_gets_it_once() {
    require!("docker-registry");
    let (image, site) = bundled(4, 30 * MB);
    let (store, _serving) = site.serve("--store store");
    let proxy = Proxy::start(store.parse().unwrap(), breaking());
    let _ = site.ferry(&format!("install b.tar --registry {} {TRUST}", proxy.host())).ok();
    let (up, faults) = (proxy.counts().up, proxy.counts().faults);
    eprintln!("kept: {up} of {} bytes, {faults} breaks", image.blob_bytes());
    assert!(faults >= 12, "{faults}");
    assert!(up < image.blob_bytes() * 102 / 100, "{up} of {}", image.blob_bytes());
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

#[test]
fn a_registry_that_forgets_gets_pieces_that_come_through() {
    require!("docker-registry");
    let (image, site) = bundled(4, 30 * MB);
    let target = Registry::start(Access::Plain);
    let proxy = Proxy::start(target.address(), breaking());
    let _ = site.ferry(&format!("install b.tar --registry {} {TRUST}", proxy.host())).ok();
    let (up, faults) = (proxy.counts().up, proxy.counts().faults);
    eprintln!("forgotten: {up} of {} bytes, {faults} breaks", image.blob_bytes());
    assert!(target.holds("app/large", &image));
    // docker-registry 2.8 loses what a broken request brought: each layer under way at the first break begins once more
    assert!(faults >= 1 && up < image.blob_bytes() + (faults + 1) * (8 << 20), "{up}, {faults} faults");
    assert!(faults <= 4, "{faults}");
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
