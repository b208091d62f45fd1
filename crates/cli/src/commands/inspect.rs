//! `ferry inspect`.

use ferry_archive::{Bundle, Error as Fault, Head, HeadImage, Trust, oci};
use ferry_content::{Failure as _, Kind};
use ferry_image::manifest::MAX_MANIFEST;
use ferry_image::{CosignTag, Descriptor, Digest, Manifest, ReferrerKind, TargetName, referrer};

use crate::failure::End;
use crate::{args, bundles, keys, print};

pub(crate) fn run(args: &args::Inspect) -> Result<(), End> {
    // looking needs no trust; what is known of it is said
    let trust = Trust { keys: keys::public(&args.keys)?, allow_unsigned: true, require: 1 };
    let (bundle, faults) = Bundle::open_damaged(&bundles::one(&args.bundle)?, &trust)?;
    keys::tell(bundle.signed());
    // what is inside can be told while volumes are elsewhere; anything else must be mended first
    for fault in faults {
        match &fault {
            Fault::Volumes { .. } if fault.kind() == Kind::Missing => print::warnings(&[fault.to_string()]),
            _ => return Err(fault.into()),
        }
    }
    let without_docker = bundle.without_docker()?;
    if args.json {
        print::out(&json(&bundle, &without_docker)?);
    } else {
        print::out(&text(&bundle, &without_docker, !trust.keys.is_empty())?);
    }
    if bundle.signed().signers.is_empty() {
        print::talk(&format!("  hint: {}", untrusted(&trust)));
    }
    Ok(())
}

/// What it means that nobody who is trusted has signed, and what to do about it.
fn untrusted(trust: &Trust) -> String {
    let means = "all of this is what the file says of itself, and anybody may have written it";
    match trust.keys.as_slice() {
        [] => format!(
            "{means}; to have the signature checked, give the public key of who made the bundle, which comes by another way than the \
             bundle, with `--key ferry.pub`, or a folder of keys with `--keys` or in `FERRY_KEYS`"
        ),
        keys => {
            let names: Vec<String> = keys.iter().map(ToString::to_string).collect();
            format!("{means}; the keys given are {}: ask who made the bundle for the right one", names.join(", "))
        }
    }
}

/// What refers to an image: its descriptor, its tag, its subject, its kind.
struct Referrer<'a> {
    descriptor: &'a Descriptor,
    tag: Option<&'a str>,
    subject: Option<Digest>,
    kind: ReferrerKind,
}

fn referrers<'a>(bundle: &Bundle, image: &'a HeadImage) -> Result<Vec<Referrer<'a>>, End> {
    let mut referrers = Vec::with_capacity(image.referrers.len());
    for descriptor in &image.referrers {
        let bytes = bundle.read_small(&descriptor.digest, MAX_MANIFEST)?;
        let manifest = Manifest::parse(&bytes, Some(&descriptor.media_type)).ok();
        let tag = descriptor.annotations.get(oci::REF_NAME).map(String::as_str);
        let named = tag.and_then(CosignTag::parse).map(|(subject, _)| subject);
        let subject = named.or_else(|| manifest.as_ref().and_then(referrer::subject).map(|s| s.digest.clone()));
        let kind = manifest.map_or(ReferrerKind::Other, |manifest| ReferrerKind::of(&manifest, tag));
        referrers.push(Referrer { descriptor, tag, subject, kind });
    }
    Ok(referrers)
}

fn target(head: &Head, image: &HeadImage) -> TargetName {
    TargetName::place(&image.reference, image.target.as_ref(), head.layout)
}

fn json(bundle: &Bundle, without_docker: &[ferry_image::Reference]) -> Result<String, End> {
    let head = bundle.head();
    let mut images = Vec::with_capacity(head.images.len());
    for image in &head.images {
        let platforms: Vec<_> = image
            .platforms
            .iter()
            .map(|p| serde_json::json!({"platform": p.platform, "digest": p.manifest.digest}))
            .collect();
        let referrers: Vec<_> = referrers(bundle, image)?
            .into_iter()
            .map(|r| {
                serde_json::json!({
                    "kind": r.kind, "digest": r.descriptor.digest, "subject": r.subject, "tag": r.tag,
                    "artifactType": r.descriptor.artifact_type,
                })
            })
            .collect();
        images.push(serde_json::json!({
            "reference": image.reference, "source": image.source, "target": target(head, image),
            "digest": image.root.digest, "platforms": platforms,
            "dockerLoad": !without_docker.contains(&image.reference),
            "referrers": referrers, "verified": image.verified,
        }));
    }
    let signed = bundle.signed();
    let uncounted: Vec<_> = signed
        .uncounted
        .iter()
        .map(|u| serde_json::json!({"file": u.path.display().to_string(), "why": u.why}))
        .collect();
    super::pretty(&serde_json::json!({
        "name": head.name, "version": head.version, "format": head.format, "platforms": head.platforms,
        "signedBy": signed.claimed.map(|id| id.to_string()),
        "signer": signed.signers.first().map(|signer| keys::full_id(&signer.key.key)),
        "signers": keys::signers_json(signed), "uncounted": uncounted,
        "sums": bundle.sums_digest(), "size": bundle.size(),
        "images": images, "absent": head.absent,
        "blobs": {"count": head.blobs.len(), "bytes": head.blobs.iter().map(|b| b.size).sum::<u64>()},
        "bases": head.bases, "relies": {"count": head.relies.len(), "bytes": head.relies.iter().map(|r| r.size).sum::<u64>()},
        "yaml": head.yaml, "files": head.files, "set": head.set, "ignore": head.ignore,
    }))
}

fn text(bundle: &Bundle, without_docker: &[ferry_image::Reference], has_keys: bool) -> Result<String, End> {
    let head = bundle.head();
    let signed = bundle.signed();
    let signer = match (signed.signers.as_slice(), signed.claimed) {
        ([_], _) => format!("{}, which is trusted here", keys::signed_by(signed)),
        ([_, ..], _) => format!("{}, which are trusted here", keys::signed_by(signed)),
        ([], Some(id)) if has_keys => {
            format!("says it is signed by {id}, which is none of the keys given: nothing below is checked")
        }
        ([], Some(id)) => {
            format!("says it is signed by {id}, and no key was given to check that: nothing below is checked")
        }
        ([], None) if has_keys => "NOT signed by any of the keys given: nothing below is checked".to_owned(),
        ([], None) => {
            "NOT signed inside, and no key was given for files beside it: nothing below is checked".to_owned()
        }
    };
    let mut lines = vec![
        keys::full_name(bundle.head()),
        format!("  {signer}"),
        format!("  platforms: {}", head.platforms.join(", ")),
        String::new(),
    ];
    let mut rows = vec![["IMAGE", "AT THE TARGET", "PLATFORMS", "DIGEST", "SOURCE"].map(str::to_owned).to_vec()];
    for image in &head.images {
        let platforms: Vec<String> =
            image.platforms.iter().filter_map(|p| Some(p.platform.as_ref()?.to_string())).collect();
        rows.push(vec![
            image.reference.to_string(),
            target(head, image).to_string(),
            if platforms.is_empty() { "-".to_owned() } else { platforms.join(",") },
            image.root.digest.short().to_owned(),
            image.source.clone(),
        ]);
    }
    lines.push(print::table(&rows));
    lines.push(String::new());
    for image in &head.images {
        let kinds = referrers(bundle, image)?.into_iter().map(|r| r.kind);
        if let Some(counted) = referrer::counted(kinds) {
            lines.push(format!("  {}: with {counted}", image.reference));
        }
        for verified in &image.verified {
            let (what, key) = (verified.subject.short(), verified.key.short());
            lines.push(format!("  {}: {what} was signed by {} (key {key})", image.reference, verified.key_file));
        }
    }
    for absent in &head.absent {
        lines.push(format!("  absent: {} ({})", absent.reference, absent.reason));
    }
    for file in head.yaml.iter().chain(&head.files) {
        lines.push(format!("  {} ({})", file.path, print::bytes(file.size)));
    }
    for reference in without_docker {
        lines.push(format!("  `docker load` will not find {reference}"));
    }
    if !head.relies.is_empty() {
        let bytes = head.relies.iter().map(|relied| relied.size).sum();
        let bases: Vec<String> = head.bases.iter().map(keys::base_name).collect();
        let (blobs, bytes) = (print::count(head.relies.len(), "blob"), print::bytes(bytes));
        lines.push(format!(
            "  not in the file: {blobs}, {bytes}, which are said to be on the far side by {}",
            bases.join(", ")
        ));
    }
    let bytes: u64 = head.blobs.iter().map(|b| b.size).sum();
    lines.push(format!(
        "  {}, {}, {}; the file has {}",
        print::count(head.images.len(), "image"),
        print::count(head.blobs.len(), "blob"),
        print::bytes(bytes),
        print::bytes(bundle.size())
    ));
    Ok(lines.join("\n"))
}
