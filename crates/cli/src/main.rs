//! The `ferry` binary: arguments, configuration, progress, printing, exit codes. What it does is done by the libraries.
//!
//! Reading order: [`args`], [`commands`], then [`environment`], [`registry`], [`keys`], [`progress`], [`print`], [`failure`].

mod args;
mod commands;
mod environment;
mod failure;
mod keys;
mod print;
mod progress;
mod registry;
mod signals;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;

use crate::args::{Args, Command};
use crate::failure::End;

/// How long abandoned work may take to end: what is unfinished is synced to disk in this time.
const LAST_WORDS: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let args = Args::parse();
    log(&args);
    // needed once in a process by whatever builds a TLS configuration; a second call is refused, which is fine
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return print::end(&End::from(failure::Error::Runtime(error))),
    };
    let result = match args.command {
        // a server is ended by a signal, and that is a good end
        Command::Serve(serve) => runtime.block_on(commands::serve::run(serve)),
        command => runtime.block_on(signals::unless_interrupted(run(command))),
    };
    // tasks that were abandoned let go of their files here: an unfinished bundle brings its journal up to date
    runtime.shutdown_timeout(LAST_WORDS);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(end) => print::end(&end),
    }
}

async fn run(command: Command) -> Result<(), End> {
    match command {
        Command::Bundle(args) => commands::bundle::run(*args).await,
        Command::Keygen(args) => commands::keygen::run(&args),
        Command::Inspect(args) => commands::inspect::run(&args),
        Command::Verify(args) => commands::verify::run(args).await,
        Command::Install(args) => commands::install::run(*args).await,
        Command::Serve(args) => commands::serve::run(args).await,
        Command::Completions { shell } => commands::shell::completions(shell),
        Command::Man { out } => commands::shell::man(&out),
    }
}

/// Logs go to standard error, and only when asked for: `-v`, or `FERRY_LOG`.
fn log(args: &Args) {
    let level = match args.verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("FERRY_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .init();
}
