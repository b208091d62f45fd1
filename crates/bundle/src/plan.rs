//! What will be in the bundle, from what was resolved. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use ferry_archive::{
    Absent, Contents, Head, HeadBase, HeadBlob, HeadImage, HeadPlatform, HeadRelied, HeadVerified, Layout,
};
use ferry_content::{Problems, Provider, memory::Memory};
use ferry_image::{Descriptor, Digest, Reference, ReferrerKind, relocation};

use crate::base::BaseBlob;
use crate::fallback::Served;
use crate::lock::{Lock, Source};
use crate::manifest::{BundleManifest, Platforms};
use crate::referrers::Referrer;
use crate::resolve::{Outcome, Resolved};
use crate::{Error, fallback};

/// The most repositories that are named for a blob: any of them does, and a layer may stand in thousands.
const MOST_PLACES: usize = 16;

/// A bundle that can be built.
pub struct Plan {
    /// The file, laid out.
    pub layout: Layout,
    /// What every reference was resolved to.
    pub lock: Lock,
    /// What there is to say of each image.
    pub images: Vec<PlannedImage>,
    /// Things that are no errors but that somebody should know.
    pub warnings: Vec<String>,
    /// Bytes that more than one image needs, counted as often as they are saved.
    pub shared_bytes: u64,
    /// Blobs that are left out because the far side has them, and their bytes.
    pub left: (usize, u64),
    /// Bytes that wait in the spool folder until the bundle is written.
    pub spooled_bytes: u64,
    pub(crate) blobs: Vec<(Descriptor, Arc<dyn Provider>)>,
    /// The first image that needs a blob, by its place in [`images`](Self::images), and how many more do.
    pub(crate) needed_by: BTreeMap<Digest, (usize, usize)>,
    /// The blobs of each of [`images`](Self::images).
    pub(crate) contents: Vec<Vec<Digest>>,
    /// Which place gave which blob, as they come.
    pub(crate) served: Served,
}

/// One image of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedImage {
    /// Its reference.
    pub reference: Reference,
    /// Where it comes from.
    pub source: String,
    /// The platforms carried; empty for an artifact.
    pub platforms: Vec<String>,
    /// Bytes of all its blobs, shared ones included.
    pub bytes: u64,
    /// How many blobs it has.
    pub blobs: usize,
    /// How many of them are left out because the far side has them, and their bytes.
    pub left: (usize, u64),
    /// The referrers carried with it.
    pub referrers: Vec<PlannedReferrer>,
    /// The key files, as written, of those who signed it, where `verify:` asks for it.
    pub signed_by: Vec<String>,
}

/// One referrer of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedReferrer {
    /// What it is.
    pub kind: ReferrerKind,
    /// The digest of its manifest.
    pub digest: Digest,
    /// What it refers to.
    pub subject: Digest,
    /// The tag it stands under, for cosign's.
    pub tag: Option<String>,
}

/// What of the images is left to the far side. Manifests never are.
#[derive(Debug)]
pub(crate) enum Left {
    /// Everything is carried.
    Nothing,
    /// What the bases have.
    Had {
        /// The bases.
        bases: Vec<HeadBase>,
        /// What they have.
        blobs: BTreeMap<Digest, BaseBlob>,
        /// What could not be learnt of them.
        notes: Vec<String>,
    },
    /// All but the wanted blobs of a damaged bundle.
    AllBut {
        /// That bundle.
        base: HeadBase,
        /// The wanted blobs.
        wanted: BTreeSet<Digest>,
    },
}

/// Lays out what was resolved.
///
/// # Errors
/// Every name that two images would have at the target; every wanted blob that no image has; that the bundle format cannot hold it.
pub(crate) fn plan(
    manifest: &BundleManifest,
    chosen: Option<&Platforms>,
    outcome: Outcome,
    left: Left,
    files: Vec<ferry_archive::File>,
    mut warnings: Vec<String>,
) -> Result<Plan, Problems> {
    let Outcome { images, absent, served, notes, .. } = outcome;
    warnings.extend(notes);
    let named: Vec<_> = images
        .iter()
        .map(|r| {
            let image = &manifest.images[r.index];
            (&image.reference, &r.root.digest, manifest.target_of(image))
        })
        .collect();
    let mut problems = Problems::default();
    for clash in relocation::collisions(named.iter().map(|(r, d, n)| (*r, *d, n))) {
        problems.add("", Error::Collision(clash));
    }
    problems.or(())?;

    let mut documents: BTreeMap<Digest, Bytes> = BTreeMap::new();
    for resolved in &images {
        documents.extend(resolved.documents.iter().map(|(d, b)| (d.clone(), b.clone())));
    }
    let mut memory = Memory::default();
    for bytes in documents.values() {
        memory.insert(bytes.clone());
    }
    let memory: Arc<dyn Provider> = Arc::new(memory);

    let blobs = blobs(&images, &memory, &documents);
    left.check(&blobs)?;
    let carried_anyway: BTreeSet<&Digest> =
        images.iter().flat_map(|r| &r.selected.documents).map(|document| &document.digest).collect();
    let unique: u64 = blobs.iter().map(|(b, _)| b.size).sum();
    let stays = |blob: &Descriptor| !carried_anyway.contains(&blob.digest) && left.has(blob);
    let (relied, blobs): (Vec<_>, Vec<_>) = blobs.into_iter().partition(|(blob, _)| stays(blob));
    let relied: BTreeMap<Digest, u64> = relied.into_iter().map(|(blob, _)| (blob.digest, blob.size)).collect();

    let mut planned = Vec::new();
    let mut needed_by = BTreeMap::new();
    let mut contents = Vec::new();
    let mut wanted_bytes = 0;
    for resolved in &images {
        let selected = &resolved.selected;
        let all = || selected.documents.iter().chain(&selected.configs).chain(&selected.layers);
        let bytes = all().map(|b| b.size).sum();
        wanted_bytes += bytes;
        for blob in all() {
            needed_by.entry(blob.digest.clone()).and_modify(|(_, more)| *more += 1).or_insert((planned.len(), 0));
        }
        contents.push(all().map(|blob| blob.digest.clone()).collect());
        let stays = all().filter(|blob| relied.contains_key(&blob.digest));
        let stays = stays.fold((0, 0), |(count, bytes), blob| (count + 1, bytes + blob.size));
        let reference = &manifest.images[resolved.index].reference;
        for layer in &selected.foreign {
            warnings
                .push(format!("{reference}: layer {} is only named by the image, and is not carried", layer.digest));
        }
        warnings.extend(resolved.attached.warnings.iter().map(|warning| format!("{reference}: {warning}")));
        planned.push(PlannedImage {
            reference: reference.clone(),
            source: resolved.place.clone(),
            platforms: selected.manifests.iter().filter_map(|(p, _)| Some(p.as_ref()?.to_string())).collect(),
            bytes,
            blobs: all().count(),
            left: stays,
            referrers: resolved.attached.carried.iter().map(Into::into).collect(),
            signed_by: signed_by(resolved),
        });
    }
    let lock = Lock::new(
        chosen.or(manifest.platforms.as_ref()).cloned().unwrap_or(Platforms::These(Vec::new())),
        images.iter().map(|r| r.locked(&manifest.images[r.index].reference)).collect(),
        absent.iter().map(|(reference, _)| reference.clone()).collect(),
    );
    let mut head = head(manifest, &lock.platforms, &images, &absent, &blobs);
    let left_bytes = relied.values().sum();
    let names = names(manifest, &images);
    head.relies = relied.into_iter().map(|(digest, size)| left.relied(digest, size, &names)).collect();
    let stays = (head.relies.len(), left_bytes);
    (head.bases, warnings) = left.told(warnings);
    for (reference, reason) in &absent {
        warnings.push(format!("optional image {reference} is left out: {reason}"));
    }
    let layout = Layout::new(Contents { head, manifests: documents, files }).map_err(Error::from)?;
    let spooled_bytes = spooled(&images);
    let shared_bytes = wanted_bytes - unique;
    Ok(Plan {
        layout,
        lock,
        images: planned,
        warnings,
        shared_bytes,
        left: stays,
        spooled_bytes,
        blobs,
        needed_by,
        contents,
        served,
    })
}

impl Left {
    /// Whether the far side has a config or layer.
    fn has(&self, blob: &Descriptor) -> bool {
        match self {
            Self::Nothing => false,
            Self::Had { blobs, .. } => {
                blobs.get(&blob.digest).is_some_and(|had| had.size.is_none_or(|size| size == blob.size))
            }
            Self::AllBut { wanted, .. } => !wanted.contains(&blob.digest),
        }
    }

    /// Refuses what cannot be what was meant: a wanted blob that is none of these.
    fn check(&self, blobs: &[(Descriptor, Arc<dyn Provider>)]) -> Result<(), Problems> {
        let mut problems = Problems::default();
        if let Self::AllBut { wanted, .. } = self {
            let there: BTreeSet<&Digest> = blobs.iter().map(|(blob, _)| &blob.digest).collect();
            for digest in wanted.iter().filter(|digest| !there.contains(digest)) {
                problems.add("", Error::WantedNowhere { digest: digest.clone() });
            }
        }
        problems.or(())
    }

    /// `names` are the repositories that images of this bundle with a blob have at the target.
    fn relied(&self, digest: Digest, size: u64, names: &BTreeMap<&Digest, BTreeSet<String>>) -> HeadRelied {
        let repositories = match self {
            Self::Had { blobs, .. } => blobs.get(&digest).map(|had| &had.repositories),
            // they stand where they were to stand
            Self::AllBut { .. } | Self::Nothing => names.get(&digest),
        };
        let repositories = repositories.into_iter().flatten().take(MOST_PLACES).cloned().collect();
        HeadRelied { digest, size, repositories }
    }

    fn told(self, mut warnings: Vec<String>) -> (Vec<HeadBase>, Vec<String>) {
        match self {
            Self::Nothing => (Vec::new(), warnings),
            Self::Had { bases, notes, .. } => {
                warnings.extend(notes);
                (bases, warnings)
            }
            Self::AllBut { base, .. } => (vec![base], warnings),
        }
    }
}

/// Where each config and layer will be at the target.
fn names<'a>(manifest: &BundleManifest, images: &'a [Resolved]) -> BTreeMap<&'a Digest, BTreeSet<String>> {
    let mut names: BTreeMap<&Digest, BTreeSet<String>> = BTreeMap::new();
    for resolved in images {
        let repository = manifest.target_of(&manifest.images[resolved.index]).repository;
        for blob in resolved.selected.configs.iter().chain(&resolved.selected.layers) {
            names.entry(&blob.digest).or_default().insert(repository.clone());
        }
    }
    names
}

fn signed_by(resolved: &Resolved) -> Vec<String> {
    let mut keys: Vec<String> = resolved.attached.verified.iter().map(|v| v.key_file.clone()).collect();
    keys.dedup();
    keys
}

impl From<&Referrer> for PlannedReferrer {
    fn from(referrer: &Referrer) -> Self {
        let (digest, subject) = (referrer.descriptor.digest.clone(), referrer.subject.clone());
        Self { kind: referrer.kind, digest, subject, tag: referrer.tag.clone() }
    }
}

/// Every blob once, with the places it can be had from: manifests and configs first, then layers in order of first use.
fn blobs(
    images: &[Resolved],
    memory: &Arc<dyn Provider>,
    documents: &BTreeMap<Digest, Bytes>,
) -> Vec<(Descriptor, Arc<dyn Provider>)> {
    let mut order: Vec<&Descriptor> = Vec::new();
    let mut places: BTreeMap<&Digest, Vec<Arc<dyn Provider>>> = BTreeMap::new();
    let early = images.iter().flat_map(|r| r.selected.documents.iter().chain(&r.selected.configs).map(move |b| (b, r)));
    let late = images.iter().flat_map(|r| r.selected.layers.iter().map(move |b| (b, r)));
    for (blob, resolved) in early.chain(late) {
        let places = places.entry(&blob.digest).or_default();
        if places.is_empty() {
            order.push(blob);
        }
        // a layer that images share may still be had from another's source when the first one's fails
        if !places.iter().any(|place| place.place() == resolved.provider.place()) {
            places.push(Arc::clone(&resolved.provider));
        }
    }
    order
        .into_iter()
        .map(|blob| {
            let known = documents.contains_key(&blob.digest);
            let places = places.remove(&blob.digest).filter(|_| !known).unwrap_or_default();
            (blob.clone(), fallback::over(places).unwrap_or_else(|| Arc::clone(memory)))
        })
        .collect()
}

/// Unpacked archives and compressed layers, each counted once.
fn spooled(images: &[Resolved]) -> u64 {
    let archives: BTreeMap<&str, u64> = images
        .iter()
        .filter_map(|r| match &r.source {
            Source::Archive(archive) => Some((archive.path.as_str(), r.unpacked)),
            Source::Registry { .. } => None,
        })
        .collect();
    let layers: BTreeMap<&Digest, u64> = images
        .iter()
        .filter_map(|r| match &r.source {
            Source::Archive(archive) => Some(archive.encoded.iter().map(|e| (&e.digest, e.size))),
            Source::Registry { .. } => None,
        })
        .flatten()
        .collect();
    archives.values().chain(layers.values()).sum()
}

fn head(
    manifest: &BundleManifest,
    platforms: &Platforms,
    images: &[Resolved],
    absent: &[(Reference, String)],
    blobs: &[(Descriptor, Arc<dyn Provider>)],
) -> Head {
    let left_out = |image: &Reference| absent.iter().any(|(reference, _)| reference == image);
    Head {
        format: ferry_archive::head::FORMAT,
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        platforms: platforms.clone().into(),
        layout: manifest.layout,
        images: images
            .iter()
            .map(|resolved| {
                let image = &manifest.images[resolved.index];
                HeadImage {
                    reference: image.reference.clone(),
                    target: image.target.clone(),
                    source: source_of(resolved),
                    root: resolved.root.clone(),
                    platforms: resolved
                        .selected
                        .manifests
                        .iter()
                        .map(|(platform, manifest)| HeadPlatform {
                            platform: platform.clone(),
                            manifest: Descriptor::new(&manifest.media_type, manifest.digest.clone(), manifest.size),
                        })
                        .collect(),
                    referrers: resolved.attached.carried.iter().map(listed).collect(),
                    verified: resolved
                        .attached
                        .verified
                        .iter()
                        .map(|v| HeadVerified {
                            key: v.key.clone(),
                            key_file: v.key_file.clone(),
                            subject: v.subject.clone(),
                            signature: v.signature.clone(),
                        })
                        .collect(),
                }
            })
            .collect(),
        absent: absent
            .iter()
            .map(|(reference, _)| Absent {
                reference: reference.clone(),
                // the exact words depend on the network; the bundle's bytes must not
                reason: "optional, and not there when the bundle was resolved".to_owned(),
            })
            .collect(),
        yaml: Vec::new(),
        files: Vec::new(),
        set: manifest.set.iter().filter(|rule| !left_out(&rule.image)).cloned().collect(),
        ignore: manifest.ignore.clone(),
        bases: Vec::new(),
        relies: Vec::new(),
        blobs: blobs
            .iter()
            .map(|(blob, _)| HeadBlob { digest: blob.digest.clone(), size: blob.size, offset: 0 })
            .collect(),
    }
}

/// A referrer for the head: its tag is the name under which it stands at the target, too.
fn listed(referrer: &Referrer) -> Descriptor {
    let mut descriptor = referrer.descriptor.clone();
    if let Some(tag) = &referrer.tag {
        descriptor.annotations.insert(ferry_archive::oci::REF_NAME.to_owned(), tag.clone());
    }
    descriptor
}

/// The source for the head: no path of the machine that built it.
fn source_of(resolved: &Resolved) -> String {
    match &resolved.source {
        Source::Registry { reference } => reference.repository(),
        Source::Archive(archive) => archive.path.clone(),
    }
}

#[cfg(test)]
mod tests {
    use ferry_content::Kind;

    use super::*;
    use crate::attached::Attached;
    use crate::lock::{Encoded, LockedArchive};
    use crate::manifest::{Image, Layers};
    use crate::samples::{Sample, layer};
    use crate::select::select;

    /// An image of `layers` from an archive at `path`, with what compressing them gave.
    async fn resolved(index: usize, path: &str, layers: &[Descriptor], encoded: &[&Descriptor]) -> Resolved {
        let mut sample = Sample::default();
        let root = sample.image("linux/amd64", layers);
        let place = sample.place();
        let selected = select(&place, &root, &Platforms::All).await.expect("selected");
        let one =
            |layer: &&Descriptor| Encoded { input: Digest::of(b"raw"), digest: layer.digest.clone(), size: layer.size };
        let source = Source::Archive(LockedArchive {
            path: path.to_owned(),
            image: None,
            input: root.digest.clone(),
            layers: Layers::Gzip,
            encoder: None,
            encoded: encoded.iter().map(one).collect(),
        });
        let provider = place.provider();
        let documents = place.into_documents();
        let attached = Attached::default();
        Resolved {
            index,
            source,
            place: path.to_owned(),
            root,
            selected,
            attached,
            documents,
            provider,
            unpacked: 1000,
        }
    }

    fn manifest(references: &[&str]) -> BundleManifest {
        let images = references.iter().map(|r| Image::new(r.parse().expect("reference"), 1)).collect();
        BundleManifest { platforms: Some(Platforms::All), ..BundleManifest::of("b", images) }
    }

    #[tokio::test]
    async fn shared_blobs_and_spooled_bytes_count_once() {
        let (shared, own, other) = (layer(b"shared by both"), layer(b"own"), layer(b"other"));
        let images = vec![
            resolved(0, "a.tar.gz", &[shared.clone(), own.clone()], &[&shared, &own]).await,
            resolved(1, "a.tar.gz", &[other.clone(), shared.clone()], &[&other, &shared]).await,
        ];
        let configs = images[0].selected.configs[0].size;
        let outcome = Outcome {
            images,
            absent: vec![("x:1".parse().expect("reference"), "gone".to_owned())],
            ..Outcome::default()
        };
        let manifest = manifest(&["a:1", "c:1", "x:1"]);
        let plan = plan(&manifest, None, outcome, Left::Nothing, Vec::new(), Vec::new()).expect("plan");
        assert_eq!(plan.shared_bytes, shared.size + configs, "both have the same config");
        assert_eq!(plan.spooled_bytes, 1000 + shared.size + own.size + other.size);
        // two manifests, one config, then layers in order of first use
        let order: Vec<&Digest> = plan.blobs.iter().skip(3).map(|(b, _)| &b.digest).collect();
        assert_eq!(order, [&shared.digest, &own.digest, &other.digest]);
        assert_eq!(plan.lock.absent.len(), 1);
        assert_eq!(plan.warnings, ["optional image docker.io/library/x:1 is left out: gone"]);
        assert!(!plan.layout.head().absent[0].reason.contains("gone"), "words of the network stay out of the file");
    }

    #[tokio::test]
    async fn two_images_at_one_name_are_refused() {
        let images = vec![
            resolved(0, "a.tar", &[layer(b"1")], &[]).await,
            resolved(1, "b.tar", &[layer(b"2")], &[]).await,
            resolved(2, "c.tar", &[layer(b"3")], &[]).await,
            resolved(3, "d.tar", &[layer(b"4")], &[]).await,
        ];
        let outcome = Outcome { images, ..Outcome::default() };
        let manifest = manifest(&["quay.io/a/b:1", "ghcr.io/a/b:1", "quay.io/c/d:1", "ghcr.io/c/d:1"]);
        let problems =
            plan(&manifest, None, outcome, Left::Nothing, Vec::new(), Vec::new()).map(|_| ()).expect_err("collision");
        assert_eq!((problems.kind(), problems.iter().count()), (Kind::Conflict, 2), "each is told: {problems}");
    }

    fn had(digests: &[(&Descriptor, Option<u64>, &[&str])]) -> Left {
        let blob = |(blob, size, repositories): &(&Descriptor, Option<u64>, &[&str])| {
            let repositories = repositories.iter().map(ToString::to_string).collect();
            (blob.digest.clone(), BaseBlob { size: *size, repositories })
        };
        let base = HeadBase { name: "base".to_owned(), version: None, sums: None };
        Left::Had { bases: vec![base], blobs: digests.iter().map(blob).collect(), notes: vec!["a note".to_owned()] }
    }

    #[tokio::test]
    async fn what_a_base_has_is_left_out_and_manifests_never_are() {
        let (shared, own, other) = (layer(b"shared by both"), layer(b"own"), layer(b"other"));
        let images = || async {
            vec![
                resolved(0, "a.tar", &[shared.clone(), own.clone()], &[]).await,
                resolved(1, "b.tar", &[other.clone(), shared.clone()], &[]).await,
            ]
        };
        let made = images().await;
        let (config, root) = (made[0].selected.configs[0].clone(), made[0].root.clone());
        let manifest = manifest(&["a:1", "c:1"]);
        let planned = |images, left| {
            let outcome = Outcome { images, ..Outcome::default() };
            plan(&manifest, None, outcome, left, Vec::new(), Vec::new()).map_err(|problems| problems.to_string())
        };
        let whole = planned(images().await, Left::Nothing).expect("plan");
        assert!(whole.layout.head().relies.is_empty() && whole.layout.head().bases.is_empty());

        let places: &[&str] = &["y", "x"];
        let left = had(&[
            (&shared, Some(shared.size), places),
            (&config, None, &[]),
            (&root, Some(root.size), places),
            (&own, Some(own.size + 1), places),
        ]);
        let plan = planned(made, left).expect("plan");
        let head = plan.layout.head();
        let mut expected = [&shared.digest, &config.digest];
        expected.sort();
        assert_eq!(head.relies.iter().map(|relied| &relied.digest).collect::<Vec<_>>(), expected);
        let of_shared = head.relies.iter().find(|relied| relied.digest == shared.digest).expect("relied");
        assert_eq!((of_shared.size, of_shared.repositories.join(",")), (shared.size, "x,y".to_owned()));
        assert_eq!((head.bases[0].name.as_str(), plan.warnings.as_slice()), ("base", ["a note".to_owned()].as_slice()));
        let carried: Vec<&Digest> = head.blobs.iter().map(|blob| &blob.digest).collect();
        assert!(carried.contains(&&root.digest), "a manifest is carried whoever has it");
        assert!(carried.contains(&&own.digest), "a blob of another size is another blob");
        assert!(!carried.contains(&&shared.digest) && !carried.contains(&&config.digest));
        assert_eq!(plan.left, (2, shared.size + config.size));
        assert_eq!(plan.images[1].left, (2, shared.size + config.size));
        assert_eq!((plan.shared_bytes, plan.total().0 + 2), (whole.shared_bytes, whole.total().0));
        assert!(plan.size(true) < whole.size(true));
    }

    #[tokio::test]
    async fn a_patch_holds_the_wanted_blobs_alone() {
        let (shared, own) = (layer(b"shared by both"), layer(b"own"));
        let images = || async { vec![resolved(0, "a.tar", &[shared.clone(), own.clone()], &[]).await] };
        let manifest = manifest(&["quay.io/x/a:1"]);
        let planned = |images, wanted: &[&[u8]]| {
            let base = HeadBase { name: "base".to_owned(), version: None, sums: Some(Digest::of(b"sums")) };
            let left = Left::AllBut { base, wanted: wanted.iter().map(|bytes| Digest::of(bytes)).collect() };
            plan(&manifest, None, Outcome { images, ..Outcome::default() }, left, Vec::new(), Vec::new())
        };
        let plan = planned(images().await, &[b"own"]).expect("plan");
        let head = plan.layout.head();
        assert_eq!(head.blobs.len(), 2, "the manifest and the wanted layer");
        assert!(head.blobs.iter().any(|blob| blob.digest == own.digest));
        assert_eq!((head.relies.len(), head.relies[0].repositories.join(",")), (2, "x/a".to_owned()));
        assert_eq!(head.bases[0].sums, Some(Digest::of(b"sums")));
        let problems = planned(images().await, &[b"own", b"nobody's"]).map(|_| ()).expect_err("nowhere");
        assert_eq!((problems.kind(), problems.iter().count()), (Kind::Missing, 1), "{problems}");
    }

    #[test]
    fn of_a_blob_that_stands_in_many_repositories_some_are_named() {
        let digest = Digest::of(b"layer");
        let names: BTreeSet<String> = (0..1000).map(|n| format!("library/{n:04}")).collect();
        let left = Left::Nothing;
        let relied = left.relied(digest.clone(), 5, &BTreeMap::from([(&digest, names)]));
        assert_eq!((relied.repositories.len(), relied.repositories[0].as_str()), (MOST_PLACES, "library/0000"));
        assert!(relied.repositories.is_sorted());
    }
}
