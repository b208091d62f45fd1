//! An archive, written from its first byte to its last: into a file that has its name when it is whole, or into a pipe.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use ferry_archive::member;
use ferry_content::copy::{self, Job, Progress, copy_all};
use ferry_content::files::is_same_file;
use ferry_content::scratch::Staged;
use ferry_content::{BoxFuture, Error as ContentError, Ingest, Ingester, Problems, Provider, disk};
use ferry_image::Descriptor;

use super::part::Member;
use super::{Export, Fault, Part};
use crate::Error;

/// What takes the bytes of an archive in their order.
pub trait Sink: Write + Send {
    /// Forgets what was written from this byte on.
    ///
    /// # Errors
    /// Where that cannot be: a pipe.
    fn back_to(&mut self, at: u64) -> io::Result<()>;
}

impl Sink for File {
    fn back_to(&mut self, at: u64) -> io::Result<()> {
        self.set_len(at)?;
        self.seek(SeekFrom::Start(at)).map(drop)
    }
}

/// Something that cannot go back.
struct Pipe(Box<dyn Write + Send>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Sink for Pipe {
    fn back_to(&mut self, _: u64) -> io::Result<()> {
        Err(io::Error::other("wrong bytes went into the pipe already"))
    }
}

/// Writes a part into the file `path`, which has that name when it is whole; the folder must be there.
///
/// # Errors
/// What of it could not be read or written; [`Fault::Onto`]; [`Fault::NotAFile`]; [`ContentError::NoRoom`].
pub async fn write_file(
    export: &Export,
    part: &Part,
    path: &Path,
    options: &copy::Options,
    progress: Arc<dyn Progress>,
) -> Result<(), Problems> {
    refuse_other_than_file(path)?;
    export.refuse_onto(path)?;
    // `/dev/stdout` may be a link to a file
    let path = &disk::behind_links(path);
    let staged = Staged::beside(path, 0o644)?;
    disk::check_room(path, part.size())?;
    let file = staged.file().try_clone().map_err(|e| ContentError::io("write", path, e))?;
    write(export, part, Box::new(file), path, options, progress).await?;
    let place = move || staged.place();
    tokio::task::spawn_blocking(place).await.map_err(|e| ContentError::io("write", path, io::Error::other(e)))??;
    Ok(())
}

/// Writes a part into a pipe, called `place` in messages.
///
/// # Errors
/// What of it could not be read or written.
pub async fn write_pipe(
    export: &Export,
    part: &Part,
    pipe: Box<dyn Write + Send>,
    place: &Path,
    options: &copy::Options,
    progress: Arc<dyn Progress>,
) -> Result<(), Problems> {
    write(export, part, Box::new(Pipe(pipe)), place, options, progress).await
}

/// Refuses what is there and is no file, links followed: a whole archive takes the place of what has its name, be it `/dev/null`.
///
/// # Errors
/// [`Fault::NotAFile`]; whatever the disk reports.
pub fn refuse_other_than_file(path: &Path) -> Result<(), Error> {
    match disk::is_other_than_file(path) {
        Ok(true) => Err(Fault::NotAFile { path: path.to_owned() }.into()),
        Ok(false) => Ok(()),
        Err(e) => Err(ContentError::io("write", path, e).into()),
    }
}

impl Export {
    /// Refuses to replace a file that is read.
    fn refuse_onto(&self, path: &Path) -> Result<(), Error> {
        if self.sources.iter().any(|source| is_same_file(source, path)) {
            return Err(Fault::Onto { path: path.to_owned() }.into());
        }
        Ok(())
    }
}

async fn write(
    export: &Export,
    part: &Part,
    sink: Box<dyn Sink>,
    place: &Path,
    options: &copy::Options,
    progress: Arc<dyn Progress>,
) -> Result<(), Problems> {
    let tar = Tar { state: Arc::new(Mutex::new(State { sink, at: 0, current: None })), place: place.to_owned() };
    let provider = Arc::clone(&export.provider) as Arc<dyn Provider>;
    for member in part.members() {
        match member {
            Member::Bytes(name, content) => tar.run(move |state| state.put_member(&name, &content)).await?,
            Member::Blob(blob) => {
                let subject = part.subject(&blob.digest);
                let job = Job::new(blob, Arc::clone(&provider), Arc::new(tar.clone()));
                let done = copy_all(vec![job], options, Arc::clone(&progress)).await.pop().flatten();
                if let Some(Err(error)) = done {
                    return Err(Problems::one(subject, error));
                }
            }
        }
    }
    tar.run(|state| {
        state.put(&[0; member::END as usize])?;
        state.sink.flush()
    })
    .await?;
    Ok(())
}

/// The archive, as a place for blobs that come one after the other.
#[derive(Clone)]
struct Tar {
    state: Arc<Mutex<State>>,
    place: PathBuf,
}

struct State {
    sink: Box<dyn Sink>,
    /// Bytes written.
    at: u64,
    current: Option<Current>,
}

/// The blob that is written.
struct Current {
    blob: Descriptor,
    /// Where its content begins.
    start: u64,
}

impl State {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sink.write_all(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn put_header(&mut self, name: &str, size: u64) -> io::Result<()> {
        let header = member::header(name, size).ok_or_else(|| io::Error::other(format!("`{name}` is too long")))?;
        self.put(&header)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let zeros = [0; member::BLOCK as usize];
        self.put(&zeros[..member::padding(size) as usize])
    }

    fn put_member(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.put_header(name, content.len() as u64)?;
        self.put(content)?;
        self.pad(content.len() as u64)
    }

    /// Bytes of a blob that are written; begins it where it is not begun.
    fn begin(&mut self, blob: &Descriptor) -> io::Result<u64> {
        match &self.current {
            Some(current) if current.blob.digest == blob.digest => Ok(self.at - current.start),
            Some(current) => Err(io::Error::other(format!("blob {} is not finished", current.blob.digest))),
            None => {
                self.put_header(&blob.digest.blob_path(), blob.size)?;
                self.current = Some(Current { blob: blob.clone(), start: self.at });
                Ok(0)
            }
        }
    }

    fn write(&mut self, blob: &Descriptor, offset: u64, chunks: &[Bytes]) -> io::Result<()> {
        if self.begin(blob)? != offset {
            return Err(io::Error::other(format!("bytes of blob {} come out of their order", blob.digest)));
        }
        chunks.iter().try_for_each(|chunk| self.put(chunk))
    }

    fn forget(&mut self) -> io::Result<()> {
        let Some(current) = &self.current else { return Ok(()) };
        if self.at > current.start {
            let start = current.start;
            self.sink.back_to(start)?;
            self.at = start;
        }
        Ok(())
    }

    fn end(&mut self, blob: &Descriptor) -> io::Result<()> {
        let written = self.begin(blob)?;
        if written != blob.size {
            return Err(io::Error::other(format!("blob {} has {written} bytes", blob.digest)));
        }
        self.pad(blob.size)?;
        self.current = None;
        Ok(())
    }
}

impl Tar {
    /// Does something with the archive on a thread that may wait.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut State) -> io::Result<T> + Send + 'static,
    ) -> Result<T, ContentError> {
        let state = Arc::clone(&self.state);
        let done = tokio::task::spawn_blocking(move || work(&mut lock(&state))).await;
        done.unwrap_or_else(|e| Err(io::Error::other(e))).map_err(|e| ContentError::io("write", &self.place, e))
    }
}

impl Ingester for Tar {
    fn start<'a>(&'a self, blob: &'a Descriptor) -> BoxFuture<'a, Result<Option<Box<dyn Ingest>>, ContentError>> {
        Box::pin(async move {
            let slot = Slot { tar: self.clone(), blob: blob.clone() };
            let blob = blob.clone();
            self.run(move |state| state.begin(&blob)).await?;
            Ok(Some(Box::new(slot) as Box<dyn Ingest>))
        })
    }

    fn place(&self) -> String {
        self.place.display().to_string()
    }
}

/// A blob of an archive.
struct Slot {
    tar: Tar,
    blob: Descriptor,
}

impl Ingest for Slot {
    fn missing(&self) -> Vec<Range<u64>> {
        let state = lock(&self.tar.state);
        let written = state.current.as_ref().map_or(0, |current| state.at - current.start);
        if written < self.blob.size { vec![written..self.blob.size] } else { Vec::new() }
    }

    fn write_at<'a>(&'a self, offset: u64, chunks: Vec<Bytes>) -> BoxFuture<'a, Result<(), ContentError>> {
        let blob = self.blob.clone();
        Box::pin(self.tar.run(move |state| state.write(&blob, offset, &chunks)))
    }

    fn read_back<'a>(&'a self, _: Range<u64>) -> BoxFuture<'a, Result<Bytes, ContentError>> {
        let why = "what was written is not read back".to_owned();
        let fault = Fault::Order { place: self.tar.place(), why };
        Box::pin(async move { Err(ContentError::other(fault)) })
    }

    fn reset<'a>(&'a self) -> BoxFuture<'a, Result<(), ContentError>> {
        Box::pin(self.tar.run(State::forget))
    }

    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<(), ContentError>> {
        Box::pin(async move {
            let blob = self.blob.clone();
            self.tar.run(move |state| state.end(&blob)).await
        })
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
