//! The kit of the end-to-end tests: sample images, real registries, a line with faults, and the `ferry` binary as a user runs it.
//!
//! It does not use ferry's own crates: a mistake in them must not be able to hide itself here. Whatever goes wrong inside the
//! kit stops the test at once, so it panics where a library would return an error.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken kit must stop the test, with its place")]

pub mod browser;
pub mod cosign;
pub mod daemons;
pub mod disks;
pub mod faults;
pub mod ferry;
pub mod http;
pub mod images;
pub mod kills;
pub mod netns;
pub mod numbers;
pub mod proxy;
pub mod registry;
pub mod site;
pub mod tools;
