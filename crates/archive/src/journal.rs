//! The journal beside an unfinished bundle: which bytes of which blobs are safely on the disk.
//!
//! Text, one record a line, each proving itself by a short checksum: a line torn by a crash is passed over. A record
//! is only believed as far as "worth hashing again". That bytes are kept is written after they were synced; that a blob is finished at once, so
//! that a killed process loses none.

use std::fs::File;
use std::io::{BufReader, Read as _, Write as _};
use std::ops::Range;
use std::path::Path;

use ferry_image::Digest;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::disk::with_ending;
use crate::ranges::Ranges;

/// The largest journal that is read, in bytes. A larger one is as good as none.
const MAX_JOURNAL: u64 = 256 << 20;
const CHECK: usize = 16;

/// The first record: which bundle this is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    /// The journal's own format.
    pub(crate) journal: u32,
    /// The digest of the bundle's sums.
    pub(crate) sums: Digest,
    /// The size of the finished bundle in bytes.
    pub(crate) size: u64,
    /// The bytes of every volume but the last; one file without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) volume: Option<u64>,
    /// What the build was asked for.
    pub(crate) inputs: String,
    /// What that was resolved to.
    pub(crate) lock: String,
}

/// A later record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// Bytes of the blob at this place in the head's list are on the disk.
    Kept(usize, Range<u64>),
    /// All bytes of that blob were written and hashed; a power loss may take them.
    Finished(usize),
    /// All bytes of that blob are to be forgotten: their digest was wrong.
    Forgotten(usize),
    /// All is kept, and files are about to get their final names: what does not stand under its unfinished name stands under that.
    Sealing,
}

/// What a journal says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// Which bundle it is about.
    pub(crate) header: Header,
    /// What is kept of each blob.
    pub(crate) kept: Vec<Ranges>,
    /// Whether files were about to get their final names.
    pub(crate) is_sealing: bool,
}

/// An open journal, to append to.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
}

impl Record {
    fn print(&self) -> String {
        match self {
            Self::Kept(blob, range) => format!("kept {blob} {} {}", range.start, range.end),
            Self::Finished(blob) => format!("finished {blob}"),
            Self::Forgotten(blob) => format!("forgotten {blob}"),
            Self::Sealing => "sealing".to_owned(),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        match words.as_slice() {
            ["kept", blob, start, end] => Some(Self::Kept(blob.parse().ok()?, start.parse().ok()?..end.parse().ok()?)),
            ["sealing"] => Some(Self::Sealing),
            ["finished", blob] => Some(Self::Finished(blob.parse().ok()?)),
            ["forgotten", blob] => Some(Self::Forgotten(blob.parse().ok()?)),
            _ => None,
        }
    }
}

impl Journal {
    /// Replaces the journal at `path` by a new one with these records.
    pub(crate) fn create(path: &Path, header: &Header, records: &[Record]) -> Result<Self, Error> {
        let mut text = seal(&serde_json::to_string(header).map_err(|e| Error::io("write", path, e))?);
        for record in records {
            text.push_str(&seal(&record.print()));
        }
        let new = with_ending(path, ".new");
        let mut file = File::create(&new).map_err(|e| Error::io("create", &new, e))?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|e| Error::io("write", &new, e))?;
        std::fs::rename(&new, path).map_err(|e| Error::io("create", path, e))?;
        Ok(Self { file })
    }

    /// Opens the journal at `path` to append to it.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::options().append(true).open(path).map_err(|e| Error::io("write", path, e))?;
        Ok(Self { file })
    }

    /// Appends records and syncs them.
    pub(crate) fn append(&self, records: &[Record]) -> std::io::Result<()> {
        self.note(records)?;
        self.file.sync_data()
    }

    /// Appends records that a power loss may take. From any thread: they are written in one piece.
    pub(crate) fn note(&self, records: &[Record]) -> std::io::Result<()> {
        let text: String = records.iter().map(|r| seal(&r.print())).collect();
        (&self.file).write_all(text.as_bytes())
    }
}

/// Reads the header alone. `None` when there is no journal, or none that is any good.
pub(crate) fn peek(path: &Path) -> Result<Option<Header>, Error> {
    let Some(mut reader) = open(path)? else { return Ok(None) };
    Ok(next_line(&mut reader, path)?.as_deref().and_then(header))
}

/// Reads the journal: its header, and what is kept of each of `blobs` (their sizes). Anything that does not hold is passed over.
pub(crate) fn read(path: &Path, blobs: &[u64]) -> Result<Option<Told>, Error> {
    let Some(mut reader) = open(path)? else { return Ok(None) };
    let Some(header) = next_line(&mut reader, path)?.as_deref().and_then(header) else { return Ok(None) };
    let mut kept = vec![Ranges::default(); blobs.len()];
    let mut is_sealing = false;
    while let Some(line) = next_line(&mut reader, path)? {
        match unseal(&line).and_then(Record::parse) {
            Some(Record::Kept(blob, range)) if blobs.get(blob).is_some_and(|size| range.end <= *size) => {
                kept[blob].insert(range);
            }
            Some(Record::Sealing) => is_sealing = true,
            Some(Record::Finished(blob)) if blob < blobs.len() => kept[blob].insert(0..blobs[blob]),
            Some(Record::Forgotten(blob)) if blob < blobs.len() => kept[blob] = Ranges::default(),
            _ => {}
        }
    }
    Ok(Some(Told { header, kept, is_sealing }))
}

fn open(path: &Path) -> Result<Option<BufReader<std::io::Take<File>>>, Error> {
    match File::open(path) {
        Ok(file) => Ok(Some(BufReader::new(file.take(MAX_JOURNAL)))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read", path, e)),
    }
}

fn next_line(reader: &mut impl std::io::BufRead, path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let mut line = Vec::new();
    let read = reader.read_until(b'\n', &mut line).map_err(|e| Error::io("read", path, e))?;
    Ok((read > 0).then_some(line))
}

fn header(line: &[u8]) -> Option<Header> {
    serde_json::from_str(unseal(line)?).ok().filter(|h: &Header| h.journal == 2)
}

/// One line: the record after the beginning of its digest.
pub(crate) fn seal(record: &str) -> String {
    format!("{} {record}\n", &Digest::of(record.as_bytes()).hex()[..CHECK])
}

fn unseal(line: &[u8]) -> Option<&str> {
    let (check, record) = std::str::from_utf8(line).ok()?.strip_suffix('\n')?.split_once(' ')?;
    (check == &Digest::of(record.as_bytes()).hex()[..CHECK]).then_some(record)
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "lists of ranges that happen to have one")]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            journal: 2,
            sums: Digest::of(b"s"),
            size: 7,
            volume: None,
            inputs: "a\nb".to_owned(),
            lock: "{}".to_owned(),
        }
    }

    #[test]
    fn a_journal_reads_back_as_far_as_it_is_whole() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("j");
        assert!(peek(&path).expect("none").is_none());
        let journal = Journal::create(&path, &header(), &[Record::Kept(1, 0..5)]).expect("create");
        journal.append(&[Record::Kept(0, 2..4), Record::Kept(1, 5..9), Record::Kept(9, 0..1)]).expect("append");
        journal.note(&[Record::Finished(2), Record::Finished(9)]).expect("append");
        journal.append(&[Record::Forgotten(2), Record::Kept(2, 1..2)]).expect("append");
        drop(journal);
        let sizes = [4, 9, 3];
        let Told { header: found, kept, is_sealing } = read(&path, &sizes).expect("read").expect("journal");
        assert!(!is_sealing);
        assert_eq!((found, peek(&path).expect("peek")), (header(), Some(header())));
        let lists: Vec<Vec<_>> = kept.iter().map(|k| k.iter().collect()).collect();
        assert_eq!(lists, [vec![2..4], vec![0..9], vec![1..2]]);

        let whole = std::fs::read(&path).expect("bytes");
        let first = whole.iter().position(|b| *b == b'\n').expect("line") + 1;
        for end in 0..whole.len() {
            std::fs::write(&path, &whole[..end]).expect("cut");
            assert_eq!(read(&path, &sizes).expect("read").is_some(), end >= first, "cut at {end}");
        }
        let mut torn = whole.clone();
        torn[first + 20] ^= 1;
        std::fs::write(&path, &torn).expect("torn");
        let Told { kept, .. } = read(&path, &sizes).expect("read").expect("journal");
        assert_eq!(kept[1].iter().collect::<Vec<_>>(), [5..9], "only the torn line is passed over");
    }
}
