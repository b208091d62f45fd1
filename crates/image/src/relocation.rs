//! The map from each normalised reference to its name and digest at the target.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::reference::is_path;
use crate::{Digest, Error, Reference, Target, TargetName};

/// The version of `relocation.json`.
pub const VERSION: u32 = 1;

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
    /// References whose digest at the target is not known, as happens where a bundle alone is looked at and not what an install made of it.
    /// What needs that digest is refused. Never in `relocation.json`.
    #[serde(skip)]
    pub unknown: BTreeSet<Reference>,
}

impl Relocation {
    /// An empty relocation to `target`.
    #[must_use]
    pub fn new(target: &Target) -> Self {
        Self { version: VERSION, target: target.to_string(), images: Vec::new(), unknown: BTreeSet::new() }
    }

    /// Reads `relocation.json`.
    ///
    /// # Errors
    /// When it is not of version 1, or names something that is not under its own target.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Error> {
        let fail = |why: String| Error::Document { what: "relocation", why };
        let relocation: Self = serde_json::from_slice(bytes).map_err(|e| fail(e.to_string()))?;
        if relocation.version != VERSION {
            return Err(fail(format!("its version is {}, known is {VERSION}", relocation.version)));
        }
        let target: Target = relocation.target.parse()?;
        for image in &relocation.images {
            let there = image.replacement(&image.reference)?;
            // a tag or digest in it would be read as the image's own
            let is_repository = image.repository.split_once('/').is_some_and(|(_, path)| is_path(path));
            if !is_repository || !target.holds(&there) {
                return Err(fail(format!("`{}` is no repository under `{target}`", image.repository)));
            }
        }
        Ok(relocation)
    }

    /// The reference to use at the target in place of `written`, for which `image` was found.
    ///
    /// # Errors
    /// When it needs a digest that is not known, or the target's name does not follow the grammar of references.
    pub fn replacement(&self, image: &Relocated, written: &Reference) -> Result<Reference, Error> {
        if (written.digest().is_some() || image.tag.is_none()) && self.unknown.contains(&image.reference) {
            return Err(Error::DigestUnknown { reference: image.reference.to_string() });
        }
        image.replacement(written)
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
    fn only_what_is_whole_and_under_its_target_is_read() {
        let digest = Digest::of(b"x");
        let json = |version: u32, repository: &str| {
            serde_json::json!({"version": version, "target": "reg:5000/p", "images": [{
                "reference": "nginx:1", "repository": repository, "tag": "1", "source_digest": digest, "digest": digest,
            }]})
            .to_string()
        };
        let good = Relocation::from_json(json(1, "reg:5000/p/nginx").as_bytes()).expect("good");
        assert!(good.lookup(&r("docker.io/library/nginx:1")).is_some());
        for bad in [
            json(2, "reg:5000/p/nginx"),
            json(1, "reg:5000/q/nginx"),
            json(1, "reg:5000/p/N"),
            json(1, "reg:5000/p/nginx:1"),
            "{}".to_owned(),
        ] {
            assert!(Relocation::from_json(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_digest_that_is_not_known_is_never_written() {
        let mut relocation = Relocation::new(&"reg:5000".parse().expect("target"));
        let digest = Digest::of(b"x");
        let image = Relocated {
            reference: r("nginx:1"),
            repository: "reg:5000/nginx".to_owned(),
            tag: Some("1".to_owned()),
            source_digest: digest.clone(),
            digest: digest.clone(),
        };
        relocation.unknown.insert(r("nginx:1"));
        assert!(relocation.replacement(&image, &r("nginx:1")).is_ok());
        assert!(relocation.replacement(&image, &r("nginx:1").pinned(&digest)).is_err());
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
