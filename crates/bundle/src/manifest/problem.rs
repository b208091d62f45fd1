//! What can be wrong with a bundle manifest or a plain text list.

use std::fmt;
use std::path::PathBuf;

use ferry_content::{Failure, Kind};

/// Everything that is wrong with one file. Printed as `path:line: what`, a line for each problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestError {
    /// The file.
    pub path: PathBuf,
    /// At least one, in order of line.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Counted from 1; 0 for the file as a whole.
    pub line: usize,
    /// What is wrong.
    pub what: What,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum What {
    /// Not YAML, or a value of another type than the key takes.
    #[error("{0}")]
    Yaml(String),
    /// Larger than a list of images can sensibly be.
    #[error("the file has {bytes} bytes; the limit is {limit}")]
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// More images than one bundle takes.
    #[error("there are {count} images; the limit is {limit}")]
    TooMany {
        /// How many there are.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// A key that does not exist there.
    #[error("unknown key `{key}`{}", within(.place))]
    UnknownKey {
        /// The key as written.
        key: String,
        /// In which part; empty at the top.
        place: &'static str,
        /// The keys that exist there.
        known: &'static [&'static str],
    },
    /// A key that must be there.
    #[error("`{key}:` is missing{}", within(.place))]
    MissingKey {
        /// The key.
        key: &'static str,
        /// In which part; empty at the top.
        place: &'static str,
    },
    /// Not a reference, a platform or a registry.
    #[error("{0}")]
    Value(#[from] ferry_image::Error),
    /// A value that the key does not take.
    #[error("`{key}: {value}` {why}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// The value as written.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// The same thing again.
    #[error("{what} `{value}` is already listed at line {first}")]
    Twice {
        /// What it is.
        what: &'static str,
        /// The value.
        value: String,
        /// The line of the first one.
        first: usize,
    },
    /// Two images on one name at the target.
    #[error("`{second}` would be `{name}` at the target, as `{first}` at line {first_line} is")]
    Collision {
        /// The name both want.
        name: String,
        /// The image listed first.
        first: String,
        /// Its line.
        first_line: usize,
        /// The other image.
        second: String,
    },
    /// A rule names an image that is not listed.
    #[error("`{image}` is not one of the images listed")]
    NotListed {
        /// The image.
        image: String,
    },
    /// A rule names images of which none is listed.
    #[error("`verify:` names `{pattern}`, and no image that is listed is one of those")]
    NamesNone {
        /// The reference or pattern.
        pattern: String,
    },
    /// Two keys that do not go together.
    #[error("`{one}:` {why} `{other}:`")]
    Together {
        /// The first key.
        one: &'static str,
        /// How they clash.
        why: &'static str,
        /// The other key.
        other: &'static str,
    },
    /// No image at all.
    #[error("no image is listed")]
    Empty,
}

fn within(place: &str) -> String {
    if place.is_empty() { String::new() } else { format!(" in {place}") }
}

impl What {
    /// What the user can try.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownKey { key, known, place } => {
                Some(if place.is_empty() && matches!(key.as_str(), "apiVersion" | "kind") {
                    "this looks like Kubernetes YAML; a bundle manifest lists images, and may name such files under `yaml:`".to_owned()
                } else if let Some(near) = nearest(key, known) {
                    format!("did you mean `{near}`?")
                } else {
                    format!("known here: {}", known.join(", "))
                })
            }
            Self::TooLarge { .. } | Self::TooMany { .. } => Some("split it into several bundles".to_owned()),
            Self::Twice { .. } => Some("take one of the two out".to_owned()),
            Self::Collision { .. } => Some("give one of them another name with `as:`".to_owned()),
            Self::NotListed { .. } => Some("list it under `images:`, or correct the rule".to_owned()),
            Self::NamesNone { pattern } if pattern.ends_with('/') => Some(format!("write `{pattern}*` for all that is below it")),
            Self::NamesNone { .. } => Some("correct it, or take it out".to_owned()),
            Self::Empty => Some("list one, such as `docker.io/library/nginx:1.27`: under `images:`, or on a line of its own in a plain list".to_owned()),
            _ => None,
        }
    }
}

/// The known key that `key` is a slip of: the same letters, or one letter more, less or other.
fn nearest(key: &str, known: &'static [&'static str]) -> Option<&'static str> {
    let plain = |s: &str| s.to_ascii_lowercase().replace(['-', '_'], "");
    let key = plain(key);
    known.iter().copied().find(|k| {
        let known = plain(k);
        let same = key.bytes().zip(known.bytes()).take_while(|(a, b)| a == b).count();
        let (a, b) = (&key.as_bytes()[same..], &known.as_bytes()[same..]);
        let rest = |s: &[u8]| s.get(1..).unwrap_or_default().to_owned();
        a == b || rest(a) == b || a == rest(b) || (a.len() == b.len() && rest(a) == rest(b) && known.len() > 2)
    })
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}", self.what),
            line => write!(f, "line {line}: {}", self.what),
        }
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            let end = if i == 0 { "" } else { "\n" };
            match problem.line {
                0 => write!(f, "{end}{}: {}", self.path.display(), problem.what)?,
                line => write!(f, "{end}{}:{line}: {}", self.path.display(), problem.what)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for ManifestError {}

impl Failure for ManifestError {
    fn kind(&self) -> Kind {
        let all = |f: fn(&What) -> bool| self.problems.iter().all(|p| f(&p.what));
        if all(|w| matches!(w, What::Collision { .. })) { Kind::Conflict } else { Kind::Invalid }
    }

    fn hint(&self) -> Option<String> {
        let mut hints: Vec<String> = self.problems.iter().filter_map(|p| p.what.hint()).collect();
        hints.dedup();
        if self.problems.len() > 1 {
            hints = self
                .problems
                .iter()
                .filter_map(|p| {
                    p.what.hint().map(|hint| if p.line == 0 { hint } else { format!("line {}: {hint}", p.line) })
                })
                .collect();
        }
        (!hints.is_empty()).then(|| hints.join("; "))
    }
}
