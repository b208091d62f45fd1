//! `ferry gc`.

use ferry_content::Failure as _;
use ferry_content::store::{Checked, Collected, Collection, Store};
use serde_json::json;

use crate::commands::verify::store::{fault, lost};
use crate::failure::{End, Error};
use crate::{args, print};

/// Which folders are stores.
const STORES: &str = "name the folder that was given to `--store`";

pub(crate) async fn run(args: args::Gc) -> Result<(), End> {
    let how = Collection { grace: args.grace, uploads: args.uploads, untagged: args.untagged, dry_run: args.dry_run };
    let folder = args.store.clone();
    if !folder.exists() {
        let why = format!("`{}` is not there", folder.display());
        return Err(Error::usage(why, STORES).into());
    }
    if !folder.is_dir() {
        return Err(Error::usage(format!("`{}` is a file, and no store", folder.display()), STORES).into());
    }
    if !folder.join("oci-layout").is_file() {
        let why = format!("`{}` is not a store: there is no `oci-layout` in it", folder.display());
        return Err(Error::NotAStore { why, hint: STORES.to_owned() }.into());
    }
    let work = move || {
        let store = if how.dry_run { Store::open_to_look(folder)? } else { Store::open_existing(folder)? };
        let collected = store.collect(&how)?;
        Ok::<_, ferry_content::store::Error>((collected, store.check(None, |_| (), &|_| ())?))
    };
    let (collected, checked) =
        tokio::task::spawn_blocking(work).await.map_err(|e| Error::Runtime(std::io::Error::other(e)))??;
    if args.json {
        print::out(&super::pretty(&json(&collected, &checked, args.dry_run))?);
    } else if args.dry_run {
        let rows: Vec<Vec<String>> = collected
            .removed
            .iter()
            .map(|(digest, size)| vec![digest.to_string(), print::bytes(*size)])
            .chain(collected.untagged.iter().map(|(repository, digest)| vec![digest.to_string(), repository.clone()]))
            .collect();
        if !rows.is_empty() {
            print::out(&print::table(&rows));
        }
    }
    if !args.talk.quiet && !args.json {
        print::talk(&summary(&collected, &args));
    }
    let mut hint = None;
    for lost in lost(&args.store, checked) {
        print::warnings(&[lost.to_string()]);
        hint = lost.hint();
    }
    hint.into_iter().for_each(|hint| print::talk(&format!("  hint: {hint}")));
    Ok(())
}

fn summary(collected: &Collected, args: &args::Gc) -> String {
    let done = if args.dry_run { "would be removed" } else { "removed" };
    let blobs = print::bytes(collected.bytes() - collected.uploads);
    let mut parts = vec![format!("{} {done}, {blobs}", print::count(collected.removed.len(), "blob"))];
    if collected.uploads > 0 {
        parts.push(format!("{} in unfinished uploads {done}", print::bytes(collected.uploads)));
    }
    if args.untagged {
        parts.push(format!("{} without a tag {done}", print::count(collected.untagged.len(), "manifest")));
    }
    if collected.young > 0 {
        parts.push(format!("{} unneeded, but too young (--grace)", collected.young));
    }
    if collected.uploads_left > 0 {
        let left = print::bytes(collected.uploads_left);
        parts.push(format!("{left} in unfinished uploads, kept because a client may still continue them (--uploads)"));
    }
    parts.push(format!("{} needed; {} stay", collected.kept, print::bytes(collected.kept_bytes)));
    format!("{}: {}", args.store.display(), parts.join("; "))
}

fn json(collected: &Collected, checked: &Checked, dry_run: bool) -> serde_json::Value {
    let removed: Vec<_> =
        collected.removed.iter().map(|(digest, size)| json!({"digest": digest, "bytes": size})).collect();
    let untagged: Vec<_> = collected
        .untagged
        .iter()
        .map(|(repository, digest)| json!({"repository": repository, "digest": digest}))
        .collect();
    json!({
        "dry_run": dry_run,
        "removed": removed,
        "untagged": untagged,
        "bytes": collected.bytes(),
        "unfinished_uploads": {"bytes": collected.uploads, "left": collected.uploads_left},
        "young": {"blobs": collected.young},
        "needed": {"blobs": collected.kept},
        "stay": {"bytes": collected.kept_bytes},
        "lost": checked.faults.iter().map(fault).collect::<Vec<_>>(),
    })
}
