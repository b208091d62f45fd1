use super::*;

const FULL: &str = r#"
name: shop
version: 3.6
platforms: linux/amd64
layout: flat
layers: zstd
mirrors:
  docker.io: mirror.example.com/hub
  quay.io: [a.example.com, b.example.com:5000/q]
images:
  - image: docker.io/bitnami/etcd:3.5.9
    from: [docker.io/bitnamilegacy/etcd, quay.io/x/etcd:other]
    as: etcd
  - image: alluxio/operator:3.2.1
    archive: tars/operator.tar
    archiveImage: localhost/AI:latest
    optional: true
    platforms: [linux/amd64, linux/arm64]
  - registry.k8s.io/sig-storage/csi-provisioner:v2.0.5
yaml:
  - ./values.yaml
  - ../shared/cluster.yaml
set:
  - file: values*.yaml
    kind: AlluxioCluster
    paths: [spec.etcd.image, 'spec."a.b".image']
    form: registry+repository+tag
    image: bitnami/etcd:3.5.9
  - path: global
    form: image+imageTag
    image: alluxio/operator:3.2.1
ignore:
  - image: docker.io/library/busybox*
    reason: init containers of the demo
files: notes.pdf
"#;

fn read(text: &str) -> Result<BundleManifest, ManifestError> {
    parse(text, Path::new("/m/shop.yaml"))
}

#[test]
fn every_key_is_read() {
    let m = read(FULL).expect("manifest");
    assert_eq!((m.name.as_str(), m.version.as_deref()), ("shop", Some("3.6")));
    assert_eq!(m.platforms.as_ref().map(ToString::to_string).as_deref(), Some("linux/amd64"));
    assert_eq!((m.layout, m.layers), (Layout::Flat, Layers::Zstd));
    assert_eq!(m.images.len(), 3);
    let lines: Vec<usize> = m.images.iter().map(|i| i.line).collect();
    assert_eq!(lines, [11, 14, 19]);
    let archive = m.images[1].archive.as_ref().expect("archive");
    assert_eq!(archive.path, Path::new("/m/tars/operator.tar"));
    assert_eq!(archive.image.as_deref(), Some("localhost/AI:latest"));
    assert!(m.images[1].optional);
    assert_eq!(m.images[1].platforms.as_ref().map(ToString::to_string).as_deref(), Some("linux/amd64, linux/arm64"));
    let names: Vec<&str> = m.yaml.iter().map(|y| y.name.as_str()).collect();
    assert_eq!(names, ["values.yaml", "cluster.yaml"]);
    assert_eq!(m.set.len(), 2);
    assert_eq!(m.set[0].paths.len(), 2);
    assert_eq!(m.set[0].form, ferry_image::Form::RegistryRepositoryTag);
    assert_eq!(m.files[0].path, Path::new("/m/notes.pdf"));
    assert_eq!(m.target_of(&m.images[0]).to_string(), "etcd:3.5.9");
}
