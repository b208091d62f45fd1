//! Walks one document and collects what looks like an image. Each shape has a file; this one only decides who is asked.

mod globals;
mod keys;
mod kustomize;
mod pairs;
mod split;
mod strings;
pub(crate) mod variable;

use std::fmt::Write as _;

use crate::finding::{Confidence, Finding, Inner, Part, Role, Shape};
use crate::tree::{Document, Kind, NodeId, Style};
use crate::words::{self, Level};

/// One step of a path.
#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// What stands above a node.
#[derive(Debug, Clone, Copy)]
struct Scope<'a> {
    /// The nearest key.
    key: &'a str,
    /// Directly in a sequence under that key.
    item: bool,
    /// Somewhere below `images:`, in scalars and nested keys that only group.
    images: bool,
    /// Directly below a key that names an image: its entries may be images by their names.
    image: bool,
}

/// How deep strings that hold YAML or JSON are followed into each other.
const MAX_STRINGS: usize = 3;

pub(crate) struct Walk<'a> {
    doc: &'a Document,
    /// An index into the parsed documents.
    document: usize,
    path: Vec<Step<'a>>,
    prefix: String,
    /// Scalars that a split reference has used up.
    taken: Vec<bool>,
    globals: globals::Globals,
    /// What the chart that these values belong to puts where no tag stands.
    chart: Option<&'a dyn TagDefault>,
    /// How many strings this document stands inside.
    inside: usize,
    out: Vec<Finding>,
}

/// All findings of one document. `several`: the text has more than one, which shows in the paths.
pub(crate) fn walk(doc: &Document, document: usize, several: bool, inside: usize) -> Vec<Finding> {
    walk_values(doc, document, several, inside, None)
}

/// The tag that a chart takes where its values leave one empty.
pub(crate) trait TagDefault {
    /// For the tag that would stand at `path`.
    fn tag(&self, path: &str) -> Option<AssumedTag>;
}

/// A tag that does not stand in the text.
pub(crate) struct AssumedTag {
    pub(crate) tag: String,
    /// Where it stands: `web/Chart.yaml:5`.
    pub(crate) place: String,
    /// Whether the chart's templates say so.
    pub(crate) sure: bool,
}

/// [`walk`], for the values of a chart.
pub(crate) fn walk_values(
    doc: &Document,
    document: usize,
    several: bool,
    inside: usize,
    chart: Option<&dyn TagDefault>,
) -> Vec<Finding> {
    let mut walk = Walk {
        doc,
        document,
        path: Vec::new(),
        prefix: if several { format!("#{}$", doc.index) } else { "$".to_owned() },
        taken: vec![false; doc.nodes.len()],
        globals: globals::Globals::default(),
        chart,
        inside,
        out: Vec::new(),
    };
    walk.node(doc.root, Scope { key: "", item: false, images: false, image: false });
    walk.out
}

impl<'a> Walk<'a> {
    fn node(&mut self, id: NodeId, scope: Scope<'a>) {
        match self.doc.nodes[id].kind {
            Kind::Mapping { .. } => self.mapping(id, scope),
            Kind::Sequence { .. } => self.sequence(id, scope),
            // an alias to a collection is looked at where its anchor stands
            Kind::Scalar { .. } | Kind::Alias { .. } => {}
        }
    }

    fn mapping(&mut self, id: NodeId, scope: Scope<'a>) {
        let doc = self.doc;
        if doc.entry(id, "kind").and_then(|k| doc.scalar(k)) == Some("CustomResourceDefinition") {
            return;
        }
        let outer = self.enter(id, scope.images || scope.image);
        if !self.kustomize(id, scope) {
            if scope.images {
                self.tagged_together(id, scope);
            }
            self.splits(id, scope);
            self.environment(id);
            self.source(id, scope);
            self.job(id);
        }
        for &(key, value) in doc.entries(id) {
            let Some(name) = doc.scalar(key) else { continue };
            // a knative `_example` is guarded by a checksum; a schema speaks of images without naming any
            if name == "_example" || name == "openAPIV3Schema" {
                continue;
            }
            // names of nodes and the like, which often have the form of a reference
            if words::is_label(name) {
                continue;
            }
            self.path.push(Step::Key(name));
            if doc.scalar(value).is_some() {
                if !std::mem::replace(&mut self.taken[value], true) {
                    let level = self.level(name, value, scope);
                    let shape = if level == Level::None { Shape::Value } else { Shape::Whole };
                    let before = self.out.len();
                    self.string(value, level, shape);
                    // a compose file says what is built beside the image, other tools in a list of what they make
                    let made = || doc.entry(id, "build").is_some() || (scope.key == "artifacts" && scope.item);
                    if level == Level::Exact && made() {
                        self.built(before);
                    }
                }
            } else {
                let images = words::holds_images(name) || (scope.images && matches!(name, "tags"));
                let list = matches!(doc.nodes[value].kind, Kind::Sequence { .. });
                let image = words::level(name) >= Level::Some || (scope.image && list);
                self.node(value, Scope { key: name, item: false, images, image });
            }
            self.path.pop();
        }
        if let Some(outer) = outer {
            self.globals = outer;
        }
    }

    /// What is said of the scalar under `name`: by the key itself, or by the one above.
    fn level(&self, name: &str, value: NodeId, scope: Scope<'a>) -> Level {
        let level = words::level(name);
        if scope.key == "machine" && level == Level::Exact {
            // an image of a virtual machine, unless it says more
            return Level::None;
        }
        if level > Level::None
            || keys::key(name).is_some_and(|(_, key)| !matches!(key, keys::Key::Name | keys::Key::Host))
        {
            return level;
        }
        match () {
            () if scope.images => Level::Some,
            () if scope.image && self.doc.text(value).and_then(words::by_value).is_some() => Level::Some,
            () => Level::None,
        }
    }

    fn sequence(&mut self, id: NodeId, scope: Scope<'a>) {
        let doc = self.doc;
        let Kind::Sequence { items, .. } = &doc.nodes[id].kind else { return };
        self.pairs(id);
        let arguments = matches!(scope.key, "args" | "command" | "entrypoint" | "cmd" | "extraArgs");
        let mut flag: Option<&str> = None;
        for (i, &item) in items.iter().enumerate() {
            self.path.push(Step::Index(i));
            if let Some(text) = doc.scalar(item) {
                if !self.taken[item] && !self.assignment(item, text) {
                    match flag {
                        Some(flag) => self.argument(item, words::level(flag.trim_start_matches('-'))),
                        None if arguments => self.argument(item, Level::None),
                        None => {
                            let named = scope.image && words::by_value(text).is_some();
                            let level = if scope.images || named { Level::Some } else { Level::None };
                            self.string(item, level, Shape::List);
                        }
                    }
                }
                flag = words::is_flag(text).then_some(text);
            } else {
                flag = None;
                self.node(item, Scope { item: true, ..scope });
            }
            self.path.pop();
        }
    }

    /// What a local build is called.
    fn built(&mut self, since: usize) {
        for finding in self.out.iter_mut().skip(since).filter(|f| f.confidence == Confidence::Certain) {
            finding.confidence = Confidence::Computed;
            finding.reason = Some("it may be built here rather than pulled".to_owned());
        }
    }

    /// `- name: FOO_IMAGE` with `value:` beside it, or with `default:` where parameters are declared.
    fn environment(&mut self, id: NodeId) {
        let Some(name) = self.doc.entry(id, "name").and_then(|name| self.doc.scalar(name)) else { return };
        for key in ["value", "default"] {
            let Some(value) = self.doc.entry(id, key).filter(|value| self.doc.scalar(*value).is_some()) else {
                continue;
            };
            if std::mem::replace(&mut self.taken[value], true) {
                continue;
            }
            self.path.push(Step::Key(key));
            self.string(value, words::level(name).min(Level::Strong), Shape::Env);
            self.path.pop();
        }
    }

    /// `kind: DockerImage` with `name:` beside it, as builds and image streams name what they start from.
    fn source(&mut self, id: NodeId, scope: Scope<'a>) {
        let kind = self.doc.entry(id, "kind").and_then(|kind| self.doc.scalar(kind));
        let Some(name) = self.doc.entry(id, "name").filter(|_| kind == Some("DockerImage")) else { return };
        // what is built and pushed is not pulled
        if scope.key == "to" || self.doc.scalar(name).is_none() || std::mem::replace(&mut self.taken[name], true) {
            return;
        }
        self.path.push(Step::Key("name"));
        self.string(name, Level::Exact, Shape::Whole);
        self.path.pop();
    }

    /// Jobs of pipelines: `container: REF` where the steps run, `services:` as a list of what runs beside them.
    fn job(&mut self, id: NodeId) {
        let doc = self.doc;
        let has = |key: &str| doc.entry(id, key).is_some();
        if let Some(container) = doc.entry(id, "container").filter(|c| doc.scalar(*c).is_some() && has("runs-on")) {
            self.taken[container] = true;
            self.path.push(Step::Key("container"));
            self.string(container, Level::Exact, Shape::Whole);
            self.path.pop();
        }
        let Some(services) = doc.entry(id, "services").filter(|_| has("script") || has("image") || has("stages"))
        else {
            return;
        };
        let Kind::Sequence { items, .. } = &doc.nodes[services].kind else { return };
        self.path.push(Step::Key("services"));
        for (i, &item) in items.iter().enumerate() {
            self.path.push(Step::Index(i));
            let name = doc.entry(item, "name");
            let site = name.unwrap_or(item);
            if doc.scalar(site).is_some() && !std::mem::replace(&mut self.taken[site], true) {
                if name.is_some() {
                    self.path.push(Step::Key("name"));
                }
                self.string(site, Level::Exact, Shape::List);
                if name.is_some() {
                    self.path.pop();
                }
            }
            self.path.pop();
        }
        self.path.pop();
    }

    /// The path of the current place.
    fn here(&self) -> String {
        let mut text = self.prefix.clone();
        let mut above = "";
        for step in &self.path {
            match step {
                Step::Index(i) => {
                    let _ = write!(text, "[{i}]");
                }
                Step::Key(key) => {
                    push_key(&mut text, key, above == "annotations");
                    above = key;
                }
            }
        }
        text
    }

    fn path_of(&self, key: &str) -> String {
        let mut text = self.here();
        let annotations = matches!(self.path.last(), Some(Step::Key("annotations")));
        push_key(&mut text, key, annotations);
        text
    }

    /// A piece that is a whole scalar, used at `site`.
    fn part(&self, role: Role, site: NodeId, path: String) -> Part {
        let node = self.doc.resolve(site);
        let (current, style) = match &self.doc.nodes[node].kind {
            Kind::Scalar { value, style, .. } => (value.clone(), *style),
            _ => (String::new(), Style::Plain),
        };
        let inner = if style == Style::Block { Inner::Literal } else { Inner::Token(style) };
        Part { role, node, site, path, range: None, inner, current, elsewhere: None }
    }

    fn line(&self, site: NodeId) -> usize {
        self.doc.nodes[self.doc.resolve(site)].line
    }

    fn report(&mut self, finding: Finding) {
        self.out.push(finding);
    }

    /// An image that this text alone cannot tell.
    fn unresolvable(&mut self, site: NodeId, path: String, value: &str, shape: Shape, reason: String) {
        let (line, document) = (self.line(site), self.document);
        self.report(Finding {
            line,
            path,
            value: value.to_owned(),
            reference: None,
            shape,
            confidence: Confidence::Unresolvable,
            reason: Some(reason),
            parts: Vec::new(),
            document,
            site,
        });
    }
}

/// Appends a key as paths write it: `.key`, or `['key']` where it has other characters or stands below `annotations`.
pub(crate) fn push_key(text: &mut String, key: &str, brackets: bool) {
    let simple = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if simple && !brackets {
        text.push('.');
        text.push_str(key);
    } else {
        let _ = write!(text, "['{}']", key.replace('\\', "\\\\").replace('\'', "\\'"));
    }
}
