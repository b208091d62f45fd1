//! Counters, and their text form for Prometheus (exposition format 0.0.4).
//!
//! Labels have few values whatever clients send: a method or path that no endpoint has is `other`. Repositories and users are not labels.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use http::Method;

use crate::monitoring::Monitoring;
use crate::route::{Route, route};

/// The upper ends of the buckets in seconds: from answers out of memory to layers over slow lines.
const BUCKETS: [f64; 13] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0];

/// Method and endpoint of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Labels {
    method: &'static str,
    route: &'static str,
}

/// How a request ended.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) labels: Labels,
    pub(super) status: u16,
    pub(super) mounts: bool,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) took: Duration,
    pub(super) is_broken: bool,
}

/// What is known elsewhere, and asked for with each scrape.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Scraped {
    /// Blobs that were read whole and found right, and found damaged, since the start.
    pub(crate) verified: u64,
    pub(crate) damaged: u64,
    /// Bytes that are free for the store, and that its file system has; `None` without a store.
    pub(crate) store: Option<(u64, u64)>,
}

/// The counters of one server.
#[derive(Debug)]
pub(crate) struct Metrics {
    started: SystemTime,
    in_flight: AtomicU64,
    open: AtomicU64,
    accepted: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    broken: AtomicU64,
    probes: AtomicUsize,
    ended: Mutex<Ended>,
}

#[derive(Debug, Default)]
struct Ended {
    requests: BTreeMap<(Labels, u16), u64>,
    durations: BTreeMap<&'static str, Histogram>,
    uploads: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Default, Clone)]
struct Histogram {
    /// Each bucket by itself; the last has what is longer than all.
    counts: [u64; BUCKETS.len() + 1],
    seconds: f64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            started: SystemTime::now(),
            in_flight: AtomicU64::default(),
            open: AtomicU64::default(),
            accepted: AtomicU64::default(),
            received: AtomicU64::default(),
            sent: AtomicU64::default(),
            broken: AtomicU64::default(),
            probes: AtomicUsize::default(),
            ended: Mutex::default(),
        }
    }
}

/// The labels of a request.
pub(super) fn labels(method: &Method, path: &str) -> Labels {
    const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let name = METHODS.into_iter().find(|name| *name == method.as_str()).unwrap_or("other");
    let endpoint = match Monitoring::at(path) {
        Some(endpoint) => endpoint.label(),
        None => route(method, path).map_or("other", |route| endpoint(&route)),
    };
    Labels { method: name, route: endpoint }
}

fn endpoint(route: &Route) -> &'static str {
    match route {
        Route::Ping => "ping",
        Route::Catalog => "catalog",
        Route::Tags { .. } => "tags",
        Route::Manifest { .. } => "manifest",
        Route::Blob { .. } => "blob",
        Route::Uploads { .. } => "uploads",
        Route::Upload { .. } => "upload",
        Route::Referrers { .. } => "referrers",
    }
}

/// What a request did to an upload, if anything.
fn upload(end: &End) -> Option<&'static str> {
    match (end.labels.method, end.labels.route, end.status) {
        ("POST", "uploads", 202) => Some("begun"),
        ("POST", "uploads", 201) if end.mounts => Some("mounted"),
        ("POST", "uploads", 201) | ("PUT", "upload", 201) => Some("completed"),
        ("DELETE", "upload", 204) => Some("cancelled"),
        ("POST", "uploads", _) | ("PUT" | "PATCH", "upload", 400..) => Some("failed"),
        _ => None,
    }
}

impl Metrics {
    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    pub(super) fn end(&self, end: &End) {
        self.in_flight.fetch_sub(1, Relaxed);
        self.received.fetch_add(end.received, Relaxed);
        self.sent.fetch_add(end.sent, Relaxed);
        self.broken.fetch_add(u64::from(end.is_broken), Relaxed);
        let mut ended = self.ended();
        *ended.requests.entry((end.labels, end.status)).or_default() += 1;
        ended.durations.entry(end.labels.route).or_default().add(end.took.as_secs_f64());
        if let Some(outcome) = upload(end) {
            *ended.uploads.entry(outcome).or_default() += 1;
        }
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed)
    }

    pub(super) fn connected(&self) {
        self.open.fetch_add(1, Relaxed);
        self.accepted.fetch_add(1, Relaxed);
    }

    pub(super) fn disconnected(&self) {
        self.open.fetch_sub(1, Relaxed);
    }

    /// The number of this probe of the server's health.
    pub(crate) fn probe(&self) -> usize {
        self.probes.fetch_add(1, Relaxed)
    }

    fn ended(&self) -> MutexGuard<'_, Ended> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything, as Prometheus reads it.
    pub(crate) fn text(&self, scraped: Scraped) -> String {
        let mut page = Page::default();
        page.family("ferry_build_info", "gauge", "The version that runs");
        page.sample("ferry_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
        let (verified, damaged) = (scraped.verified, scraped.damaged);
        for (name, kind, help, value) in [
            ("ferry_http_requests_in_flight", "gauge", "Requests whose answer is not sent whole yet", &self.in_flight),
            ("ferry_http_connections", "gauge", "Connections that are open", &self.open),
            ("ferry_http_connections_total", "counter", "Connections that were accepted", &self.accepted),
            ("ferry_http_received_bytes_total", "counter", "Bytes of the bodies of requests", &self.received),
            ("ferry_http_sent_bytes_total", "counter", "Bytes of the bodies of answers", &self.sent),
            (
                "ferry_http_broken_total",
                "counter",
                "Requests and answers that broke off before their end",
                &self.broken,
            ),
        ] {
            page.family(name, kind, help);
            page.sample(name, &[], value.load(Relaxed));
        }
        self.ended().write(&mut page);
        page.family("ferry_blobs_verified", "gauge", "Blobs that were read whole and are what their digest says");
        page.sample("ferry_blobs_verified", &[], verified);
        page.family("ferry_blobs_damaged", "gauge", "Blobs that are not what their digest says, and are refused");
        page.sample("ferry_blobs_damaged", &[], damaged);
        if let Some((free, size)) = scraped.store {
            page.family("ferry_store_free_bytes", "gauge", "Bytes that are free where the store is");
            page.sample("ferry_store_free_bytes", &[], free);
            page.family("ferry_store_size_bytes", "gauge", "Bytes that the file system of the store has");
            page.sample("ferry_store_size_bytes", &[], size);
        }
        let started = self.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        page.family("process_start_time_seconds", "gauge", "When the server was started, in seconds since 1970");
        page.sample("process_start_time_seconds", &[], started.as_secs());
        page.process();
        page.0
    }
}

impl Ended {
    fn write(&self, page: &mut Page) {
        let name = "ferry_http_requests_total";
        page.family(name, "counter", "Requests by method, endpoint and status; 499: the client went away first");
        for ((labels, status), count) in &self.requests {
            let code = status.to_string();
            page.sample(name, &[("method", labels.method), ("route", labels.route), ("code", &code)], count);
        }
        let name = "ferry_http_request_duration_seconds";
        page.family(name, "histogram", "Time from a request's head to the last byte of its answer");
        for (route, histogram) in &self.durations {
            histogram.write(page, name, route);
        }
        let name = "ferry_uploads_total";
        page.family(name, "counter", "Uploads of blobs by what became of them");
        for outcome in ["begun", "completed", "mounted", "cancelled", "failed"] {
            page.sample(name, &[("outcome", outcome)], self.uploads.get(outcome).unwrap_or(&0));
        }
    }
}

impl Histogram {
    fn add(&mut self, seconds: f64) {
        let bucket = BUCKETS.iter().position(|end| seconds <= *end).unwrap_or(BUCKETS.len());
        self.counts[bucket] += 1;
        self.seconds += seconds;
    }

    fn write(&self, page: &mut Page, name: &str, route: &str) {
        let mut total = 0;
        let ends = BUCKETS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        for (count, end) in self.counts.iter().zip(ends) {
            total += count;
            page.sample(&format!("{name}_bucket"), &[("route", route), ("le", &end)], total);
        }
        page.sample(&format!("{name}_sum"), &[("route", route)], self.seconds);
        page.sample(&format!("{name}_count"), &[("route", route)], total);
    }
}

/// Text that grows. Label values are ours or numbers, and need no escape.
#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        for (at, (label, value)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"{value}\"", if at == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// What the kernel says of this process, by the names that all exporters use. Elsewhere than on Linux it is left out.
    fn process(&mut self) {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        if let Some(kibibytes) = resident {
            let name = "process_resident_memory_bytes";
            self.family(name, "gauge", "Memory in use");
            self.sample(name, &[], kibibytes * 1024);
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            self.family("process_open_fds", "gauge", "Open files and connections");
            self.sample("process_open_fds", &[], open.count());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(method: &Method, path: &str, status: u16, mounts: bool) -> End {
        let (labels, took) = (labels(method, path), Duration::from_millis(7));
        End { labels, status, mounts, received: 3, sent: 5, took, is_broken: status == 499 }
    }

    #[test]
    fn labels_have_few_values_whatever_is_asked() {
        let method = Method::from_bytes(b"BREW").expect("method");
        for (method, path, expected) in [
            (&Method::GET, "/v2/", ("GET", "ping")),
            (&Method::GET, "/v2/a/manifests/1", ("GET", "manifest")),
            (&Method::GET, "/v2/a/b/c", ("GET", "other")),
            (&method, "/", ("other", "page")),
            (&Method::PATCH, "/v2/a/manifests/1", ("PATCH", "other")),
            (&Method::GET, "/metrics", ("GET", "metrics")),
        ] {
            let found = labels(method, path);
            assert_eq!((found.method, found.route), expected, "{method} {path}");
        }
    }

    #[test]
    fn what_ended_is_counted_and_buckets_grow() {
        let metrics = Metrics::default();
        let session = format!("/v2/a/blobs/uploads/{}", "0".repeat(32));
        for (method, path, status, mounts) in [
            (Method::POST, "/v2/a/blobs/uploads/", 202, false),
            (Method::POST, "/v2/a/blobs/uploads/", 201, true),
            (Method::PUT, session.as_str(), 201, false),
            (Method::DELETE, session.as_str(), 204, false),
            (Method::PATCH, session.as_str(), 416, false),
            (Method::GET, "/v2/", 499, false),
        ] {
            metrics.begin();
            metrics.end(&end(&method, path, status, mounts));
        }
        let text = metrics.text(Scraped { verified: 2, damaged: 1, store: Some((10, 20)) });
        for line in [
            "ferry_http_requests_in_flight 0",
            "ferry_http_received_bytes_total 18",
            "ferry_http_sent_bytes_total 30",
            "ferry_http_broken_total 1",
            "ferry_http_requests_total{method=\"GET\",route=\"ping\",code=\"499\"} 1",
            "ferry_http_request_duration_seconds_bucket{route=\"uploads\",le=\"0.005\"} 0",
            "ferry_http_request_duration_seconds_bucket{route=\"uploads\",le=\"0.01\"} 2",
            "ferry_http_request_duration_seconds_bucket{route=\"uploads\",le=\"+Inf\"} 2",
            "ferry_http_request_duration_seconds_count{route=\"uploads\"} 2",
            "ferry_uploads_total{outcome=\"begun\"} 1",
            "ferry_uploads_total{outcome=\"completed\"} 1",
            "ferry_uploads_total{outcome=\"mounted\"} 1",
            "ferry_uploads_total{outcome=\"cancelled\"} 1",
            "ferry_uploads_total{outcome=\"failed\"} 1",
            "ferry_blobs_verified 2",
            "ferry_blobs_damaged 1",
            "ferry_store_free_bytes 10",
        ] {
            assert!(text.lines().any(|l| l == line), "`{line}` is not in\n{text}");
        }
    }
}
