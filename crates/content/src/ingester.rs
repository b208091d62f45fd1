//! Where blobs go to.

use std::ops::Range;

use bytes::Bytes;
use ferry_image::Descriptor;

use crate::{BoxFuture, Error};

/// A place that takes blobs: a bundle being built, a registry's repository, the store.
pub trait Ingester: Send + Sync {
    /// Begins (or continues) to take a blob. `None` when the place has it already: nothing need be read at all.
    ///
    /// After a failed attempt the copy loop drops the [`Ingest`] and calls this again.
    ///
    /// # Errors
    /// Whatever the place reports.
    fn start<'a>(&'a self, blob: &'a Descriptor) -> BoxFuture<'a, Result<Option<Box<dyn Ingest>>, Error>>;

    /// The place, for people.
    fn place(&self) -> String;
}

/// One blob on its way in. Dropping it without [`commit`](Self::commit) leaves the blob absent (or resumable), never wrong.
pub trait Ingest: Send + Sync {
    /// The ranges still wanted, ascending and disjoint. `0..size` for a fresh blob; less where an earlier run (or, of a place that
    /// takes bytes in order, an attempt that broke off) left something; empty where all bytes are here and only
    /// [`commit`](Self::commit) is left.
    fn missing(&self) -> Vec<Range<u64>>;

    /// Whether ranges may be written in any order and at the same time (a file), or only one after the other (an upload).
    fn is_random_access(&self) -> bool {
        false
    }

    /// Takes `chunks` (which follow one another) at `offset` bytes from the start of the blob. Sequential places get them in order.
    ///
    /// # Errors
    /// Whatever the place reports.
    fn write_at<'a>(&'a self, offset: u64, chunks: Vec<Bytes>) -> BoxFuture<'a, Result<(), Error>>;

    /// Reads bytes back that were written, now or by an earlier run, so that the copy loop can hash them.
    /// Only asked of random-access places.
    ///
    /// # Errors
    /// Whatever the place reports.
    fn read_back<'a>(&'a self, range: Range<u64>) -> BoxFuture<'a, Result<Bytes, Error>>;

    /// Forgets all bytes taken: their digest was wrong. [`missing`](Self::missing) is the whole blob afterwards.
    ///
    /// # Errors
    /// Whatever the place reports.
    fn reset<'a>(&'a self) -> BoxFuture<'a, Result<(), Error>>;

    /// The blob is whole and its digest agrees: makes it visible.
    ///
    /// # Errors
    /// Whatever the place reports.
    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<(), Error>>;
}
