//! Mending a bundle with its recovery files, in place or into a copy.
//!
//! In place only damaged chunks are written, each with what its checksum agrees with, so that a kill at any moment leaves what the next
//! run can mend. A lost volume is written beside its name and renamed, if all of it could be made anew: one that is half zeros would stand
//! where the real one belongs when it turns up.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::beside::Beside;
use super::companions;
use super::found::{self, Found};
use super::mend::{self, Mended, Places};
use super::parts::{self, Misnamed, Part};
use super::scan::{self, Damage};
use super::write::{self, Progress};
use crate::disk::{allocate, discard, free, open_locked, refuse_other_than_file, sync_folder};
use crate::ranges::Ranges;
use crate::verify::Verified;
use crate::{Bundle, Error, Location, Trust, volumes};

/// What shall be mended, and how.
#[derive(Debug)]
pub struct Repair<'a> {
    /// The bundle.
    pub location: &'a Location,
    /// Recovery files that stand in other folders; others of the same name beside them are found.
    pub recovery: &'a [PathBuf],
    /// Write a mended copy there (a folder, if it is one or ends with `/`), and leave the damaged bundle as it is.
    pub output: Option<&'a Path>,
    /// By whom the bundle must be signed in the end.
    pub trust: &'a Trust,
    /// Threads to work on.
    pub threads: usize,
    /// Write nothing; say what would be.
    pub dry_run: bool,
}

/// What was wrong with a volume (or the bundle's only file).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Was {
    /// It was not there.
    Lost,
    /// It had too few bytes: so many.
    Short(u64),
    /// It had too many bytes: so many.
    Long(u64),
    /// Its size was right.
    Damaged,
}

/// A volume (or the bundle's only file) that was damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patient {
    /// The volume.
    pub path: PathBuf,
    /// What was wrong.
    pub was: Was,
    /// Its bytes that are right again: whole chunks.
    pub mended: Ranges,
    /// Its bytes that are beyond repair: whole chunks.
    pub beyond: Ranges,
}

/// What was found and done; with `dry_run`, what would be done.
#[derive(Debug)]
pub struct Report {
    /// Volumes that were damaged.
    pub patients: Vec<Patient>,
    /// Volumes that had each other's names.
    pub misnamed: Vec<Misnamed>,
    /// Members of the bundle that are beyond repair, as far as that can be told.
    pub lost: Vec<String>,
    /// Recovery files that were damaged or lost; written anew once the bundle is whole, unless `recovery_stays`.
    pub recovery: Vec<PathBuf>,
    /// Whether recovery files are left as they are: for a copy, and where they stand in another folder.
    pub recovery_stays: bool,
    /// Recovery files of other bundles that stand there as well.
    pub strangers: usize,
    /// What was verified in the end: every byte of the bundle. `None` when it was not, or not all is well.
    pub verified: Option<Verified>,
    /// Where the mended bundle is: for volumes, their common name.
    pub bundle: PathBuf,
    /// The files of the mended copy; none when it was mended in place.
    pub copy: Vec<PathBuf>,
    /// The list of the volumes that was not copied, because it names them as the copy's are not named.
    pub list_left: Option<PathBuf>,
}

impl Report {
    /// Whether all that was damaged is, or can be, mended.
    #[must_use]
    pub fn succeeds(&self) -> bool {
        self.patients.iter().all(|patient| patient.beyond.is_empty())
    }
}

impl Repair<'_> {
    /// Mends what can be mended and verifies the whole. `progress` is told of bytes of the bundle as they are read, at most three times
    /// each. Blocking.
    ///
    /// # Errors
    /// [`Error::NoRecovery`], [`Error::OtherRecovery`], [`Error::DiskFull`] before anything is written, [`Error::Busy`], [`Error::Io`];
    /// what verifying finds although all checksums of the recovery files agree.
    pub fn run(&self, progress: Progress<'_>) -> Result<Report, Error> {
        let beside = Beside::of(self.location).and_elsewhere(self.recovery);
        let (found, strangers) = self.find(&beside)?;
        let mut parts = parts::open(&found, &beside)?;
        let names: Vec<PathBuf> = parts.iter().map(|part| part.path.clone()).collect();
        let misnamed = parts::arrange(&found, &mut parts);
        let mut report = Report {
            patients: Vec::new(),
            misnamed,
            lost: Vec::new(),
            recovery: Vec::new(),
            recovery_stays: self.output.is_some() || beside.has_elsewhere(),
            strangers,
            verified: None,
            bundle: self.location.base.clone(),
            copy: Vec::new(),
            list_left: None,
        };
        // A front that holds says which bundle it is, whatever else is damaged.
        if let Ok((bundle, faults)) = Bundle::open_damaged(self.location, self.trust) {
            if super::protect::raw(bundle.sums_digest().hex()) != found.id.sums {
                return Err(Error::OtherRecovery { path: self.location.base.clone() });
            }
            // Nothing is ever written over a bundle that is whole, whatever recovery files say of it.
            if self.output.is_none() && faults.is_empty() {
                report.verified = bundle.verify(self.threads, false, progress).ok();
            }
        }
        let work = self.output.filter(|_| !self.dry_run).map(|output| copies(&found, &parts, output)).transpose()?;
        let damage = scan::scan(&found, &parts, work.as_deref(), self.threads, progress)?;
        report.recovery = damaged_recovery(&found, &beside, &damage);
        if report.verified.is_none() {
            self.refuse_another(&found, &parts, &damage)?;
            self.treat(&found, parts, work, &names, &damage, &mut report)?;
        }
        if report.succeeds() && !self.dry_run {
            let mended = Location::of(&report.bundle)?;
            let location = if self.output.is_some() { &mended } else { &self.now(&found, &names) };
            let bundle = Bundle::open_at(location, self.trust)?;
            if report.verified.is_none() {
                report.verified = Some(bundle.verify(self.threads, false, progress)?);
            }
            if !report.recovery_stays {
                self.renew(&found, &beside, &bundle, &report.recovery, progress)?;
            }
        }
        Ok(report)
    }

    /// The recovery files that belong to the bundle, and how many others stand there.
    fn find(&self, beside: &Beside) -> Result<(Found, usize), Error> {
        let path = self.location.base.clone();
        let mut sets = found::read(beside)?;
        let files = |set: &Found| set.files.iter().flatten().count();
        let all: usize = sets.iter().map(files).sum();
        let own = found::sums_of(&beside.volume(self.location.is_split(), 0));
        let at = sets.iter().position(|set| Some(set.id.sums) == own).unwrap_or(0);
        if sets.is_empty() {
            let why = match beside.recovery_files("")?.len() {
                0 => format!("there is no `{}`", beside.recovery(1).display()),
                1 => "the one that is there has not one page left".to_owned(),
                n => format!("the {n} that are there have not one page left"),
            };
            return Err(Error::NoRecovery { path, why });
        }
        let set = sets.swap_remove(at);
        let own = files(&set);
        Ok((set, all - own))
    }

    /// A bundle of the same name that is another one has hardly a chunk in common with what the recovery files say.
    fn refuse_another(&self, found: &Found, parts: &[Part], damage: &Damage) -> Result<(), Error> {
        let geometry = &found.id.geometry;
        let own = parts.first().and_then(|part| found::sums_of(&part.path));
        if own.is_none_or(|own| own == found.id.sums) || self.output.is_some() {
            return Ok(());
        }
        let there: u64 = parts.iter().map(|part| part.length).sum();
        let chunk = u64::from(geometry.chunk());
        let size = |column: u64, shard: u16| {
            let within = column * chunk..((column + 1) * chunk).min(geometry.shard());
            let (_, part) = geometry.part(shard, &within);
            part.end - part.start
        };
        let bad: u64 = damage.iter().flat_map(|(at, column)| column.bad.iter().map(|shard| size(*at, *shard))).sum();
        let absent = geometry.size().saturating_sub(there);
        // a whole volume of two may be bad
        if bad.saturating_sub(absent) > there - there / 8 {
            return Err(Error::OtherRecovery { path: self.location.base.clone() });
        }
        Ok(())
    }

    /// Writes what can be written, and notes what was wrong.
    fn treat(
        &self,
        found: &Found,
        mut parts: Vec<Part>,
        copies: Option<Vec<Part>>,
        names: &[PathBuf],
        damage: &Damage,
        report: &mut Report,
    ) -> Result<(), Error> {
        let was: Vec<Option<Was>> = parts.iter().enumerate().map(|(n, part)| state(found, part, n)).collect();
        let mended = if self.dry_run {
            let mut mended = mend::foresee(found, damage);
            give_up(found, &mut parts, &was, &mut mended)?;
            mended
        } else if let (Some(mut copies), Some(output)) = (copies, self.output) {
            report.bundle = target(found, &parts, output);
            let targets = targets(found, &parts, output);
            let mut mended = mend::mend(found, &copies, damage, self.threads)?;
            give_up(found, &mut copies, &was, &mut mended)?;
            finish(&mut copies, &targets)?;
            report.list_left = companions::copy(self.location, &report.bundle)?;
            report.copy = targets;
            parts = copies;
            mended
        } else {
            parts::rename(&mut parts, &report.misnamed, names)?;
            open_for_writing(found, &mut parts, damage)?;
            let mut mended = mend::mend(found, &parts, damage, self.threads)?;
            give_up(found, &mut parts, &was, &mut mended)?;
            cut(found, &parts, &mended.beyond)?;
            finish(&mut parts, names)?;
            mended
        };
        note(names, &was, mended, report);
        if !report.succeeds() {
            report.lost = self.lost(found, &parts, names, report);
        }
        Ok(())
    }

    /// The bundle's place, with what was written since.
    fn now(&self, found: &Found, names: &[PathBuf]) -> Location {
        let split = found.id.geometry.volume().is_some();
        let volumes = (1..).zip(names.iter().cloned()).filter(|_| split).collect();
        Location { base: self.location.base.clone(), volumes }
    }

    /// Members that have a byte beyond repair, with what is in `parts` now; none when the head is among them.
    fn lost(&self, found: &Found, parts: &[Part], names: &[PathBuf], report: &Report) -> Vec<String> {
        let split = found.id.geometry.volume().is_some();
        let there = |(number, part): (u32, &Part)| part.file.is_some().then(|| (number, part.path.clone()));
        let volumes = (1..).zip(parts).filter(|_| split).filter_map(there).collect();
        let location = Location { base: report.bundle.clone(), volumes };
        let Ok((bundle, _)) = Bundle::open_damaged(&location, self.trust) else { return Vec::new() };
        let each = found.id.geometry.volume().unwrap_or(0);
        let mut beyond = Ranges::default();
        for (volume, name) in (0_u64..).zip(names) {
            let patient = report.patients.iter().find(|patient| patient.path == *name);
            for range in patient.iter().flat_map(|patient| patient.beyond.iter()) {
                beyond.insert(volume * each + range.start..volume * each + range.end);
            }
        }
        let hit = |start: u64, end: u64| beyond.iter().any(|range| range.start < end && start < range.end);
        let members = bundle.front.members.iter().filter(|m| hit(m.offset, m.offset + m.size));
        members.map(|m| m.name.clone()).collect()
    }

    /// Writes damaged and lost recovery files anew.
    fn renew(
        &self,
        found: &Found,
        beside: &Beside,
        bundle: &Bundle,
        damaged: &[PathBuf],
        progress: Progress<'_>,
    ) -> Result<(), Error> {
        let numbers = (1..).zip(found.files.iter());
        let numbers: Vec<u16> =
            numbers.filter(|(n, _)| damaged.contains(&beside.recovery(*n))).map(|(n, _)| n).collect();
        if numbers.is_empty() {
            return Ok(());
        }
        let read = |buffer: &mut [u8], at| bundle.read_at(buffer, at);
        write::write(&found.id, beside, &numbers, &read, self.threads, progress).map(drop)
    }
}

/// Recovery files that are lost, cut, or damaged anywhere.
fn damaged_recovery(found: &Found, beside: &Beside, damage: &Damage) -> Vec<PathBuf> {
    let files = found.id.geometry.recovery_files();
    let hit =
        |shards: &std::ops::Range<u16>| damage.values().any(|c| c.recovery.iter().any(|nth| shards.contains(nth)));
    let whole = |source: &Option<found::Source>| source.as_ref().is_some_and(|source| source.pages_whole);
    let numbered = (1..).zip(&found.files).zip(&files);
    let damaged = numbered.filter(|((_, source), shards)| !whole(source) || hit(shards));
    let place = |number, source: &Option<found::Source>| match source {
        Some(source) if beside.has_elsewhere() => source.path.clone(),
        _ => beside.recovery(number),
    };
    damaged.map(|((number, source), _)| place(number, source)).collect()
}

/// What is wrong with a volume's size.
fn state(found: &Found, part: &Part, number: usize) -> Option<Was> {
    let size = found.id.geometry.volume_size(number as u64);
    match part.length {
        _ if part.file.is_none() => Some(Was::Lost),
        length if length < size => Some(Was::Short(length)),
        length if length > size => Some(Was::Long(length)),
        _ => None,
    }
}

fn note(names: &[PathBuf], was: &[Option<Was>], mended: Mended, report: &mut Report) {
    let each = names.iter().zip(was).zip(mended.mended).zip(mended.beyond);
    for (((path, was), mended), beyond) in each {
        if was.is_some() || !mended.is_empty() || !beyond.is_empty() {
            report.patients.push(Patient { path: path.clone(), was: was.unwrap_or(Was::Damaged), mended, beyond });
        }
    }
}

/// Opens what has to be written to: damaged volumes in place, lost ones under a name of their own. Room is made before the first byte.
fn open_for_writing(found: &Found, parts: &mut [Part], damage: &Damage) -> Result<(), Error> {
    let geometry = &found.id.geometry;
    let mut touched = vec![false; parts.len()];
    for shard in damage.values().flat_map(|column| column.bad.iter().chain(&column.unsure)) {
        let (volume, _) = geometry.place(*shard);
        touched[usize::try_from(volume).unwrap_or(usize::MAX).min(parts.len() - 1)] = true;
    }
    let missing = |(n, part): (usize, &Part)| geometry.volume_size(n as u64).saturating_sub(part.length);
    let needed: u64 = parts.iter().enumerate().map(missing).sum();
    if let Some(first) = parts.iter().enumerate().find(|(n, part)| missing((*n, part)) > 0).map(|(_, part)| part) {
        room(&first.path, needed)?;
    }
    for (n, part) in parts.iter_mut().enumerate() {
        let size = geometry.volume_size(n as u64);
        if part.file.is_none() {
            let path = partial(&part.path);
            let file = open_locked(&path)?;
            allocate(&file, &path, size)?;
            *part = Part { path, file: Some(file), length: size };
        } else if touched[n] || part.length != size {
            let failed = |e| Error::io("write", &part.path, e);
            let file = File::options().read(true).write(true).open(&part.path).map_err(failed)?;
            if let Err(rustix::io::Errno::WOULDBLOCK) =
                rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            {
                return Err(Error::Busy { path: part.path.clone() });
            }
            if part.length < size {
                file.set_len(size).map_err(failed)?;
            }
            part.file = Some(file);
        }
    }
    Ok(())
}

/// A lost volume of which anything is beyond repair stays lost as a whole.
fn give_up(found: &Found, parts: &mut [Part], was: &[Option<Was>], mended: &mut Mended) -> Result<(), Error> {
    for (n, part) in parts.iter_mut().enumerate().filter(|(n, _)| was.get(*n) == Some(&Some(Was::Lost))) {
        let (Some(right), Some(beyond)) = (mended.mended.get_mut(n), mended.beyond.get_mut(n)) else { continue };
        if beyond.is_empty() {
            continue;
        }
        *right = Ranges::default();
        beyond.insert(0..found.id.geometry.volume_size(n as u64));
        if part.file.take().is_some() {
            discard(&part.path)?;
        }
    }
    Ok(())
}

/// Cuts off what stands behind a volume's end, unless something of the volume could not be mended: it may be in there.
fn cut(found: &Found, parts: &[Part], beyond: &Places) -> Result<(), Error> {
    for (n, (part, beyond)) in parts.iter().zip(beyond).enumerate() {
        let size = found.id.geometry.volume_size(n as u64);
        if let Some(file) = part.file.as_ref().filter(|_| part.length > size && beyond.is_empty()) {
            file.set_len(size).map_err(|e| Error::io("write", &part.path, e))?;
        }
    }
    Ok(())
}

/// Makes what was written durable, and gives it its final name.
fn finish(parts: &mut [Part], names: &[PathBuf]) -> Result<(), Error> {
    for (part, name) in parts.iter_mut().zip(names) {
        let Some(file) = &part.file else { continue };
        file.sync_all().map_err(|e| Error::io("sync", &part.path, e))?;
        if part.path != *name {
            std::fs::rename(&part.path, name).map_err(|e| Error::io("rename", &part.path, e))?;
            sync_folder(name)?;
            part.path.clone_from(name);
        }
    }
    Ok(())
}

/// The files of a mended copy, under names of their own until it is finished.
fn copies(found: &Found, parts: &[Part], output: &Path) -> Result<Vec<Part>, Error> {
    if output.as_os_str().as_encoded_bytes().ends_with(b"/") {
        std::fs::create_dir_all(output).map_err(|e| Error::io("create", output, e))?;
    }
    let targets = targets(found, parts, output);
    parts::refuse_same(parts, &targets)?;
    targets.iter().try_for_each(|path| refuse_other_than_file(path))?;
    let needed = found.id.geometry.size();
    for path in &targets {
        discard(&partial(path))?;
    }
    if let Some(first) = targets.first() {
        room(first, needed)?;
    }
    let mut copies = Vec::new();
    for (n, path) in targets.iter().enumerate() {
        let (path, size) = (partial(path), found.id.geometry.volume_size(n as u64));
        let made = open_locked(&path).and_then(|file| allocate(&file, &path, size).map(|()| file));
        match made {
            Ok(file) => copies.push(Part { path, file: Some(file), length: size }),
            Err(error) => {
                discard(&path)?;
                copies.iter().try_for_each(|part: &Part| discard(&part.path))?;
                return Err(error);
            }
        }
    }
    Ok(copies)
}

/// The name of a mended copy: the output, or in it if it is a folder.
fn target(found: &Found, parts: &[Part], output: &Path) -> PathBuf {
    if !output.is_dir() {
        return output.to_owned();
    }
    let first = parts.first().map(|part| part.path.as_path()).unwrap_or(output);
    let base = volumes::parse(first).filter(|_| found.id.geometry.volume().is_some()).map(|(base, _)| base);
    output.join(base.as_deref().unwrap_or(first).file_name().unwrap_or_default())
}

fn targets(found: &Found, parts: &[Part], output: &Path) -> Vec<PathBuf> {
    let base = target(found, parts, output);
    match found.id.geometry.volume() {
        None => vec![base],
        Some(_) => (1..).zip(parts).map(|(number, _)| volumes::name(&base, number)).collect(),
    }
}

pub(super) fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// Refuses to begin what cannot end.
fn room(path: &Path, needed: u64) -> Result<(), Error> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let available = free(folder)?;
    if needed > available {
        return Err(Error::DiskFull { path: path.to_owned(), needed, available });
    }
    Ok(())
}
