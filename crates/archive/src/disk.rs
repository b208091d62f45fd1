//! What the file system must do for a bundle being written: locks, room, writes by position, entries that survive a power loss.

use std::fs::File;
use std::io::IoSlice;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::Errno;

use crate::Error;

pub(crate) fn refuse_other_than_file(path: &Path) -> Result<(), Error> {
    match ferry_content::disk::is_other_than_file(path) {
        Ok(true) => Err(Error::NotAFile { path: path.to_owned() }),
        Ok(false) => Ok(()),
        Err(e) => Err(Error::io("write", path, e)),
    }
}

/// The bytes that a file takes on the disk; none when it is not there.
pub(crate) fn allocated(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.blocks() * 512)
}

/// Opens the file and locks it against other builds.
pub(crate) fn open_locked(path: &Path) -> Result<File, Error> {
    loop {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|e| Error::io("create", path, e))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(Error::Busy { path: path.to_owned() }),
            // Some network file systems have no locks; they are used at the user's own risk.
            Err(e) => tracing::warn!(path = %path.display(), error = %e, "cannot lock the unfinished bundle"),
        }
        // Between opening and locking another build may have sealed this very file under its final name.
        let ours = file.metadata().map_err(|e| Error::io("read", path, e))?;
        match std::fs::metadata(path) {
            Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => return Ok(file),
            _ => {}
        }
    }
}

/// Bytes free for this user where `path` stands, or shall stand.
pub(crate) fn free(path: &Path) -> Result<u64, Error> {
    ferry_content::disk::free_space(path).map_err(|e| Error::io("read", path, e))
}

/// Refuses to begin what cannot end. `allocated` bytes are the unfinished file's own already.
pub(crate) fn check_room(path: &Path, size: u64, allocated: u64) -> Result<(), Error> {
    let (needed, available) = (size.saturating_sub(allocated), free(path)?);
    if needed > available {
        return Err(Error::DiskFull { path: path.to_owned(), needed, available });
    }
    Ok(())
}

/// Empties the file and reserves `size` bytes where the file system can. Of `whole` bytes in all, where it is full.
pub(crate) fn allocate(file: &File, path: &Path, size: u64) -> Result<(), Error> {
    file.set_len(0).map_err(|e| Error::io("write", path, e))?;
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
            file.set_len(size).map_err(|e| Error::io("write", path, e))
        }
        Err(Errno::NOSPC | Errno::DQUOT) => {
            file.set_len(0).map_err(|e| Error::io("write", path, e))?;
            Err(Error::DiskFull { path: path.to_owned(), needed: size, available: free(path)? })
        }
        Err(e) => Err(Error::io("write", path, e)),
    }
}

/// Writes all chunks one after the other at `at`, with as few calls as the system allows.
pub(crate) fn write_all_vectored(file: &File, chunks: &[Bytes], mut at: u64) -> rustix::io::Result<()> {
    /// Linux takes at most 1024 in one call (UIO_MAXIOV).
    const MOST: usize = 1024;
    for group in chunks.chunks(MOST) {
        let mut slices: Vec<IoSlice<'_>> = group.iter().filter(|c| !c.is_empty()).map(|c| IoSlice::new(c)).collect();
        let mut rest = slices.as_mut_slice();
        while !rest.is_empty() {
            match rustix::io::pwritev(file, rest, at) {
                Ok(0) => return Err(Errno::IO),
                Ok(written) => {
                    at += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(())
}

pub(crate) fn discard(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}

/// Makes a new or renamed entry survive a power loss.
pub(crate) fn sync_folder(path: &Path) -> Result<(), Error> {
    let folder = folder(path);
    let synced = File::open(folder).and_then(|f| f.sync_all());
    match synced {
        // Some file systems (FAT, some network ones) cannot sync a folder.
        Err(e) if e.kind() == std::io::ErrorKind::InvalidInput => Ok(()),
        other => other.map_err(|e| Error::io("sync", folder, e)),
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A path with more at the end of its name.
pub(crate) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
