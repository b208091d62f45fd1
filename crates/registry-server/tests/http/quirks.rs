//! What the conformance suites of the distribution-spec and real clients ask beyond the plain pull and push.

use ferry_image::media_type::{DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use ferry_image::{Algorithm, Descriptor, Digest, Hasher};
use ferry_registry_server::Settings;
use http::StatusCode;
use serde_json::json;

use crate::site::{Image, Site};

fn sha512(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(bytes);
    hasher.finish()
}

#[tokio::test]
async fn several_ranges_come_as_parts() {
    let site = Site::with_store(Settings::default());
    let bytes: Vec<u8> = (0..=255).collect();
    let blob = site.store().put_blob("x", &bytes).expect("put");
    let path = format!("/v2/r/blobs/{}", blob.digest);
    let answer = site.ask(&format!("GET {path}"), &[("range", "bytes=0-3,10-19,-2")], b"").await;
    assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT);
    let boundary = answer.header("content-type").strip_prefix("multipart/byteranges; boundary=").expect("parts");
    let mut expected = Vec::new();
    for (range, part) in [("0-3", &bytes[..4]), ("10-19", &bytes[10..20]), ("254-255", &bytes[254..])] {
        let head = format!(
            "\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {range}/256\r\n\r\n"
        );
        expected.extend([head.as_bytes(), part].concat());
    }
    expected.extend(format!("\r\n--{boundary}--\r\n").as_bytes());
    assert_eq!(answer.body(), expected);
    assert_eq!(
        (answer.header("content-length"), answer.header("content-range")),
        (expected.len().to_string().as_str(), "")
    );
    // of a HEAD no range counts
    let head = site.ask(&format!("HEAD {path}"), &[("range", "bytes=0-3,10-19")], b"").await;
    assert_eq!((head.status, head.header("content-length")), (StatusCode::OK, "256"));
}

#[tokio::test]
async fn who_has_it_already_is_told_so() {
    let site = Site::with_store(Settings::default());
    let image = Image::new("one");
    image.put(site.store(), "r", Some("t"));
    let layer = format!("/v2/r/blobs/{}", Digest::of(&image.layer));
    for path in ["/v2/r/manifests/t", layer.as_str()] {
        let etag = site.get(path).await.header("etag").to_owned();
        for (known, status) in [
            (etag.as_str(), StatusCode::NOT_MODIFIED),
            (&format!("\"x\", W/{etag}"), StatusCode::NOT_MODIFIED),
            ("*", StatusCode::NOT_MODIFIED),
            ("\"x\"", StatusCode::OK),
            ("", StatusCode::OK),
        ] {
            let answer = site.ask(&format!("GET {path}"), &[("if-none-match", known)], b"").await;
            assert_eq!((answer.status, answer.header("etag")), (status, etag.as_str()), "{known}");
            assert_eq!(answer.body().is_empty(), status == StatusCode::NOT_MODIFIED);
        }
    }
    let etag = site.get(&layer).await.header("etag").to_owned();
    for (validator, status) in [(etag.as_str(), StatusCode::PARTIAL_CONTENT), ("\"x\"", StatusCode::OK)] {
        let headers = [("range", "bytes=1-2"), ("if-range", validator)];
        assert_eq!(site.ask(&format!("GET {layer}"), &headers, b"").await.status, status, "{validator}");
    }
}

#[tokio::test]
async fn everything_may_be_named_by_sha512() {
    let site = Site::with_store(Settings::default());
    let (config, layer) = (b"{\"os\":\"linux\"}".as_slice(), b"layer".as_slice());
    let descriptor = |bytes: &[u8]| Descriptor::new("application/x", sha512(bytes), bytes.len() as u64);
    let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(config), "layers": [descriptor(layer)]});
    let manifest = manifest.to_string().into_bytes();
    let digest = sha512(&manifest);
    let put = format!("PUT /v2/r/manifests/{digest}?tag=1.2&tag=latest");
    let oci = [("content-type", OCI_MANIFEST)];
    assert_eq!(site.ask(&put, &oci, &manifest).await.code(), "MANIFEST_BLOB_UNKNOWN");
    // one whole, one in a session
    let one = site.ask(&format!("POST /v2/r/blobs/uploads/?digest={}", sha512(config)), &[], config).await;
    assert_eq!(
        (one.status, one.header("docker-content-digest")),
        (StatusCode::CREATED, sha512(config).to_string().as_str())
    );
    let begun = site.ask("POST /v2/r/blobs/uploads/?digest-algorithm=sha512", &[], b"").await;
    let location = begun.header("location");
    assert_eq!(site.ask(&format!("PATCH {location}"), &[], &layer[..2]).await.status, StatusCode::ACCEPTED);
    let end = site.ask(&format!("PUT {location}?digest={}", sha512(layer)), &[], &layer[2..]).await;
    assert_eq!(end.status, StatusCode::CREATED);
    assert_eq!(site.get(&format!("/v2/r/blobs/{}", sha512(layer))).await.body(), layer);

    let answer = site.ask(&put, &oci, &manifest).await;
    assert_eq!((answer.status, answer.header("oci-tag")), (StatusCode::CREATED, "1.2, latest"));
    assert_eq!(answer.header("location"), format!("/v2/r/manifests/{digest}"));
    for reference in ["1.2", "latest", &digest.to_string()] {
        let answer = site.get(&format!("/v2/r/manifests/{reference}")).await;
        assert_eq!(
            (answer.body(), answer.header("docker-content-digest")),
            (manifest.as_slice(), digest.to_string().as_str())
        );
    }
    // by another digest it was not pushed
    assert_eq!(site.get(&format!("/v2/r/manifests/{}", Digest::of(&manifest))).await.status, StatusCode::NOT_FOUND);
    let wrong = site.ask(&format!("PUT /v2/r/manifests/{}", sha512(b"")), &oci, &manifest).await;
    assert_eq!((wrong.status, wrong.code().as_str()), (StatusCode::BAD_REQUEST, "DIGEST_INVALID"));
}

#[tokio::test]
async fn tags_of_a_push_by_digest_are_all_set_or_none() {
    let site = Site::with_store(Settings::default());
    let image = Image::new("one");
    image.put(site.store(), "r", None);
    let many: Vec<String> = (0..101).map(|n| format!("tag={n}")).collect();
    for (query, status, code) in [
        ("tag=good&tag=.bad".to_owned(), StatusCode::BAD_REQUEST, "TAG_INVALID"),
        (many.join("&"), StatusCode::URI_TOO_LONG, "TAG_INVALID"),
    ] {
        let put = format!("PUT /v2/r/manifests/{}?{query}", image.digest);
        let answer = site.ask(&put, &[("content-type", OCI_MANIFEST)], &image.manifest).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
        assert_eq!(site.get("/v2/r/tags/list").await.json()["tags"], json!([]));
    }
    let put = format!("PUT /v2/r/manifests/{}?{}", image.digest, many[..100].join("&"));
    let answer = site.ask(&put, &[("content-type", OCI_MANIFEST)], &image.manifest).await;
    assert_eq!(answer.header("oci-tag").split(", ").count(), 100);
    assert_eq!(site.get("/v2/r/tags/list").await.json()["tags"].as_array().expect("list").len(), 100);
}

#[tokio::test]
async fn a_manifest_is_what_its_type_says() {
    let site = Site::with_store(Settings::default());
    let image = Image::new("one");
    image.put(site.store(), "r", None);
    let child = json!({"mediaType": OCI_MANIFEST, "digest": image.digest, "size": image.manifest.len()});
    let list =
        |media_type: &str| json!({"schemaVersion": 2, "mediaType": media_type, "manifests": [child]}).to_string();
    let schema2 = String::from_utf8(image.manifest.clone()).expect("text").replacen(OCI_MANIFEST, DOCKER_MANIFEST, 1);
    let schema1 = json!({"schemaVersion": 1, "name": "r", "tag": "t", "fsLayers": []}).to_string();
    let bare = json!({"schemaVersion": 2, "manifests": [child]}).to_string();
    for (announced, bytes, served) in [
        (DOCKER_MANIFEST, schema2, DOCKER_MANIFEST),
        (DOCKER_INDEX, list(DOCKER_INDEX), DOCKER_INDEX),
        (OCI_INDEX, list(OCI_INDEX), OCI_INDEX),
        // parameters are allowed, and a type is not demanded of clients
        (&format!("{OCI_INDEX}; charset=utf-8"), list(OCI_INDEX), OCI_INDEX),
        ("application/json", list(OCI_INDEX), OCI_INDEX),
        ("", bare.clone(), OCI_INDEX),
        (DOCKER_INDEX, bare.clone(), DOCKER_INDEX),
        (OCI_MANIFEST, bare, ""),
        (OCI_MANIFEST, list(OCI_INDEX), ""),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", schema1, ""),
        (OCI_MANIFEST, "[]".to_owned(), ""),
        (OCI_MANIFEST, String::new(), ""),
    ] {
        let answer = site.ask("PUT /v2/r/manifests/t", &[("content-type", announced)], bytes.as_bytes()).await;
        if served.is_empty() {
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
                "{bytes}"
            );
            continue;
        }
        assert_eq!(answer.status, StatusCode::CREATED, "{announced} {bytes}");
        // whatever it accepts, a client gets what there is
        let back = site.ask("GET /v2/r/manifests/t", &[("accept", "text/plain")], b"").await;
        assert_eq!((back.header("content-type"), back.body()), (served, bytes.as_bytes()));
    }
}

#[tokio::test]
async fn a_mirror_says_whom_it_answers_for() {
    let site = Site::with_store(Settings::default());
    for (query, namespace) in [("?ns=quay.io", "quay.io"), ("?ns=here:5000", ""), ("?ns=%0a", ""), ("", "")] {
        let answer = site.get(&format!("/v2/r/manifests/t{query}")).await;
        assert_eq!((answer.status, answer.header("oci-namespace")), (StatusCode::NOT_FOUND, namespace), "{query}");
    }
}

#[tokio::test]
async fn an_upload_goes_on_after_a_restart() {
    let site = Site::with_store(Settings::default());
    let begun = site.ask("POST /v2/r/blobs/uploads/", &[], b"").await;
    let location = begun.header("location");
    assert_eq!(site.ask(&format!("PATCH {location}"), &[], b"hello").await.status, StatusCode::ACCEPTED);
    let again = site.restarted();
    let status = again.get(location).await;
    assert_eq!((status.status, status.header("range")), (StatusCode::NO_CONTENT, "0-4"));
    let late = again.ask(&format!("PATCH {location}"), &[("content-range", "9-14")], b" world").await;
    assert_eq!((late.status, late.header("range")), (StatusCode::RANGE_NOT_SATISFIABLE, "0-4"));
    let put = format!("PUT {location}?digest={}", Digest::of(b"hello world"));
    let late = again.ask(&put, &[("content-range", "9-14")], b" world").await;
    assert_eq!(late.status, StatusCode::RANGE_NOT_SATISFIABLE, "of the last chunk too");
    assert_eq!(again.ask(&put, &[("content-range", "5-10")], b" world").await.status, StatusCode::CREATED);
}
