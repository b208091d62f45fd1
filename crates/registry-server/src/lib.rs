//! ferry-registry-server
