//! `ferry find`: which images files, folders, charts, kustomizations, compose files and lists ask for.
//!
//! ```text
//! inputs ─▶ gather (texts, charts) ─▶ ferry-rewrite ─▶ kustomize, compose ─┐
//!                                                                          ├─▶ merge ─▶ items ─▶ manifest
//! helm, kustomize (asked for) ─▶ render ─▶ ferry-rewrite ──────────────────┘
//! ```
//!
//! Not here: what is an image in a text, and what charts make of it (`ferry-rewrite`); printing.

mod compose;
mod gather;
mod kustomize;
pub mod manifest;
mod merge;
pub mod render;

use std::path::PathBuf;

use ferry_content::Problems;
use ferry_image::Reference;
use ferry_rewrite::{Confidence, Finding, Shape};
use serde::Serialize;

pub use render::Programs;

/// What to look at.
#[derive(Debug)]
pub struct Request {
    /// In the order given.
    pub inputs: Vec<Input>,
    /// Values files that go before those of charts, the last one first.
    pub values: Vec<PathBuf>,
    /// Whether to run Helm and kustomize, and which.
    pub render: Option<Programs>,
}

/// One thing to look at.
#[derive(Debug)]
pub enum Input {
    /// A file or folder.
    Path(PathBuf),
    /// A text that came in on standard input.
    Text(String),
}

/// Where a finding comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum From {
    /// The files as they are.
    Source,
    /// What Helm or kustomize made of them.
    Rendered,
    /// Both say the same.
    Both,
}

/// An image that is asked for, and where. Serialised, it is an element of `ferry find --json`.
#[derive(Debug, Clone, Serialize)]
pub struct Item {
    /// The file as it was named; inside a folder or archive, the path there after it.
    pub file: String,
    /// 1-based.
    pub line: usize,
    /// Where in the file: see [`Finding::path`].
    pub path: String,
    /// As written.
    pub value: String,
    /// Normalised; none when nobody can tell.
    pub reference: Option<Reference>,
    /// How it is written.
    pub shape: Shape,
    /// How sure it is.
    pub confidence: Confidence,
    /// Why it is not sure, or what is assumed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where it comes from.
    pub from: From,
}

impl Item {
    fn of(file: &str, finding: Finding, from: From) -> Self {
        Self {
            file: file.to_owned(),
            line: finding.line,
            path: finding.path,
            value: finding.value,
            reference: finding.reference,
            shape: finding.shape,
            confidence: finding.confidence,
            reason: finding.reason,
            from,
        }
    }

    fn add_reason(&mut self, why: &str) {
        self.reason = Some(self.reason.take().map_or(why.to_owned(), |before| format!("{before}; {why}")));
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// In order of input, file and line.
    pub items: Vec<Item>,
    /// What was not looked at, each with its place and why.
    pub skipped: Vec<String>,
    /// What to know of the result.
    pub notes: Vec<String>,
    /// What could not be read. The rest was looked at.
    pub problems: Problems,
    /// The name and version of the one chart that was named, if it was one.
    pub chart: Option<(String, Option<String>)>,
    /// Inputs that are YAML, or folders with some in them.
    pub yaml: Vec<PathBuf>,
    /// References that stand in files and are replaced by a kustomization, with the reason.
    pub replaced: Vec<(Reference, String)>,
}

/// Looks at everything that is asked for.
#[must_use]
pub fn find(request: &Request) -> Report {
    let mut gathered = gather::gather(request);
    let mut report = Report::default();
    let kustomizations = kustomize::follow(&mut gathered);
    for source in &gathered.sources {
        let mut found = source.find();
        if let Some(folder) = source.disk.as_deref().and_then(std::path::Path::parent)
            && found.findings.iter().any(|f| f.shape == Shape::Variable)
        {
            compose::fill(&mut found.findings, &source.text, folder);
        }
        let skipped = found.refused.into_iter().map(|r| format!("{}:{}: {}", source.file, r.line, r.reason));
        report.skipped.extend(skipped);
        let items: Vec<Item> = found.findings.into_iter().map(|f| Item::of(&source.file, f, From::Source)).collect();
        let (items, replaced) = kustomizations.apply(source, items);
        report.items.extend(items);
        report.replaced.extend(replaced);
    }
    kustomizations.complete(&mut report.items);
    if let Some(programs) = &request.render {
        let rendered = render::all(programs, &gathered.charts, &kustomizations.tops(), &request.values);
        match rendered {
            Ok(rendered) => {
                gathered.unrendered.clear();
                if rendered.runs == 0 {
                    report.notes.push("`--render`: there is no chart and no kustomization among these".to_owned());
                } else {
                    let of_chart = |file: &str| {
                        let overrides = gathered.overrides.iter().any(|(path, _)| path == file);
                        overrides && !gathered.charts.is_empty() || gathered.charts.iter().any(|c| c.holds(file))
                    };
                    merge::merge(&mut report.items, rendered.items, &of_chart);
                }
                report.skipped.extend(rendered.skipped);
            }
            Err(problems) => report.problems.append(problems),
        }
    }
    report.skipped.splice(0..0, gathered.unrendered.into_iter().chain(gathered.skipped));
    report.notes.extend(gathered.notes);
    report.problems.append(gathered.problems);
    report.yaml = gathered.yaml;
    if let [chart] = gathered.charts.as_slice()
        && let Some(name) = &chart.name
    {
        report.chart = Some((name.clone(), chart.version.clone()));
    }
    report
}
