//! What is at a target, asked of the target itself: a receipt without an install.
//!
//! Tags are listed, their manifests and indexes are read, and what those name is taken to be there: a registry takes no manifest without its
//! blobs. Of a store's folder each blob is looked for as well. The other platforms of an index may be absent. What stands under no tag is found where `--from` names it, and not otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use ferry_content::Problems;
use ferry_content::store::ManifestRef;
use ferry_image::receipt::Repositories;
use ferry_image::{CosignTag, Digest, Manifest, Receipt, Reference, Relocated, Target, media_type};
use futures_util::{StreamExt as _, stream};

use crate::{Destination, Error};

/// The most repositories that are looked at.
pub const MOST_REPOSITORIES: usize = 100_000;
/// The most tags of one repository.
pub const MOST_TAGS: usize = 100_000;
/// The most manifests below one tag.
const MOST_MANIFESTS: usize = 1000;

/// Which repositories are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// All that the target lists below its prefix.
    Listed,
    /// These, as paths below the target's prefix.
    These(Vec<String>),
    /// Those of an earlier receipt or relocation, whose images keep their references; and its other repositories.
    From {
        /// The images.
        images: Vec<Relocated>,
        /// Repositories with host and prefix, as in a receipt.
        others: Vec<String>,
    },
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// As a receipt of no bundle.
    pub receipt: Receipt,
    /// What was looked for and is not there.
    pub notes: Vec<String>,
    /// What a manifest of a store names and the store has not: it is left out, so that whoever builds on the receipt carries it.
    pub warnings: Vec<String>,
}

/// A name to look at: a tag, or the digest of an image that has none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    repository: String,
    reference: String,
}

/// What one name stands for.
struct Found {
    digest: Digest,
    blobs: BTreeMap<Digest, u64>,
    /// Named, and not there.
    lost: Vec<(Digest, u64)>,
}

/// Asks the target, with at most `jobs` requests at a time.
///
/// # Errors
/// Everything that could not be asked: half an inventory is none.
pub async fn inventory(
    destination: &Destination,
    which: &Which,
    jobs: usize,
    time: jiff::Timestamp,
) -> Result<Inventory, Problems> {
    let target = destination.target();
    let jobs = jobs.max(1);
    let mut notes = Vec::new();
    let paths = repositories(destination, which).await?;
    let listed = paths.iter().map(|path| async move { (path, tags(destination, path).await) });
    let listed: Vec<_> = stream::iter(listed).buffered(jobs).collect().await;
    let mut problems = Problems::default();
    let mut names: BTreeSet<Name> = BTreeSet::new();
    for (path, tags) in listed {
        let name = |reference: String| Name { repository: path.clone(), reference };
        match tags {
            Ok(Some(tags)) => names.extend(tags.into_iter().map(name)),
            Ok(None) if matches!(which, Which::These(_)) => {
                problems.add("", Error::NoRepository { place: format!("{}/{path}", target.host()) });
            }
            // a list may name what has been deleted since
            Ok(None) => {}
            Err(error) => problems.add(format!("repository `{}/{path}`", target.host()), error),
        }
    }
    let known = Known::of(which, target);
    names.extend(known.untagged());
    let seen = &Mutex::new(BTreeSet::new());
    let looks = names.iter().map(|name| async move { (name, look(destination, name, seen).await) });
    let looks: Vec<_> = stream::iter(looks).buffered(jobs).collect().await;
    let (mut images, mut held) = (Vec::new(), Repositories::new());
    let (mut there, mut lost) = (BTreeSet::new(), BTreeMap::new());
    for (name, found) in looks {
        match found {
            Ok(Some(found)) => {
                there.insert(name);
                for blob in found.lost {
                    lost.entry(blob)
                        .or_insert_with(|| format!("{}/{}:{}", target.host(), name.repository, name.reference));
                }
                images.extend(known.images(name, &found.digest, target));
                held.entry(format!("{}/{}", target.host(), name.repository)).or_default().extend(found.blobs);
            }
            Ok(None) => {}
            Err(error) => {
                problems.add(format!("`{}/{}:{}`", target.host(), name.repository, name.reference), error);
            }
        }
    }
    problems.or(())?;
    notes.extend(known.lost(&there));
    images.sort_by(|a: &Relocated, b| a.reference.cmp(&b.reference));
    let receipt = Receipt::new(target, Vec::new(), time.to_string(), images, held);
    let warnings = lost.into_iter().map(|((digest, size), image)| {
        format!(
            "blob {digest} ({size} bytes), which `{image}` needs, is missing or of another size: it is left out, so that the next bundle \
             brings it; install that with `--recheck`"
        )
    });
    Ok(Inventory { receipt, notes, warnings: warnings.collect() })
}

/// What an earlier receipt says of the names at the target.
struct Known<'a>(BTreeMap<Name, Vec<&'a Relocated>>);

impl<'a> Known<'a> {
    fn of(which: &'a Which, target: &Target) -> Self {
        let mut known: BTreeMap<Name, Vec<&Relocated>> = BTreeMap::new();
        if let Which::From { images, .. } = which {
            for image in images {
                let Some(repository) = path(&image.repository, target) else { continue };
                let reference = image.tag.clone().unwrap_or_else(|| image.digest.to_string());
                known.entry(Name { repository, reference }).or_default().push(image);
            }
        }
        Self(known)
    }

    fn untagged(&self) -> impl Iterator<Item = Name> {
        self.0.keys().filter(|name| name.reference.contains(':')).cloned()
    }

    /// The images under a name: under their references where these are known, under the name itself otherwise.
    fn images(&self, name: &Name, found: &Digest, target: &Target) -> Vec<Relocated> {
        if let Some(known) = self.0.get(name) {
            let now = |image: &&Relocated| Relocated {
                // what was put there in another form is still that
                source_digest: if image.digest == *found { image.source_digest.clone() } else { found.clone() },
                digest: found.clone(),
                ..(*image).clone()
            };
            return known.iter().map(now).collect();
        }
        // signatures and lists of referrers are no images
        let is_referrers = name.reference.parse::<Digest>().is_ok()
            || CosignTag::parse(&name.reference).is_some()
            || name.reference.strip_prefix("sha256-").is_some_and(|hex| Digest::sha256(hex).is_ok());
        let repository = format!("{}/{}", target.host(), name.repository);
        let reference = format!("{repository}:{}", name.reference).parse::<Reference>();
        let image = |reference| Relocated {
            reference,
            repository,
            tag: Some(name.reference.clone()),
            source_digest: found.clone(),
            digest: found.clone(),
        };
        reference.ok().filter(|_| !is_referrers).map(image).into_iter().collect()
    }

    fn lost(&self, there: &BTreeSet<&Name>) -> Vec<String> {
        let gone = self.0.iter().filter(|(name, _)| !there.contains(name));
        gone.flat_map(|(_, images)| images)
            .map(|image| {
                let name = image.tag.as_ref().map_or_else(|| format!("@{}", image.digest), |tag| format!(":{tag}"));
                format!("{} is no longer at {}{name}", image.reference, image.repository)
            })
            .collect()
    }
}

/// The path at the target's host of a repository that is written with it.
fn path(repository: &str, target: &Target) -> Option<String> {
    repository.strip_prefix(target.host())?.strip_prefix('/').map(ToOwned::to_owned)
}

/// Paths at the target's host, prefix included, sorted.
async fn repositories(destination: &Destination, which: &Which) -> Result<Vec<String>, Error> {
    let target = destination.target();
    let below =
        |path: &str| if target.prefix().is_empty() { path.to_owned() } else { format!("{}/{path}", target.prefix()) };
    let found: BTreeSet<String> = match which {
        Which::These(paths) => paths.iter().map(|path| below(path)).collect(),
        Which::From { images, others } => {
            let named = images.iter().map(|image| &image.repository).chain(others);
            named.filter_map(|repository| path(repository, target)).collect()
        }
        Which::Listed => {
            let prefix = below("");
            listed(destination).await?.into_iter().filter(|path| path.starts_with(&prefix)).collect()
        }
    };
    let limit = MOST_REPOSITORIES;
    if found.len() > limit {
        return Err(Error::TooMany { place: target.to_string(), what: "repositories", limit });
    }
    Ok(found.into_iter().collect())
}

async fn listed(destination: &Destination) -> Result<Vec<String>, Error> {
    match destination {
        Destination::Registry { client, target } => {
            whole(client.catalog(target.host(), MOST_REPOSITORIES).await?, target.host(), MOST_REPOSITORIES)
        }
        Destination::Store { store, .. } => Ok(store.repositories()?),
    }
}

/// A list that was not cut off at `limit`. Of one that was, nobody knows what is missing, whatever of it is looked at.
fn whole(listed: Vec<String>, place: &str, limit: usize) -> Result<Vec<String>, Error> {
    if listed.len() > limit {
        return Err(Error::TooMany { place: place.to_owned(), what: "repositories", limit });
    }
    Ok(listed)
}

/// `None` where there is no such repository.
async fn tags(destination: &Destination, path: &str) -> Result<Option<Vec<String>>, Error> {
    let tags = match destination {
        Destination::Registry { client, target } => {
            match client.repository(target.host(), path)?.tags(MOST_TAGS + 1).await {
                Ok(tags) => Some(tags),
                Err(error) if error.status() == Some(404) => None,
                Err(error) => return Err(error.into()),
            }
        }
        Destination::Store { store, .. } => store.tags(path)?,
    };
    match tags {
        Some(tags) if tags.len() > MOST_TAGS => {
            let place = format!("{}/{path}", destination.target().host());
            Err(Error::TooMany { place, what: "tags", limit: MOST_TAGS })
        }
        tags => Ok(tags),
    }
}

/// The document under a tag or digest, `None` where it is not there.
async fn document(destination: &Destination, path: &str, reference: &str) -> Result<Option<(Digest, Bytes)>, Error> {
    match destination {
        Destination::Registry { client, target } => {
            match client.repository(target.host(), path)?.manifest(reference).await {
                Ok(fetched) => Ok(Some((fetched.digest, fetched.bytes))),
                Err(error) if matches!(error.status(), Some(404 | 410)) => Ok(None),
                Err(error) => Err(error.into()),
            }
        }
        Destination::Store { store, .. } => {
            let reference =
                reference.parse().map_or_else(|_| ManifestRef::Tag(reference.to_owned()), ManifestRef::Digest);
            Ok(store.manifest(path, &reference)?.map(|record| (record.digest, record.bytes)))
        }
    }
}

/// Reads what is at and below a name. `seen` are the documents of repositories that others have read.
async fn look(
    destination: &Destination,
    name: &Name,
    seen: &Mutex<BTreeSet<(String, Digest)>>,
) -> Result<Option<Found>, Error> {
    let path = &name.repository;
    let Some((root, bytes)) = document(destination, path, &name.reference).await? else { return Ok(None) };
    let mut found = Found { digest: root.clone(), blobs: BTreeMap::new(), lost: Vec::new() };
    let is_new =
        |digest: &Digest| seen.lock().unwrap_or_else(PoisonError::into_inner).insert((path.clone(), digest.clone()));
    let mut open = vec![(root, Some(bytes))];
    let mut read = 0;
    while let Some((digest, bytes)) = open.pop() {
        if !is_new(&digest) {
            continue;
        }
        read += 1;
        if read > MOST_MANIFESTS {
            let place = format!("{}/{path}:{}", destination.target().host(), name.reference);
            return Err(Error::TooMany { place, what: "manifests", limit: MOST_MANIFESTS });
        }
        let bytes = match bytes {
            Some(bytes) => bytes,
            None => match document(destination, path, &digest.to_string()).await? {
                Some((_, bytes)) => bytes,
                // of an index some platforms may not have been carried
                None => continue,
            },
        };
        found.blobs.insert(digest, bytes.len() as u64);
        // what is no manifest that anybody could carry names nothing
        match Manifest::parse(&bytes, None) {
            Ok(Manifest::Image(image)) => {
                let there = image.blobs().filter(|blob| !media_type::is_foreign_layer(&blob.media_type));
                found.blobs.extend(there.map(|blob| (blob.digest.clone(), blob.size)));
            }
            Ok(Manifest::Index(index)) => open.extend(index.manifests.into_iter().map(|entry| (entry.digest, None))),
            Err(error) => tracing::debug!(repository = %path, %error, "a document that is no manifest"),
        }
    }
    if let Destination::Store { store, .. } = destination {
        // a registry answers for its blobs; of a folder the disk does
        for (digest, size) in std::mem::take(&mut found.blobs) {
            match store.blob_size(&digest)? {
                Some(there) if there == size => drop(found.blobs.insert(digest, size)),
                _ => found.lost.push((digest, size)),
            }
        }
    }
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_was_cut_off_is_none_however_few_of_it_matter() {
        let listed = |count: usize| (0..count).map(|n| format!("other/{n}")).collect::<Vec<_>>();
        assert_eq!(whole(listed(3), "reg", 3).ok().map(|all| all.len()), Some(3));
        let error = whole(listed(4), "reg", 3).map_err(|error| error.to_string());
        assert_eq!(error, Err("reg: more than 3 repositories".to_owned()));
    }
}
