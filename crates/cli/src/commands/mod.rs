//! One file a command: arguments in, library calls, words out.

pub(crate) mod bundle;
mod damage;
pub(crate) mod diff;
pub(crate) mod emitted;
pub(crate) mod export;
pub(crate) mod find;
pub(crate) mod gc;
pub(crate) mod inspect;
pub(crate) mod install;
pub(crate) mod inventory;
pub(crate) mod keygen;
pub(crate) mod node;
pub(crate) mod protect;
pub(crate) mod repair;
pub(crate) mod rewrite;
pub(crate) mod serve;
pub(crate) mod shell;
pub(crate) mod sign;
pub(crate) mod verify;

use crate::failure::{End, Error};

/// JSON for people and programs.
pub(crate) fn pretty(value: &serde_json::Value) -> Result<String, End> {
    serde_json::to_string_pretty(value).map_err(|e| Error::Runtime(e.into()).into())
}

/// Threads for work on the processor: all cores, unless it was said.
pub(crate) fn threads(jobs: Option<usize>) -> usize {
    jobs.filter(|n| *n > 0).unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}
