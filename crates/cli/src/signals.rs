//! Ctrl-C and termination: what was done so far stays, and the same command continues.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{End, Error};

/// Runs `work` until it ends or somebody interrupts it; then it is dropped, which leaves its files resumable.
pub(crate) async fn unless_interrupted(work: impl Future<Output = Result<(), End>>) -> Result<(), End> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Runtime)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(Error::Runtime)?;
    tokio::select! {
        result = work => result,
        _ = tokio::signal::ctrl_c() => Err(End::Interrupted),
        _ = terminate.recv() => Err(End::Interrupted),
        _ = hangup.recv() => Err(End::Interrupted),
    }
}

/// Waits for an interruption: how a server ends well.
pub(crate) async fn interrupted() {
    let terminate = signal(SignalKind::terminate());
    let wait = async {
        match terminate {
            Ok(mut stream) => drop(stream.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = wait => {}
    }
}
