//! Of which hosts the images of a repository are, where that is known: what a mirror must not mix up. Known is it of repositories that were
//! filled by whoever said so each time; a push says nothing of it, and from then on it is not known any more.

use ferry_image::{Digest, reference};

use super::manifests::names;
use super::{Error, Store, check_repository, durable};

/// The most bytes that the names of hosts may take.
const MAX_HOSTS: u64 = 64 << 10;

impl Store {
    /// Stores a manifest as [`put_manifest`](Self::put_manifest), whose image is of `host` originally.
    ///
    /// # Errors
    /// As there; [`Error::Name`] for what is no host.
    pub fn put_manifest_of(
        &self,
        host: &str,
        repository: &str,
        tag: Option<&str>,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, Error> {
        if !reference::is_host(host) {
            return Err(Error::Name { what: "host", text: host.chars().take(160).collect() });
        }
        let digest = Digest::of(bytes);
        self.put_checked(repository, tag.as_slice(), &digest, media_type, bytes, Some(host))?;
        Ok(digest)
    }

    /// Whether the images of a repository may be those that `host` has under the same path: unless they are known to be of others.
    ///
    /// # Errors
    /// [`Error::Name`]; whatever the disk reports.
    pub fn may_be_of(&self, repository: &str, host: &str) -> Result<bool, Error> {
        check_repository(repository)?;
        Ok(self.origins(repository)?.is_none_or(|hosts| hosts.lines().any(|known| known == host)))
    }

    /// Notes where an image of a repository is from, before it is there. The caller holds the lock.
    pub(super) fn note_origin(&self, repository: &str, host: Option<&str>) -> Result<(), Error> {
        let file = self.layout.origins(repository);
        // of what is there and was pushed, nobody knows it
        let is_empty = || names(&self.layout.manifests(repository)).map(|names| names.is_empty());
        let known = match self.origins(repository)? {
            Some(_) if is_empty()? => Some(String::new()),
            None if host.is_some() && is_empty()? => Some(String::new()),
            known => known,
        };
        match (host, known) {
            (None, Some(_)) => Ok(durable::remove(&file)?),
            (Some(host), Some(known)) if known.lines().all(|known| known != host) => {
                durable::create_folders(&self.layout.repository(repository))?;
                Ok(durable::write(&self.layout.uploads(), &file, format!("{known}{host}\n").as_bytes())?)
            }
            _ => Ok(()),
        }
    }

    /// The hosts, one in each line; `None` where they are not known.
    fn origins(&self, repository: &str) -> Result<Option<String>, Error> {
        let bytes = durable::read(&self.layout.origins(repository), MAX_HOSTS)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use ferry_image::media_type::OCI_MANIFEST;

    use crate::store::tests::{image, store};

    #[test]
    fn a_repository_is_of_the_hosts_that_were_named_until_somebody_names_none() {
        let (_folder, store) = store();
        let (one, two) = (image(&store, "one"), image(&store, "two"));
        let of = |host: &str| store.may_be_of("r", host).expect("asked");
        assert!(of("quay.io"), "an empty one is of anybody");
        let put = |host: &str, bytes: &[u8]| store.put_manifest_of(host, "r", Some("t"), OCI_MANIFEST, bytes);
        put("docker.io", &one).expect("put");
        assert_eq!((of("docker.io"), of("quay.io"), of("../r")), (true, false, false));
        put("quay.io", &two).expect("put");
        assert_eq!((of("docker.io"), of("quay.io"), of("ghcr.io")), (true, true, false));
        put("../x", &two).expect_err("no host");
        assert!(store.may_be_of("r/below", "ghcr.io").expect("asked"), "another repository");
        store.put_manifest("r", Some("pushed"), OCI_MANIFEST, &one).expect("put");
        assert!(of("ghcr.io"), "a push may be of anywhere");
        put("docker.io", &one).expect("put");
        assert!(of("ghcr.io"), "and what was pushed is still there");
    }

    #[test]
    fn what_is_removed_whole_begins_anew() {
        let (_folder, store) = store();
        let bytes = image(&store, "one");
        let digest = store.put_manifest_of("docker.io", "r", None, OCI_MANIFEST, &bytes).expect("put");
        store.delete_manifest("r", &crate::store::ManifestRef::Digest(digest)).expect("delete");
        assert_eq!(store.repositories().expect("repositories"), Vec::<String>::new());
        store.put_manifest_of("quay.io", "r", None, OCI_MANIFEST, &bytes).expect("put");
        let of = |host: &str| store.may_be_of("r", host).expect("asked");
        assert_eq!((of("docker.io"), of("quay.io")), (false, true));
    }
}
