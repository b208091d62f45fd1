//! ferry-archive
