//! One image's source while it is resolved: its documents are read once each and kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use ferry_content::{Provider, read_all};
use ferry_image::manifest::MAX_MANIFEST;
use ferry_image::{Algorithm, Descriptor, Digest, ImageConfig, Manifest, referrer};
use ferry_registry_client::{Head, Repository};

use crate::Error;
use crate::known::{Document, Known};

/// Manifests and configs that were read, by digest. They go into the bundle from here and are not asked for again.
pub(crate) type Documents = BTreeMap<Digest, Bytes>;

/// The manifest or index `digest`, from its registry.
pub(crate) async fn fetch(repository: &Repository, digest: &Digest) -> Result<Document, Error> {
    let fetched = repository.manifest(&digest.to_string()).await?;
    Ok(Document { media_type: fetched.media_type, bytes: fetched.bytes })
}

/// `None` for what is not there.
fn absent<T>(result: Result<T, ferry_registry_client::Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.status(), Some(404 | 410)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Where an image is read from.
pub(crate) struct Place {
    provider: Arc<dyn Provider>,
    /// Registries serve manifests under a path of their own; elsewhere a manifest is a blob like any other.
    repository: Option<(Repository, Known)>,
    /// What a layout lists beside the image, with its names there.
    listed: Vec<(Vec<String>, Descriptor)>,
    documents: Mutex<Documents>,
}

impl Place {
    /// What is `known` is not asked for.
    pub(crate) fn registry(repository: Repository, known: Known) -> Self {
        Self {
            provider: Arc::new(repository.clone()),
            repository: Some((repository, known)),
            listed: Vec::new(),
            documents: Mutex::default(),
        }
    }

    pub(crate) fn local(provider: Arc<dyn Provider>, known: impl IntoIterator<Item = (Digest, Bytes)>) -> Self {
        let documents = Mutex::new(known.into_iter().collect());
        Self { provider, repository: None, listed: Vec::new(), documents }
    }

    /// The same place, which lists these manifests, too.
    pub(crate) fn listing(self, listed: Vec<(Vec<String>, Descriptor)>) -> Self {
        Self { listed, ..self }
    }

    pub(crate) fn provider(&self) -> Arc<dyn Provider> {
        Arc::clone(&self.provider)
    }

    pub(crate) fn name(&self) -> String {
        self.provider.place()
    }

    pub(crate) fn into_documents(self) -> Documents {
        self.documents.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a document that was read already.
    pub(crate) fn keep(&self, digest: Digest, bytes: Bytes) {
        self.documents.lock().unwrap_or_else(PoisonError::into_inner).insert(digest, bytes);
    }

    fn kept(&self, digest: &Digest) -> Option<Bytes> {
        self.documents.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    /// The manifest or index that `descriptor` names.
    pub(crate) async fn manifest(&self, descriptor: &Descriptor) -> Result<Manifest, Error> {
        self.check_algorithm(&descriptor.digest)?;
        let bytes = match (self.kept(&descriptor.digest), &self.repository) {
            (Some(bytes), _) => bytes,
            (None, Some((repository, known))) => {
                let document = known.get_or(&descriptor.digest, fetch(repository, &descriptor.digest)).await?;
                self.keep(descriptor.digest.clone(), document.bytes.clone());
                document.bytes
            }
            (None, None) => self.blob(descriptor).await?,
        };
        self.check_size(descriptor, &bytes)?;
        let declared = (!descriptor.media_type.is_empty()).then_some(descriptor.media_type.as_str());
        Manifest::parse(&bytes, declared).map_err(|source| self.document(&descriptor.digest, source))
    }

    /// The image config that `descriptor` names.
    pub(crate) async fn config(&self, descriptor: &Descriptor) -> Result<ImageConfig, Error> {
        self.check_algorithm(&descriptor.digest)?;
        let bytes = match self.kept(&descriptor.digest) {
            Some(bytes) => bytes,
            None => self.blob(descriptor).await?,
        };
        self.check_size(descriptor, &bytes)?;
        ImageConfig::parse(&bytes).map_err(|source| self.document(&descriptor.digest, source))
    }

    /// What refers to `subject`, as far as the place says; more than `limit` are not asked for.
    pub(crate) async fn referrers(&self, subject: &Digest, limit: usize) -> Result<Vec<Descriptor>, Error> {
        if let Some((repository, _)) = &self.repository {
            return Ok(repository.referrers(subject, limit).await?.manifests);
        }
        let mut found = Vec::new();
        for (_, descriptor) in &self.listed {
            // what else a layout lists may be anything, or not be there
            if let Ok(manifest) = self.manifest(descriptor).await
                && referrer::subject(&manifest).is_some_and(|s| s.digest == *subject)
            {
                found.push(descriptor.clone());
            }
        }
        Ok(found)
    }

    /// The manifest under a tag, `None` when there is none.
    pub(crate) async fn tagged(&self, tag: &str) -> Result<Option<Descriptor>, Error> {
        let Some((repository, known)) = &self.repository else {
            // the tag, or a whole name that ends with it
            let is_tag =
                |name: &String| name.strip_suffix(tag).is_some_and(|rest| rest.is_empty() || rest.ends_with(':'));
            return Ok(self.listed.iter().find(|(names, _)| names.iter().any(is_tag)).map(|(_, d)| d.clone()));
        };
        // a HEAD counts against no quota, and mostly there is nothing
        match repository.head(tag).await? {
            Some(Head { digest: Some(digest), .. }) => self.fetched(repository, known, &digest).await,
            Some(_) => {
                let Some(fetched) = absent(repository.manifest(tag).await)? else { return Ok(None) };
                let document = Document { media_type: fetched.media_type, bytes: fetched.bytes };
                known.learn(&fetched.digest, document.clone());
                Ok(Some(self.described(&fetched.digest, document)))
            }
            None => Ok(None),
        }
    }

    /// The manifest that a list names, `None` when it is gone. What a list says of its size and type may be wrong.
    pub(crate) async fn named(&self, descriptor: &Descriptor) -> Result<Option<Descriptor>, Error> {
        match &self.repository {
            Some((repository, known)) => self.fetched(repository, known, &descriptor.digest).await,
            None => Ok(Some(Descriptor::new(&descriptor.media_type, descriptor.digest.clone(), descriptor.size))),
        }
    }

    async fn fetched(
        &self,
        repository: &Repository,
        known: &Known,
        digest: &Digest,
    ) -> Result<Option<Descriptor>, Error> {
        let read = async {
            let fetched = repository.manifest(&digest.to_string()).await?;
            Ok(Document { media_type: fetched.media_type, bytes: fetched.bytes })
        };
        Ok(absent(known.get_or(digest, read).await)?.map(|document| self.described(digest, document)))
    }

    fn described(&self, digest: &Digest, document: Document) -> Descriptor {
        let Document { media_type, bytes } = document;
        let descriptor = Descriptor::new(&media_type, digest.clone(), bytes.len() as u64);
        self.keep(digest.clone(), bytes);
        descriptor
    }

    /// A small blob that is looked into.
    pub(crate) async fn small(&self, descriptor: &Descriptor) -> Result<Bytes, Error> {
        self.check_algorithm(&descriptor.digest)?;
        match self.kept(&descriptor.digest) {
            Some(bytes) => Ok(bytes),
            None => self.blob(descriptor).await,
        }
    }

    async fn blob(&self, descriptor: &Descriptor) -> Result<Bytes, Error> {
        let read = read_all(self.provider.as_ref(), descriptor, MAX_MANIFEST);
        let bytes = match &self.repository {
            Some((_, known)) => {
                let document = async {
                    Ok::<_, Error>(Document { media_type: descriptor.media_type.clone(), bytes: read.await? })
                };
                known.get_or(&descriptor.digest, document).await?.bytes
            }
            None => read.await?,
        };
        self.keep(descriptor.digest.clone(), bytes.clone());
        Ok(bytes)
    }

    pub(crate) fn check_algorithm(&self, digest: &Digest) -> Result<(), Error> {
        match digest.algorithm() {
            Algorithm::Sha256 => Ok(()),
            Algorithm::Sha512 => Err(Error::Algorithm { place: self.name(), digest: digest.clone() }),
        }
    }

    /// Who names a document states its size, and the bundle is laid out by that.
    fn check_size(&self, descriptor: &Descriptor, bytes: &Bytes) -> Result<(), Error> {
        let (expected, found) = (descriptor.size, bytes.len() as u64);
        if expected == found {
            return Ok(());
        }
        let (place, digest) = (self.name(), descriptor.digest.clone());
        Err(ferry_content::Error::SizeMismatch { place, digest, expected, found }.into())
    }

    fn document(&self, digest: &Digest, source: ferry_image::Error) -> Error {
        Error::Document { place: self.name(), digest: digest.clone(), source }
    }
}
