//! Values of a Helm chart: which of them differ, and writing them down again.
//!
//! Helm merges mappings key by key and replaces everything else, lists included.

use std::collections::HashSet;
use std::fmt::Write as _;

use crate::shapes::push_key;
use crate::splice::{escape_double, is_plain, is_typed};
use crate::tree::{Document, Kind, NodeId, Style, is_null};

/// The most values that are written: aliases can make much of little.
const MAX_VALUES: usize = 200_000;
/// The deepest nesting that is followed, aliases included.
const MAX_DEPTH: usize = 100;

/// Values to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// As it is written.
    Scalar(String),
    List(Vec<Value>),
    /// Keys as they are written.
    Map(Vec<(String, Value)>),
}

/// What two versions of a document differ in.
#[derive(Debug)]
pub(super) struct Difference<'a> {
    before: &'a Document,
    after: &'a Document,
    /// Written although they did not change: pieces of references some piece of which did. Nodes of `after`.
    kept: HashSet<NodeId>,
    /// The same, as nodes of `before`.
    kept_before: HashSet<NodeId>,
    /// The nodes of `after` that changed, where they are used.
    pub(super) changed: HashSet<NodeId>,
    /// The nodes of `before` in their places.
    pub(super) changed_before: HashSet<NodeId>,
    /// The paths of lists that are written whole.
    pub(super) lists: Vec<String>,
    written: usize,
}

impl<'a> Difference<'a> {
    pub(super) fn new(before: &'a Document, after: &'a Document) -> Self {
        let none = HashSet::new;
        Self {
            before,
            after,
            kept: none(),
            kept_before: none(),
            changed: none(),
            changed_before: none(),
            lists: Vec::new(),
            written: 0,
        }
    }

    /// Keeps these nodes of `after` from now on.
    pub(super) fn keep(&mut self, nodes: impl IntoIterator<Item = NodeId>) {
        self.kept.extend(nodes);
    }

    /// Keeps what stands in the places of these nodes of `before` from now on.
    pub(super) fn keep_before(&mut self, nodes: impl IntoIterator<Item = NodeId>) {
        self.kept_before.extend(nodes);
    }

    /// The values that make `after` of `before`; none when they are the same.
    ///
    /// # Errors
    /// Why they cannot be written.
    pub(super) fn values(&mut self) -> Result<Option<Value>, String> {
        (self.written, self.lists) = (0, Vec::new());
        self.differ(Some(self.before.root), self.after.root, &mut "$".to_owned(), 0)
    }

    fn differ(
        &mut self,
        before: Option<NodeId>,
        after: NodeId,
        path: &mut String,
        depth: usize,
    ) -> Result<Option<Value>, String> {
        self.count(depth)?;
        let (old, new) = (before.map(|id| self.before.resolve(id)), self.after.resolve(after));
        if let (Some(old), Kind::Mapping { .. }) = (old, &self.after.nodes[new].kind)
            && matches!(self.before.nodes[old].kind, Kind::Mapping { .. })
        {
            let olds = entries(self.before, old)?;
            let mut values = Vec::new();
            for (key, id) in entries(self.after, new)? {
                let name = self.after.scalar(key).unwrap_or_default();
                let was = olds.iter().find(|(k, _)| self.before.scalar(*k) == Some(name)).map(|(_, v)| *v);
                let length = path.len();
                push_key(path, name, false);
                let value = self.differ(was, id, path, depth + 1)?;
                path.truncate(length);
                if let Some(value) = value {
                    values.push((written(self.after, key)?, value));
                }
            }
            return Ok((!values.is_empty()).then_some(Value::Map(values)));
        }
        let whole = self.whole(after, depth)?;
        let same = match before {
            Some(old) => Difference::new(self.after, self.before).whole(old, depth)? == whole,
            None => false,
        };
        if !same {
            self.changed.insert(after);
            self.changed_before.extend(before);
        }
        if same && !self.kept.contains(&after) && !before.is_some_and(|id| self.kept_before.contains(&id)) {
            return Ok(None);
        }
        if matches!(whole, Value::List(_)) {
            self.lists.push(path.clone());
        }
        Ok(Some(whole))
    }

    /// Everything at and below a node of `after`.
    fn whole(&mut self, id: NodeId, depth: usize) -> Result<Value, String> {
        self.count(depth)?;
        let id = self.after.resolve(id);
        match &self.after.nodes[id].kind {
            Kind::Sequence { items, .. } => {
                let values: Result<_, String> = items.iter().map(|item| self.whole(*item, depth + 1)).collect();
                Ok(Value::List(values?))
            }
            Kind::Mapping { .. } => {
                let mut values = Vec::new();
                for (key, value) in entries(self.after, id)? {
                    values.push((written(self.after, key)?, self.whole(value, depth + 1)?));
                }
                Ok(Value::Map(values))
            }
            _ => Ok(Value::Scalar(written(self.after, id)?)),
        }
    }

    fn count(&mut self, depth: usize) -> Result<(), String> {
        self.written += 1;
        if self.written > MAX_VALUES || depth > MAX_DEPTH {
            return Err("its aliases make too much of it".to_owned());
        }
        Ok(())
    }
}

/// The entries of a mapping as a reader sees them: those that `<<` brings come after its own, and do not replace them.
fn entries(document: &Document, id: NodeId) -> Result<Vec<(NodeId, NodeId)>, String> {
    let mut all: Vec<(NodeId, NodeId)> = Vec::new();
    let mut merged = Vec::new();
    for (key, value) in document.entries(id) {
        match document.scalar(*key) {
            Some("<<") => merged.push(document.resolve(*value)),
            Some(_) => all.push((*key, *value)),
            None => return Err("a key in it is no text".to_owned()),
        }
    }
    for merged in merged {
        let sources = match &document.nodes[merged].kind {
            Kind::Sequence { items, .. } => items.iter().map(|item| document.resolve(*item)).collect(),
            _ => vec![merged],
        };
        for source in sources.into_iter().filter(|source| *source != id) {
            for (key, value) in document.entries(source) {
                let name = document.scalar(*key);
                if name == Some("<<") {
                    return Err("`<<` in what `<<` brings is not followed".to_owned());
                }
                if name.is_some() && !all.iter().any(|(k, _)| document.scalar(*k) == name) {
                    all.push((*key, *value));
                }
            }
        }
    }
    Ok(all)
}

/// A scalar as it is written: what was a number stays one, what was a string stays one.
fn written(document: &Document, id: NodeId) -> Result<String, String> {
    match &document.nodes[document.resolve(id)].kind {
        Kind::Scalar { tagged: true, .. } => Err("a value in it has a tag of its own (`!…`)".to_owned()),
        Kind::Scalar { value, style: Style::Plain, .. } if is_null(value) => Ok("null".to_owned()),
        Kind::Scalar { value, style, .. } => {
            let plain = *style == Style::Plain && (is_typed(value) || is_plain(value));
            let plain = plain || (is_plain(value) && !is_typed(value));
            Ok(if plain { value.clone() } else { format!("\"{}\"", escape_double(value)) })
        }
        _ => Err("a key in it is no text".to_owned()),
    }
}

/// A key as it is written.
pub(super) fn key(name: &str) -> String {
    if is_plain(name) && !is_typed(name) { name.to_owned() } else { format!("\"{}\"", escape_double(name)) }
}

/// Whether a key that is `written` so is called `name`.
pub(super) fn is_key(written: &str, name: &str) -> bool {
    written == name || written == format!("\"{}\"", escape_double(name))
}

impl Value {
    /// Adds what `other` has and `self` has not.
    pub(super) fn merge(&mut self, other: Value) {
        let (Self::Map(own), Self::Map(entries)) = (self, other) else { return };
        for (key, value) in entries {
            match own.iter_mut().find(|(known, _)| *known == key) {
                Some((_, own)) => own.merge(value),
                None => own.push((key, value)),
            }
        }
    }
}

/// Sets a value, replacing what is no mapping on the way.
pub(super) fn set(values: &mut Value, keys: &[&str], value: &str) {
    let Some((key, rest)) = keys.split_first() else {
        *values = Value::Scalar(value.to_owned());
        return;
    };
    if !matches!(values, Value::Map(_)) {
        *values = Value::Map(Vec::new());
    }
    let Value::Map(entries) = values else { return };
    let at = entries.iter().position(|(name, _)| name == key).unwrap_or_else(|| {
        entries.push(((*key).to_owned(), Value::Map(Vec::new())));
        entries.len() - 1
    });
    set(&mut entries[at].1, rest, value);
}

/// Writes values as YAML in block style.
pub(super) fn render(values: &Value) -> String {
    let mut text = String::new();
    block(values, 0, &mut text);
    text
}

fn block(value: &Value, indent: usize, text: &mut String) {
    let pad = " ".repeat(indent);
    match value {
        Value::Map(entries) => {
            for (key, value) in entries {
                let _ = write!(text, "{pad}{key}:");
                after_key(value, indent + 2, text);
            }
        }
        Value::List(items) => {
            for item in items {
                let _ = write!(text, "{pad}-");
                match item {
                    Value::Map(entries) if !entries.is_empty() => {
                        let mut inner = String::new();
                        block(item, indent + 2, &mut inner);
                        // the first key stands on the line of the dash
                        text.push_str(inner.replacen(&" ".repeat(indent + 1), "", 1).as_str());
                    }
                    _ => after_key(item, indent + 2, text),
                }
            }
        }
        Value::Scalar(scalar) => {
            let _ = writeln!(text, "{pad}{scalar}");
        }
    }
}

fn after_key(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Scalar(scalar) => {
            let _ = writeln!(text, " {scalar}");
        }
        Value::List(items) if items.is_empty() => text.push_str(" []\n"),
        Value::Map(entries) if entries.is_empty() => text.push_str(" {}\n"),
        _ => {
            text.push('\n');
            block(value, indent, text);
        }
    }
}
