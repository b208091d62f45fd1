use ferry_image::Digest;
use ferry_image::media_type::{DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use ferry_registry_server::Settings;
use http::StatusCode;
use serde_json::json;

use crate::site::{Answer, Image, Site};

async fn begin(site: &Site) -> String {
    let answer = site.ask("POST /v2/r/blobs/uploads/", &[], b"").await;
    assert_eq!((answer.status, answer.header("range")), (StatusCode::ACCEPTED, "0-0"));
    assert!(!answer.header("docker-upload-uuid").is_empty());
    answer.header("location").to_owned()
}

fn is_refused(answer: &Answer, status: StatusCode, code: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (status, code));
}

async fn has(site: &Site, bytes: &[u8]) -> bool {
    site.ask(&format!("HEAD /v2/r/blobs/{}", Digest::of(bytes)), &[], b"").await.status == StatusCode::OK
}

#[tokio::test]
async fn an_image_is_pushed_in_each_of_the_three_ways() {
    let site = Site::with_store(Settings::default());
    let image = Image::new("one");
    // All in one request.
    let digest = Digest::of(&image.config);
    let answer = site.ask(&format!("POST /v2/r/blobs/uploads/?digest={digest}"), &[], &image.config).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(answer.header("location"), format!("/v2/r/blobs/{digest}"));
    assert_eq!(answer.header("docker-content-digest"), digest.to_string());
    // The manifest must wait.
    let put = "PUT /v2/r/manifests/v1";
    let early = site.ask(put, &[("content-type", OCI_MANIFEST)], &image.manifest).await;
    is_refused(&early, StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(early.json()["errors"][0]["detail"], json!([{"digest": Digest::of(&image.layer)}]));
    // In chunks.
    let location = begin(&site).await;
    let (a, b) = image.layer.split_at(1000);
    let answer = site.ask(&format!("PATCH {location}"), &[("content-range", "0-999")], a).await;
    assert_eq!((answer.status, answer.header("range")), (StatusCode::ACCEPTED, "0-999"));
    let status = site.get(answer.header("location")).await;
    assert_eq!((status.status, status.header("range")), (StatusCode::NO_CONTENT, "0-999"));
    assert!(!has(&site, &image.layer).await);
    let digest = Digest::of(&image.layer);
    let answer = site.ask(&format!("PUT {location}?digest={}", digest.to_string().replace(':', "%3A")), &[], b).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert!(has(&site, &image.layer).await);
    // From another repository.
    let mount = site.ask(&format!("POST /v2/other/blobs/uploads/?mount={digest}&from=r"), &[], b"").await;
    assert_eq!(
        (mount.status, mount.header("location")),
        (StatusCode::CREATED, format!("/v2/other/blobs/{digest}").as_str())
    );
    let absent = Digest::of(b"absent");
    let mount = site.ask(&format!("POST /v2/other/blobs/uploads/?mount={absent}&from=r"), &[], b"").await;
    assert_eq!(mount.status, StatusCode::ACCEPTED);
    assert!(mount.header("location").starts_with("/v2/other/blobs/uploads/"));

    let answer = site.ask(put, &[("content-type", OCI_MANIFEST)], &image.manifest).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(answer.header("location"), format!("/v2/r/manifests/{}", image.digest));
    assert_eq!(site.get("/v2/r/manifests/v1").await.body(), image.manifest);
}

#[tokio::test]
async fn chunks_out_of_order_are_refused_and_spoil_nothing() {
    let site = Site::with_store(Settings::default());
    let location = begin(&site).await;
    let patch = format!("PATCH {location}");
    let answer = site.ask(&patch, &[("content-range", "5-9")], b"world").await;
    is_refused(&answer, StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID");
    assert_eq!((answer.header("range"), answer.header("location")), ("0-0", location.as_str()));
    assert_eq!(site.ask(&patch, &[("content-range", "0-4")], b"hello").await.status, StatusCode::ACCEPTED);
    let again = site.ask(&patch, &[("content-range", "0-4")], b"hello").await;
    is_refused(&again, StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID");
    assert_eq!(again.header("range"), "0-4");
    is_refused(
        &site.ask(&patch, &[("content-range", "5-99")], b"short").await,
        StatusCode::BAD_REQUEST,
        "BLOB_UPLOAD_INVALID",
    );
    is_refused(
        &site.ask(&patch, &[("content-range", "all")], b"x").await,
        StatusCode::BAD_REQUEST,
        "BLOB_UPLOAD_INVALID",
    );
    assert_eq!(site.ask(&patch, &[], b" world").await.status, StatusCode::ACCEPTED);
    let answer = site.ask(&format!("PUT {location}?digest={}", Digest::of(b"hello world")), &[], b"").await;
    assert_eq!(answer.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_wrong_digest_stores_nothing_and_ends_the_session() {
    let site = Site::with_store(Settings::default());
    let right = Digest::of(b"right");
    let answer = site.ask(&format!("POST /v2/r/blobs/uploads/?digest={right}"), &[], b"wrong").await;
    is_refused(&answer, StatusCode::BAD_REQUEST, "DIGEST_INVALID");
    let location = begin(&site).await;
    for digest in ["", "?digest=", "?digest=sha256:12", "?digest=md5:12"] {
        let answer = site.ask(&format!("PUT {location}{digest}"), &[], b"").await;
        is_refused(&answer, StatusCode::BAD_REQUEST, "DIGEST_INVALID");
    }
    let answer = site.ask(&format!("PUT {location}?digest={right}"), &[], b"wrong").await;
    is_refused(&answer, StatusCode::BAD_REQUEST, "DIGEST_INVALID");
    is_refused(&site.get(&location).await, StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN");
    assert!(!has(&site, b"right").await && !has(&site, b"wrong").await);
    let uploads = site.store().folder().join("ferry/uploads");
    assert_eq!(std::fs::read_dir(uploads).expect("list").count(), 0);
}

#[tokio::test]
async fn an_upload_is_cancelled_and_belongs_to_one_repository() {
    let site = Site::with_store(Settings::default());
    let location = begin(&site).await;
    let elsewhere = location.replace("/v2/r/", "/v2/other/");
    is_refused(&site.get(&elsewhere).await, StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(site.ask(&format!("DELETE {location}"), &[], b"").await.status, StatusCode::NO_CONTENT);
    for request in [format!("GET {location}"), format!("PATCH {location}"), format!("DELETE {location}")] {
        is_refused(&site.ask(&request, &[], b"").await, StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN");
    }
    is_refused(&site.get("/v2/r/blobs/uploads/..%2f..%2fx").await, StatusCode::NOT_FOUND, "UNSUPPORTED");
    is_refused(&site.get("/v2/r/blobs/uploads/zz").await, StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn manifests_that_are_none_are_refused() {
    let site = Site::with_store(Settings::default());
    let image = Image::new("one");
    image.put(site.store(), "other", None);
    let put = "PUT /v2/r/manifests/v1";
    for (media_type, bytes) in [
        (OCI_MANIFEST, b"{}".as_slice()),
        (OCI_MANIFEST, b"junk"),
        (DOCKER_MANIFEST, &image.manifest),
        (OCI_INDEX, &image.manifest),
    ] {
        let answer = site.ask(put, &[("content-type", media_type)], bytes).await;
        is_refused(&answer, StatusCode::BAD_REQUEST, "MANIFEST_INVALID");
    }
    let large = vec![b' '; (4 << 20) + 1];
    for headers in [vec![("content-type", OCI_MANIFEST)], vec![("content-length", "nonsense")]] {
        let answer = site.ask(put, &headers, &large).await;
        is_refused(&answer, StatusCode::PAYLOAD_TOO_LARGE, "MANIFEST_INVALID");
    }
    let wrong = format!("PUT /v2/r/manifests/{}", Digest::of(b"other"));
    let answer = site.ask(&wrong, &[("content-type", OCI_MANIFEST)], &image.manifest).await;
    is_refused(&answer, StatusCode::BAD_REQUEST, "DIGEST_INVALID");
    assert_eq!(site.get("/v2/_catalog").await.json()["repositories"], json!(["other"]));
}

#[tokio::test]
async fn deletion_is_a_matter_of_settings() {
    let site = Site::with_store(Settings { deletes: true, ..Settings::default() });
    let image = Image::new("one");
    image.put(site.store(), "r", Some("a"));
    image.put(site.store(), "r", Some("b"));
    assert_eq!(site.ask("DELETE /v2/r/manifests/a", &[], b"").await.status, StatusCode::ACCEPTED);
    is_refused(&site.ask("DELETE /v2/r/manifests/a", &[], b"").await, StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
    assert_eq!(site.get("/v2/r/manifests/b").await.status, StatusCode::OK);
    let by_digest = format!("DELETE /v2/r/manifests/{}", image.digest);
    assert_eq!(site.ask(&by_digest, &[], b"").await.status, StatusCode::ACCEPTED);
    assert_eq!(site.get("/v2/r/manifests/b").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_becomes_of_a_blobs_file_while_it_is_served_is_seen() {
    let site = Site::with_store(Settings::default());
    let image = Image::new("one");
    image.put(site.store(), "r", Some("t"));
    let path = format!("/v2/r/blobs/{}", Digest::of(&image.layer));
    assert_eq!(site.get(&path).await.body(), image.layer);
    let file = site.store().folder().join(Digest::of(&image.layer).blob_path());
    let mut bytes = image.layer.clone();
    bytes[7] ^= 1;
    std::fs::write(&file, &bytes).expect("damage");
    assert_eq!(site.get(&path).await.body, None, "it was good, and is not any more");
    assert_eq!(site.get(&path).await.status, StatusCode::NOT_FOUND);
    // that somebody says it is needed mends nothing
    site.store().renew_blob(&Digest::of(&image.layer)).expect("renew");
    assert_eq!(site.ask(&format!("HEAD {path}"), &[], b"").await.status, StatusCode::NOT_FOUND);
    let metric = "ferry_blobs_damaged 1";
    let metrics = site.get("/metrics").await;
    assert!(String::from_utf8_lossy(metrics.body()).contains(metric), "{}", String::from_utf8_lossy(metrics.body()));
    // another process puts another file in its place
    let whole = file.with_extension("new");
    std::fs::write(&whole, &image.layer).expect("mend");
    std::fs::rename(&whole, &file).expect("rename");
    assert!(!String::from_utf8_lossy(site.get("/metrics").await.body()).contains(metric));
    assert_eq!(site.get(&path).await.body(), image.layer);
    // once more, and this time it is removed before: a new file may have the number of the old one
    for _ in 0..5 {
        std::fs::write(&file, &bytes).expect("damage");
        assert_eq!(site.get(&path).await.body, None);
        std::fs::remove_file(&file).expect("remove");
        std::fs::write(&file, &image.layer).expect("mend");
        assert_eq!(site.get(&path).await.body(), image.layer);
    }
    // cut to nothing, there is nothing that could be read and found wrong
    std::fs::write(&file, b"").expect("cut");
    assert_eq!(site.get(&path).await.status, StatusCode::NOT_FOUND);
    assert!(String::from_utf8_lossy(site.get("/metrics").await.body()).contains(metric));
}

#[tokio::test]
async fn a_damaged_blob_can_be_pushed_again() {
    let site = Site::with_store(Settings::default());
    let blob = site.store().put_blob("x", b"precious").expect("put");
    let file = site.store().folder().join(blob.digest.blob_path());
    std::fs::write(&file, b"PRECIOUS").expect("damage");
    let path = format!("/v2/r/blobs/{}", blob.digest);
    assert_eq!(site.get(&path).await.body, None, "the transfer breaks");
    is_refused(&site.get(&path).await, StatusCode::NOT_FOUND, "BLOB_UNKNOWN");
    let mount = format!("POST /v2/r/blobs/uploads/?mount={}", blob.digest);
    assert_eq!(site.ask(&mount, &[], b"").await.status, StatusCode::ACCEPTED, "no mount of what is damaged");
    let push = format!("POST /v2/r/blobs/uploads/?digest={}", blob.digest);
    assert_eq!(site.ask(&push, &[], b"precious").await.status, StatusCode::CREATED);
    assert_eq!(site.get(&path).await.body(), b"precious");
}
