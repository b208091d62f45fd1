//! What to edit in one document: decisions turned into new scalar values, shared scalars agreed upon.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use ferry_image::{Reference, Target};

use crate::finding::{Finding, Inner, Role};
use crate::pieces::pieces;
use crate::rewrite::{Change, Note};
use crate::splice::{Map, Splice, encode, escape_double};
use crate::tree::{Document, Kind, NodeId, Style};

/// What to do about a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is fine as it stands.
    Leave,
    /// It is not carried.
    Report,
    /// It is carried, but has no name at the target that can be written.
    Fail(String),
    /// It becomes this.
    Move(Reference),
}

/// The edits of one document.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) splices: Vec<Splice>,
    /// The decoded value that each edited scalar shall have.
    pub(crate) values: HashMap<NodeId, String>,
    /// Mapping, key, value.
    pub(crate) inserts: Vec<(NodeId, String, String)>,
    pub(crate) changes: Vec<Change>,
    pub(crate) report: Vec<Finding>,
    pub(crate) notes: Vec<Note>,
    moved: Vec<Finding>,
}

impl Plan {
    /// Takes all edits back and reports what would have been edited.
    pub(crate) fn abandon(&mut self) {
        self.splices.clear();
        self.values.clear();
        self.inserts.clear();
        self.changes.clear();
        self.notes.clear();
        for mut finding in std::mem::take(&mut self.moved) {
            finding.reason = Some("carried, but its document could not be edited".to_owned());
            self.report.push(finding);
        }
    }
}

/// The new text of each part of `finding`.
pub(crate) fn values(finding: &Finding, new: &Reference, common: Option<&Target>) -> Result<Vec<String>, String> {
    let Some(written) = &finding.reference else { return Err("it is not known what it means".to_owned()) };
    if finding.parts.iter().any(|p| p.inner == Inner::Fixed) {
        return Err("it stands in a string in a way that cannot be edited safely".to_owned());
    }
    let values = pieces(finding, written, new, common)?;
    for (part, value) in finding.parts.iter().zip(&values) {
        if let Some(place) = part.elsewhere.as_ref().filter(|_| *value != part.current) {
            return Err(format!(
                "it is carried, but `{}` stands in {place} and would have to become `{value}` there: use a `set:` rule",
                part.current
            ));
        }
    }
    Ok(values)
}

/// A finding on its way.
enum State {
    Stays,
    Moves { values: Vec<String>, common: bool },
    Blocked(Option<String>),
}

/// Where in the decoded scalar (all of it when absent), how it stands there, and the new text.
type Edit = (Option<Range<usize>>, Inner, String);

/// A piece of a scalar, the unit that several findings may share.
type Place = (NodeId, Option<(usize, usize)>);

pub(crate) fn plan(
    text: &str,
    document: &Document,
    findings: Vec<Finding>,
    decisions: Vec<Decision>,
    target: Option<&Target>,
) -> Plan {
    let mut states: Vec<State> = findings
        .iter()
        .zip(&decisions)
        .map(|(finding, decision)| match decision {
            Decision::Leave => State::Stays,
            Decision::Report => State::Blocked(None),
            Decision::Fail(reason) => State::Blocked(Some(reason.clone())),
            Decision::Move(new) => match values(finding, new, None) {
                Ok(values) => State::Moves { values, common: false },
                Err(reason) => State::Blocked(Some(reason)),
            },
        })
        .collect();
    agree(&findings, &decisions, &mut states, target);

    let mut plan = Plan::default();
    let mut edits: HashMap<NodeId, Vec<Edit>> = HashMap::new();
    for (mut finding, state) in findings.into_iter().zip(states) {
        match state {
            State::Stays => {}
            State::Blocked(reason) => {
                finding.reason = reason.or(finding.reason);
                plan.report.push(finding);
            }
            State::Moves { values, .. } => {
                let after = joined(&finding, &values);
                for (part, value) in finding.parts.iter().zip(values) {
                    if part.role == Role::NewName {
                        plan.inserts.push((part.node, "newName".to_owned(), value));
                    } else if value != part.current {
                        edits.entry(part.node).or_default().push((part.range.clone(), part.inner, value));
                    }
                }
                plan.changes.push(Change {
                    line: finding.line,
                    path: finding.path.clone(),
                    before: finding.value.clone(),
                    after,
                });
                plan.moved.push(finding);
            }
        }
    }
    note_other_users(document, &edits, &mut plan);
    note_default_registries(&mut plan);
    let mut unplaced = HashSet::new();
    for (node, mut edits) in edits {
        edits.sort_by_key(|(range, ..)| range.as_ref().map_or(0, |r| r.start));
        edits.dedup();
        match scalar_edit(text, document, node, edits) {
            Some((splices, value)) => {
                plan.splices.extend(splices);
                plan.values.insert(node, value);
            }
            None => {
                unplaced.insert(node);
            }
        }
    }
    if !unplaced.is_empty() {
        plan.give_up(&unplaced);
    }
    plan
}

impl Plan {
    /// Reports what stands in scalars that cannot be edited. Other pieces of the same references are not edited either.
    fn give_up(&mut self, unplaced: &HashSet<NodeId>) {
        let (lost, kept): (Vec<Finding>, Vec<Finding>) = std::mem::take(&mut self.moved)
            .into_iter()
            .partition(|f| f.parts.iter().any(|p| unplaced.contains(&p.node)));
        self.moved = kept;
        if lost.iter().any(|f| f.parts.len() > 1) {
            self.moved.extend(lost);
            return self.abandon();
        }
        for mut finding in lost {
            self.changes.retain(|c| c.path != finding.path || c.line != finding.line);
            finding.reason = Some("it stands in a string in a way that cannot be edited safely".to_owned());
            self.report.push(finding);
        }
    }
}

/// Pieces that several references share must become the same for all of them, or stay.
fn agree(findings: &[Finding], decisions: &[Decision], states: &mut [State], target: Option<&Target>) {
    let mut users: HashMap<Place, Vec<(usize, usize)>> = HashMap::new();
    for (f, finding) in findings.iter().enumerate() {
        for (p, part) in finding.parts.iter().enumerate().filter(|(_, part)| part.elsewhere.is_none()) {
            users.entry((part.node, part.range.as_ref().map(|r| (r.start, r.end)))).or_default().push((f, p));
        }
    }
    users.retain(|_, users| users.len() > 1);
    let mut places: Vec<_> = users.into_iter().collect();
    places.sort_by_key(|(place, _)| *place);
    loop {
        let mut changed = false;
        for (_, users) in &places {
            let wish = |states: &[State], f: usize, p: usize| match &states[f] {
                State::Moves { values, .. } => values[p].clone(),
                _ => findings[f].parts[p].current.clone(),
            };
            let first = wish(states, users[0].0, users[0].1);
            if users.iter().all(|(f, p)| wish(states, *f, *p) == first) {
                continue;
            }
            let other = users.iter().find(|(f, _)| !matches!(states[*f], State::Moves { .. }));
            for (f, p) in users {
                let State::Moves { common, .. } = &states[*f] else { continue };
                changed = true;
                let shorter = match (&decisions[*f], *common) {
                    (Decision::Move(new), false) => values(&findings[*f], new, target).ok(),
                    _ => None,
                };
                states[*f] = match shorter {
                    Some(values) => State::Moves { values, common: true },
                    None => State::Blocked(Some(disagreement(findings, *f, *p, other.or(users.first())))),
                };
            }
        }
        if !changed {
            return;
        }
    }
}

fn disagreement(findings: &[Finding], f: usize, p: usize, other: Option<&(usize, usize)>) -> String {
    let piece = &findings[f].parts[p].current;
    match other {
        Some((o, _)) if *o != f => format!(
            "it is carried, but shares `{piece}` with `{}` (line {}), which needs another value there",
            findings[*o].value, findings[*o].line
        ),
        _ => format!("it is carried, but shares `{piece}` with other images that need another value there"),
    }
}

/// What a reference reads as after the edit.
fn joined(finding: &Finding, values: &[String]) -> String {
    let mut text = String::new();
    for (part, value) in finding.parts.iter().zip(values) {
        match part.role {
            Role::Tag => text.push(':'),
            Role::Digest => text.push('@'),
            _ if !text.is_empty() => text.push('/'),
            _ => {}
        }
        text.push_str(value);
    }
    // `--flag=REF` shows as it was shown before
    match finding.parts.first() {
        Some(part) if finding.parts.len() == 1 && finding.value != part.current => {
            finding.value.replace(&part.current, &text)
        }
        _ => text,
    }
}

/// A chart whose other images have a `registry` puts a default one before a `repository` that stands without.
fn note_default_registries(plan: &mut Plan) {
    let ends = |finding: &Finding, end: &str| finding.parts.iter().any(|p| p.path.ends_with(end));
    if !plan.moved.iter().chain(&plan.report).any(|f| ends(f, ".registry")) {
        return;
    }
    let alone = |f: &&Finding| {
        f.parts
            .first()
            .is_some_and(|p| p.path.ends_with(".repository") && p.role == Role::Segment && !has_host(&p.current))
    };
    for finding in plan.moved.iter().filter(alone) {
        let message = format!(
            "`{}` now holds the host, as no `registry` stands beside it; if the chart puts a default registry before it, add a \
             `set:` rule of the form `registry+repository+tag`",
            finding.parts[0].path
        );
        plan.notes.push(Note { line: finding.line, message });
    }
}

fn has_host(name: &str) -> bool {
    name.split_once('/').is_some_and(|(host, _)| host.contains(['.', ':']) || host == "localhost")
}

/// An anchor serves all its aliases; say so where one of them is no image.
fn note_other_users(document: &Document, edits: &HashMap<NodeId, Vec<Edit>>, plan: &mut Plan) {
    let anchored: HashSet<NodeId> = edits.keys().copied().filter(|n| document.nodes[*n].anchored).collect();
    if anchored.is_empty() {
        return;
    }
    let known: HashSet<NodeId> = plan.moved.iter().flat_map(|f| f.parts.iter().map(|p| p.site)).collect();
    for (id, node) in document.nodes.iter().enumerate() {
        if let Kind::Alias { target } = node.kind
            && anchored.contains(&target)
            && !known.contains(&id)
        {
            let line = document.nodes[target].line;
            let message = format!("the value anchored on line {line} was rewritten; its alias here changes with it");
            plan.notes.push(Note { line: node.line, message });
        }
    }
}

/// The splices of one scalar and the decoded value it shall have.
fn scalar_edit(text: &str, document: &Document, node: NodeId, edits: Vec<Edit>) -> Option<(Vec<Splice>, String)> {
    let scalar = &document.nodes[node];
    let Kind::Scalar { value, style, .. } = &scalar.kind else { return None };
    if let [(None, _, new)] = edits.as_slice() {
        let plain = (*style == Style::Plain).then_some(value.as_str());
        let raw = encode(new, *style, plain);
        return (*style != Style::Block).then(|| (vec![Splice { at: scalar.span.clone(), text: raw }], new.clone()));
    }
    let map = Map::of(scalar, text);
    let mut splices = Vec::new();
    let mut inside = Vec::new();
    for (range, inner, new) in edits {
        let range = range?;
        let at = map.locate(&range)?;
        if text.get(at.clone()) != value.get(range.clone()) {
            return None;
        }
        let new = match inner {
            Inner::Literal => new,
            Inner::Token(style) => encode(&new, style, value.get(range.clone())),
            Inner::Fixed => return None,
        };
        let raw = match style {
            Style::Double => escape_double(&new),
            Style::Single => new.replace('\'', "''"),
            _ => new.clone(),
        };
        splices.push(Splice { at, text: raw });
        inside.push(Splice { at: range, text: new });
    }
    let value = crate::splice::apply(value, &mut inside);
    Some((splices, value))
}

/// Whether `after` is `before` with exactly these scalars changed, and no string turned into something else.
pub(crate) fn as_meant(before: &Document, after: &Document, values: &HashMap<NodeId, String>) -> bool {
    let typed = |value: &str, style: Style| style == Style::Plain && crate::splice::is_typed(value);
    before.nodes.len() == after.nodes.len()
        && before.nodes.iter().zip(&after.nodes).enumerate().all(|(id, (old, new))| match (&old.kind, &new.kind) {
            (
                Kind::Scalar { value, style, tagged },
                Kind::Scalar { value: new_value, style: new_style, tagged: new_tagged },
            ) => match values.get(&id) {
                Some(wanted) => {
                    new_value == wanted
                        && tagged == new_tagged
                        && (typed(value, *style) || !typed(new_value, *new_style))
                }
                None => value == new_value && style == new_style && tagged == new_tagged,
            },
            (old, new) => old == new,
        })
}

/// Whether `after` is `before` with exactly these entries (mapping, key, value) added at the end of their mappings.
pub(crate) fn as_meant_with(before: &Document, after: &Document, inserts: &[(NodeId, String, String)]) -> bool {
    let scalars = |document: &Document| -> Vec<String> {
        document
            .nodes
            .iter()
            .map(|n| if let Kind::Scalar { value, .. } = &n.kind { value.clone() } else { String::new() })
            .collect()
    };
    let (old, new) = (scalars(before), scalars(after));
    let mut old = old.into_iter().peekable();
    let mut added = Vec::new();
    let mut new = new.into_iter();
    while let Some(value) = new.next() {
        if old.peek() == Some(&value) {
            old.next();
        } else {
            added.push((value, new.next().unwrap_or_default()));
        }
    }
    let mut wanted: Vec<(String, String)> =
        inserts.iter().map(|(_, key, value)| (key.clone(), value.clone())).collect();
    added.sort();
    wanted.sort();
    old.next().is_none() && added == wanted
}
