//! The lock file: every reference of a bundle manifest resolved to digests, so that a build can be repeated bit for bit.
//! Format: `docs/bundle-manifest.md`, "The lock file".
//!
//! JSON, sorted by reference, printed the same way every time; no clock, no machine name, no path that the user did not write.
//! Pure: text in, types out. Not here: deciding whether a lock still holds.

use ferry_content::{Failure, Kind};
use ferry_image::{Descriptor, Digest, Platform, Reference};
use serde::{Deserialize, Serialize};

use crate::manifest::{Layers, Platforms};

/// The version of the format that this code reads and writes.
pub const VERSION: u32 = 1;
/// The largest lock file, in bytes.
pub const MAX_BYTES: usize = 64 << 20;

/// A lock file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lock {
    /// [`VERSION`].
    pub version: u32,
    /// The platforms it was resolved for, where an image does not say otherwise.
    pub platforms: Platforms,
    /// Sorted by reference, none twice.
    pub images: Vec<Locked>,
    /// Optional images that were not there, sorted. They stay away until the lock is made anew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<Reference>,
}

/// One reference, resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Locked {
    /// As in the bundle manifest, normalised.
    pub reference: Reference,
    /// Where it was found.
    pub source: Source,
    /// The manifest or index that the reference resolved to. For an archive: what ferry makes of it.
    pub root: Root,
    /// The chosen platforms' manifests, in the order chosen (for `all`, in the order of the index).
    pub platforms: Vec<LockedPlatform>,
    /// The referrers that are carried, subjects before what refers to them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub referrers: Vec<LockedReferrer>,
    /// Signatures that were verified and are not carried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proofs: Vec<LockedReferrer>,
}

/// Where an image was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, tag = "kind")]
pub enum Source {
    /// A registry.
    Registry {
        /// The name that answered: the image's own, one of `from:`, or a mirror's.
        reference: Reference,
    },
    /// A docker-save tar or an OCI layout.
    Archive(LockedArchive),
}

/// What was read from an archive, and what was made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LockedArchive {
    /// The path as written in the bundle manifest.
    pub path: String,
    /// The image inside, as written; absent when it was the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The config or manifest inside, which names the image's content whatever the tar around it.
    pub input: Digest,
    /// What became of raw layers.
    pub layers: Layers,
    /// The encoder, when a layer was compressed: its name, version and level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder: Option<String>,
    /// The layers that were compressed, in order of first use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub encoded: Vec<Encoded>,
}

/// A raw layer and its compressed form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Encoded {
    /// The digest of the raw tar.
    pub input: Digest,
    /// The digest of the compressed blob.
    pub digest: Digest,
    /// The compressed blob's size in bytes.
    pub size: u64,
}

/// A manifest or an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Root {
    /// Its media type.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

impl From<&Descriptor> for Root {
    fn from(descriptor: &Descriptor) -> Self {
        Self { media_type: descriptor.media_type.clone(), digest: descriptor.digest.clone(), size: descriptor.size }
    }
}

impl From<&Root> for Descriptor {
    fn from(root: &Root) -> Self {
        Self::new(&root.media_type, root.digest.clone(), root.size)
    }
}

/// The manifest for one platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LockedPlatform {
    /// The platform of the manifest, which may be a lower variant than the one asked for; none for an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The manifest's digest.
    pub digest: Digest,
}

/// What refers to an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LockedReferrer {
    /// The media type of its manifest.
    pub media_type: String,
    /// The manifest's digest.
    pub digest: Digest,
    /// The manifest's size in bytes.
    pub size: u64,
    /// What it refers to.
    pub subject: Digest,
    /// The tag it stands under, for cosign's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

/// Why a lock file cannot be used. The caller knows its path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// Not JSON, or not of this form.
    #[error("line {line}: {why}")]
    Form {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// Larger than a lock can sensibly be.
    #[error("the file has {bytes} bytes; the limit is {MAX_BYTES}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Written by a newer ferry.
    #[error("the lock has version {found}; this ferry reads version {VERSION}")]
    Version {
        /// What the file says.
        found: u32,
    },
    /// The same reference twice.
    #[error("`{reference}` stands there twice")]
    Twice {
        /// The reference.
        reference: Reference,
    },
}

impl Failure for LockError {
    fn kind(&self) -> Kind {
        Kind::Invalid
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Version { .. } => "use the ferry that wrote it, or make the lock anew with `--lock`".to_owned(),
            _ => "a lock file is not edited by hand; make it anew with `--lock`".to_owned(),
        })
    }
}

impl Lock {
    /// A lock with its entries in order.
    #[must_use]
    pub fn new(platforms: Platforms, mut images: Vec<Locked>, mut absent: Vec<Reference>) -> Self {
        images.sort_by(|a, b| a.reference.cmp(&b.reference));
        absent.sort();
        absent.dedup();
        Self { version: VERSION, platforms, images, absent }
    }

    /// What `reference` was resolved to.
    #[must_use]
    pub fn entry(&self, reference: &Reference) -> Option<&Locked> {
        let at = self.images.binary_search_by(|locked| locked.reference.cmp(reference)).ok()?;
        self.images.get(at)
    }

    /// Whether `reference` is an optional image that was not there.
    #[must_use]
    pub fn is_absent(&self, reference: &Reference) -> bool {
        self.absent.binary_search(reference).is_ok()
    }
}

/// Reads a lock file.
///
/// # Errors
/// When it is not one, or of another version, or lists a reference twice.
pub fn parse(text: &str) -> Result<Lock, LockError> {
    if text.len() > MAX_BYTES {
        return Err(LockError::TooLarge { bytes: text.len() });
    }
    let form = |e: serde_json::Error| LockError::Form { line: e.line(), why: without_position(&e) };
    // the version first: a newer form need not fit this one's types
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let Version { version } = serde_json::from_str(text).map_err(form)?;
    if version != VERSION {
        return Err(LockError::Version { found: version });
    }
    let read: Lock = serde_json::from_str(text).map_err(form)?;
    let lock = Lock::new(read.platforms, read.images, read.absent);
    for pair in lock.images.windows(2) {
        if let [a, b] = pair
            && a.reference == b.reference
        {
            return Err(LockError::Twice { reference: a.reference.clone() });
        }
    }
    if let Some(both) = lock.images.iter().find(|i| lock.is_absent(&i.reference)) {
        return Err(LockError::Twice { reference: both.reference.clone() });
    }
    Ok(lock)
}

fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

/// Prints a lock file: the same bytes for the same lock.
///
/// # Errors
/// None in practice; the JSON printer's own.
pub fn print(lock: &Lock) -> Result<String, LockError> {
    let mut text = serde_json::to_string_pretty(lock)
        .map_err(|e| LockError::Form { line: e.line(), why: without_position(&e) })?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    fn root(text: &str, media_type: &str) -> Root {
        Root { media_type: media_type.to_owned(), digest: digest(text), size: text.len() as u64 }
    }

    fn referrer(text: &str) -> LockedReferrer {
        let media_type = "application/vnd.oci.image.manifest.v1+json".to_owned();
        let (digest, size) = (digest(text), text.len() as u64);
        LockedReferrer { media_type, digest, size, subject: super::tests::digest("index"), tag: None }
    }

    fn sample() -> Lock {
        let platform: Platform = "linux/amd64".parse().expect("platform");
        let etcd = Locked {
            reference: "docker.io/bitnami/etcd:3.5.9".parse().expect("reference"),
            source: Source::Registry { reference: "docker.io/bitnamilegacy/etcd:3.5.9".parse().expect("reference") },
            root: root("index", "application/vnd.oci.image.index.v1+json"),
            platforms: vec![LockedPlatform { platform: Some(platform.clone()), digest: digest("manifest") }],
            referrers: vec![
                LockedReferrer { tag: Some("sha256-1.sig".to_owned()), ..referrer("signature") },
                referrer("sbom"),
            ],
            proofs: vec![referrer("proof")],
        };
        let operator = Locked {
            reference: "alluxio/operator:3.2.1".parse().expect("reference"),
            source: Source::Archive(LockedArchive {
                path: "tars/operator.tar".to_owned(),
                image: Some("localhost/3.2.1:latest".to_owned()),
                input: digest("config"),
                layers: Layers::Gzip,
                encoder: Some("zlib-rs 0.5 level 6".to_owned()),
                encoded: vec![Encoded { input: digest("raw"), digest: digest("gzip"), size: 4 }],
            }),
            root: root("made", "application/vnd.oci.image.manifest.v1+json"),
            platforms: vec![LockedPlatform { platform: Some(platform.clone()), digest: digest("made") }],
            referrers: Vec::new(),
            proofs: Vec::new(),
        };
        let absent = vec!["b:1".parse().expect("reference"), "a:1".parse().expect("reference")];
        Lock::new(Platforms::These(vec![platform]), vec![etcd, operator], absent)
    }

    const GOLDEN: &str = include_str!("lock/golden.json");

    #[test]
    fn the_format_is_frozen() {
        assert_eq!(print(&sample()).as_deref(), Ok(GOLDEN));
        assert_eq!(parse(GOLDEN), Ok(sample()));
    }

    #[test]
    fn order_of_arrival_does_not_show() {
        let lock = sample();
        let mut images = lock.images.clone();
        images.reverse();
        let mut absent = lock.absent.clone();
        absent.reverse();
        assert_eq!(print(&Lock::new(lock.platforms.clone(), images, absent)), print(&lock));
    }

    #[test]
    fn entries_are_found_by_normal_form() {
        let lock = sample();
        let entry = lock.entry(&"bitnami/etcd:3.5.9".parse().expect("reference")).expect("entry");
        assert_eq!(entry.root.digest, digest("index"));
        assert!(lock.entry(&"bitnami/etcd:3.5.8".parse().expect("reference")).is_none());
        assert!(lock.is_absent(&"docker.io/library/a:1".parse().expect("reference")));
    }

    #[test]
    fn what_is_no_lock_is_refused() {
        let form = |line, why: &str| LockError::Form { line, why: why.to_owned() };
        for (text, expected) in [
            ("", form(1, "EOF while parsing a value")),
            ("{}", form(1, "missing field `version`")),
            ("{\"version\": 2, \"images\": 7}", LockError::Version { found: 2 }),
            (
                "{\"version\": 1,\n\"platforms\": [\"all\"], \"images\": [],\n\"extra\": 1}",
                form(3, "unknown field `extra`, expected one of `version`, `platforms`, `images`, `absent`"),
            ),
            (
                "{\"version\": 1, \"platforms\": [], \"images\": []}",
                form(1, "`` is not a platform: there is none in the list"),
            ),
        ] {
            assert_eq!(parse(text), Err(expected), "{text}");
        }
        for place in [
            "\"source\": {",
            "{\n      \"reference\"",
            "\"root\": {",
            "\"platforms\": [\n        {",
            "\"referrers\": [\n        {",
        ] {
            let text = GOLDEN.replacen(place, &place.replacen('{', "{ \"extra\": 1,", 1), 1);
            assert_ne!(text, GOLDEN, "{place}");
            assert!(matches!(parse(&text), Err(LockError::Form { .. })), "{place}");
        }
        let mut twice = sample();
        twice.images.push(twice.images[0].clone());
        let text = print(&twice).expect("prints");
        assert_eq!(parse(&text), Err(LockError::Twice { reference: twice.images[0].reference.clone() }));
        let mut both = sample();
        both.absent.push(both.images[0].reference.clone());
        assert!(matches!(parse(&print(&both).expect("prints")), Err(LockError::Twice { .. })));
    }
}
