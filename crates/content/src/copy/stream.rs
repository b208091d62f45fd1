//! One blob as one stream, from its first byte to its last.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use ferry_image::{Descriptor, Digest, Hasher};
use futures_util::StreamExt as _;

use super::patience::Count;
use super::trail::Trail;
use super::{Job, Options, Outcome, Progress};
use crate::error::Side;
use crate::{ByteStream, Error, Failure as _, Ingest};

/// Bytes gathered before they are hashed and written: few enough to stay in a core's cache on the way.
pub(super) const BATCH: usize = 256 << 10;
/// The longest that bytes wait to be gathered: on a slow line an interruption must not cost what has arrived.
const GATHER: Duration = Duration::from_millis(500);

/// Moves a blob whose ingest has begun, from start to commit; begins again where the target fails in a way that may pass. Bytes that the
/// target lost with the failure do not count as progress: they could be sent to a full one for ever.
pub(super) async fn copy(
    job: &Job,
    begun: Box<dyn Ingest>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Outcome, Error> {
    let mut transfer = Transfer::new(job, options, progress);
    let mut writing = Count::new(&options.patience);
    let mut next = Some(begun);
    let (mut reset, mut sent_all) = (false, false);
    let mut left = u64::MAX;
    loop {
        let ingest = match next.take() {
            Some(ingest) => ingest,
            None => match job.ingester.start(&job.blob).await {
                Ok(Some(ingest)) => ingest,
                // only the answer to the last request was lost
                Ok(None) if sent_all => return Ok(Outcome::Copied),
                Ok(None) => {
                    transfer.recount(0);
                    return Ok(Outcome::Present);
                }
                Err(error) if error.is_transient() => {
                    progress.retrying(&job.blob.digest, &error);
                    if !writing.again().await {
                        return Err(error.at(Side::Target));
                    }
                    continue;
                }
                Err(error) => return Err(error.at(Side::Target)),
            },
        };
        let missing: u64 = ingest.missing().iter().map(|range| range.end - range.start).sum();
        if missing < left {
            left = missing;
            writing.moved();
        }
        let kept = ingest.missing() != [0..job.blob.size] && job.blob.size > 0;
        let result = match transfer.pass(ingest.as_ref()).await {
            Ok(()) => {
                sent_all = true;
                ingest.commit().await.map_err(|e| e.at(Side::Target))
            }
            Err(error) if error.spoils() => {
                ingest.reset().await?;
                // what an earlier run or an earlier request left may be what is wrong: one more try without it
                if (kept || transfer.reading.ever_failed() || error.is_changed()) && !reset {
                    reset = true;
                    next = Some(ingest).filter(|ingest| ingest.is_random_access());
                    continue;
                }
                if job.provider.turns_elsewhere(&job.blob) {
                    progress.retrying(&job.blob.digest, &error);
                    next = Some(ingest).filter(|ingest| ingest.is_random_access());
                    continue;
                }
                Err(error)
            }
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => return Ok(Outcome::Copied),
            // what reading could not mend is not mended by writing again
            Err(error) if error.is_transient() && !matches!(error, Error::At { side: Side::Source, .. }) => {
                progress.retrying(&job.blob.digest, &error);
                if !writing.again().await {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// One blob on its way, over all attempts.
struct Transfer<'a> {
    job: &'a Job,
    progress: &'a dyn Progress,
    reading: Count<'a>,
    trail: Trail,
    /// Bytes that were reported as arrived.
    counted: u64,
}

impl<'a> Transfer<'a> {
    fn new(job: &'a Job, options: &'a Options, progress: &'a dyn Progress) -> Self {
        Self { job, progress, reading: Count::new(&options.patience), trail: Trail::new(&job.blob), counted: 0 }
    }

    /// Walks the blob once: hashes what is there, fetches what is missing, holds the last batch back until the digest agrees.
    async fn pass(&mut self, ingest: &dyn Ingest) -> Result<(), Error> {
        let (size, missing) = (self.job.blob.size, ingest.missing());
        // what a place that takes bytes in order has of them was hashed on its way there; the rest of it is read once more
        let there = if ingest.is_random_access() { 0 } else { missing.first().map_or(size, |range| range.start) };
        self.recount(there);
        let mut source = Source::new(self.job, self.trail.back_to(there)..there);
        while let Some((_, chunks)) = self.next(&mut source).await? {
            self.trail.take(&chunks);
        }
        let mut held: Option<(u64, Vec<Bytes>)> = None;
        for step in steps(&missing, size) {
            let range = match step {
                Step::Present(range) if range.end <= there => continue,
                Step::Present(range) => {
                    for piece in pieces(range) {
                        let bytes = ingest.read_back(piece).await.map_err(|e| e.at(Side::Target))?;
                        self.arrived(bytes.len() as u64);
                        self.trail.take(&[bytes]);
                    }
                    continue;
                }
                Step::Missing(range) => range,
            };
            let mut source = Source::new(self.job, range);
            while let Some((at, chunks)) = self.next(&mut source).await? {
                if let Some((offset, chunks)) = held.replace((at, chunks.clone())) {
                    self.write(ingest, offset, chunks).await?;
                }
                self.trail.take(&chunks);
            }
        }
        agree(self.job, self.trail.digest())?;
        match held {
            Some((offset, chunks)) => self.write(ingest, offset, chunks).await,
            None => Ok(()),
        }
    }

    /// The next batch and where it begins, tried again while that may help.
    async fn next(&mut self, source: &mut Source<'_>) -> Result<Option<(u64, Vec<Bytes>)>, Error> {
        loop {
            let at = source.at;
            match source.batch().await {
                Ok(chunks) => {
                    self.reading.moved();
                    return Ok(chunks.map(|chunks| (at, chunks)));
                }
                Err(error) if error.is_transient() => {
                    self.progress.retrying(&self.job.blob.digest, &error);
                    if !self.reading.again().await {
                        return Err(error.at(Side::Source));
                    }
                    source.stream = None;
                }
                Err(error) if self.job.provider.turns_elsewhere(&self.job.blob) => {
                    self.progress.retrying(&self.job.blob.digest, &error);
                    source.stream = None;
                }
                Err(error) => return Err(error.at(Side::Source)),
            }
        }
    }

    async fn write(&mut self, ingest: &dyn Ingest, offset: u64, chunks: Vec<Bytes>) -> Result<(), Error> {
        let length = length(&chunks);
        ingest.write_at(offset, chunks).await.map_err(|e| e.at(Side::Target))?;
        self.arrived(length);
        Ok(())
    }

    fn arrived(&mut self, bytes: u64) {
        self.counted += bytes;
        self.progress.advanced(&self.job.blob.digest, bytes);
    }

    /// The target has `there` bytes, whatever was reported before.
    fn recount(&mut self, there: u64) {
        let digest = &self.job.blob.digest;
        match self.counted.checked_sub(there) {
            Some(0) => {}
            Some(fewer) => self.progress.lost(digest, fewer),
            None => self.progress.advanced(digest, there - self.counted),
        }
        self.counted = there;
    }
}

/// Whether the bytes that came are those the digest names.
pub(super) fn agree(job: &Job, found: Digest) -> Result<(), Error> {
    if found == job.blob.digest {
        return Ok(());
    }
    Err(Error::DigestMismatch { place: job.provider.place(), expected: job.blob.digest.clone(), found })
}

/// Hashes a batch where it is: a tenth of a millisecond, less than it costs to hand it to another thread and back.
pub(super) fn hash(hasher: &mut Hasher, chunks: &[Bytes]) {
    for chunk in chunks {
        hasher.update(chunk);
    }
}

pub(super) fn length(chunks: &[Bytes]) -> u64 {
    chunks.iter().map(|c| c.len() as u64).sum()
}

/// Reads a range in batches, reopening where it stopped; never more bytes than asked for, never fewer.
pub(super) struct Source<'a> {
    pub(super) job: &'a Job,
    pub(super) at: u64,
    pub(super) end: u64,
    pub(super) stream: Option<ByteStream>,
    broken: Option<Error>,
}

impl<'a> Source<'a> {
    pub(super) fn new(job: &'a Job, range: Range<u64>) -> Self {
        Self { job, at: range.start, end: range.end, stream: None, broken: None }
    }

    /// The next batch; `None` at the end of the range.
    pub(super) async fn batch(&mut self) -> Result<Option<Vec<Bytes>>, Error> {
        let blob = &self.job.blob;
        if self.at >= self.end {
            return Ok(None);
        }
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        if self.stream.is_none() {
            self.stream = Some(open(self.job, self.at..self.end).await?);
        }
        let mut chunks = Vec::new();
        let mut size = 0;
        let enough = tokio::time::Instant::now() + GATHER;
        while let Some(stream) = self.stream.as_mut()
            && size < BATCH
            && self.at < self.end
        {
            let next = match chunks.is_empty() {
                true => stream.next().await,
                false => match tokio::time::timeout_at(enough, stream.next()).await {
                    Ok(next) => next,
                    Err(_) => break,
                },
            };
            let chunk = match next {
                Some(Ok(chunk)) => chunk,
                Some(Err(error)) if chunks.is_empty() => return Err(error),
                // what arrived before the failure is kept, the failure reported with the next batch
                Some(Err(error)) => {
                    self.broken = Some(error);
                    break;
                }
                None => return Err(self.wrong_size(blob, self.at)),
            };
            size += chunk.len();
            self.at += chunk.len() as u64;
            if self.at > self.end {
                return Err(self.wrong_size(blob, self.at));
            }
            chunks.push(chunk);
        }
        Ok(Some(chunks))
    }

    fn wrong_size(&self, blob: &Descriptor, found: u64) -> Error {
        Error::SizeMismatch { place: self.job.provider.place(), digest: blob.digest.clone(), expected: self.end, found }
    }
}

/// Opens a range; where only whole blobs can be had, reads past what is not wanted.
async fn open(job: &Job, range: Range<u64>) -> Result<ByteStream, Error> {
    match job.provider.open(&job.blob, range.clone()).await {
        Err(Error::NoRanges { .. }) => {
            let whole = job.provider.open(&job.blob, 0..job.blob.size).await?;
            Ok(cut(whole, range))
        }
        result => result,
    }
}

/// The bytes of `range` out of a stream that begins at 0.
fn cut(stream: ByteStream, range: Range<u64>) -> ByteStream {
    let mut at = 0_u64;
    Box::pin(stream.filter_map(move |chunk| {
        let kept = chunk.map(|bytes| {
            let begin = at;
            at += bytes.len() as u64;
            let from = range.start.clamp(begin, at) - begin;
            let to = range.end.clamp(begin, at) - begin;
            bytes.slice(usize::try_from(from).unwrap_or(usize::MAX)..usize::try_from(to).unwrap_or(usize::MAX))
        });
        std::future::ready(match kept {
            Ok(bytes) if bytes.is_empty() => None,
            other => Some(other),
        })
    }))
}

/// What to do with a stretch of the blob.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Present(Range<u64>),
    Missing(Range<u64>),
}

/// The whole blob in order, from what is missing of it.
pub(super) fn steps(missing: &[Range<u64>], size: u64) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut at = 0;
    for range in missing.iter().filter(|r| !r.is_empty()) {
        if at < range.start {
            steps.push(Step::Present(at..range.start));
        }
        steps.push(Step::Missing(range.clone()));
        at = range.end;
    }
    if at < size {
        steps.push(Step::Present(at..size));
    }
    steps
}

/// A range in batches.
pub(super) fn pieces(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let step = BATCH as u64;
    (range.start..range.end).step_by(BATCH).map(move |start| start..(start + step).min(range.end))
}
