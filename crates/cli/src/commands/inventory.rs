//! `ferry inventory`.

use std::path::Path;
use std::sync::Arc;

use ferry_content::store::Store;
use ferry_content::texts;
use ferry_image::{Receipt, Relocation, Target, receipt};
use ferry_install::{Destination, Which, inventory};

use crate::commands::install::{self, STORE_NAME};
use crate::failure::{End, Error};
use crate::secrets::{self, Account};
use crate::{args, bases, config, print, registry};

pub(crate) async fn run(args: args::Inventory) -> Result<(), End> {
    let named = args.registry_name.as_deref().map(install::parse).transpose()?;
    let destination = match (&args.store, named) {
        (Some(folder), named) => {
            let target = named.map_or_else(|| install::parse(STORE_NAME), Ok)?;
            Destination::Store { store: Arc::new(Store::open_to_look(folder)?), target }
        }
        (None, Some(target)) => {
            let settings = config::load(args.registry.config.as_deref())?;
            let account = |username: &String| Account { place: target.host().to_owned(), username: username.clone() };
            let logins = match &args.username {
                Some(username) => secrets::from_stdin(&[account(username)])?,
                None => Vec::new(),
            };
            Destination::Registry { client: registry::client(&args.registry, &settings, logins)?, target }
        }
        (None, None) => return Err(Error::usage("no target is named", "give `--registry HOST[:PORT][/PREFIX]`").into()),
    };
    let which = which(&args, destination.target())?;
    let folder = args.output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    texts::can_write_in(folder)?;
    let found = inventory(&destination, &which, usize::from(args.registry.jobs), jiff::Timestamp::now()).await?;
    for note in &found.notes {
        print::talk(&format!("note: {note}"));
    }
    print::warnings(&found.warnings);
    if found.receipt.repositories.is_empty() {
        let nothing =
            format!("nothing was found below {}: is that the prefix that the install used?", destination.target());
        print::warnings(&[nothing]);
    }
    let json = found.receipt.to_json().map_err(|e| Error::Runtime(e.into()))?;
    texts::write(&args.output, &json)?;
    if !args.talk.quiet {
        let blobs = found.receipt.repositories.iter().map(|repository| repository.blobs.len()).sum();
        print::talk(&format!(
            "{}: {}, {}, {}, written to {}",
            destination.target(),
            count(found.receipt.repositories.len()),
            print::count(found.receipt.images.len(), "image"),
            print::count(blobs, "blob"),
            args.output.display()
        ));
    }
    Ok(())
}

fn count(repositories: usize) -> String {
    if repositories == 1 { "1 repository".to_owned() } else { format!("{repositories} repositories") }
}

fn which(args: &args::Inventory, target: &Target) -> Result<Which, End> {
    if let Some(path) = &args.from {
        return from(path, target);
    }
    if args.repositories.is_empty() {
        return Ok(Which::Listed);
    }
    // as references name them, too
    let prefix = format!("{target}/");
    let below = |text: &String| text.strip_prefix(&prefix).unwrap_or(text).to_owned();
    Ok(Which::These(args.repositories.iter().map(below).collect()))
}

/// The images of an earlier receipt, or of a relocation.
fn from(path: &Path, target: &Target) -> Result<Which, End> {
    let fail = |source| Error::Document { path: path.to_owned(), source };
    let hint = "give the `receipt.json` or `relocation.json` of an install to this target";
    let Some(bytes) = bases::json(path, receipt::MAX_BYTES)? else {
        return Err(Error::usage(format!("`{}` is no receipt and no relocation", path.display()), hint).into());
    };
    let (of, images, others) = match ferry_bundle::base::detect(&bytes) {
        ferry_bundle::base::Document::Relocation => {
            let relocation = Relocation::from_json(&bytes).map_err(fail)?;
            (relocation.target, relocation.images, Vec::new())
        }
        _ => {
            let receipt = Receipt::from_json(&bytes).map_err(fail)?;
            let others = receipt.repositories.into_iter().map(|repository| repository.name).collect();
            (receipt.target, receipt.images, others)
        }
    };
    if of != target.to_string() {
        return Err(Error::usage(format!("`{}` is of `{of}`, not of `{target}`", path.display()), hint).into());
    }
    Ok(Which::From { images, others })
}
