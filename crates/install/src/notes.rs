//! What somebody who goes by the digests of the source must know of the target. Pure.

use ferry_image::{Digest, media_type};

use crate::form::FormKind;
use crate::preflight::{Planned, State};
use crate::probe::Verdict;

/// A line for each pinned image whose index will not be there, and one for all others together. `sparse` is whether the target takes an
/// index with absent platforms.
pub(crate) fn of(images: &[Planned], sparse: Verdict) -> Vec<String> {
    let mut notes = Vec::new();
    let mut others = 0;
    for planned in images {
        let Some((there, what)) = instead(planned) else { continue };
        if planned.image.reference.digest().is_none() {
            others += 1;
            continue;
        }
        let why = if sparse == Verdict::No { " (the target refuses an index with absent platforms)" } else { "" };
        notes.push(format!(
            "{}: {what} {there}, stands there instead of the index{why}. YAML that is rewritten is pinned to that; a node that asks a \
             mirror for the index's own digest does not find it",
            planned.image.reference
        ));
    }
    if others > 0 {
        let (images, stand) = if others == 1 { ("image", "stands") } else { ("images", "stand") };
        notes.push(format!(
            "{others} {images} named by tag {stand} there with the carried platforms only: the digest of an index at its source is not found \
             there"
        ));
    }
    notes
}

/// What stands, or will stand, in the place of an image's index.
fn instead(planned: &Planned) -> Option<(&Digest, &'static str)> {
    if !media_type::is_index(&planned.image.root.media_type) {
        return None;
    }
    let form = planned.settled();
    match form.kind {
        _ if matches!(planned.state, State::Skipped(_)) => None,
        FormKind::Original => None,
        FormKind::Filtered => Some((&form.root.digest, "an index of the carried platforms,")),
        FormKind::Platform => Some((&form.root.digest, "the manifest of one platform,")),
    }
}
