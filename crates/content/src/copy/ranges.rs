//! One large blob as several ranges at once; the hash follows the contiguous prefix.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use ferry_image::Hasher;
use tokio::sync::{Mutex, Semaphore, mpsc};

use super::patience::Count;
use super::stream::{Source, Step, agree, hash, length, pieces, steps};
use super::{Job, Options, Progress};
use crate::error::Side;
use crate::{Error, Failure as _, Ingest};

/// Batches per blob that may wait in memory for the hash; what comes beyond is read back from the file (its page cache).
const WAITING: usize = 2;

/// A blob in flight, shared by the workers that fetch its ranges.
pub(super) struct Ranged {
    pub(super) job: Job,
    /// Its place in the list of jobs.
    pub(super) index: usize,
    ingest: Mutex<Option<Arc<Box<dyn Ingest>>>>,
    left: AtomicUsize,
    /// Some of it is from an earlier run, or from a request that broke off.
    mixed: AtomicBool,
    /// What came does not belong together.
    changed: AtomicBool,
    /// The provider turned out to serve whole blobs only.
    pub(super) degraded: AtomicBool,
    error: Mutex<Option<Error>>,
    /// Bytes that were reported as arrived.
    counted: AtomicU64,
    arrived: Mutex<Option<mpsc::UnboundedSender<Arrived>>>,
    hashing: Mutex<Option<tokio::task::JoinHandle<Result<Hasher, Error>>>>,
    waiting: Arc<Semaphore>,
}

struct Arrived {
    range: Range<u64>,
    /// The bytes, with their permit, unless too many wait already.
    chunks: Option<(Vec<Bytes>, tokio::sync::OwnedSemaphorePermit)>,
}

impl Ranged {
    /// Prepares a blob for `ranges` fetches and starts to hash what is there.
    pub(super) fn new(
        job: Job,
        index: usize,
        ingest: Box<dyn Ingest>,
        ranges: usize,
        progress: Arc<dyn Progress>,
    ) -> Self {
        let ingest = Arc::new(ingest);
        let (sender, receiver) = mpsc::unbounded_channel();
        let present: Vec<Range<u64>> = steps(&ingest.missing(), job.blob.size)
            .into_iter()
            .filter_map(|step| match step {
                Step::Present(range) => Some(range),
                Step::Missing(_) => None,
            })
            .collect();
        let there = present.iter().map(|range| range.end - range.start).sum();
        progress.advanced(&job.blob.digest, there);
        let mixed = AtomicBool::new(!present.is_empty());
        let hashing = tokio::spawn(follow(job.clone(), Arc::clone(&ingest), present, receiver));
        Self {
            job,
            index,
            ingest: Mutex::new(Some(ingest)),
            left: AtomicUsize::new(ranges),
            mixed,
            changed: AtomicBool::new(false),
            degraded: AtomicBool::new(false),
            error: Mutex::new(None),
            counted: AtomicU64::new(there),
            arrived: Mutex::new(Some(sender)),
            hashing: Mutex::new(Some(hashing)),
            waiting: Arc::new(Semaphore::new(WAITING)),
        }
    }

    /// Fetches one range into its place. True when it was the last one of the blob: then [`finish`](Self::finish) is due.
    pub(super) async fn fetch(&self, range: Range<u64>, options: &Options, progress: &dyn Progress) -> bool {
        let useless = self.degraded.load(Ordering::Acquire) || self.error.lock().await.is_some();
        if !useless && let Err(error) = self.fetch_range(range, options, progress).await {
            if error.is_changed() {
                self.changed.store(true, Ordering::Release);
                self.degraded.store(true, Ordering::Release);
            } else if matches!(error, Error::NoRanges { .. }) {
                self.degraded.store(true, Ordering::Release);
            } else {
                self.error.lock().await.get_or_insert(error);
            }
        }
        self.left.fetch_sub(1, Ordering::AcqRel) == 1
    }

    async fn fetch_range(&self, range: Range<u64>, options: &Options, progress: &dyn Progress) -> Result<(), Error> {
        let (Some(ingest), Some(arrived)) = (self.ingest.lock().await.clone(), self.arrived.lock().await.clone())
        else {
            return Ok(());
        };
        let mut count = Count::new(&options.patience);
        let mut source = Source::new(&self.job, range.clone());
        // opened by hand first: a provider without ranges must be told apart from one that fails
        source.stream = match self.job.provider.open(&self.job.blob, range).await {
            Ok(stream) => Some(stream),
            Err(error @ Error::NoRanges { .. }) => return Err(error),
            Err(error) if error.is_transient() => None,
            Err(error) => return Err(error.at(Side::Source)),
        };
        loop {
            let at = source.at;
            match source.batch().await {
                Ok(None) => return Ok(()),
                Ok(Some(chunks)) => {
                    let end = at + length(&chunks);
                    let for_hash = Arc::clone(&self.waiting).try_acquire_owned().ok().map(|p| (chunks.clone(), p));
                    ingest.write_at(at, chunks).await.map_err(|e| e.at(Side::Target))?;
                    progress.advanced(&self.job.blob.digest, end - at);
                    self.counted.fetch_add(end - at, Ordering::Relaxed);
                    count.moved();
                    // the follower ends only when this sender does
                    let _ = arrived.send(Arrived { range: at..end, chunks: for_hash });
                }
                Err(error) if error.is_transient() => {
                    progress.retrying(&self.job.blob.digest, &error);
                    self.mixed.store(true, Ordering::Release);
                    if !count.again().await {
                        return Err(error.at(Side::Source));
                    }
                    source.stream = None;
                }
                Err(error) => return Err(error.at(Side::Source)),
            }
        }
    }

    /// How many bytes were reported as arrived.
    pub(super) fn counted(&self) -> u64 {
        self.counted.load(Ordering::Relaxed)
    }

    /// All ranges have ended: waits for the hash and commits. `Ok(false)` when the blob must be fetched as one stream instead.
    pub(super) async fn finish(&self) -> Result<bool, Error> {
        self.arrived.lock().await.take();
        let hashing = self.hashing.lock().await.take();
        let error = self.error.lock().await.take();
        let ingest = self.ingest.lock().await.take();
        let (Some(hashing), Some(ingest)) = (hashing, ingest) else { return Ok(true) };
        if error.is_some() || self.degraded.load(Ordering::Acquire) {
            hashing.abort();
            let _ = hashing.await;
            if self.changed.load(Ordering::Acquire) {
                ingest.reset().await.map_err(|e| e.at(Side::Target))?;
            }
            return error.map_or(Ok(false), Err);
        }
        let hasher = hashing.await.map_err(|e| Error::io("hash", "blob", std::io::Error::other(e)))??;
        let hashed = agree(&self.job, hasher.finish());
        if hashed.is_err() {
            ingest.reset().await.map_err(|e| e.at(Side::Target))?;
            // what an earlier run or an earlier request left may be what is wrong: once more without it
            return if self.mixed.load(Ordering::Acquire) { Ok(false) } else { hashed.map(|()| true) };
        }
        // the follower and every worker have let go of it
        let Some(ingest) = Arc::into_inner(ingest) else {
            return Err(Error::io("commit", "blob", std::io::Error::other("still in use")));
        };
        ingest.commit().await.map_err(|e| e.at(Side::Target))?;
        Ok(true)
    }
}

/// Hashes the contiguous prefix as it grows: from the bytes in hand where they follow at once, else read back.
async fn follow(
    job: Job,
    ingest: Arc<Box<dyn Ingest>>,
    present: Vec<Range<u64>>,
    mut arrivals: mpsc::UnboundedReceiver<Arrived>,
) -> Result<Hasher, Error> {
    let mut hasher = Hasher::new(job.blob.digest.algorithm());
    let mut hashed = 0;
    let mut ahead: BTreeMap<u64, u64> = present.into_iter().map(|r| (r.start, r.end)).collect();
    loop {
        while let Some(end) = ahead.remove(&hashed) {
            for piece in pieces(hashed..end) {
                let bytes = ingest.read_back(piece).await.map_err(|e| e.at(Side::Target))?;
                hash(&mut hasher, &[bytes]);
            }
            hashed = end;
        }
        let Some(Arrived { range, chunks }) = arrivals.recv().await else { return Ok(hasher) };
        match chunks {
            Some((chunks, _permit)) if range.start == hashed => {
                hash(&mut hasher, &chunks);
                hashed = range.end;
            }
            _ => {
                ahead.insert(range.start, range.end);
            }
        }
    }
}
