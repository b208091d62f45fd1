//! The `ferry` binary, run as a user runs it: its own process, a home of its own, nothing inherited that could steer it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::NamedTempFile;

use crate::netns::Namespace;
use crate::tools;

/// Where the binary is: `$FERRY_BIN`, or beside the folder of the running test.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("FERRY_BIN") {
        return path.into();
    }
    let me = std::env::current_exe().unwrap();
    me.ancestors()
        .skip(1)
        .take(3)
        .map(|folder| folder.join("ferry"))
        .find(|file| file.is_file())
        .expect("`ferry` is not built: run `cargo build -p ferry-cli` first, or set FERRY_BIN")
}

/// A command line to run.
#[derive(Debug)]
pub struct Ferry {
    command: Command,
    timeout: Duration,
    /// Where stdout goes, if it is no text.
    stdout: Option<PathBuf>,
    shown: String,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The exit code; 128 and the signal's number when a signal ended it.
    pub code: i32,
    /// What scripts read.
    pub stdout: String,
    /// What people read.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
    shown: String,
}

impl Ferry {
    /// `ferry ARGUMENT…` in `folder`, which is its home too.
    #[must_use]
    pub fn new<A: AsRef<OsStr>>(folder: &Path, arguments: impl IntoIterator<Item = A>) -> Self {
        let arguments: Vec<OsString> = arguments.into_iter().map(|a| a.as_ref().to_owned()).collect();
        let shown = arguments.iter().map(|a| format!(" {}", a.display())).collect();
        let mut command = Command::new(binary());
        command.args(arguments).current_dir(folder).stdin(Stdio::null());
        // a wrapper such as `unshare` may be put before it: hence no `env_clear`, but everything that steers ferry
        for name in ["DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "NO_COLOR"] {
            command.env_remove(name);
        }
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy().to_ascii_lowercase();
            if text.starts_with("ferry_") || text.ends_with("_proxy") {
                command.env_remove(name);
            }
        }
        command.env("HOME", folder);
        Self { command, timeout: Duration::from_secs(120), stdout: None, shown }
    }

    /// Runs it in a network namespace.
    #[must_use]
    pub fn within(mut self, namespace: &Namespace) -> Self {
        let mut command = Command::new(tools::find("ip").expect("ip is installed"));
        command.args(["netns", "exec", namespace.name()]).arg(self.command.get_program()).args(self.command.get_args());
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.current_dir(self.command.get_current_dir().expect("it has a folder")).stdin(Stdio::null());
        self.command = command;
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.shown += &format!(" {}", argument.as_ref().display());
        self.command.arg(argument);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Gives it a file as stdin.
    #[must_use]
    pub fn stdin(mut self, file: &Path) -> Self {
        self.command.stdin(File::open(file).unwrap());
        self
    }

    /// Sends its stdout, which is no text then, into a file.
    #[must_use]
    pub fn stdout(mut self, file: &Path) -> Self {
        self.stdout = Some(file.to_owned());
        self
    }

    /// How long it may take before the test fails; two minutes unless said.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Runs it to its end.
    pub fn run(self) -> Outcome {
        self.start().wait()
    }

    /// Runs it, and expects exit code 0.
    pub fn ok(self) -> Outcome {
        self.run().expect_code(0)
    }

    /// Starts it and returns at once.
    pub fn start(mut self) -> Running {
        // files, not pipes: nobody has to read along, and a killed child cannot leave a reader hanging
        let (stdout, stderr) = (NamedTempFile::new().unwrap(), NamedTempFile::new().unwrap());
        let append = |file: &NamedTempFile| File::options().append(true).open(file.path()).unwrap();
        let out = self.stdout.as_ref().map_or_else(|| append(&stdout), |path| File::create(path).unwrap());
        self.command.stdout(out).stderr(append(&stderr));
        let child = self.command.spawn().unwrap_or_else(|e| panic!("ferry{}: {e}", self.shown));
        Running { child, stdout, stderr, started: Instant::now(), timeout: self.timeout, shown: self.shown }
    }
}

impl Outcome {
    /// Fails the test unless the exit code is `code`; shows everything said.
    #[must_use]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "$ ferry{}\nstdout:\n{}\nstderr:\n{}", self.shown, self.stdout, self.stderr);
        self
    }

    /// Fails the test unless stderr says each of these, in any order.
    pub fn says(&self, words: &[&str]) -> &Self {
        for word in words {
            assert!(self.stderr.contains(word), "$ ferry{}\nlacks `{word}` in stderr:\n{}", self.shown, self.stderr);
        }
        self
    }

    /// stdout as JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("not JSON ({e}): {}", self.stdout))
    }
}

/// A `ferry` that runs; killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: NamedTempFile,
    stderr: NamedTempFile,
    started: Instant,
    timeout: Duration,
    shown: String,
}

impl Running {
    /// Waits for its end.
    ///
    /// # Panics
    /// When it takes longer than its time.
    pub fn wait(mut self) -> Outcome {
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            let said = self.stderr();
            assert!(self.started.elapsed() < self.timeout, "$ ferry{}\nstill runs; it said:\n{said}", self.shown);
            std::thread::sleep(Duration::from_millis(5));
        };
        Outcome {
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()),
            took: self.started.elapsed(),
            stdout: read(&self.stdout),
            stderr: self.stderr(),
            shown: std::mem::take(&mut self.shown),
        }
    }

    /// Gives it this long from now on.
    #[must_use]
    pub fn timeout_after(mut self, timeout: Duration) -> Self {
        self.timeout = self.started.elapsed() + timeout;
        self
    }

    /// What it said on stderr so far.
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// Whether it has not ended yet.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until `there` says so.
    ///
    /// # Panics
    /// When ferry ends before, or it takes too long.
    pub fn until(&mut self, what: &str, mut there: impl FnMut() -> bool) {
        while !there() {
            let runs = self.runs();
            assert!(runs, "$ ferry{}\nended before {what}:\n{}", self.shown, self.stderr());
            assert!(self.started.elapsed() < self.timeout, "$ ferry{}\nnever: {what}\n{}", self.shown, self.stderr());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until it said this on stderr.
    ///
    /// # Panics
    /// When it ends before, or it takes too long.
    pub fn until_it_says(&mut self, words: &str) {
        let file = self.stderr.path().to_owned();
        self.until(&format!("it says `{words}`"), || {
            std::fs::read(&file).is_ok_and(|said| String::from_utf8_lossy(&said).contains(words))
        });
    }

    /// Sends a signal by its name: `INT`, `TERM`.
    pub fn signal(&self, name: &str) {
        tools::succeed("sh", &["-c", &format!("kill -{name} {}", self.child.id())]);
    }

    /// Waits until it stands still after `STOP`: no thread of it is in the kernel any more.
    ///
    /// # Panics
    /// When it takes longer than that.
    pub fn stands_still(&self, most: Duration) {
        let started = Instant::now();
        let stopped = |stat: String| {
            stat.rsplit(") ").next().is_some_and(|rest| ["T", "t", "Z", "X"].iter().any(|s| rest.starts_with(s)))
        };
        loop {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).into_iter().flatten().flatten();
            let mut stats = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
            if stats.all(stopped) {
                return;
            }
            assert!(started.elapsed() < most, "$ ferry{}\nit does not stand still", self.shown);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends it as a power cut would.
    pub fn kill(mut self) -> Outcome {
        let _ = self.child.kill();
        self.wait()
    }

    /// The highest resident memory so far, in bytes.
    #[must_use]
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() * 1024
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(file: &NamedTempFile) -> String {
    String::from_utf8_lossy(&std::fs::read(file.path()).unwrap()).into_owned()
}
