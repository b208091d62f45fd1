//! `want.json`: what of a damaged bundle is to be had again (`docs/format.md`, "The want list"). Written where the damage was found,
//! carried back, and the base of a patch.
//!
//! It says of the affected images what the head says, so that a patch can be made without the bundle and without its bundle manifest.

use std::collections::{BTreeMap, BTreeSet};

use ferry_image::manifest::MAX_MANIFEST;
use ferry_image::{CosignTag, Descriptor, Digest, Layout, Manifest, Reference, TargetName, referrer};
use serde::{Deserialize, Serialize};

use crate::head::{HeadImage, HeadPlatform, check_algorithm, check_label};
use crate::{Bundle, oci};

/// The version of the form.
pub const VERSION: u32 = 1;
/// The largest want list that is read, in bytes.
pub const MAX_BYTES: u64 = 64 << 20;

/// What is to be had again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Want {
    /// [`VERSION`].
    pub version: u32,
    /// The damaged bundle.
    pub bundle: WantBundle,
    /// The platforms that were asked for, as its head says.
    pub platforms: Vec<String>,
    /// How its names at the target are made.
    pub layout: Layout,
    /// The images that need a damaged blob, in its order.
    pub images: Vec<WantImage>,
    /// The damaged blobs, sorted by digest.
    pub blobs: Vec<WantBlob>,
}

/// A damaged bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WantBundle {
    /// Its name.
    pub name: String,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The digest of its `SHA256SUMS`.
    pub sums: Digest,
}

/// An image that needs a damaged blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WantImage {
    /// The reference, normalised.
    pub reference: Reference,
    /// The name at the target that the user chose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetName>,
    /// Where it was resolved from: a repository, or an archive's path.
    pub source: String,
    /// What the reference named.
    pub root: Descriptor,
    /// The manifests carried.
    pub platforms: Vec<HeadPlatform>,
    /// What refers to it and is carried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub referrers: Vec<WantReferrer>,
}

/// A signature or the like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WantReferrer {
    /// Its manifest or index.
    pub manifest: Descriptor,
    /// What it refers to; unknown where its manifest is damaged and it stands under no tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Digest>,
    /// The tag it stands under, for cosign's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

/// A damaged blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WantBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

impl Want {
    /// What is to be had again of `bundle`, of which the blobs `damaged` do not hash to their digests, or are not where it relies on
    /// them. Manifests that are damaged or cannot be read count as such: an image whose manifest nobody can read is affected. Blocking.
    #[must_use]
    pub fn of(bundle: &Bundle, damaged: &[Digest]) -> Self {
        let head = bundle.head();
        let mut documents = Documents { bundle, read: BTreeMap::new() };
        let damaged: BTreeSet<&Digest> = damaged.iter().filter(|digest| size(bundle, digest).is_some()).collect();
        let mut images = Vec::new();
        let mut lost = BTreeSet::new();
        for image in &head.images {
            let needs = documents.needs(image);
            if needs.blobs.iter().any(|digest| damaged.contains(digest)) || !needs.unreadable.is_empty() {
                lost.extend(needs.unreadable);
                images.push(documents.wanted(image));
            }
        }
        let all = damaged.into_iter().cloned().chain(lost).collect::<BTreeSet<Digest>>();
        let sized = |digest: Digest| Some(WantBlob { size: size(bundle, &digest)?, digest });
        Self {
            version: VERSION,
            bundle: WantBundle {
                name: head.name.clone(),
                version: head.version.clone(),
                sums: bundle.sums_digest().clone(),
            },
            platforms: head.platforms.clone(),
            layout: head.layout,
            images,
            blobs: all.into_iter().filter_map(sized).collect(),
        }
    }

    /// Reads a want list. The error says what is wrong with it.
    ///
    /// # Errors
    /// When it is none, or contradicts itself.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ferry_image::Error> {
        let fail = |why: String| ferry_image::Error::Document { what: "want list", why };
        if bytes.len() as u64 > MAX_BYTES {
            return Err(fail(format!("{} bytes, more than the {MAX_BYTES} that are read", bytes.len())));
        }
        // the version first: a newer form need not fit these types
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_slice(bytes).map_err(|e| fail(e.to_string()))?;
        if version != VERSION {
            return Err(fail(format!("its version is {version}, known is {VERSION}")));
        }
        let want: Self = serde_json::from_slice(bytes).map_err(|e| fail(e.to_string()))?;
        want.check().map_err(fail)?;
        Ok(want)
    }

    /// Its text.
    ///
    /// # Errors
    /// When it cannot be written as JSON, which no value of these types causes.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        Ok(json)
    }

    /// The bytes of all that is wanted.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.blobs.iter().fold(0, |sum, blob| sum.saturating_add(blob.size))
    }

    fn check(&self) -> Result<(), String> {
        check_label("name", &self.bundle.name)?;
        self.bundle.version.iter().try_for_each(|version| check_label("version", version))?;
        if self.blobs.is_empty() || self.images.is_empty() {
            return Err("it wants nothing".to_owned());
        }
        for (i, blob) in self.blobs.iter().enumerate() {
            check_algorithm(&blob.digest)?;
            if i > 0 && self.blobs[i - 1].digest >= blob.digest {
                return Err(format!("blob {} is out of order, or wanted twice", blob.digest));
            }
        }
        let total = self.blobs.iter().map(|blob| blob.size).try_fold(0_u64, u64::checked_add);
        if total.is_none_or(|total| total >= 1 << 60) {
            return Err("the sizes add up to more than an exbibyte".to_owned());
        }
        let mut seen = BTreeSet::new();
        for image in &self.images {
            if !seen.insert(&image.reference) {
                return Err(format!("image `{}` is listed twice", image.reference));
            }
            let manifests = image.platforms.iter().map(|p| &p.manifest).chain([&image.root]);
            manifests
                .chain(image.referrers.iter().map(|r| &r.manifest))
                .try_for_each(|m| check_algorithm(&m.digest))?;
        }
        Ok(())
    }
}

/// Of a blob that the bundle carries or relies on.
fn size(bundle: &Bundle, digest: &Digest) -> Option<u64> {
    let relied = || bundle.head().relies.iter().find(|relied| relied.digest == *digest).map(|relied| relied.size);
    bundle.blob(digest).map(|blob| blob.size).or_else(relied)
}

/// What an image needs of its bundle.
#[derive(Default)]
struct Needs {
    blobs: BTreeSet<Digest>,
    /// Manifests that are to be had again before anybody knows what they name.
    unreadable: BTreeSet<Digest>,
}

/// The documents of a damaged bundle, each read once.
struct Documents<'a> {
    bundle: &'a Bundle,
    read: BTreeMap<Digest, Option<Manifest>>,
}

impl Documents<'_> {
    /// Nothing where it is damaged.
    fn read(&mut self, descriptor: &Descriptor) -> Option<&Manifest> {
        let bundle = self.bundle;
        let read = || {
            let bytes = bundle.read_small(&descriptor.digest, MAX_MANIFEST).ok()?;
            Manifest::parse(&bytes, (!descriptor.media_type.is_empty()).then_some(&descriptor.media_type)).ok()
        };
        self.read.entry(descriptor.digest.clone()).or_insert_with(read).as_ref()
    }

    fn needs(&mut self, image: &HeadImage) -> Needs {
        let mut needs = Needs::default();
        let platforms = image.platforms.iter().map(|p| &p.manifest);
        let mut open: Vec<Descriptor> =
            [&image.root].into_iter().chain(platforms).chain(&image.referrers).cloned().collect();
        while let Some(descriptor) = open.pop() {
            if !needs.blobs.insert(descriptor.digest.clone()) {
                continue;
            }
            let bundle = self.bundle;
            match self.read(&descriptor) {
                Some(Manifest::Image(manifest)) => needs.blobs.extend(manifest.blobs().map(|blob| blob.digest.clone())),
                // of an index that is carried for some platforms the others are absent
                Some(Manifest::Index(index)) => {
                    open.extend(index.manifests.iter().filter(|entry| bundle.blob(&entry.digest).is_some()).cloned());
                }
                None => drop(needs.unreadable.insert(descriptor.digest)),
            }
        }
        needs
    }

    fn wanted(&mut self, image: &HeadImage) -> WantImage {
        let mut referrers = Vec::with_capacity(image.referrers.len());
        for descriptor in &image.referrers {
            let tag = descriptor.annotations.get(oci::REF_NAME).cloned();
            let named = tag.as_deref().and_then(CosignTag::parse).map(|(subject, _)| subject);
            let stated = self.read(descriptor).and_then(referrer::subject).map(|subject| subject.digest.clone());
            let manifest = Descriptor::new(&descriptor.media_type, descriptor.digest.clone(), descriptor.size);
            referrers.push(WantReferrer { manifest, subject: named.or(stated), tag });
        }
        WantImage {
            reference: image.reference.clone(),
            target: image.target.clone(),
            source: image.source.clone(),
            root: image.root.clone(),
            platforms: image.platforms.clone(),
            referrers,
        }
    }
}
