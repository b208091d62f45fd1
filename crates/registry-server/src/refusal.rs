//! Answers that say no, in the words of the distribution-spec ("Error Codes").

use std::io::ErrorKind;
use std::time::Duration;

use ferry_content::store;
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::body::{self, Body};
use crate::{Error, RouteError};

/// One error of an answer.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    code: &'static str,
    message: String,
    detail: Option<Box<Value>>,
    headers: Vec<(HeaderName, String)>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), detail: None, headers: Vec::new() }
    }

    pub(crate) fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    pub(crate) fn unsupported(message: impl Into<String>, allowed: &str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message).with(ALLOW, allowed)
    }

    /// Something failed on our side; the client is told no more than that, the log is.
    pub(crate) fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(%error, "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "the registry failed; its log says more")
    }

    pub(crate) fn unauthorized(challenge: String) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "a user name and password are needed")
            .with(WWW_AUTHENTICATE, challenge)
    }

    pub(crate) fn too_many(message: &str, wait: Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", message)
            .with(RETRY_AFTER, (wait.as_secs() + 1).to_string())
    }

    pub(crate) fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn with_detail(mut self, detail: Value) -> Self {
        self.detail = Some(Box::new(detail));
        self
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let mut error = json!({"code": self.code, "message": self.message});
        if let Some(detail) = self.detail {
            error["detail"] = *detail;
        }
        let mut response = Response::new(body::full(json!({"errors": [error]}).to_string()));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::try_from(value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

impl From<RouteError> for Refusal {
    fn from(error: RouteError) -> Self {
        let message = error.to_string();
        let bad = |code| Self::new(StatusCode::BAD_REQUEST, code, message.clone());
        match error {
            RouteError::NotFound => Self::not_found("UNSUPPORTED", message),
            RouteError::Method { allowed } => Self::unsupported(message, &allowed.join(", ")),
            RouteError::Name { .. } => bad("NAME_INVALID"),
            RouteError::Reference { .. } => bad("TAG_INVALID"),
            RouteError::Digest { .. } => bad("DIGEST_INVALID"),
        }
    }
}

impl From<store::Error> for Refusal {
    fn from(error: store::Error) -> Self {
        use ferry_content::Error as Content;
        let message = error.to_string();
        let refuse = |status, code| Self::new(status, code, message.clone());
        match &error {
            store::Error::Name { what: "tag", .. } => refuse(StatusCode::BAD_REQUEST, "TAG_INVALID"),
            store::Error::Name { .. } => refuse(StatusCode::BAD_REQUEST, "NAME_INVALID"),
            store::Error::Digest(_) => refuse(StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            store::Error::ManifestInvalid { .. } => refuse(StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
            store::Error::BlobUnknown { missing, .. } => {
                let digests: Vec<Value> = missing.iter().map(|digest| json!({"digest": digest})).collect();
                refuse(StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN").with_detail(Value::Array(digests))
            }
            store::Error::UploadUnknown { .. } => refuse(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
            store::Error::UploadBusy { .. } => refuse(StatusCode::CONFLICT, "BLOB_UPLOAD_INVALID"),
            store::Error::Locked { .. } => {
                tracing::error!(%error, "a push was turned away");
                refuse(StatusCode::SERVICE_UNAVAILABLE, "UNKNOWN").with(http::header::RETRY_AFTER, "5")
            }
            store::Error::Content(Content::DigestMismatch { .. } | Content::SizeMismatch { .. }) => {
                refuse(StatusCode::BAD_REQUEST, "DIGEST_INVALID")
            }
            store::Error::Content(Content::Io { source, .. })
                if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) =>
            {
                tracing::error!(%error, "a push failed");
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "UNKNOWN", "the registry's disk is full")
            }
            _ => Self::internal(&error),
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::Store(error) => error.into(),
            error => Self::internal(&error),
        }
    }
}
