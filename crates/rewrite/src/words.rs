//! Which keys name an image, and which values look like a reference. Built on shapes, never on product names.

use ferry_image::Reference;

/// How clearly a key says that its value is an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Not at all, or it names a part or a property of an image.
    None,
    /// `imageK8S`, `IMAGES`, a list or map of images.
    Some,
    /// `operatorImage`, `docker_image`, `FOO_IMAGE`.
    Strong,
    /// `image`.
    Exact,
}

/// Words that make `image…` a property rather than an image.
const PROPERTIES: [&str; 44] = [
    "pull",
    "policy",
    "policies",
    "secret",
    "secrets",
    "tag",
    "tags",
    "version",
    "versions",
    "registry",
    "registries",
    "repository",
    "repositories",
    "repo",
    "prefix",
    "name",
    "names",
    "digest",
    "digests",
    "hub",
    "set",
    "id",
    "ids",
    "path",
    "dir",
    "size",
    "type",
    "format",
    "arch",
    "os",
    "credential",
    "credentials",
    "namespace",
    "enabled",
    "puller",
    "pullers",
    "suffix",
    "gc",
    "title",
    "alt",
    "width",
    "height",
    "cache",
    "list",
];

/// Words before `image` that make it a picture or the disk of a machine, unless its value says otherwise.
const OTHER_IMAGES: [&str; 19] = [
    "os",
    "cloud",
    "vm",
    "ami",
    "disk",
    "boot",
    "machine",
    "iso",
    "kernel",
    "hero",
    "avatar",
    "logo",
    "icon",
    "cover",
    "banner",
    "background",
    "profile",
    "thumbnail",
    "favicon",
];

/// Splits `operatorImage`, `docker_image`, `RELATED_IMAGE_X`, `imageK8S` into lower-case words.
pub(crate) fn words(key: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut previous = ' ';
    for c in key.chars() {
        let boundary = !c.is_alphanumeric() || (c.is_uppercase() && (previous.is_lowercase() || previous.is_numeric()));
        if boundary && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if c.is_alphanumeric() {
            word.extend(c.to_lowercase());
        }
        previous = c;
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// What `key` says of its value.
pub(crate) fn level(key: &str) -> Level {
    if key == "image" {
        return Level::Exact;
    }
    if !contains_image(key) {
        return Level::None;
    }
    let words = words(key);
    let Some(last) = words.last() else { return Level::None };
    if words.windows(2).any(|w| w[0] == "related" && w[1] == "image") && words.len() > 2 {
        return Level::Strong;
    }
    if last == "image" || last.ends_with("image") {
        let other = words.iter().rev().nth(1).is_some_and(|word| OTHER_IMAGES.contains(&word.as_str()));
        return if other { Level::Some } else { Level::Strong };
    }
    let address = matches!(last.as_str(), "url" | "uri" | "ref" | "reference");
    let image = words.iter().position(|w| w.ends_with("image") || w.ends_with("images"));
    match image {
        Some(at) if !words[at + 1..].iter().any(|w| PROPERTIES.contains(&w.as_str())) || address => Level::Some,
        // `imageName` alone may be a whole reference
        Some(at) if words.get(at + 1).is_some_and(|w| w == "name" || w == "names") && at + 2 == words.len() => {
            Level::Some
        }
        _ => Level::None,
    }
}

fn contains_image(key: &str) -> bool {
    key.as_bytes().windows(5).any(|w| w.eq_ignore_ascii_case(b"image"))
}

/// The level of an entry or item below `images:` or the like.
pub(crate) fn holds_images(key: &str) -> bool {
    let words = words(key);
    words.last().is_some_and(|w| w == "images" || w.ends_with("images"))
        || (words.len() > 1 && words.windows(2).any(|w| w[0] == "image" && (w[1] == "list" || w[1] == "names")))
}

/// Whether names of nodes, pods and versions stand below `key`, never images.
pub(crate) fn is_label(key: &str) -> bool {
    words(key).last().is_some_and(|word| {
        matches!(
            word.as_str(),
            "labels" | "selector" | "selectors" | "toleration" | "tolerations" | "taints" | "affinity" | "expressions"
        )
    })
}

/// A flag such as `--engine-image` or `-image`.
pub(crate) fn is_flag(text: &str) -> bool {
    let name = text.trim_start_matches('-');
    name.len() < text.len()
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Parses `value`; also says whether it has a slash and whether it has a tag or digest.
pub(crate) fn parse(value: &str) -> Option<(Reference, bool, bool)> {
    if value.len() > 512 || value.is_empty() || !value.is_ascii() {
        return None;
    }
    let reference: Reference = value.parse().ok()?;
    let pinned = reference.has_written_tag() || reference.digest().is_some();
    Some((reference, value.contains('/'), pinned))
}

/// A value that is a reference by its own looks: a slash, and a tag or digest.
pub(crate) fn by_value(value: &str) -> Option<Reference> {
    let (reference, slash, pinned) = parse(value)?;
    let mode = matches!(reference.tag(), Some("ro" | "rw" | "z" | "Z"));
    let hosted = value.split('/').next().is_some_and(|host| host.contains(['.', ':']) || host == "localhost");
    let (first, last) = (reference.path().split('/').next(), reference.path().rsplit('/').next());
    let group_version = !hosted && (first.is_some_and(is_api_version) || last.is_some_and(is_api_version));
    (slash && pinned && !mode && !group_version).then_some(reference)
}

/// Whether a host stands before the first slash.
pub(crate) fn hosted(name: &str) -> bool {
    name.split_once('/').is_some_and(|(host, _)| host.contains(['.', ':']) || host == "localhost")
}

/// Whether it can be a registry, maybe with the beginning of a path: a host name, not the name of one.
pub(crate) fn may_be_registry(text: &str) -> bool {
    let host = text.split('/').next().unwrap_or_default();
    !text.contains(char::is_whitespace) && !text.contains("://") && (host.contains(['.', ':']) || host == "localhost")
}

/// Whether it is where sources or charts lie, which `repository` may be as well.
pub(crate) fn is_source(text: &str) -> bool {
    let host = text.split('/').next().unwrap_or_default();
    text.contains("://")
        || text.starts_with("git@")
        || text.ends_with(".git")
        || matches!(host, "github.com" | "gitlab.com" | "bitbucket.org")
}

/// `v1`, `v1beta1`: `apps/v1:Deployment` is a kind and `v1/things:do` a method, not an image.
fn is_api_version(segment: &str) -> bool {
    segment.strip_prefix('v').is_some_and(|rest| {
        rest.starts_with(|c: char| c.is_ascii_digit())
            && rest
                .trim_start_matches(|c: char| c.is_ascii_digit())
                .trim_end_matches(|c: char| c.is_ascii_digit())
                .len()
                <= 5
    })
}

/// Words that stand where an image could and are none.
pub(crate) fn is_word(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    matches!(lower.as_str(), "true" | "false" | "yes" | "no" | "on" | "off" | "null" | "none" | "default" | "auto")
        || value.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        || [".png", ".jpg", ".jpeg", ".svg", ".gif", ".ico", ".webp", ".iso", ".qcow2", ".img"]
            .iter()
            .any(|end| lower.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        for (key, wanted) in [
            ("image", Level::Exact),
            ("operatorImage", Level::Strong),
            ("docker_image", Level::Strong),
            ("queue-sidecar-image", Level::Strong),
            ("RELATED_IMAGE_ETCD_35", Level::Strong),
            ("STRIMZI_DEFAULT_KAFKA_INIT_IMAGE", Level::Strong),
            ("imageK8S", Level::Some),
            ("STRIMZI_KAFKA_IMAGES", Level::Some),
            ("imageName", Level::Some),
            ("imageURL", Level::Some),
            ("imagePullPolicy", Level::None),
            ("imagePullSecrets", Level::None),
            ("imageTag", Level::None),
            ("imageRegistry", Level::None),
            ("imageSet", Level::None),
            ("name", Level::None),
        ] {
            assert_eq!(level(key), wanted, "{key}");
        }
    }

    #[test]
    fn values() {
        for (value, wanted) in [
            ("quay.io/a/b:1", true),
            ("a/b:1", true),
            ("redis-cart:6379", false),
            ("tcp:6667", false),
            ("knative-serving/knative-local-gateway", false),
            ("facebook/opt-125m", false),
            ("nginx:1", false),
            ("apps/v1:Deployment", false),
            ("apps/v1beta1:Deployment", false),
            ("v1/services:convert", false),
            ("data/x:ro", false),
            ("https://a/b:1", false),
        ] {
            assert_eq!(by_value(value).is_some(), wanted, "{value}");
        }
    }
}
