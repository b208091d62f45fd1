//! `ferry repair`.

use std::path::PathBuf;
use std::sync::Arc;

use ferry_archive::recovery::{Patient, Repair, Report, Was, is_recovery_file};
use ferry_archive::{Bundle, Error as Archive, Location};

use super::protect::{one, threads};
use crate::failure::{End, Error};
use crate::progress::Meter;
use crate::{args, keys, print};

/// No more stretches of a volume are listed.
const MOST: usize = 20;

pub(crate) async fn run(args: args::Repair) -> Result<(), End> {
    let trust = keys::trusted(&args.trust)?;
    let (recovery, bundle): (Vec<PathBuf>, Vec<PathBuf>) =
        args.bundle.into_iter().partition(|path| is_recovery_file(path));
    let location = one(&bundle)?;
    let (threads, dry_run, output) = (threads(args.jobs), args.dry_run, args.output.clone());
    // looked through, and verified in the end
    let meter = Meter::new("repairing", size(&location).saturating_mul(2), args.talk.quiet);
    let counter = Arc::clone(&meter);
    let of = trust.clone();
    let work = move || {
        let (output, recovery) = (output.as_deref(), recovery.as_slice());
        let repair = Repair { location: &location, recovery, output, trust: &of, threads, dry_run };
        repair.run(&|n| counter.add(n))
    };
    let report = tokio::task::spawn_blocking(work).await.map_err(|e| Error::Runtime(std::io::Error::other(e)))?;
    meter.finish();
    let report = report?;
    if args.json {
        print::out(&super::pretty(&json(&report))?);
    } else {
        lines(&report, dry_run, args.output.is_some()).iter().for_each(|line| print::talk(line));
    }
    if report.verified.is_some() {
        let place = if args.output.is_some() { Location::of(&report.bundle)? } else { one(&bundle)? };
        return keys::expect(Bundle::open_at(&place, &trust)?.head(), &place.base, &args.trust.demand);
    }
    if report.succeeds() {
        return Ok(());
    }
    let bytes: u64 = report.patients.iter().map(|patient| patient.beyond.total()).sum();
    let why = match report.lost.as_slice() {
        [] => format!("{} are lost", print::bytes(bytes)),
        members => format!("{} are lost, in\n  {}", print::bytes(bytes), members.join("\n  ")),
    };
    Err(Archive::BeyondRepair { path: report.bundle, why }.into())
}

/// The bytes that are there.
fn size(location: &Location) -> u64 {
    let one = [&location.base];
    let paths = if location.is_split() { location.volumes.values().collect() } else { one.to_vec() };
    paths.iter().filter_map(|path| std::fs::metadata(path).ok()).map(|metadata| metadata.len()).sum()
}

/// What was found and done.
fn lines(report: &Report, dry_run: bool, is_copy: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if report.strangers > 0 {
        let files = print::count(report.strangers, "recovery file");
        lines.push(format!("warning: {files} of another bundle or another `ferry protect` are passed over"));
    }
    for misnamed in &report.misnamed {
        let (found, belongs) = (misnamed.found.display(), misnamed.belongs.display());
        let what = if dry_run {
            "would be renamed"
        } else if is_copy {
            "is read as it"
        } else {
            "is renamed"
        };
        lines.push(format!("{found} is {belongs}, and {what}"));
    }
    lines.extend(report.patients.iter().flat_map(|patient| describe(patient, dry_run)));
    for path in &report.recovery {
        let what = match () {
            () if is_copy => "left as it is; `ferry protect` makes others for the copy",
            () if report.recovery_stays => "left as it is; `ferry protect` makes others beside the bundle",
            () if dry_run => "would be written anew",
            () if report.verified.is_some() => "is written anew",
            () => "stays so until the bundle is whole",
        };
        lines.push(format!("{} was damaged or lost, and {what}", path.display()));
    }
    if let Some(list) = &report.list_left {
        lines.push(format!("{} is not copied: it lists the volumes by other names than the copy's", list.display()));
    }
    let nothing = report.patients.is_empty() && report.misnamed.is_empty();
    match &report.verified {
        Some(verified) => lines.push(format!(
            "{}{}: {}, {} checked",
            whole(report),
            if nothing { " and was" } else { " again" },
            print::count(verified.blobs, "blob"),
            print::bytes(verified.bytes)
        )),
        None if dry_run && report.succeeds() => lines.push("everything can be mended".to_owned()),
        None => {}
    }
    lines
}

/// What is whole, by the names of its files where they are new.
fn whole(report: &Report) -> String {
    let (base, copy) = (report.bundle.display(), report.copy.as_slice());
    match (copy.first(), copy.last()) {
        (Some(first), Some(last)) if first != last => {
            let last = last.extension().unwrap_or_default().display();
            format!("{} to .{last} are whole", first.display())
        }
        (Some(one), _) => format!("{} is whole", one.display()),
        _ => format!("{base} is whole"),
    }
}

fn describe(patient: &Patient, dry_run: bool) -> Vec<String> {
    let path = patient.path.display();
    let was = match patient.was {
        Was::Lost => "was not there".to_owned(),
        Was::Short(length) => format!("was cut at {length} bytes"),
        Was::Long(length) => format!("had {length} bytes, too many"),
        Was::Damaged => "was damaged".to_owned(),
    };
    let can = if dry_run { "can be mended" } else { "mended" };
    let mut lines = Vec::new();
    if !patient.mended.is_empty() {
        let places = places(patient.mended.iter().collect());
        lines.push(format!("{path} {was}: {can}: {} ({places})", print::bytes(patient.mended.total())));
    } else if patient.beyond.is_empty() {
        let can = if dry_run { "can be put right" } else { "put right" };
        lines.push(format!("{path} {was}: {can}"));
    }
    if !patient.beyond.is_empty() {
        let places = places(patient.beyond.iter().collect());
        lines.push(format!("{path} {was}: beyond repair: {} ({places})", print::bytes(patient.beyond.total())));
    }
    lines
}

fn places(ranges: Vec<std::ops::Range<u64>>) -> String {
    let more = ranges.len().saturating_sub(MOST);
    let mut places: Vec<String> = ranges.iter().take(MOST).map(|r| format!("{}-{}", r.start, r.end - 1)).collect();
    if more > 0 {
        places.push(format!("and {more} more"));
    }
    format!("bytes {}", places.join(", "))
}

fn json(report: &Report) -> serde_json::Value {
    let ranges = |ranges: &ferry_archive::ranges::Ranges| ranges.iter().map(|r| [r.start, r.end]).collect::<Vec<_>>();
    let volume = |patient: &Patient| {
        let (was, length) = match patient.was {
            Was::Lost => ("lost", None),
            Was::Short(length) => ("short", Some(length)),
            Was::Long(length) => ("long", Some(length)),
            Was::Damaged => ("damaged", None),
        };
        serde_json::json!({
            "path": patient.path, "was": was, "length": length,
            "mended": ranges(&patient.mended), "beyond": ranges(&patient.beyond),
        })
    };
    serde_json::json!({
        "bundle": report.bundle, "succeeds": report.succeeds(), "verified": report.verified.is_some(),
        "volumes": report.patients.iter().map(volume).collect::<Vec<_>>(),
        "misnamed": report.misnamed.iter().map(|m| serde_json::json!({"found": m.found, "belongs": m.belongs})).collect::<Vec<_>>(),
        "lost": report.lost, "recoveryFiles": report.recovery, "strangers": report.strangers,
    })
}
