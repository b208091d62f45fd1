//! `set:` rules: where each one aims, which findings it makes moot, and carrying it out.

use std::collections::HashMap;

use ferry_image::{Form, Reference, Relocation, SetRule, rules::glob};
use serde::Serialize;

use crate::finding::Finding;
use crate::insert::at_path;
use crate::rewrite::{Change, Rewritten};
use crate::shapes::push_key;
use crate::splice::apply;
use crate::tree::{self, Document, Kind, NodeId, Stream};

/// A rule that did nothing in a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unmet {
    /// The rule's place among those given, from 0.
    pub rule: usize,
    /// Why.
    pub why: Why,
}

/// Why a rule did nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// No document here fits its `file` and `kind`. Other files may have one.
    NoDocument,
    /// Its image is not carried.
    NotCarried,
    /// The document cannot take it.
    Refused {
        /// 1-based.
        line: usize,
        /// What is in the way.
        reason: String,
    },
}

/// Where the rules point in one text.
pub(crate) struct Aims {
    aims: Vec<Aim>,
    rules: usize,
    not_carried: Vec<usize>,
    /// Rules whose paths cannot be read.
    unreadable: Vec<(usize, String)>,
}

struct Aim {
    rule: usize,
    /// An index into the parsed documents; none for a text without any.
    document: Option<usize>,
    line: usize,
    keys: Vec<String>,
    /// `$…` of the place itself.
    path: String,
    /// `$…` of the values it writes.
    leaves: Vec<String>,
    whole: bool,
}

impl Aims {
    /// Whether a rule writes over what was found.
    pub(crate) fn cover(&self, finding: &Finding) -> bool {
        self.aims.iter().filter(|aim| aim.document == Some(finding.document)).any(|aim| {
            let below = |path: &str| {
                path.strip_prefix(&aim.path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[', ':']))
            };
            if aim.whole {
                return below(&finding.path);
            }
            let written = |path: &String| aim.leaves.contains(path);
            finding.parts.iter().any(|p| written(&p.path)) || finding.path == aim.path || written(&finding.path)
        })
    }
}

/// Finds where each rule points. `carried` says whether a rule's image will be written.
pub(crate) fn aims(stream: &Stream, file_name: &str, rules: &[SetRule], carried: &dyn Fn(&SetRule) -> bool) -> Aims {
    let mut out = Aims { aims: Vec::new(), rules: rules.len(), not_carried: Vec::new(), unreadable: Vec::new() };
    let base = file_name.rsplit(['/', '\\']).next().unwrap_or(file_name);
    for (i, rule) in rules.iter().enumerate() {
        if rule.file.as_deref().is_some_and(|pattern| !glob(pattern, base)) {
            continue;
        }
        if !carried(rule) {
            out.not_carried.push(i);
            continue;
        }
        let paths: Result<Vec<Vec<String>>, String> = rule.paths.iter().map(|p| keys(p)).collect();
        let paths = match paths {
            Ok(paths) if !paths.is_empty() => paths,
            Ok(_) => {
                out.unreadable.push((i, "the rule names no path".to_owned()));
                continue;
            }
            Err(why) => {
                out.unreadable.push((i, why));
                continue;
            }
        };
        if stream.count == 0 && stream.refused.is_empty() && rule.kind.is_none() {
            out.aims.push(Aim::new(i, rule, None, 1, "$", paths[0].clone()));
        }
        for (d, document) in stream.documents.iter().enumerate() {
            let fits = match &rule.kind {
                Some(kind) => document.kind() == Some(kind),
                None => {
                    (!document.is_empty() || stream.count == 1) && document.kind() != Some("CustomResourceDefinition")
                }
            };
            if !fits {
                continue;
            }
            let keys = paths.iter().find(|keys| exists(document, keys)).unwrap_or(&paths[0]).clone();
            let prefix = if stream.count > 1 { format!("#{}$", document.index) } else { "$".to_owned() };
            out.aims.push(Aim::new(i, rule, Some(d), document.line, &prefix, keys));
        }
    }
    out
}

impl Aim {
    fn new(rule: usize, what: &SetRule, document: Option<usize>, line: usize, prefix: &str, keys: Vec<String>) -> Self {
        let path = path_text(prefix, keys.iter().map(String::as_str));
        let leaves = names(what.form).iter().map(|name| path_text(&path, [*name].into_iter())).collect();
        Self { rule, document, line, keys, path, leaves, whole: what.form == Form::Whole }
    }
}

fn path_text<'a>(prefix: &str, keys: impl Iterator<Item = &'a str>) -> String {
    let mut text = prefix.to_owned();
    let mut above = "";
    for key in keys {
        push_key(&mut text, key, above == "annotations");
        above = key;
    }
    text
}

/// The keys that a form writes below its path.
fn names(form: Form) -> &'static [&'static str] {
    match form {
        Form::Whole => &[],
        Form::ImageTag => &["image", "imageTag"],
        Form::Tag => &["image", "tag"],
        Form::RepositoryTag => &["repository", "tag"],
        Form::RegistryRepositoryTag => &["registry", "repository", "tag"],
    }
}

/// All rules, for a text that rules do not apply to.
pub(crate) fn none_met(rules: &[SetRule]) -> Vec<Unmet> {
    (0..rules.len()).map(|rule| Unmet { rule, why: Why::NoDocument }).collect()
}

/// Splits `a.b."c.d"`. Nothing, or `.` alone, is the root.
fn keys(path: &str) -> Result<Vec<String>, String> {
    let mut keys = Vec::new();
    let mut rest = path.strip_prefix("$.").unwrap_or(path);
    if matches!(rest, "" | "." | "$") {
        return Ok(keys);
    }
    loop {
        let (key, after) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let (key, after) = quoted.split_once('"').ok_or_else(|| format!("`{path}` has an open quote"))?;
                (key, after)
            }
            None => rest.split_at(rest.find('.').unwrap_or(rest.len())),
        };
        if key.is_empty() {
            return Err(format!("`{path}` has an empty key"));
        }
        keys.push(key.to_owned());
        rest = match after.strip_prefix('.') {
            Some(rest) => rest,
            None if after.is_empty() => return Ok(keys),
            None => return Err(format!("`{path}` has something after a quote")),
        };
    }
}

/// The node at a path of keys, aliases followed.
fn node_at(document: &Document, keys: &[String]) -> Option<NodeId> {
    keys.iter().try_fold(document.root, |id, key| document.entry(document.resolve(id), key))
}

fn exists(document: &Document, keys: &[String]) -> bool {
    node_at(document, keys).is_some()
}

/// Carries the rules out on the text as rewritten so far.
pub(crate) fn run(relocation: &Relocation, rules: &[SetRule], aims: &Aims, out: &mut Rewritten) {
    let mut met = vec![false; aims.rules];
    let mut refused: Vec<(usize, usize, String)> = Vec::new();
    let stream = if aims.aims.is_empty() { Stream::default() } else { tree::parse(&out.text) };
    // from the last document to the first, so that ranges stay good
    let mut by_document: HashMap<Option<usize>, Vec<&Aim>> = HashMap::new();
    for aim in &aims.aims {
        by_document.entry(aim.document).or_default().push(aim);
    }
    let mut order: Vec<_> = by_document.into_iter().collect();
    order.sort_by_key(|(document, _)| std::cmp::Reverse(*document));
    for (document, aims) in order {
        let range = match document {
            None => 0..out.text.len(),
            Some(d) => match stream.documents.get(d) {
                Some(document) => document.range.clone(),
                None => continue,
            },
        };
        let mut body = out.text[range.clone()].to_owned();
        for aim in aims {
            let rule = &rules[aim.rule];
            let Some(image) = relocation.lookup(&rule.image) else { continue };
            let new = relocation.replacement(image, &rule.image).map_err(|e| e.to_string());
            match new.and_then(|new| write(&body, aim, rule, &new)) {
                Ok((edited, changes)) => {
                    met[aim.rule] = true;
                    out.changes.extend(changes);
                    body = edited;
                }
                Err(reason) => refused.push((aim.rule, aim.line, reason)),
            }
        }
        out.text.replace_range(range, &body);
    }
    for (rule, met) in met.into_iter().enumerate() {
        if let Some((_, why)) = aims.unreadable.iter().find(|(r, _)| *r == rule) {
            out.unmet.push(Unmet { rule, why: Why::Refused { line: 1, reason: why.clone() } });
        } else if aims.not_carried.contains(&rule) {
            out.unmet.push(Unmet { rule, why: Why::NotCarried });
        } else if let Some((_, line, reason)) = refused.iter().find(|(r, ..)| *r == rule) {
            out.unmet.push(Unmet { rule, why: Why::Refused { line: *line, reason: reason.clone() } });
        } else if !met {
            out.unmet.push(Unmet { rule, why: Why::NoDocument });
        }
    }
}

/// Writes one rule into one document's text.
fn write(body: &str, aim: &Aim, rule: &SetRule, new: &Reference) -> Result<(String, Vec<Change>), String> {
    let mut text = body.to_owned();
    let mut changes = Vec::new();
    for (key, value) in leaves(body, aim, rule.form, new)? {
        let keys: Vec<&str> = aim.keys.iter().map(String::as_str).chain(key).collect();
        let path = path_text(&aim.path, key.into_iter());
        if let Some((edited, before)) = leaf(&text, &keys, &value)? {
            text = edited;
            changes.push(Change { line: aim.line, path, before, after: value });
        }
    }
    Ok((text, changes))
}

type Leaf = (Option<&'static str>, String);

/// The values that a rule writes, by key below its path.
fn leaves(body: &str, aim: &Aim, form: Form, new: &Reference) -> Result<Vec<Leaf>, String> {
    let repository = format!("{}/{}", new.host(), new.path());
    if form == Form::Whole {
        return Ok(vec![(None, new.written().to_owned())]);
    }
    if !new.has_written_tag() {
        return Err(format!("`{new}` has no tag, and this form has no place for a digest alone"));
    }
    let mut tag = new.tag().unwrap_or_default().to_owned();
    let mut out: Vec<Leaf> = match form {
        Form::RegistryRepositoryTag => {
            vec![(Some("registry"), new.host().to_owned()), (Some("repository"), new.path().to_owned())]
        }
        Form::RepositoryTag => vec![(Some("repository"), repository)],
        _ => vec![(Some("image"), repository)],
    };
    let old_digest = matches!(form, Form::RegistryRepositoryTag | Form::RepositoryTag) && has_digest(body, aim);
    match new.digest() {
        // a digest that stands beside the tag would win over it
        Some(digest) if old_digest => out.push((Some("digest"), digest.to_string())),
        Some(digest) => tag = format!("{tag}@{digest}"),
        None if old_digest => out.push((Some("digest"), String::new())),
        None => {}
    }
    let tag_key = if form == Form::ImageTag { "imageTag" } else { "tag" };
    out.push((Some(tag_key), tag));
    Ok(out)
}

fn has_digest(body: &str, aim: &Aim) -> bool {
    let stream = tree::parse(body);
    let Some(document) = stream.documents.first() else { return false };
    node_at(document, &aim.keys)
        .and_then(|id| document.entry(document.resolve(id), "digest"))
        .and_then(|id| document.text(id))
        .is_some_and(|text| !text.is_empty())
}

/// Writes one value, reads the result back, and compares everything else.
fn leaf(text: &str, keys: &[&str], value: &str) -> Result<Option<(String, String)>, String> {
    let mut stream = tree::parse(text);
    let document = match (stream.documents.pop(), stream.count) {
        (Some(document), 1) => document,
        (None, 0) => return Ok(Some((new_text(text, keys, value)?, String::new()))),
        _ => return Err("the document does not stand for itself".to_owned()),
    };
    let Some((splice, before)) = at_path(text, &document, keys, value)? else { return Ok(None) };
    let edited = apply(text, &mut [splice]);
    let again = tree::parse(&edited);
    let good = match again.documents.as_slice() {
        [new] if again.count == 1 => only_this_changed(&document, new, keys, value),
        _ => false,
    };
    if good { Ok(Some((edited, before))) } else { Err("the edited text did not read back as meant".to_owned()) }
}

/// A text without any document.
fn new_text(text: &str, keys: &[&str], value: &str) -> Result<String, String> {
    let eol = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let gap = if text.is_empty() || text.ends_with('\n') || text == "\u{feff}" { "" } else { eol };
    let seed = format!("{text}{gap}---{eol}");
    let stream = tree::parse(&seed);
    let document = stream.documents.first().ok_or("the text cannot take a key")?;
    let (splice, _) = at_path(&seed, document, keys, value)?.ok_or("the text cannot take a key")?;
    let edited = apply(&seed, &mut [splice]);
    let start = text.len() + gap.len();
    let edited = format!("{}{}", &edited[..start], &edited[start + 3 + eol.len()..]);
    let again = tree::parse(&edited);
    match again.documents.as_slice() {
        [document] if node_at_text(document, keys) == Some(value) => Ok(edited),
        _ => Err("the text cannot take a key".to_owned()),
    }
}

fn node_at_text<'a>(document: &'a Document, keys: &[&str]) -> Option<&'a str> {
    let id = keys.iter().try_fold(document.root, |id, key| document.entry(id, key))?;
    document.scalar(id)
}

/// Compares all scalars but the one at `keys`, and what had to give way above it.
fn only_this_changed(old: &Document, new: &Document, keys: &[&str], value: &str) -> bool {
    node_at_text(new, keys) == Some(value) && flatten(old, keys) == flatten(new, keys)
}

/// Every scalar, alias and empty collection in order, with its path; the place at `keys` and empty ones above it left out.
fn flatten(document: &Document, keys: &[&str]) -> Vec<(String, String)> {
    fn go(d: &Document, id: NodeId, path: &mut String, on: Option<&[&str]>, out: &mut Vec<(String, String)>) {
        let leaf = |out: &mut Vec<(String, String)>, text: String| {
            if on.is_none() {
                out.push((path.clone(), text));
            }
        };
        match &d.nodes[id].kind {
            Kind::Scalar { value, style, .. } => {
                // an empty value on the way gives way to a mapping
                leaf(out, format!("{style:?} {value}"));
            }
            Kind::Alias { target } => {
                let anchor = d.nodes[..*target].iter().filter(|n| n.anchored).count();
                leaf(out, format!("alias of anchor {anchor}"));
            }
            Kind::Sequence { items, .. } if items.is_empty() => leaf(out, "[]".to_owned()),
            Kind::Mapping { entries, .. } if entries.is_empty() => leaf(out, "{}".to_owned()),
            Kind::Sequence { items, .. } => {
                for (i, item) in items.iter().enumerate() {
                    let length = path.len();
                    path.push_str(&format!("[{i}]"));
                    go(d, *item, path, None, out);
                    path.truncate(length);
                }
            }
            Kind::Mapping { entries, .. } => {
                for (key, value) in entries {
                    let name = d.scalar(*key).unwrap_or("?");
                    let on = on.and_then(|keys| keys.split_first()).and_then(|(k, rest)| (*k == name).then_some(rest));
                    let length = path.len();
                    push_key(path, name, false);
                    go(d, *value, path, on, out);
                    path.truncate(length);
                }
            }
        }
    }
    let mut out = Vec::new();
    go(document, document.root, &mut String::from("$"), Some(keys), &mut out);
    out
}
