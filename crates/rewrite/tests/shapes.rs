//! One row per shape: the text before and after a move to `r:5/p`.
#![allow(clippy::expect_used)]

mod common;

use common::{relocation, target_digest};
use ferry_image::{Ignore, Relocation};
use ferry_rewrite::{Confidence, Shape, check, find, rewrite};

const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn carried() -> Relocation {
    relocation(
        "r:5/p",
        &[
            ("nginx", "library/nginx"),
            ("nginx:1.27", "library/nginx"),
            ("redis:7", "library/redis"),
            ("quay.io/a/b:1.5", "a/b"),
            ("quay.io/a/c:8", "a/c"),
            ("quay.io/a/d:v1", "a/d"),
            ("quay.io/deep/er/e:v1", "deep/er/e"),
            (&format!("quay.io/a/pin:v1@{D}"), "a/pin"),
            (&format!("quay.io/a/pin@{D}"), "a/pin"),
        ],
    )
}

/// Rewrites, and checks that it is complete and that a second run changes nothing.
fn moved(text: &str) -> String {
    let out = rewrite(text, "x.yaml", &carried(), &[], &[]);
    assert!(out.refused.is_empty(), "{text}: {:?}", out.refused);
    assert!(out.uncarried.is_empty(), "{text}: {:?}", out.uncarried);
    let again = rewrite(&out.text, "x.yaml", &carried(), &[], &[]);
    assert_eq!(again.text, out.text, "{text}: a second run");
    assert!(again.changes.is_empty() && again.uncarried.is_empty(), "{text}: {:?}", again);
    out.text
}

#[test]
fn every_shape_keeps_its_form() {
    let pinned = format!("r:5/p/a/pin:v1@{}", target_digest());
    let only = target_digest();
    for (before, after) in [
        // whole
        ("image: nginx:1.27", "image: r:5/p/library/nginx:1.27"),
        ("image: nginx", "image: r:5/p/library/nginx"),
        ("image: \"quay.io/a/b:1.5\" # why", "image: \"r:5/p/a/b:1.5\" # why"),
        ("image: 'quay.io/a/b:1.5'", "image: 'r:5/p/a/b:1.5'"),
        ("image:   quay.io/a/b:1.5   ", "image:   r:5/p/a/b:1.5   "),
        ("image: >-\n  quay.io/a/b:1.5\n", "image: >-\n  r:5/p/a/b:1.5\n"),
        ("operatorImage: quay.io/a/b:1.5", "operatorImage: r:5/p/a/b:1.5"),
        ("imageK8S: quay.io/a/b:1.5", "imageK8S: r:5/p/a/b:1.5"),
        ("docker_image: redis:7", "docker_image: r:5/p/library/redis:7"),
        (
            "kind: ConfigMap\ndata:\n  provisioner: quay.io/a/b:1.5",
            "kind: ConfigMap\ndata:\n  provisioner: r:5/p/a/b:1.5",
        ),
        (&format!("image: quay.io/a/pin:v1@{D}"), &format!("image: {pinned}")),
        (&format!("image: quay.io/a/pin@{D}"), &format!("image: r:5/p/a/pin@{only}")),
        (
            "kind: List\nitems:\n- spec: {containers: [{image: nginx:1.27}]}",
            "kind: List\nitems:\n- spec: {containers: [{image: r:5/p/library/nginx:1.27}]}",
        ),
        ("relatedImages:\n- name: x\n  image: quay.io/a/b:1.5", "relatedImages:\n- name: x\n  image: r:5/p/a/b:1.5"),
        ("{\"image\": \"nginx:1.27\"}", "{\"image\": \"r:5/p/library/nginx:1.27\"}"),
        // split
        ("image:\n  repository: quay.io/a/b\n  tag: \"1.5\"", "image:\n  repository: r:5/p/a/b\n  tag: \"1.5\""),
        ("image: {repository: quay.io/a/c, tag: 8}", "image: {repository: r:5/p/a/c, tag: 8}"),
        (
            "image:\n  registry: quay.io\n  repository: a/b\n  tag: '1.5'",
            "image:\n  registry: r:5\n  repository: p/a/b\n  tag: '1.5'",
        ),
        (
            &format!("image:\n  registry: quay.io\n  repository: a/pin\n  tag: v1\n  digest: {D}"),
            &format!("image:\n  registry: r:5\n  repository: p/a/pin\n  tag: v1\n  digest: {only}"),
        ),
        (
            "image:\n  repository: quay.io/a/d\n  tag: v1\n  digest: \"\"",
            "image:\n  repository: r:5/p/a/d\n  tag: v1\n  digest: \"\"",
        ),
        (
            &format!("image:\n  repository: quay.io/a/pin\n  tag: v1@{D}"),
            &format!("image:\n  repository: r:5/p/a/pin\n  tag: v1@{only}"),
        ),
        ("image: quay.io/a/d\nimageTag: v1", "image: r:5/p/a/d\nimageTag: v1"),
        ("image: quay.io/a/d\ntag: v1", "image: r:5/p/a/d\ntag: v1"),
        ("registry: quay.io\nimage: a/d\ntag: v1", "registry: r:5\nimage: p/a/d\ntag: v1"),
        ("imagePrefix: quay.io/a\nimageName: d\nimageTag: v1", "imagePrefix: r:5/p/a\nimageName: d\nimageTag: v1"),
        (
            "ceimagePrefix: quay.io/a\nceimageName: d\nceimageTag: v1",
            "ceimagePrefix: r:5/p/a\nceimageName: d\nceimageTag: v1",
        ),
        ("repository: quay.io/deep/er\nimage: e\nversion: v1", "repository: r:5/p/deep/er\nimage: e\nversion: v1"),
        (
            "image: {registry: quay.io, repository: deep/er, name: e, tag: v1}",
            "image: {registry: r:5, repository: p/deep/er, name: e, tag: v1}",
        ),
        ("image:\n  name: quay.io/a/d\n  tag: v1", "image:\n  name: r:5/p/a/d\n  tag: v1"),
        ("image:\n  name: quay.io/a/d\n  version: v1", "image:\n  name: r:5/p/a/d\n  version: v1"),
        ("hub: quay.io/a\ntag: v1\nimage: d", "hub: r:5/p/a\ntag: v1\nimage: d"),
        (
            "global: {hub: quay.io/a, tag: v1}\npilot:\n  image: d",
            "global: {hub: r:5/p/a, tag: v1}\npilot:\n  image: d",
        ),
        ("initImage: quay.io/a/d\ninitImageTag: v1", "initImage: r:5/p/a/d\ninitImageTag: v1"),
        (
            "global:\n  image:\n    registry: quay.io\nx:\n  image:\n    image: a/d\n    tag: v1\ny:\n  image:\n    image: a/c\n    tag: 8",
            "global:\n  image:\n    registry: r:5\nx:\n  image:\n    image: p/a/d\n    tag: v1\ny:\n  image:\n    image: p/a/c\n    tag: 8",
        ),
        // environment
        ("env:\n- name: FOO_IMAGE\n  value: redis:7", "env:\n- name: FOO_IMAGE\n  value: r:5/p/library/redis:7"),
        ("env:\n- name: BUILDER\n  value: quay.io/a/b:1.5", "env:\n- name: BUILDER\n  value: r:5/p/a/b:1.5"),
        (
            "env:\n- name: KAFKA_IMAGES\n  value: |\n    1=quay.io/a/b:1.5\n    2=quay.io/a/d:v1\n",
            "env:\n- name: KAFKA_IMAGES\n  value: |\n    1=r:5/p/a/b:1.5\n    2=r:5/p/a/d:v1\n",
        ),
        ("environment:\n- X=quay.io/a/b:1.5\n- Y=z", "environment:\n- X=r:5/p/a/b:1.5\n- Y=z"),
        // arguments
        ("args:\n- --reloader=quay.io/a/b:1.5", "args:\n- --reloader=r:5/p/a/b:1.5"),
        ("args: [\"--image=redis:7\", -v]", "args: [\"--image=r:5/p/library/redis:7\", -v]"),
        ("command: [x, --engine-image, \"redis:7\"]", "command: [x, --engine-image, \"r:5/p/library/redis:7\"]"),
        // kustomize
        (
            "images:\n- name: quay.io/a/b\n  newTag: '1.5'",
            "images:\n- name: quay.io/a/b\n  newTag: '1.5'\n  newName: r:5/p/a/b",
        ),
        (
            "images:\n- name: app\n  newName: quay.io/a/d\n  newTag: v1\n- name: nginx\n  newTag: '1.27'\nx: 1",
            "images:\n- name: app\n  newName: r:5/p/a/d\n  newTag: v1\n- name: nginx\n  newTag: '1.27'\n  newName: r:5/p/library/nginx\nx: 1",
        ),
        (
            &format!("images:\n- name: app\n  newName: quay.io/a/pin\n  digest: {D}"),
            &format!("images:\n- name: app\n  newName: r:5/p/a/pin\n  digest: {only}"),
        ),
        // lists
        ("images:\n- quay.io/a/b:1.5\n- redis:7", "images:\n- r:5/p/a/b:1.5\n- r:5/p/library/redis:7"),
        ("preload: [quay.io/a/b:1.5]", "preload: [r:5/p/a/b:1.5]"),
        ("images:\n  etcd: redis:7", "images:\n  etcd: r:5/p/library/redis:7"),
        // in strings
        (
            "annotations:\n  images: |\n    - name: x\n      image: quay.io/a/b:1.5\n",
            "annotations:\n  images: |\n    - name: x\n      image: r:5/p/a/b:1.5\n",
        ),
        ("data:\n  c.json: '{\"image\": \"redis:7\"}'", "data:\n  c.json: '{\"image\": \"r:5/p/library/redis:7\"}'"),
        (
            "data:\n  c: \"{\\\"image\\\": \\\"redis:7\\\"}\"",
            "data:\n  c: \"{\\\"image\\\": \\\"r:5/p/library/redis:7\\\"}\"",
        ),
        (
            "data:\n  c: |\n    a:\n      repository: quay.io/a/b\n      tag: \"1.5\"\n    s: |\n      image: redis:7\n",
            "data:\n  c: |\n    a:\n      repository: r:5/p/a/b\n      tag: \"1.5\"\n    s: |\n      image: r:5/p/library/redis:7\n",
        ),
        ("data:\n  list: quay.io/a/b:1.5,quay.io/a/d:v1", "data:\n  list: r:5/p/a/b:1.5,r:5/p/a/d:v1"),
        // compose
        ("services:\n  a:\n    image: ${IMG:-redis:7}", "services:\n  a:\n    image: ${IMG:-r:5/p/library/redis:7}"),
        ("services:\n  a:\n    image: quay.io/a/d:${T:-v1}", "services:\n  a:\n    image: r:5/p/a/d:${T:-v1}"),
        (
            "services:\n  a:\n    image: ${R:-quay.io}/a/d:${T:-v1}",
            "services:\n  a:\n    image: ${R:-r:5/p}/a/d:${T:-v1}",
        ),
        // anchors
        ("a: &i quay.io/a/b:1.5\nimage: *i\nx: {image: *i}", "a: &i r:5/p/a/b:1.5\nimage: *i\nx: {image: *i}"),
        (
            "p: &p quay.io/a\nx: {imagePrefix: *p, imageName: d, imageTag: v1}\ny: {imagePrefix: *p, imageName: c, imageTag: 8}",
            "p: &p r:5/p/a\nx: {imagePrefix: *p, imageName: d, imageTag: v1}\ny: {imagePrefix: *p, imageName: c, imageTag: 8}",
        ),
        // text
        (
            "\u{feff}a: 1\r\nimage: redis:7 # c\r\nb: |\r\n  x\r\n",
            "\u{feff}a: 1\r\nimage: r:5/p/library/redis:7 # c\r\nb: |\r\n  x\r\n",
        ),
    ] {
        let result = moved(before);
        assert_eq!(result, after, "{before}");
    }
}

#[test]
fn what_is_no_image_stays() {
    for text in [
        "name: nginx",
        "metadata: {labels: {app: nginx, v: 'redis:7'}}",
        "command: [redis]",
        "command: [nginx, -g, 'redis:7']",
        "args: [\"redis:7\"]",
        "gateway: knative-serving/knative-local-gateway",
        "model: facebook/opt-125m",
        "addr: redis-cart:6379",
        "port: tcp:6667",
        "# image: nginx:1.27\na: 1",
        "imagePullPolicy: Always",
        "imagePullSecrets: [{name: nginx}]",
        "image: {pullPolicy: nginx}",
        "images:\n- name: nginx",
        "images:\n- name: quay.io/a/b",
        "kind: CustomResourceDefinition\nspec: {image: nginx}",
        "kind: List\nitems:\n- kind: CustomResourceDefinition\n  spec: {image: nginx}",
        "kind: ConfigMap\ndata:\n  _example: |\n    image: nginx:1.27\n",
        "image: logo.png",
        "image: false",
        "dependencies:\n- name: nginx\n  version: 1.27\n  repository: https://charts.example/x",
        "volumes: ['data/x:ro']",
    ] {
        let out = rewrite(text, "x.yaml", &carried(), &[], &[]);
        assert_eq!(out.text, text);
        assert!(out.uncarried.iter().all(|f| f.reference.is_none()), "{text}: {:?}", out.uncarried);
        assert!(find(text).findings.iter().all(|f| f.confidence == Confidence::Unresolvable), "{text}");
    }
}

#[test]
fn what_the_text_cannot_tell_is_reported_with_the_reason() {
    for (text, needle) in [
        ("image: {repository: a/b, tag: \"\"}", "`tag` is empty"),
        ("image: {repository: a/b}", "no tag"),
        ("image: {repository: \"\", tag: v1}", "`repository` is empty"),
        ("image: ko://x.dev/cmd/y", "built, not pulled"),
        ("image: '{{ .Values.image }}'", "template"),
        ("image: a/b:${TAG}", "`TAG` has no default"),
        ("image: {repository: '{{ .x }}', tag: v1}", "filled in elsewhere"),
        ("args: [-entrypoint-image, 'ko://x.dev/y']", "built, not pulled"),
    ] {
        let found = find(text);
        assert_eq!(found.findings.len(), 1, "{text}: {found:?}");
        let finding = &found.findings[0];
        assert_eq!((finding.confidence, &finding.reference), (Confidence::Unresolvable, &None), "{text}");
        assert!(finding.reason.as_deref().is_some_and(|r| r.contains(needle)), "{text}: {:?}", finding.reason);
    }
}

#[test]
fn a_broken_document_does_not_hide_the_others() {
    let text = "image: nginx:1.27\n---\nb: [\n---\nx: {{ .Values.y }}\n---\n{{- if .z }}\nimage: redis:7\n{{- end }}\n---\nimage: redis:7\n";
    let out = rewrite(text, "x.yaml", &carried(), &[], &[]);
    assert_eq!(
        out.text,
        "image: r:5/p/library/nginx:1.27\n---\nb: [\n---\nx: {{ .Values.y }}\n---\n{{- if .z }}\nimage: redis:7\n{{- end }}\n---\nimage: r:5/p/library/redis:7\n"
    );
    let reasons: Vec<(usize, bool)> = out.refused.iter().map(|r| (r.line, r.reason.contains("Go template"))).collect();
    assert_eq!(reasons.iter().map(|(_, t)| *t).collect::<Vec<_>>(), [false, true, true], "{:?}", out.refused);
    assert_eq!(reasons[1].0, 5);
    assert_eq!(
        out.changes.iter().map(|c| (c.line, c.path.as_str())).collect::<Vec<_>>(),
        [(1, "#0$.image"), (11, "#4$.image")]
    );
}

#[test]
fn what_is_not_carried_is_reported_unless_ignored_or_there_already() {
    let text = "a: {image: other:1}\nb: {image: r:5/p/there:2}\nc: {image: redis:7}\nd: x/y:3\n";
    let out = rewrite(text, "x.yaml", &carried(), &[], &[]);
    let reported: Vec<(usize, &str, Confidence)> =
        out.uncarried.iter().map(|f| (f.line, f.value.as_str(), f.confidence)).collect();
    assert_eq!(reported, [(1, "other:1", Confidence::Certain), (4, "x/y:3", Confidence::ByValue)]);
    let ignore = [Ignore { image: "docker.io/library/other:*".to_owned(), reason: "r".to_owned() }];
    assert_eq!(rewrite(text, "x.yaml", &carried(), &[], &ignore).uncarried.len(), 1);
    let checked = check(text, "x.yaml", &|r| r.name() == "redis", &[], &ignore);
    assert_eq!(checked.uncarried.iter().map(|f| f.line).collect::<Vec<_>>(), [2, 4]);
}

#[test]
fn a_shared_prefix_is_never_moved_under_an_image_that_stays() {
    let text = "p: &p quay.io/a\nx: {imagePrefix: *p, imageName: d, imageTag: v1}\ny: {imagePrefix: *p, imageName: no, imageTag: v1}\n";
    let out = rewrite(text, "x.yaml", &carried(), &[], &[]);
    assert_eq!(out.text, text);
    assert_eq!(out.uncarried.len(), 2);
    assert!(
        out.uncarried[0].reason.as_deref().is_some_and(|r| r.contains("shares `quay.io/a`")),
        "{:?}",
        out.uncarried
    );
}

#[test]
fn a_shared_prefix_is_shortened_where_its_users_differ() {
    let r = relocation("r:5/p", &[("quay.io/a/d:v1", "one/d"), ("quay.io/a/c:8", "two/c")]);
    let text = "p: &p quay.io/a\nx: {imagePrefix: *p, imageName: d, imageTag: v1}\ny: {imagePrefix: *p, imageName: c, imageTag: 8}\n";
    let out = rewrite(text, "x.yaml", &r, &[], &[]);
    let wanted = "p: &p r:5/p\nx: {imagePrefix: *p, imageName: one/d, imageTag: v1}\ny: {imagePrefix: *p, imageName: two/c, imageTag: 8}\n";
    assert_eq!(out.text, wanted);
    assert_eq!(rewrite(wanted, "x.yaml", &r, &[], &[]).changes, []);
}

#[test]
fn another_user_of_an_anchor_is_noted() {
    let out = rewrite("image: &i redis:7\nnote: *i\n", "x.yaml", &carried(), &[], &[]);
    assert_eq!(out.notes.iter().map(|n| n.line).collect::<Vec<_>>(), [2]);
}

#[test]
fn plain_lists() {
    let text = "## Core\r\n\r\nredis:7\r\nquay.io/a/b:1.5 # why\r\n# no\r\nno reference\r\nother:1\r\n";
    let out = rewrite(text, "images.txt", &carried(), &[], &[]);
    assert_eq!(
        out.text,
        "## Core\r\n\r\nr:5/p/library/redis:7\r\nr:5/p/a/b:1.5 # why\r\n# no\r\nno reference\r\nother:1\r\n"
    );
    assert_eq!(out.refused.iter().map(|r| r.line).collect::<Vec<_>>(), [6]);
    assert_eq!(out.uncarried.iter().map(|f| (f.line, f.shape)).collect::<Vec<_>>(), [(7, Shape::List)]);
}

#[test]
fn limits() {
    let deep = format!("a: {}{}", "[".repeat(5000), "]".repeat(5000));
    assert!(find(&deep).refused[0].reason.contains("deeper"), "{:?}", find(&deep).refused);
    let laughs = "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nd: &d [*c,*c]\nimage: redis:7\n";
    assert_eq!(find(laughs).findings.len(), 1);
    let long = "#".repeat((16 << 20) + 1);
    assert!(find(&long).refused[0].reason.contains("limit"));
}

#[test]
fn what_may_be_built_here_only_warns() {
    let found = find("services:\n  a: {build: ., image: redis:7}\n  b: {image: redis:7}\n").findings;
    assert_eq!(found.iter().map(|f| f.confidence).collect::<Vec<_>>(), [Confidence::Computed, Confidence::Certain]);
}

#[test]
fn a_repository_without_the_registry_of_its_siblings_is_noted() {
    let text = "a: {image: {registry: quay.io, repository: a/d, tag: v1}}\nb: {image: {repository: redis, tag: '7'}}\n";
    let out = rewrite(text, "x.yaml", &carried(), &[], &[]);
    assert_eq!(
        out.text,
        "a: {image: {registry: r:5, repository: p/a/d, tag: v1}}\nb: {image: {repository: r:5/p/library/redis, tag: '7'}}\n"
    );
    assert_eq!(out.notes.iter().map(|n| n.line).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_rule_makes_what_it_overwrites_moot() {
    let rules = [
        common::rule(&["x"], ferry_image::Form::ImageTag, "redis:7"),
        common::rule(&["y.image"], ferry_image::Form::Whole, "not/carried:1"),
    ];
    let text = "x:\n  image: VENDOR/placeholder\n  imageTag: old\ny:\n  image: other:2\n";
    let out = rewrite(text, "x.yaml", &carried(), &rules, &[]);
    assert_eq!(out.text, "x:\n  image: r:5/p/library/redis\n  imageTag: \"7\"\ny:\n  image: other:2\n");
    assert_eq!(out.uncarried.iter().map(|f| f.line).collect::<Vec<_>>(), [5]);
    let checked = check("x:\n  image: other\n  imageTag: old\n", "x.yaml", &|r| r.name() == "redis", &rules, &[]);
    assert!(checked.uncarried.is_empty(), "{:?}", checked.uncarried);
}
