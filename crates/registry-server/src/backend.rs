//! What the registry serves from.

use ferry_content::Provider;
use ferry_content::store::{ManifestRecord, ManifestRef, Store};
use ferry_image::{Descriptor, Digest, reference};

use crate::Error;

/// A repository as a client names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The path.
    pub repository: String,
    /// The registry that the client really means, when it takes us for a mirror: containerd's `?ns=`.
    pub ns: Option<String>,
}

impl Name {
    /// A repository of our own.
    #[must_use]
    pub fn new(repository: &str) -> Self {
        Self { repository: repository.to_owned(), ns: None }
    }
}

/// A tag and what it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged {
    /// The repository.
    pub repository: String,
    /// The tag.
    pub tag: String,
    /// The manifest.
    pub manifest: Digest,
}

/// The read side of a registry, over anything. Calls may block for as long as small files take to read; blobs come from
/// [`blobs`](Self::blobs), streamed.
pub trait Backend: Send + Sync + 'static {
    /// All repositories, in lexical order.
    ///
    /// # Errors
    /// Whatever the place reports.
    fn repositories(&self) -> Result<Vec<String>, Error>;

    /// The tags of a repository in lexical order; `None` when there is no such repository.
    ///
    /// # Errors
    /// Whatever the place reports.
    fn tags(&self, name: &Name) -> Result<Option<Vec<String>>, Error>;

    /// A manifest of a repository.
    ///
    /// # Errors
    /// Whatever the place reports.
    fn manifest(&self, name: &Name, reference: &ManifestRef) -> Result<Option<ManifestRecord>, Error>;

    /// A blob, with its size.
    ///
    /// # Errors
    /// Whatever the place reports.
    fn blob(&self, name: &Name, digest: &Digest) -> Result<Option<Descriptor>, Error>;

    /// The manifests whose subject is `digest`.
    ///
    /// # Errors
    /// Whatever the place reports.
    fn referrers(&self, name: &Name, digest: &Digest) -> Result<Vec<Descriptor>, Error>;

    /// Every tag with its manifest, by repository and tag in lexical order, without reading manifests where the place knows them.
    ///
    /// # Errors
    /// Whatever the place reports.
    fn tagged(&self) -> Result<Vec<Tagged>, Error>;

    /// A blob to try whether blobs can be read: another with each number. `None` where there is none to try.
    fn sample(&self, number: usize) -> Option<Descriptor>;

    /// Where blobs are read.
    fn blobs(&self) -> &dyn Provider;

    /// The store, if it is one.
    fn store(&self) -> Option<&Store> {
        None
    }
}

impl Backend for Store {
    fn repositories(&self) -> Result<Vec<String>, Error> {
        Ok(self.repositories()?)
    }

    fn tags(&self, name: &Name) -> Result<Option<Vec<String>>, Error> {
        first(name, |path| Ok(self.tags(path)?), |path, host| Ok(self.tags_of(path, host)?))
    }

    fn manifest(&self, name: &Name, reference: &ManifestRef) -> Result<Option<ManifestRecord>, Error> {
        let may_be_of = |path: &str, host: &str| match reference {
            ManifestRef::Tag(tag) => Ok::<_, Error>(self.tags_of(path, host)?.is_some_and(|tags| tags.contains(tag))),
            // a digest stands for the same bytes, whoever has them
            ManifestRef::Digest(_) => Ok(true),
        };
        let look = |path: &str| Ok(self.manifest(path, reference)?);
        first(name, look, |path, host| if may_be_of(path, host)? { look(path) } else { Ok(None) })
    }

    fn blob(&self, name: &Name, digest: &Digest) -> Result<Option<Descriptor>, Error> {
        // Blobs are seen by all repositories but those that deleted them, so there is no other name to look under.
        let size = self.blob_size_in(&name.repository, digest)?;
        Ok(size.map(|size| Descriptor::new("application/octet-stream", digest.clone(), size)))
    }

    fn referrers(&self, name: &Name, digest: &Digest) -> Result<Vec<Descriptor>, Error> {
        let look = |path: &str| Ok(Some(self.referrers(path, digest)?).filter(|found| !found.is_empty()));
        let found = first(name, look, |path, _| look(path))?;
        Ok(found.unwrap_or_default())
    }

    fn tagged(&self) -> Result<Vec<Tagged>, Error> {
        let tagged = |(repository, tag, manifest)| Tagged { repository, tag, manifest };
        Ok(self.tagged()?.into_iter().map(tagged).collect())
    }

    /// Manifests alone are tried: that a folder can be read is not a question of which file.
    fn sample(&self, number: usize) -> Option<Descriptor> {
        let tagged = self.tagged().ok()?;
        let (_, _, digest) = tagged.get(number.checked_rem(tagged.len())?)?;
        let size = self.blob_size(digest).ok()??;
        Some(Descriptor::new("application/octet-stream", digest.clone(), size))
    }

    fn blobs(&self) -> &dyn Provider {
        self
    }

    fn store(&self) -> Option<&Store> {
        Some(self)
    }
}

/// Looks where a name may stand in a store. As a mirror it looks under the host's name first (`--layout host`), then under the bare path, as
/// docker-registry does; `of_another` is told which host is meant then. docker asks a mirror for paths of docker.io, and does not say so.
fn first<T>(
    name: &Name,
    look: impl Fn(&str) -> Result<Option<T>, Error>,
    of_another: impl Fn(&str, &str) -> Result<Option<T>, Error>,
) -> Result<Option<T>, Error> {
    // as `Reference` normalises hosts, so must we
    let host = name.ns.as_deref().map(|ns| if reference::is_docker_hub(ns) { reference::DOCKER_HUB } else { ns });
    let below = |host: &str| {
        let path = format!("{host}/{}", name.repository);
        if reference::is_path(&path) { look(&path) } else { Ok(None) }
    };
    match host {
        Some(host) => below(host)?.map_or_else(|| of_another(&name.repository, host), |found| Ok(Some(found))),
        None => look(&name.repository)?.map_or_else(|| below(reference::DOCKER_HUB), |found| Ok(Some(found))),
    }
}
