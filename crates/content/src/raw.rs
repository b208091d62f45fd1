//! zstd layers as they are without compression, for those who read no zstd. Nothing is written anywhere: whoever reads, decodes.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ferry_image::{Descriptor, Digest, Hasher};
use futures_util::{StreamExt as _, stream};
use zstd::stream::raw::{Decoder, Operation as _};

use crate::files::CHUNK;
use crate::{BoxFuture, ByteStream, Error, Failure, Kind, Provider};

/// A compressed layer that is not what it should be.
#[derive(Debug, thiserror::Error)]
#[error("{place}: layer {digest} cannot be decoded: {why}")]
struct Undecodable {
    place: String,
    digest: Digest,
    why: String,
}

impl Failure for Undecodable {
    fn kind(&self) -> Kind {
        Kind::Untrusted
    }

    fn hint(&self) -> Option<String> {
        Some("the layer was made wrongly where the image was built; build the image anew".to_owned())
    }
}

/// A provider that also has some layers of another one without their compression.
pub struct Raw {
    inner: Arc<dyn Provider>,
    /// By the digest of the raw layer: the compressed one.
    layers: HashMap<Digest, Descriptor>,
}

impl Raw {
    /// What `inner` has, and nothing raw yet.
    #[must_use]
    pub fn new(inner: Arc<dyn Provider>) -> Self {
        Self { inner, layers: HashMap::new() }
    }

    /// Reads a zstd layer through, to learn how many bytes it is without compression, and gives it from then on. `diff_id` is what it
    /// must hash to then, as its image's config says.
    ///
    /// # Errors
    /// When it cannot be read or decoded, or is another layer than the config says.
    pub async fn add(&mut self, layer: &Descriptor, diff_id: &Digest, media_type: &str) -> Result<Descriptor, Error> {
        let mut bytes = decode(&self.inner, layer).await?;
        let mut hasher = Hasher::new(diff_id.algorithm());
        let mut size = 0;
        while let Some(chunk) = bytes.next().await {
            let chunk = chunk?;
            size += chunk.len() as u64;
            hasher.update(&chunk);
        }
        let found = hasher.finish();
        if found != *diff_id {
            return Err(Error::DigestMismatch { place: self.inner.place(), expected: diff_id.clone(), found });
        }
        self.layers.insert(diff_id.clone(), layer.clone());
        Ok(Descriptor::new(media_type, diff_id.clone(), size))
    }
}

impl Provider for Raw {
    fn open<'a>(&'a self, blob: &'a Descriptor, range: Range<u64>) -> BoxFuture<'a, Result<ByteStream, Error>> {
        let Some(layer) = self.layers.get(&blob.digest) else { return self.inner.open(blob, range) };
        Box::pin(async move {
            if range.start != 0 {
                return Err(Error::NoRanges { place: self.inner.place(), digest: blob.digest.clone() });
            }
            decode(&self.inner, layer).await
        })
    }

    fn is_remote(&self) -> bool {
        self.inner.is_remote()
    }

    fn turns_elsewhere(&self, blob: &Descriptor) -> bool {
        self.inner.turns_elsewhere(self.layers.get(&blob.digest).unwrap_or(blob))
    }

    fn place(&self) -> String {
        self.inner.place()
    }
}

/// Where a decoder is.
struct Decoding {
    from: ByteStream,
    decoder: Decoder<'static>,
    /// What came and is not decoded yet.
    input: Bytes,
    /// Whether the last frame is over.
    is_whole: bool,
    is_over: bool,
}

async fn decode(inner: &Arc<dyn Provider>, layer: &Descriptor) -> Result<ByteStream, Error> {
    let (place, digest) = (inner.place(), layer.digest.clone());
    let fail = move |why: String| Error::other(Undecodable { place: place.clone(), digest: digest.clone(), why });
    let from = inner.open(layer, 0..layer.size).await?;
    let decoder = Decoder::new().map_err(|e| fail(e.to_string()))?;
    let begun = Decoding { from, decoder, input: Bytes::new(), is_whole: false, is_over: false };
    Ok(Box::pin(stream::unfold(begun, move |mut decoding| {
        let fail = fail.clone();
        async move {
            let next = decoding.next().await.map_err(|why| match why {
                Broken::Read(error) => error,
                Broken::Decode(why) => fail(why),
            });
            Some((next.transpose()?, decoding))
        }
    })))
}

enum Broken {
    Read(Error),
    Decode(String),
}

impl Decoding {
    async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        let mut output = vec![0; CHUNK as usize];
        while !self.is_over {
            if self.input.is_empty() {
                match self.from.next().await {
                    Some(Ok(bytes)) => self.input = bytes,
                    Some(Err(error)) => return Err(Broken::Read(error)),
                    None => {
                        self.is_over = true;
                        // what the decoder holds back came out already: a frame that is over has nothing left
                        if !self.is_whole {
                            return Err(Broken::Decode("it ends in the middle of a frame".to_owned()));
                        }
                        break;
                    }
                }
                continue;
            }
            let status = self.decoder.run_on_buffers(&self.input, &mut output);
            let status = status.map_err(|e| {
                self.is_over = true;
                Broken::Decode(e.to_string())
            })?;
            self.input = self.input.slice(status.bytes_read..);
            self.is_whole = status.remaining == 0;
            if status.bytes_written > 0 {
                output.truncate(status.bytes_written);
                return Ok(Some(output.into()));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::memory::Memory;
    use crate::read_all;

    fn layer(frames: &[&[u8]]) -> Vec<u8> {
        let mut all = Vec::new();
        for frame in frames {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).expect("encoder");
            encoder.write_all(frame).expect("write");
            all.extend(encoder.finish().expect("frame"));
        }
        all
    }

    #[tokio::test]
    async fn a_layer_is_given_without_its_compression() {
        // larger than the decoder's window and the chunks, well compressible, of two frames
        let text: Vec<u8> = (0..3_000_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let stored = layer(&[&text[..5_000_001], &text[5_000_001..]]);
        let mut memory = Memory::default();
        let other = memory.insert(b"other".to_vec());
        let compressed = Descriptor::new("zstd", memory.insert(stored.clone()), stored.len() as u64);
        let mut raw = Raw::new(Arc::new(memory));
        let found = raw.add(&compressed, &Digest::of(&text), "tar").await.expect("decodes");
        assert_eq!((found.size, &found.digest), (text.len() as u64, &Digest::of(&text)));
        assert_eq!(read_all(&raw, &found, 1 << 30).await.expect("reads"), text);
        let other = Descriptor::new("x", other, 5);
        assert_eq!(read_all(&raw, &other, 5).await.expect("reads"), "other".as_bytes());
        let wrong = raw.add(&compressed, &Digest::of(b"something else"), "tar").await.expect_err("another layer");
        assert_eq!(wrong.kind(), Kind::Untrusted);
    }

    #[tokio::test]
    async fn what_is_cut_off_or_no_zstd_is_told() {
        let text = b"abc".repeat(100_000);
        let whole = layer(&[&text]);
        for (bytes, why) in [
            (whole[..whole.len() - 1].to_vec(), "ends in the middle"),
            (b"no zstd at all".to_vec(), "cannot be decoded"),
            (Vec::new(), "ends in the middle"),
        ] {
            let mut memory = Memory::default();
            let layer = Descriptor::new("zstd", memory.insert(bytes.clone()), bytes.len() as u64);
            let error = Raw::new(Arc::new(memory)).add(&layer, &Digest::of(&text), "tar").await.expect_err("damaged");
            assert!(error.to_string().contains(why) && error.kind() == Kind::Untrusted, "{error}");
        }
    }
}
