//! A line of the access log: the "combined" form of Apache and nginx, which every reader of logs knows, and two fields after it.
//!
//! ```text
//! 10.0.0.7 - ann [26/Nov/2026:22:11:13 +0000] "GET /v2/app/blobs/sha256:… HTTP/1.1" 200 5242880 "-" "containerd/1.6.20" ms=48
//! 10.0.0.7 - - [26/Nov/2026:22:11:14 +0000] "GET /v2/app/blobs/sha256:… HTTP/1.1" 200 1048576 "-" "curl/7.88" ms=9 broken="the client went away"
//! - - - [26/Nov/2026:22:11:15 +0000] "-" 0 0 "-" "-" ms=0 lost=903
//! ```

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use http::Version;
use jiff::Timestamp;

use super::milliseconds;

/// A time, as these logs have it.
const TIME: &str = "[%d/%b/%Y:%H:%M:%S +0000]";
/// The most of a path, in bytes; of other fields an eighth. No name or digest is longer, and nobody can fill the log's disk with one request.
const MAX_TARGET: usize = 2048;

/// The time as the access log has it, for lines that stand beside it: `[26/Nov/2026:22:11:13 +0000]`.
#[must_use]
pub fn log_time(at: Timestamp) -> String {
    at.strftime(TIME).to_string()
}

/// What a line says of a request, all of it from outside.
pub(super) struct Line {
    /// `None` for a request that came by no connection.
    pub(super) client: Option<IpAddr>,
    /// The name given, whether or not its password was right: the status says that.
    pub(super) user: Option<String>,
    pub(super) method: String,
    pub(super) target: String,
    pub(super) version: Version,
    pub(super) referer: Option<String>,
    pub(super) agent: Option<String>,
}

impl Line {
    /// The line, its end included. `sent` counts the bytes of the answer's body, `broken` says why it was not sent whole.
    pub(super) fn text(&self, at: Timestamp, status: u16, sent: u64, took: Duration, broken: Option<&str>) -> String {
        let short =
            |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), |t| escaped(t, MAX_TARGET / 8));
        let client = self.client.map_or_else(|| "-".to_owned(), |ip| ip.to_string());
        // what would end the field, or look like the next one
        let user = short(&self.user).replace(' ', "\\x20").replace('[', "\\x5B").replace(']', "\\x5D");
        let mut line = format!(
            r#"{client} - {} {} "{} {} {:?}" {status} {sent} "{}" "{}" ms={}"#,
            if user.is_empty() { "-" } else { &user },
            at.strftime(TIME),
            escaped(&self.method, MAX_TARGET / 8),
            escaped(&self.target, MAX_TARGET),
            self.version,
            short(&self.referer),
            short(&self.agent),
            milliseconds(took),
        );
        if let Some(why) = broken {
            let _ = write!(line, r#" broken="{}""#, escaped(why, MAX_TARGET));
        }
        line.push('\n');
        line
    }
}

/// The line that stands for so many that could not be written, its end included.
pub(super) fn lost(at: Timestamp, lines: u64) -> String {
    format!("- - - {} \"-\" 0 0 \"-\" \"-\" ms=0 lost={lines}\n", at.strftime(TIME))
}

/// Printable ASCII without quotes and backslashes; every other byte as `\xHH`, as nginx has it. What is longer than `most` bytes ends in `...`.
fn escaped(text: &str, most: usize) -> String {
    let mut out = String::with_capacity(text.len().min(most));
    for byte in text.bytes().take(most) {
        match byte {
            b'"' | b'\\' | 0..=0x1f | 0x7f..=0xff => {
                let _ = write!(out, "\\x{byte:02X}");
            }
            _ => out.push(char::from(byte)),
        }
    }
    if text.len() > most {
        out.push_str("...");
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(target: &str, user: Option<&str>, agent: Option<&str>) -> Line {
        Line {
            client: Some(IpAddr::from([10, 0, 0, 7])),
            user: user.map(str::to_owned),
            method: "GET".to_owned(),
            target: target.to_owned(),
            version: Version::HTTP_11,
            referer: None,
            agent: agent.map(str::to_owned),
        }
    }

    #[test]
    fn lines_have_the_combined_form() {
        let at: Timestamp = "2026-11-26T22:11:13.9Z".parse().expect("time");
        let took = Duration::from_micros(48_900);
        let whole = line("/v2/a/tags/list?n=5", Some("ann"), Some("curl/7.88")).text(at, 200, 17, took, None);
        let expected = "10.0.0.7 - ann [26/Nov/2026:22:11:13 +0000] \"GET /v2/a/tags/list?n=5 HTTP/1.1\" 200 17 \"-\" \"curl/7.88\" ms=48\n";
        assert_eq!(whole, expected);
        let broken = line("/v2/", None, None).text(at, 200, 3, took, Some("the \"disk\" went"));
        let expected = "10.0.0.7 - - [26/Nov/2026:22:11:13 +0000] \"GET /v2/ HTTP/1.1\" 200 3 \"-\" \"-\" ms=48 broken=\"the \\x22disk\\x22 went\"\n";
        assert_eq!(broken, expected);
    }

    proptest! {
        #[test]
        fn nobody_can_forge_a_line_or_a_field(target in ".{0,40}", user in ".{0,20}", agent in ".{0,40}", long in 0..9000_usize) {
            let target = format!("{target}{}", "x".repeat(long));
            let text = line(&target, Some(&user), Some(&agent)).text(Timestamp::UNIX_EPOCH, 404, 0, Duration::ZERO, None);
            prop_assert!(text.bytes().all(|b| (b' '..0x7f).contains(&b) || b == b'\n'), "{}", text);
            prop_assert_eq!(text.matches('\n').count(), 1);
            prop_assert_eq!(text.matches('"').count(), 6);
            prop_assert!(text.len() < 20_000);
            prop_assert_eq!(text.split(" [").next().map(|start| start.split(' ').count()), Some(3), "{}", text);
        }
    }
}
