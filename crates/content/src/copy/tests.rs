//! The loop against places that misbehave on purpose.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ferry_image::{Descriptor, Digest};
use futures_util::{StreamExt as _, stream};

use super::{Job, Options, Outcome, Patience, Silent, copy_all};
use crate::{BoxFuture, ByteStream, Error, Failure, Ingest, Ingester, Kind, Provider};

#[derive(Debug, thiserror::Error)]
#[error("connection lost")]
struct Lost;

impl Failure for Lost {
    fn kind(&self) -> Kind {
        Kind::Remote
    }
    fn is_transient(&self) -> bool {
        true
    }
}

/// Serves one blob, breaking off after `drop_every` bytes of each request.
struct Shaky {
    bytes: Bytes,
    drop_every: Option<u64>,
    ranges: bool,
    /// Other bytes that the first request gets, and whether the next one is told.
    before: Option<(Bytes, bool)>,
    requests: AtomicUsize,
    served: Arc<AtomicUsize>,
}

impl Shaky {
    fn new(bytes: &[u8]) -> Self {
        Self {
            bytes: Bytes::copy_from_slice(bytes),
            drop_every: None,
            ranges: true,
            before: None,
            requests: AtomicUsize::new(0),
            served: Arc::default(),
        }
    }
}

impl Provider for Shaky {
    fn open<'a>(&'a self, blob: &'a Descriptor, range: Range<u64>) -> BoxFuture<'a, Result<ByteStream, Error>> {
        Box::pin(async move {
            if !self.ranges && range != (0..blob.size) {
                return Err(Error::NoRanges { place: self.place(), digest: blob.digest.clone() });
            }
            let number = self.requests.fetch_add(1, Ordering::Relaxed);
            let bytes = match &self.before {
                Some((_, true)) if number == 1 => {
                    return Err(Error::Changed { place: self.place(), digest: blob.digest.clone() });
                }
                Some((before, _)) if number == 0 => before,
                _ => &self.bytes,
            };
            let stop = self.drop_every.map_or(range.end, |n| range.end.min(range.start + n));
            let slice = bytes.slice(usize::try_from(range.start).unwrap()..usize::try_from(stop).unwrap());
            let served = Arc::clone(&self.served);
            let mut items: Vec<Result<Bytes, Error>> =
                slice.chunks(1000).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
            if stop < range.end {
                items.push(Err(Error::other(Lost)));
            }
            let count = move |item: &Result<Bytes, Error>| {
                served.fetch_add(item.as_ref().map_or(0, Bytes::len), Ordering::Relaxed);
            };
            Ok(Box::pin(stream::iter(items).inspect(count)) as ByteStream)
        })
    }
    fn is_remote(&self) -> bool {
        true
    }
    fn place(&self) -> String {
        "shaky".to_owned()
    }
}

#[derive(Default)]
struct Shelf {
    random: bool,
    done: Arc<Mutex<BTreeMap<Digest, Vec<u8>>>>,
    kept: Option<(Vec<u8>, Vec<Range<u64>>)>,
    fail_writes: Arc<AtomicUsize>,
    starts: AtomicUsize,
}

struct Putting {
    digest: Digest,
    random: bool,
    bytes: Mutex<Vec<u8>>,
    missing: Mutex<Vec<Range<u64>>>,
    done: Arc<Mutex<BTreeMap<Digest, Vec<u8>>>>,
    fail_writes: Arc<AtomicUsize>,
    size: u64,
}

impl Ingester for Shelf {
    fn start<'a>(&'a self, blob: &'a Descriptor) -> BoxFuture<'a, Result<Option<Box<dyn Ingest>>, Error>> {
        self.starts.fetch_add(1, Ordering::Relaxed);
        let present = self.done.lock().unwrap().contains_key(&blob.digest);
        let whole = vec![0..blob.size];
        let (bytes, missing) = match &self.kept {
            Some((bytes, missing)) => (bytes.clone(), missing.clone()),
            None => (vec![0; usize::try_from(blob.size).unwrap()], whole),
        };
        let ingest = Putting {
            digest: blob.digest.clone(),
            random: self.random,
            bytes: Mutex::new(bytes),
            missing: Mutex::new(missing),
            done: Arc::clone(&self.done),
            fail_writes: Arc::clone(&self.fail_writes),
            size: blob.size,
        };
        Box::pin(async move { Ok((!present).then(|| Box::new(ingest) as Box<dyn Ingest>)) })
    }
    fn place(&self) -> String {
        "shelf".to_owned()
    }
}

impl Ingest for Putting {
    fn missing(&self) -> Vec<Range<u64>> {
        self.missing.lock().unwrap().clone()
    }
    fn is_random_access(&self) -> bool {
        self.random
    }
    fn write_at<'a>(&'a self, offset: u64, chunks: Vec<Bytes>) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            if self.fail_writes.load(Ordering::Relaxed) > 0 {
                self.fail_writes.fetch_sub(1, Ordering::Relaxed);
                return Err(Error::other(Lost));
            }
            let mut at = usize::try_from(offset).unwrap();
            let mut bytes = self.bytes.lock().unwrap();
            for chunk in chunks {
                bytes[at..at + chunk.len()].copy_from_slice(&chunk);
                at += chunk.len();
            }
            Ok(())
        })
    }
    fn read_back<'a>(&'a self, range: Range<u64>) -> BoxFuture<'a, Result<Bytes, Error>> {
        let bytes = self.bytes.lock().unwrap();
        let slice = &bytes[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
        let bytes = Bytes::copy_from_slice(slice);
        Box::pin(async move { Ok(bytes) })
    }
    fn reset<'a>(&'a self) -> BoxFuture<'a, Result<(), Error>> {
        *self.missing.lock().unwrap() = vec![0..self.size];
        Box::pin(async { Ok(()) })
    }
    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async move {
            self.done.lock().unwrap().insert(self.digest.clone(), self.bytes.lock().unwrap().clone());
            Ok(())
        })
    }
}

fn quick() -> Options {
    let patience =
        Patience { attempts: 3, first_wait: Duration::from_millis(1), longest_wait: Duration::from_millis(2) };
    Options { concurrency: 4, first: 2, smallest_range: 3000, patience }
}

fn sample(n: usize) -> Vec<u8> {
    (0..n).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect()
}

async fn copy(provider: Shaky, shelf: Shelf, bytes: &[u8]) -> (Result<Outcome, Error>, Arc<Shaky>, Arc<Shelf>) {
    let (provider, shelf) = (Arc::new(provider), Arc::new(shelf));
    let job = Job::new(
        Descriptor::of("application/octet-stream", bytes),
        Arc::clone(&provider) as _,
        Arc::clone(&shelf) as _,
    );
    let mut results = copy_all(vec![job], &quick(), Arc::new(Silent)).await;
    (results.pop().unwrap().expect("begun"), provider, shelf)
}

#[tokio::test]
async fn ranges_and_streams_give_the_same_bytes() {
    for size in [0, 1, 999, 6001, 50_000] {
        for random in [true, false] {
            for drop_every in [None, Some(700), Some(4100)] {
                let bytes = sample(size);
                let shaky = Shaky { drop_every, ..Shaky::new(&bytes) };
                let shelf = Shelf { random, ..Shelf::default() };
                let (result, shaky, shelf) = copy(shaky, shelf, &bytes).await;
                assert_eq!(result.expect("copied"), Outcome::Copied, "{size} {random} {drop_every:?}");
                assert_eq!(shelf.done.lock().unwrap().get(&Digest::of(&bytes)), Some(&bytes));
                assert_eq!(shaky.served.load(Ordering::Relaxed), size, "no byte is fetched twice");
            }
        }
    }
}

#[tokio::test]
async fn a_large_blob_is_asked_for_once_a_range() {
    let bytes = sample(50_000);
    let (result, shaky, _) = copy(Shaky::new(&bytes), Shelf { random: true, ..Shelf::default() }, &bytes).await;
    result.expect("copied");
    assert_eq!(shaky.requests.load(Ordering::Relaxed), 16);
}

#[tokio::test]
async fn a_server_without_ranges_is_asked_for_the_whole_blob() {
    let bytes = sample(50_000);
    let shaky = Shaky { ranges: false, ..Shaky::new(&bytes) };
    let (result, shaky, shelf) = copy(shaky, Shelf { random: true, ..Shelf::default() }, &bytes).await;
    assert_eq!(result.expect("copied"), Outcome::Copied);
    assert_eq!(shaky.requests.load(Ordering::Relaxed), 1);
    assert_eq!(shelf.done.lock().unwrap().get(&Digest::of(&bytes)), Some(&bytes));
}

#[tokio::test]
async fn what_an_earlier_run_left_is_hashed_and_not_fetched() {
    let bytes = sample(50_000);
    let mut left = bytes.clone();
    left[10_000..20_000].fill(0);
    let shelf = Shelf { random: true, kept: Some((left, vec![10_000..20_000])), ..Shelf::default() };
    let (result, shaky, _) = copy(Shaky::new(&bytes), shelf, &bytes).await;
    result.expect("copied");
    assert_eq!(shaky.served.load(Ordering::Relaxed), 10_000);
}

#[tokio::test]
async fn wrong_leftovers_are_fetched_anew() {
    // as one stream, and as ranges
    for (size, missing) in [(5_000, 1_000..2_000), (50_000, 10_000..20_000)] {
        let bytes = sample(size);
        let shelf = Shelf { random: true, kept: Some((vec![9; size], vec![missing])), ..Shelf::default() };
        let (result, _, shelf) = copy(Shaky::new(&bytes), shelf, &bytes).await;
        result.expect("copied");
        assert_eq!(shelf.done.lock().unwrap().get(&Digest::of(&bytes)), Some(&bytes));
    }
}

#[tokio::test]
async fn a_blob_that_changed_meanwhile_is_begun_anew() {
    // as one stream, and as ranges; told by the server, and found out by the digest
    for (size, random) in [(5_000, false), (5_000, true), (50_000, true)] {
        for told in [true, false] {
            let bytes = sample(size);
            let before = Some((Bytes::from(vec![9; size]), told));
            let shaky = Shaky { before, drop_every: Some(1000), ..Shaky::new(&bytes) };
            let (result, shaky, shelf) = copy(shaky, Shelf { random, ..Shelf::default() }, &bytes).await;
            result.unwrap_or_else(|e| panic!("{size} {random} {told}: {e}"));
            assert_eq!(shelf.done.lock().unwrap().get(&Digest::of(&bytes)), Some(&bytes));
            assert!(shaky.served.load(Ordering::Relaxed) <= 2 * size);
        }
    }
}

#[tokio::test]
async fn wrong_bytes_are_never_committed_and_their_last_batch_never_sent() {
    for random in [true, false] {
        let bytes = sample(50_000);
        let mut wrong = bytes.clone();
        wrong[30_000] ^= 1;
        let shelf = Shelf { random, ..Shelf::default() };
        let (result, _, shelf) = copy(Shaky::new(&wrong), shelf, &bytes).await;
        assert_eq!(result.expect_err("refused").kind(), Kind::Untrusted);
        assert!(shelf.done.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_target_that_breaks_is_begun_again() {
    let bytes = sample(50_000);
    let shelf = Shelf { fail_writes: Arc::new(AtomicUsize::new(2)), ..Shelf::default() };
    let (result, _, shelf) = copy(Shaky::new(&bytes), shelf, &bytes).await;
    result.expect("copied");
    assert_eq!(shelf.starts.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_target_that_always_breaks_is_given_up() {
    let bytes = sample(3_000_000);
    let shelf = Shelf { fail_writes: Arc::new(AtomicUsize::new(1000)), ..Shelf::default() };
    let (result, _, shelf) = copy(Shaky::new(&bytes), shelf, &bytes).await;
    assert!(matches!(result.expect_err("gave up"), Error::At { side: crate::error::Side::Target, .. }));
    assert_eq!(shelf.starts.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn who_gets_no_byte_gives_up() {
    let bytes = sample(50_000);
    let shaky = Shaky { drop_every: Some(0), ..Shaky::new(&bytes) };
    let (result, shaky, _) = copy(shaky, Shelf::default(), &bytes).await;
    assert!(result.expect_err("gave up").is_transient());
    assert_eq!(shaky.requests.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn what_is_there_is_not_read() {
    let bytes = sample(100);
    let shelf = Shelf::default();
    shelf.done.lock().unwrap().insert(Digest::of(&bytes), bytes.clone());
    let (result, shaky, _) = copy(Shaky::new(&bytes), shelf, &bytes).await;
    assert_eq!(result.expect("present"), Outcome::Present);
    assert_eq!(shaky.requests.load(Ordering::Relaxed), 0);
}

/// Takes bytes in order and keeps them when it breaks off, as a registry may keep an upload: they cannot be read back.
struct Counter {
    bytes: Arc<Mutex<Vec<u8>>>,
    /// Bytes taken before each break.
    breaks: Mutex<Vec<usize>>,
    /// What is kept of the bytes at a break.
    keeps: fn(usize) -> usize,
    written: Arc<AtomicUsize>,
    lose_answer: bool,
    committed: Arc<AtomicUsize>,
}

impl Counter {
    fn new(breaks: &[usize], keeps: fn(usize) -> usize) -> Arc<Self> {
        Arc::new(Self {
            bytes: Arc::default(),
            breaks: Mutex::new(breaks.iter().rev().copied().collect()),
            keeps,
            written: Arc::default(),
            lose_answer: false,
            committed: Arc::default(),
        })
    }
}

struct Counting {
    bytes: Arc<Mutex<Vec<u8>>>,
    left: Mutex<Option<usize>>,
    keeps: fn(usize) -> usize,
    written: Arc<AtomicUsize>,
    lose_answer: bool,
    committed: Arc<AtomicUsize>,
    size: u64,
}

impl Ingester for Counter {
    fn start<'a>(&'a self, blob: &'a Descriptor) -> BoxFuture<'a, Result<Option<Box<dyn Ingest>>, Error>> {
        let ingest = Counting {
            bytes: Arc::clone(&self.bytes),
            left: Mutex::new(self.breaks.lock().unwrap().pop()),
            keeps: self.keeps,
            written: Arc::clone(&self.written),
            lose_answer: self.lose_answer,
            committed: Arc::clone(&self.committed),
            size: blob.size,
        };
        let present = self.committed.load(Ordering::Relaxed) > 0;
        Box::pin(async move { Ok((!present).then(|| Box::new(ingest) as Box<dyn Ingest>)) })
    }
    fn place(&self) -> String {
        "counter".to_owned()
    }
}

impl Ingest for Counting {
    fn missing(&self) -> Vec<Range<u64>> {
        let at = self.bytes.lock().unwrap().len() as u64;
        Some(at..self.size).filter(|r| !r.is_empty()).into_iter().collect()
    }
    fn write_at<'a>(&'a self, offset: u64, chunks: Vec<Bytes>) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let mut bytes = self.bytes.lock().unwrap();
            assert_eq!(offset, bytes.len() as u64, "in order");
            for chunk in chunks {
                self.written.fetch_add(chunk.len(), Ordering::Relaxed);
                bytes.extend_from_slice(&chunk);
                if let Some(left) = self.left.lock().unwrap().as_mut() {
                    let before = *left;
                    *left = left.saturating_sub(chunk.len());
                    if *left == 0 {
                        let at = bytes.len() - chunk.len() + before;
                        bytes.truncate((self.keeps)(at));
                        return Err(Error::other(Lost));
                    }
                }
            }
            Ok(())
        })
    }
    fn read_back<'a>(&'a self, _: Range<u64>) -> BoxFuture<'a, Result<Bytes, Error>> {
        panic!("cannot be read back")
    }
    fn reset<'a>(&'a self) -> BoxFuture<'a, Result<(), Error>> {
        self.bytes.lock().unwrap().clear();
        Box::pin(async { Ok(()) })
    }
    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async move {
            assert_eq!(self.bytes.lock().unwrap().len() as u64, self.size);
            self.committed.fetch_add(1, Ordering::Relaxed);
            if self.lose_answer { Err(Error::other(Lost)) } else { Ok(()) }
        })
    }
}

/// What was told: bytes arrived less bytes lost, and how often any were lost.
#[derive(Default)]
struct Told(AtomicUsize, AtomicUsize);

impl super::Progress for Told {
    fn advanced(&self, _: &Digest, bytes: u64) {
        self.0.fetch_add(usize::try_from(bytes).unwrap(), Ordering::Relaxed);
    }
    fn lost(&self, _: &Digest, bytes: u64) {
        self.0.fetch_sub(usize::try_from(bytes).unwrap(), Ordering::Relaxed);
        self.1.fetch_add(1, Ordering::Relaxed);
    }
    fn finished(&self, _: &Descriptor, _: Outcome) {}
    fn retrying(&self, _: &Digest, _: &Error) {}
}

async fn upload(bytes: &[u8], target: &Arc<Counter>) -> (Result<Outcome, Error>, Arc<Shaky>, Arc<Told>) {
    let (provider, told) = (Arc::new(Shaky::new(bytes)), Arc::new(Told::default()));
    let job = Job::new(
        Descriptor::of("application/octet-stream", bytes),
        Arc::clone(&provider) as _,
        Arc::clone(target) as _,
    );
    let mut results = copy_all(vec![job], &quick(), Arc::clone(&told) as _).await;
    (results.pop().unwrap().expect("begun"), provider, told)
}

#[tokio::test]
async fn an_upload_goes_on_where_the_target_stopped() {
    let bytes = sample(8 << 20);
    // each break keeps all but a bit of what came; many more breaks than patience has attempts
    let target = Counter::new(&[900_000; 9], |at| at - 1234);
    let (result, shaky, told) = upload(&bytes, &target).await;
    assert_eq!(result.expect("copied"), Outcome::Copied);
    assert!(*target.bytes.lock().unwrap() == bytes);
    let again = target.written.load(Ordering::Relaxed) - bytes.len();
    assert!(again < 9 * 3000, "sent again: {again}");
    // the hash begins anew from the last mark, at most a step before
    let read = shaky.served.load(Ordering::Relaxed) - bytes.len();
    assert!(read < 9 * (1 << 20) * 3, "read again: {read}");
    assert_eq!(told.0.load(Ordering::Relaxed), bytes.len(), "as many bytes are told as there are");
}

#[tokio::test]
async fn what_the_target_lost_is_told_and_sent_again() {
    let bytes = sample(4 << 20);
    let target = Counter::new(&[3_000_000, 2_000_000], |_| 0);
    let (result, _, told) = upload(&bytes, &target).await;
    assert_eq!(result.expect("copied"), Outcome::Copied);
    assert!(*target.bytes.lock().unwrap() == bytes);
    assert_eq!((told.0.load(Ordering::Relaxed), told.1.load(Ordering::Relaxed)), (bytes.len(), 2));
}

#[tokio::test]
async fn a_target_that_keeps_nothing_is_given_up() {
    let bytes = sample(4 << 20);
    let target = Counter::new(&[3_000_000; 9], |_| 0);
    let (result, _, _) = upload(&bytes, &target).await;
    assert!(result.expect_err("gave up").is_transient());
    assert_eq!(target.breaks.lock().unwrap().len(), 9 - 3, "three attempts");
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_none_the_less_a_copy() {
    let bytes = sample(100_000);
    let target = Arc::new(Counter { lose_answer: true, ..Arc::into_inner(Counter::new(&[], |at| at)).unwrap() });
    let (result, shaky, told) = upload(&bytes, &target).await;
    assert_eq!(result.expect("copied"), Outcome::Copied);
    assert_eq!(shaky.served.load(Ordering::Relaxed), bytes.len());
    assert_eq!(told.0.load(Ordering::Relaxed), bytes.len());
}

#[tokio::test]
async fn what_was_kept_counts_towards_the_digest() {
    let bytes = sample(4 << 20);
    let mut wrong = bytes.clone();
    wrong[10] ^= 1;
    let target = Counter::new(&[3_000_000], |at| at);
    let provider = Arc::new(Shaky::new(&wrong));
    let job = Job::new(Descriptor::of("application/octet-stream", &bytes), provider as _, Arc::clone(&target) as _);
    let error = copy_all(vec![job], &quick(), Arc::new(Silent)).await.pop().unwrap().unwrap().unwrap_err();
    assert_eq!((error.kind(), target.committed.load(Ordering::Relaxed)), (Kind::Untrusted, 0));
}

#[tokio::test]
async fn what_arrived_as_ranges_and_is_begun_anew_is_counted_once() {
    let bytes = sample(50_000);
    // wrong leftovers; and a provider that turns out to have no ranges
    let kept = Some((vec![9; 50_000], vec![10_000..20_000]));
    for (ranges, kept) in [(true, kept), (false, None)] {
        let shelf = Shelf { random: true, kept, ..Shelf::default() };
        let told = Arc::new(Told::default());
        let job = Job::new(
            Descriptor::of("application/octet-stream", &bytes),
            Arc::new(Shaky { ranges, ..Shaky::new(&bytes) }),
            Arc::new(shelf),
        );
        let mut results = copy_all(vec![job], &quick(), Arc::clone(&told) as _).await;
        assert_eq!(results.pop().unwrap().unwrap().expect("copied"), Outcome::Copied);
        assert_eq!(told.0.load(Ordering::Relaxed), bytes.len(), "{ranges}");
    }
}

#[tokio::test]
async fn a_job_waits_for_another_and_finds_what_that_brought() {
    let bytes = sample(5000);
    let blob = Descriptor::of("application/octet-stream", &bytes);
    for fails in [0, 9] {
        let provider = Arc::new(Shaky::new(&bytes));
        let shelf = Arc::new(Shelf { fail_writes: Arc::new(AtomicUsize::new(fails)), ..Shelf::default() });
        let job = || Job::new(blob.clone(), Arc::clone(&provider) as _, Arc::clone(&shelf) as _);
        let jobs = vec![Job { after: Some(1), ..job() }, job(), Job { after: Some(0), ..job() }];
        let results = copy_all(jobs, &quick(), Arc::new(Silent)).await;
        let outcomes: Vec<_> = results.into_iter().map(|result| result.and_then(Result::ok)).collect();
        if fails == 0 {
            assert_eq!(outcomes, [Some(Outcome::Present), Some(Outcome::Copied), Some(Outcome::Present)]);
            assert_eq!(provider.requests.load(Ordering::Relaxed), 1);
        } else {
            // the third failure of a place is the last: all were begun, one after the other, until none was left
            assert_eq!((outcomes, shelf.fail_writes.load(Ordering::Relaxed)), (vec![None, None, None], 0));
        }
    }
}
