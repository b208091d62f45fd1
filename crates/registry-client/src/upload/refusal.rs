//! What a refusal in mid-upload means for it. Pure.

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// The session may live: ask the registry what it has of it.
    Ask,
    /// The session is gone, or not worth keeping: begin another.
    Anew,
    /// Nothing will help.
    Stop,
}

/// After `status` with the registry's error `code`. `other_form` says whether the request can be made in another form.
pub(super) fn after(status: u16, code: &str, other_form: bool) -> After {
    match (status, code) {
        // bytes were damaged on the way
        (_, "DIGEST_INVALID" | "SIZE_INVALID") => After::Anew,
        (_, "NAME_UNKNOWN" | "NAME_INVALID" | "DENIED" | "UNAUTHORIZED") => After::Stop,
        (408 | 416 | 425 | 429 | 500 | 502..=504, _) => After::Ask,
        (413, _) if other_form => After::Ask,
        // to the registry, the request that broke off is still under way
        (409, "BLOB_UPLOAD_INVALID") => After::Ask,
        // the registry restarted, or another replica answers
        (404 | 410, _) | (_, "BLOB_UPLOAD_UNKNOWN" | "BLOB_UPLOAD_INVALID") => After::Anew,
        _ if other_form => After::Anew,
        _ => After::Stop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_of_an_upload() {
        use After::{Anew, Ask, Stop};
        let table = [
            (500, "", false, Ask),
            (503, "UNKNOWN", false, Ask),
            (416, "RANGE_INVALID", false, Ask),
            (429, "TOOMANYREQUESTS", false, Ask),
            (404, "BLOB_UPLOAD_UNKNOWN", false, Anew),
            (404, "BLOB_UPLOAD_INVALID", false, Anew),
            (400, "BLOB_UPLOAD_INVALID", false, Anew),
            (404, "", false, Anew),
            (404, "NAME_UNKNOWN", false, Stop),
            (400, "DIGEST_INVALID", false, Anew),
            (413, "", true, Ask),
            (413, "", false, Stop),
            (405, "UNSUPPORTED", true, Anew),
            (405, "UNSUPPORTED", false, Stop),
            (400, "", true, Anew),
            (400, "", false, Stop),
            (401, "UNAUTHORIZED", false, Stop),
            (403, "DENIED", true, Stop),
            (409, "BLOB_UPLOAD_INVALID", false, Ask),
            (409, "", false, Stop),
            (507, "", false, Stop),
        ];
        for (status, code, other_form, expected) in table {
            assert_eq!(after(status, code, other_form), expected, "{status} {code} {other_form}");
        }
    }
}
