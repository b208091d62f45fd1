//! Files that appear whole or not at all: temporary name, fsync, rename, fsync of the folder.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ferry_image::Digest;

use super::layout::Layout;
use super::owner;
use crate::Error;

/// A file without its final name; dropped, it is gone.
#[derive(Debug)]
pub(super) struct Temp {
    path: PathBuf,
    file: Arc<File>,
    placed: bool,
}

impl Temp {
    pub(super) fn create(folder: &Path, prefix: &str) -> Result<Self, Error> {
        loop {
            let path = folder.join(format!("{prefix}{}", random_id()?));
            let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
            let file = file.map_err(|e| Error::io("create", &path, e))?;
            owner::hand_over(&file, &path);
            // The lock tells a sweep by another process that this file is in use. One that came before it took the file away.
            let _ = file.lock();
            if path.exists() {
                return Ok(Self { path, file: Arc::new(file), placed: false });
            }
        }
    }

    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes it whole.
    pub(super) fn fill(&self, bytes: &[u8]) -> Result<(), Error> {
        (&*self.file).write_all(bytes).map_err(|e| Error::io("write", &self.path, e))
    }

    /// Gives the file the name of a blob, durably.
    pub(super) fn place_blob(mut self, layout: &Layout, digest: &Digest) -> Result<(), Error> {
        layout.place_blob(&self.file, &self.path, digest)?;
        self.placed = true;
        Ok(())
    }

    /// Gives the file its final name, durably.
    pub(super) fn place(mut self, target: &Path) -> Result<(), Error> {
        place(&self.file, &self.path, target)?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if !self.placed {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Syncs `file`, renames it from `path` to `target`, syncs the folder.
pub(super) fn place(file: &File, path: &Path, target: &Path) -> Result<(), Error> {
    file.sync_all().map_err(|e| Error::io("write", path, e))?;
    fs::rename(path, target).map_err(|e| Error::io("rename a file to", target, e))?;
    sync_parent(target)
}

/// Writes a small file whole, replacing what stood there.
pub(super) fn write(uploads: &Path, target: &Path, bytes: &[u8]) -> Result<(), Error> {
    let temp = Temp::create(uploads, "file-")?;
    temp.fill(bytes)?;
    temp.place(target)
}

/// Makes `folder` and what is missing above it, durably.
pub(super) fn create_folders(folder: &Path) -> Result<(), Error> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent()
        && parent != Path::new("")
    {
        create_folders(parent)?;
    }
    match fs::create_dir(folder) {
        Ok(()) => {
            owner::hand_over_folder(folder);
            sync_parent(folder)
        }
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(e) => Err(Error::io("create folder", folder, e)),
    }
}

/// Opens a file to lock it, and makes it where it is not there.
pub(super) fn open_lock(path: &Path) -> Result<File, Error> {
    let new = OpenOptions::new().write(true).create_new(true).open(path);
    if let Ok(file) = &new {
        owner::hand_over(file, path);
    }
    let opened = match new {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            OpenOptions::new().create(true).truncate(false).write(true).open(path)
        }
        new => new,
    };
    opened.map_err(|e| Error::io("write", path, e))
}

/// Removes a file, durably; it may be gone already.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io("remove", path, e)),
    }
}

/// Whether a file is here and was written or touched a moment ago: for who only asks about it, it need not be touched again. No sensible
/// grace of a garbage collection is shorter.
pub(super) fn is_young(path: &Path) -> bool {
    const YOUNG: Duration = Duration::from_secs(30);
    let modified = path.metadata().and_then(|found| found.modified());
    modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < YOUNG))
}

/// Gives a file the time of now. Not when it is gone, or is another user's: then it must be written anew.
pub(super) fn touch(path: &Path) -> Result<bool, Error> {
    use std::io::ErrorKind;
    let touched = File::open(path).and_then(|file| file.set_modified(std::time::SystemTime::now()));
    match touched {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => Ok(false),
        Err(e) => Err(Error::io("write", path, e)),
    }
}

pub(super) fn sync_parent(path: &Path) -> Result<(), Error> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    File::open(parent).and_then(|folder| folder.sync_all()).map_err(|e| Error::io("write folder", parent, e))
}

/// Reads a small file whole; `None` when it is absent.
pub(super) fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("read", path, e)),
    };
    read_open(&file, path, limit).map(Some)
}

/// Reads a small open file whole.
pub(super) fn read_open(file: &File, path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| Error::io("read", path, e))?;
    if bytes.len() as u64 > limit {
        let why = std::io::Error::new(std::io::ErrorKind::InvalidData, format!("more than {limit} bytes"));
        return Err(Error::io("read", path, why));
    }
    Ok(bytes)
}

/// 32 hex characters that nobody can guess: an upload's name is all that protects it from other clients.
pub(super) fn random_id() -> Result<String, Error> {
    const SOURCE: &str = "/dev/urandom";
    let mut bytes = [0u8; 16];
    File::open(SOURCE).and_then(|mut f| f.read_exact(&mut bytes)).map_err(|e| Error::io("read", SOURCE, e))?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}
