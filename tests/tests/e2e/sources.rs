//! What images can come as.

use std::collections::BTreeSet;

use ferry_tests::images::docker_save::{Wrap, write_new, write_old};
use ferry_tests::images::{Compression, Format, Image, Layer, layout};
use ferry_tests::registry::{Access, Registry};
use ferry_tests::require;
use ferry_tests::site::Site;
use serde_json::Value;

use crate::{FOR, SIGN, TRUST, small, two_platforms};

/// What `inspect` says of the platforms of the only image.
fn platforms(site: &Site, bundle: &str) -> BTreeSet<(String, String)> {
    let json = site.ferry(&format!("inspect {bundle} --json {TRUST}")).ok().json();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = json["images"][0]["platforms"].as_array().unwrap().clone();
    list.iter().map(|p| (text(&p["platform"]), text(&p["digest"]))).collect()
}

/// The files of a bundle, by name.
fn members(site: &Site, bundle: &str) -> BTreeSet<String> {
    let mut archive = tar::Archive::new(std::fs::File::open(site.at(bundle)).unwrap());
    let entries = archive.entries().unwrap().map(Result::unwrap);
    entries.map(|entry| entry.path().unwrap().display().to_string()).collect()
}

fn holds(site: &Site, bundle: &str, digest: &str) -> bool {
    members(site, bundle).contains(&layout::blob_path(digest))
}

#[test]
fn docker_and_oci_manifests_and_indexes_keep_their_bytes() {
    require!("docker-registry");
    for format in [Format::Docker, Format::Oci] {
        let single = Image::single("linux/amd64", format, vec![Layer::random(1, 2000)]);
        let index = two_platforms(format, 2);
        let source = Registry::filled(Access::Plain, &[("app/single:1", &single), ("app/index:1", &index)]);
        let site = Site::new();
        let host = source.host();
        let _ = site.ferry(&format!("bundle {host}/app/single:1 {host}/app/index:1 {FOR} -o b.tar {SIGN}")).ok();
        for digest in [single.digest(), index.digest(), &index.platform("linux/amd64").unwrap().digest] {
            assert!(holds(&site, "b.tar", digest), "{format:?} {digest}");
        }
        assert!(!holds(&site, "b.tar", &index.platform("linux/arm64/v8").unwrap().digest), "nobody asked for arm64");
        let target = Registry::start(Access::Plain);
        let _ = site.ferry(&format!("install b.tar --registry {} {TRUST}", target.host())).ok();
        assert!(target.holds("app/single", &single), "{format:?}");
    }
}

#[test]
fn platforms_are_chosen_as_containerd_does() {
    require!("docker-registry");
    let single = |platform: &str, seed| Image::single(platform, Format::Oci, vec![Layer::random(seed, 500)]);
    let (amd64, v5, v6, v8) =
        (single("linux/amd64", 1), single("linux/arm/v5", 2), single("linux/arm/v6", 3), single("linux/arm64", 4));
    let inner = Image::index(Format::Oci, &[&v5, &v6]);
    let nested = Image::index(Format::Oci, &[&amd64, &inner, &v8]);
    let source = Registry::filled(Access::Plain, &[("app/n:1", &nested)]);
    let site = Site::new();
    let bundle = |options: &str| site.ferry(&format!("bundle {}/app/n:1 {options} -o b.tar {SIGN}", source.host()));
    let chosen = |options: &str| {
        let _ = std::fs::remove_file(site.at("b.tar"));
        let _ = bundle(options).ok();
        platforms(&site, "b.tar").into_iter().map(|(_, digest)| digest).collect::<BTreeSet<_>>()
    };
    let digests = |images: &[&Image]| images.iter().map(|i| i.digest().to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(chosen("--platform linux/amd64"), digests(&[&amd64]));
    assert_eq!(chosen("--platform linux/arm/v7"), digests(&[&v6]), "v7 runs v6, the best there is");
    assert_eq!(chosen("--platform linux/arm64/v8"), digests(&[&v8]), "arm64 is v8");
    assert_eq!(chosen("--platform linux/amd64 --platform linux/arm/v5"), digests(&[&amd64, &v5]));
    assert_eq!(chosen("--platform all"), digests(&[&amd64, &v5, &v6, &v8]));
    let target = Registry::start(Access::Plain);
    let _ = site.ferry(&format!("install b.tar --registry {} {TRUST}", target.host())).ok();
    assert!(target.holds("app/n", &nested), "`all` keeps the whole index");

    let told = bundle("--platform linux/s390x").run().expect_code(4);
    told.says(&["linux/s390x", "linux/amd64", "linux/arm/v6"]);
}

#[test]
fn docker_save_tars_of_every_kind() {
    let site = Site::new();
    let base = Layer::mixed(1, 30_000, 0.3);
    let image = |seed| Image::single("linux/amd64", Format::Docker, vec![base.clone(), Layer::mixed(seed, 9000, 0.5)]);
    let (one, two) = (image(2), image(3));
    let both: [(&[&str], &Image); 2] = [(&["vendor/one:1"], &one), (&["vendor/two:2"], &two)];
    for (name, write) in [("old", write_old as fn(&_, &[(&[&str], &Image)], Wrap)), ("new", write_new)] {
        for (wrap, end) in [(Wrap::Plain, "tar"), (Wrap::Gzip, "tar.gz"), (Wrap::Zstd, "tar.zst")] {
            let file = format!("{name}.{end}");
            write(&site.at(&file), &both, wrap);
            site.write(
                "m.yaml",
                format!(
                    "name: m\nplatforms: [linux/amd64]\nimages:\n\
                 - {{image: \"vendor/one:1\", archive: {file}, archiveImage: \"vendor/one:1\"}}\n\
                 - {{image: \"renamed/two:2\", archive: {file}, archiveImage: \"vendor/two:2\"}}\n"
                ),
            );
            let out = format!("{file}.bundle.tar");
            let _ = site.ferry(&format!("bundle m.yaml -o {out} {SIGN}")).ok();
            let _ = site.ferry(&format!("verify {out} {TRUST}")).ok();
            let _ = site.ferry(&format!("install {out} --store {file}.store {TRUST}")).ok();
            let (host, _serving) = site.serve(&format!("--store {file}.store"));
            for (repository, tag, image) in [("vendor/one", "1", &one), ("renamed/two", "2", &two)] {
                same_content(&host, repository, tag, image);
            }
            assert!(std::fs::metadata(site.at(&out)).unwrap().len() < 45_000, "raw layers are compressed");
            assert!(!site.names().iter().any(|n| n.contains("spool") || n.ends_with(".partial")), "{:?}", site.names());
        }
    }
}

/// Whether an image at `host` unpacks to the same layers.
fn same_content(host: &str, repository: &str, tag: &str, image: &Image) {
    let endpoint = ferry_tests::http::Endpoint::plain(host);
    let get = |path: String| {
        let answer = endpoint.send("GET", &path, &[("Accept", "*/*")], &[]).unwrap();
        assert_eq!(answer.status, 200, "{path}");
        answer.body
    };
    let manifest: Value = serde_json::from_slice(&get(format!("/v2/{repository}/manifests/{tag}"))).unwrap();
    for (layer, expected) in manifest["layers"].as_array().unwrap().iter().zip(&image.single.as_ref().unwrap().layers) {
        assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
        let stored = get(format!("/v2/{repository}/blobs/{}", layer["digest"].as_str().unwrap()));
        let mut raw = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(stored.as_slice()), &mut raw).unwrap();
        assert_eq!(ferry_tests::images::digest(&raw), expected.diff_id());
    }
}

#[test]
fn a_tar_with_several_images_needs_a_choice() {
    let site = Site::new();
    let (one, two) = (small(1), small(2));
    write_old(&site.at("v.tar"), &[(&["vendor/one:1"], &one), (&["vendor/two:1"], &two)], Wrap::Plain);
    site.write("m.yaml", "name: m\nplatforms: [linux/amd64]\nimages: [{image: \"x/y:1\", archive: v.tar}]\n");
    let told = site.ferry(&format!("bundle m.yaml -o b.tar {SIGN}")).run().expect_code(4);
    told.says(&["v.tar", "vendor/one:1", "vendor/two:1", "hint", "archiveImage"]);
}

#[test]
fn raw_layers_can_be_kept() {
    let site = Site::new();
    let image = small(1);
    write_old(&site.at("v.tar"), &[(&["vendor/one:1"], &image)], Wrap::Plain);
    let manifest =
        "name: m\nplatforms: [linux/amd64]\nlayers: verbatim\nimages: [{image: \"x/y:1\", archive: v.tar}]\n";
    site.write("m.yaml", manifest);
    let _ = site.ferry(&format!("bundle m.yaml -o b.tar {SIGN}")).ok();
    for layer in &image.single.as_ref().unwrap().layers {
        assert!(holds(&site, "b.tar", &layer.diff_id()));
    }
}

#[test]
fn oci_layouts_are_copied_verbatim() {
    let site = Site::new();
    let zstd = Image::single("linux/amd64", Format::Oci, vec![Layer::random(5, 900).with(Compression::Zstd)]);
    let index = two_platforms(Format::Oci, 1);
    layout::write_folder(&site.at("layout"), &[("v1", &index), ("z", &zstd)]);
    layout::write_tar(&site.at("layout.tar"), &[("v1", &index)]);
    site.write(
        "m.yaml",
        "\
name: m
platforms: [linux/amd64]
images:
- {image: \"from/folder:1\", archive: layout, archiveImage: v1}
- {image: \"from/zstd:1\", archive: layout, archiveImage: z}
- {image: \"from/tar:1\", archive: layout.tar}
",
    );
    let _ = site.ferry(&format!("bundle m.yaml -o b.tar {SIGN}")).ok();
    let amd64 = index.platform("linux/amd64").unwrap();
    for digest in [&amd64.digest, zstd.digest(), index.digest()] {
        assert!(holds(&site, "b.tar", digest), "{digest}");
    }
    let _ = site.ferry(&format!("verify b.tar {TRUST}")).ok();
}

#[test]
fn a_fallback_keeps_the_logical_name() {
    require!("docker-registry");
    let source = Registry::filled(Access::Plain, &[("legacy/etcd:3", &small(1))]);
    let site = Site::new();
    let host = source.host();
    site.write("m.yaml", format!(
        "name: m\nplatforms: [linux/amd64]\nimages: [{{image: \"{host}/moved/etcd:3\", from: {host}/legacy/etcd}}]\n"
    ));
    let _ = site.ferry(&format!("bundle m.yaml -o b.tar {SIGN}")).ok();
    let json = site.ferry(&format!("inspect b.tar --json {TRUST}")).ok().json();
    assert_eq!(json["images"][0]["reference"], format!("{host}/moved/etcd:3"));
    assert!(json["images"][0]["source"].as_str().unwrap().contains("legacy/etcd"), "{json}");
}

#[test]
fn an_optional_image_may_be_missing() {
    require!("docker-registry");
    let source = Registry::filled(Access::Plain, &[("app/one:1", &small(1))]);
    let site = Site::new();
    let host = source.host();
    site.write("m.yaml", format!(
        "name: m\nplatforms: [linux/amd64]\nimages:\n- \"{host}/app/one:1\"\n- {{image: \"{host}/app/two:1\", optional: true}}\n"
    ));
    let told = site.ferry(&format!("bundle m.yaml -o b.tar {SIGN}")).ok();
    told.says(&["app/two:1"]);
    let json = site.ferry(&format!("inspect b.tar --json {TRUST}")).ok().json();
    assert_eq!(json["images"].as_array().unwrap().len(), 1);
}

#[test]
fn a_registry_that_stays_away_is_not_taken_for_a_missing_image() {
    let site = Site::new();
    let gone = format!("127.0.0.1:{}", ferry_tests::registry::free_port());
    let told = site.ferry(&format!("bundle {gone}/app/one:1 {FOR} -o b.tar {SIGN}")).run().expect_code(5);
    told.says(&[&gone]);
}
