//! Why a bundle could not be written, or is not believed.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ferry_content::{Failure, Kind, error::io_hint};
use ferry_image::Digest;

use ferry_content::disk;

use crate::file_name;
use crate::keys::KeyId;
use crate::signers::Uncounted;
use crate::volumes::{VolumeFault, VolumeState};

/// A member whose bytes are not those that were signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The member.
    pub name: String,
    /// Where its content starts in the file, in bytes.
    pub offset: u64,
    /// Its size in bytes.
    pub size: u64,
    /// The volumes that it stands in; none for one file.
    pub volumes: Vec<PathBuf>,
    /// What it hashes to; `None` when it could not be read at all.
    pub found: Option<Digest>,
}

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be opened, read, written or renamed.
    #[error("cannot {action} `{}`: {source}", .path.display())]
    Io {
        /// `read`, `write`, `create`, …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's own words.
        source: std::io::Error,
    },
    /// The disk has too little room.
    #[error("{}", disk::no_room(.path, *.needed, *.available))]
    DiskFull {
        /// The file to be written.
        path: PathBuf,
        /// Bytes still to be allocated.
        needed: u64,
        /// Bytes free for this user.
        available: u64,
    },
    /// The output is a folder, a device or the like.
    #[error("`{}` is there and is not a regular file", .path.display())]
    NotAFile {
        /// The output.
        path: PathBuf,
    },
    /// A bundle of the other kind has the name: one file beside volumes, or volumes beside one file.
    #[error("`{}` is there, and would stand beside what is to be written", .path.display())]
    InTheWay {
        /// What is there.
        path: PathBuf,
    },
    /// A name that would be taken for that of a volume.
    #[error("`{}` cannot be the name of a bundle: it ends like that of a volume, or is not UTF-8", .path.display())]
    VolumeName {
        /// The output.
        path: PathBuf,
    },
    /// Another process writes the same file: it builds, protects or mends.
    #[error("another ferry is writing `{}`", .path.display())]
    Busy {
        /// The unfinished file.
        path: PathBuf,
    },
    /// A carried file is not what it was when the bundle was planned.
    #[error("`{}` changed while it was being packed", .path.display())]
    FileChanged {
        /// The file.
        path: PathBuf,
    },
    /// Sealing was asked for while blobs are missing.
    #[error("`{}` cannot be sealed: {missing} blobs are missing, {first} among them", .path.display())]
    Unfinished {
        /// The unfinished file.
        path: PathBuf,
        /// How many.
        missing: usize,
        /// The first.
        first: Digest,
    },
    /// A blob that the layout does not have, or bytes outside of it.
    #[error("`{}`: {why}", .path.display())]
    OutOfPlace {
        /// The unfinished file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// More volumes than a bundle can have.
    #[error("{count} volumes would be needed, and {most} is the most")]
    TooManyVolumes {
        /// How many it would be.
        count: u64,
        /// How many it can be.
        most: u64,
        /// The smallest size of a volume with which they are not too many, in bytes.
        least: u64,
    },
    /// What shall be packed contradicts itself or cannot be carried.
    #[error("this cannot be packed: {why}")]
    Contents {
        /// What is wrong.
        why: String,
    },
    /// A key file that is none, or a wrong password.
    #[error("the key cannot be used: {why}")]
    Key {
        /// What is wrong.
        why: String,
    },
    /// A file that holds no public key of a kind that is known.
    #[error("the key cannot be used: {why}")]
    PublicKey {
        /// What it is instead.
        why: String,
    },
    /// A protected key without its password.
    #[error("the secret key is protected by a password, and none was given")]
    PasswordNeeded,
    /// Not a bundle at all.
    #[error("`{}` is not a bundle: {why}", .path.display())]
    NotABundle {
        /// The file.
        path: PathBuf,
        /// What stands there instead.
        why: String,
    },
    /// Nobody signed it.
    #[error("`{}` is not signed", .path.display())]
    Unsigned {
        /// The bundle.
        path: PathBuf,
    },
    /// Somebody else signed it.
    #[error("`{}` is signed by {}{}", .path.display(), untrusted(.key.as_ref(), .trusted), rest(.uncounted))]
    UnknownKey {
        /// The bundle.
        path: PathBuf,
        /// The key that the signature inside names, if there is one.
        key: Option<KeyId>,
        /// The keys that are trusted.
        trusted: Vec<String>,
        /// The signatures beside it.
        uncounted: Vec<Uncounted>,
    },
    /// A signature does not hold.
    #[error("`{}`: bad signature: {why}", .path.display())]
    Signature {
        /// The bundle, or the file beside it that has the signature.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Too few of the trusted keys signed it.
    #[error("`{}` is signed by {} of the trusted keys ({}), and {required} are required{}",
        .path.display(), .found.len(), .found.join(", "), rest(.uncounted))]
    TooFewSignatures {
        /// The bundle.
        path: PathBuf,
        /// How many are asked for.
        required: usize,
        /// Those that signed.
        found: Vec<String>,
        /// The signatures beside it that do not count.
        uncounted: Vec<Uncounted>,
    },
    /// The file ends early.
    #[error("`{}` is truncated: it has {found} bytes of at least {expected}", .path.display())]
    Truncated {
        /// The bundle.
        path: PathBuf,
        /// The bytes that there must be.
        expected: u64,
        /// The bytes that there are.
        found: u64,
    },
    /// Something follows the end.
    #[error("`{}` has {} bytes after its end at {expected}", .path.display(), .found - .expected)]
    TrailingBytes {
        /// The bundle.
        path: PathBuf,
        /// Where it must end.
        expected: u64,
        /// Where it ends.
        found: u64,
    },
    /// Volumes that are not there, or not whole.
    #[error("`{}`: {}", .path.display(), each(.faults))]
    Volumes {
        /// The bundle.
        path: PathBuf,
        /// Those that are wrong.
        faults: Vec<VolumeFault>,
    },
    /// A volume that was waited for.
    #[error("{why}")]
    NoVolume {
        /// Which, and where it was looked for.
        why: String,
    },
    /// The list of volumes does not hold.
    #[error("`{}`: {why}", .path.display())]
    VolumeList {
        /// The list, or its signature.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Volumes whose content is not what the list says.
    #[error("{}", volumes(.wrong))]
    VolumesDiffer {
        /// Each with what is wrong.
        wrong: Vec<(PathBuf, String)>,
    },
    /// One volume from two places.
    #[error("`{}` and `{}` are the same volume of a bundle", .first.display(), .second.display())]
    VolumeTwice {
        /// The one.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A part of the tar is not what ferry writes there.
    #[error("`{}`: at byte {offset}: {why}", .path.display())]
    Structure {
        /// The bundle.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong.
        why: String,
    },
    /// A member is larger than any that is read.
    #[error("`{}`: `{member}` says it has {size} bytes, more than the {limit} that are read", .path.display())]
    TooLarge {
        /// The bundle.
        path: PathBuf,
        /// The member.
        member: String,
        /// Its size by its header.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// `SHA256SUMS` does not list what is there.
    #[error("`{}`: SHA256SUMS: {why}", .path.display())]
    Sums {
        /// The bundle.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The head is no head, or lies.
    #[error("`{}`: ferry.json: {why}", .path.display())]
    Head {
        /// The bundle.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Written by a newer ferry.
    #[error("`{}` has bundle format {found}, and this ferry reads format {}", .path.display(), crate::head::FORMAT)]
    Format {
        /// The bundle.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// Members whose bytes are not those that were signed.
    #[error("`{}`: {}", .path.display(), damaged(.members))]
    Damaged {
        /// The bundle.
        path: PathBuf,
        /// All of them, in the order of the file.
        members: Vec<Damage>,
    },
    /// Something asked for is not in the bundle.
    #[error("`{}` has no {what}", .path.display())]
    NotFound {
        /// The bundle.
        path: PathBuf,
        /// What was asked for.
        what: String,
    },
    /// Recovery data that cannot be made as asked.
    #[error("no recovery data for `{}`: {why}", .path.display())]
    RecoveryPlan {
        /// The bundle.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The code was asked for what cannot be: a mistake in ferry.
    #[error("recovery data: {why}")]
    Recovery {
        /// What is wrong.
        why: String,
    },
    /// Nothing to mend a bundle with.
    #[error("`{}` has no recovery files beside it: {why}", .path.display())]
    NoRecovery {
        /// The bundle.
        path: PathBuf,
        /// What was looked for, or what is there instead.
        why: String,
    },
    /// The recovery files beside a bundle were made for another one.
    #[error("the recovery files beside `{}` were made for another bundle: the two have hardly anything in common", .path.display())]
    OtherRecovery {
        /// The bundle.
        path: PathBuf,
    },
    /// Two volumes that have each other's names, on two disks.
    #[error("`{}` is `{}`, and the two are on different disks, between which nothing can be renamed", .found.display(), .belongs.display())]
    AcrossDisks {
        /// The name that it has.
        found: PathBuf,
        /// The name that belongs to it.
        belongs: PathBuf,
    },
    /// More is damaged than the recovery files make up for.
    #[error("`{}` is damaged beyond what its recovery files make up for: {why}", .path.display())]
    BeyondRepair {
        /// The bundle.
        path: PathBuf,
        /// What is lost.
        why: String,
    },
}

impl Error {
    /// An I/O error with its path.
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>, source: impl Into<std::io::Error>) -> Self {
        Self::Io { action, path: path.as_ref().to_owned(), source: source.into() }
    }
}

impl Error {
    /// Whether the bytes of a bundle are not what they were, or not all there, so that recovery files or a patch can help. A signature
    /// that is asked for and was never made is no damage.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Io { source, .. } => !matches!(source.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied),
            Self::NotABundle { .. }
            | Self::Signature { .. }
            | Self::Truncated { .. }
            | Self::TrailingBytes { .. }
            | Self::Volumes { .. }
            | Self::VolumeList { .. }
            | Self::VolumesDiffer { .. }
            | Self::Structure { .. }
            | Self::TooLarge { .. }
            | Self::Sums { .. }
            | Self::Head { .. }
            | Self::Damaged { .. } => true,
            _ => false,
        }
    }

    /// Whether this is damage behind the front, which lists the blobs: what is damaged can be listed for a patch.
    #[must_use]
    pub fn is_patchable(&self) -> bool {
        matches!(
            self,
            Self::Damaged { .. } | Self::Volumes { .. } | Self::VolumesDiffer { .. } | Self::Truncated { .. }
        )
    }

    /// The volumes that are not there, if this is about volumes.
    pub fn absent_volumes(&self) -> impl Iterator<Item = &Path> {
        let faults = match self {
            Self::Volumes { faults, .. } => faults.as_slice(),
            _ => &[],
        };
        faults.iter().filter(|fault| fault.what == VolumeState::Absent).map(|fault| fault.path.as_path())
    }
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Io { .. } | Self::DiskFull { .. } | Self::NotAFile { .. } | Self::FileChanged { .. } => Kind::Local,
            Self::Busy { .. } | Self::InTheWay { .. } => Kind::Conflict,
            Self::Unfinished { .. } | Self::NotFound { .. } | Self::NoVolume { .. } => Kind::Missing,
            Self::OutOfPlace { .. }
            | Self::Contents { .. }
            | Self::TooManyVolumes { .. }
            | Self::Key { .. }
            | Self::PublicKey { .. }
            | Self::Recovery { .. } => Kind::Invalid,
            Self::PasswordNeeded | Self::VolumeTwice { .. } | Self::VolumeName { .. } | Self::RecoveryPlan { .. } => {
                Kind::Usage
            }
            Self::NoRecovery { .. } => Kind::Missing,
            Self::AcrossDisks { .. } => Kind::Local,
            Self::OtherRecovery { .. } | Self::BeyondRepair { .. } => Kind::Untrusted,
            Self::Volumes { faults, .. } if faults.iter().all(|f| f.what == VolumeState::Absent) => Kind::Missing,
            Self::NotABundle { .. }
            | Self::Unsigned { .. }
            | Self::UnknownKey { .. }
            | Self::Signature { .. }
            | Self::TooFewSignatures { .. }
            | Self::Truncated { .. }
            | Self::TrailingBytes { .. }
            | Self::Volumes { .. }
            | Self::VolumeList { .. }
            | Self::VolumesDiffer { .. }
            | Self::Structure { .. }
            | Self::TooLarge { .. }
            | Self::Sums { .. }
            | Self::Head { .. }
            | Self::Format { .. }
            | Self::Damaged { .. } => Kind::Untrusted,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Io { action, source, .. } => return io_hint(action, source),
            Self::DiskFull { .. } => disk::MAKE_ROOM,
            Self::NotAFile { .. } => "name a file that may be created or replaced",
            Self::InTheWay { .. } => {
                "remove it (and its other volumes), or choose another output: one name must be one bundle"
            }
            Self::Busy { .. } => "wait until it ends, or choose another output",
            Self::FileChanged { .. } | Self::Unfinished { .. } => "run the same command again",
            Self::OutOfPlace { .. } | Self::Recovery { .. } => return None,
            Self::Contents { .. } => "change the bundle manifest accordingly",
            Self::TooManyVolumes { least, .. } => return Some(format!("give `--volume-size {least}` or more")),
            Self::Key { .. } => "check the key file and the password; `ferry keygen` makes a new pair",
            Self::PublicKey { .. } => {
                "give the signer's public key, as `ferry keygen`, minisign or `cosign generate-key-pair` wrote it: NAME.pub"
            }
            Self::PasswordNeeded => {
                "set `FERRY_KEY_PASSWORD`, or make a key for machines with `ferry keygen --no-password`"
            }
            Self::NotABundle { path, .. } => return Some(file_name::not_a_bundle(path)),
            Self::Unsigned { .. } => {
                "have it signed (`ferry sign` makes a file for beside it), or take it as it is with `--allow-unsigned`"
            }
            Self::UnknownKey { .. } => {
                "give the signer's public key with `--key`, or put it into the folder of keys, after checking it with the signer by \
                 another way; where that key was given up, have the bundle signed by the new one: `ferry sign` makes a file for beside it"
            }
            Self::Signature { .. } | Self::Structure { .. } | Self::Damaged { .. } => {
                "the copy is damaged or was tampered with: copy it again, and compare it with the original"
            }
            Self::TooFewSignatures { .. } => {
                "have it signed by further trusted keys: `ferry sign` makes a file for beside it; or give the public keys of those who did"
            }
            Self::Truncated { .. } => "the copy did not finish: copy it again, then run `ferry verify --cold`",
            Self::Volumes { .. } => {
                "copy these volumes again; when some are elsewhere, name them too; `verify` and `install` can wait for them: `--wait-for-volume`"
            }
            Self::NoVolume { .. } => "bring it there, then run the same command again",
            Self::VolumeList { .. } => {
                "copy the list and its signature again: only the `ferry bundle` that makes the bundle signs it, with the same lock and key the same; or \
                 remove both: the bundle does not need them to be read"
            }
            Self::VolumesDiffer { .. } => {
                "copy these volumes again, or give those that were swapped each other's names; the others are good"
            }
            Self::VolumeName { .. } => "choose a name that does not end in a dot and three digits, such as NAME.tar",
            Self::VolumeTwice { .. } => "name one of them",
            Self::TrailingBytes { .. } => "something was appended to it: copy it again",
            Self::TooLarge { .. } | Self::Sums { .. } | Self::Head { .. } => {
                "it was not written by ferry: take a bundle from a source that you trust"
            }
            Self::Format { .. } => "use the ferry that made it, or a newer one",
            Self::RecoveryPlan { .. } => "choose another `--recovery`, or other volumes",
            Self::NoRecovery { .. } => {
                "where they are in another folder, name one of them after the bundle; else bring them along, or the bundle anew; `ferry protect` \
                 makes them while the bundle is whole"
            }
            Self::OtherRecovery { .. } => {
                "bring those that belong to it, or make them anew with `ferry protect`; if it is the right one, copy it again"
            }
            Self::AcrossDisks { found, belongs } => {
                let right = found.with_file_name(belongs.file_name().unwrap_or_default());
                return Some(format!(
                    "rename it where it is (`mv {} {}`), and the others likewise; or write a mended copy with `-o DIR`",
                    found.display(),
                    right.display()
                ));
            }
            Self::BeyondRepair { .. } => {
                "`ferry verify --want FILE` lists what is lost, for a small patch bundle; or copy the bundle again"
            }
            Self::NotFound { .. } => "`ferry inspect` lists what is inside",
        };
        Some(hint.to_owned())
    }
}

impl From<Error> for ferry_content::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ({} bytes at {}", self.name, self.size, self.offset)?;
        match self.volumes.as_slice() {
            [] => {}
            [one] => write!(f, ", in `{}`", one.display())?,
            [first, .., last] => write!(f, ", in `{}` to `{}`", first.display(), last.display())?,
        }
        match &self.found {
            Some(found) => write!(f, ") hashes to {found}"),
            None => write!(f, ") cannot be read"),
        }
    }
}

fn damaged(members: &[Damage]) -> String {
    let lines: Vec<String> = members.iter().map(ToString::to_string).collect();
    match lines.as_slice() {
        [one] => format!("damaged: {one}"),
        many => format!("{} damaged members:\n  {}", many.len(), many.join("\n  ")),
    }
}

fn volumes(wrong: &[(PathBuf, String)]) -> String {
    let line = |(path, why): &(PathBuf, String)| format!("volume `{}`: {why}", path.display());
    wrong.iter().map(line).collect::<Vec<_>>().join("\n  ")
}

fn each(faults: &[VolumeFault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn untrusted(key: Option<&KeyId>, trusted: &[String]) -> String {
    let trusted = if trusted.is_empty() { "no key is".to_owned() } else { format!("trusted: {}", trusted.join(", ")) };
    match key {
        Some(key) => format!("key {key}, which is not trusted here ({trusted})"),
        None => format!("no key that is trusted here ({trusted})"),
    }
}

/// What else was found, after a message.
fn rest(uncounted: &[Uncounted]) -> String {
    let name = |path: &Path| path.file_name().map_or_else(String::new, |name| name.display().to_string());
    uncounted.iter().map(|u| format!("; `{}` does not count: {}", name(&u.path), u.why)).collect()
}
