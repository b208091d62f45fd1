//! Deletion, where the operator allows it: of tags, manifests and blobs, and what the disk gets back.

use std::time::Duration;

use ferry_content::store::Collection;
use ferry_image::Digest;
use ferry_image::media_type::OCI_MANIFEST;
use ferry_registry_server::Settings;
use http::StatusCode;

use crate::site::{Image, Site};

fn site() -> Site {
    Site::with_store(Settings { deletes: true, ..Settings::default() })
}

async fn status(site: &Site, request: &str) -> StatusCode {
    site.ask(request, &[], b"").await.status
}

const NOW: Collection =
    Collection { grace: Duration::ZERO, uploads: Duration::from_secs(3600), untagged: false, dry_run: false };

#[tokio::test]
async fn a_blob_goes_from_the_repository_that_deletes_it() {
    let site = site();
    let image = Image::new("one");
    image.put(site.store(), "r", Some("t"));
    image.put(site.store(), "other", Some("t"));
    let layer = Digest::of(&image.layer);
    let (here, there) = (format!("/v2/r/blobs/{layer}"), format!("/v2/other/blobs/{layer}"));
    assert_eq!(status(&site, &format!("DELETE {here}")).await, StatusCode::ACCEPTED);
    for (request, expected) in [
        (format!("GET {here}"), StatusCode::NOT_FOUND),
        (format!("HEAD {here}"), StatusCode::NOT_FOUND),
        (format!("DELETE {here}"), StatusCode::NOT_FOUND),
        (format!("GET {there}"), StatusCode::OK),
        (format!("DELETE /v2/r/blobs/{}", Digest::of(b"absent")), StatusCode::NOT_FOUND),
        // the manifest that names it is another matter
        ("GET /v2/r/manifests/t".to_owned(), StatusCode::OK),
        // it cannot be mounted from where it was deleted
        (format!("POST /v2/third/blobs/uploads/?mount={layer}&from=r"), StatusCode::ACCEPTED),
        (format!("POST /v2/r/blobs/uploads/?mount={layer}&from=r"), StatusCode::ACCEPTED),
        (format!("GET {here}"), StatusCode::NOT_FOUND),
        (format!("POST /v2/r/blobs/uploads/?mount={layer}&from=other"), StatusCode::CREATED),
        (format!("GET {here}"), StatusCode::OK),
    ] {
        assert_eq!(status(&site, &request).await, expected, "{request}");
    }
    // a push brings it back, and so does a manifest that names it
    assert_eq!(status(&site, &format!("DELETE {here}")).await, StatusCode::ACCEPTED);
    let push = site.ask(&format!("POST /v2/r/blobs/uploads/?digest={layer}"), &[], &image.layer).await;
    assert_eq!((push.status, status(&site, &format!("GET {here}")).await), (StatusCode::CREATED, StatusCode::OK));
    assert_eq!(status(&site, &format!("DELETE {here}")).await, StatusCode::ACCEPTED);
    let put = site.ask("PUT /v2/r/manifests/t", &[("content-type", OCI_MANIFEST)], &image.manifest).await;
    assert_eq!((put.status, status(&site, &format!("GET {here}")).await), (StatusCode::CREATED, StatusCode::OK));
}

#[tokio::test]
async fn what_the_last_repository_deletes_leaves_the_disk() {
    let site = site();
    let image = Image::new("one");
    image.put(site.store(), "r", Some("t"));
    image.put(site.store(), "other", Some("t"));
    let layer = Digest::of(&image.layer);
    let file = site.store().folder().join(layer.blob_path());
    for (repository, stays) in [("r", true), ("other", false)] {
        assert_eq!(status(&site, &format!("DELETE /v2/{repository}/blobs/{layer}")).await, StatusCode::ACCEPTED);
        let collected = site.store().collect(&NOW).expect("collect");
        assert_eq!((file.exists(), collected.removed.len()), (stays, usize::from(!stays)), "{repository}");
    }
    // the note that it was deleted goes too, so that a push by another way is seen
    image.put(site.store(), "r", None);
    assert_eq!(status(&site, &format!("GET /v2/r/blobs/{layer}")).await, StatusCode::OK);

    for request in ["DELETE /v2/r/manifests/t".to_owned(), format!("DELETE /v2/r/manifests/{}", image.digest)] {
        assert_eq!(status(&site, &request).await, StatusCode::ACCEPTED, "{request}");
        assert!(
            site.store().collect(&NOW).expect("collect").removed.is_empty(),
            "by digest, or elsewhere, it is there"
        );
    }
    assert_eq!(status(&site, &format!("DELETE /v2/other/manifests/{}", image.digest)).await, StatusCode::ACCEPTED);
    let collected = site.store().collect(&NOW).expect("collect");
    let all = image.layer.len() + image.config.len() + image.manifest.len();
    assert_eq!((collected.removed.len(), collected.bytes(), collected.kept_bytes), (3, all as u64, 0));
    assert_eq!(status(&site, "GET /v2/r/tags/list").await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_blob_that_a_pusher_asked_about_is_not_collected() {
    let site = site();
    let blob = site.store().put_blob("x", b"old").expect("put");
    let file = site.store().folder().join(blob.digest.blob_path());
    let hour = Collection { grace: Duration::from_secs(3600), ..NOW };
    for request in [
        format!("HEAD /v2/r/blobs/{}", blob.digest),
        format!("POST /v2/r/blobs/uploads/?mount={}", blob.digest),
        format!("POST /v2/r/blobs/uploads/?digest={}", blob.digest),
    ] {
        let old = std::time::SystemTime::now() - Duration::from_secs(7200);
        std::fs::File::open(&file).expect("open").set_modified(old).expect("age");
        assert!(site.ask(&request, &[], b"old").await.status.is_success(), "{request}");
        let collected = site.store().collect(&hour).expect("collect");
        assert_eq!((collected.removed.len(), collected.young), (0, 1), "{request}");
    }
    let old = std::time::SystemTime::now() - Duration::from_secs(7200);
    std::fs::File::open(&file).expect("open").set_modified(old).expect("age");
    assert_eq!(site.store().collect(&hour).expect("collect").removed, [(blob.digest, 3)]);
}

/// With a type of its own choice a manifest could be a page for browsers, and nobody would find what it names.
#[tokio::test]
async fn a_manifest_is_of_a_known_type_and_shown_as_nothing_else() {
    let site = site();
    let image = Image::new("one");
    image.put(site.store(), "r", Some("t"));
    for media_type in ["text/html", "application/vnd.x+json", "application/vnd.oci.image.config.v1+json"] {
        let mut own: serde_json::Value = serde_json::from_slice(&image.manifest).expect("json");
        own["mediaType"] = media_type.into();
        let put =
            site.ask("PUT /v2/r/manifests/own", &[("content-type", media_type)], own.to_string().as_bytes()).await;
        assert_eq!((put.status, put.code().as_str()), (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"), "{media_type}");
    }
    for path in
        ["/v2/r/manifests/t".to_owned(), format!("/v2/r/blobs/{}", Digest::of(&image.layer)), "/v2/x".to_owned()]
    {
        let answer = site.get(&path).await;
        let headers = (answer.header("x-content-type-options"), answer.header("content-security-policy"));
        assert_eq!(headers, ("nosniff", "default-src 'none'; sandbox"), "{path}");
    }
}

/// What was pushed before a long time and is pushed again, or asked about by who will then not push it, is young.
#[tokio::test]
async fn a_manifest_that_a_pusher_asked_about_is_not_collected() {
    let site = site();
    let image = Image::new("one");
    image.put(site.store(), "r", None);
    let path = format!("/v2/r/manifests/{}", image.digest);
    let hour = Collection { grace: Duration::from_secs(3600), untagged: true, ..NOW };
    let record =
        site.store().folder().join("ferry/repositories/r/_manifests").join(image.digest.to_string().replace(':', "-"));
    let age = || {
        let old = std::time::SystemTime::now() - Duration::from_secs(7200);
        std::fs::File::open(&record).expect("open").set_modified(old).expect("age");
    };
    for method in ["HEAD", "PUT"] {
        age();
        let asked = site.ask(&format!("{method} {path}"), &[("content-type", OCI_MANIFEST)], &image.manifest).await;
        assert!(asked.status.is_success(), "{method}");
        assert!(site.store().collect(&hour).expect("collect").untagged.is_empty(), "{method}");
        assert_eq!(site.get(&path).await.status, StatusCode::OK, "{method}");
    }
    age();
    assert_eq!(site.store().collect(&hour).expect("collect").untagged.len(), 1);
}
