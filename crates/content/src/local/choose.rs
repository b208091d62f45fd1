//! Which image of a source is meant. Pure.
//!
//! Names inside archives cannot be trusted to follow any grammar (vendors ship `localhost/<version>:latest`), so the text itself
//! is compared first, and a name that does not parse can still be chosen.

use ferry_image::{Digest, Reference};

use super::{LocalImage, Root};

/// Why there is no one image.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unclear {
    /// Nothing is called that.
    None,
    /// These are meant equally.
    Several(Vec<usize>),
}

/// Chooses by name, or the only image there is. The first rule that finds any decides:
/// the digest; the same text; the same normalised reference; the same without its tag; the end of a longer name
/// (`operator:1` for `localhost/alluxio/operator:1`); the tag, where the source gives no more than a tag.
pub(super) fn choose(images: &[LocalImage], name: Option<&str>) -> Result<usize, Unclear> {
    let Some(name) = name else { return the_only_one(images) };
    let wanted: Option<Reference> = name.parse().ok();
    let digest = name.parse::<Digest>().ok().or_else(|| wanted.as_ref().and_then(|r| r.digest().cloned()));
    if let Some(digest) = &digest {
        let by_digest = |i: &LocalImage| matches!(&i.root, Root::Manifest(d) if d.digest == *digest);
        if let Some(found) = single(images, by_digest) {
            return found;
        }
    }
    if let Some(found) = single(images, |i| i.names.iter().any(|n| n == name)) {
        return found;
    }
    let Some(wanted) = wanted else { return Err(Unclear::None) };
    let by_name = |fits: &dyn Fn(&Reference) -> bool| {
        single(images, |i| i.names.iter().any(|n| n.parse::<Reference>().is_ok_and(|r| fits(&r))))
    };
    let same_repository = |r: &Reference| r.host() == wanted.host() && r.path() == wanted.path();
    let any_tag = !wanted.has_written_tag() && wanted.digest().is_none();
    let short = name.split(['@', ':']).next().unwrap_or(name);
    let is_end = |r: &Reference| {
        let full = r.repository();
        full.strip_suffix(short).is_some_and(|rest| rest.ends_with('/')) && (any_tag || r.tag() == wanted.tag())
    };
    by_name(&|r| *r == wanted)
        .or_else(|| by_name(&|r| any_tag && same_repository(r)))
        .or_else(|| by_name(&is_end))
        .or_else(|| {
            single(images, |i| wanted.has_written_tag() && i.names.iter().any(|n| Some(n.as_str()) == wanted.tag()))
        })
        .unwrap_or(Err(Unclear::None))
}

/// Unnamed entries beside named ones are signatures and other referrers, not images that somebody means.
fn the_only_one(images: &[LocalImage]) -> Result<usize, Unclear> {
    match (single(images, |_| true), single(images, |i| !i.names.is_empty())) {
        (Some(Ok(only)), _) | (_, Some(Ok(only))) => Ok(only),
        (all, named) => named.or(all).unwrap_or(Err(Unclear::None)),
    }
}

fn single(images: &[LocalImage], fits: impl Fn(&LocalImage) -> bool) -> Option<Result<usize, Unclear>> {
    let found: Vec<usize> = images.iter().enumerate().filter(|(_, i)| fits(i)).map(|(i, _)| i).collect();
    match found.as_slice() {
        [] => None,
        [only] => Some(Ok(*only)),
        _ => Some(Err(Unclear::Several(found))),
    }
}

#[cfg(test)]
mod tests {
    use ferry_image::Descriptor;

    use super::*;

    fn image(names: &[&str]) -> LocalImage {
        let digest = Digest::of(names.join(" ").as_bytes());
        let root = Root::Manifest(Descriptor::new("", digest, 1));
        LocalImage { names: names.iter().map(|n| (*n).to_owned()).collect(), root }
    }

    #[test]
    fn names_are_found_by_the_first_rule_that_fits() {
        let images = [
            image(&["alluxio/operator:3.2.1", "localhost/3.2.1:latest"]),
            image(&["docker.io/library/busybox:1.36"]),
            image(&["busybox:1.35"]),
            image(&["localhost/team/app:1", "Not A Name"]),
            image(&["quay.io/team/other:1"]),
            image(&["v7"]),
        ];
        for (name, expected) in [
            ("alluxio/operator:3.2.1", Ok(0)),
            ("docker.io/alluxio/operator:3.2.1", Ok(0)),
            ("alluxio/operator", Ok(0)),
            ("operator:3.2.1", Ok(0)),
            ("operator", Ok(0)),
            ("operator:3", Err(Unclear::None)),
            ("localhost/3.2.1:latest", Ok(0)),
            ("localhost/3.2.1", Ok(0)),
            ("busybox:1.36", Ok(1)),
            ("busybox", Err(Unclear::Several(vec![1, 2]))),
            ("app:1", Ok(3)),
            ("team/app:1", Ok(3)),
            ("am/app:1", Err(Unclear::None)),
            ("Not A Name", Ok(3)),
            ("Not a name", Err(Unclear::None)),
            ("quay.io/team/other:1", Ok(4)),
            ("quay.io/team/other:2", Err(Unclear::None)),
            ("evil.example/team/other:1", Err(Unclear::None)),
            ("v7", Ok(5)),
            ("example.com/thing:v7", Ok(5)),
            ("nothing:1", Err(Unclear::None)),
            ("", Err(Unclear::None)),
        ] {
            assert_eq!(choose(&images, Some(name)), expected, "{name}");
        }
        let Root::Manifest(root) = &images[4].root else { panic!("a manifest") };
        assert_eq!(choose(&images, Some(&root.digest.to_string())), Ok(4));
        assert_eq!(choose(&images, Some(&format!("whatever@{}", root.digest))), Ok(4));
    }

    #[test]
    fn without_a_name_the_only_one_or_the_only_named_one_is_meant() {
        assert_eq!(choose(&[], None), Err(Unclear::None));
        assert_eq!(choose(&[image(&[])], None), Ok(0));
        assert_eq!(choose(&[image(&[]), image(&["a"])], None), Ok(1));
        assert_eq!(choose(&[image(&["a"]), image(&["b"])], None), Err(Unclear::Several(vec![0, 1])));
        assert_eq!(choose(&[image(&[]), image(&[])], None), Err(Unclear::Several(vec![0, 1])));
    }
}
