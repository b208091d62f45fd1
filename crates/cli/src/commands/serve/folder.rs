//! The folder of a store: whether it is one, and whether it was there before. A path that was mistyped, and a disk that is not mounted, look
//! like an empty store otherwise, and an empty registry looks well.

use std::path::{Path, PathBuf};

use ferry_content::store::Store;

use crate::failure::{End, Error};

/// What the folder was before it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Before {
    Store,
    Empty,
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
    if folder.exists() {
        return Before::Empty;
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
        Before::Absent(None) => Some(format!("{made}: there was no such folder")),
        Before::Absent(Some(above)) => Some(format!(
            "{made}, and `{}` was not there before either: if a store was expected, the path is mistyped, or its disk is not mounted",
            above.display()
        )),
    }
}

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
        std::fs::write(at("shop.tar"), "a bundle").expect("write");
        let End::Problems(refused) = open(&at("shop.tar")).expect_err("a file") else { panic!("problems") };
        assert!(refused.to_string().contains("is a file, and a store is a folder"), "{refused}");
    }
}
