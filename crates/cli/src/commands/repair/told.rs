//! What `ferry repair` says of what it found and did.

use ferry_archive::recovery::{Patient, Report, Was};

use crate::print;

/// No more stretches of a volume are listed.
const MOST: usize = 20;

/// What was found and done.
pub(super) fn lines(report: &Report, dry_run: bool, is_copy: bool) -> Vec<String> {
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
    let (base, copy) = (report.bundle.base.display(), report.copy.as_slice());
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

/// The same for programs.
pub(super) fn json(report: &Report) -> serde_json::Value {
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
        "bundle": report.bundle.base, "succeeds": report.succeeds(), "verified": report.verified.is_some(),
        "volumes": report.patients.iter().map(volume).collect::<Vec<_>>(),
        "misnamed": report.misnamed.iter().map(|m| serde_json::json!({"found": m.found, "belongs": m.belongs})).collect::<Vec<_>>(),
        "lost": report.lost, "recoveryFiles": report.recovery, "strangers": report.strangers, "list": report.list.as_ref().map(ToString::to_string),
    })
}
