//! A bundle on its way out through a pipe: the same bytes as the file would have, blobs strictly in their order.

use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use ferry_content::{BoxFuture, Error as ContentError, Ingest, Ingester};
use ferry_image::{Descriptor, Digest};

use crate::head::HeadBlob;
use crate::layout::FileContent;
use crate::partial::{blocking, copy_file, member_header, zeros};
use crate::{Error, Layout, Sealed, SecretKey, member};

/// A bundle being written to a pipe. It takes one blob after the other, in the order of the layout.
pub struct Outgoing {
    shared: Arc<Mutex<State>>,
    path: PathBuf,
    sums_digest: Digest,
    size: u64,
}

struct State {
    writer: Box<dyn Write + Send>,
    path: PathBuf,
    blobs: Vec<HeadBlob>,
    /// The blob that is written.
    current: usize,
    /// Bytes of it that went out; none before its header did.
    written: Option<u64>,
}

/// The blob that is written.
struct Slot {
    shared: Arc<Mutex<State>>,
    blob: HeadBlob,
}

impl Outgoing {
    /// Writes everything before the blobs. `path` is what the pipe is called in messages. Blocking.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::FileChanged`]; [`Error::Contents`].
    pub fn create(
        writer: Box<dyn Write + Send>,
        path: &Path,
        layout: &Layout,
        sign: Option<&SecretKey>,
    ) -> Result<Self, Error> {
        let head = layout.head();
        let signature = sign.map(|key| key.sign(layout.sums(), &head.name, head.version.as_deref()));
        let blobs = layout.blobs().to_vec();
        let mut state = State { writer, path: path.to_owned(), blobs, current: 0, written: None };
        for member in layout.front(signature.as_deref()) {
            let size = member.content.size();
            state.put(&member_header(&member.name, size)?)?;
            match &member.content {
                FileContent::Bytes(bytes) => state.put(bytes)?,
                FileContent::Path { path, digest, .. } => {
                    copy_file(path, digest, size, |bytes, _| state.put(&bytes))?;
                }
            }
            state.put(&zeros(member::padding(size)))?;
        }
        let (sums_digest, size) = (layout.sums_digest().clone(), layout.total_size(sign.is_some()));
        Ok(Self { shared: Arc::new(Mutex::new(state)), path: path.to_owned(), sums_digest, size })
    }

    /// Writes the end. Blocking.
    ///
    /// # Errors
    /// [`Error::Unfinished`] when a blob is missing; [`Error::Io`].
    pub fn finish(self) -> Result<Sealed, Error> {
        let mut state = lock(&self.shared);
        if let Some(blob) = state.blobs.get(state.current) {
            let (missing, first) = (state.blobs.len() - state.current, blob.digest.clone());
            return Err(Error::Unfinished { path: self.path.clone(), missing, first });
        }
        state.put(&zeros(member::END))?;
        state.writer.flush().map_err(|e| Error::io("write", &self.path, e))?;
        drop(state);
        Ok(Sealed { path: self.path, size: self.size, volumes: 0, sums_digest: self.sums_digest })
    }
}

impl State {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.writer.write_all(bytes).map_err(|e| Error::io("write", &self.path, e))
    }

    fn fail(&self, why: String) -> Error {
        Error::OutOfPlace { path: self.path.clone(), why }
    }

    /// The blob whose turn it is; `None` for one that went out already.
    fn turn(&self, wanted: &Descriptor) -> Result<Option<HeadBlob>, Error> {
        match self.blobs.iter().position(|blob| blob.digest == wanted.digest) {
            Some(place) if place < self.current => Ok(None),
            Some(place) if place == self.current && self.blobs[place].size == wanted.size => {
                Ok(Some(self.blobs[place].clone()))
            }
            _ => Err(self.fail(format!("blob {} is not the next one", wanted.digest))),
        }
    }

    fn write(&mut self, blob: &HeadBlob, offset: u64, chunks: &[Bytes]) -> Result<(), Error> {
        let written = self.written.unwrap_or(0);
        let end = chunks.iter().fold(offset, |end, chunk| end.saturating_add(chunk.len() as u64));
        if offset != written || end > blob.size || self.blobs.get(self.current) != Some(blob) {
            return Err(self.fail(format!("bytes {offset} to {end} of blob {} are not the next ones", blob.digest)));
        }
        self.begin(blob)?;
        for chunk in chunks {
            self.put(chunk)?;
        }
        self.written = Some(end);
        Ok(())
    }

    fn begin(&mut self, blob: &HeadBlob) -> Result<(), Error> {
        if self.written.is_none() {
            self.put(&member_header(&blob.digest.blob_path(), blob.size)?)?;
            self.written = Some(0);
        }
        Ok(())
    }

    fn commit(&mut self, blob: &HeadBlob) -> Result<(), Error> {
        self.begin(blob)?;
        if self.written != Some(blob.size) {
            return Err(self.fail(format!("blob {} was called whole before it was", blob.digest)));
        }
        self.put(&zeros(member::padding(blob.size)))?;
        self.current += 1;
        self.written = None;
        Ok(())
    }
}

impl Ingester for Outgoing {
    fn start<'a>(&'a self, blob: &'a Descriptor) -> BoxFuture<'a, Result<Option<Box<dyn Ingest>>, ContentError>> {
        let slot = |blob| Box::new(Slot { shared: Arc::clone(&self.shared), blob }) as Box<dyn Ingest>;
        let result = lock(&self.shared).turn(blob).map(|turn| turn.map(slot));
        Box::pin(async move { result.map_err(ContentError::from) })
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}

impl Ingest for Slot {
    fn missing(&self) -> Vec<Range<u64>> {
        let written = lock(&self.shared).written.unwrap_or(0);
        if written < self.blob.size { vec![written..self.blob.size] } else { Vec::new() }
    }

    fn write_at<'a>(&'a self, offset: u64, chunks: Vec<Bytes>) -> BoxFuture<'a, Result<(), ContentError>> {
        let (shared, blob) = (Arc::clone(&self.shared), self.blob.clone());
        Box::pin(blocking(move || lock(&shared).write(&blob, offset, &chunks)))
    }

    fn read_back<'a>(&'a self, _: Range<u64>) -> BoxFuture<'a, Result<Bytes, ContentError>> {
        let error = lock(&self.shared).fail("what went into a pipe cannot be read back".to_owned());
        Box::pin(async move { Err(error.into()) })
    }

    fn reset<'a>(&'a self) -> BoxFuture<'a, Result<(), ContentError>> {
        let state = lock(&self.shared);
        let result = match state.written {
            None | Some(0) => Ok(()),
            Some(_) => Err(state.fail(format!("wrong bytes of blob {} went into the pipe already", self.blob.digest))),
        };
        Box::pin(async move { result.map_err(ContentError::from) })
    }

    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<(), ContentError>> {
        Box::pin(blocking(move || lock(&self.shared).commit(&self.blob)))
    }
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing").field("path", &self.path).finish_non_exhaustive()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
