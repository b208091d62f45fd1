//! `ferry diff`.

use ferry_bundle::Base;
use ferry_bundle::base::BaseKind;
use ferry_bundle::diff::{Amount, Change, Diff, ImageDiff, diff};

use crate::failure::End;
use crate::{args, bases, print};

pub(crate) fn run(args: &args::Diff) -> Result<(), End> {
    let (from, to) = (bases::load(&args.from, &args.trust)?, bases::load(&args.to, &args.trust)?);
    let diff = diff(&from, &to);
    if args.json {
        print::out(&json(&from, &to, &diff)?);
    } else {
        print::out(&text(&diff));
    }
    if args.exit_code && !diff.is_empty() { Err(End::Different) } else { Ok(()) }
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
