//! Generated documents: only image values change, a second run changes nothing, nothing panics.
#![allow(clippy::expect_used)]

mod common;

use common::{relocation, rule};
use ferry_image::Form;
use ferry_rewrite::{find, find_list, rewrite};
use proptest::prelude::*;

/// Lines that make up documents, each whole and at its own indentation level. `IMG` stands for an image.
fn line() -> impl Strategy<Value = String> {
    let image = prop_oneof!["IMG1", "IMG2", "IMG3"];
    let quote = prop_oneof![Just(""), Just("'"), Just("\"")];
    let comment = prop_oneof![Just(""), Just(" # image: quay.io/a/one:1.5"), Just("   ")];
    (0..12u8, image, quote, comment, "[a-z]{1,6}").prop_map(|(kind, image, quote, comment, word)| {
        let value = format!("{quote}{image}{quote}{comment}");
        match kind {
            0 => format!("image: {value}"),
            1 => format!("x:\n  - image: {value}\n    name: {word}"),
            2 => format!("env:\n- name: {}_IMAGE\n  value: {value}", word.to_uppercase()),
            3 => format!("args: [\"--x={image}\", {word}]{comment}"),
            4 => format!("text: |\n  image: {image}\n  {word}: 1\n"),
            5 => format!("json: '{{\"image\": \"{image}\", \"n\": 1}}'"),
            6 => format!("{word}: é{word} ü"),
            7 => format!("{word}: {value}"),
            8 => format!("# {image}"),
            9 => format!("block: >+\n  {word}\n\n"),
            10 => format!("flow: {{a: [{word}, {{image: {quote}{image}{quote}}}], b: \"\\n\"}}"),
            _ => format!("img:\n  image: &{word} {value}\n  again: *{word}"),
        }
    })
}

fn document() -> impl Strategy<Value = String> {
    prop::collection::vec(line(), 0..6).prop_map(|lines| {
        // keys must be unique in a mapping
        lines.iter().enumerate().fold(String::new(), |text, (i, line)| {
            if line.starts_with('#') { format!("{text}{line}\n") } else { format!("{text}k{i}:\n{}\n", indent(line)) }
        })
    })
}

fn indent(text: &str) -> String {
    text.split('\n').map(|l| if l.is_empty() { l.to_owned() } else { format!("   {l}") }).collect::<Vec<_>>().join("\n")
}

const OLD: [&str; 3] = ["quay.io/a/one:1.5", "reg.example:5000/two:v2", "docker.io/library/three:3"];
const NEW: [&str; 3] = ["r:5/p/one:1.5", "r:5/p/two:v2", "r:5/p/three:3"];

/// Fills images in everywhere but in comments, where the old one stays.
fn fill(template: &str, images: [&str; 3]) -> String {
    let mut out = String::new();
    for line in template.split_inclusive('\n') {
        let comment = line.trim_start_matches('\u{feff}').trim_start().starts_with('#');
        let images = if comment { OLD } else { images };
        out.push_str(&line.replace("IMG1", images[0]).replace("IMG2", images[1]).replace("IMG3", images[2]));
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn only_image_values_change(
        documents in prop::collection::vec(document(), 1..4),
        crlf: bool, mark: bool, end: bool,
    ) {
        let mut template = documents.join("---\n");
        if !end {
            template.truncate(template.trim_end().len());
        }
        if crlf {
            template = template.replace('\n', "\r\n");
        }
        if mark {
            template.insert(0, '\u{feff}');
        }
        let relocation = relocation("r:5/p", &[(OLD[0], "one"), (OLD[1], "two"), (OLD[2], "three")]);
        let before = fill(&template, OLD);
        let out = rewrite(&before, "x.yaml", &relocation, &[], &[]);
        prop_assert_eq!(&out.refused, &[]);
        prop_assert_eq!(out.uncarried.len(), 0);
        prop_assert_eq!(&out.text, &fill(&template, NEW));
        let again = rewrite(&out.text, "x.yaml", &relocation, &[], &[]);
        prop_assert_eq!(&again.text, &out.text);
        prop_assert_eq!(again.changes, []);
    }

    #[test]
    fn rules_keep_every_other_line(body in document(), deep: bool, crlf: bool) {
        let mut before = fill(&body, NEW);
        if crlf {
            before = before.replace('\n', "\r\n");
        }
        let relocation = relocation("r:5/p", &[(OLD[0], "one")]);
        let rules = [rule(&[if deep { "zz.a.b" } else { "zz" }], Form::RegistryRepositoryTag, OLD[0])];
        let out = rewrite(&before, "x.yaml", &relocation, &rules, &[]);
        prop_assert_eq!(&out.unmet, &[]);
        let mut rest = out.text.lines();
        for line in before.lines() {
            prop_assert!(rest.any(|l| l == line), "{} is gone:\n{}", line, out.text);
        }
        let again = rewrite(&out.text, "x.yaml", &relocation, &rules, &[]);
        prop_assert_eq!(again.text, out.text);
    }

    #[test]
    fn no_text_panics(text in "(\\PC|[\\n\\r\\t:#\\-\\[\\]{}&*|>'\"$ ]){0,120}") {
        let relocation = relocation("r:5/p", &[(OLD[0], "one"), ("a", "a")]);
        let rules = [rule(&["a.b"], Form::ImageTag, OLD[0])];
        let _ = find(&text);
        let _ = find_list(&text);
        let _ = rewrite(&text, "x.yaml", &relocation, &rules, &[]);
        let _ = rewrite(&text, "x.txt", &relocation, &rules, &[]);
    }

    #[test]
    fn no_yaml_like_text_panics(
        parts in prop::collection::vec(prop_oneof![
            Just("image"), Just(": "), Just("\n"), Just("  "), Just("- "), Just("a/b:1"), Just("{"), Just("}"), Just("["),
            Just("]"), Just(","), Just("|\n"), Just("&a "), Just("*a"), Just("\""), Just("'"), Just("${X:-"), Just("tag"),
            Just("repository"), Just("---\n"), Just("é"), Just("args"), Just("images"), Just("name"), Just("newTag"),
            Just("\\"), Just("\u{feff}"), Just("\r\n"), Just("#"), Just("<<"), Just("? "), Just("!!str "), Just("=")
        ], 0..60)
    ) {
        let text = parts.concat();
        let relocation = relocation("r:5/p", &[("a/b:1", "one"), ("image", "image"), ("name", "n")]);
        let rules = [rule(&["image.tag"], Form::ImageTag, "a/b:1")];
        let out = rewrite(&text, "x.yaml", &relocation, &rules, &[]);
        let again = rewrite(&out.text, "x.yaml", &relocation, &rules, &[]);
        prop_assert_eq!(again.text, out.text);
    }
}
