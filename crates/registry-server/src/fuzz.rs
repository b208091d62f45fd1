//! The private readers of what clients send, for the fuzz targets and nobody else. Thin: one call each.
#![allow(missing_docs, clippy::must_use_candidate)]

use std::ops::Range;

use crate::query::{self, Query};
use crate::range::{self, Wanted};

/// What a `Range` asks of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    Whole,
    Part(Range<u64>),
    Parts(Vec<Range<u64>>),
    Unsatisfiable,
}

pub fn range(header: &str, size: u64) -> Asked {
    match range::wanted(Some(header), size) {
        Wanted::Whole => Asked::Whole,
        Wanted::Part(part) => Asked::Part(part),
        Wanted::Parts(parts) => Asked::Parts(parts),
        Wanted::Unsatisfiable => Asked::Unsatisfiable,
    }
}

pub fn chunk(header: &str) -> Option<Range<u64>> {
    range::chunk(header)
}

/// The first value of `key`.
pub fn query(text: &str, key: &str) -> Option<String> {
    Query::parse(Some(text)).value(key).map(str::to_owned)
}

pub fn percent_decoded(text: &str) -> Option<String> {
    query::percent_decoded(text)
}

pub fn percent_encoded(text: &str) -> String {
    query::percent_encoded(text)
}
