//! What all forms that redirect pulls have in common: a repository at the source has one at the target, and tags and digests stay as they are.

use std::collections::BTreeMap;

use ferry_image::{Relocated, Relocation};

use super::{Emitted, UNKNOWN};

/// A repository whose pulls go to another one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mirror<'a> {
    /// The source, without its host.
    pub(super) path: &'a str,
    /// Its host.
    pub(super) host: &'a str,
    /// The repository at the target, host and prefix included.
    pub(super) target: &'a str,
}

impl Mirror<'_> {
    /// `host/path` of the source.
    pub(super) fn source(&self) -> String {
        format!("{}/{}", self.host, self.path)
    }
}

/// Why a pull of the original name does not find `image` in the repository where it went; nothing when it does.
pub(super) fn unserved(relocation: &Relocation, image: &Relocated) -> Option<String> {
    match (image.reference.digest(), &image.tag) {
        (Some(_), _) if relocation.unknown.contains(&image.reference) => Some(UNKNOWN.to_owned()),
        (Some(digest), _) if image.digest != *digest => {
            Some(format!("pinned to a digest that does not stand at the target, where it is {}", image.digest))
        }
        (Some(_), _) => None,
        (None, Some(tag)) if image.reference.tag() == Some(tag) => None,
        (None, Some(tag)) => Some(format!("its tag is `{tag}` at the target, and a mirror keeps tags")),
        (None, None) => Some("it has no tag at the target".to_owned()),
    }
}

/// Whether a pull of `image` by its tag, sent to `repository`, would get something else there.
pub(super) fn is_mistaken(relocation: &Relocation, image: &Relocated, repository: &str) -> bool {
    let by_tag = image.reference.digest().is_none();
    by_tag
        && relocation.images.iter().any(|other| {
            other.repository == repository
                && other.tag.as_deref() == image.reference.tag()
                && other.source_digest != image.source_digest
        })
}

/// The mirrors, a source repository each. What none serves is left out: `unserved` says why an image is not served where it went.
pub(super) fn mirrors<'a>(
    relocation: &'a Relocation,
    unserved: impl Fn(&Relocated) -> Option<String>,
    out: &mut Emitted,
) -> Vec<Mirror<'a>> {
    let mut groups: BTreeMap<(&str, &str), Vec<&Relocated>> = BTreeMap::new();
    for image in &relocation.images {
        groups.entry((image.reference.host(), image.reference.path())).or_default().push(image);
    }
    let mirrors = groups.into_iter().filter_map(|((host, path), images)| {
        let (lost, served): (Vec<_>, Vec<_>) =
            images.into_iter().map(|image| (image, unserved(image))).partition(|(_, why)| why.is_some());
        for (image, why) in &lost {
            out.leave(image, why.clone().unwrap_or_default());
        }
        let target = most(served.iter().map(|(image, _)| image.repository.as_str()))?;
        let elsewhere = served.iter().filter(|(image, _)| image.repository != target);
        for (image, _) in elsewhere.clone() {
            out.leave(image, format!("it went to `{}`, others of its repository to `{target}`", image.repository));
        }
        let mut left = lost.iter().chain(elsewhere);
        if let Some((image, _)) = left.find(|(image, _)| is_mistaken(relocation, image, target)) {
            let why = format!("a mirror of its repository would answer `{}` with another image", image.reference);
            for (image, _) in served.iter().filter(|(image, _)| image.repository == target) {
                out.leave(image, why.clone());
            }
            return None;
        }
        Some(Mirror { host, path, target })
    });
    mirrors.collect()
}

/// The value that is there most often; of equals, the first.
pub(super) fn most<'a>(values: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    counts.into_iter().min_by_key(|(_, count)| std::cmp::Reverse(*count)).map(|(value, _)| value)
}
