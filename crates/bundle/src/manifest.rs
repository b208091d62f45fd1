//! The bundle manifest: the user's list of what to carry, as checked types. Reference: `docs/bundle-manifest.md`.
//!
//! Pure: text in, types or problems out. Not here: reading files, resolving names, the plain text list ([`crate::list`]).
//! What exists has been checked as far as the text alone allows; whether an image or a file is there, only the plan can tell.

mod check;
mod problem;
mod raw;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use ferry_image::{Ignore, Layout, Platform, Reference, ReferrerKind, SetRule, Target, TargetName, rules};
use serde::{Deserialize, Serialize};

pub use check::yaml_words;
pub use problem::{ManifestError, Problem, What};

/// The largest bundle manifest or plain text list, in bytes.
pub const MAX_BYTES: usize = 1 << 20;
/// The most images in one bundle manifest or plain text list.
pub const MAX_IMAGES: usize = 10_000;

/// What to carry, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleManifest {
    /// `name:`, as in `--expect NAME`.
    pub name: String,
    /// `version:`, as in `--expect NAME@VERSION`.
    pub version: Option<String>,
    /// `platforms:`; none when only the command line can tell.
    pub platforms: Option<Platforms>,
    /// `layout:`, how much of a source name is kept at the target.
    pub layout: Layout,
    /// `layers:`, what becomes of raw layers in docker-save tars.
    pub layers: Layers,
    /// `mirrors:`, per normalised host, in the order to ask them.
    pub mirrors: BTreeMap<String, Vec<Target>>,
    /// `referrers:`, which signatures and the like are carried with images that do not say so themselves.
    pub referrers: ReferrerKinds,
    /// `verify:`, whose signature images must have, in the order written.
    pub verify: Vec<Verify>,
    /// `images:`, in the order written, no reference twice.
    pub images: Vec<Image>,
    /// `yaml:`, files and folders that are carried, checked and rewritten.
    pub yaml: Vec<Carried>,
    /// `set:`, rules for keys that the user's YAML may lack. Each names an image of `images`.
    pub set: Vec<SetRule>,
    /// `ignore:`, references in YAML that are left alone on purpose.
    pub ignore: Vec<Ignore>,
    /// `files:`, files and folders that are carried as they are.
    pub files: Vec<Carried>,
}

/// One entry of `images:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// `image:`, the name that YAML uses and that is looked up at the target.
    pub reference: Reference,
    /// `from:`, complete references, each pinned when [`Self::reference`] is. See [`BundleManifest::sources`].
    pub from: Vec<Reference>,
    /// `archive:`, where it stands instead of at a registry.
    pub archive: Option<ArchiveSource>,
    /// `as:`, its name at the target.
    pub target: Option<TargetName>,
    /// `optional: true`: the bundle is complete without it.
    pub optional: bool,
    /// `platforms:` of this image alone.
    pub platforms: Option<Platforms>,
    /// `referrers:` of this image alone.
    pub referrers: Option<ReferrerKinds>,
    /// `verify:` of this image alone; an empty list means that none is needed.
    pub verify: Option<Vec<KeyFile>>,
    /// The line it stands at, counted from 1; 0 when it came from the command line.
    pub line: usize,
}

impl Image {
    /// An image with nothing but its reference.
    #[must_use]
    pub fn new(reference: Reference, line: usize) -> Self {
        Self {
            reference,
            from: Vec::new(),
            archive: None,
            target: None,
            optional: false,
            platforms: None,
            referrers: None,
            verify: None,
            line,
        }
    }
}

/// A docker-save tar, or an OCI layout (folder or tar).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveSource {
    /// The text as written.
    pub written: String,
    /// Where it is: relative paths are taken from the bundle manifest's folder.
    pub path: PathBuf,
    /// `archiveImage:`, which image inside; the only one when absent. Free text: names inside tars need not be references.
    pub image: Option<String>,
}

/// A place to ask for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The image's name there.
    pub at: Reference,
    /// The name that this place is a mirror of.
    pub mirror_of: Option<Reference>,
}

/// Images that must be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verify {
    /// Which: a reference, a repository, or a pattern with `*`.
    pub images: String,
    /// The keys, one of which must have signed them; none where no signature is needed.
    pub keys: Vec<KeyFile>,
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFile {
    /// The text as written.
    pub written: String,
    /// Where it is: relative paths are taken from the bundle manifest's folder.
    pub path: PathBuf,
    /// The line it stands at, counted from 1.
    pub line: usize,
}

/// The kinds of referrers that are carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferrerKinds(Vec<ReferrerKind>);

/// A file or folder that travels with the images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// Its name in the bundle, below `yaml/` or `files/`: ASCII, `/` between segments, no `.` or `..`.
    pub name: String,
    /// Where it is: relative paths are taken from the bundle manifest's folder.
    pub path: PathBuf,
    /// The line it stands at, counted from 1.
    pub line: usize,
}

/// The platforms to carry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Vec<String>", try_from = "Vec<String>")]
pub enum Platforms {
    /// `all`: every index whole.
    All,
    /// These, at least one, none twice.
    These(Vec<Platform>),
}

/// What becomes of raw layers in docker-save tars. Compressed layers stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layers {
    /// Compressed with gzip, which everything reads.
    #[default]
    Gzip,
    /// Compressed with zstd: smaller and faster, but docker 20.10 cannot load such images from the bundle file.
    Zstd,
    /// Kept raw.
    Verbatim,
}

/// What a text that names images is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A bundle manifest: [`parse`].
    Manifest,
    /// A plain text list: [`crate::list::parse`].
    List,
}

/// Reads the bundle manifest `text` of the file `path`, which is used for messages and for relative paths.
///
/// # Errors
/// Every problem found, each with its line.
pub fn parse(text: &str, path: &Path) -> Result<BundleManifest, ManifestError> {
    check::manifest(text, path).map_err(|problems| ManifestError { path: path.to_owned(), problems })
}

/// Tells a bundle manifest from a plain text list: a list has no line that begins with `key:`, because a reference has no empty tag.
#[must_use]
pub fn detect(text: &str) -> Kind {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let yaml = |line: &str| {
        let key = line.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '"' | '\'')));
        line.starts_with(['{', '%'])
            || line.trim_end() == "---"
            || key.is_some_and(|at| {
                at > 0 && matches!(line[at..].trim_end_matches('\r').as_bytes(), [b':'] | [b':', b' ' | b'\t', ..])
            })
    };
    if text.lines().any(yaml) { Kind::Manifest } else { Kind::List }
}

/// A bundle's name from that of the file that lists its images: its stem, with `-` for what a name may not hold.
#[must_use]
pub fn name_of(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let fit = |c: char| if c.is_ascii_alphanumeric() || "._+-".contains(c) { c } else { '-' };
    let name: String = stem.chars().map(fit).collect();
    let name: String = name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric()).chars().take(128).collect();
    if name.is_empty() { "bundle".to_owned() } else { name }
}

impl BundleManifest {
    /// A bundle manifest of `images` alone, as from a plain text list or the command line.
    #[must_use]
    pub fn of(name: &str, images: Vec<Image>) -> Self {
        Self {
            name: name.to_owned(),
            version: None,
            platforms: None,
            layout: Layout::default(),
            layers: Layers::default(),
            mirrors: BTreeMap::new(),
            referrers: ReferrerKinds::default(),
            verify: Vec::new(),
            images,
            yaml: Vec::new(),
            set: Vec::new(),
            ignore: Vec::new(),
            files: Vec::new(),
        }
    }

    /// The platforms of `image`: its own, else `chosen` (the command line's), else the bundle manifest's.
    #[must_use]
    pub fn platforms_of<'a>(&'a self, image: &'a Image, chosen: Option<&'a Platforms>) -> Option<&'a Platforms> {
        image.platforms.as_ref().or(chosen).or(self.platforms.as_ref())
    }

    /// The kinds of referrers that are carried with `image`.
    #[must_use]
    pub fn referrers_of<'a>(&'a self, image: &'a Image) -> &'a ReferrerKinds {
        image.referrers.as_ref().unwrap_or(&self.referrers)
    }

    /// The keys of which one must have signed `image`: its own, else those of the first entry that names it. None when it need not be
    /// signed.
    #[must_use]
    pub fn keys_of<'a>(&'a self, image: &'a Image) -> &'a [KeyFile] {
        let named = || self.verify.iter().find(|verify| rules::is_among(&verify.images, &image.reference));
        image.verify.as_deref().or_else(|| Some(named()?.keys.as_slice())).unwrap_or_default()
    }

    /// Leaves all referrers behind, whatever the bundle manifest says.
    pub fn without_referrers(&mut self) {
        self.referrers = ReferrerKinds::NONE;
        for image in &mut self.images {
            image.referrers = None;
        }
    }

    /// The name of `image` at the target, without host and prefix.
    #[must_use]
    pub fn target_of(&self, image: &Image) -> TargetName {
        TargetName::place(&image.reference, image.target.as_ref(), self.layout)
    }

    /// The `set:` rules of the images that are `carried`. A rule for an optional image that is absent does not apply.
    #[must_use]
    pub fn rules_for(&self, carried: impl Fn(&Reference) -> bool) -> Vec<SetRule> {
        self.set.iter().filter(|rule| carried(&rule.image)).cloned().collect()
    }

    /// Adds mirrors of a host, to be asked after those that the bundle manifest itself lists.
    pub fn add_mirrors(&mut self, host: &str, mirrors: &[Target]) {
        let all = self.mirrors.entry(host.to_owned()).or_default();
        for mirror in mirrors {
            if !all.contains(mirror) {
                all.push(mirror.clone());
            }
        }
    }

    /// Where to ask registries for `image`, in order: its own name, then `from:` (which may list its own name to move it);
    /// for each of them the mirrors of its host first. No place twice; empty for an image from an archive.
    #[must_use]
    pub fn sources(&self, image: &Image) -> Vec<Candidate> {
        if image.archive.is_some() {
            return Vec::new();
        }
        let own = (!image.from.contains(&image.reference)).then_some(&image.reference);
        let mut sources: Vec<Candidate> = Vec::new();
        for name in own.into_iter().chain(&image.from) {
            // a mirror whose names would be too long cannot hold the image
            let mirrors = self.mirrors.get(name.host()).into_iter().flatten().filter_map(|m| at_mirror(m, name).ok());
            let mirrors = mirrors.map(|at| Candidate { at, mirror_of: Some(name.clone()) });
            for candidate in mirrors.chain([Candidate { at: name.clone(), mirror_of: None }]) {
                if !sources.iter().any(|known| known.at == candidate.at) {
                    sources.push(candidate);
                }
            }
        }
        sources
    }
}

fn at_mirror(mirror: &Target, name: &Reference) -> Result<Reference, ferry_image::Error> {
    match mirror.prefix() {
        "" => name.at(mirror.host(), name.path()),
        prefix => name.at(mirror.host(), &format!("{prefix}/{}", name.path())),
    }
}

impl ReferrerKinds {
    /// No referrer is carried.
    pub const NONE: Self = Self(Vec::new());

    /// Those of `kinds`.
    #[must_use]
    pub fn these(kinds: Vec<ReferrerKind>) -> Self {
        Self(kinds)
    }

    /// Whether none is carried.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether those of `kind` are.
    #[must_use]
    pub fn has(&self, kind: ReferrerKind) -> bool {
        self.0.contains(&kind)
    }
}

impl Default for ReferrerKinds {
    /// All of them: they belong to the image.
    fn default() -> Self {
        Self(ReferrerKind::ALL.to_vec())
    }
}

impl fmt::Display for Platforms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Vec::from(self.clone()).join(", "))
    }
}

impl From<Platforms> for Vec<String> {
    fn from(platforms: Platforms) -> Self {
        match platforms {
            Platforms::All => vec!["all".to_owned()],
            Platforms::These(these) => these.iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<Vec<String>> for Platforms {
    type Error = ferry_image::Error;

    /// Reads what `--platform` and `platforms:` hold: `all` alone, or platforms.
    fn try_from(texts: Vec<String>) -> Result<Self, Self::Error> {
        let fail = |text: &str, why| ferry_image::Error::Platform { text: text.to_owned(), why };
        if texts.iter().any(|t| t == "all") {
            return if texts.len() == 1 { Ok(Self::All) } else { Err(fail("all", "it stands alone")) };
        }
        let mut these: Vec<Platform> = Vec::with_capacity(texts.len());
        for text in &texts {
            let platform = text.parse()?;
            if these.contains(&platform) {
                return Err(fail(text, "it is listed twice"));
            }
            these.push(platform);
        }
        if these.is_empty() { Err(fail("", "there is none in the list")) } else { Ok(Self::These(these)) }
    }
}

#[cfg(test)]
mod tests;
