//! Relocations and rules in few words.
#![allow(clippy::expect_used, dead_code, unreachable_pub)]

use ferry_image::{Digest, Form, Reference, Relocated, Relocation, SetRule};

/// `images` are (reference, repository under the target); tags stay.
pub fn relocation(target: &str, images: &[(&str, &str)]) -> Relocation {
    let mut relocation = Relocation::new(&target.parse().expect("target"));
    for (reference, name) in images {
        let reference: Reference = reference.parse().expect("reference");
        let digest = reference.digest().cloned().unwrap_or_else(|| Digest::of(name.as_bytes()));
        relocation.images.push(Relocated {
            tag: reference.tag().map(ToOwned::to_owned),
            repository: format!("{target}/{name}"),
            source_digest: digest,
            digest: Digest::of(b"at the target"),
            reference,
        });
    }
    relocation
}

/// The digest that every image of [`relocation`] has at the target.
pub fn target_digest() -> String {
    Digest::of(b"at the target").to_string()
}

pub fn rule(paths: &[&str], form: Form, image: &str) -> SetRule {
    SetRule {
        file: None,
        kind: None,
        paths: paths.iter().map(|p| (*p).to_owned()).collect(),
        form,
        image: image.parse().expect("reference"),
    }
}
