//! Whether all that the images of a store need is there, and is what its digest says.
//!
//! Nothing is written and no lock is held: what is pushed or deleted meanwhile may be seen or not.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io::ErrorKind;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use ferry_image::manifest::MAX_MANIFEST;
use ferry_image::{Descriptor, Digest, Manifest, media_type};

use super::collect::is_document;
use super::layout::record;
use super::manifests::{hash, names};
use super::upload::hash_file;
use super::{Error, Store, durable};

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// How many images were looked at: tags, and manifests that are there by their digest alone.
    pub images: usize,
    /// How many blobs they need, manifests included.
    pub blobs: usize,
    /// Bytes of those.
    pub bytes: u64,
    /// What is wrong, in order of digest.
    pub faults: Vec<Fault>,
}

/// A blob that images need and cannot have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The blob.
    pub digest: Digest,
    /// The bytes that it should have.
    pub size: u64,
    /// What is wrong with it.
    pub what: Wrong,
    /// Whose it is: `repository:tag`, or `repository@digest` of what has no tag.
    pub images: Vec<String>,
}

/// What is wrong with a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// There is no file of that name.
    Missing,
    /// There is one of so many bytes.
    Size(u64),
    /// Its bytes are others: their digest.
    Content(Digest),
    /// The disk does not give its bytes.
    Unreadable(String),
}

/// What images need: for each blob its size, and who needs it.
type Needs = BTreeMap<Digest, (u64, BTreeSet<String>)>;

impl Store {
    /// Looks at every blob that an image needs: whether it is there at its size, and, with `threads` to read with, whether its bytes are those of its
    /// digest. `sized` is told how many bytes there are before the first is read, `moved` of each blob when it has been. Blocks.
    ///
    /// # Errors
    /// Whatever the disk reports, but for a file that can be opened and not be read: that is damage.
    pub fn check(
        &self,
        threads: Option<usize>,
        sized: impl FnOnce(u64),
        moved: &(dyn Fn(u64) + Sync),
    ) -> Result<Checked, Error> {
        let (images, needs) = self.needs()?;
        let bytes = needs.values().map(|(size, _)| size).sum();
        sized(bytes);
        let all: Vec<(&Digest, u64)> = needs.iter().map(|(digest, (size, _))| (digest, *size)).collect();
        let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let work = || {
            while let Some((digest, size)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                let wrong = self.wrong(digest, *size, threads.is_some());
                if !matches!(wrong, Ok(None)) {
                    found.lock().unwrap_or_else(PoisonError::into_inner).push((*digest, wrong));
                }
                moved(*size);
            }
        };
        std::thread::scope(|scope| (0..threads.unwrap_or(1).clamp(1, 64)).for_each(|_| drop(scope.spawn(work))));
        let mut faults = Vec::new();
        for (digest, wrong) in found.into_inner().unwrap_or_else(PoisonError::into_inner) {
            let (Some(what), Some((size, images))) = (wrong?, needs.get(digest)) else { continue };
            faults.push(Fault { digest: digest.clone(), size: *size, what, images: images.iter().cloned().collect() });
        }
        faults.sort_by(|a, b| a.digest.cmp(&b.digest));
        Ok(Checked { images, blobs: needs.len(), bytes, faults })
    }

    fn wrong(&self, digest: &Digest, size: u64, reads: bool) -> Result<Option<Wrong>, Error> {
        let path = self.layout.blob(digest);
        let found = match path.metadata() {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Some(Wrong::Missing)),
            found => found.map_err(|e| crate::Error::io("read", &path, e))?,
        };
        if found.len() != size {
            return Ok(Some(Wrong::Size(found.len())));
        }
        if !reads {
            return Ok(None);
        }
        let file = match File::open(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Some(Wrong::Missing)),
            file => file.map_err(|e| crate::Error::io("read", &path, e))?,
        };
        Ok(match hash_file(&file, size, digest.algorithm()).map(ferry_image::Hasher::finish) {
            Ok(found) => (found != *digest).then_some(Wrong::Content(found)),
            Err(error) => Some(Wrong::Unreadable(error.to_string())),
        })
    }

    /// How many images there are, and what they need.
    fn needs(&self) -> Result<(usize, Needs), Error> {
        let tags = self.index.tags()?;
        let mut repositories = self.folders()?;
        repositories.extend(tags.keys().cloned());
        let (mut images, mut needs) = (0, Needs::new());
        for repository in repositories {
            let records = self.manifests_of(&repository)?;
            let recorded = records.iter().map(|manifest| manifest.digest.clone()).collect();
            let deleted = names(&self.layout.deleted(&repository))?.into_iter().collect();
            let known = Known { recorded, deleted };
            let mut reached = HashSet::new();
            for (tag, manifest) in tags.get(&repository).into_iter().flatten() {
                images += 1;
                self.below(format!("{repository}:{tag}"), manifest, &known, &mut reached, &mut needs)?;
            }
            // an index comes after what it names, and is whose image that is
            let mut others: Vec<&Descriptor> = records.iter().collect();
            others.sort_by_key(|manifest| !media_type::is_index(&manifest.media_type));
            for manifest in others {
                if !reached.contains(&manifest.digest) {
                    images += 1;
                    self.below(
                        format!("{repository}@{}", manifest.digest),
                        manifest,
                        &known,
                        &mut reached,
                        &mut needs,
                    )?;
                }
            }
        }
        Ok((images, needs))
    }

    /// Adds what `image` needs, whose manifest or index is `root`.
    fn below(
        &self,
        image: String,
        root: &Descriptor,
        known: &Known,
        reached: &mut HashSet<Digest>,
        needs: &mut Needs,
    ) -> Result<(), Error> {
        let (mut open, mut seen) = (vec![root.clone()], HashSet::new());
        while let Some(next) = open.pop() {
            if !seen.insert(next.digest.clone()) || !known.needs(&next, root) {
                continue;
            }
            let need = needs.entry(next.digest.clone()).or_insert_with(|| (next.size, BTreeSet::new()));
            need.1.insert(image.clone());
            if next.digest != root.digest && !is_document(&next) && !known.recorded.contains(&next.digest) {
                continue;
            }
            reached.insert(next.digest.clone());
            let Some(bytes) = durable::read(&self.layout.blob(&next.digest), MAX_MANIFEST)? else { continue };
            // of one that is damaged nobody knows what it needs; that it is, its own check says
            if hash(next.digest.algorithm(), &bytes) == next.digest {
                match Manifest::parse(&bytes, Some(&next.media_type)) {
                    Ok(Manifest::Image(manifest)) => open.extend(manifest.blobs().cloned()),
                    Ok(Manifest::Index(index)) => open.extend(index.manifests),
                    Err(error) => tracing::debug!(%image, %error, "a document that is no manifest"),
                }
            }
        }
        Ok(())
    }
}

/// What a repository says of itself.
struct Known {
    recorded: HashSet<Digest>,
    deleted: HashSet<String>,
}

impl Known {
    /// Whether something that is named must be there: not a platform that was never pushed, nor what a client deleted, nor a layer that
    /// nobody may carry.
    fn needs(&self, named: &Descriptor, root: &Descriptor) -> bool {
        if named.digest == root.digest || self.recorded.contains(&named.digest) {
            return true;
        }
        let is_absent_on_purpose = self.deleted.contains(&record(&named.digest))
            || media_type::is_foreign_layer(&named.media_type)
            || (is_document(named) && !self.recorded.is_empty());
        !is_absent_on_purpose
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ferry_image::media_type::{OCI_CONFIG, OCI_INDEX, OCI_MANIFEST};
    use serde_json::json;

    use super::super::tests::{image, store};
    use super::*;

    fn faults(store: &Store, threads: Option<usize>) -> Vec<(Digest, Wrong, Vec<String>)> {
        let checked = store.check(threads, |_| (), &|_| ()).expect("checked");
        checked.faults.into_iter().map(|fault| (fault.digest, fault.what, fault.images)).collect()
    }

    #[test]
    fn what_images_need_is_named_with_them() {
        let (_folder, store) = store();
        let store = store.with_sparse_indexes(true);
        let one = image(&store, "one");
        let manifest = store.put_manifest("a/b", Some("1"), OCI_MANIFEST, &one).expect("put");
        store.put_manifest("a/b", Some("2"), OCI_MANIFEST, &one).expect("put");
        // one platform is there, one never was
        let entry = |digest: &Digest, size: usize| json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": size});
        let never = Descriptor::of(OCI_MANIFEST, b"never");
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry(&manifest, one.len()), entry(&never.digest, 5)]});
        store.put_manifest("a/b", Some("all"), OCI_INDEX, index.to_string().as_bytes()).expect("index");
        let two = store.put_manifest("c", None, OCI_MANIFEST, &image(&store, "two")).expect("by digest");
        store.put_blob(OCI_CONFIG, b"needed by none").expect("blob");
        let whole = store.check(Some(2), |bytes| assert!(bytes > 0), &|_| ()).expect("checked");
        assert_eq!((whole.images, whole.blobs, whole.faults), (4, 7, Vec::new()));

        let layer = |text: &str| Descriptor::of(OCI_CONFIG, text.as_bytes()).digest;
        fs::write(store.layout.blob(&layer("one")), "eno").expect("damage");
        fs::remove_file(store.layout.blob(&layer("two"))).expect("loss");
        let of_one = ["a/b:1", "a/b:2", "a/b:all"].map(str::to_owned).to_vec();
        let missing = (layer("two"), Wrong::Missing, vec![format!("c@{two}")]);
        let mut all = vec![(layer("one"), Wrong::Content(layer("eno")), of_one.clone()), missing.clone()];
        all.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(faults(&store, Some(1)), all);
        assert_eq!(faults(&store, None), [missing], "a look reads no bytes");

        // a manifest that was there, and what it needs is not known any more
        fs::remove_file(store.layout.blob(&manifest)).expect("loss");
        let lost = (manifest, Wrong::Missing, of_one);
        assert!(faults(&store, None).contains(&lost), "{:?}", faults(&store, None));
    }
}
