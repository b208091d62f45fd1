//! Every use of every chart: its values merged with what goes before them, looked through, and each finding taken home to the file
//! that its name stands in.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::metadata::{Dependency, Metadata};
use super::templates::Templates;
use super::values::{self, Origin, Value};
use super::{Absent, Summary, is_below, join, parent};
use crate::finding::{Confidence, Finding, Inner, NOWHERE, Part, Role};
use crate::shapes::{self, AssumedTag, TagDefault, push_key};
use crate::tree::{self, Document, Kind, Style};

/// The most uses of charts in one tree: a sub-chart may be used under several aliases by each of its users.
const MAX_INSTANCES: usize = 1000;
/// The most values that are looked through in all uses together; the largest charts have some ten thousand.
const MAX_LOOKED_AT: usize = 4 << 20;
/// What is said beyond either.
const TOO_MUCH: &str =
    "some uses of this chart are not looked at: the charts here are used too often, or have too many values";

/// A values file.
struct File<'a> {
    path: String,
    text: &'a str,
    /// Its first document.
    document: Document,
    several: bool,
    /// How many charts stand above the one that it belongs to.
    depth: usize,
    used: bool,
    findings: Vec<Finding>,
}

/// A chart, once, however often it is used.
struct Chart<'a> {
    folder: &'a str,
    metadata: Metadata,
    templates: Templates,
    /// An index into the files.
    values: Option<usize>,
    children: Vec<usize>,
}

/// How a chart is used.
struct Use {
    over: Option<Value>,
    globals: Option<Arc<Value>>,
    /// The keys that lead to it from the values of the topmost chart.
    keys: Vec<String>,
    /// Why it may not be installed.
    off: Option<String>,
}

pub(super) struct Tree<'a> {
    files: Vec<File<'a>>,
    charts: Vec<Chart<'a>>,
    overrides: Vec<usize>,
    left: usize,
    /// Values that may still be looked through.
    values_left: usize,
    /// What was not looked at.
    skipped: Vec<String>,
}

impl<'a> Tree<'a> {
    pub(super) fn new(texts: &BTreeMap<&'a str, &'a str>, folders: &[&'a str], overrides: &[(&str, &'a str)]) -> Self {
        let mut tree = Self {
            files: Vec::new(),
            charts: Vec::new(),
            overrides: Vec::new(),
            left: MAX_INSTANCES,
            values_left: MAX_LOOKED_AT,
            skipped: Vec::new(),
        };
        for folder in folders {
            let of = |name: &str| texts.get(join(folder, name).as_str()).copied();
            let mut metadata = Metadata::of(of("Chart.yaml").unwrap_or_default());
            if let Some(text) = of("requirements.yaml") {
                metadata.require(text);
            }
            let depth = std::iter::successors(parent(folder, folders), |above| parent(above, folders)).count();
            let values = of("values.yaml").and_then(|text| tree.file(join(folder, "values.yaml"), text, depth));
            tree.charts.push(Chart { folder, metadata, templates: Templates::default(), values, children: Vec::new() });
        }
        for (child, folder) in folders.iter().enumerate() {
            let above = parent(folder, folders).and_then(|above| folders.iter().position(|f| *f == above));
            if let Some(above) = above {
                tree.charts[above].children.push(child);
            }
        }
        for (path, text) in texts {
            // the innermost chart: `a/charts/b/templates/x` belongs to `b`
            let of = tree.charts.iter_mut().filter(|chart| is_below(path, &join(chart.folder, "templates")));
            if let Some(chart) = of.max_by_key(|chart| chart.folder.len()) {
                chart.templates.add(text);
            }
        }
        for (path, text) in overrides {
            let file = tree.file((*path).to_owned(), text, 0);
            tree.overrides.extend(file);
        }
        tree
    }

    /// Takes a values file in: Helm reads its first document. One that is no mapping is left to be looked at alone.
    fn file(&mut self, path: String, text: &'a str, depth: usize) -> Option<usize> {
        let mut stream = tree::parse(text);
        if stream.documents.first().is_none_or(|first| first.index != 0 || !is_values(first)) {
            return None;
        }
        let (several, document) = (stream.count > 1, stream.documents.remove(0));
        self.files.push(File { path, text, document, several, depth, used: false, findings: Vec::new() });
        Some(self.files.len() - 1)
    }

    /// Looks through a topmost chart and all below it.
    pub(super) fn root(&mut self, folder: &str) -> (Summary, Vec<Absent>) {
        let Some(chart) = self.charts.iter().position(|chart| chart.folder == folder) else {
            return (Summary { folder: folder.to_owned(), name: None, version: None }, Vec::new());
        };
        let mut over: Option<Value> = None;
        for file in self.overrides.clone() {
            let Some(value) = self.read(file) else { continue };
            over = Some(self.merged(over, Some(&value)).unwrap_or(value));
        }
        let mut absent = Vec::new();
        self.instance(chart, Use { over, globals: None, keys: Vec::new(), off: None }, &mut absent);
        let metadata = &self.charts[chart].metadata;
        let summary =
            Summary { folder: folder.to_owned(), name: metadata.name.clone(), version: metadata.version.clone() };
        (summary, absent)
    }

    /// Every values file that was used, with what it asks for.
    pub(super) fn finish(self) -> impl Iterator<Item = (String, &'a str, Vec<Finding>)> {
        self.files.into_iter().filter(|file| file.used).map(|file| (file.path, file.text, in_order(file.findings)))
    }

    /// What was not looked at, each with its place and why.
    pub(super) fn skipped(&mut self) -> Vec<String> {
        std::mem::take(&mut self.skipped)
    }

    fn skip(&mut self, path: &str, why: &str) {
        let said = format!("{path}: {why}");
        if !self.skipped.contains(&said) {
            self.skipped.push(said);
        }
    }

    fn read(&mut self, file: usize) -> Option<Value> {
        match values::read(&self.files[file].document, file) {
            Ok(value) => {
                self.files[file].used = true;
                Some(value)
            }
            Err(why) => {
                let path = self.files[file].path.clone();
                self.skip(&path, &format!("it is looked at alone, without its chart: {why}"));
                None
            }
        }
    }

    fn merged(&self, own: Option<Value>, over: Option<&Value>) -> Option<Value> {
        let is_null = |origin: Origin| {
            let document = &self.files[origin.file].document;
            document.text(origin.node).is_none()
        };
        match (own, over) {
            (Some(own), Some(over)) => Some(own.coalesce(over, &is_null)),
            (own, over) => own.or_else(|| over.cloned()),
        }
    }

    fn instance(&mut self, chart: usize, used: Use, absent: &mut Vec<Absent>) {
        let Some(left) = self.left.checked_sub(1).filter(|_| self.values_left > 0) else {
            self.skip(&join(self.charts[chart].folder, "Chart.yaml"), TOO_MUCH);
            return;
        };
        self.left = left;
        let own = self.charts[chart].values.and_then(|file| self.read(file));
        let mut values = self.merged(own, used.over.as_ref());
        // `global` of a parent goes before that of a sub-chart
        let own_globals = values.as_mut().and_then(|values| values.take("global"));
        let globals = self.merged(own_globals, used.globals.as_deref()).map(Arc::new);
        if let (Some(Value::Map(entries, _)), Some(globals)) = (&mut values, &globals) {
            entries.push(("global".to_owned(), Value::clone(globals)));
        }
        let mut below = Vec::new();
        for (child, dependency) in self.children(chart, absent) {
            if below.len() > self.left {
                self.skip(&join(self.charts[child].folder, "Chart.yaml"), TOO_MUCH);
                break;
            }
            let off = used.off.clone().or_else(|| self.off(values.as_ref(), &dependency));
            let keys = used.keys.iter().cloned().chain([dependency.key().to_owned()]).collect();
            below.push((child, Use { over: None, globals: globals.clone(), keys, off }));
        }
        for (_, used) in &mut below {
            let key = used.keys.last().map(String::as_str).unwrap_or_default();
            used.over = values.as_mut().and_then(|values| values.take(key));
        }
        if let Some(values) = &values {
            self.look(chart, values, &used);
        }
        for (child, used) in below {
            self.instance(child, used, absent);
        }
    }

    /// The sub-charts of a chart, each as often as it is used: those that it names, then those that only lie in `charts/`.
    fn children(&self, chart: usize, absent: &mut Vec<Absent>) -> Vec<(usize, Dependency)> {
        let chart = &self.charts[chart];
        let name = |child: &usize| self.charts[*child].metadata.name.clone().unwrap_or_default();
        let mut out = Vec::new();
        for dependency in &chart.metadata.dependencies {
            match chart.children.iter().find(|child| name(child) == dependency.name) {
                Some(child) => out.push((*child, dependency.clone())),
                None => {
                    let version = dependency.version.as_ref().map(|v| format!(" {v}")).unwrap_or_default();
                    absent.push(Absent {
                        path: join(chart.folder, "Chart.yaml"),
                        line: dependency.line,
                        name: format!("{}{version}", dependency.name),
                    });
                }
            }
        }
        for child in &chart.children {
            if !out.iter().any(|(known, _)| known == child) {
                out.push((*child, Dependency { name: name(child), ..Dependency::default() }));
            }
        }
        out
    }

    /// Why a sub-chart is switched off by the values, if it is.
    fn off(&self, values: Option<&Value>, dependency: &Dependency) -> Option<String> {
        let flag = |path: &str| {
            let origin = values?.at(path)?.origin();
            let document = &self.files[origin.file].document;
            let on = match document.text(origin.node)? {
                "true" => true,
                "false" => false,
                _ => return None,
            };
            Some((on, format!("{}:{}", self.files[origin.file].path, line(document, origin))))
        };
        let paths = dependency.condition.as_deref().unwrap_or_default().split(',').map(str::trim);
        let conditions: Vec<&str> = paths.filter(|path| !path.is_empty()).collect();
        let said = conditions.iter().find_map(|path| Some((*path, flag(path)?)));
        let (path, (on, place)) = match said {
            Some((path, said)) => (path.to_owned(), said),
            None => {
                let tags = dependency.tags.iter().map(|tag| format!("tags.{tag}"));
                let said: Vec<_> = tags.filter_map(|path| Some((path.clone(), flag(&path)?))).collect();
                if said.iter().any(|(_, (on, _))| *on) {
                    return None;
                }
                said.into_iter().next()?
            }
        };
        (!on).then(|| format!("the sub-chart `{}` is off: `{path}` is false ({place})", dependency.key()))
    }

    fn look(&mut self, chart: usize, values: &Value, used: &Use) {
        let documents: Vec<&Document> = self.files.iter().map(|file| &file.document).collect();
        let (document, origins) = values::document(values, &documents);
        let found = shapes::walk_values(&document, 0, false, 0, Some(&self.charts[chart]));
        self.values_left = self.values_left.saturating_sub(document.nodes.len());
        for finding in found {
            if let Some((home, finding)) = self.home(finding, &origins, used) {
                self.files[home].findings.push(finding);
            }
        }
    }

    /// Takes a finding of merged values to the file that its name stands in.
    fn home(&self, mut finding: Finding, origins: &[Option<Origin>], used: &Use) -> Option<(usize, Finding)> {
        let site = origins.get(finding.site).copied().flatten()?;
        let home = &self.files[site.file];
        if is_global(&finding.path) && home.depth < used.keys.len() {
            // looked at with the parent's own values
            return None;
        }
        let mut reasons: Vec<String> = finding.reason.take().into_iter().collect();
        let keys = used.keys.get(home.depth..).unwrap_or_default();
        for part in &mut finding.parts {
            if !is_global(&part.path) {
                part.path = above(&part.path, home.several, keys);
            }
            if let Some(place) = self.settle(part, origins, site.file) {
                reasons.push(format!("`{}` stands in {place}", part.current));
            }
        }
        if let Some(off) = &used.off {
            reasons.push(off.clone());
            finding.confidence = finding.confidence.max(Confidence::Computed);
        }
        finding.line = match finding.parts.iter().find(|part| part.elsewhere.is_none()) {
            Some(part) => home.document.nodes[part.node].line,
            None => line(&home.document, site),
        };
        finding.path = above(&finding.path, home.several, keys);
        finding.reason = (!reasons.is_empty()).then(|| reasons.join("; "));
        finding.site = site.node;
        Some((site.file, finding))
    }

    /// Points a piece at its own file; returns the place when that is another than `home`.
    fn settle(&self, part: &mut Part, origins: &[Option<Origin>], home: usize) -> Option<String> {
        if part.elsewhere.is_some() {
            return None;
        }
        let origin = |node: usize| origins.get(node).copied().flatten();
        let at = origin(part.site)?;
        let file = &self.files[at.file];
        if at.file == home {
            part.site = at.node;
            part.node = match part.role {
                Role::NewName => origin(part.node)?.node,
                _ => file.document.resolve(at.node),
            };
            return None;
        }
        let place = format!("{}:{}", file.path, line(&file.document, at));
        (part.node, part.site, part.range, part.inner) = (NOWHERE, NOWHERE, None, Inner::Literal);
        part.elsewhere = Some(place.clone());
        Some(place)
    }
}

/// An empty file, or a mapping.
fn is_values(document: &Document) -> bool {
    match &document.nodes[document.root].kind {
        Kind::Mapping { .. } => true,
        Kind::Scalar { style, .. } => *style == Style::Plain && document.text(document.root).is_none(),
        _ => false,
    }
}

fn line(document: &Document, origin: Origin) -> usize {
    document.nodes[document.resolve(origin.node)].line
}

/// Whether a path leads to what all charts share.
fn is_global(path: &str) -> bool {
    path.strip_prefix("$.global").is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The path in a parent's file, where the values of a sub-chart stand under `keys`.
fn above(path: &str, several: bool, keys: &[String]) -> String {
    let mut text = if several { "#0$" } else { "$" }.to_owned();
    for key in keys {
        push_key(&mut text, key, false);
    }
    text.push_str(path.strip_prefix('$').unwrap_or(path));
    text
}

/// In order of line, each piece of text once: aliases and several uses of a chart lead to the same one.
pub(super) fn in_order(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by_key(|finding| (finding.line, finding.confidence));
    let mut seen = HashSet::new();
    findings.retain(|finding| {
        let own = finding.parts.iter().filter(|part| part.elsewhere.is_none());
        let places: Vec<_> = own.map(|part| (part.node, part.range.clone())).collect();
        let path = if places.is_empty() { finding.path.as_str() } else { "" };
        seen.insert((places, path.to_owned(), finding.reference.clone()))
    });
    findings
}

impl TagDefault for Chart<'_> {
    fn tag(&self, path: &str) -> Option<AssumedTag> {
        let (version, line) = self.metadata.app_version.as_ref()?;
        let said = self.templates.default_of(path, version);
        let place = format!("{}:{line}", join(self.folder, "Chart.yaml"));
        Some(AssumedTag { sure: said.is_some(), tag: said.unwrap_or_else(|| version.clone()), place })
    }
}
