//! A ready-made read-only [`Backend`]: a list of manifests, and providers of the blobs that they name. Made from bundles.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ferry_content::store::{ManifestRecord, ManifestRef};
use ferry_content::{BoxFuture, ByteStream, Provider};
use ferry_image::{Descriptor, Digest, Manifest, Reference, reference, referrer};

use crate::backend::Tagged;
use crate::{Backend, Error, Name};

/// Manifests in memory, blobs elsewhere.
#[derive(Default)]
pub struct Catalog {
    sources: Vec<Arc<dyn Provider>>,
    blobs: HashMap<Digest, (Descriptor, usize)>,
    manifests: HashMap<Digest, ManifestRecord>,
    repositories: BTreeMap<String, Repository>,
    /// The same under `host/path` of the original reference, for clients that take us for a mirror.
    origins: BTreeMap<String, Repository>,
}

#[derive(Default)]
struct Repository {
    tags: BTreeMap<String, Digest>,
    manifests: BTreeMap<Digest, Option<(Digest, Descriptor)>>,
    /// Some image here has no known origin: then the bare path may answer for any host.
    is_anonymous: bool,
}

/// A source that was added to a [`Catalog`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceId(usize);

/// One manifest for a [`Catalog`]. Children of an index are entries of their own, without a tag.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Where it is served.
    pub repository: String,
    /// The tag it is served under; by digest it is served in any case.
    pub tag: Option<String>,
    /// The reference it had where it was pulled: its host and path answer mirror requests (`?ns=`), and its tag too where this entry has
    /// a tag. A child of an index has its index's origin.
    pub origin: Option<Reference>,
    /// The media type that its descriptor states.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Bytes,
}

impl Catalog {
    /// An empty catalog.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a place that has blobs, such as a bundle.
    pub fn add_source(&mut self, source: Arc<dyn Provider>) -> SourceId {
        self.sources.push(source);
        SourceId(self.sources.len() - 1)
    }

    /// Adds a manifest whose blobs are at `source`. Where two sources have a blob, the one added first serves it.
    ///
    /// # Errors
    /// [`Error::Manifest`]; [`Error::Collision`] when the tag is another image's already.
    pub fn add(&mut self, source: SourceId, entry: Entry) -> Result<Digest, Error> {
        let fail = |why| Error::Manifest { repository: entry.repository.clone(), why };
        if !reference::is_path(&entry.repository) {
            let why = "it is not a repository path".to_owned();
            return Err(fail(ferry_image::Error::Reference { text: entry.repository.clone(), why }));
        }
        let manifest = Manifest::parse(&entry.bytes, Some(&entry.media_type)).map_err(fail)?;
        let descriptor = Descriptor::of(manifest.media_type(), &entry.bytes);
        let digest = descriptor.digest.clone();
        let subject = referrer::listed(&manifest, &descriptor);

        let repository = self.repositories.entry(entry.repository.clone()).or_default();
        repository.is_anonymous |= entry.origin.is_none();
        repository.insert(&entry.repository, entry.tag.as_deref(), &digest, subject.clone())?;
        if let Some(origin) = &entry.origin {
            let name = origin.repository();
            let tag = entry.tag.as_ref().and(origin.tag());
            self.origins.entry(name.clone()).or_default().insert(&name, tag, &digest, subject)?;
        }
        if let Manifest::Image(image) = &manifest {
            for blob in image.blobs() {
                self.blobs.entry(blob.digest.clone()).or_insert_with(|| (blob.clone(), source.0));
            }
        }
        // A manifest is a blob too: some clients ask for it as one.
        self.blobs.entry(digest.clone()).or_insert_with(|| (descriptor.clone(), source.0));
        let record =
            ManifestRecord { bytes: entry.bytes, media_type: descriptor.media_type.clone(), digest: digest.clone() };
        self.manifests.insert(digest.clone(), record);
        Ok(digest)
    }

    /// Where a name may stand, the likeliest place first.
    fn repositories(&self, name: &Name) -> impl Iterator<Item = &Repository> {
        let own = self.repositories.get(&name.repository);
        let places = match &name.ns {
            // docker asks a mirror for paths of docker.io, and does not say so
            None => [own, self.origins.get(&format!("{}/{}", reference::DOCKER_HUB, name.repository)), None],
            Some(ns) => {
                // As Reference normalises hosts, so must we.
                let host = if reference::is_docker_hub(ns) { reference::DOCKER_HUB } else { ns };
                let original = format!("{host}/{}", name.repository);
                // Never another host's image of the same path.
                let own = own.filter(|repository| repository.is_anonymous);
                [self.origins.get(&original), self.repositories.get(&original), own]
            }
        };
        places.into_iter().flatten()
    }
}

impl Repository {
    fn insert(
        &mut self,
        name: &str,
        tag: Option<&str>,
        digest: &Digest,
        subject: Option<(Digest, Descriptor)>,
    ) -> Result<(), Error> {
        if let Some(tag) = tag {
            if let Some(first) = self.tags.get(tag).filter(|first| *first != digest) {
                let name = format!("{name}:{tag}");
                return Err(Error::Collision { name, first: first.clone(), second: digest.clone() });
            }
            self.tags.insert(tag.to_owned(), digest.clone());
        }
        self.manifests.insert(digest.clone(), subject);
        Ok(())
    }
}

impl Backend for Catalog {
    fn repositories(&self) -> Result<Vec<String>, Error> {
        Ok(self.repositories.keys().cloned().collect())
    }

    fn tags(&self, name: &Name) -> Result<Option<Vec<String>>, Error> {
        Ok(self.repositories(name).next().map(|repository| repository.tags.keys().cloned().collect()))
    }

    fn manifest(&self, name: &Name, reference: &ManifestRef) -> Result<Option<ManifestRecord>, Error> {
        let digest = self.repositories(name).find_map(|repository| match reference {
            ManifestRef::Tag(tag) => repository.tags.get(tag),
            ManifestRef::Digest(digest) => repository.manifests.get_key_value(digest).map(|(digest, _)| digest),
        });
        Ok(digest.and_then(|digest| self.manifests.get(digest)).cloned())
    }

    fn blob(&self, _: &Name, digest: &Digest) -> Result<Option<Descriptor>, Error> {
        Ok(self.blobs.get(digest).map(|(blob, _)| blob.clone()))
    }

    fn referrers(&self, name: &Name, digest: &Digest) -> Result<Vec<Descriptor>, Error> {
        let of = |repository: &Repository| -> Vec<Descriptor> {
            let referrers = repository.manifests.values().flatten().filter(|(subject, _)| subject == digest);
            referrers.map(|(_, descriptor)| descriptor.clone()).collect()
        };
        Ok(self.repositories(name).map(of).find(|found| !found.is_empty()).unwrap_or_default())
    }

    fn tagged(&self) -> Result<Vec<Tagged>, Error> {
        let all = self.repositories.iter().flat_map(|(name, repository)| {
            let tagged = move |(tag, digest): (&String, &Digest)| Tagged {
                repository: name.clone(),
                tag: tag.clone(),
                manifest: digest.clone(),
            };
            repository.tags.iter().map(tagged)
        });
        Ok(all.collect())
    }

    fn sample(&self, number: usize) -> Option<Descriptor> {
        self.blobs.values().nth(number.checked_rem(self.blobs.len())?).map(|(blob, _)| blob.clone())
    }

    fn blobs(&self) -> &dyn Provider {
        self
    }
}

impl Provider for Catalog {
    fn open<'a>(
        &'a self,
        blob: &'a Descriptor,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<ByteStream, ferry_content::Error>> {
        let source = self.blobs.get(&blob.digest).and_then(|(_, source)| self.sources.get(*source));
        match source {
            Some(source) => source.open(blob, range),
            None => {
                let what = format!("blob {}", blob.digest);
                Box::pin(async move { Err(ferry_content::Error::NotFound { place: self.place(), what }) })
            }
        }
    }

    fn turns_elsewhere(&self, blob: &Descriptor) -> bool {
        let source = self.blobs.get(&blob.digest).and_then(|(_, source)| self.sources.get(*source));
        source.is_some_and(|source| source.turns_elsewhere(blob))
    }

    fn check(&self) -> Result<(), ferry_content::Error> {
        self.sources.iter().try_for_each(|source| source.check())
    }

    fn place(&self) -> String {
        match self.sources.as_slice() {
            [one] => one.place(),
            many => format!("{} bundles", many.len()),
        }
    }
}
