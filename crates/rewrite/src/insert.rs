//! Putting a value at a path of keys, creating what is missing in the style of the surroundings.

use std::ops::Range;

use crate::splice::{Splice, encode, escape_double, is_plain, is_typed};
use crate::tree::{Document, Kind, NodeId, Style, is_null};

/// The splice that puts `value` at `keys` (from the root of `document`), the value that stood there before, and whether
/// anything changes.
pub(crate) fn at_path(
    text: &str,
    document: &Document,
    keys: &[&str],
    value: &str,
) -> Result<Option<(Splice, String)>, String> {
    let mut id = document.root;
    let mut parent = None;
    for (depth, key) in keys.iter().enumerate() {
        let rest = &keys[depth..];
        match &document.nodes[id].kind {
            Kind::Mapping { entries, .. } if entries.is_empty() => {
                return fill(text, document, parent, id, rest, value).map(|splice| Some((splice, String::new())));
            }
            Kind::Mapping { entries, .. } => {
                let found = entries.iter().find(|(k, _)| document.scalar(*k) == Some(key));
                match found {
                    Some((k, v)) => {
                        parent = Some((id, *k));
                        id = *v;
                    }
                    None => {
                        return entry(text, document, id, rest, value).map(|splice| Some((splice, String::new())));
                    }
                }
            }
            Kind::Scalar { value: null, style: Style::Plain, .. } if is_null(null) => {
                return fill(text, document, parent, id, rest, value).map(|splice| Some((splice, String::new())));
            }
            Kind::Scalar { .. } => return Err(format!("`{}` is a value, not a mapping", keys[..depth].join("."))),
            Kind::Sequence { .. } => return Err(format!("`{}` is a list, not a mapping", keys[..depth].join("."))),
            Kind::Alias { .. } => {
                return Err(format!("`{}` is an alias; set the key where its anchor stands", keys[..depth].join(".")));
            }
        }
    }
    replace(text, document, parent, id, keys, value)
}

/// Writes over what stands at the end of the path.
fn replace(
    text: &str,
    document: &Document,
    parent: Option<(NodeId, NodeId)>,
    id: NodeId,
    keys: &[&str],
    value: &str,
) -> Result<Option<(Splice, String)>, String> {
    let node = &document.nodes[id];
    let flow_style = if is_json(document, parent.map(|(m, _)| m)) { Style::Double } else { Style::Plain };
    match &node.kind {
        Kind::Scalar { value: old, style, .. }
            if old == value && !(*style == Style::Plain && is_typed(old) && is_null(old)) =>
        {
            Ok(None)
        }
        Kind::Scalar { style: Style::Block, .. } => Err(format!("`{}` is a block of text", keys.join("."))),
        Kind::Scalar { value: old, style: Style::Plain, .. } if node.span.is_empty() => {
            let (_, key) = parent.ok_or("the document has no keys")?;
            let colon = colon_after(text, document.nodes[key].span.end)?;
            let text = format!(" {}", encode(value, flow_style, None));
            Ok(Some((Splice { at: colon..colon, text }, old.clone())))
        }
        Kind::Scalar { value: old, style, .. } => {
            // a null is no reason to leave a number unquoted, an unquoted number is
            let was = (*style == Style::Plain && !is_null(old)).then_some(old.as_str());
            let style = if *style == Style::Plain { flow_style } else { *style };
            Ok(Some((Splice { at: node.span.clone(), text: encode(value, style, was) }, old.clone())))
        }
        Kind::Alias { .. } => {
            Ok(Some((Splice { at: node.span.clone(), text: encode(value, flow_style, None) }, String::new())))
        }
        Kind::Mapping { entries, flow: true } if entries.is_empty() => {
            Ok(Some((Splice { at: node.span.clone(), text: encode(value, flow_style, None) }, String::new())))
        }
        Kind::Mapping { .. } => Err(format!("`{}` is a mapping, not one value", keys.join("."))),
        Kind::Sequence { .. } => Err(format!("`{}` is a list, not one value", keys.join("."))),
    }
}

/// Adds `keys: value` after the last entry of a mapping that has some.
pub(crate) fn entry(
    text: &str,
    document: &Document,
    mapping: NodeId,
    keys: &[&str],
    value: &str,
) -> Result<Splice, String> {
    let Kind::Mapping { entries, flow } = &document.nodes[mapping].kind else {
        return Err("it is not a mapping".to_owned());
    };
    let Some((first, _)) = entries.first() else { return Err("the mapping is empty".to_owned()) };
    let Some((last_key, last)) = entries.last() else { return Err("the mapping is empty".to_owned()) };
    if *flow {
        return flow_entry(text, document, mapping, (*last_key, *last), keys, value);
    }
    let column = document.nodes[*first].column;
    let lines = block(keys, value, column, step(document), eol(text));
    let end = end_of(text, document, *last_key, *last);
    Ok(match end {
        End::Inside(at) => {
            let at = line_end(text, at);
            Splice { at: at..at, text: format!("{}{lines}", eol(text)) }
        }
        End::LineStart(at) => Splice { at: at..at, text: format!("{lines}{}", eol(text)) },
    })
}

fn flow_entry(
    text: &str,
    document: &Document,
    mapping: NodeId,
    (last_key, last): (NodeId, NodeId),
    keys: &[&str],
    value: &str,
) -> Result<Splice, String> {
    let close = document.nodes[mapping].span.end - 1;
    let End::Inside(end) = end_of(text, document, last_key, last) else {
        return Err("a block in a flow mapping".to_owned());
    };
    let inside = flow(keys, value, is_json(document, Some(mapping)));
    let tail = text.get(end..close).unwrap_or_default();
    let key_start = document.nodes[last_key].span.start;
    let line_start = text[..key_start].rfind('\n').map_or(0, |i| i + 1);
    let before = &text[line_start..key_start];
    let own_line = line_start > document.nodes[mapping].span.start && before.trim().is_empty();
    let gap = if own_line { format!("{}{before}", eol(text)) } else { " ".to_owned() };
    let blank = tail.len() - tail.trim_start().len();
    if tail[blank..].starts_with(',') {
        let at = end + blank + 1;
        return Ok(Splice { at: at..at, text: format!("{gap}{inside}") });
    }
    Ok(Splice { at: end..end, text: format!(",{gap}{inside}") })
}

/// Puts `keys: value` where nothing, a null or an empty mapping stands.
fn fill(
    text: &str,
    document: &Document,
    parent: Option<(NodeId, NodeId)>,
    id: NodeId,
    keys: &[&str],
    value: &str,
) -> Result<Splice, String> {
    let node = &document.nodes[id];
    let Some((mapping, key)) = parent else {
        if node.span.is_empty() {
            return Ok(at_end(text, document, keys, value));
        }
        return Ok(Splice { at: node.span.clone(), text: format!("{{{}}}", flow(keys, value, true)) });
    };
    let parent_flow = matches!(document.nodes[mapping].kind, Kind::Mapping { flow: true, .. });
    let span: Range<usize> = if node.span.is_empty() {
        let colon = colon_after(text, document.nodes[key].span.end)?;
        colon..colon
    } else {
        let start = text[..node.span.start].trim_end_matches([' ', '\t']).len();
        start..node.span.end
    };
    if parent_flow {
        let text = format!(" {{{}}}", flow(keys, value, is_json(document, Some(mapping))));
        return Ok(Splice { at: span, text });
    }
    let column = document.nodes[document.entries(mapping)[0].0].column + step(document);
    let end = line_end(text, span.end);
    let lines = block(keys, value, column, step(document), eol(text));
    Ok(Splice { at: span.start..end, text: format!("{}{}{lines}", &text[span.end..end], eol(text)) })
}

/// A document without any content gets its first keys after its comments.
fn at_end(text: &str, document: &Document, keys: &[&str], value: &str) -> Splice {
    let range = document.range.clone();
    let body = &text[range.clone()];
    let lines = block(keys, value, 0, step(document), eol(text));
    let at = range.start + body.trim_end().len();
    let (gap, rest) = (if at == range.start { "" } else { eol(text) }, &text[at..range.end]);
    let tail = if rest.is_empty() { eol(text) } else { "" };
    Splice { at: at..at, text: format!("{gap}{lines}{tail}") }
}

/// Where the content of an entry ends.
enum End {
    /// In a line that may go on with a comment.
    Inside(usize),
    /// At the start of a line: a block scalar that keeps its empty lines.
    LineStart(usize),
}

fn end_of(text: &str, document: &Document, key: NodeId, value: NodeId) -> End {
    let node = &document.nodes[value];
    match &node.kind {
        Kind::Scalar { value, style: Style::Block, .. } => {
            if value.ends_with("\n\n") && text[..node.span.end].ends_with('\n') {
                return End::LineStart(node.span.end);
            }
            End::Inside(node.span.start + text[node.span.clone()].trim_end().len())
        }
        Kind::Scalar { .. } if node.span.is_empty() => End::Inside(document.nodes[key].span.end),
        Kind::Sequence { items, flow: false } => match items.last() {
            Some(last) if !document.nodes[*last].span.is_empty() || !is_scalar(document, *last) => {
                end_of(text, document, key, *last)
            }
            // an empty item: its dash stands somewhere after the one before it
            _ => End::Inside(node.span.start.max(document.nodes[key].span.end)),
        },
        Kind::Mapping { entries, flow: false } => match entries.last() {
            Some((key, value)) => end_of(text, document, *key, *value),
            None => End::Inside(node.span.end),
        },
        _ => End::Inside(node.span.end),
    }
}

fn is_scalar(document: &Document, id: NodeId) -> bool {
    matches!(document.nodes[id].kind, Kind::Scalar { .. })
}

/// `keys: value` as lines of a block mapping, without the last line's end.
fn block(keys: &[&str], value: &str, column: usize, step: usize, eol: &str) -> String {
    let mut out = String::new();
    for (i, key) in keys.iter().enumerate() {
        if i > 0 {
            out.push_str(eol);
        }
        out.push_str(&" ".repeat(column + i * step));
        out.push_str(&encode_key(key));
        out.push(':');
    }
    out.push(' ');
    out.push_str(&encode(value, Style::Plain, None));
    out
}

/// `k1: {k2: value}`.
fn flow(keys: &[&str], value: &str, json: bool) -> String {
    let mut out = String::new();
    for (i, key) in keys.iter().enumerate() {
        if i > 0 {
            out.push('{');
        }
        out.push_str(&if json { format!("\"{}\"", escape_double(key)) } else { encode_key(key) });
        out.push_str(": ");
    }
    out.push_str(&encode(value, if json { Style::Double } else { Style::Plain }, None));
    out.push_str(&"}".repeat(keys.len().saturating_sub(1)));
    out
}

fn encode_key(key: &str) -> String {
    if is_plain(key) && !is_typed(key) { key.to_owned() } else { format!("\"{}\"", escape_double(key)) }
}

/// Whether keys and values stand in double quotes here.
fn is_json(document: &Document, mapping: Option<NodeId>) -> bool {
    let quoted = |id: NodeId| match &document.nodes[id].kind {
        Kind::Mapping { entries, flow: true } => entries
            .first()
            .map(|(key, _)| matches!(document.nodes[*key].kind, Kind::Scalar { style: Style::Double, .. })),
        _ => None,
    };
    mapping.and_then(quoted).or_else(|| quoted(document.root)).unwrap_or(false)
}

/// The first indentation of one mapping in another; 2 when there is none.
fn step(document: &Document) -> usize {
    let column = |id: NodeId| match &document.nodes[id].kind {
        Kind::Mapping { entries, flow: false } => entries.first().map(|(key, _)| document.nodes[*key].column),
        _ => None,
    };
    document
        .nodes
        .iter()
        .filter_map(|node| match &node.kind {
            Kind::Mapping { entries, flow: false } => Some(entries),
            _ => None,
        })
        .flat_map(|entries| entries.iter())
        .find_map(|(key, value)| {
            column(*value)?.checked_sub(document.nodes[*key].column).filter(|s| (1..=8).contains(s))
        })
        .unwrap_or(2)
}

fn eol(text: &str) -> &'static str {
    match text.find('\n') {
        Some(at) if text[..at].ends_with('\r') => "\r\n",
        _ => "\n",
    }
}

/// Where the line of `at` ends, before its line break.
fn line_end(text: &str, at: usize) -> usize {
    let end = text[at..].find('\n').map_or(text.len(), |i| at + i);
    if end > at && text[..end].ends_with('\r') { end - 1 } else { end }
}

fn colon_after(text: &str, at: usize) -> Result<usize, String> {
    let rest = &text[at..];
    let blank = rest.len() - rest.trim_start_matches([' ', '\t']).len();
    if rest[blank..].starts_with(':') { Ok(at + blank + 1) } else { Err("a key without a colon".to_owned()) }
}
