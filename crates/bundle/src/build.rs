//! From a plan to a sealed bundle: one queue of blobs, straight into their final place.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferry_archive::{Build, Outgoing, Partial, Sealed, SecretKey};
use ferry_content::copy::{Job, Options, Progress, copy_all};
use ferry_content::{Ingester, Problems, Provider};
use ferry_image::{Descriptor, Digest};

use crate::{Error, Plan, PlannedImage, lock};

/// A bundle that was built.
#[derive(Debug)]
pub struct Built {
    /// The finished file.
    pub sealed: Sealed,
    /// Bytes that an interrupted build had fetched already.
    pub resumed_bytes: u64,
    /// Each image, and all places that something of it came from.
    pub images: Vec<(PlannedImage, BTreeSet<String>)>,
}

impl Plan {
    /// Blobs to fetch and their bytes in all.
    #[must_use]
    pub fn total(&self) -> (usize, u64) {
        (self.blobs.len(), self.blobs.iter().map(|(b, _)| b.size).sum())
    }

    /// The size of the finished file in bytes.
    #[must_use]
    pub fn size(&self, signed: bool) -> u64 {
        self.layout.total_size(signed)
    }

    /// Fetches everything and seals the bundle under `output`. What an interrupted build of the same content left is used;
    /// `build.inputs` is what lets the next run know it.
    ///
    /// # Errors
    /// Every blob that could not be had. What was fetched stays beside `output` for the next run.
    pub async fn build(
        self,
        output: &Path,
        build: Build,
        options: &Options,
        progress: Arc<dyn Progress>,
    ) -> Result<Built, Problems> {
        let lock = lock::print(&self.lock).map_err(|source| Error::Lock { path: output.to_owned(), source })?;
        let (path, build): (PathBuf, Build) = (output.to_owned(), Build { lock, ..build });
        let layout = self.layout.clone();
        let found = {
            let (path, layout, build, threads) = (path.clone(), layout.clone(), build.clone(), threads());
            blocking(move || Partial::standing(&path, &layout, &build, threads, &|_| {})).await??
        };
        if let Some(sealed) = found {
            self.blobs.iter().for_each(|(blob, _)| progress.advanced(&blob.digest, blob.size));
            let bytes = self.total().1;
            return Ok(self.built(sealed, bytes));
        }
        let partial = blocking(move || Partial::create(&path, layout, build)).await??;
        let resumed_bytes = partial.resumed_bytes();
        let partial = Arc::new(partial);
        let jobs: Vec<Job> = self.jobs(&(Arc::clone(&partial) as Arc<dyn Ingester>)).collect();
        let digests: Vec<_> = jobs.iter().map(|j| j.blob.digest.clone()).collect();
        let pause = PauseOnDrop(Some(Arc::clone(&partial)));
        let results = copy_all(jobs, options, progress).await;
        pause.not_needed();
        let mut problems = Problems::default();
        for (digest, result) in digests.iter().zip(results) {
            if let Some(Err(error)) = result {
                problems.add(self.subject(digest), error);
            }
        }
        let partial = problems.or(partial)?;
        let partial = Arc::into_inner(partial).ok_or_else(|| in_use(output))?;
        let sealed = blocking(move || partial.seal(&|_| {})).await??;
        Ok(self.built(sealed, resumed_bytes))
    }

    /// Writes the bundle into a pipe, called `place` in messages: one blob after the other, nothing kept for another run.
    ///
    /// # Errors
    /// The first blob that could not be had, or that the pipe did not take.
    pub async fn stream(
        self,
        writer: Box<dyn Write + Send>,
        place: &Path,
        sign: Option<SecretKey>,
        options: &Options,
        progress: Arc<dyn Progress>,
    ) -> Result<Built, Problems> {
        let (layout, path) = (self.layout.clone(), place.to_owned());
        let outgoing = blocking(move || Outgoing::create(writer, &path, &layout, sign.as_ref())).await??;
        let outgoing = Arc::new(outgoing);
        for job in self.jobs(&(Arc::clone(&outgoing) as Arc<dyn Ingester>)) {
            let digest = job.blob.digest.clone();
            let result = copy_all(vec![job], options, Arc::clone(&progress)).await.pop().flatten();
            if let Some(Err(error)) = result {
                return Err(Problems::one(self.subject(&digest), error));
            }
        }
        let outgoing = Arc::into_inner(outgoing).ok_or_else(|| in_use(place))?;
        let sealed = blocking(move || outgoing.finish()).await??;
        Ok(self.built(sealed, 0))
    }

    /// The blobs in the order of the file, on their way to `ingester`.
    fn jobs<'a>(&'a self, ingester: &'a Arc<dyn Ingester>) -> impl Iterator<Item = Job> + 'a {
        let job = |(blob, provider): &(_, Arc<dyn Provider>)| (Descriptor::clone(blob), Arc::clone(provider));
        self.blobs.iter().map(job).map(|(blob, provider)| Job::new(blob, provider, Arc::clone(ingester)))
    }

    /// How the images that need a blob are named in messages.
    fn subject(&self, digest: &Digest) -> String {
        let needed = self.needed_by.get(digest);
        let subject = needed.and_then(|(first, more)| subject(&self.images, *first, *more));
        subject.unwrap_or_else(|| format!("blob {}", digest.short()))
    }

    fn built(self, sealed: Sealed, resumed_bytes: u64) -> Built {
        let places = |(image, blobs): (PlannedImage, Vec<Digest>)| {
            let mut places = self.served.places(&blobs);
            // manifests and configs came from there when it was resolved
            places.insert(image.source.clone());
            (image, places)
        };
        let images = self.images.into_iter().zip(self.contents).map(places).collect();
        Built { sealed, resumed_bytes, images }
    }
}

/// How the images that need a blob are named in messages.
fn subject(images: &[PlannedImage], first: usize, more: usize) -> Option<String> {
    let first = images.get(first)?.reference.written();
    Some(match more {
        0 => format!("image `{first}`"),
        1 => format!("image `{first}` and another"),
        more => format!("image `{first}` and {more} others"),
    })
}

/// An interrupted build is dropped while its workers still hold the file, and the process may end before they let go of it: what
/// they wrote would be lost to the next run.
struct PauseOnDrop(Option<Arc<Partial>>);

impl PauseOnDrop {
    fn not_needed(mut self) {
        self.0 = None;
    }
}

impl Drop for PauseOnDrop {
    fn drop(&mut self) {
        if let Some(partial) = &self.0 {
            partial.pause();
        }
    }
}

/// Threads for work on the processor.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn in_use(output: &Path) -> Error {
    Error::Content(ferry_content::Error::io("seal", output, std::io::Error::other("still in use")))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ferry_archive::Error> + Send + 'static,
) -> Result<Result<T, Error>, Error> {
    let joined = tokio::task::spawn_blocking(work).await;
    match joined {
        Ok(result) => Ok(result.map_err(Error::from)),
        Err(error) => Err(Error::Content(ferry_content::Error::io("write", "bundle", std::io::Error::other(error)))),
    }
}

/// Whether a failure may pass by itself, so that running the same command again is good advice.
#[must_use]
pub fn worth_repeating(problems: &Problems) -> bool {
    problems.iter().any(|p| p.failure.is_transient() || p.failure.kind() == ferry_content::Kind::Remote)
}
