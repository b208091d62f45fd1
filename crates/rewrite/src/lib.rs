//! ferry-rewrite
