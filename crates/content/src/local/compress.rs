//! The encoders for raw layers, pinned: the same layer gives the same bytes on every machine, until the encoder's version changes.
//!
//! Layers are read in pieces of one size and each is compressed by one thread; no clock and no name goes into the gzip header.
//! Both encoders give the same output on every CPU at these levels.

use std::io::{self, Write};

use ferry_image::{Algorithm, Digest, Hasher, media_type};

/// What becomes of raw (uncompressed) layers of docker-save tars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layers {
    /// gzip level 6, which every registry and runtime reads.
    #[default]
    Gzip,
    /// zstd level 3: smaller and faster, but docker before 23 cannot run it.
    Zstd,
    /// They stay as they are, about three times as large.
    Verbatim,
}

/// The version of the deflate encoder, which has no constant for it; a test compares it with `Cargo.lock`.
const ZLIB_RS: &str = "0.6.8";
const GZIP_LEVEL: u32 = 6;
const ZSTD_LEVEL: i32 = 3;

impl Layers {
    /// Names the encoder exactly (`gzip-6/zlib-rs-0.6.8`): with another id, digests may differ. `None` for verbatim.
    #[must_use]
    pub fn encoder_id(self) -> Option<String> {
        match self {
            Self::Gzip => Some(format!("gzip-{GZIP_LEVEL}/zlib-rs-{ZLIB_RS}")),
            Self::Zstd => Some(format!("zstd-{ZSTD_LEVEL}/libzstd-{}", zstd::zstd_safe::version_string())),
            Self::Verbatim => None,
        }
    }

    /// The media type of the layers it makes.
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Gzip => media_type::OCI_LAYER_GZIP,
            Self::Zstd => media_type::OCI_LAYER_ZSTD,
            Self::Verbatim => media_type::OCI_LAYER,
        }
    }

    /// The most bytes that `raw` bytes become: incompressible ones grow a little, by the frames around stored blocks.
    pub(super) fn bound(self, raw: u64) -> u64 {
        match self {
            Self::Gzip | Self::Zstd => raw.saturating_add(raw / 128).saturating_add(4096),
            Self::Verbatim => 0,
        }
    }

    /// Begins to encode into `out` a layer of `size` bytes.
    pub(super) fn encoder<W: Write>(self, out: W, size: u64) -> io::Result<Encoder<W>> {
        Ok(match self {
            Self::Gzip => Encoder::Gzip(
                flate2::GzBuilder::new()
                    .mtime(0)
                    .operating_system(255)
                    .write(out, flate2::Compression::new(GZIP_LEVEL)),
            ),
            Self::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(out, ZSTD_LEVEL)?;
                encoder.set_pledged_src_size(Some(size))?;
                encoder.include_checksum(true)?;
                Encoder::Zstd(encoder)
            }
            Self::Verbatim => Encoder::Verbatim(out),
        })
    }
}

/// One of the encoders at work.
pub(super) enum Encoder<W: Write> {
    Gzip(flate2::write::GzEncoder<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
    Verbatim(W),
}

impl<W: Write> Encoder<W> {
    pub(super) fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.write_all(bytes),
            Self::Zstd(encoder) => encoder.write_all(bytes),
            Self::Verbatim(out) => out.write_all(bytes),
        }
    }

    pub(super) fn finish(self) -> io::Result<W> {
        match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
            Self::Verbatim(out) => Ok(out),
        }
    }
}

/// Hashes and counts what is written through it.
pub(super) struct Hashed<W> {
    out: W,
    hasher: Hasher,
    length: u64,
}

impl<W: Write> Hashed<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, hasher: Hasher::new(Algorithm::Sha256), length: 0 }
    }

    /// Digest and number of the bytes.
    pub(super) fn finish(mut self) -> io::Result<(Digest, u64)> {
        self.out.flush()?;
        Ok((self.hasher.finish(), self.length))
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(layers: Layers, bytes: &[u8]) -> Vec<u8> {
        let mut encoder = layers.encoder(Vec::new(), bytes.len() as u64).expect("encoder");
        encoder.take(bytes).expect("write");
        encoder.finish().expect("finish")
    }

    #[test]
    fn the_encoder_id_names_the_version_that_is_built_in() {
        let lock = include_str!("../../../../Cargo.lock");
        assert!(lock.contains(&format!("name = \"zlib-rs\"\nversion = \"{ZLIB_RS}\"")), "correct ZLIB_RS");
    }

    #[test]
    fn encoded_bytes_are_frozen() {
        let text: Vec<u8> = (0..200_000_u32).flat_map(|i| ((i / 7).wrapping_mul(i) % 251).to_le_bytes()).collect();
        let digests = [Layers::Gzip, Layers::Zstd].map(|l| Digest::of(&encode(l, &text)).to_string());
        let frozen = [
            "sha256:3501de0fa3f174f1443fdd276cbc72f7e694faff105818990637eacb68ad6f0e",
            "sha256:c3b9d0689c9d16da146eb57c367d5fa3856cea9921eac9df12df709ca79658e6",
        ];
        assert_eq!(digests, frozen, "a new encoder gives other digests: change its id");
    }

    #[test]
    fn nothing_grows_beyond_the_bound() {
        let mut noise = vec![0_u8; 3 << 20];
        let mut state = 1_u64;
        for byte in &mut noise {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (state >> 56) as u8;
        }
        for layers in [Layers::Gzip, Layers::Zstd] {
            for bytes in [&noise[..], &[], &noise[..1]] {
                let encoded = encode(layers, bytes).len() as u64;
                assert!(encoded <= layers.bound(bytes.len() as u64), "{layers:?} {encoded}");
            }
        }
    }

    #[test]
    fn the_gzip_header_holds_no_time_and_no_name() {
        assert_eq!(encode(Layers::Gzip, b"x")[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
    }
}
