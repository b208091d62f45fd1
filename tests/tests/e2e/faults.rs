//! Registries that misbehave, one fault a test: the crossing ends right, or with a clear error, and never with wrong bytes.

mod pace;
mod pull;
mod push;

use std::io::Read as _;
use std::time::Duration;

use ferry_tests::ferry::Outcome;
use ferry_tests::http::Reply;
use ferry_tests::images::{Format, Image, Layer, layout};
use ferry_tests::registry::faulty::{Fault, FaultyRegistry, Guard, Rule};
use ferry_tests::registry::{PASSWORD, USER};
use ferry_tests::site::Site;

use crate::{FOR, SIGN, TRUST};

/// How a crossing ends.
enum End {
    /// Everything arrives.
    Well,
    /// With this exit code, and these words.
    Says(i32, &'static [&'static str]),
}

const TOKENS: Guard = Guard::Tokens(Duration::from_secs(300));

/// An image whose one layer is large enough to be broken anywhere.
fn image() -> Image {
    Image::single("linux/amd64", Format::Oci, vec![Layer::random(1, 200_000), Layer::random(2, 50)])
}

/// A refusal without anything else.
fn status(status: u16) -> Fault {
    Fault::Answer(Reply::empty(status))
}

/// What a proxy says in a registry's place.
fn page(status: u16, title: &str) -> Fault {
    let page =
        format!("<html>\r\n<head><title>{title}</title></head>\r\n<body><center>nginx</center></body>\r\n</html>");
    Fault::Answer(Reply::new(status, "text/html", page))
}

/// 429 with `Retry-After`.
fn wait(value: &str) -> Fault {
    Fault::Answer(Reply::empty(429).header("Retry-After", value))
}

fn header(name: &'static str, value: &str) -> Fault {
    Fault::Header(name, Some(value.to_owned()))
}

fn digest_of(text: &str) -> String {
    ferry_tests::images::digest(text.as_bytes())
}

/// `ferry` with the login of that registry, impatient.
fn run(site: &Site, registry: &FaultyRegistry, command: &str) -> Outcome {
    let login = site.login(&registry.host(), USER, PASSWORD);
    let outcome = site.ferry(&format!("{command} --stall-timeout 1")).env("DOCKER_CONFIG", login).run();
    let leaked = registry.seen().into_iter().find(|seen| seen.elsewhere && seen.authorization.is_some());
    assert!(leaked.is_none(), "another host saw credentials: {leaked:?}");
    assert!(!outcome.stderr.contains(PASSWORD) && !outcome.stderr.contains("token-1"), "{}", outcome.stderr);
    outcome
}

/// Asserts the end; true when it went well.
fn ended(outcome: Outcome, end: &End) -> bool {
    match end {
        End::Well => outcome.expect_code(0).code == 0,
        End::Says(code, words) => {
            outcome.expect_code(*code).says(words).says(&["error: ", "hint: "]);
            false
        }
    }
}

/// Bundles `app/one:1` from a registry with these faults.
fn pull(plan: Vec<Rule>, end: End) -> FaultyRegistry {
    let image = image();
    let registry = FaultyRegistry::holding(&[("app/one:1", &image)]).guard(TOKENS).start(plan);
    let site = Site::new();
    let outcome = run(&site, &registry, &format!("bundle {}/app/one:1 {FOR} -o b.tar {SIGN}", registry.host()));
    if ended(outcome, &end) {
        let _ = site.ferry(&format!("verify b.tar {TRUST}")).ok();
        carries(&site, &image);
    } else {
        assert!(!site.at("b.tar").exists(), "{:?}", site.names());
    }
    registry
}

/// Whether `b.tar` has every blob and manifest of the image, byte for byte.
fn carries(site: &Site, image: &Image) {
    let mut archive = tar::Archive::new(std::fs::File::open(site.at("b.tar")).unwrap());
    let mut wanted: std::collections::BTreeMap<String, Vec<u8>> =
        image.blobs.iter().map(|(digest, bytes)| (layout::blob_path(digest), bytes.to_vec())).collect();
    wanted.extend(image.manifests.iter().map(|(d, bytes)| (layout::blob_path(&d.digest), bytes.clone())));
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        if let Some(expected) = wanted.remove(&path) {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            assert!(bytes == expected, "{path} has other bytes");
        }
    }
    assert!(wanted.is_empty(), "not carried: {:?}", wanted.keys());
}

/// A site with `b.tar`, which carries these images (`NAME:TAG`, or `NAME@DIGEST`) for linux/amd64.
fn bundled(images: &[(&str, &Image)]) -> Site {
    let source = FaultyRegistry::holding(images).start([]);
    let site = Site::new();
    let names: Vec<String> = images
        .iter()
        .map(|(name, image)| match name.contains(':') {
            true => format!("{}/{name}", source.host()),
            false => format!("{}/{name}@{}", source.host(), image.digest()),
        })
        .collect();
    let _ = site.ferry(&format!("bundle {} {FOR} -o b.tar {SIGN}", names.join(" "))).ok();
    site
}

/// Installs a bundle of `app/one:1` into a registry with these faults.
fn push(plan: Vec<Rule>, end: End) -> FaultyRegistry {
    let image = image();
    let site = bundled(&[("app/one:1", &image)]);
    let registry = FaultyRegistry::holding(&[]).guard(TOKENS).start(plan);
    let outcome = run(&site, &registry, &format!("install b.tar --registry {} {TRUST}", registry.host()));
    if ended(outcome, &end) {
        assert!(registry.holds("app/one", &image));
        assert_eq!(registry.manifest("app/one", "1").as_deref(), image.manifest(image.digest()));
    } else {
        let tag = registry.manifest("app/one", "1");
        assert!(tag.is_none() || registry.holds("app/one", &image), "a tag stands for what is not whole");
        assert!(!site.at("ferry-out/receipt.json").exists());
    }
    registry
}

/// A table of faults: each line is a test.
macro_rules! faults {
    ($direction:ident: $($name:ident: [$($rule:expr),+ $(,)?] => $end:expr;)+) => {$(
        #[test]
        fn $name() {
            $direction(vec![$($rule),+], $end);
        }
    )+};
}
use faults;
