//! Reading ranges of ordinary files as streams, for every provider that stands on a disk.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;

use crate::{ByteStream, Error};

/// Bytes read at a time: one trip to a blocking thread for each.
pub const CHUNK: u64 = 1 << 20;

/// Streams `range` of an open file by position: the file's own cursor is neither used nor moved. `path` is for errors.
#[must_use]
pub fn stream_range(file: Arc<File>, path: PathBuf, range: Range<u64>) -> ByteStream {
    Box::pin(stream::unfold(Some(range), move |state| {
        let (file, path) = (Arc::clone(&file), path.clone());
        async move {
            let range = state.filter(|r| !r.is_empty())?;
            let end = range.end.min(range.start + CHUNK);
            let wanted = range.start..end;
            let read =
                tokio::task::spawn_blocking(move || read_range(&file, &wanted).map_err(|e| Error::io("read", path, e)));
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
pub fn read_range(file: &File, range: &Range<u64>) -> std::io::Result<Bytes> {
    let length = usize::try_from(range.end - range.start).map_err(std::io::Error::other)?;
    let mut buffer = vec![0; length];
    file.read_exact_at(&mut buffer, range.start)?;
    Ok(buffer.into())
}
