//! Logs are written by threads of their own: whoever reads one may stop to, and no request waits for that.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::line;
use crate::Reread;

/// Lines that wait to be written; what comes while there are so many is lost, and counted.
const QUEUE: usize = 4096;
/// How long the end of a run waits for the last lines.
const PATIENCE: Duration = Duration::from_secs(2);

/// Lines on their way to where a thread writes them, each with one call. What cannot be written is lost and counted, and nobody fails or waits
/// for it.
/// The last ones are written when the last clone is dropped.
#[derive(Clone)]
pub struct Lines(Arc<Queue>);

struct Queue {
    /// What it is, for people.
    name: &'static str,
    /// `None` when it has ended.
    lines: Option<SyncSender<String>>,
    counts: Arc<Counts>,
    /// Told nothing: it breaks when the thread has ended.
    ended: Mutex<Receiver<()>>,
}

#[derive(Default)]
struct Counts {
    taken: AtomicU64,
    written: AtomicU64,
    lost: AtomicU64,
}

impl Lines {
    /// Begins a thread that writes. `lost` makes the line that stands for so many that were lost.
    #[must_use]
    pub fn to(name: &'static str, writer: impl Write + Send + 'static, lost: fn(u64) -> String) -> Self {
        let (lines, queue) = mpsc::sync_channel::<String>(QUEUE);
        let (end, ended) = mpsc::channel::<()>();
        let counts = Arc::new(Counts::default());
        let counted = Arc::clone(&counts);
        let write = move || {
            let _end = end;
            let mut pen = Pen { name, writer, lost, counts: counted, is_failing: false, is_torn: false };
            // the next line, or when there is none the one that comes
            while let Some(line) = queue.try_recv().ok().or_else(|| {
                pen.tell_lost();
                queue.recv().ok()
            }) {
                pen.tell_lost();
                pen.write(&line);
            }
            pen.tell_lost();
            let _ = pen.writer.flush();
        };
        if let Err(error) = std::thread::Builder::new().name(name.to_owned()).spawn(write) {
            tracing::error!(%error, "no {name} is written");
        }
        Self(Arc::new(Queue { name, lines: Some(lines), counts, ended: Mutex::new(ended) }))
    }

    /// Hands a line on, its end included.
    pub fn write(&self, line: String) {
        let is_taken = self.0.lines.as_ref().is_some_and(|lines| lines.try_send(line).is_ok());
        let count = if is_taken { &self.0.counts.taken } else { &self.0.counts.lost };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until all is written that was handed on, for as long as a reader may need that has not stopped.
    pub fn flush(&self) {
        let (counts, end) = (&self.0.counts, Instant::now() + PATIENCE);
        let taken = counts.taken.load(Ordering::Relaxed);
        while counts.written.load(Ordering::Acquire) < taken && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        drop(self.lines.take());
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        // a reader that has stopped does not hold up the end
        if ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the last lines of the {} are lost: nothing takes them", self.name);
        }
    }
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.name)
    }
}

/// Writes lines, and counts those that cannot be.
struct Pen<W> {
    name: &'static str,
    writer: W,
    lost: fn(u64) -> String,
    counts: Arc<Counts>,
    is_failing: bool,
    /// Whether what was written last is part of a line.
    is_torn: bool,
}

impl<W: Write> Pen<W> {
    fn write(&mut self, line: &str) {
        if !self.put(line) {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
        }
        self.counts.written.fetch_add(1, Ordering::Release);
    }

    fn tell_lost(&mut self) {
        let lines = self.counts.lost.swap(0, Ordering::Relaxed);
        if lines > 0 && !self.put(&(self.lost)(lines)) {
            self.counts.lost.fetch_add(lines, Ordering::Relaxed);
        }
    }

    /// Whether it was written. Where that changes, it is told, once.
    fn put(&mut self, line: &str) -> bool {
        let line = if self.is_torn { Cow::Owned(format!("\n{line}")) } else { Cow::Borrowed(line) };
        match self.put_all(line.as_bytes()) {
            Ok(()) if self.is_failing => {
                self.is_failing = false;
                tracing::warn!("the {} is written again", self.name);
                true
            }
            Ok(()) => true,
            Err(error) => {
                if !self.is_failing {
                    tracing::warn!(%error, "lines of the {} are lost, and counted: it cannot be written", self.name);
                }
                self.is_failing = true;
                false
            }
        }
    }

    fn put_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.writer.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(size) => {
                    let (written, rest) = bytes.split_at(size);
                    self.is_torn = !rest.is_empty() && !written.ends_with(b"\n");
                    bytes = rest;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Where the access log is written, a line for each request.
#[derive(Debug, Clone)]
pub struct AccessLog {
    lines: Lines,
    file: Option<Arc<LogFile>>,
}

/// A file that is written to under its name, and may have been renamed.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    /// What is to be written to from the next line on.
    next: Mutex<Option<File>>,
}

impl AccessLog {
    /// Lines are written as [`Lines`] are.
    #[must_use]
    pub fn to(writer: impl Write + Send + 'static) -> Self {
        let lines = Lines::to("access log", writer, |lines| line::lost(jiff::Timestamp::now(), lines));
        Self { lines, file: None }
    }

    /// Adds to the end of a file, so that a restart loses nothing.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn to_file(path: &Path) -> io::Result<Self> {
        let file = Arc::new(LogFile { path: path.to_owned(), next: Mutex::default() });
        let writer = Rotated { file: file.open()?, log: Arc::clone(&file) };
        Ok(Self { file: Some(file), ..Self::to(writer) })
    }

    /// Ends it here. The last lines are waited for also where somebody else has it still, who may wait for a disk for ever. Blocking.
    pub fn end(self) {
        if Arc::strong_count(&self.lines.0) > 1 {
            self.lines.flush();
        }
    }

    pub(super) fn write(&self, line: String) {
        self.lines.write(line);
    }

    /// Writes to what the name of the file stands for now: what had it before may have been renamed. Blocking.
    /// `None` where it is written to no file.
    pub(crate) fn reopen(&self) -> Option<Reread> {
        let log = self.file.as_ref()?;
        match log.open() {
            Ok(file) => {
                *log.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
                Some(Reread::Done)
            }
            Err(error) => {
                tracing::error!(path = %log.path.display(), %error, "the access log goes on in the file that it had before");
                Some(Reread::Kept)
            }
        }
    }
}

impl LogFile {
    fn open(&self) -> io::Result<File> {
        File::options().create(true).append(true).open(&self.path)
    }
}

struct Rotated {
    file: File,
    log: Arc<LogFile>,
}

impl Write for Rotated {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(next) = self.log.next.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.file = next;
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Sender;

    use super::*;

    /// Takes nothing before it may, and hands on what it takes.
    struct Stalled(Option<Receiver<()>>, Sender<String>);

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(may) = self.0.take() {
                let _ = may.recv();
            }
            let _ = self.1.send(String::from_utf8(bytes.to_vec()).expect("text"));
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stops_holds_nothing_up_and_what_it_misses_is_counted() {
        let ((go, may), (taken, lines)) = (mpsc::channel(), mpsc::channel());
        let log = AccessLog::to(Stalled(Some(may), taken));
        (0..QUEUE + 1000).for_each(|n| log.write(format!("{n}\n")));
        go.send(()).expect("it waits");
        drop(log);
        let lines: Vec<String> = lines.iter().collect();
        let (told, kept): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.contains(" lost="));
        let number = |line: &&String| line.trim_end().rsplit_once(" lost=").and_then(|(_, n)| n.parse::<usize>().ok());
        assert_eq!(told.iter().filter_map(number).sum::<usize>() + kept.len(), QUEUE + 1000);
        assert!((QUEUE..=QUEUE + 1).contains(&kept.len()) && kept[0] == "0\n", "{}", kept.len());
    }

    /// A disk with room for so many bytes.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(usize, Vec<u8>)>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (room, written) = &mut *self.0.lock().expect("lock");
            let size = bytes.len().min(*room);
            if size == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            *room -= size;
            written.extend_from_slice(&bytes[..size]);
            Ok(size)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_a_full_disk_does_not_take_are_counted_and_told_when_it_does() {
        let disk = Disk::default();
        let room = |bytes| disk.0.lock().expect("lock").0 = bytes;
        let log = Lines::to("log", disk.clone(), |lines| format!("{lines} lost\n"));
        let say = |line: &str| {
            log.write(format!("{line}\n"));
            log.flush();
        };
        // the second in part
        room(6);
        ["one", "two", "three"].into_iter().for_each(say);
        room(1000);
        say("four");
        room(0);
        ["five", "six"].into_iter().for_each(say);
        room(1000);
        drop(log);
        let text = String::from_utf8(disk.0.lock().expect("lock").1.clone()).expect("text");
        assert_eq!(text, "one\ntw\n2 lost\nfour\n2 lost\n");
    }

    #[test]
    fn a_log_that_was_renamed_goes_on_under_its_name_when_told() {
        let folder = tempfile::tempdir().expect("folder");
        let (path, old) = (folder.path().join("log"), folder.path().join("log.1"));
        let log = AccessLog::to_file(&path).expect("a file");
        let say = |line: &str| {
            log.write(format!("{line}\n"));
            log.lines.flush();
        };
        say("one");
        std::fs::rename(&path, &old).expect("rename");
        say("two");
        assert_eq!(log.reopen(), Some(Reread::Done));
        assert_eq!(std::fs::read_to_string(&path).expect("at once"), "");
        say("three");
        // where it cannot be opened, nothing is lost
        std::fs::remove_file(&path).expect("remove");
        std::fs::create_dir(&path).expect("in the way");
        assert_eq!(log.reopen(), Some(Reread::Kept));
        std::fs::remove_dir(&path).expect("remove");
        assert_eq!(log.reopen(), Some(Reread::Done));
        say("four");
        let read = |path: &Path| std::fs::read_to_string(path).expect("a file");
        assert_eq!((read(&old), read(&path)), ("one\ntwo\n".to_owned(), "four\n".to_owned()));
    }

    #[test]
    fn what_was_lost_is_told_when_nothing_comes_any_more_and_a_flush_waits_for_the_rest() {
        let ((go, may), (taken, lines)) = (mpsc::channel(), mpsc::channel());
        let log = Lines::to("log", Stalled(Some(may), taken), |lines| format!("{lines} lost\n"));
        (0..QUEUE + 10).for_each(|n| log.write(format!("{n}\n")));
        go.send(()).expect("it waits");
        log.flush();
        let kept = lines.try_iter().filter(|line| !line.contains("lost")).count();
        assert!(kept >= QUEUE, "{kept}");
        log.write("more\n".to_owned());
        log.flush();
        let rest: Vec<String> = lines.recv_timeout(PATIENCE).into_iter().chain(lines.try_iter()).collect();
        assert!(rest.iter().any(|line| line == "more\n"), "{rest:?}");
        // begun, with nothing to read
        let ((_go, may), (taken, _lines)) = (mpsc::channel(), mpsc::channel());
        let stalled = Lines::to("log", Stalled(Some(may), taken), |_| String::new());
        stalled.write("x".to_owned());
        let start = Instant::now();
        stalled.flush();
        assert!((PATIENCE..PATIENCE * 5).contains(&start.elapsed()));
    }

    #[test]
    fn a_reader_that_never_comes_back_does_not_hold_up_the_end() {
        let ((_go, may), (taken, _lines)) = (mpsc::channel(), mpsc::channel());
        let log = AccessLog::to(Stalled(Some(may), taken));
        log.write("x\n".to_owned());
        let start = Instant::now();
        drop(log);
        assert!((PATIENCE..PATIENCE * 5).contains(&start.elapsed()));
    }
}
