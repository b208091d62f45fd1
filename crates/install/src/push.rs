//! From the bundle to the target: blobs, then manifests from the leaves up, tags last, then what refers to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ferry_content::copy::{Job, Outcome, Progress, copy_all};
use ferry_content::{Problems, Provider, copy};
use ferry_image::{Descriptor, Digest, Manifest, Relocation, media_type};
use futures_util::{StreamExt as _, stream};

use crate::Error;
use crate::form::{self, Form};
use crate::preflight::{self, Planned, Preflight, State};
use crate::probe::{is_immutable, is_refusal};
use crate::referrers::{self, ReferrerState};

/// What an install did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Each image under the digest that it has at the target.
    pub relocation: Relocation,
    /// Blobs that were sent, and their bytes.
    pub sent: (usize, u64),
    /// Blobs that were there, or were mounted from another repository.
    pub spared: usize,
    /// Images whose manifests were put.
    pub images: usize,
    /// Images whose tag stayed at another digest.
    pub skipped: usize,
    /// Signatures and the like that were put.
    pub referrers: usize,
    /// Signatures and the like that were there.
    pub referrers_present: usize,
    /// Forms that the target refused, and tags that stayed, told for each image.
    pub notes: Vec<String>,
}

/// A blob for a repository.
struct Need {
    blob: Descriptor,
    repository: String,
    mount_from: Option<String>,
}

impl Preflight {
    /// The blobs that will be asked for at the target, each once, and their bytes. What the target has already is not sent.
    ///
    /// # Errors
    /// When the bundle's documents contradict its head.
    pub fn blobs(&self) -> Result<(usize, u64), Error> {
        let (first, _) = self.needs()?;
        Ok((first.len(), first.iter().map(|n| n.blob.size).sum()))
    }

    /// Pushes what is not there.
    ///
    /// # Errors
    /// Every blob and manifest that could not be pushed. No tag is set then for an image that lacks something.
    pub async fn push(&self, options: &copy::Options, progress: Arc<dyn Progress>) -> Result<Pushed, Problems> {
        let (first, mounts) = self.needs()?;
        let mut sent = (0, 0);
        let mut spared = 0;
        for needs in [first, mounts] {
            for (need, outcome) in self.copy(needs, options, &progress).await? {
                match outcome {
                    Outcome::Copied => sent = (sent.0 + 1, sent.1 + need.blob.size),
                    Outcome::Present => spared += 1,
                }
            }
        }
        let mut notes = self.notes.clone();
        let digests = self.manifests(&mut notes).await?;
        let done = self.push_referrers(&digests).await?;
        notes.extend(done.notes.into_iter().filter(|note| !self.notes.contains(note)));
        let images = self.images.iter().filter(|i| i.state.is_pushed()).count();
        let skipped = self.images.iter().filter(|i| matches!(i.state, State::Skipped(_))).count();
        let relocation = preflight::relocation(self.destination.target(), self.images.iter().zip(&digests))?;
        self.close().await;
        let (referrers, referrers_present) = (done.pushed, done.present);
        Ok(Pushed { relocation, sent, spared, images, skipped, referrers, referrers_present, notes })
    }

    fn needs(&self) -> Result<(Vec<Need>, Vec<Need>), Error> {
        let of = |wanted: fn(&State) -> bool| -> Result<Vec<(&str, Vec<Descriptor>)>, Error> {
            let images = self.images.iter().filter(|planned| wanted(&planned.state));
            images.map(|planned| Ok((planned.repository.as_str(), self.blobs_of(planned)?))).collect()
        };
        let there = of(|state| matches!(state, State::Present(_)))?;
        let mut pushed = of(State::is_pushed)?;
        for referrer in self.referrers.iter().filter(|referrer| referrer.is_pushed()) {
            pushed.push((&referrer.repository, referrers::blobs_of(&referrer.descriptor, &self.documents)?));
        }
        Ok(needs(&there, pushed, self.destination.has_repository_blobs()))
    }

    /// Configs and layers of an image's carried manifests. Layers that are only named are not carried.
    fn blobs_of(&self, planned: &Planned) -> Result<Vec<Descriptor>, Error> {
        let mut blobs: Vec<Descriptor> = Vec::new();
        for platform in &planned.image.platforms {
            if let Manifest::Image(image) = form::parse(&platform.manifest, &self.documents)? {
                for blob in image.blobs().filter(|b| !media_type::is_foreign_layer(&b.media_type)) {
                    if !blobs.iter().any(|b| b.digest == blob.digest) {
                        blobs.push(blob.clone());
                    }
                }
            }
        }
        Ok(blobs)
    }

    /// What of the bundle is at the target after a push: nothing of an image whose tag stayed at something else.
    pub(crate) fn held(&self, relocation: &Relocation) -> Result<BTreeSet<Digest>, Error> {
        let mut held = BTreeSet::new();
        for planned in self.images.iter().filter(|i| !matches!(i.state, State::Skipped(_))) {
            held.extend(self.blobs_of(planned)?.into_iter().map(|blob| blob.digest));
            held.extend(planned.image.platforms.iter().map(|p| p.manifest.digest.clone()));
            let there = relocation.lookup(&planned.image.reference).map(|image| &image.digest);
            let forms = [&planned.forms.first].into_iter().chain(&planned.forms.second);
            for form in forms.filter(|form| Some(&form.root.digest) == there) {
                held.extend(form.children.iter().chain([&form.root]).map(|d| d.digest.clone()));
            }
        }
        for referrer in self.referrers.iter().filter(|r| !matches!(r.state, ReferrerState::Skipped(_))) {
            held.extend(
                referrers::blobs_of(&referrer.descriptor, &self.documents)?.into_iter().map(|blob| blob.digest),
            );
            // of two lists that were merged neither is there
            if referrer.state != ReferrerState::Merges {
                let documents = referrers::documents_of(&referrer.descriptor, &self.documents)?;
                held.extend(documents.into_iter().map(|document| document.digest));
            }
        }
        held.retain(|digest| self.bundle.blob(digest).is_some());
        Ok(held)
    }

    async fn copy(
        &self,
        needs: Vec<Need>,
        options: &copy::Options,
        progress: &Arc<dyn Progress>,
    ) -> Result<Vec<(Need, Outcome)>, Problems> {
        let mut jobs = Vec::with_capacity(needs.len());
        for need in &needs {
            jobs.push(Job {
                blob: need.blob.clone(),
                provider: Arc::clone(&self.bundle) as Arc<dyn Provider>,
                ingester: self.destination.uploads(&need.repository, need.mount_from.as_deref())?,
            });
        }
        let mut problems = Problems::default();
        let mut done = Vec::new();
        for (need, result) in needs.into_iter().zip(copy_all(jobs, options, Arc::clone(progress)).await) {
            match result {
                Some(Ok(outcome)) => done.push((need, outcome)),
                Some(Err(error)) => problems.add(self.subject(&need), error),
                // not begun: another failure of the same kind is reported
                None => {}
            }
        }
        problems.or(done)
    }

    /// How the image that needs a blob is named in messages.
    fn subject(&self, need: &Need) -> String {
        let needs = |planned: &&Planned| {
            planned.repository == need.repository
                && self.blobs_of(planned).is_ok_and(|blobs| blobs.iter().any(|blob| blob.digest == need.blob.digest))
        };
        match self.images.iter().filter(|planned| planned.state.is_pushed()).find(needs) {
            Some(planned) => format!("image `{}`", planned.image.reference),
            None => format!("repository `{}`", need.repository),
        }
    }

    /// Puts all manifests, each once in a repository, and gives, for each image, the digest it now has.
    async fn manifests(&self, notes: &mut Vec<String>) -> Result<Vec<Digest>, Problems> {
        let mut problems = Problems::default();
        let lacking = self.children(&mut problems).await;
        let is_whole = |planned: &Planned| {
            let mut children = planned.forms.first.children.iter();
            children.all(|child| !lacking.contains(&(planned.repository.as_str(), &child.digest)))
        };
        // tags last: whoever sees a tag finds everything below it
        let firsts = preflight::firsts(&self.images);
        let ready = |(i, planned): &(usize, &Planned)| firsts[*i] == *i && is_whole(planned);
        let ready = self.images.iter().enumerate().filter(ready);
        let roots: Vec<_> = stream::iter(ready.map(|(i, planned)| async move { (i, self.root(planned).await) }))
            .buffered(self.options.jobs.max(1))
            .collect()
            .await;
        let mut digests = BTreeMap::new();
        for (i, result) in roots {
            match result {
                Ok((digest, note)) => {
                    digests.insert(i, digest);
                    notes.extend(note);
                }
                Err(error) => problems.add(format!("image `{}`", self.images[i].image.reference), error),
            }
        }
        problems.or(firsts.iter().filter_map(|first| digests.get(first).cloned()).collect())
    }

    /// Puts what the roots name. Gives what could not be put: whatever names it must not be put either.
    async fn children(&self, problems: &mut Problems) -> BTreeSet<(&str, &Digest)> {
        let mut seen = BTreeSet::new();
        let (mut leaves, mut indexes) = (Vec::new(), Vec::new());
        for planned in self.images.iter().filter(|i| i.state.is_pushed()) {
            for child in &planned.forms.first.children {
                if seen.insert((&planned.repository, &child.digest)) {
                    let below = if media_type::is_index(&child.media_type) { &mut indexes } else { &mut leaves };
                    below.push((planned, child));
                }
            }
        }
        let put = |(planned, child)| async move { (planned, child, self.child(planned, child).await) };
        let jobs = self.options.jobs.max(1);
        let mut results: Vec<_> = stream::iter(leaves.into_iter().map(put)).buffered(jobs).collect().await;
        // an index may name one before it
        for index in indexes {
            results.push(put(index).await);
        }
        let mut lacking = BTreeSet::new();
        for (planned, child, result) in results {
            if let Err(error) = result {
                lacking.insert((planned.repository.as_str(), &child.digest));
                problems.add(format!("image `{}`", planned.image.reference), error);
            }
        }
        lacking
    }

    async fn child(&self, planned: &Planned, child: &Descriptor) -> Result<(), Error> {
        let bytes = form::bytes(child, &self.documents)?;
        let reference = child.digest.to_string();
        self.destination.put_manifest(&planned.repository, &reference, &child.media_type, &bytes).await
    }

    /// Puts what the name stands for; the second form where the target refuses the first.
    async fn root(&self, planned: &Planned) -> Result<(Digest, Option<String>), Error> {
        let first = &planned.forms.first;
        match &planned.state {
            State::Present(digest) => return Ok((digest.clone(), None)),
            State::Skipped(digest) => {
                let note = format!(
                    "{}: its tag stays at {digest}, where the bundle has {}; YAML is rewritten to what stays",
                    planned.image.reference, first.root.digest
                );
                return Ok((digest.clone(), Some(note)));
            }
            State::Absent | State::Moves(_) => {}
        }
        match (self.put(planned, first).await, &planned.forms.second) {
            (Ok(()), _) => Ok((first.root.digest.clone(), None)),
            (Err(error), _) if planned.tag.is_some() && is_immutable(&error) => Err(self.immutable(planned, error)),
            (Err(error), Some(second)) if is_refusal(&error) => {
                let is_there = |digest: &Digest| first.children.iter().any(|child| child.digest == *digest);
                for child in second.children.iter().filter(|child| !is_there(&child.digest)) {
                    self.child(planned, child).await?;
                }
                if planned.tag.is_some() || !is_there(&second.root.digest) {
                    self.put(planned, second).await?;
                }
                let note = format!(
                    "{}: the target refuses an index with absent platforms; {} stands there instead of {}",
                    planned.image.reference, second.root.digest, first.root.digest
                );
                Ok((second.root.digest.clone(), Some(note)))
            }
            (Err(error), None) if first.sparse && is_refusal(&error) => Err(Error::Sparse { why: error.to_string() }),
            (Err(error), _) => Err(error),
        }
    }

    fn immutable(&self, planned: &Planned, error: Error) -> Error {
        let tag = planned.tag.as_deref().unwrap_or_default();
        let name = format!("{}/{}:{tag}", self.destination.target().host(), planned.repository);
        let found = match &planned.state {
            State::Moves(found) => Some(found.clone()),
            _ => None,
        };
        Error::Immutable { name, found, error: Box::new(error) }
    }

    async fn put(&self, planned: &Planned, form: &Form) -> Result<(), Error> {
        let reference = planned.tag.clone().unwrap_or_else(|| form.root.digest.to_string());
        self.destination.put_manifest(&planned.repository, &reference, &form.root.media_type, &form.bytes).await
    }
}

/// Which blobs go where: each once from the bundle, then mounted into the other repositories. `there` and `pushed` are repositories and
/// the blobs of an image in them.
fn needs(
    there: &[(&str, Vec<Descriptor>)],
    pushed: Vec<(&str, Vec<Descriptor>)>,
    per_repository: bool,
) -> (Vec<Need>, Vec<Need>) {
    let mut homes: BTreeMap<Digest, &str> = BTreeMap::new();
    for (repository, blobs) in there {
        for blob in blobs {
            homes.entry(blob.digest.clone()).or_insert(repository);
        }
    }
    let (mut first, mut mounts) = (Vec::new(), Vec::new());
    let mut seen: BTreeSet<(Digest, &str)> = BTreeSet::new();
    let mut begun: BTreeSet<Digest> = BTreeSet::new();
    for (repository, blobs) in pushed {
        for blob in blobs {
            if !seen.insert((blob.digest.clone(), if per_repository { repository } else { "" })) {
                continue;
            }
            let home = homes.get(&blob.digest).filter(|home| **home != repository).map(|home| (*home).to_owned());
            let waits = begun.contains(&blob.digest);
            if home.is_none() {
                homes.insert(blob.digest.clone(), repository);
                begun.insert(blob.digest.clone());
            }
            let need = Need { blob, repository: repository.to_owned(), mount_from: home };
            if waits { mounts.push(need) } else { first.push(need) }
        }
    }
    (first, mounts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blobs(names: &[&str]) -> Vec<Descriptor> {
        names.iter().map(|name| Descriptor::of("layer", name.as_bytes())).collect()
    }

    /// `blob>repository`, and `<from` where it is mounted.
    fn shown(needs: &[Need]) -> Vec<String> {
        let name = |need: &Need| ["a", "b", "c"].into_iter().find(|n| Digest::of(n.as_bytes()) == need.blob.digest);
        let from = |need: &Need| need.mount_from.as_ref().map(|from| format!("<{from}")).unwrap_or_default();
        needs.iter().map(|need| format!("{}>{}{}", name(need).unwrap_or("?"), need.repository, from(need))).collect()
    }

    #[test]
    fn each_blob_is_sent_once_and_mounted_from_there() {
        let pushed = || vec![("x", blobs(&["a", "b"])), ("x", blobs(&["a"])), ("y", blobs(&["a", "c"]))];
        let (first, mounts) = needs(&[], pushed(), true);
        assert_eq!((shown(&first), shown(&mounts)), (vec_of(&["a>x", "b>x", "c>y"]), vec_of(&["a>y<x"])));
        // an image that is there has them already: nothing to wait for
        let (first, mounts) = needs(&[("z", blobs(&["a"]))], pushed(), true);
        assert_eq!((shown(&first), shown(&mounts)), (vec_of(&["a>x<z", "b>x", "a>y<z", "c>y"]), vec![]));
        // one place for all
        let (first, mounts) = needs(&[], pushed(), false);
        assert_eq!((shown(&first), shown(&mounts)), (vec_of(&["a>x", "b>x", "c>y"]), vec![]));
    }

    fn vec_of(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }
}
