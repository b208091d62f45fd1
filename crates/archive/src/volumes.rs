//! Volumes: the slices of a bundle that is too large for one medium. Which files they are, and whether they fit together
//! (`docs/format.md`, "Volumes").

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::disk::with_ending;
use crate::{Error, Slice, Slices};

/// No bundle has more volumes: with three digits their names sort as they must be joined.
pub const MAX_VOLUMES: u32 = 999;
/// The smallest volume that is written, in bytes.
pub const MIN_VOLUME: u64 = 64 << 10;

/// Where a bundle is: one file, or volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// `NAME.tar`, whether a file of that name is there or only its volumes.
    pub base: PathBuf,
    /// The volumes by their numbers; none for one file.
    pub volumes: BTreeMap<u32, PathBuf>,
}

/// What is wrong with a volume as a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeFault {
    /// The volume.
    pub path: PathBuf,
    /// What it is.
    pub what: VolumeState,
}

/// How a volume can be wrong without a look at what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeState {
    /// It is not there.
    Absent,
    /// It has too few bytes, or too many.
    Size {
        /// The bytes that it has.
        found: u64,
        /// The bytes that it must have.
        expected: u64,
    },
    /// The bundle has fewer volumes.
    Surplus,
}

/// `NAME.tar.001`.
#[must_use]
pub fn name(base: &Path, number: u32) -> PathBuf {
    with_ending(base, &format!(".{number:03}"))
}

/// Refuses names that a bundle cannot be found by later: those of volumes.
///
/// # Errors
/// [`Error::VolumeName`].
pub fn refuse_name(output: &Path) -> Result<(), Error> {
    let fine = output.file_name().is_some_and(|name| name.to_str().is_some()) && parse(output).is_none();
    if fine { Ok(()) } else { Err(Error::VolumeName { path: output.to_owned() }) }
}

/// Refuses to cut `size` bytes into more volumes than a bundle can have.
///
/// # Errors
/// [`Error::TooManyVolumes`].
pub fn refuse_too_many(size: u64, volume: u64) -> Result<(), Error> {
    let (count, most) = (size.div_ceil(volume.max(1)), u64::from(MAX_VOLUMES));
    let least = size.div_ceil(most);
    if count <= most { Ok(()) } else { Err(Error::TooManyVolumes { count, most, least }) }
}

/// The base and the number of a volume's name; `None` for other names.
#[must_use]
pub fn parse(path: &Path) -> Option<(PathBuf, u32)> {
    let name = path.file_name()?.to_str()?;
    let (base, digits) = name.rsplit_once('.')?;
    let number: u32 = digits.parse().ok().filter(|number| (1..=MAX_VOLUMES).contains(number))?;
    (!base.is_empty() && digits == format!("{number:03}")).then(|| (path.with_file_name(base), number))
}

impl Location {
    /// The bundle that a path means: a file; a volume, with all others in its folder; or the common name of volumes.
    ///
    /// # Errors
    /// When the folder of volumes cannot be read.
    pub fn of(path: &Path) -> Result<Self, Error> {
        let one = || Self { base: path.to_owned(), volumes: BTreeMap::new() };
        let (base, named) = match parse(path) {
            Some((base, number)) => (base, Some(number)),
            None if path.exists() => return Ok(one()),
            None => (path.to_owned(), None),
        };
        let mut volumes = in_folder(&base)?;
        // one that is named and not there is missed like any other
        if let Some(number) = named {
            volumes.entry(number).or_insert_with(|| path.to_owned());
        }
        Ok(if volumes.is_empty() { one() } else { Self { base, volumes } })
    }

    /// The bundles that several paths mean. Volumes of one name belong together, from whatever folders they are given.
    ///
    /// # Errors
    /// [`Error::VolumeTwice`]; when a folder cannot be read.
    pub fn group(paths: &[PathBuf]) -> Result<Vec<Self>, Error> {
        let mut found: Vec<Self> = Vec::new();
        for path in paths {
            let new = Self::of(path)?;
            let same = |old: &&mut Self| {
                !old.volumes.is_empty() && !new.volumes.is_empty() && old.base.file_name() == new.base.file_name()
            };
            let Some(old) = found.iter_mut().find(same) else {
                found.push(new);
                continue;
            };
            for (number, second) in new.volumes {
                match old.volumes.get(&number) {
                    Some(first) if !is_same(first, &second) => {
                        return Err(Error::VolumeTwice { first: first.clone(), second });
                    }
                    _ => old.volumes.insert(number, second),
                };
            }
        }
        Ok(found)
    }

    /// Whether it consists of volumes.
    #[must_use]
    pub fn is_split(&self) -> bool {
        !self.volumes.is_empty()
    }

    /// Opens what is there. A volume between others that is not there can still be said to be missing when it is read.
    ///
    /// # Errors
    /// [`Error::NotABundle`] for what is no regular file; [`Error::Io`].
    pub fn open(&self) -> Result<Slices, Error> {
        let Some(last) = self.volumes.keys().next_back() else {
            let file = open(&self.base)?;
            return Slices::one(&self.base, file).map_err(|e| Error::io("read", &self.base, e));
        };
        let mut parts = Vec::new();
        for number in 1..=*last {
            parts.push(match self.volumes.get(&number) {
                None => Slice::absent(name(&self.base, number)),
                Some(path) if is_absent(path) => Slice::absent(path.clone()),
                Some(path) => Slice::open(path.clone(), open(path)?).map_err(|e| Error::io("read", path, e))?,
            });
        }
        let room = usual(&parts);
        Ok(Slices::volumes(parts, room))
    }
}

/// Volumes read one after the other as one stream, for a site that can have only some of them at hand at a time.
pub(crate) struct InOrder<N> {
    next: N,
    current: Option<File>,
    number: u32,
    at: u64,
    size: Arc<AtomicU64>,
}

/// Tells [`InOrder`] where the last volume ends: the front of the bundle says it.
#[derive(Debug, Clone)]
pub(crate) struct EndsAt(Arc<AtomicU64>);

impl EndsAt {
    /// The size of all volumes together in bytes.
    pub(crate) fn set(&self, size: u64) {
        self.0.store(size, Ordering::Relaxed);
    }
}

impl<N: FnMut(u32) -> io::Result<File>> InOrder<N> {
    /// Asks `next` for each volume when it is needed; it may wait until somebody brings it.
    pub(crate) fn new(next: N) -> (Self, EndsAt) {
        let size = Arc::new(AtomicU64::new(u64::MAX));
        (Self { next, current: None, number: 0, at: 0, size: Arc::clone(&size) }, EndsAt(size))
    }
}

impl<N: FnMut(u32) -> io::Result<File>> io::Read for InOrder<N> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some(file) = &mut self.current {
                let read = io::Read::read(file, buffer)?;
                self.at += read as u64;
                if read > 0 {
                    return Ok(read);
                }
                self.current = None;
            }
            if self.at >= self.size.load(Ordering::Relaxed) {
                return Ok(0);
            }
            self.number += 1;
            self.current = Some((self.next)(self.number)?);
        }
    }
}

/// Whether two paths are one file, however they are written; of files that are not there, whether they would be.
fn is_same(a: &Path, b: &Path) -> bool {
    let folder = |path: &Path| {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::canonicalize(folder).ok()
    };
    let place = |path: &Path| match std::fs::canonicalize(path) {
        Ok(place) => Some(place),
        Err(_) => Some(folder(path)?.join(path.file_name()?)),
    };
    a == b || place(a).is_some_and(|a| Some(a) == place(b))
}

fn is_absent(path: &Path) -> bool {
    std::fs::metadata(path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
}

fn open(path: &Path) -> Result<File, Error> {
    let failed = |e| Error::io("read", path, e);
    // Opening a pipe would wait for somebody to write into it.
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        let why = match metadata.is_dir() {
            true if path.join("oci-layout").is_file() => {
                "it is the folder of a store or a layout; a store is named with `--store`"
            }
            true => "it is a folder; name the file in it",
            false => "it is not a regular file",
        };
        return Err(Error::NotABundle { path: path.to_owned(), why: why.to_owned() });
    }
    File::open(path).map_err(failed)
}

/// The size that most volumes before the last have.
fn usual(parts: &[Slice]) -> u64 {
    let before_last = &parts[..parts.len().saturating_sub(1).max(1).min(parts.len())];
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for part in before_last.iter().filter(|part| part.length() > 0) {
        *counts.entry(part.length()).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(length, count)| (*count, *length));
    most.map_or_else(|| parts.last().map_or(0, Slice::length), |(length, _)| length)
}

/// The volumes of `base` in its folder.
pub(crate) fn in_folder(base: &Path) -> Result<BTreeMap<u32, PathBuf>, Error> {
    let folder = base.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut volumes = BTreeMap::new();
    let entries = match std::fs::read_dir(folder) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(volumes);
        }
        entries => entries.map_err(|e| Error::io("read", folder, e))?,
    };
    for entry in entries {
        let found = entry.map_err(|e| Error::io("read", folder, e))?.file_name();
        if let Some((same, number)) = parse(&base.with_file_name(&found))
            && same == base
        {
            volumes.insert(number, base.with_file_name(found));
        }
    }
    Ok(volumes)
}

/// The size that every volume but the last must have, if the whole has `size` bytes: what most of those that are there agree with.
pub(crate) fn room(slices: &Slices, size: u64) -> Option<u64> {
    let parts = slices.parts();
    let before = (parts.len() as u64).checked_sub(1).filter(|count| *count > 0);
    let last = parts.last().map_or(0, Slice::length);
    let by_rest = before.filter(|_| last > 0).and_then(|count| size.checked_sub(last).map(|rest| rest.div_ceil(count)));
    let candidates = parts.iter().map(Slice::length).chain(by_rest).filter(|room| *room > 0);
    let agrees = |room: u64| {
        let right = |(i, part): &(usize, &Slice)| part.length() == expected(room, *i, size);
        parts.iter().enumerate().filter(right).count()
    };
    candidates.max_by_key(|room| (agrees(*room), *room))
}

fn expected(room: u64, index: usize, size: u64) -> u64 {
    size.saturating_sub(room.saturating_mul(index as u64)).min(room)
}

/// Volumes that are not there, or that have fewer bytes than others before the last: for who does not know the size of the whole yet.
pub(crate) fn gaps(slices: &Slices, path: &Path) -> Option<Error> {
    let room = slices.room()?;
    let before_last = slices.parts().len().saturating_sub(1);
    let gap = |(i, part): (usize, &Slice)| {
        let (found, expected) = (part.length(), room);
        let what = match part.is_there() {
            false => VolumeState::Absent,
            true if i < before_last && found != expected => VolumeState::Size { found, expected },
            true => return None,
        };
        Some(VolumeFault { path: part.path.clone(), what })
    };
    let faults: Vec<VolumeFault> = slices.parts().iter().enumerate().filter_map(gap).collect();
    (!faults.is_empty()).then(|| Error::Volumes { path: path.to_owned(), faults })
}

/// Volumes that are not there, or whose size is wrong, if the whole has `size` bytes.
pub(crate) fn faults(slices: &Slices, path: &Path, size: u64) -> Option<Error> {
    let room = slices.room()?;
    let count = usize::try_from(size.div_ceil(room)).unwrap_or(usize::MAX).min(MAX_VOLUMES as usize);
    let mut faults = Vec::new();
    for (i, part) in slices.parts().iter().enumerate() {
        let (found, expected) = (part.length(), expected(room, i, size));
        let what = match () {
            () if i >= count => VolumeState::Surplus,
            () if !part.is_there() => VolumeState::Absent,
            () if found != expected => VolumeState::Size { found, expected },
            () => continue,
        };
        faults.push(VolumeFault { path: part.path.clone(), what });
    }
    for number in slices.parts().len()..count {
        let number = u32::try_from(number + 1).unwrap_or(MAX_VOLUMES);
        faults.push(VolumeFault { path: name(path, number), what: VolumeState::Absent });
    }
    (!faults.is_empty()).then(|| Error::Volumes { path: path.to_owned(), faults })
}

impl fmt::Display for VolumeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.what {
            VolumeState::Absent => write!(f, "`{path}` is not there"),
            VolumeState::Size { found, expected } if found < expected => {
                write!(f, "`{path}` is truncated: it has {found} bytes of {expected}")
            }
            VolumeState::Size { found, expected } => {
                write!(f, "`{path}` has {} bytes too many: it has {found}, and must have {expected}", found - expected)
            }
            VolumeState::Surplus => write!(f, "`{path}` does not belong to it"),
        }
    }
}
