//! What refers to the images: where it stands at the target, and what has to happen to it. It goes after what it refers to, and not at all
//! where that is not there.
//!
//! Here the plan, which is pure; [`look`] asks the target, [`push`] puts.

pub(crate) mod list;
pub(crate) mod look;
pub(crate) mod merge;
mod push;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ferry_archive::oci::REF_NAME;
use ferry_image::referrer::{self, counted};
use ferry_image::{CosignTag, Descriptor, Digest, Manifest, Reference, ReferrerKind, media_type};

use crate::Error;
use crate::form::{self, Form};
use crate::preflight::{Planned, State};

/// The longest list of referrers that is read.
pub(crate) const MOST: usize = 10_000;

/// One referrer, with its place at the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedReferrer {
    /// The image it came with.
    pub reference: Reference,
    /// The repository on the target's host, prefix included.
    pub repository: String,
    /// Its manifest or index.
    pub descriptor: Descriptor,
    /// The tag it stands under, for cosign's.
    pub tag: Option<String>,
    /// What it refers to.
    pub subject: Digest,
    /// What it is.
    pub kind: ReferrerKind,
    /// What has to happen.
    pub state: ReferrerState,
}

/// What has to happen to one referrer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReferrerState {
    /// Nothing: it is there.
    Present,
    /// It is pushed.
    Absent,
    /// Its tag holds a list of others: both are kept.
    Merges,
    /// Its tag stays at this digest.
    Skipped(Digest),
}

impl PlannedReferrer {
    /// Under what it is put.
    #[must_use]
    pub fn name(&self) -> String {
        self.tag.clone().unwrap_or_else(|| self.descriptor.digest.to_string())
    }

    /// Whether anything is pushed.
    #[must_use]
    pub fn is_pushed(&self) -> bool {
        matches!(self.state, ReferrerState::Absent | ReferrerState::Merges)
    }

    fn key(&self) -> (String, String, Digest) {
        (self.repository.clone(), self.name(), self.descriptor.digest.clone())
    }
}

/// What follows the images to the target, and what stays behind, told for each image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Following {
    pub(crate) referrers: Vec<PlannedReferrer>,
    pub(crate) notes: Vec<String>,
}

/// What a referrer refers to: what its tag says, or its manifest.
pub(crate) fn subject_of(
    descriptor: &Descriptor,
    documents: &BTreeMap<Digest, Bytes>,
) -> Result<Option<Digest>, Error> {
    let tag = descriptor.annotations.get(REF_NAME).map(String::as_str);
    if let Some((subject, _)) = tag.and_then(CosignTag::parse) {
        return Ok(Some(subject));
    }
    let manifest = form::parse(descriptor, documents)?;
    Ok(referrer::subject(&manifest).map(|subject| subject.digest.clone()))
}

/// Plans the referrers of `images`, each of which will stand at the target under the digest given for it. Each name once in a repository.
pub(crate) fn plan<'a>(
    images: impl Iterator<Item = (&'a Planned, &'a Digest)>,
    documents: &BTreeMap<Digest, Bytes>,
) -> Result<Following, Error> {
    let mut following = Following::default();
    let mut seen = BTreeSet::new();
    for (planned, digest) in images {
        let mut there = at_target(planned, digest);
        let mut left: BTreeMap<Digest, Vec<ReferrerKind>> = BTreeMap::new();
        for descriptor in &planned.image.referrers {
            let manifest = form::parse(descriptor, documents)?;
            let tag = descriptor.annotations.get(REF_NAME).cloned();
            let kind = ReferrerKind::of(&manifest, tag.as_deref());
            let Some(subject) = subject_of(descriptor, documents)? else { continue };
            if !there.contains(&subject) {
                left.entry(subject).or_default().push(kind);
                continue;
            }
            there.insert(descriptor.digest.clone());
            let planned = PlannedReferrer {
                reference: planned.image.reference.clone(),
                repository: planned.repository.clone(),
                descriptor: descriptor.clone(),
                tag,
                subject,
                kind,
                state: ReferrerState::Absent,
            };
            if seen.insert(planned.key()) {
                following.referrers.push(planned);
            }
        }
        // that an image's tag stays as it was is told anyway
        if !matches!(planned.state, State::Skipped(_)) {
            following.notes.extend(left.into_iter().map(|(subject, kinds)| stays_behind(planned, &subject, &kinds)));
        }
    }
    Ok(following)
}

fn stays_behind(planned: &Planned, subject: &Digest, kinds: &[ReferrerKind]) -> String {
    let what = counted(kinds.iter().copied()).unwrap_or_default();
    let (refer, are) = if kinds.len() == 1 { ("refers", "is") } else { ("refer", "are") };
    let is_root = if *subject == planned.image.root.digest { "the index " } else { "" };
    format!(
        "{}: {what} {refer} to {is_root}{subject}, which will not be there, and {are} not pushed",
        planned.image.reference
    )
}

/// The manifests of an image that will be at the target.
fn at_target(planned: &Planned, digest: &Digest) -> BTreeSet<Digest> {
    let forms = [&planned.forms.first].into_iter().chain(&planned.forms.second);
    let below = |form: &Form| form.children.iter().chain([&form.root]).map(|d| d.digest.clone()).collect::<Vec<_>>();
    forms.filter(|form| form.root.digest == *digest).flat_map(below).collect()
}

/// Every manifest and index at and below a referrer, what is named before what names it.
///
/// # Errors
/// When the bundle's documents contradict its head.
pub fn documents_of(descriptor: &Descriptor, documents: &BTreeMap<Digest, Bytes>) -> Result<Vec<Descriptor>, Error> {
    let mut found = Vec::new();
    collect(descriptor, documents, &mut found)?;
    Ok(found)
}

/// A digest cannot contain itself, so this ends.
fn collect(
    descriptor: &Descriptor,
    documents: &BTreeMap<Digest, Bytes>,
    found: &mut Vec<Descriptor>,
) -> Result<(), Error> {
    if found.iter().any(|d| d.digest == descriptor.digest) {
        return Ok(());
    }
    if let Manifest::Index(index) = form::parse(descriptor, documents)? {
        for entry in &index.manifests {
            collect(entry, documents, found)?;
        }
    }
    found.push(descriptor.clone());
    Ok(())
}

/// The configs and layers that a referrer needs.
pub(crate) fn blobs_of(descriptor: &Descriptor, documents: &BTreeMap<Digest, Bytes>) -> Result<Vec<Descriptor>, Error> {
    let mut blobs: Vec<Descriptor> = Vec::new();
    for document in documents_of(descriptor, documents)? {
        if let Manifest::Image(image) = form::parse(&document, documents)? {
            for blob in image.blobs().filter(|b| !media_type::is_foreign_layer(&b.media_type)) {
                if !blobs.iter().any(|b| b.digest == blob.digest) {
                    blobs.push(blob.clone());
                }
            }
        }
    }
    Ok(blobs)
}

#[cfg(test)]
mod tests {
    use ferry_archive::HeadImage;
    use ferry_image::Layout;
    use serde_json::{Value, json};

    use super::*;
    use crate::form::{FormKind, Forms};

    const SBOM: &str = "application/spdx+json";

    #[derive(Default)]
    struct Sample(BTreeMap<Digest, Bytes>);

    impl Sample {
        fn add(&mut self, json: &Value) -> Descriptor {
            let bytes = Bytes::from(json.to_string());
            let descriptor = Descriptor::of(json["mediaType"].as_str().expect("type"), &bytes);
            self.0.insert(descriptor.digest.clone(), bytes);
            descriptor
        }

        fn manifest(&mut self, layer: &str, subject: Option<&Descriptor>) -> Descriptor {
            let (config, layer) = (Descriptor::of("a/config", b"{}"), Descriptor::of(SBOM, layer.as_bytes()));
            self.add(&json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": SBOM,
                "config": config, "layers": [layer], "subject": subject}))
        }
    }

    fn form(kind: FormKind, root: &Descriptor, children: &[&Descriptor]) -> Form {
        let children = children.iter().map(|d| (*d).clone()).collect();
        Form { kind, root: root.clone(), bytes: Bytes::new(), children, sparse: false }
    }

    fn planned(root: &Descriptor, forms: Forms, referrers: Vec<Descriptor>) -> Planned {
        let reference: Reference = "app:1".parse().expect("reference");
        let name = ferry_image::TargetName::place(&reference, None, Layout::Path);
        let (target, source) = (None, String::new());
        let (platforms, verified) = (Vec::new(), Vec::new());
        let root = root.clone();
        let image = HeadImage { reference, target, source, root, platforms, referrers, verified };
        Planned { image, repository: "library/app".to_owned(), tag: name.tag, forms, state: State::Absent }
    }

    #[test]
    fn only_what_refers_to_something_there_follows() {
        let mut sample = Sample::default();
        let (index, platform) = (Descriptor::of("i", b"index"), Descriptor::of("m", b"platform"));
        let mut signature = sample.manifest("signature", None);
        let tag = CosignTag::Signature.tag(&index.digest);
        signature.annotations.insert(REF_NAME.to_owned(), tag.clone());
        let of_platform = sample.manifest("of platform", Some(&platform));
        let of_index = sample.manifest("of index", Some(&index));
        let of_sbom = sample.manifest("of that", Some(&of_index));
        let referrers = vec![signature, of_platform.clone(), of_index, of_sbom];
        let original = form(FormKind::Original, &index, &[&platform]);
        let only = form(FormKind::Platform, &platform, &[]);
        let forms = Forms { first: original, second: Some(only) };
        let mut image = planned(&index, forms, referrers);
        let names = |image: &Planned, digest: &Digest| {
            let following = plan([(image, digest)].into_iter(), &sample.0).expect("plan");
            (following.referrers.iter().map(PlannedReferrer::name).collect::<Vec<_>>(), following.notes)
        };
        let (all, notes) = names(&image, &index.digest);
        assert_eq!((all.len(), &all[0], notes.len()), (4, &tag, 0));
        let (some, notes) = names(&image, &platform.digest);
        assert_eq!(some, [of_platform.digest.to_string()]);
        let index = &index.digest;
        assert_eq!(notes.len(), 2, "{notes:?}");
        let told = format!(
            "docker.io/library/app:1: 1 signature, 1 sbom refer to the index {index}, which will not be there, and are not pushed"
        );
        assert!(notes.contains(&told), "{notes:?}");
        image.state = State::Skipped(Digest::of(b"other"));
        assert_eq!(names(&image, &Digest::of(b"other")), (vec![], vec![]));
    }

    #[test]
    fn two_images_with_one_name_share_their_referrers() {
        let mut sample = Sample::default();
        let root = Descriptor::of("m", b"root");
        let referrer = sample.manifest("r", Some(&root));
        let forms = Forms { first: form(FormKind::Original, &root, &[]), second: None };
        let image = planned(&root, forms, vec![referrer]);
        let following = plan([(&image, &root.digest), (&image, &root.digest)].into_iter(), &sample.0).expect("plan");
        assert_eq!(following.referrers.len(), 1);
    }

    #[test]
    fn what_an_index_names_goes_before_it() {
        let mut sample = Sample::default();
        let (a, b) = (sample.manifest("a", None), sample.manifest("b", None));
        let index = |sample: &mut Sample, of: &[&Descriptor]| {
            sample.add(&json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": of}))
        };
        let inner = index(&mut sample, &[&a]);
        let outer = index(&mut sample, &[&inner, &b, &a]);
        let order: Vec<Digest> = documents_of(&outer, &sample.0).expect("all").into_iter().map(|d| d.digest).collect();
        assert_eq!(order, [&a, &inner, &b, &outer].map(|d| d.digest.clone()));
        assert_eq!(blobs_of(&outer, &sample.0).expect("blobs").len(), 3, "the config once");
    }
}
