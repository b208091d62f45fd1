//! `verify:`: whether an image is signed by one of the keys that the bundle manifest names.
//!
//! The root counts; where it is not signed, every carried platform's manifest. Not here: what a signature is (`signature`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ferry_archive::SpkiKey as Key;
use ferry_content::Problems;
use ferry_image::referrer::{SIGSTORE_BUNDLE, SIMPLE_SIGNING};
use ferry_image::{CosignTag, Descriptor, Digest, Manifest};

use crate::Error;
use crate::manifest::{BundleManifest, KeyFile};
use crate::place::Place;
use crate::referrers::Referrer;
use crate::signature::{self, Refusal};

/// The largest public key file, in bytes.
const MAX_KEY: u64 = 64 << 10;

/// A signature that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verified {
    /// The key file as written.
    pub(crate) key_file: String,
    /// The digest of the key.
    pub(crate) key: Digest,
    /// What is signed.
    pub(crate) subject: Digest,
    /// The manifest that holds the signature.
    pub(crate) signature: Digest,
}

/// The keys that a bundle manifest names, by path.
#[derive(Debug, Default)]
pub(crate) struct Keys(BTreeMap<PathBuf, Key>);

impl Keys {
    /// Reads all key files. Blocking, and short.
    pub(crate) fn load(manifest: &BundleManifest) -> Result<Self, Problems> {
        let of_images = manifest.images.iter().flat_map(|image| image.verify.iter().flatten());
        let mut keys = BTreeMap::new();
        let mut problems = Problems::default();
        for file in manifest.verify.iter().flat_map(|verify| &verify.keys).chain(of_images) {
            if keys.contains_key(&file.path) {
                continue;
            }
            match load(&file.path) {
                Ok(key) => {
                    keys.insert(file.path.clone(), key);
                }
                Err(error) => problems.add(format!("`verify:` (line {})", file.line), error),
            }
        }
        problems.or(Self(keys))
    }

    /// Those of `files`, each with its name.
    fn of<'a>(&'a self, files: &'a [KeyFile]) -> Vec<(&'a str, &'a Key)> {
        files.iter().filter_map(|file| Some((file.written.as_str(), self.0.get(&file.path)?))).collect()
    }
}

fn load(path: &Path) -> Result<Key, Error> {
    use std::io::Read as _;
    let io = |e| ferry_content::Error::io("read", path, e);
    let mut pem = Vec::new();
    std::fs::File::open(path).map_err(io)?.take(MAX_KEY).read_to_end(&mut pem).map_err(io)?;
    Key::from_pem(&pem).map_err(|why| Error::Key { path: path.to_owned(), why })
}

/// Finds the signatures of an image by one of `files` among `referrers`: of the `root`, or of all of `manifests`.
pub(crate) async fn verify(
    place: &Place,
    root: &Digest,
    manifests: &[Digest],
    referrers: &[Referrer],
    keys: &Keys,
    files: &[KeyFile],
    is_locked: bool,
) -> Result<Vec<Verified>, Error> {
    let keys = keys.of(files);
    let mut refusals = match signed(place, root, referrers, &keys).await? {
        Ok(verified) => return Ok(vec![verified]),
        Err(refusals) => refusals,
    };
    let mut all = Vec::new();
    for manifest in manifests.iter().filter(|manifest| *manifest != root) {
        match signed(place, manifest, referrers, &keys).await? {
            Ok(verified) => all.push(verified),
            Err(more) => {
                refusals.extend(more);
                all.clear();
                break;
            }
        }
    }
    if !all.is_empty() {
        return Ok(all);
    }
    let why = match refusals.len() {
        0 if is_locked => "the lock has no signature of it".to_owned(),
        0 => format!("no signature is found (neither `{}` nor a referrer)", CosignTag::Signature.tag(root)),
        _ => refusals.join("; "),
    };
    let names: Vec<String> = keys.iter().map(|(name, _)| format!("`{name}`")).collect();
    Err(Error::NotSigned { place: place.name(), root: root.clone(), keys: names.join(" or "), why })
}

/// The first signature of `subject` that holds, or why each does not.
async fn signed(
    place: &Place,
    subject: &Digest,
    referrers: &[Referrer],
    keys: &[(&str, &Key)],
) -> Result<Result<Verified, Vec<String>>, Error> {
    let only: Vec<&Key> = keys.iter().map(|(_, key)| *key).collect();
    let mut refusals = Vec::new();
    for referrer in referrers.iter().filter(|referrer| referrer.subject == *subject) {
        let Manifest::Image(manifest) = place.manifest(&referrer.descriptor).await? else { continue };
        for layer in &manifest.layers {
            let refusal = match check(place, layer, subject, &only).await? {
                None => continue,
                Some(Ok(key)) => {
                    let key_file = keys.iter().find(|(_, k)| std::ptr::eq(*k, key)).map_or("", |(name, _)| name);
                    return Ok(Ok(Verified {
                        key_file: key_file.to_owned(),
                        key: key.fingerprint().clone(),
                        subject: subject.clone(),
                        signature: referrer.descriptor.digest.clone(),
                    }));
                }
                Some(Err(refusal)) => refusal,
            };
            let name = referrer.tag.clone().unwrap_or_else(|| referrer.descriptor.digest.to_string());
            let refusal = format!("`{name}` {refusal}");
            if !refusals.contains(&refusal) {
                refusals.push(refusal);
            }
        }
    }
    Ok(Err(refusals))
}

/// What a layer proves; none when it is nothing of the kind.
async fn check<'a>(
    place: &Place,
    layer: &Descriptor,
    subject: &Digest,
    keys: &[&'a Key],
) -> Result<Option<Result<&'a Key, Refusal>>, Error> {
    let is_simple = layer.media_type == SIMPLE_SIGNING;
    if !is_simple && !layer.media_type.starts_with(SIGSTORE_BUNDLE) {
        return Ok(None);
    }
    let bytes = match place.small(layer).await {
        Ok(bytes) => bytes,
        Err(Error::Content(error @ ferry_content::Error::SizeMismatch { .. })) => {
            return Ok(Some(Err(Refusal::Unreadable(error.to_string()))));
        }
        Err(error) => return Err(error),
    };
    Ok(Some(match is_simple {
        true => signature::simple_signing(&bytes, &layer.annotations, subject, keys),
        false => signature::sigstore_bundle(&bytes, subject, keys),
    }))
}
