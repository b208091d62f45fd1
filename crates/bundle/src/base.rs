//! What is on the far side already, or is said to be: a receipt that was carried back, a bundle, a lock. The base of a delta, and a side
//! of a comparison ([`mod@crate::diff`]).
//!
//! A receipt and a bundle know blobs and where they are. A lock knows manifests; what these name is learnt in `learn`.

use std::collections::{BTreeMap, BTreeSet};

use ferry_archive::{Bundle, HeadBase, HeadImage};
use ferry_image::manifest::MAX_MANIFEST;
use ferry_image::{Descriptor, Digest, Manifest, Receipt, Reference, TargetName, media_type};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::Error;
use crate::lock::{Lock, Locked, Source};

/// One base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// What it is.
    pub kind: BaseKind,
    /// The file, for people.
    pub file: String,
    /// What the head of a delta calls it: a receipt may tell of several bundles.
    pub names: Vec<HeadBase>,
    /// Its images.
    pub images: Vec<BaseImage>,
    /// Its blobs, manifests included. Empty for a lock, which does not know them.
    pub blobs: BTreeMap<Digest, BaseBlob>,
    /// Images whose manifests are known by digest alone.
    pub(crate) unread: Vec<Unread>,
    /// Names all of it, so that an interrupted build knows whether it is asked for again.
    pub(crate) fingerprint: Digest,
}

/// What a base is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BaseKind {
    /// A bundle.
    Bundle,
    /// A receipt of an install, or of a registry that was asked.
    Receipt,
    /// A lock file.
    Lock,
}

/// An image of a base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseImage {
    /// Its reference.
    pub reference: Reference,
    /// What the reference stood for at its source.
    pub digest: Digest,
    /// The manifests of its platforms, where they are known.
    pub manifests: Option<BTreeSet<Digest>>,
    /// All its blobs, where they are known.
    pub blobs: Option<BTreeSet<Digest>>,
}

/// A blob of a base.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BaseBlob {
    /// Its size in bytes; unknown in receipts of version 1.
    pub size: Option<u64>,
    /// The repositories that have it, as paths below the target's host and prefix; empty where nobody knows.
    pub repositories: BTreeSet<String>,
}

/// An image of a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unread {
    pub(crate) reference: Reference,
    /// Where its manifests may be had, in order; none for an image from an archive.
    pub(crate) sources: Vec<Reference>,
    /// The manifests of its platforms and of what refers to it.
    pub(crate) manifests: Vec<Digest>,
    /// What is known without reading them.
    pub(crate) blobs: BTreeMap<Digest, Option<u64>>,
}

/// What a JSON document is that somebody gives as a base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Document {
    /// A receipt.
    Receipt,
    /// A lock file.
    Lock,
    /// A relocation, which says nothing of blobs.
    Relocation,
    /// A want list.
    Want,
    /// Something else.
    Other,
}

/// Tells the JSON documents of ferry apart by their fields.
#[must_use]
pub fn detect(json: &[u8]) -> Document {
    #[derive(Deserialize)]
    struct Fields {
        target: Option<IgnoredAny>,
        platforms: Option<IgnoredAny>,
        bundle: Option<IgnoredAny>,
        blobs: Option<IgnoredAny>,
        repositories: Option<IgnoredAny>,
        images: Option<IgnoredAny>,
    }
    let Ok(fields) = serde_json::from_slice::<Fields>(json) else { return Document::Other };
    match (fields.target, fields.platforms, fields.images) {
        (Some(_), None, Some(_)) if fields.blobs.is_some() || fields.repositories.is_some() => Document::Receipt,
        (Some(_), None, Some(_)) => Document::Relocation,
        (None, Some(_), Some(_)) if fields.bundle.is_some() => Document::Want,
        (None, Some(_), Some(_)) => Document::Lock,
        _ => Document::Other,
    }
}

impl Base {
    /// A bundle, and what it relies on in turn. Reads its manifests. Blocking.
    ///
    /// # Errors
    /// When a manifest of it is damaged.
    pub fn of_bundle(bundle: &Bundle, file: String) -> Result<Self, Error> {
        let head = bundle.head();
        let mut blobs: BTreeMap<Digest, BaseBlob> = BTreeMap::new();
        for relied in &head.relies {
            let repositories = relied.repositories.iter().cloned().collect();
            blobs.insert(relied.digest.clone(), BaseBlob { size: Some(relied.size), repositories });
        }
        for blob in &head.blobs {
            blobs.entry(blob.digest.clone()).or_default().size = Some(blob.size);
        }
        let mut images = Vec::with_capacity(head.images.len());
        for image in &head.images {
            let name = TargetName::place(&image.reference, image.target.as_ref(), head.layout);
            let of_image = of_image(bundle, image)?;
            for digest in &of_image {
                if let Some(blob) = blobs.get_mut(digest) {
                    blob.repositories.insert(name.repository.clone());
                }
            }
            images.push(BaseImage {
                reference: image.reference.clone(),
                digest: image.root.digest.clone(),
                manifests: Some(image.platforms.iter().map(|p| p.manifest.digest.clone()).collect()),
                blobs: Some(of_image.into_iter().filter(|digest| blobs.contains_key(digest)).collect()),
            });
        }
        let sums = bundle.sums_digest().clone();
        let names = vec![HeadBase { name: head.name.clone(), version: head.version.clone(), sums: Some(sums.clone()) }];
        Ok(Self { kind: BaseKind::Bundle, file, names, images, blobs, unread: Vec::new(), fingerprint: sums })
    }

    /// What a receipt says is at the target. `fingerprint` is that of its bytes.
    #[must_use]
    pub fn of_receipt(receipt: &Receipt, file: String, fingerprint: Digest) -> Self {
        let mut blobs: BTreeMap<Digest, BaseBlob> = BTreeMap::new();
        for digest in &receipt.unplaced {
            blobs.entry(digest.clone()).or_default();
        }
        for held in &receipt.repositories {
            for blob in &held.blobs {
                let known = blobs.entry(blob.digest.clone()).or_default();
                known.size = Some(blob.size);
                known.repositories.extend(receipt.below_target(&held.name).map(ToOwned::to_owned));
            }
        }
        let installed = receipt.bundles.iter().map(|bundle| HeadBase {
            name: bundle.name.clone(),
            version: bundle.version.clone(),
            sums: Some(bundle.sums.clone()),
        });
        let mut names: Vec<HeadBase> = installed.collect();
        if names.is_empty() {
            names.push(HeadBase { name: receipt.target.clone(), version: None, sums: None });
        }
        let image = |image: &ferry_image::Relocated| BaseImage {
            reference: image.reference.clone(),
            digest: image.source_digest.clone(),
            manifests: None,
            blobs: None,
        };
        let images = receipt.images.iter().map(image).collect();
        Self { kind: BaseKind::Receipt, file, names, images, blobs, unread: Vec::new(), fingerprint }
    }

    /// A lock, of a bundle called `name`. `fingerprint` is that of its bytes.
    #[must_use]
    pub fn of_lock(lock: &Lock, name: String, file: String, fingerprint: Digest) -> Self {
        let image = |locked: &Locked| BaseImage {
            reference: locked.reference.clone(),
            digest: locked.root.digest.clone(),
            manifests: Some(locked.platforms.iter().map(|p| p.digest.clone()).collect()),
            blobs: None,
        };
        Self {
            kind: BaseKind::Lock,
            file,
            names: vec![HeadBase { name, version: None, sums: None }],
            images: lock.images.iter().map(image).collect(),
            blobs: BTreeMap::new(),
            unread: lock.images.iter().map(Unread::of).collect(),
            fingerprint,
        }
    }
}

impl Unread {
    fn of(locked: &Locked) -> Self {
        let mut manifests: Vec<Digest> = locked.platforms.iter().map(|p| p.digest.clone()).collect();
        manifests.extend(locked.referrers.iter().map(|referrer| referrer.digest.clone()));
        let (sources, blobs) = match &locked.source {
            Source::Registry { reference } if *reference == locked.reference => {
                (vec![reference.clone()], BTreeMap::new())
            }
            Source::Registry { reference } => (vec![reference.clone(), locked.reference.clone()], BTreeMap::new()),
            Source::Archive(archive) => {
                let encoded = archive.encoded.iter().map(|layer| (layer.digest.clone(), Some(layer.size)));
                // a config, or a manifest: those are carried whatever is said of them
                (Vec::new(), encoded.chain([(archive.input.clone(), None)]).collect())
            }
        };
        Self { reference: locked.reference.clone(), sources, manifests, blobs }
    }
}

/// Every blob of an image that is in its bundle, or that the bundle relies on.
fn of_image(bundle: &Bundle, image: &HeadImage) -> Result<BTreeSet<Digest>, Error> {
    let mut blobs = BTreeSet::new();
    let platforms = image.platforms.iter().map(|p| &p.manifest);
    let mut open: Vec<Descriptor> =
        [&image.root].into_iter().chain(platforms).chain(&image.referrers).cloned().collect();
    while let Some(descriptor) = open.pop() {
        // of an index that is carried for some platforms the others are absent
        if bundle.blob(&descriptor.digest).is_none() || !blobs.insert(descriptor.digest.clone()) {
            continue;
        }
        let bytes = bundle.read_small(&descriptor.digest, MAX_MANIFEST)?;
        let manifest = Manifest::parse(&bytes, None).map_err(|source| Error::Document {
            place: bundle.path().display().to_string(),
            digest: descriptor.digest.clone(),
            source,
        })?;
        match manifest {
            Manifest::Image(manifest) => blobs.extend(named_by(&manifest).map(|blob| blob.digest.clone())),
            Manifest::Index(index) => open.extend(index.manifests),
        }
    }
    Ok(blobs)
}

/// Config and layers of a manifest that are more than named.
pub(crate) fn named_by(manifest: &ferry_image::ImageManifest) -> impl Iterator<Item = &Descriptor> {
    manifest.blobs().filter(|blob| !media_type::is_foreign_layer(&blob.media_type))
}

#[cfg(test)]
mod tests {
    use ferry_image::receipt::Repositories;
    use ferry_image::{ReceiptBundle, Target};
    use serde_json::json;

    use super::*;

    fn d(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    #[test]
    fn documents_are_told_apart() {
        for (json, expected) in [
            (json!({"version": 1, "target": "r", "images": [], "blobs": []}), Document::Receipt),
            (json!({"version": 2, "target": "r", "images": [], "repositories": []}), Document::Receipt),
            (json!({"version": 1, "target": "r", "images": []}), Document::Relocation),
            (json!({"version": 1, "platforms": [], "images": []}), Document::Lock),
            (json!({"version": 1, "platforms": [], "images": [], "bundle": {}, "blobs": []}), Document::Want),
            (json!({"schemaVersion": 2}), Document::Other),
            (json!([]), Document::Other),
        ] {
            assert_eq!(detect(json.to_string().as_bytes()), expected, "{json}");
        }
    }

    #[test]
    fn a_receipt_says_where_blobs_are() {
        let target: Target = "reg:5000/p".parse().expect("target");
        let held: Repositories = [
            ("reg:5000/p/a".to_owned(), [(d("x"), 1)].into()),
            ("reg:5000/p/b".to_owned(), [(d("x"), 1), (d("y"), 2)].into()),
        ]
        .into();
        let bundle = |name: &str| ReceiptBundle { name: name.to_owned(), version: None, sums: d(name) };
        let mut receipt = Receipt::new(&target, vec![bundle("one"), bundle("two")], "t".to_owned(), vec![], held);
        receipt.unplaced.push(d("z"));
        let base = Base::of_receipt(&receipt, "r.json".to_owned(), d("r"));
        let shown: Vec<_> = ["x", "y", "z"]
            .map(|name| {
                let blob = &base.blobs[&d(name)];
                (blob.size, blob.repositories.iter().cloned().collect::<Vec<_>>().join(","))
            })
            .into();
        assert_eq!(shown, [(Some(1), "a,b".to_owned()), (Some(2), "b".to_owned()), (None, String::new())]);
        assert_eq!(base.names.iter().map(|name| name.name.as_str()).collect::<Vec<_>>(), ["one", "two"]);
        receipt.bundles.clear();
        let base = Base::of_receipt(&receipt, "r.json".to_owned(), d("r"));
        assert_eq!((base.names[0].name.as_str(), &base.names[0].sums), ("reg:5000/p", &None));
    }
}
