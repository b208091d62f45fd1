//! Values as Helm merges them, every one with the file that it comes from.

use std::collections::HashMap;
use std::fmt;

use crate::tree::{Document, Kind, Node, NodeId, Style};

/// The most values that one chart may have once aliases are expanded: as many as a file of [`MAX_TEXT`](crate::tree::MAX_TEXT) can
/// hold without them, roughly.
const MAX_VALUES: usize = 1 << 20;
/// The deepest nesting once aliases are expanded.
const MAX_DEPTH: usize = 200;

/// Where a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    /// An index into the values files.
    pub(super) file: usize,
    /// The place of use: an alias, or the value itself.
    pub(super) node: NodeId,
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Map(Vec<(String, Value)>, Origin),
    List(Vec<Value>, Origin),
    Scalar(Origin),
}

/// More values, or deeper ones, than a chart may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLarge;

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "with its aliases expanded it has more than {MAX_VALUES} values, or some deeper than {MAX_DEPTH}")
    }
}

/// The values of a document, aliases expanded.
pub(super) fn read(document: &Document, file: usize) -> Result<Value, TooLarge> {
    value(document, file, document.root, 0, &mut { MAX_VALUES })
}

fn value(document: &Document, file: usize, node: NodeId, depth: usize, left: &mut usize) -> Result<Value, TooLarge> {
    *left = left.checked_sub(1).filter(|_| depth < MAX_DEPTH).ok_or(TooLarge)?;
    let origin = Origin { file, node };
    Ok(match &document.nodes[document.resolve(node)].kind {
        Kind::Mapping { entries, .. } => {
            let mut out = Vec::with_capacity(entries.len());
            for (key, inner) in entries {
                let Some(key) = document.scalar(*key) else { continue };
                out.push((key.to_owned(), value(document, file, *inner, depth + 1, left)?));
            }
            Value::Map(out, origin)
        }
        Kind::Sequence { items, .. } => {
            let items = items.iter().map(|item| value(document, file, *item, depth + 1, left));
            Value::List(items.collect::<Result<_, _>>()?, origin)
        }
        _ => Value::Scalar(origin),
    })
}

impl Value {
    pub(super) fn origin(&self) -> Origin {
        match self {
            Self::Map(_, origin) | Self::List(_, origin) | Self::Scalar(origin) => *origin,
        }
    }

    pub(super) fn entry(&self, key: &str) -> Option<&Value> {
        match self {
            Self::Map(entries, _) => entries.iter().find(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        }
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        let Self::Map(entries, _) = self else { return None };
        let at = entries.iter().position(|(k, _)| k == key)?;
        Some(entries.remove(at).1)
    }

    /// `a.b.c`.
    pub(super) fn at(&self, path: &str) -> Option<&Value> {
        path.split('.').try_fold(self, |value, key| value.entry(key))
    }

    /// `over` goes before `self`, mapping by mapping; a null of `over` takes the key away, as Helm has it.
    pub(super) fn coalesce(self, over: &Value, is_null: &dyn Fn(Origin) -> bool) -> Value {
        let (entries, origin) = match (self, over) {
            (Self::Map(entries, origin), Self::Map(..)) => (entries, origin),
            (own @ Self::Map(..), Self::Scalar(o)) if is_null(*o) => return own,
            _ => return over.clone(),
        };
        let Self::Map(over, _) = over else { return Self::Map(entries, origin) };
        // both sides may have a million entries
        let mut at: HashMap<&str, usize> = HashMap::with_capacity(over.len());
        for (i, (key, _)) in over.iter().enumerate() {
            at.insert(key, i);
        }
        let mut met = vec![false; over.len()];
        let mut out = Vec::with_capacity(entries.len());
        for (key, own) in entries {
            let Some(i) = at.get(key.as_str()).copied() else {
                out.push((key, own));
                continue;
            };
            met[i] = true;
            match &over[i].1 {
                Self::Scalar(o) if is_null(*o) => {}
                value => out.push((key, own.coalesce(value, is_null))),
            }
        }
        let new = over.iter().enumerate().filter(|(i, (key, _))| !met[*i] && at.get(key.as_str()) == Some(i));
        out.extend(new.map(|(_, entry)| entry.clone()));
        Self::Map(out, origin)
    }
}

/// Merged values as a document that findings can be looked for in, and where each of its nodes comes from.
pub(super) fn document(value: &Value, files: &[&Document]) -> (Document, Vec<Option<Origin>>) {
    let mut out = Document { index: 0, line: 1, range: 0..0, nodes: Vec::new(), root: 0 };
    let mut origins = Vec::new();
    out.root = add(value, files, &mut out.nodes, &mut origins);
    (out, origins)
}

fn add(value: &Value, files: &[&Document], nodes: &mut Vec<Node>, origins: &mut Vec<Option<Origin>>) -> NodeId {
    let origin = value.origin();
    let source = files[origin.file];
    let original = &source.nodes[source.resolve(origin.node)];
    let kind = match value {
        Value::Map(entries, _) => {
            let entries = entries
                .iter()
                .map(|(key, value)| {
                    let kind = Kind::Scalar { value: key.clone(), style: Style::Plain, tagged: false };
                    nodes.push(Node { kind, span: 0..0, line: original.line, column: 0, anchored: false });
                    origins.push(None);
                    let key = nodes.len() - 1;
                    (key, add(value, files, nodes, origins))
                })
                .collect();
            Kind::Mapping { entries, flow: false }
        }
        Value::List(items, _) => {
            let items = items.iter().map(|item| add(item, files, nodes, origins)).collect();
            Kind::Sequence { items, flow: false }
        }
        Value::Scalar(_) => original.kind.clone(),
    };
    nodes.push(Node { kind, span: 0..0, line: original.line, column: 0, anchored: false });
    origins.push(Some(origin));
    nodes.len() - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_values_are_merged_in_time() {
        let scalar = |file, node| Value::Scalar(Origin { file, node });
        let map = |file: usize, n: usize| {
            let entries = (0..n).map(|node| (format!("k{node}"), scalar(file, node))).collect();
            Value::Map(entries, Origin { file, node: 0 })
        };
        let started = std::time::Instant::now();
        // the nulls of the one that goes before take keys away
        let merged = map(0, 100_000).coalesce(&map(1, 100_001), &|origin| origin.file == 1 && origin.node < 50_000);
        let Value::Map(entries, _) = merged else { panic!("a mapping") };
        assert_eq!((entries.len(), entries[0].0.as_str()), (50_001, "k50000"));
        assert!(entries.iter().all(|(_, value)| value.origin().file == 1));
        assert!(started.elapsed() < std::time::Duration::from_secs(10), "{:?}", started.elapsed());
    }
}
