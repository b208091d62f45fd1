//! From a reference to digests: which source answers, and what of the image is carried.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ferry_content::local::{self, LocalSource};
use ferry_content::{Failure as _, Kind, Problems, Provider};
use ferry_image::{Descriptor, Digest, Manifest, Reference};
use ferry_registry_client::{Client, Fetched};
use futures_util::{StreamExt as _, stream};
use tokio::sync::OnceCell;

use crate::attached::{Attached, Wish, attach};
use crate::fallback::{self, Served};
use crate::known::{Document, Known};
use crate::lock::{Encoded, Lock, Locked, LockedArchive, LockedPlatform, LockedReferrer, Source};
use crate::manifest::{ArchiveSource, BundleManifest, Image, Layers, Platforms};
use crate::missing::{explain, missing_tag};
use crate::near::slip;
use crate::origin::Origins;
use crate::place::{Documents, Place, fetch};
use crate::referrers::Referrer;
use crate::select::{Selected, select};
use crate::verify::Keys;
use crate::{Error, Request};

/// What the resolving needs to know beside the bundle manifest.
pub(crate) struct Context<'a> {
    pub(crate) manifest: &'a BundleManifest,
    /// The command line's platforms.
    pub(crate) chosen: Option<&'a Platforms>,
    pub(crate) client: &'a Client,
    pub(crate) lock: Option<&'a Lock>,
    pub(crate) keys: &'a Keys,
    /// What need not be asked for.
    known: &'a Known,
    /// The folder that raw layers are compressed in.
    spool: PathBuf,
    pub(crate) jobs: usize,
    /// A damaged bundle is mended: its digests are meant, and no lock of the user's.
    is_patch: bool,
    /// Tars that several images come from are opened (and unpacked) once.
    opened: Mutex<HashMap<PathBuf, Arc<OnceCell<LocalSource>>>>,
    /// Archives may share layers, and so files in the spool: one image is compressed at a time, its layers on all cores.
    compressing: tokio::sync::Mutex<()>,
    /// Which place gave which blob.
    served: Served,
    origins: Origins,
}

impl<'a> Context<'a> {
    pub(crate) fn new(request: &'a Request, client: &'a Client, lock: Option<&'a Lock>, keys: &'a Keys) -> Self {
        Self {
            manifest: &request.manifest,
            chosen: request.platforms.as_ref(),
            client,
            lock,
            keys,
            known: &request.known,
            spool: request.spool.clone(),
            jobs: request.jobs,
            is_patch: request.patch.is_some(),
            opened: Mutex::default(),
            compressing: tokio::sync::Mutex::default(),
            served: Served::default(),
            origins: Origins::default(),
        }
    }

    /// What shall go with `image`.
    fn wish(&self, image: &'a Image, locked: Option<&'a Locked>) -> Wish<'a> {
        let (kinds, signers) = (self.manifest.referrers_of(image), self.manifest.keys_of(image));
        Wish { kinds, signers, keys: self.keys, locked }
    }

    /// What a lock says is what the damaged bundle says, where one is mended.
    fn said(&self, error: Error) -> Error {
        match error {
            Error::LockedChanged { expected, found } if self.is_patch => Error::WantedGone { expected, found },
            error => error,
        }
    }

    async fn open(&self, archive: &ArchiveSource) -> Result<LocalSource, Error> {
        let cell = {
            let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(opened.entry(archive.path.clone()).or_default())
        };
        let limits = local::Limits::default();
        Ok(cell.get_or_try_init(|| LocalSource::open(&archive.path, &self.spool, &limits)).await?.clone())
    }
}

/// One image, resolved.
pub(crate) struct Resolved {
    /// Its place in the bundle manifest.
    pub(crate) index: usize,
    pub(crate) source: Source,
    /// The source, for people.
    pub(crate) place: String,
    pub(crate) root: Descriptor,
    /// What is carried, referrers included.
    pub(crate) selected: Selected,
    pub(crate) attached: Attached,
    pub(crate) documents: Documents,
    pub(crate) provider: Arc<dyn Provider>,
    /// Bytes that the unpacked archive takes in the spool folder until the bundle is written.
    pub(crate) unpacked: u64,
}

impl Resolved {
    /// Whether this image, carried as `listed`, is what `wanted` means: the same repository, pinned to the digest it has.
    pub(crate) fn answers(&self, listed: &Reference, wanted: &Reference) -> bool {
        wanted.digest() == Some(&self.root.digest)
            && listed.repository() == wanted.repository()
            && (!wanted.has_written_tag() || listed.tag() == wanted.tag())
    }

    pub(crate) fn locked(&self, reference: &Reference) -> Locked {
        Locked {
            reference: reference.clone(),
            source: self.source.clone(),
            root: (&self.root).into(),
            platforms: self
                .selected
                .manifests
                .iter()
                .map(|(platform, manifest)| LockedPlatform {
                    platform: platform.clone(),
                    digest: manifest.digest.clone(),
                })
                .collect(),
            referrers: self.attached.carried.iter().map(Into::into).collect(),
            proofs: self.attached.proofs.iter().map(Into::into).collect(),
        }
    }
}

impl From<&Referrer> for LockedReferrer {
    fn from(referrer: &Referrer) -> Self {
        Self {
            media_type: referrer.descriptor.media_type.clone(),
            digest: referrer.descriptor.digest.clone(),
            size: referrer.descriptor.size,
            subject: referrer.subject.clone(),
            tag: referrer.tag.clone(),
        }
    }
}

/// Every image of the bundle manifest.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) images: Vec<Resolved>,
    /// Optional ones that are not there, with the reason.
    pub(crate) absent: Vec<(Reference, String)>,
    /// Those whose tag is not there: each is a problem already.
    pub(crate) mistaken: Vec<Reference>,
    /// Which place gives which blob, as they come.
    pub(crate) served: Served,
    /// Things that are no errors but that somebody should know.
    pub(crate) notes: Vec<String>,
}

impl Outcome {
    /// All manifests, indexes and configs that were read.
    pub(crate) fn documents(&self) -> Documents {
        let all = self.images.iter().flat_map(|image| &image.documents);
        all.map(|(digest, bytes)| (digest.clone(), bytes.clone())).collect()
    }

    /// Whether `wanted` may be what an image's mistaken tag was meant to be: the mistake is reported, and once is enough.
    pub(crate) fn was_mistaken_for(&self, wanted: &Reference) -> bool {
        let tag = |reference: &Reference| reference.tag().map(ToOwned::to_owned);
        self.mistaken.iter().filter(|mistaken| mistaken.repository() == wanted.repository()).any(|mistaken| {
            tag(mistaken).zip(tag(wanted)).is_some_and(|(mistaken, wanted)| slip(&mistaken, &wanted).is_some())
        })
    }
}

/// Resolves all images, several at a time. All problems are reported together.
pub(crate) async fn resolve_all(context: &Context<'_>) -> (Outcome, Problems) {
    let tasks = context
        .manifest
        .images
        .iter()
        .enumerate()
        .map(|(index, image)| async move { (image, resolve(context, index, image).await) });
    let results: Vec<_> = stream::iter(tasks).buffered(context.jobs.max(1)).collect().await;
    let (served, notes) = (context.served.clone(), context.origins.notes());
    let mut outcome = Outcome { served, notes, ..Outcome::default() };
    let mut problems = Problems::default();
    for (image, result) in results {
        match result {
            Ok(Some(resolved)) => outcome.images.push(resolved),
            Ok(None) => outcome.absent.push((image.reference.clone(), "absent in the lock".to_owned())),
            // an optional image may be absent; a registry that is down must not pass for that
            Err(error) if image.optional && may_be_absent(&error) => {
                outcome.absent.push((image.reference.clone(), error.to_string()));
            }
            Err(error) => {
                if is_mistaken(&error) {
                    outcome.mistaken.push(image.reference.clone());
                }
                problems.add(subject(image), context.said(error));
            }
        }
    }
    (outcome, problems)
}

/// Whether no source has the tag.
fn is_mistaken(error: &Error) -> bool {
    match error {
        Error::NoSource { tried } => tried.iter().all(|(_, error)| is_mistaken(error)),
        other => missing_tag(other).is_some(),
    }
}

fn may_be_absent(error: &Error) -> bool {
    match error {
        Error::Content(ferry_content::Error::Io { source, .. }) => source.kind() == std::io::ErrorKind::NotFound,
        other => other.kind() == Kind::Missing,
    }
}

/// How an image is named in messages.
pub(crate) fn subject(image: &Image) -> String {
    match image.line {
        0 => format!("image `{}`", image.reference.written()),
        line => format!("image `{}` (line {line})", image.reference.written()),
    }
}

async fn resolve(context: &Context<'_>, index: usize, image: &Image) -> Result<Option<Resolved>, Error> {
    let platforms = context.manifest.platforms_of(image, context.chosen).ok_or(Error::NoPlatform)?;
    let locked = match context.lock {
        Some(lock) if lock.is_absent(&image.reference) => return Ok(None),
        Some(lock) => Some(lock.entry(&image.reference).ok_or(Error::NotLocked)?),
        None => None,
    };
    let mut resolved = match &image.archive {
        Some(archive) => from_archive(context, index, archive, platforms, context.wish(image, locked)).await?,
        None => from_registries(context, index, image, locked, platforms).await?,
    };
    if let Some(locked) = locked {
        check_lock(locked, &resolved)?;
        // the head says where the image was found when the lock was made: a mirror that steps in changes no byte
        if !matches!((&locked.source, &resolved.source), (Source::Registry { .. }, Source::Archive(_))) {
            resolved.source = locked.source.clone();
        }
    }
    Ok(Some(resolved))
}

fn check_lock(locked: &Locked, resolved: &Resolved) -> Result<(), Error> {
    if locked.root.digest != resolved.root.digest {
        let found = match (&locked.source, &resolved.source) {
            (Source::Archive(then), Source::Archive(now)) if then.input == now.input && then.encoder != now.encoder => {
                format!(
                    "another encoder now gives {} ({} instead of {})",
                    resolved.root.digest,
                    now.encoder.as_deref().unwrap_or("none"),
                    then.encoder.as_deref().unwrap_or("none")
                )
            }
            _ => format!("{} gives {}", resolved.place, resolved.root.digest),
        };
        return Err(Error::LockedChanged { expected: locked.root.digest.clone(), found });
    }
    let now = resolved.locked(&locked.reference).platforms;
    if now == locked.platforms {
        return Ok(());
    }
    let (expected, found) = (platforms_of(&locked.platforms), platforms_of(&now));
    Err(Error::LockedPlatforms { expected, found })
}

fn platforms_of(platforms: &[LockedPlatform]) -> String {
    let name = |p: &LockedPlatform| p.platform.as_ref().map_or_else(|| p.digest.to_string(), ToString::to_string);
    platforms.iter().map(name).collect::<Vec<_>>().join(", ")
}

async fn from_registries(
    context: &Context<'_>,
    index: usize,
    image: &Image,
    locked: Option<&Locked>,
    platforms: &Platforms,
) -> Result<Resolved, Error> {
    let mut sources = context.manifest.sources(image);
    // the source that answered when the lock was made is asked first
    if let Some(Locked { source: Source::Registry { reference }, .. }) = locked
        && let Some(at) = sources.iter().position(|s| s.at.repository() == reference.repository())
    {
        sources[..=at].rotate_right(1);
    }
    let wish = context.wish(image, locked);
    let mut tried: Vec<(Reference, Error)> = Vec::new();
    let mut rest = sources.into_iter();
    while let Some(source) = rest.next() {
        let found = match from_registry(context, index, &source.at, platforms, wish).await {
            Ok(found) => found,
            // a mirror may have the name and lack a platform or a manifest below it
            Err(error) => {
                tried.push((source.at, error));
                continue;
            }
        };
        if let Some(origin) = source.mirror_of.filter(|origin| locked.is_none() && origin.digest().is_none()) {
            context.origins.agree(context.client, &source.at, &origin, &found.root.digest).await?;
        }
        let mut places = vec![context.served.watch(Arc::clone(&found.provider))];
        for other in rest {
            let repository = context.client.repository(other.at.host(), other.at.path())?;
            places.push(context.served.watch(Arc::new(repository)));
        }
        let provider = fallback::over(places).unwrap_or_else(|| Arc::clone(&found.provider));
        return Ok(Resolved { provider, ..found });
    }
    if !image.optional && tried.iter().all(|(_, e)| e.kind() == Kind::Missing) {
        let known = std::mem::take(&mut tried);
        for (source, error) in known {
            let error = explain(context.client, &source, error).await;
            tried.push((source, error));
        }
    }
    match locked {
        Some(locked) if tried.iter().all(|(_, e)| is_gone(e)) => {
            let places: Vec<String> = tried.iter().map(|(place, _)| place.repository()).collect();
            let found = format!("it is gone from {}", places.join(", "));
            Err(Error::LockedChanged { expected: locked.root.digest.clone(), found })
        }
        _ => Err(match tried.pop() {
            Some((_, only)) if tried.is_empty() => only,
            last => Error::NoSource { tried: tried.into_iter().chain(last).collect() },
        }),
    }
}

fn is_gone(error: &Error) -> bool {
    error.kind() == Kind::Missing && !matches!(error, Error::PlatformMissing { .. })
}

async fn from_registry(
    context: &Context<'_>,
    index: usize,
    source: &Reference,
    platforms: &Platforms,
    wish: Wish<'_>,
) -> Result<Resolved, Error> {
    let repository = context.client.repository(source.host(), source.path())?;
    let known = context.known;
    let digest = match wish.locked {
        Some(locked) => Some(locked.root.digest.clone()),
        None => source.digest().cloned().or_else(|| known.tag(&source.to_string())),
    };
    let (digest, document) = match digest {
        Some(digest) => (digest.clone(), known.get_or(&digest, fetch(&repository, &digest)).await?),
        None => {
            let Fetched { digest, bytes, media_type } = repository.manifest(&source.manifest_reference()).await?;
            let document = Document { media_type, bytes };
            known.learn(&digest, document.clone());
            (digest, document)
        }
    };
    let root = Descriptor::new(&document.media_type, digest.clone(), document.bytes.len() as u64);
    let place = Place::registry(repository, known.clone());
    place.keep(digest, document.bytes);
    finish(index, Source::Registry { reference: source.clone() }, place, root, platforms, wish).await
}

async fn from_archive(
    context: &Context<'_>,
    index: usize,
    archive: &ArchiveSource,
    platforms: &Platforms,
    wish: Wish<'_>,
) -> Result<Resolved, Error> {
    let mut options = local::Options::new(&context.spool);
    options.layers = match context.manifest.layers {
        Layers::Gzip => local::Layers::Gzip,
        Layers::Zstd => local::Layers::Zstd,
        Layers::Verbatim => local::Layers::Verbatim,
    };
    options.jobs = crate::build::threads();
    if let Platforms::These(these) = platforms {
        options.platforms.clone_from(these);
    }
    let source = context.open(archive).await?;
    let image = source.choose(archive.image.as_deref())?.clone();
    let compressing = context.compressing.lock().await;
    let prepared = source.prepare(&image, &options).await?;
    drop(compressing);
    let known = prepared.manifests.iter().map(|(d, bytes)| (d.digest.clone(), bytes.clone()));
    let place = Place::local(Arc::clone(&prepared.provider), known).listing(listed(&source));
    let input = match (&image.root, place.manifest(&prepared.root).await?) {
        (local::Root::Manifest(descriptor), _) => descriptor.digest.clone(),
        (local::Root::Saved(_), Manifest::Image(made)) => made.config.digest,
        (local::Root::Saved(_), Manifest::Index(_)) => prepared.root.digest.clone(),
    };
    let locked = LockedArchive {
        path: archive.written.clone(),
        image: archive.image.clone(),
        input,
        layers: context.manifest.layers,
        encoder: prepared.encoder.clone(),
        encoded: prepared
            .compressed
            .iter()
            .map(|c| Encoded { input: c.input.clone(), digest: c.layer.digest.clone(), size: c.layer.size })
            .collect(),
    };
    let mut resolved = finish(index, Source::Archive(locked), place, prepared.root, platforms, wish).await?;
    resolved.unpacked = source.unpacked();
    Ok(resolved)
}

/// What a layout lists: referrers stand there beside their images.
fn listed(source: &LocalSource) -> Vec<(Vec<String>, Descriptor)> {
    let manifest = |image: &local::LocalImage| match &image.root {
        local::Root::Manifest(descriptor) => Some((image.names.clone(), descriptor.clone())),
        local::Root::Saved(_) => None,
    };
    source.images().iter().filter_map(manifest).collect()
}

async fn finish(
    index: usize,
    source: Source,
    place: Place,
    root: Descriptor,
    platforms: &Platforms,
    wish: Wish<'_>,
) -> Result<Resolved, Error> {
    place.check_algorithm(&root.digest)?;
    // servers may announce one document by several types: what it says of itself comes first
    let media_type = place.manifest(&root).await?.media_type().to_owned();
    let root = Descriptor { media_type, ..root };
    let mut selected = select(&place, &root, platforms).await?;
    let manifests: Vec<Digest> = selected.manifests.iter().map(|(_, manifest)| manifest.digest.clone()).collect();
    let attached = attach(&place, &root.digest, &manifests, wish).await?;
    for referrer in &attached.carried {
        selected.add(&referrer.whole);
    }
    let (name, provider) = (place.name(), place.provider());
    let documents = place.into_documents();
    // what an entry of index.json says beside these belongs to another document
    let root = Descriptor::new(&root.media_type, root.digest, root.size);
    Ok(Resolved { index, source, place: name, root, selected, attached, documents, provider, unpacked: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::ReferrerKinds;
    use crate::samples::{Sample, entry, layer};

    async fn resolved(platforms: &[&str]) -> Resolved {
        let mut sample = Sample::default();
        let amd = sample.image("linux/amd64", &[layer(b"1")]);
        let arm = sample.image("linux/arm64", &[layer(b"2")]);
        let root = sample.index(&[entry(&amd, "linux/amd64"), entry(&arm, "linux/arm64")]);
        let root = Descriptor { media_type: "application/json; charset=utf-8".to_owned(), ..root };
        let chosen = Platforms::These(platforms.iter().map(|p| p.parse().expect("platform")).collect());
        let source = Source::Registry { reference: "mirror.example/a:1".parse().expect("reference") };
        let (kinds, keys) = (ReferrerKinds::NONE, Keys::default());
        let wish = Wish { kinds: &kinds, signers: &[], keys: &keys, locked: None };
        finish(0, source, sample.place(), root, &chosen, wish).await.expect("resolved")
    }

    #[tokio::test]
    async fn a_document_is_what_it_says_of_itself() {
        assert_eq!(resolved(&["linux/amd64"]).await.root.media_type, ferry_image::media_type::OCI_INDEX);
    }

    #[tokio::test]
    async fn a_lock_holds_for_its_platforms_and_digest_only() {
        let reference: Reference = "a:1".parse().expect("reference");
        let now = resolved(&["linux/amd64"]).await;
        let mut locked = now.locked(&reference);
        assert!(check_lock(&locked, &now).is_ok());
        let error = check_lock(&locked, &resolved(&["linux/arm64"]).await).expect_err("another platform");
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (Kind::Conflict, "the lock is for linux/amd64, not for linux/arm64")
        );
        locked.root.digest = Digest::of(b"other");
        let error = check_lock(&locked, &now).expect_err("another image");
        assert!(matches!(error, Error::LockedChanged { .. }), "{error}");
    }

    #[test]
    fn an_optional_image_is_absent_only_where_its_sources_say_so() {
        let missing = || Error::Content(ferry_content::Error::NotFound { place: "x".to_owned(), what: "y".to_owned() });
        let place: Reference = "a:1".parse().expect("reference");
        let tried =
            |errors: Vec<Error>| Error::NoSource { tried: errors.into_iter().map(|e| (place.clone(), e)).collect() };
        let ranges = ferry_content::Error::NoRanges { place: "x".to_owned(), digest: ferry_image::Digest::of(b"") };
        assert!(may_be_absent(&tried(vec![missing(), missing()])));
        assert!(!may_be_absent(&tried(vec![missing(), Error::Content(ranges)])), "a registry that is down");
        let io = |kind: std::io::ErrorKind| Error::Content(ferry_content::Error::io("read", "a.tar", kind.into()));
        assert!(may_be_absent(&io(std::io::ErrorKind::NotFound)));
        assert!(!may_be_absent(&io(std::io::ErrorKind::PermissionDenied)));
    }
}
