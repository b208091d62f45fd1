//! ferry-install
