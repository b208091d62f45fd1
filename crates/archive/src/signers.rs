//! Who signed a bundle: the signature inside, and further ones in files beside it (`docs/format.md`, "Signatures beside the bundle").

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use crate::keys::{KeyId, MAX_SIGNATURE};
use crate::{Bundle, Error, SecretKey, Slices, TrustedKey, sums, volumes};

/// How many signature files are looked at.
const MAX_FILES: usize = 256;
/// What stands between the bundle's name and `.minisig` for the signed list of its volumes, which is no signature of its sums.
const VOLUMES: &str = "sha256";

/// A trusted key whose signature holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// The key.
    pub key: TrustedKey,
    /// Whether its signature is inside the bundle.
    pub inside: bool,
    /// The files beside the bundle that are its signatures.
    pub files: Vec<PathBuf>,
}

/// A file beside the bundle that looks like a signature and does not count as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uncounted {
    /// The file.
    pub path: PathBuf,
    /// Why, in words that follow its name.
    pub why: String,
    /// Whether it is a signature at all, if only by a key that is not trusted.
    pub is_signature: bool,
}

/// What the signatures of a bundle say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signed {
    /// The distinct trusted keys that signed, the one inside first; none only under [`Trust::allow_unsigned`](crate::Trust::allow_unsigned).
    pub signers: Vec<Signer>,
    /// What does not count.
    pub uncounted: Vec<Uncounted>,
    /// The key that the signature inside names, trusted or not.
    pub claimed: Option<KeyId>,
}

/// A file that may be a signature of the bundle that it stands beside.
#[derive(Debug, Clone)]
pub struct Beside {
    /// Where it is.
    pub path: PathBuf,
    /// What its name has between that of the bundle and its end.
    pub label: String,
    /// What its end says that it is.
    pub form: Form,
    /// What it holds, or why that cannot be read.
    pub content: Result<Vec<u8>, String>,
}

/// Whose form a signature has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `.minisig`.
    Minisign,
    /// `.sig`.
    Cosign,
}

impl Signed {
    pub(crate) fn add(&mut self, key: &TrustedKey, file: Option<&Path>) {
        let at = self.signers.iter().position(|signer| signer.key.key.is_same(&key.key));
        let at = at.unwrap_or_else(|| {
            self.signers.push(Signer { key: key.clone(), inside: false, files: Vec::new() });
            self.signers.len() - 1
        });
        match file {
            Some(file) => self.signers[at].files.push(file.to_owned()),
            None => self.signers[at].inside = true,
        }
    }

    pub(crate) fn ignore(&mut self, file: &Path, why: String, is_signature: bool) {
        self.uncounted.push(Uncounted { path: file.to_owned(), why, is_signature });
    }
}

/// The signature files beside the bundle `path`: in its folder, and in those of its volumes.
///
/// # Errors
/// [`Error::Io`] when a folder cannot be read; [`Error::Signature`] when there are too many.
pub fn beside(path: &Path, slices: &Slices) -> Result<Vec<Beside>, Error> {
    beside_any(path, slices.parts().iter().map(|part| part.path.as_path()))
}

/// The signature files beside the bundle `path`, and beside those of its volumes that are known.
pub(crate) fn beside_any<'a>(path: &Path, volumes: impl Iterator<Item = &'a Path>) -> Result<Vec<Beside>, Error> {
    let folders: BTreeSet<PathBuf> = volumes.map(folder_of).chain([folder_of(path)]).collect();
    let name = path.file_name().unwrap_or_default();
    let mut found = Vec::new();
    for folder in &folders {
        let names = match names_in(folder) {
            Ok(names) => names,
            // The bundle can be opened all the same, and what is not seen does not count.
            Err(e) if matches!(e.kind(), ErrorKind::PermissionDenied | ErrorKind::NotFound) => continue,
            Err(e) => return Err(Error::io("read", folder, e)),
        };
        let signatures = names.iter().filter_map(|file| Some((file, parse_name(name, file, &names)?)));
        for (file, (label, form)) in signatures {
            let path = folder.join(file);
            if found.len() == MAX_FILES {
                return Err(Error::Signature { path, why: format!("there are more than {MAX_FILES} signature files") });
            }
            let content = read(&path);
            found.push(Beside { path, label, form, content });
        }
    }
    Ok(found)
}

/// The folder of a path as it was written; empty for the current one.
fn folder_of(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).to_owned()
}

fn names_in(folder: &Path) -> std::io::Result<BTreeSet<OsString>> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect()
}

/// The label and the form of `file`, if that is the name of a signature of the bundle `name` and of no other in the same folder.
fn parse_name(name: &OsStr, file: &OsStr, all: &BTreeSet<OsString>) -> Option<(String, Form)> {
    let (name, file) = (name.to_str()?, file.to_str()?);
    let rest = file.strip_prefix(name)?.strip_prefix('.')?;
    let (label, form) = match (rest.strip_suffix(".minisig"), rest.strip_suffix(".sig")) {
        (Some(label), _) => (label, Form::Minisign),
        (_, Some(label)) => (label, Form::Cosign),
        _ => return None,
    };
    if label.is_empty() || label == VOLUMES {
        return None;
    }
    // `shop.tar.X.minisig` belongs to `shop.tar`, and not to `shop`, where both are there.
    let is_there =
        |other: &str| all.contains(OsStr::new(other)) || all.contains(volumes::name(Path::new(other), 1).as_os_str());
    let others = label.match_indices('.').any(|(dot, _)| is_there(&format!("{name}.{}", &label[..dot])));
    (!others).then(|| (label.to_owned(), form))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |e: std::io::Error| format!("it cannot be read: {e}");
    // Opening a pipe would wait for somebody to write into it.
    if !fs::metadata(path).map_err(cannot)?.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let mut content = Vec::new();
    File::open(path).map_err(cannot)?.take(MAX_SIGNATURE + 1).read_to_end(&mut content).map_err(cannot)?;
    if content.len() as u64 > MAX_SIGNATURE {
        return Err(format!("it has more than {MAX_SIGNATURE} bytes, and no signature has"));
    }
    Ok(content)
}

impl Bundle {
    /// What its signatures say.
    #[must_use]
    pub fn signed(&self) -> &Signed {
        &self.front.signed
    }

    /// A further signature of it by `key`, for a file beside it: the same text that would stand inside. That every byte is as the sums say is
    /// for the caller to find out before, with [`Bundle::verify`].
    #[must_use]
    pub fn sign(&self, key: &SecretKey) -> String {
        let mut text = String::new();
        for member in &self.front.members {
            sums::push(&mut text, &member.name, &member.digest);
        }
        let head = self.head();
        key.sign(&text, &head.name, head.version.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_told_by_their_names() {
        let all: BTreeSet<OsString> = ["shop.tar", "shop", "big.tar.001", "big"].map(OsString::from).into();
        let table = [
            ("shop.tar", "shop.tar.AB.minisig", Some(("AB", Form::Minisign))),
            ("shop.tar", "shop.tar.alice.b.sig", Some(("alice.b", Form::Cosign))),
            ("shop.tar", "shop.tar.sha256.minisig", None),
            ("shop.tar", "shop.tar.sha256.sig", None),
            ("shop.tar", "shop.tar.minisig", None),
            ("shop.tar", "shop.tar..minisig", None),
            ("shop.tar", "shop.tar.AB.minisig.old", None),
            ("shop.tar", "shop.tarAB.minisig", None),
            ("shop.tar", "other.tar.AB.minisig", None),
            ("shop", "shop.tar.AB.minisig", None),
            ("shop", "shop.AB.minisig", Some(("AB", Form::Minisign))),
            ("big", "big.tar.AB.minisig", None),
            ("big.tar", "big.tar.AB.minisig", Some(("AB", Form::Minisign))),
        ];
        for (name, file, expected) in table {
            let found = parse_name(OsStr::new(name), OsStr::new(file), &all);
            let expected = expected.map(|(label, form)| (label.to_owned(), form));
            assert_eq!(found, expected, "{file} beside {name}");
        }
    }
}
