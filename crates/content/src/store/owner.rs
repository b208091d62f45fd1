//! Whose files a store's are. What root makes in a folder of the service's user is given to that user: an install or a garbage collection
//! by root must not end the pushes that the service takes.
//!
//! Only what was made here a moment ago is given away, and by its open file: the user has the folder, and may have put something else under
//! the name meanwhile.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::Path;

use rustix::fs::OFlags;

/// Gives a file that was just made at `path` to the owner and group of its folder, where we are root.
///
/// One that cannot be given away (a network file system that knows no root) stays root's: that is said in the log, and is no error.
pub(super) fn hand_over(file: &File, path: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let parent = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    let Ok(folder) = parent.metadata() else { return };
    if folder.uid() == 0 {
        return;
    }
    if let Err(error) = fchown(file, Some(folder.uid()), Some(folder.gid())) {
        tracing::warn!(path = %path.display(), user = folder.uid(), %error, "cannot be given to the owner of its folder");
    }
}

/// The same with a folder.
pub(super) fn hand_over_folder(path: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(folder) => hand_over(&folder, path),
        Err(error) => tracing::warn!(path = %path.display(), %error, "cannot be given to the owner of its folder"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::chown;
    use std::time::Duration;

    use ferry_image::media_type::{OCI_CONFIG, OCI_MANIFEST};

    use super::super::tests::image;
    use super::super::{Collection, Store};
    use super::*;

    const SOMEBODY: (u32, u32) = (65_533, 65_532);

    fn all_below(folder: &Path, found: &mut Vec<(String, (u32, u32))>) {
        for entry in fs::read_dir(folder).expect("list") {
            let entry = entry.expect("entry");
            let metadata = entry.metadata().expect("metadata");
            found.push((entry.path().display().to_string(), (metadata.uid(), metadata.gid())));
            if metadata.is_dir() {
                all_below(&entry.path(), found);
            }
        }
    }

    #[test]
    fn what_root_makes_belongs_to_who_has_the_folder() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root may give files away");
            return;
        }
        let folder = tempfile::tempdir().expect("folder");
        chown(folder.path(), Some(SOMEBODY.0), Some(SOMEBODY.1)).expect("a folder of somebody's");
        let store = Store::open(folder.path()).expect("store");
        let manifest = image(&store, "one");
        store.put_manifest("team/app", Some("1"), OCI_MANIFEST, &manifest).expect("put");
        let upload = store.start_upload("team/app").expect("upload");
        store.put_blob(OCI_CONFIG, b"needed by none").expect("blob");
        let how = Collection { grace: Duration::ZERO, uploads: Duration::MAX, untagged: true, dry_run: false };
        assert_eq!(store.collect(&how).expect("collect").removed.len(), 1);
        let mut found = Vec::new();
        all_below(folder.path(), &mut found);
        let others: Vec<_> = found.iter().filter(|(_, owner)| *owner != SOMEBODY).collect();
        assert!(others.is_empty() && found.len() > 15, "{others:?} of {found:?}");
        drop(upload);
    }
}
