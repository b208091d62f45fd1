//! `docs/rewrite.md` cannot lie: every example on the page is run.
#![allow(clippy::expect_used, clippy::panic)]

mod common;

use std::path::Path;

use ferry_image::{Digest, Form, Reference, Relocated, Relocation, SetRule};
use ferry_rewrite::{Confidence, Shape, find, rewrite};

const TARGET: &str = "reg.local:5000/mirror";

/// The fenced blocks of the page: line, what it is, text.
fn blocks(page: &str) -> Vec<(usize, String, String)> {
    let mut out = Vec::new();
    let mut open: Option<(usize, String, String)> = None;
    for (i, line) in page.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(info)) => open = Some((i + 1, info.to_owned(), String::new())),
            (Some(_), Some(_)) => out.extend(open.take()),
            (Some((_, _, text)), None) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    out
}

/// Every image of `references` under its own path at the target.
fn carried(references: impl Iterator<Item = Reference>) -> Relocation {
    let mut relocation = Relocation::new(&TARGET.parse().expect("target"));
    let there: Digest = format!("sha256:{}", "b".repeat(64)).parse().expect("digest");
    for reference in references {
        relocation.images.push(Relocated {
            tag: reference.tag().map(ToOwned::to_owned),
            repository: format!("{TARGET}/{}", reference.path()),
            source_digest: reference.digest().cloned().unwrap_or_else(|| there.clone()),
            digest: there.clone(),
            reference,
        });
    }
    relocation
}

fn rule(text: &str) -> SetRule {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).expect("a key of the rule").trim();
    let form: Form = serde_json::from_value(value("form:").into()).expect("form");
    common::rule(&[value("path:")], form, value("image:"))
}

#[test]
fn every_example_is_what_happens() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/rewrite.md");
    let page = std::fs::read_to_string(page).expect("docs/rewrite.md");
    let blocks = blocks(&page);
    let mut blocks = blocks.iter().peekable();
    let (mut examples, mut rules) = (0, Vec::new());
    while let Some((line, info, text)) = blocks.next() {
        let mut follows = |wanted: &str| blocks.next_if(|(_, info, _)| info == wanted).map(|(_, _, text)| text);
        match info.as_str() {
            "yaml set" => rules.push(rule(text)),
            "yaml before" => {
                examples += 1;
                let after = follows("yaml after").unwrap_or_else(|| panic!("line {line}: no `after`"));
                assert_ne!(text, after, "line {line}");
                let images = find(text).findings.into_iter().filter_map(|f| f.reference);
                let relocation = carried(images.chain(rules.iter().map(|r| r.image.clone())));
                let out = rewrite(text, "x.yaml", &relocation, &rules, &[]);
                assert_eq!(&out.text, after, "docs/rewrite.md:{line}");
                let reported: Vec<_> = out.uncarried.iter().filter(|f| f.reference.is_some()).collect();
                assert!(reported.is_empty(), "line {line}: {reported:?}");
                assert_eq!(out.refused, [], "line {line}");
                let again = rewrite(after, "x.yaml", &relocation, &rules, &[]);
                assert_eq!(&again.text, after, "line {line}: a second run");
                assert_eq!(again.changes, [], "line {line}: a second run");
                rules.clear();
            }
            "yaml left" => {
                examples += 1;
                let why = follows("text why").map(String::as_str).unwrap_or_default();
                let found = find(text);
                let relocation = carried(found.findings.iter().filter_map(|f| f.reference.clone()));
                assert_eq!(&rewrite(text, "x.yaml", &relocation, &[], &[]).text, text, "line {line}");
                let certain: Vec<_> = found.findings.iter().filter(|f| f.reference.is_some()).collect();
                assert!(certain.is_empty(), "line {line}: {certain:?}");
                let reasons: Vec<String> = found
                    .findings
                    .iter()
                    .filter_map(|f| f.reason.clone())
                    .chain(found.refused.iter().map(|r| r.reason.clone()))
                    .collect();
                assert_eq!(reasons.len(), why.lines().count(), "line {line}: {reasons:?}");
                for (reason, wanted) in reasons.iter().zip(why.lines()) {
                    assert!(reason.contains(wanted), "line {line}: {reason:?} is not {wanted:?}");
                }
            }
            other => panic!("line {line}: `{other}` is no kind of example"),
        }
    }
    assert!(examples > 40, "{examples} examples: the page was not read as meant");
}

#[test]
fn how_sure_each_place_is() {
    use Confidence::{ByValue, Certain, Computed};
    let hex = "a".repeat(64);
    for (text, reference, confidence) in [
        // a repository with a host and a bare image beside it are one name
        ("a: {repository: nvcr.io/x, image: y, tag: v1}", "nvcr.io/x/y:v1", Certain),
        // a name with a host takes no registry
        ("a: {registry: quay.io, repository: ghcr.io/x/y, tag: 1}", "ghcr.io/x/y:1", Computed),
        ("a: {imageTag: v1, initImageName: x/y}", "docker.io/x/y:v1", Certain),
        (
            "{global: {imageRegistry: r.io}, image: {registry: quay.io, repository: x/y, tag: 1}}",
            "quay.io/x/y:1",
            Computed,
        ),
        (
            "{global: {imageRegistry: quay.io}, image: {registry: quay.io, repository: x/y, tag: 1}}",
            "quay.io/x/y:1",
            Certain,
        ),
        ("a: {repository: x/y, registry: ~, defaultRegistry: quay.io, tag: 1}", "quay.io/x/y:1", Certain),
        ("a: {image: {registry: quay.io, web: {repository: x/y, tag: 1}}}", "quay.io/x/y:1", Certain),
        ("a: {b: {global: {hub: quay.io/x, tag: v1}, p: {hub: '', tag: '', image: y}}}", "quay.io/x/y:v1", Certain),
        ("a: {repositoryOverride: quay.io/x/y, tagOverride: v1}", "quay.io/x/y:v1", Certain),
        ("a: {baseImage: quay.io/x/y, tag: v1}", "quay.io/x/y:v1", Certain),
        ("a: {image: quay.io/x/y, version: v1}", "quay.io/x/y:v1", Computed),
        ("images: {a: {image: quay.io/x/y, version: v1}}", "quay.io/x/y:v1", Computed),
        (
            &format!(
                "image: {{repository: quay.io/x/y, tag: v1, genericDigest: 'sha256:{hex}', cloudDigest: 'sha256:{hex}'}}"
            ),
            "quay.io/x/y:v1",
            Computed,
        ),
        ("a: {image: {options: [quay.io/x/y:1]}}", "quay.io/x/y:1", Certain),
        ("kind: BuildConfig\noutput: {to: {kind: DockerImage, name: 'quay.io/x/y:1'}}", "quay.io/x/y:1", ByValue),
        ("from: {kind: DockerImage, name: quay.io/x/y}", "quay.io/x/y:latest", Certain),
        ("artifacts: [{image: quay.io/x/y, docker: {}}]", "quay.io/x/y:latest", Computed),
        ("uses: docker://x/y", "docker.io/x/y:latest", Certain),
        ("params: [{name: image, default: alpine}]", "docker.io/library/alpine:latest", ByValue),
        ("diskImage: quay.io/x/disk:1", "quay.io/x/disk:1", Certain),
        ("spec: {package: 'xpkg.example/x/y:v1'}", "xpkg.example/x/y:v1", ByValue),
        ("script: |\n  #!/bin/sh\n  run --image=redis:7 now\n", "docker.io/library/redis:7", Certain),
    ] {
        let found = find(text).findings;
        let seen: Vec<_> = found
            .iter()
            .map(|f| (f.reference.as_ref().map(ToString::to_string).unwrap_or_default(), f.confidence))
            .collect();
        assert_eq!(seen, [(reference.to_owned(), confidence)], "{text}");
    }
}

#[test]
fn pieces_in_a_list_are_one_reference_with_the_path_of_each() {
    let found =
        find("params:\n- {name: web.image.repository, value: quay.io/x/y}\n- {name: web.image.tag, value: v1}\n")
            .findings;
    let seen: Vec<_> = found.iter().map(|f| (f.path.as_str(), f.line, f.shape)).collect();
    assert_eq!(seen, [("$.params['web.image']", 2, Shape::Split)]);
}
