//! A bundle being read: signature first, then the structure, byte for byte, then blobs by position.
//!
//! Opening reads everything but the content of blobs and carried files; that is hashed while it is read
//! ([`Bundle::read_small`], the copy loop) or by [`Bundle::verify`](crate::Bundle::verify).

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use ferry_content::files::{CHUNK, ReadAt, read_range, stream_range};
use ferry_content::{BoxFuture, ByteStream, Error as ContentError, Provider};
use ferry_image::{Descriptor, Digest, Hasher, Reference, manifest::MAX_MANIFEST};

use crate::front::{self, Front};
use crate::source::Positioned;
use crate::steady::Steady;
use crate::{Damage, Error, Head, Location, Slices, Trust, frame, oci, signers, volumes};

/// The largest carried file that [`Bundle::file`] reads into memory, in bytes.
pub const MAX_FILE: u64 = 64 << 20;

/// A bundle whose signature and structure hold.
#[derive(Debug)]
pub struct Bundle {
    pub(crate) slices: Arc<Slices>,
    /// The same, for blobs.
    steady: Arc<Steady>,
    pub(crate) path: PathBuf,
    pub(crate) front: Front,
    /// Kept for reading the structure again.
    pub(crate) trust: Trust,
    /// Where each blob stands among the members.
    blobs: HashMap<Digest, usize>,
    /// Blobs that the head says more of than their digest.
    described: HashMap<Digest, Descriptor>,
}

/// A member's content and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) digest: Digest,
    /// Where its content starts, from the start of the file.
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

impl Bundle {
    /// Opens the bundle at `path` (a file, a volume, or the common name of volumes): its signature by `trust`, then its structure.
    /// Blocking, and fast: no blob is read.
    ///
    /// # Errors
    /// [`Error::Io`], or what does not hold, of [`Kind::Untrusted`](ferry_content::Kind::Untrusted).
    pub fn open(path: &Path, trust: &Trust) -> Result<Self, Error> {
        Self::open_at(&Location::of(path)?, trust)
    }

    /// [`open`](Self::open), where it is known which files the bundle consists of.
    ///
    /// # Errors
    /// As there.
    pub fn open_at(location: &Location, trust: &Trust) -> Result<Self, Error> {
        let (bundle, faults) = Self::open_damaged(location, trust)?;
        faults.into_iter().next().map_or(Ok(bundle), Err)
    }

    /// Opens a bundle whose front holds, and says what does not hold of the rest: volumes that are not there, headers, padding, the
    /// end. Blobs of such a bundle can be believed as those of any other, because the front has their digests.
    ///
    /// # Errors
    /// [`Error::Io`], or what does not hold of the front.
    pub fn open_damaged(location: &Location, trust: &Trust) -> Result<(Self, Vec<Error>), Error> {
        let path = &location.base;
        let mut slices = location.open()?;
        let beside = signers::beside(path, &slices)?;
        let front =
            front::read(&mut Positioned { slices: &slices, path, length: slices.length() }, path, trust, &beside)?;
        if let Some(room) = slices.room().and_then(|_| volumes::room(&slices, front.size)) {
            slices = slices.with_room(room);
        }
        let faults = frame::faults(&slices, path, &front);
        let first = front.members.len() - front.head.blobs.len();
        let blobs = front.members.iter().enumerate().skip(first).map(|(i, m)| (m.digest.clone(), i)).collect();
        let mut described = HashMap::new();
        for image in &front.head.images {
            let manifests = image.platforms.iter().map(|p| &p.manifest);
            for descriptor in [&image.root].into_iter().chain(manifests).chain(&image.referrers) {
                described.entry(descriptor.digest.clone()).or_insert_with(|| descriptor.clone());
            }
        }
        let (slices, trust) = (Arc::new(slices), trust.clone());
        let steady = Arc::new(Steady::new(Arc::clone(&slices)));
        Ok((Self { slices, steady, path: path.clone(), front, trust, blobs, described }, faults))
    }

    /// The files that it consists of.
    #[must_use]
    pub fn slices(&self) -> &Slices {
        &self.slices
    }

    /// What it says of itself.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.front.head
    }

    /// The size of the file in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.front.size
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The digest of its `SHA256SUMS`: two bundles with the same have the same content.
    #[must_use]
    pub fn sums_digest(&self) -> &Digest {
        &self.front.sums_digest
    }

    /// The descriptor of a blob that is carried. For configs and layers the media type is `application/octet-stream`: only
    /// their manifest knows it.
    #[must_use]
    pub fn blob(&self, digest: &Digest) -> Option<Descriptor> {
        let member = self.member(digest)?;
        let plain = || Descriptor::new("application/octet-stream", digest.clone(), member.size);
        Some(self.described.get(digest).cloned().unwrap_or_else(plain))
    }

    /// Reads a small blob whole and checks it. Blocking.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::TooLarge`] above `limit` bytes; [`Error::Damaged`]; [`Error::Io`].
    pub fn read_small(&self, digest: &Digest, limit: u64) -> Result<Bytes, Error> {
        let member = self.member(digest).ok_or_else(|| self.not_found(format!("blob {digest}")))?;
        self.read_member(member, limit)
    }

    /// Reads a carried file (`yaml/…`, `files/…`, `bin/ferry`) of at most [`MAX_FILE`] bytes whole and checks it. Blocking.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::TooLarge`]; [`Error::Damaged`]; [`Error::Io`].
    pub fn file(&self, name: &str) -> Result<Bytes, Error> {
        self.read_member(self.file_member(name)?, MAX_FILE)
    }

    /// Copies a carried file of any size to `out` and checks it on the way: what `out` got is good only if this succeeds. Blocking.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Damaged`]; [`Error::Io`], where the error of `out` names the member.
    pub fn copy_file(&self, name: &str, out: &mut dyn Write) -> Result<(), Error> {
        let member = self.file_member(name)?;
        let mut hasher = Hasher::new(member.digest.algorithm());
        let (mut at, end) = (member.offset, member.offset + member.size);
        while at < end {
            let next = end.min(at + CHUNK);
            let bytes = read_range(&*self.slices, &(at..next)).map_err(|e| Error::io("read", &self.path, e))?;
            hasher.update(&bytes);
            out.write_all(&bytes).map_err(|e| Error::io("write", name, e))?;
            at = next;
        }
        self.compare(member, hasher.finish())
    }

    /// Images that `docker load` does not find in this file: artifacts, zstd layers, layers that are not carried. Blocking.
    ///
    /// # Errors
    /// When a manifest is damaged or cannot be read.
    pub fn without_docker(&self) -> Result<Vec<Reference>, Error> {
        let mut manifests = BTreeMap::new();
        for platform in self.front.head.images.iter().filter_map(|i| i.platforms.first()) {
            let digest = &platform.manifest.digest;
            manifests.insert(digest.clone(), self.read_small(digest, MAX_MANIFEST)?);
        }
        let fail = |why| Error::Head { path: self.path.clone(), why };
        oci::docker(&self.front.head, &manifests).map(|(_, left_out)| left_out).map_err(fail)
    }

    /// Fills `buffer` with what stands at `at`, from the start of the file.
    pub(crate) fn read_at(&self, buffer: &mut [u8], at: u64) -> Result<(), Error> {
        self.slices.read_exact_at(buffer, at).map_err(|e| Error::io("read", &self.path, e))
    }

    fn member(&self, digest: &Digest) -> Option<&Member> {
        self.blobs.get(digest).and_then(|i| self.front.members.get(*i))
    }

    fn not_found(&self, what: String) -> Error {
        Error::NotFound { path: self.path.clone(), what }
    }

    fn read_member(&self, member: &Member, limit: u64) -> Result<Bytes, Error> {
        let Member { name, size, .. } = member;
        if *size > limit {
            let (path, member) = (self.path.clone(), name.clone());
            return Err(Error::TooLarge { path, member, size: *size, limit });
        }
        let place = member.offset..member.offset + size;
        let bytes = read_range(&*self.slices, &place).map_err(|e| Error::io("read", &self.path, e))?;
        self.compare(member, Digest::of(&bytes))?;
        Ok(bytes)
    }

    fn compare(&self, member: &Member, found: Digest) -> Result<(), Error> {
        if found == member.digest {
            return Ok(());
        }
        let damage = self.damage(member, Some(found));
        Err(Error::Damaged { path: self.path.clone(), members: vec![damage] })
    }

    pub(crate) fn damage(&self, member: &Member, found: Option<Digest>) -> Damage {
        let Member { name, offset, size, .. } = member.clone();
        let volumes = self.slices.paths(offset..offset + size);
        Damage { name, offset, size, volumes, found }
    }

    fn file_member(&self, name: &str) -> Result<&Member, Error> {
        let head = &self.front.head;
        let listed = head.yaml.iter().chain(&head.files).any(|f| f.path == name);
        let member = self.front.members.iter().find(|m| listed && m.name == name);
        member.ok_or_else(|| self.not_found(format!("file `{name}`")))
    }
}

impl Provider for Bundle {
    fn open<'a>(&'a self, blob: &'a Descriptor, range: Range<u64>) -> BoxFuture<'a, Result<ByteStream, ContentError>> {
        let fits = |m: &&Member| range.start <= range.end && range.end <= m.size;
        let result = match self.member(&blob.digest).filter(fits) {
            Some(member) => {
                let place = member.offset + range.start..member.offset + range.end;
                let changed = self.steady.check(place.start, place.end - place.start);
                let steady = || Arc::clone(&self.steady) as Arc<dyn ReadAt>;
                match changed {
                    Ok(()) => Ok(stream_range(steady(), self.path.clone(), place)),
                    Err(error) => Err(ContentError::io("read", &self.path, error)),
                }
            }
            None => Err(ContentError::NotFound {
                place: self.place(),
                what: format!("blob {} (bytes {range:?})", blob.digest),
            }),
        };
        Box::pin(async move { result })
    }

    fn check(&self) -> Result<(), ContentError> {
        self.steady.check(0, self.size()).map_err(|error| ContentError::io("read", &self.path, error))
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}
