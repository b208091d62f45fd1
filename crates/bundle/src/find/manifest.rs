//! A bundle manifest of what was found, for a person to read through and for `ferry bundle` to take as it is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Component, Path, PathBuf};

use ferry_rewrite::Confidence;

use super::{Item, Report};

/// The most places that are named for one image.
const MAX_PLACES: usize = 5;

/// What the user decides.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The bundle's name where no chart has one.
    pub name: String,
    /// `platforms:`, checked.
    pub platforms: Vec<String>,
    /// The folder that the bundle manifest will stand in, absolute.
    pub folder: PathBuf,
    /// The folder that relative inputs are taken from, absolute.
    pub current: PathBuf,
}

/// The text of a bundle manifest. Certain images are listed; others stand there as comments, with the reason.
#[must_use]
pub fn print(report: &Report, options: &Options) -> String {
    let mut out = String::from("# Written by `ferry find`. Lines that are commented out are for you to decide.\n");
    let (name, version) = match &report.chart {
        Some((name, version)) if is_label(name) => (name.clone(), version.clone()),
        _ => (label(&options.name), None),
    };
    let _ = writeln!(out, "name: {}", quoted(&name));
    if let Some(version) = version.filter(|version| is_label(version)) {
        let _ = writeln!(out, "version: {}", quoted(&version));
    }
    match options.platforms.as_slice() {
        [] => out.push_str("# platforms: [linux/amd64]   # choose here, or with `ferry bundle --platform`\n"),
        platforms => {
            let platforms: Vec<String> = platforms.iter().map(|p| quoted(p)).collect();
            let _ = writeln!(out, "platforms: [{}]", platforms.join(", "));
        }
    }
    let mut images: BTreeMap<String, Vec<&Item>> = BTreeMap::new();
    for item in &report.items {
        if let Some(reference) = &item.reference {
            images.entry(reference.to_string()).or_default().push(item);
        }
    }
    let sure = |items: &[&Item]| items.iter().any(|item| item.confidence == Confidence::Certain);
    out.push_str("\nimages:\n");
    for (reference, items) in images.iter().filter(|(_, items)| sure(items)) {
        places(&mut out, items);
        let _ = writeln!(out, "  - {}", quoted(reference));
    }
    for (reference, items) in images.iter().filter(|(_, items)| !sure(items)) {
        places(&mut out, items);
        let _ = writeln!(out, "  # {}", because(items[0]));
        let _ = writeln!(out, "  # - {}", quoted(reference));
    }
    let unknown: Vec<&Item> = report.items.iter().filter(|item| item.reference.is_none()).collect();
    if !unknown.is_empty() {
        out.push_str("  # not known, name them yourself if they are needed:\n");
    }
    for item in unknown {
        let _ = writeln!(out, "  #   {}:{} `{}`: {}", plain(&item.file), item.line, plain(&item.value), because(item));
    }
    let yaml: Vec<_> = report.yaml.iter().map(|path| (path, below(path, options))).collect();
    if yaml.iter().any(|(_, below)| below.is_some()) {
        out.push_str("\nyaml:\n");
    } else if !yaml.is_empty() {
        out.push_str("\n# yaml:\n");
    }
    for (path, below) in yaml {
        let _ = match below {
            Some(below) => writeln!(out, "  - {}", quoted(&below)),
            None => writeln!(
                out,
                "  # `{}` is not below the folder of this file: name files and folders that are",
                plain(&path.display().to_string())
            ),
        };
    }
    let mut ignored = BTreeMap::new();
    for (reference, why) in &report.replaced {
        if !images.get(&reference.to_string()).is_some_and(|items| sure(items)) {
            ignored.entry(reference.to_string()).or_insert(why);
        }
    }
    if !ignored.is_empty() {
        out.push_str("\nignore:\n");
    }
    for (reference, why) in ignored {
        let _ = writeln!(out, "  - image: {}\n    reason: {}", quoted(&reference), double(why));
    }
    out
}

fn places(out: &mut String, items: &[&Item]) {
    for item in items.iter().take(MAX_PLACES) {
        let _ = writeln!(out, "  # {}:{}", plain(&item.file), item.line);
    }
    if items.len() > MAX_PLACES {
        let _ = writeln!(out, "  # and {} more places", items.len() - MAX_PLACES);
    }
}

fn because(item: &Item) -> String {
    let word = match item.confidence {
        Confidence::Certain => "certain",
        Confidence::ByValue => "by value",
        Confidence::Computed => "computed",
        Confidence::Unresolvable => "unresolvable",
    };
    format!("{word}: {}", plain(item.reason.as_deref().unwrap_or("it is not said why")))
}

/// An input as a path below the bundle manifest's folder.
fn below(path: &Path, options: &Options) -> Option<String> {
    let mut whole = PathBuf::new();
    for component in options.current.join(path).components() {
        match component {
            Component::ParentDir => drop(whole.pop()),
            Component::CurDir => {}
            other => whole.push(other),
        }
    }
    let rest = whole.strip_prefix(&options.folder).ok().filter(|rest| !rest.as_os_str().is_empty())?;
    let text = rest.to_str()?;
    // the folder that the manifest itself stands in would carry the manifest too
    ferry_archive::member::check_name(&format!("yaml/{text}")).is_ok().then(|| text.to_owned())
}

/// What cannot end a comment.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}') { ' ' } else { c })
        .collect()
}

/// Plain where that is surely read as the same text.
fn quoted(text: &str) -> String {
    let safe = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/' | b':' | b'@' | b'+'))
        && !text.ends_with(':');
    if safe { text.to_owned() } else { double(text) }
}

fn double(text: &str) -> String {
    serde_json::Value::from(plain(text)).to_string()
}

fn is_label(text: &str) -> bool {
    text.len() <= 128
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'+' | b'-'))
}

fn label(text: &str) -> String {
    let text: String = text
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+' | '-') { c } else { '-' })
        .take(128)
        .collect();
    let text = text.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    if text.is_empty() { "images".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use ferry_rewrite::{Shape, find};

    use super::super::From;
    use super::*;
    use crate::manifest::parse;

    #[test]
    fn what_is_written_is_read_again() {
        let text = "a: {image: 'q.io/a:1'}\nb: q.io/b:1\nc: {image: {repository: q.io/c}}\nd: {image: 'q.io/a:1'}\n";
        let mut items: Vec<Item> =
            find(text).findings.into_iter().map(|f| Item::of("v\n- evil: x.yaml", f, From::Source)).collect();
        items.push(Item { reference: "[::1]:5000/x:1".parse().ok(), shape: Shape::Whole, ..items[0].clone() });
        let report = Report {
            items,
            chart: Some(("web".to_owned(), Some("1.10".to_owned()))),
            yaml: vec!["k8s/v.yaml".into(), "../outside.yaml".into(), "./k8s/../w.yaml".into(), ".".into()],
            replaced: vec![("q.io/old:1".parse().expect("reference"), "`k` puts \"x\": y in its place".to_owned())],
            ..Report::default()
        };
        let options = Options {
            name: "x".to_owned(),
            platforms: vec!["linux/amd64".to_owned()],
            folder: "/here".into(),
            current: "/here".into(),
        };
        let written = print(&report, &options);
        let manifest = parse(&written, Path::new("/here/shop.yaml")).expect("a bundle manifest");
        let images: Vec<String> = manifest.images.iter().map(|i| i.reference.to_string()).collect();
        assert_eq!(images, ["[::1]:5000/x:1", "q.io/a:1"], "{written}");
        assert_eq!((manifest.name.as_str(), manifest.version.as_deref()), ("web", Some("1.10")));
        let yaml: Vec<&str> = manifest.yaml.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(yaml, ["k8s/v.yaml", "w.yaml"]);
        assert_eq!(manifest.ignore.len(), 1);
        for path in ["../outside.yaml", "."] {
            assert!(written.contains(&format!("  # `{path}` is not below the folder of this file")), "{written}");
        }
        let alone = print(&Report { yaml: vec![".".into()], ..report }, &options);
        assert!(alone.contains("\n# yaml:\n  # `.` is not below"), "{alone}");
        assert!(parse(&alone, Path::new("/here/shop.yaml")).is_ok(), "{alone}");
        assert!(written.contains("  # by value: only the value looks like an image\n  # - q.io/b:1\n"), "{written}");
        assert!(written.contains("`q.io/c`: unresolvable: "), "{written}");
    }
}
