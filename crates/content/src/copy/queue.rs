//! The queue of blobs and ranges, and the workers that empty it.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ferry_image::{Descriptor, Digest};
use tokio::sync::{Mutex, Notify};

use super::ranges::Ranged;
use super::streams::{Streams, WINDOW};
use super::{Job, Options, Outcome, Progress, stream};
use crate::error::Side;
use crate::{Error, Failure as _, Ingest, Kind};

/// Network failures after which no further blob is begun.
const NETWORK_FAILURES: usize = 3;

/// The largest range of a blob that is fetched in ranges, bytes.
const LARGEST_RANGE: u64 = 64 << 20;

enum Work {
    Blob(usize, Box<Job>),
    Range(Arc<Ranged>, Range<u64>),
}

struct Queue {
    pending: Mutex<Pending>,
    /// Workers that may still add ranges.
    busy: AtomicUsize,
    changed: Notify,
    /// Workers that may take something.
    limit: AtomicUsize,
    /// The worker that begins with the smallest, if one does.
    from_below: Option<usize>,
    results: Mutex<Vec<Option<Result<Outcome, Error>>>>,
    range_size: u64,
}

/// What no worker has taken yet.
struct Pending {
    work: VecDeque<Work>,
    /// By the job that they wait for.
    waiting: HashMap<usize, Vec<Work>>,
}

impl Pending {
    fn new(jobs: Vec<Job>) -> Self {
        let mut jobs: Vec<(usize, Job)> = jobs.into_iter().enumerate().collect();
        jobs.sort_by_key(|(index, job)| (std::cmp::Reverse(job.blob.size), *index));
        let mut pending = Self { work: VecDeque::new(), waiting: HashMap::new() };
        for (index, job) in jobs {
            let after = job.after;
            let work = Work::Blob(index, Box::new(job));
            match after {
                None => pending.work.push_back(work),
                Some(other) => pending.waiting.entry(other).or_default().push(work),
            }
        }
        pending
    }

    /// A job is over: those that waited for it are next.
    fn release(&mut self, index: usize) {
        for work in self.waiting.remove(&index).into_iter().flatten().rev() {
            self.work.push_front(work);
        }
    }

    /// Begins no further blob.
    fn close(&mut self) {
        self.work.retain(|work| matches!(work, Work::Range(..)));
        self.waiting.clear();
    }
}

pub(super) async fn run(
    jobs: Vec<Job>,
    options: &Options,
    progress: Arc<dyn Progress>,
) -> Vec<Option<Result<Outcome, Error>>> {
    let count = jobs.len();
    let total: u64 = jobs.iter().map(|j| j.blob.size).sum();
    let workers = options.concurrency.max(1);
    let mut streams = Streams::new(options.first, workers);
    let queue = Arc::new(Queue {
        pending: Mutex::new(Pending::new(jobs)),
        busy: AtomicUsize::new(0),
        changed: Notify::new(),
        limit: AtomicUsize::new(streams.limit()),
        // what is small waits for answers more than for bytes: it goes beside the large ones, not after them
        from_below: (!streams.is_fixed() && streams.limit() > 1).then_some(1),
        results: Mutex::new(std::iter::repeat_with(|| None).take(count).collect()),
        // several turns for each worker, so that they end together; few enough that a round trip each does not count
        range_size: (total / (workers as u64 * 4))
            .clamp(options.smallest_range, LARGEST_RANGE.max(options.smallest_range)),
    });
    let meter = Arc::new(Meter { inner: progress, moved: AtomicU64::new(0) });
    let progress = Arc::clone(&meter) as Arc<dyn Progress>;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..workers.min(count.max(1) * 64) {
        let (queue, options, progress) = (Arc::clone(&queue), options.clone(), Arc::clone(&progress));
        tasks.spawn(async move { work_off(&queue, number, &options, &progress).await });
    }
    let mut measuring = tokio::task::JoinSet::new();
    if !streams.is_fixed() {
        let queue = Arc::clone(&queue);
        measuring.spawn(async move {
            loop {
                tokio::time::sleep(WINDOW).await;
                streams.measured(meter.moved.swap(0, Ordering::Relaxed));
                queue.limit.store(streams.limit(), Ordering::Release);
                queue.changed.notify_waiters();
            }
        });
    }
    while let Some(joined) = tasks.join_next().await {
        if let Err(error) = joined
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
    std::mem::take(&mut *queue.results.lock().await)
}

/// Counts what arrives.
struct Meter {
    inner: Arc<dyn Progress>,
    moved: AtomicU64,
}

impl Progress for Meter {
    fn advanced(&self, blob: &Digest, bytes: u64) {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
        self.inner.advanced(blob, bytes);
    }

    fn lost(&self, blob: &Digest, bytes: u64) {
        self.inner.lost(blob, bytes);
    }

    fn finished(&self, blob: &Descriptor, outcome: Outcome) {
        self.inner.finished(blob, outcome);
    }

    fn retrying(&self, blob: &Digest, error: &Error) {
        self.inner.retrying(blob, error);
    }
}

async fn work_off(queue: &Queue, number: usize, options: &Options, progress: &Arc<dyn Progress>) {
    while let Some(work) = queue.next(number).await {
        match work {
            Work::Blob(index, job) => {
                if let Some(result) = begin(queue, index, &job, options, progress).await {
                    queue.settle(index, &job, result, progress.as_ref()).await;
                }
            }
            Work::Range(blob, range) => {
                if blob.fetch(range, options, progress.as_ref()).await {
                    let result = end(&blob, options, progress).await;
                    queue.settle(blob.index, &blob.job, result, progress.as_ref()).await;
                }
            }
        }
        queue.busy.fetch_sub(1, Ordering::AcqRel);
        queue.changed.notify_waiters();
    }
}

/// Starts a blob: moves it as one stream, or queues its ranges (and returns nothing yet).
async fn begin(
    queue: &Queue,
    index: usize,
    job: &Job,
    options: &Options,
    progress: &Arc<dyn Progress>,
) -> Option<Result<Outcome, Error>> {
    let ingest = match start(job, options, progress.as_ref()).await {
        Ok(Some(ingest)) => ingest,
        Ok(None) => return Some(Ok(Outcome::Present)),
        Err(error) => return Some(Err(error)),
    };
    let missing: u64 = ingest.missing().iter().map(|r| r.end - r.start).sum();
    if !(ingest.is_random_access() && job.provider.is_remote() && missing > 2 * options.smallest_range) {
        return Some(stream::copy(job, ingest, options, progress.as_ref()).await);
    }
    let ranges = split(&ingest.missing(), queue.range_size);
    let blob = Arc::new(Ranged::new(job.clone(), index, ingest, ranges.len(), Arc::clone(progress)));
    let mut pending = queue.pending.lock().await;
    for range in ranges.into_iter().rev() {
        pending.work.push_front(Work::Range(Arc::clone(&blob), range));
    }
    None
}

async fn start(job: &Job, options: &Options, progress: &dyn Progress) -> Result<Option<Box<dyn Ingest>>, Error> {
    let mut count = super::patience::Count::new(&options.patience);
    loop {
        match job.ingester.start(&job.blob).await {
            Err(error) if error.is_transient() => {
                progress.retrying(&job.blob.digest, &error);
                if !count.again().await {
                    return Err(error.at(Side::Target));
                }
            }
            result => return result.map_err(|e| e.at(Side::Target)),
        }
    }
}

async fn end(blob: &Ranged, options: &Options, progress: &Arc<dyn Progress>) -> Result<Outcome, Error> {
    if blob.finish().await? {
        return Ok(Outcome::Copied);
    }
    // what is still there is counted again on its way through the hash
    progress.lost(&blob.job.blob.digest, blob.counted());
    match start(&blob.job, options, progress.as_ref()).await? {
        Some(ingest) => stream::copy(&blob.job, ingest, options, progress.as_ref()).await,
        None => Ok(Outcome::Present),
    }
}

/// Cuts what is missing into ranges of about `size` bytes, ascending.
fn split(missing: &[Range<u64>], size: u64) -> Vec<Range<u64>> {
    let mut ranges = Vec::new();
    for range in missing {
        let parts = (range.end - range.start).div_ceil(size).max(1);
        let each = (range.end - range.start).div_ceil(parts);
        for i in 0..parts {
            ranges.push(range.start + i * each..(range.start + (i + 1) * each).min(range.end));
        }
    }
    ranges
}

impl Queue {
    /// The next piece of work; waits while another worker may still add some, or while there are enough of them.
    async fn next(&self, number: usize) -> Option<Work> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut pending = self.pending.lock().await;
                let may = number < self.limit.load(Ordering::Acquire);
                let next = match self.from_below == Some(number) {
                    true => pending.work.pop_back_if(|_| may),
                    false => pending.work.pop_front_if(|_| may),
                };
                if let Some(next) = next {
                    self.busy.fetch_add(1, Ordering::AcqRel);
                    if !pending.work.is_empty() {
                        self.changed.notify_one();
                    }
                    return Some(next);
                }
                if pending.work.is_empty() && self.busy.load(Ordering::Acquire) == 0 {
                    return None;
                }
            }
            changed.await;
        }
    }

    async fn settle(&self, index: usize, job: &Job, result: Result<Outcome, Error>, progress: &dyn Progress) {
        if let Ok(outcome) = &result {
            progress.finished(&job.blob, *outcome);
        }
        let failed = result.as_ref().err().map(|e| e.kind());
        let mut results = self.results.lock().await;
        if let Some(slot) = results.get_mut(index) {
            *slot = Some(result);
        }
        let network = results.iter().flatten().filter(|r| matches!(r, Err(e) if e.kind() == Kind::Remote)).count();
        drop(results);
        let mut pending = self.pending.lock().await;
        pending.release(index);
        if failed == Some(Kind::Local) || failed == Some(Kind::Remote) && network >= NETWORK_FAILURES {
            pending.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_what_is_missing() {
        assert_eq!(split(&[0..10, 20..21], 4), [0..4, 4..8, 8..10, 20..21]);
    }
}
