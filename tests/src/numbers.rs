//! Numbers that tests measure beside what they assert, one a line on standard error: `scripts/soak numbers` collects them.

use std::io::Write as _;

/// Says one.
pub fn tell(name: &str, value: f64, unit: &str) {
    say(&format!("NUMBER\t{name}\t{value:.3}\t{unit}"));
}

/// Says a line, of a table for example.
pub fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}
