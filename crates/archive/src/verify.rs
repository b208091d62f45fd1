//! stub
/// What [`Bundle::verify`](crate::Bundle::verify) read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Bytes hashed.
    pub bytes: u64,
    /// Blobs hashed.
    pub blobs: usize,
}
