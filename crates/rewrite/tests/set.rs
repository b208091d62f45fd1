//! `set:` rules: the seed scenario from its bare beginnings, and every form and style of surroundings.
#![allow(clippy::expect_used)]

mod common;

use common::{relocation, rule};
use ferry_image::{Form, SetRule};
use ferry_rewrite::{Why, rewrite};

fn seed_rules() -> Vec<SetRule> {
    let operator = |path: &str, form, image: &str| SetRule {
        file: Some("alluxio-operator*.yaml".to_owned()),
        ..rule(&[path], form, image)
    };
    let cluster = |paths: &[&str], form, image: &str| SetRule {
        kind: Some("AlluxioCluster".to_owned()),
        ..rule(paths, form, image)
    };
    let csi = "registry.k8s.io/sig-storage";
    vec![
        operator("global", Form::ImageTag, "alluxio/operator:3.2.1"),
        operator(
            "alluxio-csi.controllerPlugin.provisioner.image",
            Form::Whole,
            &format!("{csi}/csi-provisioner:v2.0.5"),
        ),
        operator(
            "alluxio-csi.nodePlugin.driverRegistrar.image",
            Form::Whole,
            &format!("{csi}/csi-node-driver-registrar:v2.0.0"),
        ),
        cluster(&["spec"], Form::ImageTag, "alluxio/alluxio-enterprise:AI-3.6-12.0.2"),
        cluster(&["spec.etcd.image"], Form::RegistryRepositoryTag, "docker.io/bitnami/etcd:3.5.9-debian-11-r24"),
        cluster(
            &["spec.etcd.volumePermissions.image"],
            Form::RegistryRepositoryTag,
            "docker.io/bitnami/os-shell:11-debian-11-r2",
        ),
        cluster(&["spec.alluxio-monitor.prometheus", "spec.prometheus"], Form::ImageTag, "prom/prometheus:v2.52.0"),
        cluster(&["spec.alluxio-monitor.grafana", "spec.grafana"], Form::ImageTag, "grafana/grafana:10.4.5"),
    ]
}

fn seed() -> ferry_image::Relocation {
    let csi = "registry.k8s.io/sig-storage";
    relocation(
        "reg.local:5000",
        &[
            ("alluxio/operator:3.2.1", "alluxio-operator"),
            (&format!("{csi}/csi-provisioner:v2.0.5"), "csi-provisioner"),
            (&format!("{csi}/csi-node-driver-registrar:v2.0.0"), "csi-node-driver-registrar"),
            ("alluxio/alluxio-enterprise:AI-3.6-12.0.2", "alluxio-enterprise"),
            ("docker.io/bitnami/etcd:3.5.9-debian-11-r24", "bitnami/etcd"),
            ("docker.io/bitnami/os-shell:11-debian-11-r2", "bitnami/os-shell"),
            ("prom/prometheus:v2.52.0", "prometheus"),
            ("grafana/grafana:10.4.5", "grafana"),
        ],
    )
}

fn run(text: &str, file: &str) -> String {
    let out = rewrite(text, file, &seed(), &seed_rules(), &[]);
    assert!(out.uncarried.is_empty(), "{:?}", out.uncarried);
    assert!(out.refused.is_empty(), "{:?}", out.refused);
    assert!(out.unmet.iter().all(|u| u.why == Why::NoDocument), "{:?}", out.unmet);
    let again = rewrite(&out.text, file, &seed(), &seed_rules(), &[]);
    assert_eq!(again.text, out.text, "a second run changes nothing");
    assert!(again.changes.is_empty(), "{:?}", again.changes);
    out.text
}

#[test]
fn the_operator_values_from_two_keys() {
    let text = "global:\n  image: PRIVATE_REGISTRY/alluxio-operator\n  imageTag: 3.2.1\n";
    assert_eq!(
        run(text, "alluxio-operator.yaml"),
        "global:
  image: reg.local:5000/alluxio-operator
  imageTag: 3.2.1
alluxio-csi:
  controllerPlugin:
    provisioner:
      image: reg.local:5000/csi-provisioner:v2.0.5
  nodePlugin:
    driverRegistrar:
      image: reg.local:5000/csi-node-driver-registrar:v2.0.0
"
    );
}

#[test]
fn the_cluster_from_a_bare_beginning() {
    let text = "apiVersion: k8s-operator.alluxio.com/v1
kind: AlluxioCluster
metadata: {name: alluxio-cluster, namespace: alx-ns}
spec:
  image: <PRIVATE_REGISTRY>/alluxio-enterprise
  etcd: # kept
    image: {repository: bitnami/etcd}
  worker:
    count: 2
";
    assert_eq!(
        run(text, "alluxio-cluster.yaml"),
        "apiVersion: k8s-operator.alluxio.com/v1
kind: AlluxioCluster
metadata: {name: alluxio-cluster, namespace: alx-ns}
spec:
  image: reg.local:5000/alluxio-enterprise
  etcd: # kept
    image: {repository: bitnami/etcd, registry: reg.local:5000, tag: 3.5.9-debian-11-r24}
    volumePermissions:
      image:
        registry: reg.local:5000
        repository: bitnami/os-shell
        tag: 11-debian-11-r2
  worker:
    count: 2
  imageTag: AI-3.6-12.0.2
  alluxio-monitor:
    prometheus:
      image: reg.local:5000/prometheus
      imageTag: v2.52.0
    grafana:
      image: reg.local:5000/grafana
      imageTag: 10.4.5
"
    );
}

#[test]
fn the_cluster_with_the_monitor_under_spec() {
    let text = "kind: AlluxioCluster
spec:
  image: alluxio/alluxio-enterprise
  imageTag: AI-3.6-12.0.2
  etcd:
    image: {registry: docker.io, repository: bitnami/etcd, tag: 3.5.9-debian-11-r24}
    volumePermissions:
      image: {registry: docker.io, repository: bitnami/os-shell, tag: 11-debian-11-r2}
  prometheus: {image: prom/prometheus, imageTag: v2.52.0}
  grafana: {image: grafana/grafana, imageTag: 10.4.5}
";
    assert_eq!(
        run(text, "cluster.yml"),
        "kind: AlluxioCluster
spec:
  image: reg.local:5000/alluxio-enterprise
  imageTag: AI-3.6-12.0.2
  etcd:
    image: {registry: reg.local:5000, repository: bitnami/etcd, tag: 3.5.9-debian-11-r24}
    volumePermissions:
      image: {registry: reg.local:5000, repository: bitnami/os-shell, tag: 11-debian-11-r2}
  prometheus: {image: reg.local:5000/prometheus, imageTag: v2.52.0}
  grafana: {image: reg.local:5000/grafana, imageTag: 10.4.5}
"
    );
}

#[test]
fn keys_are_inserted_in_the_style_around_them() {
    let r = relocation("r:5", &[("a/b:10.4", "a/b")]);
    for (name, text, path, form, wanted) in [
        ("empty file", "", "x.image", Form::Whole, "x:\n  image: r:5/a/b:10.4\n"),
        ("comments only", "# c\n", "x.image", Form::Whole, "# c\nx:\n  image: r:5/a/b:10.4\n"),
        ("comment without end", "# c", "x", Form::Whole, "# c\nx: r:5/a/b:10.4\n"),
        ("empty document", "---\n# c\n", "x", Form::Whole, "---\n# c\nx: r:5/a/b:10.4\n"),
        ("null", "x:\n# c\ny: 1\n", "x.image", Form::Whole, "x:\n  image: r:5/a/b:10.4\n# c\ny: 1\n"),
        ("null with comment", "x: # c\ny: 1\n", "x.image", Form::Whole, "x: # c\n  image: r:5/a/b:10.4\ny: 1\n"),
        ("written null", "x: ~ # c\ny: 1\n", "x.image", Form::Whole, "x: # c\n  image: r:5/a/b:10.4\ny: 1\n"),
        ("empty mapping", "x: {}\ny: 1\n", "x.image", Form::Whole, "x:\n  image: r:5/a/b:10.4\ny: 1\n"),
        ("root braces", "{}\n", "x.image", Form::Whole, "{\"x\": {\"image\": \"r:5/a/b:10.4\"}}\n"),
        (
            "four spaces",
            "x:\n    y:\n        z: 1\n",
            "x.image.a",
            Form::Whole,
            "x:\n    y:\n        z: 1\n    image:\n        a: r:5/a/b:10.4\n",
        ),
        ("no final newline", "x:\n  y: 1", "x.image", Form::Whole, "x:\n  y: 1\n  image: r:5/a/b:10.4"),
        (
            "CRLF",
            "x:\r\n  y: 1\r\nz: 2\r\n",
            "x.image",
            Form::Whole,
            "x:\r\n  y: 1\r\n  image: r:5/a/b:10.4\r\nz: 2\r\n",
        ),
        ("CRLF null", "x:\r\nz: 2\r\n", "x.image", Form::Whole, "x:\r\n  image: r:5/a/b:10.4\r\nz: 2\r\n"),
        (
            "after a block",
            "x:\n  y: |\n    t\n\nz: 1\n",
            "x.image",
            Form::Whole,
            "x:\n  y: |\n    t\n  image: r:5/a/b:10.4\n\nz: 1\n",
        ),
        (
            "after a kept block",
            "x:\n  y: |+\n    t\n\nz: 1\n",
            "x.image",
            Form::Whole,
            "x:\n  y: |+\n    t\n\n  image: r:5/a/b:10.4\nz: 1\n",
        ),
        (
            "after a list",
            "x:\n  y:\n  - 1\n  - a: 2 # c\nz: 1\n",
            "x.image",
            Form::Whole,
            "x:\n  y:\n  - 1\n  - a: 2 # c\n  image: r:5/a/b:10.4\nz: 1\n",
        ),
        ("flow", "x: {y: 1}\n", "x.image", Form::Whole, "x: {y: 1, image: r:5/a/b:10.4}\n"),
        ("flow, trailing comma", "x: {y: 1,}\n", "x.image", Form::Whole, "x: {y: 1, image: r:5/a/b:10.4}\n"),
        ("flow, deep", "x: {y: 1}\n", "x.z.image", Form::Whole, "x: {y: 1, z: {image: r:5/a/b:10.4}}\n"),
        (
            "JSON",
            "{\n  \"x\": {\n    \"y\": 1\n  }\n}\n",
            "x.image",
            Form::Whole,
            "{\n  \"x\": {\n    \"y\": 1,\n    \"image\": \"r:5/a/b:10.4\"\n  }\n}\n",
        ),
        ("JSON, empty", "{\"x\": {}}", "x.image", Form::Whole, "{\"x\": {\"image\": \"r:5/a/b:10.4\"}}"),
        ("split", "x: {}\n", "x", Form::RepositoryTag, "x:\n  repository: r:5/a/b\n  tag: \"10.4\"\n"),
        (
            "image+tag",
            "x:\n  pullPolicy: A\n",
            "x",
            Form::Tag,
            "x:\n  pullPolicy: A\n  image: r:5/a/b\n  tag: \"10.4\"\n",
        ),
        ("quotes stay", "x: 'old' # c\n", "x", Form::Whole, "x: 'r:5/a/b:10.4' # c\n"),
        (
            "a fraction is quoted",
            "x:\n  repository: q\n  tag: 8\n",
            "x",
            Form::RepositoryTag,
            "x:\n  repository: r:5/a/b\n  tag: \"10.4\"\n",
        ),
        (
            "digest gives way",
            "x:\n  repository: q\n  digest: sha256:0\n",
            "x",
            Form::RepositoryTag,
            "x:\n  repository: r:5/a/b\n  digest: \"\"\n  tag: \"10.4\"\n",
        ),
        ("dotted key", "\"a.b\":\n  c: 1\n", "\"a.b\".image", Form::Whole, "\"a.b\":\n  c: 1\n  image: r:5/a/b:10.4\n"),
        ("alias", "d: &d old\nx: *d\n", "x", Form::Whole, "d: &d old\nx: r:5/a/b:10.4\n"),
        ("byte order mark", "\u{feff}x: 1\n", "z", Form::Whole, "\u{feff}x: 1\nz: r:5/a/b:10.4\n"),
        ("root", "y: 1\n", "", Form::ImageTag, "y: 1\nimage: r:5/a/b\nimageTag: \"10.4\"\n"),
    ] {
        let rules = [rule(&[path], form, "a/b:10.4")];
        let out = rewrite(text, "v.yaml", &r, &rules, &[]);
        assert_eq!(out.unmet, [], "{name}");
        assert_eq!(out.text, wanted, "{name}");
        let again = rewrite(&out.text, "v.yaml", &r, &rules, &[]);
        assert_eq!(again.text, wanted, "{name}: a second run");
        assert_eq!(again.changes, [], "{name}: a second run");
    }
}

#[test]
fn what_cannot_be_set_is_refused_with_the_reason() {
    let r = relocation("r:5", &[("a/b:1", "a/b")]);
    for (text, path, needle) in [
        ("x: 1\n", "x.image", "is a value"),
        ("x: [1]\n", "x.image", "is a list"),
        ("d: &d {a: 1}\nx: *d\n", "x.image", "is an alias"),
        ("x: {a: 1}\n", "x", "is a mapping"),
        ("x: |\n  a\n", "x", "is a block"),
        ("x: 1\n", "a..b", "empty key"),
    ] {
        let out = rewrite(text, "v.yaml", &r, &[rule(&[path], Form::Whole, "a/b:1")], &[]);
        assert_eq!(out.text, text, "{path}");
        assert!(matches!(&out.unmet[0].why, Why::Refused { reason, .. } if reason.contains(needle)), "{:?}", out.unmet);
    }
    let out = rewrite("x: 1\n", "v.yaml", &r, &[rule(&["x"], Form::Whole, "not/carried:1")], &[]);
    assert_eq!(out.unmet[0].why, Why::NotCarried);
    let other = SetRule { file: Some("w*.yaml".to_owned()), ..rule(&["x"], Form::Whole, "a/b:1") };
    assert_eq!(rewrite("x: 1\n", "dir/v.yaml", &r, &[other], &[]).unmet[0].why, Why::NoDocument);
}

#[test]
fn of_several_paths_the_first_that_exists_is_taken() {
    let r = relocation("r:5", &[("a/b:1", "a/b")]);
    let rules = [rule(&["m.image", "n.image"], Form::Whole, "a/b:1")];
    assert_eq!(rewrite("n:\n  image: x\n", "v.yaml", &r, &rules, &[]).text, "n:\n  image: r:5/a/b:1\n");
    assert_eq!(rewrite("o: 1\n", "v.yaml", &r, &rules, &[]).text, "o: 1\nm:\n  image: r:5/a/b:1\n");
}

#[test]
fn only_documents_of_the_kind_are_touched() {
    let r = relocation("r:5", &[("a/b:1", "a/b")]);
    let rules = [SetRule { kind: Some("K".to_owned()), ..rule(&["spec.image"], Form::Whole, "a/b:1") }];
    let text = "# head\n---\nkind: J\nspec: {a: 1}\n---\nkind: K\nspec: {a: 1}\n...\n---\nkind: J\n";
    let wanted = text.replace("kind: K\nspec: {a: 1}", "kind: K\nspec: {a: 1, image: r:5/a/b:1}");
    assert_eq!(rewrite(text, "v.yaml", &r, &rules, &[]).text, wanted);
}
