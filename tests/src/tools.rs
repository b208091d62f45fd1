//! Which real counterparts this machine has.
//!
//! A test that lacks its counterpart is skipped with a line on stderr, and with `CI=true` it fails: there, nothing may be left out
//! without being noticed.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Output};

/// Where a program is: on `PATH`, in the folders of daemons, or where `scripts/test` puts what no distribution has.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .chain(own_folders())
        .map(|folder| folder.join(program))
        .find(|file| file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0))
}

/// `$FERRY_TOOLS`, or `tools` in the target folder of the running test.
fn own_folders() -> Vec<PathBuf> {
    if let Some(folder) = std::env::var_os("FERRY_TOOLS") {
        return vec![folder.into()];
    }
    let me = std::env::current_exe().unwrap_or_default();
    me.ancestors().skip(1).take(3).map(|folder| folder.join("tools")).collect()
}

/// Whether a need is met: a program's name, or `root`, `netns` or `busybox-static`.
#[must_use]
pub fn has(need: &str) -> bool {
    match need {
        "root" => std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0),
        "netns" => crate::netns::available(),
        "busybox-static" => crate::images::busybox_available(),
        program => find(program).is_some(),
    }
}

/// Whether the current test may run; says so and records it when not. See [`require!`](crate::require).
#[must_use]
pub fn may_run(needs: &[&str]) -> bool {
    let missing: Vec<&str> = needs.iter().copied().filter(|need| !has(need)).collect();
    if missing.is_empty() {
        return true;
    }
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    skip(&format!("{test}: needs {}", missing.join(", ")));
    false
}

/// Records that something is left out.
///
/// # Panics
/// With `CI=true`, where nothing may be left out.
pub fn skip(what: &str) {
    let line = format!("SKIP {what}\n");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{line}");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    if let Some(file) = std::env::var_os("FERRY_SKIP_LOG") {
        let mut log = OpenOptions::new().create(true).append(true).open(file).unwrap();
        log.write_all(line.as_bytes()).unwrap();
    }
}

/// Runs a program to its end and returns what it said.
///
/// # Panics
/// When it cannot be started.
pub fn run(program: &str, arguments: &[&str]) -> Output {
    let path = find(program).unwrap_or_else(|| panic!("{program} is not installed"));
    Command::new(path).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"))
}

/// Runs a program that must succeed, and returns its stdout.
///
/// # Panics
/// When it fails, with all it said.
pub fn succeed(program: &str, arguments: &[&str]) -> String {
    let output = run(program, arguments);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{stdout}\n{stderr}", output.status);
    stdout.into_owned()
}

/// Leaves the test, with a recorded line, unless this machine has all of the named programs.
#[macro_export]
macro_rules! require {
    ($($need:expr),+ $(,)?) => {
        if !$crate::tools::may_run(&[$($need),+]) {
            return;
        }
    };
}
