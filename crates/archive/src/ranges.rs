//! Sets of byte ranges.

use std::collections::BTreeMap;
use std::ops::Range;

/// Disjoint ranges, neighbours merged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds `range`.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let Range { mut start, mut end } = range;
        while let Some((&s, &e)) = self.0.range(..=end).next_back()
            && e >= start
        {
            self.0.remove(&s);
            (start, end) = (start.min(s), end.max(e));
        }
        self.0.insert(start, end);
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.0.iter().map(|(s, e)| *s..*e)
    }

    /// What of `0..size` is not in the set, ascending.
    #[must_use]
    pub fn missing(&self, size: u64) -> Vec<Range<u64>> {
        let (mut missing, mut at) = (Vec::new(), 0);
        for range in self.iter() {
            if at < range.start.min(size) {
                missing.push(at..range.start.min(size));
            }
            at = at.max(range.end);
        }
        if at < size {
            missing.push(at..size);
        }
        missing
    }

    /// The number of bytes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.iter().map(|r| r.end - r.start).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_of_ranges_is_a_set_of_bytes(list in prop::collection::vec((0_u64..40, 0_u64..12), 0..20)) {
            let mut ranges = Ranges::default();
            let mut bytes = [false; 64];
            for (start, length) in list {
                ranges.insert(start..start + length);
                bytes[start as usize..(start + length) as usize].fill(true);
            }
            let found: Vec<u64> = ranges.iter().flatten().collect();
            let expected: Vec<u64> = (0..64).filter(|i| bytes[*i as usize]).collect();
            prop_assert_eq!(&found, &expected);
            prop_assert_eq!(ranges.total(), expected.len() as u64);
            let missing: Vec<u64> = ranges.missing(50).into_iter().flatten().collect();
            prop_assert_eq!(missing, (0..50).filter(|i| !bytes[*i as usize]).collect::<Vec<_>>());
            let list: Vec<_> = ranges.iter().collect();
            prop_assert!(list.windows(2).all(|w| w[0].end < w[1].start), "neighbours merged");
        }
    }
}
