//! Helm charts as texts: what stands behind pieces that values leave empty, and which values count where several files say
//! something of the same image.
//!
//! The one place for that decision: finding, checking and rewriting all take an [`Around`] from here. Helm's rules are followed as
//! far as they need no template: parents' values go before those of sub-charts, under the dependency's name or alias; `global` is
//! shared downwards; conditions and tags switch sub-charts off. What templates do with it is guessed from their text, and said to be.
//!
//! Not here: reading folders and archives, running Helm, annotations (those of `Chart.yaml` are found as in any YAML).
//!
//! Reading order: `metadata` (`Chart.yaml`), `values` (merging with origins), `templates` (what they say of `appVersion`), this.

mod instance;
mod metadata;
mod templates;
mod values;

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::finding::Finding;

pub use metadata::Dependency;

/// What the texts around a text make of it.
#[derive(Debug, Clone, Default)]
pub struct Around {
    /// The findings of its first document, and the hash of the text that they are of.
    values: Option<(u64, Vec<Finding>)>,
}

impl Around {
    /// What several charts make of the same text.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self.values, other.values) {
            (Some((of, mut findings)), Some((same, more))) if of == same => {
                findings.extend(more);
                Self { values: Some((of, instance::in_order(findings))) }
            }
            (own, other) => Self { values: own.or(other) },
        }
    }

    /// The findings of document `index` (from 0, refused ones counted) of `text`, when the texts around it decide them.
    pub(crate) fn findings(&self, text: &str, index: usize) -> Option<&[Finding]> {
        let (of, findings) = self.values.as_ref()?;
        (index == 0 && *of == hash(text)).then_some(findings)
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// A chart that no other chart of the same texts contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The path of its folder; empty where the texts are the chart's own.
    pub folder: String,
    /// `name:`.
    pub name: Option<String>,
    /// `version:`.
    pub version: Option<String>,
}

/// A sub-chart that is named and not there, so that its images are not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absent {
    /// The path of the `Chart.yaml` (or `requirements.yaml`) that names it.
    pub path: String,
    /// 1-based.
    pub line: usize,
    /// Which, with its version where that is said.
    pub name: String,
}

/// All charts among some texts.
#[derive(Debug, Clone, Default)]
pub struct Charts {
    arounds: HashMap<String, Around>,
    /// In order of path.
    pub charts: Vec<Summary>,
    /// In order of path.
    pub absent: Vec<Absent>,
    /// What was not looked at, each with its path and why.
    pub skipped: Vec<String>,
    /// Folders of charts, with those of sub-charts.
    folders: Vec<String>,
}

impl Charts {
    /// Looks at `texts`, each with its path (segments joined by `/`). A chart is a folder that has a `Chart.yaml`; its sub-charts are
    /// folders below `charts/` in it, an unpacked archive counting as a folder. `overrides` are values files that go before those
    /// of every chart, the last one first.
    #[must_use]
    pub fn of<'a>(texts: impl IntoIterator<Item = (&'a str, &'a str)>, overrides: &[(&str, &str)]) -> Self {
        let texts: BTreeMap<&str, &str> = texts.into_iter().collect();
        let folders: Vec<&str> = texts.keys().filter_map(|path| folder_of(path, "Chart.yaml")).collect();
        let mut out = Self { folders: folders.iter().map(|f| (*f).to_owned()).collect(), ..Self::default() };
        if folders.is_empty() {
            return out;
        }
        let mut tree = instance::Tree::new(&texts, &folders, overrides);
        for root in folders.iter().filter(|folder| parent(folder, &folders).is_none()) {
            let (summary, absent) = tree.root(root);
            out.charts.push(summary);
            out.absent.extend(absent);
        }
        out.skipped = tree.skipped();
        for (path, text, findings) in tree.finish() {
            out.arounds.insert(path, Around { values: Some((hash(text), findings)) });
        }
        out
    }

    /// What is around the text at `path`.
    #[must_use]
    pub fn around(&self, path: &str) -> Around {
        self.arounds.get(path).cloned().unwrap_or_default()
    }

    /// The folder of the innermost chart that holds `path`.
    #[must_use]
    pub fn holding(&self, path: &str) -> Option<&str> {
        self.folders
            .iter()
            .filter(|folder| is_below(path, folder))
            .max_by_key(|folder| folder.len())
            .map(String::as_str)
    }
}

/// The folder of `path` when the file is called `name`; empty for the top.
fn folder_of<'a>(path: &'a str, name: &str) -> Option<&'a str> {
    let folder = path.strip_suffix(name)?;
    if folder.is_empty() { Some(folder) } else { folder.strip_suffix('/') }
}

/// `name` in `folder`.
fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

fn is_below(path: &str, folder: &str) -> bool {
    folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// The chart whose `charts/` holds the folder of another directly.
fn parent<'a>(folder: &str, folders: &[&'a str]) -> Option<&'a str> {
    let above = folder.rsplit_once('/').map(|(above, _)| above)?;
    let parent = folder_of(above, "charts")?;
    folders.iter().find(|f| **f == parent).copied()
}
