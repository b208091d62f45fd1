//! What must hold for any input of each parser that reads bytes from outside.
//!
//! A target is a plain function over bytes that panics when a property does not hold. libFuzzer drives it (`libfuzzer/`, by
//! `scripts/soak fuzz`), and the ordinary tests run it over `corpus/` and `regressions/` (`tests/replay.rs`). Properties are round
//! trips, bounds, and agreement with something slow and obvious that was written from the specification.
//!
//! Not here: tables of examples and generated input of known structure; those are unit tests beside the parsers.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a property that does not hold must stop the run, with its place"
)]

pub mod answers;
pub mod bundles;
pub mod headers;
pub mod lists;
pub mod names;
pub mod pieces;
pub mod recovery;
pub mod referrers;
pub mod requests;
pub mod sources;
pub mod volumes;
pub mod yaml;

/// A property of any input.
pub type Target = fn(&[u8]);

/// Every target by name. The folders of `corpus/` and `regressions/` are called the same.
pub const TARGETS: &[(&str, Target)] = &[
    // names
    ("reference", names::reference),
    ("digest", names::digest),
    ("platform", names::platform),
    ("target_name", names::target_name),
    // headers of registries
    ("challenge", headers::challenge),
    ("link", headers::link),
    ("range", headers::range),
    ("retry_after", headers::retry_after),
    ("quota", headers::quota),
    ("location", headers::location),
    // documents of registries and of the user
    ("manifest", answers::manifest),
    ("token", answers::token),
    ("tags", answers::tags),
    ("catalog", answers::catalog),
    ("refusal", answers::refusal),
    ("credentials", answers::credentials),
    // what refers to images
    ("cosign", referrers::cosign),
    ("referrer_lists", referrers::referrer_lists),
    // archives
    ("tar", sources::tar),
    ("source", sources::source),
    ("source_documents", sources::documents),
    ("bundle", bundles::bundle),
    ("bundle_documents", bundles::documents),
    ("incoming", volumes::incoming),
    ("volume_list", volumes::volume_list),
    ("signature", bundles::signature),
    ("journal", bundles::journal),
    ("recovery_page", recovery::recovery_page),
    // requests to the embedded registry
    ("route", requests::route),
    // texts of the user
    ("yaml", yaml::yaml),
    ("yaml_set", yaml::set),
    ("bundle_manifest", lists::bundle_manifest),
    ("list", lists::list),
    ("lock", lists::lock),
    ("relocation", lists::relocation),
    ("receipt", lists::receipt),
    ("want", lists::want),
];

/// The target called `name`.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}
