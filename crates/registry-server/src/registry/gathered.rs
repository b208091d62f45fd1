//! What uploads have taken from their clients and not written yet: written in large steps, and bounded in the memory that it takes.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Memory gathered before it is hashed and written, in bytes.
const BATCH: usize = 1 << 20;
/// Memory that all uploads together gather, about. Where they are many, each writes what it has: then memory does not grow with clients.
const TOGETHER: usize = 64 << 20;
/// Smaller chunks are copied: a handle for each may be many times larger than the chunk, and holds the buffer that it was read into. Also the
/// space that they are copied into is had in steps of this.
const SMALL: usize = 16 << 10;
/// How long what has come waits for more: whoever sends a byte now and then holds no room.
const WAIT: Duration = Duration::from_secs(1);

/// The memory that is left for what all uploads gather, in bytes.
#[derive(Debug)]
pub(crate) struct Gathered(Arc<Semaphore>);

impl Default for Gathered {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(TOGETHER)))
    }
}

/// Bytes on their way to the disk, and the room that they take.
#[derive(Default)]
pub(super) struct Batch {
    chunks: Vec<Bytes>,
    /// What small chunks are copied into; its length is what is not in `chunks` yet.
    piece: BytesMut,
    /// Memory, in bytes.
    taken: usize,
    room: Option<OwnedSemaphorePermit>,
    begun: Option<Instant>,
}

impl Batch {
    /// Adds what came; whether there is room for more.
    pub(super) fn push(&mut self, data: Bytes, gathered: &Gathered) -> bool {
        self.begun.get_or_insert_with(Instant::now);
        let takes = if data.len() < SMALL { self.copy(&data) } else { self.keep(data) };
        self.taken += takes;
        // what has come is here whether or not there was room for it
        let takes = u32::try_from(takes).unwrap_or(u32::MAX);
        let room = Arc::clone(&gathered.0).try_acquire_many_owned(takes).ok();
        let has_room = room.is_some();
        match (&mut self.room, room) {
            (Some(all), Some(more)) => all.merge(more),
            (all, more) => *all = all.take().or(more),
        }
        has_room && self.taken < BATCH
    }

    /// Waits until what is here has waited for long enough; for ever where there is nothing.
    pub(super) async fn due(&self) {
        match self.begun {
            Some(begun) => tokio::time::sleep_until(begun + WAIT).await,
            None => std::future::pending().await,
        }
    }

    /// The bytes, in their order. The room is theirs until the batch is dropped.
    pub(super) fn chunks(&mut self) -> &[Bytes] {
        self.end_run();
        &self.chunks
    }

    /// Returns the memory that is taken for it beyond what was.
    fn copy(&mut self, mut data: &[u8]) -> usize {
        let mut takes = 0;
        while !data.is_empty() {
            if self.piece.capacity() == self.piece.len() {
                self.end_run();
                self.piece = BytesMut::with_capacity(SMALL);
                takes += self.piece.capacity();
            }
            let fits = data.len().min(self.piece.capacity() - self.piece.len());
            let (now, later) = data.split_at(fits);
            self.piece.extend_from_slice(now);
            data = later;
        }
        takes
    }

    fn keep(&mut self, data: Bytes) -> usize {
        self.end_run();
        let takes = data.len();
        self.chunks.push(data);
        takes
    }

    /// What was copied so far is a chunk; the rest of the piece is for the next ones.
    fn end_run(&mut self) {
        if !self.piece.is_empty() {
            self.chunks.push(self.piece.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a batch keeps in memory: handles, and the bytes behind them.
    fn memory(batch: &Batch) -> usize {
        let bytes: usize = batch.chunks.iter().map(Bytes::len).sum();
        batch.chunks.capacity() * size_of::<Bytes>() + bytes + batch.piece.capacity()
    }

    fn filled(frame: &Bytes, gathered: &Gathered) -> (Batch, usize) {
        let (mut batch, mut pushed) = (Batch::default(), 1);
        while batch.push(frame.clone(), gathered) {
            pushed += 1;
        }
        (batch, pushed)
    }

    #[test]
    fn many_uploads_gather_no_more_than_a_few_and_each_goes_on() {
        for frame in [1, 100, SMALL - 1, SMALL, 64 << 10] {
            let (gathered, frame) = (Gathered::default(), Bytes::from(vec![0; frame]));
            // each as long as it is let
            let mut batches: Vec<Batch> = (0..500).map(|_| filled(&frame, &gathered).0).collect();
            assert!((BATCH..BATCH + frame.len()).contains(&batches[0].taken), "few have all the room that they want");
            let last: usize = batches[499].chunks().iter().map(Bytes::len).sum();
            assert_eq!(last, frame.len(), "and the last one writes what it has");
            let all: usize = batches.iter().map(memory).sum();
            assert!(
                all <= TOGETHER + TOGETHER / 64 + 500 * frame.len().max(SMALL) + 500 * 128,
                "{} {all}",
                frame.len()
            );
            drop(batches);
            assert_eq!(gathered.0.available_permits(), TOGETHER, "written, it takes no room");
        }
    }

    #[test]
    fn chunks_of_one_byte_take_no_more_memory_than_large_ones_and_are_few_writes() {
        let (mut batch, pushed) = filled(&Bytes::from_static(b"x"), &Gathered::default());
        assert!(pushed > BATCH - SMALL && memory(&batch) <= BATCH + BATCH / 64, "{pushed} {}", memory(&batch));
        assert!(batch.chunks().len() <= BATCH / SMALL, "{}", batch.chunks().len());
    }

    #[test]
    fn bytes_stay_in_their_order_whatever_the_size_of_chunks() {
        let (gathered, mut batch, mut expected) = (Gathered::default(), Batch::default(), Vec::new());
        for (at, size) in [1, SMALL, 0, SMALL - 1, 7, 3 * SMALL, 2, 2, SMALL - 1, SMALL - 1].into_iter().enumerate() {
            let data = vec![u8::try_from(at).expect("few"); size];
            expected.extend_from_slice(&data);
            assert!(batch.push(data.into(), &gathered));
        }
        let pieces = batch.chunks.iter().map(Bytes::len).sum::<usize>() + batch.piece.capacity();
        assert_eq!(batch.taken, pieces, "what is taken is what is counted");
        assert_eq!(batch.chunks().concat(), expected);
    }

    #[tokio::test]
    async fn what_has_come_waits_a_second_from_its_first_byte() {
        let (gathered, mut batch) = (Gathered::default(), Batch::default());
        let is_due = async |batch: &Batch, time| tokio::time::timeout(time, batch.due()).await.is_ok();
        assert!(!is_due(&batch, WAIT * 3 / 2).await, "nothing has");
        batch.push(Bytes::from_static(b"x"), &gathered);
        assert!(!is_due(&batch, WAIT * 2 / 3).await);
        batch.push(Bytes::from_static(b"y"), &gathered);
        assert!(is_due(&batch, WAIT / 2).await);
    }
}
