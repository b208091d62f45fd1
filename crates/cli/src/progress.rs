//! How far it is: a bar on a terminal, a line now and then elsewhere, nothing with `--quiet`.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ferry_content::copy::{Outcome, Progress};
use ferry_image::{Descriptor, Digest};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::print;

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(15);

/// Counts bytes, and shows them.
pub(crate) struct Meter {
    bar: Option<ProgressBar>,
    lines: bool,
    started: Instant,
    done: AtomicU64,
    total: u64,
    /// Seconds after the start at which the next line is due.
    next_line: AtomicU64,
    retries: AtomicUsize,
}

impl Meter {
    /// A meter up to `total` bytes.
    pub(crate) fn new(what: &'static str, total: u64, quiet: bool) -> Arc<Self> {
        let terminal = std::io::stderr().is_terminal();
        let bar = (!quiet && terminal).then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(10));
            let style = ProgressStyle::with_template(
                "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}",
            );
            if let Ok(style) = style {
                bar.set_style(style);
            }
            bar.set_message(what);
            bar
        });
        Arc::new(Self {
            bar,
            lines: !quiet && !terminal,
            started: Instant::now(),
            done: AtomicU64::new(0),
            total,
            next_line: AtomicU64::new(LINE_EVERY.as_secs()),
            retries: AtomicUsize::new(0),
        })
    }

    /// `n` more bytes.
    pub(crate) fn add(&self, n: u64) {
        let done = self.done.fetch_add(n, Ordering::Relaxed) + n;
        match &self.bar {
            Some(bar) => bar.inc(n),
            None if self.lines => self.line(done),
            None => {}
        }
    }

    fn line(&self, done: u64) {
        let now = self.started.elapsed().as_secs();
        let due = self.next_line.load(Ordering::Relaxed);
        let next = now + LINE_EVERY.as_secs();
        if now >= due && self.next_line.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            // what had to be fetched anew was counted before
            let done = done.min(self.total);
            let percent = (done * 100).checked_div(self.total).unwrap_or(100);
            print::talk(&format!("{} of {} ({percent} %)", print::bytes(done), print::bytes(self.total)));
        }
    }

    /// The bar goes away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Requests that were made again.
    pub(crate) fn retries(&self) -> usize {
        self.retries.load(Ordering::Relaxed)
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Progress for Meter {
    fn advanced(&self, _: &Digest, bytes: u64) {
        self.add(bytes);
    }

    fn lost(&self, _: &Digest, bytes: u64) {
        self.done.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.dec(bytes);
        }
    }

    fn finished(&self, blob: &Descriptor, outcome: Outcome) {
        if outcome == Outcome::Present {
            self.add(blob.size);
        }
    }

    fn retrying(&self, blob: &Digest, error: &ferry_content::Error) {
        self.retries.fetch_add(1, Ordering::Relaxed);
        tracing::info!(blob = blob.short(), %error, "trying again");
    }
}
