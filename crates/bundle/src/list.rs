//! The plain text list of images: one reference a line, `#` for comments, `##` for headings.
//!
//! Pure: text in, references or problems out.

use std::path::Path;

use ferry_image::Reference;
use ferry_rewrite::list::without_comment;

use crate::manifest::{BundleManifest, Image, MAX_BYTES, MAX_IMAGES, ManifestError, Problem, What};

/// A plain text list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// In the order written; a reference that stands there again is taken once.
    pub images: Vec<Listed>,
}

/// One line of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The reference.
    pub reference: Reference,
    /// The heading it stands under.
    pub group: Option<String>,
    /// Counted from 1.
    pub line: usize,
}

impl List {
    /// The bundle manifest that carries these images under `name`.
    #[must_use]
    pub fn into_manifest(self, name: &str) -> BundleManifest {
        BundleManifest::of(name, self.images.into_iter().map(|i| Image::new(i.reference, i.line)).collect())
    }
}

/// Reads the plain text list `text` of the file `path`, which is used for messages only.
///
/// # Errors
/// Every line that is not a reference; a list without any.
pub fn parse(text: &str, path: &Path) -> Result<List, ManifestError> {
    read(text).map_err(|problems| ManifestError { path: path.to_owned(), problems })
}

fn read(text: &str) -> Result<List, Vec<Problem>> {
    if text.len() > MAX_BYTES {
        return Err(vec![Problem { line: 0, what: What::TooLarge { bytes: text.len(), limit: MAX_BYTES } }]);
    }
    let mut images: Vec<Listed> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    let mut problems = Vec::new();
    let mut group = None;
    for (number, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
        if let Some(heading) = line.trim_start().strip_prefix("##") {
            let heading = heading.trim_matches(|c: char| c == '#' || c.is_whitespace());
            group = (!heading.is_empty()).then(|| heading.to_owned());
            continue;
        }
        let entry = without_comment(line).trim();
        if entry.is_empty() {
            continue;
        }
        match entry.parse::<Reference>() {
            Ok(reference) => {
                if seen.insert(reference.clone()) {
                    images.push(Listed { reference, group: group.clone(), line: number + 1 });
                }
            }
            Err(error) => problems.push(Problem { line: number + 1, what: error.into() }),
        }
    }
    if images.len() > MAX_IMAGES {
        problems.push(Problem { line: 0, what: What::TooMany { count: images.len(), limit: MAX_IMAGES } });
    }
    if images.is_empty() && problems.is_empty() {
        problems.push(Problem { line: 0, what: What::Empty });
    }
    if problems.is_empty() { Ok(List { images }) } else { Err(problems) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<List, ManifestError> {
        parse(text, Path::new("images.txt"))
    }

    #[test]
    fn comments_headings_and_line_ends() {
        let text = "\u{feff}# all of it\r\nnginx:1.27 # web\r\n\r\n## Storage ##\r\n  quay.io/a/b:1\t#x\r\n##\r\nredis\r\nnginx:1.27\r\n";
        let list = read(text).expect("list");
        let found: Vec<(String, Option<&str>, usize)> =
            list.images.iter().map(|i| (i.reference.to_string(), i.group.as_deref(), i.line)).collect();
        assert_eq!(
            found,
            [
                ("docker.io/library/nginx:1.27".to_owned(), None, 2),
                ("quay.io/a/b:1".to_owned(), Some("Storage"), 5),
                ("docker.io/library/redis:latest".to_owned(), None, 7),
            ]
        );
        let manifest = list.into_manifest("all");
        assert_eq!((manifest.name.as_str(), manifest.images.len(), manifest.images[1].line), ("all", 3, 5));
    }

    #[test]
    fn every_bad_line_is_named() {
        let error = read("nginx\n- redis\na/UPPER\nhttps://quay.io/a#b\n").map(|_| ()).expect_err("bad");
        assert_eq!(
            error.to_string().lines().collect::<Vec<_>>(),
            [
                "images.txt:2: `- redis` is not an image reference: `library/- redis` is not a repository path",
                "images.txt:3: `a/UPPER` is not an image reference: a repository path has no upper-case letters",
                "images.txt:4: `https://quay.io/a#b` is not an image reference: leave `https://` out",
            ]
        );
    }

    #[test]
    fn an_empty_list_is_an_error() {
        for text in ["", "\n\n", "# nothing\n## here\n"] {
            assert_eq!(read(text).map(|_| ()).expect_err(text).to_string(), "images.txt: no image is listed");
        }
    }

    #[test]
    fn limits_are_stated() {
        assert!(read(&"#".repeat(MAX_BYTES + 1)).is_err());
        let many: String = (0..=MAX_IMAGES).map(|i| format!("a:{i}\n")).collect();
        let error = read(&many).map(|_| ()).expect_err("too many").to_string();
        assert_eq!(error, "images.txt: there are 10001 images; the limit is 10000");
    }
}
