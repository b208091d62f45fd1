//! What every error of ferry can say of itself, so that one place can choose exit codes, retries and hints.

/// The class of a failure. The command line maps it to an exit code (design, "Command line").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Input that is not what it should be (exit 1).
    Invalid,
    /// The command was used wrongly (exit 2).
    Usage,
    /// Signature, checksum or structure do not hold (exit 3).
    Untrusted,
    /// Something named is not there: an image, a platform, a reference in the YAML (exit 4).
    Missing,
    /// A registry or the network failed after retries (exit 5).
    Remote,
    /// Local input or output: disk full, permission (exit 6).
    Local,
    /// Two things that cannot both be: colliding names, an existing tag, a locked digest that changed (exit 7).
    Conflict,
}

impl Kind {
    /// The exit code of the `ferry` command.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Invalid => 1,
            Self::Usage => 2,
            Self::Untrusted => 3,
            Self::Missing => 4,
            Self::Remote => 5,
            Self::Local => 6,
            Self::Conflict => 7,
        }
    }
}

/// An error that knows its class.
pub trait Failure: std::error::Error + Send + Sync + 'static {
    /// The class.
    fn kind(&self) -> Kind;

    /// Whether the same request may well succeed if it is made again.
    fn is_transient(&self) -> bool {
        false
    }

    /// What the user can try next.
    fn hint(&self) -> Option<String> {
        None
    }
}
