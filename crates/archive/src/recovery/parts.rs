//! The volumes of a damaged bundle (or its only file) as they lie there: absent, cut, under a wrong name.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use super::beside::Beside;
use super::found::Found;
use super::page;
use crate::Error;
use crate::disk::with_ending;

/// So many chunks of a volume are compared to tell which one it is.
const SAMPLES: u16 = 8;

/// What holds the content of a volume.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) path: PathBuf,
    pub(super) file: Option<File>,
    /// The bytes that it has.
    pub(super) length: u64,
}

/// Two volumes, or a volume and a name that was free, that have to change places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misnamed {
    /// The name that it has.
    pub found: PathBuf,
    /// The name that belongs to it.
    pub belongs: PathBuf,
}

/// Opens the volumes by their names.
pub(super) fn open(found: &Found, beside: &Beside) -> Result<Vec<Part>, Error> {
    let geometry = &found.id.geometry;
    let open = |volume| {
        let path = beside.volume(geometry.volume().is_some(), volume);
        // a run that was killed while it exchanged two volumes left one of them under a name of its own
        let path = Some(aside(&path)).filter(|aside| !path.exists() && aside.exists()).unwrap_or(path);
        match std::fs::metadata(&path) {
            Ok(metadata) if !metadata.is_file() => return Err(Error::NotAFile { path }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Part { path, file: None, length: 0 }),
            Err(e) => return Err(Error::io("read", path, e)),
            Ok(_) => {}
        }
        let file = File::open(&path).map_err(|e| Error::io("read", &path, e))?;
        let length = file.metadata().map_err(|e| Error::io("read", &path, e))?.len();
        Ok(Part { path, file: Some(file), length })
    };
    let mut parts: Vec<Part> = (0..geometry.volumes()).map(open).collect::<Result<_, _>>()?;
    // one whose own name is taken still has its content: it stands in for a volume that is not there, whichever it turns out to be
    for volume in 0..geometry.volumes() {
        let left = aside(&beside.volume(geometry.volume().is_some(), volume));
        if left.is_file()
            && parts.iter().all(|part| part.path != left)
            && let Some(free) = parts.iter_mut().find(|part| part.file.is_none())
        {
            let file = File::open(&left).map_err(|e| Error::io("read", &left, e))?;
            let length = file.metadata().map_err(|e| Error::io("read", &left, e))?.len();
            *free = Part { path: left, file: Some(file), length };
        }
    }
    Ok(parts)
}

/// Where a volume is for a moment while two of them change places, one of which will be `path`.
fn aside(path: &Path) -> PathBuf {
    with_ending(path, ".renaming")
}

/// Puts each volume to the number that its content belongs to, and says which have to be renamed for that, in order.
pub(super) fn arrange(found: &Found, parts: &mut [Part], names: &[PathBuf]) -> Vec<Misnamed> {
    let claims: Vec<Option<usize>> = parts.iter().enumerate().map(|(own, part)| claim(found, part, own)).collect();
    // who should stand at each number: whoever claims it, its own file before others
    let mut wanted: Vec<Option<usize>> = vec![None; parts.len()];
    for (own, claimed) in claims.iter().enumerate().filter_map(|(own, claimed)| Some((own, (*claimed)?))) {
        if claimed == own || claims[claimed] != Some(claimed) {
            wanted[claimed].get_or_insert(own);
        }
    }
    let mut at: Vec<usize> = (0..parts.len()).collect();
    let mut renames = Vec::new();
    for (number, owner) in wanted.iter().enumerate() {
        let Some(owner) = owner else { continue };
        let Some(now) = at.iter().position(|who| who == owner).filter(|now| *now != number) else { continue };
        renames.push(Misnamed { found: names[now].clone(), belongs: names[number].clone() });
        at.swap(now, number);
        parts.swap(now, number);
    }
    renames
}

/// Which volume a part holds, if that can be told.
fn claim(found: &Found, part: &Part, own: usize) -> Option<usize> {
    let geometry = &found.id.geometry;
    let file = part.file.as_ref().filter(|_| geometry.volumes() > 1)?;
    let each = geometry.per_volume();
    let column = geometry.column(0);
    let mut matches = vec![0_u16; usize::try_from(geometry.volumes()).unwrap_or(0)];
    for nth in (0..each).step_by(usize::from(each.div_ceil(SAMPLES))) {
        for (volume, count) in matches.iter_mut().enumerate() {
            let Ok(shard) = u16::try_from(volume * usize::from(each) + usize::from(nth)) else { continue };
            let (_, range) = geometry.part(shard, &column);
            let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or(0)];
            let known = found.sum(shard, 0).filter(|_| !bytes.is_empty());
            if known.is_some() && file.read_exact_at(&mut bytes, range.start).is_ok() {
                *count += u16::from(known == Some(page::sum(&bytes)));
            }
        }
    }
    let best = matches.iter().copied().max().filter(|best| *best > 0)?;
    if matches.get(own) == Some(&best) { Some(own) } else { matches.iter().position(|n| *n == best) }
}

/// Renames on the disk, each step at once, so that a kill leaves every volume under a name where the next run finds it.
pub(super) fn rename(
    parts: &mut [Part],
    renames: &[Misnamed],
    names: &[PathBuf],
    asides: &[PathBuf],
) -> Result<(), Error> {
    // what a killed run has left aside goes to the name that it stood in for
    for (found, belongs) in asides.iter().zip(names).filter(|(found, belongs)| found != belongs) {
        if found.exists() && !belongs.exists() {
            step(found, belongs, found, belongs)?;
        }
    }
    for Misnamed { found, belongs } in renames {
        if belongs.exists() {
            exchange(found, belongs, |a, b| rustix::fs::renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE))?;
        } else {
            step(found, belongs, found, belongs)?;
        }
    }
    for (part, name) in parts.iter_mut().zip(names) {
        part.path.clone_from(name);
    }
    Ok(())
}

/// Two files change names: at once where the file system can, else in three steps.
fn exchange(
    found: &Path,
    belongs: &Path,
    at_once: impl Fn(&Path, &Path) -> rustix::io::Result<()>,
) -> Result<(), Error> {
    match at_once(found, belongs) {
        Ok(()) => crate::disk::sync_folder(belongs),
        // exFAT, older vfat, NFS
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            steps(found, belongs).iter().try_for_each(|(from, to)| step(from, to, found, belongs))
        }
        Err(e) => Err(failed(e.into(), found, belongs)),
    }
}

/// The renames that exchange two files one after the other. After any of them all content is still there, and [`open`] finds it.
fn steps(found: &Path, belongs: &Path) -> [(PathBuf, PathBuf); 3] {
    let (found, belongs, aside) = (found.to_owned(), belongs.to_owned(), aside(belongs));
    [(found.clone(), aside.clone()), (belongs.clone(), found), (aside, belongs)]
}

fn step(from: &Path, to: &Path, found: &Path, belongs: &Path) -> Result<(), Error> {
    std::fs::rename(from, to).map_err(|e| failed(e, found, belongs))?;
    crate::disk::sync_folder(from)?;
    crate::disk::sync_folder(to)
}

fn failed(error: std::io::Error, found: &Path, belongs: &Path) -> Error {
    match error.kind() {
        std::io::ErrorKind::CrossesDevices => {
            Error::AcrossDisks { found: found.to_owned(), belongs: belongs.to_owned() }
        }
        _ => Error::io("rename", found, error),
    }
}

/// Refuses to write over what is read.
pub(super) fn refuse_same(parts: &[Part], outputs: &[PathBuf]) -> Result<(), Error> {
    use std::os::unix::fs::MetadataExt as _;
    let identity = |path: &Path| std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
    let read: Vec<_> = parts.iter().filter_map(|part| identity(&part.path)).collect();
    match outputs.iter().find(|path| identity(path).is_some_and(|id| read.contains(&id))) {
        Some(path) => {
            let why = "it is the damaged bundle itself; name another file, or leave `-o` out".to_owned();
            Err(Error::OutOfPlace { path: path.clone(), why })
        }
        None => Ok(()),
    }
}

/// Reads bytes of the bundle from its parts, if they are there.
pub(super) fn read(found: &Found, parts: &[Part], mut buffer: &mut [u8], mut at: u64) -> Option<()> {
    let each = found.id.geometry.volume().unwrap_or(u64::MAX);
    while !buffer.is_empty() {
        let part = parts.get(usize::try_from(at / each).ok()?)?;
        let here = usize::try_from(each - at % each).unwrap_or(usize::MAX).min(buffer.len());
        let (now, rest) = buffer.split_at_mut(here);
        part.file.as_ref()?.read_exact_at(now, at % each).ok()?;
        (buffer, at) = (rest, at + here as u64);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_is_exchanged_at_once_it_takes_three_steps() {
        let folder = tempfile::tempdir().expect("folder");
        let [a, b] = ["b.tar.001", "b.tar.002"].map(|name| folder.path().join(name));
        for refusal in [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP] {
            std::fs::write(&a, "second").expect("write");
            std::fs::write(&b, "first").expect("write");
            exchange(&a, &b, |_, _| Err(refusal)).expect("exchange");
            let read = |path| std::fs::read_to_string(path).expect("read");
            assert_eq!((read(&a), read(&b)), ("first".to_owned(), "second".to_owned()));
            assert_eq!(std::fs::read_dir(folder.path()).expect("folder").count(), 2);
        }
        let error = exchange(&a, &b, |_, _| Err(Errno::XDEV)).expect_err("two disks");
        assert!(matches!(error, Error::AcrossDisks { .. }), "{error}");
    }
}
