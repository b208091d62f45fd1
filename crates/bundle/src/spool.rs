//! The folder that raw layers of archives are compressed in: whose it is, and when it goes away. Its content is `ferry-content`'s.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use ferry_content::scratch::Folder;

use crate::Error;

/// A folder beside the output, made when the first layer is compressed.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    /// Held as long as this build works in it.
    lock: Option<File>,
    keep: bool,
    /// Of a dry run.
    own: Option<Folder>,
}

impl Spool {
    /// `NAME.spool`: what an interrupted build left there saves the next one the work. `used` says whether any will be
    /// needed: then the folder is claimed at once, so that two builds of one output do not take it from each other.
    ///
    /// # Errors
    /// [`ferry_archive::Error::Busy`] when another build works in it; when it cannot be made.
    pub fn beside(output: &Path, used: bool) -> Result<Self, Error> {
        let folder = named(output, ".spool");
        let lock = if used { Some(claim(&folder)?) } else { None };
        Ok(Self { folder, lock, keep: true, own: None })
    }

    /// One of its own for a dry run, which disturbs nobody and leaves nothing: beside the output, or where temporary files go if nothing can
    /// be made there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn for_dry_run(output: &Path, used: bool) -> Result<Self, Error> {
        let prefix = format!("{}.dry-run-", output.file_name().unwrap_or_default().to_string_lossy());
        let beside = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let make = || Folder::new(beside, &prefix).or_else(|_| Folder::new(&std::env::temp_dir(), &prefix));
        let own = used.then(make).transpose()?;
        let folder = own.as_ref().map_or_else(|| named(output, ".dry-run"), |own| own.path().to_owned());
        Ok(Self { folder, lock: None, keep: false, own })
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether anything waits there for the next run.
    #[must_use]
    pub fn holds_something(&self) -> bool {
        std::fs::read_dir(&self.folder).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// The bundle is sealed: it is needed no more.
    pub fn remove(mut self) {
        self.keep = false;
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // nothing is lost if it stays
        let _ = if self.own.is_some() {
            Ok(())
        } else if !self.keep {
            std::fs::remove_dir_all(&self.folder)
        } else if self.lock.is_some() {
            // succeeds only where it is empty
            std::fs::remove_dir(&self.folder)
        } else {
            Ok(())
        };
    }
}

fn named(output: &Path, ending: &str) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    output.with_file_name(name)
}

fn claim(folder: &Path) -> Result<File, Error> {
    let io = |action, e| Error::Content(ferry_content::Error::io(action, folder, e));
    std::fs::create_dir_all(folder).map_err(|e| io("create", e))?;
    let lock = File::open(folder).map_err(|e| io("read", e))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(Error::Archive(ferry_archive::Error::Busy { path: folder.to_owned() }));
        }
        // some network file systems have no locks; they are used at the user's own risk
        Err(TryLockError::Error(error)) => {
            tracing::warn!(path = %folder.display(), %error, "cannot lock the spool folder");
        }
    }
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_build_at_a_time_and_a_dry_run_beside_it() {
        let folder = tempfile::tempdir().expect("folder");
        let output = folder.path().join("b.tar");
        let spool = Spool::beside(&output, true).expect("spool");
        std::fs::write(spool.folder().join("layer"), "x").expect("write");
        let busy = Spool::beside(&output, true).map(|_| ()).expect_err("busy");
        assert!(matches!(busy, Error::Archive(ferry_archive::Error::Busy { .. })), "{busy}");

        let dry = Spool::for_dry_run(&output, true).expect("spool");
        assert_ne!(dry.folder(), spool.folder());
        std::fs::write(dry.folder().join("layer"), "x").expect("write");
        let left = dry.folder().to_owned();
        drop(dry);
        assert!(!left.exists());
        assert!(spool.holds_something());

        let kept = spool.folder().to_owned();
        drop(spool);
        assert!(kept.join("layer").exists(), "an interrupted build is taken up again");
        let spool = Spool::beside(&output, true).expect("free again");
        spool.remove();
        assert_eq!(std::fs::read_dir(folder.path()).expect("folder").count(), 0);
    }

    #[test]
    fn an_empty_one_does_not_stay() {
        let folder = tempfile::tempdir().expect("folder");
        drop(Spool::beside(&folder.path().join("b.tar"), true).expect("spool"));
        drop(Spool::beside(&folder.path().join("b.tar"), false).expect("spool"));
        assert_eq!(std::fs::read_dir(folder.path()).expect("folder").count(), 0);
        let nowhere = folder.path().join("not/there/b.tar");
        let dry = Spool::for_dry_run(&nowhere, true).expect("spool");
        assert!(dry.folder().is_dir());
        assert!(!Spool::for_dry_run(&nowhere, false).expect("spool").folder().exists());
    }
}
