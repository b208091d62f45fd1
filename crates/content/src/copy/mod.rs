//! The one loop that moves blobs from a [`Provider`] to an [`Ingester`].
//!
//! ```text
//!            queue of unique blobs, largest first
//!                  │ worker │ worker │ …
//!                  ▼
//!   provider.open(range) ──chunks──▶ hash ──▶ ingest.write_at(offset) ──▶ commit, once the digest agrees
//! ```
//!
//! A job may wait for another ([`Job::after`]): a blob is sent once to a registry, and mounted from there into other repositories.
//!
//! A small blob, and any blob for a place that takes bytes in order only, moves as one stream ([`stream`]): its last bytes are
//! held back until the hash agrees. A large blob from a remote place to a file moves as several ranges at once ([`ranges`]); the
//! hash follows the contiguous prefix. What an earlier run left is read back and hashed, not fetched; what an upload that broke off
//! left at a registry cannot be read back, and its hash is kept ([`trail`]). How many streams there are is settled by [`streams`]. A transfer that makes progress may be interrupted any
//! number of times ([`patience`]).

pub(crate) mod patience;
mod queue;
mod ranges;
mod stream;
mod streams;
#[cfg(test)]
mod tests;
mod trail;

use std::sync::Arc;

use ferry_image::{Descriptor, Digest};

pub use patience::Patience;

use crate::{Error, Ingester, Provider};

/// One blob to move.
#[derive(Clone)]
pub struct Job {
    /// What to move. The bytes must hash to its digest and count to its size.
    pub blob: Descriptor,
    /// Where it comes from.
    pub provider: Arc<dyn Provider>,
    /// Where it goes to.
    pub ingester: Arc<dyn Ingester>,
    /// Another of the same jobs that must be over first, however it ends: one that brings what this place can take without a transfer.
    pub after: Option<usize>,
}

impl Job {
    /// A job that waits for no other.
    #[must_use]
    pub fn new(blob: Descriptor, provider: Arc<dyn Provider>, ingester: Arc<dyn Ingester>) -> Self {
        Self { blob, provider, ingester, after: None }
    }
}

/// How a job ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The target had it: nothing was read.
    Present,
    /// It was moved.
    Copied,
}

/// How to copy.
#[derive(Debug, Clone)]
pub struct Options {
    /// The most streams at a time, over all blobs.
    pub concurrency: usize,
    /// Streams to begin with, no more than that; others are let in as long as they bring more.
    pub first: usize,
    /// Blobs larger than two of these (bytes) are fetched as several ranges.
    pub smallest_range: u64,
    /// When to give up.
    pub patience: Patience,
}

impl Default for Options {
    fn default() -> Self {
        Self { concurrency: 8, first: usize::MAX, smallest_range: 8 << 20, patience: Patience::default() }
    }
}

/// Is told how far a copy is. Called from several tasks.
pub trait Progress: Send + Sync {
    /// `bytes` more of a blob have arrived at the target (or were found there from an earlier run).
    fn advanced(&self, blob: &Digest, bytes: u64);
    /// The target has lost `bytes` that were reported: they will be reported again.
    fn lost(&self, blob: &Digest, bytes: u64);
    /// A blob is whole at the target.
    fn finished(&self, blob: &Descriptor, outcome: Outcome);
    /// A request failed and is made again.
    fn retrying(&self, blob: &Digest, error: &Error);
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn advanced(&self, _: &Digest, _: u64) {}
    fn lost(&self, _: &Digest, _: u64) {}
    fn finished(&self, _: &Descriptor, _: Outcome) {}
    fn retrying(&self, _: &Digest, _: &Error) {}
}

/// Moves every blob, largest first, and reports each in the order of `jobs`.
///
/// A blob that fails does not stop the others, unless the failure is one that all will meet: a local one (a full disk), or the
/// third of a network. What was not begun then is reported as `None`.
pub async fn copy_all(
    jobs: Vec<Job>,
    options: &Options,
    progress: Arc<dyn Progress>,
) -> Vec<Option<Result<Outcome, Error>>> {
    queue::run(jobs, options, progress).await
}
