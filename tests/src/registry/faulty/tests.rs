//! The registry keeps to the specification where no fault is planned, and breaks it where one is.

use std::time::Duration;

use super::*;
use crate::http::Message;
use crate::images::{Format, Layer};
use crate::registry::{PASSWORD, USER, push};

fn image() -> Image {
    Image::single("linux/amd64", Format::Oci, vec![Layer::random(1, 5000), Layer::random(2, 100)])
}

fn layer(image: &Image) -> String {
    image.single.as_ref().unwrap().layers[0].digest()
}

#[test]
fn it_takes_what_is_pushed_and_gives_it_back() {
    let image = image();
    let index = Image::index(Format::Oci, &[&image]);
    let registry = FaultyRegistry::holding(&[]).start([]);
    push(&registry.endpoint(), "some/app:1", &index);
    assert!(registry.holds("some/app", &index));
    let get = |path: &str, headers: &[(&str, &str)]| registry.endpoint().send("GET", path, headers, &[]).unwrap();
    let manifest = get("/v2/some/app/manifests/1", &[]);
    assert_eq!(Some(manifest.body.as_slice()), index.manifest(index.digest()));
    assert_eq!(manifest.header("docker-content-digest"), Some(index.digest()));
    let blob = format!("/v2/some/app/blobs/{}", layer(&image));
    let part = get(&blob, &[("Range", "bytes=2-3")]);
    let size = image.blobs[&layer(&image)].len();
    assert_eq!((part.status, part.header("content-range")), (206, Some(format!("bytes 2-3/{size}").as_str())));
    assert_eq!(part.body, &get(&blob, &[]).body[2..4]);
    assert_eq!(get("/v2/some/app/manifests/2", &[]).status, 404);
    assert_eq!(get(&blob, &[("Range", &format!("bytes={size}-"))]).status, 416);
}

#[test]
fn uploads_in_chunks_follow_their_location_and_mounts_need_no_bytes() {
    let registry = FaultyRegistry::holding(&[]).start([]);
    let send = |method: &str, path: &str, body: &[u8]| registry.endpoint().send(method, path, &[], body).unwrap();
    let digest = crate::images::digest(b"abcdef");
    let opened = send("POST", "/v2/a/b/blobs/uploads/", b"");
    let first = opened.header("location").unwrap();
    let patched = send("PATCH", first, b"abc");
    assert_eq!((patched.status, patched.header("range")), (202, Some("0-2")));
    assert_eq!(send("PATCH", first, b"def").status, 400, "an old address");
    let latest = patched.header("location").unwrap();
    let wrong = registry.endpoint().send("PATCH", latest, &[("Content-Range", "2-4")], b"cde").unwrap();
    assert_eq!(wrong.status, 416);
    assert_eq!(send("PUT", &format!("{latest}&digest={digest}"), b"def").status, 201);
    let mount = format!("/v2/c/d/blobs/uploads/?mount={digest}&from=a/b");
    assert_eq!(send("POST", &mount, b"").status, 201);
    assert_eq!(send("GET", &format!("/v2/c/d/blobs/{digest}"), b"").body, b"abcdef");
}

#[test]
fn tags_come_in_pages() {
    let many = (0..2500).map(|n| format!("v{n:05}"));
    let registry = FaultyRegistry::holding(&[("a/b:1", &image())]).tags("a/b:1", many).start([Rule::once(
        "GET",
        What::Tags,
        Fault::OnePage,
    )
    .of("all")]);
    let get = |path: &str| registry.endpoint().send("GET", path, &[], &[]).unwrap();
    let count = |answer: &Message| {
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        body["tags"].as_array().unwrap().len()
    };
    let mut path = "/v2/a/b/tags/list?n=1000".to_owned();
    let mut sizes = Vec::new();
    loop {
        let page = get(&path);
        sizes.push(count(&page));
        let Some(link) = page.header("link") else { break };
        path = link.trim_start_matches('<').split('>').next().unwrap().to_owned();
    }
    assert_eq!(sizes, [1000, 1000, 501]);
    assert_eq!(count(&get("/v2/a/b/tags/list?n=1000&all=1")), 2501);
}

#[test]
fn tokens_are_for_their_scope_and_end() {
    let image = image();
    let registry = FaultyRegistry::holding(&[("a/b:1", &image)])
        .guard(Guard::Tokens(Duration::from_secs(60)))
        .start([Rule::once("GET", What::Tag, Fault::ExpireTokens).from(4)]);
    let login = Endpoint { login: Some((USER.into(), PASSWORD.into())), ..registry.endpoint() };
    assert_eq!(registry.endpoint().send("GET", "/v2/a/b/manifests/1", &[], &[]).unwrap().status, 401);
    // asked without a token first, each time
    assert_eq!(login.send("GET", "/v2/a/b/manifests/1", &[], &[]).unwrap().status, 200);
    assert_eq!(login.send("GET", "/v2/a/b/manifests/1", &[], &[]).unwrap().status, 200);
    let with = |path: &str, token: &str| {
        let headers = [("Authorization", token)];
        registry.endpoint().send("GET", path, &headers, &[]).unwrap().status
    };
    assert_eq!(with("/v2/a/b/manifests/1", "Bearer token-2"), 200);
    assert_eq!(with("/v2/c/d/manifests/1", "Bearer token-2"), 401, "another repository");
    assert_eq!(with("/v2/a/b/manifests/1", "Bearer token-1"), 401, "it was made to end");
}

#[test]
fn the_other_host_wants_no_credentials() {
    let image = image();
    let blob = format!("/v2/a/b/blobs/{}", layer(&image));
    let registry =
        FaultyRegistry::holding(&[("a/b:1", &image)]).start([Rule::always("*", What::Any, Fault::Elsewhere)]);
    let sent = registry.endpoint().send("GET", &blob, &[], &[]).unwrap();
    let (status, to) = (sent.status, sent.header("location").unwrap());
    assert_eq!(status, 307);
    let path = to.strip_prefix(&format!("http://{}", registry.elsewhere())).unwrap();
    let other = Endpoint::plain(&registry.elsewhere());
    assert_eq!(other.send("GET", path, &[], &[]).unwrap().body, *image.blobs[&layer(&image)]);
    assert_eq!(other.send("GET", path, &[("Authorization", "Bearer x")], &[]).unwrap().status, 400);
    assert_eq!(other.send("GET", &blob, &[], &[]).unwrap().status, 400);
    let opened = registry.endpoint().send("POST", "/v2/a/b/blobs/uploads/", &[], &[]).unwrap();
    assert!(opened.header("location").unwrap().starts_with(&format!("http://{}/v2/", registry.elsewhere())));
    assert_eq!(registry.count(|seen| seen.elsewhere), 3);
}

#[test]
fn no_more_than_the_limit_is_answered() {
    let registry = FaultyRegistry::holding(&[]).start([Rule::always("*", What::Any, Fault::Limit(3, Some(1)))]);
    let answers: Vec<Message> = (0..4).map(|_| registry.endpoint().send("GET", "/v2/", &[], &[]).unwrap()).collect();
    assert_eq!(answers.iter().map(|a| a.status).collect::<Vec<_>>(), [200, 200, 200, 429]);
    assert_eq!(answers[3].header("retry-after"), Some("1"));
    std::thread::sleep(Duration::from_millis(1000));
    assert_eq!(registry.endpoint().send("GET", "/v2/", &[], &[]).unwrap().status, 200);
}
