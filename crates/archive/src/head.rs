//! `ferry.json`, the head of a bundle: what is inside, and where (`docs/format.md`, "The head").
//!
//! Nothing here depends on the clock, the user or the order of arrival.

use std::collections::{BTreeMap, BTreeSet};

use ferry_image::{Algorithm, Descriptor, Digest, Ignore, Platform, Reference, SetRule, TargetName};
use serde::{Deserialize, Serialize};

use crate::member::check_names;

/// The format that this crate writes and reads.
pub const FORMAT: u32 = 1;
/// The largest head that is read, in bytes.
pub const MAX_HEAD: u64 = 256 << 20;

/// What `ferry.json` says. Unknown fields are refused: a field that an older reader does not know may change what must be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Head {
    /// The format of the file: 1.
    pub format: u32,
    /// The bundle's name: 1 to 128 printable ASCII characters, no `@`.
    pub name: String,
    /// Its version, of the same characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The platforms asked for, or `all`.
    pub platforms: Vec<String>,
    /// How names at the target are made unless the installer chooses otherwise.
    pub layout: ferry_image::Layout,
    /// The images, in the order of the bundle manifest.
    pub images: Vec<HeadImage>,
    /// Optional images that could not be had when the bundle was resolved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<Absent>,
    /// The YAML carried: members `yaml/…`. Filled in by [`Layout::new`](crate::Layout::new).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub yaml: Vec<HeadFile>,
    /// Other files carried: members `files/…` and `bin/ferry`. Filled in by [`Layout::new`](crate::Layout::new).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<HeadFile>,
    /// Rules for the YAML.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<SetRule>,
    /// References in the YAML that are left alone on purpose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<Ignore>,
    /// What was said to be on the far side already, in the order it was said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bases: Vec<HeadBase>,
    /// Blobs of its images that are not in the file, because a base has them; sorted by digest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relies: Vec<HeadRelied>,
    /// Every blob in the order of the file: manifests and configs, then layers in order of first use.
    pub blobs: Vec<HeadBlob>,
}

/// One image (or artifact) of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeadImage {
    /// The reference, normalised.
    pub reference: Reference,
    /// The name at the target that the user chose (`as:`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetName>,
    /// Where it was resolved from, for people: a repository, a file.
    pub source: String,
    /// What the reference named: the original index, or the manifest.
    pub root: Descriptor,
    /// The manifests carried, one per platform.
    pub platforms: Vec<HeadPlatform>,
    /// Signatures, attestations and the like that are carried with it, subjects before what refers to them. What stands under a tag
    /// (cosign's) has it as the annotation `org.opencontainers.image.ref.name`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub referrers: Vec<Descriptor>,
    /// The signatures that were verified when the bundle was built.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verified: Vec<HeadVerified>,
}

/// A signature that held when the bundle was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeadVerified {
    /// The digest of the public key in its DER form (`SubjectPublicKeyInfo`).
    pub key: Digest,
    /// The key's file as the bundle manifest names it; for people.
    pub key_file: String,
    /// What is signed: the root, or a platform's manifest.
    pub subject: Digest,
    /// The manifest that holds the signature; it need not be carried.
    pub signature: Digest,
}

/// The manifest of one platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeadPlatform {
    /// The platform; none for an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The manifest.
    pub manifest: Descriptor,
}

/// An optional image that is not in the bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Absent {
    /// Its reference.
    pub reference: Reference,
    /// Why it is not there.
    pub reason: String,
}

/// What a bundle builds on: another bundle, a receipt of an install, a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeadBase {
    /// The name of the bundle that it is, or that it tells of.
    pub name: String,
    /// That bundle's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The digest of that bundle's `SHA256SUMS`, where it is known: it is not for a lock, nor for an inventory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sums: Option<Digest>,
}

/// A blob that must be on the far side before this bundle can be installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeadRelied {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Repositories that have it by what the bases say, as paths below the target's host and prefix; sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<String>,
}

/// A file carried as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeadFile {
    /// The name of the member: `yaml/…`, `files/…` or `bin/ferry`.
    pub path: String,
    /// The digest of its bytes.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// A blob and its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeadBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Where its first byte stands, counted from the start of the data section (the tar header of the first blob).
    pub offset: u64,
}

impl Head {
    /// The text of `ferry.json`.
    ///
    /// # Errors
    /// When it cannot be written as JSON, which no value of these types causes.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        Ok(json)
    }

    /// Everything that must hold within a head, whoever wrote it. The text says what does not.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn check(&self) -> Result<(), String> {
        check_label("name", &self.name)?;
        if self.name.contains('@') {
            return Err(format!("the name `{}` contains `@`", self.name));
        }
        if let Some(version) = &self.version {
            check_label("version", version)?;
        }
        self.check_total()?;
        let blobs = self.check_blobs()?;
        self.check_relies(&blobs)?;
        self.check_images(&blobs)?;
        for (prefix, list) in [("yaml/", &self.yaml), ("files/", &self.files)] {
            for file in list {
                let fits = file.path.starts_with(prefix) || (prefix == "files/" && file.path == "bin/ferry");
                if !fits {
                    return Err(format!("the file `{}` does not stand under `{prefix}`", file.path));
                }
                check_algorithm(&file.digest)?;
            }
        }
        if self.files.iter().rev().skip(1).any(|f| f.path == "bin/ferry") {
            return Err("`bin/ferry` is not the last of the files".to_owned());
        }
        check_names(self.yaml.iter().chain(&self.files).map(|f| f.path.as_str()))
    }

    /// 2^60 bytes in all keep every sum of sizes and offsets far from the end of 64 bits.
    fn check_total(&self) -> Result<(), String> {
        let files = self.yaml.iter().chain(&self.files).map(|f| f.size);
        let blobs = self.blobs.iter().map(|b| b.size).chain(self.relies.iter().map(|r| r.size));
        let total = files.chain(blobs).try_fold(0_u64, u64::checked_add);
        match total {
            Some(total) if total < 1 << 60 => Ok(()),
            _ => Err("the sizes add up to more than an exbibyte".to_owned()),
        }
    }

    fn check_blobs(&self) -> Result<BTreeMap<&Digest, u64>, String> {
        let mut blobs = BTreeMap::new();
        for blob in &self.blobs {
            check_algorithm(&blob.digest)?;
            if blobs.insert(&blob.digest, blob.size).is_some() {
                return Err(format!("blob {} is listed twice", blob.digest));
            }
        }
        Ok(blobs)
    }

    fn check_relies(&self, blobs: &BTreeMap<&Digest, u64>) -> Result<(), String> {
        for (i, relied) in self.relies.iter().enumerate() {
            check_algorithm(&relied.digest)?;
            if blobs.contains_key(&relied.digest) {
                return Err(format!("blob {} is carried and relied on", relied.digest));
            }
            if i > 0 && self.relies[i - 1].digest >= relied.digest {
                return Err(format!("blob {} is relied on out of order, or twice", relied.digest));
            }
        }
        if !self.relies.is_empty() && self.bases.is_empty() {
            return Err("it relies on blobs, and names no base that has them".to_owned());
        }
        Ok(())
    }

    fn check_images(&self, blobs: &BTreeMap<&Digest, u64>) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        for image in &self.images {
            if !seen.insert(&image.reference) {
                return Err(format!("image `{}` is listed twice", image.reference));
            }
            let manifests = image.platforms.iter().map(|p| &p.manifest);
            for descriptor in manifests.chain(&image.referrers).chain([&image.root]) {
                match blobs.get(&descriptor.digest) {
                    Some(size) if *size == descriptor.size => {}
                    Some(size) => {
                        return Err(format!(
                            "image `{}`: {} has {} bytes there and {size} among the blobs",
                            image.reference, descriptor.digest, descriptor.size
                        ));
                    }
                    None => {
                        return Err(format!(
                            "image `{}`: {} is not among the blobs",
                            image.reference, descriptor.digest
                        ));
                    }
                }
            }
            let manifests = || image.platforms.iter().map(|p| &p.manifest).chain([&image.root]);
            if let Some(other) = image.verified.iter().find(|v| manifests().all(|m| m.digest != v.subject)) {
                let why = "is said to be signed, and is no manifest of it";
                return Err(format!("image `{}`: {} {why}", image.reference, other.subject));
            }
        }
        Ok(())
    }
}

pub(crate) fn check_label(what: &str, text: &str) -> Result<(), String> {
    let printable = text.bytes().all(|b| (0x20..0x7f).contains(&b));
    if text.is_empty() || text.len() > 128 || !printable || text.trim() != text {
        let shown: String = text.chars().take(128).collect();
        return Err(format!("the {what} `{}` is not 1 to 128 printable ASCII characters", shown.escape_debug()));
    }
    Ok(())
}

pub(crate) fn check_algorithm(digest: &Digest) -> Result<(), String> {
    match digest.algorithm() {
        Algorithm::Sha256 => Ok(()),
        other => Err(format!("{digest} is addressed by {}; bundles carry sha256 only", other.name())),
    }
}
