//! Which images are exported, for which platforms, and in which form.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use ferry_archive::HeadImage;
use ferry_content::raw::Raw;
use ferry_content::{Problems, Provider};
use ferry_image::manifest::MAX_MANIFEST;
use ferry_image::media_type::{self, Compression};
use ferry_image::{Descriptor, Digest, ImageConfig, ImageManifest, Manifest, Platform, Reference, rules};

use super::{Chosen, Export, Exported, Fault, ForDocker, Options, To, documents, names};
use crate::bundles::{Bundles, Carrier};
use crate::form::{self, Form, FormKind, IndexMode};
use crate::names::Named;
use crate::{Error, preflight, referrers, relied};

type Documents = BTreeMap<Digest, Bytes>;

/// A raw layer of a Docker schema 2 image.
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// Names that a hint lists.
const LISTED: usize = 5;

/// Decides everything that can be decided before anything is written.
///
/// # Errors
/// Every problem there is, together.
pub async fn plan(bundles: Arc<Bundles>, options: &Options) -> Result<Export, Problems> {
    let all = preflight::documents(&bundles)?;
    let mut problems = Problems::default();
    let carries = bundles.images(None);
    let mut notes = carries.notes;
    carries.conflicts.into_iter().for_each(|conflict| problems.add("", conflict));
    let carried: Vec<Named> = carries.images.into_iter().map(|(named, _)| named).collect();
    let mut images: Vec<Chosen> = Vec::new();
    let mut left_out = 0;
    for named in among(carried, &options.images, &mut problems) {
        let subject = format!("image `{}`", named.image.reference.written());
        match choose(named, &all, options, &bundles) {
            Ok(Some(chosen)) => add(&mut images, chosen, &mut notes),
            Ok(None) => {
                left_out += 1;
                notes.push(format!("{subject} is no container image, and left out"));
            }
            Err(error) => problems.add(subject, error),
        }
    }
    if images.is_empty() && problems.is_empty() {
        problems.add("", Error::from(Fault::Nothing { left_out }));
    }
    let mut raw = Raw::new(Arc::clone(&bundles) as Arc<dyn Provider>);
    if options.to == To::Docker {
        let references: Vec<&Reference> = images.iter().map(|chosen| &chosen.exported.reference).collect();
        let tags = documents::tags(&references);
        for (chosen, tags) in images.iter_mut().zip(tags) {
            // the tag is another image's
            if let (true, Some(digest)) = (tags.is_empty(), chosen.exported.reference.digest()) {
                chosen.exported.name = format!("{}@{digest}", chosen.exported.reference.repository());
            }
            chosen.exported.tags = tags;
        }
        for chosen in problems.is_empty().then_some(&mut images).into_iter().flatten() {
            if let Err(error) = for_docker(chosen, &bundles, &mut raw, &mut notes).await {
                problems.add(format!("image `{}`", chosen.exported.reference.written()), error);
            }
        }
    }
    notes.extend(bundles.take_notes());
    let stem = bundles.heads().next().map(|head| names::stem(&head.name)).unwrap_or_default();
    problems.or(Export { to: options.to, images, notes, stem, sources: sources(&bundles), provider: Arc::new(raw) })
}

/// The files that are read.
fn sources(bundles: &Bundles) -> Vec<PathBuf> {
    let files = bundles.all().iter().filter_map(|carrier| match carrier {
        Carrier::File(bundle) => Some(bundle.slices().parts().iter().map(|slice| slice.path.clone())),
        Carrier::Passing(_) => None,
    });
    files.flatten().collect()
}

/// Those that are asked for; a pattern that fits none is a problem.
fn among(carried: Vec<Named>, patterns: &[String], problems: &mut Problems) -> Vec<Named> {
    for pattern in patterns {
        let fits = |named: &Named| rules::is_among(pattern, &named.image.reference);
        if !carried.iter().any(fits) {
            let some = carried.iter().take(LISTED).map(|n| format!("`{}`", n.image.reference.written())).collect();
            problems.add("", Error::from(Fault::NoImage { pattern: pattern.clone(), carried: some }));
        }
    }
    let wanted = |named: &Named| {
        patterns.is_empty() || patterns.iter().any(|pattern| rules::is_among(pattern, &named.image.reference))
    };
    carried.into_iter().filter(wanted).collect()
}

/// References that lead to one name lead to one image: `app@sha256:…` and `app:1@sha256:…` are the same to the kubelet.
fn add(images: &mut Vec<Chosen>, chosen: Chosen, notes: &mut Vec<String>) {
    // docker has each of them: whichever has the tag, both have the id
    let same = |had: &&Chosen| had.exported.id.is_none() && had.exported.name == chosen.exported.name;
    match images.iter().find(same) {
        None => images.push(chosen),
        Some(had) if had.root.digest == chosen.root.digest => {}
        Some(had) => notes.push(format!(
            "image `{}` has the name of `{}`, for other platforms, and is left out",
            chosen.exported.reference.written(),
            had.exported.reference.written()
        )),
    }
}

/// An image in its form; `None` for an artifact where only images may be.
fn choose(named: Named, all: &Documents, options: &Options, bundles: &Bundles) -> Result<Option<Chosen>, Error> {
    let Named { mut image, name, .. } = named;
    let is_image = is_container_image(&image, all)?;
    if !is_image && options.to != To::Oci {
        return Ok(None);
    }
    if is_image && !options.platforms.is_empty() {
        restrict(&mut image, &options.platforms).map_err(|error| Error::from(Fault::Platform(error)))?;
    }
    if options.to != To::Oci {
        image.referrers.clear();
    }
    let is_pinned = image.reference.digest().is_some() && options.to != To::K3s;
    let below = reachable(&image, all, !options.platforms.is_empty())?;
    let form = match options.to {
        To::Docker => only(&image, &below)?,
        _ => {
            let named = Named { image, name, is_pinned };
            let form = form::choose(&named, &below, IndexMode::Auto)?.first;
            image = named.image;
            form
        }
    };
    let mut chosen = Chosen {
        exported: Exported {
            name: names::indexed(options.to, &image.reference),
            tags: Vec::new(),
            source_digest: image.root.digest.clone(),
            digest: form.root.digest.clone(),
            form: form.kind,
            platforms: platforms(&image, &form),
            id: None,
            reference: image.reference,
        },
        root: form.root.clone(),
        manifests: Vec::new(),
        blobs: Vec::new(),
        referrers: image.referrers,
        docker: None,
    };
    for child in form.children {
        let bytes = form::bytes(&child, all)?;
        chosen.manifests.push((child, bytes));
    }
    chosen.manifests.push((form.root, form.bytes));
    gather(&mut chosen, all, options.to)?;
    lacking(&chosen.blobs, bundles)?;
    Ok(Some(chosen))
}

fn is_container_image(image: &HeadImage, all: &Documents) -> Result<bool, Error> {
    for platform in &image.platforms {
        if matches!(form::parse(&platform.manifest, all)?, Manifest::Image(manifest) if manifest.is_container_image()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Keeps the best match for each wanted platform.
fn restrict(image: &mut HeadImage, wanted: &[Platform]) -> Result<(), ferry_image::Error> {
    let of: Vec<_> = image.platforms.iter().filter_map(|p| Some((p.platform.clone()?, p))).collect();
    let candidates: Vec<Platform> = of.iter().map(|(platform, _)| platform.clone()).collect();
    let best: Result<BTreeSet<usize>, _> = wanted.iter().map(|platform| platform.best(&candidates)).collect();
    image.platforms = best?.into_iter().map(|at| of[at].1.clone()).collect();
    Ok(())
}

/// The documents below an image's root, and what refers to it; of manifests only those of its platforms where it `is_restricted`.
fn reachable(image: &HeadImage, all: &Documents, is_restricted: bool) -> Result<Documents, Error> {
    let kept: BTreeSet<&Digest> = image.platforms.iter().map(|platform| &platform.manifest.digest).collect();
    let mut below = Documents::new();
    let mut open = vec![image.root.clone()];
    open.extend(image.platforms.iter().map(|platform| &platform.manifest).chain(&image.referrers).cloned());
    while let Some(next) = open.pop() {
        let Some(bytes) = all.get(&next.digest).filter(|_| !below.contains_key(&next.digest)) else { continue };
        below.insert(next.digest.clone(), bytes.clone());
        if let Manifest::Index(index) = form::parse(&next, all)? {
            let wanted = |entry: &Descriptor| {
                !is_restricted || media_type::is_index(&entry.media_type) || kept.contains(&entry.digest)
            };
            open.extend(index.manifests.into_iter().filter(wanted));
        }
    }
    Ok(below)
}

/// The manifest of the one platform that an image is for.
fn only(image: &HeadImage, below: &Documents) -> Result<Form, Error> {
    let runs = |platform: &&ferry_archive::HeadPlatform| platform.platform.as_ref().is_none_or(|p| !p.is_unknown());
    let all: Vec<_> = image.platforms.iter().filter(runs).collect();
    let [one] = all.as_slice() else {
        let platforms = all.iter().filter_map(|platform| platform.platform.clone()).collect();
        return Err(Fault::ManyPlatforms { form: "docker", platforms }.into());
    };
    let kind = if one.manifest.digest == image.root.digest { FormKind::Original } else { FormKind::Platform };
    let root = Descriptor::new(&one.manifest.media_type, one.manifest.digest.clone(), one.manifest.size);
    Ok(Form { kind, bytes: form::bytes(&root, below)?, root, children: Vec::new(), sparse: false })
}

/// The platforms whose manifests are in a form.
fn platforms(image: &HeadImage, form: &Form) -> Vec<Platform> {
    let has =
        |digest: &Digest| form.root.digest == *digest || form.children.iter().any(|child| child.digest == *digest);
    let those = image.platforms.iter().filter(|platform| has(&platform.manifest.digest));
    those.filter_map(|platform| platform.platform.clone()).filter(|platform| !platform.is_unknown()).collect()
}

/// Finds the blobs, and what else an OCI layout has: what refers to the image.
fn gather(chosen: &mut Chosen, all: &Documents, to: To) -> Result<(), Error> {
    for referrer in chosen.referrers.clone() {
        for document in referrers::documents_of(&referrer, all)? {
            if chosen.manifests.iter().all(|(had, _)| had.digest != document.digest) {
                let bytes = form::bytes(&document, all)?;
                chosen.manifests.insert(0, (document, bytes));
            }
        }
    }
    let mut seen = BTreeSet::new();
    for (descriptor, bytes) in &chosen.manifests {
        let declared = Some(descriptor.media_type.as_str()).filter(|text| !text.is_empty());
        let parsed = Manifest::parse(bytes, declared);
        let parsed = parsed.map_err(|source| Error::Document { digest: descriptor.digest.clone(), source })?;
        let Manifest::Image(manifest) = parsed else { continue };
        // a foreign layer comes from its vendor; docker's archive cannot say so
        let is_carried = |blob: &&Descriptor| to == To::Docker || !media_type::is_foreign_layer(&blob.media_type);
        for blob in manifest.blobs().filter(is_carried) {
            if seen.insert(blob.digest.clone()) {
                chosen.blobs.push(blob.clone());
            }
        }
        if to == To::Docker {
            let ImageManifest { config, layers, .. } = manifest;
            chosen.exported.id = Some(config.digest.clone());
            chosen.docker = Some(ForDocker { config, layers });
        }
    }
    Ok(())
}

fn lacking(blobs: &[Descriptor], bundles: &Bundles) -> Result<(), Error> {
    let lacking: Vec<Descriptor> = blobs.iter().filter(|blob| bundles.blob(&blob.digest).is_none()).cloned().collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let bases = relied::bases(bundles, &lacking);
    Err(Fault::Lacking { blobs: lacking, bases }.into())
}

/// Takes the compression away from zstd layers, which docker before 23 does not read. The config, and with it the image's id, stays.
async fn for_docker(
    chosen: &mut Chosen,
    bundles: &Bundles,
    raw: &mut Raw,
    notes: &mut Vec<String>,
) -> Result<(), Error> {
    let Some(docker) = &mut chosen.docker else { return Ok(()) };
    let compression = |layer: &Descriptor| media_type::layer_compression(&layer.media_type);
    if let Some(layer) = docker.layers.iter().find(|layer| compression(layer) == Compression::Unknown) {
        let (digest, media_type) = (layer.digest.clone(), layer.media_type.clone());
        return Err(Fault::Layer { digest, media_type, form: "docker" }.into());
    }
    if docker.layers.iter().all(|layer| compression(layer) != Compression::Zstd) {
        return Ok(());
    }
    let text = bundles.read_small(&docker.config.digest, MAX_MANIFEST)?;
    let document = |source| Error::Document { digest: docker.config.digest.clone(), source };
    let config = ImageConfig::parse(&text).map_err(document)?;
    if config.diff_ids.len() != docker.layers.len() {
        let why = format!("it names {} layers, and its manifest {}", config.diff_ids.len(), docker.layers.len());
        return Err(document(ferry_image::Error::Document { what: "config", why }));
    }
    let Some((old, bytes)) = chosen.manifests.pop() else { return Ok(()) };
    let media_type = match old.media_type.as_str() {
        media_type::DOCKER_MANIFEST => DOCKER_LAYER,
        _ => media_type::OCI_LAYER,
    };
    for (layer, diff_id) in docker.layers.iter_mut().zip(&config.diff_ids) {
        if compression(layer) == Compression::Zstd {
            *layer = raw.add(layer, diff_id, media_type).await?;
        }
    }
    let failed = |e: serde_json::Error| {
        let source = ferry_image::Error::Document { what: "manifest", why: e.to_string() };
        Error::Document { digest: old.digest.clone(), source }
    };
    let bytes = Bytes::from(documents::with_layers(&bytes, &docker.layers).map_err(failed)?);
    chosen.root = Descriptor::of(&old.media_type, &bytes);
    chosen.exported.digest = chosen.root.digest.clone();
    chosen.manifests.push((chosen.root.clone(), bytes));
    let mut seen = BTreeSet::new();
    let blobs = std::iter::once(&docker.config).chain(&docker.layers);
    chosen.blobs = blobs.filter(|blob| seen.insert(blob.digest.clone())).cloned().collect();
    notes.push(format!(
        "image `{}` has zstd layers, which docker before 23 does not read: they are exported without compression",
        chosen.exported.reference.written()
    ));
    Ok(())
}
