//! What is asked of a disk before anything is written to it.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use crate::Error;

/// As many as Linux follows.
const MOST_LINKS: usize = 40;

/// What to try where there is no room.
pub const MAKE_ROOM: &str = "make room there (or choose another disk), then run the same command again";

/// Whether a name at the top of a disk is the file system's own: a folder that holds nothing else is empty to people, and a disk of its own for
/// images is what they use.
#[must_use]
pub fn is_of_file_system(name: &OsStr) -> bool {
    name == "lost+found"
}

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

/// Whether something else than a file has the name, links followed: what is renamed to it would take its place, be it `/dev/null`.
///
/// # Errors
/// Whatever the disk reports.
pub fn is_other_than_file(path: &Path) -> io::Result<bool> {
    match std::fs::metadata(path) {
        Ok(found) => Ok(!found.is_file()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// The file that a path names in the end, be it there or not: a link stays one, and what it leads to is written.
#[must_use]
pub fn behind_links(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let Ok(to) = std::fs::read_link(&path) else { break };
        // an absolute path takes the place of the folder
        path = path.parent().unwrap_or(Path::new("")).join(to);
    }
    path
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

    #[test]
    fn links_are_followed_to_what_may_not_be_there() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().expect("folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("sub")).expect("create");
        symlink("sub/two", at("one")).expect("link");
        symlink(at("real"), at("sub/two")).expect("link");
        symlink("round", at("round")).expect("link");
        assert_eq!(behind_links(&at("one")), at("real"));
        std::fs::write(at("real"), "").expect("write");
        assert_eq!(behind_links(&at("one")), at("real"));
        assert_eq!(behind_links(&at("real")), at("real"));
        assert!(behind_links(&at("round")).ends_with("round"));
        let other = |name: &str| is_other_than_file(&at(name)).expect("look");
        assert_eq!((other("one"), other("sub"), other("none")), (false, true, false));
        assert!(is_other_than_file(&at("round")).is_err());
    }
}
