//! Puts referrers, subjects first, and keeps the lists that a registry without a referrers API leaves to its clients.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use ferry_content::copy::{Job, Silent, copy_all};
use ferry_content::memory::Memory;
use ferry_content::{Problems, copy};
use ferry_image::{Descriptor, Digest, media_type, referrer};
use futures_util::{StreamExt as _, stream};

use super::merge::{Merged, merge};
use super::{PlannedReferrer, ReferrerState, documents_of, list, plan};
use crate::Error;
use crate::destination::Listed;
use crate::form;
use crate::preflight::Preflight;

/// What became of the referrers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) pushed: usize,
    pub(crate) present: usize,
    /// What stays behind, told for each image.
    pub(crate) notes: Vec<String>,
}

impl Preflight {
    /// Pushes the referrers of images that now stand at the target under `digests`.
    pub(crate) async fn push_referrers(&self, digests: &[Digest]) -> Result<Done, Problems> {
        // the target may have refused a form that it was expected to take
        let following = plan(self.images.iter().zip(digests), &self.documents)?;
        let still: BTreeSet<_> = following.referrers.iter().map(PlannedReferrer::key).collect();
        let mut repositories: BTreeMap<&str, Vec<&PlannedReferrer>> = BTreeMap::new();
        for referrer in self.referrers.iter().filter(|referrer| still.contains(&referrer.key())) {
            repositories.entry(&referrer.repository).or_default().push(referrer);
        }
        let pushes = repositories.iter().map(|(repository, referrers)| self.push_into(repository, referrers));
        let results: Vec<_> = stream::iter(pushes).buffered(self.options.jobs.max(1)).collect().await;
        let mut done = Done { notes: following.notes, ..Done::default() };
        let mut problems = Problems::default();
        for (pushed, present, more) in results {
            done.pushed += pushed;
            done.present += present;
            problems.append(more);
        }
        problems.or(done)
    }

    /// One after the other: two may belong to one list.
    async fn push_into(&self, repository: &str, referrers: &[&PlannedReferrer]) -> (usize, usize, Problems) {
        let (mut pushed, mut present) = (0, 0);
        let mut problems = Problems::default();
        let mut lacking: BTreeSet<&Digest> = BTreeSet::new();
        let mut unlisted: BTreeMap<Digest, Vec<Descriptor>> = BTreeMap::new();
        for referrer in referrers {
            let digest = &referrer.descriptor.digest;
            if lacking.contains(&referrer.subject) {
                lacking.insert(digest);
                continue;
            }
            match self.put_referrer(referrer).await {
                Ok(entry) => {
                    if referrer.is_pushed() {
                        pushed += 1;
                    } else if referrer.state == ReferrerState::Present {
                        present += 1;
                    }
                    if let Some((subject, entry)) = entry {
                        unlisted.entry(subject).or_default().push(entry);
                    }
                }
                Err(error) => {
                    lacking.insert(digest);
                    let error = Error::Referrer { kind: referrer.kind, name: referrer.name(), error: Box::new(error) };
                    problems.add(format!("image `{}`", referrer.reference), error);
                }
            }
        }
        for (subject, entries) in unlisted {
            if let Err(error) = self.list(repository, &subject, &entries).await {
                problems.add(format!("repository `{repository}`"), error);
            }
        }
        (pushed, present, problems)
    }

    /// Puts a referrer that is not there. Gives its subject and its entry, if it must be listed among that subject's referrers and is perhaps not.
    async fn put_referrer(&self, planned: &PlannedReferrer) -> Result<Option<(Digest, Descriptor)>, Error> {
        let PlannedReferrer { repository, descriptor, .. } = planned;
        let listed = referrer::listed(&form::parse(descriptor, &self.documents)?, descriptor);
        let bytes = form::bytes(descriptor, &self.documents)?;
        match planned.state {
            ReferrerState::Skipped(_) => return Ok(None),
            ReferrerState::Present => return Ok(listed),
            ReferrerState::Merges => {
                self.put_merged(planned, &bytes).await?;
                return Ok(None);
            }
            ReferrerState::Absent => {}
        }
        let below = documents_of(descriptor, &self.documents)?;
        for child in below.iter().filter(|child| child.digest != descriptor.digest) {
            let bytes = form::bytes(child, &self.documents)?;
            self.destination.put_manifest(repository, &child.digest.to_string(), &child.media_type, &bytes).await?;
        }
        let (name, media_type) = (planned.name(), &descriptor.media_type);
        match listed {
            Some((subject, entry)) => {
                let is_listed = self.destination.put_referrer(repository, &name, media_type, &bytes, &subject).await?;
                Ok((!is_listed).then_some((subject, entry)))
            }
            None => {
                self.destination.put_manifest(repository, &name, media_type, &bytes).await?;
                Ok(None)
            }
        }
    }

    /// Adds ours to the list under a tag, as it is now.
    async fn put_merged(&self, planned: &PlannedReferrer, ours: &Bytes) -> Result<(), Error> {
        let PlannedReferrer { repository, descriptor, .. } = planned;
        let there = self.destination.manifest(repository, &planned.name()).await?.unwrap_or_default();
        let manifest = match merge(&there, ours) {
            Merged::There => return Ok(()),
            Merged::Both { manifest, config } => {
                self.put_blob(repository, config).await?;
                manifest
            }
            Merged::Ours | Merged::Neither => ours.clone(),
        };
        self.destination.put_manifest(repository, &planned.name(), &descriptor.media_type, &manifest).await
    }

    async fn put_blob(&self, repository: &str, bytes: Bytes) -> Result<(), Error> {
        let blob = Descriptor::of(media_type::OCI_CONFIG, &bytes);
        let mut memory = Memory::default();
        memory.insert(bytes);
        let ingester = self.destination.uploads(repository, None)?;
        let job = Job::new(blob, Arc::new(memory), ingester);
        let mut results = copy_all(vec![job], &copy::Options::default(), Arc::new(Silent)).await;
        match results.pop().flatten() {
            Some(Err(error)) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Sees to it that `entries` are listed among the referrers of `subject`: "the client MUST" where the registry does not.
    async fn list(&self, repository: &str, subject: &Digest, entries: &[Descriptor]) -> Result<(), Error> {
        let Listed::ByClients(there) = self.destination.listed(repository, subject).await? else { return Ok(()) };
        let tag = referrer::fallback_tag(subject);
        let name = || format!("{}/{repository}:{tag}", self.destination.target().host());
        let index =
            list::with_entries(there.as_deref(), entries).map_err(|source| Error::List { name: name(), source })?;
        match index {
            Some(index) => {
                self.destination.put_manifest(repository, &tag, media_type::OCI_INDEX, &Bytes::from(index)).await
            }
            None => Ok(()),
        }
    }
}
