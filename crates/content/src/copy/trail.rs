//! The hash of a blob's bytes up to some position, and of shorter prefixes on the way there.
//!
//! An upload that broke off goes on where the target stopped taking: the hash goes back to the nearest prefix it remembers, and
//! reads what lies between from the provider. So a break costs at most one step of hashing, not all that went before.

use bytes::Bytes;
use ferry_image::{Descriptor, Digest, Hasher};

use super::stream::{hash, length};

/// The smallest step between two remembered prefixes, bytes.
const STEP: u64 = 1 << 20;
/// The most prefixes that are remembered; each takes about a hundred bytes.
const MOST: u64 = 1024;

pub(super) struct Trail {
    step: u64,
    /// Ascending; the first is the empty prefix.
    marks: Vec<(u64, Hasher)>,
    at: u64,
    hasher: Hasher,
}

impl Trail {
    pub(super) fn new(blob: &Descriptor) -> Self {
        let hasher = Hasher::new(blob.digest.algorithm());
        Self { step: STEP.max(blob.size / MOST), marks: vec![(0, hasher.clone())], at: 0, hasher }
    }

    /// Goes back to the longest known prefix of at most `position` bytes, and tells its length. What is beyond is forgotten.
    pub(super) fn back_to(&mut self, position: u64) -> u64 {
        if position < self.at {
            let kept = self.marks.partition_point(|(at, _)| *at <= position).max(1);
            self.marks.truncate(kept);
            if let Some((at, hasher)) = self.marks.last() {
                (self.at, self.hasher) = (*at, hasher.clone());
            }
        }
        self.at
    }

    pub(super) fn take(&mut self, chunks: &[Bytes]) {
        hash(&mut self.hasher, chunks);
        self.at += length(chunks);
        if self.marks.last().is_some_and(|(at, _)| self.at - at >= self.step) {
            self.marks.push((self.at, self.hasher.clone()));
        }
    }

    /// The digest of all bytes so far.
    pub(super) fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(n: u64) -> Vec<u8> {
        (0..n).map(|i| u8::try_from(i * 31 % 251).expect("small")).collect()
    }

    fn trail(size: u64, step: u64) -> Trail {
        let blob = Descriptor { size, ..Descriptor::of("application/octet-stream", b"") };
        Trail { step, ..Trail::new(&blob) }
    }

    #[test]
    fn a_large_blob_has_few_marks() {
        let mut trail = trail(1 << 40, 1 << 30);
        assert_eq!(Trail::new(&Descriptor { size: 1 << 40, ..Descriptor::of("x", b"") }).step, 1 << 30);
        let batch = [Bytes::from(bytes(1000))];
        trail.step = 1500;
        for _ in 0..30 {
            trail.take(&batch);
        }
        let marks: Vec<u64> = trail.marks.iter().map(|(at, _)| *at).collect();
        assert_eq!(marks, (0..=15).map(|n| n * 2000).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn wherever_it_goes_back_to_the_digest_is_that_of_the_bytes(
            moves in prop::collection::vec((0u64..300, 0u64..400), 1..20),
        ) {
            let all = bytes(8000);
            let mut trail = trail(8000, 100);
            for (forward, back) in moves {
                let at = usize::try_from(trail.at).expect("small");
                let end = at + usize::try_from(forward).expect("small");
                trail.take(&[Bytes::copy_from_slice(&all[at..end])]);
                let target = trail.at.saturating_sub(back);
                let at = trail.back_to(target);
                prop_assert!(at <= target && target - at < 100 + 300);
                prop_assert_eq!(trail.digest(), Digest::of(&all[..usize::try_from(at).expect("small")]));
            }
        }
    }
}
