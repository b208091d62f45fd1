//! Words for people. stdout carries data, stderr carries talk.
use std::borrow::Cow;
use std::io::Write;
use std::process::ExitCode;
use std::sync::OnceLock;

use ferry_content::{Kind, Problem, Problems};
use ferry_registry_server::Lines;

use crate::failure::{End, of_the_disk};

/// A line of data on standard output. A reader that went away is no error.
pub(crate) fn out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{text}");
}

/// A line of talk on standard error. A reader that went away must not end a long build.
pub(crate) fn talk(text: &str) {
    match QUEUE.get() {
        Some(lines) => lines.write(format!("{}\n", harmless(text))),
        None => drop(writeln!(std::io::stderr().lock(), "{}", harmless(text))),
    }
}

/// What is said on standard error, where a thread of its own says it.
static QUEUE: OnceLock<Lines> = OnceLock::new();

/// From now on whoever says something does not wait for the reader: a server must not stand still because its log does.
pub(crate) fn without_waiting() {
    let lost = |lines| format!("{lines} lines are lost: nothing took them\n");
    let _ = QUEUE.set(Lines::to("log", Stderr, lost));
}

/// Says the last words, of a run that does not wait otherwise.
pub(crate) fn flush() {
    if let Some(lines) = QUEUE.get() {
        lines.flush();
    }
}

/// Standard error, a line with one call.
pub(crate) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        std::io::stderr().lock().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().lock().flush()
    }
}

/// Where lines of the log go: to the thread, where there is one.
pub(crate) struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match QUEUE.get() {
            Some(lines) => lines.write(String::from_utf8_lossy(bytes).into_owned()),
            None => std::io::stderr().lock().write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Talk quotes what archives and registries say of themselves: whatever could move the cursor, colour or turn text around is
/// escaped here, whoever wrote it.
fn harmless(text: &str) -> Cow<'_, str> {
    let moves = |c: char| {
        (c.is_control() && !matches!(c, '\n' | '\t'))
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(moves) {
        return Cow::Borrowed(text);
    }
    text.chars()
        .fold(String::with_capacity(text.len()), |mut out, c| {
            if moves(c) {
                out.extend(c.escape_default())
            } else {
                out.push(c)
            }
            out
        })
        .into()
}

/// Warnings, each on a line of its own.
pub(crate) fn warnings(warnings: &[String]) {
    for warning in warnings {
        talk(&format!("warning: {warning}"));
    }
}

/// Says how a command ended, and with which code.
pub(crate) fn end(end: &End) -> ExitCode {
    match end {
        End::Interrupted => {
            talk("interrupted; run the same command again: what it keeps on a disk or at a target is used then");
            ExitCode::from(130)
        }
        End::Different => ExitCode::from(1),
        End::Problems(problems) => {
            warnings(problems.warnings());
            let mut last_hint = None;
            for (problem, more) in causes(problems) {
                match more {
                    0 => talk(&format!("error: {problem}")),
                    more => talk(&format!("error: {} and {more} more: {}", problem.subject, problem.failure)),
                }
                let hint = problem.failure.hint();
                // one hint for a run of the same mistakes
                if hint != last_hint
                    && let Some(hint) = &hint
                {
                    talk(&format!("  hint: {hint}"));
                }
                last_hint = hint;
            }
            ExitCode::from(problems.kind().exit_code())
        }
    }
}

/// Each problem once, with how many others have the same cause: a registry or a disk that fails does so for every image. What is wrong
/// with things themselves is told of each.
fn causes(problems: &Problems) -> Vec<(&Problem, usize)> {
    let mut causes: Vec<(&Problem, String, usize)> = Vec::new();
    for problem in problems.iter() {
        let said = match of_the_disk(problem.failure.as_ref()) {
            Some(kind) => kind.to_string(),
            None => problem.failure.to_string(),
        };
        let is_one = matches!(problem.failure.kind(), Kind::Remote | Kind::Local) && !problem.subject.is_empty();
        let same = |(first, words, _): &&mut (&Problem, String, usize)| {
            is_one && !first.subject.is_empty() && *words == said && first.failure.kind() == problem.failure.kind()
        };
        match causes.iter_mut().find(same) {
            Some((first, _, more)) => *more += usize::from(first.subject != problem.subject),
            None => causes.push((problem, said, 0)),
        }
    }
    causes.into_iter().map(|(problem, _, more)| (problem, more)).collect()
}

/// Bytes for people: `1.2 GB`, and exact below 1 kB. Decimal, as media are sold and as sizes on the command line are read (`4G`): so a
/// size that was asked for is shown as it was typed.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if n < 1000 {
        return format!("{n} B");
    }
    let mut unit = 0;
    let mut tenths = n / 100;
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths /= 1000;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// `1 image`, `2 images`.
pub(crate) fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// `1 was there`, `2 were there`.
pub(crate) fn there(n: usize) -> String {
    format!("{n} {} there", if n == 1 { "was" } else { "were" })
}

/// Rows in columns, two spaces apart.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut lines = Vec::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        lines.push(format!("  {}", cells.join("  ").trim_end()));
    }
    harmless(&lines.join("\n")).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn talk_cannot_move_the_cursor() {
        assert_eq!(harmless("a\n\tb é"), "a\n\tb é");
        assert_eq!(harmless("\u{1b}[31mred\r\u{202e}x\u{9b}"), "\\u{1b}[31mred\\r\\u{202e}x\\u{9b}");
    }

    #[test]
    fn one_cause_is_told_once_and_what_is_wrong_with_things_of_each() {
        use ferry_content::Error as E;
        let full = |path: &str| E::io("write", path, std::io::ErrorKind::StorageFull.into());
        let lost = |path: &str| E::io("read", path, std::io::ErrorKind::NotFound.into());
        let text = || E::Text { path: "x".into(), why: "y".to_owned() };
        let mut problems = Problems::default();
        problems.add("image `a`", full("uploads/1"));
        problems.add("image `a`", lost("f"));
        problems.add("image `b`", E::other(full("uploads/2").at(ferry_content::Side::Target)));
        problems.add("image `b`", lost("g"));
        problems.add("a.yaml", text());
        problems.add("b.yaml", text());
        problems.add("image `c`", ferry_install::Error::from(full("uploads/3")));
        let told: Vec<_> = causes(&problems).into_iter().map(|(one, more)| (one.subject.as_str(), more)).collect();
        assert_eq!(told, [("image `a`", 2), ("image `a`", 0), ("image `b`", 0), ("a.yaml", 0), ("b.yaml", 0)]);
    }

    #[test]
    fn bytes_for_people() {
        for (n, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_999, "999.9 kB"),
            (5_000_000, "5.0 MB"),
            (4_700_000_000, "4.7 GB"),
            (u64::MAX, "18446.7 PB"),
        ] {
            assert_eq!(bytes(n), text);
        }
    }
}
