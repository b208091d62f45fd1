//! `ferry diff`.

use ferry_bundle::Base;
use ferry_bundle::base::BaseKind;
use ferry_bundle::diff::{Amount, Change, Diff, ImageDiff, diff};

use crate::failure::{End, Error};
use crate::{args, bases, bundles, print};

pub(crate) fn run(args: &args::Diff) -> Result<(), End> {
    let (from, to) = sides(args)?;
    let diff = diff(&from, &to);
    if args.json {
        print::out(&json(&from, &to, &diff)?);
    } else {
        print::out(&text(&diff));
    }
    if args.exit_code && !diff.is_empty() { Err(End::Different) } else { Ok(()) }
}

/// The two. Where just two files are named these are they, even if both are volumes of one name: an older and a newer bundle often have that.
fn sides(args: &args::Diff) -> Result<(Base, Base), End> {
    if let [from, to] = args.sides.as_slice() {
        return Ok((bases::load(from, &args.trust)?, bases::load(to, &args.trust)?));
    }
    let files: Vec<_> = args.sides.iter().filter(|path| !bundles::is_beside(path, &args.sides)).cloned().collect();
    let mut all = bases::load_all(&files, &args.trust)?;
    match (all.pop(), all.pop(), all.is_empty()) {
        (Some(to), Some(from), true) => Ok((from, to)),
        (_, _, is_too_few) => {
            let what = if is_too_few { "these are volumes of one bundle" } else { "these are more than two" };
            let hint = "name two; volumes of one name count as one bundle, so give one of two bundles of that name another name first";
            Err(Error::usage(format!("two are compared, and {what}"), hint).into())
        }
    }
}

fn kind(base: &Base) -> &'static str {
    match base.kind {
        BaseKind::Bundle => "bundle",
        BaseKind::Receipt => "receipt",
        BaseKind::Lock => "lock",
    }
}

fn json(from: &Base, to: &Base, diff: &Diff) -> Result<String, End> {
    let side = |base: &Base| {
        let names: Vec<_> = base
            .names
            .iter()
            .map(|name| serde_json::json!({"name": name.name, "version": name.version, "sums": name.sums}))
            .collect();
        serde_json::json!({"file": base.file, "kind": kind(base), "names": names})
    };
    let image = |image: &ImageDiff| {
        serde_json::json!({
            "reference": image.reference, "change": image.change.word(), "from": image.from, "to": image.to,
            "bytes": image.bytes, "newBytes": image.new_bytes,
        })
    };
    let amount = |amount: Amount| serde_json::json!({"count": amount.count, "bytes": amount.bytes, "ofUnknownSize": amount.unsized_blobs});
    let blobs = diff.blobs.map(|blobs| {
        serde_json::json!({
            "added": amount(blobs.added), "removed": amount(blobs.removed), "unchanged": amount(blobs.unchanged),
        })
    });
    super::pretty(&serde_json::json!({
        "from": side(from), "to": side(to), "images": diff.images.iter().map(image).collect::<Vec<_>>(), "blobs": blobs,
        "notes": diff.notes,
    }))
}

fn text(diff: &Diff) -> String {
    let mut rows = vec![["", "IMAGE", "FROM", "TO", "SIZE", "NEW"].map(str::to_owned).to_vec()];
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), print::bytes);
    let short = |digest: Option<&ferry_image::Digest>| digest.map_or_else(|| "-".to_owned(), |d| d.short().to_owned());
    for image in &diff.images {
        rows.push(vec![
            image.change.word().to_owned(),
            image.reference.to_string(),
            short(image.from.as_ref()),
            short(image.to.as_ref()),
            size(image.bytes),
            size(image.new_bytes),
        ]);
    }
    let counted = [Change::Added, Change::Removed, Change::Changed, Change::Unchanged];
    let counted = counted.map(|change| format!("{} {}", diff.count(change), change.word())).join(", ");
    let mut lines = vec![print::table(&rows), String::new(), format!("  images: {counted}")];
    if let Some(blobs) = diff.blobs {
        let amount = |what: &str, amount: Amount| format!("{} {what} ({})", amount.count, print::bytes(amount.bytes));
        let counted = [("added", blobs.added), ("removed", blobs.removed), ("unchanged", blobs.unchanged)];
        lines.push(format!("  blobs: {}", counted.map(|(what, n)| amount(what, n)).join(", ")));
    }
    lines.extend(diff.notes.iter().map(|note| format!("  {note}")));
    lines.join("\n")
}
