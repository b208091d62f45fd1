//! Files and folders that live as long as one run, by names that the next run clears away if this one is killed.
//!
//! A lock tells who still lives. Where a file system has no locks, nothing of others is removed.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile, TempDir};

use crate::Error;

/// A folder of this run's own; it goes away with all that is in it.
#[derive(Debug)]
pub struct Folder {
    folder: TempDir,
    _lock: File,
}

impl Folder {
    /// Makes one in `parent`, and removes those that killed runs left there.
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn new(parent: &Path, prefix: &str) -> Result<Self, Error> {
        let failed = |e| Error::io("create a folder in", parent, e);
        sweep(parent, prefix, "");
        loop {
            let folder = Builder::new().prefix(prefix).tempdir_in(parent).map_err(failed)?;
            let Ok(lock) = File::open(folder.path()) else { continue };
            let _ = lock.lock();
            if folder.path().exists() {
                return Ok(Self { folder, _lock: lock });
            }
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Makes a file in `folder` that goes away when it is dropped, and removes those that killed runs left there.
///
/// # Errors
/// Whatever the disk reports.
pub fn file(folder: &Path, prefix: &str, suffix: &str) -> Result<NamedTempFile, Error> {
    sweep(folder, prefix, suffix);
    loop {
        let made = Builder::new().prefix(prefix).suffix(suffix).tempfile_in(folder);
        // the error names the file, which says nothing to anybody
        let made = made.map_err(|e| Error::io("write in", folder, e.kind().into()))?;
        let _ = made.as_file().lock();
        // between the two another run may have taken it for one that nobody holds
        if made.path().exists() {
            return Ok(made);
        }
    }
}

/// Removes what this user's killed runs left. Nothing depends on it.
fn sweep(folder: &Path, prefix: &str, suffix: &str) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        let path = entry.path();
        if name.starts_with(prefix.as_bytes()) && name.ends_with(suffix.as_bytes()) {
            let _ = sweep_one(&path);
        }
    }
}

fn sweep_one(path: &Path) -> io::Result<()> {
    let found = path.symlink_metadata()?;
    if !(found.is_file() || found.is_dir()) || found.uid() != rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let held = File::open(path)?;
    if held.try_lock().is_err() {
        return Ok(());
    }
    tracing::info!(path = %path.display(), "removed what a killed run left");
    if found.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
}

/// A file that shall have the name `target` when it is whole. Until then it has a name of its own, always the same: what a killed run left
/// there is replaced.
#[derive(Debug)]
pub struct Staged {
    file: File,
    path: PathBuf,
    target: PathBuf,
    placed: bool,
}

impl Staged {
    /// `.NAME.new` beside `target`, with these permissions less the umask. Waits while another run writes the same file.
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn beside(target: &Path, mode: u32) -> Result<Self, Error> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut name = std::ffi::OsString::from(".");
        name.push(target.file_name().unwrap_or_default());
        name.push(".new");
        let path = target.with_file_name(name);
        let failed = |e| Error::io("create", target, e);
        loop {
            let made = File::options().read(true).write(true).create_new(true).mode(mode).open(&path);
            let file = match made {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    clear(&path).map_err(failed)?;
                    continue;
                }
                Err(e) => return Err(failed(e)),
            };
            let _ = file.lock();
            if is_at(&file, &path) {
                return Ok(Self { file, path, target: target.to_owned(), placed: false });
            }
        }
    }

    /// The file, empty to begin with.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives it its name, in place of what has it. It is synced before.
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn place(mut self) -> Result<(), Error> {
        self.file.sync_all().map_err(|e| Error::io("write", &self.target, e))?;
        std::fs::rename(&self.path, &self.target).map_err(|e| Error::io("create", &self.target, e))?;
        self.placed = true;
        sync_folder(&self.target)
    }

    /// Gives it its name if nothing has it; whether that was so.
    pub(crate) fn place_new(mut self) -> Result<bool, Error> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        self.file.sync_all().map_err(|e| Error::io("write", &self.target, e))?;
        let renamed = renameat_with(CWD, &self.path, CWD, &self.target, RenameFlags::NOREPLACE);
        let named = match renamed {
            Ok(()) => {
                self.placed = true;
                Ok(())
            }
            // not every file system knows of that
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => std::fs::hard_link(&self.path, &self.target),
            Err(e) => Err(e.into()),
        };
        match named {
            Ok(()) => sync_folder(&self.target).map(|()| true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(e) => Err(Error::io("create", &self.target, e)),
        }
    }
}

/// Removes what killed runs left in `folder` of files on their way to a name that `is_ours`.
pub fn sweep_staged(folder: &Path, is_ours: impl Fn(&str) -> bool) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let target = name.to_str().and_then(|name| name.strip_prefix('.')?.strip_suffix(".new"));
        if target.is_some_and(&is_ours) {
            let _ = sweep_one(&entry.path());
        }
    }
}

/// Makes a new or renamed entry survive a power loss.
fn sync_folder(path: &Path) -> Result<(), Error> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // some file systems cannot; a folder that may be written and not read cannot be opened
        Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied) => Ok(()),
        synced => synced.map_err(|e| Error::io("sync", folder, e)),
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.placed {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Removes what a killed run left at `path`; waits for one that lives.
fn clear(path: &Path) -> io::Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    match path.symlink_metadata() {
        Ok(found) if !found.is_file() => return gone(std::fs::remove_file(path)),
        Ok(_) => {}
        Err(e) => return gone(Err(e)),
    }
    let file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return gone(std::fs::remove_file(path)),
        Err(e) => return gone(Err(e)),
        Ok(file) => file,
    };
    let _ = file.lock();
    if is_at(&file, path) { gone(std::fs::remove_file(path)) } else { Ok(()) }
}

fn is_at(file: &File, path: &Path) -> bool {
    let id = |found: &Metadata| (found.dev(), found.ino());
    matches!((file.metadata(), path.symlink_metadata()), (Ok(a), Ok(b)) if id(&a) == id(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).expect("folder");
        let mut names: Vec<String> = entries.map(|e| e.expect("entry").file_name().to_string_lossy().into()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_a_killed_run_left_is_removed_and_what_is_in_use_is_not() {
        let place = tempfile::tempdir().expect("folder");
        let held = file(place.path(), "spool-", ".tar").expect("file");
        let mine = Folder::new(place.path(), "work-").expect("folder");
        std::fs::write(place.path().join("spool-dead.tar"), "x").expect("write");
        std::fs::write(place.path().join("spool-other.txt"), "x").expect("write");
        std::fs::create_dir_all(place.path().join("work-dead/in/it")).expect("create");
        std::fs::write(place.path().join("work-dead/in/it/a"), "x").expect("write");
        let second = file(place.path(), "spool-", ".tar").expect("file");
        drop(Folder::new(place.path(), "work-").expect("folder"));
        let name = |path: &Path| path.file_name().expect("name").to_string_lossy().into_owned();
        let mut left = vec![name(held.path()), name(second.path()), name(mine.path()), "spool-other.txt".to_owned()];
        left.sort();
        assert_eq!(names(place.path()), left);
        drop((held, second, mine));
        assert_eq!(names(place.path()), ["spool-other.txt"]);
    }

    #[test]
    fn many_writers_of_one_file_leave_one_of_their_texts_and_nothing_else() {
        use std::io::Write as _;
        let place = tempfile::tempdir().expect("folder");
        let target = place.path().join("a.json");
        std::fs::write(place.path().join(".a.json.new"), "half of").expect("write");
        std::thread::scope(|scope| {
            for n in 0..8 {
                let target = &target;
                scope.spawn(move || {
                    for _ in 0..20 {
                        let staged = Staged::beside(target, 0o644).expect("stage");
                        staged.file().write_all(vec![b'0' + n; 1000].as_slice()).expect("write");
                        staged.place().expect("place");
                    }
                });
            }
        });
        let text = std::fs::read(&target).expect("text");
        assert!(text.len() == 1000 && text.iter().all(|byte| *byte == text[0]));
        assert_eq!(names(place.path()), ["a.json"]);
        let living = Staged::beside(&place.path().join("living"), 0o644).expect("stage");
        for name in [".dead.new", ".other.new", "dead.new", ".dead"] {
            std::fs::write(place.path().join(name), "x").expect("write");
        }
        sweep_staged(place.path(), |name| name == "dead" || name == "living");
        assert_eq!(names(place.path()), [".dead", ".living.new", ".other.new", "a.json", "dead.new"]);
        drop(living);
        for name in [".other.new", "dead.new", ".dead"] {
            std::fs::remove_file(place.path().join(name)).expect("remove");
        }
        let staged = Staged::beside(&target, 0o644).expect("stage");
        assert!(!staged.place_new().expect("place"), "what is there stays");
        let other = place.path().join("b.json");
        assert!(Staged::beside(&other, 0o644).expect("stage").place_new().expect("place"));
        assert_eq!(names(place.path()), ["a.json", "b.json"]);
    }
}
