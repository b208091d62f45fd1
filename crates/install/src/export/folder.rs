//! An OCI layout in a folder. Blobs get their names when they are whole, and `index.json` is written last, so a folder of an export that
//! broke off shows no image that is not there. Blobs that are there are read and kept.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use ferry_archive::member;
use ferry_archive::oci::OCI_LAYOUT_JSON;
use ferry_content::copy::{self, Job, Progress, copy_all};
use ferry_content::files::CHUNK;
use ferry_content::scratch::{Staged, sweep_staged};
use ferry_content::{BoxFuture, Error as ContentError, Ingest, Ingester, Problems, Provider, disk, texts};
use ferry_image::{Descriptor, Digest, Hasher};

use super::{Export, Fault, Part, documents};
use crate::Error;

/// The largest `index.json` that is read.
const MAX_INDEX: u64 = 64 << 20;
const BLOBS: &str = "blobs";

/// Writes a part into the folder `path`, beside what a layout there has under other names.
///
/// # Errors
/// What of it could not be read or written; [`Fault::NotALayout`]; [`Fault::Busy`]; [`ContentError::NoRoom`].
pub async fn write_folder(
    export: &Export,
    part: &Part,
    path: &Path,
    options: &copy::Options,
    progress: Arc<dyn Progress>,
) -> Result<(), Problems> {
    refuse_other(path)?;
    let folder = Arc::new(Folder { path: path.to_owned() });
    for blobs in part
        .blobs
        .iter()
        .map(|blob| folder.file(&blob.digest))
        .filter_map(|file| Some(file.parent()?.to_owned()))
        .collect::<BTreeSet<_>>()
    {
        std::fs::create_dir_all(&blobs).map_err(|e| ContentError::io("create", &blobs, e))?;
    }
    let held = File::open(path).map_err(|e| ContentError::io("read", path, e))?;
    if let Err(std::fs::TryLockError::WouldBlock) = held.try_lock() {
        return Err(Error::from(Fault::Busy { path: path.to_owned() }).into());
    }
    let there = read_index(path)?;
    sweep(path);
    let needed = part.blobs.iter().filter(|blob| !folder.has_size(blob)).map(|blob| blob.size).sum();
    disk::check_room(path, needed)?;
    for (digest, bytes) in &part.documents {
        if std::fs::read(folder.file(digest)).ok().as_deref() != Some(bytes) {
            texts::write(&folder.file(digest), bytes)?;
        }
    }
    let provider = Arc::clone(&export.provider) as Arc<dyn Provider>;
    let job =
        |blob: &Descriptor| Job::new(blob.clone(), Arc::clone(&provider), Arc::clone(&folder) as Arc<dyn Ingester>);
    let results = copy_all(part.blobs.iter().map(job).collect(), options, progress).await;
    let mut problems = Problems::default();
    for (blob, result) in part.blobs.iter().zip(results) {
        if let Some(Err(error)) = result {
            problems.add(part.subject(&blob.digest), error);
        }
    }
    problems.or(())?;
    texts::write(&path.join(member::OCI_LAYOUT), OCI_LAYOUT_JSON)?;
    let index = path.join(member::INDEX);
    let text = match there {
        None => documents::index(part.entries.clone()),
        Some(there) => documents::joined(&there, part.entries.clone())
            .map_err(|why| Error::from(Fault::Index { path: index.clone(), why }))?,
    };
    texts::write(&index, &text)?;
    Ok(())
}

/// Removes what a killed export left: nobody else is writing here.
fn sweep(path: &Path) {
    let algorithms = std::fs::read_dir(path.join(BLOBS)).into_iter().flatten().filter_map(Result::ok);
    for algorithm in algorithms {
        let name = algorithm.file_name().to_string_lossy().into_owned();
        sweep_staged(&algorithm.path(), |hex| format!("{name}:{hex}").parse::<Digest>().is_ok());
    }
}

/// Refuses a folder that holds anything but a layout.
fn refuse_other(path: &Path) -> Result<(), Error> {
    let io = |e| Error::from(ContentError::io("read", path, e));
    let entries = match std::fs::read_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(io)?,
    };
    for entry in entries {
        let name = entry.map_err(io)?.file_name();
        if disk::is_of_file_system(&name) {
            continue;
        }
        let name = name.to_string_lossy();
        // what a killed run left of these
        let plain = name.strip_prefix('.').and_then(|name| name.strip_suffix(".new")).unwrap_or(&name);
        if ![BLOBS, member::OCI_LAYOUT, member::INDEX].contains(&plain) {
            return Err(Fault::NotALayout { path: path.to_owned(), found: name.into_owned() }.into());
        }
    }
    Ok(())
}

fn read_index(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    use std::io::Read as _;
    let index = path.join(member::INDEX);
    let io = |e| Error::from(ContentError::io("read", &index, e));
    let file = match File::open(&index) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(io)?,
    };
    let mut text = Vec::new();
    file.take(MAX_INDEX).read_to_end(&mut text).map_err(io)?;
    // told before anything is written
    let fail = |why| Error::from(Fault::Index { path: index.clone(), why });
    documents::joined(&text, Vec::new()).map_err(fail)?;
    Ok(Some(text))
}

/// The folder, as a place for blobs.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn file(&self, digest: &Digest) -> PathBuf {
        self.path.join(digest.blob_path())
    }

    fn has_size(&self, blob: &Descriptor) -> bool {
        std::fs::metadata(self.file(&blob.digest)).is_ok_and(|found| found.is_file() && found.len() == blob.size)
    }
}

/// Whether the file is the blob: what stands there is not believed for its name.
fn is_whole(path: &Path, blob: &Descriptor) -> io::Result<bool> {
    let file = File::open(path)?;
    let mut hasher = Hasher::new(blob.digest.algorithm());
    let mut buffer = vec![0; CHUNK as usize];
    let mut at = 0;
    loop {
        let read = file.read_at(&mut buffer, at)?;
        if read == 0 {
            return Ok(hasher.finish() == blob.digest);
        }
        hasher.update(&buffer[..read]);
        at += read as u64;
    }
}

impl Ingester for Folder {
    fn start<'a>(&'a self, blob: &'a Descriptor) -> BoxFuture<'a, Result<Option<Box<dyn Ingest>>, ContentError>> {
        let (path, blob, has_size) = (self.file(&blob.digest), blob.clone(), self.has_size(blob));
        Box::pin(blocking(self.file(&blob.digest), move || {
            if has_size && is_whole(&path, &blob).unwrap_or(false) {
                return Ok(None);
            }
            let staged = Staged::beside(&path, 0o644)?;
            let file = staged.file().try_clone().map_err(|e| ContentError::io("write", &path, e))?;
            let slot = Slot { staged, file: Arc::new(file), path, written: 0.into(), size: blob.size };
            Ok(Some(Box::new(slot) as Box<dyn Ingest>))
        }))
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}

/// A blob on its way into the folder.
struct Slot {
    staged: Staged,
    file: Arc<File>,
    path: PathBuf,
    written: AtomicU64,
    size: u64,
}

impl Ingest for Slot {
    fn missing(&self) -> Vec<Range<u64>> {
        let written = self.written.load(Ordering::Acquire);
        if written < self.size { vec![written..self.size] } else { Vec::new() }
    }

    fn write_at<'a>(&'a self, offset: u64, chunks: Vec<Bytes>) -> BoxFuture<'a, Result<(), ContentError>> {
        let (file, path) = (Arc::clone(&self.file), self.path.clone());
        let end = chunks.iter().fold(offset, |at, chunk| at + chunk.len() as u64);
        Box::pin(async move {
            let write = move || {
                let mut at = offset;
                for chunk in chunks {
                    file.write_all_at(&chunk, at).map_err(|e| ContentError::io("write", &path, e))?;
                    at += chunk.len() as u64;
                }
                Ok(())
            };
            blocking(self.path.clone(), write).await?;
            self.written.store(end, Ordering::Release);
            Ok(())
        })
    }

    fn read_back<'a>(&'a self, _: Range<u64>) -> BoxFuture<'a, Result<Bytes, ContentError>> {
        let why = "what was written is not read back".to_owned();
        let fault = Fault::Order { place: self.path.display().to_string(), why };
        Box::pin(async move { Err(ContentError::other(fault)) })
    }

    fn reset<'a>(&'a self) -> BoxFuture<'a, Result<(), ContentError>> {
        self.written.store(0, Ordering::Release);
        let result = self.file.set_len(0).map_err(|e| ContentError::io("write", &self.path, e));
        Box::pin(async move { result })
    }

    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<(), ContentError>> {
        let path = self.path.clone();
        Box::pin(blocking(path, move || self.staged.place()))
    }
}

async fn blocking<T: Send + 'static>(
    path: PathBuf,
    work: impl FnOnce() -> Result<T, ContentError> + Send + 'static,
) -> Result<T, ContentError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(ContentError::io("write", path, io::Error::other(e))))
}
