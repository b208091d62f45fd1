//! The map from each normalised reference to its name and digest at the target.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, Error, Reference, Target, TargetName};

/// One image at the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relocated {
    /// The reference as carried, normalised.
    pub reference: Reference,
    /// The full repository at the target, host and prefix included.
    pub repository: String,
    /// The tag at the target; none for an image that is named by its digest alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The digest that the reference had at its source.
    pub source_digest: Digest,
    /// The digest that is served at the target under this name.
    pub digest: Digest,
}

impl Relocated {
    /// The reference to use at the target in place of `written`: by tag where `written` has one, pinned where it is pinned.
    ///
    /// # Errors
    /// When the target's name does not follow the grammar of references.
    pub fn replacement(&self, written: &Reference) -> Result<Reference, Error> {
        let mut text = self.repository.clone();
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if written.digest().is_some() || self.tag.is_none() {
            text.push('@');
            text.push_str(&self.digest.to_string());
        }
        text.parse()
    }
}

/// What a bundle carries and where it goes. Serialised as `relocation.json` (see `docs/format.md`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relocation {
    /// The version of this document: 1.
    pub version: u32,
    /// `HOST[:PORT][/PREFIX]`.
    pub target: String,
    /// In order of reference.
    pub images: Vec<Relocated>,
}

impl Relocation {
    /// An empty relocation to `target`.
    #[must_use]
    pub fn new(target: &Target) -> Self {
        Self { version: 1, target: target.to_string(), images: Vec::new() }
    }

    /// The image that `reference` means: the same normalised reference, or the same repository pinned to a digest
    /// that is carried under it.
    #[must_use]
    pub fn lookup(&self, reference: &Reference) -> Option<&Relocated> {
        self.images.iter().find(|i| &i.reference == reference).or_else(|| {
            let digest = reference.digest()?;
            self.images.iter().find(|i| {
                &i.source_digest == digest
                    && i.reference.host() == reference.host()
                    && i.reference.path() == reference.path()
                    && (!reference.has_written_tag() || i.reference.tag() == reference.tag())
            })
        })
    }
}

/// Two different images on one name: each clash, in order. `names` are (reference, digest, name at the target).
#[must_use]
pub fn collisions<'a>(names: impl IntoIterator<Item = (&'a Reference, &'a Digest, &'a TargetName)>) -> Vec<Error> {
    let mut seen: BTreeMap<&TargetName, (&Reference, &Digest)> = BTreeMap::new();
    let mut clashes = Vec::new();
    for (reference, digest, name) in names.into_iter().filter(|(_, _, name)| name.tag.is_some()) {
        let (first, first_digest) = *seen.entry(name).or_insert((reference, digest));
        if first_digest != digest {
            let (first, second) = (first.to_string(), reference.to_string());
            clashes.push(Error::Collision { name: name.to_string(), first, second });
        }
    }
    clashes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Layout;

    fn r(text: &str) -> Reference {
        text.parse().expect("reference")
    }

    #[test]
    fn lookup_is_by_normal_form_or_by_carried_digest() {
        let target: Target = "reg:5000/p".parse().expect("target");
        let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
        let mut relocation = Relocation::new(&target);
        relocation.images.push(Relocated {
            reference: r("docker.io/library/nginx:1.27"),
            repository: "reg:5000/p/library/nginx".to_owned(),
            tag: Some("1.27".to_owned()),
            source_digest: old.clone(),
            digest: new.clone(),
        });
        assert!(relocation.lookup(&r("nginx:1.27")).is_some());
        assert!(relocation.lookup(&r("nginx:1.28")).is_none());
        let pinned = r("nginx:1.27").pinned(&old);
        let image = relocation.lookup(&pinned).expect("carried digest");
        assert_eq!(
            image.replacement(&pinned).map(|r| r.to_string()),
            Ok(format!("reg:5000/p/library/nginx:1.27@{new}"))
        );
        assert!(relocation.lookup(&r("nginx:1.27").pinned(&new)).is_none());
        assert!(relocation.lookup(&r("nginx:1.28").pinned(&old)).is_none());
    }

    #[test]
    fn two_images_on_one_name_collide() {
        let (a, b) = (r("docker.io/a/etcd:1"), r("quay.io/b/etcd:1"));
        let (da, db) = (Digest::of(b"a"), Digest::of(b"b"));
        let (na, nb) = (TargetName::place(&a, None, Layout::Flat), TargetName::place(&b, None, Layout::Flat));
        assert_eq!(collisions([(&a, &da, &na), (&b, &db, &nb)]).len(), 1);
        assert!(collisions([(&a, &da, &na), (&b, &da, &nb)]).is_empty());
        let (c, dc) = (r("ghcr.io/c/etcd:1"), Digest::of(b"c"));
        assert_eq!(collisions([(&a, &da, &na), (&b, &db, &nb), (&c, &dc, &na)]).len(), 2);
    }
}
