//! YAML and JSON as nodes with byte spans: the only module that knows the parser.
//!
//! Not here: what a node means. A document that does not parse is refused by line and the next one goes on.
//! Aliases are kept as aliases and never expanded, so that a text cannot grow in memory.

use std::collections::HashMap;
use std::ops::Range;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, StructureStyle};

use crate::finding::Refused;

/// The longest text that is looked at, in bytes.
pub(crate) const MAX_TEXT: usize = 16 << 20;
/// The deepest nesting that is followed.
const MAX_DEPTH: usize = 100;

/// An index into [`Document::nodes`].
pub(crate) type NodeId = usize;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Single,
    Double,
    /// Literal or folded.
    Block,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Scalar { value: String, style: Style, tagged: bool },
    Sequence { items: Vec<NodeId>, flow: bool },
    Mapping { entries: Vec<(NodeId, NodeId)>, flow: bool },
    Alias { target: NodeId },
}

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    /// Bytes of the text: a scalar's token (its content for a block scalar), a collection from its first byte to its last.
    pub(crate) span: Range<usize>,
    /// 1-based; where a block scalar's indicator stands.
    pub(crate) line: usize,
    /// 0-based, in characters.
    pub(crate) column: usize,
    pub(crate) anchored: bool,
}

/// One document that parsed.
#[derive(Debug)]
pub(crate) struct Document {
    /// 0-based among all documents of the text, refused ones included.
    pub(crate) index: usize,
    /// 1-based.
    pub(crate) line: usize,
    /// From its first byte to the first byte of the next document.
    pub(crate) range: Range<usize>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) root: NodeId,
}

/// A text taken apart.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) documents: Vec<Document>,
    pub(crate) refused: Vec<Refused>,
    /// All documents, refused ones included.
    pub(crate) count: usize,
    /// Where each document begins, in order.
    starts: Vec<usize>,
}

impl Document {
    /// The node itself, or the anchored one that an alias means.
    pub(crate) fn resolve(&self, id: NodeId) -> NodeId {
        match self.nodes[id].kind {
            Kind::Alias { target } => target,
            _ => id,
        }
    }

    /// The value of a scalar, through an alias.
    pub(crate) fn scalar(&self, id: NodeId) -> Option<&str> {
        match &self.nodes[self.resolve(id)].kind {
            Kind::Scalar { value, .. } => Some(value),
            _ => None,
        }
    }

    /// The value of a scalar that is a string or may be read as one: not null.
    pub(crate) fn text(&self, id: NodeId) -> Option<&str> {
        match &self.nodes[self.resolve(id)].kind {
            Kind::Scalar { value, style: Style::Plain, .. } if is_null(value) => None,
            Kind::Scalar { value, .. } => Some(value),
            _ => None,
        }
    }

    /// The entries of a mapping; none for anything else, and none through an alias.
    pub(crate) fn entries(&self, id: NodeId) -> &[(NodeId, NodeId)] {
        match &self.nodes[id].kind {
            Kind::Mapping { entries, .. } => entries,
            _ => &[],
        }
    }

    /// The value under `key` in a mapping.
    pub(crate) fn entry(&self, id: NodeId, key: &str) -> Option<NodeId> {
        self.entries(id).iter().find(|(k, _)| self.scalar(*k) == Some(key)).map(|(_, v)| *v)
    }

    /// Whether nothing stands in it.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(&self.nodes[self.root].kind, Kind::Scalar { style: Style::Plain, .. } if self.nodes[self.root].span.is_empty())
    }

    /// `kind:` at the root.
    pub(crate) fn kind(&self) -> Option<&str> {
        self.entry(self.root, "kind").and_then(|id| self.scalar(id))
    }
}

/// Whether a plain scalar means null.
pub(crate) fn is_null(value: &str) -> bool {
    matches!(value, "" | "~" | "null" | "Null" | "NULL")
}

/// Takes `text` apart.
pub(crate) fn parse(text: &str) -> Stream {
    let mut stream = Stream::default();
    if text.len() > MAX_TEXT {
        let reason = format!("the text has {} bytes, the limit is {MAX_TEXT}", text.len());
        stream.refused.push(Refused { line: 1, reason });
        return stream;
    }
    let mut options = granit_parser::options! { flow_nesting_limit: MAX_DEPTH, block_nesting_limit: MAX_DEPTH };
    options.set_emit_comments(false);
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut builder = Builder::new(text);
    loop {
        match parser.next_event() {
            None | Some(Ok((Event::StreamEnd, _))) => break,
            Some(Ok((event, span))) => builder.event(&mut stream, event, &span),
            Some(Err(error)) => {
                builder.fail(&mut stream, &error);
                if !matches!(parser.proceed_next_document(), Ok(true)) {
                    break;
                }
            }
        }
    }
    close_ranges(&mut stream, text);
    stream
}

fn close_ranges(stream: &mut Stream, text: &str) {
    let mut end = text.len();
    let mut starts = stream.starts.iter().copied().rev().peekable();
    for document in stream.documents.iter_mut().rev() {
        while let Some(start) = starts.next_if(|start| *start > document.range.start) {
            end = start;
        }
        document.range.end = end;
    }
}

/// An open collection.
struct Open {
    id: NodeId,
    /// A mapping's key that waits for its value.
    key: Option<NodeId>,
}

struct Builder<'a> {
    text: &'a str,
    started: bool,
    /// Why the document is refused although it parses.
    template: Option<usize>,
    start: usize,
    line: usize,
    nodes: Vec<Node>,
    open: Vec<Open>,
    root: Option<NodeId>,
    anchors: HashMap<usize, NodeId>,
}

impl<'a> Builder<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            started: false,
            template: None,
            start: 0,
            line: 1,
            nodes: Vec::new(),
            open: Vec::new(),
            root: None,
            anchors: HashMap::new(),
        }
    }

    fn event(&mut self, stream: &mut Stream, event: Event<'_>, span: &granit_parser::Span) {
        let range = span.byte_range().unwrap_or(0..0);
        match event {
            Event::DocumentStart(..) => {
                self.started = true;
                self.template = None;
                (self.start, self.line) = (range.start, span.start.line());
                stream.starts.push(range.start);
                self.nodes = Vec::new();
                self.open.clear();
                self.root = None;
                self.anchors.clear();
            }
            Event::DocumentEnd => self.finish(stream),
            Event::Scalar(value, style, anchor, tag) => {
                let node = self.scalar(value.into_owned(), style, tag.is_some(), range, span);
                self.push(node, anchor);
            }
            Event::SequenceStart(style, anchor, _) => {
                let kind = Kind::Sequence { items: Vec::new(), flow: style == StructureStyle::Flow };
                let id = self.push(node(kind, range, span), anchor);
                self.open.push(Open { id, key: None });
            }
            Event::MappingStart(style, anchor, _) => {
                let flow = style == StructureStyle::Flow;
                if flow && self.opens_template(range.start) {
                    self.template.get_or_insert(span.start.line());
                }
                let id = self.push(node(Kind::Mapping { entries: Vec::new(), flow }, range, span), anchor);
                self.open.push(Open { id, key: None });
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.open.pop() {
                    self.nodes[open.id].span.end = range.end;
                }
            }
            Event::Alias(anchor) => {
                if let Some(target) = self.anchors.get(&anchor).copied() {
                    self.push(node(Kind::Alias { target }, range, span), 0);
                }
            }
            _ => {}
        }
    }

    /// `{{` outside quotes: a Go template that happens to parse as a mapping in a mapping.
    fn opens_template(&self, at: usize) -> bool {
        self.text[at..].starts_with("{{")
    }

    fn scalar(
        &self,
        value: String,
        style: ScalarStyle,
        tagged: bool,
        mut range: Range<usize>,
        span: &granit_parser::Span,
    ) -> Node {
        let mut line = span.start.line();
        let style = match style {
            ScalarStyle::SingleQuoted => Style::Single,
            ScalarStyle::DoubleQuoted => Style::Double,
            ScalarStyle::Literal | ScalarStyle::Folded => {
                // the span starts at the content and ends in the next line's indentation
                let header = self.text[..range.start].trim_end().len();
                line -= self.text[header..range.start].bytes().filter(|b| *b == b'\n').count().min(line - 1);
                let end = self.text[range.clone()].rfind('\n').map_or(range.end, |i| range.start + i + 1);
                if self.text[end..range.end].trim_matches([' ', '\t']).is_empty() {
                    range.end = end;
                }
                Style::Block
            }
            _ => Style::Plain,
        };
        // an absent value comes as `~` with an empty span
        let value = if style == Style::Plain && range.is_empty() { String::new() } else { value };
        Node {
            kind: Kind::Scalar { value, style, tagged },
            span: range,
            line,
            column: span.start.col(),
            anchored: false,
        }
    }

    fn push(&mut self, mut node: Node, anchor: usize) -> NodeId {
        let id = self.nodes.len();
        node.anchored = anchor > 0;
        if anchor > 0 {
            self.anchors.insert(anchor, id);
        }
        self.nodes.push(node);
        match self.open.last_mut() {
            None => {
                self.root.get_or_insert(id);
            }
            Some(open) => match &mut self.nodes[open.id].kind {
                Kind::Sequence { items, .. } => items.push(id),
                Kind::Mapping { entries, .. } => match open.key.take() {
                    None => open.key = Some(id),
                    Some(key) => entries.push((key, id)),
                },
                _ => {}
            },
        }
        id
    }

    fn finish(&mut self, stream: &mut Stream) {
        self.started = false;
        let index = stream.count;
        stream.count += 1;
        let Some(root) = self.root else { return };
        if let Some(line) = self.template {
            stream.refused.push(Refused { line, reason: TEMPLATE.to_owned() });
            return;
        }
        stream.documents.push(Document {
            index,
            line: self.line,
            range: self.start..self.text.len(),
            nodes: std::mem::take(&mut self.nodes),
            root,
        });
    }

    fn fail(&mut self, stream: &mut Stream, error: &ScanError) {
        stream.count += 1;
        let start = if self.started { self.start } else { 0 };
        let at = error.marker().byte_offset().unwrap_or(start).min(self.text.len());
        // the line of the error and those before it in this document: a template directive stands there if it is one
        let seen = self.text.get(start.min(at)..).unwrap_or_default();
        let upto = (at - start.min(at)).min(seen.len());
        let line_end = seen.as_bytes()[upto..].iter().position(|b| *b == b'\n').map_or(seen.len(), |i| upto + i);
        let reason = match error.kind() {
            _ if seen.get(..line_end).is_some_and(|s| s.contains("{{")) || self.template.is_some() => {
                TEMPLATE.to_owned()
            }
            ErrorKind::RecursionLimitExceeded => {
                format!("nested deeper than {MAX_DEPTH}")
            }
            kind => format!("not YAML: {kind}"),
        };
        stream.refused.push(Refused { line: error.marker().line().max(1), reason });
        self.started = false;
    }
}

const TEMPLATE: &str = "a Go template, not YAML: render it first";

fn node(kind: Kind, span: Range<usize>, at: &granit_parser::Span) -> Node {
    Node { kind, span, line: at.start.line(), column: at.start.col(), anchored: false }
}
