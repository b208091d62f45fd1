//! Uploads that were opened to see whether one may be, given up while other things go on.

use ferry_registry_client::Trial;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// The requests under way.
#[derive(Debug, Default)]
pub(crate) struct Closing(Mutex<JoinSet<Option<String>>>);

impl Closing {
    /// Gives up every trial, in the background.
    pub(crate) fn begin(trials: Vec<(String, Trial)>) -> Self {
        let mut tasks = JoinSet::new();
        for (repository, trial) in trials {
            tasks.spawn(async move {
                let error = trial.give_up().await.err()?;
                tracing::debug!(%error, "cancelling an upload");
                Some(format!("an open upload in `{repository}`, which the target cannot cancel: it ends by itself"))
            });
        }
        Self(Mutex::new(tasks))
    }

    /// Waits until all are given up; says what could not be.
    pub(crate) async fn end(&self) -> Vec<String> {
        let mut tasks = self.0.lock().await;
        let mut left = Vec::new();
        while let Some(result) = tasks.join_next().await {
            left.extend(result.ok().flatten());
        }
        left.sort();
        left
    }
}
