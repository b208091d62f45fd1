//! In which form an image stands at the target: the original index, one filtered to what is carried, or a platform's manifest
//! (design, "Platforms and digests"). Pure, over the bytes in the bundle.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ferry_archive::HeadImage;
use ferry_image::{Descriptor, Digest, Manifest, media_type};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::names::Named;
use crate::referrers;

/// Indexes within indexes that are followed; bundles are made with half as many.
const MAX_NESTING: usize = 8;

/// The user's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IndexMode {
    /// The original index where the reference is pinned to it, or signatures and the like are carried with it, and the target takes
    /// it; otherwise as `filtered`, and for one platform as `platform`.
    #[default]
    Auto,
    /// Always the original index, though some of its platforms may be absent.
    Sparse,
    /// An index with the carried platforms only.
    Filtered,
    /// The platform's manifest itself, where one platform is carried; as `filtered` where several are.
    Platform,
}

/// What a form is, compared with what the reference named at its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FormKind {
    /// The same, byte for byte.
    Original,
    /// An index of the carried platforms.
    Filtered,
    /// A platform's manifest in the place of its index.
    Platform,
}

/// What is pushed under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// What it is.
    pub kind: FormKind,
    /// The manifest or index that the name will stand for.
    pub root: Descriptor,
    /// Its bytes.
    pub bytes: Bytes,
    /// Manifests and indexes that must be there before it, in the order to push them.
    pub children: Vec<Descriptor>,
    /// Whether it names manifests that are not carried.
    pub sparse: bool,
}

/// The form to try, and another one if the target refuses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forms {
    /// To try first.
    pub first: Form,
    /// If the first is refused.
    pub second: Option<Form>,
}

/// Chooses the forms of an image. `documents` has the bytes of every manifest and index that is carried with it.
///
/// # Errors
/// When the bundle's documents contradict its head.
pub fn choose(named: &Named, documents: &BTreeMap<Digest, Bytes>, mode: IndexMode) -> Result<Forms, Error> {
    let image = &named.image;
    let Manifest::Index(_) = parse(&image.root, documents)? else {
        let bytes = bytes(&image.root, documents)?;
        let form =
            Form { kind: FormKind::Original, root: image.root.clone(), bytes, children: Vec::new(), sparse: false };
        return Ok(Forms { first: form, second: None });
    };
    let original = original(image, documents)?;
    if !original.sparse && mode != IndexMode::Platform {
        return Ok(Forms { first: original, second: None });
    }
    let whole = || match (image.platforms.as_slice(), mode) {
        ([only], IndexMode::Auto | IndexMode::Platform) => platform(&only.manifest, documents),
        _ => filtered(image, documents),
    };
    Ok(match mode {
        IndexMode::Sparse => Forms { first: original, second: None },
        IndexMode::Auto if named.is_pinned || is_referred_to(image, documents)? => {
            Forms { first: original, second: Some(whole()?) }
        }
        _ => Forms { first: whole()?, second: None },
    })
}

/// Whether signatures and the like of the index itself are carried.
fn is_referred_to(image: &HeadImage, documents: &BTreeMap<Digest, Bytes>) -> Result<bool, Error> {
    for referrer in &image.referrers {
        if referrers::subject_of(referrer, documents)?.as_ref() == Some(&image.root.digest) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The index as it came. Its children are what is carried below it, indexes included.
///
/// # Errors
/// When the bundle's documents contradict its head.
pub fn original(image: &HeadImage, documents: &BTreeMap<Digest, Bytes>) -> Result<Form, Error> {
    let mut children = Vec::new();
    let sparse = below(&image.root, documents, 0, &mut children)?;
    let bytes = bytes(&image.root, documents)?;
    Ok(Form { kind: FormKind::Original, root: image.root.clone(), bytes, children, sparse })
}

/// The platforms, as written, of what a form names and the bundle does not carry; each once.
///
/// # Errors
/// When its bytes are not an index.
pub fn absent_platforms(form: &Form) -> Result<Vec<serde_json::Value>, Error> {
    #[derive(Deserialize)]
    struct Index {
        manifests: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        digest: Digest,
        platform: Option<serde_json::Value>,
    }
    let index: Index = serde_json::from_slice(&form.bytes).map_err(|e| document(&form.root, e.to_string()))?;
    let mut platforms = Vec::new();
    for entry in index.manifests {
        let Some(platform) = entry.platform else { continue };
        if !form.children.iter().any(|child| child.digest == entry.digest) && !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    Ok(platforms)
}

/// Lists what is carried below `index`, lowest first. True when something is not carried.
fn below(
    index: &Descriptor,
    documents: &BTreeMap<Digest, Bytes>,
    depth: usize,
    children: &mut Vec<Descriptor>,
) -> Result<bool, Error> {
    check_depth(index, depth)?;
    let Manifest::Index(view) = parse(index, documents)? else { return Ok(false) };
    let mut sparse = false;
    for entry in &view.manifests {
        if !documents.contains_key(&entry.digest) {
            sparse = true;
            continue;
        }
        if children.iter().any(|c| c.digest == entry.digest) {
            continue;
        }
        // a nested index goes after what it names; a digest cannot contain itself
        if media_type::is_index(&entry.media_type) {
            sparse |= below(entry, documents, depth + 1, children)?;
        }
        children.push(plain(entry));
    }
    Ok(sparse)
}

fn check_depth(index: &Descriptor, depth: usize) -> Result<(), Error> {
    if depth <= MAX_NESTING {
        return Ok(());
    }
    Err(document(index, format!("indexes are nested deeper than {MAX_NESTING}")))
}

/// An index of the original's entries that are carried, each as it stood there.
fn filtered(image: &HeadImage, documents: &BTreeMap<Digest, Bytes>) -> Result<Form, Error> {
    let mut entries = Vec::new();
    entries_below(&image.root, documents, image, 0, &mut BTreeSet::new(), &mut entries)?;
    let fail = |e: serde_json::Error| document(&image.root, e.to_string());
    let mut json: serde_json::Value = serde_json::from_slice(&bytes(&image.root, documents)?).map_err(fail)?;
    if let Some(object) = json.as_object_mut() {
        object.insert("manifests".to_owned(), serde_json::Value::Array(entries));
    }
    let bytes = Bytes::from(serde_json::to_vec(&json).map_err(fail)?);
    let children = image.platforms.iter().map(|p| plain(&p.manifest)).collect();
    let root = Descriptor::of(&image.root.media_type, &bytes);
    Ok(Form { kind: FormKind::Filtered, root, bytes, children, sparse: false })
}

fn entries_below(
    index: &Descriptor,
    documents: &BTreeMap<Digest, Bytes>,
    image: &HeadImage,
    depth: usize,
    seen: &mut BTreeSet<Digest>,
    entries: &mut Vec<serde_json::Value>,
) -> Result<(), Error> {
    check_depth(index, depth)?;
    #[derive(Deserialize)]
    struct Entries {
        manifests: Vec<serde_json::Value>,
    }
    let fail = |e: serde_json::Error| document(index, e.to_string());
    let raw: Entries = serde_json::from_slice(&bytes(index, documents)?).map_err(fail)?;
    for value in raw.manifests {
        let entry: Descriptor = serde_json::from_value(value.clone()).map_err(fail)?;
        if media_type::is_index(&entry.media_type) && documents.contains_key(&entry.digest) {
            // an index that is listed several times has nothing new the second time
            if seen.insert(entry.digest.clone()) {
                entries_below(&entry, documents, image, depth + 1, seen, entries)?;
            }
        } else if image.platforms.iter().any(|p| p.manifest.digest == entry.digest) && !entries.contains(&value) {
            entries.push(value);
        }
    }
    Ok(())
}

fn platform(manifest: &Descriptor, documents: &BTreeMap<Digest, Bytes>) -> Result<Form, Error> {
    let bytes = bytes(manifest, documents)?;
    Ok(Form { kind: FormKind::Platform, root: plain(manifest), bytes, children: Vec::new(), sparse: false })
}

fn plain(descriptor: &Descriptor) -> Descriptor {
    Descriptor::new(&descriptor.media_type, descriptor.digest.clone(), descriptor.size)
}

pub(crate) fn parse(descriptor: &Descriptor, documents: &BTreeMap<Digest, Bytes>) -> Result<Manifest, Error> {
    let declared = (!descriptor.media_type.is_empty()).then_some(descriptor.media_type.as_str());
    Manifest::parse(&bytes(descriptor, documents)?, declared)
        .map_err(|source| Error::Document { digest: descriptor.digest.clone(), source })
}

/// The bytes of a manifest.
///
/// # Errors
/// When the bundle does not carry it.
pub fn bytes(descriptor: &Descriptor, documents: &BTreeMap<Digest, Bytes>) -> Result<Bytes, Error> {
    let found = documents.get(&descriptor.digest).cloned();
    found.ok_or_else(|| document(descriptor, "the bundle does not carry it".to_owned()))
}

fn document(descriptor: &Descriptor, why: String) -> Error {
    let source = ferry_image::Error::Document { what: "manifest", why };
    Error::Document { digest: descriptor.digest.clone(), source }
}

#[cfg(test)]
mod tests {
    use ferry_archive::HeadPlatform;
    use ferry_image::TargetName;

    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn manifest(n: u8) -> Bytes {
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"{}","digest":"{D}","size":0}},"layers":[],"annotations":{{"n":"{n}"}}}}"#,
            media_type::OCI_MANIFEST,
            media_type::OCI_CONFIG
        );
        Bytes::from(text)
    }

    fn sample(carried: &[usize], reference: &str) -> (Named, BTreeMap<Digest, Bytes>) {
        let manifests = [manifest(0), manifest(1), manifest(2)];
        let entries: Vec<String> = manifests
            .iter()
            .zip(["amd64", "arm64", "s390x"])
            .map(|(m, arch)| {
                let d = Descriptor::of(media_type::OCI_MANIFEST, m);
                format!(
                    r#"{{"mediaType":"{}","digest":"{}","size":{},"platform":{{"architecture":"{arch}","os":"linux"}},"x":1}}"#,
                    d.media_type, d.digest, d.size
                )
            })
            .collect();
        let index = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{}],"annotations":{{"keep":"me"}}}}"#,
            media_type::OCI_INDEX,
            entries.join(",")
        );
        let index = Bytes::from(index);
        let root = Descriptor::of(media_type::OCI_INDEX, &index);
        let mut documents = BTreeMap::from([(root.digest.clone(), index)]);
        let mut platforms = Vec::new();
        for i in carried {
            let manifest = Descriptor::of(media_type::OCI_MANIFEST, &manifests[*i]);
            documents.insert(manifest.digest.clone(), manifests[*i].clone());
            platforms.push(HeadPlatform { platform: None, manifest });
        }
        let reference: ferry_image::Reference =
            reference.replace("ROOT", &root.digest.to_string()).parse().expect("reference");
        let (is_pinned, name) =
            (reference.digest().is_some(), TargetName::place(&reference, None, ferry_image::Layout::Path));
        let image = HeadImage {
            reference,
            target: None,
            source: String::new(),
            root,
            platforms,
            referrers: vec![],
            verified: vec![],
        };
        (Named { image, name, is_pinned }, documents)
    }

    #[test]
    fn a_plain_tag_gets_something_whole() {
        let (image, documents) = sample(&[1], "nginx:1");
        let forms = choose(&image, &documents, IndexMode::Auto).expect("forms");
        assert_eq!((forms.first.root.digest, forms.second), (Digest::of(&manifest(1)), None));

        let (image, documents) = sample(&[0, 2], "nginx:1");
        let form = choose(&image, &documents, IndexMode::Auto).expect("forms").first;
        let text = String::from_utf8(form.bytes.to_vec()).expect("text");
        assert!(text.contains("keep") && text.contains(r#""x":1"#) && !text.contains("arm64"), "{text}");
        assert_eq!(form.children.len(), 2);
        assert!(!form.sparse);
        assert_eq!(form.root.digest, Digest::of(&form.bytes));
    }

    #[test]
    fn a_pinned_reference_keeps_its_index_if_it_can() {
        let (image, documents) = sample(&[1], "nginx@ROOT");
        let forms = choose(&image, &documents, IndexMode::Auto).expect("forms");
        assert_eq!(forms.first.root.digest, image.image.root.digest);
        assert!(forms.first.sparse);
        assert_eq!(forms.second.expect("second").root.digest, Digest::of(&manifest(1)));
    }

    #[test]
    fn a_signed_index_is_kept_if_it_can() {
        let (mut image, documents) = sample(&[1], "nginx:1");
        let mut signature = Descriptor::of(media_type::OCI_MANIFEST, b"signature");
        let platform = image.image.platforms[0].manifest.digest.clone();
        for (subject, kind) in [(&platform, FormKind::Platform), (&image.image.root.digest, FormKind::Original)] {
            let tag = ferry_image::CosignTag::Signature.tag(subject);
            signature.annotations.insert(ferry_archive::oci::REF_NAME.to_owned(), tag);
            image.image.referrers = vec![signature.clone()];
            assert_eq!(choose(&image, &documents, IndexMode::Auto).expect("forms").first.kind, kind);
        }
        let forms = choose(&image, &documents, IndexMode::Auto).expect("forms");
        assert_eq!((forms.first.kind, forms.second.map(|f| f.kind)), (FormKind::Original, Some(FormKind::Platform)));
    }

    #[test]
    fn the_platforms_that_are_absent() {
        let (image, documents) = sample(&[1], "nginx@ROOT");
        let absent = |form: &Form| {
            let platforms = absent_platforms(form).expect("platforms").into_iter();
            platforms.map(|p| p["architecture"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        let form = original(&image.image, &documents).expect("form");
        assert_eq!(absent(&form), ["amd64", "s390x"]);
        let (image, documents) = sample(&[0, 1, 2], "nginx@ROOT");
        assert!(absent(&original(&image.image, &documents).expect("form")).is_empty());
    }

    #[test]
    fn a_whole_index_stays_as_it_is() {
        for mode in [IndexMode::Auto, IndexMode::Filtered, IndexMode::Sparse] {
            let (image, documents) = sample(&[0, 1, 2], "nginx:1");
            let forms = choose(&image, &documents, mode).expect("forms");
            assert_eq!((forms.first.root.digest, forms.first.sparse), (image.image.root.digest, false));
        }
    }

    #[test]
    fn the_mode_decides() {
        let (image, documents) = sample(&[1], "nginx:1");
        let root = |mode| choose(&image, &documents, mode).expect("forms").first;
        assert_eq!(root(IndexMode::Sparse).root.digest, image.image.root.digest);
        assert_eq!((root(IndexMode::Filtered).children.len(), root(IndexMode::Filtered).kind), (1, FormKind::Filtered));
        assert_eq!(root(IndexMode::Platform).root.digest, Digest::of(&manifest(1)));
        assert_eq!(root(IndexMode::Platform).kind, FormKind::Platform);
    }

    /// Each index names the next one many times: 100^6 ways lead down. A chain without end is refused.
    #[test]
    fn indexes_that_multiply_are_followed_once() {
        let (mut named, mut documents) = sample(&[0], "a/b:1");
        let chain = |documents: &mut BTreeMap<Digest, Bytes>, mut root: Descriptor, levels: usize| {
            for _ in 0..levels {
                let json = serde_json::json!({"schemaVersion": 2, "manifests": vec![root; 100]});
                let bytes = Bytes::from(json.to_string());
                root = Descriptor::of(media_type::OCI_INDEX, &bytes);
                documents.insert(root.digest.clone(), bytes);
            }
            root
        };
        named.image.root = chain(&mut documents, named.image.root.clone(), 6);
        let filtered = choose(&named, &documents, IndexMode::Filtered).expect("forms").first;
        assert_eq!((filtered.kind, filtered.children.len()), (FormKind::Filtered, 1));
        named.image.root = chain(&mut documents, named.image.root.clone(), 3);
        let error = choose(&named, &documents, IndexMode::Filtered).expect_err("too deep").to_string();
        assert!(error.contains("nested deeper than 8"), "{error}");
    }
}
