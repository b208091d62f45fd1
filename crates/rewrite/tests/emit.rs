//! Each form of a relocation: what is written, and what is named as left out.
#![allow(clippy::expect_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use ferry_image::{Digest, Reference, Relocated, Relocation};
use ferry_rewrite::emit::{Answers, Emitted, Form, Member, Options, Text, emit, print0};
use ferry_rewrite::{Around, Charts, rewrite, rewrite_around};

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
        (Form::DaemonJson, vec![one, two, gateway, operator, moves, stays, csi]),
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
    let options = Options { plain_http: true, ..Options::default() };
    let text = |form, options: &Options| files(&emit(form, &all(), options, &[]));
    assert!(text(Form::HostsToml, &options).contains("[host.\"http://reg.local:5000/v2/mirror\"]"));
    assert!(text(Form::RegistriesYaml, &options).contains("- \"http://reg.local:5000\""));
    assert!(text(Form::RegistriesConf, &options).contains("insecure = true"));
    let options = Options { ca: Some("PEM\n".to_owned()), ..Options::default() };
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
fn where_the_target_answers_for_original_hosts_nothing_is_rewritten_or_left_out() {
    let (one, any) = (Answers::Original, Answers::OriginalOfAny);
    let text = |form, answers| {
        let emitted = emit(form, &all(), &Options { answers, ca: Some("PEM\n".to_owned()), ..Options::default() }, &[]);
        (files(&emitted), emitted.left_out.len())
    };
    let (hosts, left_out) = text(Form::HostsToml, one);
    assert_eq!(left_out, 0, "{hosts}");
    for host in ["docker.io", "quay.io", "registry.k8s.io"] {
        assert!(hosts.contains(&format!("== hosts-toml/{host}/hosts.toml\n")), "{hosts}");
    }
    assert!(hosts.contains(
        "\n[host.\"https://reg.local:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = \"ca.crt\"\n"
    ));
    assert!(!hosts.contains("override_path"));
    let (hosts, _) = text(Form::HostsToml, any);
    assert!(hosts.contains("== hosts-toml/_default/hosts.toml\n") && !hosts.contains("docker.io"), "{hosts}");
    let (k3s, left_out) = text(Form::RegistriesYaml, one);
    assert!(
        left_out == 0 && k3s.contains("  \"quay.io\":\n    endpoint:\n      - \"https://reg.local:5000\"\n"),
        "{k3s}"
    );
    assert!(k3s.contains("ca_file: ") && !k3s.contains("rewrite:"), "{k3s}");
    assert!(text(Form::RegistriesYaml, any).0.contains("mirrors:\n  \"*\":\n    endpoint:\n"));
}

#[test]
fn docker_has_a_mirror_for_docker_io_where_paths_are_kept_and_nothing_is_mistaken() {
    let at_root = |images: &[(&str, &str, bool)]| {
        let mut carried = relocation(images);
        carried.target = "reg".to_owned();
        for image in &mut carried.images {
            image.repository = image.repository.replace(TARGET, "reg");
        }
        carried
    };
    let kept = at_root(&[("nginx:1", "library/nginx", true), ("quay.io/x/app:1", "x/app", true)]);
    let options = Options { plain_http: true, ..Options::default() };
    let emitted = emit(Form::DaemonJson, &kept, &options, &[]);
    let expected =
        "{\n  \"registry-mirrors\": [\n    \"http://reg\"\n  ],\n  \"insecure-registries\": [\n    \"reg\"\n  ]\n}\n";
    assert!(files(&emitted).ends_with(expected), "{}", files(&emitted));
    assert_eq!(left(&emitted), ["quay.io/x/app:1"]);
    // where `x/web:1` of docker.io stands, another one answers
    let crossed =
        at_root(&[("nginx:1", "library/nginx", true), ("x/web:1", "other", true), ("quay.io/x/web:1", "x/web", true)]);
    let emitted = emit(Form::DaemonJson, &crossed, &Options::default(), &[]);
    assert!(emitted.files.is_empty());
    assert_eq!(left(&emitted), ["docker.io/library/nginx:1", "docker.io/x/web:1", "quay.io/x/web:1"]);
    let ca = Options { ca: Some("PEM\n".to_owned()), ..Options::default() };
    assert!(files(&emit(Form::DaemonJson, &kept, &ca, &[])).contains("== daemon-json/certs.d/reg/ca.crt\nPEM\n"));
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
fn registries_yaml_leaves_a_host_whose_other_paths_would_find_another_image() {
    let mut carried = relocation(&[
        ("docker.io/x/app:1", "x/app:2", true),
        ("docker.io/x/web:1", "x/web", true),
        ("docker.io/x/app:3", "x/app", true),
        ("quay.io/x/app:1", "x/app", true),
    ]);
    carried.target = "reg".to_owned();
    for image in &mut carried.images {
        image.repository = image.repository.replace(TARGET, "reg");
    }
    let emitted = run(Form::RegistriesYaml, &carried);
    let text = files(&emitted);
    assert!(text.contains("\"quay.io\":") && !text.contains("\"docker.io\":"), "{text}");
    assert_eq!(left(&emitted), ["docker.io/x/app:1", "docker.io/x/app:3", "docker.io/x/web:1"]);
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
    let text = Text { name: "shop/values.yaml", before, after: &after, around: &Around::default(), chart: None };
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

/// The override of a chart's texts, of which those at `given` are rewritten.
fn of_chart(texts: &[(&str, &str)], given: &[&str], carried: &Relocation) -> Emitted {
    let charts = Charts::of(texts.iter().copied(), &[]);
    let all: BTreeMap<String, String> = texts.iter().map(|(p, t)| ((*p).to_owned(), (*t).to_owned())).collect();
    let all = Arc::new(all);
    let rewritten: Vec<_> = texts
        .iter()
        .filter(|(path, _)| given.contains(path))
        .map(|(path, before)| {
            let around = charts.around(path);
            let after = rewrite_around(before, "values.yaml", &around, carried, &[], &[]).text;
            let chart = Member { root: "shop".to_owned(), path: (*path).to_owned(), texts: Arc::clone(&all) };
            (format!("shop/{path}"), *before, after, around, chart)
        })
        .collect();
    let texts: Vec<Text<'_>> = rewritten
        .iter()
        .map(|(name, before, after, around, chart)| Text { name, before, after, around, chart: Some(chart) })
        .collect();
    emit(Form::HelmValues, carried, &Options::default(), &texts)
}

#[test]
fn helm_values_of_sub_charts_stand_under_their_keys_in_those_of_the_chart() {
    let texts = [
        (
            "Chart.yaml",
            "name: shop\nversion: 1.0.0\ndependencies:\n  - {name: cache, alias: hot, version: 1}\n  - {name: cache, alias: cold, version: 1}\n",
        ),
        ("values.yaml", "image: nginx:1.27\nhot:\n  image: {tag: '7'}\ncold:\n  side: {image: already/there:1}\n"),
        ("charts/cache/Chart.yaml", "name: cache\nversion: 1.0.0\nappVersion: '6'\n"),
        ("charts/cache/values.yaml", "image: {repository: team/cache, tag: ''}\nside: {image: team/side:1}\nport: 1\n"),
        ("charts/cache/other.yaml", "image: team/side:1\n"),
    ];
    let carried = relocation(&[
        ("nginx:1.27", "nginx", true),
        ("team/cache:7", "cache", true),
        ("team/cache:6", "cache", true),
        ("team/side:1", "side", true),
    ]);
    let sub = "hot:\n  image:\n    repository: reg.local:5000/mirror/cache\n  side:\n    image: reg.local:5000/mirror/side:1\n";
    let cold = "cold:\n  image:\n    repository: reg.local:5000/mirror/cache\n";
    // the chart's own words for `cold.side` go before the sub-chart's
    let all = of_chart(&texts, &["values.yaml", "charts/cache/values.yaml"], &carried);
    let [file] = all.files.as_slice() else { panic!("{:?}", all.files) };
    assert_eq!(file.path, "helm-values/shop/values.yaml");
    for part in ["image: reg.local:5000/mirror/nginx:1.27\n", sub, cold] {
        assert!(file.text.contains(part), "{}", file.text);
    }
    assert!(!file.text.contains("\nimage:\n") && !file.text.contains("port"), "{}", file.text);
    assert_eq!(left(&all), Vec::<&str>::new());
    // the sub-chart's values alone, too, never stand at the root
    let alone = of_chart(&texts, &["charts/cache/values.yaml"], &carried);
    assert!(alone.files[0].text.ends_with(&format!("{cold}{sub}")), "{}", alone.files[0].text);
    assert_eq!(left(&alone), ["docker.io/library/nginx:1.27"]);
    // and what has no keys is named
    for (texts, given) in [(&texts[2..4], "charts/cache/values.yaml"), (&texts[..], "charts/cache/other.yaml")] {
        let none = of_chart(texts, &[given], &carried);
        assert_eq!(none.files, [], "{given}");
        assert!(none.left_out.iter().any(|left| left.why.contains("chart")), "{:?}", none.left_out);
    }
}

#[test]
fn helm_values_take_the_tag_of_the_chart() {
    let texts = [
        ("Chart.yaml", "name: shop\nversion: 1.0.0\nappVersion: '3'\n"),
        ("values.yaml", "image: {registry: docker.io, repository: bitnami/etcd, tag: ''}\n"),
    ];
    let carried = relocation(&[("docker.io/bitnami/etcd:3", "bitnami/etcd", true)]);
    let emitted = of_chart(&texts, &["values.yaml"], &carried);
    assert!(files(&emitted).contains("allowInsecureImages: true"), "{}", files(&emitted));
    assert_eq!(left(&emitted), Vec::<&str>::new());
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
    let nothing =
        Text { name: "values.yaml", before: "a: 1\n", after: &after, around: &Around::default(), chart: None };
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
