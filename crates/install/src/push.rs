//! From the bundle to the target: blobs, then manifests from the leaves up, tags last, then what refers to them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use ferry_archive::HeadImage;
use ferry_content::copy::{Job, Outcome, Progress, copy_all};
use ferry_content::{Error as ContentError, Problems, Provider, copy};
use ferry_image::receipt::Repositories;
use ferry_image::{Descriptor, Digest, Manifest, Relocation, media_type};
use futures_util::{StreamExt as _, stream};

use crate::Error;
use crate::form::{self, Form};
use crate::pipe::Pipe;
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
    /// Images whose manifests were put under their names.
    pub images: usize,
    /// Images that were there, and lacked something that was put.
    pub mended: usize,
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
#[derive(Debug, Clone)]
pub(crate) struct Need {
    pub(crate) blob: Descriptor,
    pub(crate) repository: String,
    pub(crate) mount_from: Option<String>,
    /// The need that brings the blob to where it is mounted from.
    after: Option<usize>,
    /// No bundle carries it; the target has it in this repository.
    pub(crate) home: Option<String>,
}

impl Preflight {
    /// The blobs that will be asked for at the target, each once, and their bytes. What the target has already is not sent.
    ///
    /// # Errors
    /// When the bundle's documents contradict its head.
    pub fn blobs(&self) -> Result<(usize, u64), Error> {
        let needs = self.needs()?;
        let first = needs.iter().filter(|need| need.after.is_none() && need.home.is_none());
        Ok(first.fold((0, 0), |(count, bytes), need| (count + 1, bytes + need.blob.size)))
    }

    /// The bytes of blobs and manifests that the target does not have and will be given: what they take on a store's disk.
    ///
    /// # Errors
    /// When the bundle's documents contradict its head, or the target cannot be asked.
    pub async fn absent_bytes(&self) -> Result<u64, Error> {
        let needs = self.needs()?.into_iter().filter(|need| need.mount_from.is_none() && need.home.is_none());
        let mut all: Vec<(String, Descriptor)> = needs.map(|need| (need.repository, need.blob)).collect();
        for planned in self.images.iter().filter(|planned| planned.state.is_pushed()) {
            let form = planned.settled();
            let manifests = form.children.iter().chain([&form.root]);
            all.extend(manifests.map(|manifest| (planned.repository.clone(), manifest.clone())));
        }
        for referrer in self.referrers.iter().filter(|referrer| referrer.is_pushed()) {
            let documents = referrers::documents_of(&referrer.descriptor, &self.documents)?;
            all.extend(documents.into_iter().map(|document| (referrer.repository.clone(), document)));
        }
        let mut seen = BTreeSet::new();
        let mut bytes = 0;
        for (repository, blob) in all {
            let place = if self.destination.has_repository_blobs() { repository.clone() } else { String::new() };
            if seen.insert((place, blob.digest.clone())) && !self.destination.has_blob(&repository, &blob).await? {
                bytes += blob.size;
            }
        }
        Ok(bytes)
    }

    /// Pushes what is not there.
    ///
    /// # Errors
    /// Every blob and manifest that could not be pushed. No tag is set then for an image that lacks something.
    pub async fn push(&self, options: &copy::Options, progress: Arc<dyn Progress>) -> Result<Pushed, Problems> {
        self.push_through(None, options, progress).await
    }

    /// The same, with the rest of the bundle that comes through a pipe.
    ///
    /// # Errors
    /// As [`push`](Self::push); and what is wrong with the pipe, up to its end.
    pub async fn push_through(
        &self,
        pipe: Option<Pipe>,
        options: &copy::Options,
        progress: Arc<dyn Progress>,
    ) -> Result<Pushed, Problems> {
        self.open.hand_over();
        let pushed = self.push_all(pipe, options, progress).await;
        self.close().await;
        pushed
    }

    async fn push_all(
        &self,
        pipe: Option<Pipe>,
        options: &copy::Options,
        progress: Arc<dyn Progress>,
    ) -> Result<Pushed, Problems> {
        let mut sent = (0, 0);
        let mut spared = 0;
        let needs = self.needs()?;
        let copied = match pipe {
            None => self.copy(needs.clone(), options, progress).await,
            Some(pipe) => self.copy_passing(pipe, needs.clone(), options, progress).await,
        };
        let (done, mut problems) = copied;
        if problems.is_empty() {
            for need in unsettled(&needs, done.iter().map(|(need, _)| need)) {
                let place = format!("{}/{}", self.destination.target().host(), need.repository);
                problems.add(self.subject(need), Error::Unsent { blob: need.blob.digest.clone(), place });
            }
        }
        let done = problems.or(done)?;
        for (need, outcome) in &done {
            match outcome {
                Outcome::Copied => sent = (sent.0 + 1, sent.1 + need.blob.size),
                Outcome::Present => spared += 1,
            }
        }
        let mut notes = self.notes.clone();
        let copied = done.iter().filter(|(need, outcome)| *outcome == Outcome::Copied && need.home.is_none());
        notes.extend(self.bundles.patched(copied.map(|(need, _)| &need.blob)));
        let digests = self.manifests(&mut notes).await?;
        let done = self.push_referrers(&digests).await?;
        notes.extend(done.notes.into_iter().filter(|note| !self.notes.contains(note)));
        let images = self.images.iter().filter(|i| i.state.is_named()).count();
        let mended = self.images.iter().filter(|i| matches!(i.state, State::Incomplete(..))).count();
        let skipped = self.images.iter().filter(|i| matches!(i.state, State::Skipped(_))).count();
        notes.extend(self.bundles.take_notes());
        let relocation = preflight::relocation(self.destination.target(), self.images.iter().zip(&digests))?;
        let (referrers, referrers_present) = (done.pushed, done.present);
        Ok(Pushed { relocation, sent, spared, images, mended, skipped, referrers, referrers_present, notes })
    }

    fn needs(&self) -> Result<Vec<Need>, Error> {
        let (there, mut pushed) = blobs_of_images(&self.images, &self.documents)?;
        for referrer in self.referrers.iter().filter(|referrer| referrer.is_pushed()) {
            pushed.push((&referrer.repository, referrers::blobs_of(&referrer.descriptor, &self.documents)?));
        }
        Ok(needs(&there, pushed, &self.relied.homes, self.destination.has_repository_blobs()))
    }

    /// What of the bundle is where at the target after a push: nothing of an image whose tag stayed at something else.
    pub(crate) fn held(&self, relocation: &Relocation) -> Result<Repositories, Error> {
        let host = self.destination.target().host();
        // not what was made for the target
        let is_ours = |digest: &Digest| self.bundles.blob(digest).is_some() || self.relied.homes.contains_key(digest);
        let mut held = Repositories::new();
        let mut hold = |repository: &str, blobs: Vec<Descriptor>| {
            let ours = blobs.into_iter().filter(|blob| is_ours(&blob.digest));
            let there = held.entry(format!("{host}/{repository}")).or_default();
            there.extend(ours.map(|blob| (blob.digest, blob.size)));
        };
        for planned in self.images.iter().filter(|i| !matches!(i.state, State::Skipped(_))) {
            hold(&planned.repository, blobs_of(&planned.image, &self.documents)?);
            hold(&planned.repository, planned.image.platforms.iter().map(|p| p.manifest.clone()).collect());
            let there = relocation.lookup(&planned.image.reference).map(|image| &image.digest);
            let forms = [&planned.forms.first].into_iter().chain(&planned.forms.second);
            for form in forms.filter(|form| Some(&form.root.digest) == there) {
                hold(&planned.repository, form.children.iter().chain([&form.root]).cloned().collect());
            }
        }
        for referrer in self.referrers.iter().filter(|r| !matches!(r.state, ReferrerState::Skipped(_))) {
            hold(&referrer.repository, referrers::blobs_of(&referrer.descriptor, &self.documents)?);
            // of two lists that were merged neither is there
            if referrer.state != ReferrerState::Merges {
                hold(&referrer.repository, referrers::documents_of(&referrer.descriptor, &self.documents)?);
            }
        }
        Ok(held)
    }

    async fn copy(
        &self,
        needs: Vec<Need>,
        options: &copy::Options,
        progress: Arc<dyn Progress>,
    ) -> (Vec<(Need, Outcome)>, Problems) {
        let mut problems = Problems::default();
        let mut done = Vec::new();
        let jobs: Result<Vec<Job>, Error> = needs.iter().map(|need| self.job(need)).collect();
        let jobs = match jobs {
            Ok(jobs) => jobs,
            Err(error) => return (done, error.into()),
        };
        for (need, result) in needs.into_iter().zip(copy_all(jobs, options, progress).await) {
            match result {
                Some(Ok(outcome)) => done.push((need, outcome)),
                Some(Err(error)) => problems.add(self.subject(&need), error),
                // not begun: another failure of the same kind is reported
                None => {}
            }
        }
        (done, problems)
    }

    fn job(&self, need: &Need) -> Result<Job, Error> {
        let provider = match (&need.home, &need.mount_from) {
            (Some(home), _) => self.destination.blobs_of(home)?,
            // what has passed is at the target by now, or nowhere
            (None, Some(from)) if self.bundles.passes(&need.blob.digest) => self.destination.blobs_of(from)?,
            (None, _) => Arc::clone(&self.bundles) as Arc<dyn Provider>,
        };
        let ingester = match &need.home {
            Some(home) if *home == need.repository => self.destination.keeps(home)?,
            _ => self.destination.uploads(&need.repository, need.mount_from.as_deref())?,
        };
        Ok(Job { after: need.after, ..Job::new(need.blob.clone(), provider, ingester) })
    }

    /// What can be had at any time; then what comes through the pipe; then what waited for that, and what did not come whole and another
    /// bundle has.
    async fn copy_passing(
        &self,
        pipe: Pipe,
        needs: Vec<Need>,
        options: &copy::Options,
        progress: Arc<dyn Progress>,
    ) -> (Vec<(Need, Outcome)>, Problems) {
        let passes =
            |need: &Need| need.home.is_none() && need.mount_from.is_none() && self.bundles.passes(&need.blob.digest);
        let waits = |need: &Need| need.after.is_some_and(|after| passes(&needs[after]));
        let ready = subset(&needs, |need| !passes(need) && !waits(need));
        let (mut done, mut problems) = self.copy(ready, options, Arc::clone(&progress)).await;
        let mut wanted = HashMap::new();
        for (i, need) in needs.iter().enumerate().filter(|(_, need)| passes(need)) {
            match self.destination.uploads(&need.repository, None) {
                Ok(ingester) => drop(wanted.insert(need.blob.digest.clone(), (i, ingester))),
                Err(error) => problems.add(self.subject(need), error),
            }
        }
        let (results, read) = pipe.pass(wanted, options, &progress).await;
        let is_whole = read.is_ok();
        if let Err(error) = read {
            problems.add("", error);
        }
        let (mut arrived, mut again) = (BTreeSet::new(), BTreeSet::new());
        for (i, result) in results {
            match result {
                Ok(outcome) => {
                    arrived.insert(needs[i].blob.digest.clone());
                    done.push((needs[i].clone(), outcome));
                }
                Err(_) if self.bundles.turns_elsewhere(&needs[i].blob) => {
                    again.insert(needs[i].blob.digest.clone());
                }
                // of a pipe that broke, the blob that came then is no news
                Err(ContentError::SizeMismatch { .. }) if !is_whole => {}
                Err(error) => problems.add(self.subject(&needs[i]), error),
            }
        }
        let open: BTreeSet<_> = unsettled(&needs, done.iter().map(|(need, _)| need)).into_iter().map(key).collect();
        let rest = subset(&needs, |need| {
            let digest = &need.blob.digest;
            let comes = again.contains(digest) || (need.after.is_some() && arrived.contains(digest));
            comes && open.contains(&key(need))
        });
        let (more, others) = self.copy(rest, options, progress).await;
        done.extend(more);
        problems.append(others);
        (done, problems)
    }

    /// How the image that needs a blob is named in messages.
    fn subject(&self, need: &Need) -> String {
        let needs = |planned: &&Planned| {
            planned.repository == need.repository
                && blobs_of(&planned.image, &self.documents)
                    .is_ok_and(|blobs| blobs.iter().any(|blob| blob.digest == need.blob.digest))
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
            let mut children = planned.settled().children.iter();
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
            for child in &planned.settled().children {
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
            // a registry may let no tag be put again, though it stands where it should
            State::Incomplete(digest, _) => {
                let (form, name) = (planned.settled(), digest.to_string());
                let (repository, media_type) = (&planned.repository, &form.root.media_type);
                self.destination.put_manifest(repository, &name, media_type, &form.bytes).await?;
                return Ok((digest.clone(), None));
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
        let host = Some(planned.image.reference.host());
        self.destination.put_image(host, &planned.repository, &reference, &form.root.media_type, &form.bytes).await
    }
}

fn key(need: &Need) -> (&Digest, &str) {
    (&need.blob.digest, need.repository.as_str())
}

/// Those of `needs` of which it is not known that the target has them: no manifest may be put over them.
fn unsettled<'a>(needs: &'a [Need], done: impl Iterator<Item = &'a Need>) -> Vec<&'a Need> {
    let done: BTreeSet<_> = done.map(key).collect();
    needs.iter().filter(|need| !done.contains(&key(need))).collect()
}

/// Those of `needs` that are `wanted`. What is waited for and not among them is not waited for.
fn subset(needs: &[Need], wanted: impl Fn(&Need) -> bool) -> Vec<Need> {
    let chosen: Vec<usize> = needs.iter().enumerate().filter(|(_, need)| wanted(need)).map(|(i, _)| i).collect();
    let renumber = |after: usize| chosen.binary_search(&after).ok();
    chosen.iter().map(|i| Need { after: needs[*i].after.and_then(renumber), ..needs[*i].clone() }).collect()
}

/// A repository, and the blobs of an image in it.
pub(crate) type Blobs<'a> = Vec<(&'a str, Vec<Descriptor>)>;

/// The blobs of images that are there, and of images that are pushed.
pub(crate) fn blobs_of_images<'a>(
    images: &'a [Planned],
    documents: &BTreeMap<Digest, Bytes>,
) -> Result<(Blobs<'a>, Blobs<'a>), Error> {
    let of = |wanted: fn(&State) -> bool| -> Result<Blobs<'a>, Error> {
        let needed = |planned: &Planned| match &planned.state {
            State::Incomplete(_, blobs) => Ok(blobs.clone()),
            _ => blobs_of(&planned.image, documents),
        };
        let images = images.iter().filter(|planned| wanted(&planned.state));
        images.map(|planned| Ok((planned.repository.as_str(), needed(planned)?))).collect()
    };
    Ok((of(|state| matches!(state, State::Present(_)))?, of(State::is_pushed)?))
}

/// Configs and layers of an image's carried manifests. Layers that are only named are not carried.
pub(crate) fn blobs_of(image: &HeadImage, documents: &BTreeMap<Digest, Bytes>) -> Result<Vec<Descriptor>, Error> {
    let mut blobs: Vec<Descriptor> = Vec::new();
    for platform in &image.platforms {
        if let Manifest::Image(image) = form::parse(&platform.manifest, documents)? {
            for blob in image.blobs().filter(|b| !media_type::is_foreign_layer(&b.media_type)) {
                if !blobs.iter().any(|b| b.digest == blob.digest) {
                    blobs.push(blob.clone());
                }
            }
        }
    }
    Ok(blobs)
}

/// Which blobs go where: each once from the bundles, then mounted into the other repositories. `relied` are blobs that no bundle carries,
/// and where the target has them.
pub(crate) fn needs(
    there: &Blobs<'_>,
    pushed: Blobs<'_>,
    relied: &BTreeMap<Digest, String>,
    per_repository: bool,
) -> Vec<Need> {
    let mut homes: BTreeMap<Digest, &str> =
        relied.iter().map(|(digest, home)| (digest.clone(), home.as_str())).collect();
    for (repository, blobs) in there {
        for blob in blobs {
            homes.entry(blob.digest.clone()).or_insert(repository);
        }
    }
    let mut needs = Vec::new();
    let mut seen: BTreeSet<(Digest, &str)> = BTreeSet::new();
    let mut begun: BTreeMap<Digest, usize> = BTreeMap::new();
    for (repository, blobs) in pushed {
        for blob in blobs {
            if !seen.insert((blob.digest.clone(), if per_repository { repository } else { "" })) {
                continue;
            }
            let home = homes.get(&blob.digest).filter(|home| **home != repository).map(|home| (*home).to_owned());
            let after = begun.get(&blob.digest).copied();
            let there = relied.get(&blob.digest).cloned();
            if home.is_none() && there.is_none() {
                homes.insert(blob.digest.clone(), repository);
                begun.insert(blob.digest.clone(), needs.len());
            }
            needs.push(Need { blob, repository: repository.to_owned(), mount_from: home, after, home: there });
        }
    }
    needs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blobs(names: &[&str]) -> Vec<Descriptor> {
        names.iter().map(|name| Descriptor::of("layer", name.as_bytes())).collect()
    }

    /// `blob>repository`, `<from` where it is mounted, `+N` where it waits, `=home` where no bundle has it.
    fn shown(needs: &[Need]) -> Vec<String> {
        let name = |need: &Need| ["a", "b", "c"].into_iter().find(|n| Digest::of(n.as_bytes()) == need.blob.digest);
        let from = |need: &Need| need.mount_from.as_ref().map(|from| format!("<{from}")).unwrap_or_default();
        let after = |need: &Need| need.after.map(|after| format!("+{after}")).unwrap_or_default();
        let home = |need: &Need| need.home.as_ref().map(|home| format!("={home}")).unwrap_or_default();
        let show = |need: &Need| {
            let name = name(need).unwrap_or("?");
            format!("{name}>{}{}{}{}", need.repository, from(need), after(need), home(need))
        };
        needs.iter().map(show).collect()
    }

    #[test]
    fn each_blob_is_sent_once_and_mounted_from_there() {
        let pushed = || vec![("x", blobs(&["a", "b"])), ("x", blobs(&["a"])), ("y", blobs(&["a", "c"]))];
        let shown = |there: &[&str], relied: &[(&str, &str)], per_repository| {
            let there = if there.is_empty() { vec![] } else { vec![("z", blobs(there))] };
            let relied = relied.iter().map(|(blob, home)| (Digest::of(blob.as_bytes()), (*home).to_owned())).collect();
            shown(&needs(&there, pushed(), &relied, per_repository))
        };
        assert_eq!(shown(&[], &[], true), ["a>x", "b>x", "a>y<x+0", "c>y"]);
        // an image that is there has them already: nothing to wait for
        assert_eq!(shown(&["a"], &[], true), ["a>x<z", "b>x", "a>y<z", "c>y"]);
        // one place for all
        assert_eq!(shown(&[], &[], false), ["a>x", "b>x", "c>y"]);
        // what no bundle carries is where it was found, and goes from there
        assert_eq!(shown(&[], &[("a", "x"), ("b", "w")], true), ["a>x=x", "b>x<w=w", "a>y<x=x", "c>y"]);
        assert_eq!(shown(&["a"], &[("a", "y")], true), ["a>x<y=y", "b>x", "a>y=y", "c>y"]);
        assert_eq!(shown(&[], &[("a", "x")], false), ["a>x=x", "b>x", "c>y"]);
    }

    #[test]
    fn whatever_has_no_outcome_is_told() {
        let pushed = vec![("x", blobs(&["a", "b"])), ("y", blobs(&["a"]))];
        let needs = needs(&vec![], pushed, &BTreeMap::new(), true);
        let open = |done: &[usize]| -> Vec<String> {
            let open = unsettled(&needs, done.iter().map(|i| &needs[*i]));
            shown(&open.into_iter().cloned().collect::<Vec<_>>())
        };
        assert_eq!(open(&[0, 1, 2]), Vec::<String>::new());
        // twice the same is not two
        assert_eq!(open(&[0, 0, 1]), ["a>y<x+0"]);
        assert_eq!(open(&[2]), ["a>x", "b>x"]);
    }
}
