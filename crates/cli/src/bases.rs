//! Receipts, locks and bundles that are named as what is there already, or as a side of a comparison; and want lists.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use ferry_archive::{Location, Want, want};
use ferry_bundle::base::{Document, detect};
use ferry_bundle::{Base, lock, manifest};
use ferry_content::Problems;
use ferry_image::{Digest, Receipt, receipt};

use crate::failure::{End, Error};
use crate::{args, keys};

/// Opens all that `paths` are. Volumes of one name are one base, from whatever folders they are given. All that cannot be read is told
/// together.
pub(crate) fn load_all(paths: &[PathBuf], trust: &args::Trust) -> Result<Vec<Base>, End> {
    let mut volumes: Vec<Location> = Vec::new();
    for location in Location::group(paths)? {
        if location.is_split() {
            volumes.push(location);
        }
    }
    let (mut problems, mut all) = (Problems::default(), Vec::new());
    for path in paths {
        let of = Location::of(path)?;
        let is_part = |whole: &Location| of.is_split() && whole.base.file_name() == of.base.file_name();
        let loaded = match volumes.iter().position(is_part) {
            Some(at) => of_bundle(&volumes.remove(at), trust),
            // of volumes that are loaded already
            None if of.is_split() => continue,
            None => load(path, trust),
        };
        match loaded {
            Ok(base) => all.push(base),
            Err(End::Problems(more)) => problems.append(more),
            Err(end) => return Err(end),
        }
    }
    Ok(problems.or(all)?)
}

fn of_bundle(location: &Location, trust: &args::Trust) -> Result<Base, End> {
    let bundle = keys::open(location, &keys::trusted(trust)?, &trust.demand)?;
    Ok(Base::of_bundle(&bundle, location.base.display().to_string())?)
}

/// Opens what `path` is: a bundle whose signature holds, or a receipt or lock, which are believed as they are.
pub(crate) fn load(path: &Path, trust: &args::Trust) -> Result<Base, End> {
    let file = path.display().to_string();
    let Some(bytes) = json(path, receipt::MAX_BYTES)? else {
        let location = Location::of(path)?;
        if !location.is_split() && is_text(path)? {
            return Err(none_of_the_three(&file).into());
        }
        return of_bundle(&location, trust);
    };
    let fingerprint = Digest::of(&bytes);
    match detect(&bytes) {
        Document::Receipt => {
            let receipt = Receipt::from_json(&bytes).map_err(|source| document(path, source))?;
            Ok(Base::of_receipt(&receipt, file, fingerprint))
        }
        Document::Lock => {
            let fail = |source| ferry_bundle::Error::Lock { path: path.to_owned(), source };
            let text = String::from_utf8_lossy(&bytes);
            let lock = lock::parse(&text).map_err(fail)?;
            Ok(Base::of_lock(&lock, manifest::name_of(path), file, fingerprint))
        }
        Document::Relocation => {
            let hint = "give the `receipt.json` beside it, or make one with `ferry inventory --from`";
            Err(Error::usage(format!("`{file}` is a relocation, which does not say which blobs are there"), hint)
                .into())
        }
        Document::Want => {
            let hint = "make a patch of it: `ferry bundle --patch FILE -o patch.tar`";
            Err(Error::usage(format!("`{file}` is a want list"), hint).into())
        }
        Document::Other => Err(none_of_the_three(&file).into()),
    }
}

fn none_of_the_three(file: &str) -> Error {
    let hint = "a receipt is what `ferry install` left as `receipt.json`, or what `ferry inventory` wrote; a bundle is what `ferry bundle -o` \
                wrote; a lock, what `ferry bundle --lock` wrote";
    Error::usage(format!("`{file}` is neither a receipt, nor a bundle, nor a lock"), hint)
}

/// Whether a file begins as text does: a bundle has a NUL in its first hundred bytes.
fn is_text(path: &Path) -> Result<bool, Error> {
    let io = |source| Error::Io { action: "read", path: path.to_owned(), source };
    if !path.is_file() {
        return Ok(false);
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(io)?.take(100).read_to_end(&mut bytes).map_err(io)?;
    Ok(!bytes.contains(&0))
}

/// A want list.
pub(crate) fn want(path: &Path) -> Result<Want, End> {
    match json(path, want::MAX_BYTES)? {
        Some(bytes) => Ok(Want::from_json(&bytes).map_err(|source| document(path, source))?),
        None => {
            let hint = "`ferry verify BUNDLE --want want.json` writes one";
            Err(Error::usage(format!("`{}` is no want list", path.display()), hint).into())
        }
    }
}

/// The bytes of a file that begins as a JSON object does; nothing where it is something else. What is larger than `limit` is cut after one
/// byte more: whoever reads it tells.
pub(crate) fn json(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Error> {
    let io = |source| Error::Io { action: "read", path: path.to_owned(), source };
    // opening a pipe would wait for somebody to write into it
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        // the common name of volumes is no file
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && Location::of(path).is_ok_and(|l| l.is_split()) => {
            return Ok(None);
        }
        metadata => return metadata.map(|_| None).map_err(io),
    }
    let mut file = File::open(path).map_err(io)?;
    let mut bytes = Vec::new();
    file.by_ref().take(64).read_to_end(&mut bytes).map_err(io)?;
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Ok(None);
    }
    file.take(limit.saturating_sub(63)).read_to_end(&mut bytes).map_err(io)?;
    Ok(Some(bytes))
}

fn document(path: &Path, source: ferry_image::Error) -> Error {
    Error::Document { path: path.to_owned(), source }
}
