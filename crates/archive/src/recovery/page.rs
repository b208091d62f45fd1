//! Pages: the pieces of a recovery file that say how the bundle is cut and what each chunk must hash to. Each proves itself, so
//! damage costs no more than the pages that it hits, and each is there twice in every file. Pure.

use xxhash_rust::xxh3::xxh3_64;

use super::geometry::Geometry;

/// The size of a page in bytes: the sector of most media.
pub(crate) const PAGE: u64 = 4096;
/// Checksums in a page.
pub(crate) const SUMS_IN_PAGE: usize = 499;

const MAGIC: &[u8; 8] = b"ferryrec";
/// The version of recovery files that is written and read.
const VERSION: u32 = 1;
/// Where the checksums of a page begin.
const HEADER: usize = 96;
/// Where its own checksum stands.
const CHECK: usize = PAGE as usize - 8;

/// The checksum of a chunk.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// What all recovery files that were made together have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SetId {
    /// How the bundle is cut.
    pub geometry: Geometry,
    /// The SHA-256 of the bundle's `SHA256SUMS`.
    pub sums: [u8; 32],
}

/// A page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// What it belongs to.
    pub set: SetId,
    /// The recovery file that it stands in, counted from 1.
    pub file: u16,
    /// Which page it is, counted from 0.
    pub index: u32,
    /// Its part of the checksums.
    pub sums: Vec<u64>,
}

impl Page {
    /// The bytes of it.
    #[must_use]
    pub fn print(&self) -> Vec<u8> {
        let geometry = &self.set.geometry;
        let mut bytes = Vec::with_capacity(PAGE as usize);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.index.to_le_bytes());
        bytes.extend_from_slice(&self.file.to_le_bytes());
        bytes.extend_from_slice(&geometry.per_volume().to_le_bytes());
        bytes.extend_from_slice(&geometry.recovery().to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&geometry.chunk().to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&geometry.size().to_le_bytes());
        bytes.extend_from_slice(&geometry.volume().unwrap_or(0).to_le_bytes());
        bytes.extend_from_slice(&self.set.sums);
        bytes.resize(HEADER, 0);
        for sum in self.sums.iter().take(SUMS_IN_PAGE) {
            bytes.extend_from_slice(&sum.to_le_bytes());
        }
        seal(&bytes)
    }

    /// Reads a page: what [`print`](Self::print) would write, and nothing else.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let page = Self::read(bytes)?;
        (page.print() == bytes).then_some(page)
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() as u64 != PAGE || !bytes.starts_with(MAGIC) || int::<8>(bytes, CHECK)? != sum(&bytes[..CHECK]) {
            return None;
        }
        let [version, index, chunk] = [int::<4>(bytes, 8)?, int::<4>(bytes, 12)?, int::<4>(bytes, 24)?]
            .map(|n| u32::try_from(n).unwrap_or_default());
        let [file, per_volume, recovery] = [int::<2>(bytes, 16)?, int::<2>(bytes, 18)?, int::<2>(bytes, 20)?]
            .map(|n| u16::try_from(n).unwrap_or_default());
        let (size, volume) = (int::<8>(bytes, 32)?, int::<8>(bytes, 40)?);
        let geometry = Geometry::new(size, (volume > 0).then_some(volume), per_volume, recovery, chunk)?;
        let files = geometry.recovery_files().len();
        if version != VERSION || u64::from(index) >= geometry.pages() || file == 0 || usize::from(file) > files {
            return None;
        }
        let set = SetId { geometry, sums: bytes.get(48..80)?.try_into().ok()? };
        let held = (geometry.sums() - u64::from(index) * SUMS_IN_PAGE as u64).min(SUMS_IN_PAGE as u64);
        let sums = (0..held as usize).map(|n| int::<8>(bytes, HEADER + 8 * n)).collect::<Option<_>>()?;
        Some(Self { set, file, index, sums })
    }
}

/// A page with its own checksum at its end; cut or filled with zeros where it has another size.
pub(crate) fn seal(page: &[u8]) -> Vec<u8> {
    let mut bytes = page.to_vec();
    bytes.resize(CHECK, 0);
    let check = sum(&bytes);
    bytes.extend_from_slice(&check.to_le_bytes());
    bytes
}

/// A little-endian number of `N` bytes.
fn int<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let mut wide = [0; 8];
    wide[..N].copy_from_slice(bytes.get(at..at + N)?);
    Some(u64::from_le_bytes(wide))
}

#[cfg(test)]
mod tests {
    use super::super::geometry::Budget;
    use super::*;

    fn page(volume: Option<u64>) -> Page {
        let geometry = Geometry::plan(50_000_000, volume, Budget::Percent(10)).expect("plan");
        let last = geometry.pages() - 1;
        let held = geometry.sums() - last * SUMS_IN_PAGE as u64;
        let set = SetId { geometry, sums: [7; 32] };
        Page {
            set,
            file: 1,
            index: u32::try_from(last).expect("few"),
            sums: (0..held).map(|n| n * 0x1234_5678_9abc).collect(),
        }
    }

    #[test]
    fn what_is_written_reads_back_and_nothing_else_does() {
        for volume in [None, Some(9_000_000)] {
            let page = page(volume);
            let bytes = page.print();
            assert_eq!(bytes.len() as u64, PAGE);
            assert_eq!(Page::parse(&bytes).as_ref(), Some(&page));
            for at in (0..HEADER + 40).chain(CHECK - 9..CHECK + 8) {
                let mut bad = bytes.clone();
                bad[at] ^= 1;
                assert_eq!(Page::parse(&bad), None, "byte {at}");
                // a checksum that agrees does not make it one: whatever is read must be what would be written
                let check = sum(&bad[..CHECK]);
                bad[CHECK..].copy_from_slice(&check.to_le_bytes());
                if let Some(other) = Page::parse(&bad) {
                    assert_eq!(other.print(), bad, "byte {at}");
                }
            }
            for cut in [0, 1, 95, 4095] {
                assert_eq!(Page::parse(&bytes[..cut]), None);
            }
        }
    }

    #[test]
    fn limits_are_kept() {
        let good = page(None).print();
        let patch = |at: usize, bytes: &[u8]| {
            let mut bad = good.clone();
            bad[at..at + bytes.len()].copy_from_slice(bytes);
            let check = sum(&bad[..CHECK]);
            bad[CHECK..].copy_from_slice(&check.to_le_bytes());
            Page::parse(&bad)
        };
        assert!(patch(0, &[]).is_some());
        for (at, bytes, what) in [
            (8, &2_u32.to_le_bytes()[..], "version"),
            (12, &u32::MAX.to_le_bytes(), "index"),
            (16, &0_u16.to_le_bytes(), "no file"),
            (16, &2_u16.to_le_bytes(), "a file too many"),
            (18, &u16::MAX.to_le_bytes(), "shards"),
            (20, &0_u16.to_le_bytes(), "no recovery"),
            (20, &201_u16.to_le_bytes(), "more recovery than bundle"),
            (24, &0_u32.to_le_bytes(), "no chunk"),
            (24, &(1_u32 << 30).to_le_bytes(), "a huge chunk"),
            (32, &0_u64.to_le_bytes(), "nothing"),
            (32, &u64::MAX.to_le_bytes(), "more than there is"),
            (32, &(1_u64 << 59).to_le_bytes(), "more checksums than are held"),
            (40, &1_u64.to_le_bytes(), "tiny volumes"),
        ] {
            assert_eq!(patch(at, bytes), None, "{what}");
        }
    }
}
