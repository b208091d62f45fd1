//! Docker-save tars and OCI layouts, as vendors ship them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use ferry_content::local::fuzz::Tar;
use ferry_content::local::{Layers, Limits, LocalSource, Options};
use ferry_content::{Error, Failure as _, Kind};
use ferry_image::{Digest, Manifest, Platform};
use tempfile::TempDir;

use crate::pieces::pieces;

const BLOCK: usize = 512;
/// What a compressed input may unpack to, in bytes.
const MAX_UNPACKED: u64 = 4 << 20;

/// A folder of this thread's own, used again for every input.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("folder"))
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).expect("write");
        path
    }

    fn spool(&self) -> PathBuf {
        self.0.path().join("spool")
    }

    /// Everything in it.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).expect("list");
        let mut names: Vec<String> =
            entries.map(|e| e.expect("entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

thread_local! {
    static FOLDER: RefCell<Folder> = RefCell::new(Folder::new());
}

/// The index agrees with the `tar` crate about every file, or refuses the whole.
pub fn tar(data: &[u8]) {
    agree(data);
    if let Some(mended) = mended(data) {
        agree(&mended);
    }
}

fn agree(bytes: &[u8]) {
    let Ok(index) = Tar::read(bytes) else { return };
    if index.fault().is_some() {
        return;
    }
    let mut archive = tar::Archive::new(bytes);
    for entry in archive.entries().expect("entries") {
        // what the other reader refuses is no file
        let Ok(entry) = entry else { return };
        let header = entry.header();
        let kind = header.entry_type();
        let extends = kind.is_gnu_longname() || kind.is_gnu_longlink() || kind.is_pax_local_extensions();
        if extends && header.as_gnu().is_none() && header.as_ustar().is_none() {
            // in a header without a magic it is an extension for GNU tar, Go and Python too, but not for the other reader
            return;
        }
        if !(kind.is_file() || kind.is_contiguous()) {
            continue;
        }
        let raw = entry.path_bytes();
        // GNU's own tar ends a long name at its first NUL
        let raw = raw.split(|b| *b == 0).next().unwrap_or_default();
        let Ok(name) = std::str::from_utf8(raw) else { panic!("a name that is not UTF-8 was taken") };
        if name.ends_with('/') && entry.size() == 0 {
            continue;
        }
        let parts: Vec<&str> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        assert!(!parts.contains(&"..") && !name.starts_with('/') && !name.contains(char::is_control), "{name:?}");
        let place = (entry.raw_file_position(), entry.size());
        assert_eq!(index.find(&parts.join("/")), Some(place), "{name:?}");
        assert!(place.0 + place.1 <= bytes.len() as u64);
    }
}

/// The same tar with right checksums, so that a change of a header is not its end. `None` where nothing was wrong.
fn mended(data: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = data.to_vec();
    let mut at = 0;
    while let Some(block) = bytes.get_mut(at..at + BLOCK).filter(|block| block.iter().any(|b| *b != 0)) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let size = block[124..136].iter().filter(|b| (b'0'..=b'7').contains(b));
        let size = size.fold(0_usize, |n, b| n.saturating_mul(8).saturating_add(usize::from(b - b'0')));
        at = at.saturating_add(BLOCK).saturating_add(size.min(1 << 30).next_multiple_of(BLOCK));
    }
    (bytes != data).then_some(bytes)
}

/// An archive as it comes: whatever opens gives images with the right digests, or an error.
pub fn source(data: &[u8]) {
    let compressed = data.starts_with(&[0x1f, 0x8b]) || data.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    let mended = (!compressed).then(|| mended(data)).flatten();
    open(mended.as_deref().unwrap_or(data));
}

/// The documents of an archive, see [`pieces`].
pub fn documents(data: &[u8]) {
    let mut out = Vec::new();
    for piece in pieces(data) {
        let mut header = tar::Header::new_gnu();
        let name = piece.name.as_bytes();
        let (link, bytes) = match piece.name.split_once(" -> ") {
            Some((_, target)) => (Some(target.as_bytes()), [].as_slice()),
            None => (None, piece.bytes.as_slice()),
        };
        let name = piece.name.split_once(" -> ").map_or(name, |(name, _)| name.as_bytes());
        let short = name.len().min(100);
        header.as_old_mut().name[..short].copy_from_slice(&name[..short]);
        header.set_entry_type(if link.is_some() { tar::EntryType::Symlink } else { tar::EntryType::Regular });
        if let Some(link) = link {
            let short = link.len().min(100);
            header.as_old_mut().linkname[..short].copy_from_slice(&link[..short]);
        }
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(bytes);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    out.resize(out.len() + 2 * BLOCK, 0);
    open(&out);
}

fn open(bytes: &[u8]) {
    FOLDER.with_borrow(|folder| {
        let path = folder.write("image.tar", bytes);
        let limits = Limits { max_unpacked: MAX_UNPACKED };
        match LocalSource::open_blocking(&path, &folder.spool(), &limits) {
            Ok(source) => images(&source, folder, &limits),
            Err(error) => is_told(&error),
        }
        assert!(
            folder.names().iter().all(|name| matches!(name.as_str(), "image.tar" | "spool")),
            "{:?}",
            folder.names()
        );
    });
}

fn is_told(error: &Error) {
    assert!(matches!(error.kind(), Kind::Untrusted | Kind::Invalid | Kind::Missing), "{error}");
    assert!(error.hint().is_some_and(|hint| !hint.is_empty()), "{error}");
}

fn images(source: &LocalSource, folder: &Folder, limits: &Limits) {
    assert!(!source.images().is_empty());
    let _ = source.choose(None);
    for (i, image) in source.images().iter().take(4).enumerate() {
        for name in &image.names {
            if let Ok(found) = source.choose(Some(name)) {
                assert!(found.names.contains(name) || source.images().len() > 1, "{name}");
            }
        }
        let mut options = Options::new(folder.spool());
        options.limits = limits.clone();
        options.layers = [Layers::Gzip, Layers::Verbatim][i % 2];
        options.platforms = if i < 2 { Vec::new() } else { vec![Platform::new("linux", "amd64", None)] };
        let need = source.need(image, &options);
        let worked = std::sync::Arc::new(AtomicU64::new(0));
        let counter = std::sync::Arc::clone(&worked);
        options.progress = Some(std::sync::Arc::new(move |n| _ = counter.fetch_add(n, Ordering::Relaxed)));
        match source.prepare_blocking(image, &options) {
            Ok(prepared) => {
                let need = need.expect("what can be prepared can be measured");
                assert_eq!(worked.load(Ordering::Relaxed), need.input);
                let spool: u64 = prepared.compressed.iter().map(|c| c.layer.size).sum();
                assert!(spool <= need.spool, "{spool} of {}", need.spool);
                let manifests: BTreeMap<&Digest, &[u8]> =
                    prepared.manifests.iter().map(|(d, bytes)| (&d.digest, bytes.as_ref())).collect();
                for (descriptor, bytes) in &prepared.manifests {
                    assert_eq!((&descriptor.digest, descriptor.size), (&Digest::of(bytes), bytes.len() as u64));
                    let parsed = Manifest::parse(bytes, Some(&descriptor.media_type)).expect("a manifest");
                    assert_eq!(parsed.media_type(), descriptor.media_type);
                }
                assert!(manifests.contains_key(&prepared.root.digest) || prepared.root.digest.hex().len() != 64);
            }
            Err(error) => is_told(&error),
        }
        let _ = std::fs::remove_dir_all(folder.spool());
    }
}
