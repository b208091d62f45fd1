//! Why a bundle could not be installed.

use std::path::PathBuf;

use ferry_content::{Failure, Kind};
use ferry_image::{Descriptor, Digest, ReferrerKind};

use crate::probe::is_refusal;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bundle cannot be read.
    #[error("{0}")]
    Archive(ferry_archive::Error),
    /// A blob could not be read or written.
    #[error("{0}")]
    Content(ferry_content::Error),
    /// The target did not answer as it should.
    #[error("{0}")]
    Client(ferry_registry_client::Error),
    /// The store refused.
    #[error("{0}")]
    Store(ferry_content::store::Error),
    /// The target takes no index some of whose manifests are absent, and nothing else may stand there.
    #[error("the target refuses an index with absent platforms: {why}")]
    Sparse {
        /// How that was found.
        why: String,
    },
    /// The target makes no projects or repositories by itself, and these are not there.
    #[error("{host}: {}{answer}", missing(.what, .names))]
    Missing {
        /// The target's host.
        host: String,
        /// `project` or `repository`.
        what: &'static str,
        /// Their names.
        names: Vec<String>,
        /// What the target said of the first: ` (404 NAME_UNKNOWN): …`.
        answer: String,
        /// A command for each that makes it; empty where none is known.
        fixes: Vec<String>,
    },
    /// The target takes no names of so many parts.
    #[error("{host} takes `{taken}`, but {}{answer}", too_deep(.refused))]
    TooDeep {
        /// The target's host.
        host: String,
        /// A shorter name that it takes.
        taken: String,
        /// The names that it does not.
        refused: Vec<String>,
        /// What it said of the first.
        answer: String,
    },
    /// The target takes no push, for a reason with a remedy that is known.
    #[error("{error}")]
    NoPush {
        /// Its answer.
        error: Box<Error>,
        /// The remedy.
        hint: String,
    },
    /// The target does not let a tag move.
    #[error("`{name}` cannot be moved{}: {error}", found.as_ref().map(|f| format!(" from {f}")).unwrap_or_default())]
    Immutable {
        /// The name at the target.
        name: String,
        /// What is there.
        found: Option<Digest>,
        /// Its answer.
        error: Box<Error>,
    },
    /// A manifest in the bundle is not what the specifications say.
    #[error("manifest {digest}: {source}")]
    Document {
        /// Which one.
        digest: Digest,
        /// What is wrong with it.
        source: ferry_image::Error,
    },
    /// What refers to an image cannot be pushed.
    #[error("the {kind} `{name}` cannot be pushed: {error}")]
    Referrer {
        /// What it is.
        kind: ReferrerKind,
        /// Its tag or digest.
        name: String,
        /// Why.
        error: Box<Error>,
    },
    /// The list of an image's referrers cannot be kept.
    #[error("`{name}`, where an image's referrers are listed, holds something else: {source}")]
    List {
        /// The name at the target.
        name: String,
        /// What is wrong with it.
        source: ferry_image::Error,
    },
    /// Blobs of an image that are left to the target, and are not there.
    #[error("{}", lacking(.blobs, .bases, .closed))]
    Lacking {
        /// Which.
        blobs: Vec<Descriptor>,
        /// The bundles that should have brought them, as `NAME[@VERSION]`.
        bases: Vec<String>,
        /// Repositories that could not be looked into.
        closed: Vec<String>,
    },
    /// Blobs of an image that no bundle which is served carries.
    #[error("{}", unserved(.blobs, .bases))]
    Unserved {
        /// Which.
        blobs: Vec<Descriptor>,
        /// The bundles that have them, as `NAME[@VERSION]`.
        bases: Vec<String>,
    },
    /// A blob that is left to the target was there when it was asked, and is not there any more.
    #[error("blob {blob} was at {place} a moment ago, and is gone")]
    Gone {
        /// Which.
        blob: Digest,
        /// Where it was.
        place: String,
    },
    /// A bundle from a pipe whose manifests come after its layers.
    #[error("`{}`: blob {digest} comes before the last manifest: it cannot be installed in one pass", .path.display())]
    Late {
        /// What the bundle is called.
        path: PathBuf,
        /// A blob that would have to be kept.
        digest: Digest,
    },
    /// A bundle from a pipe whose manifests, and what comes before the last of them, are more than is kept.
    #[error("`{}`: its manifests, and what comes before the last of them, take more than {limit} bytes: it cannot be installed in one pass", .path.display())]
    Crowded {
        /// What the bundle is called.
        path: PathBuf,
        /// The most bytes that are kept.
        limit: u64,
    },
    /// An upload that broke, of a blob that has passed.
    #[error("it came through a pipe and cannot be read again{}", because(Some(.why.as_str()).filter(|why| !why.is_empty())))]
    Passed {
        /// Why it would be read again.
        why: String,
    },
    /// A pipe was left where it was, since what it brings cannot be sent.
    #[error("`{}` was not read to its end: {} could not be sent, and nothing more of it was", .path.display(), blobs(*.failed))]
    Unread {
        /// What the bundle is called.
        path: PathBuf,
        /// How many blobs failed.
        failed: usize,
    },
    /// A blob of which nobody can say what became of it.
    #[error("blob {blob} is not in {place}, and no attempt to send it was made")]
    Unsent {
        /// Which.
        blob: Digest,
        /// The repository.
        place: String,
    },
    /// A want list is made with what has passed already.
    #[error("what is missing cannot be listed for a bundle that comes through a pipe")]
    Piped,
    /// Two bundles that cannot be installed together.
    #[error("{what} is one thing in `{first}` and another in `{second}`")]
    Differ {
        /// An image, a file.
        what: String,
        /// A bundle.
        first: String,
        /// Another bundle.
        second: String,
    },
    /// Two images would have one name at the target.
    #[error("{0}")]
    Collision(ferry_image::Error),
    /// A name that the target cannot have.
    #[error("{0}")]
    Name(ferry_image::Error),
    /// The tag is there with another digest.
    #[error("`{name}` is there already, with {found} instead of {ours}")]
    Existing {
        /// The name at the target.
        name: String,
        /// What is there.
        found: Digest,
        /// What would be put there.
        ours: Digest,
    },
    /// A reference in YAML that the bundle does not carry.
    #[error("`{reference}` is not carried ({path}){}", because(.why.as_deref()))]
    Uncarried {
        /// The reference as written.
        reference: String,
        /// Where in the document.
        path: String,
        /// Why it is not sure which image that is, where it is not.
        why: Option<String>,
    },
    /// Rewriting would take away the name that a kustomization matches by.
    #[error(
        "`{name}` becomes another name here, and {place} matches it by that name: kustomize would no longer change it"
    )]
    Unmatched {
        /// The name.
        name: String,
        /// File and line of the entry.
        place: String,
    },
    /// A reference in YAML that is carried, and yet cannot be written as what it is at the target.
    #[error("`{reference}` is carried but cannot be rewritten ({path}): {why}")]
    NotRewritten {
        /// The reference as written.
        reference: String,
        /// Where in the document.
        path: String,
        /// Why.
        why: String,
    },
    /// A form in which none of the images can be said.
    #[error("`{form}` cannot express any of the images{}", .first.as_ref().map(|f| format!(", such as {f}")).unwrap_or_default())]
    Inexpressible {
        /// The form.
        form: &'static str,
        /// One of them, with why.
        first: Option<String>,
    },
    /// What an install wrote cannot be used.
    #[error("`{}`: {source}", .path.display())]
    Relocation {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ferry_image::Error,
    },
    /// A document that cannot be read or rewritten.
    #[error("left as it is: {why}")]
    Refused {
        /// Why.
        why: String,
    },
    /// A rule that could not be applied.
    #[error("the rule for `{path}` cannot be applied: {why}")]
    Rule {
        /// The rule's path.
        path: String,
        /// Why.
        why: String,
    },
    /// Two YAML files would be written to one name.
    #[error("`{name}` would be written twice under `{}`", .out.display())]
    SameName {
        /// The name.
        name: String,
        /// The output folder.
        out: PathBuf,
    },
    /// A YAML file in the place of its own rewritten form.
    #[error("`{}` would be replaced by its own rewritten form", .path.display())]
    Onto {
        /// The file.
        path: PathBuf,
    },
    /// A file in a folder is a link that leads out of it.
    #[error("it is a link to `{}`, outside of what was named", .path.display())]
    Outside {
        /// Where it leads.
        path: PathBuf,
    },
    /// A repository that was named for an inventory and is not there.
    #[error("{place}: there is no such repository")]
    NoRepository {
        /// Host and path.
        place: String,
    },
    /// More than can sensibly be listed.
    #[error("{place}: more than {limit} {what}")]
    TooMany {
        /// Where.
        place: String,
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// What an export cannot do.
    #[error("{0}")]
    Export(crate::export::Fault),
    /// An archive among the YAML.
    #[error("archives are not rewritten")]
    Packed,
    /// A YAML file that is none.
    #[error("cannot be used: {why}")]
    Yaml {
        /// Why.
        why: String,
    },
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Archive(error) => error.kind(),
            Self::Content(error) => error.kind(),
            Self::Client(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Export(fault) => fault.kind(),
            Self::Sparse { .. } | Self::Missing { .. } | Self::TooDeep { .. } => Kind::Remote,
            Self::Referrer { error, .. } => error.kind(),
            Self::NoPush { error, .. } => error.kind(),
            Self::Passed { .. } | Self::Unread { .. } | Self::Unsent { .. } => Kind::Remote,
            Self::Late { .. } | Self::Crowded { .. } | Self::Piped => Kind::Invalid,
            Self::Document { .. } => Kind::Untrusted,
            Self::Collision(_)
            | Self::Differ { .. }
            | Self::Existing { .. }
            | Self::Immutable { .. }
            | Self::List { .. }
            | Self::SameName { .. }
            | Self::Onto { .. }
            | Self::Outside { .. } => Kind::Conflict,
            Self::Name(_) | Self::Refused { .. } | Self::Rule { .. } | Self::Yaml { .. } | Self::Packed => {
                Kind::Invalid
            }
            Self::Inexpressible { .. } | Self::Relocation { .. } | Self::TooMany { .. } => Kind::Invalid,
            Self::NoRepository { .. } | Self::Lacking { .. } | Self::Unserved { .. } | Self::Gone { .. } => {
                Kind::Missing
            }
            Self::Uncarried { .. } | Self::NotRewritten { .. } | Self::Unmatched { .. } => Kind::Missing,
        }
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::Client(error) => error.is_transient(),
            Self::Content(error) => error.is_transient(),
            Self::Referrer { error, .. } => error.is_transient(),
            _ => false,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Archive(error) => return error.hint(),
            Self::Content(error) => return error.hint(),
            Self::Client(error) => return error.hint(),
            Self::Store(error) => return error.hint(),
            Self::Export(fault) => return fault.hint(),
            Self::Document { .. } => "the bundle was not built by ferry, or its builder was deceived; build it anew",
            Self::Missing { names, fixes, .. } => return Some(make(names, fixes)),
            Self::NoPush { hint, .. } => return Some(hint.clone()),
            Self::Referrer { error, .. } if !is_refusal(error) => return error.hint(),
            Self::Referrer { .. } => {
                "the images themselves are there; go on without what refers to them with `--no-referrers`"
            }
            Self::List { .. } => "remove that tag at the target, or leave referrers behind with `--no-referrers`",
            Self::Sparse { .. } => "choose `--index auto`, `--index filtered` or `--index platform`",
            Self::TooDeep { .. } => "choose `--layout flat`, or shorter names with `as:` in the bundle manifest",
            Self::Immutable { .. } => {
                "`--on-existing skip` leaves such tags, and their images, as they are; or let tags move there, or carry the image under \
                 another tag"
            }
            Self::Lacking { bases, .. } => return Some(bring(bases)),
            Self::Unserved { bases, .. } => return Some(serve_with(bases)),
            Self::Late { .. } | Self::Crowded { .. } | Self::Piped => {
                "let `--spool DIR` write the pipe into a file first"
            }
            Self::Passed { .. } => {
                "run the same command again: what is there is not sent again; or let `--spool DIR` write the pipe into a file first, \
                 which can be read again"
            }
            Self::Unread { .. } | Self::Unsent { .. } => {
                "no tag was set; run the same command again: what is there is not sent again"
            }
            Self::Gone { .. } => "something tidies up there; run the same command again, and it is asked for anew",
            Self::Differ { .. } => {
                "install or export them one after the other, or serve each at a port of its own; or build the newer one with `--have` of the \
                 older, and its content counts"
            }
            Self::Collision(_) => "choose `--layout host`, or build the bundle with `as:` names",
            Self::Name(_) => "choose another prefix in `--registry HOST/PREFIX`",
            Self::Existing { .. } => {
                "see first what differs: `--on-existing overwrite --dry-run` lists every tag that would move, and from which digest; then choose \
                 `--on-existing overwrite` or `--on-existing skip`"
            }
            Self::Uncarried { .. } => "build the bundle with it, list it under `ignore:`, or go on with `--no-strict`",
            Self::NotRewritten { .. } => {
                "write it by tag, or use the `relocation.json` of an install, which knows every digest; or go on with `--no-strict`, and \
                 edit it by hand"
            }
            Self::Unmatched { .. } => {
                "rewrite the kustomization alone, without what it uses; or rewrite nothing of it, and use `--emit kustomize`"
            }
            Self::Inexpressible { .. } => {
                "docs/emit.md says what each form can express; leave this one out of `--emit`"
            }
            Self::Relocation { .. } => "give the `relocation.json` that `ferry install` wrote below its `--out`",
            Self::Refused { .. } | Self::Rule { .. } => "correct the file, or edit it by hand",
            Self::SameName { .. } => "give the files one at a time, with another `--out` each",
            Self::Onto { .. } => "choose another folder with `--out`",
            Self::Outside { .. } => "name that file itself, or write elsewhere with `--out`",
            Self::NoRepository { .. } => "check its name: it is a path below the prefix of `--registry`",
            Self::TooMany { .. } => {
                "name the repositories that matter after the command, or with `--from receipt.json`"
            }
            Self::Packed => "unpack it, and name the folder; or lay values over it with `--emit helm-values`",
            Self::Yaml { .. } => "check the path that was given",
        };
        Some(hint.to_owned())
    }
}

fn because(why: Option<&str>) -> String {
    why.map(|why| format!(": {why}")).unwrap_or_default()
}

fn missing(what: &str, names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match (quoted.as_slice(), what) {
        ([one], _) => format!("there is no {what} {one}"),
        (all, "repository") => format!("{} repositories are not there: {}", all.len(), all.join(", ")),
        (all, _) => format!("{} {what}s are not there: {}", all.len(), all.join(", ")),
    }
}

/// `1 blob`, `2 blobs`.
pub(crate) fn blobs(n: usize) -> String {
    if n == 1 { "1 blob".to_owned() } else { format!("{n} blobs") }
}

fn lacking(blobs: &[Descriptor], bases: &[String], closed: &[String]) -> String {
    let (are, them) = if blobs.len() == 1 { ("is", "it") } else { ("are", "them") };
    let who = match quoted(bases) {
        bases if bases.is_empty() => String::new(),
        named if bases.iter().all(|base| is_place(base)) => format!("; the inventory of {named} lists {them}"),
        named => format!("; {named} should have brought {them}"),
    };
    let not_seen = match quoted(closed) {
        closed if closed.is_empty() => String::new(),
        closed => format!(" (nobody may look into {closed} with these credentials)"),
    };
    format!("{} {are} left to the target and {are} not there{not_seen}{who}:{}", counted(blobs), listed(blobs))
}

fn unserved(blobs: &[Descriptor], bases: &[String]) -> String {
    let are = if blobs.len() == 1 { "is" } else { "are" };
    let who = match quoted(bases) {
        bases if bases.is_empty() => String::new(),
        bases => format!(", only {bases} has"),
    };
    format!("{} {are} in no bundle that is served{who}:{}", counted(blobs), listed(blobs))
}

pub(crate) fn counted(of: &[Descriptor]) -> String {
    let bytes: u64 = of.iter().map(|blob| blob.size).sum();
    format!("{} ({bytes} bytes)", blobs(of.len()))
}

/// One line for each: there may be many.
pub(crate) fn listed(blobs: &[Descriptor]) -> String {
    blobs.iter().map(|blob| format!("\n    {} ({} bytes)", blob.digest, blob.size)).collect()
}

pub(crate) fn quoted(bases: &[String]) -> String {
    let bases: Vec<String> = bases.iter().map(|base| format!("`{base}`")).collect();
    bases.join(" or ")
}

fn serve_with(bases: &[String]) -> String {
    let base = bases.first().map_or("the bundle that has them".to_owned(), |base| format!("`{base}`"));
    format!("serve {base} together with it: `ferry serve BASE.tar THIS.tar`")
}

/// Whether a base is a target that was asked, and no bundle: names of bundles have neither port nor prefix.
fn is_place(base: &str) -> bool {
    base.split('@').next().unwrap_or_default().contains([':', '/'])
}

/// How to get what is left to the target and is not there.
fn bring(bases: &[String]) -> String {
    if let Some(place) = bases.iter().find(|base| is_place(base)) {
        return format!(
            "the bundle was built on an inventory of `{place}` (of a store, unless it was named, that is `localhost:5000`): install it there; or let \
             `--want want.json` write down what is missing, and build that on the connected side with `ferry bundle --patch want.json`; or build \
             this bundle without `--have`"
        );
    }
    let base = bases.first().map_or("the bundle that has them".to_owned(), |base| format!("`{base}`"));
    format!(
        "install {base} there first, or both with one command (`ferry install BASE.tar THIS.tar`); or let `--want want.json` write \
         down what is missing, and build that on the connected side with `ferry bundle --patch want.json`; or build this bundle \
         without `--have`"
    )
}

fn too_deep(refused: &[String]) -> String {
    let Some(first) = refused.first() else { return String::new() };
    let more = if refused.len() > 1 { format!(" and {} more", refused.len() - 1) } else { String::new() };
    format!("no name of {} parts: `{first}`{more}", first.split('/').count())
}

/// One line for each command: they are meant to be copied.
fn make(names: &[String], fixes: &[String]) -> String {
    let (it, each) = if names.len() == 1 { ("it", "") } else { ("them", ", with one line for each") };
    if fixes.is_empty() {
        return format!("make {it} first: this registry makes none by itself");
    }
    let lines: String = fixes.iter().map(|fix| format!("\n    {fix}")).collect();
    format!("make {it} first{each}:{lines}")
}

macro_rules! from {
    ($($source:ty => $variant:ident),*) => {
        $(impl From<$source> for Error {
            fn from(error: $source) -> Self {
                Self::$variant(error)
            }
        })*
    };
}

from!(ferry_archive::Error => Archive, ferry_content::Error => Content, ferry_registry_client::Error => Client, ferry_content::store::Error => Store,
      crate::export::Fault => Export);
