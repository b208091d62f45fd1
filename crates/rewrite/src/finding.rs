//! What was found: a reference, where it stands, how it is written, and how sure that is.

use std::ops::Range;

use ferry_image::Reference;
use serde::Serialize;

use crate::tree::{NodeId, Style};

/// How a reference is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// One string under a key that names an image.
    Whole,
    /// Repository (or image, or name) and tag or digest in keys of their own.
    Split,
    /// The same with the registry, a hub or a prefix in a key of its own.
    SplitRegistry,
    /// The value of an environment variable.
    Env,
    /// An argument: `--flag=REF`, or REF after `--flag`.
    Arg,
    /// An entry of a kustomization's `images:`.
    Kustomize,
    /// An item of a list, in YAML or in a plain list of images.
    List,
    /// One of several `key=REF` or REF in one string.
    Text,
    /// With `${VAR:-default}` in it.
    Variable,
    /// A string that looks like a reference, under a key that does not say so.
    Value,
}

/// How sure it is that an image is meant, and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confidence {
    /// The place says that it is an image.
    Certain,
    /// Only the value says so.
    ByValue,
    /// Put together by something outside this text, which may choose otherwise.
    Computed,
    /// An image is meant here, but this text alone does not say which.
    Unresolvable,
}

/// An image reference in a text.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// 1-based.
    pub line: usize,
    /// Where in the document, `$`-rooted; `#N$` in the Nth (from 0) of several documents; `outer::inner` inside a string.
    pub path: String,
    /// As written; pieces of a split reference joined.
    pub value: String,
    /// None when this text alone cannot tell.
    pub reference: Option<Reference>,
    /// How it is written.
    pub shape: Shape,
    /// How sure it is.
    pub confidence: Confidence,
    /// Why it is not certain, or why it was not rewritten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip)]
    pub(crate) parts: Vec<Part>,
    /// An index into the parsed documents.
    #[serde(skip)]
    pub(crate) document: usize,
    /// The scalar that is reported: its name, or what stands in the name's place.
    #[serde(skip)]
    pub(crate) site: NodeId,
}

/// A document, or a line of a list, that is left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// 1-based.
    pub line: usize,
    /// Why.
    pub reason: String,
}

/// What a text asks for.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// In order of position.
    pub findings: Vec<Finding>,
    /// What could not be looked at.
    pub refused: Vec<Refused>,
}

/// What a written piece says of the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The whole reference.
    Whole,
    /// The host, maybe with the beginning of the path.
    Registry,
    /// A segment or more of the repository, host included where no registry stands before it.
    Segment,
    Tag,
    Digest,
    /// A kustomize entry without `newName`: it would have to be added beside `name`.
    NewName,
}

/// One written piece of a reference.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) role: Role,
    /// The scalar to edit; where the piece stands behind an alias, the anchored one.
    pub(crate) node: NodeId,
    /// The place of use: the alias, or the scalar itself.
    pub(crate) site: NodeId,
    /// The path of the place of use.
    pub(crate) path: String,
    /// Bytes of the decoded scalar; all of it when absent.
    pub(crate) range: Option<Range<usize>>,
    /// How the piece is encoded inside `range`.
    pub(crate) inner: Inner,
    /// The piece as it is.
    pub(crate) current: String,
    /// Which other text it stands in, when it is not in this one: it cannot be edited here.
    pub(crate) elsewhere: Option<String>,
}

/// The node of a piece that stands in another text.
pub(crate) const NOWHERE: NodeId = NodeId::MAX;

/// How a piece stands inside its scalar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inner {
    /// Byte for byte.
    Literal,
    /// As a scalar of YAML or JSON inside the string.
    Token(Style),
    /// In a way that cannot be spliced.
    Fixed,
}
