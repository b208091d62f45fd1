//! What is asked of a disk before anything is written to it.

use std::io;
use std::path::{Path, PathBuf};

use crate::Error;

/// What to try where there is no room.
pub const MAKE_ROOM: &str = "make room there (or choose another disk), then run the same command again";

/// Bytes that an ordinary user may still write where `path` stands, or shall stand.
///
/// # Errors
/// Whatever the disk reports.
pub fn free_space(path: &Path) -> io::Result<u64> {
    let named = |path: &Path| if path.as_os_str().is_empty() { PathBuf::from(".") } else { path.to_owned() };
    let there = path.ancestors().map(named).find(|path| path.exists()).unwrap_or_else(|| path.to_owned());
    let stat = rustix::fs::statvfs(&there)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Refuses to begin what cannot end: `needed` more bytes where `path` stands, or shall stand.
///
/// # Errors
/// [`Error::NoRoom`]; whatever the disk reports.
pub fn check_room(path: &Path, needed: u64) -> Result<(), Error> {
    let available = free_space(path).map_err(|e| Error::io("measure", path, e))?;
    if needed > available {
        return Err(Error::NoRoom { path: path.to_owned(), needed, available });
    }
    Ok(())
}

/// How it is said that there is no room.
#[must_use]
pub fn no_room(path: &Path, needed: u64, available: u64) -> String {
    format!("no room for `{}`: {needed} bytes are needed there and {available} are free", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Failure as _;

    #[test]
    fn a_folder_that_is_not_there_yet_has_the_room_of_the_one_above() {
        let folder = tempfile::tempdir().expect("folder");
        let below = folder.path().join("not/there");
        assert!(check_room(&below, 1).is_ok());
        let error = check_room(&below, u64::MAX).expect_err("no disk has that");
        assert!(error.to_string().contains("not/there") && error.hint().is_some_and(|hint| hint == MAKE_ROOM));
        assert!(check_room(Path::new("not-there"), 1).is_ok());
    }
}
