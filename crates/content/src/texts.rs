//! YAML and other texts of the user's: files, and folders of them.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::scratch::Staged;
use crate::{Error, disk};

/// The largest text, in bytes.
pub const MAX_TEXT: u64 = 16 << 20;
/// The most files below one folder.
pub const MAX_FILES: usize = 10_000;

/// Whether a file in a folder counts as YAML: `.yaml`, `.yml` or `.json`.
#[must_use]
pub fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|e| ["yaml", "yml", "json"].iter().any(|known| e.eq_ignore_ascii_case(known)))
}

/// The file `entry` itself, or the files below the folder `entry` that are `wanted`, in order of name. Each comes with its path
/// below `entry`, segments joined by `/`; empty for the file itself. Links are followed.
///
/// # Errors
/// When something cannot be read, nothing is there, or there are more than [`MAX_FILES`].
pub fn walk(entry: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Vec<(String, PathBuf)>, Error> {
    let (found, unread) = walk_in(entry, |_| true, wanted)?;
    if let Some(error) = unread.into_iter().next() {
        return Err(error);
    }
    if found.is_empty() {
        return Err(unusable(entry, "there is no such file in it".to_owned()));
    }
    Ok(found)
}

/// Files with their paths below a folder.
type Files = Vec<(String, PathBuf)>;

/// [`walk`], only in folders that one may `enter`; nothing found is no error. Also what cannot be read: links that lead nowhere or in
/// a circle, closed folders.
///
/// # Errors
/// When there are more than [`MAX_FILES`].
pub fn walk_in(
    entry: &Path,
    enter: impl Fn(&Path) -> bool,
    wanted: impl Fn(&Path) -> bool,
) -> Result<(Files, Vec<Error>), Error> {
    let (mut found, mut unread) = (Vec::new(), Vec::new());
    let steps = WalkDir::new(entry).sort_by_file_name().follow_links(true).into_iter();
    for step in steps.filter_entry(|e| e.depth() == 0 || !e.file_type().is_dir() || enter(e.path())) {
        let file = match step {
            Ok(file) => file,
            Err(error) => {
                let path = error.path().unwrap_or(entry).to_owned();
                let circle = || std::io::Error::other("the links lead in a circle");
                unread.push(Error::io("read", path, error.into_io_error().unwrap_or_else(circle)));
                continue;
            }
        };
        if !file.file_type().is_file() || (file.depth() > 0 && !wanted(file.path())) {
            continue;
        }
        let below = file.path().strip_prefix(entry).unwrap_or(Path::new(""));
        let parts: Vec<_> = below.components().map(|c| c.as_os_str().to_string_lossy()).collect();
        found.push((parts.join("/"), file.path().to_owned()));
        if found.len() + unread.len() > MAX_FILES {
            return Err(unusable(entry, format!("it holds more than {MAX_FILES} files")));
        }
    }
    Ok((found, unread))
}

/// Reads a text whole.
///
/// # Errors
/// When it cannot be read, is larger than [`MAX_TEXT`], or is not UTF-8.
pub fn read(path: &Path) -> Result<String, Error> {
    let io = |e| Error::io("read", path, e);
    let file = File::open(path).map_err(io)?;
    let mut bytes = Vec::new();
    file.take(MAX_TEXT + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MAX_TEXT {
        return Err(unusable(path, format!("it is larger than {MAX_TEXT} bytes")));
    }
    String::from_utf8(bytes).map_err(|e| unusable(path, format!("it is not UTF-8: {e}")))
}

/// Writes `bytes` to `path` by way of a temporary file beside it: the name has the whole content or the old one. Folders are made.
///
/// # Errors
/// Whatever the disk reports.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt as _;
    put(path, bytes, std::fs::Permissions::from_mode(0o644), false)
}

/// [`write`](fn@write), with these permissions from the first byte on.
///
/// # Errors
/// Whatever the disk reports.
pub fn write_as(path: &Path, bytes: &[u8], permissions: std::fs::Permissions) -> Result<(), Error> {
    put(path, bytes, permissions, true)
}

/// `exact`: whatever the umask would take away.
fn put(path: &Path, bytes: &[u8], permissions: std::fs::Permissions, exact: bool) -> Result<(), Error> {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
    if disk::is_other_than_file(path).is_ok_and(|is_other| is_other) && !path.is_dir() {
        let why = std::io::Error::other("it is there and is not a regular file: name a file");
        return Err(Error::io("replace", path, why));
    }
    let staged = Staged::beside(path, permissions.mode())?;
    let mut file = staged.file();
    file.write_all(bytes).map_err(|e| Error::io("write", path, e))?;
    if exact {
        file.set_permissions(permissions).map_err(|e| Error::io("write", path, e))?;
    }
    staged.place()
}

/// Writes a new file whole or not at all; whether it was not there. What is there stays as it is. Its folder must be there.
///
/// # Errors
/// Whatever the disk reports.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<bool, Error> {
    write_new_as(path, bytes, 0o644)
}

/// [`write_new`], with these permissions, less the umask, from the first byte on.
///
/// # Errors
/// Whatever the disk reports.
pub fn write_new_as(path: &Path, bytes: &[u8], mode: u32) -> Result<bool, Error> {
    use std::io::Write as _;
    let staged = Staged::beside(path, mode)?;
    staged.file().write_all(bytes).map_err(|e| Error::io("write", path, e))?;
    staged.place_new()
}

/// Whether a file could be written in `folder`, which may not be there yet. Nothing stays behind.
///
/// # Errors
/// Whatever the disk reports; what stands in the way.
pub fn can_write_in(folder: &Path) -> Result<(), Error> {
    let fail = |path: &Path, e| Error::io("write in", path, e);
    let named = |path: &'_ Path| if path.as_os_str().is_empty() { PathBuf::from(".") } else { path.to_owned() };
    for there in folder.ancestors().map(named) {
        match there.metadata() {
            Ok(found) if found.is_dir() => {
                return tempfile::tempfile_in(&there).map(drop).map_err(|e| fail(&there, e));
            }
            Ok(_) => return Err(fail(&there, std::io::ErrorKind::NotADirectory.into())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            // its parent may be the file in the way
            Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => {}
            Err(e) => return Err(fail(&there, e)),
        }
    }
    Ok(())
}

fn unusable(path: &Path, why: String) -> Error {
    Error::Text { path: path.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_cannot_be_written_in_is_told_beforehand() {
        let folder = tempfile::tempdir().expect("folder");
        assert!(can_write_in(&folder.path().join("new/below")).is_ok());
        assert_eq!(std::fs::read_dir(folder.path()).expect("list").count(), 0);
        let file = folder.path().join("file");
        write(&file, b"x").expect("write");
        for path in [file.clone(), file.join("below"), file.join("below/that")] {
            let error = can_write_in(&path).expect_err("a file is in the way").to_string();
            assert!(error.contains("file`"), "{error}");
        }
    }
}
