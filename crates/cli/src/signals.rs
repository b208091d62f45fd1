//! Ctrl-C and termination: what was done so far stays, and the same command continues.

use std::future::Future;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{End, Error};

/// Runs `work` until it ends or somebody interrupts it; then it is dropped, which leaves its files resumable.
pub(crate) async fn unless_interrupted(work: impl Future<Output = Result<(), End>>) -> Result<(), End> {
    // before the work begins: until somebody listens, a signal ends the process, and what it began stays behind
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Runtime)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Runtime)?;
    let mut hangup = match is_ignored(HANGUP) {
        // `nohup`: the work goes on when the terminal goes away
        true => None,
        false => Some(signal(SignalKind::hangup()).map_err(Error::Runtime)?),
    };
    let hung_up = async {
        match &mut hangup {
            Some(stream) => drop(stream.recv().await),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        result = work => result,
        _ = interrupt.recv() => Err(End::Interrupted),
        _ = terminate.recv() => Err(End::Interrupted),
        () = hung_up => Err(End::Interrupted),
    }
}

/// The number of SIGHUP.
const HANGUP: u32 = 1;

/// Whether whoever started this process asked for a signal to be ignored. Only Linux says so.
fn is_ignored(number: u32) -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores(&status, number))
}

/// Reads the line `SigIgn:` of proc_pid_status(5): a bit for each signal.
fn ignores(status: &str, number: u32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).is_some_and(|mask| mask >> (number - 1) & 1 == 1)
}

/// SIGHUP, which does not end the process from now on.
pub(crate) fn hangups() -> Result<Signal, End> {
    Ok(signal(SignalKind::hangup()).map_err(Error::Runtime)?)
}

/// Interruptions of a server, each counted: the first ends it well, the second is the way out for whoever does not want to wait for that.
pub(crate) struct Interruptions {
    terminate: Signal,
    interrupt: Signal,
}

impl Interruptions {
    /// From now on none is lost, and none ends the process by itself.
    pub(crate) fn listen() -> Result<Self, End> {
        let terminate = signal(SignalKind::terminate()).map_err(Error::Runtime)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(Error::Runtime)?;
        Ok(Self { terminate, interrupt })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nohup_asks_for() {
        let status = |mask: &str| format!("Name:\tferry\nSigBlk:\tffff\nSigIgn:\t{mask}\nSigCgt:\tffff\n");
        assert!(ignores(&status("0000000000001001"), HANGUP));
        assert!(!ignores(&status("0000000000001000"), HANGUP));
        assert!(!ignores("", HANGUP));
    }
}
