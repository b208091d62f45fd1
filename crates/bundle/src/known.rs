//! What is known of images without asking: the documents (manifests, indexes, configs) that were read from registries. Each is asked
//! for once in a run, and kept beside the output until the bundle is complete: a run that was interrupted, or that met a
//! registry's quota, is not charged again for what it had read.
//!
//! One file, appended to: a line `DIGEST SIZE MEDIA-TYPE` before each document, a line end behind it. Only what hashes to its
//! digest is believed; what a crash tore off at the end is passed over.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::future::Future;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use ferry_image::manifest::MAX_MANIFEST;
use ferry_image::{Digest, Hasher};
use tokio::sync::OnceCell;

/// The first line of the file.
const MAGIC: &[u8] = b"ferry: documents of images, kept until the bundle is complete\n";
/// The largest file that is read or written, bytes. What does not fit is asked for again.
const LARGEST: u64 = 256 << 20;
/// The longest line before a document.
const LONGEST_LINE: usize = 512;

/// A document as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Document {
    /// What the server said that it is; may be empty.
    pub(crate) media_type: String,
    /// The document.
    pub(crate) bytes: Bytes,
}

/// All that is known. Clones share it.
#[derive(Debug, Clone)]
pub struct Known(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// Whether an earlier run left something.
    left: bool,
    documents: Mutex<HashMap<Digest, Arc<OnceCell<Document>>>>,
    /// What tags stand for, as registries said in this run.
    tags: Mutex<BTreeMap<String, Digest>>,
    keeping: Mutex<Keeping>,
}

#[derive(Debug)]
enum Keeping {
    /// Opened with the first document.
    Yes(Option<File>),
    No,
}

impl Known {
    /// What an earlier run of the same output left in `NAME.manifests`. `keep` says whether this one leaves something for the next.
    #[must_use]
    pub fn beside(output: &Path, keep: bool) -> Self {
        let mut path = output.as_os_str().to_owned();
        path.push(".manifests");
        let path = PathBuf::from(path);
        let found = read(&path);
        // another's file of that name is left alone
        let keeping = if keep && !matches!(found, Found::Another) { Keeping::Yes(None) } else { Keeping::No };
        let documents = match found {
            Found::Ours(documents) => documents,
            Found::Nothing | Found::Another => Vec::new(),
        };
        let left = !documents.is_empty();
        let cell = |(digest, document)| (digest, Arc::new(OnceCell::new_with(Some(document))));
        let documents = Mutex::new(documents.into_iter().map(cell).collect());
        Self(Arc::new(Inner { path, left, documents, tags: Mutex::default(), keeping: Mutex::new(keeping) }))
    }

    /// The bundle is complete: it is needed no more.
    pub fn remove(&self) {
        if !matches!(std::mem::replace(&mut *self.0.keeping(), Keeping::No), Keeping::No) {
            // nothing is lost if it stays
            let _ = std::fs::remove_file(&self.0.path);
        }
    }

    /// Whether an earlier run left anything.
    pub(crate) fn is_taken_up(&self) -> bool {
        self.0.left
    }

    /// The document, if it was read already.
    pub(crate) fn get(&self, digest: &Digest) -> Option<Document> {
        lock(&self.0.documents).get(digest)?.get().cloned()
    }

    /// The document; `read` only where it is not known. Who asks for the same one meanwhile waits for it.
    pub(crate) async fn get_or<E, F>(&self, digest: &Digest, read: F) -> Result<Document, E>
    where
        F: Future<Output = Result<Document, E>>,
    {
        let cell = Arc::clone(lock(&self.0.documents).entry(digest.clone()).or_default());
        let fetch = async {
            let document = read.await?;
            self.0.keep(digest, &document);
            Ok(document)
        };
        cell.get_or_try_init(|| fetch).await.cloned()
    }

    /// Takes a document that was asked for by tag.
    pub(crate) fn learn(&self, digest: &Digest, document: Document) {
        let cell = Arc::clone(lock(&self.0.documents).entry(digest.clone()).or_default());
        if cell.set(document.clone()).is_ok() {
            self.0.keep(digest, &document);
        }
    }

    /// What a tag stands for, if the registry was asked in this run.
    pub(crate) fn tag(&self, reference: &str) -> Option<Digest> {
        lock(&self.0.tags).get(reference).cloned()
    }

    pub(crate) fn learn_tag(&self, reference: String, digest: Digest) {
        lock(&self.0.tags).insert(reference, digest);
    }
}

impl Inner {
    fn keeping(&self) -> MutexGuard<'_, Keeping> {
        lock(&self.keeping)
    }

    fn keep(&self, digest: &Digest, document: &Document) {
        let mut keeping = self.keeping();
        let Keeping::Yes(file) = &mut *keeping else { return };
        if let Err(error) = append(file, &self.path, digest, document) {
            tracing::debug!(path = %self.path.display(), %error, "cannot keep what was read");
            *keeping = Keeping::No;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn append(file: &mut Option<File>, path: &Path, digest: &Digest, document: &Document) -> std::io::Result<()> {
    let file = match file {
        Some(file) => file,
        None => file.insert(File::options().create(true).append(true).open(path)?),
    };
    let size = file.metadata()?.len();
    let mut record = if size == 0 { MAGIC.to_vec() } else { Vec::new() };
    // a media type is one word; what else a server may call it is not needed
    let media_type = document.media_type.split_whitespace().next().unwrap_or_default();
    record.extend_from_slice(format!("{digest} {} {media_type}\n", document.bytes.len()).as_bytes());
    record.extend_from_slice(&document.bytes);
    record.push(b'\n');
    if size + record.len() as u64 > LARGEST {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    }
    file.write_all(&record)
}

enum Found {
    Nothing,
    /// A file of that name that is none of ours.
    Another,
    Ours(Vec<(Digest, Document)>),
}

fn read(path: &Path) -> Found {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(LARGEST).read_to_end(&mut bytes)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Found::Nothing,
        Ok(0) => Found::Nothing,
        Ok(_) if bytes.starts_with(MAGIC) => Found::Ours(documents(&bytes[MAGIC.len()..])),
        _ => Found::Another,
    }
}

/// All documents up to the first record that is torn. Pure.
fn documents(mut rest: &[u8]) -> Vec<(Digest, Document)> {
    let mut found = Vec::new();
    while let Some((digest, document, after)) = next(rest) {
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&document.bytes);
        if hasher.finish() == digest {
            found.push((digest, document));
        }
        rest = after;
    }
    found
}

fn next(rest: &[u8]) -> Option<(Digest, Document, &[u8])> {
    let end = rest.iter().take(LONGEST_LINE).position(|byte| *byte == b'\n')?;
    let mut words = std::str::from_utf8(&rest[..end]).ok()?.split(' ');
    let digest: Digest = words.next()?.parse().ok()?;
    let size: usize = words.next()?.parse().ok().filter(|size| *size as u64 <= MAX_MANIFEST)?;
    let media_type = words.next()?.to_owned();
    let (bytes, after) = rest[end + 1..].split_at_checked(size)?;
    Some((digest, Document { media_type, bytes: Bytes::copy_from_slice(bytes) }, after.strip_prefix(b"\n")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> (Digest, Document) {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        (Digest::of(&bytes), Document { media_type: "application/x".to_owned(), bytes })
    }

    async fn filled(output: &Path) -> Known {
        let known = Known::beside(output, true);
        let (a, b) = (document("a"), document("b\n\nb"));
        let read = known.get_or(&a.0, async { Ok::<_, ()>(a.1.clone()) }).await;
        assert_eq!(read, Ok(a.1));
        known.learn(&b.0, b.1);
        known
    }

    #[tokio::test]
    async fn what_one_run_read_the_next_one_knows() {
        let folder = tempfile::tempdir().expect("folder");
        let output = folder.path().join("b.tar");
        let first = filled(&output).await;
        assert!(!first.is_taken_up() && first.0.path.is_file());
        let second = Known::beside(&output, false);
        assert!(second.is_taken_up());
        for (digest, expected) in [document("a"), document("b\n\nb")] {
            let read = second.get_or(&digest, async { Err::<Document, _>("asked again") }).await;
            assert_eq!(read, Ok(expected));
        }
        let (digest, c) = document("c");
        assert_eq!(second.get_or(&digest, async { Err("gone") }).await, Err("gone"));
        assert_eq!(second.get_or(&digest, async { Ok::<_, &str>(c.clone()) }).await, Ok(c));
        assert_eq!(Known::beside(&output, true).get(&digest), None, "a dry run keeps nothing");
        second.remove();
        assert!(first.0.path.is_file(), "nor takes anything away");
        first.remove();
        assert_eq!(std::fs::read_dir(folder.path()).expect("folder").count(), 0);
        drop(Known::beside(&output, true));
        assert_eq!(std::fs::read_dir(folder.path()).expect("folder").count(), 0, "none is made for nothing");
    }

    #[tokio::test]
    async fn only_what_is_whole_is_believed() {
        let folder = tempfile::tempdir().expect("folder");
        let output = folder.path().join("b.tar");
        let known = filled(&output).await;
        let whole = std::fs::read(&known.0.path).expect("file");
        let (a, b) = (document("a"), document("b\n\nb"));
        for end in MAGIC.len()..whole.len() {
            std::fs::write(&known.0.path, &whole[..end]).expect("cut");
            let cut = Known::beside(&output, false);
            assert!(cut.get(&b.0).is_none(), "cut at {end}");
            assert!(cut.get(&a.0).is_none_or(|found| found == a.1), "cut at {end}");
        }
        for at in MAGIC.len()..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(&known.0.path, &damaged).expect("damaged");
            let damaged = Known::beside(&output, false);
            for (digest, expected) in [&a, &b] {
                let found = damaged.get(digest);
                assert!(found.is_none_or(|found| found.bytes == expected.bytes), "damaged at {at}");
            }
        }
        std::fs::write(&known.0.path, "somebody's own").expect("write");
        let other = Known::beside(&output, true);
        let (digest, c) = document("c");
        other.learn(&digest, c);
        other.remove();
        assert_eq!(std::fs::read(&known.0.path).expect("file"), b"somebody's own");
    }

    #[tokio::test]
    async fn a_document_is_asked_for_once() {
        let folder = tempfile::tempdir().expect("folder");
        let known = Known::beside(&folder.path().join("b.tar"), true);
        let (digest, a) = document("a");
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let read = || async {
            asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok::<_, ()>(a.clone())
        };
        let all = futures_util::future::join_all((0..5).map(|_| known.get_or(&digest, read()))).await;
        assert!(all.iter().all(|found| *found == Ok(a.clone())));
        assert_eq!(asked.into_inner(), 1);
    }
}
