//! What a chart says of itself: `Chart.yaml`, and `requirements.yaml` of old charts.

use crate::tree::{self, Document, Kind, NodeId};

/// A chart's own words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Metadata {
    pub(super) name: Option<String>,
    pub(super) version: Option<String>,
    /// With its line.
    pub(super) app_version: Option<(String, usize)>,
    pub(super) dependencies: Vec<Dependency>,
}

/// An entry of `dependencies:`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dependency {
    /// The chart's name.
    pub name: String,
    /// The key that its values stand under, if not the name.
    pub alias: Option<String>,
    /// As written: often a range.
    pub version: Option<String>,
    /// Paths of values, with commas between; the first that is there decides.
    pub condition: Option<String>,
    /// Of which one must be on in `tags:`.
    pub tags: Vec<String>,
    /// 1-based.
    pub line: usize,
}

impl Dependency {
    /// The key that its values stand under.
    pub(super) fn key(&self) -> &str {
        self.alias.as_deref().unwrap_or(&self.name)
    }
}

impl Metadata {
    /// Reads `Chart.yaml`. What is missing or of another form is left out: a chart that Helm refuses may still name images.
    pub(super) fn of(text: &str) -> Self {
        let stream = tree::parse(text);
        let Some(document) = stream.documents.first() else { return Self::default() };
        let own = |key: &str| document.entry(document.root, key).and_then(|id| scalar(document, id));
        let app_version = document.entry(document.root, "appVersion").and_then(|id| {
            let line = document.nodes[document.resolve(id)].line;
            Some((scalar(document, id)?, line))
        });
        Self { name: own("name"), version: own("version"), app_version, dependencies: dependencies(document) }
    }

    /// Adds those of a `requirements.yaml`.
    pub(super) fn require(&mut self, text: &str) {
        let stream = tree::parse(text);
        self.dependencies.extend(stream.documents.first().map(dependencies).unwrap_or_default());
    }
}

fn dependencies(document: &Document) -> Vec<Dependency> {
    let Some(list) = document.entry(document.root, "dependencies") else { return Vec::new() };
    items(document, list)
        .iter()
        .filter_map(|item| {
            let item = document.resolve(*item);
            let own = |key: &str| document.entry(item, key).and_then(|id| scalar(document, id));
            let tags = document.entry(item, "tags").map(|id| items(document, id)).unwrap_or_default();
            Some(Dependency {
                name: own("name")?,
                alias: own("alias"),
                version: own("version"),
                condition: own("condition"),
                tags: tags.iter().filter_map(|id| scalar(document, *id)).collect(),
                line: document.nodes[item].line,
            })
        })
        .collect()
}

fn items(document: &Document, id: NodeId) -> &[NodeId] {
    match &document.nodes[document.resolve(id)].kind {
        Kind::Sequence { items, .. } => items,
        _ => &[],
    }
}

fn scalar(document: &Document, id: NodeId) -> Option<String> {
    document.text(id).filter(|text| !text.is_empty()).map(str::to_owned)
}
