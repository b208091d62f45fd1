//! What a repair writes into: damaged volumes in place, lost ones and copies under names of their own until they are whole.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::found::Found;
use super::mend::{Mended, Places};
use super::parts::{self, Part};
use super::report::Was;
use super::scan::Damage;
use crate::disk::{allocate, check_room, discard, open_locked, refuse_other_than_file, sync_folder, with_ending};
use crate::ranges::Ranges;
use crate::{Error, volumes};

/// Opens what has to be written to: damaged volumes in place, lost ones under a name of their own. Room is made before the first byte.
pub(super) fn open_for_writing(found: &Found, parts: &mut [Part], damage: &Damage) -> Result<(), Error> {
    let geometry = &found.id.geometry;
    let mut touched = vec![false; parts.len()];
    for shard in damage.values().flat_map(|column| column.bad.iter().chain(&column.unsure)) {
        let (volume, _) = geometry.place(*shard);
        touched[usize::try_from(volume).unwrap_or(usize::MAX).min(parts.len() - 1)] = true;
    }
    let missing = |(n, part): (usize, &Part)| geometry.volume_size(n as u64).saturating_sub(part.length);
    let needed: u64 = parts.iter().enumerate().map(missing).sum();
    if let Some(first) = parts.iter().enumerate().find(|(n, part)| missing((*n, part)) > 0).map(|(_, part)| part) {
        check_room(&first.path, needed, 0)?;
    }
    for (n, part) in parts.iter_mut().enumerate() {
        let size = geometry.volume_size(n as u64);
        if part.file.is_none() {
            let path = partial(&part.path);
            let file = open_locked(&path)?;
            allocate(&file, &path, size)?;
            *part = Part { path, file: Some(file), length: size };
        } else if touched[n] || part.length != size {
            let failed = |e| Error::io("write", &part.path, e);
            let file = File::options().read(true).write(true).open(&part.path).map_err(failed)?;
            if let Err(rustix::io::Errno::WOULDBLOCK) =
                rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            {
                return Err(Error::Busy { path: part.path.clone() });
            }
            if part.length < size {
                file.set_len(size).map_err(failed)?;
            }
            part.file = Some(file);
        }
    }
    Ok(())
}

/// A lost volume of which anything is beyond repair stays lost as a whole.
pub(super) fn give_up(
    found: &Found,
    parts: &mut [Part],
    was: &[Option<Was>],
    mended: &mut Mended,
) -> Result<(), Error> {
    for (n, part) in parts.iter_mut().enumerate().filter(|(n, _)| was.get(*n) == Some(&Some(Was::Lost))) {
        let (Some(right), Some(beyond)) = (mended.mended.get_mut(n), mended.beyond.get_mut(n)) else { continue };
        if beyond.is_empty() {
            continue;
        }
        *right = Ranges::default();
        beyond.insert(0..found.id.geometry.volume_size(n as u64));
        if part.file.take().is_some() {
            discard(&part.path)?;
        }
    }
    Ok(())
}

/// Cuts off what stands behind a volume's end, unless something of the volume could not be mended: it may be in there.
pub(super) fn cut(found: &Found, parts: &[Part], beyond: &Places) -> Result<(), Error> {
    for (n, (part, beyond)) in parts.iter().zip(beyond).enumerate() {
        let size = found.id.geometry.volume_size(n as u64);
        if let Some(file) = part.file.as_ref().filter(|_| part.length > size && beyond.is_empty()) {
            file.set_len(size).map_err(|e| Error::io("write", &part.path, e))?;
        }
    }
    Ok(())
}

/// Makes what was written durable, and gives it its final name.
pub(super) fn finish(parts: &mut [Part], names: &[PathBuf]) -> Result<(), Error> {
    for (part, name) in parts.iter_mut().zip(names) {
        let Some(file) = &part.file else { continue };
        file.sync_all().map_err(|e| Error::io("sync", &part.path, e))?;
        if part.path != *name {
            std::fs::rename(&part.path, name).map_err(|e| Error::io("rename", &part.path, e))?;
            sync_folder(name)?;
            part.path.clone_from(name);
        }
    }
    Ok(())
}

/// Refuses an output that a copy cannot have: the damaged bundle, something that is no file, a name under which another bundle would be found.
pub(super) fn refuse_output(found: &Found, parts: &[Part], output: &Path) -> Result<(), Error> {
    let base = target(found, parts, output);
    let targets = targets(found, parts, output);
    volumes::refuse_name(&base)?;
    parts::refuse_same(parts, &targets)?;
    targets.iter().try_for_each(|path| refuse_other_than_file(path))?;
    // one name is one bundle
    let one_file = found.id.geometry.volume().is_some().then(|| base.clone()).filter(|path| path.exists());
    let others = volumes::in_folder(&base)?.into_values().filter(|path| !targets.contains(path));
    one_file.into_iter().chain(others).next().map_or(Ok(()), |path| Err(Error::InTheWay { path }))
}

/// The files of a mended copy, under names of their own until it is finished.
pub(super) fn copies(found: &Found, parts: &[Part], output: &Path) -> Result<Vec<Part>, Error> {
    if is_folder(output) {
        std::fs::create_dir_all(output).map_err(|e| Error::io("create", output, e))?;
    }
    let targets = targets(found, parts, output);
    if let Some(first) = targets.first() {
        check_room(first, found.id.geometry.size(), 0)?;
    }
    let mut copies: Vec<Part> = Vec::new();
    for (n, path) in targets.iter().enumerate() {
        let (path, size) = (partial(path), found.id.geometry.volume_size(n as u64));
        // what another run holds is not touched: only what is locked here goes when this comes to nothing
        let made = open_locked(&path).and_then(|file| {
            let allocated = allocate(&file, &path, size);
            copies.push(Part { path, file: Some(file), length: size });
            allocated
        });
        if let Err(error) = made {
            copies.iter().try_for_each(|part| discard(&part.path))?;
            return Err(error);
        }
    }
    Ok(copies)
}

fn is_folder(output: &Path) -> bool {
    output.is_dir() || output.as_os_str().as_encoded_bytes().ends_with(b"/")
}

/// The name of a mended copy: the output, or in it if it is a folder.
pub(super) fn target(found: &Found, parts: &[Part], output: &Path) -> PathBuf {
    if !is_folder(output) {
        return output.to_owned();
    }
    let first = parts.first().map(|part| part.path.as_path()).unwrap_or(output);
    let base = volumes::parse(first).filter(|_| found.id.geometry.volume().is_some()).map(|(base, _)| base);
    output.join(base.as_deref().unwrap_or(first).file_name().unwrap_or_default())
}

pub(super) fn targets(found: &Found, parts: &[Part], output: &Path) -> Vec<PathBuf> {
    let base = target(found, parts, output);
    match found.id.geometry.volume() {
        None => vec![base],
        Some(_) => (1..).zip(parts).map(|(number, _)| volumes::name(&base, number)).collect(),
    }
}

pub(super) fn partial(path: &Path) -> PathBuf {
    with_ending(path, ".partial")
}
