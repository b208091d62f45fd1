//! Real files with hand-made truth, when that folder is at hand: recall, extras, traps.
#![allow(clippy::expect_used, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

mod common;

use ferry_rewrite::{Confidence, Finding, find, find_list, is_list, rewrite};
use serde_json::Value;

fn corpus() -> Option<PathBuf> {
    let shared = std::env::var_os("FERRY_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let corpus = shared.join("yaml-corpus");
    if corpus.join("truth").is_dir() {
        return Some(corpus);
    }
    skip(&format!("the YAML corpus: {} is not there", corpus.display()));
    None
}

/// Says so, here and in the summary of `scripts/test`.
fn skip(what: &str) {
    use std::io::Write as _;
    eprintln!("SKIP {what}");
    if let Some(log) = std::env::var_os("FERRY_SKIP_LOG") {
        let mut log = std::fs::OpenOptions::new().create(true).append(true).open(log).expect("skip log");
        writeln!(log, "SKIP {what}").expect("skip log");
    }
}

fn json(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|_| "[]".to_owned());
    serde_json::from_str(&text).expect("truth")
}

#[test]
fn every_image_is_found_and_no_trap_is_certain() {
    let Some(corpus) = corpus() else { return };
    let mut names: Vec<String> = std::fs::read_dir(&corpus)
        .expect("corpus")
        .map(|e| e.expect("entry").file_name().into_string().expect("name"))
        .filter(|n| n.contains(".y") || n.ends_with(".txt"))
        .collect();
    names.sort();
    let mut wrong = Vec::new();
    println!("{:<45} {:>5} {:>5} {:>6} {:>5}", "file", "truth", "found", "missed", "extra");
    for name in names {
        let text = std::fs::read_to_string(corpus.join(&name)).expect("text");
        let truth = json(&corpus.join("truth").join(format!("{name}.json")));
        let traps = json(&corpus.join("truth").join(format!("{name}.traps.json")));
        let found = if is_list(&name) { find_list(&text) } else { find(&text) };
        for refused in &found.refused {
            wrong.push(format!("{name}:{}: refused: {}", refused.line, refused.reason));
        }
        let required: Vec<&Value> =
            truth.iter().filter(|t| !t["resolved"].is_null() && t["optional"] != Value::Bool(true)).collect();
        let fits = |t: &Value, f: &Finding| {
            f.path == t["path"].as_str().expect("path")
                && f.reference.as_ref().map(ToString::to_string).as_deref() == t["resolved"].as_str()
        };
        let mut missed = 0;
        for t in &required {
            match found.findings.iter().find(|f| fits(t, f)) {
                None => {
                    missed += 1;
                    wrong.push(format!("{name}: missed {} {}", t["path"], t["resolved"]));
                }
                Some(f) if t["line"].as_u64() != Some(f.line as u64) => {
                    wrong.push(format!("{name}: {} at line {}, truth {}", f.path, f.line, t["line"]));
                }
                Some(_) => {}
            }
        }
        let extra: Vec<&Finding> = found
            .findings
            .iter()
            .filter(|f| f.confidence != Confidence::Unresolvable)
            .filter(|f| !truth.iter().any(|t| f.path == t["path"].as_str().expect("path")))
            .collect();
        for f in &extra {
            println!("  extra {}:{} {} {:?} {:?}", name, f.line, f.path, f.value, f.confidence);
            if f.confidence == Confidence::Certain {
                wrong.push(format!("{name}:{}: certain, but not in the truth: {} {}", f.line, f.path, f.value));
            }
        }
        for trap in &traps {
            let path = trap["path"].as_str().expect("path");
            if found.findings.iter().any(|f| f.path == path && f.confidence != Confidence::Unresolvable) {
                wrong.push(format!("{name}: trap {path}"));
            }
        }
        println!("{name:<45} {:>5} {:>5} {missed:>6} {:>5}", required.len(), required.len() - missed, extra.len());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn moving_every_image_changes_image_bytes_only() {
    let Some(corpus) = corpus() else { return };
    let mut left = Vec::new();
    for entry in std::fs::read_dir(&corpus).expect("corpus") {
        let path = entry.expect("entry").path();
        let name = path.file_name().expect("name").to_string_lossy().into_owned();
        if path.is_dir() || name == "INDEX.tsv" {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("text");
        let found = if is_list(&name) { find_list(&text) } else { find(&text) };
        let mut images: Vec<(String, String)> = found
            .findings
            .iter()
            .filter_map(|f| f.reference.as_ref())
            .map(|r| (r.to_string(), r.path().to_owned()))
            .collect();
        images.sort();
        images.dedup();
        let pairs: Vec<(&str, &str)> = images.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let relocation = common::relocation("reg.example:5000/mirror", &pairs);
        let out = rewrite(&text, &name, &relocation, &[], &[]);
        left.extend(
            out.uncarried
                .iter()
                .filter(|f| f.reference.is_some())
                .map(|f| format!("{name}: {} {:?}", f.path, f.reason)),
        );
        left.extend(out.refused.iter().map(|r| format!("{name}:{} {}", r.line, r.reason)));
        let lines: Vec<(&str, &str)> = text.split('\n').zip(out.text.split('\n')).filter(|(a, b)| a != b).collect();
        let added = out.text.split('\n').count() - text.split('\n').count();
        assert_eq!(added, 0, "{name}");
        assert_eq!(lines.is_empty(), images.is_empty(), "{name}");
        for (old, new) in lines {
            assert!(
                new.contains("reg.example:5000") || new.contains("mirror/") || new.contains("sha256:"),
                "{name}: {old:?} {new:?}"
            );
        }
        let again = rewrite(&out.text, &name, &relocation, &[], &[]);
        assert_eq!(again.text, out.text, "{name}: a second run");
        assert!(again.changes.is_empty(), "{name}: {:?}", again.changes);
    }
    assert!(left.is_empty(), "{}", left.join("\n"));
}

/// A python3 that has PyYAML: that of the system, or another one.
fn python() -> Option<&'static str> {
    let has_yaml = |program: &&str| {
        Command::new(program).args(["-c", "import yaml"]).output().is_ok_and(|out| out.status.success())
    };
    ["/usr/bin/python3", "python3"].into_iter().find(has_yaml)
}

/// Another reader of YAML, which shares no code with the engine: the events of two texts in step, and the scalars that differ.
const OTHER_READER: &str = r"
import json, sys, yaml
old, new = json.load(sys.stdin)
differ, old, new = [], list(yaml.parse(old)), list(yaml.parse(new))
assert len(old) == len(new), 'another number of events'
for a, b in zip(old, new):
    assert type(a) is type(b), (a, b)
    for name in ('anchor', 'tag', 'flow_style', 'style'):
        assert getattr(a, name, None) == getattr(b, name, None), (name, a, b)
    if isinstance(a, yaml.ScalarEvent) and a.value != b.value:
        differ.append([a.value, b.value])
json.dump(differ, sys.stdout)
";

fn other_reader(old: &str, new: &str) -> Option<Vec<(String, String)>> {
    use std::io::Write as _;
    let mut child =
        Command::new(python()?).args(["-c", OTHER_READER]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
    let texts = serde_json::to_vec(&[old.trim_start_matches('\u{feff}'), new.trim_start_matches('\u{feff}')]);
    child.stdin.take()?.write_all(&texts.expect("texts")).ok()?;
    let out = child.wait_with_output().expect("python3");
    assert!(out.status.success(), "another reader sees more than changed values");
    Some(serde_json::from_slice(&out.stdout).expect("answer"))
}

#[test]
fn another_reader_sees_the_same_with_those_scalars_replaced() {
    let Some(corpus) = corpus() else { return };
    if python().is_none() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "python3 with its yaml module is not there");
        skip("another_reader_sees_the_same: needs python3 with its yaml module");
        return;
    }
    let mut files = 0;
    for entry in std::fs::read_dir(&corpus).expect("corpus") {
        let path = entry.expect("entry").path();
        let name = path.file_name().expect("name").to_string_lossy().into_owned();
        if !name.ends_with(".yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("text");
        let images: Vec<(String, String)> = find(&text)
            .findings
            .iter()
            .filter_map(|f| f.reference.as_ref())
            .map(|r| (r.to_string(), r.path().to_owned()))
            .collect();
        let pairs: Vec<(&str, &str)> = images.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let out = rewrite(&text, &name, &common::relocation("reg.example:5000/mirror", &pairs), &[], &[]);
        let Some(differ) = other_reader(&text, &out.text) else { return };
        files += 1;
        assert_eq!(differ.is_empty(), out.changes.is_empty(), "{name}");
        // each scalar that differs is what a change says, whole, as a piece of it, or inside a longer string
        for (old, new) in &differ {
            let piece = |change: &ferry_rewrite::Change| {
                change.before.contains(old.trim()) && change.after.contains(new.trim())
            };
            let inside = |text: String, change: &ferry_rewrite::Change| text.replace(&change.before, &change.after);
            let replaced = out.changes.iter().fold(old.clone(), inside);
            assert!(&replaced == new || out.changes.iter().any(piece), "{name}: {old:?} became {new:?}");
        }
    }
    assert!(files > 15, "{files} files");
}
