//! One scalar: a whole reference, one with variables, several in one string, or YAML or JSON inside a string.

use std::ops::Range;

use ferry_image::Reference;

use super::{MAX_STRINGS, Walk, variable, walk};
use crate::finding::{Confidence, Finding, Inner, Part, Role, Shape};
use crate::splice::Map;
use crate::tree::{self, Kind, NodeId, Style};
use crate::words::{self, Level};

impl Walk<'_> {
    /// Looks at a scalar whose key says `level`.
    pub(super) fn string(&mut self, site: NodeId, level: Level, shape: Shape) {
        let doc = self.doc;
        let Some(text) = doc.text(site) else { return };
        let value = text.trim();
        if value.is_empty() {
            return;
        }
        let at = text.len() - text.trim_start().len();
        let range = at..at + value.len();
        let one_word = !value.contains(char::is_whitespace);
        if one_word && (value.starts_with("docker://") || value.starts_with("oci://")) {
            return self.address(site, value, range, shape);
        }
        if level > Level::None && !value.contains('\n') {
            if let Some(reason) = not_an_image(value, level) {
                let path = self.here();
                return self.unresolvable(site, path, value, shape, reason);
            }
            if value.contains('$') && variable::is_one_word(value) {
                return self.variable(site, value, range, level);
            }
        }
        if one_word && let Some((reference, confidence)) = accept(value, level) {
            return self.whole(site, value, range, reference, confidence, shape);
        }
        if one_word && !value.contains([',', '=', '{', '[']) {
            // a pattern, or a picture somewhere, is no image
            if level == Level::Exact && !value.contains("://") && !value.contains('*') {
                let (path, reason) = (self.here(), "it is no reference as registries know them".to_owned());
                self.unresolvable(site, path, value, shape, reason);
            }
            return;
        }
        if !self.document_in(site, text) {
            self.several(site, text, level);
        }
    }

    /// `docker://REF`, as what pulls by itself names an image; `oci://…` names a chart or something else.
    fn address(&mut self, site: NodeId, value: &str, range: Range<usize>, shape: Shape) {
        let shape = if shape == Shape::Value { Shape::Whole } else { shape };
        let Some(rest) = value.strip_prefix("docker://") else {
            let path = self.here();
            let reason =
                "`oci://` names a chart or another artifact, which is neither carried nor rewritten".to_owned();
            return self.unresolvable(site, path, value, shape, reason);
        };
        let at = range.end - rest.len()..range.end;
        if let Some((reference, confidence)) = accept(rest, Level::Exact) {
            self.whole(site, rest, at, reference, confidence, shape);
            if let Some(finding) = self.out.last_mut() {
                value.clone_into(&mut finding.value);
            }
        } else if let Some(reason) = not_an_image(rest, Level::Exact) {
            let path = self.here();
            self.unresolvable(site, path, value, shape, reason);
        }
    }

    fn whole(
        &mut self,
        site: NodeId,
        value: &str,
        range: Range<usize>,
        reference: Reference,
        confidence: Confidence,
        shape: Shape,
    ) {
        let path = self.here();
        let node = self.doc.resolve(site);
        let (range, inner) = match &self.doc.nodes[node].kind {
            Kind::Scalar { value, style, .. } if *style != Style::Block && value.len() == range.len() => {
                (None, Inner::Token(*style))
            }
            _ => (Some(range), Inner::Literal),
        };
        let part = Part {
            role: Role::Whole,
            node,
            site,
            path: path.clone(),
            range,
            inner,
            current: value.to_owned(),
            elsewhere: None,
        };
        let reason = (confidence == Confidence::ByValue).then(|| "only the value looks like an image".to_owned());
        let finding = Finding {
            line: self.line(site),
            path,
            value: value.to_owned(),
            reference: Some(reference),
            shape,
            confidence,
            reason,
            parts: vec![part],
            document: self.document,
            site,
        };
        self.report(finding);
    }

    /// `${VAR:-default}` somewhere in it.
    fn variable(&mut self, site: NodeId, value: &str, range: Range<usize>, level: Level) {
        match variable::resolve(value) {
            Err(name) if level >= Level::Strong => {
                let path = self.here();
                let reason = format!("the variable `{name}` has no default here");
                self.unresolvable(site, path, value, Shape::Variable, reason);
            }
            Err(_) => {}
            Ok(resolved) => {
                if let Some((reference, confidence)) = accept(&resolved, level) {
                    self.whole(site, value, range, reference, confidence, Shape::Variable);
                }
            }
        }
    }

    /// An argument that stands alone or after a flag of `level`.
    pub(super) fn argument(&mut self, site: NodeId, level: Level) {
        let Some(text) = self.doc.text(site) else { return };
        if let (true, Some(reason)) = (level > Level::None, not_an_image(text, level)) {
            let path = self.here();
            return self.unresolvable(site, path, text, Shape::Arg, reason);
        }
        let Some((reference, slash, pinned)) = words::parse(text) else {
            // a script or a configuration in one argument
            if text.contains(char::is_whitespace) && level == Level::None {
                self.string(site, level, Shape::Arg);
            }
            return;
        };
        let confidence = match level {
            Level::None if words::by_value(text).is_some() => Confidence::ByValue,
            Level::None => return,
            _ if pinned || (slash && level >= Level::Strong) => Confidence::Certain,
            _ => return,
        };
        self.whole(site, text, 0..text.len(), reference, confidence, Shape::Arg);
    }

    /// `--flag=REF` and `NAME=REF` as an item of a list; true when it has that form.
    pub(super) fn assignment(&mut self, site: NodeId, text: &str) -> bool {
        let Some((name, value)) = assigned(text) else { return false };
        let level = words::level(name.trim_start_matches('-'));
        let accepted = match words::parse(value) {
            Some((reference, slash, pinned))
                if level > Level::None && (pinned || (slash && level >= Level::Strong)) =>
            {
                Some((reference, Confidence::Certain))
            }
            _ => words::by_value(value).map(|reference| (reference, Confidence::ByValue)),
        };
        let shape = if name.starts_with('-') { Shape::Arg } else { Shape::Env };
        if let Some((reference, confidence)) = accepted {
            self.whole(site, value, text.len() - value.len()..text.len(), reference, confidence, shape);
            if let Some(finding) = self.out.last_mut() {
                text.clone_into(&mut finding.value);
            }
        }
        true
    }

    /// Several references in one string: `key=REF` lines, lines of REF, `REF,REF`.
    fn several(&mut self, site: NodeId, text: &str, level: Level) {
        let mut found: Vec<(Option<&str>, Range<usize>, Reference, bool)> = Vec::new();
        let mut others = false;
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            let trimmed = line.trim();
            if !trimmed.starts_with('#') {
                let mut flag = None;
                for (from, token) in tokens(line, at) {
                    let (name, value) = assigned(token).map_or((flag, token), |(name, value)| (Some(name), value));
                    flag = words::is_flag(token).then_some(token);
                    let from = from + token.len() - value.len();
                    // a flag in a command line says what it takes
                    let said = name.filter(|name| name.starts_with('-'));
                    let said = said.is_some_and(|name| words::level(name.trim_start_matches('-')) >= Level::Strong);
                    let parsed = match words::parse(value) {
                        Some((reference, slash, pinned)) if level > Level::None && (slash || pinned) => Some(reference),
                        Some((reference, _, true)) if said => Some(reference),
                        _ => words::by_value(value),
                    };
                    match parsed {
                        Some(reference) => found.push((name, from..from + value.len(), reference, said)),
                        None => others = true,
                    }
                }
            }
            at += line.len();
        }
        if others {
            // among other text only `key=REF` and `--image REF` speak for themselves
            found.retain(|(name, _, reference, said)| *said || (name.is_some() && reference.written().contains('/')));
        }
        let here = self.here();
        for (i, (name, range, reference, said)) in found.into_iter().enumerate() {
            let confidence = if said || level > Level::None { Confidence::Certain } else { Confidence::ByValue };
            let value = text[range.clone()].to_owned();
            self.whole(site, &value, range, reference, confidence, Shape::Text);
            if let Some(finding) = self.out.last_mut() {
                finding.path = match name {
                    Some(name) => format!("{here}::{name}"),
                    None => format!("{here}::[{i}]"),
                };
            }
        }
    }

    /// YAML or JSON inside a string; true when it is.
    fn document_in(&mut self, site: NodeId, text: &str) -> bool {
        let start = text.trim_start();
        let json = start.starts_with(['{', '[']);
        if self.inside >= MAX_STRINGS
            || start.starts_with("{{")
            || !(json || (text.contains('\n') && text.contains(':')))
        {
            return false;
        }
        let stream = tree::parse(text);
        let collection =
            |d: &tree::Document| matches!(d.nodes[d.root].kind, Kind::Mapping { .. } | Kind::Sequence { .. });
        if stream.documents.is_empty() || !stream.refused.is_empty() || !stream.documents.iter().any(collection) {
            return false;
        }
        let here = self.here();
        for (i, inner) in stream.documents.iter().enumerate() {
            for mut finding in walk(inner, i, stream.count > 1, self.inside + 1) {
                finding.path = format!("{here}::{}", finding.path);
                finding.line = self.line(site);
                finding.document = self.document;
                finding.site = site;
                for part in &mut finding.parts {
                    self.lift(part, inner, text, site, &here);
                }
                self.report(finding);
            }
        }
        true
    }

    /// Turns a piece of an inner document into a piece of the string it stands in.
    fn lift(&self, part: &mut Part, inner: &tree::Document, text: &str, site: NodeId, here: &str) {
        let node = &inner.nodes[part.node];
        let lifted = match (&part.range, part.inner) {
            (_, Inner::Fixed) => None,
            (Some(range), how) => Map::of(node, text).locate(range).map(|at| (at, how)),
            (None, _) => match &node.kind {
                // between the quotes, where nothing is escaped
                Kind::Scalar { value, style: Style::Single | Style::Double, .. }
                    if text.get(node.span.start + 1..node.span.end - 1) == Some(value) =>
                {
                    Some((node.span.start + 1..node.span.end - 1, Inner::Literal))
                }
                Kind::Scalar { style: Style::Plain, .. } => Some((node.span.clone(), Inner::Token(Style::Plain))),
                _ => None,
            },
        };
        part.node = self.doc.resolve(site);
        part.site = site;
        part.path = format!("{here}::{}", part.path);
        match lifted {
            Some((range, how)) => (part.range, part.inner) = (Some(range), how),
            None => part.inner = Inner::Fixed,
        }
        if part.role == Role::NewName {
            part.inner = Inner::Fixed;
        }
    }
}

/// Whether a value is accepted as an image under a key of `level`, and how sure that is.
fn accept(value: &str, level: Level) -> Option<(Reference, Confidence)> {
    let (reference, slash, pinned) = words::parse(value)?;
    let confidence = match level {
        _ if level > Level::None && words::is_word(value) => return None,
        Level::Exact => Confidence::Certain,
        Level::Strong if slash || pinned => Confidence::Certain,
        Level::Some if pinned => Confidence::Certain,
        Level::Strong => Confidence::ByValue,
        Level::Some if slash => Confidence::ByValue,
        Level::Some => return None,
        Level::None => return words::by_value(value).map(|reference| (reference, Confidence::ByValue)),
    };
    Some((reference, confidence))
}

/// What stands in an image's place and is none.
fn not_an_image(value: &str, level: Level) -> Option<String> {
    if value.starts_with("ko://") {
        return Some("`ko://` is built, not pulled".to_owned());
    }
    if level >= Level::Strong && (value.contains("{{") || value.contains("$(")) {
        return Some("a template fills it in".to_owned());
    }
    let placeholder = value.contains(['<', '%']) && !value.contains(char::is_whitespace) && !value.contains("://");
    (level == Level::Exact && placeholder).then(|| "a placeholder stands in it".to_owned())
}

/// Splits `NAME=VALUE` and `--flag=VALUE`.
fn assigned(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.split_once('=')?;
    let fits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    fits.then_some((name, value))
}

/// The words of a line, split at white space and commas, with their place.
fn tokens(line: &str, at: usize) -> impl Iterator<Item = (usize, &str)> {
    let start = line.as_ptr() as usize;
    line.split(|c: char| c.is_whitespace() || c == ',')
        .filter(|token| !token.is_empty())
        .map(move |token| (at + (token.as_ptr() as usize - start), token))
}
