//! Upload sessions of registry clients: a file that grows, so that a session outlives the connection and the process.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ferry_image::{Algorithm, Descriptor, Digest, Hasher};

use super::hashers::Hashers;
use super::layout::{Layout, record};
use super::{Error, Store, check_repository, durable, owner};
use crate::files::{CHUNK, read_range};

/// How long a session is waited for that another request holds: a connection just lost may not have been noticed yet.
const PATIENCE: Duration = Duration::from_secs(5);
/// An upload that this holder alone writes to. Dropped, it can be continued.
#[derive(Debug)]
pub struct Upload {
    id: String,
    repository: String,
    path: PathBuf,
    file: File,
    offset: u64,
    /// Of the first `offset` bytes. `None` until it is needed, where it must be read from the disk: a session may be long.
    hasher: Option<Hasher>,
    layout: Arc<Layout>,
    hashers: Arc<Hashers>,
}

impl Store {
    /// Begins an upload into `repository`.
    ///
    /// # Errors
    /// [`Error::Name`]; whatever the disk reports.
    pub fn start_upload(&self, repository: &str) -> Result<Upload, Error> {
        check_repository(repository)?;
        let id = durable::random_id()?;
        let path = self.session(repository, &id);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(|e| crate::Error::io("create", &path, e))?;
        owner::hand_over(&file, &path);
        self.hold(repository, &id, path, file)
    }

    /// Continues an upload: after a lost connection, or after a restart.
    ///
    /// # Errors
    /// [`Error::UploadUnknown`], [`Error::UploadBusy`]; whatever the disk reports.
    pub fn resume_upload(&self, repository: &str, id: &str) -> Result<Upload, Error> {
        let path = self.known_session(repository, id)?;
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => self.hold(repository, id, path, file),
            Err(e) => Err(self.unknown_or(e, repository, id, path)),
        }
    }

    /// How many bytes an upload has, also while it is being written to.
    ///
    /// # Errors
    /// [`Error::UploadUnknown`]; whatever the disk reports.
    pub fn upload_offset(&self, repository: &str, id: &str) -> Result<u64, Error> {
        let path = self.known_session(repository, id)?;
        match path.metadata() {
            Ok(metadata) => Ok(metadata.len()),
            Err(e) => Err(self.unknown_or(e, repository, id, path)),
        }
    }

    fn known_session(&self, repository: &str, id: &str) -> Result<PathBuf, Error> {
        check_repository(repository)?;
        // The id comes from a client: nothing but hex may become part of a path.
        if id.len() != 32 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
            let id = id.chars().take(64).collect();
            return Err(Error::UploadUnknown { repository: repository.to_owned(), id });
        }
        Ok(self.session(repository, id))
    }

    /// The repository is part of the name, so a session is found only where it was begun.
    fn session(&self, repository: &str, id: &str) -> PathBuf {
        let repository = Digest::of(repository.as_bytes());
        self.layout.uploads().join(format!("session-{id}-{}", repository.short()))
    }

    fn hold(&self, repository: &str, id: &str, path: PathBuf, file: File) -> Result<Upload, Error> {
        let end = Instant::now() + PATIENCE;
        while let Err(e) = file.try_lock() {
            if let fs::TryLockError::Error(e) = e {
                return Err(crate::Error::io("lock", path, e).into());
            }
            if Instant::now() > end {
                return Err(Error::UploadBusy { repository: repository.to_owned(), id: id.to_owned() });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // Whoever held it may have finished: then the name is gone.
        if !path.exists() {
            self.hashers.forget(id);
            return Err(Error::UploadUnknown { repository: repository.to_owned(), id: id.to_owned() });
        }
        let offset = file.metadata().map_err(|e| crate::Error::io("read", &path, e))?.len();
        let hasher = self.hashers.take(id, offset).or_else(|| (offset == 0).then(|| Hasher::new(Algorithm::Sha256)));
        Ok(Upload {
            id: id.to_owned(),
            repository: repository.to_owned(),
            path,
            file,
            offset,
            hasher,
            layout: Arc::clone(&self.layout),
            hashers: Arc::clone(&self.hashers),
        })
    }

    fn unknown_or(&self, error: std::io::Error, repository: &str, id: &str, path: PathBuf) -> Error {
        match error.kind() {
            std::io::ErrorKind::NotFound => {
                self.hashers.forget(id);
                Error::UploadUnknown { repository: repository.to_owned(), id: id.to_owned() }
            }
            _ => crate::Error::io("read", path, error).into(),
        }
    }
}

impl Upload {
    /// The name of the session: 32 hex characters.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Bytes taken so far.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes the next bytes. After an error the upload is as it was before.
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn append(&mut self, chunks: &[Bytes]) -> Result<(), Error> {
        if self.hasher.is_none() && !chunks.is_empty() {
            self.hasher = Some(self.hash(Algorithm::Sha256)?);
        }
        let mut at = self.offset;
        for chunk in chunks {
            if let Err(e) = self.file.write_all_at(chunk, at) {
                let _ = self.file.set_len(self.offset);
                return Err(crate::Error::io("write", &self.path, e).into());
            }
            at += chunk.len() as u64;
        }
        if let Some(hasher) = &mut self.hasher {
            chunks.iter().for_each(|chunk| hasher.update(chunk));
        }
        self.offset = at;
        Ok(())
    }

    /// Makes the bytes visible as blob `digest`.
    ///
    /// # Errors
    /// [`crate::Error::DigestMismatch`] (inside [`Error::Content`]); whatever the disk reports. The upload is gone in either case.
    pub fn finish(mut self, digest: &Digest) -> Result<Descriptor, Error> {
        let found = match (self.hasher.take(), digest.algorithm()) {
            (Some(hasher), Algorithm::Sha256) => hasher.finish(),
            (_, algorithm) => self.hash(algorithm)?.finish(),
        };
        if found != *digest {
            let _ = fs::remove_file(&self.path);
            let place = format!("upload to {}", self.repository);
            return Err(crate::Error::DigestMismatch { place, expected: digest.clone(), found }.into());
        }
        if let Err(error) = self.layout.place_blob(&self.file, &self.path, digest) {
            let _ = fs::remove_file(&self.path);
            return Err(error.into());
        }
        durable::remove(&self.layout.deleted(&self.repository).join(record(digest)))?;
        Ok(Descriptor::new("application/octet-stream", digest.clone(), self.offset))
    }

    /// Gives the upload up, however long it is: nothing of it is read.
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn cancel(mut self) -> Result<(), Error> {
        self.hasher = None;
        Ok(durable::remove(&self.path)?)
    }

    /// Reads what is there.
    fn hash(&self, algorithm: Algorithm) -> Result<Hasher, Error> {
        hash_file(&self.file, self.offset, algorithm).map_err(|e| crate::Error::io("read", &self.path, e).into())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // of nothing it is made in no time
        if let Some(hasher) = self.hasher.take().filter(|_| self.offset > 0) {
            self.hashers.keep(&self.id, self.offset, hasher, Instant::now());
        }
    }
}

pub(super) fn hash_file(file: &File, end: u64, algorithm: Algorithm) -> std::io::Result<Hasher> {
    let mut hasher = Hasher::new(algorithm);
    let mut at = 0;
    while at < end {
        let next = end.min(at + CHUNK);
        hasher.update(&read_range(file, &(at..next))?);
        at = next;
    }
    Ok(hasher)
}
