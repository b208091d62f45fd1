//! Large streams stay fast: the work grows with the text, not with its square.
#![allow(clippy::expect_used)]

mod common;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use common::relocation;
use ferry_rewrite::rewrite;

/// A second is what is owed; without optimisation and on a busy machine a quadratic step still takes minutes.
const LIMIT: Duration = Duration::from_secs(if cfg!(debug_assertions) { 20 } else { 1 });

#[test]
fn two_thousand_documents() {
    let mut text = String::new();
    for i in 0..2000 {
        let filler = "          - {name: FOO, value: 'some text that is long enough to be real'}\n".repeat(10);
        let _ = write!(
            text,
            "---\napiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: d{i}\nspec:\n  template:\n    spec:\n      containers:\n        - name: a\n          image: quay.io/a/b:{}\n          env:\n{filler}",
            i % 100
        );
    }
    assert!(text.len() > 1_700_000);
    let names: Vec<(String, String)> = (0..100).map(|i| (format!("quay.io/a/b:{i}"), "a/b".to_owned())).collect();
    let pairs: Vec<(&str, &str)> = names.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let relocation = relocation("r:5/p", &pairs);
    let start = Instant::now();
    let out = rewrite(&text, "x.yaml", &relocation, &[], &[]);
    let took = start.elapsed();
    println!("{} bytes in {took:?}", text.len());
    assert_eq!(out.changes.len(), 2000);
    assert_eq!(out.text, text.replace("image: quay.io/", "image: r:5/p/"));
    assert!(took < LIMIT, "{took:?}");
}

#[test]
fn a_manifest_that_is_mostly_schemas() {
    let mut text = String::new();
    for i in 0..40 {
        let _ = write!(
            text,
            "---\napiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: k{i}.example.com}}\nspec:\n  versions:\n  - schema:\n      openAPIV3Schema:\n        properties:\n"
        );
        for field in 0..300 {
            let _ = write!(
                text,
                "          f{field}:\n            description: |-\n              What image: is used here, such as quay.io/a/b:1, and more of the kind.\n            properties: {{image: {{type: string, default: quay.io/a/b:1}}}}\n"
            );
        }
    }
    text.push_str("---\nkind: Deployment\nspec: {containers: [{image: 'quay.io/a/b:1'}]}\n");
    assert!(text.len() > 1_900_000, "{}", text.len());
    let start = Instant::now();
    let out = rewrite(&text, "x.yaml", &relocation("r:5/p", &[("quay.io/a/b:1", "a/b")]), &[], &[]);
    let took = start.elapsed();
    println!("{} bytes in {took:?}", text.len());
    assert_eq!(out.changes.len(), 1);
    assert_eq!(out.text, text.replace("'quay.io/a/b:1'", "'r:5/p/a/b:1'"));
    assert!(took < LIMIT, "{took:?}");
}

#[test]
fn many_references_in_one_string() {
    let lines: String = (0..20_000).map(|i| format!("    {i}=quay.io/a/b:{}\n", i % 7)).collect();
    let json: String = (0..5_000).map(|i| format!("{{\\\"image\\\": \\\"quay.io/a/b:{}\\\"}},", i % 7)).collect();
    let text = format!("data:\n  a: |\n{lines}  b: \"[{}]\"\n", json.trim_end_matches(','));
    let names: Vec<(String, String)> = (0..7).map(|i| (format!("quay.io/a/b:{i}"), "a/b".to_owned())).collect();
    let pairs: Vec<(&str, &str)> = names.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let start = Instant::now();
    let out = rewrite(&text, "x.yaml", &relocation("r:5/p", &pairs), &[], &[]);
    let took = start.elapsed();
    println!("{} bytes in {took:?}", text.len());
    assert_eq!(out.changes.len(), 25_000);
    assert_eq!(out.text, text.replace("quay.io/", "r:5/p/"));
    assert!(took < LIMIT, "{took:?}");
}

#[test]
fn many_keys_in_one_mapping() {
    let keys: String = (0..60_000).map(|i| format!("key{i}: v{i}\n")).collect();
    let text = format!("{keys}image: quay.io/a/b:1\n");
    let start = Instant::now();
    let out = rewrite(&text, "x.yaml", &relocation("r:5/p", &[("quay.io/a/b:1", "a/b")]), &[], &[]);
    let took = start.elapsed();
    println!("{} bytes in {took:?}", text.len());
    assert_eq!(out.text, text.replace("quay.io/", "r:5/p/"));
    assert!(took < LIMIT, "{took:?}");
}
