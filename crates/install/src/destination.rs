//! Where images are installed: a registry, or the folder of a store.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ferry_content::store::{ManifestRecord, ManifestRef, Store};
use ferry_content::{BoxFuture, ByteStream, Ingest, Ingester, Provider};
use ferry_image::{Descriptor, Digest, Target};
use ferry_registry_client::{Client, ListedBy, Ping, Repository};

use crate::{Error, referrers, relied};

/// A place to install to.
#[derive(Clone)]
pub enum Destination {
    /// A registry, under `target`'s prefix.
    Registry {
        /// The client to reach it with.
        client: Client,
        /// Host and prefix.
        target: Target,
    },
    /// A store; `target` is the name that its registry will be reached by.
    Store {
        /// The store.
        store: Arc<Store>,
        /// Host and prefix as YAML shall name them.
        target: Target,
    },
}

/// Who lists the referrers of a manifest.
pub(crate) enum Listed {
    /// The target.
    ByItself,
    /// Its clients, in the index that stands under a tag, if it does.
    ByClients(Option<Bytes>),
}

impl Destination {
    /// Host and prefix.
    #[must_use]
    pub fn target(&self) -> &Target {
        match self {
            Self::Registry { target, .. } | Self::Store { target, .. } => target,
        }
    }

    /// Whether a blob that one repository has must be mounted into the others.
    pub(crate) fn has_repository_blobs(&self) -> bool {
        matches!(self, Self::Registry { .. })
    }

    /// What the registry shows of itself, if it answers as one; nothing for a store.
    pub(crate) async fn ping(&self) -> Result<Option<Ping>, Error> {
        match self {
            Self::Registry { client, target } => Ok(Some(client.ping(target.host()).await?)),
            Self::Store { .. } => Ok(None),
        }
    }

    /// The digest that stands under a tag or digest, if anything does.
    pub(crate) async fn digest(&self, repository: &str, reference: &str) -> Result<Option<Digest>, Error> {
        match self {
            Self::Registry { client, target } => {
                let repository = client.repository(target.host(), repository)?.to_push();
                match repository.head(reference).await? {
                    None => Ok(None),
                    Some(head) => match head.digest {
                        Some(digest) => Ok(Some(digest)),
                        // a registry that names no digest with HEAD must be asked for the bytes
                        None => Ok(Some(repository.manifest(reference).await?.digest)),
                    },
                }
            }
            Self::Store { store, .. } => Ok(stored(store, repository, reference)?.map(|record| record.digest)),
        }
    }

    /// Whether `repository` has a blob; of a store, whether that has it.
    pub(crate) async fn has_blob(&self, repository: &str, blob: &Descriptor) -> Result<bool, Error> {
        match self {
            Self::Registry { client, target } => {
                Ok(client.repository(target.host(), repository)?.has_blob(&blob.digest).await?)
            }
            Self::Store { store, .. } => {
                let (store, blob) = (Arc::clone(store), blob.clone());
                match tokio::task::spawn_blocking(move || store.holds(&blob)).await {
                    Ok(holds) => Ok(holds?),
                    Err(error) => Err(ferry_content::Error::io("read", "store", std::io::Error::other(error)).into()),
                }
            }
        }
    }

    /// Gives the blobs that `repository` has.
    pub(crate) fn blobs_of(&self, repository: &str) -> Result<Arc<dyn Provider>, Error> {
        Ok(match self {
            Self::Registry { client, target } => Arc::new(There(client.repository(target.host(), repository)?)),
            Self::Store { store, .. } => Arc::clone(store) as Arc<dyn Provider>,
        })
    }

    /// Takes blobs for `repository`; `mount_from` is a repository that has them.
    pub(crate) fn uploads(&self, repository: &str, mount_from: Option<&str>) -> Result<Arc<dyn Ingester>, Error> {
        Ok(match self {
            Self::Registry { client, target } => {
                Arc::new(client.repository(target.host(), repository)?.uploads(mount_from.map(ToOwned::to_owned)))
            }
            Self::Store { store, .. } => Arc::clone(store) as Arc<dyn Ingester>,
        })
    }

    /// Takes nothing for `repository`, which had each blob when it was asked: it is asked once more. A mount of its own would do as well
    /// where mounts are known; where they are not, the blob would be fetched from there and sent to where it is.
    pub(crate) fn keeps(&self, repository: &str) -> Result<Arc<dyn Ingester>, Error> {
        Ok(match self {
            Self::Registry { client, target } => Arc::new(Kept(client.repository(target.host(), repository)?)),
            Self::Store { store, .. } => Arc::clone(store) as Arc<dyn Ingester>,
        })
    }

    /// The bytes of a manifest, if it is there.
    pub(crate) async fn manifest(&self, repository: &str, reference: &str) -> Result<Option<Bytes>, Error> {
        match self {
            Self::Registry { client, target } => {
                match client.repository(target.host(), repository)?.to_push().manifest(reference).await {
                    Ok(fetched) => Ok(Some(fetched.bytes)),
                    Err(error) if error.status() == Some(404) => Ok(None),
                    Err(error) => Err(error.into()),
                }
            }
            Self::Store { store, .. } => Ok(stored(store, repository, reference)?.map(|record| record.bytes)),
        }
    }

    /// Who lists the referrers of `subject`.
    pub(crate) async fn listed(&self, repository: &str, subject: &Digest) -> Result<Listed, Error> {
        match self {
            Self::Registry { client, target } => {
                let repository = client.repository(target.host(), repository)?.to_push();
                Ok(match repository.referrers(subject, referrers::MOST).await?.listed_by {
                    ListedBy::Api => Listed::ByItself,
                    ListedBy::Tag(fetched) => Listed::ByClients(Some(fetched.bytes)),
                    ListedBy::Nobody => Listed::ByClients(None),
                })
            }
            Self::Store { .. } => Ok(Listed::ByItself),
        }
    }

    /// Puts a manifest as [`put_manifest`](Self::put_manifest). Whether the target lists it by itself among the referrers of `subject`.
    pub(crate) async fn put_referrer(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        bytes: &Bytes,
        subject: &Digest,
    ) -> Result<bool, Error> {
        match self {
            Self::Registry { client, target } => {
                let repository = client.repository(target.host(), repository)?;
                Ok(repository.put_referrer(reference, media_type, bytes, subject).await?)
            }
            Self::Store { .. } => self.put_manifest(repository, reference, media_type, bytes).await.map(|()| true),
        }
    }

    /// Puts a manifest under a tag or its digest.
    pub(crate) async fn put_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        bytes: &Bytes,
    ) -> Result<(), Error> {
        self.put_image(None, repository, reference, media_type, bytes).await
    }

    /// The same of an image that is from `host`: a store must not give it out as another host's.
    pub(crate) async fn put_image(
        &self,
        host: Option<&str>,
        repository: &str,
        reference: &str,
        media_type: &str,
        bytes: &Bytes,
    ) -> Result<(), Error> {
        match self {
            Self::Registry { client, target } => {
                Ok(client.repository(target.host(), repository)?.put_manifest(reference, media_type, bytes).await?)
            }
            Self::Store { store, .. } => {
                let tag = match manifest_ref(reference)? {
                    ManifestRef::Tag(tag) => Some(tag),
                    ManifestRef::Digest(_) => None,
                };
                let (store, repository) = (Arc::clone(store), repository.to_owned());
                let (media_type, bytes, host) = (media_type.to_owned(), bytes.clone(), host.map(str::to_owned));
                let put = move || match (&host, &tag) {
                    (Some(host), Some(tag)) => store.put_manifest_of(host, &repository, tag, &media_type, &bytes),
                    _ => store.put_manifest(&repository, tag.as_deref(), &media_type, &bytes),
                };
                match tokio::task::spawn_blocking(put).await {
                    Ok(result) => Ok(result.map(|_| ())?),
                    Err(error) => Err(ferry_content::Error::io("write", "store", std::io::Error::other(error)).into()),
                }
            }
        }
    }
}

/// A repository of the target that has blobs, or had them when it was asked.
struct There(Repository);

impl Provider for There {
    fn open<'a>(
        &'a self,
        blob: &'a Descriptor,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<ByteStream, ferry_content::Error>> {
        Box::pin(
            async move { self.0.open(blob, range).await.map_err(|error| relied::gone(blob, &self.place(), error)) },
        )
    }

    fn place(&self) -> String {
        self.0.place()
    }
}

/// A repository of the target that needs blobs and had them when it was asked.
struct Kept(Repository);

impl Ingester for Kept {
    fn start<'a>(
        &'a self,
        blob: &'a Descriptor,
    ) -> BoxFuture<'a, Result<Option<Box<dyn Ingest>>, ferry_content::Error>> {
        Box::pin(async move {
            match self.0.has_blob(&blob.digest).await {
                Ok(true) => Ok(None),
                Ok(false) => Err(relied::lost(blob, &self.place())),
                Err(error) => Err(ferry_content::Error::other(error)),
            }
        })
    }

    fn place(&self) -> String {
        self.0.to_string()
    }
}

/// The manifest that a store has. A damaged one is none: pushing it again mends it.
fn stored(store: &Store, repository: &str, reference: &str) -> Result<Option<ManifestRecord>, Error> {
    use ferry_content::{Error as ContentError, store::Error as StoreError};
    match store.manifest(repository, &manifest_ref(reference)?) {
        Err(StoreError::Content(ContentError::DigestMismatch { .. })) => Ok(None),
        found => Ok(found?),
    }
}

fn manifest_ref(reference: &str) -> Result<ManifestRef, Error> {
    match reference.parse::<Digest>() {
        Ok(digest) => Ok(ManifestRef::Digest(digest)),
        Err(_) => Ok(ManifestRef::Tag(reference.to_owned())),
    }
}
