//! Percent-encoding and query strings (RFC 3986). Pure.

/// `%41` → `A`; `None` for a broken escape or for bytes that are not UTF-8.
pub(crate) fn percent_decoded(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => hex(rest.next()?)? << 4 | hex(rest.next()?)?,
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// The text with everything escaped that a query value may not hold.
pub(crate) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// The parameters of a query string.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Parameters that cannot be decoded are left out.
    pub(crate) fn parse(text: Option<&str>) -> Self {
        let pairs = text.unwrap_or_default().split('&').filter_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((percent_decoded(key)?, percent_decoded(&value.replace('+', " "))?))
        });
        Self(pairs.filter(|(key, _)| !key.is_empty()).collect())
    }

    /// The first value of `key`.
    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        self.values(key).next()
    }

    pub(crate) fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_found_and_decoded() {
        let query = Query::parse(Some("digest=sha256%3Aab&n=5&empty=&flag&n=6&bad=%f&a+b=c+d"));
        assert_eq!(query.value("digest"), Some("sha256:ab"));
        assert_eq!(query.values("n").collect::<Vec<_>>(), ["5", "6"]);
        assert_eq!((query.value("empty"), query.value("flag"), query.value("bad")), (Some(""), Some(""), None));
        assert_eq!(Query::parse(Some("x=application%2Fvnd.a%2Bjson")).value("x"), Some("application/vnd.a+json"));
        assert_eq!(Query::parse(None), Query::default());
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(text in "\\PC{0,40}") {
            prop_assert_eq!(percent_decoded(&percent_encoded(&text)), Some(text));
        }
    }
}
