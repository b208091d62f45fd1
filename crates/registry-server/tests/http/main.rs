//! The registry as a client sees it: answers first, then sockets.

#![allow(clippy::expect_used, reason = "clippy.toml allows it in test functions, not in what they share")]

mod bundle;
mod connections;
mod deletes;
mod login;
mod many;
mod monitoring;
mod pull;
mod push;
mod quirks;
mod site;
mod socket;
