//! A node's own container engine, by its own command: what it has, and taking images in. A command ends with whoever waits for it.
//!
//! The archive goes into the command's standard input as it is made; nothing is written to a disk of ours.

mod containerd;
mod docker;
mod socket;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ferry_content::Problems;
use ferry_content::copy::{self, Progress};
use ferry_image::{Digest, Platform};

use crate::Error;
use crate::export::{Export, Exported, Fault, Part, To, write_pipe};

/// The most that is read of what a command says.
const MAX_SAID: u64 = 64 << 20;
/// The most lines of a complaint that are told.
const TOLD: usize = 6;
/// How often is looked whether a command has ended.
const STEP: Duration = Duration::from_millis(10);
/// How long a command may take to end by itself when it gets no more.
const GRACE: Duration = Duration::from_secs(1);

/// A container engine on this machine.
#[derive(Debug, Clone)]
pub enum Node {
    /// containerd, by `ctr`.
    Containerd {
        /// The namespace; that of Kubernetes is `k8s.io`.
        namespace: String,
        /// Its socket, as a path; where `ctr` looks when none.
        address: Option<String>,
        /// The platform that was asked for, if it may be another than this machine's.
        platform: Option<Platform>,
    },
    /// Docker, by `docker`.
    Docker {
        /// Its address; where `docker` looks when none.
        host: Option<String>,
    },
}

/// What an engine has under the names of an export.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stock(Vec<Had>);

/// One image of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Had {
    name: String,
    digest: Digest,
    is_whole: bool,
}

impl Node {
    /// What an export for it has to be.
    #[must_use]
    pub fn form(&self) -> To {
        match self {
            Self::Containerd { .. } => To::Containerd,
            Self::Docker { .. } => To::Docker,
        }
    }

    /// Its program.
    fn program(&self) -> &'static str {
        match self {
            Self::Containerd { .. } => "ctr",
            Self::Docker { .. } => "docker",
        }
    }

    /// The socket that its command will ask, as far as that is known.
    fn socket(&self) -> Option<&Path> {
        match self {
            Self::Containerd { address, .. } => socket::path(address.as_deref().unwrap_or(socket::CONTAINERD)),
            Self::Docker { host } => socket::path(host.as_deref()?),
        }
    }

    /// Asks what it has.
    ///
    /// # Errors
    /// [`Fault::NoEngine`]; [`Fault::NoProgram`]; [`Fault::Failed`].
    pub async fn stock(&self, export: &Export) -> Result<Stock, Error> {
        if let Some(path) = self.socket() {
            socket::check(self.program(), path)?;
        }
        match self {
            Self::Containerd { .. } => self.containerd_stock(export).await,
            Self::Docker { .. } => self.docker_stock(export.images.iter().map(|chosen| &chosen.exported)).await,
        }
    }

    /// Hands a part over.
    ///
    /// # Errors
    /// What of it could not be read; [`Fault::NoProgram`]; [`Fault::Failed`].
    pub async fn import(
        &self,
        export: &Export,
        part: &Part,
        options: &copy::Options,
        progress: Arc<dyn Progress>,
    ) -> Result<(), Problems> {
        let mut command = self.import_command();
        let shown = shown(&command);
        command.stdin(Stdio::piped());
        let mut running = Running::start(self.program(), command)?;
        let stdin = running.stdin();
        let place = Path::new(&shown).to_owned();
        let gave_up = Arc::new(AtomicBool::new(false));
        let written = match stdin {
            Some(stdin) => {
                let input = Input { stdin, gave_up: Arc::clone(&gave_up) };
                write_pipe(export, part, Box::new(input), &place, options, progress).await
            }
            None => Ok(()),
        };
        let ended = running.end(written.is_err()).await?;
        match written {
            // a command that gives up closes its input: what it says counts, not the broken pipe
            Err(problems) if !gave_up.load(Ordering::Acquire) => Err(problems),
            _ if !ended.status.success() => Err(ended.failed(shown).into()),
            written => written,
        }
    }

    /// The command that takes an archive in, for people.
    #[must_use]
    pub fn shown(&self) -> String {
        shown(&self.import_command())
    }

    fn import_command(&self) -> Command {
        match self {
            Self::Containerd { .. } => self.ctr_import(),
            Self::Docker { .. } => self.docker(&["load"]),
        }
    }

    /// Runs a command that only asks, to its end.
    async fn ask(&self, mut command: Command) -> Result<Ended, Error> {
        command.stdin(Stdio::null());
        Running::start(self.program(), command)?.end(false).await
    }
}

impl Stock {
    /// Whether an image is there, as it would be imported.
    #[must_use]
    pub fn has(&self, image: &Exported) -> bool {
        let is_it = |had: &Had| had.is_whole && (had.digest == image.digest || image.id.as_ref() == Some(&had.digest));
        let is_there = |name: &String| self.0.iter().any(|had| had.name == *name && is_it(had));
        match has_tags(image) {
            true => names(image).iter().all(is_there),
            // by one id or the other, as the engine's own store has it
            false => names(image).iter().any(is_there),
        }
    }

    /// What is there under an image's names, for people.
    #[must_use]
    pub fn shown(&self, image: &Exported) -> String {
        let names = names(image);
        let found = self.0.iter().filter(|had| names.contains(&had.name));
        let found: Vec<String> = found
            .map(|had| format!("`{}` is {}{}", had.name, had.digest, if had.is_whole { "" } else { ", not whole" }))
            .collect();
        match found.is_empty() {
            true => format!("there is no `{}`", names.join("` and no `")),
            false => found.join(", "),
        }
    }
}

/// What an engine is asked for.
fn names(image: &Exported) -> Vec<String> {
    match (&image.id, image.tags.as_slice()) {
        (None, _) => vec![image.name.clone()],
        (Some(id), []) => vec![id.to_string(), image.digest.to_string()],
        (Some(_), tags) => tags.to_vec(),
    }
}

fn has_tags(image: &Exported) -> bool {
    image.id.is_none() || !image.tags.is_empty()
}

/// The standard input of a command, which may stop reading it.
struct Input {
    stdin: ChildStdin,
    gave_up: Arc<AtomicBool>,
}

impl Write for Input {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.stdin.write(bytes);
        if written.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe) {
            self.gave_up.store(true, Ordering::Release);
        }
        written
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stdin.flush()
    }
}

/// A command that runs; ended when dropped.
struct Running {
    child: Child,
    out: File,
    said: File,
    program: &'static str,
}

/// A command that ended.
struct Ended {
    status: ExitStatus,
    /// `None` when it is more than is read.
    out: Option<String>,
    said: String,
    program: &'static str,
}

impl Running {
    fn start(program: &'static str, mut command: Command) -> Result<Self, Error> {
        let fail = |source| no_end(program, source);
        // files, not pipes: a command that says much must not wait for a reader
        let (out, said) = (tempfile::tempfile().map_err(fail)?, tempfile::tempfile().map_err(fail)?);
        command.stdout(out.try_clone().map_err(fail)?).stderr(said.try_clone().map_err(fail)?);
        let child = command.spawn().map_err(fail)?;
        Ok(Self { child, out, said, program })
    }

    fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Waits for its end; one that got half of what it waits for is told to end.
    async fn end(mut self, is_cut: bool) -> Result<Ended, Error> {
        let fail = |source| no_end(self.program, source);
        let begun = Instant::now();
        // not on a thread that waits: that would hold the child when whoever asked is interrupted
        let status = loop {
            if let Some(status) = self.child.try_wait().map_err(fail)? {
                break status;
            }
            // it may end by itself, and then what it says counts
            if is_cut && begun.elapsed() > GRACE {
                self.child.kill().map_err(fail)?;
            }
            tokio::time::sleep(STEP).await;
        };
        let text = |file: &mut File| {
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(0)).and_then(|_| file.take(MAX_SAID).read_to_end(&mut bytes)).map_err(fail)?;
            Ok::<_, Error>(String::from_utf8_lossy(&bytes).into_owned())
        };
        let is_whole = self.out.metadata().map_err(fail)?.len() <= MAX_SAID;
        let (out, said) = (text(&mut self.out)?, text(&mut self.said)?);
        Ok(Ended { status, out: is_whole.then_some(out), said, program: self.program })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Ended {
    /// What it printed. Half of a list would be taken for what the node has.
    fn printed(self, command: String) -> Result<String, Error> {
        let words = format!("it prints more than {} MiB, which is no list of images or blobs", MAX_SAID >> 20);
        self.out.ok_or_else(|| Fault::Failed { program: self.program, command, words }.into())
    }

    fn failed(&self, command: String) -> Error {
        let mut lines: Vec<&str> = self.said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        // asked for several images, docker says the same of each
        let mut seen = BTreeSet::new();
        lines.retain(|line| seen.insert(*line));
        let last = &lines[lines.len().saturating_sub(TOLD)..];
        let words = if last.is_empty() { self.status.to_string() } else { last.join("\n    ") };
        Fault::Failed { program: self.program, command, words }.into()
    }
}

fn no_end(program: &'static str, source: std::io::Error) -> Error {
    Fault::NoProgram { program, source }.into()
}

/// A command as it could be typed.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_list_that_is_too_long_to_read_whole_is_an_error_and_not_half_a_list() {
        let says = async |bytes: u64| {
            let mut command = Command::new("head");
            command.args(["-c", &bytes.to_string(), "/dev/zero"]);
            let ended = Running::start("ctr", command).expect("it starts").end(false).await.expect("it ends");
            assert!(ended.status.success());
            ended.printed("ctr content ls".to_owned())
        };
        assert_eq!(says(MAX_SAID).await.expect("all of it").len() as u64, MAX_SAID);
        let told = says(MAX_SAID + 1).await.expect_err("too long").to_string();
        assert!(told.contains("`ctr content ls` failed") && told.contains("more than 64 MiB"), "{told}");
    }
}
