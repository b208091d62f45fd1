//! Mending a bundle with its recovery files, in place or into a copy.
//!
//! In place only damaged chunks are written, each with what its checksum agrees with, so that a kill at any moment leaves what the next
//! run can mend. A lost volume is written beside its name and renamed, if all of it could be made anew: one that is half zeros would stand
//! where the real one belongs when it turns up.

use std::path::{Path, PathBuf};

use super::beside::Beside;
use super::companions;
use super::foreseen;
use super::found::{self, Found};
use super::mend;
use super::parts::{self, Misnamed, Part};
use super::report::{Report, Was, damaged_recovery, note, state};
use super::scan::{self, Damage};
use super::writable::{copies, cut, finish, give_up, open_for_writing, refuse_output, target, targets};
use super::write::{self, Progress};
use crate::ranges::Ranges;
use crate::{Bundle, Error, Head, Location, Slices, Trust, signers};

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

/// What is known before anything is written: the recovery files, which volume is which, and whose bundle it is.
#[derive(Debug)]
pub struct Decided<'a> {
    repair: &'a Repair<'a>,
    beside: Beside,
    found: Found,
    strangers: usize,
    parts: Vec<Part>,
    /// What the volumes must be called.
    names: Vec<PathBuf>,
    /// What they are called, before any is put to where it belongs.
    asides: Vec<PathBuf>,
    misnamed: Vec<Misnamed>,
    /// The bundle as it lies there, if its front holds; whether nothing around its members is wrong.
    opened: Option<(Bundle, bool)>,
    head: Option<Head>,
}

impl Repair<'_> {
    /// Finds out what there is to mend with, and whose bundle it will be. Nothing is written. Blocking.
    ///
    /// # Errors
    /// [`Error::NoRecovery`], [`Error::OtherRecovery`]; what the signatures lack, of the front as it is or as it will be.
    pub fn decide(&self) -> Result<Decided<'_>, Error> {
        let beside = Beside::of(self.location).and_elsewhere(self.recovery);
        let (found, strangers) = self.find(&beside)?;
        let mut parts = parts::open(&found, &beside)?;
        let is_split = found.id.geometry.volume().is_some();
        let names: Vec<PathBuf> = (0..found.id.geometry.volumes()).map(|n| beside.volume(is_split, n)).collect();
        let asides: Vec<PathBuf> = parts.iter().map(|part| part.path.clone()).collect();
        let misnamed = parts::arrange(&found, &mut parts, &names);
        if let Some(output) = self.output {
            refuse_output(&found, &parts, output)?;
        }
        // A front that holds says which bundle it is, whatever else is damaged.
        let opened = Bundle::open_damaged(self.location, self.trust).ok();
        let head = match &opened {
            Some((bundle, _)) if super::protect::raw(bundle.sums_digest().hex()) != found.id.sums => {
                return Err(Error::OtherRecovery { path: self.location.base.clone() });
            }
            Some((bundle, _)) => Some(bundle.head().clone()),
            None => {
                let slices = self.location.open().unwrap_or_else(|_| Slices::volumes(Vec::new(), 1));
                let signatures = signers::beside(&self.location.base, &slices)?;
                let front = foreseen::front(&found, &parts, &self.location.base, self.trust, &signatures)?;
                front.map(|front| front.head)
            }
        };
        let opened = opened.map(|(bundle, faults)| (bundle, faults.is_empty()));
        Ok(Decided { repair: self, beside, found, strangers, parts, names, asides, misnamed, opened, head })
    }

    /// [`decide`](Self::decide) and [`mend`](Decided::mend) at once, for who takes any bundle that is signed as it must be.
    ///
    /// # Errors
    /// As there.
    pub fn run(&self, progress: Progress<'_>) -> Result<Report, Error> {
        self.decide()?.mend(progress)
    }

    /// The recovery files that belong to the bundle, and how many others stand there.
    fn find(&self, beside: &Beside) -> Result<(Found, usize), Error> {
        let path = self.location.base.clone();
        let mut sets = found::read(beside)?;
        let files = |set: &Found| set.files.iter().flatten().count();
        let all: usize = sets.iter().map(files).sum();
        let own = found::sums_at(self.location);
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
}

impl Decided<'_> {
    /// What the bundle says of itself, or will say when it is mended. `None` when too much of its front is lost to know.
    #[must_use]
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// Mends what can be mended and verifies the whole. `progress` is told of bytes of the bundle as they are read, at most three times
    /// each. Blocking.
    ///
    /// # Errors
    /// [`Error::OtherRecovery`], [`Error::DiskFull`] before anything is written, [`Error::Busy`], [`Error::Io`]; what verifying finds
    /// although all checksums of the recovery files agree.
    pub fn mend(self, progress: Progress<'_>) -> Result<Report, Error> {
        let Self { repair, beside, found, strangers, parts, names, asides, misnamed, opened, .. } = self;
        let mut report = Report {
            patients: Vec::new(),
            misnamed,
            lost: Vec::new(),
            recovery: Vec::new(),
            recovery_stays: repair.output.is_some() || beside.has_elsewhere(),
            strangers,
            verified: None,
            bundle: place(&found, &repair.location.base, &names),
            copy: Vec::new(),
            list_left: None,
            list: None,
        };
        // Nothing is ever written over a bundle that is whole, whatever recovery files, or a list of volumes, say of it.
        if let Some((bundle, _)) = opened.as_ref().filter(|(_, holds)| *holds && repair.output.is_none()) {
            report.verified = bundle.check_members(repair.threads, progress).ok();
        }
        let work = repair.output.filter(|_| !repair.dry_run);
        let work = work.map(|output| copies(&found, &parts, output)).transpose()?;
        let damage = scan::scan(&found, &parts, work.as_deref(), repair.threads, progress)?;
        report.recovery = damaged_recovery(&found, &beside, &damage);
        if report.verified.is_none() {
            repair.refuse_another(&found, &parts, &damage)?;
            repair.treat(&found, parts, work, (&names, &asides), &damage, &mut report)?;
        }
        if report.succeeds() && !repair.dry_run {
            let bundle = Bundle::open_at(&report.bundle, repair.trust)?;
            if report.verified.is_none() {
                report.verified = Some(bundle.check_members(repair.threads, progress)?);
            }
            report.list = bundle.listed().err();
            if !report.recovery_stays {
                repair.renew(&found, &beside, &bundle, &report.recovery, progress)?;
            }
        }
        Ok(report)
    }
}

impl Repair<'_> {
    /// A bundle of the same name that is another one has hardly a chunk in common with what the recovery files say.
    fn refuse_another(&self, found: &Found, parts: &[Part], damage: &Damage) -> Result<(), Error> {
        let geometry = &found.id.geometry;
        let own = found::sums_of(|buffer, at| parts::read(found, parts, buffer, at));
        if own.is_some_and(|own| own == found.id.sums) || self.output.is_some() {
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
        (names, asides): (&[PathBuf], &[PathBuf]),
        damage: &Damage,
        report: &mut Report,
    ) -> Result<(), Error> {
        let was: Vec<Option<Was>> = parts.iter().enumerate().map(|(n, part)| state(found, part, n)).collect();
        let mended = if self.dry_run {
            let mut mended = mend::foresee(found, damage);
            give_up(found, &mut parts, &was, &mut mended)?;
            mended
        } else if let (Some(mut copies), Some(output)) = (copies, self.output) {
            let targets = targets(found, &parts, output);
            report.bundle = place(found, &target(found, &parts, output), &targets);
            let mut mended = mend::mend(found, &copies, damage, self.threads)?;
            give_up(found, &mut copies, &was, &mut mended)?;
            finish(&mut copies, &targets)?;
            report.list_left = companions::copy(self.location, &report.bundle.base)?;
            report.copy = targets;
            parts = copies;
            mended
        } else {
            parts::rename(&mut parts, &report.misnamed, names, asides)?;
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

    /// Members that have a byte beyond repair, with what is in `parts` now; none when the head is among them.
    fn lost(&self, found: &Found, parts: &[Part], names: &[PathBuf], report: &Report) -> Vec<String> {
        let split = found.id.geometry.volume().is_some();
        let there = |(number, part): (u32, &Part)| part.file.is_some().then(|| (number, part.path.clone()));
        let volumes = (1..).zip(parts).filter(|_| split).filter_map(there).collect();
        let location = Location { base: report.bundle.base.clone(), volumes };
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

/// A bundle that consists of just these files, whatever else has their names.
fn place(found: &Found, base: &Path, files: &[PathBuf]) -> Location {
    let split = found.id.geometry.volume().is_some();
    Location { base: base.to_owned(), volumes: (1..).zip(files.iter().cloned()).filter(|_| split).collect() }
}
