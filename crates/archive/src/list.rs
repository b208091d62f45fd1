//! The list of a bundle's volumes, `NAME.tar.sha256`: what `sha256sum -c` reads, signed as the sums are
//! (`docs/format.md`, "Volumes").
//!
//! A bundle can be read without it: it says which volume is the bad one, and lets people check volumes before the others are there.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use ferry_content::files::ReadAt as _;
use ferry_image::{Algorithm, Digest, Hasher};

use crate::disk::with_ending;
use crate::keys::MAX_SIGNATURE;
use crate::{Error, Location, Slices, Trust, sums, volumes};

/// The largest list that is read, in bytes.
pub(crate) const MAX_LIST: u64 = 16 << 20;
/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// `NAME.tar.sha256`.
#[must_use]
pub fn path(base: &Path) -> PathBuf {
    with_ending(base, ".sha256")
}

/// `NAME.tar.sha256.minisig`.
#[must_use]
pub fn signature_path(base: &Path) -> PathBuf {
    with_ending(base, ".sha256.minisig")
}

/// The trusted comment of its signature: whose volumes they are, and by the digest of the sums that no other build's are meant.
pub(crate) fn comment(name: &str, version: Option<&str>, sums: &Digest) -> String {
    let version = version.map(|version| format!(" version {version}")).unwrap_or_default();
    format!("volumes of bundle {name}{version} sums {sums}")
}

/// The digest of every volume, in one pass from the first to the last.
pub(crate) fn hash(slices: &Slices, progress: &(dyn Fn(u64) + Sync)) -> Result<Vec<Digest>, Error> {
    let mut buffer = vec![0; CHUNK];
    let hash = |part: &crate::Slice| hash_part(part, &mut buffer, progress);
    slices.parts().iter().map(hash).collect()
}

fn hash_part(part: &crate::Slice, buffer: &mut [u8], progress: &(dyn Fn(u64) + Sync)) -> Result<Digest, Error> {
    let failed = |e| Error::io("read", &part.path, e);
    let file = part.file().ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
    let length = file.metadata().map_err(failed)?.len();
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut at = 0;
    while at < length {
        let size = usize::try_from(length - at).unwrap_or(usize::MAX).min(buffer.len());
        let chunk = &mut buffer[..size];
        file.read_exact_at(chunk, at).map_err(failed)?;
        hasher.update(chunk);
        at += size as u64;
        progress(size as u64);
    }
    Ok(hasher.finish())
}

/// The text of the list.
pub(crate) fn text(base: &Path, digests: &[Digest]) -> String {
    let mut text = String::new();
    for (number, digest) in (1..).zip(digests) {
        sums::push(&mut text, &named(base, number), digest);
    }
    text
}

fn named(base: &Path, number: u32) -> String {
    let name = volumes::name(base, number);
    name.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Reads a list: the digest of every volume, in order. Pure.
///
/// # Errors
/// What is wrong with it.
pub fn parse(base: &Path, text: &str) -> Result<Vec<Digest>, String> {
    let listed = sums::parse(text)?;
    for (number, (name, _)) in (1..).zip(&listed) {
        let expected = named(base, number);
        if *name != expected {
            return Err(format!("line {number} names `{}` and not `{expected}`", name.escape_debug()));
        }
    }
    Ok(listed.into_iter().map(|(_, digest)| digest).collect())
}

/// Reads the list that stands beside the volumes of `base` and checks it: its signature by `trust`, that it is of this bundle, that it
/// lists `count` volumes. `None` when there is none.
///
/// # Errors
/// [`Error::Io`]; [`Error::VolumeList`]; what the signature lacks.
pub(crate) fn read(
    base: &Path,
    slices: &Slices,
    trust: &Trust,
    comment: Option<&str>,
    count: u64,
) -> Result<Option<Vec<Digest>>, Error> {
    let name = base.file_name().unwrap_or_default();
    let beside = slices.parts().iter().map(|part| part.path.with_file_name(name));
    let Some(base) = [base.to_owned()].into_iter().chain(beside).find(|base| path(base).exists()) else {
        return Ok(None);
    };
    let path = path(&base);
    let Some(text) = small(&path, MAX_LIST)? else { return Ok(None) };
    let signature = small(&signature_path(&base), MAX_SIGNATURE)?;
    trust.check_list(&path, text.as_bytes(), signature.as_deref(), comment)?;
    let fail = |why: String| Error::VolumeList { path: path.clone(), why };
    let digests = parse(&base, &text).map_err(fail)?;
    if digests.len() as u64 != count {
        return Err(fail(format!("it lists {} volumes, and the bundle has {count}", digests.len())));
    }
    Ok(Some(digests))
}

fn small(path: &Path, limit: u64) -> Result<Option<String>, Error> {
    let failed = |e| Error::io("read", path, e);
    let file = match File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    let fail = |why: &str| Error::VolumeList { path: path.to_owned(), why: why.to_owned() };
    if bytes.len() as u64 > limit {
        return Err(fail("it is larger than any such file"));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| fail("it is not text"))
}

/// What the list says of volumes whose front cannot be read, so that it is not known either what they must be: which of them are not
/// as listed. `None` when there is no list, when nobody trusted signed it, or when all are as listed.
#[must_use]
pub fn judge(location: &Location, trust: &Trust) -> Option<Error> {
    let slices = location.open().ok()?;
    let listed = read(&location.base, &slices, trust, None, slices.parts().len() as u64).ok().flatten()?;
    let wrong = compare(&slices, &listed, &|_| {}).ok()?;
    (!wrong.is_empty()).then_some(Error::VolumesDiffer { wrong })
}

/// Compares every volume that is there with the list; what is wrong with each, one line a volume.
pub(crate) fn compare(
    slices: &Slices,
    listed: &[Digest],
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Vec<(PathBuf, String)>, Error> {
    let mut buffer = vec![0; CHUNK];
    let mut wrong = Vec::new();
    for (part, expected) in slices.parts().iter().zip(listed).filter(|(part, _)| part.is_there()) {
        let found = hash_part(part, &mut buffer, progress)?;
        if found == *expected {
            continue;
        }
        let other = listed.iter().position(|digest| *digest == found);
        let why = match other {
            Some(other) => {
                format!("it holds what volume {:03} must hold: they were swapped, or one was copied twice", other + 1)
            }
            None => "its content is damaged".to_owned(),
        };
        wrong.push((part.path.clone(), why));
    }
    Ok(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_reads_back_and_no_other_does() {
        let base = Path::new("/media/usb/shop.tar");
        let digests = [Digest::of(b"a"), Digest::of(b"b")];
        let text = text(base, &digests);
        assert_eq!(parse(base, &text).as_deref(), Ok(digests.as_slice()));
        assert!(text.ends_with("  shop.tar.002\n"));
        for bad in
            [text.replace("001", "003"), text.replace("shop", "other"), text.replace(".001", ".1"), "x".to_owned()]
        {
            assert!(parse(base, &bad).is_err(), "{bad}");
        }
    }
}
