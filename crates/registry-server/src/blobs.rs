//! Blobs: GET, HEAD, ranges.

use std::sync::Arc;

use ferry_content::Error as Content;
use ferry_image::{Descriptor, Digest};
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderValue, RANGE};
use http::{Response, StatusCode};

use crate::Registry;
use crate::body::{self, Body, Checked};
use crate::manifests::{DOCKER_CONTENT_DIGEST, set};
use crate::range::{Wanted, wanted};
use crate::refusal::Refusal;
use crate::registry::Asked;

pub(crate) async fn serve(
    registry: &Registry,
    asked: &Asked,
    repository: String,
    digest: Digest,
) -> Result<Response<Body>, Refusal> {
    let name = asked.name(repository);
    let found = registry.ask(move |backend| backend.blob(&name, &digest).map(|blob| (blob, digest))).await?;
    let (Some(blob), _) = found else { return Err(unknown(&found.1)) };

    let range = match wanted(asked.header(RANGE.as_str()), blob.size) {
        Wanted::Unsatisfiable => {
            let message = format!("blob {} has {} bytes", blob.digest, blob.size);
            return Err(Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", message)
                .with(CONTENT_RANGE, format!("bytes */{}", blob.size)));
        }
        Wanted::Part(range) if !asked.is_head() => Some(range),
        _ => None,
    };
    let is_whole = range.as_ref().is_none_or(|range| *range == (0..blob.size));
    if !asked.is_head() && !is_whole {
        registry.checks.settle(&registry.backend, &blob).await;
    }
    if registry.checks.is_damaged(&blob.digest) {
        // As if it were not there: a client may then push it again, or ask another mirror.
        let message = format!("blob {} is damaged in {}", blob.digest, registry.backend.blobs().place());
        return Err(Refusal::not_found("BLOB_UNKNOWN", message));
    }

    let part = range.clone().unwrap_or(0..blob.size);
    let mut response = Response::new(body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(part.end - part.start));
    set(headers, DOCKER_CONTENT_DIGEST, &blob.digest.to_string());
    set(headers, ETAG, &format!("\"{}\"", blob.digest));
    if let Some(range) = range {
        set(headers, CONTENT_RANGE, &format!("bytes {}-{}/{}", range.start, range.end - 1, blob.size));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    if !asked.is_head() && !part.is_empty() {
        *response.body_mut() = content(registry, &blob, part, is_whole).await?;
    }
    Ok(response)
}

async fn content(
    registry: &Registry,
    blob: &Descriptor,
    part: std::ops::Range<u64>,
    is_whole: bool,
) -> Result<Body, Refusal> {
    let provider = registry.backend.blobs();
    let stream = provider.open(blob, part).await.map_err(|error| match error {
        Content::NotFound { .. } => unknown(&blob.digest),
        Content::SizeMismatch { .. } | Content::DigestMismatch { .. } => {
            tracing::error!(%error, "a damaged blob is not served");
            unknown(&blob.digest)
        }
        error => Refusal::internal(&error),
    })?;
    if !is_whole || registry.checks.is_good(&blob.digest) {
        return Ok(body::streamed(stream));
    }
    let checks = Arc::clone(&registry.checks);
    Ok(body::checked(stream, Checked { checks, blob: blob.clone(), place: provider.place() }))
}

fn unknown(digest: &Digest) -> Refusal {
    Refusal::not_found("BLOB_UNKNOWN", format!("there is no blob {digest}"))
}
