//! The bundles of one install, which complete one another: images, YAML and rules of all, and each blob from whoever has it whole.
//!
//! What they are together is decided in [`together`](self), which is pure; here bytes are read. A bundle that gives wrong bytes, or none,
//! gives way to the next that has them: so a damaged bundle and a small one with what is damaged in it are as good as a whole one.

mod carrier;
mod together;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use ferry_archive::{Bundle, Head, HeadBase, HeadRelied};
use ferry_content::{BoxFuture, ByteStream, Error as ContentError, Provider};
use ferry_image::{Descriptor, Digest, Layout};

use crate::error::blobs;

pub(crate) use carrier::Carrier;
pub use carrier::Passing;
pub(crate) use together::{Carries, Member};
use together::{Part, Together, builds_on, oldest_first, order};

/// One or several bundles, as one.
pub struct Bundles {
    /// What builds on another before that.
    all: Vec<Carrier>,
    /// Their files, for messages.
    places: Vec<String>,
    /// What each of them builds on.
    older: Vec<BTreeSet<usize>>,
    /// Who gave wrong bytes for a blob, or none.
    bad: Mutex<HashMap<Digest, BTreeSet<usize>>>,
    notes: Mutex<Vec<String>>,
}

impl Bundles {
    /// These bundles. In what order they are given makes no difference where one builds on another.
    #[must_use]
    pub fn new(first: Arc<Bundle>, more: impl IntoIterator<Item = Arc<Bundle>>) -> Self {
        Self::of(std::iter::once(first).chain(more).map(Carrier::File).collect())
    }

    /// One that comes through a pipe, and others.
    #[must_use]
    pub fn with_pipe(passing: Passing, more: impl IntoIterator<Item = Arc<Bundle>>) -> Self {
        let passing = std::iter::once(Carrier::Passing(Box::new(passing)));
        Self::of(passing.chain(more.into_iter().map(Carrier::File)).collect())
    }

    fn of(given: Vec<Carrier>) -> Self {
        let places: Vec<String> = given.iter().map(Carrier::place).collect();
        let order = order(&builds_on(&parts(&given, &places)));
        let mut given: Vec<Option<Carrier>> = given.into_iter().map(Some).collect();
        let all: Vec<Carrier> = order.iter().filter_map(|i| given[*i].take()).collect();
        let places: Vec<String> = all.iter().map(Carrier::place).collect();
        let older = builds_on(&parts(&all, &places));
        Self { all, places, older, bad: Mutex::default(), notes: Mutex::default() }
    }

    /// What each says of itself, what builds on another before that. There is at least one.
    pub fn heads(&self) -> impl Iterator<Item = &Head> {
        self.all.iter().map(Carrier::head)
    }

    /// What another builds on before that, otherwise as they were given.
    pub(crate) fn oldest_first(&self) -> impl Iterator<Item = &Carrier> {
        oldest_first(&self.older).into_iter().map(|i| &self.all[i])
    }

    pub(crate) fn all(&self) -> &[Carrier] {
        &self.all
    }

    /// Whether a blob is to be had only as it passes: who has it first is a pipe.
    pub(crate) fn passes(&self, digest: &Digest) -> bool {
        self.holder(digest).is_some_and(|(_, carrier)| carrier.passes(digest))
    }

    /// The descriptor of a blob that one of them carries.
    #[must_use]
    pub fn blob(&self, digest: &Digest) -> Option<Descriptor> {
        self.all.iter().find_map(|bundle| bundle.blob(digest))
    }

    /// Reads a small blob whole and checks it. Blocking.
    ///
    /// # Errors
    /// That of the last that has it, where none has it whole.
    pub fn read_small(&self, digest: &Digest, limit: u64) -> Result<Bytes, ferry_archive::Error> {
        loop {
            let (i, bundle) = self.holder(digest).unwrap_or((0, &self.all[0]));
            match bundle.read_small(digest, limit) {
                Err(error) if self.gives_way(digest, i) => tracing::debug!(%error, "taken from another bundle"),
                result => return result,
            }
        }
    }

    /// What was noticed since this was asked last: blobs that are damaged in one bundle and were taken from another.
    #[must_use]
    pub fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.notes))
    }

    /// Images, notes and conflicts.
    pub(crate) fn images(&self, layout: Option<Layout>) -> Carries {
        self.together().images(layout)
    }

    pub(crate) fn together(&self) -> Together<'_> {
        Together { parts: parts(&self.all, &self.places), older: &self.older }
    }

    /// Reads a carried file from the first that has it whole. Blocking.
    pub(crate) fn file(&self, member: &Member) -> Result<Bytes, ferry_archive::Error> {
        let mut holders = member.of.iter();
        let mut result = self.all[holders.next().copied().unwrap_or(0)].file(&member.path);
        for i in holders {
            let Err(error) = &result else { break };
            tracing::debug!(%error, "taken from another bundle");
            result = self.all[*i].file(&member.path);
        }
        result
    }

    /// What a bundle says of a blob that it leaves to the far side: by all that say so.
    pub(crate) fn relied(&self, digest: &Digest) -> impl Iterator<Item = (&HeadRelied, &[HeadBase])> {
        let digest = digest.clone();
        self.all.iter().filter_map(move |bundle| {
            let head = bundle.head();
            let at = head.relies.binary_search_by(|relied| relied.digest.cmp(&digest)).ok()?;
            Some((head.relies.get(at)?, head.bases.as_slice()))
        })
    }

    /// Of blobs that were sent, those that came from a bundle which builds on another that lists them, too: from a patch, instead of what
    /// it mends. Told for each two of them.
    pub(crate) fn patched<'a>(&self, sent: impl Iterator<Item = &'a Descriptor>) -> Vec<String> {
        let mut taken: BTreeMap<(usize, usize), (usize, u64)> = BTreeMap::new();
        for blob in sent {
            let Some((by, _)) = self.holder(&blob.digest) else { continue };
            let instead = self.older[by].iter().find(|older| self.all[**older].blob(&blob.digest).is_some());
            if let Some(of) = instead {
                let (count, bytes) = taken.entry((by, *of)).or_default();
                (*count, *bytes) = (*count + 1, *bytes + blob.size);
            }
        }
        let told = |((by, of), (count, bytes)): ((usize, usize), (usize, u64))| {
            format!("{} ({bytes} bytes) came from `{}` instead of `{}`", blobs(count), self.places[by], self.places[of])
        };
        taken.into_iter().map(told).collect()
    }

    /// The first that has a blob and has not failed with it.
    fn holder(&self, digest: &Digest) -> Option<(usize, &Carrier)> {
        let bad = lock(&self.bad);
        let bad = bad.get(digest);
        let has =
            |(i, bundle): &(usize, &Carrier)| bad.is_none_or(|bad| !bad.contains(i)) && bundle.blob(digest).is_some();
        self.all.iter().enumerate().find(has)
    }

    /// Bundle `i` cannot give a blob: whether another can. The last one stays, to say what is wrong with it.
    fn gives_way(&self, digest: &Digest, i: usize) -> bool {
        let mut bad = lock(&self.bad);
        let bad = bad.entry(digest.clone()).or_default();
        // another task may have found that out
        if bad.contains(&i) {
            return true;
        }
        let has =
            |(other, bundle): &(usize, &Carrier)| *other != i && !bad.contains(other) && bundle.blob(digest).is_some();
        let Some((next, _)) = self.all.iter().enumerate().find(has) else { return false };
        bad.insert(i);
        let (place, next) = (&self.places[i], &self.places[next]);
        lock(&self.notes).push(format!("blob {digest} cannot be had whole from `{place}`, and is taken from `{next}`"));
        true
    }
}

impl From<Arc<Bundle>> for Bundles {
    fn from(bundle: Arc<Bundle>) -> Self {
        Self::new(bundle, [])
    }
}

impl Provider for Bundles {
    fn open<'a>(&'a self, blob: &'a Descriptor, range: Range<u64>) -> BoxFuture<'a, Result<ByteStream, ContentError>> {
        match self.holder(&blob.digest) {
            Some((_, bundle)) => bundle.open(blob, range),
            None => {
                let what = format!("blob {}", blob.digest);
                Box::pin(async move { Err(ContentError::NotFound { place: self.place(), what }) })
            }
        }
    }

    fn turns_elsewhere(&self, blob: &Descriptor) -> bool {
        self.holder(&blob.digest).is_some_and(|(i, _)| self.gives_way(&blob.digest, i))
    }

    fn check(&self) -> Result<(), ContentError> {
        let files = self.all.iter().filter_map(|carrier| match carrier {
            Carrier::File(bundle) => Some(bundle),
            Carrier::Passing(_) => None,
        });
        files.into_iter().try_for_each(|bundle| Provider::check(&**bundle))
    }

    fn place(&self) -> String {
        self.places.join(", ")
    }
}

fn parts<'a>(all: &'a [Carrier], places: &'a [String]) -> Vec<Part<'a>> {
    let part = |(carrier, place): (&'a Carrier, &'a String)| Part { place, head: carrier.head(), sums: carrier.sums() };
    all.iter().zip(places).map(part).collect()
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
