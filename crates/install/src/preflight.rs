//! Everything that can be found wrong before the first byte is pushed: names, the target, its existing tags, the YAML.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use ferry_archive::{Bundle, HeadImage};
use ferry_content::Problems;
use ferry_image::manifest::MAX_MANIFEST;
use ferry_image::{Digest, Layout, Manifest, Relocated, Relocation, relocation};
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::destination::Destination;
use crate::form::{self, Form, Forms, IndexMode};
use crate::names::named;
use crate::receipt;
use crate::yaml::{self, Text};

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
    /// Where the results go.
    pub out: PathBuf,
    /// Whether references that are not carried are errors.
    pub strict: bool,
    /// Requests at a time.
    pub jobs: usize,
}

/// What has to happen to one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing: this digest is there.
    Present(Digest),
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

/// An install that can be carried out.
pub struct Preflight {
    /// The bundle.
    pub bundle: Arc<Bundle>,
    /// The target.
    pub destination: Destination,
    /// Every image.
    pub images: Vec<Planned>,
    /// The bytes of manifests and indexes.
    pub documents: BTreeMap<Digest, Bytes>,
    /// The YAML to rewrite.
    pub texts: Vec<Text>,
    /// Things that are no errors but that somebody should know.
    pub warnings: Vec<String>,
    /// As asked for.
    pub options: Options,
}

/// Looks at everything before anything is pushed.
///
/// # Errors
/// Every problem there is, together.
pub async fn preflight(bundle: Arc<Bundle>, destination: Destination, options: Options) -> Result<Preflight, Problems> {
    let documents = documents(&bundle)?;
    let mut problems = Problems::default();
    let mut images = place(&bundle, destination.target(), &documents, &options, &mut problems);
    let texts = yaml::collect(&bundle, &options.yaml, &options.out, &mut problems);
    // digests at the target are not settled yet, but what is carried under which name is
    let provisional = relocation(destination.target(), images.iter().map(|i| (i, &i.forms.first.root.digest)));
    let gated = match provisional {
        Ok(relocation) => yaml::gate(&texts, &relocation, &bundle, options.strict),
        Err(error) => Err(Problems::from(error)),
    };
    let warnings = gated.map_err(|p| problems.append(p)).unwrap_or_default();
    receipt::check(&options.out, &texts, &mut problems);
    let host = destination.target().host().to_owned();
    match destination.ping().await {
        Err(error) => problems.add(format!("target {host}"), error),
        Ok(()) => {
            let closed = look(&destination, &mut images, options.jobs, &mut problems).await;
            settle(&mut images, options.on_existing, &host, &mut problems);
            check_push(&destination, &images, &closed, options.jobs, &mut problems).await;
        }
    }
    problems.or(Preflight { bundle, destination, images, documents, texts, warnings, options })
}

/// Every image with its place and its forms; two on one name are problems.
fn place(
    bundle: &Bundle,
    target: &ferry_image::Target,
    documents: &BTreeMap<Digest, Bytes>,
    options: &Options,
    problems: &mut Problems,
) -> Vec<Planned> {
    let named = named(bundle.head(), options.layout);
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

/// Every manifest and index of the bundle: roots, platforms, and the indexes between them.
///
/// # Errors
/// When one is damaged, or is not what it should be.
pub fn documents(bundle: &Bundle) -> Result<BTreeMap<Digest, Bytes>, Error> {
    let mut documents = BTreeMap::new();
    let mut wanted = Vec::new();
    for image in &bundle.head().images {
        wanted.push(image.root.clone());
        wanted.extend(image.platforms.iter().map(|p| p.manifest.clone()));
    }
    while let Some(descriptor) = wanted.pop() {
        if documents.contains_key(&descriptor.digest) || bundle.blob(&descriptor.digest).is_none() {
            continue;
        }
        let bytes = bundle.read_small(&descriptor.digest, MAX_MANIFEST)?;
        documents.insert(descriptor.digest.clone(), bytes);
        if let Manifest::Index(index) = form::parse(&descriptor, &documents)? {
            wanted.extend(index.manifests.into_iter().filter(|d| bundle.blob(&d.digest).is_some()));
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

/// Asks the target what it has. Gives the repositories of which it does not say.
async fn look(
    destination: &Destination,
    images: &mut [Planned],
    jobs: usize,
    problems: &mut Problems,
) -> BTreeSet<String> {
    let firsts = firsts(images);
    let unique: Vec<usize> = firsts.iter().enumerate().filter(|(i, first)| i == *first).map(|(i, _)| i).collect();
    let tasks = unique.iter().map(|i| state(destination, &images[*i]));
    let states: Vec<Result<State, Error>> = stream::iter(tasks).buffered(jobs.max(1)).collect().await;
    let mut closed = BTreeSet::new();
    for (i, state) in unique.into_iter().zip(states) {
        match state {
            Ok(state) => images[i].state = state,
            Err(error) => {
                closed.insert(images[i].repository.clone());
                problems.add(format!("image `{}`", images[i].image.reference), error);
            }
        }
    }
    for (i, first) in firsts.into_iter().enumerate() {
        images[i].state = images[first].state.clone();
    }
    closed
}

async fn state(destination: &Destination, planned: &Planned) -> Result<State, Error> {
    let forms = || std::iter::once(&planned.forms.first).chain(&planned.forms.second);
    if let Some(tag) = &planned.tag {
        return match destination.digest(&planned.repository, tag).await? {
            None => Ok(State::Absent),
            Some(found) => match forms().find(|f| f.root.digest == found) {
                Some(form) if children_present(destination, planned, form).await? => Ok(State::Present(found)),
                Some(_) => Ok(State::Absent),
                None => Ok(State::Moves(found)),
            },
        };
    }
    for form in forms() {
        let digest = &form.root.digest;
        if destination.digest(&planned.repository, &digest.to_string()).await?.as_ref() == Some(digest)
            && children_present(destination, planned, form).await?
        {
            return Ok(State::Present(digest.clone()));
        }
    }
    Ok(State::Absent)
}

/// A registry vouches for what a whole index names; of a sparse one the carried manifests must be asked for.
async fn children_present(destination: &Destination, planned: &Planned, form: &Form) -> Result<bool, Error> {
    if form.sparse {
        for child in &form.children {
            if destination.digest(&planned.repository, &child.digest.to_string()).await?.is_none() {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Applies the choice for tags that are there with another digest.
fn settle(images: &mut [Planned], on_existing: OnExisting, host: &str, problems: &mut Problems) {
    for planned in images {
        let State::Moves(found) = &planned.state else { continue };
        match on_existing {
            OnExisting::Overwrite => {}
            OnExisting::Skip => planned.state = State::Skipped(found.clone()),
            OnExisting::Fail => {
                let tag = planned.tag.as_deref().unwrap_or_default();
                let name = format!("{host}/{}:{tag}", planned.repository);
                let ours = planned.forms.first.root.digest.clone();
                let error = Error::Existing { name, found: found.clone(), ours };
                problems.add(format!("image `{}`", planned.image.reference), error);
            }
        }
    }
}

/// Tries whether every repository that needs a push takes one; a `closed` one has been reported already.
async fn check_push(
    destination: &Destination,
    images: &[Planned],
    closed: &BTreeSet<String>,
    jobs: usize,
    problems: &mut Problems,
) {
    let pushed = images.iter().filter(|i| i.state.is_pushed()).map(|i| &i.repository);
    let repositories: BTreeSet<&String> = pushed.filter(|r| !closed.contains(*r)).collect();
    let tasks = repositories.iter().map(|repository| destination.check_push(repository));
    let results: Vec<Result<(), Error>> = stream::iter(tasks).buffered(jobs.max(1)).collect().await;
    for (repository, result) in repositories.iter().zip(results) {
        if let Err(error) = result {
            problems.add(format!("repository `{repository}`"), error);
        }
    }
}
