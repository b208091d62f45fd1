//! The `ferry` binary: arguments, configuration, progress, printing, exit codes. What it does is done by the libraries.
//!
//! Reading order: [`args`], [`commands`], then [`environment`], [`config`], [`secrets`], [`registry`], [`keys`], [`bases`], [`progress`],
//! [`print`], [`failure`].

mod args;
mod bases;
mod bundles;
mod commands;
mod config;
mod environment;
mod failure;
mod keys;
mod opened;
mod print;
mod progress;
mod registry;
mod secrets;
mod signals;
mod size;
mod span;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use ferry_registry_server::log_time;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use crate::args::{Args, Command};
use crate::failure::End;

fn main() -> ExitCode {
    let args = Args::parse();
    log(&args);
    raise_open_files();
    // needed once in a process by whatever builds a TLS configuration; a second call is refused, which is fine
    let _ = rustls::crypto::ring::default_provider().install_default();
    if matches!(args.command, Command::Serve(_)) {
        print::without_waiting();
    }
    let code = match run(args.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(end) => print::end(&end),
    };
    print::flush();
    code
}

fn run(command: Command) -> Result<(), End> {
    match command {
        Command::Bundle(args) => {
            // may ask for a password: until then Ctrl-C is the terminal's own affair
            let bundle = commands::bundle::prepare(*args)?;
            interruptible(commands::bundle::run(bundle))
        }
        Command::Find(args) => commands::find::run(&args),
        Command::Keygen(args) => commands::keygen::run(&args),
        Command::Inspect(args) => commands::inspect::run(&args),
        Command::Diff(args) => commands::diff::run(&args),
        Command::Verify(args) => interruptible(commands::verify::run(args)),
        Command::Sign(args) => {
            // may ask for a password, as above
            let sign = commands::sign::prepare(args)?;
            interruptible(commands::sign::run(sign))
        }
        Command::Protect(args) => interruptible(commands::protect::run(args)),
        Command::Repair(args) => interruptible(commands::repair::run(args)),
        Command::Install(args) => interruptible(commands::install::run(*args)),
        Command::Export(args) => interruptible(commands::export::run(args)),
        Command::Rewrite(args) => commands::rewrite::run(*args),
        Command::Inventory(args) => interruptible(commands::inventory::run(*args)),
        // a server is ended by a signal, and that is a good end
        Command::Serve(args) => run_to_end(commands::serve::run(*args)),
        Command::Gc(args) => interruptible(commands::gc::run(args)),
        Command::Completions { shell } => commands::shell::completions(shell),
        Command::Man { out } => commands::shell::man(&out),
    }
}

/// For `serve`: ten thousand connections, and then some.
const OPEN_FILES: u64 = 65_536;

/// A bundle of many volumes has as many files open, a server its connections; the usual limit, 1024, is for programs that use `select`.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(OPEN_FILES, |most| most.min(OPEN_FILES));
    if limit.current.is_some_and(|now| now < wanted) {
        // where it is refused, the limit will be met later and said then
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum });
    }
}

fn interruptible(work: impl Future<Output = Result<(), End>>) -> Result<(), End> {
    run_to_end(signals::unless_interrupted(work))
}

fn run_to_end(work: impl Future<Output = Result<(), End>>) -> Result<(), End> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(failure::Error::Runtime)?;
    let result = runtime.block_on(work);
    // what must be kept was synced when the work was dropped; blocking work that was abandoned must not delay the end
    runtime.shutdown_background();
    result
}

/// Logs go to standard error, and only when asked for: `-v`, or `FERRY_LOG`. Those of a server stand between lines of its access log, and
/// begin with a time as those have it; the names of modules are for who asked for more.
fn log(args: &Args) {
    let level = match args.verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("FERRY_LOG");
    let asked_for_more = args.verbose > 0 || filter.is_ok();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    let colours = std::io::stderr().is_terminal();
    let format = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| print::Log).with_ansi(colours);
    match &args.command {
        Command::Serve(_) => format.with_timer(Clock).with_target(asked_for_more).init(),
        _ => format.without_time().init(),
    }
}

/// The time of a line of the log.
struct Clock;

impl FormatTime for Clock {
    fn format_time(&self, line: &mut Writer<'_>) -> std::fmt::Result {
        line.write_str(&log_time(jiff::Timestamp::now()))
    }
}
