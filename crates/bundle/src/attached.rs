//! What goes with an image: the referrers that are carried, and the proof that somebody signed it.

use std::collections::BTreeSet;

use ferry_image::Digest;

use crate::Error;
use crate::lock::Locked;
use crate::manifest::{KeyFile, ReferrerKinds};
use crate::place::Place;
use crate::referrers::{self, Found, Referrer};
use crate::verify::{self, Keys, Verified};

/// What is wanted for one image.
#[derive(Clone, Copy)]
pub(crate) struct Wish<'a> {
    /// What is carried.
    pub(crate) kinds: &'a ReferrerKinds,
    /// The keys of which one must have signed it; none when it need not be signed.
    pub(crate) signers: &'a [KeyFile],
    /// All keys.
    pub(crate) keys: &'a Keys,
    pub(crate) locked: Option<&'a Locked>,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Attached {
    /// Referrers that are carried, subjects before what refers to them.
    pub(crate) carried: Vec<Referrer>,
    /// Signatures that hold and are not carried: a lock must know them.
    pub(crate) proofs: Vec<Referrer>,
    /// The signatures that were asked for.
    pub(crate) verified: Vec<Verified>,
    /// What somebody should know.
    pub(crate) warnings: Vec<String>,
}

/// Finds what goes with the image of `root`, of which `manifests` are carried.
pub(crate) async fn attach(
    place: &Place,
    root: &Digest,
    manifests: &[Digest],
    wish: Wish<'_>,
) -> Result<Attached, Error> {
    if wish.kinds.is_none() && wish.signers.is_empty() {
        return Ok(Attached::default());
    }
    let mut subjects = vec![root.clone()];
    subjects.extend(manifests.iter().filter(|manifest| *manifest != root).cloned());
    let found = match wish.locked {
        None => referrers::find(place, &subjects).await?,
        Some(locked) => {
            let listed = [locked.referrers.as_slice(), locked.proofs.as_slice()].concat();
            Found { referrers: referrers::locked(place, &listed).await?, warnings: Vec::new() }
        }
    };
    let verified = match wish.signers {
        [] => Vec::new(),
        signers => {
            verify::verify(place, root, manifests, &found.referrers, wish.keys, signers, wish.locked.is_some()).await?
        }
    };
    let (carried, others) = split(found.referrers, &subjects, wish.kinds);
    referrers::check_size(place, &carried)?;
    let is_proof = |referrer: &Referrer| verified.iter().any(|v| v.signature == referrer.descriptor.digest);
    let proofs = others.into_iter().filter(is_proof).collect();
    let warnings = if wish.kinds.is_none() { Vec::new() } else { found.warnings };
    Ok(Attached { carried, proofs, verified, warnings })
}

/// Those of the wanted kinds whose subject is carried, and the others.
fn split(found: Vec<Referrer>, subjects: &[Digest], kinds: &ReferrerKinds) -> (Vec<Referrer>, Vec<Referrer>) {
    let mut there: BTreeSet<Digest> = subjects.iter().cloned().collect();
    found.into_iter().partition(|referrer| {
        let is_carried = kinds.has(referrer.kind) && there.contains(&referrer.subject);
        if is_carried {
            there.insert(referrer.descriptor.digest.clone());
        }
        is_carried
    })
}

#[cfg(test)]
mod tests {
    use ferry_image::{Descriptor, ReferrerKind};

    use super::*;
    use crate::select::Whole;

    fn referrer(name: &str, subject: &str, kind: ReferrerKind) -> Referrer {
        let subject = Digest::of(subject.as_bytes());
        let descriptor = Descriptor::of("x", name.as_bytes());
        Referrer { descriptor, tag: None, subject, kind, whole: Whole::default() }
    }

    #[test]
    fn what_refers_to_something_that_stays_behind_stays_too() {
        use ReferrerKind::{Attestation, Sbom, Signature};
        let found = || {
            vec![
                referrer("signature", "image", Signature),
                referrer("sbom", "image", Sbom),
                referrer("of sbom", "sbom", Signature),
                referrer("attestation", "image", Attestation),
            ]
        };
        let image = [Digest::of(b"image")];
        let names = |kinds: &[ReferrerKind]| -> Vec<Digest> {
            let (carried, _) = split(found(), &image, &ReferrerKinds::these(kinds.to_vec()));
            carried.into_iter().map(|r| r.descriptor.digest).collect()
        };
        let digests = |names: &[&str]| -> Vec<Digest> { names.iter().map(|n| Digest::of(n.as_bytes())).collect() };
        assert_eq!(names(&[Signature]), digests(&["signature"]));
        assert_eq!(names(&[Signature, Sbom]), digests(&["signature", "sbom", "of sbom"]));
        assert_eq!(names(&ReferrerKind::ALL), digests(&["signature", "sbom", "of sbom", "attestation"]));
        assert_eq!(names(&[]), digests(&[]));
    }
}
