//! Each form of a relocation: what is written, and what is named as left out.
#![allow(clippy::expect_used, reason = "tests")]

mod common;

use ferry_image::{Digest, Reference, Relocated, Relocation};
use ferry_rewrite::emit::{Emitted, Form, Options, Text, emit, print0};
use ferry_rewrite::rewrite;

const TARGET: &str = "reg.local:5000/mirror";

/// (reference, `path[:tag]` below the target, whether its digest stays)
fn relocation(images: &[(&str, &str, bool)]) -> Relocation {
    let mut relocation = Relocation::new(&TARGET.parse().expect("target"));
    for (reference, name, stays) in images {
        let reference: Reference = reference.parse().expect("reference");
        let source = reference.digest().cloned().unwrap_or_else(|| Digest::of(reference.to_string().as_bytes()));
        let (repository, tag) = match name.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (*name, reference.has_written_tag().then(|| reference.tag().unwrap_or_default().to_owned())),
        };
        relocation.images.push(Relocated {
            repository: format!("{TARGET}/{repository}"),
            tag,
            digest: if *stays { source.clone() } else { Digest::of(b"another form") },
            source_digest: source,
            reference,
        });
    }
    relocation
}

fn pinned(repository: &str) -> String {
    format!("{repository}@{}", Digest::of(repository.as_bytes()))
}

/// Every kind of image: by tag and by digest, renamed, retagged, with another digest.
fn all() -> Relocation {
    let (stays, moves) = (pinned("quay.io/stays/app"), pinned("quay.io/moves/app"));
    relocation(&[
        ("nginx:1.27", "library/nginx", true),
        ("nginx:1.28", "library/nginx", false),
        ("vendor/operator:3", "operator", true),
        ("vendor/gateway:3", "vendor/gateway:three", true),
        ("registry.k8s.io/sig/csi:v2", "sig/csi", true),
        (&stays, "stays/app", true),
        (&moves, "moves/app", false),
    ])
}

fn run(form: Form, relocation: &Relocation) -> Emitted {
    emit(form, relocation, &Options::default(), &[])
}

fn files(emitted: &Emitted) -> String {
    let file = |f: &ferry_rewrite::emit::File| format!("== {}\n{}", f.path, f.text);
    emitted.files.iter().map(file).collect()
}

fn left(emitted: &Emitted) -> Vec<&str> {
    emitted.left_out.iter().map(|left| left.image.split('@').next().unwrap_or_default()).collect()
}

#[test]
fn hosts_toml() {
    insta::assert_snapshot!(files(&run(Form::HostsToml, &all())));
}

#[test]
fn registries_yaml() {
    insta::assert_snapshot!(files(&run(Form::RegistriesYaml, &all())));
}

#[test]
fn registries_conf() {
    insta::assert_snapshot!(files(&run(Form::RegistriesConf, &all())));
}

#[test]
fn openshift() {
    insta::assert_snapshot!(files(&run(Form::Idms, &all())) + &files(&run(Form::Itms, &all())));
}

#[test]
fn kustomize() {
    insta::assert_snapshot!(files(&run(Form::Kustomize, &all())));
}

#[test]
fn every_image_is_expressed_or_named() {
    let (gateway, moves, stays) = ("docker.io/vendor/gateway:3", "quay.io/moves/app", "quay.io/stays/app");
    let (one, two, csi, operator) = (
        "docker.io/library/nginx:1.27",
        "docker.io/library/nginx:1.28",
        "registry.k8s.io/sig/csi:v2",
        "docker.io/vendor/operator:3",
    );
    for (form, expected) in [
        (Form::HostsToml, vec![gateway, operator, moves]),
        (Form::RegistriesYaml, vec![gateway, moves]),
        (Form::RegistriesConf, vec![gateway, moves]),
        (Form::Idms, vec![one, two, gateway, operator, moves, csi]),
        (Form::Itms, vec![gateway, moves, stays]),
        (Form::Kustomize, vec![]),
        (Form::Relocation, vec![]),
    ] {
        assert_eq!(left(&run(form, &all())), expected, "{form:?}");
    }
}

#[test]
fn plain_http_and_certificates_are_said_where_a_form_has_a_place_for_them() {
    let options = Options { plain_http: true, ca: None };
    let text = |form, options: &Options| files(&emit(form, &all(), options, &[]));
    assert!(text(Form::HostsToml, &options).contains("[host.\"http://reg.local:5000/v2/mirror\"]"));
    assert!(text(Form::RegistriesYaml, &options).contains("- \"http://reg.local:5000\""));
    assert!(text(Form::RegistriesConf, &options).contains("insecure = true"));
    let options = Options { plain_http: false, ca: Some("PEM\n".to_owned()) };
    let hosts = text(Form::HostsToml, &options);
    assert!(
        hosts.contains("== hosts-toml/docker.io/ca.crt\nPEM\n") && hosts.contains("  ca = \"ca.crt\"\n"),
        "{hosts}"
    );
    let k3s = text(Form::RegistriesYaml, &options);
    assert!(
        k3s.contains("ca_file: /etc/rancher/ferry-ca.crt") && k3s.contains("== registries-yaml/ferry-ca.crt\n"),
        "{k3s}"
    );
    let podman = text(Form::RegistriesConf, &options);
    assert!(
        podman.contains("== registries-conf/certs.d/reg.local:5000/ca.crt\n") && !podman.contains("insecure"),
        "{podman}"
    );
}

#[test]
fn a_mirror_that_would_answer_with_another_image_is_left_out() {
    // `a/app:2` went elsewhere, and its name at the mirror of `a/app` belongs to `b/app:2`
    let crossed =
        relocation(&[("a/app:1", "a/app", true), ("a/app:2", "other", true), ("quay.io/b/app:2", "a/app", true)]);
    for form in [Form::HostsToml, Form::RegistriesYaml, Form::RegistriesConf, Form::Itms, Form::Kustomize] {
        let emitted = run(form, &crossed);
        let left = left(&emitted);
        assert!(left.contains(&"docker.io/a/app:1") && left.contains(&"docker.io/a/app:2"), "{form:?}: {left:?}");
        assert!(!files(&emitted).contains("docker.io/a/app\n"), "{form:?}: {}", files(&emitted));
    }
}

#[test]
fn kustomize_takes_a_new_tag_or_digest_where_a_name_has_one_image_only() {
    let moves = pinned("quay.io/moves/app");
    let text =
        files(&run(Form::Kustomize, &relocation(&[("v/gateway:3", "v/gateway:three", true), (&moves, "app", false)])));
    assert!(text.contains("newName: \"reg.local:5000/mirror/v/gateway\"\n    newTag: \"three\"\n"), "{text}");
    let digest = Digest::of(b"another form");
    assert!(text.contains(&format!("newName: \"reg.local:5000/mirror/app\"\n    digest: \"{digest}\"\n")), "{text}");
    let several = relocation(&[("v/gateway:3", "v/gateway:three", true), ("v/gateway:4", "v/gateway", true)]);
    assert_eq!(left(&run(Form::Kustomize, &several)), ["docker.io/v/gateway:3"]);
}

#[test]
fn digests_that_are_not_known_are_not_used() {
    let stays = pinned("quay.io/stays/app");
    let mut relocation = relocation(&[("nginx:1", "nginx", true), (&stays, "stays/app", true)]);
    relocation.unknown.insert(stays.parse().expect("reference"));
    for form in [Form::HostsToml, Form::RegistriesConf, Form::Idms, Form::Kustomize, Form::Relocation] {
        let emitted = run(form, &relocation);
        assert!(left(&emitted).contains(&"quay.io/stays/app"), "{form:?}");
        assert!(!files(&emitted).contains("mirror/stays/app"), "{form:?}: {}", files(&emitted));
    }
    let (list, left) = print0(&relocation);
    assert_eq!(list, "docker.io/library/nginx:1\0reg.local:5000/mirror/nginx:1\0");
    assert_eq!(left.len(), 1);
}

fn values(before: &str, relocation: &Relocation) -> Emitted {
    let after = rewrite(before, "values.yaml", relocation, &[], &[]).text;
    let text = Text { name: "shop/values.yaml", before, after: &after };
    emit(Form::HelmValues, relocation, &Options::default(), &[text])
}

#[test]
fn helm_values_hold_what_changed_and_its_other_pieces() {
    let emitted = values(
        "\
# a chart's values
replicas: 3
web:
  image:
    registry: docker.io
    repository: library/nginx
    tag: \"1.27\"
    pullPolicy: Always
csi: {image: 'registry.k8s.io/sig/csi:v2', verbose: true}
extra:
  - name: one
    image: nginx:1.28
    weight: 1.50
    on: 'yes'
  - {name: two, args: []}
other: [1, 2]
",
        &all(),
    );
    insta::assert_snapshot!(files(&emitted));
    assert_eq!(
        left(&emitted),
        ["docker.io/vendor/gateway:3", "docker.io/vendor/operator:3", "quay.io/moves/app", "quay.io/stays/app"]
    );
}

#[test]
fn helm_values_allow_other_images_where_a_chart_would_refuse_them() {
    let carried = relocation(&[("docker.io/bitnami/etcd:3", "bitnami/etcd", true), ("nginx:1.27", "nginx", true)]);
    let flag = "global:\n  security:\n    allowInsecureImages: true\n";
    let etcd = "etcd:\n  image: {registry: docker.io, repository: bitnami/etcd, tag: '3'}\n";
    assert!(files(&values(etcd, &carried)).contains(flag));
    let said = "global: {security: {allowInsecureImages: false}}\nweb: {image: nginx:1.27}\n";
    assert!(files(&values(said, &carried)).contains(flag));
    let already = format!("global: {{security: {{allowInsecureImages: true}}}}\n{etcd}");
    assert!(!files(&values(&already, &carried)).contains("allowInsecureImages"));
    assert!(!files(&values("web: {image: nginx:1.27}\n", &carried)).contains("allowInsecureImages"));
}

#[test]
fn helm_values_follow_anchors_and_merges() {
    let emitted = values(
        "base: &base\n  image: {repository: nginx, tag: \"1.27\"}\n  port: 80\nweb:\n  <<: *base\n  port: 81\nalso: *base\n",
        &relocation(&[("nginx:1.27", "nginx", true)]),
    );
    let piece = "  image:\n    repository: reg.local:5000/mirror/nginx\n    tag: \"1.27\"\n";
    let expected = format!("base:\n{piece}web:\n{piece}also:\n{piece}");
    assert!(files(&emitted).ends_with(&expected), "{}", files(&emitted));
}

#[test]
fn what_is_no_values_file_gives_no_override() {
    let carried = relocation(&[("nginx:1.27", "nginx", true)]);
    for text in [
        "apiVersion: v1\nkind: Pod\nspec: {containers: [{image: nginx:1.27}]}\n",
        "services:\n  web: {image: nginx:1.27}\n",
        "web: {image: nginx:1.27}\n---\nweb: {image: nginx:1.27}\n",
        "- image: nginx:1.27\n",
        "web: {image: {{ .Values.image }}}\n",
    ] {
        assert!(values(text, &carried).files.is_empty(), "{text}");
    }
    let after = rewrite("a: 1\n", "values.yaml", &carried, &[], &[]).text;
    let nothing = Text { name: "values.yaml", before: "a: 1\n", after: &after };
    assert!(emit(Form::HelmValues, &carried, &Options::default(), &[nothing]).files.is_empty());
}

#[test]
fn aliases_that_make_much_of_little_are_refused() {
    let mut text = "a0: &a0 [nginx:1.27]\n".to_owned();
    for i in 1..30 {
        text += &format!("a{i}: &a{i} [*a{}, *a{}]\n", i - 1, i - 1);
    }
    text += "image: nginx:1.27\n";
    let emitted = values(&text, &relocation(&[("nginx:1.27", "nginx", true)]));
    assert!(emitted.files.is_empty());
    assert!(emitted.left_out[0].why.contains("aliases"), "{:?}", emitted.left_out);
}
