//! The files of a bundle that is not finished: `NAME.partial`, or its volumes `NAME.partial.001` and so on, and the journal. How they are
//! claimed, found again, and in the end named.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::disk::{
    allocate, allocated, check_room, discard, open_locked, refuse_other_than_file, sync_folder, with_ending,
};
use crate::journal::{self, Header, Journal, Record, Told};
use crate::ranges::Ranges;
use crate::{Error, Slice, Slices, list, volumes};

/// The files of one build.
#[derive(Debug)]
pub(crate) struct Unfinished {
    output: PathBuf,
    partial: PathBuf,
    journal: PathBuf,
    /// `NAME.partial`, locked: the bundle itself, or empty beside volumes.
    lock: File,
    /// Whether this claim made it.
    is_new: bool,
    /// Whether what an earlier build left was given up.
    is_emptied: bool,
}

impl Unfinished {
    /// What an interrupted build of `output` wrote into its journal.
    pub(crate) fn peek(output: &Path) -> Result<Option<Header>, Error> {
        journal::peek(&with_ending(&with_ending(output, ".partial"), ".journal"))
    }

    /// Claims the files against other builds.
    pub(crate) fn claim(output: &Path) -> Result<Self, Error> {
        refuse_other_than_file(output)?;
        volumes::refuse_name(output)?;
        let partial = with_ending(output, ".partial");
        refuse_other_than_file(&partial)?;
        let journal = with_ending(&partial, ".journal");
        let is_new = !partial.exists();
        let lock = open_locked(&partial)?;
        Ok(Self { output: output.to_owned(), partial, journal, lock, is_new, is_emptied: false })
    }

    /// Claims the files, unless there is a journal of a build that was interrupted.
    pub(crate) fn claim_unless_begun(output: &Path) -> Result<Option<Self>, Error> {
        let claim = Self::claim(output)?;
        match claim.journal.exists() {
            true => claim.give_up().map(|()| None),
            false => Ok(Some(claim)),
        }
    }

    /// Nothing was done: leaves everything as it was found.
    pub(crate) fn give_up(self) -> Result<(), Error> {
        if self.is_new { discard(&self.partial) } else { Ok(()) }
    }

    /// Nothing is unfinished: what a killed run may have left goes.
    pub(crate) fn discard(self) -> Result<(), Error> {
        discard(&self.partial)
    }

    pub(crate) fn output(&self) -> &Path {
        &self.output
    }

    pub(crate) fn partial(&self) -> &Path {
        &self.partial
    }

    pub(crate) fn journal(&self) -> &Path {
        &self.journal
    }

    /// Opens what an earlier build of the same bundle left, or begins anew: with what is kept of each blob.
    pub(crate) fn open(&mut self, header: &Header, blobs: &[u64]) -> Result<(Slices, Vec<Ranges>), Error> {
        let opened = self.open_files(header, blobs);
        // without a journal nothing of it can be continued, so that nothing of it stays
        if opened.is_err() && !self.journal.exists() && (self.is_new || self.is_emptied) {
            let volumes = volumes::in_folder(&self.partial)?.into_values().filter(|path| path.is_file());
            volumes.chain([self.partial.clone()]).try_for_each(|path| discard(&path))?;
        }
        opened
    }

    fn open_files(&mut self, header: &Header, blobs: &[u64]) -> Result<(Slices, Vec<Ranges>), Error> {
        self.refuse_other_kind(header.volume)?;
        header.volume.map_or(Ok(()), |volume| volumes::refuse_too_many(header.size, volume))?;
        let told = journal::read(&self.journal, blobs)?;
        let same = |told: &Told| {
            let (a, b) = (&told.header, header);
            (&a.sums, a.size, a.volume) == (&b.sums, b.size, b.volume)
        };
        let told = told.filter(same);
        let files = self.files(header);
        let is_sealing = told.as_ref().is_some_and(|told| told.is_sealing);
        if header.volume.is_some() && !is_sealing {
            self.refuse_strangers()?;
        }
        if is_sealing {
            self.unname(&files)?;
        }
        let is_whole = |Planned { path, size, .. }: &Planned| {
            std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() == *size)
        };
        let told = told.filter(|_| files.iter().all(is_whole));
        // what another build left makes room first
        let is_ours = |path: &PathBuf| files.iter().any(|ours| ours.path == *path);
        for path in volumes::in_folder(&self.partial)?.into_values().filter(|path| !is_ours(path)) {
            discard(&path)?;
        }
        if header.volume.is_some() {
            self.lock.set_len(0).map_err(|e| Error::io("write", &self.partial, e))?;
        }
        let there: u64 = files.iter().map(|file| allocated(&file.path)).sum();
        check_room(&self.partial, header.size, there)?;
        if told.is_none() {
            discard(&self.journal)?;
            self.is_emptied = true;
        }
        let mut parts = Vec::new();
        for Planned { path, size, .. } in &files {
            let file = match header.volume {
                None => self.lock.try_clone().map_err(|e| Error::io("open", path, e))?,
                Some(_) => {
                    let mut options = File::options();
                    let opened = options.read(true).write(true).create(true).truncate(false).open(path);
                    opened.map_err(|e| Error::io("create", path, e))?
                }
            };
            if told.is_none() {
                allocate(&file, path, *size).map_err(|e| whole(e, header.size))?;
            }
            parts.push(Slice::open(path.clone(), file).map_err(|e| Error::io("read", path, e))?);
        }
        let written = told.map_or_else(|| vec![Ranges::default(); blobs.len()], |told| told.kept);
        Ok((Slices::volumes(parts, header.volume.unwrap_or(u64::MAX)), written))
    }

    /// One name is one bundle: a file does not stand beside volumes of the same name.
    fn refuse_other_kind(&self, volume: Option<u64>) -> Result<(), Error> {
        let other = match volume {
            Some(_) => self.output.exists().then(|| self.output.clone()),
            None => volumes::in_folder(&self.output)?.into_values().next(),
        };
        other.map_or(Ok(()), |path| Err(Error::InTheWay { path }))
    }

    /// Volumes that stand under the final names must be those of an earlier bundle, by its list: nothing else is replaced or removed.
    fn refuse_strangers(&self) -> Result<(), Error> {
        let listed = match std::fs::read(list::path(&self.output)) {
            Err(_) => 0,
            // of a list that is damaged nobody can tell how many it had
            Ok(text) => std::str::from_utf8(&text)
                .ok()
                .and_then(|text| list::parse(&self.output, text).ok())
                .map_or(usize::MAX, |digests| digests.len()),
        };
        let mut there = volumes::in_folder(&self.output)?.into_iter();
        let stranger = there.find(|(number, _)| *number as usize > listed);
        stranger.map_or(Ok(()), |(_, path)| Err(Error::InTheWay { path }))
    }

    /// The files to write.
    fn files(&self, header: &Header) -> Vec<Planned> {
        let Some(volume) = header.volume else {
            return vec![Planned { path: self.partial.clone(), size: header.size, named: self.output.clone() }];
        };
        let count = u32::try_from(header.size.div_ceil(volume)).unwrap_or(u32::MAX);
        let planned = |number: u32| Planned {
            path: volumes::name(&self.partial, number),
            size: volume.min(header.size - volume * u64::from(number - 1)),
            named: volumes::name(&self.output, number),
        };
        (1..=count).map(planned).collect()
    }

    /// Takes back what a build that was interrupted while it sealed had named already.
    fn unname(&mut self, files: &[Planned]) -> Result<(), Error> {
        for Planned { path, size, named } in files {
            let is_there = |path: &Path| std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() == *size);
            // `NAME.partial` itself is there as soon as it is claimed
            if is_there(named) && !is_there(path) {
                std::fs::rename(named, path).map_err(|e| Error::io("rename", named, e))?;
                if *path == self.partial {
                    // what was claimed is gone, and this is a finished bundle
                    self.is_new = false;
                    self.lock = open_locked(path)?;
                }
            }
        }
        Ok(())
    }

    /// Writes the list of volumes, under an unfinished name.
    pub(crate) fn put_list(&self, text: &str, signature: Option<&str>) -> Result<(), Error> {
        let list = [(list::path(&self.partial), Some(text)), (list::signature_path(&self.partial), signature)];
        for (path, text) in list {
            let Some(text) = text else {
                discard(&path)?;
                continue;
            };
            let write = || -> std::io::Result<()> {
                std::fs::write(&path, text)?;
                File::open(&path)?.sync_all()
            };
            write().map_err(|e| Error::io("write", &path, e))?;
        }
        Ok(())
    }

    /// Gives every file its final name, the list of volumes last. What had these names is replaced.
    pub(crate) fn name(&self, header: &Header) -> Result<(), Error> {
        refuse_other_than_file(&self.output)?;
        Journal::open(&self.journal)?.append(&[Record::Sealing]).map_err(|e| Error::io("write", &self.journal, e))?;
        let files = self.files(header);
        let lists = [
            (list::path(&self.partial), list::path(&self.output)),
            (list::signature_path(&self.partial), list::signature_path(&self.output)),
        ];
        if header.volume.is_some() {
            for (_, old) in &lists {
                discard(old)?;
            }
        }
        for Planned { path, named, .. } in &files {
            std::fs::rename(path, named).map_err(|e| Error::io("create", named, e))?;
        }
        if header.volume.is_some() {
            for surplus in volumes::in_folder(&self.output)?
                .into_values()
                .filter(|path| files.iter().all(|file| file.named != *path))
            {
                discard(&surplus)?;
            }
            for (path, named) in lists.iter().filter(|(path, _)| path.exists()) {
                std::fs::rename(path, named).map_err(|e| Error::io("create", named, e))?;
            }
        }
        sync_folder(&self.output)?;
        discard(&self.journal)?;
        match header.volume {
            Some(_) => discard(&self.partial),
            None => Ok(()),
        }
    }
}

/// A file on its way to its name.
#[derive(Debug)]
struct Planned {
    path: PathBuf,
    /// The bytes that it will have.
    size: u64,
    /// Its name in the end.
    named: PathBuf,
}

/// The need of all volumes together, where one of them finds the disk full.
fn whole(error: Error, size: u64) -> Error {
    match error {
        Error::DiskFull { path, available, .. } => Error::DiskFull { path, needed: size, available },
        other => other,
    }
}
