//! `ferry verify --store DIR`: what images of a store need, read and hashed.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ferry_content::store::{Checked, Fault, Store, Wrong};
use ferry_content::{Failure, Kind, Problems};
use serde_json::json;

use crate::failure::{End, Error};
use crate::progress::Meter;
use crate::{args, print};

/// A blob of a store that images need and that is not there as it should be.
#[derive(Debug, thiserror::Error)]
#[error("{}", said(.fault))]
pub(crate) struct Lost {
    fault: Fault,
    folder: PathBuf,
}

/// The folder of the store that is meant: the one that was named as such, or, alone, where a bundle would be.
pub(super) fn named(args: &args::Verify) -> Option<&Path> {
    match (&args.store, args.bundles.as_slice()) {
        (Some(folder), _) => Some(folder),
        (None, [one]) if one.join("oci-layout").is_file() && one.join("ferry").is_dir() => Some(one),
        _ => None,
    }
}

pub(super) async fn run(folder: &Path, args: &args::Verify) -> Result<(), End> {
    if args.want.is_some() || args.cold {
        let hint = "leave it out; what a store lacks, `ferry install BUNDLE --store DIR --recheck` brings";
        return Err(Error::usage("--want and --cold are about bundles, and this is a store", hint).into());
    }
    let (threads, quiet) = (super::super::threads(args.jobs), args.talk.quiet);
    let store = Store::open_to_look(folder)?;
    let work = move || {
        let meter = OnceLock::new();
        let sized = |bytes| drop(meter.set(Meter::new("verifying", bytes, quiet)));
        let checked = store.check(Some(threads), sized, &|n| meter.get().into_iter().for_each(|meter| meter.add(n)));
        meter.get().into_iter().for_each(|meter| meter.finish());
        checked
    };
    let checked = tokio::task::spawn_blocking(work).await.map_err(|e| Error::Runtime(std::io::Error::other(e)))??;
    if args.json {
        print::out(&super::super::pretty(&json(folder, &checked))?);
    } else if checked.faults.is_empty() {
        let (images, blobs) = (print::count(checked.images, "image"), print::count(checked.blobs, "blob"));
        let bytes = print::bytes(checked.bytes);
        print::talk(&format!("{} is whole: {images}, {blobs}, {bytes} checked", folder.display()));
    }
    let mut problems = Problems::default();
    lost(folder, checked).into_iter().for_each(|lost| problems.add("", lost));
    Ok(problems.or(())?)
}

/// What is wrong in a store.
pub(crate) fn lost(folder: &Path, checked: Checked) -> Vec<Lost> {
    checked.faults.into_iter().map(|fault| Lost { fault, folder: folder.to_owned() }).collect()
}

fn json(folder: &Path, checked: &Checked) -> serde_json::Value {
    json!({
        "store": folder.display().to_string(), "images": checked.images, "blobs": checked.blobs, "bytes": checked.bytes,
        "faults": checked.faults.iter().map(fault).collect::<Vec<_>>(),
    })
}

/// As in JSON.
pub(crate) fn fault(fault: &Fault) -> serde_json::Value {
    let what = if fault.what == Wrong::Missing { "missing" } else { "damaged" };
    json!({"digest": fault.digest, "bytes": fault.size, "what": what, "images": fault.images})
}

fn said(fault: &Fault) -> String {
    /// The most images that are named.
    const MOST: usize = 5;
    let names: Vec<String> = fault.images.iter().take(MOST).map(|image| format!("`{image}`")).collect();
    let more = match fault.images.len().saturating_sub(MOST) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let what = match &fault.what {
        Wrong::Missing => "is missing".to_owned(),
        Wrong::Size(found) => format!("is damaged: its file has {found} bytes"),
        Wrong::Content(found) => format!("is damaged: its file hashes to {found}"),
        Wrong::Unreadable(why) => format!("is damaged: its file cannot be read ({why})"),
    };
    format!("{}{more}: blob {} ({} bytes) {what}", names.join(", "), fault.digest, fault.size)
}

impl Failure for Lost {
    fn kind(&self) -> Kind {
        if self.fault.what == Wrong::Missing { Kind::Missing } else { Kind::Untrusted }
    }

    fn hint(&self) -> Option<String> {
        let folder = self.folder.display();
        Some(format!(
            "`ferry install BUNDLE --store {folder} --recheck`, of a bundle with these images, writes such blobs anew"
        ))
    }
}
