//! The finished file replaces whatever has its name: that must not be anything the build reads.

use std::path::{Path, PathBuf};

use ferry_content::Problems;
use ferry_content::files::is_same_file;

use crate::Error;
use crate::manifest::BundleManifest;

/// Refuses an `output` that is one of `inputs` (by whatever name or link), or one of the files, archives and keys of `manifest`.
///
/// # Errors
/// [`Error::Overwrites`] for each.
pub fn check(output: &Path, manifest: &BundleManifest, inputs: &[PathBuf]) -> Result<(), Problems> {
    let archives = manifest.images.iter().filter_map(|image| Some(&image.archive.as_ref()?.path));
    let carried = manifest.yaml.iter().chain(&manifest.files).map(|entry| &entry.path);
    let of_images = manifest.images.iter().flat_map(|image| image.verify.iter().flatten());
    let keys = manifest.verify.iter().flat_map(|verify| &verify.keys).chain(of_images).map(|key| &key.path);
    let mut problems = Problems::default();
    for input in inputs.iter().chain(archives).chain(carried).chain(keys) {
        if is_same_file(output, input) {
            problems.add("", Error::Overwrites { output: output.to_owned(), input: input.clone() });
        }
    }
    problems.or(())
}

/// Whether `output` would stand in `folder`, or somewhere below it.
pub(crate) fn is_below(output: &Path, folder: &Path) -> bool {
    let parent = output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (parent.canonicalize(), folder.canonicalize()) {
        (Ok(parent), Ok(folder)) => folder.is_dir() && parent.starts_with(folder),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use ferry_content::Kind;

    use super::*;
    use crate::manifest::{ArchiveSource, Image};

    #[test]
    fn an_output_that_is_read_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        for name in ["app.tar", "images.yaml", "other"] {
            std::fs::write(path(name), name).expect("write");
        }
        std::os::unix::fs::symlink("app.tar", path("link.tar")).expect("link");
        let mut image = Image::new("a:1".parse().expect("reference"), 1);
        image.archive = Some(ArchiveSource { written: "app.tar".to_owned(), path: path("app.tar"), image: None });
        let manifest = BundleManifest::of("b", vec![image]);
        for (name, refused) in
            [("app.tar", true), ("link.tar", true), ("images.yaml", true), ("other", false), ("new", false)]
        {
            let checked = check(&path(name), &manifest, &[path("images.yaml")]);
            assert_eq!(checked.is_err(), refused, "{name}");
            if let Err(problems) = checked {
                let first = problems.iter().next().expect("one");
                assert_eq!((problems.kind(), first.failure.hint().is_some()), (Kind::Usage, true));
            }
        }
        assert!(is_below(&path("new"), folder.path()));
        assert!(!is_below(&path("new"), &path("other")));
        assert!(!is_below(Path::new("/new"), folder.path()));
    }
}
