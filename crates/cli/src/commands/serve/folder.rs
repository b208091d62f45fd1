//! The folder of a store: whether it is one, and whether it was there before. A path that was mistyped, and a disk that is not mounted, look
//! like an empty store otherwise, and an empty registry looks well.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use ferry_archive::volumes;
use ferry_content::store::Store;

use crate::failure::{End, Error};

/// What the folder was before it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Before {
    Store,
    Empty,
    /// The root of a file system, and nothing in it.
    Disk,
    /// Nothing; the first folder above it that was not there either, if any.
    Absent(Option<PathBuf>),
}

/// Opens the store, and makes it where there is none; then what shall be said of that.
pub(super) fn open(folder: &Path) -> Result<(Store, Option<String>), End> {
    if folder.is_file() {
        let why = format!("`{}` is a file, and a store is a folder", folder.display());
        let hint = format!("a bundle is served without `--store`: `ferry serve {}`", folder.display());
        return Err(Error::usage(why, hint).into());
    }
    let before = look(folder);
    let store = Store::open(folder)?;
    Ok((store, told(&before, folder)))
}

fn look(folder: &Path) -> Before {
    if folder.join("oci-layout").exists() {
        return Before::Store;
    }
    if let Ok(found) = folder.metadata() {
        let above = folder.canonicalize().ok().and_then(|path| path.parent()?.metadata().ok());
        return if above.is_some_and(|above| above.dev() != found.dev()) { Before::Disk } else { Before::Empty };
    }
    let above = folder.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty());
    Before::Absent(above.take_while(|path| !path.exists()).last().map(Path::to_owned))
}

fn told(before: &Before, folder: &Path) -> Option<String> {
    let folder = folder.display();
    let made = format!("a new, empty store was made in `{folder}`");
    match before {
        Before::Store => None,
        Before::Empty => {
            Some(format!("{made}, where an empty folder was: if a disk with a store belongs there, it is not mounted"))
        }
        Before::Disk => Some(format!("{made}, on the empty disk that is mounted there")),
        Before::Absent(None) => Some(format!("{made}: there was no such folder")),
        Before::Absent(Some(above)) => Some(format!(
            "{made}, and `{}` was not there before either: if a store was expected, the path is mistyped, or its disk is not mounted",
            above.display()
        )),
    }
}

/// Refuses a folder where a bundle is meant, with what was meant most likely: it is a store, or has a bundle in it.
pub(super) fn refuse(path: &Path) -> Result<(), End> {
    let name = path.display();
    if path.join("oci-layout").is_file() && path.join("ferry").is_dir() {
        let why = format!("`{name}` is a store, and not a bundle");
        return Err(Error::usage(why, format!("serve it with `ferry serve --store {name}`")).into());
    }
    // what cannot be read is told when it is opened
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let bundle = |path: PathBuf| match volumes::parse(&path) {
        Some((base, _)) => Some(base),
        None => path.extension().is_some_and(|end| end == "tar").then_some(path),
    };
    let found: BTreeSet<PathBuf> = entries.filter(|entry| entry.is_file()).filter_map(bundle).collect();
    if found.is_empty() {
        return Ok(());
    }
    let shown: Vec<String> = found.iter().take(SHOWN).map(|path| format!("`{}`", path.display())).collect();
    let more = if found.len() > SHOWN { ", …" } else { "" };
    let why = format!("`{name}` is a folder, and a bundle is a file or volumes");
    Err(Error::usage(why, format!("name what is in it: {}{more}", shown.join(", "))).into())
}

/// Bundles that a hint names.
const SHOWN: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_store_is_told_and_why_it_may_not_be_the_one_that_was_meant() {
        let folder = tempfile::tempdir().expect("folder");
        let at = |name: &str| folder.path().join(name);
        let told = |name: &str| open(&at(name)).expect("a store").1;
        assert!(told("images").is_some_and(|told| told.ends_with("there was no such folder")));
        assert_eq!(told("images"), None);
        std::fs::create_dir(at("mount")).expect("folder");
        assert!(told("mount").is_some_and(|told| told.contains("it is not mounted")));
        assert_eq!(told("mount"), None);
        let typo = told("typo/srv/images").expect("new");
        assert!(typo.contains(&format!("`{}` was not there before", at("typo").display())), "{typo}");
        let told = |name: &str| match refuse(&at(name)) {
            Err(End::Problems(problems)) => {
                problems.iter().map(|problem| format!("{problem} {:?}", problem.failure.hint())).collect()
            }
            _ => String::new(),
        };
        assert!(told("images").contains("is a store") && told("images").contains("--store"), "{}", told("images"));
        assert_eq!(told("typo"), "");
        std::fs::create_dir(at("disk")).expect("folder");
        for name in ["shop.tar.001", "shop.tar.002", "shop.tar.sha256", "more.tar"] {
            std::fs::write(at("disk").join(name), "").expect("write");
        }
        let hint = format!("name what is in it: `{0}/more.tar`, `{0}/shop.tar`", at("disk").display());
        assert!(told("disk").contains(&format!("{hint}\"")), "{}", told("disk"));
        std::fs::write(at("shop.tar"), "a bundle").expect("write");
        let End::Problems(refused) = open(&at("shop.tar")).expect_err("a file") else { panic!("problems") };
        assert!(refused.to_string().contains("is a file, and a store is a folder"), "{refused}");
    }
}
