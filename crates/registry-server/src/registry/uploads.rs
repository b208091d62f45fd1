//! Pushing blobs: one request, or POST, PATCH…, PUT (distribution-spec, "Pushing Blobs").

use ferry_content::store::{Error as StoreError, Store, Upload};
use ferry_image::Digest;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderName, LOCATION, RANGE};
use http::{Response, StatusCode};
use tokio::task::JoinHandle;

use crate::Registry;
use crate::body::{self, Body, Incoming};
use crate::range::chunk;
use crate::refusal::Refusal;
use crate::registry::gathered::Batch;
use crate::registry::manifests::{created, empty, set};
use crate::registry::turns::Turn;
use crate::registry::{Asked, blocking};

const DOCKER_UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// `POST …/blobs/uploads/`: a mount, a whole blob (`?digest=`), or a new session.
pub(crate) async fn begin(
    registry: &Registry,
    asked: &Asked,
    repository: String,
    body: &mut Incoming,
) -> Result<Response<Body>, Refusal> {
    registry.writable()?;
    if let Some(mount) = asked.query.value("mount") {
        // Blobs are seen by every repository that has not deleted them, so no `from` is needed. A mount that fails is a session, not an
        // error.
        let digest = parse(mount)?;
        let (name, wanted) = (repository.clone(), digest.clone());
        let from = asked.query.value("from").filter(|from| !from.is_empty()).map(str::to_owned);
        let mount = move |store: &Store| store.mount_blob(&name, &wanted, from.as_deref());
        if !registry.checks.is_damaged(&digest) && registry.change(mount).await? {
            return Ok(created(&blob_location(&repository, &digest), &digest));
        }
    }
    let digest = asked.query.value("digest").map(parse).transpose()?;
    let name = repository.clone();
    let upload = registry.change(move |store| store.start_upload(&name)).await?;
    let Some(digest) = digest else { return Ok(progress(StatusCode::ACCEPTED, &repository, upload.id(), 0)) };
    let id = upload.id().to_owned();
    match receive(registry, upload, body, &registry.turns.begin(&id)).await {
        Ok(upload) => complete(registry, &repository, upload, digest).await,
        Err(refusal) => {
            // Nobody was told the name of this session.
            let _ = cancel(registry, repository, id).await;
            Err(refusal)
        }
    }
}

/// `PATCH …/blobs/uploads/<id>`: the next bytes.
pub(crate) async fn patch(
    registry: &Registry,
    asked: &Asked,
    repository: String,
    id: String,
    body: &mut Incoming,
) -> Result<Response<Body>, Refusal> {
    let turn = registry.turns.begin(&id);
    let upload = resume(registry, asked, &repository, &id).await?;
    let upload = receive(registry, upload, body, &turn).await?;
    Ok(progress(StatusCode::ACCEPTED, &repository, &id, upload.offset()))
}

/// `PUT …/blobs/uploads/<id>?digest=`: the last bytes, if any, and the digest of all.
pub(crate) async fn finish(
    registry: &Registry,
    asked: &Asked,
    repository: String,
    id: String,
    body: &mut Incoming,
) -> Result<Response<Body>, Refusal> {
    registry.writable()?;
    let digest = asked.query.value("digest").ok_or_else(|| {
        Refusal::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "the query has no `digest` of the blob")
    })?;
    let digest = parse(digest)?;
    let turn = registry.turns.begin(&id);
    let upload = resume(registry, asked, &repository, &id).await?;
    let upload = receive(registry, upload, body, &turn).await?;
    complete(registry, &repository, upload, digest).await
}

/// `GET …/blobs/uploads/<id>`: how far it is.
pub(crate) async fn status(registry: &Registry, repository: String, id: String) -> Result<Response<Body>, Refusal> {
    let (name, session) = (repository.clone(), id.clone());
    let offset = registry.change(move |store| store.upload_offset(&name, &session)).await?;
    Ok(progress(StatusCode::NO_CONTENT, &repository, &id, offset))
}

/// `DELETE …/blobs/uploads/<id>`.
pub(crate) async fn cancel(registry: &Registry, repository: String, id: String) -> Result<Response<Body>, Refusal> {
    let _turn = registry.turns.begin(&id);
    registry.change(move |store| store.resume_upload(&repository, &id)?.cancel()).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Takes a session up again, if the chunk that comes is the next one.
async fn resume(registry: &Registry, asked: &Asked, repository: &str, id: &str) -> Result<Upload, Refusal> {
    let (name, session) = (repository.to_owned(), id.to_owned());
    let upload = registry.change(move |store| store.resume_upload(&name, &session)).await?;
    let Some(header) = asked.header(CONTENT_RANGE.as_str()) else { return Ok(upload) };
    let length: Option<u64> = asked.header(CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok());
    let refuse = |status, message: String| {
        Err(Refusal::new(status, "BLOB_UPLOAD_INVALID", message)
            .with(LOCATION, upload_location(repository, id))
            .with(RANGE, range_of(upload.offset()))
            .with(DOCKER_UPLOAD_UUID, id))
    };
    match chunk(header) {
        None if length == Some(0) => Ok(upload), // the closing PUT of some clients says `0--1`
        None => refuse(StatusCode::BAD_REQUEST, format!("`{header}` is not a range of a chunk")),
        Some(range) if range.start != upload.offset() => {
            let message = format!("the next byte is number {}, the chunk begins at {}", upload.offset(), range.start);
            refuse(StatusCode::RANGE_NOT_SATISFIABLE, message)
        }
        Some(range) if length.is_some_and(|length| length != range.end - range.start) => {
            refuse(StatusCode::BAD_REQUEST, format!("the chunk `{header}` has another length than the request"))
        }
        Some(_) => Ok(upload),
    }
}

/// Takes the whole body: while one batch is hashed and written, the next arrives. What came before an error stays in the session.
async fn receive(registry: &Registry, upload: Upload, body: &mut Incoming, turn: &Turn) -> Result<Upload, Refusal> {
    let mut writing: JoinHandle<Result<Upload, StoreError>> = tokio::spawn(async { Ok(upload) });
    loop {
        let (mut batch, mut has_room, mut end) = (Batch::default(), true, None);
        while has_room && end.is_none() {
            let next = tokio::select! {
                biased;
                () = turn.over() => Err(taken_over()),
                () = batch.due() => break,
                next = body::next(body) => next,
            };
            match next {
                Ok(Some(data)) => has_room = batch.push(data, &registry.gathered),
                Ok(None) => end = Some(Ok(())),
                Err(refusal) => end = Some(Err(refusal)),
            }
        }
        writing = append(settled(writing).await?, batch);
        if let Some(end) = end {
            let upload = settled(writing).await?;
            return end.map(|()| upload);
        }
    }
}

fn taken_over() -> Refusal {
    Refusal::new(StatusCode::CONFLICT, "BLOB_UPLOAD_INVALID", "another request goes on with this upload")
}

fn append(mut upload: Upload, mut batch: Batch) -> JoinHandle<Result<Upload, StoreError>> {
    tokio::task::spawn_blocking(move || {
        let appended = upload.append(batch.chunks());
        drop(batch);
        appended.map(|()| upload)
    })
}

async fn settled(writing: JoinHandle<Result<Upload, StoreError>>) -> Result<Upload, Refusal> {
    match writing.await {
        Ok(result) => Ok(result?),
        Err(join) => Err(Refusal::internal(&join)),
    }
}

async fn complete(
    registry: &Registry,
    repository: &str,
    upload: Upload,
    digest: Digest,
) -> Result<Response<Body>, Refusal> {
    let wanted = digest.clone();
    blocking(move || upload.finish(&wanted)).await??;
    registry.checks.forget(&digest);
    Ok(created(&blob_location(repository, &digest), &digest))
}

fn parse(digest: &str) -> Result<Digest, Refusal> {
    digest
        .parse()
        .map_err(|e: ferry_image::Error| Refusal::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", e.to_string()))
}

fn progress(status: StatusCode, repository: &str, id: &str, offset: u64) -> Response<Body> {
    let mut response = empty(status);
    let headers = response.headers_mut();
    set(headers, LOCATION, &upload_location(repository, id));
    set(headers, RANGE, &range_of(offset));
    set(headers, DOCKER_UPLOAD_UUID, id);
    response
}

/// Both ends are included; nothing yet is `0-0`, as docker-registry says it.
fn range_of(offset: u64) -> String {
    format!("0-{}", offset.saturating_sub(1))
}

/// Without scheme and host, which a proxy before us may have changed.
fn upload_location(repository: &str, id: &str) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}")
}

fn blob_location(repository: &str, digest: &Digest) -> String {
    format!("/v2/{repository}/blobs/{digest}")
}
