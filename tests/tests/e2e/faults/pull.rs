//! What a registry, or what stands in front of it, may do to a download.

use std::time::Duration;

use ferry_tests::http::Reply;
use ferry_tests::images::{Format, Image, Layer};
use ferry_tests::registry::certificate::{Flaw, flawed};
use ferry_tests::registry::faulty::Fault::{self, *};
use ferry_tests::registry::faulty::What::{self, *};
use ferry_tests::registry::faulty::{FaultyRegistry, Rule};
use ferry_tests::site::Site;

use super::End::{Says, Well};
use super::{TOKENS, carries, digest_of, faults, header, image, page, pull, run, status, wait};
use crate::{FOR, SIGN, TRUST};

fn once(what: What, fault: Fault) -> Rule {
    Rule::once("GET", what, fault)
}

fn always(what: What, fault: Fault) -> Rule {
    Rule::always("GET", what, fault)
}

/// 403 with more words than anybody wants to read one by one.
fn refusing_at_length() -> Fault {
    Answer(Reply::new(403, "text/plain", "no ".repeat(10_000)))
}

faults! { pull:
    // asked to wait, or to come again
    too_many_requests: [once(Tag, status(429)), once(Layer, status(429))] => Well;
    too_many_requests_at_first: [once(Ping, status(429)), once(Token, status(429))] => Well;
    come_again_in_a_second: [once(Tag, wait("1")), once(Layer, wait("1"))] => Well;
    come_again_tomorrow: [always(Tag, wait("86400"))] => Says(5, &["too many requests", "429", "app/one", "24 h"]);
    out_of_order_for_a_moment: [once(Ping, status(503)), once(Token, status(502)), once(Tag, status(500)), once(Layer, status(504))] => Well;

    // connections
    closed_without_an_answer: [once(Ping, Unanswered), once(Token, Unanswered), once(Tag, Unanswered), once(Layer, Unanswered)] => Well;
    never_answers_at_all: [always(Ping, Unanswered)] => Says(5, &["the connection was closed"]);
    mute_for_once: [once(Ping, Mute), once(Token, Mute), once(Tag, Mute), once(Layer, Mute)] => Well;
    dropped_in_a_layer: [once(Layer, Drop(1)), once(Layer, Drop(150_000)).from(2)] => Well;
    dropped_before_a_layer: [once(Layer, Drop(0)).times(3)] => Well;
    dropped_in_a_manifest: [once(Tag, Drop(100)).times(2)] => Well;
    dropped_in_a_config: [once(Blob, Drop(10)).times(2)] => Well;
    dropped_in_a_token: [once(Token, Drop(10)).times(2)] => Well;
    always_dropped_in_a_manifest: [always(Tag, Drop(100))] => Says(5, &["broke off after 100 of", "app/one", "manifest 1"]);
    stalled_in_a_layer: [once(Layer, Stall(100_000)), once(Layer, Stall(0)).from(2)] => Well;
    stalled_in_a_manifest: [once(Tag, Stall(100))] => Well;
    dripping_at_first: [once(Layer, Drip(2500, 1024)), once(Tag, Drip(200, 400))] => Well;
    dripping_for_years: [once(Layer, Drip(u64::MAX, 10)).times(2), once(Tag, Drip(u64::MAX, 10)), once(Token, Drip(u64::MAX, 10)), once(Blob, Drip(u64::MAX, 10))] => Well;
    a_manifest_that_only_drips: [always(Tag, Drip(u64::MAX, 10))] => Says(5, &["app/one", "manifest 1", "broke off", "bytes came in"]);
    a_refusal_that_only_drips: [always(Tag, refusing_at_length()), always(Tag, Drip(u64::MAX, 10))] => Says(5, &["not allowed to pull", "403"]);

    // content
    another_layer: [always(Layer, Corrupt(70_000))] => Says(3, &["app/one", "blob sha256:", "other content"]);
    another_config: [always(Blob, Corrupt(3))] => Says(3, &["app/one", "sha256:", "other content"]);
    another_manifest: [always(Tag, Corrupt(3))] => Says(3, &["app/one", "manifest 1", "should be sha256:"]);
    a_short_layer: [always(Layer, Short(1))] => Says(3, &["app/one", "bytes instead of"]);
    a_long_layer: [always(Layer, Long(1))] => Says(3, &["app/one", "bytes instead of"]);
    a_short_manifest: [always(Tag, Short(1))] => Says(3, &["app/one", "manifest 1", "should be sha256:"]);
    a_length_too_large: [always(Layer, Length(7))] => Says(3, &["bytes instead of"]);
    a_length_too_small: [always(Layer, Length(-7))] => Says(3, &["bytes instead of"]);
    a_manifests_length_too_large_for_once: [once(Tag, Length(7))] => Well;
    an_endless_layer: [always(Layer, Endless)] => Says(3, &["app/one", "bytes instead of"]);
    an_endless_manifest: [always(Tag, Endless)] => Says(3, &["app/one", "manifest 1", "larger than 4194304 bytes"]);
    an_endless_token: [always(Token, Endless)] => Says(3, &["a token for repository:app/one:pull", "larger than"]);
    an_endless_refusal: [always(Tag, status(403)), always(Tag, Endless)] => Says(5, &["not allowed to pull", "403"]);

    // ranges
    a_range_that_is_ignored: [once(Layer, Drop(100_000)), always(Layer, IgnoreRange)] => Well;
    another_range: [once(Layer, Drop(100_000)), once(Layer, OtherRange).from(2)] => Well;
    no_ranges_after_all: [once(Layer, Drop(100_000)), once(Layer, status(416)).from(2)] => Well;

    // permission
    a_token_that_ends_in_mid_blob: [once(Layer, Drop(100_000)), once(Layer, ExpireTokens)] => Well;
    a_token_that_ends_between_manifest_and_blobs: [once(Tag, ExpireTokens)] => Well;
    tokens_that_never_last: [always(Tag, Answer(Reply::empty(401)))] => Says(5, &["401", "app/one"]);
    blobs_at_another_host: [always(Blob, Elsewhere)] => Well;
    everything_at_another_host: [always(Blob, Elsewhere), always(Manifest, Elsewhere)] => Well;
    dropped_at_another_host: [always(Layer, Elsewhere), once(Layer, ExpireTokens), once(Layer, Drop(100_000)).elsewhere(), once(Layer, Stall(50_000)).elsewhere().from(2)] => Well;
    a_permit_that_ends: [always(Layer, Elsewhere), once(Layer, Drop(100_000)).elsewhere(), once(Layer, page(403, "Request has expired")).elsewhere().from(2)] => Well;

    // pages of proxies
    a_bad_gateway_for_once: [once(Ping, page(502, "502 Bad Gateway")), once(Tag, page(502, "502 Bad Gateway")), once(Layer, page(504, "504"))] => Well;
    a_bad_gateway: [always(Ping, page(502, "502 Bad Gateway"))] => Says(5, &["502 Bad Gateway"]);
    a_page_that_denies: [always(Tag, page(403, "Blocked by policy"))] => Says(5, &["403", "Blocked by policy", "app/one"]);
    a_page_that_finds_nothing: [always(Tag, page(404, "404 Not Found"))] => Says(4, &["404", "app/one"]);
    a_page_in_place_of_a_manifest: [always(Tag, page(200, "Log in to the network"))] => Says(5, &["app/one", "web page"]);
    a_page_in_place_of_a_token: [always(Token, page(200, "Log in to the network"))] => Says(5, &["token", "app/one"]);
    a_page_in_place_of_a_layer: [always(Layer, page(200, "Log in to the network"))] => Says(5, &["app/one", "web page"]);

    // what refers to an image
    referrers_that_fail_for_once: [once(Any, status(500)).of("/referrers/"), once(Any, Unanswered).of("/referrers/").from(2)] => Well;
    a_page_in_place_of_referrers: [always(Any, page(404, "404 Not Found")).of("/referrers/")] => Well;
    another_page_in_place_of_referrers: [always(Any, page(200, "Log in to the network")).of("/referrers/")] => Well;
    endless_referrers: [always(Any, status(200)).of("/referrers/"), always(Any, Endless).of("/referrers/")] => Says(3, &["app/one", "larger than"]);
    referrers_that_nobody_may_see: [always(Any, status(403)).of("/referrers/")] => Well;

    // headers
    a_manifest_of_no_type: [always(Manifest, Header("Content-Type", None))] => Well;
    a_manifest_of_a_wrong_type: [always(Manifest, header("Content-Type", "text/plain"))] => Well;
    a_manifest_that_contradicts_its_type: [always(Tag, header("Content-Type", "application/vnd.oci.image.index.v1+json"))] => Says(1, &["app/one", "announced as", "says of itself"]);
    a_manifest_of_anothers_type: [always(Manifest, header("Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws"))] => Well;
    no_digest_stated: [always(Any, Header("Docker-Content-Digest", None))] => Well;
    a_wrong_digest_stated: [always(Tag, header("Docker-Content-Digest", &digest_of("x")))] => Says(3, &["app/one", "manifest 1", "should be sha256:"]);
    a_wrong_digest_stated_of_a_layer: [always(Layer, header("Docker-Content-Digest", &digest_of("x")))] => Says(3, &["app/one", "blob sha256:", "should be sha256:"]);
    nonsense_for_a_digest: [always(Tag, header("Docker-Content-Digest", "sha256:?"))] => Well;
}

#[test]
fn nothing_is_fetched_twice_after_a_drop() {
    let registry = pull(vec![once(Layer, Drop(150_000))], Well);
    let layers = |seen: &&ferry_tests::registry::faulty::Seen| seen.path.contains("/blobs/") && seen.status == 206;
    assert_eq!(registry.seen().iter().filter(layers).count(), 1, "{:?}", registry.seen());
}

/// After a drop the registry says that it has other bytes by now: what came before is not spliced with them.
#[test]
fn a_layer_that_changes_after_a_drop_is_begun_anew() {
    let tagged = |tag: &str| header("ETag", &format!("\"{tag}\""));
    for (second, begun) in [("one", 1), ("two", 2)] {
        let registry = pull(
            vec![
                always(Layer, Header("Docker-Content-Digest", None)),
                once(Layer, Drop(100_000)),
                once(Layer, tagged("one")),
                always(Layer, tagged(second)).from(2),
            ],
            Well,
        );
        let layers = |seen: &ferry_tests::registry::faulty::Seen| seen.path.contains("/blobs/") && seen.status == 200;
        // a config and two layers: one of them too small to count as one
        assert_eq!(registry.count(layers), 2 + begun, "{second}: {:?}", registry.seen());
        assert!(registry.count(|seen| seen.status == 206) >= 1, "it was asked for the rest: {:?}", registry.seen());
    }
}

#[test]
fn who_is_told_to_wait_waits() {
    for fault in [wait("2"), ComeAgainAt(3)] {
        let registry = pull(vec![once(Tag, fault)], Well);
        let tags: Vec<_> = registry.seen().into_iter().filter(|seen| seen.path.contains("/manifests/1")).collect();
        let waited = tags[1].when - tags[0].when;
        // a date has whole seconds only
        assert!(waited >= Duration::from_millis(1950) && waited < Duration::from_secs(5), "{waited:?}");
    }
}

/// A line that is cut under TLS ends without the farewell that TLS wants.
#[test]
fn dropped_under_tls() {
    let (image, site) = (image(), Site::new());
    let (tls, ca) = flawed(site.path(), Flaw::None);
    let plan = vec![once(Layer, Drop(1)), once(Layer, Drop(150_000)).from(2), once(Ping, Unanswered)];
    let registry = FaultyRegistry::holding(&[("app/one:1", &image)]).tls(tls).start(plan);
    let command = format!("bundle {}/app/one:1 {FOR} -o b.tar {SIGN} --ca-file {}", registry.host(), ca.display());
    let _ = run(&site, &registry, &command).expect_code(0);
    carries(&site, &image);
}

/// Four ranges of 8 MiB and more at a time, or one stream where the registry serves none.
#[test]
fn a_large_blob_without_ranges_or_with_few() {
    let image = Image::single("linux/amd64", Format::Oci, vec![Layer::random(1, 36 << 20)]);
    for plan in [
        vec![always(Layer, IgnoreRange)],
        vec![always(Layer, IgnoreRange).from(3)],
        vec![always(Layer, Drop(3 << 20)).times(6), once(Layer, Stall(1 << 20)).from(8)],
    ] {
        let registry = FaultyRegistry::holding(&[("app/one:1", &image)]).guard(TOKENS).start(plan);
        let site = Site::new();
        let command = format!("bundle {}/app/one:1 {FOR} -o b.tar {SIGN}", registry.host());
        let _ = run(&site, &registry, &command).expect_code(0);
        let _ = site.ferry(&format!("verify b.tar {TRUST}")).ok();
        carries(&site, &image);
    }
}

/// What was resolved is what is carried, whatever the tag stands for by then.
#[test]
fn a_tag_that_moves_while_it_is_fetched() {
    let (old, new) = (image(), crate::small(7));
    let name = |digest: &str| Retag("app/one:1".to_owned(), digest.to_owned());
    let plan = vec![once(Tag, name(new.digest())), Rule::once("HEAD", Tag, name(new.digest()))];
    let registry = FaultyRegistry::holding(&[("app/one:2", &new), ("app/one:1", &old)]).guard(TOKENS).start(plan);
    let site = Site::new();
    let command = format!("bundle {}/app/one:1 {FOR} -o b.tar {SIGN}", registry.host());
    let _ = run(&site, &registry, &command).expect_code(0);
    let _ = site.ferry(&format!("verify b.tar {TRUST}")).ok();
    let inspected = site.ferry(&format!("inspect b.tar --json {TRUST}")).ok().json();
    let carried = if inspected["images"][0]["digest"] == *old.digest() { &old } else { &new };
    assert_eq!(inspected["images"][0]["digest"], *carried.digest());
    carries(&site, carried);
}
