//! A server that allows so many requests a second: nothing fails, and little time is lost.

use ferry_tests::images::Image;
use ferry_tests::numbers;
use ferry_tests::registry::faulty::Fault::Limit;
use ferry_tests::registry::faulty::What::Any;
use ferry_tests::registry::faulty::{FaultyRegistry, Rule};
use ferry_tests::site::Site;

use super::carries;
use crate::{FOR, SIGN, TRUST, small};

/// What the server answers in any second.
const ALLOWED: usize = 10;

/// Twenty small images in at most one and a half times what the server's limit costs: `each` requests an image, and the first contact.
fn keeps_pace(name: &str, retry_after: Option<u64>, options: &str, each: usize) {
    let images: Vec<(String, Image)> = (0..20).map(|n| (format!("app/n{n}:1"), small(n))).collect();
    let held: Vec<(&str, &Image)> = images.iter().map(|(name, image)| (name.as_str(), image)).collect();
    let registry = FaultyRegistry::holding(&held).start([Rule::always("*", Any, Limit(ALLOWED, retry_after))]);
    let site = Site::new();
    let names: Vec<String> = images.iter().map(|(name, _)| format!("{}/{name}", registry.host())).collect();
    let told = site.ferry(&format!("bundle {} {FOR} -o b.tar {SIGN} {options}", names.join(" "))).ok();
    let _ = site.ferry(&format!("verify b.tar {TRUST}")).ok();
    images.iter().for_each(|(_, image)| carries(&site, image));

    let least = images.len() * each + 1;
    let refused = registry.count(|seen| seen.status == 429);
    let answered = registry.seen().len() - refused;
    let ideal = least as f64 / ALLOWED as f64;
    let ratio = told.took.as_secs_f64() / ideal;
    numbers::tell(&format!("pace, {name}: time over the ideal"), ratio, "×");
    numbers::tell(&format!("pace, {name}: refused"), refused as f64, "");
    assert!(answered <= least + 2, "{answered} requests instead of {least}");
    assert!(ratio <= 1.5, "{:?} is {ratio:.2} of the ideal {ideal} s, with {refused} requests refused", told.took);
}

/// A manifest, a config, two layers.
const IMAGE: usize = 4;
/// The referrers API, the tag that stands for it, and cosign's three tags.
const REFERRERS: usize = 5;

#[test]
fn a_server_that_says_how_long_to_wait() {
    keeps_pace("`Retry-After`", Some(1), "--no-referrers", IMAGE);
}

#[test]
fn a_server_that_does_not_say_how_long_to_wait() {
    keeps_pace("429 alone", None, "--no-referrers", IMAGE);
}

#[test]
fn a_server_that_is_asked_for_signatures_too() {
    keeps_pace("with referrers", None, "", IMAGE + REFERRERS);
}
