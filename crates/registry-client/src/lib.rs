//! ferry-registry-client
