//! What a lock's images consist of: their manifests are read by digest, from what is known already or from where they were found.
//!
//! What cannot be learnt is no error: it is carried, and a note says so.

use std::collections::BTreeMap;

use ferry_image::{Digest, Manifest, TargetName};
use ferry_registry_client::Client;
use futures_util::{StreamExt as _, stream};

use crate::Request;
use crate::base::{Base, BaseBlob, Unread, named_by};
use crate::manifest::Image;
use crate::place::{Documents, fetch};

/// Manifests of one image of a lock that are read, those of indexes that refer to it included.
const MOST: usize = 1000;

/// What is left to the far side.
#[derive(Debug, Default)]
pub(crate) struct Had {
    pub(crate) blobs: BTreeMap<Digest, BaseBlob>,
    pub(crate) notes: Vec<String>,
}

impl Had {
    /// All that the bases of `request` have. `documents` were read for the images that are to be carried.
    pub(crate) async fn learn(request: &Request, client: &Client, documents: &Documents) -> Self {
        let mut had = Self::default();
        for base in &request.bases {
            for (digest, blob) in &base.blobs {
                had.add(digest, blob.size, blob.repositories.iter().cloned());
            }
            let each = base
                .unread
                .iter()
                .map(|unread| async move { (unread, read(unread, client, request, documents).await) });
            let learnt: Vec<_> = stream::iter(each).buffered(request.jobs.max(1)).collect().await;
            for (unread, (blobs, failed)) in learnt {
                let repository = repository(request, unread);
                for (digest, size) in blobs.iter().chain(&unread.blobs) {
                    had.add(digest, *size, [repository.clone()]);
                }
                had.notes.extend(failed.map(|why| note(base, unread, &why)));
            }
        }
        had
    }

    fn add(&mut self, digest: &Digest, size: Option<u64>, repositories: impl IntoIterator<Item = String>) {
        let blob = self.blobs.entry(digest.clone()).or_default();
        blob.size = blob.size.or(size);
        blob.repositories.extend(repositories);
    }
}

/// Where the image was put, if names were made then as they are now: a lock does not say.
fn repository(request: &Request, unread: &Unread) -> String {
    let manifest = &request.manifest;
    let listed = manifest.images.iter().find(|image| image.reference == unread.reference);
    let name = match listed {
        Some(image) => manifest.target_of(image),
        None => TargetName::place(&unread.reference, None, manifest.layout),
    };
    name.repository
}

fn note(base: &Base, unread: &Unread, why: &str) -> String {
    format!("{}: not all that {} consists of is known, and what is not is carried: {why}", base.file, unread.reference)
}

/// Configs and layers of an image, and why that may not be all.
async fn read(
    unread: &Unread,
    client: &Client,
    request: &Request,
    documents: &Documents,
) -> (BTreeMap<Digest, Option<u64>>, Option<String>) {
    let mut blobs = BTreeMap::new();
    let mut failed = None;
    let mut open = unread.manifests.clone();
    let mut seen = 0;
    while let Some(digest) = open.pop() {
        seen += 1;
        if seen > MOST {
            failed = Some(format!("it has more than {MOST} manifests"));
            break;
        }
        match document(unread, &digest, client, request, documents).await {
            Ok(Manifest::Image(manifest)) => {
                blobs.extend(named_by(&manifest).map(|blob| (blob.digest.clone(), Some(blob.size))));
            }
            Ok(Manifest::Index(index)) => open.extend(index.manifests.into_iter().map(|entry| entry.digest)),
            Err(why) => failed = failed.or(Some(why)),
        }
    }
    (blobs, failed)
}

async fn document(
    unread: &Unread,
    digest: &Digest,
    client: &Client,
    request: &Request,
    documents: &Documents,
) -> Result<Manifest, String> {
    let mut why = format!("manifest {digest} is in an archive that is not read now");
    if let Some(bytes) = documents.get(digest) {
        return Manifest::parse(bytes, None).map_err(|e| e.to_string());
    }
    // mirrors first, as for images that are carried
    let sources = unread.sources.iter().map(|source| Image::new(source.clone(), 0));
    for source in sources.flat_map(|image| request.manifest.sources(&image)) {
        let read = async {
            let repository = client.repository(source.at.host(), source.at.path())?;
            request.known.get_or(digest, fetch(&repository, digest)).await
        };
        match read.await {
            Ok(document) => return Manifest::parse(&document.bytes, None).map_err(|e| e.to_string()),
            Err(error) => why = error.to_string(),
        }
    }
    Err(why)
}
