//! What a refusal says: the registry's `errors` (distribution-spec, "Error Codes"), a token server's `error`, or the text of a
//! page. Pure. Everything is bounded and stripped of control characters, since it goes to a terminal.

use serde::Deserialize;

/// The longest body that is read for its message.
pub(crate) const MAX_BODY: usize = 64 << 10;
/// The longest message that is shown.
const MAX_MESSAGE: usize = 300;

/// The server's own words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Words {
    /// Such as `MANIFEST_UNKNOWN`.
    pub(crate) code: String,
    /// For people.
    pub(crate) message: String,
    /// Whether they are those of a web page.
    pub(crate) page: bool,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    errors: Vec<Item>,
    error: Option<serde_json::Value>,
    error_description: Option<String>,
    details: Option<String>,
    message: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    code: Option<serde_json::Value>,
    message: Option<serde_json::Value>,
    detail: Option<serde_json::Value>,
}

/// Reads a body of any kind.
pub(crate) fn words(body: &[u8]) -> Words {
    let text = String::from_utf8_lossy(body);
    let Ok(body) = serde_json::from_slice::<Body>(body) else {
        return Words { code: String::new(), message: plain(&text), page: is_page(&text) };
    };
    if let Some(first) = body.errors.first() {
        let mut message = scalar(first.message.as_ref());
        let detail = scalar(first.detail.as_ref());
        if message.is_empty() {
            message = detail;
        } else if !detail.is_empty() && detail != message {
            message = format!("{message}: {detail}");
        }
        return Words { code: plain(&scalar(first.code.as_ref())), message: plain(&message), page: false };
    }
    let code = scalar(body.error.as_ref());
    let message = body.error_description.or(body.details).or(body.message).unwrap_or_default();
    Words { code: plain(&code), message: plain(&message), page: false }
}

fn scalar(value: Option<&serde_json::Value>) -> String {
    match value {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(serde_json::Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

/// What a web page in place of an answer is called.
pub(crate) const PAGE: &str = "a web page came instead of an answer";

/// Whether a body is a web page. Object storage answers in XML, which is none.
pub(crate) fn is_page(text: &str) -> bool {
    let start: String = text.trim_start().chars().take(14).collect::<String>().to_ascii_lowercase();
    start.starts_with("<html") || start.starts_with("<!doctype html")
}

/// Text without tags, control characters and runs of white space, cut to a line.
fn plain(text: &str) -> String {
    let text = text.trim_start();
    let stripped = match title(text) {
        _ if !text.starts_with('<') => text.to_owned(),
        None => without_tags(text),
        // pages say their title in their body again
        Some(title) => {
            let stripped = without_tags(text).split_whitespace().collect::<Vec<_>>().join(" ");
            let body = stripped.strip_prefix(title).unwrap_or(&stripped).trim_start();
            if body.starts_with(title) { body.to_owned() } else { stripped }
        }
    };
    let visible: String = stripped.chars().map(|c| if c.is_control() || is_direction(c) { ' ' } else { c }).collect();
    let mut line = visible.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((at, _)) = line.char_indices().nth(MAX_MESSAGE) {
        line.truncate(at);
        line.push('…');
    }
    line
}

/// The title of a page that begins with it.
fn title(html: &str) -> Option<&str> {
    let (_, rest) = html.split_once("<title>")?;
    Some(rest.split_once("</title>")?.0.trim()).filter(|title| !title.is_empty())
}

/// Characters that change the direction of text could make a message read as another.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn without_tags(html: &str) -> String {
    let mut text = String::new();
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        text.push_str(&rest[..at]);
        text.push(' ');
        let tag = &rest[at..];
        let ends = ["<style", "<script", "<!--"].iter().zip(["</style", "</script", "-->"]);
        let skipped = ends
            .filter(|(open, _)| tag.get(..open.len()).is_some_and(|t| t.eq_ignore_ascii_case(open)))
            .find_map(|(_, close)| tag.to_ascii_lowercase().find(close));
        let from = skipped.unwrap_or(0);
        match tag[from..].find('>') {
            Some(end) => rest = &tag[from + end + 1..],
            None => return text,
        }
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_of_every_kind_of_body() {
        let table = [
            (
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#,
                "MANIFEST_UNKNOWN",
                "manifest unknown",
            ),
            (
                r#"{"errors":[{"code":"DENIED","message":"no","detail":"project is full"}]}"#,
                "DENIED",
                "no: project is full",
            ),
            (r#"{"errors":[{"code":404,"message":null,"detail":"gone"}]}"#, "404", "gone"),
            (r#"{"error":"invalid_grant","error_description":"old token"}"#, "invalid_grant", "old token"),
            (r#"{"details":"incorrect username or password"}"#, "", "incorrect username or password"),
            ("{}", "", ""),
            ("", "", ""),
            (
                "Client sent an HTTP request to an HTTPS server.\n",
                "",
                "Client sent an HTTP request to an HTTPS server.",
            ),
            (
                "<html><head><style>b{x}</style><title>502 Bad Gateway</title></head><body>\n<h1>nginx</h1></html>",
                "",
                "502 Bad Gateway nginx",
            ),
            (
                "<html><head><title>404 Not Found</title></head><body><h1>404 Not Found</h1><p>by Apache</p></html>",
                "",
                "404 Not Found by Apache",
            ),
            (
                "<?xml version=\"1.0\"?>\n<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>",
                "",
                "AccessDenied Request has expired",
            ),
            ("a\u{1b}[31mb\r\nc", "", "a [31mb c"),
        ];
        for (body, code, message) in table {
            let expected =
                Words { code: code.to_owned(), message: message.to_owned(), page: body.starts_with("<html") };
            assert_eq!(words(body.as_bytes()), expected, "{body}");
        }
    }

    proptest! {
        #[test]
        fn any_body_gives_one_short_line(body in prop::collection::vec(any::<u8>(), 0..2000)) {
            let words = words(&body);
            prop_assert!(words.message.chars().count() <= MAX_MESSAGE + 1 && !words.message.contains(char::is_control));
        }

        #[test]
        fn any_page_is_survived(page in "<[<>/a-zA-Z!\\-é ]{0,200}") {
            words(page.as_bytes());
        }
    }
}
