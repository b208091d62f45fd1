//! A bundle being written: `NAME.partial` with its journal beside it, blobs arriving in any order straight in their final place.
//!
//! The final name appears only by rename, after everything was synced. A crash at any moment leaves a file that the next
//! [`Partial::create`] continues; whatever it kept is hashed again by the copy loop before it is believed.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use ferry_content::{BoxFuture, Error as ContentError, Ingest, Ingester, files::read_range};
use ferry_image::{Descriptor, Digest, Hasher};

use crate::disk::{
    allocate, check_room, discard, free, open_locked, refuse_other_than_file, sync_folder, write_all_vectored,
};
use crate::durable::Durable;
use crate::head::HeadBlob;
use crate::journal::{self, Header, Journal, Record};
use crate::layout::{FileContent, Placed};
use crate::ranges::Ranges;
use crate::{Error, Layout, SecretKey, member};

/// What an interrupted build left: enough to tell whether it was the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    /// The `inputs` it was created with.
    pub inputs: String,
    /// The `lock` it was created with.
    pub lock: String,
}

/// A finished bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// The digest of its `SHA256SUMS`.
    pub sums_digest: Digest,
}

/// A bundle being written. Dropping it leaves everything in place for the next run.
#[derive(Debug)]
pub struct Partial {
    shared: Arc<Shared>,
    output: PathBuf,
    journal: PathBuf,
    sums_digest: Digest,
    resumed: u64,
}

#[derive(Debug)]
struct Shared {
    file: File,
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
        let (partial, journal) = paths(output);
        if !partial.is_file() {
            return Ok(None);
        }
        Ok(journal::peek(&journal)?.map(|h| Earlier { inputs: h.inputs, lock: h.lock }))
    }

    /// Begins the bundle `output`, or continues one that an earlier build left unfinished, if it has the same content. Everything
    /// but the blobs is written here. `inputs` and `lock` are what [`peek`](Self::peek) gives back later. Blocking.
    ///
    /// # Errors
    /// [`Error::DiskFull`] before anything is touched; [`Error::Busy`]; [`Error::NotAFile`]; [`Error::Io`]; [`Error::FileChanged`].
    pub fn create(
        output: &Path,
        layout: Layout,
        sign: Option<&SecretKey>,
        inputs: &str,
        lock: &str,
    ) -> Result<Self, Error> {
        refuse_other_than_file(output)?;
        let (path, journal_path) = paths(output);
        refuse_other_than_file(&path)?;
        let file = open_locked(&path)?;
        let size = layout.total_size(sign.is_some());
        let header = Header {
            journal: 1,
            sums: layout.sums_digest().clone(),
            size,
            inputs: inputs.to_owned(),
            lock: lock.to_owned(),
        };
        let metadata = file.metadata().map_err(|e| Error::io("read", &path, e))?;
        let sizes: Vec<u64> = layout.blobs().iter().map(|b| b.size).collect();
        let earlier = journal::read(&journal_path, &sizes)?
            .filter(|(h, _)| h.sums == header.sums && h.size == size && metadata.len() == size);
        let room = check_room(&path, size, metadata.blocks() * 512);
        let written = match (room, earlier) {
            (Ok(()), Some((_, written))) => written,
            (Ok(()), None) => {
                discard(&journal_path)?;
                allocate(&file, &path, size)?;
                vec![Ranges::default(); sizes.len()]
            }
            (Err(error), _) => {
                if metadata.len() == 0 {
                    discard(&path)?;
                }
                return Err(error);
            }
        };
        let head = layout.head();
        let signature = sign.map(|key| key.sign(layout.sums(), &head.name, head.version.as_deref()));
        let start = layout.data_start(sign.is_some());
        write_front(&file, &path, &layout.front(signature.as_deref()))?;
        write_frame(&file, &path, start, layout.blobs())?;
        file.sync_data().map_err(|e| Error::io("write", &path, e))?;
        let records: Vec<Record> = written
            .iter()
            .enumerate()
            .flat_map(|(blob, ranges)| ranges.iter().map(move |range| Record::Kept(blob, range)))
            .collect();
        let journal = Journal::create(&journal_path, &header, &records)?;
        sync_folder(&path)?;
        let second = file.try_clone().map_err(|e| Error::io("open", &path, e))?;
        let durable = Durable::start(second, journal).map_err(|e| Error::io("write", &path, e))?;
        let resumed = written.iter().map(Ranges::total).sum();
        let blobs = layout.blobs().to_vec();
        let shared = Shared {
            file,
            path,
            start,
            places: blobs.iter().enumerate().map(|(i, b)| (b.digest.clone(), i)).collect(),
            progress: Mutex::new(Progress { written, committed: vec![false; blobs.len()] }),
            blobs,
            durable: Mutex::new(Some(durable)),
        };
        Ok(Self {
            shared: Arc::new(shared),
            output: output.to_owned(),
            journal: journal_path,
            sums_digest: header.sums,
            resumed,
        })
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

    /// Finishes the bundle: syncs it and gives it its name. Blocking.
    ///
    /// # Errors
    /// [`Error::Unfinished`] when a blob was not committed; [`Error::Io`]. Nothing stands under the final name then, and the next run
    /// continues.
    pub fn seal(self) -> Result<Sealed, Error> {
        let shared = &self.shared;
        let missing: Vec<usize> =
            shared.progress().committed.iter().enumerate().filter(|(_, done)| !**done).map(|(i, _)| i).collect();
        if let Some(first) = missing.first() {
            let first = shared.blobs[*first].digest.clone();
            return Err(Error::Unfinished { path: self.output.clone(), missing: missing.len(), first });
        }
        let failed = |e| Error::io("write", &shared.path, e);
        if let Some(error) = shared.durable().take().and_then(Durable::abandon) {
            return Err(failed(error));
        }
        shared.file.sync_all().map_err(failed)?;
        let size = shared.file.metadata().map_err(failed)?.len();
        refuse_other_than_file(&self.output)?;
        std::fs::rename(&shared.path, &self.output).map_err(|e| Error::io("create", &self.output, e))?;
        sync_folder(&self.output)?;
        discard(&self.journal)?;
        Ok(Sealed { path: self.output.clone(), size, sums_digest: self.sums_digest.clone() })
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
        write_all_vectored(&self.file, chunks, at).map_err(|e| self.write_error(e.into()))?;
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
            read_range(&shared.file, &place).map_err(|e| Error::io("read", &shared.path, e))
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
            return Box::pin(async { Ok(()) });
        }
        let digest = &self.shared.blobs[self.blob].digest;
        let why = format!("blob {digest} was called whole while bytes {missing:?} are missing");
        let error = Error::OutOfPlace { path: self.shared.path.clone(), why };
        Box::pin(async move { Err(error.into()) })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, ContentError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(ContentError::from),
        Err(join) => Err(ContentError::io("write", "bundle", std::io::Error::other(join))),
    }
}

/// `NAME.partial` and `NAME.partial.journal`.
fn paths(output: &Path) -> (PathBuf, PathBuf) {
    let mut partial = output.as_os_str().to_owned();
    partial.push(".partial");
    let mut journal = partial.clone();
    journal.push(".journal");
    (partial.into(), journal.into())
}

/// Writes the members before the data section, padding included.
fn write_front(file: &File, path: &Path, front: &[Placed]) -> Result<(), Error> {
    for Placed { name, offset, content } in front {
        let size = content.size();
        let header = member_header(name, size)?;
        let put = |bytes: &[u8], at| file.write_all_at(bytes, at).map_err(|e| Error::io("write", path, e));
        put(&header, *offset)?;
        let start = offset + member::BLOCK;
        match content {
            FileContent::Bytes(bytes) => put(bytes, start)?,
            FileContent::Path { path: source, digest, .. } => {
                copy_file(source, digest, size, |b, at| put(b, start + at))?
            }
        }
        put(&vec![0; usize::try_from(member::padding(size)).unwrap_or(0)], start + size)?;
    }
    Ok(())
}

/// Writes the header and padding of every blob, and the end marker.
fn write_frame(file: &File, path: &Path, start: u64, blobs: &[HeadBlob]) -> Result<(), Error> {
    let put = |bytes: &[u8], at| file.write_all_at(bytes, at).map_err(|e| Error::io("write", path, e));
    let mut at = start;
    let mut gap = Vec::new();
    for blob in blobs {
        gap.extend_from_slice(&member_header(&blob.digest.blob_path(), blob.size)?);
        put(&gap, at)?;
        at += gap.len() as u64 + blob.size;
        gap.clear();
        gap.resize(usize::try_from(member::padding(blob.size)).unwrap_or(0), 0);
    }
    gap.resize(gap.len() + member::END as usize, 0);
    put(&gap, at)
}

fn member_header(name: &str, size: u64) -> Result<member::Header, Error> {
    member::header(name, size)
        .ok_or_else(|| Error::Contents { why: format!("the name `{name}` is too long for a tar archive") })
}

/// Copies a carried file, and refuses one that is no longer what was planned.
fn copy_file(
    source: &Path,
    digest: &Digest,
    size: u64,
    put: impl Fn(&[u8], u64) -> Result<(), Error>,
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
        put(&bytes, at)?;
        at = end;
    }
    if hasher.finish() == *digest { Ok(()) } else { Err(changed()) }
}
