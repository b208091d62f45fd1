//! The access log is written by a thread of its own: whoever reads it may stop to, and no request waits for that.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::line;

/// Lines that wait to be written; what comes while there are so many is lost, and counted.
const QUEUE: usize = 4096;
/// How long the end of a run waits for the last lines.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where the access log is written, a line for each request. The last lines are written when the last clone is dropped.
#[derive(Clone)]
pub struct AccessLog(Arc<Queue>);

struct Queue {
    /// `None` when it has ended.
    lines: Option<SyncSender<String>>,
    lost: Arc<AtomicU64>,
    /// Told nothing: it breaks when the thread has ended.
    ended: Mutex<Receiver<()>>,
}

impl AccessLog {
    /// Lines are written whole, each with one call; what cannot be written is lost, and no request fails or waits for it.
    #[must_use]
    pub fn to(mut writer: impl Write + Send + 'static) -> Self {
        let (lines, queue) = mpsc::sync_channel::<String>(QUEUE);
        let (end, ended) = mpsc::channel::<()>();
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        let write = move || {
            let _end = end;
            let mut put = |line: &str| drop(writer.write_all(line.as_bytes()));
            let tell_lost = |put: &mut dyn FnMut(&str)| match counted.swap(0, Ordering::Relaxed) {
                0 => {}
                lost => put(&line::lost(jiff::Timestamp::now(), lost)),
            };
            for line in queue {
                tell_lost(&mut put);
                put(&line);
            }
            tell_lost(&mut put);
            let _ = writer.flush();
        };
        if let Err(error) = std::thread::Builder::new().name("access log".to_owned()).spawn(write) {
            tracing::error!(%error, "no access log is written");
        }
        Self(Arc::new(Queue { lines: Some(lines), lost, ended: Mutex::new(ended) }))
    }

    pub(super) fn write(&self, line: String) {
        if self.0.lines.as_ref().is_none_or(|lines| lines.try_send(line).is_err()) {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        drop(self.lines.take());
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        // a reader that has stopped does not hold up the end
        if ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the last lines of the access log are lost: nothing takes them");
        }
    }
}

impl std::fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AccessLog")
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc::Sender;
    use std::time::Instant;

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
