//! Images in files: docker-save tars and OCI layouts (a folder, or a tar: plain, gzip, zstd), as a list of images and a provider.
//!
//! What a path is, is told by its content, never by its name. Plain tars are read by position, compressed ones are unpacked once
//! into a nameless file in the spool folder. Raw layers of docker-save tars are compressed through the spool (see [`Layers`]);
//! everything else is carried byte for byte.
//!
//! Not here: choosing platforms of an index that is carried as it is (`ferry-bundle`), and checking digests of blobs that
//! are copied (whoever copies them does).
//!
//! Reading order: [`LocalSource`], `tarball`, `unpack`, `extent`, `files`, `docker_save`, `oci_layout`, `choose`, `prepare`,
//! `compress`, `spool`, `blobs`.

mod blobs;
mod choose;
mod compress;
mod docker_save;
mod extent;
mod fault;
mod files;
#[doc(hidden)]
pub mod fuzz;
mod oci_layout;
mod prepare;
mod spool;
mod tarball;
#[cfg(test)]
mod tests;
mod unpack;

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use ferry_image::media_type::Compression;
use ferry_image::{Descriptor, Digest, Platform};

pub use self::compress::Layers;
pub use self::docker_save::SavedImage;
pub use self::spool::Progress;

use self::blobs::Blobs;
use self::choose::Unclear;
use self::extent::sniff;
use self::files::Files;
use self::prepare::{Draft, Made};
use self::spool::Watch;
use crate::memory::Memory;
use crate::{Error, Provider};

/// Names listed in an error before it says how many more there are.
const LISTED: usize = 20;

/// How much is taken from input that may be made to hurt.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The most bytes that a compressed tar, or one compressed layer, may unpack to. The free space of the spool limits too.
    pub max_unpacked: u64,
}

impl Default for Limits {
    /// 1 TiB.
    fn default() -> Self {
        Self { max_unpacked: 1 << 40 }
    }
}

/// What a source was recognised as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// A docker-save tar with `manifest.json` alone.
    DockerSave,
    /// A docker-save tar that is also an OCI layout (Docker 25 and newer).
    DockerOci,
    /// An OCI layout, in a folder or a tar.
    OciLayout,
}

/// One image of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalImage {
    /// Its names as found, which need not follow any grammar.
    pub names: Vec<String>,
    /// Its content.
    pub root: Root,
}

/// What an image's content hangs from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// A manifest or index, as `index.json` describes it.
    Manifest(Descriptor),
    /// A config and layers, as `manifest.json` names them.
    Saved(SavedImage),
}

/// How an image is prepared.
#[derive(Clone)]
pub struct Options {
    /// The folder for compressed layers, which the caller removes when they were copied. Kept after a failure, it saves the
    /// next run the work.
    pub spool: PathBuf,
    /// What becomes of raw layers.
    pub layers: Layers,
    /// How many layers are compressed at once.
    pub jobs: usize,
    /// The platforms whose raw layers are compressed; all when empty. An image that is carried as it is keeps all of them.
    pub platforms: Vec<Platform>,
    /// Limits on what compressed layers unpack to.
    pub limits: Limits,
    /// Who wants to know about progress.
    pub progress: Option<Arc<Progress>>,
}

impl Options {
    /// gzip, one layer at a time, all platforms.
    #[must_use]
    pub fn new(spool: impl Into<PathBuf>) -> Self {
        Self {
            spool: spool.into(),
            layers: Layers::default(),
            jobs: 1,
            platforms: Vec::new(),
            limits: Limits::default(),
            progress: None,
        }
    }
}

/// What preparing an image will cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// The most bytes that the spool folder will take.
    pub spool: u64,
    /// The bytes of layers that will be worked through; the progress counts up to it.
    pub input: u64,
}

/// A layer that was compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compressed {
    /// The digest of the raw layer (its diff id).
    pub input: Digest,
    /// What it became.
    pub layer: Descriptor,
}

/// An image that can be carried.
pub struct Prepared {
    /// Its root manifest or index.
    pub root: Descriptor,
    /// The root, and all manifests that ferry made; others are read through the provider. The root comes last.
    pub manifests: Vec<(Descriptor, Bytes)>,
    /// All blobs, the manifests included.
    pub provider: Arc<dyn Provider>,
    /// The encoder, if layers were compressed.
    pub encoder: Option<String>,
    /// The layers that were compressed, in the order of their input digests.
    pub compressed: Vec<Compressed>,
}

/// A docker-save tar or an OCI layout, opened.
#[derive(Debug, Clone)]
pub struct LocalSource {
    files: Arc<Files>,
    kind: SourceKind,
    images: Arc<[LocalImage]>,
    unpacked: u64,
}

impl LocalSource {
    /// Recognises `path` and lists its images. A compressed tar is unpacked into `spool`, without a name there. Blocking.
    ///
    /// # Errors
    /// When it cannot be read, is neither kind, contradicts itself, reaches out of itself, or exceeds `limits`.
    pub fn open_blocking(path: &Path, spool: &Path, limits: &Limits) -> Result<Self, Error> {
        Self::open_watched(path, spool, limits, &AtomicBool::new(false))
    }

    fn open_watched(path: &Path, spool: &Path, limits: &Limits, cancelled: &AtomicBool) -> Result<Self, Error> {
        let metadata = path.metadata().map_err(|e| Error::io("read", path, e))?;
        let (files, unpacked) = if metadata.is_dir() {
            let root = path.canonicalize().map_err(|e| Error::io("read", path, e))?;
            (Files::Folder { path: path.to_owned(), root }, 0)
        } else if metadata.is_file() {
            open_tar(path, metadata.len(), spool, limits, cancelled)?
        } else {
            let hint =
                "give the path of an archive or of an OCI layout folder; what comes from a pipe, save to a file first";
            return Err(fault::invalid(path, "it is neither a file nor a folder", hint));
        };
        let kind = recognise(&files)?;
        if let Files::Tar { members, .. } = &files
            && let Some(fault) = members.fault()
        {
            return Err(fault::damaged(path, fault));
        }
        let images = match kind {
            SourceKind::DockerSave => docker_save::images(&files)?,
            SourceKind::DockerOci | SourceKind::OciLayout => {
                oci_layout::check_version(&files)?;
                oci_layout::images(&files)?
            }
        };
        if images.is_empty() {
            return Err(fault::invalid(path, "it lists no image", "save it again, naming the images to be saved"));
        }
        Ok(Self { files: Arc::new(files), kind, images: images.into(), unpacked })
    }

    /// [`open_blocking`](Self::open_blocking) on a thread of its own, which ends soon after this future is dropped.
    ///
    /// # Errors
    /// The same.
    pub async fn open(path: &Path, spool: &Path, limits: &Limits) -> Result<Self, Error> {
        let (path, spool, limits) = (path.to_owned(), spool.to_owned(), limits.clone());
        let place = path.clone();
        let cancel = CancelOnDrop::default();
        let cancelled = Arc::clone(&cancel.0);
        blocking(&place, move || Self::open_watched(&path, &spool, &limits, &cancelled)).await
    }

    /// The path as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.files.path()
    }

    /// What it was recognised as.
    #[must_use]
    pub fn kind(&self) -> SourceKind {
        self.kind
    }

    /// The images, in the order in which the source lists them. Never empty.
    #[must_use]
    pub fn images(&self) -> &[LocalImage] {
        &self.images
    }

    /// The bytes that the unpacked tar takes in the spool, as long as this source or a provider of it lives.
    #[must_use]
    pub fn unpacked(&self) -> u64 {
        self.unpacked
    }

    /// The image called `name` (in full, short, without its tag, by digest, or verbatim, however odd), or the only one.
    ///
    /// # Errors
    /// [`Kind::Missing`](crate::Kind::Missing) with the names there are, when none or several fit.
    pub fn choose(&self, name: Option<&str>) -> Result<&LocalImage, Error> {
        let fail = |why: String, images: &[&LocalImage]| {
            let mut names: Vec<String> = images.iter().map(|i| i.label()).collect();
            let more = names.len().saturating_sub(LISTED);
            names.truncate(LISTED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let hint = "say which image of the archive is meant (`archiveImage:` in a bundle manifest), by one of the names listed";
            fault::missing(self.path(), format!("{why}: {}{more}", names.join(", ")), hint)
        };
        match (choose::choose(&self.images, name), name) {
            (Ok(found), _) => Ok(&self.images[found]),
            (Err(Unclear::None), name) => {
                let all: Vec<&LocalImage> = self.images.iter().collect();
                Err(fail(format!("there is no image `{}` in it; there are", name.unwrap_or_default()), &all))
            }
            (Err(Unclear::Several(found)), name) => {
                let images: Vec<&LocalImage> = found.iter().map(|i| &self.images[*i]).collect();
                Err(match name {
                    Some(name) => fail(format!("`{name}` can mean several of its images"), &images),
                    None => fail("it has several images".to_owned(), &images),
                })
            }
        }
    }

    /// Whether a blob is there. Sources may lack the platforms that were not saved.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub fn has(&self, digest: &Digest) -> Result<bool, Error> {
        Ok(self.files.find(&digest.blob_path())?.is_some())
    }

    /// The bytes of a manifest or index of at most 4 MiB, checked against its digest. Blocking, but short.
    ///
    /// # Errors
    /// [`Error::NotFound`]; when it is too large or has another digest.
    pub fn read_manifest(&self, digest: &Digest) -> Result<Bytes, Error> {
        oci_layout::manifest(&self.files, digest, None)?.ok_or_else(|| Error::NotFound {
            place: self.path().display().to_string(),
            what: format!("manifest {digest}"),
        })
    }

    /// The blobs that stand in the source under their digests (none in [`SourceKind::DockerSave`]).
    #[must_use]
    pub fn provider(&self) -> Arc<dyn Provider> {
        let (extents, memory) = (std::collections::BTreeMap::default(), Memory::default());
        Arc::new(Blobs { files: Arc::clone(&self.files), extents, memory })
    }

    fn draft(&self, image: &LocalImage, options: &Options) -> Result<Draft, Error> {
        match &image.root {
            Root::Saved(saved) => prepare::draft_saved(&self.files, saved, options.layers),
            Root::Manifest(root) => {
                let remake = self.kind == SourceKind::DockerOci;
                prepare::draft_listed(&self.files, root, remake, options.layers, &options.platforms)
            }
        }
    }

    /// What preparing `image` will cost at most. Reads manifests and configs only. Blocking, but short.
    ///
    /// # Errors
    /// When the image is incomplete or contradicts itself.
    pub fn need(&self, image: &LocalImage, options: &Options) -> Result<Need, Error> {
        let draft = self.draft(image, options)?;
        Ok(Need { spool: draft.bound(options.layers), input: draft.input() })
    }

    /// Makes `image` ready to be carried, compressing raw layers into the spool. Blocking, for long.
    ///
    /// # Errors
    /// When the image is incomplete or contradicts itself, or the spool cannot be written.
    pub fn prepare_blocking(&self, image: &LocalImage, options: &Options) -> Result<Prepared, Error> {
        self.prepare_watched(image, options, &AtomicBool::new(false))
    }

    /// [`prepare_blocking`](Self::prepare_blocking) on a thread of its own, which ends soon after this future is dropped.
    ///
    /// # Errors
    /// The same.
    pub async fn prepare(&self, image: &LocalImage, options: &Options) -> Result<Prepared, Error> {
        let cancel = CancelOnDrop::default();
        let cancelled = Arc::clone(&cancel.0);
        let (source, image, options) = (self.clone(), image.clone(), options.clone());
        blocking(self.path(), move || source.prepare_watched(&image, &options, &cancelled)).await
    }

    fn prepare_watched(
        &self,
        image: &LocalImage,
        options: &Options,
        cancelled: &AtomicBool,
    ) -> Result<Prepared, Error> {
        let made = match self.draft(image, options)? {
            Draft::Verbatim(root) => Made { manifests: vec![*root], ..Made::default() },
            Draft::Made(images) => {
                let watch = Watch { progress: options.progress.as_deref(), cancelled };
                prepare::make(&images, options.layers, &options.spool, options.jobs, &options.limits, &watch)?
            }
        };
        let mut memory = Memory::default();
        for bytes in made.configs.into_iter().chain(made.manifests.iter().map(|(_, bytes)| bytes.clone())) {
            memory.insert(bytes);
        }
        let Some((root, _)) = made.manifests.last() else {
            let hint = "choose another image of the archive";
            return Err(fault::invalid(self.path(), "the image has no manifest of a container image", hint));
        };
        let compressed: Vec<Compressed> =
            made.compressed.into_iter().map(|(input, layer)| Compressed { input, layer }).collect();
        Ok(Prepared {
            root: root.clone(),
            provider: Arc::new(Blobs { files: Arc::clone(&self.files), extents: made.extents, memory }),
            manifests: made.manifests,
            encoder: options.layers.encoder_id().filter(|_| !compressed.is_empty()),
            compressed,
        })
    }
}

impl LocalImage {
    fn add_names(&mut self, names: Vec<String>) {
        for name in names {
            if !self.names.contains(&name) {
                self.names.push(name);
            }
        }
    }

    /// Its names, or what it can be told by when it has none.
    #[must_use]
    pub fn label(&self) -> String {
        if !self.names.is_empty() {
            return self.names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(" = ");
        }
        match &self.root {
            Root::Manifest(descriptor) => format!("{} (without a name)", descriptor.digest),
            Root::Saved(saved) => format!("{} (without a name)", saved.config),
        }
    }
}

fn open_tar(
    path: &Path,
    length: u64,
    spool: &Path,
    limits: &Limits,
    cancelled: &AtomicBool,
) -> Result<(Files, u64), Error> {
    let mut file = File::open(path).map_err(|e| Error::io("read", path, e))?;
    let mut first = [0; 4];
    let filled = file.read_at(&mut first, 0).map_err(|e| Error::io("read", path, e))?;
    let (members, unpacked) = match sniff(&first[..filled]) {
        Compression::None | Compression::Unknown => {
            (tarball::index(&mut unpack::Plain::new(&file, path, length), path)?, 0)
        }
        compression => {
            let mut input = unpack::Unpack::new(file, compression, path, spool, limits, cancelled)?;
            let members = tarball::index(&mut input, path)?;
            file = input.finish()?;
            (members, file.metadata().map_err(|e| Error::io("read", spool, e))?.len())
        }
    };
    if members.is_empty() {
        let hint = "make one with `docker save -o FILE IMAGE`";
        return Err(fault::invalid(path, "it is a tar without any file in it", hint));
    }
    Ok((Files::Tar { path: path.to_owned(), file: Arc::new(file), members }, unpacked))
}

fn recognise(files: &Files) -> Result<SourceKind, Error> {
    let has = |name: &str| Ok::<_, Error>(files.find(name)?.is_some());
    let in_tar = matches!(files, Files::Tar { .. });
    let (layout, saved) = (has("oci-layout")? && has("index.json")?, has("manifest.json")?);
    Ok(match (layout, saved) {
        (true, true) if in_tar => SourceKind::DockerOci,
        (true, _) => SourceKind::OciLayout,
        (false, true) if in_tar => SourceKind::DockerSave,
        _ => return Err(not_a_source(files, saved, has("repositories")?, has("version")?)),
    })
}

fn not_a_source(files: &Files, saved: bool, repositories: bool, version: bool) -> Error {
    let path = files.path();
    match files {
        Files::Folder { .. } if saved && version => {
            let hint = "turn it into one with `skopeo copy dir:FOLDER oci:OTHER:TAG`";
            fault::invalid(path, "the folder is not an OCI layout, but one that `skopeo copy … dir:` wrote", hint)
        }
        Files::Folder { .. } if saved => {
            let hint = "pack the folder again (`tar -cf FILE -C FOLDER .`) and give ferry the tar";
            fault::invalid(path, "the folder is not an OCI layout but, it seems, an unpacked docker-save tar", hint)
        }
        Files::Folder { .. } => {
            let hint = "make one with `skopeo copy docker://IMAGE oci:FOLDER:TAG`";
            fault::invalid(path, "the folder is not an OCI layout: it has no `oci-layout` and `index.json`", hint)
        }
        Files::Tar { .. } if repositories => {
            let hint = "load it with a Docker of that time, and save it with a current one";
            fault::invalid(path, "it was saved by a Docker older than 1.10", hint)
        }
        Files::Tar { .. } => {
            let hint =
                "was it made by `docker export`, or is it something else? Make one with `docker save -o FILE IMAGE`";
            fault::invalid(
                path,
                "it is a tar, but neither a docker-save one (no `manifest.json`) nor an OCI layout (no `oci-layout`)",
                hint,
            )
        }
    }
}

/// Lives in a future beside the work that runs on another thread, and tells it when nobody waits any more.
#[derive(Default)]
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs blocking work beside the runtime.
async fn blocking<R: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<R, Error> + Send + 'static,
) -> Result<R, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(join) => Err(Error::io("read", path, std::io::Error::other(join))),
    }
}
