//! The images of a bundle under their names at the target. References that share a name share one image there.

use std::collections::BTreeMap;

use ferry_archive::{Head, HeadImage};
use ferry_image::{Digest, Layout, TargetName};

/// An image with its name at the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// As in the head, with the platforms of every reference that has this name.
    pub image: HeadImage,
    /// The name.
    pub name: TargetName,
    /// Whether a reference that has this name is pinned by digest.
    pub is_pinned: bool,
}

/// Every image with its name, by itself; `layout` is the bundle's own choice where none is given.
pub(crate) fn place(head: &Head, layout: Option<Layout>) -> Vec<Named> {
    let layout = layout.unwrap_or(head.layout);
    let place = |image: &HeadImage| {
        let name = TargetName::place(&image.reference, image.target.as_ref(), layout);
        Named { image: image.clone(), name, is_pinned: image.reference.digest().is_some() }
    };
    head.images.iter().map(place).collect()
}

/// Gives all that have one name the platforms of each, and lets them be pinned if one is.
///
/// `nginx:1` and `nginx:1@sha256:…` are one name: whatever stands there must serve both, and be the same on every run.
pub(crate) fn share<'a>(named: impl Iterator<Item = &'a mut Named>) {
    let mut named: Vec<&mut Named> = named.collect();
    let mut shared = BTreeMap::new();
    for named in &named {
        let (platforms, is_pinned) = shared.entry(key(named)).or_insert_with(|| (Vec::new(), false));
        for platform in &named.image.platforms {
            if !platforms.contains(platform) {
                platforms.push(platform.clone());
            }
        }
        *is_pinned |= named.is_pinned;
    }
    for named in &mut named {
        if let Some((platforms, is_pinned)) = shared.get(&key(named)) {
            named.image.platforms.clone_from(platforms);
            named.is_pinned = *is_pinned;
        }
    }
}

fn key(named: &Named) -> (TargetName, Digest) {
    (named.name.clone(), named.image.root.digest.clone())
}

#[cfg(test)]
mod tests {
    use ferry_archive::HeadPlatform;
    use ferry_image::{Descriptor, media_type};

    use super::*;

    fn image(reference: &str, platforms: &[&str]) -> HeadImage {
        let platforms = platforms
            .iter()
            .map(|p| HeadPlatform {
                platform: Some(p.parse().expect("platform")),
                manifest: Descriptor::of(media_type::OCI_MANIFEST, p.as_bytes()),
            })
            .collect();
        let root = Descriptor::of(media_type::OCI_INDEX, b"index");
        let reference = reference.replace("ROOT", &root.digest.to_string()).parse().expect("reference");
        HeadImage {
            reference,
            target: None,
            source: String::new(),
            root,
            platforms,
            referrers: vec![],
            verified: vec![],
        }
    }

    #[test]
    fn one_name_is_one_image() {
        let head = Head {
            format: 1,
            name: "x".to_owned(),
            version: None,
            platforms: vec![],
            layout: Layout::Path,
            images: vec![
                image("nginx:1", &["linux/amd64"]),
                image("nginx:1@ROOT", &["linux/amd64", "linux/arm64"]),
                image("nginx:2", &["linux/amd64"]),
            ],
            absent: vec![],
            yaml: vec![],
            files: vec![],
            set: vec![],
            ignore: vec![],
            bases: Vec::new(),
            relies: Vec::new(),
            blobs: vec![],
        };
        let mut named = place(&head, None);
        share(named.iter_mut());
        let seen: Vec<_> = named.into_iter().map(|n| (n.is_pinned, n.image.platforms.len())).collect();
        assert_eq!(seen, [(true, 2), (true, 2), (false, 1)]);
    }
}
