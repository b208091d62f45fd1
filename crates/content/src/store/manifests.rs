//! Manifests: put, read, list, delete, and what refers to what.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ferry_image::manifest::MAX_MANIFEST;
use ferry_image::{Algorithm, Descriptor, Digest, Hasher, Manifest, media_type, referrer};

use super::index::ORIGIN;
use super::layout::record;
use super::{Error, ManifestRecord, ManifestRef, Store, check_repository, durable};

/// A type of its own choice would keep a manifest's blobs from being found, and browsers would be told to show it as that.
fn refuse_unknown(manifest: Manifest) -> Result<Manifest, ferry_image::Error> {
    let media_type = manifest.media_type();
    if media_type::is_index(media_type) || media_type::is_manifest(media_type) {
        return Ok(manifest);
    }
    let why = format!("`{}` is no media type of a manifest", media_type.escape_debug());
    Err(ferry_image::Error::Document { what: "manifest", why })
}

impl Store {
    /// The manifest that `reference` names in `repository`, `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Content`] when its bytes are damaged or cannot be read.
    pub fn manifest(&self, repository: &str, reference: &ManifestRef) -> Result<Option<ManifestRecord>, Error> {
        check_repository(repository)?;
        let found = match reference {
            ManifestRef::Tag(tag) => self.index.tags()?.get(repository).and_then(|tags| tags.get(tag)).cloned(),
            ManifestRef::Digest(digest) => self.descriptor(repository, digest)?,
        };
        let Some(Descriptor { media_type, digest, .. }) = found else { return Ok(None) };
        let Some(bytes) = durable::read(&self.layout.blob(&digest), MAX_MANIFEST)? else { return Ok(None) };
        let found = hash(digest.algorithm(), &bytes);
        if found != digest {
            return Err(crate::Error::DigestMismatch { place: self.name(), expected: digest, found }.into());
        }
        Ok(Some(ManifestRecord { bytes: bytes.into(), media_type, digest }))
    }

    /// The descriptor of a manifest that the repository has.
    fn descriptor(&self, repository: &str, digest: &Digest) -> Result<Option<Descriptor>, Error> {
        if let Some(known) = read_record(&self.layout.manifests(repository).join(record(digest)))? {
            return Ok(Some(known));
        }
        // Another tool may have added an entry to index.json, and knows nothing of our records.
        let tags = self.index.tags()?;
        Ok(tags.get(repository).and_then(|tags| tags.values().find(|d| d.digest == *digest)).cloned())
    }

    /// Keeps a manifest from garbage collections for a while: a client that was told that it is here will not push it. Whether it is here.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::Locked`]; whatever the disk reports.
    pub fn renew_manifest(&self, repository: &str, digest: &Digest) -> Result<bool, Error> {
        check_repository(repository)?;
        let path = self.layout.manifests(repository).join(record(digest));
        if durable::is_young(&path) {
            return Ok(true);
        }
        let _guard = self.layout.lock()?;
        if self.descriptor(repository, digest)?.is_none() {
            return Ok(false);
        }
        durable::touch(&path)?;
        Ok(true)
    }

    /// Stores a manifest under its SHA-256 digest, and under `tag` as well.
    ///
    /// The blobs and manifests that it names must be here (see [`with_sparse_indexes`](Self::with_sparse_indexes)); its subject need not.
    ///
    /// # Errors
    /// [`Error::BlobUnknown`], [`Error::ManifestInvalid`], [`Error::Name`], [`Error::Locked`]; whatever the disk reports.
    pub fn put_manifest(
        &self,
        repository: &str,
        tag: Option<&str>,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, Error> {
        let digest = Digest::of(bytes);
        self.put_checked(repository, tag.as_slice(), &digest, media_type, bytes, None)?;
        Ok(digest)
    }

    /// Stores a manifest as [`put_manifest`](Self::put_manifest), whose image is from `host`: as a mirror of another host it is not given
    /// out under `tag`.
    ///
    /// # Errors
    /// As there; [`Error::Name`] for what is no host.
    pub fn put_manifest_of(
        &self,
        host: &str,
        repository: &str,
        tag: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, Error> {
        if !ferry_image::reference::is_host(host) {
            return Err(Error::Name { what: "host", text: host.chars().take(160).collect() });
        }
        let digest = Digest::of(bytes);
        self.put_checked(repository, &[tag], &digest, media_type, bytes, Some(host))?;
        Ok(digest)
    }

    /// Stores a manifest under `digest`, of whichever algorithm, and under `tags` as well.
    ///
    /// # Errors
    /// As [`put_manifest`](Self::put_manifest); also when the digest is another.
    pub fn put_manifest_as(
        &self,
        repository: &str,
        digest: &Digest,
        tags: &[impl AsRef<str>],
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let found = hash(digest.algorithm(), bytes);
        if found != *digest {
            let place = format!("manifest for {repository}");
            return Err(crate::Error::DigestMismatch { place, expected: digest.clone(), found }.into());
        }
        let tags: Vec<&str> = tags.iter().map(AsRef::as_ref).collect();
        self.put_checked(repository, &tags, digest, media_type, bytes, None)
    }

    fn put_checked(
        &self,
        repository: &str,
        tags: &[&str],
        digest: &Digest,
        announced: &str,
        bytes: &[u8],
        origin: Option<&str>,
    ) -> Result<(), Error> {
        check_repository(repository)?;
        if let Some(tag) = tags.iter().find(|tag| !ferry_image::reference::is_tag(tag)) {
            return Err(Error::Name { what: "tag", text: tag.chars().take(160).collect() });
        }
        let manifest = Manifest::parse(bytes, Some(announced))
            .and_then(refuse_unknown)
            .map_err(|why| Error::ManifestInvalid { repository: repository.to_owned(), why })?;
        let descriptor = Descriptor::new(manifest.media_type(), digest.clone(), bytes.len() as u64);
        // One turn for the check and the change: a garbage collection takes the same lock.
        let _guard = self.layout.lock()?;
        self.check_children(repository, &manifest)?;
        // Compared whole, so that pushing again mends a damaged one.
        let there = self.layout.renew(digest)? && self.blob_size(digest)? == Some(descriptor.size);
        if !there || durable::read(&self.layout.blob(digest), MAX_MANIFEST)?.as_deref() != Some(bytes) {
            self.write_blob(digest, bytes)?;
        }
        self.write_referrer(repository, &manifest, &descriptor)?;
        self.write_record(&self.layout.manifests(repository), &descriptor)?;
        let known = self.index.tags()?;
        let is_set = |tag: &&str| {
            let old = known.get(repository).and_then(|tags| tags.get(*tag));
            old.is_some_and(|old| same(old, &descriptor) && host_of(old) == origin)
        };
        if tags.iter().all(is_set) {
            return Ok(());
        }
        let mut tagged = descriptor;
        tagged.annotations.extend(origin.map(|host| (ORIGIN.to_owned(), host.to_owned())));
        self.index.set(&self.layout, repository, tags, Some(&tagged))
    }

    /// Whatever a manifest needs to be pulled whole must be here, and is young from now on: a garbage collection that has begun already
    /// leaves it.
    fn check_children(&self, repository: &str, manifest: &Manifest) -> Result<(), Error> {
        let mut missing = Vec::new();
        match manifest {
            Manifest::Image(image) => {
                for blob in image.blobs().filter(|b| !media_type::is_foreign_layer(&b.media_type)) {
                    if !self.layout.renew(&blob.digest)? || self.blob_size(&blob.digest)? != Some(blob.size) {
                        missing.push(blob.digest.clone());
                    }
                }
            }
            Manifest::Index(_) if self.sparse => {}
            Manifest::Index(index) => {
                for child in &index.manifests {
                    // Indexes may name plain blobs too: the build caches of BuildKit do.
                    let nested = media_type::is_index(&child.media_type) || media_type::is_manifest(&child.media_type);
                    let known = !nested || self.descriptor(repository, &child.digest)?.is_some();
                    if !known || !self.layout.renew(&child.digest)? {
                        missing.push(child.digest.clone());
                    }
                }
            }
        }
        if missing.is_empty() {
            return self.undelete(repository, manifest);
        }
        missing.dedup();
        Err(Error::BlobUnknown { repository: repository.to_owned(), missing })
    }

    fn write_referrer(&self, repository: &str, manifest: &Manifest, descriptor: &Descriptor) -> Result<(), Error> {
        match referrer::listed(manifest, descriptor) {
            Some((subject, entry)) => self.write_record(&self.layout.referrers(repository, &subject), &entry),
            None => Ok(()),
        }
    }

    fn write_record(&self, folder: &Path, descriptor: &Descriptor) -> Result<(), Error> {
        let path = folder.join(record(&descriptor.digest));
        // as young as one that is written now
        if read_record(&path)?.is_some_and(|old| old == *descriptor) && durable::touch(&path)? {
            return Ok(());
        }
        durable::create_folders(folder)?;
        let text = serde_json::to_vec(descriptor).map_err(|e| crate::Error::io("write", &path, e.into()))?;
        Ok(durable::write(&self.layout.uploads(), &path, &text)?)
    }

    /// What refers to `subject` in the repository, by digest (distribution-spec, "Listing Referrers").
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn referrers(&self, repository: &str, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        check_repository(repository)?;
        let folder = self.layout.referrers(repository, subject);
        let mut found = Vec::new();
        for name in names(&folder)? {
            found.extend(read_record(&folder.join(name))?);
        }
        Ok(found)
    }

    /// The tags of a repository in lexical order, `None` when there is no such repository.
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn tags(&self, repository: &str) -> Result<Option<Vec<String>>, Error> {
        check_repository(repository)?;
        match self.index.tags()?.get(repository) {
            Some(tags) => Ok(Some(tags.keys().cloned().collect())),
            None => Ok((!names(&self.layout.manifests(repository))?.is_empty()).then(Vec::new)),
        }
    }

    /// The tags of a repository whose images may be those that `host` has under the same path, in lexical order: all but those that are
    /// known to be of another. `None` when there is no such repository, or none of them may be.
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn tags_of(&self, repository: &str, host: &str) -> Result<Option<Vec<String>>, Error> {
        let Some(all) = self.tags(repository)? else { return Ok(None) };
        let known = self.index.tags()?;
        let origin = |tag: &String| host_of(known.get(repository)?.get(tag)?);
        let is_empty = all.is_empty();
        let tags: Vec<String> = all.into_iter().filter(|tag| origin(tag).is_none_or(|of| of == host)).collect();
        Ok((is_empty || !tags.is_empty()).then_some(tags))
    }

    /// Repository, tag and manifest of every tag, in lexical order.
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn tagged(&self) -> Result<Vec<(String, String, Digest)>, Error> {
        let all = self.index.tags()?;
        let entries = all.iter().flat_map(|(repository, tags)| tags.iter().map(move |(tag, d)| (repository, tag, d)));
        Ok(entries.map(|(repository, tag, d)| (repository.clone(), tag.clone(), d.digest.clone())).collect())
    }

    /// All repositories that have a manifest, in lexical order.
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn repositories(&self) -> Result<Vec<String>, Error> {
        let mut found: BTreeSet<String> = self.index.tags()?.keys().cloned().collect();
        let root = self.layout.repositories();
        let mut open = vec![String::new()];
        while let Some(prefix) = open.pop() {
            for name in names(&root.join(&prefix))? {
                match name.as_str() {
                    "_manifests" if found.contains(&prefix) => {}
                    "_manifests" => {
                        if !names(&root.join(&prefix).join(name))?.is_empty() {
                            found.insert(prefix.clone());
                        }
                    }
                    name if name.starts_with('_') => {}
                    name if prefix.is_empty() => open.push(name.to_owned()),
                    name => open.push(format!("{prefix}/{name}")),
                }
            }
        }
        Ok(found.into_iter().collect())
    }

    /// Removes a tag; or, by digest, a manifest with every tag of the repository that points to it. The bytes stay for other repositories.
    /// Whether there was anything to remove.
    ///
    /// # Errors
    /// [`Error::Locked`]; whatever the disk reports.
    pub fn delete_manifest(&self, repository: &str, reference: &ManifestRef) -> Result<bool, Error> {
        check_repository(repository)?;
        let _guard = self.layout.lock()?;
        let tags = self.index.tags()?;
        let tags = tags.get(repository);
        let digest = match reference {
            ManifestRef::Tag(tag) => {
                if tags.is_none_or(|tags| !tags.contains_key(tag)) {
                    return Ok(false);
                }
                self.index.set(&self.layout, repository, &[tag], None)?;
                return Ok(true);
            }
            ManifestRef::Digest(digest) => digest,
        };
        let Some(descriptor) = self.descriptor(repository, digest)? else { return Ok(false) };
        let tags = tags.into_iter().flatten().filter(|(_, d)| d.digest == *digest);
        let tags: Vec<&str> = tags.map(|(tag, _)| tag.as_str()).collect();
        if !tags.is_empty() {
            self.index.set(&self.layout, repository, &tags, None)?;
        }
        self.forget(repository, &descriptor)?;
        Ok(true)
    }

    /// Removes the record of a manifest, and what it says of its subject. The caller holds the lock.
    pub(super) fn forget(&self, repository: &str, descriptor: &Descriptor) -> Result<(), Error> {
        let digest = &descriptor.digest;
        durable::remove(&self.layout.manifests(repository).join(record(digest)))?;
        let bytes = durable::read(&self.layout.blob(digest), MAX_MANIFEST)?.unwrap_or_default();
        if let Ok(manifest) = Manifest::parse(&bytes, Some(&descriptor.media_type))
            && let Some((subject, _)) = referrer::listed(&manifest, descriptor)
        {
            durable::remove(&self.layout.referrers(repository, &subject).join(record(digest)))?;
        }
        Ok(())
    }
}

/// The host that the image of a tag is from, if somebody said so.
fn host_of(tagged: &Descriptor) -> Option<&str> {
    tagged.annotations.get(ORIGIN).map(String::as_str)
}

fn same(a: &Descriptor, b: &Descriptor) -> bool {
    a.digest == b.digest && a.media_type == b.media_type && a.size == b.size
}

pub(super) fn hash(algorithm: Algorithm, bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish()
}

pub(super) fn read_record(path: &Path) -> Result<Option<Descriptor>, Error> {
    let Some(bytes) = durable::read(path, MAX_MANIFEST)? else { return Ok(None) };
    match serde_json::from_slice(&bytes) {
        Ok(descriptor) => Ok(Some(descriptor)),
        Err(e) => Err(Error::NotAStore { path: path.to_owned(), why: e.to_string() }),
    }
}

/// The names in a folder in lexical order; none when it is absent.
pub(super) fn names(folder: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(e) => return Err(crate::Error::io("read", folder, e).into()),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| crate::Error::io("read", folder, e))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}
