//! The volumes of a damaged bundle (or its only file) as they lie there: absent, cut, under a wrong name.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};

use super::beside::Beside;
use super::found::Found;
use super::page;
use crate::Error;

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
    (0..geometry.volumes()).map(open).collect()
}

/// Puts each volume to the number that its content belongs to, and says which have to be renamed for that, in order.
pub(super) fn arrange(found: &Found, parts: &mut [Part]) -> Vec<Misnamed> {
    let claims: Vec<Option<usize>> = parts.iter().enumerate().map(|(own, part)| claim(found, part, own)).collect();
    // who should stand at each number: whoever claims it, its own file before others
    let mut wanted: Vec<Option<usize>> = vec![None; parts.len()];
    for (own, claimed) in claims.iter().enumerate().filter_map(|(own, claimed)| Some((own, (*claimed)?))) {
        if claimed == own || claims[claimed] != Some(claimed) {
            wanted[claimed].get_or_insert(own);
        }
    }
    let names: Vec<PathBuf> = parts.iter().map(|part| part.path.clone()).collect();
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

/// Renames on the disk, each step at once, so that a kill leaves every volume under some volume's name.
pub(super) fn rename(parts: &mut [Part], renames: &[Misnamed], names: &[PathBuf]) -> Result<(), Error> {
    for Misnamed { found, belongs } in renames {
        let failed = |e: std::io::Error| Error::io("rename", found, e);
        if belongs.exists() {
            let exchanged =
                rustix::fs::renameat_with(CWD, found.as_path(), CWD, belongs.as_path(), RenameFlags::EXCHANGE);
            exchanged.map_err(|e| failed(e.into()))?;
        } else {
            std::fs::rename(found, belongs).map_err(failed)?;
        }
        crate::disk::sync_folder(belongs)?;
    }
    for (part, name) in parts.iter_mut().zip(names) {
        part.path.clone_from(name);
    }
    Ok(())
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
