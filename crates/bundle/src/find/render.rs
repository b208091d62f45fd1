//! Helm and kustomize, run: what they print is looked at like any YAML.

use std::ffi::OsStr;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ferry_content::Problems;
use ferry_rewrite::find;

use super::gather::{Chart, shown};
use super::{From, Item};
use crate::Error;

/// How much a program may print.
const MAX_OUTPUT: u64 = 128 << 20;
/// How much of its complaint is shown.
const MAX_SAID: usize = 4000;

/// Programs that render, where there are such.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `helm`.
    pub helm: Option<PathBuf>,
    /// `kustomize`.
    pub kustomize: Option<PathBuf>,
    /// `kubectl`, which has kustomize in it.
    pub kubectl: Option<PathBuf>,
    /// How long each may run.
    pub timeout: Duration,
}

/// What came out.
#[derive(Debug, Default)]
pub(super) struct Rendered {
    pub(super) items: Vec<Item>,
    pub(super) skipped: Vec<String>,
    pub(super) runs: usize,
}

/// Renders every chart and kustomization.
pub(super) fn all(
    programs: &Programs,
    charts: &[Chart],
    kustomizations: &[PathBuf],
    values: &[PathBuf],
) -> Result<Rendered, Problems> {
    let mut out = Rendered::default();
    let mut problems = Problems::default();
    for chart in charts {
        match programs.helm(chart, values) {
            Ok(text) => out.add(&shown(&chart.disk), &text),
            Err(error) => problems.add(shown(&chart.disk), error),
        }
    }
    for folder in kustomizations {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder.as_path() };
        match programs.kustomize(folder) {
            Ok(text) => out.add(&shown(folder), &text),
            Err(error) => problems.add(shown(folder), error),
        }
    }
    problems.or(out)
}

impl Programs {
    fn helm(&self, chart: &Chart, values: &[PathBuf]) -> Result<String, Error> {
        let helm = self.helm.as_ref().ok_or(Error::NoProgram {
            names: "`helm`",
            hint: "install Helm (https://helm.sh) so that `helm` is on PATH, or leave `--render` away",
        })?;
        let mut command = Command::new(helm);
        command.args(["template", "ferry"]).arg(absolute(&chart.disk));
        for file in values {
            command.arg("--values").arg(absolute(file));
        }
        self.run("helm template", command)
    }

    fn kustomize(&self, folder: &Path) -> Result<String, Error> {
        let (program, first) = match (&self.kustomize, &self.kubectl) {
            (Some(program), _) => (program, "build"),
            (None, Some(program)) => (program, "kustomize"),
            (None, None) => {
                return Err(Error::NoProgram {
                    names: "`kustomize` or `kubectl`",
                    hint: "install one of them so that it is on PATH, or leave `--render` away",
                });
            }
        };
        let mut command = Command::new(program);
        command.arg(first).arg(absolute(folder));
        self.run("kustomize", command)
    }

    fn run(&self, name: &str, mut command: Command) -> Result<String, Error> {
        let fail = |why: String| Error::Program { name: name.to_owned(), why };
        let io = |e: std::io::Error| fail(e.to_string());
        // files, not pipes: whoever prints much must not wait for a reader
        let (mut out, mut said) = (tempfile::tempfile().map_err(io)?, tempfile::tempfile().map_err(io)?);
        command.stdin(Stdio::null());
        command.stdout(out.try_clone().map_err(io)?).stderr(said.try_clone().map_err(io)?);
        let mut child = command.spawn().map_err(io)?;
        let started = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().map_err(io)? {
                break status;
            }
            let large = out.metadata().is_ok_and(|m| m.len() > MAX_OUTPUT);
            if large || started.elapsed() > self.timeout {
                let _ = child.kill();
                let _ = child.wait();
                let why = if large {
                    format!("it prints more than {} MiB", MAX_OUTPUT >> 20)
                } else {
                    format!("it still runs after {} s", self.timeout.as_secs())
                };
                return Err(fail(why));
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let text = |file: &mut std::fs::File| {
            let mut bytes = Vec::new();
            file.rewind().and_then(|()| file.take(MAX_OUTPUT + 1).read_to_end(&mut bytes)).map_err(io)?;
            Ok::<_, Error>(String::from_utf8_lossy(&bytes).into_owned())
        };
        if status.success() {
            return text(&mut out);
        }
        let said: String = text(&mut said)?.trim().chars().take(MAX_SAID).collect();
        Err(fail(format!("{status}: {said}")))
    }
}

/// A path that no program can take for an option, or for a chart's name in a repository.
fn absolute(path: &Path) -> impl AsRef<OsStr> {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

impl Rendered {
    /// Looks at each document by itself. Helm says before it which template it comes from.
    fn add(&mut self, of: &str, text: &str) {
        self.runs += 1;
        for document in documents(text) {
            let source = document.lines().take(5).find_map(|line| line.strip_prefix("# Source: "));
            let file = source.map_or_else(|| format!("{of} (rendered)"), |source| source.trim().to_owned());
            let found = find(document);
            self.items.extend(found.findings.into_iter().map(|f| Item::of(&file, f, From::Rendered)));
            self.skipped.extend(found.refused.iter().map(|r| format!("{file} (rendered):{}: {}", r.line, r.reason)));
        }
    }
}

fn documents(text: &str) -> impl Iterator<Item = &str> {
    let text = text.strip_prefix("---\n").unwrap_or(text);
    text.split("\n---\n").filter(|document| !document.trim().is_empty())
}
