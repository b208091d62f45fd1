//! Layers on their way through the spool folder: hashed, checked against the config, compressed.
//!
//! ```text
//! <diff id>.<encoder>.partial   being written; begun anew after an interruption
//! <digest>.blob                 a finished layer
//! <diff id>.<encoder>.done      JSON: which blob the layer became
//! ```
//!
//! A finished layer is used again by the next run after its bytes were hashed again: that costs a tenth of compressing, and
//! nothing need be synced. The folder belongs to one build at a time, which removes it when the bundle is sealed.

use std::fs::File;
use std::io::{BufWriter, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use ferry_image::media_type::Compression;
use ferry_image::{Algorithm, Digest, Hasher};
use serde::{Deserialize, Serialize};

use super::compress::{Hashed, Layers};
use super::extent::{Extent, fill};
use super::unpack::{decoder, undecodable};
use super::{Limits, fault};
use crate::Error;

/// Bytes compressed at a time.
const PIECE: usize = 1 << 20;
/// A record is some 300 bytes.
const MAX_RECORD: u64 = 4096;

/// Told how many bytes of layers were worked through since the last call, from any thread.
pub type Progress = dyn Fn(u64) + Send + Sync;

/// Who looks on: gets the progress, may stop the work.
pub(super) struct Watch<'a> {
    pub(super) progress: Option<&'a Progress>,
    pub(super) cancelled: &'a AtomicBool,
}

/// A layer that must be looked at from end to end.
#[derive(Debug, Clone)]
pub(super) struct Work {
    /// Where it stands.
    pub(super) extent: Extent,
    /// Its name there, for people.
    pub(super) name: String,
    /// What it must hash to uncompressed.
    pub(super) diff_id: Digest,
    /// How it is compressed already.
    pub(super) compression: Compression,
}

/// What a layer became.
#[derive(Debug, Clone)]
pub(super) struct Worked {
    pub(super) digest: Digest,
    pub(super) extent: Extent,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Record {
    diff_id: Digest,
    encoder: String,
    digest: Digest,
    size: u64,
}

impl Watch<'_> {
    fn passed(&self, bytes: u64, path: &Path) -> Result<(), Error> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Error::io("read", path, std::io::ErrorKind::Interrupted.into()));
        }
        if let Some(progress) = self.progress {
            progress(bytes);
        }
        Ok(())
    }
}

/// Compresses a raw layer into the spool, or finds it there.
pub(super) fn compress(work: &Work, layers: Layers, spool: &Path, watch: &Watch<'_>) -> Result<Worked, Error> {
    let encoder = layers.encoder_id().unwrap_or_default();
    let stem = format!("{}.{}", work.diff_id.hex(), encoder.replace('/', "-"));
    let record = spool.join(format!("{stem}.done"));
    if let Some(worked) = reuse(work, &encoder, &record, spool, watch)? {
        return Ok(worked);
    }
    let partial = spool.join(format!("{stem}.partial"));
    let (digest, size) = encode(work, layers, &partial, watch)?;
    let blob = blob_path(spool, &digest);
    std::fs::rename(&partial, &blob).map_err(|e| Error::io("rename", &partial, e))?;
    let done = Record { diff_id: work.diff_id.clone(), encoder, digest: digest.clone(), size };
    let text = serde_json::to_vec(&done).map_err(|e| Error::io("write", &record, e.into()))?;
    std::fs::write(&partial, text).map_err(|e| Error::io("write", &partial, e))?;
    std::fs::rename(&partial, &record).map_err(|e| Error::io("write", &record, e))?;
    Ok(Worked { digest, extent: Extent::whole(blob, size) })
}

fn blob_path(spool: &Path, digest: &Digest) -> PathBuf {
    spool.join(format!("{}.blob", digest.hex()))
}

/// What an earlier run left, if it is whole. A record or blob that is not is no error: the layer is compressed again.
fn reuse(work: &Work, encoder: &str, record: &Path, spool: &Path, watch: &Watch<'_>) -> Result<Option<Worked>, Error> {
    let Ok(file) = File::open(record) else { return Ok(None) };
    let mut text = Vec::new();
    if file.take(MAX_RECORD).read_to_end(&mut text).is_err() {
        return Ok(None);
    }
    let Ok(done) = serde_json::from_slice::<Record>(&text) else { return Ok(None) };
    let blob = blob_path(spool, &done.digest);
    let whole = std::fs::symlink_metadata(&blob).is_ok_and(|m| m.is_file() && m.len() == done.size);
    if done.diff_id != work.diff_id || done.encoder != encoder || !whole {
        return Ok(None);
    }
    let extent = Extent::whole(blob.clone(), done.size);
    let mut reader = extent.reader()?;
    let mut hasher = Hasher::new(done.digest.algorithm());
    let mut piece = vec![0; PIECE];
    loop {
        let filled = fill(&mut reader, &mut piece).map_err(|e| Error::io("read", &blob, e))?;
        if filled == 0 {
            break;
        }
        hasher.update(&piece[..filled]);
        watch.passed(0, &blob)?;
    }
    if hasher.finish() != done.digest {
        return Ok(None);
    }
    watch.passed(work.extent.length, &blob)?;
    Ok(Some(Worked { digest: done.digest, extent }))
}

/// Compresses into `partial`; gives digest and size of the result.
fn encode(work: &Work, layers: Layers, partial: &Path, watch: &Watch<'_>) -> Result<(Digest, u64), Error> {
    let failed = |e| Error::io("write", partial, e);
    let file = File::create(partial).map_err(|e| Error::io("create", partial, e))?;
    let out = Hashed::new(BufWriter::with_capacity(PIECE, file));
    let mut encoder = layers.encoder(out, work.extent.length).map_err(failed)?;
    let mut reader = work.extent.reader()?;
    let mut hasher = Hasher::new(work.diff_id.algorithm());
    let mut piece = vec![0; PIECE];
    loop {
        let filled = fill(&mut reader, &mut piece).map_err(|e| Error::io("read", work.extent.path(), e))?;
        if filled == 0 {
            break;
        }
        hasher.update(&piece[..filled]);
        encoder.take(&piece[..filled]).map_err(failed)?;
        watch.passed(filled as u64, work.extent.path())?;
    }
    check(work, hasher)?;
    encoder.finish().map_err(failed)?.finish().map_err(failed)
}

/// Hashes a layer that is compressed already, and what it holds: it stays where and as it is.
pub(super) fn examine(work: &Work, limits: &Limits, watch: &Watch<'_>) -> Result<Worked, Error> {
    let path = work.extent.path();
    let mut inside = Hasher::new(work.diff_id.algorithm());
    let mut outside = Hasher::new(Algorithm::Sha256);
    let mut piece = vec![0; PIECE];
    let mut unpacked = 0_u64;
    let mut layer = decoder(work.extent.reader()?, work.compression).map_err(|e| Error::io("read", path, e))?;
    loop {
        let filled =
            fill(&mut *layer, &mut piece).map_err(|e| undecodable(path, &format!("layer `{}`: ", work.name), e))?;
        if filled == 0 {
            break;
        }
        unpacked += filled as u64;
        if unpacked > limits.max_unpacked {
            let why = format!("layer `{}` unpacks to more than {} bytes", work.name, limits.max_unpacked);
            return Err(fault::damaged(path, why));
        }
        inside.update(&piece[..filled]);
        watch.passed(0, path)?;
    }
    drop(layer);
    check(work, inside)?;
    let mut reader = work.extent.reader()?;
    loop {
        let filled = fill(&mut reader, &mut piece).map_err(|e| Error::io("read", path, e))?;
        if filled == 0 {
            break;
        }
        outside.update(&piece[..filled]);
        watch.passed(filled as u64, path)?;
    }
    Ok(Worked { digest: outside.finish(), extent: work.extent.clone() })
}

/// The config pins what every layer is uncompressed.
fn check(work: &Work, hasher: Hasher) -> Result<(), Error> {
    let found = hasher.finish();
    if found == work.diff_id {
        return Ok(());
    }
    let place = format!("layer `{}` in `{}`", work.name, work.extent.path().display());
    Err(Error::DigestMismatch { place, expected: work.diff_id.clone(), found })
}
