//! What the registry holds, and the right answers about it (distribution-spec 1.1).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::http::{Message, Reply};
use crate::images::{self, Image};

use super::route::{Route, query};

/// Repositories and open uploads.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) repositories: BTreeMap<String, Repository>,
    sessions: BTreeMap<u64, Session>,
    opened: u64,
}

/// One repository.
#[derive(Debug, Default)]
pub(super) struct Repository {
    /// Media type and bytes by digest.
    pub(super) manifests: BTreeMap<String, (String, Vec<u8>)>,
    /// Digest by tag.
    pub(super) tags: BTreeMap<String, String>,
    pub(super) blobs: BTreeMap<String, Arc<Vec<u8>>>,
}

#[derive(Debug)]
struct Session {
    repository: String,
    bytes: Vec<u8>,
    /// Counts the requests: whoever does not follow `Location` is caught.
    state: u64,
}

/// How the registry behaves where the specification leaves a choice, or is not kept to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Manners {
    pub(super) no_ranges: bool,
    pub(super) other_range: bool,
    pub(super) no_mount: bool,
    pub(super) refuse_sparse: bool,
    pub(super) one_page: bool,
}

impl Content {
    /// Files an image as `NAME:TAG`, or as `NAME` by its digest only.
    pub(super) fn add(&mut self, name: &str, image: &Image) {
        let (repository, tag) = name.split_once(':').map_or((name, None), |(name, tag)| (name, Some(tag)));
        let repository = self.repositories.entry(repository.to_owned()).or_default();
        for (descriptor, bytes) in &image.manifests {
            let entry = (descriptor.media_type.clone(), bytes.clone());
            repository.manifests.insert(descriptor.digest.clone(), entry);
        }
        repository.blobs.extend(image.blobs.clone());
        repository.tags.extend(tag.map(|tag| (tag.to_owned(), image.digest().to_owned())));
    }

    /// The right answer. The body of the request is in it.
    pub(super) fn answer(&mut self, request: &Message, route: &Route, manners: Manners) -> Reply {
        match (request.method.as_str(), route) {
            ("GET", Route::Ping) => Reply::new(200, "application/json", "{}"),
            ("GET" | "HEAD", Route::Manifest { repository, reference }) => self.manifest(repository, reference),
            ("PUT", Route::Manifest { repository, reference }) => {
                self.put_manifest(repository, reference, request, manners)
            }
            ("GET" | "HEAD", Route::Blob { repository, digest }) => self.blob(repository, digest, request, manners),
            ("POST", Route::Uploads { repository }) => self.open(repository, request, manners),
            ("PATCH", Route::Session { repository, id }) => self.patch(repository, *id, request),
            ("PUT", Route::Session { repository, id }) => self.put(repository, *id, request),
            ("GET", Route::Session { repository, id }) => match self.session(repository, *id, request) {
                Ok(session) => progress(204, *id, session),
                Err(reply) => reply,
            },
            ("DELETE", Route::Session { id, .. }) => {
                self.sessions.remove(id);
                Reply::empty(204)
            }
            ("GET", Route::Tags { repository }) => self.tags(repository, &request.path, manners),
            (_, Route::Unknown | Route::Token) => refusal(404, "NOT_FOUND", "there is nothing here"),
            _ => refusal(405, "UNSUPPORTED", "the operation is unsupported"),
        }
    }

    fn manifest(&self, repository: &str, reference: &str) -> Reply {
        let Some(found) = self.repositories.get(repository) else {
            return refusal(404, "NAME_UNKNOWN", "repository name not known to registry");
        };
        let digest = found.tags.get(reference).map_or(reference, String::as_str);
        match found.manifests.get(digest) {
            Some((media_type, bytes)) => {
                Reply::new(200, media_type, bytes.clone()).header("Docker-Content-Digest", digest)
            }
            None => refusal(404, "MANIFEST_UNKNOWN", "manifest unknown"),
        }
    }

    fn put_manifest(&mut self, name: &str, reference: &str, request: &Message, manners: Manners) -> Reply {
        let digest = images::digest(&request.body);
        let Ok(manifest) = serde_json::from_slice::<Value>(&request.body) else {
            return refusal(400, "MANIFEST_INVALID", "manifest invalid");
        };
        if reference.contains(':') && *reference != digest {
            return refusal(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
        }
        let repository = self.repositories.entry(name.to_owned()).or_default();
        let digests = |value: &Value| value["digest"].as_str().unwrap_or_default().to_owned();
        let list = |name: &str| manifest[name].as_array().cloned().unwrap_or_default();
        let blobs = list("layers").into_iter().chain(manifest.get("config").cloned());
        if let Some(missing) = blobs.map(|blob| digests(&blob)).find(|d| !repository.blobs.contains_key(d)) {
            return refusal(404, "MANIFEST_BLOB_UNKNOWN", &format!("blob unknown to registry: {missing}"));
        }
        if manners.refuse_sparse
            && let Some(missing) = list("manifests").iter().map(digests).find(|d| !repository.manifests.contains_key(d))
        {
            return refusal(400, "MANIFEST_BLOB_UNKNOWN", &format!("manifest unknown to registry: {missing}"));
        }
        let media_type = request.header("content-type").unwrap_or_default().to_owned();
        repository.manifests.insert(digest.clone(), (media_type, request.body.clone()));
        if !reference.contains(':') {
            repository.tags.insert(reference.to_owned(), digest.clone());
        }
        Reply::empty(201)
            .header("Location", format!("/v2/{name}/manifests/{digest}"))
            .header("Docker-Content-Digest", digest)
    }

    fn blob(&self, repository: &str, digest: &str, request: &Message, manners: Manners) -> Reply {
        let Some(bytes) = self.repositories.get(repository).and_then(|r| r.blobs.get(digest)) else {
            return refusal(404, "BLOB_UNKNOWN", "blob unknown to registry");
        };
        let range = request.header("range").filter(|_| !manners.no_ranges).and_then(|range| {
            let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
            let from: usize = from.parse().ok()?;
            let to: usize = if to.is_empty() { bytes.len() } else { to.parse::<usize>().ok()? + 1 };
            Some((from, to.min(bytes.len())))
        });
        let reply = match range {
            None => Reply::new(200, "application/octet-stream", bytes.to_vec()),
            Some((from, _)) if from >= bytes.len() => {
                return Reply::empty(416).header("Content-Range", format!("bytes */{}", bytes.len()));
            }
            Some((from, to)) => {
                let (from, to) = if manners.other_range { (0, to - from) } else { (from, to) };
                Reply::new(206, "application/octet-stream", &bytes[from..to])
                    .header("Content-Range", format!("bytes {from}-{}/{}", to - 1, bytes.len()))
            }
        };
        reply.header("Docker-Content-Digest", digest).header("Accept-Ranges", "bytes")
    }

    fn open(&mut self, repository: &str, request: &Message, manners: Manners) -> Reply {
        if let (Some(digest), Some(from)) = (query(&request.path, "mount"), query(&request.path, "from"))
            && !manners.no_mount
            && let Some(blob) = self.repositories.get(&from).and_then(|r| r.blobs.get(&digest)).cloned()
        {
            self.repositories.entry(repository.to_owned()).or_default().blobs.insert(digest.clone(), blob);
            return stored(repository, &digest);
        }
        self.opened += 1;
        let session = Session { repository: repository.to_owned(), bytes: Vec::new(), state: 0 };
        let reply = progress(202, self.opened, &session);
        self.sessions.insert(self.opened, session);
        reply
    }

    /// Keeps what came of a request that broke off.
    pub(super) fn keep(&mut self, id: u64, bytes: &[u8]) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.bytes.extend_from_slice(bytes);
        }
    }

    /// The session, if it is there and the address is the one that was given last.
    fn session(&mut self, repository: &str, id: u64, request: &Message) -> Result<&mut Session, Reply> {
        let session = self.sessions.get_mut(&id).filter(|s| s.repository == repository);
        let session = session.ok_or_else(|| refusal(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry"))?;
        if query(&request.path, "state") != Some(session.state.to_string()) {
            return Err(refusal(400, "BLOB_UPLOAD_INVALID", "this is not the latest address of the upload"));
        }
        Ok(session)
    }

    fn patch(&mut self, repository: &str, id: u64, request: &Message) -> Reply {
        let session = match self.session(repository, id, request) {
            Ok(session) => session,
            Err(reply) => return reply,
        };
        let start = request.header("content-range").and_then(|range| range.split_once('-')?.0.parse::<usize>().ok());
        if start.is_some_and(|start| start != session.bytes.len()) {
            return progress(416, id, session);
        }
        session.bytes.extend_from_slice(&request.body);
        session.state += 1;
        progress(202, id, session)
    }

    fn put(&mut self, repository: &str, id: u64, request: &Message) -> Reply {
        let session = match self.session(repository, id, request) {
            Ok(session) => session,
            Err(reply) => return reply,
        };
        let mut bytes = std::mem::take(&mut session.bytes);
        bytes.extend_from_slice(&request.body);
        self.sessions.remove(&id);
        let digest = images::digest(&bytes);
        if query(&request.path, "digest").as_ref() != Some(&digest) {
            return refusal(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
        }
        self.repositories.entry(repository.to_owned()).or_default().blobs.insert(digest.clone(), Arc::new(bytes));
        stored(repository, &digest)
    }

    fn tags(&self, repository: &str, path: &str, manners: Manners) -> Reply {
        let Some(found) = self.repositories.get(repository) else {
            return refusal(404, "NAME_UNKNOWN", "repository name not known to registry");
        };
        let most = query(path, "n").and_then(|n| n.parse().ok()).filter(|_| !manners.one_page).unwrap_or(usize::MAX);
        let after = query(path, "last").unwrap_or_default();
        let mut rest = found.tags.keys().filter(|tag| **tag > after);
        let page: Vec<&String> = rest.by_ref().take(most).collect();
        let reply = Reply::new(200, "application/json", json!({"name": repository, "tags": page}).to_string());
        match (page.last(), rest.next()) {
            (Some(last), Some(_)) => {
                reply.header("Link", format!("</v2/{repository}/tags/list?n={most}&last={last}>; rel=\"next\""))
            }
            _ => reply,
        }
    }
}

fn stored(repository: &str, digest: &str) -> Reply {
    Reply::empty(201)
        .header("Location", format!("/v2/{repository}/blobs/{digest}"))
        .header("Docker-Content-Digest", digest)
}

/// How far an upload is, and where it goes on.
fn progress(status: u16, id: u64, session: &Session) -> Reply {
    let Session { repository, bytes, state } = session;
    Reply::empty(status)
        .header("Location", format!("/v2/{repository}/blobs/uploads/{id}?state={state}"))
        .header("Range", format!("0-{}", bytes.len().saturating_sub(1)))
        .header("Docker-Upload-UUID", id.to_string())
}

/// An error in the specification's form.
pub(super) fn refusal(status: u16, code: &str, message: &str) -> Reply {
    let body = json!({"errors": [{"code": code, "message": message}]});
    Reply::new(status, "application/json", body.to_string())
}
