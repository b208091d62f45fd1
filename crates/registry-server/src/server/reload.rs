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

impl Reload {
    /// The certificate, the users, and the access log, which is opened anew under its name. What cannot be read is told in the log, and what
    /// was there before stays. Blocking.
    pub fn run(&self) {
        if let Some(certificate) = &self.certificate {
            certificate.reload(SystemTime::now());
        }
        let settings = &self.registry.settings;
        if let Some(passwords) = settings.access.passwords() {
            passwords.refresh();
        }
        if let Some(log) = &settings.access_log {
            log.reopen();
        }
    }
}

impl std::fmt::Debug for Reload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reload")
    }
}
