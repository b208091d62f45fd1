//! Sources that stand for one another: mirrors in their order, with paths and logins of their own, and fallbacks.

use ferry_tests::images::Image;
use ferry_tests::registry::{Access, PASSWORD, Registry, USER, free_port};
use ferry_tests::require;
use ferry_tests::site::Site;
use serde_json::Value;

use crate::{SIGN, TRUST, small};

/// A bundle manifest for `app/one:1` at `origin`, which has these mirrors.
fn manifest(origin: &str, mirrors: &[String], more: &str) -> String {
    let list: Vec<String> = mirrors.iter().map(|mirror| format!("\"{mirror}\"")).collect();
    format!(
        "name: m\nplatforms: [linux/amd64]\nmirrors: {{\"{origin}\": [{}]}}\nimages: [{{image: \"{origin}/app/one:1\"{more}}}]\n",
        list.join(", ")
    )
}

/// What is written down of the only image: the head's source, the lock's, the report's, and all places of the report.
fn sources(site: &Site) -> (String, String, String, Vec<String>) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let json = |text: String| -> Value { serde_json::from_str(&text).unwrap() };
    let head = site.ferry(&format!("inspect b.tar --json {TRUST}")).ok().json();
    let lock = json(site.read("m.lock"));
    let report = json(site.read("b.tar.report.json"));
    let report = &report["images"][0];
    let places = report["fetchedFrom"].as_array().unwrap().iter().map(text).collect();
    (
        text(&head["images"][0]["source"]),
        text(&lock["images"][0]["source"]["reference"]),
        text(&report["source"]),
        places,
    )
}

fn bundle(site: &Site) -> ferry_tests::ferry::Ferry {
    site.ferry(&format!("bundle m.yaml -o b.tar --lock m.lock {SIGN}"))
}

/// A layer that is not the config.
fn layer(image: &Image) -> String {
    image.blobs.keys().max_by_key(|digest| image.blobs[*digest].len()).unwrap().clone()
}

#[test]
fn mirrors_are_asked_in_order_below_their_own_paths() {
    require!("docker-registry");
    let image = small(1);
    let empty = Registry::filled(Access::Plain, &[("hub/other:1", &image)]);
    let mirror = Registry::filled(Access::Plain, &[("deep/hub/app/one:1", &image)]);
    let origin = Registry::filled(Access::Plain, &[("app/one:1", &image)]);
    let site = Site::new();
    let mirrors = [format!("{}/hub", empty.host()), format!("{}/deep/hub", mirror.host())];
    site.write("m.yaml", manifest(&origin.host(), &mirrors, ""));
    let _ = bundle(&site).ok();

    let place = format!("{}/deep/hub/app/one", mirror.host());
    assert_eq!(sources(&site), (place.clone(), format!("{place}:1"), place.clone(), vec![place]));
    let json = site.ferry(&format!("inspect b.tar --json {TRUST}")).ok().json();
    assert_eq!(json["images"][0]["reference"], format!("{}/app/one:1", origin.host()), "the name stays");
    assert!(!empty.requests().matching(|r| r.path == "/v2/hub/app/one/manifests/1" && r.status == 404).is_empty());
    assert_eq!(mirror.requests().blobs_sent().len(), image.blobs.len());
    // the origin is asked for one thing: whether the tag is the same there
    let asked: Vec<String> = origin.requests().0.iter().map(|r| format!("{} {}", r.method, r.path)).collect();
    assert_eq!(asked, ["GET /v2/", "HEAD /v2/app/one/manifests/1"]);

    // the lock names a digest: nobody needs to be asked whether that is the right one
    origin.forget_requests();
    let _ = site.ferry(&format!("bundle m.yaml -o c.tar --lock m.lock --locked {SIGN}")).ok();
    assert!(origin.requests().0.is_empty(), "{:?}", origin.requests());
    assert_eq!(site.bytes("b.tar"), site.bytes("c.tar"));
}

#[test]
fn a_mirror_that_has_another_image_under_the_tag_is_an_error() {
    require!("docker-registry");
    let (new, old) = (small(1), small(2));
    let origin = Registry::filled(Access::Plain, &[("app/one:1", &new)]);
    let mirror = Registry::filled(Access::Plain, &[("app/one:1", &old)]);
    let site = Site::new();
    site.write("m.yaml", manifest(&origin.host(), &[mirror.host()], ""));
    let told = bundle(&site).run().expect_code(7);
    told.says(&[&mirror.host(), old.digest(), &origin.host(), new.digest(), "hint", "mirrors:"]);
    assert!(!site.at("b.tar").exists());

    // an optional image that differs is not an absent one
    site.write("m.yaml", manifest(&origin.host(), &[mirror.host()], ", optional: true"));
    let _ = bundle(&site).run().expect_code(7);

    // as the hint says: pinned, the mirror does not have it and the origin does
    let pinned = manifest(&origin.host(), &[mirror.host()], "").replace("one:1", &format!("one:1@{}", new.digest()));
    site.write("m.yaml", pinned);
    let _ = bundle(&site).ok();
    assert_eq!(sources(&site).0, format!("{}/app/one", origin.host()));
}

#[test]
fn an_origin_that_cannot_be_asked_is_said() {
    require!("docker-registry");
    let mirror = Registry::filled(Access::Plain, &[("app/one:1", &small(1)), ("app/two:1", &small(2))]);
    let gone = format!("127.0.0.1:{}", free_port());
    let site = Site::new();
    let two = format!("images: [\"{gone}/app/two:1\", ");
    site.write("m.yaml", manifest(&gone, &[mirror.host()], "").replace("images: [", &two));
    let told = bundle(&site).ok();
    told.says(&[
        &format!("warning: {gone} could not be asked whether its mirrors are up to date: "),
        "connection refused",
    ]);
    assert_eq!(told.stderr.matches("could not be asked").count(), 1, "once for all images: {}", told.stderr);

    // what the origin has deleted is what a mirror is for
    let empty = Registry::filled(Access::Plain, &[("app/three:1", &small(3))]);
    site.write("m.yaml", manifest(&empty.host(), &[mirror.host()], ""));
    let told = bundle(&site).ok();
    assert!(!told.stderr.contains("could not be asked"), "{}", told.stderr);
}

#[test]
fn a_mirror_that_lacks_a_layer_is_helped_out_and_that_is_reported() {
    require!("docker-registry");
    let image = small(1);
    let origin = Registry::filled(Access::Plain, &[("app/one:1", &image)]);
    let mirror = Registry::filled(Access::Plain, &[("app/one:1", &image)]);
    let gone = layer(&image);
    let deleted = mirror.endpoint().send("DELETE", &format!("/v2/app/one/blobs/{gone}"), &[], &[]).unwrap();
    assert_eq!(deleted.status, 202);
    let site = Site::new();
    site.write("m.yaml", manifest(&origin.host(), &[mirror.host()], ""));
    let _ = bundle(&site).ok();
    let (head, lock, source, mut places) = sources(&site);
    let at = |registry: &Registry| format!("{}/app/one", registry.host());
    assert_eq!((head, lock, source), (at(&mirror), format!("{}:1", at(&mirror)), at(&mirror)));
    places.sort();
    let mut both = [at(&mirror), at(&origin)];
    both.sort();
    assert_eq!(places, both);
    assert_eq!(origin.requests().blobs_sent().len(), 1);
    let _ = site.ferry(&format!("verify b.tar {TRUST}")).ok();
}

#[test]
fn a_mirror_has_its_own_login_by_the_longest_prefix() {
    require!("docker-registry", "htpasswd");
    let image = small(1);
    let origin = Registry::filled(Access::Plain, &[("app/one:1", &image)]);
    let mirror = Registry::filled(Access::Basic, &[("hub/app/one:1", &image)]);
    let site = Site::new();
    site.write("m.yaml", manifest(&origin.host(), &[format!("{}/hub", mirror.host())], ""));
    let auth = |user: &str, password: &str| ferry_tests::http::base64(format!("{user}:{password}"));
    let config = |wrong_at: &str, right_at: &str| {
        let (wrong, right) = (auth("nobody", "wrong"), auth(USER, PASSWORD));
        let auths = serde_json::json!({"auths": {
            wrong_at.replace("MIRROR", &mirror.host()): {"auth": wrong}, right_at.replace("MIRROR", &mirror.host()): {"auth": right},
        }});
        site.write("auth.json", auths.to_string())
    };
    let file = config("MIRROR/other", "MIRROR/hub");
    let _ = bundle(&site).arg("--auth-file").arg(&file).ok();
    assert_eq!(sources(&site).0, format!("{}/hub/app/one", mirror.host()));

    // the closer entry counts, though it is wrong: the mirror is passed over
    let file = config("MIRROR/hub/app", "MIRROR/hub");
    let _ = bundle(&site).arg("--auth-file").arg(&file).ok();
    assert_eq!(sources(&site).0, format!("{}/app/one", origin.host()));
}

#[test]
fn a_fallbacks_mirrors_are_asked_too_and_its_content_may_be_its_own() {
    require!("docker-registry");
    let (moved, copy) = (small(1), small(2));
    let origin = Registry::filled(Access::Plain, &[("app/two:1", &small(3))]);
    let legacy = Registry::filled(Access::Plain, &[("legacy/one:1", &copy)]);
    let mirror = Registry::filled(Access::Plain, &[("legacy/one:1", &copy), ("app/one:1", &moved)]);
    let site = Site::new();
    let (o, l, m) = (origin.host(), legacy.host(), mirror.host());
    let text = format!(
        "name: m\nplatforms: [linux/amd64]\nmirrors: {{\"{l}\": \"{m}\"}}\nimages: [{{image: \"{o}/app/one:1\", from: [\"{l}/legacy/one\", \"{m}/app/one\"]}}]\n"
    );
    site.write("m.yaml", text);
    let _ = bundle(&site).ok();
    // `from:` names other places on purpose: the first that has it is taken, whatever the next would have
    assert_eq!(sources(&site).0, format!("{m}/legacy/one"));
    assert_eq!(legacy.requests().matching(|r| r.method == "HEAD").len(), 1, "a mirror is held to its own origin");
}

/// As behind a firewall that drops packets.
#[test]
fn an_origin_that_says_nothing_costs_its_time_once() {
    require!("docker-registry");
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = mute.local_addr().unwrap().to_string();
    let images: Vec<Image> = (1..=12).map(small).collect();
    let names: Vec<String> = (1..=12).map(|n| format!("app/one:{n}")).collect();
    let filled: Vec<(&str, &Image)> = names.iter().map(String::as_str).zip(&images).collect();
    let mirror = Registry::filled(Access::Plain, &filled);
    let site = Site::new();
    let list: Vec<String> = names.iter().map(|name| format!("\"{origin}/{name}\"")).collect();
    let head = format!("name: m\nplatforms: [linux/amd64]\nmirrors: {{\"{origin}\": \"{}\"}}\n", mirror.host());
    site.write("m.yaml", format!("{head}images: [{}]\n", list.join(", ")));
    let told = bundle(&site).arg("--jobs").arg("4").ok();
    told.says(&[&format!("{origin} could not be asked"), "no answer within 10 s"]);
    assert!(told.took.as_secs() < 20, "{:?}", told.took);
}
