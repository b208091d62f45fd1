//! Reading ranges of files as streams, for every provider that stands on a disk.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::stream;

use crate::{ByteStream, Error};

/// Bytes read at a time: one trip to a blocking thread for each, and no more than stays in a core's cache until it is hashed and sent.
pub const CHUNK: u64 = 256 << 10;

/// What can be read by position: a file, or several as one.
pub trait ReadAt: Send + Sync {
    /// Fills `buffer` with the bytes at `offset`. No cursor is used or moved.
    ///
    /// # Errors
    /// The system's own; `UnexpectedEof` when there are fewer.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()>;
}

impl ReadAt for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buffer, offset)
    }
}

/// Streams `range` of an open file by position. `path` is for errors.
///
/// The buffers are used again once what was read into them is dropped: fresh memory for each mebibyte costs a fifth of the whole way.
#[must_use]
pub fn stream_range(file: Arc<dyn ReadAt>, path: PathBuf, range: Range<u64>) -> ByteStream {
    let buffers = Buffers::default();
    Box::pin(stream::unfold(Some(range), move |state| {
        let (file, path, buffers) = (Arc::clone(&file), path.clone(), buffers.clone());
        async move {
            let range = state.filter(|r| !r.is_empty())?;
            let end = range.end.min(range.start + CHUNK);
            let wanted = range.start..end;
            let read = tokio::task::spawn_blocking(move || {
                buffers.read(&*file, &wanted).map_err(|e| Error::io("read", path, e))
            });
            let result = match read.await {
                Ok(result) => result,
                Err(join) => Err(Error::io("read", "blob", std::io::Error::other(join))),
            };
            let next = result.is_ok().then_some(end..range.end);
            Some((result, next))
        }
    }))
}

/// Reads exactly `range` of a file. Meant for small ranges: the bytes are held in memory.
///
/// # Errors
/// The system's own; `UnexpectedEof` when the file is shorter.
pub fn read_range(file: &(impl ReadAt + ?Sized), range: &Range<u64>) -> std::io::Result<Bytes> {
    let mut buffer = vec![0; length(range)?];
    file.read_exact_at(&mut buffer, range.start)?;
    Ok(buffer.into())
}

fn length(range: &Range<u64>) -> std::io::Result<usize> {
    usize::try_from(range.end - range.start).map_err(std::io::Error::other)
}

/// Buffers of one stream that wait to be filled again.
#[derive(Debug, Clone, Default)]
struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    fn read(&self, file: &dyn ReadAt, range: &Range<u64>) -> std::io::Result<Bytes> {
        let length = length(range)?;
        let waiting = self.waiting().pop();
        let mut lent = Lent { buffer: waiting.unwrap_or_default(), back: self.clone() };
        lent.buffer.resize(length, 0);
        file.read_exact_at(&mut lent.buffer, range.start)?;
        Ok(Bytes::from_owner(lent))
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A buffer that goes back when the last of its bytes is dropped.
struct Lent {
    buffer: Vec<u8>,
    back: Buffers,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.back.waiting().push(std::mem::take(&mut self.buffer));
    }
}

/// Whether two paths mean one file that is there, by whatever names or links.
#[must_use]
pub fn is_same_file(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let identity = |path: &Path| {
        let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file);
        metadata.map(|metadata| (metadata.dev(), metadata.ino()))
    };
    identity(one).is_some_and(|one| Some(one) == identity(other))
}
