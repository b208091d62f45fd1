//! Image references in YAML, JSON and plain lists: finding them, rewriting them to where they went, checking that none is
//! missing. Pure: text in, text out.
//!
//! Not here: files, folders, Helm charts, registries, and what a bundle carries; the caller says that. Only bytes of image
//! values change: comments, order, quoting, indentation and line ends stay, and what cannot be proved to have stayed is refused.
//!
//! Reading order: [`finding`], `tree` (the parser behind spans), `words` and `shapes` (what is an image), [`list`],
//! `splice`, [`mod@rewrite`], [`set`], [`emit`].

pub mod emit;
pub mod finding;
mod insert;
pub mod list;
mod pieces;
mod plan;
pub mod rewrite;
pub mod set;
mod shapes;
mod splice;
mod tree;
mod words;

pub use finding::{Confidence, Finding, Found, Refused, Shape};
pub use list::{find_list, is_list};
pub use rewrite::{Change, Checked, Note, Rewritten, check, rewrite};
pub use set::{Unmet, Why};

/// Finds the references of YAML or JSON, in every document of the stream. A document that does not parse is refused and
/// the others are looked at.
#[must_use]
pub fn find(text: &str) -> Found {
    let stream = tree::parse(text);
    let mut findings = Vec::new();
    for (i, document) in stream.documents.iter().enumerate() {
        findings.extend(shapes::walk(document, i, stream.count > 1, 0));
    }
    findings.sort_by_key(|finding| finding.line);
    Found { findings, refused: stream.refused }
}
