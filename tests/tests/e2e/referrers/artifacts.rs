//! Artifacts of any type are carried as they are: charts, WASM, files, whatever has a manifest.

use ferry_tests::cosign::image;
use ferry_tests::http::Endpoint;
use ferry_tests::images::{Descriptor, Format, Image, digest};
use ferry_tests::registry::{Access, Registry};
use ferry_tests::require;
use ferry_tests::site::Site;
use serde_json::{Value, json};

use super::THING;
use crate::{FOR, SIGN, TRUST, small};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An artifact as its tool writes it: config and layers, each a media type and bytes, and what else stands in the manifest.
fn made(config: (&str, &str), layers: &[(&str, &[u8], Value)], more: Value) -> Image {
    let described = |(media_type, bytes, annotations): &(&str, &[u8], Value)| {
        let mut json = json!(Descriptor::new(media_type, bytes));
        if !annotations.is_null() {
            json["annotations"] = annotations.clone();
        }
        json
    };
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": Descriptor::new(config.0, config.1.as_bytes()),
        "layers": layers.iter().map(described).collect::<Vec<_>>(),
    });
    manifest.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let blobs = layers.iter().map(|(_, bytes, _)| bytes.to_vec());
    image(&manifest, blobs.chain([config.1.as_bytes().to_vec()]))
}

/// By name, what people keep in registries beside images.
fn artifacts() -> Vec<(&'static str, Image)> {
    let title = |name: &str| json!({"org.opencontainers.image.title": name});
    let chart = made(
        ("application/vnd.cncf.helm.config.v1+json", r#"{"name":"shop","version":"1.2.3","apiVersion":"v2"}"#),
        &[
            ("application/vnd.cncf.helm.chart.content.v1.tar+gzip", b"\x1f\x8bthe chart", Value::Null),
            ("application/vnd.cncf.helm.chart.provenance.v1.prov", b"-----BEGIN PGP", Value::Null),
        ],
        json!({"annotations": {"org.opencontainers.image.title": "shop", "org.opencontainers.image.version": "1.2.3"}}),
    );
    let wasm = made(
        (
            "application/vnd.wasm.config.v0+json",
            r#"{"created":"2026-01-01T00:00:00Z","architecture":"wasm","os":"wasip2","layerDigests":[]}"#,
        ),
        &[("application/wasm", b"\0asm\x0d\0\x01\0", Value::Null)],
        json!({}),
    );
    let files = made(
        ("application/vnd.oci.empty.v1+json", "{}"),
        &[
            ("text/plain", b"hello", title("hello.txt")),
            ("application/vnd.oci.image.layer.v1.tar+gzip", b"\x1f\x8ba folder", title("folder")),
            // the same bytes twice, as two files
            ("text/plain", b"hello", title("copy.txt")),
        ],
        json!({"artifactType": "application/vnd.example.files"}),
    );
    // nothing but annotations: the empty descriptor stands for config and layer
    let empty = made(
        ("application/vnd.oci.empty.v1+json", "{}"),
        &[("application/vnd.oci.empty.v1+json", b"{}", Value::Null)],
        json!({"artifactType": "application/vnd.example.note", "annotations": {"note": "only this"}}),
    );
    let index = Image::index(Format::Oci, &[&Image::artifact(THING, b"one"), &Image::artifact(THING, b"two")]);
    vec![("chart:1.2.3", chart), ("wasm:1", wasm), ("files:1", files), ("empty:1", empty), ("index:1", index)]
}

/// A bundle of all of them and a small image.
fn bundled(site: &Site) -> (Registry, Vec<(&'static str, Image)>) {
    let source = Registry::filled(Access::Plain, &[("app/one:1", &small(1))]);
    let artifacts = artifacts();
    let mut names = format!("{}/app/one:1", source.host());
    for (name, artifact) in &artifacts {
        source.push(&format!("things/{name}"), artifact);
        names += &format!(" {}/things/{name}", source.host());
    }
    let _ = site.ferry(&format!("bundle {names} {FOR} -o b.tar {SIGN}")).ok();
    (source, artifacts)
}

#[test]
fn they_arrive_byte_for_byte() {
    require!("docker-registry");
    let site = Site::new();
    let (_source, artifacts) = bundled(&site);
    let _ = site.ferry(&format!("verify b.tar {TRUST}")).ok();
    let target = Registry::start(Access::Plain);
    let _ = site.ferry(&format!("install b.tar --registry {} {TRUST}", target.host())).ok();
    let (store, _store) = site.serve("--store shelf");
    let _ = site.ferry(&format!("install b.tar --registry {store} {TRUST}")).ok();
    let _ = site.ferry(&format!("install b.tar --store folder {TRUST}")).ok();
    let (folder, _folder) = site.serve("--store folder");
    let (served, _served) = site.serve(&format!("b.tar {TRUST}"));
    for (name, artifact) in &artifacts {
        let (repository, version) = name.split_once(':').unwrap();
        let repository = format!("things/{repository}");
        assert!(target.holds(&repository, artifact), "{name}");
        for host in [&target.host(), &store, &folder, &served] {
            let get = |path: String| {
                let accept =
                    [("Accept", "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json")];
                let answer =
                    Endpoint::plain(host).send("GET", &format!("/v2/{repository}/{path}"), &accept, &[]).unwrap();
                assert_eq!(answer.status, 200, "{host} {name} {path}");
                answer.body
            };
            assert_eq!(digest(&get(format!("manifests/{version}"))), artifact.digest(), "{host} {name}");
            for (descriptor, bytes) in &artifact.manifests {
                assert!(get(format!("manifests/{}", descriptor.digest)) == *bytes, "{host} {name}");
            }
            for (digest, bytes) in &artifact.blobs {
                assert!(get(format!("blobs/{digest}")) == **bytes, "{host} {name} {digest}");
            }
        }
    }
}
