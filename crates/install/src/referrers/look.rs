//! What the target has of the referrers already, and what becomes of it.

use ferry_content::Problems;
use futures_util::{StreamExt as _, stream};

use super::merge::{Merged, merge};
use super::{PlannedReferrer, ReferrerState};
use crate::Error;
use crate::form;
use crate::preflight::{OnExisting, Preflight};

impl Preflight {
    /// Asks the target what it has of the referrers: one HEAD for each. Gives what somebody should know.
    pub(crate) async fn look_at_referrers(&mut self, problems: &mut Problems) {
        let states = self.referrers.iter().map(|referrer| self.state_of(referrer));
        let states: Vec<_> = stream::iter(states).buffered(self.options.jobs.max(1)).collect().await;
        let host = self.destination.target().host();
        for (referrer, state) in self.referrers.iter_mut().zip(states) {
            let digest = &referrer.descriptor.digest;
            match state {
                Ok(Ok(state)) => referrer.state = state,
                Ok(Err(found)) => match self.options.on_existing {
                    OnExisting::Overwrite => {}
                    OnExisting::Skip => {
                        let name = referrer.name();
                        let note = format!(
                            "{}: the tag `{name}` stays at {found}, where the bundle has {digest}",
                            referrer.reference
                        );
                        self.notes.push(note);
                        referrer.state = ReferrerState::Skipped(found);
                    }
                    OnExisting::Fail => {
                        let name = format!("{host}/{}:{}", referrer.repository, referrer.name());
                        let error = Error::Existing { name, found, ours: digest.clone() };
                        problems.add(format!("image `{}`", referrer.reference), error);
                    }
                },
                Err(error) => problems.add(format!("image `{}`", referrer.reference), error),
            }
        }
    }

    /// Looks for the blobs of referrers that no bundle carries.
    pub(crate) async fn look_for_their_blobs(&mut self, problems: &mut Problems) {
        let mut pushed = Vec::new();
        for referrer in self.referrers.iter().filter(|referrer| referrer.is_pushed()) {
            match super::blobs_of(&referrer.descriptor, &self.documents) {
                Ok(blobs) => pushed.push((referrer.repository.as_str(), blobs)),
                Err(error) => return problems.add(format!("image `{}`", referrer.reference), error),
            }
        }
        let mut relied = std::mem::take(&mut self.relied);
        let (images, jobs) = (&self.images, self.options.jobs);
        let looked = relied.look(&self.destination, &self.bundles, images, (&Vec::new(), &pushed), jobs).await;
        if let Err(error) = looked {
            problems.add("target", error);
        }
        let referrers = self.referrers.iter().filter(|referrer| referrer.is_pushed());
        for (referrer, (_, blobs)) in referrers.zip(&pushed) {
            if let Some(error) = relied.lacking(&self.bundles, blobs) {
                problems.add(format!("{} of image `{}`", referrer.kind, referrer.reference), error);
            }
        }
        self.relied = relied;
    }

    /// What has to happen to a referrer; or the digest that stands in its place and is no list that could be merged.
    async fn state_of(&self, referrer: &PlannedReferrer) -> Result<Result<ReferrerState, ferry_image::Digest>, Error> {
        let PlannedReferrer { repository, descriptor, .. } = referrer;
        let Some(found) = self.destination.digest(repository, &referrer.name()).await? else {
            return Ok(Ok(ReferrerState::Absent));
        };
        let is_whole = !self.options.recheck || self.is_complete(referrer).await?;
        if found == descriptor.digest {
            return Ok(Ok(if is_whole { ReferrerState::Present } else { ReferrerState::Absent }));
        }
        let there = self.destination.manifest(repository, &referrer.name()).await?.unwrap_or_default();
        Ok(match merge(&there, &form::bytes(descriptor, &self.documents)?) {
            Merged::There if is_whole => Ok(ReferrerState::Present),
            // the list stays as it is, and gets what it lost
            Merged::There => Ok(ReferrerState::Merges),
            Merged::Ours => Ok(ReferrerState::Absent),
            Merged::Both { .. } => Ok(ReferrerState::Merges),
            Merged::Neither => Err(found),
        })
    }
}
