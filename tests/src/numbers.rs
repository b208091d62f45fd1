//! Numbers that tests measure beside what they assert, one a line on standard error: `scripts/soak numbers` collects them.

use std::io::Write as _;

/// Says one.
pub fn tell(name: &str, value: f64, unit: &str) {
    let line = format!("NUMBER\t{name}\t{value:.3}\t{unit}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}
