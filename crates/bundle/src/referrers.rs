//! What refers to an image at its source: signatures, attestations, SBOMs, found and read.
//!
//! For the root and every carried manifest the place is asked for its referrers (the API or the tag, see the client) and for the three
//! tags of cosign; then for what refers to those, except that nobody signs a signature. What a lock lists is taken instead, whatever
//! has been added since.

use std::collections::BTreeSet;

use ferry_content::{Failure as _, Kind};
use ferry_image::{CosignTag, Descriptor, Digest, Manifest, ReferrerKind, referrer};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::Error;
use crate::lock::LockedReferrer;
use crate::place::Place;
use crate::select::{Whole, whole};

/// The most referrers of one manifest.
pub(crate) const MOST: usize = 1000;
/// The most bytes that the referrers of one image have in all: 1 GiB.
pub(crate) const MOST_BYTES: u64 = 1 << 30;
/// How far referrers of referrers are followed.
const DEPTH: usize = 2;
/// Requests at a time for one image.
const AT_A_TIME: usize = 4;

/// One referrer.
#[derive(Debug, Clone)]
pub(crate) struct Referrer {
    /// Its manifest or index; the artifact type is stated where it has one.
    pub(crate) descriptor: Descriptor,
    /// The tag it stands under, for cosign's.
    pub(crate) tag: Option<String>,
    /// What it refers to.
    pub(crate) subject: Digest,
    pub(crate) kind: ReferrerKind,
    /// All it consists of.
    pub(crate) whole: Whole,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// In an order that depends on nothing but what there is: subjects before what refers to them.
    pub(crate) referrers: Vec<Referrer>,
    /// What is listed and cannot be carried.
    pub(crate) warnings: Vec<String>,
}

/// Whether `kind` can have referrers that somebody made: nobody signs a signature.
fn is_followed(kind: ReferrerKind) -> bool {
    matches!(kind, ReferrerKind::Sbom | ReferrerKind::Other)
}

/// Finds what refers to `subjects`.
pub(crate) async fn find(place: &Place, subjects: &[Digest]) -> Result<Found, Error> {
    let mut found = Found::default();
    let mut seen: BTreeSet<(Digest, Option<String>)> = BTreeSet::new();
    let mut asked: BTreeSet<Digest> = subjects.iter().cloned().collect();
    let mut level: Vec<Digest> = subjects.to_vec();
    for depth in 1..=DEPTH {
        let lists: Vec<Lists> =
            stream::iter(level.iter().map(|subject| list(place, subject))).buffered(AT_A_TIME).try_collect().await?;
        found.warnings.extend(lists.iter().flat_map(|lists| lists.denied.clone()));
        let read = stream::iter(lists.iter().flat_map(|lists| &lists.listed).map(|listed| read(place, listed)));
        let read: Vec<Result<Referrer, String>> = read.buffered(AT_A_TIME).try_collect().await?;
        let mut next = Vec::new();
        for result in read {
            match result {
                Ok(referrer) => {
                    if is_followed(referrer.kind) && asked.insert(referrer.descriptor.digest.clone()) {
                        next.push(referrer.descriptor.digest.clone());
                    }
                    let key = (referrer.descriptor.digest.clone(), referrer.tag.clone());
                    // under a tag and by its subject it is one
                    let is_tagged = |r: &Referrer| r.tag.is_some() && r.descriptor.digest == key.0;
                    if !(key.1.is_none() && found.referrers.iter().any(is_tagged)) && seen.insert(key) {
                        found.referrers.push(referrer);
                    }
                }
                Err(why) => found.warnings.push(why),
            }
        }
        if depth == DEPTH || next.is_empty() {
            break;
        }
        level = next;
    }
    Ok(found)
}

/// Takes what a lock lists.
pub(crate) async fn locked(place: &Place, listed: &[LockedReferrer]) -> Result<Vec<Referrer>, Error> {
    let take = |locked: LockedReferrer| async move {
        let gone = |found: String| Error::LockedChanged { expected: locked.digest.clone(), found };
        let descriptor = Descriptor::new(&locked.media_type, locked.digest.clone(), locked.size);
        let named = place.named(&descriptor).await?;
        let descriptor = named.ok_or_else(|| gone(format!("it is gone from {}", place.name())))?;
        let listed = Listed { descriptor, tag: locked.tag.clone(), subject: locked.subject.clone(), is_read: true };
        read(place, &listed).await?.map_err(gone)
    };
    stream::iter(listed.iter().cloned().map(take)).buffered(AT_A_TIME).try_collect().await
}

/// Refuses more than an image's referrers can sensibly be.
pub(crate) fn check_size(place: &Place, referrers: &[Referrer]) -> Result<(), Error> {
    let bytes = referrers.iter().fold(0_u64, |sum, referrer| sum.saturating_add(referrer.whole.bytes()));
    if bytes <= MOST_BYTES {
        return Ok(());
    }
    let what = format!("{bytes} bytes; the limit is {MOST_BYTES}");
    Err(Error::TooManyReferrers { place: place.name(), subject: referrers[0].subject.clone(), what })
}

/// What a place says refers to a subject, not read yet.
struct Listed {
    descriptor: Descriptor,
    tag: Option<String>,
    subject: Digest,
    /// Whether the descriptor is that of bytes that were fetched.
    is_read: bool,
}

#[derive(Default)]
struct Lists {
    listed: Vec<Listed>,
    /// What we must not ask. It need not be allowed to whoever may pull an image.
    denied: Vec<String>,
}

impl Lists {
    fn take<T>(&mut self, answer: Result<T, Error>, place: &Place, subject: &Digest) -> Result<Option<T>, Error> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(Error::Client(error)) if matches!(error.status(), Some(401 | 403)) => {
                self.denied.push(format!("whether anything else refers to {subject} is not known: {error}"));
                Ok(None)
            }
            Err(error) => {
                let (place, subject) = (place.name(), subject.clone());
                Err(Error::Referrers { place, subject, error: Box::new(error) })
            }
        }
    }
}

/// What refers to `subject`: cosign's in their order, then by digest. The order in which a registry lists is its own affair.
async fn list(place: &Place, subject: &Digest) -> Result<Lists, Error> {
    let tags = CosignTag::ALL.map(|cosign| cosign.tag(subject));
    let [signature, attestation, sbom] = &tags;
    let (by_subject, a, b, c) = futures_util::join!(
        place.referrers(subject, MOST),
        place.tagged(signature),
        place.tagged(attestation),
        place.tagged(sbom),
    );
    let mut lists = Lists::default();
    let listed = |descriptor, tag| Listed { descriptor, tag, subject: subject.clone(), is_read: false };
    for (tag, answer) in tags.iter().zip([a, b, c]) {
        let tagged = lists.take(answer, place, subject)?.flatten();
        let tagged = tagged.map(|descriptor| Listed { is_read: true, ..listed(descriptor, Some(tag.clone())) });
        lists.listed.extend(tagged);
    }
    let mut by_subject = lists.take(by_subject, place, subject)?.unwrap_or_default();
    if by_subject.len() > MOST {
        let what = format!("more than {MOST} referrers");
        return Err(Error::TooManyReferrers { place: place.name(), subject: subject.clone(), what });
    }
    by_subject.sort_by(|a, b| a.digest.cmp(&b.digest));
    by_subject.dedup_by(|a, b| a.digest == b.digest);
    lists.listed.extend(by_subject.into_iter().map(|descriptor| listed(descriptor, None)));
    Ok(lists)
}

/// Reads one that is listed. What cannot be carried is told, and does not stop the rest; what cannot be asked does.
async fn read(place: &Place, listed: &Listed) -> Result<Result<Referrer, String>, Error> {
    let subject = &listed.subject;
    let refuse = |why: String| {
        let name = listed.tag.clone().unwrap_or_else(|| listed.descriptor.digest.to_string());
        format!("{}: {name}, which refers to {subject}, is not carried: {why}", place.name())
    };
    let result = async {
        let descriptor = match listed.is_read {
            true => Some(listed.descriptor.clone()),
            false => place.named(&listed.descriptor).await?,
        };
        let Some(descriptor) = descriptor else { return Ok(Err("it is listed, and gone".to_owned())) };
        let manifest = place.manifest(&descriptor).await?;
        if listed.tag.is_none() && referrer::subject(&manifest).is_none_or(|s| s.digest != *subject) {
            return Ok(Err("it is listed, and refers to something else".to_owned()));
        }
        let kind = ReferrerKind::of(&manifest, listed.tag.as_deref());
        let mut descriptor = Descriptor::new(manifest.media_type(), descriptor.digest, descriptor.size);
        descriptor.artifact_type = artifact_type(&manifest);
        let whole = whole(place, &descriptor).await?;
        Ok(Ok(Referrer { descriptor, tag: listed.tag.clone(), subject: subject.clone(), kind, whole }))
    };
    match result.await {
        Ok(Ok(referrer)) => Ok(Ok(referrer)),
        Ok(Err(why)) => Ok(Err(refuse(why))),
        Err(error) if is_its_own(&error) => Ok(Err(refuse(Error::to_string(&error)))),
        Err(error) => Err(error),
    }
}

/// Whether a referrer itself is broken, of a form of old drafts, addressed by sha512, or in part gone.
fn is_its_own(error: &Error) -> bool {
    match error {
        Error::Document { .. } | Error::Algorithm { .. } | Error::Nesting { .. } | Error::Manifests { .. } => true,
        Error::Content(ferry_content::Error::SizeMismatch { .. }) => true,
        other => other.kind() == Kind::Missing,
    }
}

/// The artifact type that lists shall state; that of a container image's config says nothing.
fn artifact_type(manifest: &Manifest) -> Option<String> {
    match manifest {
        Manifest::Image(image) => {
            let config = Some(&image.config.media_type).filter(|_| !image.is_container_image());
            image.artifact_type.as_ref().filter(|t| !t.is_empty()).or(config).cloned()
        }
        Manifest::Index(index) => index.artifact_type.clone(),
    }
}

#[cfg(test)]
mod tests {
    use ferry_image::media_type;
    use serde_json::{Value, json};

    use super::*;
    use crate::samples::{Sample, layer};

    const EMPTY: &str = "application/vnd.oci.empty.v1+json";
    const SBOM: &str = "application/spdx+json";

    fn referring(sample: &mut Sample, artifact_type: &str, subject: &Descriptor, more: &Value) -> Descriptor {
        let config = sample.blob(EMPTY, b"{}");
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": artifact_type, "config": config,
            "layers": [layer(artifact_type.as_bytes())], "subject": subject,
        });
        manifest.as_object_mut().expect("object").extend(more.as_object().expect("object").clone());
        sample.json(media_type::OCI_MANIFEST, &manifest)
    }

    fn listing(descriptors: &[(&str, &Descriptor)]) -> Vec<(Vec<String>, Descriptor)> {
        let names = |name: &str| if name.is_empty() { vec![] } else { vec![name.to_owned()] };
        descriptors.iter().map(|(name, descriptor)| (names(name), (*descriptor).clone())).collect()
    }

    #[tokio::test]
    async fn all_that_refers_to_an_image_is_found_in_one_order() {
        let mut sample = Sample::default();
        let image = sample.image("linux/amd64", &[layer(b"1")]);
        let other = sample.image("linux/arm64", &[layer(b"2")]);
        let sbom = referring(&mut sample, SBOM, &image, &json!({}));
        let thing = referring(&mut sample, "application/vnd.example.thing", &image, &json!({}));
        let of_other = referring(&mut sample, SBOM, &other, &json!({"annotations": {"of": "other"}}));
        let of_sbom = referring(&mut sample, "application/vnd.cncf.notary.signature", &sbom, &json!({}));
        let of_signature = referring(&mut sample, SBOM, &of_sbom, &json!({"annotations": {"of": "signature"}}));
        let signature = sample.image("linux/amd64", &[layer(b"signature")]);
        let tag = CosignTag::Signature.tag(&image.digest);
        let place = |order: &[(&str, &Descriptor)]| sample.clone().place().listing(listing(order));
        let named = format!("example.com/app:{tag}");
        let all = [
            ("", &sbom),
            ("", &thing),
            ("", &of_other),
            (named.as_str(), &signature),
            ("", &of_sbom),
            ("", &of_signature),
        ];
        let found = find(&place(&all), std::slice::from_ref(&image.digest)).await.expect("found");
        assert!(found.warnings.is_empty(), "{:?}", found.warnings);
        let mut by_subject = [(&sbom.digest, ReferrerKind::Sbom), (&thing.digest, ReferrerKind::Other)];
        by_subject.sort();
        let expected = [
            &[(&signature.digest, ReferrerKind::Signature)][..],
            &by_subject,
            &[(&of_sbom.digest, ReferrerKind::Signature)],
        ];
        let digests = |found: &Found| -> Vec<(Digest, ReferrerKind)> {
            found.referrers.iter().map(|r| (r.descriptor.digest.clone(), r.kind)).collect()
        };
        assert_eq!(digests(&found).iter().map(|(d, k)| (d, *k)).collect::<Vec<_>>(), expected.concat());
        assert_eq!(found.referrers[0].tag.as_ref(), Some(&tag));
        assert_eq!(found.referrers[3].subject, sbom.digest);
        assert_eq!(found.referrers[1].whole.layers.len(), 1);
        let reversed: Vec<_> = all.iter().rev().copied().collect();
        let again = find(&place(&reversed), std::slice::from_ref(&image.digest)).await.expect("found");
        assert_eq!(digests(&again), digests(&found));
        // the other platform's, too, where it is carried
        let both = find(&place(&all), &[image.digest, other.digest]).await.expect("found");
        assert_eq!(both.referrers.len(), 5);
    }

    #[tokio::test]
    async fn what_cannot_be_carried_is_told_and_left() {
        let mut sample = Sample::default();
        let image = sample.image("linux/amd64", &[]);
        let good = referring(&mut sample, SBOM, &image, &json!({}));
        let long = Descriptor::new("x", format!("sha512:{}", "ab".repeat(64)).parse().expect("digest"), 1);
        let sha512 = referring(&mut sample, SBOM, &image, &json!({"layers": [long]}));
        let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "subject": image,
            "manifests": [Descriptor::of(media_type::OCI_MANIFEST, b"gone")]});
        let torn = sample.json(media_type::OCI_INDEX, &index);
        let place = sample.place().listing(listing(&[("", &torn), ("", &good), ("", &sha512)]));
        let found = find(&place, &[image.digest]).await.expect("found");
        let digests: Vec<_> = found.referrers.iter().map(|r| &r.descriptor.digest).collect();
        assert_eq!(digests, [&good.digest]);
        assert_eq!(found.warnings.len(), 2, "{:?}", found.warnings);
        assert!(found.warnings.iter().all(|w| w.contains("is not carried: ")), "{:?}", found.warnings);
    }

    #[tokio::test]
    async fn too_much_is_refused_with_its_size() {
        let mut sample = Sample::default();
        let image = sample.image("linux/amd64", &[]);
        let huge = Descriptor::new("x", Digest::of(b"huge"), MOST_BYTES);
        let referrer = referring(&mut sample, SBOM, &image, &json!({"layers": [huge]}));
        let place = sample.place().listing(listing(&[("", &referrer)]));
        let found = find(&place, &[image.digest]).await.expect("found");
        let error = check_size(&place, &found.referrers).expect_err("too much");
        assert!(error.to_string().contains("the limit is 1073741824") && error.hint().is_some(), "{error}");
    }
}
