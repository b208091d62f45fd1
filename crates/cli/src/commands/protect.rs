//! `ferry protect`, and what `ferry bundle --recovery` shares with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferry_archive::recovery::{Geometry, Protection};
use ferry_archive::{Bundle, Location};

use crate::failure::{End, Error};
use crate::progress::Meter;
use crate::{args, keys, print};

pub(crate) async fn run(args: args::Protect) -> Result<(), End> {
    let trust = keys::trusted(&args.trust)?;
    let bundle = Bundle::open_at(&one(&args.bundle)?, &trust)?;
    keys::expect(bundle.head(), bundle.path(), &args.trust.demand)?;
    let protection = Protection::plan(&bundle, args.recovery)?;
    if args.json {
        print::out(&super::pretty(&plan_json(&protection))?);
    } else if args.dry_run {
        print::out(&plan_text(&protection));
    }
    if args.dry_run {
        return Ok(());
    }
    write(protection, bundle, args.jobs, args.talk.quiet).await
}

/// The one bundle that several paths mean.
pub(super) fn one(paths: &[PathBuf]) -> Result<Location, End> {
    let mut bundles = crate::bundles::locations(paths)?;
    match (bundles.pop(), bundles.pop()) {
        (Some(one), None) => Ok(one),
        (Some(second), Some(first)) => {
            let why = format!("`{}` and `{}` are two bundles", first.base.display(), second.base.display());
            Err(Error::usage(why, "name one bundle, or volumes of one").into())
        }
        (None, _) => Err(Error::usage("no bundle is named", "name one").into()),
    }
}

/// Verifies the bundle and writes its recovery files.
pub(super) async fn write(protection: Protection, bundle: Bundle, jobs: Option<usize>, quiet: bool) -> Result<(), End> {
    let threads = super::threads(jobs);
    // verified, then read again
    let meter = Meter::new("protecting", bundle.size().saturating_mul(2), quiet);
    let counter = Arc::clone(&meter);
    let work = move || protection.write(&bundle, threads, &|n| counter.add(n)).map(|()| protection);
    let written = tokio::task::spawn_blocking(work).await.map_err(|e| Error::Runtime(std::io::Error::other(e)))?;
    meter.finish();
    let protection = written?;
    if !quiet {
        print::talk(&plan_text(&protection));
    }
    Ok(())
}

/// What recovery files cost and make up for, in one line.
pub(super) fn words(geometry: &Geometry) -> String {
    let bytes = geometry.recovery_bytes();
    let survives = geometry.survives();
    let volumes = match survives.volumes {
        0 => String::new(),
        n => format!("{}, or ", print::count(usize::from(n), "lost volume")),
    };
    format!(
        "{}; they make up for {volumes}a damaged stretch of {}, or {} of {} wherever they are, and for more that are spread",
        print::bytes(bytes),
        print::bytes(survives.stretch),
        print::count(usize::from(survives.chunks), "damaged piece"),
        print::bytes(survives.chunk),
    )
}

fn plan_text(protection: &Protection) -> String {
    let files = protection.files();
    let names = match files.as_slice() {
        [(one, _)] => show(one),
        [(first, _), .., (last, _)] => format!("{} to {}", show(first), show(last)),
        [] => String::new(),
    };
    format!("{names}: {}", words(protection.geometry()))
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

fn plan_json(protection: &Protection) -> serde_json::Value {
    let (geometry, files) = (protection.geometry(), protection.files());
    let survives = geometry.survives();
    serde_json::json!({
        "files": files.iter().map(|(path, size)| serde_json::json!({"path": path, "size": size})).collect::<Vec<_>>(),
        "bytes": files.iter().map(|(_, size)| size).sum::<u64>(),
        "shards": geometry.originals(), "recoveryShards": geometry.recovery(), "shardBytes": geometry.shard(),
        "survives": {
            "volumes": survives.volumes, "stretch": survives.stretch,
            "pieces": survives.chunks, "pieceBytes": survives.chunk,
        },
    })
}
