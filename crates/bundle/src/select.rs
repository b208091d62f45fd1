//! Which manifests of an image are carried for the chosen platforms, and every blob they need.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;

use ferry_image::{Descriptor, Digest, ImageManifest, Manifest, Platform, media_type};

use crate::Error;
use crate::manifest::Platforms;
use crate::place::Place;

/// Indexes within indexes that are followed.
const MAX_NESTING: usize = 4;
/// Entries of all indexes of one image that are looked at, each as often as it is listed. Large images have some fifty.
const MAX_MANIFESTS: usize = 1000;

/// Manifests at and below one referrer. They have one.
const MAX_WHOLE: usize = 100;

/// What is carried of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selected {
    /// The manifests carried, with the platform each is for (none for an artifact), in the order chosen.
    pub(crate) manifests: Vec<(Option<Platform>, Descriptor)>,
    /// Every manifest and index, root first.
    pub(crate) documents: Vec<Descriptor>,
    /// Configs, in order.
    pub(crate) configs: Vec<Descriptor>,
    /// Layers, in order of first use.
    pub(crate) layers: Vec<Descriptor>,
    /// Layers that are only named (image-spec, "Non-Distributable Layers"), and so not carried.
    pub(crate) foreign: Vec<Descriptor>,
}

/// Everything at and below one document, whatever it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Whole {
    /// Every manifest and index, root first.
    pub(crate) documents: Vec<Descriptor>,
    /// Configs, in order.
    pub(crate) configs: Vec<Descriptor>,
    /// Layers, in order of first use.
    pub(crate) layers: Vec<Descriptor>,
    /// Layers that are only named.
    pub(crate) foreign: Vec<Descriptor>,
}

/// A manifest somewhere below the root.
struct Leaf {
    descriptor: Descriptor,
    platform: Option<Platform>,
    /// The indexes between the root and it.
    through: Vec<Descriptor>,
}

/// What was found below the root so far.
#[derive(Default)]
struct Below {
    leaves: Vec<Leaf>,
    /// Indexes, each followed once.
    seen: BTreeSet<Digest>,
    entries: usize,
}

/// Selects from `root` what `platforms` need. Reads every manifest that is carried.
pub(crate) async fn select(place: &Place, root: &Descriptor, platforms: &Platforms) -> Result<Selected, Error> {
    let mut below = Below::default();
    collect(place, root.clone(), Vec::new(), &mut below).await?;
    let leaves = below.leaves;
    let chosen = match platforms {
        Platforms::All => leaves.iter().collect(),
        Platforms::These(wanted) => choose(place, &leaves, wanted)?,
    };
    let mut selected =
        Selected { manifests: vec![], documents: vec![root.clone()], configs: vec![], layers: vec![], foreign: vec![] };
    for leaf in chosen {
        for index in &leaf.through {
            push(&mut selected.documents, index);
        }
        push(&mut selected.documents, &leaf.descriptor);
        selected.manifests.push((leaf.platform.clone(), leaf.descriptor.clone()));
        if let Manifest::Image(image) = place.manifest(&leaf.descriptor).await? {
            selected.add(&blobs(place, &image)?);
        }
    }
    Ok(selected)
}

/// Everything at and below `root`.
pub(crate) async fn whole(place: &Place, root: &Descriptor) -> Result<Whole, Error> {
    let mut whole = Whole::default();
    let mut open = vec![(root.clone(), 0)];
    let mut entries = 0;
    while let Some((descriptor, depth)) = open.pop() {
        entries += 1;
        if entries > MAX_WHOLE {
            return Err(Error::Manifests { place: place.name(), limit: MAX_WHOLE });
        }
        if whole.documents.iter().any(|d| d.digest == descriptor.digest) {
            continue;
        }
        match place.manifest(&descriptor).await? {
            Manifest::Image(image) => whole.add(&blobs(place, &image)?),
            Manifest::Index(_) if depth >= MAX_NESTING => {
                return Err(Error::Nesting { place: place.name(), limit: MAX_NESTING });
            }
            Manifest::Index(index) => open.extend(index.manifests.into_iter().rev().map(|entry| (entry, depth + 1))),
        }
        whole.documents.push(descriptor);
    }
    Ok(whole)
}

/// What a manifest needs.
fn blobs(place: &Place, image: &ImageManifest) -> Result<Whole, Error> {
    let mut needs = Whole::default();
    place.check_algorithm(&image.config.digest)?;
    push(&mut needs.configs, &image.config);
    for layer in &image.layers {
        place.check_algorithm(&layer.digest)?;
        let foreign = media_type::is_foreign_layer(&layer.media_type);
        push(if foreign { &mut needs.foreign } else { &mut needs.layers }, layer);
    }
    Ok(needs)
}

impl Whole {
    /// The bytes of all that is carried of it.
    pub(crate) fn bytes(&self) -> u64 {
        let all = self.documents.iter().chain(&self.configs).chain(&self.layers);
        all.fold(0, |sum, blob| sum.saturating_add(blob.size))
    }

    fn add(&mut self, other: &Self) {
        extend(&mut self.configs, &other.configs);
        extend(&mut self.layers, &other.layers);
        extend(&mut self.foreign, &other.foreign);
    }
}

impl Selected {
    /// Carries `whole` with it.
    pub(crate) fn add(&mut self, whole: &Whole) {
        extend(&mut self.documents, &whole.documents);
        extend(&mut self.configs, &whole.configs);
        extend(&mut self.layers, &whole.layers);
        extend(&mut self.foreign, &whole.foreign);
    }
}

fn extend(list: &mut Vec<Descriptor>, more: &[Descriptor]) {
    for descriptor in more {
        push(list, descriptor);
    }
}

fn push(list: &mut Vec<Descriptor>, descriptor: &Descriptor) {
    if !list.iter().any(|d| d.digest == descriptor.digest) {
        list.push(descriptor.clone());
    }
}

/// Each wanted platform's best leaf; the same leaf once.
fn choose<'a>(place: &Place, leaves: &'a [Leaf], wanted: &[Platform]) -> Result<Vec<&'a Leaf>, Error> {
    // an artifact has no platform: it is what was named, whatever the platform
    if !leaves.is_empty() && leaves.iter().all(|leaf| leaf.platform.is_none()) {
        return Ok(leaves.iter().collect());
    }
    let stated: Vec<(&Leaf, Platform)> = leaves.iter().filter_map(|l| Some((l, l.platform.clone()?))).collect();
    let platforms: Vec<Platform> = stated.iter().map(|(_, p)| p.clone()).collect();
    let mut chosen: Vec<&Leaf> = Vec::new();
    for platform in wanted {
        match platform.best(&platforms) {
            Ok(i) => {
                if !chosen.iter().any(|l| l.descriptor.digest == stated[i].0.descriptor.digest) {
                    chosen.push(stated[i].0);
                }
            }
            Err(ferry_image::Error::PlatformMissing { wanted, available }) => {
                return Err(Error::PlatformMissing { wanted, available, place: place.name() });
            }
            Err(source) => {
                return Err(Error::Document {
                    place: place.name(),
                    digest: leaves[0].descriptor.digest.clone(),
                    source,
                });
            }
        }
    }
    Ok(chosen)
}

/// Lists the manifests at and below `descriptor`; what is below an index that was seen already is listed once.
fn collect<'a>(
    place: &'a Place,
    descriptor: Descriptor,
    through: Vec<Descriptor>,
    found: &'a mut Below,
) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>> {
    Box::pin(async move {
        found.entries += 1;
        if found.entries > MAX_MANIFESTS {
            return Err(Error::Manifests { place: place.name(), limit: MAX_MANIFESTS });
        }
        // what an index says of an entry saves asking for it
        let stated = descriptor.platform.clone();
        if stated.is_some() && !media_type::is_index(&descriptor.media_type) {
            found.leaves.push(Leaf { platform: stated, descriptor, through });
            return Ok(());
        }
        match place.manifest(&descriptor).await? {
            Manifest::Image(image) => {
                let platform = match image.is_container_image() {
                    true => Some(place.config(&image.config).await?.platform),
                    false => None,
                };
                found.leaves.push(Leaf { descriptor, platform, through });
            }
            Manifest::Index(index) => {
                if through.len() >= MAX_NESTING {
                    return Err(Error::Nesting { place: place.name(), limit: MAX_NESTING });
                }
                if !found.seen.insert(descriptor.digest.clone()) {
                    return Ok(());
                }
                let mut below = through;
                below.push(descriptor);
                for entry in index.manifests {
                    collect(place, entry, below.clone(), found).await?;
                }
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use ferry_content::{Failure as _, Kind};
    use serde_json::json;

    use super::*;
    use crate::samples::{Sample, entry, layer};

    fn these(names: &[&str]) -> Platforms {
        Platforms::These(names.iter().map(|name| name.parse().expect("platform")).collect())
    }

    fn found(selected: &Selected) -> Vec<(String, Digest)> {
        let name = |p: &Option<Platform>| p.as_ref().map(ToString::to_string).unwrap_or_default();
        selected.manifests.iter().map(|(p, d)| (name(p), d.digest.clone())).collect()
    }

    #[tokio::test]
    async fn the_best_variant_of_each_platform_with_all_it_needs() {
        let mut sample = Sample::default();
        let (shared, own) = (layer(b"shared"), layer(b"own"));
        let amd = sample.image("linux/amd64", &[shared.clone(), own.clone(), shared.clone()]);
        let v6 = sample.image("linux/arm/v6", std::slice::from_ref(&shared));
        let v5 = Descriptor::of(media_type::OCI_MANIFEST, b"not there, and not asked for");
        let root = sample.index(&[entry(&v5, "linux/arm/v5"), entry(&v6, "linux/arm/v6"), entry(&amd, "linux/amd64")]);
        let place = sample.place();
        let selected = select(&place, &root, &these(&["linux/arm/v7", "linux/amd64"])).await.expect("selected");
        let expected = [("linux/arm/v6".to_owned(), v6.digest.clone()), ("linux/amd64".to_owned(), amd.digest.clone())];
        assert_eq!(found(&selected), expected);
        let documents: Vec<_> = selected.documents.iter().map(|d| &d.digest).collect();
        assert_eq!(documents, [&root.digest, &v6.digest, &amd.digest]);
        assert_eq!((selected.configs.len(), &selected.layers), (2, &vec![shared, own]));

        let error = select(&place, &root, &these(&["linux/s390x"])).await.expect_err("missing");
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (
                Kind::Missing,
                "platform linux/s390x is missing at memory; there are: linux/amd64, linux/arm/v5, linux/arm/v6"
            )
        );
        let error = select(&place, &root, &Platforms::All).await.expect_err("all means all");
        assert_eq!((error.kind(), error.hint().is_some()), (Kind::Missing, true));
    }

    #[tokio::test]
    async fn a_single_manifest_is_what_its_config_says() {
        let mut sample = Sample::default();
        let root = sample.image("linux/arm64", &[]);
        let place = sample.place();
        assert!(select(&place, &root, &these(&["linux/arm64/v8"])).await.is_ok());
        let error = select(&place, &root, &these(&["linux/amd64"])).await.expect_err("another platform");
        assert!(matches!(error, Error::PlatformMissing { .. }), "{error}");
        let all = select(&place, &root, &Platforms::All).await.expect("all");
        assert_eq!(found(&all), [("linux/arm64".to_owned(), root.digest)]);
    }

    #[tokio::test]
    async fn artifacts_are_carried_whatever_the_platform_and_foreign_layers_are_not() {
        let mut sample = Sample::default();
        let config = sample.json("application/vnd.cncf.helm.config.v1+json", &json!({}));
        let foreign = Descriptor::of("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", b"base");
        let chart = sample.manifest(&config, &[layer(b"chart"), foreign.clone()]);
        let other = sample.manifest(&config, &[layer(b"other")]);
        let both = sample.index(&[json!(chart), json!(other)]);
        let place = sample.place();
        let one = select(&place, &chart, &these(&["linux/amd64"])).await.expect("one");
        assert_eq!(found(&one), [(String::new(), chart.digest.clone())]);
        assert_eq!((one.layers, one.foreign), (vec![layer(b"chart")], vec![foreign]));
        let two = select(&place, &both, &these(&["linux/amd64"])).await.expect("two");
        assert_eq!(found(&two), [(String::new(), chart.digest), (String::new(), other.digest)]);
    }

    #[tokio::test]
    async fn indexes_within_indexes_are_followed_once_and_not_for_ever() {
        let mut sample = Sample::default();
        let image = sample.image("linux/amd64", &[]);
        let mut root = sample.index(&[entry(&image, "linux/amd64")]);
        // each level names the one below many times: 30^3 ways lead down
        for _ in 0..3 {
            root = sample.index(&vec![json!(root); 30]);
        }
        let deeper = sample.index(&[json!(root)]);
        let wide = sample.index(&vec![json!(image); MAX_MANIFESTS]);
        let place = sample.place();
        let selected = select(&place, &root, &Platforms::All).await.expect("selected");
        assert_eq!((selected.manifests.len(), selected.documents.len()), (1, 5));
        let error = select(&place, &deeper, &Platforms::All).await.expect_err("too deep");
        assert!(matches!(error, Error::Nesting { limit: MAX_NESTING, .. }), "{error}");
        let error = select(&place, &wide, &Platforms::All).await.expect_err("too many");
        assert!(matches!(error, Error::Manifests { limit: MAX_MANIFESTS, .. }), "{error}");
        let error = whole(&place, &wide).await.expect_err("too many");
        assert!(matches!(error, Error::Manifests { limit: MAX_WHOLE, .. }), "{error}");
        let error = whole(&place, &deeper).await.expect_err("too deep");
        assert!(matches!(error, Error::Nesting { limit: MAX_NESTING, .. }), "{error}");
    }

    #[tokio::test]
    async fn a_size_that_is_not_true_and_sha512_are_refused() {
        let mut sample = Sample::default();
        let image = sample.image("linux/amd64", &[]);
        let longer = Descriptor { size: image.size + 1, ..image.clone() };
        let lies = sample.index(&[entry(&longer, "linux/amd64")]);
        let long = Descriptor::new("x", format!("sha512:{}", "ab".repeat(64)).parse().expect("digest"), 1);
        let config = sample.json(media_type::OCI_CONFIG, &json!({"os": "linux", "architecture": "amd64"}));
        let sha512 = sample.manifest(&config, &[long]);
        let place = sample.place();
        // as when the image stands in another index too, with its true size
        place.manifest(&image).await.expect("kept");
        let error = select(&place, &lies, &these(&["linux/amd64"])).await.expect_err("a lie");
        assert_eq!(error.kind(), Kind::Untrusted, "{error}");
        let error = select(&place, &sha512, &Platforms::All).await.expect_err("sha512");
        assert!(matches!(error, Error::Algorithm { .. }), "{error}");
    }
}
