//! Blobs that the bundles leave to the target: found there before anything is pushed, and where.
//!
//! What an image needs and no bundle carries must be in some repository of the target. Those that need it are asked first, then those
//! that the bundle names, then all others of this install; the first that has it is where it is mounted from. What is nowhere
//! is told before the first byte is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use ferry_archive::Want;
use ferry_content::{Failure as _, Problems, texts};
use ferry_image::{Descriptor, Digest, Target, TargetName};
use futures_util::{StreamExt as _, stream};

use crate::bundles::{Bundles, Carrier};
use crate::destination::Destination;
use crate::preflight::Planned;
use crate::{Error, error::blobs, push::Blobs};

/// What is known of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Relied {
    /// A repository that has each.
    pub(crate) homes: BTreeMap<Digest, String>,
    /// What is nowhere. Empty unless everything was asked: half of it would pass for the whole.
    pub(crate) missing: BTreeMap<Digest, Descriptor>,
    /// Repositories that nobody let us look into, where something that is missing may be.
    pub(crate) closed: BTreeSet<String>,
}

/// What came of one search.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    At(String),
    /// In none of the places that could be looked into; these could not.
    Nowhere(Vec<String>),
    /// Not looked for to the end, after the failure of another search.
    NotAsked,
}

/// Where one blob is looked for, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Search {
    blob: Descriptor,
    places: Vec<String>,
}

impl Relied {
    /// Looks for what `pushed` needs and nobody carries, also in the other repositories of `images`. `there` are images that are at the target.
    ///
    /// # Errors
    /// When the target does not answer.
    pub(crate) async fn look(
        &mut self,
        destination: &Destination,
        bundles: &Bundles,
        images: &[Planned],
        (there, pushed): (&Blobs<'_>, &Blobs<'_>),
        jobs: usize,
    ) -> Result<(), Error> {
        for (repository, blobs) in there {
            // the target vouches for an image that it has
            for blob in blobs.iter().filter(|blob| bundles.blob(&blob.digest).is_none()) {
                self.homes.entry(blob.digest.clone()).or_insert_with(|| (*repository).to_owned());
            }
        }
        let target = destination.target();
        let is_wanted = |digest: &Digest| bundles.blob(digest).is_none() && !self.knows(digest);
        let named = |digest: &Digest| named(target, bundles, digest);
        // whether a repository is there is not known of one that only gets new tags: each is asked
        let others = images.iter().map(|planned| planned.repository.as_str()).collect();
        let searches = searches(pushed, is_wanted, named, &others);
        let stop = AtomicBool::new(false);
        let found: Vec<_> = stream::iter(searches.iter().map(|search| find(destination, search, &stop)))
            .buffered(jobs.max(1))
            .collect()
            .await;
        self.learn(searches.into_iter().zip(found))
    }

    /// Keeps what was found. Nothing is missing where not all was asked: the failure is what counts then.
    fn learn(&mut self, results: impl Iterator<Item = (Search, Result<Found, Error>)>) -> Result<(), Error> {
        let mut failed = None;
        for (search, found) in results {
            match found {
                Ok(Found::At(home)) => drop(self.homes.insert(search.blob.digest, home)),
                Ok(Found::Nowhere(closed)) => {
                    self.closed.extend(closed);
                    self.missing.insert(search.blob.digest.clone(), search.blob);
                }
                Ok(Found::NotAsked) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match failed {
            None => Ok(()),
            Some(error) => {
                self.missing.clear();
                Err(error)
            }
        }
    }

    /// What of `blobs` is nowhere, if anything.
    pub(crate) fn lacking(&self, bundles: &Bundles, blobs: &[Descriptor]) -> Option<Error> {
        let blobs: Vec<Descriptor> =
            blobs.iter().filter(|blob| self.missing.contains_key(&blob.digest)).cloned().collect();
        let (bases, closed) = (bases(bundles, &blobs), self.closed.iter().cloned().collect());
        (!blobs.is_empty()).then_some(Error::Lacking { blobs, bases, closed })
    }

    /// Writes down what is missing, for a patch: that of the first bundle that relies on any of it.
    pub(crate) fn write_want(&self, bundles: &Bundles, path: Option<&Path>, problems: &mut Problems) {
        let Some(path) = path else { return };
        let relies =
            |carrier: &&Carrier| carrier.head().relies.iter().any(|relied| self.missing.contains_key(&relied.digest));
        let bundle = match bundles.all().iter().find(relies) {
            Some(Carrier::File(bundle)) => bundle,
            Some(Carrier::Passing(_)) => return problems.add("--want", Error::Piped),
            None => return,
        };
        let missing: Vec<Digest> = self.missing.keys().cloned().collect();
        let want = Want::of(bundle, &missing);
        let written = want
            .to_json()
            .map_err(|e| ferry_content::Error::io("write", path, e.into()))
            .and_then(|json| texts::write(path, &json));
        match written {
            Ok(()) => {
                let path = path.display();
                let listed = blobs(want.blobs.len());
                problems.warn([format!(
                    "`{path}` lists what is missing, {listed} ({} bytes): carry it to the connected side, and build a patch of it there with `ferry bundle --patch`",
                    want.bytes()
                )]);
                let rest = missing.iter().filter(|digest| want.blobs.iter().all(|blob| blob.digest != **digest));
                let rest: Vec<String> = rest.map(ToString::to_string).collect();
                if !rest.is_empty() {
                    problems.warn([format!(
                        "`{path}` is for `{}` alone, and does not list what another bundle leaves to the target: {}. Write a list for that one by itself",
                        want.bundle.name,
                        rest.join(", ")
                    )]);
                }
            }
            Err(error) => problems.add("--want", error),
        }
    }

    fn knows(&self, digest: &Digest) -> bool {
        self.homes.contains_key(digest) || self.missing.contains_key(digest)
    }
}

/// What of `blobs` no bundle carries, where nobody else can be asked.
pub(crate) fn unserved(bundles: &Bundles, blobs: &[Descriptor]) -> Option<Error> {
    let mut lacking: Vec<Descriptor> = Vec::new();
    for blob in blobs.iter().filter(|blob| bundles.blob(&blob.digest).is_none()) {
        if !lacking.iter().any(|other| other.digest == blob.digest) {
            lacking.push(blob.clone());
        }
    }
    let bases = bases(bundles, &lacking);
    (!lacking.is_empty()).then_some(Error::Unserved { blobs: lacking, bases })
}

/// The bundles that should have brought `blobs`, as `NAME[@VERSION]`.
pub(crate) fn bases(bundles: &Bundles, blobs: &[Descriptor]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for base in blobs.iter().flat_map(|blob| bundles.relied(&blob.digest)).flat_map(|(_, bases)| bases) {
        let name = match &base.version {
            Some(version) => format!("{}@{version}", base.name),
            None => base.name.clone(),
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The repositories that a blob is said to be in, on the target's host.
fn named(target: &Target, bundles: &Bundles, digest: &Digest) -> Vec<String> {
    let below = |repository: &String| target.path_of(&TargetName { repository: repository.clone(), tag: None });
    bundles.relied(digest).flat_map(|(relied, _)| relied.repositories.iter().map(below)).collect()
}

/// Each blob that is wanted, once, and where to look for it. Pure.
///
/// Whatever is found is mounted into all that need it, so it is asked for in one place after the other. All of an install are asked only
/// for what is neither where it is needed nor where the bundle says.
fn searches(
    pushed: &Blobs<'_>,
    is_wanted: impl Fn(&Digest) -> bool,
    named: impl Fn(&Digest) -> Vec<String>,
    others: &BTreeSet<&str>,
) -> Vec<Search> {
    let mut order: Vec<Search> = Vec::new();
    let mut at: BTreeMap<&Digest, usize> = BTreeMap::new();
    for (repository, blobs) in pushed {
        for blob in blobs.iter().filter(|blob| is_wanted(&blob.digest)) {
            let at = *at.entry(&blob.digest).or_insert_with(|| {
                order.push(Search { blob: blob.clone(), places: Vec::new() });
                order.len() - 1
            });
            order[at].places.push((*repository).to_owned());
        }
    }
    for search in &mut order {
        search.places.extend(named(&search.blob.digest));
        search.places.extend(others.iter().map(|place| (*place).to_owned()));
        let mut seen = BTreeSet::new();
        search.places.retain(|place| seen.insert(place.clone()));
    }
    order
}

/// The first place that has it. After a failure nothing more is asked.
async fn find(destination: &Destination, search: &Search, stop: &AtomicBool) -> Result<Found, Error> {
    let mut closed = Vec::new();
    for place in &search.places {
        if stop.load(Ordering::Relaxed) {
            return Ok(Found::NotAsked);
        }
        match destination.has_blob(place, &search.blob).await {
            Ok(true) => return Ok(Found::At(place.clone())),
            Ok(false) => {}
            // who may not look there has nothing to mount from there
            Err(Error::Client(error)) if matches!(error.status(), Some(401 | 403)) => {
                tracing::debug!(%error, place, "not looked into");
                closed.push(place.clone());
            }
            Err(error) => {
                stop.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
    }
    Ok(Found::Nowhere(closed))
}

/// A blob was there when the target was asked, and is not there now.
pub(crate) fn gone(blob: &Descriptor, place: &str, error: ferry_content::Error) -> ferry_content::Error {
    if error.kind() != ferry_content::Kind::Missing {
        return error;
    }
    lost(blob, place)
}

/// A blob that was at a place is not there any more.
pub(crate) fn lost(blob: &Descriptor, place: &str) -> ferry_content::Error {
    ferry_content::Error::other(Error::Gone { blob: blob.digest.clone(), place: place.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blobs(names: &[&str]) -> Vec<Descriptor> {
        names.iter().map(|name| Descriptor::of("layer", name.as_bytes())).collect()
    }

    #[test]
    fn each_blob_is_looked_for_once_and_first_where_it_is_needed() {
        let others = BTreeSet::from(["p/old", "p/x", "p/y", "p/z"]);
        let carried = Digest::of(b"carried");
        let named = |digest: &Digest| {
            if *digest == Digest::of(b"a") { vec!["p/old".to_owned(), "p/base".to_owned()] } else { vec![] }
        };
        let pushed = vec![("p/x", blobs(&["a", "carried"])), ("p/y", blobs(&["a", "b"]))];
        let found = searches(&pushed, |digest| *digest != carried, named, &others);
        let shown: Vec<_> = found.iter().map(|search| (&search.blob, search.places.join(" "))).collect();
        let [a, b] = [&blobs(&["a"])[0], &blobs(&["b"])[0]];
        // where it is needed, where it is said to be, everywhere else
        assert_eq!(shown, [(a, "p/x p/y p/old p/base p/z".to_owned()), (b, "p/y p/old p/x p/z".to_owned())]);
    }

    #[test]
    fn nothing_is_missing_where_not_all_was_asked() {
        let nowhere = |closed: &[&str]| Ok(Found::Nowhere(closed.iter().map(|&place| place.to_owned()).collect()));
        let at = || Ok(Found::At("p/x".to_owned()));
        let failed = || Err(Error::Passed { why: "503".to_owned() });
        let learn = |results: Vec<Result<Found, Error>>| {
            let names = ["a", "b", "c"];
            let searches = blobs(&names).into_iter().map(|blob| Search { blob, places: Vec::new() });
            let mut relied = Relied::default();
            let result = relied.learn(searches.zip(results)).map_err(|error| error.kind());
            (result, relied.homes.len(), relied.missing.len(), relied.closed.len())
        };
        let remote = Err(ferry_content::Kind::Remote);
        assert_eq!(learn(vec![at(), nowhere(&[]), nowhere(&["p/y"])]), (Ok(()), 1, 2, 1));
        assert_eq!(learn(vec![nowhere(&[]), failed(), Ok(Found::NotAsked)]), (remote, 0, 0, 0));
        assert_eq!(learn(vec![at(), Ok(Found::NotAsked), failed()]), (remote, 1, 0, 0));
    }
}
