//! Syncing what was written, and only then saying so in the journal, without ever making a writer wait.
//!
//! A thread of its own syncs after every [`BATCH`] bytes or [`PAUSE`]: that bounds what a crash can cost, and it starts the
//! disk early, so that sealing has little left to wait for.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::Slices;
use crate::journal::{Journal, Record};
use crate::ranges::Ranges;

/// New bytes that are synced at once.
const BATCH: u64 = 64 << 20;
/// The longest that written bytes wait for it.
const PAUSE: Duration = Duration::from_secs(2);

/// The thread, and what it is told.
#[derive(Debug)]
pub(crate) struct Durable {
    shared: Arc<Shared>,
    journal: Arc<Journal>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    written: BTreeMap<usize, Ranges>,
    forgotten: Vec<usize>,
    bytes: u64,
    stop: bool,
    failed: Option<std::io::Error>,
}

impl Durable {
    /// Starts the thread for `slices`, with records going to `journal`.
    pub(crate) fn start(slices: Arc<Slices>, journal: Journal) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let journal = Arc::new(journal);
        let (of_thread, journal_of_thread) = (Arc::clone(&shared), Arc::clone(&journal));
        let run = move || run(&of_thread, &slices, &journal_of_thread);
        let thread = std::thread::Builder::new().name("sync".to_owned()).spawn(run)?;
        Ok(Self { shared, journal, thread: Some(thread) })
    }

    /// `range` of the blob was written.
    pub(crate) fn wrote(&self, blob: usize, range: Range<u64>) {
        let mut state = self.shared.lock();
        state.bytes += range.end - range.start;
        state.written.entry(blob).or_default().insert(range);
        // The first write after a rest starts the clock of `PAUSE`.
        if state.bytes >= BATCH || state.written.len() == 1 {
            self.shared.wake.notify_one();
        }
    }

    /// The blob is whole. That is written down at once: if the process is killed, what it wrote is still there.
    pub(crate) fn finished(&self, blob: usize) {
        if let Err(error) = self.journal.note(&[Record::Finished(blob)]) {
            self.shared.lock().failed.get_or_insert(error);
        }
    }

    /// The blob's bytes are worth nothing.
    pub(crate) fn forget(&self, blob: usize) {
        let mut state = self.shared.lock();
        state.written.remove(&blob);
        state.forgotten.push(blob);
        self.shared.wake.notify_one();
    }

    /// The error that stopped the syncing. It stays: the system reports a failed sync only once, and the file can
    /// never be believed again through this handle.
    pub(crate) fn failure(&self) -> Option<std::io::Error> {
        self.shared.lock().failed.as_ref().map(|e| match e.raw_os_error() {
            Some(code) => std::io::Error::from_raw_os_error(code),
            None => std::io::Error::new(e.kind(), e.to_string()),
        })
    }

    /// Ends the thread when everything is synced and recorded. Gives what failed.
    pub(crate) fn finish(mut self) -> Option<std::io::Error> {
        self.stop();
        self.failure()
    }

    fn stop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the syncing thread panicked");
        }
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for enough to do; `None` when it is over.
    fn next(&self) -> Option<Vec<Record>> {
        let mut state = self.lock();
        loop {
            let idle = state.written.is_empty() && state.forgotten.is_empty();
            match (state.stop, idle) {
                (true, true) => return None,
                (true, false) => break,
                (false, true) => state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                (false, false) => {
                    let enough = |s: &mut State| s.bytes < BATCH && !s.stop;
                    (state, _) =
                        self.wake.wait_timeout_while(state, PAUSE, enough).unwrap_or_else(PoisonError::into_inner);
                    if !state.stop {
                        break;
                    }
                }
            }
        }
        state.bytes = 0;
        let mut records: Vec<Record> = state.forgotten.drain(..).map(Record::Forgotten).collect();
        for (blob, ranges) in std::mem::take(&mut state.written) {
            records.extend(ranges.iter().map(|range| Record::Kept(blob, range)));
        }
        Some(records)
    }
}

fn run(shared: &Shared, slices: &Slices, journal: &Journal) {
    while let Some(records) = shared.next() {
        let done = slices.sync_data().and_then(|()| journal.append(&records));
        if let Err(error) = done {
            shared.lock().failed = Some(error);
            return;
        }
    }
}
