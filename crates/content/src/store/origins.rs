//! Of which hosts the images of a repository are, where that is known: what a mirror must not mix up. Known is it of repositories that were
//! filled by whoever said so; a push over the network says nothing of it, and from then on it is not known any more.

use ferry_image::reference;

use super::manifests::names;
use super::{Error, Store, check_repository, durable};

/// The most bytes that the names of hosts may take.
const MAX_HOSTS: u64 = 64 << 10;

impl Store {
    /// Notes that images of `host` come into a repository. Whoever says so says it of each before it puts any; where something is that was
    /// pushed, nobody knows it.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::Locked`]; whatever the disk reports.
    pub fn add_origin(&self, repository: &str, host: &str) -> Result<(), Error> {
        check_repository(repository)?;
        if !reference::is_host(host) {
            return Err(Error::Name { what: "host", text: host.chars().take(160).collect() });
        }
        let _guard = self.layout.lock()?;
        let is_empty = names(&self.layout.manifests(repository))?.is_empty();
        let known = match self.origins(repository)? {
            _ if is_empty => String::new(),
            Some(known) => known,
            None => return Ok(()),
        };
        if known.lines().any(|known| known == host) {
            return Ok(());
        }
        durable::create_folders(&self.layout.repository(repository))?;
        let file = self.layout.origins(repository);
        Ok(durable::write(&self.layout.uploads(), &file, format!("{known}{host}\n").as_bytes())?)
    }

    /// Whether the images of a repository may be those that `host` has under the same path: unless they are known to be of others.
    ///
    /// # Errors
    /// [`Error::Name`]; whatever the disk reports.
    pub fn may_be_of(&self, repository: &str, host: &str) -> Result<bool, Error> {
        check_repository(repository)?;
        Ok(self.origins(repository)?.is_none_or(|hosts| hosts.lines().any(|known| known == host)))
    }

    /// Something comes into a repository of which nobody says where it is from.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::Locked`]; whatever the disk reports.
    pub fn forget_origins(&self, repository: &str) -> Result<(), Error> {
        check_repository(repository)?;
        if self.origins(repository)?.is_none() {
            return Ok(());
        }
        let _guard = self.layout.lock()?;
        Ok(durable::remove(&self.layout.origins(repository))?)
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
        let put = |host: &str, bytes: &[u8]| {
            store.add_origin("r", host).expect("origin");
            store.put_manifest("r", Some("t"), OCI_MANIFEST, bytes).expect("put");
        };
        put("docker.io", &one);
        assert_eq!((of("docker.io"), of("quay.io"), of("../r")), (true, false, false));
        put("quay.io", &two);
        put("quay.io", &two);
        assert_eq!((of("docker.io"), of("quay.io"), of("ghcr.io")), (true, true, false));
        store.add_origin("r", "../x").expect_err("no host");
        assert!(store.may_be_of("r/below", "ghcr.io").expect("asked"), "another repository");
        store.forget_origins("r").expect("forget");
        assert!(of("ghcr.io"), "a push may be of anywhere");
        put("docker.io", &one);
        assert!(of("ghcr.io"), "and what was pushed is still there");
    }

    #[test]
    fn what_is_removed_whole_begins_anew() {
        let (_folder, store) = store();
        let bytes = image(&store, "one");
        store.add_origin("r", "docker.io").expect("origin");
        let digest = store.put_manifest("r", None, OCI_MANIFEST, &bytes).expect("put");
        store.delete_manifest("r", &crate::store::ManifestRef::Digest(digest)).expect("delete");
        assert_eq!(store.repositories().expect("repositories"), Vec::<String>::new());
        store.add_origin("r", "quay.io").expect("origin");
        let of = |host: &str| store.may_be_of("r", host).expect("asked");
        assert_eq!((of("docker.io"), of("quay.io")), (false, true));
    }
}
