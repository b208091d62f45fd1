//! Manifests: GET, HEAD, PUT, DELETE.

use ferry_content::Error as Content;
use ferry_content::store::{self, ManifestRef};
use ferry_image::manifest::MAX_MANIFEST;
use ferry_image::{Digest, Manifest};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, LOCATION};
use http::{Response, StatusCode};

use crate::body::{self, Body, Incoming};
use crate::refusal::Refusal;
use crate::registry::Asked;
use crate::{Error, Registry};

pub(crate) const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");
/// Tags that one push by digest may set.
const MAX_TAGS: usize = 100;
const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

pub(crate) async fn serve(
    registry: &Registry,
    asked: &Asked,
    repository: String,
    reference: ManifestRef,
) -> Result<Response<Body>, Refusal> {
    let name = asked.name(repository.clone());
    let wanted = reference.clone();
    let found = match registry.ask(move |backend| backend.manifest(&name, &wanted)).await {
        Err(Error::Store(store::Error::Content(error @ Content::DigestMismatch { .. }))) => {
            // As if it were not there: a client may then push it again, or ask another mirror.
            tracing::error!(%error, "a damaged manifest is not served");
            None
        }
        found => found?,
    };
    let record = found.ok_or_else(|| {
        let what = format!("`{repository}` has no manifest `{reference}`");
        Refusal::not_found("MANIFEST_UNKNOWN", what)
    })?;
    if asked.is_head() && asked.may_push && registry.store().is_some() {
        // Who asks so may be about to push an index of it, and will not push what is here. As a mirror we are never pushed to.
        let (name, digest) = (repository.clone(), record.digest.clone());
        let _ = registry.change(move |store| store.renew_manifest(&name, &digest)).await?;
    }
    let etag = etag(&record.digest);
    let mut response = Response::new(body::empty());
    let headers = response.headers_mut();
    set(headers, DOCKER_CONTENT_DIGEST, &record.digest.to_string());
    set(headers, ETAG, &etag);
    if asked.knows(&etag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    set(headers, CONTENT_TYPE, &record.media_type);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(record.bytes.len()));
    if !asked.is_head() {
        *response.body_mut() = body::full(record.bytes);
    }
    Ok(response)
}

pub(crate) async fn put(
    registry: &Registry,
    asked: &Asked,
    repository: String,
    reference: ManifestRef,
    body: &mut Incoming,
) -> Result<Response<Body>, Refusal> {
    registry.writable()?;
    let too_large = || {
        let message = format!("a manifest has at most {MAX_MANIFEST} bytes");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "MANIFEST_INVALID", message)
    };
    let announced: Option<u64> = asked.header(CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok());
    if announced.is_some_and(|length| length > MAX_MANIFEST) {
        return Err(too_large());
    }
    let bytes = body::collected(body, MAX_MANIFEST).await?.ok_or_else(too_large)?;
    let media_type = asked.header(CONTENT_TYPE.as_str()).unwrap_or_default().to_owned();
    let subject = subject(&bytes);

    let name = repository.clone();
    let tags = tags(asked, &reference)?;
    let accepted = tags.join(", ");
    let digest = registry
        .change(move |store| match &reference {
            ManifestRef::Tag(tag) => store.put_manifest(&name, Some(tag), &media_type, &bytes),
            ManifestRef::Digest(digest) => {
                store.put_manifest_as(&name, digest, &tags, &media_type, &bytes).map(|()| digest.clone())
            }
        })
        .await?;
    let mut response = created(&format!("/v2/{repository}/manifests/{digest}"), &digest);
    if let Some(subject) = subject {
        set(response.headers_mut(), OCI_SUBJECT, &subject.to_string());
    }
    if !accepted.is_empty() {
        set(response.headers_mut(), OCI_TAG, &accepted);
    }
    Ok(response)
}

pub(crate) async fn delete(
    registry: &Registry,
    repository: String,
    reference: ManifestRef,
) -> Result<Response<Body>, Refusal> {
    registry.may_delete("GET, HEAD, PUT")?;
    let what = format!("`{repository}` has no manifest `{reference}`");
    if !registry.change(move |store| store.delete_manifest(&repository, &reference)).await? {
        return Err(Refusal::not_found("MANIFEST_UNKNOWN", what));
    }
    Ok(empty(StatusCode::ACCEPTED))
}

/// The tags that a push by digest sets in the same request: `?tag=1.2&tag=1`.
fn tags(asked: &Asked, reference: &ManifestRef) -> Result<Vec<String>, Refusal> {
    let tags: Vec<String> = match reference {
        ManifestRef::Tag(_) => Vec::new(),
        ManifestRef::Digest(_) => asked.query.values("tag").map(str::to_owned).collect(),
    };
    match tags.len() {
        0..=MAX_TAGS => Ok(tags),
        many => {
            let message = format!("{many} tags in one request; {MAX_TAGS} are the most");
            Err(Refusal::new(StatusCode::URI_TOO_LONG, "TAG_INVALID", message))
        }
    }
}

fn subject(bytes: &[u8]) -> Option<Digest> {
    let subject = match Manifest::parse(bytes, None).ok()? {
        Manifest::Image(image) => image.subject,
        Manifest::Index(index) => index.subject,
    };
    subject.map(|subject| subject.digest)
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = status;
    if status != StatusCode::NO_CONTENT {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(0));
    }
    response
}

/// 201, with where it is now.
pub(crate) fn created(location: &str, digest: &Digest) -> Response<Body> {
    let mut response = empty(StatusCode::CREATED);
    set(response.headers_mut(), LOCATION, location);
    set(response.headers_mut(), DOCKER_CONTENT_DIGEST, &digest.to_string());
    response
}

/// What is named by its digest never changes: the digest is the validator.
pub(crate) fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

pub(crate) fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
