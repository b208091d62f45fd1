//! The embedded registry, under the hands of skopeo and of ferry itself.

use ferry_tests::http::Endpoint;
use ferry_tests::images::{Format, Image, Layer, digest, layout};
use ferry_tests::registry::{Access, Registry, push};
use ferry_tests::site::Site;
use ferry_tests::{require, tools};

use crate::{FOR, SIGN, TRUST, bundled, small, two_platforms};

#[test]
fn a_bundle_answers_pulls_out_of_itself() {
    require!("docker-registry", "skopeo");
    let (_source, image, site) = bundled();
    let before = site.names();
    let (host, _serving) = site.serve(&format!("b.tar {TRUST}"));
    let to = site.at("pulled").display().to_string();
    let source = format!("docker://{host}/app/one:1");
    tools::succeed("skopeo", &["copy", "--src-tls-verify=false", &source, &format!("dir:{to}")]);
    assert_eq!(digest(&site.bytes("pulled/manifest.json")), image.digest());
    std::fs::remove_dir_all(&to).unwrap();
    assert_eq!(site.names(), before, "nothing is unpacked");

    let endpoint = Endpoint::plain(&host);
    let layer = &image.single.as_ref().unwrap().layers[0];
    let path = format!("/v2/app/one/blobs/{}", layer.digest());
    let part = endpoint.send("GET", &path, &[("Range", "bytes=10-19")], &[]).unwrap();
    assert_eq!((part.status, part.body.as_slice()), (206, &layer.stored[10..20]));
    let refused = endpoint.send("POST", "/v2/app/one/blobs/uploads/", &[], &[]).unwrap();
    assert!((400..500).contains(&refused.status), "a bundle is read-only: {}", refused.status);
    let absent = endpoint.send("GET", "/v2/app/none/manifests/1", &[], &[]).unwrap();
    assert_eq!(absent.status, 404);
}

#[test]
fn a_store_takes_pushes_and_gives_them_back() {
    require!("skopeo");
    let site = Site::without_keys();
    let index = two_platforms(Format::Oci, 1);
    layout::write_folder(&site.at("layout"), &[("v1", &index)]);
    let (host, serving) = site.serve("--store shelf");
    let from = format!("oci:{}:v1", site.at("layout").display());
    let there = format!("docker://{host}/team/app:v1");
    tools::succeed("skopeo", &["copy", "--all", "--dest-tls-verify=false", &from, &there]);
    let raw = tools::succeed("skopeo", &["inspect", "--raw", "--tls-verify=false", &there]);
    assert_eq!(digest(raw.as_bytes()), index.digest());
    drop(serving);
    // killed and started again, it still has everything
    let (host, _serving) = site.serve("--store shelf");
    let there = format!("docker://{host}/team/app:v1");
    let to = format!("dir:{}", site.at("back").display());
    tools::succeed("skopeo", &["copy", "--all", "--src-tls-verify=false", &there, &to]);
}

#[test]
fn a_crossing_between_two_stores_needs_nothing_else() {
    let site = Site::new();
    let image = small(1);
    let (public, _public) = site.serve("--store public");
    push(&Endpoint::plain(&public), "app/one:1", &image);
    let (closed, _closed) = site.serve("--store closed");
    let _ = site.ferry(&format!("bundle {public}/app/one:1 {FOR} -o b.tar {SIGN}")).ok();
    let _ = site.ferry(&format!("install b.tar --registry {closed} {TRUST}")).ok();
    let _ = site.ferry(&format!("bundle {closed}/app/one@{} {FOR} -o back.tar {SIGN}", image.digest())).ok();
    let json = site.ferry(&format!("inspect back.tar --json {TRUST}")).ok().json();
    assert_eq!(json["images"][0]["platforms"][0]["digest"], image.digest());
}

#[test]
fn it_ends_on_a_signal() {
    let site = Site::without_keys();
    for signal in ["TERM", "INT"] {
        let (_, serving) = site.serve("--store shelf");
        serving.signal(signal);
        let ended = serving.timeout_after(std::time::Duration::from_secs(10)).wait();
        assert!(matches!(ended.code, 0 | 130), "{signal}: {} {}", ended.code, ended.stderr);
    }
}

#[test]
fn memory_does_not_grow_with_the_layers() {
    require!("docker-registry");
    let image = Image::single("linux/amd64", Format::Oci, vec![Layer::random(1, 150_000_000)]);
    let source = Registry::filled(Access::Plain, &[("app/huge:1", &image)]);
    let site = Site::new();
    let limit = 100 << 20;
    let peak = |command: &str| {
        let time = tools::find("time").expect("GNU time");
        let output = std::process::Command::new(time)
            .args(["-f", "%M", "-o"])
            .arg(site.at("peak"))
            .arg(ferry_tests::ferry::binary())
            .args(command.split_whitespace())
            .current_dir(site.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let kilobytes: u64 = site.read("peak").trim().parse().unwrap();
        assert!(kilobytes * 1024 < limit, "{command}: {kilobytes} kB");
    };
    if tools::find("time").is_none() {
        tools::skip("memory_does_not_grow_with_the_layers: needs time");
        return;
    }
    peak(&format!("bundle {}/app/huge:1 {FOR} -o b.tar {SIGN}", source.host()));
    peak(&format!("verify b.tar {TRUST}"));
    let target = Registry::start(Access::Plain);
    peak(&format!("install b.tar --registry {} {TRUST}", target.host()));
    let (host, serving) = site.serve(&format!("b.tar {TRUST}"));
    let layer = &image.single.as_ref().unwrap().layers[0];
    let path = format!("/v2/app/huge/blobs/{}", layer.digest());
    let got = Endpoint::plain(&host).send("GET", &path, &[], &[]).unwrap();
    assert!(got.body == **layer.stored);
    assert!(serving.peak_memory() < limit, "serve: {}", serving.peak_memory());
}

#[test]
fn what_is_damaged_in_one_bundle_comes_from_another() {
    let site = Site::new();
    let image = small(3);
    let (public, _public) = site.serve("--store public");
    push(&Endpoint::plain(&public), "app/one:1", &image);
    let _ = site.ferry(&format!("bundle {public}/app/one:1 {FOR} -o whole.tar {SIGN}")).ok();
    let mut bytes = site.bytes("whole.tar");
    let layer = &image.single.as_ref().unwrap().layers[0];
    let at = bytes.windows(layer.stored.len()).position(|window| *window == **layer.stored).unwrap();
    bytes[at + layer.stored.len() / 2] ^= 1;
    site.write("hurt.tar", bytes);
    let (host, serving) = site.serve(&format!("hurt.tar whole.tar {TRUST}"));
    let path = format!("/v2/app/one/blobs/{}", layer.digest());
    let endpoint = Endpoint::plain(&host);
    let first = endpoint.send("GET", &path, &[], &[]);
    assert!(first.is_err() || first.unwrap().body != **layer.stored, "the transfer breaks, once");
    assert!(endpoint.send("GET", &path, &[], &[]).unwrap().body == **layer.stored);
    assert!(serving.stderr().contains("from another"), "{}", serving.stderr());
}
