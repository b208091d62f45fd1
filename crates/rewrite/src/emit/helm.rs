//! Values that override those of a Helm chart: only what rewriting changed, with the other pieces of the same references.
//!
//! `helm … -f VALUES -f OVERRIDE` gives what the rewritten values give. A chart and its sub-charts have one file, for the values of the
//! topmost one: nothing is written that would be taken for the keys of another chart. Some charts refuse images from elsewhere unless a flag says so: that
//! flag is added, and is all that is there beyond the changes.

use std::collections::{BTreeMap, HashSet};
use std::mem::take;

use ferry_image::{Reference, Relocated, Relocation};

use super::member::{Family, Member};
use super::values::{self, Difference, Value};
use super::{Emitted, Form, Text};
use crate::finding::Finding;
use crate::in_document;
use crate::list::is_list;
use crate::shapes;
use crate::tree::{self, Document, Stream};

/// The flag of charts that refuse images they do not know, as keys.
const ALLOW: [&str; 3] = ["global", "security", "allowInsecureImages"];
/// Where the images of such charts come from: their library compares the names.
const GUARDED: [&str; 3] = ["docker.io/bitnami/", "docker.io/bitnamilegacy/", "docker.io/bitnamisecure/"];
/// What a compose file has at its root.
const COMPOSE: [&str; 8] = ["name", "version", "services", "networks", "volumes", "configs", "secrets", "include"];

pub(super) fn emit(relocation: &Relocation, texts: &[Text<'_>]) -> Emitted {
    let mut out = Emitted::new(Form::HelmValues);
    let mut named: HashSet<&Reference> = HashSet::new();
    let mut families: BTreeMap<&str, Family<'_>> = BTreeMap::new();
    for (text, chart) in texts.iter().filter_map(|text| Some((text, text.chart?))) {
        let family = families.entry(&chart.root).or_insert_with(|| Family::new(&chart.texts));
        family.after.insert(&chart.path, text.after);
    }
    let mut files: Vec<Override> = Vec::new();
    for text in texts {
        let Some((here, made)) = overriding(relocation, text) else { continue };
        named.extend(here.iter().map(|image| &image.reference));
        let family = text.chart.and_then(|chart| families.get(chart.root.as_str()));
        let placed = made.and_then(|made| match made {
            Some(mut made) => place(&mut made, text, family).map(|is_any| is_any.then_some(made)),
            None => Ok(None),
        });
        match placed {
            Ok(Some(made)) => match files.iter_mut().find(|file| file.chart.is_some() && file.chart == made.chart) {
                Some(file) => file.take(made),
                None => files.push(made),
            },
            Ok(None) => {}
            Err(why) => {
                for image in here {
                    out.leave(image, format!("`{}` cannot be written as an override: {why}", text.name));
                }
            }
        }
    }
    for file in files {
        out.file(&file.name.clone(), file.document());
    }
    for image in relocation.images.iter().filter(|image| !named.contains(&image.reference)) {
        out.leave(image, "no values that were given name it");
    }
    out
}

/// One file of overriding values.
struct Override {
    name: String,
    /// The chart whose values, and whose sub-charts' values, it overrides; none for values of the user's.
    chart: Option<String>,
    values: Value,
    /// The paths of lists in it.
    lists: Vec<String>,
    /// Whether a chart would refuse its images, and what the text says of that itself.
    is_refused: bool,
    is_allowed: Option<bool>,
}

/// Puts what overrides a sub-chart's values where the topmost chart has them; false where nothing is left of it.
fn place(made: &mut Override, text: &Text<'_>, family: Option<&Family<'_>>) -> Result<bool, String> {
    let (Some(chart), Some(family)) = (text.chart, family) else { return Ok(true) };
    if !chart.is_below() {
        made.chart = (chart.path == "values.yaml").then(|| chart.root.clone());
        return Ok(true);
    }
    let Some(values) = family.lift(&chart.path, &made.values)? else { return Ok(false) };
    let top =
        made.name.strip_suffix(&chart.path).map_or_else(|| "values.yaml".to_owned(), |top| format!("{top}values.yaml"));
    // where a list stands among those of others is seen in the file
    made.lists = made.lists.iter().map(|path| format!("{}: {path}", chart.path)).collect();
    (made.name, made.chart, made.values, made.is_allowed) = (top, Some(chart.root.clone()), values, None);
    Ok(true)
}

impl Override {
    fn take(&mut self, other: Self) {
        self.values.merge(other.values);
        self.lists.extend(other.lists);
        self.is_refused |= other.is_refused;
        self.is_allowed = self.is_allowed.or(other.is_allowed);
    }

    fn document(mut self) -> String {
        if self.is_allowed == Some(false) || (self.is_allowed.is_none() && self.is_refused) {
            values::set(&mut self.values, &ALLOW, "true");
        }
        let base = self.name.rsplit('/').next().unwrap_or(&self.name);
        let mut text = match self.chart {
            Some(_) => {
                "# What differs from the values of the chart and its sub-charts, by ferry: helm … CHART -f this file.\n"
                    .to_owned()
            }
            None => format!("# What differs from {base}, by ferry: helm … -f {base} -f this file.\n"),
        };
        for path in &self.lists {
            text += &format!("# {path} is a list, which Helm replaces as a whole: so all of it stands here.\n");
        }
        text + &values::render(&self.values)
    }
}

/// A text that can be a chart's values, with its only document: one mapping that is neither a resource, nor a kustomization, nor a compose file.
fn values_of(name: &str, text: &str) -> Option<Stream> {
    let base = name.rsplit('/').next().unwrap_or(name);
    if is_list(base) || matches!(base, "kustomization.yaml" | "kustomization.yml" | "Kustomization") {
        return None;
    }
    let stream = tree::parse(text);
    let document = stream.documents.first().filter(|_| stream.count == 1)?;
    let keys: Vec<&str> = document.entries(document.root).iter().filter_map(|(key, _)| document.scalar(*key)).collect();
    let is_compose = keys.contains(&"services") && keys.iter().all(|k| COMPOSE.contains(k) || k.starts_with("x-"));
    (!keys.is_empty() && !keys.contains(&"apiVersion") && !is_compose).then_some(stream)
}

/// Whether `finding` names `image` at the target.
fn is_at(image: &Relocated, finding: &Finding) -> bool {
    finding.reference.as_ref().is_some_and(|found| {
        found.repository() == image.repository
            && match found.digest() {
                Some(digest) => *digest == image.digest,
                None => found.tag() == image.tag.as_deref(),
            }
    })
}

/// The images that a text names, and what overrides its values.
#[allow(clippy::type_complexity, reason = "taken apart at the one place of use")]
fn overriding<'r>(
    relocation: &'r Relocation,
    text: &Text<'_>,
) -> Option<(Vec<&'r Relocated>, Result<Option<Override>, String>)> {
    let (old, new) = (values_of(text.name, text.before)?, values_of(text.name, text.after)?);
    let (before, after) = (old.documents.first()?, new.documents.first()?);
    let was = in_document(text.before, &old, 0, text.around);
    let is = shapes::walk(after, 0, false, 0);
    let mut difference = Difference::new(before, after);
    let first = difference.values();
    let (changed, changed_before) = (take(&mut difference.changed), take(&mut difference.changed_before));
    let moved = |finding: &&Finding| finding.parts.iter().any(|part| changed_before.contains(&part.site));
    let is_here = |image: &&Relocated| {
        let found = was.iter().filter(moved).filter_map(|finding| finding.reference.as_ref());
        is.iter().any(|finding| is_at(image, finding))
            || found.filter_map(|r| relocation.lookup(r)).any(|found| found.reference == image.reference)
    };
    let here: Vec<&Relocated> = relocation.images.iter().filter(is_here).collect();
    let make = || {
        if first?.is_none() {
            return Ok(None);
        }
        // without its other pieces, a piece would be joined with those that the chart has by default; a sub-chart's own are those
        if !text.chart.is_some_and(Member::is_below) {
            let whole = is.iter().filter(|finding| finding.parts.iter().any(|part| changed.contains(&part.site)));
            difference.keep(whole.flat_map(|finding| finding.parts.iter().map(|part| part.site)));
            difference
                .keep_before(was.iter().filter(moved).flat_map(|finding| finding.parts.iter().map(|part| part.site)));
        }
        let Some(values) = difference.values()? else { return Ok(None) };
        let guarded = |image: &&Relocated| GUARDED.iter().any(|from| image.reference.repository().starts_with(from));
        Ok(Some(Override {
            name: file_name(text.name),
            chart: None,
            values,
            lists: take(&mut difference.lists),
            is_refused: here.iter().any(guarded) || allowed(after) == Some(false),
            is_allowed: allowed(after),
        }))
    };
    let made = make();
    Some((here, made))
}

/// What the flag says; none where it does not stand.
fn allowed(document: &Document) -> Option<bool> {
    let step = |id, key: &&str| document.entry(document.resolve(id), key);
    let id = ALLOW.iter().try_fold(document.root, step)?;
    Some(document.scalar(id) == Some("true"))
}

/// Values may be JSON; what is written is not.
fn file_name(name: &str) -> String {
    match name.strip_suffix(".json") {
        Some(stem) => format!("{stem}.yaml"),
        None => name.to_owned(),
    }
}
