//! Whose turn it is to write to an upload session: that of the newest request. A client sends one after the other, so a second one
//! means that the first has lost its connection, whether or not this side has noticed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The sessions that are being written to.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<String, Arc<Notify>>>);

/// The turn of one request.
#[derive(Debug)]
pub(crate) struct Turn {
    id: String,
    over: Arc<Notify>,
    turns: Arc<Turns>,
}

impl Turns {
    /// The turn of a new request, which ends that of the one before.
    pub(crate) fn begin(self: &Arc<Self>, id: &str) -> Turn {
        let over = Arc::new(Notify::new());
        if let Some(before) = self.sessions().insert(id.to_owned(), Arc::clone(&over)) {
            before.notify_one();
        }
        Turn { id: id.to_owned(), over, turns: Arc::clone(self) }
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<String, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Waits until another request goes on with the session.
    pub(crate) async fn over(&self) {
        self.over.notified().await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut sessions = self.turns.sessions();
        if sessions.get(&self.id).is_some_and(|over| Arc::ptr_eq(over, &self.over)) {
            sessions.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_has_the_turn_and_nothing_is_left_behind() {
        let turns = Arc::new(Turns::default());
        let (first, other) = (turns.begin("a"), turns.begin("b"));
        let second = turns.begin("a");
        first.over().await;
        drop(first);
        assert_eq!(turns.sessions().len(), 2, "that of the second is still there");
        for turn in [&second, &other] {
            let waits = tokio::time::timeout(std::time::Duration::from_millis(20), turn.over()).await;
            assert!(waits.is_err());
        }
        drop((second, other));
        assert!(turns.sessions().is_empty());
    }
}
