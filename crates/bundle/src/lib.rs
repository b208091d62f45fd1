//! ferry-bundle
