//! Why an image cannot be carried, or a bundle cannot be built.

use std::path::PathBuf;

use ferry_content::{Failure, Kind};
use ferry_image::{Digest, Platform, Reference};

use crate::lock::LockError;
use crate::near;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No source has the image.
    #[error("{}", each(.tried))]
    NoSource {
        /// Each source that was asked, with its answer, in order.
        tried: Vec<(Reference, Error)>,
    },
    /// The repository is there, and has no such tag.
    #[error("{place}: there is no tag `{tag}`")]
    NoTag {
        /// Which repository.
        place: String,
        /// The tag.
        tag: String,
        /// Tags that it may be a slip for.
        near: Vec<String>,
        /// The tags that there are.
        tags: Vec<String>,
        /// What the registry answered.
        source: Box<Error>,
    },
    /// The registry has no such repository.
    #[error("{place}: there is no such repository")]
    NoRepository {
        /// Which repository.
        place: String,
    },
    /// A mirror has another image under a tag than the registry that it is a mirror of.
    #[error("the mirror {mirror} has {found}, and {origin} is {expected}")]
    MirrorDiffers {
        /// Which repository.
        mirror: String,
        /// Its digest there.
        found: Digest,
        /// The name itself.
        origin: Reference,
        /// Its digest there.
        expected: Digest,
    },
    /// The image is there, but not for a platform that was asked for.
    #[error("platform {wanted} is missing at {place}; there are: {}", names(.available))]
    PlatformMissing {
        /// What was asked for.
        wanted: Platform,
        /// What there is.
        available: Vec<Platform>,
        /// Which source.
        place: String,
    },
    /// Neither the bundle manifest nor the command line names a platform.
    #[error("no platform is chosen")]
    NoPlatform,
    /// A document of an image is not what the specifications say.
    #[error("{place}: {digest}: {source}")]
    Document {
        /// Which source.
        place: String,
        /// Which document.
        digest: Digest,
        /// What is wrong with it.
        source: ferry_image::Error,
    },
    /// Content addressed by another algorithm than SHA-256.
    #[error("{place}: {digest} is addressed by sha512, which bundles do not carry (registries in the field refuse it)")]
    Algorithm {
        /// Which source.
        place: String,
        /// The digest.
        digest: Digest,
    },
    /// An image that must be signed, and is not.
    #[error("{place}: {root} is not signed by {keys}: {why}")]
    NotSigned {
        /// Which source.
        place: String,
        /// What the reference resolved to.
        root: Digest,
        /// The keys of which one must have signed it.
        keys: String,
        /// What was found instead.
        why: String,
    },
    /// A public key that cannot be used.
    #[error("`{}` cannot be used: {why}", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// What refers to an image cannot be found out.
    #[error("{place}: what refers to {subject} cannot be found out: {error}")]
    Referrers {
        /// Which source.
        place: String,
        /// The image.
        subject: Digest,
        /// Why.
        error: Box<Error>,
    },
    /// More refers to an image than can sensibly be carried.
    #[error("{place}: what refers to {subject} is too much to carry: {what}")]
    TooManyReferrers {
        /// Which source.
        place: String,
        /// The image.
        subject: Digest,
        /// How much it is.
        what: String,
    },
    /// Indexes within indexes, deeper than any real image.
    #[error("{place}: indexes are nested deeper than {limit}")]
    Nesting {
        /// Which source.
        place: String,
        /// The limit.
        limit: usize,
    },
    /// An index with more entries than any real image, those of the indexes in it included.
    #[error("{place}: more than {limit} manifests are listed")]
    Manifests {
        /// Which source.
        place: String,
        /// The limit.
        limit: usize,
    },
    /// A blob or file could not be read.
    #[error("{0}")]
    Content(ferry_content::Error),
    /// The bundle file could not be written.
    #[error("{0}")]
    Archive(ferry_archive::Error),
    /// A registry did not answer as it should.
    #[error("{0}")]
    Client(ferry_registry_client::Error),
    /// A lock file cannot be used.
    #[error("`{}`: {source}", .path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: LockError,
    },
    /// The bundle manifest names an image that the lock does not know.
    #[error("the lock has no entry for it")]
    NotLocked,
    /// What the lock says can no longer be had.
    #[error("the lock says {expected}, and {found}")]
    LockedChanged {
        /// The digest in the lock.
        expected: Digest,
        /// What is there instead.
        found: String,
    },
    /// The lock was made for other platforms than those asked for.
    #[error("the lock is for {expected}, not for {found}")]
    LockedPlatforms {
        /// Those of the lock.
        expected: String,
        /// Those asked for.
        found: String,
    },
    /// What a damaged bundle had can no longer be had.
    #[error("the damaged bundle has {expected}, and {found}")]
    WantedGone {
        /// Its digest.
        expected: Digest,
        /// What is there instead.
        found: String,
    },
    /// An image of a want list that the bundle manifest beside it does not have.
    #[error("it is wanted, and the bundle manifest does not list it")]
    WantedNotListed,
    /// A blob of a want list that no image of it needs.
    #[error("blob {digest} is wanted, and none of the wanted images has it")]
    WantedNowhere {
        /// The blob.
        digest: Digest,
    },
    /// The finished file would replace something that is read to make it.
    #[error("the output `{}` would replace `{}`, which the bundle is made from", .output.display(), .input.display())]
    Overwrites {
        /// The file to make.
        output: PathBuf,
        /// The same file, as it is read.
        input: PathBuf,
    },
    /// Two images would have one name at the target.
    #[error("{0}")]
    Collision(ferry_image::Error),
    /// A reference in YAML that the bundle does not carry.
    #[error("`{reference}` is not carried ({path})")]
    Uncarried {
        /// The reference as written.
        reference: String,
        /// Where in the document.
        path: String,
    },
    /// A document that cannot be read, so that nobody knows which images it asks for.
    #[error("cannot be checked: {why}")]
    Unreadable {
        /// Why.
        why: String,
    },
    /// A program that renders is asked for and not there.
    #[error("`--render` needs {names}, which is not there")]
    NoProgram {
        /// Those that would do.
        names: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// A program that renders did not do it.
    #[error("`{name}` failed: {why}")]
    Program {
        /// What was run.
        name: String,
        /// Its own words.
        why: String,
    },
    /// A file or folder named in the bundle manifest has a name that a bundle cannot hold, or nothing in it.
    #[error("cannot be carried: {why}")]
    File {
        /// Why.
        why: String,
    },
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::NoSource { tried } => {
                let network = tried.iter().map(|(_, e)| e.kind()).find(|k| *k != Kind::Missing);
                network.unwrap_or(Kind::Missing)
            }
            Self::NoTag { .. } | Self::NoRepository { .. } | Self::PlatformMissing { .. } | Self::Uncarried { .. } => {
                Kind::Missing
            }
            Self::WantedNotListed | Self::WantedNowhere { .. } => Kind::Missing,
            Self::NoPlatform | Self::Overwrites { .. } => Kind::Usage,
            Self::Document { .. } | Self::Algorithm { .. } | Self::Nesting { .. } | Self::Manifests { .. } => {
                Kind::Invalid
            }
            Self::Referrers { error, .. } => error.kind(),
            Self::Content(error) => error.kind(),
            Self::Archive(error) => error.kind(),
            Self::Client(error) => error.kind(),
            Self::Lock { .. } | Self::Unreadable { .. } | Self::File { .. } => Kind::Invalid,
            Self::Key { .. } | Self::TooManyReferrers { .. } => Kind::Invalid,
            Self::NoProgram { .. } | Self::Program { .. } => Kind::Invalid,
            Self::MirrorDiffers { .. }
            | Self::NotLocked
            | Self::LockedChanged { .. }
            | Self::LockedPlatforms { .. }
            | Self::WantedGone { .. }
            | Self::Collision(_)
            | Self::NotSigned { .. } => Kind::Conflict,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoSource { tried } => {
                // what decides the exit code is what is to be mended
                let decides = tried.iter().filter(|(_, e)| e.kind() == self.kind()).find_map(|(_, e)| e.hint());
                return decides.or_else(|| Some("check the name and tag; name another place with `from:`".to_owned()));
            }
            Self::NoTag { near, tags, source, .. } => return suggestion(near, tags).or_else(|| source.hint()),
            Self::NoRepository { place } => {
                return Some(format!("check the name `{place}`; if it is elsewhere, name that place with `from:`"));
            }
            Self::PlatformMissing { wanted, available, .. } => {
                let names: Vec<String> = available.iter().map(ToString::to_string).collect();
                let near = near::near(&wanted.to_string(), names.iter().map(String::as_str));
                if let Some(meant) = either(&near) {
                    return Some(format!("did you mean {meant}?"));
                }
                "choose one of those with `platforms:` at the image, or find a source that has it"
            }
            Self::MirrorDiffers { origin, expected, .. } => {
                let name = origin.repository();
                return Some(format!(
                    "wait until the mirror has caught up or take it out of `mirrors:`; or say which is meant: `{name}@{expected}`"
                ));
            }
            Self::NoPlatform => {
                "add `platforms: [linux/amd64]` to the bundle manifest, or give `--platform linux/amd64`"
            }
            Self::Document { .. } | Self::Nesting { .. } | Self::Manifests { .. } => {
                "the image is broken at its source; push it there anew"
            }
            Self::Algorithm { .. } => "rebuild the image with sha256 digests",
            // an archive or a layout may list what was not saved with it
            Self::Content(ferry_content::Error::NotFound { .. }) => {
                "save the image there again with all platforms that are wanted, or choose fewer with `platforms:`"
            }
            Self::Content(error) => return error.hint(),
            Self::Archive(error) => return error.hint(),
            Self::Client(error) => return error.hint(),
            Self::Lock { source, .. } => return source.hint(),
            Self::NotLocked => "make the lock anew with `--lock`",
            Self::LockedChanged { .. } => {
                "find a source that still has it (`from:`), or make the lock anew with `--lock`"
            }
            Self::LockedPlatforms { .. } => {
                "ask for the platforms of the lock, or make it anew with `--lock` (without `--locked`)"
            }
            Self::WantedGone { .. } => {
                "name a source that still has it (`from:`, `archive:`) in a bundle manifest, and give that beside `--patch`; if there is \
                 none, build the bundle anew and carry that"
            }
            Self::WantedNotListed => "give the bundle manifest that the damaged bundle was built from, or none",
            Self::WantedNowhere { .. } => "write the want list anew with `ferry verify --want`",
            Self::NotSigned { .. } => {
                "do not use it before its publisher has said why; another key, or an exception, is named with `verify:`"
            }
            Self::Key { .. } => "name a file such as `cosign.pub`",
            Self::Referrers { error, .. } => {
                let first = error.hint().map(|hint| format!("{hint}; ")).unwrap_or_default();
                return Some(format!("{first}without signatures and the like it goes with `--no-referrers`"));
            }
            Self::TooManyReferrers { .. } => {
                "choose some with `referrers: [signature]` at the image, or none with `referrers: false`"
            }
            Self::Overwrites { .. } => "name another file with `-o`",
            Self::Collision(_) => "give one of them another name with `as:`, or choose `layout: host`",
            Self::Uncarried { .. } => {
                "add it to `images:`, or to `ignore:` with the reason why it is not needed on the far side"
            }
            Self::NoProgram { hint, .. } => hint,
            Self::Program { .. } => "see that this works by itself, or leave `--render` away",
            Self::Unreadable { .. } => "correct the document, or take it out of `yaml:`",
            Self::File { .. } => "correct the entry in the bundle manifest",
        };
        Some(hint.to_owned())
    }
}

impl From<ferry_content::Error> for Error {
    fn from(error: ferry_content::Error) -> Self {
        Self::Content(error)
    }
}

impl From<ferry_archive::Error> for Error {
    fn from(error: ferry_archive::Error) -> Self {
        Self::Archive(error)
    }
}

impl From<ferry_registry_client::Error> for Error {
    fn from(error: ferry_registry_client::Error) -> Self {
        Self::Client(error)
    }
}

fn each(tried: &[(Reference, Error)]) -> String {
    match tried {
        [(_, error)] => error.to_string(),
        many => {
            // whoever could not be asked may have it
            let missing = many.iter().all(|(_, error)| error.kind() == Kind::Missing);
            let says = if missing { "has it" } else { "could be used" };
            let lines: Vec<String> = many.iter().map(|(_, error)| format!("\n    {error}")).collect();
            format!("none of its {} sources {says}:{}", many.len(), lines.concat())
        }
    }
}

/// What the tags that there are say about one that is not.
fn suggestion(near: &[String], tags: &[String]) -> Option<String> {
    let near: Vec<&str> = near.iter().map(String::as_str).collect();
    match (either(&near), tags.len()) {
        (Some(meant), _) => Some(format!("did you mean {meant}?")),
        (None, 0) => Some("it has no tags at all; name the image by its digest".to_owned()),
        (None, 1) => Some(format!("its only tag is `{}`", tags.concat())),
        (None, 2..=5) => Some(format!("its tags are {}", tags.join(", "))),
        _ => None,
    }
}

/// `` `a`, `b` or `c` ``.
fn either(names: &[&str]) -> Option<String> {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last()? {
        (last, []) => Some(last.clone()),
        (last, others) => Some(format!("{} or {last}", others.join(", "))),
    }
}

fn names(platforms: &[Platform]) -> String {
    let names: Vec<String> = platforms.iter().map(ToString::to_string).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
