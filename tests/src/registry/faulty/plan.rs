//! The fault plan: which requests are answered wrongly, in which way, and how often.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::http::Reply;

use super::route::Route;

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Anything but tokens.
    Any,
    /// `/v2/`.
    Ping,
    /// A manifest, by tag or digest.
    Manifest,
    /// A manifest by its tag.
    Tag,
    /// A blob of any kind.
    Blob,
    /// A blob of more than 2000 bytes: in samples, a layer and no config.
    Layer,
    /// The opening of an upload, mounts included.
    Upload,
    /// An upload that goes on: PATCH, PUT, GET and DELETE of its session.
    Session,
    /// The list of tags.
    Tags,
    /// A token.
    Token,
}

/// What goes wrong. Several may happen to one request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// This answer instead of the right one; nothing is done.
    Answer(Reply),
    /// So many requests are answered in any second; the others get 429, with or without `Retry-After` (seconds).
    Limit(usize, Option<u64>),
    /// Docker Hub's quota: so many GETs of manifests in six hours, of which so many are left at the start; 429 beyond. Every answer
    /// says how many are left.
    Quota(u64, u64),
    /// 429, and a date so many seconds from now to come again at.
    ComeAgainAt(u64),
    /// The connection is closed without an answer, and nothing is done.
    Unanswered,
    /// What was asked for is done, and the connection is closed without an answer.
    LoseAnswer,
    /// No answer comes.
    Mute,
    /// The connection is closed after so many bytes of the body.
    Drop(u64),
    /// The same, for the body of the request; nothing of it is kept.
    DropRequest(u64),
    /// The same, and what came is kept: the upload can go on from there.
    KeepRequest(u64),
    /// Requests with a larger body than so many bytes are refused by a proxy: 413 and a page.
    TooLarge(usize),
    /// Nothing comes after so many bytes of the body.
    Stall(u64),
    /// So many bytes come at so many bytes a second.
    Drip(u64, u64),
    /// The byte at this place is another.
    Corrupt(usize),
    /// So many bytes fewer, with a `Content-Length` that agrees.
    Short(usize),
    /// So many bytes more, with a `Content-Length` that agrees.
    Long(usize),
    /// `Content-Length` says so much more than comes, or less.
    Length(i64),
    /// The body does not end.
    Endless,
    /// The whole blob, though a part was asked for.
    IgnoreRange,
    /// Another part than was asked for.
    OtherRange,
    /// A header has this value, or is not there.
    Header(&'static str, Option<String>),
    /// The content is at another host: a redirect for a download, a `Location` there for an upload.
    Elsewhere,
    /// A mount opens an upload session instead (202), though the blob is there.
    NoMount,
    /// An index that names absent manifests is refused.
    RefuseSparse,
    /// All tags in one page.
    OnePage,
    /// Every token that was given out so far is worth nothing any more; this request is still answered.
    ExpireTokens,
    /// From the next request on, this tag (`NAME:TAG`) stands for this digest.
    Retag(String, String),
}

/// One line of a plan.
#[derive(Debug)]
pub struct Rule {
    method: &'static str,
    what: What,
    part: String,
    first: u64,
    times: u64,
    elsewhere: bool,
    fault: Fault,
    met: AtomicU64,
}

impl Rule {
    /// The first request of that kind. `*` stands for every method.
    #[must_use]
    pub fn once(method: &'static str, what: What, fault: Fault) -> Self {
        let met = AtomicU64::new(0);
        Self { method, what, part: String::new(), first: 1, times: 1, elsewhere: false, fault, met }
    }

    /// Every request of that kind.
    #[must_use]
    pub fn always(method: &'static str, what: What, fault: Fault) -> Self {
        Self::once(method, what, fault).times(u64::MAX)
    }

    /// So many requests.
    #[must_use]
    pub fn times(self, times: u64) -> Self {
        Self { times, ..self }
    }

    /// Not before the `nth` of them, counted from 1.
    #[must_use]
    pub fn from(self, nth: u64) -> Self {
        Self { first: nth, ..self }
    }

    /// Only where path and query contain this.
    #[must_use]
    pub fn of(self, part: &str) -> Self {
        Self { part: part.to_owned(), ..self }
    }

    /// At the second address, instead of the first.
    #[must_use]
    pub fn elsewhere(self) -> Self {
        Self { elsewhere: true, ..self }
    }

    /// Whether it is about the second address.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.elsewhere
    }

    /// The fault, if this request is one that it happens to.
    pub(super) fn due(&self, method: &str, path: &str, route: &Route, size: usize) -> Option<&Fault> {
        if self.method != "*" && self.method != method || !self.is_about(route, size) {
            return None;
        }
        if !path.contains(&self.part) {
            return None;
        }
        let nth = self.met.fetch_add(1, Ordering::Relaxed) + 1;
        (nth >= self.first && nth - self.first < self.times).then_some(&self.fault)
    }

    /// `size` is that of the blob, where it is about one.
    fn is_about(&self, route: &Route, size: usize) -> bool {
        match self.what {
            What::Any => *route != Route::Token,
            What::Ping => *route == Route::Ping,
            What::Manifest => matches!(route, Route::Manifest { .. }),
            What::Tag => matches!(route, Route::Manifest { reference, .. } if !reference.contains(':')),
            What::Blob => matches!(route, Route::Blob { .. }),
            What::Layer => matches!(route, Route::Blob { .. }) && size > 2000,
            What::Upload => matches!(route, Route::Uploads { .. }),
            What::Session => matches!(route, Route::Session { .. }),
            What::Tags => matches!(route, Route::Tags { .. }),
            What::Token => *route == Route::Token,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::faulty::route;

    #[test]
    fn a_rule_counts_what_it_is_about() {
        let rule = Rule::once("GET", What::Layer, Fault::Unanswered).from(2).times(2).of("app/one");
        let (path, other) = ("/v2/app/one/blobs/sha256:0", "/v2/app/two/blobs/sha256:0");
        let hit = |method, path, size| rule.due(method, path, &route::read(path), size).is_some();
        assert!(!hit("GET", path, 3000), "the first");
        assert!(!hit("GET", path, 10) && !hit("HEAD", path, 3000) && !hit("GET", other, 3000), "not about it");
        assert!(!hit("GET", "/v2/app/one/manifests/1", 3000));
        assert_eq!([hit("GET", path, 3000), hit("GET", path, 3000), hit("GET", path, 3000)], [true, true, false]);
        let tag = Rule::always("*", What::Tag, Fault::Unanswered);
        let hit = |path| tag.due("PUT", path, &route::read(path), 0).is_some();
        assert_eq!(
            [hit("/v2/a/manifests/1"), hit("/v2/a/manifests/sha256:0"), hit("/v2/a/manifests/1")],
            [true, false, true]
        );
    }
}
