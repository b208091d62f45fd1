//! Uploads that were opened to see whether one may be: the push goes on with them, or they are given up.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ferry_image::Digest;
use ferry_registry_client::{Kept, Trial};
use futures_util::future::join_all;

/// One of them.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) repository: String,
    /// The blob that will be pushed there first.
    pub(crate) blob: Option<Digest>,
    pub(crate) trial: Trial,
}

/// Those that are open, and those that were handed over to the push.
#[derive(Debug, Default)]
pub(crate) struct Open {
    opened: Mutex<Vec<Opened>>,
    kept: Mutex<Vec<(String, Kept)>>,
}

impl Open {
    pub(crate) fn new(opened: Vec<Opened>) -> Self {
        Self { opened: Mutex::new(opened), kept: Mutex::default() }
    }

    /// Leaves each to the blob that it was opened for.
    pub(crate) fn hand_over(&self) {
        let (for_blobs, rest): (Vec<_>, Vec<_>) = take(&self.opened).into_iter().partition(|one| one.blob.is_some());
        lock(&self.opened).extend(rest);
        for Opened { repository, blob, trial } in for_blobs {
            lock(&self.kept).extend(blob.map(|blob| (repository, trial.keep_for(&blob))));
        }
    }

    /// Gives up those that no push has gone on with; says what could not be.
    pub(crate) async fn end(&self) -> Vec<String> {
        let told = |repository: String, result: Result<(), ferry_registry_client::Error>| {
            let error = result.err()?;
            tracing::debug!(%error, "cancelling an upload");
            Some(format!("an open upload in `{repository}`, which the target cannot cancel: it ends by itself"))
        };
        let opened =
            take(&self.opened).into_iter().map(|one| async { told(one.repository, one.trial.give_up().await) });
        let kept =
            take(&self.kept).into_iter().map(|(repository, kept)| async { told(repository, kept.give_up().await) });
        let (opened, kept) = tokio::join!(join_all(opened), join_all(kept));
        let mut left: Vec<String> = opened.into_iter().chain(kept).flatten().collect();
        left.sort();
        left
    }
}

fn take<T>(of: &Mutex<Vec<T>>) -> Vec<T> {
    std::mem::take(&mut lock(of))
}

fn lock<T>(of: &Mutex<Vec<T>>) -> MutexGuard<'_, Vec<T>> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
