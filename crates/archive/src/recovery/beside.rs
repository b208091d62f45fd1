//! What stands beside a bundle, by its name: volumes and recovery files.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use ferry_image::Digest;

use super::found;
use crate::{Bundle, Error, Location, Slice, volumes};

/// What comes between a bundle's name and the number of a recovery file.
const RECOVERY: &str = ".recovery-";

/// Where a bundle is, and with it where its recovery files are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Beside {
    location: Location,
    /// Names that the bundle would have in other folders where recovery files are.
    elsewhere: Vec<PathBuf>,
}

impl Beside {
    pub(crate) fn of(location: &Location) -> Self {
        Self { location: location.clone(), elsewhere: Vec::new() }
    }

    pub(crate) fn of_bundle(bundle: &Bundle) -> Self {
        let split = bundle.slices().room().is_some();
        let there = |(number, part): (u32, &Slice)| part.is_there().then(|| (number, part.path.clone()));
        let volumes = (1..).zip(bundle.slices().parts()).filter(|_| split).filter_map(there).collect();
        Self { location: Location { base: bundle.path().to_owned(), volumes }, elsewhere: Vec::new() }
    }

    /// With recovery files that were named, and those beside them, in other folders than the bundle's own.
    pub(crate) fn and_elsewhere(mut self, files: &[PathBuf]) -> Self {
        let place = |base: &Path| (std::fs::canonicalize(folder(base)).ok(), base.file_name().map(OsStr::to_owned));
        let mut known: Vec<_> = self.bases().iter().map(|base| place(base)).collect();
        for base in files.iter().filter_map(|path| protected_by(path)) {
            if !known.contains(&place(&base)) {
                known.push(place(&base));
                self.elsewhere.push(base);
            }
        }
        self
    }

    /// Whether recovery files were named that are in other folders.
    pub(crate) fn has_elsewhere(&self) -> bool {
        !self.elsewhere.is_empty()
    }

    /// The names before those of recovery files, wherever such are looked for.
    fn bases(&self) -> Vec<PathBuf> {
        let Location { base, volumes } = &self.location;
        let mut bases = vec![base.clone()];
        let beside = volumes.values().map(|path| path.with_file_name(base.file_name().unwrap_or_default()));
        for base in beside.chain(self.elsewhere.iter().cloned()) {
            if !bases.contains(&base) {
                bases.push(base);
            }
        }
        bases
    }

    /// The bundle's only file, or a volume, counted from 0: where it is, or where it belongs.
    pub(crate) fn volume(&self, split: bool, index: u64) -> PathBuf {
        let Location { base, volumes } = &self.location;
        if !split {
            return base.clone();
        }
        let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
        volumes.get(&number).cloned().unwrap_or_else(|| volumes::name(base, number))
    }

    /// A recovery file, counted from 1: where it belongs.
    pub(crate) fn recovery(&self, number: u16) -> PathBuf {
        let mut name = self.location.base.clone().into_os_string();
        name.push(format!("{RECOVERY}{number:03}"));
        name.into()
    }

    /// The recovery files that are there, in whatever folder, by number; with `suffix` at their end.
    pub(crate) fn recovery_files(&self, suffix: &str) -> Result<Vec<(u32, PathBuf)>, Error> {
        let mut found = Vec::new();
        for base in self.bases() {
            let folder = folder(&base);
            let failed = |e| Error::io("read", folder, e);
            for entry in std::fs::read_dir(folder).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                if let Some(number) = base.file_name().and_then(|base| number(base, &entry.file_name(), suffix)) {
                    found.push((number, entry.path()));
                }
            }
        }
        found.sort();
        Ok(found)
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn number(base: &OsStr, name: &OsStr, suffix: &str) -> Option<u32> {
    let rest = name.as_encoded_bytes().strip_prefix(base.as_encoded_bytes())?;
    digits(rest.strip_prefix(RECOVERY.as_bytes())?.strip_suffix(suffix.as_bytes())?)
}

fn digits(digits: &[u8]) -> Option<u32> {
    let plain = digits.len() >= 3 && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}

/// The bundle that a recovery file says by its name that it is of; `None` for other names.
fn protected_by(path: &Path) -> Option<PathBuf> {
    let (base, number) = path.file_name()?.to_str()?.rsplit_once(RECOVERY)?;
    (!base.is_empty() && digits(number.as_bytes()).is_some()).then(|| path.with_file_name(base))
}

/// Whether a path has the name of a recovery file.
#[must_use]
pub fn is_recovery_file(path: &Path) -> bool {
    protected_by(path).is_some()
}

/// Recovery files beside a bundle, by whose they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protected {
    /// There are none.
    No,
    /// Some are its own, or may be: `ferry repair` may mend it.
    Yes,
    /// All that are there were made for another bundle.
    ByOthers,
}

/// Whether recovery files stand beside a bundle, and whether they are its own. `sums` is the digest of its `SHA256SUMS`, where that is known.
#[must_use]
pub fn protection(location: &Location, sums: Option<&Digest>) -> Protected {
    let beside = Beside::of(location);
    if beside.recovery_files("").map_or(true, |files| files.is_empty()) {
        return Protected::No;
    }
    let Some(own) = sums.map(|sums| super::protect::raw(sums.hex())) else { return Protected::Yes };
    match found::made_for(&beside) {
        Ok(bundles) if !bundles.is_empty() && !bundles.contains(&own) => Protected::ByOthers,
        _ => Protected::Yes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let folder = tempfile::tempdir().expect("folder");
        let location = Location::of(&folder.path().join("b.tar")).expect("location");
        assert!(protection(&location, None) == Protected::No);
        for name in [
            "b.tar.recovery-002",
            "b.tar.recovery-001",
            "b.tar.recovery-01",
            "c.tar.recovery-001",
            "b.tar.recovery-003.partial",
            "b.tar.002",
        ] {
            std::fs::write(folder.path().join(name), "").expect("write");
        }
        let beside = Beside::of(&location);
        let numbers = |suffix| beside.recovery_files(suffix).expect("files").iter().map(|f| f.0).collect::<Vec<_>>();
        assert_eq!((numbers(""), numbers(".partial")), (vec![1, 2], vec![3]));
        assert_eq!(beside.recovery(2), folder.path().join("b.tar.recovery-002"));
        let elsewhere = ["b.tar.recovery-001", "sub/../b.tar.recovery-002", "sub/b.tar.recovery-003"]
            .map(|n| folder.path().join(n));
        std::fs::create_dir(folder.path().join("sub")).expect("folder");
        assert!(!beside.clone().and_elsewhere(&elsewhere[..2]).has_elsewhere(), "that is beside it");
        assert!(beside.and_elsewhere(&elsewhere).has_elsewhere());
        assert!(
            is_recovery_file(Path::new("x/b.tar.recovery-001")) && !is_recovery_file(Path::new("b.tar.recovery-01"))
        );
        let split = Location::of(&folder.path().join("b.tar.002")).expect("location");
        assert!([&location, &split].iter().all(|at| protection(at, None) == Protected::Yes));
        let beside = Beside::of(&split);
        assert_eq!(beside.volume(true, 0), folder.path().join("b.tar.001"));
    }
}
