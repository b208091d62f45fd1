//! The images of a backend, each with what people want to know of it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, MutexGuard, PoisonError};

use ferry_content::store::ManifestRef;
use ferry_image::{Descriptor, Digest, Manifest, Platform, manifest::ImageManifest};
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;

use super::{About, State};
use crate::backend::Tagged;
use crate::{Backend, Error, Name, Registry};

/// Helm's charts, which are pulled by another program.
const HELM: &str = "application/vnd.cncf.helm.config.v1+json";
/// The largest config that is read for the sake of a platform.
const MAX_CONFIG: u64 = 4 << 20;
/// Configs read at a time.
const AT_ONCE: usize = 16;
/// Indexes within indexes that are followed.
const MAX_DEPTH: usize = 3;
/// Summaries remembered; a store of more images is summed up anew.
const MAX_SUMMARIES: usize = 50_000;

/// What was learnt of manifests. A digest stands for the same bytes for ever.
pub(super) type Summaries = HashMap<Digest, Arc<Summary>>;

/// A manifest of a repository, and the tags that name it.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) repository: String,
    /// In lexical order; none for an image that is pulled by digest only.
    pub(super) tags: Vec<String>,
    pub(super) digest: Digest,
    pub(super) originals: BTreeSet<String>,
    /// What stands beside it under cosign's tags.
    pub(super) attached: BTreeSet<&'static str>,
    pub(super) summary: Arc<Summary>,
    /// A blob of it was found damaged, and is not given out.
    pub(super) is_damaged: bool,
}

/// What a manifest is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Image,
    Chart,
    /// With its type.
    Artifact(String),
    /// It cannot be read.
    Damaged,
}

/// A manifest in few words.
#[derive(Debug, Clone)]
pub(super) struct Summary {
    pub(super) kind: Kind,
    /// The bytes of everything below it, each blob counted once.
    pub(super) size: u64,
    /// The manifests of platforms that are here.
    pub(super) parts: Vec<Part>,
    /// Everything below it, in short: very many summaries are remembered.
    blobs: Box<[Short]>,
    /// Nothing it names may come later.
    is_whole: bool,
}

/// The manifest of one platform.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) platform: Option<String>,
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// Where the platform stands, if nobody has said it.
    config: Option<Descriptor>,
}

/// The first bytes of a digest: enough to find a damaged blob again, and no blob is refused or given out for it.
type Short = u64;

fn short(digest: &Digest) -> Short {
    digest.hex().get(..16).and_then(|hex| Short::from_str_radix(hex, 16).ok()).unwrap_or_default()
}

impl State {
    fn summaries(&self) -> MutexGuard<'_, Summaries> {
        self.summaries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All images by repository, then by tag.
pub(super) async fn images(registry: &Registry) -> Result<Vec<Image>, Error> {
    let mut images = known(registry).await?;
    let checks = Arc::clone(&registry.checks);
    let review = move |backend: &dyn Backend| {
        checks.review(backend);
        Ok(())
    };
    registry.ask(review).await?;
    let damaged: HashSet<Short> = registry.checks.damaged().iter().map(short).collect();
    if !damaged.is_empty() {
        for image in &mut images {
            image.is_damaged = image.summary.blobs.iter().any(|blob| damaged.contains(blob));
        }
    }
    Ok(images)
}

async fn known(registry: &Registry) -> Result<Vec<Image>, Error> {
    let state = Arc::clone(&registry.page);
    let (mut images, new) = registry.ask(move |backend| look(backend, &state)).await?;
    if new.is_empty() {
        return Ok(images);
    }
    let learnt: HashMap<Digest, Arc<Summary>> = stream::iter(new)
        .map(|(digest, summary)| async move { (digest, Arc::new(with_platforms(registry, summary).await)) })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    for image in &mut images {
        if let Some(summary) = learnt.get(&image.digest) {
            image.summary = Arc::clone(summary);
        }
    }
    let mut known = registry.page.summaries();
    if known.len() + learnt.len() > MAX_SUMMARIES {
        known.clear();
    }
    known.extend(learnt.into_iter().filter(|(_, summary)| summary.is_whole));
    Ok(images)
}

type New = HashMap<Digest, Summary>;
/// Tags of manifests, by repository.
type Named = BTreeMap<(String, Digest), Vec<String>>;
/// What stands beside manifests under cosign's tags, by repository and the hex digits of the digest.
type Attached = HashMap<(String, String), BTreeSet<&'static str>>;

/// What there is, by the names that it is pulled by.
pub(super) fn named(backend: &dyn Backend, about: &About) -> Result<(Named, Attached), Error> {
    let (mut tags, mut attached) = (Named::new(), Attached::new());
    for Tagged { repository, tag, manifest } in backend.tagged()? {
        match cosign(&tag) {
            Some((subject, what)) => {
                attached.entry((repository, subject)).or_default().insert(what);
            }
            None => tags.entry((repository, manifest)).or_default().push(tag),
        }
    }
    for image in about.images.iter().filter(|image| image.tag.is_none()) {
        tags.entry((image.repository.clone(), image.digest.clone())).or_default();
    }
    Ok((tags, attached))
}

/// The images, and summaries of those that were not seen before: their platforms may still be unknown.
fn look(backend: &dyn Backend, state: &State) -> Result<(Vec<Image>, New), Error> {
    let mut rows: BTreeMap<(String, Vec<String>), Digest> = BTreeMap::new();
    let (tags, mut attached) = named(backend, &state.about)?;
    for ((repository, digest), tags) in tags {
        // two that are pulled by digest only differ in nothing else
        let order = if tags.is_empty() { vec![String::new(), digest.to_string()] } else { tags };
        rows.insert((repository, order), digest);
    }

    let known = state.summaries().clone();
    let (mut images, mut new) = (Vec::with_capacity(rows.len()), New::new());
    for ((repository, mut tags), digest) in rows {
        if tags.first().is_some_and(String::is_empty) {
            tags.clear();
        }
        let summary = match known.get(&digest) {
            Some(summary) => Arc::clone(summary),
            None => {
                let summary = new
                    .entry(digest.clone())
                    .or_insert_with(|| sum_up(&Looking { backend, state, repository: &repository }, &digest));
                Arc::new(summary.clone())
            }
        };
        let names: Vec<&str> = if tags.is_empty() { vec![""] } else { tags.iter().map(String::as_str).collect() };
        let originals = names.iter().flat_map(|tag| state.originals(&repository, tag)).map(str::to_owned).collect();
        let attached = attached.remove(&(repository.clone(), digest.hex().to_owned())).unwrap_or_default();
        images.push(Image { repository, tags, digest, originals, attached, summary, is_damaged: false });
    }
    Ok((images, new))
}

/// The subject and the meaning of a tag that cosign makes: `sha256-HEX.sig`.
fn cosign(tag: &str) -> Option<(String, &'static str)> {
    let rest = tag.strip_prefix("sha256-")?;
    let (hex, end) = rest.split_at_checked(64)?;
    let is_hex = hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let what = match end {
        ".sig" => "signature",
        ".att" => "attestation",
        ".sbom" => "SBOM",
        "" => "referrers",
        _ => return None,
    };
    is_hex.then(|| (hex.to_owned(), what))
}

struct Looking<'a> {
    backend: &'a dyn Backend,
    state: &'a State,
    repository: &'a str,
}

impl Looking<'_> {
    /// `None` when it is not here; a manifest that cannot be read is an error.
    fn manifest(&self, digest: &Digest) -> Result<Option<(Manifest, u64)>, String> {
        let reference = ManifestRef::Digest(digest.clone());
        let found = self.backend.manifest(&Name::new(self.repository), &reference).map_err(|e| e.to_string())?;
        let Some(record) = found else { return Ok(None) };
        let manifest = Manifest::parse(&record.bytes, Some(&record.media_type)).map_err(|e| e.to_string())?;
        Ok(Some((manifest, record.bytes.len() as u64)))
    }
}

fn sum_up(looking: &Looking<'_>, digest: &Digest) -> Summary {
    let mut blobs = HashMap::new();
    let mut parts = Vec::new();
    let mut is_whole = true;
    let kind = match looking.manifest(digest) {
        Ok(Some((manifest, size))) => {
            blobs.insert(digest.clone(), size);
            match &manifest {
                Manifest::Image(image) => {
                    parts.push(part(looking, digest, size, image, None));
                    blobs.extend(image.blobs().map(|blob| (blob.digest.clone(), blob.size)));
                    kind(image)
                }
                Manifest::Index(_) => {
                    is_whole = below(looking, &manifest, 0, &mut parts, &mut blobs);
                    Kind::Image
                }
            }
        }
        // told in the log when it is asked for; it may be mended by a push
        Ok(None) | Err(_) => {
            is_whole = false;
            Kind::Damaged
        }
    };
    // what a bundle lacks does not come
    let is_whole = is_whole || (kind != Kind::Damaged && looking.backend.store().is_none());
    Summary { kind, size: blobs.values().sum(), parts, blobs: blobs.keys().map(short).collect(), is_whole }
}

/// The manifests of an index that are here, and whether that is all of them.
fn below(
    looking: &Looking<'_>,
    index: &Manifest,
    depth: usize,
    parts: &mut Vec<Part>,
    blobs: &mut HashMap<Digest, u64>,
) -> bool {
    let Manifest::Index(index) = index else { return true };
    let mut is_whole = true;
    for child in &index.manifests {
        let Ok(Some((manifest, size))) = looking.manifest(&child.digest) else {
            is_whole = false;
            continue;
        };
        blobs.insert(child.digest.clone(), size);
        match &manifest {
            Manifest::Image(image) => {
                blobs.extend(image.blobs().map(|blob| (blob.digest.clone(), blob.size)));
                // attestations of BuildKit stand there as a platform that is none
                if child.platform.as_ref().is_none_or(|platform| !platform.is_unknown()) {
                    parts.push(part(looking, &child.digest, size, image, child.platform.as_ref()));
                }
            }
            Manifest::Index(_) if depth < MAX_DEPTH => is_whole &= below(looking, &manifest, depth + 1, parts, blobs),
            Manifest::Index(_) => {}
        }
    }
    is_whole
}

fn kind(image: &ImageManifest) -> Kind {
    match image.config.media_type.as_str() {
        HELM => Kind::Chart,
        _ if image.is_container_image() => Kind::Image,
        config => Kind::Artifact(image.artifact_type.clone().unwrap_or_else(|| config.to_owned())),
    }
}

fn part(looking: &Looking<'_>, digest: &Digest, size: u64, image: &ImageManifest, stated: Option<&Platform>) -> Part {
    let platform = stated.map(ToString::to_string).or_else(|| looking.state.platforms.get(digest).cloned());
    let is_asked = platform.is_none() && image.is_container_image() && image.config.size <= MAX_CONFIG;
    let config = is_asked.then(|| image.config.clone());
    let size = size + image.config.size + image.layers.iter().map(|layer| layer.size).sum::<u64>();
    Part { platform, digest: digest.clone(), size, config }
}

#[derive(Deserialize)]
struct Config {
    os: String,
    architecture: String,
    variant: Option<String>,
}

async fn with_platforms(registry: &Registry, mut summary: Summary) -> Summary {
    for part in &mut summary.parts {
        let Some(config) = part.config.take() else { continue };
        match platform(registry, &config).await {
            Some(found) => part.platform = Some(found),
            // perhaps only now
            None => summary.is_whole = false,
        }
    }
    summary
}

async fn platform(registry: &Registry, config: &Descriptor) -> Option<String> {
    let mut stream = registry.backend.blobs().open(config, 0..config.size).await.ok()?;
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk.ok()?);
    }
    let config: Config = serde_json::from_slice(&bytes).ok()?;
    Some(Platform::new(&config.os, &config.architecture, config.variant.as_deref()).to_string())
}

#[cfg(test)]
mod tests {
    use super::cosign;

    #[test]
    fn tags_of_cosign_are_known_and_no_others() {
        let hex = "0".repeat(64);
        assert_eq!(cosign(&format!("sha256-{hex}.sig")), Some((hex.clone(), "signature")));
        assert_eq!(cosign(&format!("sha256-{hex}")), Some((hex.clone(), "referrers")));
        for other in ["1.27", "sha256-00.sig", &format!("sha256-{hex}.txt"), &format!("sha256-{}", "ü".repeat(40))] {
            assert_eq!(cosign(other), None, "{other}");
        }
    }
}
