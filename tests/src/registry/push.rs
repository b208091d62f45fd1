//! Pushes a sample image over HTTP: every blob by POST and PUT, manifests children first.

use crate::http::Endpoint;
use crate::images::Image;

/// Pushes an image as `NAME:TAG`, or as `NAME` by its digest only.
///
/// # Panics
/// When the registry does not take it.
pub fn push(to: &Endpoint, name: &str, image: &Image) {
    let (repository, tag) = name.split_once(':').map_or((name, None), |(repository, tag)| (repository, Some(tag)));
    for (digest, bytes) in &image.blobs {
        let head = to.send("HEAD", &format!("/v2/{repository}/blobs/{digest}"), &[], &[]).unwrap();
        if head.status == 200 {
            continue;
        }
        let session = to.send("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], &[]).unwrap();
        assert_eq!(session.status, 202, "{}: {}", to.host, String::from_utf8_lossy(&session.body));
        let location = session.header("location").expect("an upload has a location");
        // absolute from docker-registry, a path from others
        let path = location.find("/v2/").map_or(location, |at| &location[at..]);
        let join = if path.contains('?') { '&' } else { '?' };
        let headers = [("Content-Type", "application/octet-stream")];
        let stored = to.send("PUT", &format!("{path}{join}digest={digest}"), &headers, bytes).unwrap();
        assert_eq!(stored.status, 201, "{digest}: {}", String::from_utf8_lossy(&stored.body));
    }
    for (descriptor, bytes) in &image.manifests {
        let root = descriptor.digest == image.root.digest;
        let reference = tag.filter(|_| root).unwrap_or(&descriptor.digest);
        let headers = [("Content-Type", descriptor.media_type.as_str())];
        let stored = to.send("PUT", &format!("/v2/{repository}/manifests/{reference}"), &headers, bytes).unwrap();
        assert_eq!(stored.status, 201, "{name} {reference}: {}", String::from_utf8_lossy(&stored.body));
    }
}
