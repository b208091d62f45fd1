//! docker-registry's access log (Apache's combined format), as records to count.

use std::collections::BTreeMap;

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// `GET`.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// `200`.
    pub status: u16,
    /// Of the body sent.
    pub bytes: u64,
}

/// Requests in order of completion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Records(pub Vec<Record>);

impl Records {
    /// The requests that `wanted` takes.
    #[must_use]
    pub fn matching(&self, wanted: impl Fn(&Record) -> bool) -> Vec<&Record> {
        self.0.iter().filter(|record| wanted(record)).collect()
    }

    /// Blobs that were sent to clients, once per request.
    #[must_use]
    pub fn blobs_sent(&self) -> Vec<&Record> {
        self.matching(|r| r.method == "GET" && is_blob(&r.path) && matches!(r.status, 200 | 206))
    }

    /// Requests of any method that have to do with uploads; mounts included.
    #[must_use]
    pub fn uploads(&self) -> Vec<&Record> {
        self.matching(|r| r.path.contains("/blobs/uploads/"))
    }

    /// Blobs that were uploaded whole (`PUT` answered with 201).
    #[must_use]
    pub fn blobs_stored(&self) -> Vec<&Record> {
        self.matching(|r| r.method == "PUT" && r.path.contains("/blobs/uploads/") && r.status == 201)
    }

    /// Manifests stored, by path.
    #[must_use]
    pub fn manifests_stored(&self) -> Vec<&Record> {
        self.matching(|r| r.method == "PUT" && r.path.contains("/manifests/") && r.status == 201)
    }

    /// Blob and manifest paths that were fetched more than once, with the count.
    #[must_use]
    pub fn fetched_twice(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for record in self.matching(|r| r.method == "GET" && r.status == 200) {
            if is_blob(&record.path) || record.path.contains("/manifests/") {
                *counts.entry(record.path.clone()).or_insert(0) += 1;
            }
        }
        counts.retain(|_, count| *count > 1);
        counts
    }

    /// The bytes of all blobs sent.
    #[must_use]
    pub fn blob_bytes_sent(&self) -> u64 {
        self.blobs_sent().iter().map(|r| r.bytes).sum()
    }
}

fn is_blob(path: &str) -> bool {
    path.contains("/blobs/sha256:")
}

/// Reads lines like `1.2.3.4 - - [date] "GET /v2/ HTTP/1.1" 200 2 "" "agent"`; others are left out.
pub(super) fn parse(log: &str) -> Records {
    let record = |line: &str| {
        let mut quoted = line.split('"');
        let _ = quoted.next()?;
        let mut request = quoted.next()?.split(' ');
        let mut numbers = quoted.next()?.split_whitespace();
        Some(Record {
            method: request.next()?.to_owned(),
            path: request.next()?.to_owned(),
            status: numbers.next()?.parse().ok()?,
            bytes: numbers.next()?.parse().unwrap_or_default(),
        })
    };
    Records(log.lines().filter_map(record).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_combined_format() {
        let line =
            "127.0.0.1 - - [23/Nov/2026:07:00:00 +0000] \"GET /v2/a/blobs/sha256:00 HTTP/1.1\" 206 17 \"\" \"curl\"";
        let log = format!("time=\"x\" level=info msg=\"y\"\n{line}\n{line}\n");
        let records = parse(&log);
        assert_eq!(records.0.len(), 2);
        assert_eq!(
            records.0[0],
            Record { method: "GET".into(), path: "/v2/a/blobs/sha256:00".into(), status: 206, bytes: 17 }
        );
        assert_eq!(records.blob_bytes_sent(), 34);
        assert!(records.fetched_twice().is_empty(), "ranges of one blob are not counted twice");
    }
}
