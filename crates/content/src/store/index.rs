//! `index.json`: the tags of every repository.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ferry_image::{Descriptor, reference};
use serde_json::{Value, json};

use super::layout::Layout;
use super::{Error, durable};

/// The annotation that names an entry of a layout (image-spec, annotations.md).
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation that names the host which an image is from.
pub(super) const ORIGIN: &str = "ferry.origin";
/// A limit against nonsense; a thousand images take 300 KiB.
const MAX_INDEX: u64 = 256 << 20;

/// Tags and what they point to, by repository.
pub(super) type Tags = BTreeMap<String, BTreeMap<String, Descriptor>>;

/// The file, and what it said when it was last read.
#[derive(Debug)]
pub(super) struct IndexFile {
    path: PathBuf,
    cached: Mutex<Option<Cached>>,
}

#[derive(Debug)]
struct Cached {
    /// Kept open, so that no later file can have the same inode number while we compare it.
    _file: File,
    version: Version,
    tags: Arc<Tags>,
}

impl IndexFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, cached: Mutex::new(None) }
    }

    /// The tags as the file has them now; read again only when the file is another one.
    pub(super) fn tags(&self) -> Result<Arc<Tags>, Error> {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let io = |e| crate::Error::io("read", &self.path, e);
        if let Some(known) = cached.as_ref()
            && version(&self.path.metadata().map_err(io)?) == known.version
        {
            return Ok(Arc::clone(&known.tags));
        }
        let file = File::open(&self.path).map_err(io)?;
        let version = version(&file.metadata().map_err(io)?);
        let document = parse(&durable::read_open(&file, &self.path, MAX_INDEX)?, &self.path)?;
        let tags = Arc::new(tags_of(&document));
        *cached = Some(Cached { _file: file, version, tags: Arc::clone(&tags) });
        Ok(tags)
    }

    /// Points tags to a manifest, or removes them (`None`). The caller holds the store's lock. What it says of the image, beside what it is,
    /// stands in the manifest's annotations.
    pub(super) fn set(
        &self,
        layout: &Layout,
        repository: &str,
        tags: &[&str],
        manifest: Option<&Descriptor>,
    ) -> Result<(), Error> {
        let names: Vec<String> = tags.iter().map(|tag| format!("{repository}:{tag}")).collect();
        self.edit(layout, |entries| {
            entries.retain(|entry| name_of(entry).is_none_or(|old| names.iter().all(|name| name != old)));
            entries.extend(names.iter().zip(manifest.into_iter().cycle()).map(|(name, manifest)| {
                let mut annotations = manifest.annotations.clone();
                annotations.insert(REF_NAME.to_owned(), name.clone());
                json!({
                    "mediaType": manifest.media_type,
                    "digest": manifest.digest.to_string(),
                    "size": manifest.size,
                    "annotations": annotations,
                })
            }));
        })
    }

    /// Everything that the file names, whoever wrote it, and the repository where the name is one of ours.
    pub(super) fn all(&self) -> Result<Vec<(Option<String>, Descriptor)>, Error> {
        let bytes = durable::read(&self.path, MAX_INDEX)?.unwrap_or_default();
        let document = parse(&bytes, &self.path)?;
        let entries = document.get("manifests").and_then(Value::as_array).into_iter().flatten();
        let fail = |e: serde_json::Error| Error::NotAStore { path: self.path.clone(), why: e.to_string() };
        let repository = |entry| Some(name_of(entry)?.rsplit_once(':')?.0).filter(|name| reference::is_path(name));
        let parsed = entries.map(|entry| {
            let descriptor = serde_json::from_value(entry.clone()).map_err(fail)?;
            Ok((repository(entry).map(str::to_owned), descriptor))
        });
        parsed.collect()
    }

    /// Entries and fields of other tools are kept as they are.
    fn edit(&self, layout: &Layout, change: impl FnOnce(&mut Vec<Value>)) -> Result<(), Error> {
        let bytes = durable::read(&self.path, MAX_INDEX)?.unwrap_or_default();
        let mut document = parse(&bytes, &self.path)?;
        if let Some(entries) = document.get_mut("manifests").and_then(Value::as_array_mut) {
            change(entries);
        }
        Ok(durable::write(&layout.uploads(), &self.path, document.to_string().as_bytes())?)
    }
}

/// We replace the file; other tools write into it.
type Version = (u64, u64, u64, i64, i64);

fn version(metadata: &Metadata) -> Version {
    (metadata.dev(), metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec())
}

fn parse(bytes: &[u8], path: &Path) -> Result<Value, Error> {
    let fail = |why: String| Error::NotAStore { path: path.to_owned(), why };
    let document: Value = serde_json::from_slice(bytes).map_err(|e| fail(e.to_string()))?;
    if document.get("manifests").is_none_or(|m| !m.is_array()) {
        return Err(fail("it has no list of `manifests`".to_owned()));
    }
    Ok(document)
}

fn name_of(entry: &Value) -> Option<&str> {
    entry.get("annotations")?.get(REF_NAME)?.as_str()
}

fn tags_of(document: &Value) -> Tags {
    let mut tags = Tags::new();
    for entry in document.get("manifests").and_then(Value::as_array).into_iter().flatten() {
        let Some((repository, tag)) = name_of(entry).and_then(|name| name.rsplit_once(':')) else { continue };
        let Ok(descriptor) = serde_json::from_value::<Descriptor>(entry.clone()) else { continue };
        if reference::is_path(repository) && reference::is_tag(tag) {
            tags.entry(repository.to_owned()).or_default().insert(tag.to_owned(), descriptor);
        }
    }
    tags
}
