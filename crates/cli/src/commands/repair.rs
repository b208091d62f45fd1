//! `ferry repair`.

mod told;

use std::path::PathBuf;
use std::sync::Arc;

use ferry_archive::recovery::{Repair, Report, is_recovery_file};
use ferry_archive::{Bundle, Error as Archive, Location};

use super::protect::one;
use crate::failure::{End, Error};
use crate::progress::Meter;
use crate::{args, keys, print};

pub(crate) async fn run(args: args::Repair) -> Result<(), End> {
    let trust = keys::trusted(&args.trust)?;
    let (recovery, bundle): (Vec<PathBuf>, Vec<PathBuf>) =
        args.bundle.into_iter().partition(|path| is_recovery_file(path));
    let location = one(&bundle)?;
    if let Some(output) = args.output.as_ref().filter(|output| is_recovery_file(output)) {
        let why = format!("`{}` is the name of a recovery file, not of a bundle", output.display());
        return Err(Error::usage(why, "give the mended copy a name of its own with `-o`").into());
    }
    let (threads, dry_run, output) = (super::threads(args.jobs), args.dry_run, args.output.clone());
    // looked through, and verified in the end
    let meter = Meter::new("repairing", size(&location).saturating_mul(2), args.talk.quiet);
    let counter = Arc::clone(&meter);
    let (of, demand) = (trust.clone(), args.trust.demand.clone());
    let work = move || -> Result<Report, End> {
        let (output, recovery) = (output.as_deref(), recovery.as_slice());
        let repair = Repair { location: &location, recovery, output, trust: &of, threads, dry_run };
        let decided = repair.decide()?;
        // before anything is written
        decided.head().map_or(Ok(()), |head| keys::expect(head, &location.base, &demand))?;
        Ok(decided.mend(&|n| counter.add(n))?)
    };
    let report = tokio::task::spawn_blocking(work).await.map_err(|e| Error::Runtime(std::io::Error::other(e)))?;
    meter.finish();
    let report = report?;
    if args.json {
        print::out(&super::pretty(&told::json(&report))?);
    } else {
        told::lines(&report, dry_run, args.output.is_some()).iter().for_each(|line| print::talk(line));
    }
    if report.verified.is_some() {
        keys::expect(Bundle::open_at(&report.bundle, &trust)?.head(), &report.bundle.base, &args.trust.demand)?;
        // the bundle is whole; what says which of its volumes is which is not
        return report.list.map_or(Ok(()), |error| Err(error.into()));
    }
    if report.succeeds() {
        return Ok(());
    }
    let bytes: u64 = report.patients.iter().map(|patient| patient.beyond.total()).sum();
    let why = match report.lost.as_slice() {
        [] => format!("{} are lost", print::bytes(bytes)),
        members => format!("{} are lost, in\n  {}", print::bytes(bytes), members.join("\n  ")),
    };
    Err(Archive::BeyondRepair { path: report.bundle.base, why }.into())
}

/// The bytes that are there.
fn size(location: &Location) -> u64 {
    let one = [&location.base];
    let paths = if location.is_split() { location.volumes.values().collect() } else { one.to_vec() };
    paths.iter().filter_map(|path| std::fs::metadata(path).ok()).map(|metadata| metadata.len()).sum()
}
