//! The bundle file, written and read.

#![allow(clippy::expect_used, unreachable_pub, clippy::single_range_in_vec_init)]

mod audit;
mod damage;
mod fixture;
mod golden;
mod recovery;
mod resume;
mod round_trip;
mod split;
mod trust;
mod want;
