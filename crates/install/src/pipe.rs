//! A bundle that comes through a pipe, installed in one pass: what the plan needs stands at its beginning, and blobs are pushed as they
//! come.
//!
//! ```text
//! front ─▶ YAML, manifests ─▶ preflight (the pipe waits) ─▶ each blob: to its upload, or read past ─▶ end ─▶ tags
//! ```
//!
//! Nothing can be read twice: where the target loses what was sent of a blob, that blob is read past and told. The same command again
//! pushes only what is missing then.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use ferry_archive::bundle::MAX_FILE;
use ferry_archive::{Arriving, Incoming, Inflow, Signed, Trust};
use ferry_content::copy::{self, Job, Outcome, Progress};
use ferry_content::files::CHUNK;
use ferry_content::memory::Memory;
use ferry_content::{BoxFuture, ByteStream, Error as ContentError, Failure as _, Ingester, Kind, Provider};
use ferry_image::manifest::MAX_MANIFEST;
use ferry_image::{Descriptor, Digest, Manifest};
use futures_util::stream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::Error;
use crate::bundles::Passing;

/// The most bytes that are kept of the manifests and configs at the beginning.
const KEPT: u64 = 256 << 20;
/// Chunks of a blob that wait for its upload: with [`CHUNK`], a mebibyte.
const WAITING: usize = 4;
/// Failures of the network after which nothing more is sent.
const NETWORK_FAILURES: usize = 3;

/// The rest of a bundle of which the beginning was read.
#[derive(Debug)]
pub struct Pipe {
    incoming: Incoming,
}

impl Pipe {
    /// Reads the beginning: signature, head, carried YAML, manifests and indexes. Blocking. `path` is what the bundle is called in messages.
    ///
    /// # Errors
    /// What does not hold; [`Error::Late`] when the manifests do not come first.
    pub fn begin(inflow: impl Into<Inflow>, path: &Path, trust: &Trust) -> Result<(Passing, Self), Error> {
        let mut incoming = Incoming::open(inflow, path, trust)?;
        let mut files = BTreeMap::new();
        let mut documents = Documents::new(&incoming);
        while let Some(next) = incoming.peek() {
            if next.is_blob && documents.are_complete() {
                break;
            }
            if next.is_blob {
                if next.size > MAX_MANIFEST {
                    return Err(Error::Late { path: path.to_owned(), digest: next.digest });
                }
                if documents.bytes + next.size > KEPT {
                    return Err(Error::Crowded { path: path.to_owned(), limit: KEPT });
                }
                incoming.advance()?;
                documents.take(&next, incoming.read_small(MAX_MANIFEST)?);
            } else {
                incoming.advance()?;
                if next.name.starts_with("yaml/") {
                    files.insert(next.name, incoming.read_small(MAX_FILE)?);
                }
            }
        }
        let (head, sums) = (incoming.head().clone(), incoming.sums_digest().clone());
        Ok((Passing::new(head, sums, path.to_owned(), files, documents.kept), Self { incoming }))
    }

    /// The digest of its `SHA256SUMS`.
    #[must_use]
    pub fn sums_digest(&self) -> &Digest {
        self.incoming.sums_digest()
    }

    /// Who signed it.
    #[must_use]
    pub fn signed(&self) -> &Signed {
        self.incoming.signed()
    }

    /// Sends each of `wanted` to its ingester as it comes, and reads to the end. Gives what became of each that came, and what is wrong with
    /// the pipe; that its end was not reached is wrong, too.
    pub(crate) async fn pass(
        self,
        wanted: HashMap<Digest, (usize, Arc<dyn Ingester>)>,
        options: &copy::Options,
        progress: &Arc<dyn Progress>,
    ) -> (Vec<(usize, Result<Outcome, ContentError>)>, Result<(), Error>) {
        let (send, events) = mpsc::channel(WAITING);
        let path = self.incoming.path().to_owned();
        let digests = wanted.keys().cloned().collect();
        let reading = tokio::task::spawn_blocking(move || read(self.incoming, &digests, &send));
        let (done, is_over) = send_on(events, &path, &wanted, options, progress).await;
        // a pipe that nobody reads to its end may never end
        let read = if is_over {
            let failed = done.iter().filter(|(_, result)| result.is_err()).count();
            Err(Error::Unread { path, failed })
        } else {
            reading.await.unwrap_or_else(|e| Err(abandoned(&path, e)))
        };
        (done, read)
    }
}

/// Sends each blob on as it comes. Gives what became of each, and whether it ended because nothing more would have arrived.
async fn send_on(
    mut events: mpsc::Receiver<Event>,
    path: &Path,
    wanted: &HashMap<Digest, (usize, Arc<dyn Ingester>)>,
    options: &copy::Options,
    progress: &Arc<dyn Progress>,
) -> (Vec<(usize, Result<Outcome, ContentError>)>, bool) {
    let places = Arc::new(Semaphore::new(options.concurrency.max(1)));
    let mut uploads = Uploads { tasks: JoinSet::new(), done: Vec::new(), failed: 0 };
    let mut current: Option<mpsc::Sender<Bytes>> = None;
    let mut is_over = false;
    while let Some(event) = events.recv().await {
        match event {
            Event::Blob(blob) => {
                current = None;
                let place = Arc::clone(&places).acquire_owned().await;
                uploads.settle();
                is_over = uploads.failed >= NETWORK_FAILURES;
                if is_over {
                    break;
                }
                let Some((need, ingester)) = wanted.get(&blob.digest) else { continue };
                let (to, from) = mpsc::channel(WAITING);
                current = Some(to);
                let once = Once::new(path.display().to_string(), from);
                let (need, ingester) = (*need, Arc::clone(ingester));
                let (options, progress) = (options.clone(), Arc::clone(progress));
                uploads.tasks.spawn(async move {
                    let result = upload(blob, once, ingester, &options, progress).await;
                    drop(place);
                    (need, result)
                });
            }
            Event::Bytes(bytes) => {
                // who wants no more of it is done with it, one way or the other
                if let Some(to) = &current
                    && to.send(bytes).await.is_err()
                {
                    current = None;
                }
            }
        }
    }
    drop(current);
    drop(events);
    while let Some(joined) = uploads.tasks.join_next().await {
        uploads.add(joined);
    }
    (uploads.done, is_over)
}

fn abandoned(path: &Path, error: tokio::task::JoinError) -> Error {
    ContentError::io("read", path, std::io::Error::other(error)).into()
}

/// What the reader of a pipe finds.
enum Event {
    /// A blob that is wanted; its bytes come next.
    Blob(Descriptor),
    Bytes(Bytes),
}

/// Reads to the end; what is not wanted is read past. Ends early where nobody listens any more.
fn read(mut incoming: Incoming, wanted: &BTreeSet<Digest>, send: &mpsc::Sender<Event>) -> Result<(), Error> {
    while let Some(member) = incoming.advance()? {
        if !member.is_blob || !wanted.contains(&member.digest) {
            continue;
        }
        let blob = Descriptor::new("application/octet-stream", member.digest, member.size);
        if send.blocking_send(Event::Blob(blob)).is_err() {
            return Ok(());
        }
        while let Some(bytes) = incoming.read(CHUNK)? {
            if send.blocking_send(Event::Bytes(bytes)).is_err() {
                return Ok(());
            }
        }
    }
    Ok(incoming.finish()?)
}

/// Uploads that run, and how those ended that are over.
struct Uploads {
    tasks: JoinSet<(usize, Result<Outcome, ContentError>)>,
    done: Vec<(usize, Result<Outcome, ContentError>)>,
    failed: usize,
}

impl Uploads {
    fn settle(&mut self) {
        while let Some(joined) = self.tasks.try_join_next() {
            self.add(joined);
        }
    }

    fn add(&mut self, joined: Result<(usize, Result<Outcome, ContentError>), tokio::task::JoinError>) {
        match joined {
            Ok((need, result)) => {
                self.failed += match result.as_ref().map_err(ContentError::kind) {
                    // a full disk is met by all that come
                    Err(Kind::Local) => NETWORK_FAILURES,
                    Err(Kind::Remote) => 1,
                    _ => 0,
                };
                self.done.push((need, result));
            }
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => {}
        }
    }
}

async fn upload(
    blob: Descriptor,
    once: Once,
    ingester: Arc<dyn Ingester>,
    options: &copy::Options,
    progress: Arc<dyn Progress>,
) -> Result<Outcome, ContentError> {
    let once = Arc::new(once);
    let progress = Arc::new(Heard { inner: progress, once: Arc::clone(&once) });
    let job = Job::new(blob, Arc::clone(&once) as Arc<dyn Provider>, ingester);
    let options = copy::Options { concurrency: 1, ..options.clone() };
    let mut results = copy::copy_all(vec![job], &options, progress).await;
    results.pop().flatten().unwrap_or_else(|| Err(once.spent()))
}

/// The bytes of one blob, which can be had once and from the beginning.
struct Once {
    place: String,
    from: Mutex<Option<mpsc::Receiver<Bytes>>>,
    /// Why they are asked for again.
    why: Mutex<String>,
}

impl Once {
    fn new(place: String, from: mpsc::Receiver<Bytes>) -> Self {
        Self { place, from: Mutex::new(Some(from)), why: Mutex::default() }
    }

    fn spent(&self) -> ContentError {
        let why = self.why.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ContentError::other(Error::Passed { why })
    }
}

impl Provider for Once {
    fn open<'a>(
        &'a self,
        blob: &'a Descriptor,
        range: std::ops::Range<u64>,
    ) -> BoxFuture<'a, Result<ByteStream, ContentError>> {
        let from = self.from.lock().unwrap_or_else(PoisonError::into_inner).take();
        let result = match from.filter(|_| range == (0..blob.size)) {
            Some(from) => Ok(Box::pin(stream::unfold(from, |mut from| async move {
                let bytes = from.recv().await?;
                Some((Ok(bytes), from))
            })) as ByteStream),
            None => Err(self.spent()),
        };
        Box::pin(async move { result })
    }

    fn place(&self) -> String {
        self.place.clone()
    }
}

/// Remembers why something is tried again.
struct Heard {
    inner: Arc<dyn Progress>,
    once: Arc<Once>,
}

impl Progress for Heard {
    fn advanced(&self, blob: &Digest, bytes: u64) {
        self.inner.advanced(blob, bytes);
    }

    fn lost(&self, blob: &Digest, bytes: u64) {
        self.inner.lost(blob, bytes);
    }

    fn finished(&self, blob: &Descriptor, outcome: Outcome) {
        self.inner.finished(blob, outcome);
    }

    fn retrying(&self, blob: &Digest, error: &ContentError) {
        *self.once.why.lock().unwrap_or_else(PoisonError::into_inner) = error.to_string();
        self.inner.retrying(blob, error);
    }
}

/// The manifests and indexes of a bundle, as they come.
struct Documents {
    kept: Memory,
    bytes: u64,
    /// What is known to be one and has not come.
    open: BTreeMap<Digest, Descriptor>,
    carried: BTreeSet<Digest>,
    /// Those that came, and of which it is known what they name.
    read: BTreeSet<Digest>,
}

impl Documents {
    fn new(incoming: &Incoming) -> Self {
        let head = incoming.head();
        let carried = head.blobs.iter().map(|blob| blob.digest.clone()).collect();
        let named = head.images.iter().flat_map(|image| {
            let platforms = image.platforms.iter().map(|platform| &platform.manifest);
            [&image.root].into_iter().chain(platforms).chain(&image.referrers)
        });
        let open = named.map(|descriptor| (descriptor.digest.clone(), descriptor.clone())).collect();
        Self { kept: Memory::default(), bytes: 0, open, carried, read: BTreeSet::new() }
    }

    fn are_complete(&self) -> bool {
        self.open.is_empty()
    }

    /// Keeps a blob, and learns what it names. What is no manifest is told by the preflight.
    fn take(&mut self, blob: &Arriving, bytes: Bytes) {
        self.bytes += bytes.len() as u64;
        self.kept.insert(bytes);
        let mut known: Vec<Descriptor> = self.open.remove(&blob.digest).into_iter().collect();
        while let Some(descriptor) = known.pop() {
            if !self.read.insert(descriptor.digest.clone()) {
                continue;
            }
            let bytes = self.kept.get(&descriptor.digest).cloned().unwrap_or_default();
            let media_type = Some(descriptor.media_type.as_str()).filter(|text| !text.is_empty());
            let Ok(Manifest::Index(index)) = Manifest::parse(&bytes, media_type) else { continue };
            for entry in index.manifests.into_iter().filter(|entry| self.carried.contains(&entry.digest)) {
                // what came before anybody knew that it is one
                if self.kept.get(&entry.digest).is_some() {
                    self.open.remove(&entry.digest);
                    known.push(entry);
                } else {
                    self.open.insert(entry.digest.clone(), entry);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ferry_content::Ingest;

    use super::*;

    /// Takes nothing: its network is gone.
    struct Cut;

    impl Ingester for Cut {
        fn start<'a>(&'a self, _: &'a Descriptor) -> BoxFuture<'a, Result<Option<Box<dyn Ingest>>, ContentError>> {
            Box::pin(async { Err(ContentError::other(Error::Passed { why: "cut".to_owned() })) })
        }

        fn place(&self) -> String {
            "cut".to_owned()
        }
    }

    #[tokio::test]
    async fn what_was_not_read_to_its_end_is_said_to_be_so() {
        for (blobs, expected) in [(2, (2, false)), (3, (3, false)), (5, (3, true))] {
            let all: Vec<Descriptor> = (0..blobs).map(|n: u8| Descriptor::of("layer", &[n])).collect();
            let cut = |(i, blob): (usize, &Descriptor)| (blob.digest.clone(), (i, Arc::new(Cut) as Arc<dyn Ingester>));
            let wanted = all.iter().enumerate().map(cut).collect();
            let (send, events) = mpsc::channel(1);
            let reader = tokio::spawn(async move {
                for (n, blob) in all.into_iter().enumerate() {
                    let bytes = Bytes::from(vec![n as u8]);
                    for event in [Event::Blob(blob), Event::Bytes(bytes)] {
                        if send.send(event).await.is_err() {
                            return;
                        }
                    }
                }
            });
            let options = copy::Options { concurrency: 1, ..copy::Options::default() };
            let progress: Arc<dyn Progress> = Arc::new(copy::Silent);
            let (done, is_over) = send_on(events, Path::new("-"), &wanted, &options, &progress).await;
            reader.await.expect("reader");
            assert_eq!((done.len(), is_over), expected, "of {blobs}");
        }
    }
}
