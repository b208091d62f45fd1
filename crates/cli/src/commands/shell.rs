//! Completions and manual pages, made from the arguments themselves.

use std::path::Path;

use clap::CommandFactory as _;

use crate::args::Args;
use crate::failure::{End, Error};

/// Prints the completion script of a shell.
pub(crate) fn completions(shell: clap_complete::Shell) -> Result<(), End> {
    clap_complete::generate(shell, &mut Args::command(), "ferry", &mut std::io::stdout());
    Ok(())
}

/// Writes `ferry.1` and a page for each command.
pub(crate) fn man(out: &Path) -> Result<(), End> {
    std::fs::create_dir_all(out).map_err(|source| Error::Io { action: "create", path: out.to_owned(), source })?;
    clap_mangen::generate_to(Args::command(), out).map_err(|source| Error::Io {
        action: "write",
        path: out.to_owned(),
        source,
    })?;
    Ok(())
}
