//! Reading ranges of files as streams, for every provider that stands on a disk.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::stream;

use crate::{ByteStream, Error};

/// Bytes that one stream reads at a time, at most: one trip to a blocking thread for each, and no more than stays in a core's cache until
/// it is hashed and sent.
pub const CHUNK: u64 = 256 << 10;
/// Bytes that all streams together read at a time, about: of many, each takes smaller steps, so that memory does not grow with clients.
const TOGETHER: u64 = 6 << 20;
/// The smallest step.
const LEAST: u64 = 32 << 10;

/// What can be read by position: a file, or several as one.
pub trait ReadAt: Send + Sync {
    /// Fills `buffer` with the bytes at `offset`. No cursor is used or moved.
    ///
    /// # Errors
    /// The system's own; `UnexpectedEof` when there are fewer.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()>;

    /// Fills `buffer` with the bytes at `offset` if they are in memory already; `false` when that would wait for a disk, or cannot be
    /// known. What `buffer` holds is undefined then.
    fn read_cached_at(&self, _buffer: &mut [u8], _offset: u64) -> bool {
        false
    }
}

impl ReadAt for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buffer, offset)
    }

    /// File systems that cannot tell (FAT, FUSE) refuse, and are read by a thread that may wait.
    #[cfg(target_os = "linux")]
    fn read_cached_at(&self, buffer: &mut [u8], offset: u64) -> bool {
        use rustix::io::{ReadWriteFlags, preadv2};
        let wanted = buffer.len();
        let read = preadv2(self, &mut [std::io::IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT);
        read.is_ok_and(|read| read == wanted)
    }
}

/// Streams `range` of an open file by position. `path` is for errors.
///
/// What is in the page cache is read at once; a trip to a blocking thread costs as much again as the copy. The buffers are used again once
/// what was read into them is dropped: fresh memory for each mebibyte costs a fifth of the whole way.
#[must_use]
pub fn stream_range(file: Arc<dyn ReadAt>, path: PathBuf, range: Range<u64>) -> ByteStream {
    let (buffers, path, counted): (_, Arc<Path>, _) = (Buffers::default(), path.into(), Counted::new());
    Box::pin(stream::unfold(Some(range), move |state| {
        let (file, path, buffers) = (Arc::clone(&file), Arc::clone(&path), buffers.clone());
        let step = counted.step();
        async move {
            let range = state.filter(|r| !r.is_empty())?;
            let end = range.end.min(range.start + step);
            let wanted = range.start..end;
            if let Some(chunk) = buffers.read_cached(&*file, &wanted) {
                return Some((Ok(chunk), Some(end..range.end)));
            }
            let read = tokio::task::spawn_blocking(move || {
                buffers.read(&*file, &wanted).map_err(|e| Error::io("read", path.as_ref(), e))
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

static STREAMS: AtomicU64 = AtomicU64::new(0);

/// A stream, as long as it lives.
struct Counted;

impl Counted {
    fn new() -> Self {
        STREAMS.fetch_add(1, Ordering::Relaxed);
        Self
    }

    /// What a stream may read now, given all others.
    fn step(&self) -> u64 {
        step(STREAMS.load(Ordering::Relaxed))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        STREAMS.fetch_sub(1, Ordering::Relaxed);
    }
}

fn step(streams: u64) -> u64 {
    // whole pages
    (TOGETHER / streams.max(1)).clamp(LEAST, CHUNK) & !0xfff
}

/// Buffers of one stream that wait to be filled again.
#[derive(Debug, Clone, Default)]
struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    fn read(&self, file: &dyn ReadAt, range: &Range<u64>) -> std::io::Result<Bytes> {
        let mut lent = self.lend(length(range)?);
        file.read_exact_at(&mut lent.buffer, range.start)?;
        Ok(Bytes::from_owner(lent))
    }

    fn read_cached(&self, file: &dyn ReadAt, range: &Range<u64>) -> Option<Bytes> {
        let mut lent = self.lend(length(range).ok()?);
        file.read_cached_at(&mut lent.buffer, range.start).then(|| Bytes::from_owner(lent))
    }

    fn lend(&self, length: usize) -> Lent {
        let waiting = self.waiting().pop();
        // one from before there were so many streams is given up
        let waiting = waiting.filter(|buffer| buffer.capacity() / 2 <= length);
        let mut lent = Lent { buffer: waiting.unwrap_or_default(), back: self.clone() };
        lent.buffer.resize(length, 0);
        lent
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

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    #[test]
    fn of_many_streams_each_takes_smaller_steps() {
        assert_eq!([0, 1, 24, 25, 100, 200, 10_000].map(step), [CHUNK, CHUNK, CHUNK, 249_856, 61_440, LEAST, LEAST]);
    }

    /// Never in memory, as on a file system that cannot tell.
    struct Cold(Vec<u8>);

    impl ReadAt for Cold {
        fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
            let start = usize::try_from(offset).map_err(std::io::Error::other)?;
            let found = self.0.get(start..start + buffer.len()).ok_or(std::io::ErrorKind::UnexpectedEof)?;
            buffer.copy_from_slice(found);
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_range_comes_whole_from_memory_and_from_a_disk() {
        let bytes: Vec<u8> = (0..900_000_u32).map(|n| (n / 3 % 251) as u8).collect();
        let mut file = tempfile::tempfile().expect("file");
        std::io::Write::write_all(&mut file, &bytes).expect("write");
        let sources: [Arc<dyn ReadAt>; 2] = [Arc::new(file), Arc::new(Cold(bytes.clone()))];
        for source in sources {
            for range in [0..900_000, 5..5, 7..262_151, 899_999..900_000] {
                let (start, end) = (range.start as usize, range.end as usize);
                let chunks: Vec<_> = stream_range(Arc::clone(&source), "x".into(), range).collect().await;
                let found: Vec<u8> = chunks.into_iter().flat_map(|chunk| chunk.expect("chunk").to_vec()).collect();
                assert!(found == bytes[start..end]);
            }
            let past: Vec<_> = stream_range(source, "x".into(), 899_990..900_010).collect().await;
            assert!(past.len() == 1 && past[0].is_err(), "what is not there is an error, once");
        }
    }
}
