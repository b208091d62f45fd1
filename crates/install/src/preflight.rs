//! Everything that can be found wrong before the first byte is pushed: names, the target, its existing tags, the YAML.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use ferry_archive::HeadImage;
use ferry_content::Problems;
use ferry_image::manifest::MAX_MANIFEST;
use ferry_image::{Descriptor, Digest, Ignore, Layout, Manifest, Relocated, Relocation, SetRule, relocation};
use ferry_rewrite::emit::{Emitted, Form as Emit, Options as Emitting};
use serde::{Deserialize, Serialize};

use crate::bundles::Bundles;
use crate::destination::Destination;
use crate::form::{self, Form, Forms, IndexMode};
use crate::names::Named;
use crate::probe::{self, Open, Probe, Stock};
use crate::referrers::{self, PlannedReferrer};
use crate::relied::{self, Relied};
use crate::yaml::{self, Carried, Text};
use crate::{Error, emit, existing, notes, push, receipt, recheck};

/// What to do where a tag is there already with another digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnExisting {
    /// Move the tag.
    #[default]
    Overwrite,
    /// Leave it, and the image out.
    Skip,
    /// Push nothing at all.
    Fail,
}

/// How to install.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How names are made; the bundle's own choice when none.
    pub layout: Option<Layout>,
    /// In which form images of several platforms are put.
    pub index: IndexMode,
    /// What to do with existing tags.
    pub on_existing: OnExisting,
    /// The user's YAML: files and folders.
    pub yaml: Vec<PathBuf>,
    /// Where the results go; nowhere when none: then no YAML is rewritten, and nothing is left but what is at the target.
    pub out: Option<PathBuf>,
    /// Whether references that are not carried are errors.
    pub strict: bool,
    /// In which forms the relocation is written.
    pub emit: Vec<Emit>,
    /// How nodes reach the target, for those forms. Whether by plain HTTP is found out where the target is a registry.
    pub emitting: Emitting,
    /// Whether signatures and the like stay behind.
    pub without_referrers: bool,
    /// Where to write what is missing of what the bundles leave to the target, if anything is.
    pub want: Option<PathBuf>,
    /// Whether what stands below a manifest that is there is asked for as well, and pushed again where it is not there.
    pub recheck: bool,
    /// Requests at a time.
    pub jobs: usize,
    /// Whether nothing will be pushed: then the target is also asked what only people want to know.
    pub is_look: bool,
}

/// What has to happen to one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing: this digest is there.
    Present(Digest),
    /// This digest is there, and these blobs below it, or a manifest, are not: they are pushed again, and the tag stays as it is.
    Incomplete(Digest, Vec<Descriptor>),
    /// It is pushed.
    Absent,
    /// It is pushed, and its tag moves from this digest.
    Moves(Digest),
    /// Its tag stays at this digest.
    Skipped(Digest),
}

impl State {
    /// Whether anything is pushed.
    #[must_use]
    pub fn is_pushed(&self) -> bool {
        self.is_named() || matches!(self, Self::Incomplete(..))
    }

    /// Whether something is put under the image's name that does not stand there.
    #[must_use]
    pub fn is_named(&self) -> bool {
        matches!(self, Self::Absent | Self::Moves(_))
    }
}

/// One image of the bundle, with its place at the target.
#[derive(Debug, Clone)]
pub struct Planned {
    /// As in the head.
    pub image: HeadImage,
    /// The repository on the target's host, prefix included.
    pub repository: String,
    /// The tag there.
    pub tag: Option<String>,
    /// In which form it will stand there.
    pub forms: Forms,
    /// What has to happen.
    pub state: State,
}

impl Planned {
    /// The form that is there, or that will be put.
    #[must_use]
    pub fn settled(&self) -> &Form {
        let there = match &self.state {
            State::Present(digest) | State::Incomplete(digest, _) => Some(digest),
            _ => None,
        };
        let second = self.forms.second.as_ref().filter(|form| Some(&form.root.digest) == there);
        second.unwrap_or(&self.forms.first)
    }
}

/// An install that can be carried out.
pub struct Preflight {
    /// The bundles.
    pub bundles: Arc<Bundles>,
    /// The target.
    pub destination: Destination,
    /// Every image.
    pub images: Vec<Planned>,
    /// What refers to them, and follows them.
    pub referrers: Vec<PlannedReferrer>,
    /// The bytes of manifests and indexes.
    pub documents: BTreeMap<Digest, Bytes>,
    /// The YAML to rewrite.
    pub texts: Vec<Text>,
    /// The relocation in the forms that were asked for, as far as it is known before the push.
    pub emitted: Vec<Emitted>,
    /// Things that are no errors but that somebody should know.
    pub warnings: Vec<String>,
    /// What the target was asked, and answered.
    pub probe: Probe,
    /// Where something else stands at the target than at its source.
    pub notes: Vec<String>,
    /// As asked for.
    pub options: Options,
    pub(crate) open: Open,
    pub(crate) relied: Relied,
    /// What the bundles say of YAML, together.
    pub(crate) rules: Vec<SetRule>,
    pub(crate) ignore: Vec<Ignore>,
}

impl Preflight {
    /// Gives up the uploads that were opened by the probe and that no push went on with. What the target cannot cancel is said.
    pub async fn close(&self) -> Vec<String> {
        self.open.end().await
    }

    /// What rewriting needs, with the images where they went.
    pub(crate) fn carried<'a>(&'a self, relocation: &'a Relocation) -> Carried<'a> {
        Carried { relocation, rules: &self.rules, ignore: &self.ignore }
    }
}

/// Looks at everything before anything is pushed.
///
/// # Errors
/// Every problem there is, together.
pub async fn preflight(
    bundles: Arc<Bundles>,
    destination: Destination,
    mut options: Options,
) -> Result<Preflight, Problems> {
    let documents = documents(&bundles)?;
    let mut problems = Problems::default();
    let mut notes = Vec::new();
    let mut images = place(&bundles, destination.target(), &documents, &options, &mut notes, &mut problems);
    let is_aside = options.out.is_none() && options.yaml.is_empty();
    let texts = if is_aside {
        notes.extend(yaml::aside(&bundles));
        Vec::new()
    } else {
        yaml::collect(&bundles, &options.yaml, options.out.as_deref(), &mut notes, &mut problems)
    };
    let (rules, replaced, conflicts) = bundles.together().rules();
    notes.extend(replaced);
    conflicts.into_iter().for_each(|conflict| problems.add("", conflict));
    let ignore = bundles.together().ignore();
    // digests at the target are not settled yet, but what is carried under which name is
    let provisional = relocation(destination.target(), images.iter().map(|i| (i, &i.forms.first.root.digest)));
    let (mut warnings, mut emitted) = (Vec::new(), Vec::new());
    match provisional {
        Ok(relocation) => {
            let carried = Carried { relocation: &relocation, rules: &rules, ignore: &ignore };
            let rewritten: Vec<_> = texts.iter().map(|text| carried.apply(text)).collect();
            let all = || texts.iter().zip(&rewritten);
            warnings = carried.gate(all(), options.strict).map_err(|p| problems.append(p)).unwrap_or_default();
            for rule in
                rules.iter().filter(|rule| !is_aside && rule.fits_none(texts.iter().map(|text| text.name.as_str())))
            {
                let path = rule.paths.join(", ");
                let why = format!("no file is called `{}`", rule.file.as_deref().unwrap_or_default());
                warnings.push(Error::Rule { path, why }.to_string());
            }
            emitted = emit::all(&options.emit, &relocation, &options.emitting, all());
            if let Some(out) = &options.out {
                emit::check(&emitted, &relocation, out, &texts, &mut problems);
            }
        }
        Err(error) => problems.add("", error),
    }
    if let Some(out) = &options.out {
        receipt::check(out, &texts, &emitted, &mut problems);
        warnings.extend(receipt::older(out, &bundles));
    }
    let host = destination.target().host().to_owned();
    let ping = match destination.ping().await {
        Ok(ping) => ping,
        Err(error) => {
            problems.add("target", error);
            problems.warn(warnings);
            return Err(problems);
        }
    };
    if let Some(ping) = &ping {
        options.emitting.plain_http = ping.plain_http;
    }
    let unanswered = existing::look(&destination, &mut images, options.jobs).await;
    existing::settle(&mut images, options.on_existing, &host, &mut problems);
    let mut relied = Relied::default();
    // of a target that did not answer nothing more is to be learnt
    if unanswered.is_empty() {
        if options.recheck {
            recheck::look(&destination, &mut images, &documents, options.jobs, &mut notes, &mut problems).await;
        }
        look(&mut relied, &destination, &bundles, &images, &documents, options.jobs, &mut problems).await;
    }
    let stock = Stock { documents: &documents, homes: &relied.homes };
    let (probe, open) =
        probe::ask(&destination, ping.as_ref(), &mut images, unanswered, stock, &options, &mut problems).await;
    if !problems.is_empty() {
        open.end().await;
        relied.write_want(&bundles, options.want.as_deref(), &mut problems);
        problems.warn(warnings);
        return Err(problems);
    }
    notes.extend(notes::of(&images, probe.sparse_index.answer, ping.and_then(|ping| ping.product)));
    let settled = images.iter().map(|planned| (planned, &planned.settled().root.digest));
    let following = match referrers::plan(settled, &documents) {
        Ok(following) => following,
        Err(error) => {
            open.end().await;
            return Err(error.into());
        }
    };
    notes.extend(following.notes);
    let referrers = following.referrers;
    notes.extend(bundles.take_notes());
    let mut preflight = Preflight {
        bundles,
        destination,
        images,
        referrers,
        documents,
        texts,
        emitted,
        warnings,
        probe,
        notes,
        options,
        open,
        relied,
        rules,
        ignore,
    };
    preflight.look_at_referrers(&mut problems).await;
    preflight.look_for_their_blobs(&mut problems).await;
    if !problems.is_empty() {
        preflight.close().await;
        preflight.relied.write_want(&preflight.bundles, preflight.options.want.as_deref(), &mut problems);
        return Err(problems);
    }
    Ok(preflight)
}

/// Looks for the blobs of images that no bundle carries; each image that lacks some is a problem.
async fn look(
    relied: &mut Relied,
    destination: &Destination,
    bundles: &Bundles,
    images: &[Planned],
    documents: &BTreeMap<Digest, Bytes>,
    jobs: usize,
    problems: &mut Problems,
) {
    let (there, pushed) = match push::blobs_of_images(images, documents) {
        Ok(blobs) => blobs,
        Err(error) => return problems.add("", error),
    };
    if let Err(error) = relied.look(destination, bundles, images, (&there, &pushed), jobs).await {
        return problems.add("target", error);
    }
    if relied.missing.is_empty() {
        return;
    }
    // all that is missing is told at once, so that it can be brought at once
    let mut whole = Vec::with_capacity(pushed.len());
    let pushed_images = || images.iter().filter(|planned| planned.state.is_pushed());
    for (planned, (repository, mut blobs)) in pushed_images().zip(pushed) {
        for referrer in &planned.image.referrers {
            match referrers::blobs_of(referrer, documents) {
                Ok(more) => blobs.extend(more),
                Err(error) => return problems.add(format!("image `{}`", planned.image.reference), error),
            }
        }
        whole.push((repository, blobs));
    }
    if let Err(error) = relied.look(destination, bundles, images, (&there, &whole), jobs).await {
        return problems.add("target", error);
    }
    for (planned, (_, blobs)) in pushed_images().zip(whole) {
        if let Some(error) = relied.lacking(bundles, &blobs) {
            problems.add(format!("image `{}`", planned.image.reference), error);
        }
    }
}

/// Every image with its place and its forms; two on one name are problems.
fn place(
    bundles: &Bundles,
    target: &ferry_image::Target,
    documents: &BTreeMap<Digest, Bytes>,
    options: &Options,
    notes: &mut Vec<String>,
    problems: &mut Problems,
) -> Vec<Planned> {
    let mut named = named(bundles, options.layout, notes, problems);
    if options.without_referrers {
        named.iter_mut().for_each(|named| named.image.referrers.clear());
    }
    for clash in relocation::collisions(named.iter().map(|n| (&n.image.reference, &n.image.root.digest, &n.name))) {
        problems.add("", Error::Collision(clash));
    }
    let mut images = Vec::with_capacity(named.len());
    for named in named {
        match form::choose(&named, documents, options.index) {
            Ok(forms) => images.push(Planned {
                repository: target.path_of(&named.name),
                tag: named.name.tag,
                image: named.image,
                forms,
                state: State::Absent,
            }),
            Err(error) => problems.add(format!("image `{}`", named.image.reference), error),
        }
    }
    images
}

/// The images of all bundles with their names.
pub(crate) fn named(
    bundles: &Bundles,
    layout: Option<Layout>,
    notes: &mut Vec<String>,
    problems: &mut Problems,
) -> Vec<Named> {
    let carries = bundles.images(layout);
    notes.extend(carries.notes);
    carries.conflicts.into_iter().for_each(|conflict| problems.add("", conflict));
    carries.images.into_iter().map(|(named, _)| named).collect()
}

/// The images of bundles that are served by themselves; each that lacks something is a problem. One that several of them have, pinned in
/// one, other platforms in another, is served as its original index.
pub fn served(
    bundles: &Bundles,
    documents: &BTreeMap<Digest, Bytes>,
    layout: Option<Layout>,
    notes: &mut Vec<String>,
    problems: &mut Problems,
) -> Vec<Named> {
    let carries = bundles.images(layout);
    notes.extend(carries.notes);
    carries.conflicts.into_iter().for_each(|conflict| problems.add("", conflict));
    let mut served = Vec::with_capacity(carries.images.len());
    for (mut named, of) in carries.images {
        named.is_pinned |= of.len() > 1;
        let lacking = push::blobs_of(&named.image, documents).and_then(|mut blobs| {
            for referrer in &named.image.referrers {
                blobs.extend(referrers::blobs_of(referrer, documents)?);
            }
            Ok(relied::unserved(bundles, &blobs))
        });
        if let Some(error) = lacking.unwrap_or_else(Some) {
            problems.add(format!("image `{}`", named.image.reference), error);
        }
        served.push(named);
    }
    served
}

/// Every manifest and index of the bundles: roots, platforms, the indexes between them, referrers.
///
/// # Errors
/// When one is damaged, or is not what it should be.
pub fn documents(bundles: &Bundles) -> Result<BTreeMap<Digest, Bytes>, Error> {
    let mut documents = BTreeMap::new();
    let mut wanted = Vec::new();
    for image in bundles.heads().flat_map(|head| &head.images) {
        wanted.push(image.root.clone());
        wanted.extend(image.platforms.iter().map(|p| p.manifest.clone()).chain(image.referrers.iter().cloned()));
    }
    while let Some(descriptor) = wanted.pop() {
        if documents.contains_key(&descriptor.digest) || bundles.blob(&descriptor.digest).is_none() {
            continue;
        }
        let bytes = bundles.read_small(&descriptor.digest, MAX_MANIFEST)?;
        documents.insert(descriptor.digest.clone(), bytes);
        if let Manifest::Index(index) = form::parse(&descriptor, &documents)? {
            wanted.extend(index.manifests.into_iter().filter(|d| bundles.blob(&d.digest).is_some()));
        }
    }
    Ok(documents)
}

/// The relocation, with each image under the digest given for it.
pub(crate) fn relocation<'a>(
    target: &ferry_image::Target,
    images: impl Iterator<Item = (&'a Planned, &'a Digest)>,
) -> Result<Relocation, Error> {
    let mut relocation = Relocation::new(target);
    for (planned, digest) in images {
        let relocated = Relocated {
            reference: planned.image.reference.clone(),
            repository: format!("{}/{}", target.host(), planned.repository),
            tag: planned.tag.clone(),
            source_digest: planned.image.root.digest.clone(),
            digest: digest.clone(),
        };
        relocated.replacement(&planned.image.reference).map_err(Error::Name)?;
        relocation.images.push(relocated);
    }
    relocation.images.sort_by(|a, b| a.reference.cmp(&b.reference));
    Ok(relocation)
}

/// For each image the first that has its name there: what is asked or put under a name is so once.
pub(crate) fn firsts(images: &[Planned]) -> Vec<usize> {
    let mut seen = BTreeMap::new();
    let name =
        |planned: &Planned| (planned.repository.clone(), planned.tag.clone(), planned.forms.first.root.digest.clone());
    images.iter().enumerate().map(|(i, planned)| *seen.entry(name(planned)).or_insert(i)).collect()
}
