//! Rules that a bundle manifest gives for YAML, carried in the bundle so that both sides apply the same ones.

use serde::{Deserialize, Serialize};

use crate::Reference;

/// Writes an image at a path, replacing what stands there or inserting what is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetRule {
    /// The files it applies to: a file name, `*` matching any run of characters (`alluxio-*.yaml`). All files when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The documents it applies to, by their `kind:`. All documents when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Where, as keys joined by `.` from the document's root (`spec.etcd.image`; a key with a dot is written `"a.b"` in double
    /// quotes). Of several, the first that exists in the document is taken; where none exists, the first is created.
    pub paths: Vec<String>,
    /// How the image is written there.
    #[serde(default)]
    pub form: Form,
    /// Which image: a reference that the bundle carries.
    pub image: Reference,
}

impl SetRule {
    /// Whether it is for none of the files of these names, though there are some.
    pub fn fits_none<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> bool {
        let Some(pattern) = &self.file else { return false };
        let mut names = names.into_iter().map(|name| name.rsplit('/').next().unwrap_or(name)).peekable();
        names.peek().is_some() && !names.any(|name| glob(pattern, name))
    }
}

/// How an image is written at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Form {
    /// The path is a scalar that holds the whole reference.
    #[default]
    #[serde(rename = "whole")]
    Whole,
    /// The path is a mapping with `image:` (registry and repository) and `imageTag:`.
    #[serde(rename = "image+imageTag")]
    ImageTag,
    /// The path is a mapping with `image:` and `tag:`.
    #[serde(rename = "image+tag")]
    Tag,
    /// The path is a mapping with `repository:` (host included) and `tag:`.
    #[serde(rename = "repository+tag")]
    RepositoryTag,
    /// The path is a mapping with `registry:`, `repository:` and `tag:`.
    #[serde(rename = "registry+repository+tag")]
    RegistryRepositoryTag,
}

/// A reference that stands in YAML and is left alone on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ignore {
    /// The reference, normalised before it is compared; `*` matches any run of characters.
    pub image: String,
    /// Why it need not be carried. Required, so that the next reader knows.
    pub reason: String,
}

impl Ignore {
    /// Whether `reference` is meant.
    #[must_use]
    pub fn matches(&self, reference: &Reference) -> bool {
        match self.image.parse::<Reference>() {
            Ok(wanted) => wanted == *reference,
            Err(_) => fits(&self.image, reference),
        }
    }
}

/// Whether a pattern fits a reference in its normal form, or as it was written.
fn fits(pattern: &str, reference: &Reference) -> bool {
    glob(pattern, &reference.to_string()) || glob(pattern, reference.written())
}

/// Whether `reference` is one of the images that `pattern` names: a reference with tag or digest is that one, a repository is all that is
/// in it, and `*` matches any run of characters.
#[must_use]
pub fn is_among(pattern: &str, reference: &Reference) -> bool {
    match pattern.parse::<Reference>() {
        Ok(one) if one.has_written_tag() || one.digest().is_some() => one == *reference,
        Ok(all) => all.repository() == reference.repository(),
        Err(_) => fits(pattern, reference),
    }
}

/// Whether `text` fits `pattern`, in which `*` stands for any run of characters. Linear in both.
#[must_use]
pub fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, text, fits) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*b", "ab", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abde", false),
            ("ab*ba", "aba", false),
            ("*", "", true),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn images_are_named_alone_by_repository_or_by_pattern() {
        let digest = crate::Digest::of(b"x");
        let pinned = format!("nginx@{digest}");
        for (pattern, reference, expected) in [
            ("nginx:1", "docker.io/library/nginx:1", true),
            ("nginx:1", "nginx:2", false),
            ("docker.io/library/nginx", "nginx:1", true),
            ("nginx", pinned.as_str(), true),
            ("nginx", "quay.io/library/nginx:1", false),
            ("docker.io/library/*", "nginx:1", true),
            ("docker.io/library/*", "docker.io/other/nginx:1", false),
            ("library/*", "library/nginx:1", true),
            ("docker.io/library/", "nginx:1", false),
            ("*", "nginx:1", true),
            (pinned.as_str(), pinned.as_str(), true),
            (pinned.as_str(), "nginx:1", false),
        ] {
            assert_eq!(is_among(pattern, &reference.parse().expect("reference")), expected, "{pattern} {reference}");
        }
    }

    #[test]
    fn ignores_compare_normal_forms() {
        let ignore = |image: &str| Ignore { image: image.to_owned(), reason: "r".to_owned() };
        let nginx: Reference = "nginx:1".parse().expect("reference");
        assert!(ignore("docker.io/library/nginx:1").matches(&nginx));
        assert!(ignore("docker.io/library/*").matches(&nginx));
        assert!(!ignore("docker.io/bitnami/*").matches(&nginx));
    }
}
