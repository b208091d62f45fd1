//! Named files, in a folder or in a tar, looked up by name.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::extent::Extent;
use super::fault;
use super::tarball::Members;
use crate::Error;

/// Where the files of a source stand.
#[derive(Debug)]
pub(super) enum Files {
    /// A folder; `root` is its path without links.
    Folder { path: PathBuf, root: PathBuf },
    /// A tar, plain or unpacked in the spool; `path` is what the user named.
    Tar { path: PathBuf, file: Arc<File>, members: Members },
}

impl Files {
    /// What the user named.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Folder { path, .. } | Self::Tar { path, .. } => path,
        }
    }

    /// The bytes of the file `name`, a relative path; `None` when it is not there.
    pub(super) fn find(&self, name: &str) -> Result<Option<Extent>, Error> {
        match self {
            Self::Tar { path, file, members } => Ok(members
                .find(name.strip_prefix("./").unwrap_or(name))
                .map(|(start, length)| Extent::of(Arc::clone(file), path, start, length))),
            Self::Folder { path, root } => find_in_folder(path, root, name),
        }
    }

    /// The same, for a file that must be there.
    pub(super) fn require(&self, name: &str, role: &str) -> Result<Extent, Error> {
        if let Some(extent) = self.find(name)? {
            return Ok(extent);
        }
        let why = match self {
            Self::Tar { members, .. } if members.target(name).is_some() => {
                let target = members.target(name).unwrap_or_default();
                format!("{role} `{name}` is a link to `{target}`, which is not in it")
            }
            _ => format!("{role} `{name}` is not in it"),
        };
        Err(fault::damaged(self.path(), why))
    }
}

fn find_in_folder(path: &Path, root: &Path, name: &str) -> Result<Option<Extent>, Error> {
    let file = match root.join(name).canonicalize() {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(e) => return Err(Error::io("read", path.join(name), e)),
    };
    if !file.starts_with(root) {
        return Err(fault::damaged(path, format!("`{name}` is a link that leads out of the folder")));
    }
    let metadata = file.metadata().map_err(|e| Error::io("read", &file, e))?;
    if !metadata.is_file() {
        return Err(fault::damaged(path, format!("`{name}` is not a regular file")));
    }
    Ok(Some(Extent::whole(file, metadata.len())))
}
