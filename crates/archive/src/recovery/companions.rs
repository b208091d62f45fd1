//! What crosses with a bundle and is needed to believe it: its signatures in files, and the signed list of its volumes. A mended copy gets
//! them before it is verified.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::writable::partial;
use crate::disk::{open_locked, sync_folder, with_ending};
use crate::signers::{self, Form};
use crate::{Error, Location, list};

/// Copies them to stand beside `base`. The list is only right for volumes that have the names which it lists: where it was left, by a copy
/// of another name.
pub(super) fn copy(from: &Location, base: &Path) -> Result<Option<PathBuf>, Error> {
    // Nothing of the bundle is there: its recovery files made all of it.
    let Ok(slices) = from.open() else { return Ok(None) };
    for file in signers::beside(&from.base, &slices)? {
        let ending = match file.form {
            Form::Minisign => "minisig",
            Form::Cosign => "sig",
        };
        // One that cannot be read does not count there, either.
        if let Ok(content) = file.content {
            write(&with_ending(base, &format!(".{}.{ending}", file.label)), &content)?;
        }
    }
    let name = from.base.file_name().unwrap_or_default();
    let beside = from.volumes.values().map(|path| path.with_file_name(name));
    let Some(listed) = [from.base.clone()].into_iter().chain(beside).find(|base| list::path(base).exists()) else {
        return Ok(None);
    };
    if !from.is_split() || base.file_name() != Some(name) {
        return Ok(from.is_split().then(|| list::path(&listed)));
    }
    for of in [list::path, list::signature_path] {
        if of(&listed).exists() {
            write(&of(base), &read(&of(&listed))?)?;
        }
    }
    Ok(None)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(list::MAX_LIST + 1).read_to_end(&mut content));
    read.map(|_| content).map_err(|e| Error::io("read", path, e))
}

fn write(path: &Path, content: &[u8]) -> Result<(), Error> {
    let partial = partial(path);
    let mut file = open_locked(&partial)?;
    let written = file.set_len(0).and_then(|()| file.write_all(content)).and_then(|()| file.sync_all());
    written.map_err(|e| Error::io("write", &partial, e))?;
    std::fs::rename(&partial, path).map_err(|e| Error::io("rename", &partial, e))?;
    sync_folder(path)
}
