//! What people and their monitoring see: the page, metrics, health, the access log.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ferry_content::memory::Memory;
use ferry_content::store::Store;
use ferry_image::media_type::{OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST};
use ferry_image::{Descriptor, Digest};
use ferry_registry_server::catalog::Entry;
use ferry_registry_server::page::{About, AboutBundle, AboutImage};
use ferry_registry_server::{Access, AccessLog, Catalog, Settings, Users};
use http::{Request, StatusCode};
use http_body_util::Empty;
use serde_json::json;

use crate::site::{Image, Site};

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("lock").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn settings(&self) -> Settings {
        Settings { access_log: Some(AccessLog::to(self.clone())), ..Settings::default() }
    }

    /// The lines, when what writes them has been dropped, without what differs from run to run.
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().expect("lock").clone()).expect("text");
        let plain = |line: &str| {
            let (before, rest) = line.split_once(" [").expect("a time");
            let (_, rest) = rest.split_once("] ").expect("its end");
            let (rest, took) = rest.split_once(" ms=").expect("how long it took");
            let broken = took.split_once(' ').map_or("", |(_, broken)| broken);
            format!("{before} {rest} {broken}").trim_end().to_owned()
        };
        text.lines().map(plain).collect()
    }
}

/// An index of two platforms, put under a tag; the digests of the index and of its children.
fn put_index(store: &Store, repository: &str, tag: &str) -> (Digest, [Digest; 2]) {
    let children = ["amd64", "arm64"].map(|architecture| {
        let image = Image::new(architecture);
        image.put(store, repository, None);
        (architecture, Descriptor::of(OCI_MANIFEST, &image.manifest), image.digest)
    });
    let entries: Vec<_> = children
        .iter()
        .map(|(architecture, d, _)| {
            json!({"mediaType": d.media_type, "digest": d.digest, "size": d.size,
                "platform": {"os": "linux", "architecture": architecture}})
        })
        .collect();
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).to_string();
    let digest = store.put_manifest(repository, Some(tag), OCI_INDEX, index.as_bytes()).expect("index");
    (digest, children.map(|(_, _, digest)| digest))
}

/// The visible words of a page, one space between them.
fn words(page: &str) -> String {
    let body = page.split_once("</style>").expect("a style").1.split_once("<script>").expect("a script").0;
    let mut text = String::new();
    for part in body.split('<') {
        text.push(' ');
        text.push_str(part.split_once('>').map_or("", |(_, text)| text));
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn a_store_shows_its_images_with_platforms_and_commands() {
    let site = Site::with_store(Settings::default());
    let empty = site.get("/").await;
    assert!(words(std::str::from_utf8(empty.body()).expect("text")).contains("nothing was pushed"));

    let config = br#"{"os":"linux","architecture":"arm","variant":"v7","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let image = Image { config: config.to_vec(), ..Image::new("one") };
    let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": Descriptor::of(OCI_CONFIG, config),
        "layers": [Descriptor::of(OCI_LAYER_GZIP, &image.layer)]});
    let manifest = manifest.to_string().into_bytes();
    let image = Image { digest: Digest::of(&manifest), manifest, ..image };
    image.put(site.store(), "team/one", Some("1.0"));
    image.put(site.store(), "team/one", Some("latest"));
    let (index, [amd64, arm64]) = put_index(site.store(), "team/two", "v2");
    let chart_config = site.store().put_blob("application/vnd.cncf.helm.config.v1+json", b"{}").expect("config");
    let chart =
        json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": chart_config, "layers": []}).to_string();
    site.store().put_manifest("charts/web", Some("1.2.3_4"), OCI_MANIFEST, chart.as_bytes()).expect("chart");
    let signature = format!("sha256-{}.sig", index.hex());
    image.put(site.store(), "team/two", Some(&signature));

    let page = site.get("/").await;
    let text = words(std::str::from_utf8(page.body()).expect("text"));
    for expected in [
        "3 images takes pushes http://here:5000",
        "charts/web 1.2.3_4 Helm chart",
        "helm pull oci://here:5000/charts/web --version 1.2.3+4 --plain-http",
        "team/one 1.0 latest linux/arm/v7",
        "docker pull here:5000/team/one:1.0",
        "ctr -n k8s.io images pull --plain-http here:5000/team/one:1.0",
        "podman pull --tls-verify=false here:5000/team/one:1.0",
        &image.digest.to_string(),
        "team/two v2 linux/amd64, linux/arm64 signature",
        &index.to_string(),
        &amd64.to_string(),
        &arm64.to_string(),
    ] {
        assert!(text.contains(expected), "`{expected}` is not in {text}");
    }
    assert!(!text.contains(&signature), "a signature is not an image");
}

#[tokio::test]
async fn the_page_allows_nothing_from_elsewhere_and_answers_get_only() {
    let site = Site::with_store(Settings::default());
    let page = site.get("/").await;
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let text = std::str::from_utf8(page.body()).expect("text");
    let outside = ["http://", "https://", "//", "url(", "@import"].map(|start| text.matches(start).count());
    // where the page itself stands, and the name space of the icon
    assert_eq!(outside, [2, 0, 2, 0, 0]);
    let head = site.ask("HEAD /", &[], b"").await;
    assert_eq!((head.status, head.body()), (StatusCode::OK, b"".as_slice()));
    assert_eq!(head.header("content-length"), page.body().len().to_string());
    for path in ["/", "/metrics", "/healthz"] {
        let refused = site.ask(&format!("POST {path}"), &[], b"").await;
        assert_eq!((refused.status, refused.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD"), "{path}");
    }
    assert_eq!(site.get("/index.html").await.status, StatusCode::NOT_FOUND);
    // a name that is none is not repeated
    let forged = site.ask("GET /", &[("host", "<b>")], b"").await;
    assert!(!String::from_utf8_lossy(forged.body()).contains("<b>&lt;"));
}

#[tokio::test]
async fn a_bundle_shows_what_it_carries_and_the_original_names() {
    let (tagged, pinned) = (Image::new("tagged"), Image::new("pinned"));
    let mut memory = Memory::default();
    for image in [&tagged, &pinned] {
        memory.insert(image.layer.clone());
        memory.insert(image.config.clone());
    }
    let mut catalog = Catalog::new();
    let source = catalog.add_source(Arc::new(memory));
    let known = |image: &Image, repository: &str, tag: Option<&str>, original: &str| AboutImage {
        repository: repository.to_owned(),
        tag: tag.map(str::to_owned),
        digest: image.digest.clone(),
        original: original.to_owned(),
        platforms: vec![("linux/s390x".to_owned(), image.digest.clone())],
    };
    let pin = format!("quay.io/p/pin@{}", pinned.digest);
    let images = vec![known(&tagged, "lib/web", Some("1"), "docker.io/lib/web:1"), known(&pinned, "p/pin", None, &pin)];
    for (image, known) in [&tagged, &pinned].into_iter().zip(&images) {
        let entry = Entry {
            repository: known.repository.clone(),
            tag: known.tag.clone(),
            origin: Some(known.original.parse().expect("reference")),
            media_type: OCI_MANIFEST.to_owned(),
            bytes: image.manifest.clone().into(),
        };
        catalog.add(source, entry).expect("add");
    }
    let bundle = AboutBundle {
        name: "<shop>".to_owned(),
        version: Some("2.1".to_owned()),
        signed: "signed by release (38291067FB5BFB9F)".to_owned(),
        file: "shop.tar".to_owned(),
        size: 5 << 30,
        platforms: vec!["linux/s390x".to_owned()],
        files: vec![("yaml/app.yaml".to_owned(), 1234)],
        absent: vec!["quay.io/gone:1".to_owned()],
    };
    let about = About { bundles: vec![bundle], images };
    let site = Site::over(catalog, Settings { about, ..Settings::default() });
    let page = site.ask("GET /", &[("x-forwarded-proto", "https")], b"").await;
    let text = words(std::str::from_utf8(page.body()).expect("text"));
    for expected in [
        "&lt;shop&gt; 2.1",
        "2 images read-only https://here:5000",
        "Signature signed by release (38291067FB5BFB9F) File shop.tar Platforms linux/s390x",
        "yaml/app.yaml 1.2 kB",
        "Not carried quay.io/gone:1",
        "lib/web 1 linux/s390x",
        "Original name docker.io/lib/web:1",
        "ctr -n k8s.io images pull here:5000/lib/web:1",
        &format!("docker pull here:5000/p/pin@{}", pinned.digest),
        &format!("Original name {pin}"),
    ] {
        assert!(text.contains(expected), "`{expected}` is not in {text}");
    }
}

#[tokio::test]
async fn a_manifest_that_is_damaged_or_pushed_later_is_shown_as_it_is_then() {
    let site = Site::with_store(Settings::default());
    let image = Image::new("one");
    image.put(site.store(), "r", Some("t"));
    let file = site.store().folder().join(image.digest.blob_path());
    std::fs::write(&file, b"rot").expect("damage");
    let shown = |text: &[u8]| words(std::str::from_utf8(text).expect("text"));
    assert!(shown(site.get("/").await.body()).contains("r t cannot be read"));
    std::fs::write(&file, &image.manifest).expect("mend");
    assert!(shown(site.get("/").await.body()).contains("r t unknown platform"));
}

#[tokio::test]
async fn an_image_with_a_damaged_blob_has_a_mark_until_it_is_mended() {
    let site = Site::with_store(Settings::default());
    for (name, repository) in [("one", "whole"), ("two", "hurt")] {
        let image = Image::new(name);
        image.put(site.store(), repository, Some("t"));
    }
    let hurt = Image::new("two");
    let layer = Digest::of(&hurt.layer);
    let file = site.store().folder().join(layer.blob_path());
    let mut bytes = hurt.layer.clone();
    bytes[0] ^= 1;
    std::fs::write(&file, bytes).expect("damage");
    let shown = async || words(std::str::from_utf8(site.get("/").await.body()).expect("text"));
    assert!(!shown().await.contains("damaged"), "nobody has read it yet");
    assert_eq!(site.get(&format!("/v2/hurt/blobs/{layer}")).await.body, None);
    let text = shown().await;
    assert!(text.contains("2 images takes pushes 1 damaged"), "{text}");
    let (before, after) = text.split_once("whole t").expect("the whole one");
    assert!(before.contains("hurt t") && before.contains("ferry install BUNDLE.tar --recheck"), "{before}");
    assert!(!after.contains("damaged"), "{after}");
    let push = format!("POST /v2/hurt/blobs/uploads/?digest={layer}");
    assert_eq!(site.ask(&push, &[], &hurt.layer).await.status, StatusCode::CREATED);
    assert!(!shown().await.contains("damaged"));
}

/// A store of many images, by the files that `put_manifest` would write with a sync each.
fn fill(store: &Store, count: usize) {
    let mut entries = Vec::new();
    for n in 0..count {
        let config = format!(r#"{{"os":"linux","architecture":"amd64","n":{n}}}"#).into_bytes();
        let layer = Descriptor::new(OCI_LAYER_GZIP, Digest::of(&n.to_le_bytes()), 1000 + n as u64);
        let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": Descriptor::of(OCI_CONFIG, &config),
            "layers": [layer]});
        let manifest = manifest.to_string().into_bytes();
        for bytes in [&config, &manifest] {
            std::fs::write(store.folder().join(Digest::of(bytes).blob_path()), bytes).expect("blob");
        }
        let d = Descriptor::of(OCI_MANIFEST, &manifest);
        entries.push(json!({"mediaType": d.media_type, "digest": d.digest, "size": d.size,
            "annotations": {"org.opencontainers.image.ref.name": format!("registry.example/some/team/service-{n}:1.{n}")}}));
    }
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries});
    std::fs::write(store.folder().join("index.json"), index.to_string()).expect("index");
}

#[tokio::test]
async fn a_thousand_images_are_a_page_that_comes_at_once() {
    let site = Site::with_store(Settings::default());
    fill(site.store(), 1000);
    let first = site.get("/").await;
    let text = String::from_utf8(first.body().to_vec()).expect("text");
    assert_eq!(text.matches("<li><details>").count(), 1000);
    assert_eq!(text.matches("linux/amd64").count(), 1000);
    assert!(text.len() < 2_000_000, "{} bytes", text.len());
    let took = (0..5)
        .map(|_| async {
            let start = Instant::now();
            assert_eq!(site.get("/").await.body().len(), text.len());
            start.elapsed()
        })
        .collect::<Vec<_>>();
    let mut fastest = Duration::MAX;
    for took in took {
        fastest = fastest.min(took.await);
    }
    // 20 ms is the goal, measured by the benchmark; without optimisation and beside other tests it takes longer
    assert!(fastest < Duration::from_millis(200), "{fastest:?}");
}

#[tokio::test]
async fn page_and_metrics_are_reads_and_health_is_open() {
    let users = Arc::new(Users::from_iter([("ann", "secret")]));
    let log = Log::default();
    let closed = Site::with_store(Settings { access: Access::Users(users.clone()), ..log.settings() });
    for (path, expected) in
        [("/", StatusCode::UNAUTHORIZED), ("/metrics", StatusCode::UNAUTHORIZED), ("/healthz", StatusCode::OK)]
    {
        assert_eq!(closed.get(path).await.status, expected, "{path}");
    }
    let login = [("authorization", "Basic YW5uOnNlY3JldA==")];
    assert_eq!(closed.ask("GET /", &login, b"").await.status, StatusCode::OK);
    drop(closed);
    let lines = log.lines();
    assert_eq!(lines[0], "- - - \"GET / HTTP/1.1\" 401 84 \"-\" \"-\"");
    assert!(lines[3].starts_with("- - ann \"GET / HTTP/1.1\" 200 "), "{}", lines[3]);
    let read = Site::with_store(Settings { access: Access::UsersToPush(users), ..Settings::default() });
    assert_eq!(read.get("/").await.status, StatusCode::OK);
    assert_eq!(read.get("/metrics").await.status, StatusCode::OK);
}

#[tokio::test]
async fn health_is_lost_with_the_bytes() {
    let site = Site::with_store(Settings::default());
    assert_eq!(site.get("/healthz").await.body(), b"ok\n");
    std::fs::remove_file(site.store().folder().join("index.json")).expect("remove");
    assert_eq!(site.get("/healthz").await.status, StatusCode::OK, "what was found a moment ago");
    let later = async || tokio::time::sleep(Duration::from_millis(1050)).await;
    later().await;
    let lost = site.get("/healthz").await;
    assert_eq!(lost.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(lost.body(), b"not healthy; the log says why\n", "nothing that a stranger need not know");

    // a bundle one of whose blobs cannot be read any more: found within as many probes as there are blobs
    let image = Image::new("one");
    let mut memory = Memory::default();
    memory.insert(image.config.clone());
    memory.insert(image.manifest.clone());
    let mut catalog = Catalog::new();
    let source = catalog.add_source(Arc::new(memory));
    let entry = Entry {
        repository: "r".to_owned(),
        tag: Some("t".to_owned()),
        origin: None,
        media_type: OCI_MANIFEST.to_owned(),
        bytes: image.manifest.clone().into(),
    };
    catalog.add(source, entry).expect("add");
    let site = Site::over(catalog, Settings::default());
    let mut found = Vec::new();
    for _ in 0..3 {
        found.push(site.get("/healthz").await.status.as_u16());
        later().await;
    }
    found.sort_unstable();
    assert_eq!(found, [200, 200, 503]);
}

#[tokio::test]
async fn every_request_is_a_line_whatever_becomes_of_it() {
    let log = Log::default();
    let site = Site::with_store(log.settings());
    let image = Image::new("one");
    image.put(site.store(), "r", Some("t"));
    let layer = format!("/v2/r/blobs/{}", Digest::of(&image.layer));
    let agent = [("user-agent", "curl/8 \"x\"\t")];
    assert_eq!(site.ask(&format!("GET {layer}"), &agent, b"").await.body().len(), image.layer.len());
    site.ask(&format!("HEAD {layer}"), &[], b"").await;
    site.ask(&format!("GET {layer}"), &[("range", "bytes=0-9")], b"").await;
    site.get("/v2/none/tags/list?n=5").await;
    // a client that goes away before the end
    let request = Request::builder().uri(&layer).body(Empty::<Bytes>::new()).expect("request");
    drop(site.registry.answer(request).await);
    // one that goes away before the answer
    let body = http_body_util::StreamBody::new(futures_util::stream::pending::<
        Result<hyper::body::Frame<Bytes>, io::Error>,
    >());
    let request = Request::builder().method("POST").uri(format!("/v2/r/blobs/uploads/?digest={}", image.digest));
    let request = request.body(body).expect("request");
    let cut = tokio::time::timeout(Duration::from_millis(50), site.registry.answer(request)).await;
    assert!(cut.is_err());
    // a blob that rots under the server
    let other = site.store().put_blob("x", &[b'x'; 5000]).expect("put");
    std::fs::write(site.store().folder().join(other.digest.blob_path()), [b'y'; 5000]).expect("damage");
    assert_eq!(site.get(&format!("/v2/r/blobs/{}", other.digest)).await.body, None);

    let size = image.layer.len();
    drop(site);
    let lines = log.lines();
    let not_found = lines[3].split_once("404 ").expect("404").1.to_owned();
    let expected = [
        format!(r#"- - - "GET {layer} HTTP/1.1" 200 {size} "-" "curl/8 \x22x\x22\x09""#),
        format!(r#"- - - "HEAD {layer} HTTP/1.1" 200 0 "-" "-""#),
        format!(r#"- - - "GET {layer} HTTP/1.1" 206 10 "-" "-""#),
        format!(r#"- - - "GET /v2/none/tags/list?n=5 HTTP/1.1" 404 {not_found}"#),
        format!(r#"- - - "GET {layer} HTTP/1.1" 200 0 "-" "-" broken="the client went away""#),
        format!(
            r#"- - - "POST /v2/r/blobs/uploads/?digest={} HTTP/1.1" 499 0 "-" "-" broken="the client went away""#,
            image.digest
        ),
    ];
    assert_eq!(lines[..6], expected);
    assert!(
        lines[6].contains("\" 200 0 \"-\" \"-\" broken=\"") && lines[6].contains(other.digest.hex()),
        "{}",
        lines[6]
    );
    assert_eq!(lines.len(), 7);
}

/// The samples of an exposition, read as strictly as Prometheus does: every family has its help and type before its samples, its samples
/// stand together, no sample comes twice, names and labels follow their grammar, histograms grow to their count.
fn samples(text: &str) -> HashMap<String, f64> {
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let (mut samples, mut families, mut current) = (HashMap::new(), Vec::new(), (String::new(), String::new()));
    let mut help = None;
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, words) = rest.split_once(' ').expect("help");
            assert!(is_name(name) && !words.is_empty() && !words.contains('\\'), "{line}");
            help = Some(name.to_owned());
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("type");
            assert_eq!(help.take().as_deref(), Some(name), "help comes before type");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(!families.contains(&name.to_owned()), "{name} comes twice");
            families.push(name.to_owned());
            current = (name.to_owned(), kind.to_owned());
            continue;
        }
        let (key, value) = line.rsplit_once(' ').expect("a value");
        let name = key.split('{').next().expect("a name");
        let base = match current.1.as_str() {
            "histogram" => name
                .strip_suffix("_bucket")
                .or_else(|| name.strip_suffix("_sum"))
                .or_else(|| name.strip_suffix("_count"))
                .expect("part of a histogram"),
            _ => name,
        };
        assert!(is_name(name) && base == current.0, "{line} stands under {}", current.0);
        if let Some(labels) = key.strip_prefix(name).filter(|labels| !labels.is_empty()) {
            let labels = labels.strip_prefix('{').and_then(|l| l.strip_suffix('}')).expect("braces");
            for pair in labels.split(',') {
                let (label, value) = pair.split_once('=').expect("a label");
                let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).expect("quotes");
                assert!(is_name(label) && !value.contains(['"', '\\', '\n']), "{line}");
            }
        }
        let value: f64 = value.parse().expect("a number");
        assert!(samples.insert(key.to_owned(), value).is_none(), "{key} comes twice");
    }
    for (key, count) in samples.iter().filter(|(key, _)| key.contains("_seconds_count{")) {
        let buckets = key.replace("_count{", "_bucket{").replace('}', ",le=\"+Inf\"}");
        assert_eq!(samples.get(&buckets), Some(count), "{key}");
    }
    samples
}

#[tokio::test]
async fn metrics_are_what_prometheus_reads_and_count_what_was_done() {
    let site = Site::with_store(Settings::default());
    let before = samples(std::str::from_utf8(site.get("/metrics").await.body()).expect("text"));
    assert_eq!(before["ferry_http_requests_in_flight"], 1.0, "the scrape itself");
    assert!(
        before["ferry_store_free_bytes"] > 0.0 && before["ferry_store_free_bytes"] <= before["ferry_store_size_bytes"]
    );
    let blob = Digest::of(b"hello");
    let pushed = site.ask(&format!("POST /v2/r/blobs/uploads/?digest={blob}"), &[], b"hello").await;
    assert_eq!(pushed.status, StatusCode::CREATED);
    assert_eq!(site.get(&format!("/v2/r/blobs/{blob}")).await.body(), b"hello");
    site.get("/v2/a%22b/no/such").await;
    let after = samples(std::str::from_utf8(site.get("/metrics").await.body()).expect("text"));
    for (key, expected) in [
        ("ferry_http_requests_total{method=\"POST\",route=\"uploads\",code=\"201\"}", 1.0),
        ("ferry_http_requests_total{method=\"GET\",route=\"blob\",code=\"200\"}", 1.0),
        ("ferry_http_requests_total{method=\"GET\",route=\"other\",code=\"404\"}", 1.0),
        ("ferry_http_requests_total{method=\"GET\",route=\"metrics\",code=\"200\"}", 1.0),
        ("ferry_http_received_bytes_total", 5.0),
        ("ferry_http_request_duration_seconds_count{route=\"blob\"}", 1.0),
        ("ferry_uploads_total{outcome=\"completed\"}", 1.0),
        ("ferry_blobs_verified", 1.0),
        ("ferry_blobs_damaged", 0.0),
    ] {
        assert_eq!(after.get(key), Some(&expected), "{key}");
    }
}
