//! Image references in YAML, JSON and plain lists: finding them, rewriting them to where they went, checking that none is
//! missing. Pure: text in, text out.
//!
//! Not here: files, folders, running Helm, registries, and what a bundle carries; the caller says that. Only bytes of image
//! values change: comments, order, quoting, indentation and line ends stay, and what cannot be proved to have stayed is refused.
//!
//! Reading order: [`finding`], `tree` (the parser behind spans), `words` and `shapes` (what is an image), [`list`],
//! [`chart`] (what other texts say of values), `splice`, [`mod@rewrite`], [`set`], [`emit`].

pub mod chart;
pub mod emit;
pub mod finding;
mod insert;
pub mod kustomization;
pub mod list;
mod pieces;
mod plan;
pub mod rewrite;
pub mod set;
mod shapes;
mod splice;
mod tree;
mod words;

pub use chart::{Around, Charts};
pub use finding::{Confidence, Finding, Found, Refused, Shape};
pub use list::{find_list, is_list};
pub use rewrite::{Change, Checked, Note, Rewritten, check, check_around, rewrite, rewrite_around};
pub use set::{Unmet, Why};

/// Finds the references of YAML or JSON, in every document of the stream. A document that does not parse is refused and
/// the others are looked at.
#[must_use]
pub fn find(text: &str) -> Found {
    find_around(text, &Around::default())
}

/// [`find`], for a text of several that belong together.
#[must_use]
pub fn find_around(text: &str, around: &Around) -> Found {
    let stream = tree::parse(text);
    let mut findings = Vec::new();
    for i in 0..stream.documents.len() {
        findings.extend(in_document(text, &stream, i, around));
    }
    findings.sort_by_key(|finding| finding.line);
    Found { findings, refused: stream.refused }
}

/// The findings of one document, `i` of those that parsed.
fn in_document(text: &str, stream: &tree::Stream, i: usize, around: &Around) -> Vec<Finding> {
    let document = &stream.documents[i];
    match around.findings(text, document.index) {
        Some(findings) => findings.to_vec(),
        None => shapes::walk(document, i, stream.count > 1, 0),
    }
}
