//! One case for each fault that was found in use.
#![allow(clippy::expect_used)]

mod common;

use ferry_rewrite::{Confidence, find, rewrite};

#[test]
fn a_scalar_that_ends_in_more_than_ascii_is_edited() {
    let text = "key: IMAGE=quay.io/a/b:1 说明\nother: |\n  说 --image=quay.io/a/b:1\n";
    let relocation = common::relocation("reg.local:5000/m", &[("quay.io/a/b:1", "a/b")]);
    let out = rewrite(text, "x.yaml", &relocation, &[], &[]);
    assert_eq!(out.text, text.replace("quay.io/a/b:1", "reg.local:5000/m/a/b:1"));
}

#[test]
fn a_variable_with_a_message_is_reported_though_the_message_has_spaces() {
    for value in ["${DB_IMAGE:?need it}", "postgres:${T:?set T please}"] {
        let found = find(&format!("services: {{db: {{image: '{value}'}}}}\n")).findings;
        assert_eq!(found.len(), 1, "{value}");
        assert_eq!(found[0].confidence, Confidence::Unresolvable, "{value}");
    }
}

#[test]
fn what_stands_under_image_and_is_no_reference_is_reported() {
    let found = find("image: REDIS:7\n").findings;
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].confidence, &found[0].reference), (Confidence::Unresolvable, &None));
}

#[test]
fn a_path_that_begins_with_a_host_goes_with_the_registry_and_a_second_run_changes_nothing() {
    let text = "image: {registry: docker.io, repository: bitnami/etcd, tag: v3}\n";
    let relocation = common::relocation("reg.local:5000", &[("docker.io/bitnami/etcd:v3", "docker.io/bitnami/etcd")]);
    let out = rewrite(text, "x.yaml", &relocation, &[], &[]);
    assert_eq!(out.text, "image: {registry: reg.local:5000/docker.io, repository: bitnami/etcd, tag: v3}\n");
    let again = rewrite(&out.text, "x.yaml", &relocation, &[], &[]);
    assert_eq!((again.text, again.changes.len(), again.uncarried.len()), (out.text, 0, 0));
}

#[test]
fn an_empty_registry_is_filled() {
    let text = "image:\n  registry: \"\"\n  repository: t/worker\n  tag: v9\n";
    let relocation = common::relocation("reg.local:5000/m", &[("docker.io/t/worker:v9", "t/worker")]);
    let out = rewrite(text, "x.yaml", &relocation, &[], &[]);
    assert_eq!(out.text, "image:\n  registry: \"reg.local:5000\"\n  repository: m/t/worker\n  tag: v9\n");
    let again = rewrite(&out.text, "x.yaml", &relocation, &[], &[]);
    assert_eq!((again.text, again.changes.len()), (out.text, 0));
}

#[test]
fn an_address_with_a_port_needs_no_quotes() {
    let text = "registry: docker.io\nrepository: a/b\ntag: v1\n";
    let relocation = common::relocation("127.0.0.1:5000", &[("docker.io/a/b:v1", "a/b")]);
    let out = rewrite(text, "x.yaml", &relocation, &[], &[]);
    assert_eq!(out.text, "registry: 127.0.0.1:5000\nrepository: a/b\ntag: v1\n");
}
