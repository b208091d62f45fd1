//! Bundles as they are named on the command line: files, volumes, `-`.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ferry_archive::volumes::{self, VolumeState};
use ferry_archive::{Error as ArchiveError, Inflow, Location};

use crate::failure::{End, Error};
use crate::{args, print};

/// What `-` is called in messages.
pub(crate) const STDIN: &str = "standard input";
/// How often somebody looks whether a volume came.
pub(crate) const LOOK: Duration = Duration::from_millis(500);

/// What is meant by one or several arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Named {
    /// `-`.
    Pipe,
    /// A file, or volumes.
    At(Location),
}

/// The bundles that are meant by `paths`: volumes of one name are one bundle. What stands beside a bundle (signatures, lists, recovery
/// files, the report) and is named with it, as a shell's `shop.tar*` does, is passed over.
pub(crate) fn named(paths: &[PathBuf]) -> Result<Vec<Named>, End> {
    let is_pipe = |path: &&PathBuf| path.as_os_str() == "-";
    let files: Vec<PathBuf> = paths.iter().filter(|path| !is_pipe(path) && !is_beside(path, paths)).cloned().collect();
    let pipe = paths.iter().find(is_pipe).map(|_| Named::Pipe);
    Ok(pipe.into_iter().chain(Location::group(&files)?.into_iter().map(Named::At)).collect())
}

/// `--wait-for-volume 600` means `--wait-for-volume` and a bundle `600`; somebody else was meant to wait 600 seconds.
pub(crate) fn refuse_seconds_apart(paths: &[PathBuf], waiting: &args::Waiting) -> Result<(), End> {
    let is_number = |path: &&PathBuf| path.to_str().is_some_and(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match paths.iter().filter(is_number).find(|path| !path.exists()) {
        Some(seconds) if waiting.wait_for_volume.is_some() => {
            let seconds = seconds.display();
            let why = format!("`{seconds}` is taken for a bundle, and there is none of that name");
            Err(Error::usage(why, format!("to wait {seconds} seconds write `--wait-for-volume={seconds}`")).into())
        }
        _ => Ok(()),
    }
}

/// The one bundle that is meant by `paths`, where one is worked on and every place of it must be within reach.
pub(crate) fn one(paths: &[PathBuf]) -> Result<Location, End> {
    let mut all = locations(paths)?;
    match (all.pop(), all.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(_), false) => {
            let hint = "name one; volumes in several folders are one bundle where they have one name";
            Err(Error::usage("one bundle is needed here, and several are named", hint).into())
        }
        (None, _) => Err(Error::usage("no bundle is named", "name its file, or one of its volumes").into()),
    }
}

/// [`named`], where nothing comes through a pipe.
pub(crate) fn locations(paths: &[PathBuf]) -> Result<Vec<Location>, End> {
    let at = |named| match named {
        Named::At(location) => Ok(location),
        Named::Pipe => {
            let why = "`-` is standard input, and this command must be able to read the bundle at any place";
            let hint = "write it into a file first, and name that; `ferry verify` and `ferry install` read from a pipe";
            Err(Error::usage(why, hint).into())
        }
    };
    named(paths)?.into_iter().map(at).collect()
}

/// Whether a file belongs to a bundle that is named, too, and is none itself.
pub(crate) fn is_beside(path: &Path, all: &[PathBuf]) -> bool {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let of = |bundle: &Path| volumes::parse(bundle).map_or_else(|| bundle.to_owned(), |(base, _)| base);
    let companion = |rest: &str| {
        let kinds = [".sha256", ".minisig", ".sig", ".report.json", ".renaming"];
        kinds.iter().any(|kind| rest.ends_with(kind)) || rest.starts_with(".recovery-")
    };
    let mine = name(path);
    all.iter().filter(|other| *other != path).any(|other| {
        let rest = mine.strip_prefix(&name(&of(other))).unwrap_or_default();
        rest.starts_with('.') && companion(rest)
    })
}

/// What standard input has.
pub(crate) fn stdin() -> Inflow {
    Box::new(io::stdin()).into()
}

/// Volumes that could not all be found, read one after the other as somebody brings them: if that was asked for, or somebody is there
/// to be asked. `None` when `error` is something else, or nobody would come.
pub(crate) fn in_order(
    location: &Location,
    error: &ArchiveError,
    waiting: &args::Waiting,
) -> Result<Option<Inflow>, End> {
    let ArchiveError::Volumes { faults, .. } = error else { return Ok(None) };
    let can_ask = waiting.wait_for_volume.is_none() && io::stdin().is_terminal() && io::stderr().is_terminal();
    let absent = faults.iter().all(|fault| fault.what == VolumeState::Absent);
    if !location.is_split() || !absent || !(can_ask || waiting.wait_for_volume.is_some()) {
        return Ok(None);
    }
    let (location, seconds) = (location.clone(), waiting.wait_for_volume);
    let place = location.clone();
    let next = move |number| match find(&place, number) {
        Some(file) => Ok(file),
        None => wait(&place, number, seconds),
    };
    Ok(Some(Inflow::volumes(&location, next)?))
}

/// The volume, if it is where it was named or where others are.
fn find(location: &Location, number: u32) -> Option<File> {
    let known = location.volumes.get(&number).cloned();
    let name = volumes::name(&location.base, number);
    let beside = location.volumes.values().filter_map(|path| Some(path.with_file_name(name.file_name()?)));
    known.into_iter().chain([name.clone()]).chain(beside).find_map(|path| File::open(path).ok())
}

/// Waits until the volume is there: for so many seconds at most (0: as long as it takes), or until somebody says that it is.
fn wait(location: &Location, number: u32, seconds: Option<u64>) -> io::Result<File> {
    let name = volumes::name(&location.base, number);
    let started = Instant::now();
    match seconds {
        Some(_) => print::talk(&format!("waiting for {}", name.display())),
        None => print::talk(&format!("{} is needed now: bring it there, then press Enter (or Ctrl-C)", name.display())),
    }
    loop {
        if seconds.is_none() {
            let mut line = String::new();
            if io::stdin().read_line(&mut line)? == 0 {
                break;
            }
        }
        if let Some(file) = find(location, number) {
            return Ok(file);
        }
        match seconds {
            None => print::talk(&format!("{} is not there", name.display())),
            Some(limit) if limit > 0 && started.elapsed() >= Duration::from_secs(limit) => break,
            Some(_) => std::thread::sleep(LOOK),
        }
    }
    let why = format!("`{}` did not come", name.display());
    Err(io::Error::new(io::ErrorKind::NotFound, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_beside_a_bundle_is_no_bundle() {
        let all: Vec<PathBuf> = [
            "v/s.tar.001",
            "v/s.tar.002",
            "v/s.tar.sha256",
            "v/s.tar.sha256.minisig",
            "v/s.tar.bob.minisig",
            "v/s.tar.recovery-001",
            "v/s.tar.report.json",
            "v/s.tar.cosign.sig",
            "other.tar",
            "s.tar.gz",
        ]
        .iter()
        .map(PathBuf::from)
        .collect();
        let bundles: Vec<_> =
            all.iter().filter(|path| !is_beside(path, &all)).map(|path| path.to_string_lossy()).collect();
        assert_eq!(bundles, ["v/s.tar.001", "v/s.tar.002", "other.tar", "s.tar.gz"]);
        let alone = [PathBuf::from("s.tar.sha256")];
        assert!(!is_beside(&alone[0], &alone), "named alone it is told to be none");
    }
}
