//! What stands below the manifests that are there, asked for one by one. A registry that has a manifest vouches for what it names, but
//! a garbage collection may have taken it away since, and a disk may have damaged it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ferry_content::Problems;
use ferry_image::{Descriptor, Digest};
use futures_util::{StreamExt as _, stream};

use crate::destination::Destination;
use crate::preflight::{Planned, Preflight, State, firsts};
use crate::referrers::{self, PlannedReferrer};
use crate::{Error, push};

/// What one image or referrer lacks at the target.
#[derive(Debug, Default)]
struct Lacking {
    blobs: Vec<Descriptor>,
    manifests: Vec<Descriptor>,
}

impl Lacking {
    fn is_empty(&self) -> bool {
        self.blobs.is_empty() && self.manifests.is_empty()
    }

    /// What it is, for people.
    fn notes<'a>(&'a self, subject: &'a str) -> impl Iterator<Item = String> + 'a {
        let blobs = self.blobs.iter().map(|blob| ("blob", blob));
        let all = blobs.chain(self.manifests.iter().map(|manifest| ("manifest", manifest)));
        all.map(move |(what, lost)| {
            format!(
                "{subject}: its manifest is there, and {what} {} ({} bytes) is lost or damaged: to be pushed again",
                lost.digest, lost.size
            )
        })
    }
}

/// Asks for all that stands below the images that are there, and finds out which of them are not whole.
pub(crate) async fn look(
    destination: &Destination,
    images: &mut [Planned],
    documents: &BTreeMap<Digest, Bytes>,
    jobs: usize,
    notes: &mut Vec<String>,
    problems: &mut Problems,
) {
    let firsts = firsts(images);
    let is_first = |i: &usize| firsts[*i] == *i && matches!(images[*i].state, State::Present(_));
    let present: Vec<usize> = (0..images.len()).filter(is_first).collect();
    let mut blobs = Vec::with_capacity(present.len());
    for i in &present {
        match push::blobs_of(&images[*i].image, documents) {
            Ok(of) => blobs.push((images[*i].repository.as_str(), of)),
            Err(error) => return problems.add(format!("image `{}`", images[*i].image.reference), error),
        }
    }
    let absent = match absent(destination, &blobs, jobs).await {
        Ok(absent) => absent,
        Err(error) => return problems.add("target", error),
    };
    let manifests = present.iter().map(|i| {
        let planned = &images[*i];
        lost(destination, &planned.repository, &planned.settled().children)
    });
    let manifests: Vec<_> = stream::iter(manifests).buffered(jobs.max(1)).collect().await;
    let mut lacking = Vec::new();
    for ((i, (repository, blobs)), manifests) in present.into_iter().zip(blobs).zip(manifests) {
        let subject = format!("image `{}`", images[i].image.reference);
        let is_absent = |blob: &Descriptor| absent.contains(&key(destination, repository, blob));
        match manifests {
            Ok(manifests) => {
                let one = Lacking { blobs: blobs.into_iter().filter(is_absent).collect(), manifests };
                notes.extend(one.notes(&subject));
                lacking.push((i, one));
            }
            Err(error) => problems.add(subject, error),
        }
    }
    for (i, one) in lacking.into_iter().filter(|(_, one)| !one.is_empty()) {
        if let State::Present(digest) = images[i].state.clone() {
            images[i].state = State::Incomplete(digest, one.blobs);
        }
    }
    for (i, first) in firsts.into_iter().enumerate() {
        images[i].state = images[first].state.clone();
    }
}

/// A blob where it is asked for: a store has one place for all repositories.
fn key(destination: &Destination, repository: &str, blob: &Descriptor) -> (String, Digest) {
    let repository = if destination.has_repository_blobs() { repository } else { "" };
    (repository.to_owned(), blob.digest.clone())
}

/// Those of the blobs that are not where they should be, each asked for once.
async fn absent(
    destination: &Destination,
    blobs: &push::Blobs<'_>,
    jobs: usize,
) -> Result<BTreeSet<(String, Digest)>, Error> {
    let mut asked = BTreeSet::new();
    let all = blobs.iter().flat_map(|(repository, blobs)| blobs.iter().map(|blob| (*repository, blob)));
    let all: Vec<_> = all.filter(|(repository, blob)| asked.insert(key(destination, repository, blob))).collect();
    let ask = |(repository, blob)| async move { (repository, blob, destination.has_blob(repository, blob).await) };
    let mut answers = stream::iter(all.into_iter().map(ask)).buffer_unordered(jobs.max(1));
    let mut absent = BTreeSet::new();
    while let Some((repository, blob, answer)) = answers.next().await {
        if !answer? {
            absent.insert(key(destination, repository, blob));
        }
    }
    Ok(absent)
}

/// Those of the manifests that a repository does not have.
async fn lost(destination: &Destination, repository: &str, manifests: &[Descriptor]) -> Result<Vec<Descriptor>, Error> {
    let mut lost = Vec::new();
    for manifest in manifests {
        if destination.digest(repository, &manifest.digest.to_string()).await?.is_none() {
            lost.push(manifest.clone());
        }
    }
    Ok(lost)
}

impl Preflight {
    /// Whether everything below a referrer that is there is there, too.
    pub(crate) async fn is_complete(&self, referrer: &PlannedReferrer) -> Result<bool, Error> {
        let PlannedReferrer { repository, descriptor, .. } = referrer;
        for blob in referrers::blobs_of(descriptor, &self.documents)? {
            if !self.destination.has_blob(repository, &blob).await? {
                return Ok(false);
            }
        }
        let mut below = referrers::documents_of(descriptor, &self.documents)?;
        below.retain(|document| document.digest != descriptor.digest);
        Ok(lost(&self.destination, repository, &below).await?.is_empty())
    }
}
