//! A bundle being written: `NAME.partial` with its journal beside it, blobs arriving in any order straight in their final place,
//! in one file or in volumes.
//!
//! Final names appear only by rename, after everything was synced. A crash at any moment leaves a file that the next
//! [`Partial::create`] continues; whatever it kept is hashed again by the copy loop before it is believed.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use ferry_content::{BoxFuture, Error as ContentError, Ingest, Ingester, files::read_range};
use ferry_image::{Descriptor, Digest, Hasher};

use crate::disk::{free, sync_folder};
use crate::durable::Durable;
use crate::head::HeadBlob;
use crate::journal::{Header, Journal, Record};
use crate::layout::{FileContent, Placed};
use crate::ranges::Ranges;
use crate::unfinished::Unfinished;
use crate::{Bundle, Error, Layout, Location, SecretKey, Slices, Trust, list, member};

/// What an interrupted build left: enough to tell whether it was the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    /// The `inputs` it was created with.
    pub inputs: String,
    /// The `lock` it was created with.
    pub lock: String,
    /// The bytes of its volumes.
    pub volume: Option<u64>,
}

/// How a bundle is built, beside what it holds.
#[derive(Debug, Clone, Default)]
pub struct Build {
    /// Signs it, and the list of its volumes.
    pub sign: Option<Arc<SecretKey>>,
    /// What [`Partial::peek`] gives back later.
    pub inputs: String,
    /// The same.
    pub lock: String,
    /// The bytes of every volume but the last; one file without.
    pub volume: Option<u64>,
}

/// A finished bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The file, or the common name of its volumes.
    pub path: PathBuf,
    /// Its size in bytes, of all volumes together.
    pub size: u64,
    /// How many volumes it has; 0 for one file.
    pub volumes: usize,
    /// The digest of its `SHA256SUMS`.
    pub sums_digest: Digest,
}

/// A bundle being written. Dropping it leaves everything in place for the next run.
#[derive(Debug)]
pub struct Partial {
    shared: Arc<Shared>,
    unfinished: Unfinished,
    header: Header,
    /// Signs the list of volumes.
    sign: Option<Arc<SecretKey>>,
    /// What that list is called to be of.
    comment: String,
    resumed: u64,
}

#[derive(Debug)]
struct Shared {
    slices: Arc<Slices>,
    path: PathBuf,
    /// Where the data section starts.
    start: u64,
    blobs: Vec<HeadBlob>,
    places: HashMap<Digest, usize>,
    progress: Mutex<Progress>,
    durable: Mutex<Option<Durable>>,
}

#[derive(Debug)]
struct Progress {
    written: Vec<Ranges>,
    committed: Vec<bool>,
}

/// One blob on its way to its place.
struct Slot {
    shared: Arc<Shared>,
    blob: usize,
}

impl Partial {
    /// What an interrupted build of `output` left, if anything.
    ///
    /// # Errors
    /// [`Error::Io`] when the journal is there and cannot be read.
    pub fn peek(output: &Path) -> Result<Option<Earlier>, Error> {
        let earlier = Unfinished::peek(output)?;
        Ok(earlier.map(|h| Earlier { inputs: h.inputs, lock: h.lock, volume: h.volume }))
    }

    /// The bundle `output`, if it stands there already, whole and with the very bytes that a build would give it: a run that was killed after it
    /// had named the bundle, or one more of the same command. Every byte is read. `progress` is told of them. Blocking.
    ///
    /// # Errors
    /// [`Error::Busy`]; [`Error::NotAFile`]; [`Error::Io`] for the files beside it. What is wrong with what stands there is none.
    pub fn standing(
        output: &Path,
        layout: &Layout,
        build: &Build,
        threads: usize,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Option<Sealed>, Error> {
        let location = Location::of(output)?;
        if !location.is_split() && !output.is_file() || location.is_split() == build.volume.is_none() {
            return Ok(None);
        }
        // an unfinished build of that name goes before
        let Some(claim) = Unfinished::claim_unless_begun(output)? else { return Ok(None) };
        let keys = build.sign.iter().map(|key| key.public_key().into()).collect();
        let trust = Trust { keys, allow_unsigned: build.sign.is_none(), ..Trust::default() };
        let size = layout.total_size(build.sign.is_some());
        let whole = |bundle: &Bundle| {
            let same = bundle.sums_digest() == layout.sums_digest() && bundle.size() == size;
            same && bundle.slices().are_volumes_of(build.volume) && bundle.verify(threads, false, progress).is_ok()
        };
        let bundle = Bundle::open_at(&location, &trust).ok().filter(whole);
        let bundle = match bundle {
            Some(bundle) if build.volume.is_none() || Self::is_listed(output, &bundle, layout, build)? => bundle,
            _ => {
                claim.give_up()?;
                return Ok(None);
            }
        };
        claim.discard()?;
        let volumes = if build.volume.is_some() { bundle.slices().parts().len() } else { 0 };
        Ok(Some(Sealed { path: output.to_owned(), size, volumes, sums_digest: layout.sums_digest().clone() }))
    }

    /// Whether the list of its volumes is the one that would be written.
    fn is_listed(output: &Path, bundle: &Bundle, layout: &Layout, build: &Build) -> Result<bool, Error> {
        let head = layout.head();
        let text = list::text(output, &list::hash(bundle.slices(), &|_| {})?);
        let comment = list::comment(&head.name, head.version.as_deref(), layout.sums_digest());
        let signature = build.sign.as_ref().map(|key| key.sign_as(&text, &comment));
        let found = |path: PathBuf| std::fs::read_to_string(path).ok();
        Ok(found(list::path(output)) == Some(text) && found(list::signature_path(output)) == signature)
    }

    /// Begins the bundle `output`, or continues one that an earlier build left unfinished, if it has the same content. Everything
    /// but the blobs is written here. Blocking.
    ///
    /// # Errors
    /// [`Error::DiskFull`] before anything is touched; [`Error::Busy`]; [`Error::NotAFile`]; [`Error::InTheWay`]; [`Error::Io`];
    /// [`Error::FileChanged`].
    pub fn create(output: &Path, layout: Layout, build: Build) -> Result<Self, Error> {
        let Build { sign, inputs, lock, volume } = build;
        let size = layout.total_size(sign.is_some());
        let header = Header { journal: 2, sums: layout.sums_digest().clone(), size, volume, inputs, lock };
        let sizes: Vec<u64> = layout.blobs().iter().map(|b| b.size).collect();
        let mut unfinished = Unfinished::claim(output)?;
        let (slices, written) = unfinished.open(&header, &sizes)?;
        let path = unfinished.partial().to_owned();
        let head = layout.head();
        let signature = sign.as_ref().map(|key| key.sign(layout.sums(), &head.name, head.version.as_deref()));
        let start = layout.data_start(sign.is_some());
        let put = |at: u64, chunks: &[Bytes]| slices.write_all_at(chunks, at).map_err(|e| Error::io("write", &path, e));
        write_front(put, &layout.front(signature.as_deref()))?;
        write_frame(put, start, layout.blobs())?;
        slices.sync_data().map_err(|e| Error::io("write", &path, e))?;
        let records: Vec<Record> = written
            .iter()
            .enumerate()
            .flat_map(|(blob, ranges)| ranges.iter().map(move |range| Record::Kept(blob, range)))
            .collect();
        let journal = Journal::create(unfinished.journal(), &header, &records)?;
        sync_folder(&path)?;
        let slices = Arc::new(slices);
        let durable = Durable::start(Arc::clone(&slices), journal).map_err(|e| Error::io("write", &path, e))?;
        let resumed = written.iter().map(Ranges::total).sum();
        let blobs = layout.blobs().to_vec();
        let shared = Shared {
            slices,
            path,
            start,
            places: blobs.iter().enumerate().map(|(i, b)| (b.digest.clone(), i)).collect(),
            progress: Mutex::new(Progress { written, committed: vec![false; blobs.len()] }),
            blobs,
            durable: Mutex::new(Some(durable)),
        };
        let comment = list::comment(&head.name, head.version.as_deref(), &header.sums);
        Ok(Self { shared: Arc::new(shared), unfinished, header, sign, comment, resumed })
    }

    /// Bytes of blobs that an earlier build left here. They are read and hashed again before they count.
    #[must_use]
    pub fn resumed_bytes(&self) -> u64 {
        self.resumed
    }

    /// Brings the journal up to date with what was written, and ends it: for a build that is about to be given up. Blocking.
    pub fn pause(&self) {
        drop(self.shared.durable().take());
    }

    /// Finishes the bundle: syncs it, lists its volumes if it has any, and gives it its name. `progress` is told of bytes as they are
    /// read for that list. Blocking.
    ///
    /// # Errors
    /// [`Error::Unfinished`] when a blob was not committed; [`Error::Io`]. No file that is not whole stands under its final name then,
    /// and the next run continues.
    pub fn seal(self, progress: &(dyn Fn(u64) + Sync)) -> Result<Sealed, Error> {
        let shared = &self.shared;
        let missing: Vec<usize> =
            shared.progress().committed.iter().enumerate().filter(|(_, done)| !**done).map(|(i, _)| i).collect();
        if let Some(first) = missing.first() {
            let (path, first) = (self.unfinished.output().to_owned(), shared.blobs[*first].digest.clone());
            return Err(Error::Unfinished { path, missing: missing.len(), first });
        }
        let failed = |e| Error::io("write", &shared.path, e);
        // from here on the journal has it that everything is kept
        let failure = shared.durable().take().and_then(Durable::finish);
        if let Some(error) = failure {
            return Err(failed(error));
        }
        shared.slices.sync_all().map_err(failed)?;
        let volumes = if self.header.volume.is_some() { shared.slices.parts().len() } else { 0 };
        if volumes > 0 {
            let sums = list::hash(&shared.slices, progress)?;
            let text = list::text(self.unfinished.output(), &sums);
            let signature = self.sign.as_ref().map(|key| key.sign_as(&text, &self.comment));
            self.unfinished.put_list(&text, signature.as_deref())?;
        }
        self.unfinished.name(&self.header)?;
        let (size, sums_digest) = (self.header.size, self.header.sums.clone());
        Ok(Sealed { path: self.unfinished.output().to_owned(), size, volumes, sums_digest })
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Slots may live on; the journal is brought up to date now.
        self.pause();
    }
}

impl Ingester for Partial {
    fn start<'a>(&'a self, blob: &'a Descriptor) -> BoxFuture<'a, Result<Option<Box<dyn Ingest>>, ContentError>> {
        let result = self.shared.slot(blob).map(|slot| slot.map(|s| Box::new(s) as Box<dyn Ingest>));
        Box::pin(async move { result.map_err(ContentError::from) })
    }

    fn place(&self) -> String {
        self.shared.path.display().to_string()
    }
}

impl Shared {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn durable(&self) -> MutexGuard<'_, Option<Durable>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(self: &Arc<Self>, wanted: &Descriptor) -> Result<Option<Slot>, Error> {
        let fail = |why| Error::OutOfPlace { path: self.path.clone(), why };
        let Some(&blob) = self.places.get(&wanted.digest) else {
            return Err(fail(format!("blob {} has no place in it", wanted.digest)));
        };
        let size = self.blobs[blob].size;
        if size != wanted.size {
            return Err(fail(format!("blob {} has {size} bytes there, not {}", wanted.digest, wanted.size)));
        }
        let committed = self.progress().committed[blob];
        Ok((!committed).then(|| Slot { shared: Arc::clone(self), blob }))
    }

    /// The place in the file of a range of a blob.
    fn locate(&self, blob: usize, range: &Range<u64>) -> Result<u64, Error> {
        let place = &self.blobs[blob];
        if range.start > range.end || range.end > place.size {
            let why = format!("bytes {range:?} are outside of blob {} of {} bytes", place.digest, place.size);
            return Err(Error::OutOfPlace { path: self.path.clone(), why });
        }
        Ok(self.start + place.offset + range.start)
    }

    fn write(&self, blob: usize, offset: u64, chunks: &[Bytes]) -> Result<(), Error> {
        let end = chunks.iter().fold(offset, |end, chunk| end.saturating_add(chunk.len() as u64));
        let at = self.locate(blob, &(offset..end))?;
        if let Some(error) = self.durable().as_ref().and_then(Durable::failure) {
            return Err(self.write_error(error));
        }
        self.slices.write_all_at(chunks, at).map_err(|e| self.write_error(e))?;
        self.progress().written[blob].insert(offset..end);
        if let Some(durable) = self.durable().as_ref() {
            durable.wrote(blob, offset..end);
        }
        Ok(())
    }

    /// Where space cannot be reserved, a disk fills up in the middle.
    fn write_error(&self, error: std::io::Error) -> Error {
        use std::io::ErrorKind as E;
        if matches!(error.kind(), E::StorageFull | E::QuotaExceeded) {
            let written: u64 = self.progress().written.iter().map(Ranges::total).sum();
            let wanted: u64 = self.blobs.iter().map(|b| b.size).sum();
            let available = free(&self.path).unwrap_or(0);
            return Error::DiskFull { path: self.path.clone(), needed: wanted.saturating_sub(written), available };
        }
        Error::io("write", &self.path, error)
    }
}

impl Ingest for Slot {
    fn missing(&self) -> Vec<Range<u64>> {
        self.shared.progress().written[self.blob].missing(self.shared.blobs[self.blob].size)
    }

    fn is_random_access(&self) -> bool {
        true
    }

    fn write_at<'a>(&'a self, offset: u64, chunks: Vec<Bytes>) -> BoxFuture<'a, Result<(), ContentError>> {
        let (shared, blob) = (Arc::clone(&self.shared), self.blob);
        Box::pin(blocking(move || shared.write(blob, offset, &chunks)))
    }

    fn read_back<'a>(&'a self, range: Range<u64>) -> BoxFuture<'a, Result<Bytes, ContentError>> {
        let (shared, blob) = (Arc::clone(&self.shared), self.blob);
        Box::pin(blocking(move || {
            let at = shared.locate(blob, &range)?;
            let place = at..at + (range.end - range.start);
            read_range(&*shared.slices, &place).map_err(|e| Error::io("read", &shared.path, e))
        }))
    }

    fn reset<'a>(&'a self) -> BoxFuture<'a, Result<(), ContentError>> {
        self.shared.progress().written[self.blob] = Ranges::default();
        if let Some(durable) = self.shared.durable().as_ref() {
            durable.forget(self.blob);
        }
        Box::pin(async { Ok(()) })
    }

    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<(), ContentError>> {
        let missing = self.missing();
        if missing.is_empty() {
            self.shared.progress().committed[self.blob] = true;
            if let Some(durable) = self.shared.durable().as_ref() {
                durable.finished(self.blob);
            }
            return Box::pin(async { Ok(()) });
        }
        let digest = &self.shared.blobs[self.blob].digest;
        let why = format!("blob {digest} was called whole while bytes {missing:?} are missing");
        let error = Error::OutOfPlace { path: self.shared.path.clone(), why };
        Box::pin(async move { Err(error.into()) })
    }
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, ContentError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(ContentError::from),
        Err(join) => Err(ContentError::io("write", "bundle", std::io::Error::other(join))),
    }
}

/// Writes the members before the data section, padding included.
fn write_front(put: impl Fn(u64, &[Bytes]) -> Result<(), Error>, front: &[Placed]) -> Result<(), Error> {
    for Placed { name, offset, content } in front {
        let size = content.size();
        let start = offset + member::BLOCK;
        put(*offset, &[member_header(name, size)?])?;
        match content {
            FileContent::Bytes(bytes) => put(start, std::slice::from_ref(bytes))?,
            FileContent::Path { path: source, digest, .. } => {
                copy_file(source, digest, size, |bytes, at| put(start + at, &[bytes]))?;
            }
        }
        put(start + size, &[zeros(member::padding(size))])?;
    }
    Ok(())
}

/// Writes the header and padding of every blob, and the end marker.
fn write_frame(put: impl Fn(u64, &[Bytes]) -> Result<(), Error>, start: u64, blobs: &[HeadBlob]) -> Result<(), Error> {
    let mut at = start;
    let mut before = 0;
    for blob in blobs {
        put(at, &[zeros(before), member_header(&blob.digest.blob_path(), blob.size)?])?;
        at += before + member::BLOCK + blob.size;
        before = member::padding(blob.size);
    }
    put(at, &[zeros(before), zeros(member::END)])
}

/// Padding, and the end marker: never more than that.
pub(crate) fn zeros(count: u64) -> Bytes {
    static ZEROS: [u8; member::END as usize] = [0; member::END as usize];
    Bytes::from_static(&ZEROS[..usize::try_from(count).unwrap_or(0).min(ZEROS.len())])
}

pub(crate) fn member_header(name: &str, size: u64) -> Result<Bytes, Error> {
    let header = member::header(name, size);
    let fail = || Error::Contents { why: format!("the name `{name}` is too long for a tar archive") };
    header.map(|block| Bytes::copy_from_slice(&block)).ok_or_else(fail)
}

/// Copies a carried file, and refuses one that is no longer what was planned.
pub(crate) fn copy_file(
    source: &Path,
    digest: &Digest,
    size: u64,
    mut put: impl FnMut(Bytes, u64) -> Result<(), Error>,
) -> Result<(), Error> {
    let changed = || Error::FileChanged { path: source.to_owned() };
    let file = File::open(source).map_err(|e| Error::io("read", source, e))?;
    let length = file.metadata().map_err(|e| Error::io("read", source, e))?.len();
    if length != size {
        return Err(changed());
    }
    let mut hasher = Hasher::new(digest.algorithm());
    let mut at = 0;
    while at < size {
        let end = size.min(at + ferry_content::files::CHUNK);
        let bytes = read_range(&file, &(at..end)).map_err(|e| Error::io("read", source, e))?;
        hasher.update(&bytes);
        put(bytes, at)?;
        at = end;
    }
    if hasher.finish() == *digest { Ok(()) } else { Err(changed()) }
}
