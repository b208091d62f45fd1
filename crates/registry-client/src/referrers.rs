//! What refers to a manifest (distribution-spec, "Listing Referrers"): asked of the registry's API page by page, and where it has none,
//! read from the index under the referrers tag, which clients must keep.
//!
//! The API is asked without a filter: some registries state wrong artifact types, and a filter would hide what they hide.

use bytes::Bytes;
use ferry_image::manifest::MAX_MANIFEST;
use ferry_image::{Descriptor, Digest, Manifest, media_type, referrer};
use http::Method;
use http::header::ACCEPT;

use crate::repository::content_type;
use crate::{Error, Fetched, Repository, What};

/// What refers to a manifest, as far as its registry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referrers {
    /// A descriptor of each.
    pub manifests: Vec<Descriptor>,
    /// Who says so.
    pub listed_by: ListedBy,
}

/// Where a list of referrers comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListedBy {
    /// The registry keeps it.
    Api,
    /// It is the index under the referrers tag.
    Tag(Fetched),
    /// The registry has no such API, and nothing stands under the referrers tag.
    Nobody,
}

impl Repository {
    /// What refers to `subject`. Reading ends with the page that brings more than `limit`; those are given too.
    ///
    /// # Errors
    /// When the registry cannot be asked, its answer is not understood, or its pages do not end.
    pub async fn referrers(&self, subject: &Digest, limit: usize) -> Result<Referrers, Error> {
        if let Some(manifests) = self.listed_by_api(subject, limit).await? {
            return Ok(Referrers { manifests, listed_by: ListedBy::Api });
        }
        // a HEAD counts against no quota, and mostly there is nothing
        let tag = referrer::fallback_tag(subject);
        let nothing = Referrers { manifests: Vec::new(), listed_by: ListedBy::Nobody };
        if self.head(&tag).await?.is_none() {
            return Ok(nothing);
        }
        let fetched = match self.manifest(&tag).await {
            Ok(fetched) => fetched,
            Err(error) if error.status() == Some(404) => return Ok(nothing),
            Err(error) => return Err(error),
        };
        let manifests = match Manifest::parse(&fetched.bytes, Some(&fetched.media_type)) {
            Ok(Manifest::Index(index)) => index.manifests,
            // "the client SHOULD assume there are no referrers"
            _ => Vec::new(),
        };
        Ok(Referrers { manifests, listed_by: ListedBy::Tag(fetched) })
    }

    /// Writes a manifest under a tag or its digest. Whether the registry lists it by itself among the referrers of `subject`.
    ///
    /// # Errors
    /// As [`put_manifest`](Self::put_manifest).
    pub async fn put_referrer(
        &self,
        tag_or_digest: &str,
        media_type: &str,
        bytes: &Bytes,
        subject: &Digest,
    ) -> Result<bool, Error> {
        Ok(self.put(tag_or_digest, media_type, bytes).await?.as_ref() == Some(subject))
    }

    /// `None` when there is no such API.
    async fn listed_by_api(&self, subject: &Digest, limit: usize) -> Result<Option<Vec<Descriptor>>, Error> {
        let is_known = || self.learnt.lists_referrers.get().copied();
        let mut asking = match is_known() {
            Some(_) => None,
            None => Some(self.learnt.asking_referrers.lock().await),
        };
        if is_known() == Some(false) {
            return Ok(None);
        }
        let what = What::Referrers(subject.clone());
        let call = self.call(Method::GET, &format!("referrers/{subject}"), what).await?;
        let mut call = call.header(ACCEPT, media_type::OCI_INDEX);
        let mut found = Vec::new();
        for page in 0..=limit {
            // 404 is what the specification knows; the others are what registries and what stands before them answer to an unknown path
            let fine: &[u16] = if page == 0 { &[200, 400, 404, 405, 406, 501] } else { &[200] };
            let (reply, body) = self.registry.read(&call, fine, MAX_MANIFEST).await?;
            // a web page is the answer of something that answers to every path
            if reply.status() != 200 || content_type(&reply) == "text/html" {
                let _ = self.learnt.lists_referrers.set(false);
                return Ok(None);
            }
            if asking.take().is_some() {
                let _ = self.learnt.lists_referrers.set(true);
            }
            let next = reply.next_page().map(str::to_owned);
            match Manifest::parse(&body, None) {
                Ok(Manifest::Index(index)) => found.extend(index.manifests),
                Ok(Manifest::Image(_)) => return Err(self.registry.broken(&call, "its answer is no index".to_owned())),
                Err(error) => {
                    return Err(self.registry.broken(&call, format!("its answer is not understood: {error}")));
                }
            }
            match next {
                Some(next) if found.len() <= limit => call.url = self.next_page(&call, &next)?,
                _ => return Ok(Some(found)),
            }
        }
        Err(self.registry.broken(&call, "its pages do not end".to_owned()))
    }
}
