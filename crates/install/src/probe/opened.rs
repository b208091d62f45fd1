//! Uploads that were opened to see whether one may be: the push goes on with them, or they are given up.

use std::sync::{Mutex, PoisonError};

use ferry_image::Digest;
use ferry_registry_client::Trial;
use futures_util::future::join_all;

/// One of them.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) repository: String,
    /// The blob that will be pushed there first.
    pub(crate) blob: Option<Digest>,
    pub(crate) trial: Trial,
}

/// Those that are open.
#[derive(Debug, Default)]
pub(crate) struct Open(Mutex<Vec<Opened>>);

impl Open {
    pub(crate) fn new(opened: Vec<Opened>) -> Self {
        Self(Mutex::new(opened))
    }

    /// Leaves each to the blob that it was opened for.
    pub(crate) fn hand_over(&self) {
        for Opened { repository, blob, trial } in self.take() {
            match blob {
                Some(blob) => trial.keep_for(&blob),
                None => self.lock().push(Opened { repository, blob, trial }),
            }
        }
    }

    /// Gives up those that are left; says what could not be.
    pub(crate) async fn end(&self) -> Vec<String> {
        let given_up = self.take().into_iter().map(|Opened { repository, trial, .. }| async move {
            let error = trial.give_up().await.err()?;
            tracing::debug!(%error, "cancelling an upload");
            Some(format!("an open upload in `{repository}`, which the target cannot cancel: it ends by itself"))
        });
        let mut left: Vec<String> = join_all(given_up).await.into_iter().flatten().collect();
        left.sort();
        left
    }

    fn take(&self) -> Vec<Opened> {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Opened>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
