//! A patch: the images that a damaged bundle cannot give whole, as a bundle whose file holds their manifests and the wanted blobs alone.
//!
//! The want list says of these images what a lock says, so they are resolved as with a lock: to the same digests, or not at all.

use std::collections::BTreeSet;

use ferry_archive::{HeadBase, Want, WantImage, WantReferrer};
use ferry_content::{Failure as _, Kind, Problems};
use ferry_image::{CosignTag, Digest, Manifest, Platform, Reference, ReferrerKind, referrer};
use ferry_registry_client::Client;

use crate::Error;
use crate::known::Known;
use crate::lock::{Lock, Locked, LockedPlatform, LockedReferrer, Source};
use crate::manifest::{BundleManifest, Image, Platforms, ReferrerKinds};
use crate::place::fetch;

/// The longest name of a bundle.
const MAX_NAME: usize = 128;
/// What a patch is called beside the bundle.
const SUFFIX: &str = "-patch";

/// What to carry for `want`, and what somebody should know: the images of the list, with the sources, archives and mirrors of `listed`, which is
/// the damaged bundle's own bundle manifest, where that is at hand.
///
/// # Errors
/// Every wanted image that `listed` does not have.
pub fn manifest(want: &Want, listed: Option<BundleManifest>) -> Result<(BundleManifest, Vec<String>), Problems> {
    let mut problems = Problems::default();
    let mut notes = Vec::new();
    let mut images = Vec::with_capacity(want.images.len());
    for wanted in &want.images {
        let image = match &listed {
            Some(listed) => listed.images.iter().find(|image| image.reference == wanted.reference).cloned(),
            None => Some(by_name(wanted, &mut notes)),
        };
        match image {
            Some(image) => images.push(Image {
                target: wanted.target.clone(),
                optional: false,
                platforms: Some(platforms(wanted)),
                referrers: Some(referrers(wanted)),
                verify: None,
                ..image
            }),
            None => problems.add(format!("image `{}`", wanted.reference), Error::WantedNotListed),
        }
    }
    let images = problems.or(images)?;
    let mut manifest = BundleManifest::of(&name(want), images);
    manifest.version.clone_from(&want.bundle.version);
    manifest.layout = want.layout;
    if let Some(listed) = listed {
        manifest.layers = listed.layers;
        manifest.mirrors = listed.mirrors;
    }
    manifest.platforms = Platforms::try_from(want.platforms.clone()).ok();
    Ok((manifest, notes))
}

/// The image under its own name, and where it was found then.
fn by_name(wanted: &WantImage, notes: &mut Vec<String>) -> Image {
    let mut image = Image::new(wanted.reference.clone(), 0);
    // a repository is written in its normal form, an archive's path hardly ever is
    match wanted.source.parse::<Reference>() {
        Ok(source) if source.repository() == wanted.source => {
            if source.repository() != wanted.reference.repository() {
                image.from = vec![wanted.reference.clone(), source.pinned(&wanted.root.digest)];
            }
        }
        _ => notes.push(format!(
            "{} came from `{}`, and is asked for under its name: to read it from there, give the bundle manifest as well",
            wanted.reference, wanted.source
        )),
    }
    image
}

/// What chooses exactly the manifests that were chosen. With `all` there may be some that no platform tells from another.
fn platforms(wanted: &WantImage) -> Platforms {
    let stated: Option<Vec<Platform>> = wanted.platforms.iter().map(|p| p.platform.clone()).collect();
    let is_clear = |platforms: &Vec<Platform>| {
        let mut seen = BTreeSet::new();
        !platforms.is_empty() && platforms.iter().all(|p| !p.is_unknown() && seen.insert(p.to_string()))
    };
    stated.filter(is_clear).map_or(Platforms::All, Platforms::These)
}

fn referrers(wanted: &WantImage) -> ReferrerKinds {
    if wanted.referrers.is_empty() { ReferrerKinds::NONE } else { ReferrerKinds::these(ReferrerKind::ALL.to_vec()) }
}

fn name(want: &Want) -> String {
    let name: String = want.bundle.name.chars().take(MAX_NAME - SUFFIX.len()).collect();
    format!("{}{SUFFIX}", name.trim_end())
}

/// The damaged bundle as a base.
pub(crate) fn base(want: &Want) -> HeadBase {
    let bundle = &want.bundle;
    HeadBase { name: bundle.name.clone(), version: bundle.version.clone(), sums: Some(bundle.sums.clone()) }
}

/// The lock that the want list amounts to. `given` is the one that the damaged bundle was built with.
pub(crate) async fn lock(
    want: &Want,
    manifest: &BundleManifest,
    given: Option<&Lock>,
    client: &Client,
    known: &Known,
) -> Result<Lock, Problems> {
    let mut problems = Problems::default();
    let mut images = Vec::with_capacity(want.images.len());
    for (wanted, image) in want.images.iter().zip(&manifest.images) {
        let subject = || format!("image `{}`", wanted.reference);
        let given = given.and_then(|lock| lock.entry(&wanted.reference));
        if let Some(other) = given.filter(|given| given.root.digest != wanted.root.digest) {
            let found = format!("the lock says {}", other.root.digest);
            problems.add(subject(), Error::WantedGone { expected: wanted.root.digest.clone(), found });
            continue;
        }
        let mut referrers = Vec::with_capacity(wanted.referrers.len());
        for listed in &wanted.referrers {
            match locked(listed, manifest, image, client, known).await {
                Ok(referrer) => referrers.push(referrer),
                Err(error) => problems.add(subject(), error),
            }
        }
        let reference = wanted.reference.clone();
        images.push(Locked {
            source: given
                .map_or_else(|| Source::Registry { reference: reference.clone() }, |given| given.source.clone()),
            reference,
            root: (&wanted.root).into(),
            platforms: wanted
                .platforms
                .iter()
                .map(|p| LockedPlatform { platform: p.platform.clone(), digest: p.manifest.digest.clone() })
                .collect(),
            referrers,
            proofs: Vec::new(),
        });
    }
    let platforms = manifest.platforms.clone().unwrap_or(Platforms::All);
    Ok(Lock::new(platforms, problems.or(images)?, Vec::new()))
}

/// What refers to what is only known from the referrer, which may be what is damaged.
async fn locked(
    listed: &WantReferrer,
    manifest: &BundleManifest,
    image: &Image,
    client: &Client,
    known: &Known,
) -> Result<LockedReferrer, Error> {
    let of = |subject: Digest| LockedReferrer {
        media_type: listed.manifest.media_type.clone(),
        digest: listed.manifest.digest.clone(),
        size: listed.manifest.size,
        subject,
        tag: listed.tag.clone(),
    };
    let by_tag = || listed.tag.as_deref().and_then(CosignTag::parse).map(|(subject, _)| subject);
    if let Some(subject) = listed.subject.clone().or_else(by_tag) {
        return Ok(of(subject));
    }
    let (mut why, mut unanswered) = ("its subject is not known".to_owned(), None);
    for source in manifest.sources(image) {
        let repository = client.repository(source.at.host(), source.at.path())?;
        match known.get_or(&listed.manifest.digest, fetch(&repository, &listed.manifest.digest)).await {
            Ok(document) => match Manifest::parse(&document.bytes, None).ok().as_ref().and_then(referrer::subject) {
                Some(subject) => return Ok(of(subject.digest.clone())),
                None => why = format!("it names no subject at {repository}"),
            },
            // who does not answer has not lost it
            Err(error) if error.kind() == Kind::Remote => unanswered = unanswered.or(Some(error)),
            Err(error) => why = error.to_string(),
        }
    }
    Err(unanswered.unwrap_or(Error::WantedGone { expected: listed.manifest.digest.clone(), found: why }))
}

#[cfg(test)]
mod tests {
    use ferry_archive::{HeadPlatform, WantBundle};
    use ferry_image::{Descriptor, Layout, media_type};

    use super::*;

    fn wanted(reference: &str, source: &str, platforms: &[Option<&str>]) -> WantImage {
        let root = Descriptor::of(media_type::OCI_INDEX, reference.as_bytes());
        let platform = |platform: &Option<&str>| HeadPlatform {
            platform: platform.map(|p| p.parse().expect("platform")),
            manifest: root.clone(),
        };
        WantImage {
            reference: reference.parse().expect("reference"),
            target: None,
            source: source.to_owned(),
            platforms: platforms.iter().map(platform).collect(),
            root: root.clone(),
            referrers: Vec::new(),
        }
    }

    fn want(images: Vec<WantImage>) -> Want {
        let bundle = WantBundle { name: "n".repeat(128), version: Some("1".to_owned()), sums: Digest::of(b"sums") };
        let platforms = vec!["linux/amd64".to_owned()];
        Want { version: 1, bundle, platforms, layout: Layout::Host, images, blobs: Vec::new() }
    }

    #[test]
    fn without_a_bundle_manifest_images_are_asked_for_by_name_and_where_they_were_found() {
        let amd64 = [Some("linux/amd64")];
        let want = want(vec![
            wanted("nginx:1", "docker.io/library/nginx", &amd64),
            wanted("redis:7", "mirror.example:5000/hub/library/redis", &amd64),
            wanted("shop/app:1", "images/app.tar", &amd64),
            wanted("quay.io/a/chart:1", "quay.io/a/chart", &[None]),
            wanted("quay.io/a/win:1", "quay.io/a/win", &[Some("windows/amd64"), Some("windows/amd64")]),
        ]);
        let (manifest, notes) = manifest(&want, None).expect("manifest");
        let asked = |at: usize| -> Vec<String> {
            manifest.sources(&manifest.images[at]).into_iter().map(|source| source.at.repository()).collect()
        };
        assert_eq!(asked(0), ["docker.io/library/nginx"]);
        assert_eq!(asked(1), ["docker.io/library/redis", "mirror.example:5000/hub/library/redis"]);
        assert_eq!(asked(2), ["docker.io/shop/app"]);
        assert!(notes.len() == 1 && notes[0].contains("images/app.tar"), "{notes:?}");
        assert_eq!(manifest.images[3].platforms, Some(Platforms::All));
        assert_eq!(manifest.images[4].platforms, Some(Platforms::All), "they cannot be told apart");
        assert_eq!(manifest.images[0].platforms, Some(Platforms::These(vec!["linux/amd64".parse().expect("p")])));
        assert_eq!(
            (manifest.name.len(), manifest.name.ends_with("n-patch"), manifest.layout),
            (128, true, Layout::Host)
        );
    }

    #[test]
    fn a_bundle_manifest_gives_sources_and_nothing_else() {
        let text = "name: shop\nplatforms: [linux/arm64]\nlayers: zstd\nmirrors:\n  docker.io: [m.example]\nimages:\n\
                    - image: nginx:1\n  from: [quay.io/x/nginx:1]\n- redis:7\nignore:\n- image: x\n  reason: y\n";
        let listed = crate::manifest::parse(text, std::path::Path::new("m.yaml")).expect("manifest");
        let amd64 = [Some("linux/amd64")];
        let nginx = wanted("nginx:1", "docker.io/library/nginx", &amd64);
        let (made, notes) = manifest(&want(vec![nginx.clone()]), Some(listed.clone())).expect("manifest");
        assert_eq!((made.images.len(), made.images[0].from.len(), notes.len()), (1, 1, 0));
        assert_eq!((made.layers, made.mirrors.len(), made.ignore.len()), (listed.layers, 1, 0));
        assert_eq!(made.images[0].platforms, Some(Platforms::These(vec!["linux/amd64".parse().expect("p")])));
        let other = wanted("other:1", "docker.io/library/other", &amd64);
        let problems = manifest(&want(vec![nginx, other]), Some(listed)).map(|_| ()).expect_err("not listed");
        assert!(problems.to_string().contains("docker.io/library/other:1"), "{problems}");
        assert_eq!(problems.kind(), ferry_content::Kind::Missing);
    }
}
