//! Several bundles in one install: deltas and their bases, damaged ones and what mends them.

use std::sync::Arc;

use ferry_archive::{Bundle, Want};
use ferry_content::Kind;
use ferry_content::copy::{self, Silent};
use ferry_image::Digest;
use ferry_install::{Options, preflight};

use crate::kit::{Parts, Site, damaged, digests, shown, together};
use crate::recheck::{file, rechecking};

const IN_APP: &[&str] = &["library/app"];

/// `app:1`, of the layers `base` and `one`.
async fn first(site: &Site) -> Arc<Bundle> {
    let mut parts = Parts::new();
    parts.head.version = Some("1".to_owned());
    let manifest = parts.manifest(&["base", "one"]);
    parts.image("app:1", &manifest, &[&manifest]);
    parts.image("app:latest", &manifest, &[&manifest]);
    parts.yaml("app.yaml", "image: app:1\n");
    parts.seal_as(&site.path("v1.tar")).await
}

/// `app:2`, of `base`, which is left to the first, and `two`.
async fn second(site: &Site, first: &Bundle) -> Arc<Bundle> {
    let mut parts = Parts::new();
    parts.head.version = Some("2".to_owned());
    let manifest = parts.manifest(&["base", "two"]);
    parts.image("app:2", &manifest, &[&manifest]);
    parts.image("app:latest", &manifest, &[&manifest]);
    parts.yaml("app.yaml", "image: app:2\n");
    parts.leave(first, &[("base", IN_APP)]);
    parts.seal_as(&site.path("v2.tar")).await
}

#[tokio::test]
async fn a_delta_goes_onto_what_is_there_or_together_with_its_base() {
    for way in ["after", "together", "turned"] {
        let site = Site::new();
        let v1 = first(&site).await;
        let v2 = second(&site, &v1).await;
        let bundles = match way {
            "after" => {
                site.push(&v1, site.options()).await;
                together(&[&v2])
            }
            "together" => together(&[&v1, &v2]),
            _ => together(&[&v2, &v1]),
        };
        let plan = site.look_at(bundles, site.options()).await.expect("preflight");
        let pushed = plan.push(&copy::Options::default(), Arc::new(Silent)).await.expect("push");
        // a config and the layer `two`; together also what the first has
        assert_eq!(pushed.sent.0, if way == "after" { 2 } else { 5 }, "{way}");
        let v2_root = &v2.head().images[0].root.digest;
        assert_eq!(site.at("team/library/app", "2").as_ref(), Some(v2_root), "{way}");
        assert_eq!(site.at("team/library/app", "latest").as_ref(), Some(v2_root), "{way}: the newer one counts");
        assert_eq!(site.at("team/library/app", "1").as_ref(), Some(&v1.head().images[0].root.digest), "{way}");

        let notes = pushed.notes.iter().filter(|note| note.contains("builds on")).count();
        assert_eq!(notes, if way == "after" { 0 } else { 2 }, "{way}: {:?}", pushed.notes);
        let written = plan.write(&pushed, jiff::Timestamp::UNIX_EPOCH).expect("write");
        let yaml = std::fs::read_to_string(site.path("out/app.yaml")).expect("yaml");
        assert_eq!(yaml, "image: reg.local:5000/team/library/app:2\n", "{way}");
        let receipt = std::fs::read(written.receipt.expect("written")).expect("receipt");
        let receipt = ferry_image::Receipt::from_json(&receipt).expect("receipt");
        let versions: Vec<_> = receipt.bundles.iter().filter_map(|bundle| bundle.version.as_deref()).collect();
        assert_eq!(versions, if way == "after" { vec!["2"] } else { vec!["1", "2"] }, "{way}");
        let held = &receipt.repositories[0].blobs;
        let held: std::collections::BTreeSet<_> = held.iter().map(|blob| blob.digest.clone()).collect();
        assert!(held.is_superset(&digests(&["base", "two"])), "{way}: the base of the next delta");
        assert_eq!(held.is_superset(&digests(&["one"])), way != "after", "{way}");
    }
}

#[tokio::test]
async fn what_is_nowhere_is_told_with_its_base_and_listed_for_a_patch() {
    let site = Site::new();
    let v1 = first(&site).await;
    let v2 = second(&site, &v1).await;
    let options = || Options { want: Some(site.path("want.json")), ..site.options() };
    let (kind, problems) = shown(site.look(&v2, options()).await);
    assert_eq!((kind, problems.len()), (Kind::Missing, 2), "each image: {problems:?}");
    let base = digests(&["base"]).pop_first().expect("one");
    for problem in &problems {
        assert!(problem.contains(&base.to_string()) && problem.contains("`shop@1`"), "{problem}");
        assert!(problem.contains("1 blob (4 bytes)"), "{problem}");
    }
    assert_eq!(site.at("team/library/app", "2"), None);
    let want = Want::from_json(&std::fs::read(site.path("want.json")).expect("read")).expect("want");
    assert_eq!((want.images.len(), want.blobs.len()), (2, 1));
    assert_eq!((&want.blobs[0].digest, &want.bundle.sums), (&base, v2.sums_digest()));

    // images that are there need nothing
    let pair = site.look_at(together(&[&v1, &v2]), site.options()).await.expect("preflight");
    pair.push(&copy::Options::default(), Arc::new(Silent)).await.expect("push");
    let blob = site.path("store/blobs/sha256").join(base.to_string().trim_start_matches("sha256:"));
    std::fs::remove_file(&blob).expect("remove");
    site.look(&v2, site.options()).await.expect("both are there");
}

#[tokio::test]
async fn a_blob_that_goes_away_in_between_is_told_and_no_tag_is_set() {
    let site = Site::new();
    let v1 = first(&site).await;
    let v2 = second(&site, &v1).await;
    site.push(&v1, site.options()).await;
    let plan = site.look(&v2, site.options()).await.expect("preflight");
    let base = digests(&["base"]).pop_first().expect("one").to_string();
    std::fs::remove_file(site.path("store/blobs/sha256").join(base.trim_start_matches("sha256:"))).expect("remove");
    let problems = plan.push(&copy::Options::default(), Arc::new(Silent)).await.expect_err("gone");
    assert_eq!(problems.kind(), Kind::Missing, "{problems}");
    assert!(problems.to_string().contains(&base), "{problems}");
    assert_eq!(site.at("team/library/app", "2"), None);
}

#[tokio::test]
async fn strangers_that_differ_are_refused_and_both_are_named() {
    let site = Site::new();
    let v1 = first(&site).await;
    let mut parts = Parts::new();
    let manifest = parts.manifest(&["other"]);
    parts.image("app:1", &manifest, &[&manifest]);
    parts.yaml("app.yaml", "image: app:1 # another\n");
    let other = parts.seal_as(&site.path("other.tar")).await;
    let (kind, problems) = shown(site.look_at(together(&[&v1, &other]), site.options()).await);
    assert_eq!((kind, problems.len()), (Kind::Conflict, 2), "{problems:?}");
    assert!(problems.iter().all(|p| p.contains("v1.tar") && p.contains("other.tar")), "{problems:?}");
    assert!(problems.iter().any(|p| p.contains("app:1")) && problems.iter().any(|p| p.contains("yaml/app.yaml")));
}

#[tokio::test]
async fn what_a_store_lost_and_a_delta_does_not_carry_is_missing_until_the_base_comes() {
    let site = Site::new();
    let v1 = first(&site).await;
    let v2 = second(&site, &v1).await;
    site.push(&v1, site.options()).await;
    site.push(&v2, site.options()).await;
    let base = Digest::of(b"base");
    std::fs::write(file(&site, &base), "bbse").expect("write");
    let recheck = || Options { recheck: true, ..site.options() };
    let (kind, problems) = shown(rechecking(&site).look(&v2, recheck()).await);
    assert!(kind == Kind::Missing && problems.iter().any(|p| p.contains(&base.to_string())), "{problems:?}");
    let both = rechecking(&site).look_at(together(&[&v1, &v2]), recheck()).await.expect("look");
    let pushed = both.push(&copy::Options::default(), Arc::new(Silent)).await.expect("push");
    assert_eq!((pushed.images, pushed.sent), (0, (1, 4)));
    assert_eq!(std::fs::read(file(&site, &base)).expect("read"), b"base");
    assert!(rechecking(&site).look(&v2, recheck()).await.is_ok());
}

#[tokio::test]
async fn a_damaged_bundle_is_mended_by_a_patch_or_a_copy() {
    let site = Site::new();
    let v1 = first(&site).await;
    let broken = damaged(&v1, b"one", &site.path("broken.tar"));
    // what only the patch has; the rest is left to the damaged one
    let mut parts = Parts::new();
    let manifest = parts.manifest(&["base", "one"]);
    parts.image("app:1", &manifest, &[&manifest]);
    parts.leave(&v1, &[("base", IN_APP)]);
    let patch = parts.seal_as(&site.path("patch.tar")).await;
    let copy = damaged(&v1, b"base", &site.path("copy.tar"));

    let alone = site.look(&broken, site.options()).await.expect("layers are not read");
    let problems = alone.push(&copy::Options::default(), Arc::new(Silent)).await.expect_err("damaged");
    assert_eq!(problems.kind(), Kind::Untrusted, "{problems}");
    assert_eq!(site.at("team/library/app", "1"), None);
    for (pair, notes) in [([&broken, &patch], 0), ([&patch, &broken], 0), ([&broken, &copy], 1), ([&copy, &broken], 1)]
    {
        let site = Site::new();
        let plan = site.look_at(together(&pair), site.options()).await.expect("preflight");
        let pushed = plan.push(&copy::Options::default(), Arc::new(Silent)).await.expect("push");
        assert_eq!(site.at("team/library/app", "1").as_ref(), Some(&v1.head().images[0].root.digest));
        assert_eq!(site.at("team/library/app", "latest"), site.at("team/library/app", "1"), "all of the damaged one");
        let told = pushed.notes.iter().filter(|note| note.contains("cannot be had whole")).count();
        assert_eq!(told, notes, "{:?}", pushed.notes);
        for layer in ["base", "one"] {
            let digest = digests(&[layer]).pop_first().expect("one");
            let stored = site.path("store/blobs/sha256").join(digest.to_string().trim_start_matches("sha256:"));
            assert_eq!(std::fs::read(stored).expect("read"), layer.as_bytes());
        }
    }
}

#[tokio::test]
async fn an_older_version_than_the_receipt_says_is_a_warning() {
    let site = Site::new();
    let v1 = first(&site).await;
    let v2 = second(&site, &v1).await;
    site.push(&v1, site.options()).await;
    let (plan, pushed) = site.push(&v2, site.options()).await;
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
    plan.write(&pushed, jiff::Timestamp::UNIX_EPOCH).expect("write");
    let again = site.look(&v1, site.options()).await.expect("preflight");
    assert!(again.warnings.iter().any(|w| w.contains("version 1") && w.contains("version 2")), "{:?}", again.warnings);
    let both = site.look_at(together(&[&v1, &v2]), site.options()).await.expect("preflight");
    assert!(both.warnings.is_empty(), "{:?}", both.warnings);
}

#[tokio::test]
async fn only_what_is_whole_is_served() {
    let site = Site::new();
    let v1 = first(&site).await;
    let v2 = second(&site, &v1).await;
    for (bundles, images, problems) in
        [(together(&[&v2]), 2, 2), (together(&[&v2, &v1]), 3, 0), (together(&[&v1]), 2, 0)]
    {
        let documents = preflight::documents(&bundles).expect("documents");
        let (mut notes, mut found) = (Vec::new(), ferry_content::Problems::default());
        let named = preflight::served(&bundles, &documents, None, &mut notes, &mut found);
        assert_eq!((named.len(), found.iter().count()), (images, problems), "{found}");
        for problem in found.iter() {
            assert_eq!(problem.failure.kind(), Kind::Missing);
            assert!(problem.to_string().contains("only `shop@1` has"), "{problem}");
        }
    }
}
