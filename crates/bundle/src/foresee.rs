//! What can be said before the first image is asked for: whether a registry that counts what it answers has enough left.
//!
//! Docker Hub counts each GET of a manifest, and no HEAD. So one HEAD finds out whether a registry counts at all; where it does, and
//! where an earlier run left manifests, a HEAD for each tag tells its digest, and what is known by that is not asked for again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ferry_image::{Digest, Manifest, Reference, media_type};
use ferry_registry_client::quota::Quota;
use ferry_registry_client::{Client, Head, Repository};
use futures_util::{StreamExt as _, stream};

use crate::known::Known;
use crate::manifest::Platforms;
use crate::{Error, Request};

/// The longest that this may take: a registry that does not answer is told of when it is asked in earnest.
const PATIENCE: Duration = Duration::from_secs(30);
/// A count that starts anew within this time only takes its time.
const SOON: Duration = Duration::from_secs(300);

/// An image that will be asked for.
#[derive(Debug, Clone)]
struct Wanted {
    source: Reference,
    /// What it will be, as far as that is known.
    digest: Option<Digest>,
    /// Whether that is an index; true where nobody knows.
    index: bool,
    /// Manifests that an index is good for.
    platforms: usize,
}

impl Request {
    /// Asks registries what they will answer, without being counted, and says where that is less than what is to be asked for.
    pub async fn foresee(&self, client: &Client) -> Vec<String> {
        let mut hosts: BTreeMap<String, Vec<Wanted>> = BTreeMap::new();
        for wanted in self.wanted() {
            hosts.entry(wanted.source.host().to_owned()).or_default().push(wanted);
        }
        let each = hosts.into_iter().map(|(host, wanted)| async move {
            tokio::time::timeout(PATIENCE, self.foresee_host(client, host, wanted)).await.ok().flatten()
        });
        stream::iter(each).buffered(self.jobs.max(1)).filter_map(std::future::ready).collect().await
    }

    /// Every image from a registry, at the first of its sources.
    fn wanted(&self) -> Vec<Wanted> {
        let interrupted = self.interrupted();
        let lock = self.locked.as_ref().or(interrupted.as_ref());
        let images = self.manifest.images.iter().filter(|image| image.archive.is_none());
        images
            .filter_map(|image| {
                let source = self.manifest.sources(image).into_iter().next()?.at;
                let locked =
                    lock.and_then(|lock| lock.entry(&image.reference)).map(|locked| locked.root.digest.clone());
                let digest = locked.or_else(|| source.digest().cloned());
                let platforms = match self.manifest.platforms_of(image, self.platforms.as_ref())? {
                    Platforms::All => 1,
                    Platforms::These(these) => these.len(),
                };
                Some(Wanted { source, digest, index: true, platforms })
            })
            .collect()
    }

    async fn foresee_host(&self, client: &Client, host: String, mut wanted: Vec<Wanted>) -> Option<String> {
        // one image is soon told what it is told
        if wanted.len() < 2 {
            return None;
        }
        let (first, rest) = wanted.split_first_mut()?;
        let repository = client.repository(first.source.host(), first.source.path()).ok()?;
        self.ask(&repository, first).await.ok()?;
        if repository.quota().is_none() && !self.known.is_taken_up() {
            return None;
        }
        let others = rest.iter_mut().filter(|wanted| wanted.digest.is_none()).map(|wanted| async {
            let repository = client.repository(wanted.source.host(), wanted.source.path())?;
            self.ask(&repository, wanted).await
        });
        // what cannot be asked about is told of when it is asked for
        let _: Vec<Result<(), Error>> = stream::iter(others).buffer_unordered(self.jobs.max(1)).collect().await;
        shortage(&host, repository.quota()?, needed(&wanted, &self.known))
    }

    async fn ask(&self, repository: &Repository, wanted: &mut Wanted) -> Result<(), Error> {
        let reference = wanted.source.manifest_reference();
        if let Some(Head { digest, media_type, .. }) = repository.head(&reference).await? {
            wanted.index = !media_type::is_manifest(&media_type);
            if let (None, Some(digest)) = (&wanted.digest, digest) {
                self.known.learn_tag(wanted.source.to_string(), digest.clone());
                wanted.digest = Some(digest);
            }
        }
        Ok(())
    }
}

/// How many manifests are still to be asked for, at most.
fn needed(wanted: &[Wanted], known: &Known) -> usize {
    let mut counted = BTreeSet::new();
    let each =
        wanted.iter().filter(|wanted| wanted.digest.as_ref().is_none_or(|digest| counted.insert(digest.clone())));
    each.map(|wanted| match wanted.digest.as_ref().and_then(|digest| known.get(digest)) {
        None => 1 + if wanted.index { wanted.platforms } else { 0 },
        Some(document) => match Manifest::parse(&document.bytes, None) {
            Ok(Manifest::Index(index)) => {
                let read = index.manifests.iter().filter(|entry| known.get(&entry.digest).is_some()).count();
                wanted.platforms.saturating_sub(read)
            }
            _ => 0,
        },
    })
    .sum()
}

fn shortage(host: &str, quota: Quota, needed: usize) -> Option<String> {
    let enough = u64::try_from(needed).is_ok_and(|needed| needed <= quota.remaining);
    if enough || quota.renewed_within().is_some_and(|time| time <= SOON) {
        return None;
    }
    let renewed = quota.renewal().map(|when| format!(" ({when})")).unwrap_or_default();
    Some(format!(
        "{host} answers {quota}, and up to {needed} manifests are still to be asked for: log in to {host} if that allows more, or run the \
         same command again when the count starts anew{renewed}; what was read until then is kept"
    ))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::known::Document;

    fn wanted(tag: &str, digest: Option<&Digest>, index: bool, platforms: usize) -> Wanted {
        let source = format!("r.example/a:{tag}").parse().expect("reference");
        Wanted { source, digest: digest.cloned(), index, platforms }
    }

    #[test]
    fn manifests_still_to_be_asked_for() {
        let folder = tempfile::tempdir().expect("folder");
        let known = Known::beside(&folder.path().join("b.tar"), false);
        let learn = |value: &serde_json::Value| {
            let bytes = Bytes::from(value.to_string());
            let digest = Digest::of(&bytes);
            known.learn(&digest, Document { media_type: String::new(), bytes });
            digest
        };
        let entry = |digest: &Digest| json!({"mediaType": media_type::OCI_MANIFEST, "digest": digest, "size": 2});
        let image = learn(&json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "layers": [],
            "config": {"mediaType": media_type::OCI_CONFIG, "digest": Digest::of(b"c"), "size": 1}}));
        let (other, another) = (Digest::of(b"other"), Digest::of(b"another"));
        let index = learn(&json!({"schemaVersion": 2, "manifests": [entry(&image), entry(&other)]}));
        for (list, expected) in [
            (vec![wanted("1", Some(&image), false, 1)], 0),
            (vec![wanted("1", Some(&index), true, 1)], 0),
            (vec![wanted("1", Some(&index), true, 2)], 1),
            (vec![wanted("1", Some(&other), false, 2)], 1),
            (vec![wanted("1", Some(&other), true, 2), wanted("2", Some(&other), true, 2)], 3),
            (vec![wanted("1", Some(&other), false, 1), wanted("2", Some(&another), false, 1)], 2),
            (vec![wanted("1", None, true, 1), wanted("2", None, true, 1)], 4),
        ] {
            assert_eq!(needed(&list, &known), expected, "{list:?}");
        }
    }

    #[test]
    fn a_shortage_is_told_with_its_numbers() {
        let quota = |remaining, window: u64| Quota {
            limit: 100,
            remaining,
            window: Some(Duration::from_secs(window)),
            reset: None,
        };
        let told = shortage("docker.io", quota(12, 21600), 45).expect("too few");
        for words in
            ["docker.io answers 12 more requests (of 100 in 6 h)", "up to 45 manifests", "at the latest in 6 h"]
        {
            assert!(told.contains(words), "{told}");
        }
        assert_eq!(shortage("docker.io", quota(45, 21600), 45), None);
        assert_eq!(shortage("docker.io", quota(12, 60), 45), None, "that is only slow");
    }
}
