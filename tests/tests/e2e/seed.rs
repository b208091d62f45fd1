//! The first customer's case, with the bundle manifest that ferry ships.

use std::path::Path;

use ferry_tests::images::docker_save::{Wrap, write_new, write_old};
use ferry_tests::images::{Format, Image, Layer};
use ferry_tests::registry::{Access, Registry};
use ferry_tests::require;
use ferry_tests::site::Site;

use crate::{SIGN, TRUST, two_platforms};

const OPERATOR: &str = "\
global:
  image: alluxio/operator
  imageTag: 3.2.1   # tested
";

const CLUSTER: &str = "\
apiVersion: k8s-operator.alluxio.com/v1
kind: AlluxioCluster
metadata: {name: alluxio-cluster, namespace: alx-ns}
spec:
  image: alluxio/alluxio-enterprise
  imageTag: \"AI-3.6-12.0.2\"
  worker:
    count: 2   # keep
  etcd:
    image: {registry: docker.io, repository: bitnami/etcd, tag: 3.5.9-debian-11-r24}
    volumePermissions:
      image: {registry: docker.io, repository: bitnami/os-shell, tag: 11-debian-11-r2}
  alluxio-monitor:
    prometheus: {image: prom/prometheus, imageTag: v2.52.0}
    grafana: {image: grafana/grafana, imageTag: 10.4.5}
";

/// The shipped bundle manifest, its public registries answered by `public`.
fn manifest(public: &str) -> String {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bundle-manifests/alluxio-ai-3.6.yaml");
    let mut text = std::fs::read_to_string(shipped).unwrap();
    for name in ["etcd", "os-shell"] {
        // the real docker.io is asked last: tests reach no internet
        let moved = format!("from: [docker.io/bitnamilegacy/{name}]");
        assert!(text.contains(&moved), "the shipped bundle manifest has another fallback now");
        text = text.replace(&moved, &format!("from: [docker.io/bitnamilegacy/{name}, docker.io/bitnami/{name}]"));
    }
    text + &format!("\nmirrors:\n  docker.io: [{public}]\n  registry.k8s.io: [{public}]\n")
}

#[test]
fn the_first_customer_crosses_in_two_commands() {
    require!("docker-registry");
    let site = Site::new();
    let base = Layer::mixed(500, 20_000, 0.5);
    let vendor = |seed| Image::single("linux/amd64", Format::Docker, vec![base.clone(), Layer::random(seed, 9000)]);
    let (operator, enterprise, gateway) = (vendor(501), vendor(502), vendor(503));
    write_old(&site.at("alluxio-operator-3.2.1-docker.tar"), &[(&["alluxio/operator:3.2.1"], &operator)], Wrap::Plain);
    // this one loads under a name that nobody wants, and comes from a newer docker
    write_new(
        &site.at("alluxio-enterprise-AI-3.6-12.0.2-docker.tar"),
        &[(&["localhost/ai-3.6-12.0.2:latest"], &enterprise)],
        Wrap::Plain,
    );
    // no dashboard: it is optional
    write_old(&site.at("alluxio-gateway-AI-3.6-12.0.2-docker.tar"), &[(&[], &gateway)], Wrap::Plain);
    let third: [(&str, &str, Image); 6] = [
        ("sig-storage/csi-node-driver-registrar:v2.0.0", "csi-node-driver-registrar", two_platforms(Format::Docker, 1)),
        ("sig-storage/csi-provisioner:v2.0.5", "csi-provisioner", two_platforms(Format::Docker, 2)),
        ("bitnamilegacy/etcd:3.5.9-debian-11-r24", "bitnami/etcd", two_platforms(Format::Oci, 3)),
        ("bitnamilegacy/os-shell:11-debian-11-r2", "bitnami/os-shell", two_platforms(Format::Oci, 4)),
        ("grafana/grafana:10.4.5", "grafana", two_platforms(Format::Docker, 5)),
        ("prom/prometheus:v2.52.0", "prometheus", two_platforms(Format::Oci, 6)),
    ];
    let sources: Vec<(&str, &Image)> = third.iter().map(|(name, _, image)| (*name, image)).collect();
    let public = Registry::filled(Access::Plain, &sources);
    site.write("alluxio.yaml", manifest(&public.host()));
    site.write("alluxio-operator.yaml", OPERATOR);
    site.write("alluxio-cluster.yaml", CLUSTER);

    let bundle = site.ferry(&format!("bundle alluxio.yaml -o a.tar {SIGN}")).ok();
    bundle.says(&["alluxio-dashboard"]);
    assert!(public.requests().fetched_twice().is_empty(), "{:?}", public.requests().fetched_twice());
    let _ = site.ferry(&format!("verify a.tar {TRUST}")).ok();

    let private = Registry::start(Access::Plain);
    let registry = format!("{}/private", private.host());
    let yaml = "--yaml alluxio-operator.yaml --yaml alluxio-cluster.yaml --out ready";
    let _ = site.ferry(&format!("install a.tar --registry {registry} {yaml} {TRUST}")).ok();

    for (source, name, image) in &third {
        let tag = source.rsplit_once(':').unwrap().1;
        let amd64 = &image.platform("linux/amd64").unwrap().digest;
        let repository = format!("private/{name}");
        assert!(private.manifest(&repository, tag).is_some(), "{repository}:{tag}");
        assert_eq!(private.manifest(&repository, amd64).as_deref(), image.manifest(amd64), "{repository}");
    }
    for (name, tag, image) in [
        ("alluxio-operator", "3.2.1", &operator),
        ("alluxio-enterprise", "AI-3.6-12.0.2", &enterprise),
        ("alluxio-gateway", "AI-3.6-12.0.2", &gateway),
    ] {
        let manifest = private.manifest(&format!("private/{name}"), tag).expect(name);
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        assert_eq!(manifest["layers"].as_array().unwrap().len(), 2, "{name}");
        let config = private.blob(&format!("private/{name}"), manifest["config"]["digest"].as_str().unwrap()).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        let diff_ids: Vec<String> = image.single.as_ref().unwrap().layers.iter().map(Layer::diff_id).collect();
        assert_eq!(config["rootfs"]["diff_ids"], serde_json::json!(diff_ids), "{name}");
    }

    let expected = format!(
        "\
global:
  image: {registry}/alluxio-operator
  imageTag: 3.2.1   # tested
alluxio-csi:
  controllerPlugin:
    provisioner:
      image: {registry}/csi-provisioner:v2.0.5
  nodePlugin:
    driverRegistrar:
      image: {registry}/csi-node-driver-registrar:v2.0.0
"
    );
    assert_eq!(site.read("ready/alluxio-operator.yaml"), expected);
    let cluster = site.read("ready/alluxio-cluster.yaml");
    for line in [
        format!("  image: {registry}/alluxio-enterprise\n"),
        "  imageTag: \"AI-3.6-12.0.2\"\n".into(),
        "    count: 2   # keep\n".into(),
        format!("    prometheus: {{image: {registry}/prometheus, imageTag: v2.52.0}}\n"),
        format!("    grafana: {{image: {registry}/grafana, imageTag: 10.4.5}}\n"),
    ] {
        assert!(cluster.contains(&line), "lacks `{line}`:\n{cluster}");
    }
    // quoted or not: in YAML 1.1 `1:30` is a number
    let plain = cluster.replace('"', "");
    for (name, tag) in [("etcd", "3.5.9-debian-11-r24"), ("os-shell", "11-debian-11-r2")] {
        let line = format!("{{registry: {}, repository: private/bitnami/{name}, tag: {tag}}}", private.host());
        assert!(plain.contains(&line), "lacks `{line}`:\n{cluster}");
    }
    assert!(site.at("ready/relocation.json").is_file());
    assert_eq!(site.read("alluxio-cluster.yaml"), CLUSTER, "the user's own file is not touched");
}
