//! Mending a bundle with its recovery files, in place or into a copy.
//!
//! In place only damaged chunks are written, each with what its checksum agrees with, so that a kill at any moment leaves what the next
//! run can mend. A lost volume is written beside its name and renamed, if all of it could be made anew: one that is half zeros would stand
//! where the real one belongs when it turns up.

use std::path::{Path, PathBuf};

use super::beside::Beside;
use super::companions;
use super::found::{self, Found};
use super::mend;
use super::parts::{self, Part};
use super::report::{Report, Was, damaged_recovery, note, state};
use super::scan::{self, Damage};
use super::writable::{copies, cut, finish, give_up, open_for_writing, target, targets};
use super::write::{self, Progress};
use crate::ranges::Ranges;
use crate::{Bundle, Error, Location, Trust};

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
