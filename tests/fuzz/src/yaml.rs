//! The user's YAML: found, rewritten, and rewritten again.

use ferry_image::{Digest, Form, Ignore, Reference, Relocated, Relocation, SetRule};
use ferry_rewrite::emit::{self, Options};
use ferry_rewrite::{Found, Rewritten, Why, check, find, find_list, rewrite};

const TARGET: &str = "r.example:5000/p";

/// A rewriting of everything that is found reads back as meant, and the second one changes nothing.
pub fn yaml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for (name, found) in [("x.yaml", find(text)), ("x.txt", find_list(text))] {
        in_place(text, &found);
        let relocation = everything(&found);
        let out = twice(text, name, &relocation, &[]);
        overridden(text, name, &out.text, &relocation);
        let known = |reference: &Reference| found.findings.iter().any(|f| f.reference.as_ref() == Some(reference));
        // the near side's gate says the same as the far side, for what is not carried at all
        let gate = check(text, name, &known, &[], &[]);
        assert!(gate.uncarried.iter().all(|f| f.reference.is_none()));
        let ignore = [Ignore { image: "*".to_owned(), reason: "all".to_owned() }];
        let gate = check(text, name, &|_| false, &[], &ignore);
        assert!(gate.uncarried.iter().all(|f| f.reference.is_none()));
        assert_eq!(gate.refused, found.refused);
        assert!(out.unmet.is_empty());
    }
}

/// The first line is a form and a path, the rest is the text that a `set:` rule is carried out on.
pub fn set(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (rule, text) = text.split_once('\n').unwrap_or((text, ""));
    let (form, path) = rule.split_once(' ').unwrap_or(("whole", rule));
    let Ok(form) = serde_json::from_value::<Form>(form.into()) else { return };
    let image: Reference = "quay.io/rule/image:1.5".parse().expect("reference");
    let paths = path.split('|').map(str::to_owned).collect();
    let rule = SetRule { file: None, kind: None, paths, form, image: image.clone() };
    let mut relocation = everything(&find(text));
    relocation.images.retain(|i| i.reference != image);
    relocation.images.push(relocated(&image));
    let out = twice(text, "x.yaml", &relocation, std::slice::from_ref(&rule));
    if out.unmet.is_empty() {
        // the first time it was carried out in full: nothing of it is left to do, and nothing of it is in the way
        let again = rewrite(&out.text, "x.yaml", &relocation, &[rule], &[]);
        assert_eq!(again.unmet, []);
    } else {
        assert!(!out.unmet.iter().any(|unmet| unmet.why == Why::NotCarried));
    }
}

/// An override of values is YAML again, and is there only where something was rewritten.
fn overridden(before: &str, name: &str, after: &str, relocation: &Relocation) {
    let texts = [emit::Text { name, before, after, around: &ferry_rewrite::Around::default(), chart: None }];
    let emitted = emit::emit(emit::Form::HelmValues, relocation, &Options::default(), &texts);
    for file in emitted.files {
        assert!(before != after);
        let found = find(&file.text);
        assert!(found.refused.is_empty(), "{:?}", found.refused);
    }
}

/// Where the findings are said to stand.
fn in_place(text: &str, found: &Found) {
    // YAML ends lines at carriage returns too
    let lines = text.replace("\r\n", "\n").split(['\n', '\r']).count();
    assert!(found.findings.is_sorted_by_key(|f| f.line));
    for finding in &found.findings {
        assert!((1..=lines).contains(&finding.line), "{finding:?}");
        assert!(finding.reference.is_some() || finding.reason.is_some(), "{finding:?}");
    }
    for refused in &found.refused {
        assert!((1..=lines).contains(&refused.line) && !refused.reason.is_empty(), "{refused:?}");
    }
}

fn twice(text: &str, name: &str, relocation: &Relocation, rules: &[SetRule]) -> Rewritten {
    let out = rewrite(text, name, relocation, rules, &[]);
    if out.changes.is_empty() {
        assert_eq!(out.text, text);
    }
    let again = rewrite(&out.text, name, relocation, rules, &[]);
    assert_eq!(again.text, out.text, "a second run; changes of the first: {:?}", out.changes);
    assert_eq!(again.changes, []);
    out
}

/// Carries every reference that was found.
fn everything(found: &Found) -> Relocation {
    let mut relocation = Relocation::new(&TARGET.parse().expect("target"));
    let mut references: Vec<&Reference> = found.findings.iter().filter_map(|f| f.reference.as_ref()).collect();
    references.sort();
    references.dedup();
    relocation.images.extend(references.into_iter().map(relocated));
    relocation
}

fn relocated(reference: &Reference) -> Relocated {
    Relocated {
        reference: reference.clone(),
        repository: format!("{TARGET}/{}", reference.name()),
        tag: reference.tag().map(str::to_owned),
        source_digest: reference.digest().cloned().unwrap_or_else(|| Digest::of(b"source")),
        digest: Digest::of(b"target"),
    }
}
