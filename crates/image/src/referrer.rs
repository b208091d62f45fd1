//! What refers to an image: signatures, attestations, SBOMs. How they are found (distribution-spec, "Listing Referrers" and "Referrers
//! Tag Schema"; the tags of cosign, which know no subject), and what they are.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Algorithm, Descriptor, Digest, Manifest};

/// The longest run of a digest's characters in a tag.
const LONGEST: usize = 64;
/// The media type of the payload that cosign signs.
pub const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// How the media type of a sigstore bundle begins; its version follows.
pub const SIGSTORE_BUNDLE: &str = "application/vnd.dev.sigstore.bundle";
/// The annotation of a sigstore bundle's manifest that says what it states.
const PREDICATE_TYPE: &str = "dev.sigstore.bundle.predicateType";
/// The predicate of a sigstore bundle that is the signature of an image.
pub const COSIGN_SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

/// What a referrer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReferrerKind {
    /// A signature: cosign's, notation's.
    Signature,
    /// A signed statement: provenance, a test report.
    Attestation,
    /// A list of what is inside.
    Sbom,
    /// Anything else.
    Other,
}

/// What cosign puts beside an image under a tag that names the image's digest (cosign, SIGNATURE_SPEC.md, "Tag-based Discovery").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CosignTag {
    /// `sha256-HEX.sig`
    Signature,
    /// `sha256-HEX.att`
    Attestation,
    /// `sha256-HEX.sbom`
    Sbom,
}

impl ReferrerKind {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Signature, Self::Attestation, Self::Sbom, Self::Other];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Signature => "signature",
            Self::Attestation => "attestation",
            Self::Sbom => "sbom",
            Self::Other => "other",
        }
    }

    /// What `manifest` is, that stands under `tag`. The manifest is asked and not what a list says of it: lists of some registries
    /// give the type of an empty config instead of the artifact's.
    #[must_use]
    pub fn of(manifest: &Manifest, tag: Option<&str>) -> Self {
        if let Some((_, cosign)) = tag.and_then(CosignTag::parse) {
            return cosign.kind();
        }
        let (artifact_type, annotations) = match manifest {
            Manifest::Image(image) => (&image.artifact_type, &image.annotations),
            Manifest::Index(index) => (&index.artifact_type, &index.annotations),
        };
        let predicate = annotations.get(PREDICATE_TYPE).map(String::as_str);
        let types = artifact_type.iter().map(String::as_str);
        let below = match manifest {
            Manifest::Image(image) => image.blobs().map(|blob| blob.media_type.as_str()).collect(),
            Manifest::Index(_) => Vec::new(),
        };
        types.chain(below).find_map(|media_type| kind_of(media_type, predicate)).unwrap_or(Self::Other)
    }
}

/// How many there are of each kind, for people: `2 signatures, 1 sbom`. None when there is none.
pub fn counted(kinds: impl IntoIterator<Item = ReferrerKind>) -> Option<String> {
    let mut counts: BTreeMap<ReferrerKind, usize> = BTreeMap::new();
    for kind in kinds {
        *counts.entry(kind).or_default() += 1;
    }
    let words: Vec<String> = counts
        .into_iter()
        .map(|(kind, n)| {
            let name = if kind == ReferrerKind::Other { "other referrer" } else { kind.name() };
            format!("{n} {name}{}", if n == 1 { "" } else { "s" })
        })
        .collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// What a media type tells; none where it may be anything.
fn kind_of(media_type: &str, predicate: Option<&str>) -> Option<ReferrerKind> {
    let has = |words: &[&str]| words.iter().any(|word| media_type.contains(word));
    if media_type.starts_with(SIGSTORE_BUNDLE) {
        let is_signature = predicate.is_none_or(|predicate| predicate == COSIGN_SIGN);
        return Some(if is_signature { ReferrerKind::Signature } else { ReferrerKind::Attestation });
    }
    if has(&["cosign.artifact.sig", "cosign.simplesigning", "notary.signature"]) {
        Some(ReferrerKind::Signature)
    } else if has(&["in-toto", "dsse.envelope"]) {
        Some(ReferrerKind::Attestation)
    } else if has(&["spdx", "cyclonedx", "syft", "sbom"]) {
        Some(ReferrerKind::Sbom)
    } else {
        None
    }
}

impl CosignTag {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Signature, Self::Attestation, Self::Sbom];

    /// What stands under such a tag.
    #[must_use]
    pub fn kind(self) -> ReferrerKind {
        match self {
            Self::Signature => ReferrerKind::Signature,
            Self::Attestation => ReferrerKind::Attestation,
            Self::Sbom => ReferrerKind::Sbom,
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Signature => ".sig",
            Self::Attestation => ".att",
            Self::Sbom => ".sbom",
        }
    }

    /// The tag beside `subject`.
    #[must_use]
    pub fn tag(self, subject: &Digest) -> String {
        format!("{}-{}{}", subject.algorithm().name(), subject.hex(), self.suffix())
    }

    /// The subject that such a tag names, and what stands there.
    #[must_use]
    pub fn parse(tag: &str) -> Option<(Digest, Self)> {
        let (stem, cosign) = Self::ALL.into_iter().find_map(|c| Some((tag.strip_suffix(c.suffix())?, c)))?;
        let (algorithm, hex) = stem.split_once('-')?;
        Some((format!("{algorithm}:{hex}").parse().ok()?, cosign))
    }
}

/// The tag whose index lists the referrers of `subject` at registries without a referrers API ("Referrers Tag Schema").
#[must_use]
pub fn fallback_tag(subject: &Digest) -> String {
    let hex = subject.hex();
    format!("{}-{}", subject.algorithm().name(), hex.get(..LONGEST).unwrap_or(hex))
}

/// Whether a tag is one of those that stand for a digest and belong to no user.
#[must_use]
pub fn is_for_referrers(tag: &str) -> bool {
    let of = |algorithm: Algorithm| tag.strip_prefix(algorithm.name()).and_then(|rest| rest.strip_prefix('-'));
    let fallback = of(Algorithm::Sha256).or_else(|| of(Algorithm::Sha512));
    CosignTag::parse(tag).is_some()
        || fallback.is_some_and(|hex| hex.len() == LONGEST && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// What a manifest says that it refers to.
#[must_use]
pub fn subject(manifest: &Manifest) -> Option<&Descriptor> {
    match manifest {
        Manifest::Image(image) => image.subject.as_ref(),
        Manifest::Index(index) => index.subject.as_ref(),
    }
}

/// The subject of a manifest, and the descriptor under which it is listed as that subject's referrer ("Pushing Manifests with
/// Subject"): with its annotations, and the config's media type where there is no artifact type.
#[must_use]
pub fn listed(manifest: &Manifest, descriptor: &Descriptor) -> Option<(Digest, Descriptor)> {
    let (artifact_type, annotations) = match manifest {
        Manifest::Image(image) => {
            let artifact_type = image.artifact_type.clone().filter(|t| !t.is_empty());
            (artifact_type.or_else(|| Some(image.config.media_type.clone())), &image.annotations)
        }
        Manifest::Index(index) => (index.artifact_type.clone(), &index.annotations),
    };
    let mut entry = Descriptor::new(&descriptor.media_type, descriptor.digest.clone(), descriptor.size);
    entry.artifact_type = artifact_type;
    entry.annotations = annotations.clone();
    Some((subject(manifest)?.digest.clone(), entry))
}

impl fmt::Display for ReferrerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ReferrerKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|kind| kind.name() == text);
        named.ok_or_else(|| format!("is none of {}", Self::ALL.map(Self::name).join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::media_type;

    const EMPTY: &str = "application/vnd.oci.empty.v1+json";

    fn manifest(artifact_type: Option<&str>, config: &str, layer: &str, annotations: &serde_json::Value) -> Manifest {
        let json = json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": artifact_type,
            "config": Descriptor::of(config, b"{}"), "layers": [Descriptor::of(layer, b"layer")],
            "subject": Descriptor::of(media_type::OCI_MANIFEST, b"subject"), "annotations": annotations,
        });
        Manifest::parse(json.to_string().as_bytes(), None).expect("manifest")
    }

    #[test]
    fn tags_name_their_subject() {
        let digest = Digest::of(b"x");
        for cosign in CosignTag::ALL {
            assert_eq!(CosignTag::parse(&cosign.tag(&digest)), Some((digest.clone(), cosign)));
            assert!(is_for_referrers(&cosign.tag(&digest)));
        }
        assert_eq!(CosignTag::Signature.tag(&digest), format!("sha256-{}.sig", digest.hex()));
        assert_eq!(fallback_tag(&digest), format!("sha256-{}", digest.hex()));
        // truncated to 64 characters, as the table of the specification has it
        let long: Digest = format!("sha512:{}", "a".repeat(128)).parse().expect("digest");
        assert_eq!(fallback_tag(&long), format!("sha512-{}", "a".repeat(64)));
        assert!(is_for_referrers(&fallback_tag(&digest)) && is_for_referrers(&fallback_tag(&long)));
        for tag in ["1.27", "sha256-1.sig", "x.sig", "sha256-.att", &format!("md5-{}.sig", digest.hex()), "sha256-abc"]
        {
            assert!(CosignTag::parse(tag).is_none() && !is_for_referrers(tag), "{tag}");
        }
    }

    #[test]
    fn a_referrer_is_what_its_manifest_says() {
        let sign = json!({"dev.sigstore.bundle.predicateType": COSIGN_SIGN});
        let slsa = json!({"dev.sigstore.bundle.predicateType": "https://slsa.dev/provenance/v1"});
        let bundle = "application/vnd.dev.sigstore.bundle.v0.3+json";
        let none = json!({});
        use ReferrerKind::{Attestation, Other, Sbom, Signature};
        let table = [
            (Some(bundle), EMPTY, bundle, &sign, Signature),
            (Some(bundle), EMPTY, bundle, &slsa, Attestation),
            // the artifact type that one version of cosign leaves out
            (None, EMPTY, bundle, &slsa, Attestation),
            (Some(bundle), EMPTY, bundle, &none, Signature),
            (Some("application/vnd.dev.cosign.artifact.sig.v1+json"), EMPTY, SIMPLE_SIGNING, &none, Signature),
            (Some("application/vnd.cncf.notary.signature"), EMPTY, "application/jose+json", &none, Signature),
            (Some("application/spdx+json"), EMPTY, "application/spdx+json", &none, Sbom),
            (None, EMPTY, "application/vnd.cyclonedx+json", &none, Sbom),
            (Some("application/vnd.in-toto+json"), EMPTY, "application/vnd.dsse.envelope.v1+json", &none, Attestation),
            (Some("application/vnd.example.thing"), EMPTY, "text/plain", &none, Other),
        ];
        for (artifact_type, config, layer, annotations, kind) in table {
            let manifest = manifest(artifact_type, config, layer, annotations);
            assert_eq!(ReferrerKind::of(&manifest, None), kind, "{artifact_type:?} {layer}");
            let tag = CosignTag::Sbom.tag(&Digest::of(b"x"));
            assert_eq!(ReferrerKind::of(&manifest, Some(&tag)), Sbom, "a tag says it first");
        }
        for kind in ReferrerKind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        assert!("signatures".parse::<ReferrerKind>().is_err());
    }

    #[test]
    fn referrers_for_people() {
        use ReferrerKind::{Other, Sbom, Signature};
        for (kinds, text) in [
            (&[][..], None),
            (&[Sbom, Signature, Signature], Some("2 signatures, 1 sbom")),
            (&[Other], Some("1 other referrer")),
            (&[Other, Other], Some("2 other referrers")),
        ] {
            assert_eq!(counted(kinds.iter().copied()).as_deref(), text);
        }
    }

    #[test]
    fn lists_have_artifact_type_and_annotations() {
        let descriptor = Descriptor::of(media_type::OCI_MANIFEST, b"referrer");
        let note = json!({"a": "b"});
        let (subject, entry) = listed(&manifest(None, EMPTY, "x/y", &note), &descriptor).expect("subject");
        assert_eq!(subject, Digest::of(b"subject"));
        assert_eq!((entry.artifact_type.as_deref(), entry.annotations.len()), (Some(EMPTY), 1));
        let (_, entry) = listed(&manifest(Some("t/u"), EMPTY, "x/y", &note), &descriptor).expect("subject");
        assert_eq!((entry.artifact_type.as_deref(), &entry.digest), (Some("t/u"), &descriptor.digest));
    }
}
