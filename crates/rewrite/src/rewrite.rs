//! Rewriting a text to where its images went, and checking that none is missing.
//!
//! The order: find; decide for every finding; splice; parse again and compare, refusing what differs; then the `set:`
//! rules, leaf by leaf, each compared in the same way. Line numbers are those of the text as given.

use std::collections::HashMap;

use ferry_image::{Ignore, Reference, Relocated, Relocation, SetRule, Target};
use serde::Serialize;

use crate::chart::Around;
use crate::finding::{Confidence, Finding, Refused};
use crate::in_document;
use crate::insert;
use crate::list::{find_list, is_list};
use crate::plan::{self, Decision};
use crate::set::{self, Unmet};
use crate::splice::{Splice, apply};
use crate::tree::{self, Document, Stream};

/// One value that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// 1-based, in the text as given. For an inserted key: where its document begins.
    pub line: usize,
    /// As [`Finding::path`] writes it.
    pub path: String,
    /// As written; empty for an inserted key.
    pub before: String,
    /// As written now.
    pub after: String,
}

/// Something the user should look at, although it is no failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// 1-based, in the text as given.
    pub line: usize,
    /// What, and why it matters.
    pub message: String,
}

/// A text after rewriting.
#[derive(Debug, Clone)]
pub struct Rewritten {
    /// The new text; the old one where nothing changed.
    pub text: String,
    /// What changed, in order of line.
    pub changes: Vec<Change>,
    /// References that are not carried, not under the target, not ignored and not overwritten by a rule; also those that are
    /// carried but cannot be edited where they stand (`reason` says why).
    pub uncarried: Vec<Finding>,
    /// Documents that were left alone.
    pub refused: Vec<Refused>,
    /// Rules that did nothing here, with why.
    pub unmet: Vec<Unmet>,
    /// Notes on what changed.
    pub notes: Vec<Note>,
}

/// A text after checking.
#[derive(Debug, Clone, Default)]
pub struct Checked {
    /// References that are neither carried, ignored nor overwritten by a rule.
    pub uncarried: Vec<Finding>,
    /// Documents that could not be looked at.
    pub refused: Vec<Refused>,
}

/// Which findings are not satisfied by `carried`, for the side where no target is known yet.
///
/// A rule counts as overwriting its place only when its own image is carried.
#[must_use]
pub fn check(
    text: &str,
    file_name: &str,
    carried: &dyn Fn(&Reference) -> bool,
    rules: &[SetRule],
    ignore: &[Ignore],
) -> Checked {
    check_around(text, file_name, &Around::default(), carried, rules, ignore)
}

/// [`check`], for a text of several that belong together.
#[must_use]
pub fn check_around(
    text: &str,
    file_name: &str,
    around: &Around,
    carried: &dyn Fn(&Reference) -> bool,
    rules: &[SetRule],
    ignore: &[Ignore],
) -> Checked {
    if is_list(file_name) {
        let found = find_list(text);
        let missing = |f: &Finding| f.reference.as_ref().is_none_or(|r| !carried(r) && !ignored(ignore, r));
        return Checked { uncarried: found.findings.into_iter().filter(missing).collect(), refused: found.refused };
    }
    let stream = tree::parse(text);
    let aims = set::aims(&stream, file_name, rules, &|rule| carried(&rule.image));
    let mut uncarried = Vec::new();
    for i in 0..stream.documents.len() {
        for finding in in_document(text, &stream, i, around) {
            let satisfied = finding.reference.as_ref().is_some_and(|r| carried(r) || ignored(ignore, r));
            if !satisfied && !aims.cover(&finding) {
                uncarried.push(finding);
            }
        }
    }
    Checked { uncarried, refused: stream.refused }
}

fn ignored(ignore: &[Ignore], reference: &Reference) -> bool {
    ignore.iter().any(|i| i.matches(reference))
}

/// Rewrites YAML, JSON or (by `file_name`) a plain list to the names at the target of `relocation`.
///
/// A second run on the result changes nothing.
#[must_use]
pub fn rewrite(
    text: &str,
    file_name: &str,
    relocation: &Relocation,
    rules: &[SetRule],
    ignore: &[Ignore],
) -> Rewritten {
    rewrite_around(text, file_name, &Around::default(), relocation, rules, ignore)
}

/// [`rewrite`], for a text of several that belong together.
#[must_use]
pub fn rewrite_around(
    text: &str,
    file_name: &str,
    around: &Around,
    relocation: &Relocation,
    rules: &[SetRule],
    ignore: &[Ignore],
) -> Rewritten {
    let desk = Desk::new(relocation, ignore);
    if is_list(file_name) {
        return desk.list(text, rules);
    }
    let stream = tree::parse(text);
    let aims = set::aims(&stream, file_name, rules, &|rule| relocation.lookup(&rule.image).is_some());
    let mut out = Rewritten {
        text: text.to_owned(),
        changes: Vec::new(),
        uncarried: Vec::new(),
        refused: stream.refused.clone(),
        unmet: Vec::new(),
        notes: Vec::new(),
    };
    desk.edit(text, &stream, around, &aims, &mut out);
    set::run(relocation, rules, &aims, &mut out);
    out.changes.sort_by_key(|c| c.line);
    out.uncarried.sort_by_key(|f| f.line);
    out.refused.sort_by_key(|r| r.line);
    out
}

/// What is needed to decide about one finding.
struct Desk<'a> {
    relocation: &'a Relocation,
    target: Option<Target>,
    ignore: &'a [Ignore],
    exact: HashMap<&'a Reference, &'a Relocated>,
}

impl<'a> Desk<'a> {
    fn new(relocation: &'a Relocation, ignore: &'a [Ignore]) -> Self {
        let exact = relocation.images.iter().map(|image| (&image.reference, image)).collect();
        Self { relocation, target: relocation.target.parse().ok(), ignore, exact }
    }

    fn lookup(&self, reference: &Reference) -> Option<&'a Relocated> {
        self.exact.get(reference).copied().or_else(|| self.relocation.lookup(reference))
    }

    /// What to do about one finding: move it, leave it, or report it.
    fn decide(&self, finding: &Finding) -> Decision {
        let Some(reference) = &finding.reference else {
            let there = self
                .target
                .as_ref()
                .is_some_and(|t| finding.value.strip_prefix(&t.to_string()).is_some_and(|rest| rest.starts_with('/')));
            return if there { Decision::Leave } else { Decision::Report };
        };
        if self.target.as_ref().is_some_and(|target| target.holds(reference)) {
            return Decision::Leave;
        }
        match self.lookup(reference) {
            Some(relocated) => match self.relocation.replacement(relocated, reference) {
                Ok(new) => Decision::Move(new),
                Err(error) => Decision::Fail(error.to_string()),
            },
            None if ignored(self.ignore, reference) => Decision::Leave,
            None => Decision::Report,
        }
    }

    fn list(&self, text: &str, rules: &[SetRule]) -> Rewritten {
        let found = find_list(text);
        let mut out = Rewritten {
            text: String::new(),
            changes: Vec::new(),
            uncarried: Vec::new(),
            refused: found.refused,
            unmet: set::none_met(rules),
            notes: Vec::new(),
        };
        let mut splices = Vec::new();
        for mut finding in found.findings {
            let moved = match self.decide(&finding) {
                Decision::Leave => continue,
                Decision::Report => Err(None),
                Decision::Fail(reason) => Err(Some(reason)),
                Decision::Move(new) => plan::values(&finding, &new, None).map_err(Some),
            };
            match moved {
                Ok(values) => {
                    for (part, value) in finding.parts.iter().zip(values) {
                        out.changes.push(Change {
                            line: finding.line,
                            path: finding.path.clone(),
                            before: finding.value.clone(),
                            after: value.clone(),
                        });
                        splices.extend(part.range.clone().map(|at| Splice { at, text: value }));
                    }
                }
                Err(reason) => {
                    finding.reason = reason.or(finding.reason);
                    out.uncarried.push(finding);
                }
            }
        }
        out.text = apply(text, &mut splices);
        out
    }

    /// Edits the documents and compares what comes out.
    fn edit(&self, text: &str, stream: &Stream, around: &Around, aims: &set::Aims, out: &mut Rewritten) {
        let mut plans = Vec::new();
        for (i, document) in stream.documents.iter().enumerate() {
            let mut findings = in_document(text, stream, i, around);
            findings.retain(|finding| !aims.cover(finding));
            let decisions = findings.iter().map(|f| self.decide(f)).collect();
            plans.push(plan::plan(text, document, findings, decisions, self.target.as_ref()));
        }
        // a document that does not come out as meant is left as it was, and the rest is put together again
        let mut edited = put_together(text, &plans);
        loop {
            let again = tree::parse(&edited);
            let mut all_good = true;
            for (i, plan) in plans.iter_mut().enumerate() {
                if plan.splices.is_empty() && plan.inserts.is_empty() {
                    continue;
                }
                let document = &stream.documents[i];
                let good = match again.documents.get(i) {
                    Some(new) if again.documents.len() == stream.documents.len() => {
                        plan::as_meant(document, new, &plan.values)
                    }
                    // one of the documents came apart: see whether it was this one
                    _ => alone(text, document, plan),
                };
                if !good {
                    all_good = false;
                    let line = plan.changes.first().map_or(stream.documents[i].line, |c| c.line);
                    let reason =
                        "the edited text did not read back as meant, so this document was left alone".to_owned();
                    out.refused.push(Refused { line, reason });
                    plan.abandon();
                }
            }
            if all_good {
                edited = add_keys(edited, &again, &mut plans, out);
                break;
            }
            edited = put_together(text, &plans);
        }
        out.text = edited;
        for plan in plans {
            out.changes.extend(plan.changes);
            out.uncarried.extend(plan.report);
            out.notes.extend(plan.notes);
        }
    }
}

/// Whether a document reads back as meant when it is edited by itself.
fn alone(text: &str, document: &Document, plan: &plan::Plan) -> bool {
    let start = document.range.start;
    let mut splices: Vec<Splice> = plan
        .splices
        .iter()
        .map(|s| Splice { at: s.at.start - start..s.at.end - start, text: s.text.clone() })
        .collect();
    let again = tree::parse(&apply(&text[document.range.clone()], &mut splices));
    matches!(again.documents.as_slice(), [new] if plan::as_meant(document, new, &plan.values))
}

fn put_together(text: &str, plans: &[plan::Plan]) -> String {
    let mut splices: Vec<Splice> = plans.iter().flat_map(|p| p.splices.iter().cloned()).collect();
    apply(text, &mut splices)
}

/// Adds keys that stand beside others in a mapping (a kustomization's `newName`).
fn add_keys(text: String, stream: &Stream, plans: &mut [plan::Plan], out: &mut Rewritten) -> String {
    let mut splices = Vec::new();
    for (document, plan) in stream.documents.iter().zip(plans.iter()) {
        for (mapping, key, value) in &plan.inserts {
            if let Ok(splice) = insert::entry(&text, document, *mapping, &[key.as_str()], value) {
                splices.push(splice);
            }
        }
    }
    if splices.is_empty() {
        return text;
    }
    let added = apply(&text, &mut splices);
    let again = tree::parse(&added);
    let good = again.documents.len() == stream.documents.len()
        && stream
            .documents
            .iter()
            .zip(&again.documents)
            .zip(plans.iter())
            .all(|((old, new), plan)| plan.inserts.is_empty() || plan::as_meant_with(old, new, &plan.inserts));
    if good {
        return added;
    }
    for plan in plans.iter_mut().filter(|p| !p.inserts.is_empty()) {
        let line = plan.changes.first().map_or(1, |c| c.line);
        out.refused.push(Refused { line, reason: "`newName` could not be added here".to_owned() });
        plan.inserts.clear();
    }
    text
}

impl Finding {
    /// Whether the place itself says that an image is meant, so that a missing one must stop the run.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        self.confidence == Confidence::Certain
    }
}
