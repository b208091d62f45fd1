//! Reed–Solomon over columns in memory: the code of GF(2^16) that `reed-solomon-simd` calls high rate. Pure.

use reed_solomon_simd::engine::DefaultEngine;
use reed_solomon_simd::rate::{HighRateDecoder, HighRateEncoder, RateDecoder as _, RateEncoder as _};

use super::geometry::Geometry;

/// The code was asked for what cannot be: a mistake in this crate.
type Broken = reed_solomon_simd::Error;

/// What of every shard is coded at once, in bytes: so little that a column stays in the processor's caches. The code knows no
/// larger piece than 64 bytes, so this changes nothing in what comes out.
pub(crate) const SLICE: usize = 4096;

/// Makes recovery chunks.
pub(crate) struct Encoder {
    inner: HighRateEncoder<DefaultEngine>,
    counts: (usize, usize),
    width: usize,
}

impl Encoder {
    pub(crate) fn new(geometry: &Geometry) -> Result<Self, Broken> {
        let counts = (usize::from(geometry.originals()), usize::from(geometry.recovery()));
        let inner = HighRateEncoder::new(counts.0, counts.1, SLICE, DefaultEngine::new(), None)?;
        Ok(Self { inner, counts, width: SLICE })
    }

    /// The recovery chunks of `originals` (all of them, each of `width` bytes), one after the other into `out`.
    pub(crate) fn encode<'a>(
        &mut self,
        width: usize,
        originals: impl Iterator<Item = &'a [u8]>,
        out: &mut [u8],
    ) -> Result<(), Broken> {
        if width != self.width {
            self.inner.reset(self.counts.0, self.counts.1, width)?;
            self.width = width;
        }
        for shard in originals {
            self.inner.add_original_shard(shard)?;
        }
        let result = self.inner.encode()?;
        for (to, from) in out.chunks_mut(width).zip(result.recovery_iter()) {
            to.copy_from_slice(from);
        }
        Ok(())
    }
}

/// Restores the chunks of one column: first those that are good are added, of both kinds, then [`restore`](Self::restore).
pub(crate) struct Decoder {
    inner: HighRateDecoder<DefaultEngine>,
}

impl Decoder {
    pub(crate) fn new(geometry: &Geometry, width: usize) -> Result<Self, Broken> {
        let counts = (usize::from(geometry.originals()), usize::from(geometry.recovery()));
        let inner = HighRateDecoder::new(counts.0, counts.1, width, DefaultEngine::new(), None)?;
        Ok(Self { inner })
    }

    /// The bytes that one takes in memory.
    pub(crate) fn memory(geometry: &Geometry) -> u64 {
        let rounded = u64::from(geometry.recovery()).next_power_of_two() + u64::from(geometry.originals());
        rounded.next_power_of_two() * u64::from(geometry.chunk()).min(geometry.shard())
    }

    pub(crate) fn original(&mut self, shard: u16, bytes: &[u8]) -> Result<(), Broken> {
        self.inner.add_original_shard(usize::from(shard), bytes)
    }

    pub(crate) fn recovery(&mut self, shard: u16, bytes: &[u8]) -> Result<(), Broken> {
        self.inner.add_recovery_shard(usize::from(shard), bytes)
    }

    /// Makes the chunks that were not added; fails when fewer were added than there are originals.
    pub(crate) fn restore(&mut self) -> Result<Vec<(u16, Vec<u8>)>, Broken> {
        let result = self.inner.decode()?;
        let restored = result.restored_original_iter();
        Ok(restored.map(|(shard, bytes)| (u16::try_from(shard).unwrap_or(u16::MAX), bytes.to_vec())).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::geometry::Budget;
    use super::*;

    /// splitmix64: a generator that is linear over the field's bits would hide mistakes.
    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    fn many(geometry: &Geometry, length: usize) -> Vec<Vec<u8>> {
        (0..u64::from(geometry.originals())).map(|n| noise(n << 32, length)).collect()
    }

    fn encode(geometry: &Geometry, width: usize, originals: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut out = vec![0; width * usize::from(geometry.recovery())];
        let mut encoder = Encoder::new(geometry).expect("encoder");
        encoder.encode(width, originals.iter().map(Vec::as_slice), &mut out).expect("encode");
        out.chunks(width).map(<[u8]>::to_vec).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn what_is_lost_within_the_budget_comes_back(percent in 1_u16..=100, seed: u64, lost in prop::collection::vec(0_u16..400, 1..200)) {
            let g = Geometry::plan(1_000_000, None, Budget::Percent(percent)).expect("plan");
            let originals: Vec<Vec<u8>> = (0..u64::from(g.originals())).map(|n| noise(seed ^ n << 32, 128)).collect();
            let recovery = encode(&g, 128, &originals);
            // of both kinds, as many as can be
            let mut lost: Vec<u16> = lost.into_iter().map(|n| n % (g.originals() + g.recovery())).collect();
            lost.sort_unstable();
            lost.dedup();
            lost.truncate(usize::from(g.recovery()));
            let mut decoder = Decoder::new(&g, 128).expect("decoder");
            for shard in (0..g.originals()).filter(|n| !lost.contains(n)) {
                decoder.original(shard, &originals[usize::from(shard)]).expect("add");
            }
            for shard in (0..g.recovery()).filter(|n| !lost.contains(&(n + g.originals()))) {
                decoder.recovery(shard, &recovery[usize::from(shard)]).expect("add");
            }
            let mut found = decoder.restore().expect("restore");
            found.sort();
            let expected = lost.iter().filter(|n| **n < g.originals()).map(|n| (*n, originals[usize::from(*n)].clone()));
            prop_assert_eq!(found, expected.collect::<Vec<_>>());
        }
    }

    #[test]
    fn beyond_the_budget_nothing_is_made_up() {
        let g = Geometry::plan(1_000_000, None, Budget::Percent(1)).expect("plan");
        let originals = many(&g, 64);
        let recovery = encode(&g, 64, &originals);
        let mut decoder = Decoder::new(&g, 64).expect("decoder");
        for shard in 3..g.originals() {
            decoder.original(shard, &originals[usize::from(shard)]).expect("add");
        }
        for shard in 0..g.recovery() {
            decoder.recovery(shard, &recovery[usize::from(shard)]).expect("add");
        }
        assert!(decoder.restore().is_err());
    }

    #[test]
    fn pieces_are_coded_by_themselves() {
        let g = Geometry::plan(1_000_000, None, Budget::Percent(5)).expect("plan");
        let originals = many(&g, 4096);
        let whole = encode(&g, 4096, &originals);
        for (width, start) in [(64, 0), (64, 4032), (1024, 2048)] {
            let part: Vec<Vec<u8>> = originals.iter().map(|b| b[start..start + width].to_vec()).collect();
            let expected: Vec<Vec<u8>> = whole.iter().map(|b| b[start..start + width].to_vec()).collect();
            assert_eq!(encode(&g, width, &part), expected);
        }
    }

    #[test]
    fn the_code_is_frozen() {
        let g = Geometry::plan(1_000_000, None, Budget::Percent(2)).expect("plan");
        let originals = many(&g, 64);
        let sums: Vec<u64> = encode(&g, 64, &originals).iter().map(|b| super::super::page::sum(b)).collect();
        let frozen = [15226802433696443150, 12097972680569586388, 15025413281599285391, 13209930743342761313];
        assert_eq!(sums, frozen, "recovery files of old bundles must stay readable");
    }

    /// The code as `docs/format.md` describes it, slow and obvious.
    mod by_the_book {
        const BASIS: [u16; 16] = [
            0x0001, 0xacca, 0x3c0e, 0x163e, 0xc582, 0xed2e, 0x914c, 0x4012, 0x6c98, 0x10d8, 0x6a72, 0xb900, 0xfdb8,
            0xfb34, 0xff38, 0x991e,
        ];

        /// The field element that a word stands for.
        pub(super) fn element(word: u16) -> u16 {
            (0..16).filter(|bit| word >> bit & 1 == 1).fold(0, |sum, bit| sum ^ BASIS[bit])
        }

        fn times(a: u16, b: u16) -> u16 {
            let (mut product, mut a) = (0, u32::from(a));
            for bit in 0..16 {
                if b >> bit & 1 == 1 {
                    product ^= a;
                }
                a <<= 1;
                if a & 0x1_0000 != 0 {
                    a ^= 0x1_002d;
                }
            }
            product as u16
        }

        /// To the power of 2^16 - 2.
        fn inverse(a: u16) -> u16 {
            let (mut power, mut result) = (a, 1);
            for _ in 1..16 {
                power = times(power, power);
                result = times(result, power);
            }
            result
        }

        /// The recovery elements of these original elements.
        pub(super) fn encode(originals: &[u16], recovery: u16) -> Vec<u16> {
            let group = recovery.next_power_of_two();
            let at = |x: u16| {
                let mut sum = 0;
                for (n, values) in (1..).zip(originals.chunks(usize::from(group))) {
                    let point = |t: u16| element(n * group + t);
                    for (t, value) in (0..).zip(values) {
                        let others = (0..group).filter(|u| *u != t);
                        let lagrange = others
                            .fold(1, |product, u| times(product, times(x ^ point(u), inverse(point(t) ^ point(u)))));
                        sum ^= times(*value, lagrange);
                    }
                }
                sum
            };
            (0..recovery).map(|j| at(element(j))).collect()
        }
    }

    #[test]
    fn the_code_is_the_one_of_the_book() {
        for percent in [1, 2, 5] {
            let g = Geometry::plan(1_000_000, None, Budget::Percent(percent)).expect("plan");
            let originals = many(&g, 64);
            let recovery = encode(&g, 64, &originals);
            for nth in [0, 7, 31] {
                let element = |b: &Vec<u8>| by_the_book::element(u16::from_le_bytes([b[nth], b[32 + nth]]));
                let book = by_the_book::encode(&originals.iter().map(element).collect::<Vec<_>>(), g.recovery());
                assert_eq!(book, recovery.iter().map(element).collect::<Vec<_>>());
            }
        }
    }
}
