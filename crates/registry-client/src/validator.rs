//! Whether two answers carry parts of the same bytes (RFC 9110, section 8.8), so that a body that changed at the server in the
//! middle of a transfer is begun anew and not spliced. Pure.
//!
//! A blob has a digest, and what does not agree with it is never used: this only finds a change early. So one change is believed;
//! a server whose validators change again and again (replicas that each make their own) is not asked about them any more.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use ferry_image::Digest;
use http::HeaderMap;
use http::header::{ETAG, LAST_MODIFIED};

/// By what bytes are recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Validator {
    /// A strong `ETag`.
    Tag(String),
    /// `Last-Modified`, where there is no better.
    Date(String),
}

impl Validator {
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let text = |name| headers.get(name)?.to_str().ok().map(|value| value.trim().to_owned());
        // a weak tag may be that of other bytes that mean the same
        match text(ETAG) {
            Some(tag) if tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"') => Some(Self::Tag(tag)),
            _ => text(LAST_MODIFIED).filter(|date| !date.is_empty()).map(Self::Date),
        }
    }

    fn is_of_a_kind_with(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// What was seen of the blobs of a repository.
#[derive(Debug, Default)]
pub(crate) struct Validators(Mutex<HashMap<Digest, Seen>>);

#[derive(Debug)]
enum Seen {
    One(Validator),
    /// They are no use here.
    Several,
}

impl Validators {
    /// Takes what an answer for `blob` says. False when it is of other bytes than an earlier one; `whole` when it is all of the blob,
    /// and so a fresh start.
    pub(crate) fn agree(&self, blob: &Digest, found: Option<Validator>, whole: bool) -> bool {
        let Some(found) = found else { return true };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(blob) {
            None => {
                all.insert(blob.clone(), Seen::One(found));
                true
            }
            Some(Seen::Several) => true,
            Some(Seen::One(earlier)) if whole => {
                *earlier = found;
                true
            }
            Some(Seen::One(earlier)) if *earlier == found || !earlier.is_of_a_kind_with(&found) => true,
            Some(seen) => {
                *seen = Seen::Several;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(tag: Option<&'static str>, date: Option<&'static str>) -> Option<Validator> {
        let mut headers = HeaderMap::new();
        for (name, value) in [(ETAG, tag), (LAST_MODIFIED, date)] {
            if let Some(value) = value {
                headers.insert(name, HeaderValue::from_static(value));
            }
        }
        Validator::of(&headers)
    }

    #[test]
    fn only_strong_tags_count_and_dates_where_there_is_none() {
        let tag = |text: &str| Some(Validator::Tag(text.to_owned()));
        let date = |text: &str| Some(Validator::Date(text.to_owned()));
        for (etag, modified, expected) in [
            (Some("\"a\""), Some("yesterday"), tag("\"a\"")),
            (Some("W/\"a\""), Some("yesterday"), date("yesterday")),
            (Some("\"\""), None, None),
            (Some("a"), None, None),
            (None, Some("yesterday"), date("yesterday")),
            (None, None, None),
        ] {
            assert_eq!(of(etag, modified), expected, "{etag:?} {modified:?}");
        }
    }

    #[test]
    fn a_change_is_told_once() {
        let (all, blob, other) = (Validators::default(), Digest::of(b"blob"), Digest::of(b"other"));
        let tag = |text: &str| Some(Validator::Tag(text.to_owned()));
        assert!(all.agree(&blob, tag("a"), false), "the first");
        assert!(all.agree(&blob, tag("a"), false), "the same");
        assert!(all.agree(&blob, None, false), "not stated");
        assert!(all.agree(&blob, Some(Validator::Date("d".to_owned())), false), "cannot be compared");
        assert!(all.agree(&other, tag("b"), false), "another blob");
        assert!(all.agree(&blob, tag("b"), true), "begun anew");
        assert!(!all.agree(&blob, tag("c"), false), "changed");
        assert!(all.agree(&blob, tag("d"), false), "told once");
    }
}
