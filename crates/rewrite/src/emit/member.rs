//! Files of charts: under which keys of the topmost chart's values those of a sub-chart stand, and what goes before them there.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::values::{self, Value};
use crate::tree::{self, Document, Kind, NodeId};

/// What a text is in the topmost chart that it is a file of.
#[derive(Debug, Clone)]
pub struct Member {
    /// The chart's folder: the same for all of its files.
    pub root: String,
    /// The path below it, segments joined by `/`.
    pub path: String,
    /// What the chart's folder holds by such paths: at least every `Chart.yaml`, `requirements.yaml` and `values.yaml`.
    pub texts: Arc<BTreeMap<String, String>>,
}

/// What the values of a chart and of its sub-charts say, for one chart.
pub(super) struct Family<'a> {
    texts: &'a BTreeMap<String, String>,
    /// What rewriting made of some of them.
    pub(super) after: BTreeMap<&'a str, &'a str>,
}

impl Member {
    /// Whether a file of this name says what is needed here.
    #[must_use]
    pub fn needs(path: &str) -> bool {
        let base = path.rsplit('/').next().unwrap_or(path);
        matches!(base, "Chart.yaml" | "requirements.yaml" | "values.yaml")
    }

    /// Whether it belongs to a sub-chart.
    pub(super) fn is_below(&self) -> bool {
        self.path.strip_prefix("charts/").is_some_and(|rest| rest.contains('/'))
    }
}

impl<'a> Family<'a> {
    pub(super) fn new(texts: &'a BTreeMap<String, String>) -> Self {
        Self { texts, after: BTreeMap::new() }
    }

    /// `value`, which overrides the values at `path`, put under every key that the sub-chart is used by, without what charts
    /// above it say themselves. None where nothing is left.
    ///
    /// # Errors
    /// Why that cannot be known.
    pub(super) fn lift(&self, path: &str, value: &Value) -> Result<Option<Value>, String> {
        let Some(folder) = path.strip_suffix("values.yaml").map(|f| f.trim_end_matches('/')) else {
            return Err("it belongs to a sub-chart, whose own `values.yaml` it is not".to_owned());
        };
        self.up(folder, value)
    }

    fn up(&self, folder: &str, value: &Value) -> Result<Option<Value>, String> {
        if folder.is_empty() {
            return Ok(Some(value.clone()));
        }
        let above = above(folder).ok_or_else(|| format!("`{folder}` is no sub-chart's folder"))?;
        let mut all = Value::Map(Vec::new());
        let over = self.values(above)?;
        for key in self.keys(above, folder)? {
            let below = over.as_ref().and_then(|document| Some((document, document.entry(document.root, &key)?)));
            if let Some(value) = without(value, below)? {
                all.merge(Value::Map(vec![(values::key(&key), value)]));
            }
        }
        if matches!(&all, Value::Map(entries) if entries.is_empty()) { Ok(None) } else { self.up(above, &all) }
    }

    /// The values that a chart has, as rewritten.
    fn values(&self, folder: &str) -> Result<Option<Document>, String> {
        let path = join(folder, "values.yaml");
        let own = self.after.get(path.as_str()).copied().or_else(|| self.texts.get(&path).map(String::as_str));
        let Some(text) = own else { return Ok(None) };
        let mut stream = tree::parse(text);
        match stream.count {
            0 => Ok(None),
            1 if stream.refused.is_empty() => Ok(stream.documents.pop()),
            _ => Err(format!("`{path}`, which goes before it, is not one YAML document")),
        }
    }

    /// The keys that the values of the sub-chart in `folder` stand under in those of the chart `above` it.
    fn keys(&self, above: &str, folder: &str) -> Result<Vec<String>, String> {
        let name = self.name(folder).ok_or_else(|| format!("`{folder}/Chart.yaml` gives no name"))?;
        let charts = join(above, "charts");
        let siblings = self.texts.keys().filter_map(|path| path.strip_suffix("/Chart.yaml"));
        let same = siblings.filter(|f| f.rsplit_once('/').is_some_and(|(dir, _)| dir == charts));
        if same.filter(|sibling| self.name(sibling).as_deref() == Some(&name)).count() > 1 {
            return Err(format!("several sub-charts in `{charts}` are called `{name}`"));
        }
        let mut keys = Vec::new();
        if !self.texts.contains_key(&join(above, "Chart.yaml")) {
            return Err("the chart above it is not there, which says under which keys its values stand".to_owned());
        }
        for text in ["Chart.yaml", "requirements.yaml"].iter().filter_map(|file| self.texts.get(&join(above, file))) {
            let stream = tree::parse(text);
            let Some(document) = stream.documents.first().filter(|_| stream.refused.is_empty()) else {
                return Err("the chart above it has a `Chart.yaml` that cannot be read".to_owned());
            };
            let Some(list) = document.entry(document.root, "dependencies") else { continue };
            let Kind::Sequence { items, .. } = &document.nodes[document.resolve(list)].kind else { continue };
            for item in items.iter().map(|item| document.resolve(*item)) {
                let own = |key| document.entry(item, key).and_then(|id| document.text(id)).filter(|t| !t.is_empty());
                if own("name") != Some(&name) {
                    continue;
                }
                if document.entry(item, "import-values").is_some() {
                    return Err("the chart above it takes values from it by `import-values`".to_owned());
                }
                keys.push(own("alias").unwrap_or(&name).to_owned());
            }
        }
        keys.sort();
        keys.dedup();
        // Helm uses what only lies in `charts/`, too
        Ok(if keys.is_empty() { vec![name] } else { keys })
    }

    fn name(&self, folder: &str) -> Option<String> {
        let stream = tree::parse(self.texts.get(&join(folder, "Chart.yaml"))?);
        let document = stream.documents.first()?;
        document.entry(document.root, "name").and_then(|id| document.text(id)).map(ToOwned::to_owned)
    }
}

/// The folder of the chart in whose `charts/` another lies.
fn above(folder: &str) -> Option<&str> {
    let (charts, _) = folder.rsplit_once('/')?;
    if charts == "charts" { Some("") } else { charts.strip_suffix("/charts") }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// `value` without what stands in `over`, key by key.
fn without(value: &Value, over: Option<(&Document, NodeId)>) -> Result<Option<Value>, String> {
    let Some((document, id)) = over else { return Ok(Some(value.clone())) };
    let id = document.resolve(id);
    let (Value::Map(entries), Kind::Mapping { entries: overs, .. }) = (value, &document.nodes[id].kind) else {
        return Ok(None);
    };
    if overs.iter().any(|(key, _)| document.scalar(*key) == Some("<<")) {
        return Err("`<<` stands in the values that go before it".to_owned());
    }
    let mut left = Vec::new();
    for (key, value) in entries {
        let is_same = |k: &NodeId| document.scalar(*k).is_some_and(|name| values::is_key(key, name));
        let over = overs.iter().find(|(k, _)| is_same(k)).map(|(_, id)| (document, *id));
        left.extend(without(value, over)?.map(|value| (key.clone(), value)));
    }
    Ok((!left.is_empty()).then_some(Value::Map(left)))
}
