//! The plain text list of images: one reference a line, `#` for comments, `##` for headings.
//!
//! Pure: text in, references or problems out.

use std::path::Path;

use ferry_image::Reference;

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

/// The line up to a `#` that begins it or follows white space.
fn without_comment(line: &str) -> &str {
    let comment =
        line.match_indices('#').find(|(at, _)| line[..*at].chars().next_back().is_none_or(char::is_whitespace));
    comment.map_or(line, |(at, _)| &line[..at])
}
