//! A bundle's files as they were when it was opened. A bundle never changes, so what was written to since then is some other bundle, or
//! none: not a byte of it is given out as this one's.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use ferry_content::files::ReadAt;

use crate::Slices;
use crate::slices::Slice;

/// Files, and what they were.
#[derive(Debug)]
pub(crate) struct Steady {
    slices: Arc<Slices>,
    /// Of each part: its size, and when it was last written to. A rename is no change, so the time of that does not count.
    seen: Vec<Option<Seen>>,
}

type Seen = (u64, i64, i64);

impl Steady {
    pub(crate) fn new(slices: Arc<Slices>) -> Self {
        let seen = slices.parts().iter().map(|part| look(part).ok().flatten()).collect();
        Self { slices, seen }
    }

    /// Whether `length` bytes at `offset` are still those of then.
    ///
    /// # Errors
    /// With the file that was written to; the system's own.
    pub(crate) fn check(&self, offset: u64, length: u64) -> io::Result<()> {
        let room = self.slices.room().unwrap_or(u64::MAX);
        let last = offset.saturating_add(length.saturating_sub(1)) / room;
        let parts = self.slices.parts().iter().zip(&self.seen).enumerate();
        for (_, (part, seen)) in parts.filter(|(i, _)| (offset / room..=last).contains(&(*i as u64))) {
            if look(part)? != *seen {
                let why = format!(
                    "`{}` was written to after it was opened (its size or its time is another), and nothing of it is believed any more: \
                     start again",
                    part.path.display()
                );
                return Err(io::Error::other(why));
            }
        }
        Ok(())
    }
}

fn look(part: &Slice) -> io::Result<Option<Seen>> {
    let metadata = part.file().map(std::fs::File::metadata).transpose()?;
    Ok(metadata.map(|m| (m.len(), m.mtime(), m.mtime_nsec())))
}

impl ReadAt for Steady {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let read = self.slices.read_exact_at(buffer, offset);
        // afterwards: what was written during the read counts, and it is the better reason for bytes that are not there
        self.check(offset, buffer.len() as u64)?;
        read
    }

    /// What was written to is left to [`read_exact_at`](Self::read_exact_at), which says so.
    fn read_cached_at(&self, buffer: &mut [u8], offset: u64) -> bool {
        self.slices.read_cached_at(buffer, offset) && self.check(offset, buffer.len() as u64).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_was_written_to_is_not_read_and_the_other_volumes_are() {
        let folder = tempfile::tempdir().expect("folder");
        let part = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, [7; 10]).expect("write");
            // long ago: a write within the same tick of the clock could not be told
            let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
            File::options().write(true).open(&path).expect("open").set_modified(old).expect("time");
            Slice::open(path.clone(), File::open(path).expect("open")).expect("slice")
        };
        let slices = Arc::new(Slices::volumes(vec![part("v.001"), part("v.002")], 10));
        let steady = Steady::new(slices);
        let read = |at: u64| steady.read_exact_at(&mut [0; 5], at).map_err(|e| e.to_string());
        assert_eq!((read(0), read(7), read(15)), (Ok(()), Ok(()), Ok(())));
        // another name is no other file, and another file of that name is not read
        std::fs::rename(folder.path().join("v.001"), folder.path().join("old")).expect("rename");
        std::fs::write(folder.path().join("v.001"), [8; 10]).expect("write");
        assert_eq!(read(0), Ok(()));
        File::options().write(true).open(folder.path().join("v.002")).expect("open").write_all(b"x").expect("write");
        for at in [7, 15] {
            assert!(!steady.read_cached_at(&mut [0; 5], at), "nor out of memory");
            let told = read(at).expect_err("changed");
            assert!(told.contains("v.002` was written to after it was opened"), "{told}");
        }
        assert_eq!(read(5), Ok(()));
        File::options().write(true).open(folder.path().join("old")).expect("open").set_len(3).expect("cut");
        assert!(read(5).expect_err("cut").contains("written to"));
    }
}
