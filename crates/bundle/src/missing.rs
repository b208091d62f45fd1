//! Why a tag is not there: asked of the registry only when it is known not to be.

use std::time::Duration;

use ferry_image::Reference;
use ferry_registry_client::{Client, Error as Refused, What};

use crate::Error;
use crate::near::near;

/// The most tags that are looked through.
const MOST_TAGS: usize = 20_000;
/// The longest that anybody waits to be told what he may have meant.
const LONGEST: Duration = Duration::from_secs(15);

/// `error`, or what can be said better: that the repository is not there at all, or which tags are near.
pub(crate) async fn explain(client: &Client, source: &Reference, error: Error) -> Error {
    let Some(tag) = missing_tag(&error).map(ToOwned::to_owned) else { return error };
    // what moved as a whole has a hint of its own
    if source.repository().starts_with("docker.io/bitnami/") {
        return error;
    }
    let Ok(repository) = client.repository(source.host(), source.path()) else { return error };
    let place = repository.to_string();
    match tokio::time::timeout(LONGEST, repository.tags(MOST_TAGS)).await {
        // a tag that is listed and cannot be had is another matter
        Ok(Ok(tags)) if !tags.contains(&tag) => {
            let near = near(&tag, tags.iter().map(String::as_str)).into_iter().map(ToOwned::to_owned).collect();
            Error::NoTag { place, tag, near, source: Box::new(error), tags }
        }
        Ok(Err(Refused::Status(status))) if status.status == 404 && status.code == "NAME_UNKNOWN" => {
            Error::NoRepository { place }
        }
        _ => error,
    }
}

/// The tag that a registry says it has not.
pub(crate) fn missing_tag(error: &Error) -> Option<&str> {
    match error {
        Error::Client(Refused::Status(status)) if matches!(status.status, 404 | 410) => match &status.what {
            What::Manifest(name) if !name.contains(':') => Some(name),
            _ => None,
        },
        Error::NoTag { tag, .. } => Some(tag),
        _ => None,
    }
}
