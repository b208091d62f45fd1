//! What a vendor and the public registries would have, for the quickstart: `sample-images FOLDER HOST:PORT`.
//!
//! Writes `alluxio-operator-3.2.1-docker.tar` (a docker-save tar) into the folder, and fills the registry with small multi-platform
//! images under the names that the first customer needs. It says on stdout what it made, one line each.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool of the tests")]

use std::path::Path;

use ferry_tests::http::Endpoint;
use ferry_tests::images::docker_save::{Wrap, write_old};
use ferry_tests::images::{Format, Image, Layer};
use ferry_tests::registry::push;

/// Repository and tag, media types, and the size of its own layer.
const PUBLIC: [(&str, Format, usize); 6] = [
    ("sig-storage/csi-node-driver-registrar:v2.0.0", Format::Docker, 400_000),
    ("sig-storage/csi-provisioner:v2.0.5", Format::Docker, 600_000),
    ("bitnami/etcd:3.5.9-debian-11-r24", Format::Oci, 3_000_000),
    ("bitnami/os-shell:11-debian-11-r2", Format::Oci, 200_000),
    ("grafana/grafana:10.4.5", Format::Docker, 5_000_000),
    ("prom/prometheus:v2.52.0", Format::Oci, 4_000_000),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, host] = arguments.as_slice() else { panic!("usage: sample-images FOLDER HOST:PORT") };
    let vendor = [
        ("alluxio-operator-3.2.1-docker.tar", "alluxio/operator:3.2.1", 900),
        ("alluxio-enterprise-AI-3.6-12.0.2-docker.tar", "alluxio/alluxio-enterprise:AI-3.6-12.0.2", 910),
    ];
    for (file, name, seed) in vendor {
        let layers = vec![Layer::mixed(900, 1_000_000, 0.5), Layer::mixed(seed + 1, 3_000_000, 0.5)];
        let image = Image::single("linux/amd64", Format::Docker, layers);
        write_old(&Path::new(folder).join(file), &[(&[name], &image)], Wrap::Plain);
        println!("{file} holds {name}");
    }
    for (at, (name, format, size)) in (1_u64..).zip(PUBLIC) {
        let image = |platform: &str, seed: u64| {
            // the two of one vendor share a base layer, as they do in life
            let base = Layer::mixed(if name.starts_with("bitnami") { seed } else { seed + at }, 500_000, 0.6);
            Image::single(platform, format, vec![base, Layer::mixed(seed + 50 + at, size, 0.6)])
        };
        let index = Image::index(format, &[&image("linux/amd64", 1000), &image("linux/arm64/v8", 2000)]);
        push(&Endpoint::plain(host), name, &index);
        println!("{host}/{name} {} linux/amd64 linux/arm64/v8", index.digest());
    }
}
