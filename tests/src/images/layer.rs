//! One layer: a tar of files, and its stored form.

use std::io::Write;
use std::sync::Arc;

use super::{Format, Random, digest};

/// How a layer is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// The tar as it is.
    None,
    /// gzip, level 1 (fast; the tests do not care for size).
    Gzip,
    /// zstd, level 1.
    Zstd,
}

/// A layer, raw and as stored.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The uncompressed tar.
    pub tar: Arc<Vec<u8>>,
    /// What a registry stores.
    pub stored: Arc<Vec<u8>>,
    /// How `stored` came from `tar`.
    pub compression: Compression,
}

/// What stands at a path of a layer.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A file with its mode.
    File(Vec<u8>, u32),
    /// A symbolic link.
    Link(String),
    /// A folder.
    Folder,
}

impl Layer {
    /// A gzip layer with one file of `len` incompressible bytes.
    #[must_use]
    pub fn random(seed: u64, len: usize) -> Self {
        Self::mixed(seed, len, 1.0)
    }

    /// A gzip layer with one file of `len` bytes of which about `share` stays after compression.
    #[must_use]
    pub fn mixed(seed: u64, len: usize, share: f64) -> Self {
        let bytes = Random::new(seed).mixed(len, share);
        Self::of(&[(&format!("data/{seed:04x}.bin"), Entry::File(bytes, 0o644))])
    }

    /// A gzip layer with these entries.
    #[must_use]
    pub fn of(entries: &[(&str, Entry)]) -> Self {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, entry) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_mtime(0);
            match entry {
                Entry::File(bytes, mode) => {
                    header.set_mode(*mode);
                    header.set_size(bytes.len() as u64);
                    builder.append_data(&mut header, path, bytes.as_slice()).unwrap();
                }
                Entry::Link(to) => {
                    header.set_mode(0o777);
                    header.set_size(0);
                    header.set_entry_type(tar::EntryType::Symlink);
                    builder.append_link(&mut header, path, to).unwrap();
                }
                Entry::Folder => {
                    header.set_mode(0o755);
                    header.set_size(0);
                    header.set_entry_type(tar::EntryType::Directory);
                    builder.append_data(&mut header, path, std::io::empty()).unwrap();
                }
            }
        }
        Self::from_tar(builder.into_inner().unwrap()).with(Compression::Gzip)
    }

    fn from_tar(tar: Vec<u8>) -> Self {
        let tar = Arc::new(tar);
        Self { stored: Arc::clone(&tar), tar, compression: Compression::None }
    }

    /// The same content, stored otherwise.
    #[must_use]
    pub fn with(self, compression: Compression) -> Self {
        let stored = match compression {
            Compression::None => Arc::clone(&self.tar),
            Compression::Gzip => Arc::new(gzip(&self.tar)),
            Compression::Zstd => Arc::new(zstd::encode_all(self.tar.as_slice(), 1).unwrap()),
        };
        Self { tar: self.tar, stored, compression }
    }

    /// The digest of the uncompressed tar, as configs name it.
    #[must_use]
    pub fn diff_id(&self) -> String {
        digest(&self.tar)
    }

    /// The digest of the stored form.
    #[must_use]
    pub fn digest(&self) -> String {
        digest(&self.stored)
    }

    /// The media type of the stored form.
    #[must_use]
    pub fn media_type(&self, format: Format) -> &'static str {
        match (format, self.compression) {
            (Format::Docker, Compression::Gzip) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            (Format::Docker, Compression::None) => "application/vnd.docker.image.rootfs.diff.tar",
            (Format::Oci, Compression::Gzip) => "application/vnd.oci.image.layer.v1.tar+gzip",
            (Format::Oci, Compression::None) => "application/vnd.oci.image.layer.v1.tar",
            (_, Compression::Zstd) => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// gzip without a clock or a name in its header.
#[must_use]
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::GzBuilder::new().mtime(0).write(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
