//! What registries say in headers: challenges, links, ranges, waits, addresses. A header reaches the client as visible ASCII.

use std::ops::Range;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use ferry_registry_client::fuzz as client;
use ferry_registry_server::fuzz as server;
use http::{HeaderMap, HeaderValue};
use regex::{Captures, Regex};
use server::Asked;
use url::Url;

/// What is read of one header at most, in bytes.
const MAX_HEADER: usize = 8 << 10;

/// Reading what was understood, written in the one obvious way, gives the same again.
pub fn challenge(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let found = client::challenges(text);
    let token =
        |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(&b));
    let mut size = 0;
    let mut written = Vec::new();
    for (scheme, parameters) in &found {
        assert!(token(scheme) && *scheme == scheme.to_ascii_lowercase(), "`{scheme}`");
        size += scheme.len();
        let mut words = Vec::new();
        for (name, value) in parameters {
            assert!(token(name) && *name == name.to_ascii_lowercase(), "`{name}`");
            size += name.len() + value.len();
            words.push(format!("{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")));
        }
        written.push(format!("{scheme} {}", words.join(", ")));
    }
    assert!(size <= text.len());
    let written = written.join(", ");
    if written.len() <= MAX_HEADER {
        assert_eq!(client::challenges(&written), found, "{written}");
    }
}

/// The target is what stands between `<` and `>`.
pub fn link(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(target) = client::next_link(text) else { return };
    assert!(!target.contains('>') && target.trim() == target);
    assert!(text.to_ascii_lowercase().contains("next"));
    let before = target.as_ptr() as usize - text.as_ptr() as usize;
    assert!(text[..before].trim_end().ends_with('<'));
    assert_eq!(client::next_link(&format!("<{target}>; rel=\"next\"")), Some(target));
    assert_eq!(client::next_link(&format!("</x>; title=\"a, <b>\"; rel=prev , < {target} >;REL=next")), Some(target));
}

static RANGE: LazyLock<Regex> = LazyLock::new(|| Regex::new("^([0-9]*)-([0-9]*)$").expect("expression"));
static CHUNK: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("^(?:bytes[ =]*)?([0-9]+)-([0-9]+)(?:/.*)?$").expect("expression"));
static CONTENT_RANGE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("(?i)^bytes  *([0-9]+) *- *([0-9]+) */ *([0-9]+|\\*)$").expect("expression"));

static UPLOADED: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("(?i)^(?:bytes[ =]*)? *([0-9]+) *- *([0-9]+)$").expect("expression"));
static UNSATISFIED: LazyLock<Regex> = LazyLock::new(|| Regex::new("(?i)^bytes  *\\*/ *([0-9]+)$").expect("expression"));

/// Two lines: the size of a blob, and a header. The server's reading of a range and the client's fit each other.
pub fn range(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (size, header) = text.split_once('\n').unwrap_or(("", text));
    let size: u64 = size.parse().unwrap_or(1 << 20);
    if !header.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return;
    }
    let asked = server::range(header, size);
    assert_eq!(asked, asked_by(header.trim(), size), "`{header}` of {size}");
    if let Asked::Parts(parts) = &asked {
        assert!(parts.len() > 1 && parts.iter().all(|part| part.start < part.end && part.end <= size));
    }
    if let Asked::Part(part) = asked {
        assert!(part.start < part.end && part.end <= size);
        assert_eq!(server::range(&client::range_header(&part), size), Asked::Part(part.clone()));
        let answer = client::range_header(&part).replace('=', " ");
        assert_eq!(client::content_range(&format!("{answer}/{size}")), Some((part.clone(), Some(size))));
        assert_eq!(client::content_range(&format!("{answer}/*")), Some((part, None)));
    }
    let chunk = CHUNK.captures(header.trim()).and_then(|found| bytes(&found));
    assert_eq!(server::chunk(header), chunk, "`{header}`");
    let content = CONTENT_RANGE.captures(header.trim()).and_then(|found| {
        let total = match &found[3] {
            "*" => None,
            text => Some(text.parse::<u64>().ok()?),
        };
        exact(&found)?;
        bytes(&found).filter(|range| total.is_none_or(|t| range.end <= t)).map(|range| (range, total))
    });
    assert_eq!(client::content_range(header), content, "`{header}`");
    let unsatisfied = UNSATISFIED.captures(header.trim()).and_then(|found| found[1].parse().ok());
    assert_eq!(client::unsatisfied(header), unsatisfied, "`{header}`");
    let uploaded = UPLOADED.captures(header.trim()).and_then(|found| exact(&found).and_then(|_| bytes(&found)));
    assert_eq!(client::uploaded(header), uploaded.map(|range| range.end), "`{header}`");
    if size > 0 {
        let chunk = client::chunk_range(&(size / 2..size));
        assert_eq!(server::chunk(&chunk), Some(size / 2..size));
        assert_eq!(client::uploaded(&client::chunk_range(&(0..size))), Some(size));
    }
}

fn exact(found: &Captures<'_>) -> Option<(u64, u64)> {
    Some((found[1].parse().ok()?, found[2].parse().ok()?))
}

fn number(text: &str) -> Option<u64> {
    (!text.is_empty()).then(|| text.parse().unwrap_or(u64::MAX))
}

/// Both ends are written; the end of the result is not in it.
fn bytes(found: &Captures<'_>) -> Option<Range<u64>> {
    let (first, last) = (number(&found[1])?, number(&found[2])?);
    (first <= last && last < u64::MAX).then(|| first..last + 1)
}

/// RFC 9110, section 14.1.2, word by word.
fn asked_by(header: &str, size: u64) -> Asked {
    let Some(list) = header.strip_prefix("bytes=") else { return Asked::Whole };
    let each: Vec<Asked> =
        list.split(',').filter(|one| !one.trim().is_empty()).map(|one| one_asked_by(one.trim(), size)).collect();
    let parts: Vec<_> =
        each.iter().filter_map(|one| if let Asked::Part(part) = one { Some(part) } else { None }).collect();
    let total: u128 = parts.iter().map(|part| u128::from(part.end - part.start)).sum();
    match parts.as_slice() {
        _ if each.is_empty() || each.contains(&Asked::Whole) => Asked::Whole,
        [] => Asked::Unsatisfiable,
        [one] => Asked::Part((*one).clone()),
        _ if parts.len() > 1024 || total > u128::from(size) => Asked::Whole,
        _ => Asked::Parts(parts.into_iter().cloned().collect()),
    }
}

fn one_asked_by(range: &str, size: u64) -> Asked {
    let Some(found) = RANGE.captures(range) else { return Asked::Whole };
    let (start, end) = match (number(&found[1]), number(&found[2])) {
        (None, None) => return Asked::Whole,
        (Some(first), Some(last)) if first > last => return Asked::Whole,
        (Some(first), last) => (first, last.map_or(size, |last| last.saturating_add(1).min(size))),
        (None, Some(suffix)) => (size.saturating_sub(suffix), size),
    };
    if start < end { Asked::Part(start..end) } else { Asked::Unsatisfiable }
}

/// Seconds are digits; anything else is a date, and what is past is no wait.
pub fn retry_after(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let found = client::retry_after(text, now);
    let value = text.trim();
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    let expected = if digits {
        value.parse().ok().map(Duration::from_secs)
    } else {
        httpdate::parse_http_date(value).ok().map(|date| date.duration_since(now).unwrap_or_default())
    };
    assert_eq!(found, expected, "`{text}`");
    // dates end with the year 9999
    if let Some(wait) = found.filter(|wait| wait.as_secs() < 200_000_000_000) {
        let date = httpdate::fmt_http_date(now + wait);
        assert_eq!(client::retry_after(&date, now), Some(Duration::from_secs(wait.as_secs())), "{date}");
    }
}

/// Three lines: limit, what remains, when it begins anew.
pub fn quota(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut headers = HeaderMap::new();
    for (name, value) in ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"].into_iter().zip(text.split('\n'))
    {
        let Ok(value) = HeaderValue::from_str(value) else { return };
        headers.insert(name, value);
    }
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let Some(quota) = client::quota(&headers, now) else { return };
    let first = |name: &str| {
        let value = headers[name].to_str().expect("visible");
        value.split([',', ';']).next().and_then(|number| number.trim().parse::<u64>().ok())
    };
    assert_eq!((Some(quota.limit), Some(quota.remaining)), (first("ratelimit-limit"), first("ratelimit-remaining")));
    assert!(quota.window.is_none_or(|window| !window.is_zero()));
    assert!(!quota.to_string().is_empty() && quota.renewed_within() == quota.reset.or(quota.window));
}

/// Two lines: where an answer came from, and its `Location`.
pub fn location(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (base, location) = text.split_once('\n').unwrap_or(("https://r.example/v2/", text));
    let Ok(base) = Url::parse(base) else { return };
    if !matches!(base.scheme(), "http" | "https") || !base.username().is_empty() || base.password().is_some() {
        return;
    }
    let Ok(url) = client::resolve(&base, location) else { return };
    assert!(matches!(url.scheme(), "http" | "https") && url.host_str().is_some_and(|host| !host.is_empty()));
    assert!(base.scheme() == "http" || url.scheme() == "https", "{base} leads to {url}");
    assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none(), "{url}");
    assert_eq!(client::resolve(&base, url.as_str()).as_ref(), Ok(&url));
    let same = client::same_origin(&base, &url);
    assert_eq!((same, client::same_origin(&url, &base)), (base.origin() == url.origin(), same));
    assert!(client::same_origin(&url, &url));
    let path = location.trim();
    if path.starts_with('/') && path[1..].starts_with(|c: char| c.is_ascii_alphanumeric()) {
        assert!(same, "{base} leads to {url}");
    }
    let last = client::with_digest(&url, "sha256:0");
    let before = url.query().filter(|query| !query.is_empty()).map(|query| format!("{query}&")).unwrap_or_default();
    assert_eq!(last.query(), Some(format!("{before}digest=sha256%3A0").as_str()), "{url}");
    assert_eq!((last.path(), client::same_origin(&last, &url)), (url.path(), true));
}
