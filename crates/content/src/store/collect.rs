//! Garbage collection: blobs that no manifest names leave the disk.
//!
//! A blob stays when something names it, or when it was written or asked about within the grace: its manifest may be on its way. Marking
//! happens under the store's lock, so that a manifest is either seen or comes after; a manifest that comes after makes what it names young
//! again, and a blob's age is looked at once more under `blobs.lock` before it goes. So a collection may run while other processes push.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::time::{Duration, SystemTime};

use ferry_image::manifest::MAX_MANIFEST;
use ferry_image::{Algorithm, Descriptor, Digest, Manifest, media_type};

use super::layout::record;
use super::manifests::{hash, names, read_record};
use super::{Error, Store, durable};

/// How to collect.
#[derive(Debug, Clone)]
pub struct Collection {
    /// What is younger stays.
    pub grace: Duration,
    /// After this long without a byte an unfinished upload is given up.
    pub uploads: Duration,
    /// Whether manifests go too that no tag leads to: not itself, nor through an index, nor as a referrer.
    pub untagged: bool,
    /// Looks only.
    pub dry_run: bool,
}

/// What a collection found, and removed unless it only looked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs that nobody names, with their sizes in bytes.
    pub removed: Vec<(Digest, u64)>,
    /// Manifests without a tag, with their repositories.
    pub untagged: Vec<(String, Digest)>,
    /// Blobs that nobody names, too young to go.
    pub young: u64,
    /// Blobs that are needed.
    pub kept: u64,
    /// Bytes of the needed and the young ones.
    pub kept_bytes: u64,
    /// Bytes of uploads that nobody will finish.
    pub uploads: u64,
    /// Bytes of those that somebody may still go on with.
    pub uploads_left: u64,
}

impl Collected {
    /// Bytes that are free now.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.removed.iter().map(|(_, size)| size).sum::<u64>() + self.uploads
    }
}

/// What manifests name, read once: a digest always means the same bytes.
type Read = HashMap<Digest, Vec<Descriptor>>;

impl Store {
    /// Removes what nobody needs.
    ///
    /// # Errors
    /// [`Error::Damaged`] when a manifest cannot be read, so that what it needs is not known: then nothing is removed. [`Error::Locked`];
    /// whatever the disk reports.
    pub fn collect(&self, how: &Collection) -> Result<Collected, Error> {
        let cutoff = SystemTime::now().checked_sub(how.grace).unwrap_or(SystemTime::UNIX_EPOCH);
        let swept = self.layout.sweep(how.dry_run, how.uploads)?;
        swept.sessions.iter().for_each(|id| self.hashers.forget(id));
        let mut collected = Collected { uploads: swept.freed, uploads_left: swept.left, ..Collected::default() };
        // All is read before the lock is taken, so that nobody waits for more than the lists.
        let mut read = Read::new();
        self.mark(&mut read, &HashSet::new())?;
        let (needed, untagged) = {
            // who only looks may be on a disk that cannot be written to
            let _guard = if how.dry_run { None } else { Some(self.layout.lock()?) };
            let untagged = if how.untagged { self.untagged(&mut read, cutoff)? } else { Vec::new() };
            let gone = untagged.iter().map(|(repository, manifest)| (repository.clone(), manifest.digest.clone()));
            let needed = self.mark(&mut read, &gone.collect())?;
            if !how.dry_run {
                for (repository, manifest) in &untagged {
                    self.forget(repository, manifest)?;
                }
            }
            (needed, untagged)
        };
        collected.untagged = untagged.into_iter().map(|(repository, manifest)| (repository, manifest.digest)).collect();
        self.sweep_blobs(&needed, cutoff, how.dry_run, &mut collected)?;
        if !how.dry_run {
            self.forget_deleted()?;
        }
        Ok(collected)
    }

    /// Every blob that somebody needs, but for the manifests in `gone`.
    fn mark(&self, read: &mut Read, gone: &HashSet<(String, Digest)>) -> Result<HashSet<Digest>, Error> {
        let mut needed = HashSet::new();
        // Entries of other tools count as much as tags of ours, which come with their repositories.
        let is_ours = |repository: &String, entry: &Descriptor| {
            self.layout.manifests(repository).join(record(&entry.digest)).exists()
        };
        let entries = self.index.all()?.into_iter();
        let others = entries.filter(|(repository, entry)| !repository.as_ref().is_some_and(|r| is_ours(r, entry)));
        self.reach(others.map(|(_, entry)| entry).collect(), false, &HashSet::new(), read, &mut needed)?;
        for repository in self.folders()? {
            let roots = self.manifests_of(&repository)?;
            let roots: Vec<_> =
                roots.into_iter().filter(|m| !gone.contains(&(repository.clone(), m.digest.clone()))).collect();
            let deleted = names(&self.layout.deleted(&repository))?.into_iter().collect();
            self.reach(roots, true, &deleted, read, &mut needed)?;
        }
        Ok(needed)
    }

    /// Adds what can be reached from `roots`, less what the repository deleted.
    fn reach(
        &self,
        roots: Vec<Descriptor>,
        are_records: bool,
        deleted: &HashSet<String>,
        read: &mut Read,
        needed: &mut HashSet<Digest>,
    ) -> Result<(), Error> {
        let mut seen = HashSet::new();
        // What has a record was taken as a manifest, whatever it calls itself.
        let recorded: HashSet<Digest> = roots.iter().map(|root| root.digest.clone()).collect();
        let mut open = roots;
        while let Some(next) = open.pop() {
            if !seen.insert(next.digest.clone()) {
                continue;
            }
            if is_document(&next) || (are_records && recorded.contains(&next.digest)) {
                open.extend(self.named_by(&next, read)?.iter().cloned());
            } else if deleted.contains(&record(&next.digest)) {
                continue;
            }
            needed.insert(next.digest);
        }
        Ok(())
    }

    /// What a manifest names; nothing when it is not here, as the other platforms of a sparse index are.
    fn named_by<'a>(&self, manifest: &Descriptor, read: &'a mut Read) -> Result<&'a [Descriptor], Error> {
        let digest = &manifest.digest;
        if !read.contains_key(digest) {
            let path = self.layout.blob(digest);
            let Some(bytes) = durable::read(&path, MAX_MANIFEST)? else { return Ok(&[]) };
            let fail = |why: String| Error::Damaged { path: path.clone(), why };
            if hash(digest.algorithm(), &bytes) != *digest {
                return Err(fail("its bytes are not those of its digest".to_owned()));
            }
            let parsed = Manifest::parse(&bytes, Some(&manifest.media_type)).map_err(|e| fail(e.to_string()))?;
            let named = match parsed {
                Manifest::Image(image) => image.blobs().cloned().collect(),
                Manifest::Index(index) => index.manifests,
            };
            read.insert(digest.clone(), named);
        }
        Ok(read.get(digest).map_or(&[], Vec::as_slice))
    }

    /// Manifests that no tag leads to. The caller holds the lock.
    fn untagged(&self, read: &mut Read, cutoff: SystemTime) -> Result<Vec<(String, Descriptor)>, Error> {
        let tags = self.index.tags()?;
        let mut untagged = Vec::new();
        for repository in self.folders()? {
            let manifests = self.manifests_of(&repository)?;
            let roots = tags.get(&repository).into_iter().flat_map(|tags| tags.values().cloned()).collect();
            let mut led_to = HashSet::new();
            self.reach(roots, true, &HashSet::new(), read, &mut led_to)?;
            // What refers to what stays stays, and what refers to that.
            loop {
                let mut more = Vec::new();
                for manifest in manifests.iter().filter(|m| led_to.contains(&m.digest)) {
                    more.extend(self.referrers(&repository, &manifest.digest)?);
                }
                more.retain(|referrer| !led_to.contains(&referrer.digest));
                if more.is_empty() {
                    break;
                }
                self.reach(more, true, &HashSet::new(), read, &mut led_to)?;
            }
            for manifest in manifests.into_iter().filter(|m| !led_to.contains(&m.digest)) {
                let path = self.layout.manifests(&repository).join(record(&manifest.digest));
                let modified = path.metadata().and_then(|metadata| metadata.modified());
                if modified.map_err(|e| crate::Error::io("read", path, e))? < cutoff {
                    untagged.push((repository.clone(), manifest));
                }
            }
        }
        Ok(untagged)
    }

    fn sweep_blobs(
        &self,
        needed: &HashSet<Digest>,
        cutoff: SystemTime,
        dry_run: bool,
        collected: &mut Collected,
    ) -> Result<(), Error> {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let folder = self.layout.root().join("blobs").join(algorithm.name());
            let mut removed = false;
            for name in names(&folder)? {
                // Files of any other name are not ours.
                let Ok(digest) = format!("{}:{name}", algorithm.name()).parse::<Digest>() else { continue };
                let path = folder.join(name);
                let metadata = match path.metadata() {
                    Ok(metadata) => metadata,
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(crate::Error::io("read", path, e).into()),
                };
                let is_old = metadata.modified().is_ok_and(|modified| modified < cutoff);
                let is_needed = needed.contains(&digest);
                if !is_needed && is_old && (dry_run || self.layout.remove_blob(&digest, cutoff)?) {
                    collected.removed.push((digest, metadata.len()));
                    removed = true;
                    continue;
                }
                *(if is_needed { &mut collected.kept } else { &mut collected.young }) += 1;
                collected.kept_bytes += metadata.len();
            }
            if removed && !dry_run {
                durable::sync_parent(&folder.join("any"))?;
            }
        }
        Ok(())
    }

    /// Notes about deleted blobs go with the bytes.
    fn forget_deleted(&self) -> Result<(), Error> {
        for repository in self.folders()? {
            let folder = self.layout.deleted(&repository);
            let _guard = self.layout.lock()?;
            for name in names(&folder)? {
                let digest = name.replacen('-', ":", 1).parse::<Digest>();
                if digest.is_ok_and(|digest| !self.layout.blob(&digest).exists()) {
                    durable::remove(&folder.join(name))?;
                }
            }
            let _ = fs::remove_dir(&folder); // when it is empty
        }
        Ok(())
    }

    pub(super) fn manifests_of(&self, repository: &str) -> Result<Vec<Descriptor>, Error> {
        let folder = self.layout.manifests(repository);
        let mut found = Vec::new();
        for name in names(&folder)? {
            found.extend(read_record(&folder.join(name))?);
        }
        Ok(found)
    }

    /// The repositories that have a folder, whatever is in it.
    pub(super) fn folders(&self) -> Result<BTreeSet<String>, Error> {
        let root = self.layout.repositories();
        let (mut found, mut open) = (BTreeSet::new(), names(&root)?);
        while let Some(repository) = open.pop() {
            for name in names(&root.join(&repository))? {
                match name.starts_with('_') {
                    true => drop(found.insert(repository.clone())),
                    false => open.push(format!("{repository}/{name}")),
                }
            }
        }
        Ok(found)
    }
}

pub(super) fn is_document(descriptor: &Descriptor) -> bool {
    media_type::is_index(&descriptor.media_type) || media_type::is_manifest(&descriptor.media_type)
}

#[cfg(test)]
mod tests;
