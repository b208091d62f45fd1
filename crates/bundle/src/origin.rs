//! Whether a mirror has what its origin has under the same tag.
//!
//! One HEAD for each image that a mirror served by tag: registries do not count those against their quotas. A digest needs no
//! second opinion. An origin that cannot be asked is not asked again for the next image, and that is said.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ferry_image::{Digest, Reference};
use ferry_registry_client::{Client, Error as Refused, Head};

use crate::Error;

/// How long an origin is waited for: behind a firewall it may never answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is known of the origins of mirrors.
#[derive(Default)]
pub(crate) struct Origins {
    /// By host: why it could not be asked, and whether there is no sense in asking again.
    silent: Mutex<BTreeMap<String, (String, bool)>>,
}

impl Origins {
    /// Asks `origin` about the tag that `mirror` says is `found`.
    ///
    /// # Errors
    /// When it is something else there.
    pub(crate) async fn agree(
        &self,
        client: &Client,
        mirror: &Reference,
        origin: &Reference,
        found: &Digest,
    ) -> Result<(), Error> {
        if self.is_silent(origin.host()) {
            return Ok(());
        }
        let head = tokio::time::timeout(PATIENCE, head(client, origin)).await;
        match head {
            Ok(Ok(Some(Head { digest: Some(expected), .. })))
                if expected.algorithm() == found.algorithm() && expected != *found =>
            {
                let (mirror, origin) = (mirror.repository(), origin.clone());
                Err(Error::MirrorDiffers { mirror, found: found.clone(), origin, expected })
            }
            // the same; or the registry states no digest; or it has deleted what the mirror keeps
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                // what is refused for one repository may be granted for another
                let for_all = !matches!(error.status(), Some(401 | 403));
                self.note(origin.host(), error.to_string(), for_all);
                Ok(())
            }
            Err(_) => {
                self.note(origin.host(), format!("no answer within {} s", PATIENCE.as_secs()), true);
                Ok(())
            }
        }
    }

    /// What could not be compared, for people.
    pub(crate) fn notes(&self) -> Vec<String> {
        let silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        let note = |(host, (why, _)): (&String, &(String, bool))| {
            format!("{host} could not be asked whether its mirrors are up to date: {why}")
        };
        silent.iter().map(note).collect()
    }

    fn is_silent(&self, host: &str) -> bool {
        let silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.get(host).is_some_and(|(_, for_all)| *for_all)
    }

    fn note(&self, host: &str, why: String, for_all: bool) {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        let known = silent.entry(host.to_owned()).or_insert((why, for_all));
        known.1 |= for_all;
    }
}

async fn head(client: &Client, origin: &Reference) -> Result<Option<Head>, Refused> {
    client.repository(origin.host(), origin.path())?.head(&origin.manifest_reference()).await
}
