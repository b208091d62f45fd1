//! What somebody who goes by the digests of the source must know of the target. Pure.

use ferry_image::{Digest, media_type};
use ferry_registry_client::Product;

use crate::form::FormKind;
use crate::preflight::{Planned, State};
use crate::probe::Verdict;

/// A line for each pinned image whose index will not be there, and one for all others together. `sparse` is whether the target takes an
/// index with absent platforms, `product` which program it is.
pub(crate) fn of(images: &[Planned], sparse: Verdict, product: Option<Product>) -> Vec<String> {
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
        let stand = if others == 1 { "stands" } else { "stand" };
        notes.push(format!(
            "{} named by tag {stand} there with the carried platforms only: the digest of an index at its source is not found \
             there",
            count(others)
        ));
    }
    let untagged = images.iter().filter(|planned| planned.tag.is_none()).count();
    if product == Some(Product::Quay) && untagged > 0 {
        notes.push(format!("{} without a tag: Quay forgets after a while what has none", count(untagged)));
    }
    notes
}

fn count(images: usize) -> String {
    if images == 1 { "1 image".to_owned() } else { format!("{images} images") }
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ferry_archive::HeadImage;
    use ferry_image::{Descriptor, Reference};

    use super::*;
    use crate::form::{Form, Forms};

    fn form(kind: FormKind) -> Form {
        let root = Descriptor::of(media_type::OCI_INDEX, format!("{kind:?}").as_bytes());
        Form { kind, root, bytes: Bytes::new(), children: Vec::new(), sparse: false }
    }

    fn planned(reference: &str, kind: FormKind, state: State) -> Planned {
        let root = Descriptor::of(media_type::OCI_INDEX, b"index");
        let reference: Reference = reference.replace("ROOT", &root.digest.to_string()).parse().unwrap();
        let tag = reference.tag().map(ToOwned::to_owned);
        let image = HeadImage {
            reference,
            target: None,
            source: String::new(),
            root,
            platforms: vec![],
            referrers: vec![],
            verified: vec![],
        };
        let forms = Forms { first: form(kind), second: None };
        Planned { image, repository: "app".to_owned(), tag, forms, state }
    }

    #[test]
    fn what_differs_from_the_source_is_told() {
        let other = Digest::of(b"other");
        let images = [
            planned("a:1", FormKind::Original, State::Absent),
            planned("b:1", FormKind::Platform, State::Absent),
            planned("c:1", FormKind::Filtered, State::Moves(other.clone())),
            planned("d:1@ROOT", FormKind::Platform, State::Absent),
            planned("e:1@ROOT", FormKind::Platform, State::Skipped(other)),
            planned("f@ROOT", FormKind::Filtered, State::Absent),
        ];
        let notes = of(&images, Verdict::No, None);
        assert_eq!(notes.len(), 3, "{notes:#?}");
        assert!(notes[0].contains("library/d:1@") && notes[0].contains("one platform"), "{}", notes[0]);
        assert!(notes[0].contains(&form(FormKind::Platform).root.digest.to_string()), "{}", notes[0]);
        assert!(notes[1].contains("library/f@") && notes[1].contains("(the target refuses"), "{}", notes[1]);
        assert!(notes[2].starts_with("2 images named by tag"), "{}", notes[2]);
        assert!(!of(&images, Verdict::NotAsked, None)[1].contains("refuses"));
        let at_quay = of(&images, Verdict::No, Some(Product::Quay));
        assert!(at_quay[3].starts_with("1 image without a tag"), "{at_quay:?}");
        assert!(of(&images[..1], Verdict::No, Some(Product::Quay)).is_empty());
    }
}
