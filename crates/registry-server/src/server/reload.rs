//! What is read again when the operator says so: SIGHUP, as with other servers.

use std::sync::Arc;
use std::time::SystemTime;

use crate::Registry;
use crate::server::tls::Current;

/// Reads again what a server has from files.
#[derive(Clone)]
pub struct Reload {
    pub(super) certificate: Option<Arc<Current>>,
    pub(super) registry: Registry,
}

/// What became of something that was to be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reread {
    /// It is now what the files say.
    Done,
    /// It is as it was before; why is in the log.
    Kept,
}

/// What became of everything; `None` of what this server has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reloaded {
    /// The file of the access log, opened anew.
    pub access_log: Option<Reread>,
    /// The users.
    pub users: Option<Reread>,
    /// The certificate.
    pub certificate: Option<Reread>,
}

impl Reload {
    /// The access log, which is opened anew under its name, the users, and the certificate. What cannot be read is told in the log, and what
    /// was there before stays. Blocking, for as long as a disk does not answer.
    #[must_use]
    pub fn run(&self) -> Reloaded {
        let settings = &self.registry.settings;
        Reloaded {
            access_log: settings.access_log.as_ref().and_then(|log| log.reopen()),
            users: settings.access.passwords().map(|passwords| passwords.refresh()),
            certificate: self.certificate.as_ref().map(|certificate| certificate.reload(SystemTime::now())),
        }
    }
}

impl std::fmt::Debug for Reload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reload")
    }
}
