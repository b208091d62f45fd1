//! What a registry, or what stands in front of it, may do to an upload.

use ferry_tests::images::{Format, Image, Layer};
use ferry_tests::registry::faulty::Fault::{self, *};
use ferry_tests::registry::faulty::What::{self, *};
use ferry_tests::registry::faulty::{FaultyRegistry, Rule, Seen};

use super::End::{Says, Well};
use super::{TOKENS, bundled, digest_of, faults, header, image, page, push, run, status, wait};
use crate::{TRUST, small, two_platforms};

fn once(method: &'static str, what: What, fault: Fault) -> Rule {
    Rule::once(method, what, fault)
}

fn always(method: &'static str, what: What, fault: Fault) -> Rule {
    Rule::always(method, what, fault)
}

/// The first request that brings the large layer as a whole: small blobs go beside it.
fn whole_layer(fault: Fault) -> Rule {
    let image = image();
    let (digest, _) = image.blobs.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    once("PUT", Session, fault).of(digest.strip_prefix("sha256:").unwrap())
}

faults! { push:
    // asked to wait, or to come again
    too_many_requests: [once("HEAD", Tag, status(429)), once("POST", Upload, status(429)), once("PUT", Session, status(429)), once("PUT", Tag, status(429))] => Well;
    come_again_in_a_second: [once("POST", Upload, wait("1")), once("PUT", Session, wait("1")), once("PUT", Tag, ComeAgainAt(2))] => Well;
    out_of_order_for_a_moment: [once("POST", Upload, status(503)), once("PUT", Session, status(502)), once("PUT", Tag, status(500))] => Well;
    always_out_of_order: [always("PUT", Tag, status(500))] => Says(5, &["app/one", "500"]);

    // connections
    closed_without_an_answer: [once("HEAD", Tag, Unanswered), once("POST", Upload, Unanswered), once("PUT", Session, Unanswered), once("PUT", Tag, Unanswered)] => Well;
    done_but_not_told: [once("POST", Upload, LoseAnswer), once("PUT", Session, LoseAnswer).times(2), once("PUT", Tag, LoseAnswer)] => Well;
    dropped_in_a_layer: [once("PUT", Session, DropRequest(30)).times(2)] => Well;
    mute_for_once: [once("HEAD", Tag, Mute), once("POST", Upload, Mute), once("PUT", Tag, Mute)] => Well;

    dropped_and_kept: [whole_layer(KeepRequest(100_000)), once("PATCH", Session, KeepRequest(50_000))] => Well;
    dropped_at_another_host: [always("POST", Upload, Elsewhere), whole_layer(KeepRequest(100_000)).elsewhere(), once("GET", Session, Unanswered).elsewhere()] => Well;
    chunks_at_another_host: [always("POST", Upload, Elsewhere), always("*", Session, TooLarge(150_000)).elsewhere()] => Says(5, &["too large", "413", "client_max_body_size"]);

    // uploads
    an_upload_that_goes_on_at_another_host: [always("POST", Upload, Elsewhere)] => Well;
    a_session_that_is_lost: [once("*", Session, Answer(ferry_tests::http::Reply::new(404, "application/json", r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"blob upload unknown to registry"}]}"#))).from(2)] => Well;
    no_mounts: [always("POST", Upload, NoMount)] => Well;
    mounts_that_are_refused: [always("POST", Upload, status(405)).of("mount=")] => Well;
    no_location: [always("POST", Upload, Header("Location", None))] => Says(5, &["app/one", "no `Location`"]);
    another_digest_stored: [always("PUT", Session, header("Docker-Content-Digest", &digest_of("x")))] => Says(3, &["app/one", "should be sha256:"]);
    another_manifest_stored: [always("PUT", Tag, header("Docker-Content-Digest", &digest_of("x")))] => Says(3, &["app/one", "should be sha256:"]);
    a_proxy_that_takes_little: [always("PUT", Session, page(413, "413 Request Entity Too Large"))] => Says(5, &["too large", "413", "client_max_body_size"]);
    no_room_left: [always("PUT", Session, page(507, "Insufficient Storage"))] => Says(5, &["507", "Insufficient Storage", "app/one"]);

    // permission
    a_token_that_ends_before_the_bytes_go: [once("POST", Upload, ExpireTokens).from(2)] => Well;
    a_token_that_ends_before_the_manifest: [once("PUT", Session, ExpireTokens).times(3)] => Well;
    pushing_is_denied: [always("POST", Upload, page(403, "Forbidden"))] => Says(5, &["403", "app/one", "allowed to push"]);

    // what is told about a tag
    a_tag_of_which_no_digest_is_stated: [always("HEAD", Manifest, Header("Docker-Content-Digest", None))] => Well;
    a_page_for_a_tag: [always("HEAD", Tag, page(502, "502 Bad Gateway")).times(2)] => Well;
}

/// The digests of the blobs whose bytes were sent, by the last request of each.
fn sent(registry: &FaultyRegistry) -> usize {
    registry.count(|seen: &Seen| seen.method == "PUT" && seen.path.contains("/blobs/uploads/") && seen.status == 201)
}

#[test]
fn what_is_there_is_not_sent_again_whatever_is_said_of_it() {
    let image = image();
    let site = bundled(&[("app/one:1", &image)]);
    for fault in [Header("Docker-Content-Digest", None), header("Docker-Content-Digest", &digest_of("another"))] {
        let registry =
            FaultyRegistry::holding(&[("app/one:1", &image)]).guard(TOKENS).start([always("HEAD", Manifest, fault)]);
        let _ = run(&site, &registry, &format!("install b.tar --registry {} {TRUST}", registry.host())).expect_code(0);
        assert_eq!(sent(&registry), 0);
        assert_eq!(registry.manifest("app/one", "1").as_deref(), image.manifest(image.digest()));
    }
}

#[test]
fn shared_layers_cross_though_mounts_become_uploads() {
    let base = Layer::random(1, 30_000);
    let image = |seed| Image::single("linux/amd64", Format::Oci, vec![base.clone(), Layer::random(seed, 5000)]);
    let (one, two) = (image(2), image(3));
    let site = bundled(&[("app/one:1", &one), ("app/two:1", &two)]);
    for (plan, uploads) in [(vec![], 5), (vec![always("POST", Upload, NoMount)], 6)] {
        let registry = FaultyRegistry::holding(&[]).guard(TOKENS).start(plan);
        let _ = run(&site, &registry, &format!("install b.tar --registry {} {TRUST}", registry.host())).expect_code(0);
        assert!(registry.holds("app/one", &one) && registry.holds("app/two", &two));
        assert_eq!(sent(&registry), uploads, "the layer once, or once for each");
    }
}

#[test]
fn a_sparse_index_that_is_refused() {
    let index = two_platforms(Format::Oci, 1);
    let amd64 = &index.platform("linux/amd64").unwrap().digest;
    let site = bundled(&[("app/pinned", &index)]);
    let refusing = || FaultyRegistry::holding(&[]).guard(TOKENS).start([always("PUT", Manifest, RefuseSparse)]);
    let registry = refusing();
    let install = |registry: &FaultyRegistry, options: &str| {
        run(&site, registry, &format!("install b.tar --registry {} {TRUST} {options}", registry.host()))
    };
    let told = install(&registry, "").expect_code(0);
    told.says(&["refuses an index with absent platforms"]);
    assert_eq!(registry.manifest("app/pinned", index.digest()), None);
    assert_eq!(registry.manifest("app/pinned", amd64).as_deref(), index.manifest(amd64));
    let registry = refusing();
    let told = install(&registry, "--index sparse").expect_code(5);
    told.says(&["refuses an index with absent platforms", "MANIFEST_BLOB_UNKNOWN", "--index filtered"]);
    let taking = FaultyRegistry::holding(&[]).guard(TOKENS).start([]);
    let _ = install(&taking, "").expect_code(0);
    assert_eq!(taking.manifest("app/pinned", index.digest()).as_deref(), index.manifest(index.digest()));
}

/// What nginx takes in one request where nobody has told it otherwise.
#[test]
fn a_proxy_that_takes_a_megabyte() {
    let image = Image::single("linux/amd64", Format::Oci, vec![Layer::random(1, 3_000_000)]);
    let site = bundled(&[("app/one:1", &image)]);
    for elsewhere in [false, true] {
        let limit = always("*", Session, TooLarge(1 << 20));
        let plan = match elsewhere {
            false => vec![limit],
            true => vec![limit.elsewhere(), always("POST", Upload, Elsewhere)],
        };
        let registry = FaultyRegistry::holding(&[]).guard(TOKENS).start(plan);
        let _ = run(&site, &registry, &format!("install b.tar --registry {} {TRUST}", registry.host())).expect_code(0);
        assert!(registry.holds("app/one", &image));
        let chunks = registry.count(|seen| seen.method == "PATCH" && seen.status == 202);
        assert!((3..=13).contains(&chunks), "{chunks}: {:?}", registry.seen());
    }
}

/// Chunks smaller than it says are refused by object stores, but for the last.
#[test]
fn a_registry_with_a_smallest_chunk() {
    let image = Image::single("linux/amd64", Format::Oci, vec![Layer::random(1, 3_000_000)]);
    let site = bundled(&[("app/one:1", &image)]);
    let plan = vec![
        always("PUT", Session, TooLarge(1 << 20)),
        always("POST", Upload, header("OCI-Chunk-Min-Length", "1200000")),
    ];
    let registry = FaultyRegistry::holding(&[]).guard(TOKENS).start(plan);
    let _ = run(&site, &registry, &format!("install b.tar --registry {} {TRUST}", registry.host())).expect_code(0);
    assert!(registry.holds("app/one", &image));
    let mut chunks: Vec<u64> = registry.seen().iter().filter(|s| s.method == "PATCH").map(|s| s.bytes).collect();
    let last = chunks.pop();
    assert!(last.is_some() && chunks.iter().all(|bytes| *bytes >= 1_200_000), "{chunks:?} {last:?}");
}

#[test]
fn a_registry_that_takes_no_chunks_gets_each_layer_whole() {
    for refusal in [status(405), status(404), status(501), page(400, "Bad Request")] {
        // what was kept would go on as a chunk
        let registry = push(vec![whole_layer(KeepRequest(100_000)), always("PATCH", Session, refusal)], Well);
        assert_eq!(registry.count(|seen| seen.method == "PATCH"), 1, "tried once: {:?}", registry.seen());
    }
    // where nothing but chunks would do, what stands in the way is told
    let refused = [always("PATCH", Session, status(405)), always("PUT", Session, TooLarge(100_000))];
    push(refused.into(), Says(5, &["app/one", "413", "client_max_body_size"]));
}

#[test]
fn what_was_kept_of_an_upload_is_not_sent_again() {
    let registry = push(vec![whole_layer(KeepRequest(100_000))], Well);
    assert_eq!(registry.count(|seen| seen.method == "PATCH" && seen.status == 202), 1, "{:?}", registry.seen());
    let sent: u64 = registry.seen().iter().filter(|seen| seen.path.contains("/blobs/uploads/")).map(|s| s.bytes).sum();
    assert!(sent < image().blob_bytes() + 1000, "{sent} of {}", image().blob_bytes());
}

#[test]
fn the_other_host_gets_the_bytes_and_no_credentials() {
    // `run` asserts what the other host saw of credentials; here, that it was asked at all
    let registry = push(vec![always("POST", Upload, Elsewhere)], Well);
    assert!(registry.count(|seen| seen.elsewhere && seen.status == 201) >= 3, "{:?}", registry.seen());
}

#[test]
fn nothing_is_pushed_where_one_image_may_not_be() {
    let site = bundled(&[("app/one:1", &small(1)), ("other/two:1", &small(2))]);
    let registry =
        FaultyRegistry::holding(&[]).guard(TOKENS).start([always("POST", Upload, status(403)).of("other/two")]);
    let told = run(&site, &registry, &format!("install b.tar --registry {} {TRUST}", registry.host()));
    told.expect_code(5).says(&["other/two"]);
    assert_eq!(sent(&registry), 0);
}
