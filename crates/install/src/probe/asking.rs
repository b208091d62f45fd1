//! The requests of the probe, and their answers put together.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ferry_content::Problems;
use ferry_image::{Descriptor, Digest, Manifest, Target};
use ferry_registry_client::{Authentication, Client, Ping, Repository, Trial};
use futures_util::{StreamExt as _, stream};

use super::opened::Opened;
use super::refusal::{self, Known, Refused};
use super::{Answer, Open, Probe, existing_tags, sparse};
use crate::Error;
use crate::destination::Destination;
use crate::preflight::{Options, Planned, State};
use crate::{form, push};

/// Asks the target what the plan depends on, and settles the forms of `images` by it. `unanswered` are images of which it did not say
/// whether they are there.
///
/// Every repository that takes no push is a problem, those of one cause together.
pub(crate) async fn ask(
    destination: &Destination,
    ping: Option<&Ping>,
    images: &mut [Planned],
    unanswered: Vec<(usize, Error)>,
    stock: Stock<'_>,
    options: &Options,
    problems: &mut Problems,
) -> (Probe, Open) {
    let (Some(ping), Destination::Registry { client, target }) = (ping, destination) else {
        for (i, error) in unanswered {
            problems.add(format!("image `{}`", images[i].image.reference), error);
        }
        let found = sparse::settle(destination, images, &BTreeSet::new(), problems).await;
        return (Probe::of_store(found.answer, images), Open::default());
    };
    let registry = Registry { client, target };
    let repository = |(i, _): &(usize, Error)| images[*i].repository.clone();
    let mut closed: BTreeSet<String> =
        unanswered.iter().filter(|(_, error)| !refusal::may_be_told_better(error)).map(repository).collect();
    let mut repositories: BTreeSet<String> = unanswered.iter().map(repository).collect();
    repositories.extend(images.iter().filter(|p| p.state.is_pushed()).map(|p| p.repository.clone()));
    repositories.retain(|repository| !closed.contains(repository));

    let absent = if options.is_look { absent(registry, images, &repositories).await } else { None };
    let (mut trials, refused) = open(registry, images, &repositories, stock, options).await;
    let told: BTreeSet<&String> = refused.iter().map(|one| &one.repository).collect();
    let path_depth = path_depth(&trials);
    let push = push(&trials);
    for (i, error) in unanswered {
        if !told.contains(&images[i].repository) {
            problems.add(format!("image `{}`", images[i].image.reference), error);
        }
    }
    closed.extend(refused.iter().map(|one| one.repository.clone()));
    if !refused.is_empty() {
        let shorter = shorter(registry, &refused).await;
        let (product, address) = (ping.product, ping.address.as_str());
        let known = Known { target, product, address, shorter: shorter.as_ref().map(|(path, _)| path.as_str()) };
        for (subject, error) in refusal::explain(&known, refused) {
            problems.add(subject, error);
        }
        trials.extend(shorter.map(|(repository, trial)| Opened { repository, blob: None, trial }));
    }
    let found = sparse::settle(destination, images, &closed, problems).await;
    let probe = Probe {
        product: ping.product.map(|product| product.to_string()),
        reachable: Answer::yes(format!("{} answers", ping.address)),
        auth: auth(registry, ping, images.first()).await,
        create_on_push: create_on_push(absent, &trials),
        push,
        path_depth,
        sparse_index: found.answer,
        mount: mount(&trials, options.is_look),
        chunks: chunks(&mut trials, options.is_look).await,
        existing_tags: existing_tags(images),
        leaves: found.leaves,
    };
    (probe, Open::new(trials))
}

/// What there is to push, and what the target has of it.
#[derive(Clone, Copy)]
pub(crate) struct Stock<'a> {
    /// The bytes of manifests and indexes.
    pub(crate) documents: &'a BTreeMap<Digest, Bytes>,
    /// Blobs that no bundle carries, and the repositories that have them.
    pub(crate) homes: &'a BTreeMap<Digest, String>,
}

type Trials = Vec<Opened>;

/// The registry that is asked.
#[derive(Clone, Copy)]
struct Registry<'a> {
    client: &'a Client,
    target: &'a Target,
}

impl Registry<'_> {
    fn repository(&self, path: &str) -> Result<Repository, Error> {
        Ok(self.client.repository(self.target.host(), path)?)
    }

    async fn try_upload(&self, path: &str, mount: Option<&Digest>) -> Result<Trial, Error> {
        Ok(self.repository(path)?.try_upload(mount).await?)
    }

    async fn is_known(&self, path: &str) -> Result<bool, Error> {
        Ok(self.repository(path)?.to_push().is_known().await?)
    }
}

/// Opens an upload in each repository.
async fn open(
    registry: Registry<'_>,
    images: &[Planned],
    repositories: &BTreeSet<String>,
    stock: Stock<'_>,
    options: &Options,
) -> (Trials, Vec<Refused>) {
    let mut largest = if options.is_look { BTreeMap::new() } else { largest(images, stock) };
    let task = |repository: &String| {
        let repository = repository.clone();
        let blob =
            if options.is_look { some_blob(images, &repository, stock.documents) } else { largest.remove(&repository) };
        async move {
            let result = registry.try_upload(&repository, blob.as_ref()).await;
            let is_unknown = match &result {
                Err(error) if refusal::was_dropped(error) => {
                    registry.is_known(&repository).await.is_ok_and(|known| !known)
                }
                _ => false,
            };
            (repository, blob, result, is_unknown)
        }
    };
    let results: Vec<_> = stream::iter(repositories.iter().map(task)).buffered(options.jobs.max(1)).collect().await;
    let (mut trials, mut refused) = (Vec::new(), Vec::new());
    for (repository, blob, result, is_unknown) in results {
        match result {
            Ok(trial) => trials.push(Opened { repository, blob, trial }),
            Err(error) => {
                let image = images.iter().find(|planned| planned.repository == repository);
                let image = image.map(|planned| planned.image.reference.to_string()).unwrap_or_default();
                refused.push(Refused { repository, image, error, is_unknown });
            }
        }
    }
    (trials, refused)
}

/// The largest of the blobs that are sent to each repository: the one that is begun first.
fn largest(images: &[Planned], stock: Stock<'_>) -> BTreeMap<String, Digest> {
    // what is damaged in the bundle is told where it is pushed
    let Ok((there, pushed)) = push::blobs_of_images(images, stock.documents) else { return BTreeMap::new() };
    let mut largest: BTreeMap<String, Descriptor> = BTreeMap::new();
    let is_sent = |need: &push::Need| need.mount_from.is_none() && need.home.is_none();
    for need in push::needs(&there, pushed, stock.homes, true).into_iter().filter(is_sent) {
        let is_larger = largest.get(&need.repository).is_none_or(|blob| blob.size < need.blob.size);
        if is_larger {
            largest.insert(need.repository, need.blob);
        }
    }
    largest.into_iter().map(|(repository, blob)| (repository, blob.digest)).collect()
}

/// A blob that the repository may have: that of an image that is there rather than of one that is not.
fn some_blob(images: &[Planned], repository: &str, documents: &BTreeMap<Digest, Bytes>) -> Option<Digest> {
    let here = || images.iter().filter(|p| p.repository == repository);
    let planned = here().find(|p| matches!(p.state, State::Present(_))).or_else(|| here().next())?;
    match form::parse(&planned.image.platforms.first()?.manifest, documents).ok()? {
        Manifest::Image(image) => Some(image.config.digest),
        Manifest::Index(_) => None,
    }
}

/// A repository that the target does not know yet, if one is pushed to.
async fn absent(registry: Registry<'_>, images: &[Planned], repositories: &BTreeSet<String>) -> Option<String> {
    let is_new =
        |repository: &&String| images.iter().filter(|p| p.repository == **repository).all(|p| p.state == State::Absent);
    let repository = repositories.iter().find(is_new)?;
    let is_known = registry.is_known(repository).await.ok()?;
    (!is_known).then(|| repository.clone())
}

/// The first refused repository's name with fewer parts, if that takes an upload.
async fn shorter(registry: Registry<'_>, refused: &[Refused]) -> Option<(String, Trial)> {
    let path = refused.iter().find_map(|one| refusal::shorter(registry.target, one))?;
    let trial = registry.try_upload(&path, None).await.ok()?;
    Some((path, trial))
}

fn push(trials: &Trials) -> Answer {
    match trials.len() {
        0 => Answer::not_asked("nothing is pushed"),
        1 => Answer::yes("an upload was opened in the repository"),
        n => Answer::yes(format!("an upload was opened in each of {n} repositories")),
    }
}

fn path_depth(trials: &Trials) -> Answer {
    match refusal::deepest(trials.iter().map(|opened| &opened.repository)) {
        None => Answer::not_asked("nothing is pushed"),
        Some(name) => Answer::yes(format!("`{name}` is taken, and none has more parts")),
    }
}

fn create_on_push(absent: Option<String>, trials: &Trials) -> Answer {
    match absent {
        Some(name) if trials.iter().any(|opened| opened.repository == name) => {
            Answer::yes(format!("`{name}` is not there, and takes an upload"))
        }
        Some(name) => Answer::no(format!("`{name}` is not there, and takes no upload")),
        None => Answer::not_asked("no repository is known to be new"),
    }
}

fn mount(trials: &Trials, is_look: bool) -> Answer {
    let mounts =
        |answer| trials.iter().find(|opened| opened.trial.mounts == Some(answer)).map(|opened| &opened.repository);
    if let Some(repository) = mounts(true) {
        Answer::yes(format!("a blob that `{repository}` has was given without an upload"))
    } else if let Some(repository) = mounts(false) {
        Answer::no(format!("it was refused in `{repository}`: a blob for several is sent to each"))
    } else if is_look {
        Answer::not_asked("there is no blob yet to try it with")
    } else {
        Answer::not_asked("the push asks for each blob")
    }
}

async fn chunks(trials: &mut Trials, is_look: bool) -> Answer {
    if let Some(smallest) = trials.iter().find_map(|opened| opened.trial.smallest_chunk) {
        return Answer::yes(format!("it says so: of {smallest} bytes or more"));
    }
    if !is_look {
        return Answer::not_asked("the push finds out with the first blob that needs them");
    }
    for Opened { repository, trial, .. } in trials {
        return match trial.takes_chunks().await {
            Ok(Some(true)) => Answer::yes(format!("a chunk of one byte was taken in `{repository}`")),
            Ok(Some(false)) => Answer::no(format!("a chunk of one byte was refused in `{repository}`")),
            Ok(None) => continue,
            Err(error) => Answer::not_asked(format!("a chunk of one byte met with another failure: {error}")),
        };
    }
    Answer::not_asked("no upload was open to try it with")
}

async fn auth(registry: Registry<'_>, ping: &Ping, some: Option<&Planned>) -> Answer {
    let login = match some.and_then(|planned| registry.repository(&planned.repository).ok()) {
        Some(repository) => repository.login().await.ok().flatten(),
        None => None,
    };
    Answer::yes(match (ping.authentication, login) {
        (Authentication::None, None) => "none is asked for".to_owned(),
        (Authentication::None, Some(origin)) => format!("none is asked for; the login is from {origin}"),
        (Authentication::Basic, Some(origin)) => format!("name and password from {origin}"),
        (Authentication::Bearer, Some(origin)) => format!("a token for the login from {origin}"),
        (Authentication::Bearer, None) => "a token for anybody".to_owned(),
        (Authentication::Basic, None) => "a name and a password, where it lets nobody else".to_owned(),
    })
}
