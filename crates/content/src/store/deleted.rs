//! Blobs that one repository has deleted. The bytes are shared by all, so they go with the next garbage collection that finds nobody who
//! needs them; until then the repository alone does not see them.

use ferry_image::{Digest, Manifest};

use super::layout::record;
use super::{Error, Store, check_repository, durable};

impl Store {
    /// The size of a blob as a repository sees it, `None` when it is absent or deleted there.
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn blob_size_in(&self, repository: &str, digest: &Digest) -> Result<Option<u64>, Error> {
        check_repository(repository)?;
        match self.layout.deleted(repository).join(record(digest)).exists() {
            true => Ok(None),
            false => self.blob_size(digest),
        }
    }

    /// Deletes a blob in one repository. Whether it was there. It comes back with a push, a mount or a manifest that names it.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::Locked`]; whatever the disk reports.
    pub fn delete_blob(&self, repository: &str, digest: &Digest) -> Result<bool, Error> {
        check_repository(repository)?;
        let _guard = self.layout.lock()?;
        if self.blob_size_in(repository, digest)?.is_none() {
            return Ok(false);
        }
        let folder = self.layout.deleted(repository);
        durable::create_folders(&folder)?;
        durable::write(&self.layout.uploads(), &folder.join(record(digest)), b"")?;
        Ok(true)
    }

    /// Makes a blob that is here visible in `repository`, unless it is deleted in `from`. Whether it is.
    ///
    /// # Errors
    /// [`Error::Name`]; whatever the disk reports.
    pub fn mount_blob(&self, repository: &str, digest: &Digest, from: Option<&str>) -> Result<bool, Error> {
        check_repository(repository)?;
        if let Some(from) = from
            && (check_repository(from).is_err() || self.blob_size_in(from, digest)?.is_none())
        {
            return Ok(false);
        }
        if !self.layout.renew(digest)? {
            return Ok(false);
        }
        durable::remove(&self.layout.deleted(repository).join(record(digest)))?;
        Ok(true)
    }

    /// Keeps a blob from garbage collections for a while: a client that was told that it is here will not push it.
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn renew_blob(&self, digest: &Digest) -> Result<bool, Error> {
        Ok(durable::is_young(&self.layout.blob(digest)) || self.layout.renew(digest)?)
    }

    /// What a manifest names is seen by its repository.
    pub(super) fn undelete(&self, repository: &str, manifest: &Manifest) -> Result<(), Error> {
        let folder = self.layout.deleted(repository);
        if let Manifest::Image(image) = manifest
            && folder.is_dir()
        {
            for blob in image.blobs() {
                durable::remove(&folder.join(record(&blob.digest)))?;
            }
        }
        Ok(())
    }
}
