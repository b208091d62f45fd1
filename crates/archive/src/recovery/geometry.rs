//! Where every byte of a protected bundle stands among shards and chunks (`docs/format.md`, "Recovery files"). Pure.
//!
//! A bundle is cut into *shards* of one size, none of which crosses a volume's border. Chunks at the same place of every shard
//! make a *column*; the recovery data of a column can stand in for as many of its chunks as there are recovery shards.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use super::page::{PAGE, SUMS_IN_PAGE};

/// Shards are made of whole blocks of the code, in bytes.
const BLOCK: u64 = 64;
/// About as many shards as a bundle is cut into.
const SHARDS: u64 = 200;
/// The most shards, and the most recovery shards.
const MAX_SHARDS: u64 = 2048;
/// The usual and the largest chunk, in bytes.
const CHUNKS: Range<u32> = 16 << 10..128 << 10;
/// The smallest chunk, in bytes: the sector of most media.
const MIN_CHUNK: u32 = 4 << 10;
/// What a column, recovery chunks included, may have in memory.
pub(super) const COLUMN: u64 = 48 << 20;
/// So many columns make good use of the recovery data where damage is scattered; small bundles get smaller chunks for it.
const COLUMNS: u64 = 16;
/// The number of chunks up to which they stay small: their checksums are held in memory.
const FEW: u64 = 1 << 20;
/// The most checksums of one bundle.
const MAX_SUMS: u64 = 1 << 28;
/// All sizes stay below this, as in the bundle.
const MAX_SIZE: u64 = 1 << 60;

/// How much recovery data is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// This many hundredths of the bundle, 1 to 100.
    Percent(u16),
    /// Enough to make up for this many lost volumes.
    Volumes(u16),
}

impl FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |digits: &str| match digits.parse::<u16>() {
            Ok(n) if n > 0 && digits.bytes().all(|b| b.is_ascii_digit()) => Some(n),
            _ => None,
        };
        let parsed = match (text.strip_suffix('%'), text.strip_suffix("vol")) {
            (Some(digits), _) => number(digits).filter(|n| *n <= 100).map(Self::Percent),
            (None, Some(digits)) => number(digits).map(Self::Volumes),
            (None, None) => None,
        };
        parsed.ok_or_else(|| "give `5%` (1 to 100), or `1vol` for a bundle in volumes".to_owned())
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(n) => write!(f, "{n}%"),
            Self::Volumes(n) => write!(f, "{n}vol"),
        }
    }
}

/// How a bundle is cut. One that exists is consistent and within all limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Geometry {
    size: u64,
    /// The size of every volume but the last; `None` for a bundle of one file.
    volume: Option<u64>,
    per_volume: u16,
    recovery: u16,
    chunk: u32,
    // what follows from these
    originals: u16,
    shard: u64,
}

/// What recovery data can make up for, all else being whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survives {
    /// Chunks of this many bytes …
    pub chunk: u64,
    /// … of which so many may be damaged, wherever they are.
    pub chunks: u16,
    /// One damaged stretch of so many bytes.
    pub stretch: u64,
    /// So many volumes.
    pub volumes: u16,
}

impl Geometry {
    /// Cuts a bundle of `size` bytes, in volumes of `volume` bytes if it has any.
    ///
    /// # Errors
    /// Why that cannot be done, in words.
    pub fn plan(size: u64, volume: Option<u64>, budget: Budget) -> Result<Self, String> {
        let volumes = volume.map_or(1, |v| size.div_ceil(v.max(1)));
        let per_volume = SHARDS.div_ceil(volumes.max(1)).max(2);
        let originals = volumes.saturating_mul(per_volume);
        if originals > MAX_SHARDS {
            let most = MAX_SHARDS / 2;
            return Err(format!("the bundle has {volumes} volumes, and recovery data is for {most} at most"));
        }
        let recovery = match budget {
            Budget::Percent(n) => (originals * u64::from(n)).div_ceil(100),
            Budget::Volumes(_) if volume.is_none() => {
                return Err(format!("`{budget}` is for bundles in volumes, and this is one file; give `5%`"));
            }
            Budget::Volumes(n) if u64::from(n) > volumes => {
                return Err(format!("`{budget}` is more than the {volumes} volumes that there are"));
            }
            Budget::Volumes(n) => u64::from(n) * per_volume,
        };
        let in_memory = |chunk: u32| (originals + recovery) * u64::from(chunk) <= COLUMN;
        let mut chunk = CHUNKS.start;
        let few_columns = |chunk: u32| size / originals < u64::from(chunk) * COLUMNS;
        while chunk > MIN_CHUNK && (few_columns(chunk) || !in_memory(chunk)) {
            chunk /= 2;
        }
        while size / u64::from(chunk) > FEW && chunk < CHUNKS.end && in_memory(chunk * 2) {
            chunk *= 2;
        }
        let narrow = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
        let geometry = Self::new(size, volume, narrow(per_volume), narrow(recovery), chunk)
            .ok_or_else(|| format!("a bundle of {size} bytes cannot be cut into shards"))?;
        if geometry.files().is_none() {
            return Err(format!(
                "volumes of {} bytes are too small for a recovery file, which is never larger than a volume",
                volume.unwrap_or(size)
            ));
        }
        Ok(geometry)
    }

    /// Takes what a page says, if it is possible and within the limits.
    pub(crate) fn new(size: u64, volume: Option<u64>, per_volume: u16, recovery: u16, chunk: u32) -> Option<Self> {
        if size == 0 || size >= MAX_SIZE || volume == Some(0) || per_volume == 0 {
            return None;
        }
        let volumes = volume.map_or(1, |v| size.div_ceil(v));
        let originals = volumes.checked_mul(u64::from(per_volume)).filter(|n| *n <= MAX_SHARDS)?;
        if recovery == 0 || u64::from(recovery) > originals {
            return None;
        }
        let column = (originals + u64::from(recovery)) * u64::from(chunk);
        if !chunk.is_power_of_two() || !(MIN_CHUNK..=CHUNKS.end).contains(&chunk) || column > COLUMN {
            return None;
        }
        let largest = volume.map_or(size, |v| v.min(size));
        let shard = largest.div_ceil(u64::from(per_volume)).next_multiple_of(BLOCK);
        let originals = u16::try_from(originals).ok()?;
        let geometry = Self { size, volume, per_volume, recovery, chunk, originals, shard };
        (geometry.sums() <= MAX_SUMS).then_some(geometry)
    }

    /// The size of the bundle in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The size of its volumes, if it has any.
    #[must_use]
    pub fn volume(&self) -> Option<u64> {
        self.volume
    }

    pub(crate) fn per_volume(&self) -> u16 {
        self.per_volume
    }

    /// The number of shards of the bundle.
    #[must_use]
    pub fn originals(&self) -> u16 {
        self.originals
    }

    /// The number of recovery shards.
    #[must_use]
    pub fn recovery(&self) -> u16 {
        self.recovery
    }

    /// The size of a shard in bytes.
    #[must_use]
    pub fn shard(&self) -> u64 {
        self.shard
    }

    /// The size of a chunk in bytes; the last of a shard may be shorter.
    #[must_use]
    pub fn chunk(&self) -> u32 {
        self.chunk
    }

    /// The number of chunks of a shard.
    #[must_use]
    pub fn columns(&self) -> u64 {
        self.shard.div_ceil(u64::from(self.chunk))
    }

    /// The place of a column in every shard.
    #[must_use]
    pub fn column(&self, column: u64) -> Range<u64> {
        let start = column * u64::from(self.chunk);
        start.min(self.shard)..(start + u64::from(self.chunk)).min(self.shard)
    }

    /// The number of volumes; 1 for a bundle of one file.
    #[must_use]
    pub fn volumes(&self) -> u64 {
        u64::from(self.originals) / u64::from(self.per_volume)
    }

    /// The size of a volume, counted from 0.
    #[must_use]
    pub fn volume_size(&self, volume: u64) -> u64 {
        let each = self.volume.unwrap_or(self.size);
        self.size.saturating_sub(volume * each).min(each)
    }

    /// The volume of a shard, and the bytes of the volume that are in it: fewer than a shard, or none, at the end of a volume.
    #[must_use]
    pub fn place(&self, shard: u16) -> (u64, Range<u64>) {
        let (volume, nth) = (u64::from(shard / self.per_volume), u64::from(shard % self.per_volume));
        let size = self.volume_size(volume);
        (volume, (nth * self.shard).min(size)..((nth + 1) * self.shard).min(size))
    }

    /// The bytes of `within` (a range of the shard) that the volume has.
    pub(crate) fn part(&self, shard: u16, within: &Range<u64>) -> (u64, Range<u64>) {
        let (volume, place) = self.place(shard);
        let cut = |n: u64| (place.start + n).min(place.end);
        (volume, cut(within.start)..cut(within.end))
    }

    /// The shard and the column that have the byte at `offset` of the bundle, and where in that chunk it stands.
    pub(crate) fn chunk_at(&self, offset: u64) -> (u16, u64, u64) {
        let each = self.volume.unwrap_or(self.size);
        let (volume, within) = (offset / each, offset % each);
        let shard = volume * u64::from(self.per_volume) + within / self.shard;
        let (column, start) =
            (within % self.shard / u64::from(self.chunk), within % self.shard % u64::from(self.chunk));
        (u16::try_from(shard).unwrap_or(u16::MAX), column, start)
    }

    /// The number of checksums: one for each chunk of each shard, recovery shards last.
    pub(crate) fn sums(&self) -> u64 {
        (u64::from(self.originals) + u64::from(self.recovery)) * self.columns()
    }

    /// Where the checksum of a chunk stands among them; recovery shards are counted on after the others.
    pub(crate) fn sum_at(&self, shard: u16, column: u64) -> u64 {
        u64::from(shard) * self.columns() + column
    }

    /// The number of pages that hold them.
    pub(crate) fn pages(&self) -> u64 {
        self.sums().div_ceil(SUMS_IN_PAGE as u64)
    }

    /// The recovery shards that one file can hold. No file is larger than a volume.
    fn in_one_file(&self) -> u64 {
        match self.volume {
            None => u64::from(self.recovery),
            Some(volume) => volume.saturating_sub(2 * self.pages() * PAGE) / self.shard,
        }
    }

    /// The recovery shards of each file, spread evenly; `None` when not even one fits.
    fn files(&self) -> Option<Vec<Range<u16>>> {
        let all = u64::from(self.recovery);
        let files = all.div_ceil(Some(self.in_one_file()).filter(|n| *n > 0)?);
        let border = |n: u64| u16::try_from((n * all).div_ceil(files)).unwrap_or(self.recovery);
        Some((0..files).map(|n| border(n)..border(n + 1)).collect())
    }

    /// The recovery shards of each recovery file.
    #[must_use]
    pub fn recovery_files(&self) -> Vec<Range<u16>> {
        self.files().unwrap_or_default()
    }

    /// The bytes of all recovery files.
    #[must_use]
    pub fn recovery_bytes(&self) -> u64 {
        self.recovery_files().iter().map(|shards| self.file_size(shards)).sum()
    }

    /// The size of a recovery file that holds these shards, in bytes.
    #[must_use]
    pub fn file_size(&self, shards: &Range<u16>) -> u64 {
        2 * self.pages() * PAGE + u64::from(shards.end - shards.start) * self.shard
    }

    /// Where a recovery file's `nth` shard starts in it.
    pub(crate) fn recovery_place(&self, nth: u16) -> u64 {
        self.pages() * PAGE + u64::from(nth) * self.shard
    }

    /// What it can make up for.
    #[must_use]
    pub fn survives(&self) -> Survives {
        let chunk = u64::from(self.chunk).min(self.shard);
        Survives {
            chunk,
            chunks: self.recovery,
            // a stretch of this length touches no more chunks of any column than there are recovery shards
            stretch: (u64::from(self.recovery) * self.shard - chunk + 1).min(self.size),
            volumes: if self.volume.is_some() { self.recovery / self.per_volume } else { 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any() -> impl Strategy<Value = Geometry> {
        let sizes = prop_oneof![1_u64..100_000, 1_u64..10_000_000_000];
        (sizes, prop::option::of(1_u64..60), 1_u16..=100).prop_filter_map("too small", |(size, volumes, percent)| {
            Geometry::plan(size, volumes.map(|n| size.div_ceil(n)), Budget::Percent(percent)).ok()
        })
    }

    proptest! {
        #[test]
        fn shards_cover_every_volume_once_and_cross_no_border(g in any()) {
            let mut ends = vec![0; usize::try_from(g.volumes()).expect("few")];
            for shard in 0..g.originals() {
                let (volume, place) = g.place(shard);
                let end = &mut ends[volume as usize];
                prop_assert_eq!(place.start, *end);
                prop_assert!(place.end - place.start <= g.shard());
                *end = place.end;
                if g.columns() < 50 {
                    let parts = (0..g.columns()).map(|c| g.part(shard, &g.column(c)).1);
                    prop_assert_eq!(parts.map(|r| r.end - r.start).sum::<u64>(), place.end - place.start);
                }
            }
            let sizes: Vec<u64> = (0..g.volumes()).map(|v| g.volume_size(v)).collect();
            prop_assert_eq!(&ends, &sizes);
            prop_assert_eq!(sizes.iter().sum::<u64>(), g.size());
        }

        #[test]
        fn every_byte_is_where_its_chunk_is(g in any(), at in 0.0..1.0_f64) {
            let at = (g.size() as f64 * at) as u64;
            let (shard, column, start) = g.chunk_at(at);
            let (volume, part) = g.part(shard, &g.column(column));
            prop_assert_eq!(volume * g.volume().unwrap_or(0) + part.start + start, at);
            prop_assert!(part.start + start < part.end);
        }

        #[test]
        fn what_a_page_says_gives_the_same(g in any()) {
            prop_assert_eq!(Geometry::new(g.size, g.volume, g.per_volume, g.recovery, g.chunk), Some(g));
        }

        #[test]
        fn recovery_files_hold_every_shard_once_and_are_no_larger_than_a_volume(g in any()) {
            let mut next = 0;
            for shards in g.recovery_files() {
                prop_assert_eq!(shards.start, next);
                prop_assert!(shards.end > shards.start);
                prop_assert!(g.volume().is_none_or(|v| g.file_size(&shards) <= v));
                next = shards.end;
            }
            prop_assert_eq!(next, g.recovery());
        }

        #[test]
        fn a_stretch_that_is_said_to_be_survived_touches_few_chunks_of_each_column(g in any(), at in 0.0..1.0_f64) {
            prop_assume!(g.volume().is_none() && g.columns() < 50);
            let length = g.survives().stretch;
            let start = ((g.size() - length) as f64 * at) as u64;
            for column in 0..g.columns() {
                let hit = (0..g.originals()).filter(|s| {
                    let (_, part) = g.part(*s, &g.column(column));
                    !part.is_empty() && part.start < start + length && start < part.end
                });
                prop_assert!(hit.count() <= usize::from(g.recovery()));
            }
        }
    }

    #[test]
    fn what_is_asked_for_is_what_one_gets() {
        let g = Geometry::plan(1_000_000_000, None, Budget::Percent(5)).expect("plan");
        assert_eq!((g.originals(), g.recovery(), g.volumes(), g.recovery_files().len()), (200, 10, 1, 1));
        assert!(g.file_size(&(0..10)) < 52_500_000, "5 % and the checksums");
        let g = Geometry::plan(1_000_000_000, Some(60_000_000), Budget::Volumes(2)).expect("plan");
        assert_eq!((g.volumes(), g.survives().volumes), (17, 2));
        for (size, volume) in [(1_000_000, None), (1 << 40, None), (1 << 40, Some(4 << 30)), (10 << 30, Some(25 << 20))]
        {
            for percent in [1, 5, 20, 100] {
                if percent == 100 && volume == Some(25 << 20) {
                    continue; // so many checksums do not fit twice into so small a volume
                }
                let g = Geometry::plan(size, volume, Budget::Percent(percent)).expect("plan");
                let column = (u64::from(g.originals()) + u64::from(g.recovery())) * u64::from(g.chunk());
                assert!(column <= COLUMN, "{size} {volume:?} {percent}: {g:?}");
            }
        }
    }

    #[test]
    fn what_cannot_be_is_said() {
        for (size, volume, budget, word) in [
            (1_000_000, None, "1vol", "volumes"),
            (1_000_000, Some(500_000), "3vol", "more than"),
            (1_000_000, Some(1000), "5%", "too small"),
            (1 << 40, Some(1 << 20), "5%", "1024 at most"),
            (1 << 61, None, "5%", "cannot be cut"),
        ] {
            let why = Geometry::plan(size, volume, budget.parse().expect("budget")).expect_err("impossible");
            assert!(why.contains(word), "{why}");
        }
        for bad in ["", "5", "0%", "101%", "+5%", "0vol", "vol", "5 %", "-1%", "5.5%", "99999vol"] {
            assert!(bad.parse::<Budget>().is_err(), "{bad}");
        }
        assert_eq!("5%".parse(), Ok(Budget::Percent(5)));
        assert_eq!("2vol".parse::<Budget>().expect("budget").to_string(), "2vol");
    }
}
