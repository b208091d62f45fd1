//! Blobs: GET, HEAD, ranges, DELETE.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ferry_content::Error as Content;
use ferry_image::{Descriptor, Digest};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue};
use http::{Response, StatusCode};

use crate::body::{self, Body, Checked};
use crate::range::{Wanted, wanted};
use crate::refusal::Refusal;
use crate::registry::Asked;
use crate::registry::manifests::{DOCKER_CONTENT_DIGEST, empty, etag, set};
use crate::{Backend, Registry};

const OCTETS: &str = "application/octet-stream";

pub(crate) async fn serve(
    registry: &Registry,
    asked: &Asked,
    repository: String,
    digest: Digest,
) -> Result<Response<Body>, Refusal> {
    let name = asked.name(repository);
    let checks = Arc::clone(&registry.checks);
    let look = move |backend: &dyn Backend| {
        let blob = backend.blob(&name, &digest)?;
        match &blob {
            Some(blob) => checks.see(&blob.digest, backend.blobs().version(blob)),
            None => checks.gone(&digest),
        }
        Ok(blob.ok_or(digest))
    };
    let blob = registry.ask(look).await?.map_err(|digest| unknown(&digest))?;
    if asked.is_head() && asked.may_push && registry.store().is_some() {
        // Who asks so may be about to push a manifest, and will not push what is here. Guests must not keep what nobody needs.
        let digest = blob.digest.clone();
        if !registry.change(move |store| store.renew_blob(&digest)).await? {
            return Err(unknown(&blob.digest));
        }
    }

    let etag = etag(&blob.digest);
    if asked.knows(&etag) {
        let mut response = Response::new(body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        describe(response.headers_mut(), &blob, &etag);
        return Ok(response);
    }
    let parts = match wanted(asked.range(&etag), blob.size) {
        Wanted::Unsatisfiable => {
            let message = format!("blob {} has {} bytes", blob.digest, blob.size);
            return Err(Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", message)
                .with(CONTENT_RANGE, format!("bytes */{}", blob.size)));
        }
        // Ranges are a matter of GET alone (RFC 9110, section 14.2).
        Wanted::Part(part) if !asked.is_head() => vec![part],
        Wanted::Parts(parts) if !asked.is_head() => parts,
        _ => Vec::new(),
    };
    let is_whole = parts.iter().all(|part| *part == (0..blob.size));
    if blob.size == 0 {
        // nothing is read of it: a file that was cut would be good for ever
        let hash = registry.checks.begin(&blob);
        let _ = registry.checks.conclude(&hash, &registry.backend.blobs().place(), &blob, 0);
    }
    if !asked.is_head() && !is_whole {
        registry.checks.settle(&registry.backend, &blob).await;
    }
    if registry.checks.is_damaged(&blob.digest) && registry.backend.blobs().turns_elsewhere(&blob) {
        tracing::warn!(digest = %blob.digest, "a blob that is damaged in one bundle is served from another");
        registry.checks.forget(&blob.digest);
    }
    if registry.checks.is_damaged(&blob.digest) {
        // As if it were not there: a client may then push it again, or ask another mirror.
        let message = format!("blob {} is damaged in {}", blob.digest, registry.backend.blobs().place());
        return Err(Refusal::not_found("BLOB_UNKNOWN", message));
    }
    if let [_, _, ..] = parts.as_slice() {
        return Ok(several(registry, blob, &parts));
    }

    let whole = 0..blob.size;
    let part = parts.first().unwrap_or(&whole).clone();
    let mut response = Response::new(body::empty());
    let headers = response.headers_mut();
    describe(headers, &blob, &etag);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(OCTETS));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(part.end - part.start));
    if !parts.is_empty() {
        set(headers, CONTENT_RANGE, &range_of(&part, &blob));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    if !asked.is_head() && !part.is_empty() {
        *response.body_mut() = content(registry, &blob, part, is_whole).await?;
    }
    Ok(response)
}

/// Headers of every answer about a blob.
fn describe(headers: &mut HeaderMap, blob: &Descriptor, etag: &str) {
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    set(headers, DOCKER_CONTENT_DIGEST, &blob.digest.to_string());
    set(headers, ETAG, etag);
}

fn range_of(part: &Range<u64>, blob: &Descriptor) -> String {
    format!("bytes {}-{}/{}", part.start, part.end - 1, blob.size)
}

/// Several parts in one answer (RFC 9110, section 14.6).
fn several(registry: &Registry, blob: Descriptor, parts: &[Range<u64>]) -> Response<Body> {
    // No blob holds its own digest, so that nothing in it looks like the end of a part.
    let boundary = blob.digest.hex().get(..64).unwrap_or_default().to_owned();
    let heads: Vec<String> = parts
        .iter()
        .map(|part| {
            let range = range_of(part, &blob);
            format!("\r\n--{boundary}\r\nContent-Type: {OCTETS}\r\nContent-Range: {range}\r\n\r\n")
        })
        .collect();
    let tail = format!("\r\n--{boundary}--\r\n");
    let texts = heads.iter().map(String::len).sum::<usize>() + tail.len();
    let length = parts.iter().map(|part| part.end - part.start).sum::<u64>() + texts as u64;

    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    describe(response.headers_mut(), &blob, &etag(&blob.digest));
    set(response.headers_mut(), CONTENT_TYPE, &format!("multipart/byteranges; boundary={boundary}"));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    let backend = Arc::clone(&registry.backend);
    // Opened one after the other: a thousand parts are not a thousand open files.
    let parts = stream::iter(heads.into_iter().zip(parts.to_vec())).then(move |(head, part)| {
        let (backend, blob) = (Arc::clone(&backend), blob.clone());
        async move {
            let content = backend.blobs().open(&blob, part).await?;
            Ok::<_, Content>(stream::once(async { Ok(Bytes::from(head)) }).chain(content))
        }
    });
    let tail = stream::once(async { Ok(Bytes::from(tail)) });
    *response.body_mut() = body::streamed(Box::pin(parts.try_flatten().chain(tail)));
    response
}

/// `DELETE …/blobs/<digest>`: the repository forgets the blob; others keep it.
pub(crate) async fn delete(registry: &Registry, repository: String, digest: Digest) -> Result<Response<Body>, Refusal> {
    registry.may_delete("GET, HEAD")?;
    let wanted = digest.clone();
    match registry.change(move |store| store.delete_blob(&repository, &wanted)).await? {
        true => Ok(empty(StatusCode::ACCEPTED)),
        false => Err(unknown(&digest)),
    }
}

async fn content(registry: &Registry, blob: &Descriptor, part: Range<u64>, is_whole: bool) -> Result<Body, Refusal> {
    let (provider, checks) = (registry.backend.blobs(), &registry.checks);
    let is_checked = is_whole && !checks.is_good(&blob.digest);
    // before it is opened: what is put in its place after that is another
    let begin = || is_checked.then(|| checks.begin(blob));
    let mut hash = begin();
    let opened = match provider.open(blob, part.clone()).await {
        Err(error) if provider.turns_elsewhere(blob) => {
            tracing::warn!(%error, "a blob is served from another bundle");
            checks.abandon(blob);
            hash = begin();
            provider.open(blob, part).await
        }
        opened => opened,
    };
    let stream = opened.map_err(|error| match error {
        Content::NotFound { .. } => unknown(&blob.digest),
        Content::SizeMismatch { .. } | Content::DigestMismatch { .. } => {
            tracing::error!(%error, "a damaged blob is not served");
            unknown(&blob.digest)
        }
        error => Refusal::internal(&error),
    })?;
    let Some(hash) = hash else { return Ok(body::streamed(stream)) };
    let checks = Arc::clone(checks);
    Ok(body::checked(stream, Checked { checks, blob: blob.clone(), place: provider.place(), hash }))
}

fn unknown(digest: &Digest) -> Refusal {
    Refusal::not_found("BLOB_UNKNOWN", format!("there is no blob {digest}"))
}
