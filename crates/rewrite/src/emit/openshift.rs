//! Mirror sets of OpenShift (`config.openshift.io/v1`): one kind for what is pulled by digest, one for what is pulled by tag.

use std::fmt::Write as _;

use ferry_image::Relocation;

use super::mirror::{Mirror, mirrors, unserved};
use super::{Emitted, Form, UNKNOWN, head};

/// `ImageDigestMirrorSet`. A repository is in it when a digest of it stayed what it was.
pub(super) fn by_digest(relocation: &Relocation) -> Emitted {
    let mut out = Emitted::new(Form::Idms);
    let moved = |image: &ferry_image::Relocated| {
        if relocation.unknown.contains(&image.reference) {
            Some(UNKNOWN.to_owned())
        } else if image.digest != image.source_digest {
            Some(format!("its digest at the target is another one, {}", image.digest))
        } else {
            None
        }
    };
    let mirrors = mirrors(relocation, moved, &mut out);
    let by_tag = relocation.images.iter().filter(|image| image.reference.digest().is_none() && moved(image).is_none());
    for image in by_tag {
        out.leave(image, "named by tag, for which there are ImageTagMirrorSets; pulls by its digest are redirected");
    }
    set(relocation, &mirrors, "ImageDigestMirrorSet", "imageDigestMirrors", &mut out);
    out
}

/// `ImageTagMirrorSet`.
pub(super) fn by_tag(relocation: &Relocation) -> Emitted {
    let mut out = Emitted::new(Form::Itms);
    let not_by_tag = |image: &ferry_image::Relocated| match image.reference.digest() {
        Some(_) => Some("pinned by digest, for which there are ImageDigestMirrorSets".to_owned()),
        None => unserved(relocation, image),
    };
    let mirrors = mirrors(relocation, not_by_tag, &mut out);
    set(relocation, &mirrors, "ImageTagMirrorSet", "imageTagMirrors", &mut out);
    out
}

fn set(relocation: &Relocation, mirrors: &[Mirror<'_>], kind: &str, list: &str, out: &mut Emitted) {
    let mirrors: Vec<_> = mirrors.iter().filter(|mirror| mirror.source() != mirror.target).collect();
    if mirrors.is_empty() {
        return;
    }
    let mut text = head(relocation, "Apply with `oc apply -f`; nodes take it up one after the other.");
    text += &out.missing();
    let _ =
        write!(text, "apiVersion: config.openshift.io/v1\nkind: {kind}\nmetadata:\n  name: ferry\nspec:\n  {list}:\n");
    for mirror in mirrors {
        let _ =
            write!(text, "    - source: \"{}\"\n      mirrors:\n        - \"{}\"\n", mirror.source(), mirror.target);
    }
    out.file(&format!("{}.yaml", out.form.name()), text);
}
