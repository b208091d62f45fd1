//! The errors that a user meets most, word for word: host, image, cause and what to try next.

mod broken;
mod missing;
mod refused;
mod unreachable;

use ferry_tests::ferry::Outcome;
use ferry_tests::registry::faulty::{FaultyRegistry, Guard, Rule};
use ferry_tests::site::Site;

use crate::{FOR, SIGN, TRUST, small};

/// A registry that holds `app/one:1`, and a site.
fn registry(guard: Guard, plan: Vec<Rule>) -> (FaultyRegistry, Site) {
    let image = small(1);
    (FaultyRegistry::holding(&[("app/one:1", &image)]).guard(guard).start(plan), Site::new())
}

/// A site with `b.tar`, which carries `registry.example/app/one:1`.
fn bundled() -> Site {
    let image = small(1);
    let site = Site::new();
    ferry_tests::images::layout::write_folder(&site.at("layout"), &[("v1", &image)]);
    site.write("m.yaml", MANIFEST);
    let _ = site.ferry(&format!("bundle m.yaml -o b.tar {SIGN}")).ok();
    site
}

const MANIFEST: &str = "\
name: m
platforms: [linux/amd64]
images: [{image: \"registry.example/app/one:1\", archive: layout, archiveImage: v1}]
";

/// The bundling of one image.
fn bundle(image: &str) -> String {
    format!("bundle {image} {FOR} -o b.tar {SIGN} --stall-timeout 1")
}

/// The installing of `b.tar`.
fn install(target: &str) -> String {
    format!("install b.tar --registry {target} {TRUST} --stall-timeout 1")
}

/// What is said, with the names of this run left out.
fn said(outcome: Outcome, code: i32, site: &Site, hosts: &[(&str, &str)]) -> String {
    let mut text = outcome.expect_code(code).stderr;
    for (name, host) in hosts {
        text = text.replace(host, name);
    }
    text.replace(&site.path().display().to_string(), "SITE")
}
