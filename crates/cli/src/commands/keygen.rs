//! `ferry keygen`.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use ferry_archive::{PublicKey, keys as pair};

use crate::failure::{End, Error};
use crate::{args, keys, print};

pub(crate) fn run(args: &args::Keygen) -> Result<(), End> {
    let file = |end: &str| args.out.join(format!("{}.{end}", args.name));
    let (secret_path, public_path) = (file("key"), file("pub"));
    for path in [&secret_path, &public_path] {
        if path.exists() {
            let hint = "a key that is in use must not be lost: choose another name (`--name`) or folder, or move the old key away";
            return Err(Error::usage(format!("`{}` is there already", path.display()), hint).into());
        }
    }
    let password = if args.no_password { None } else { Some(keys::new_password()?) };
    let (secret, public) = pair::generate(password.as_deref())?;
    std::fs::create_dir_all(&args.out).map_err(|source| Error::Io {
        action: "create",
        path: args.out.clone(),
        source,
    })?;
    write(&secret_path, &secret, 0o600)?;
    write(&public_path, &public, 0o644)?;
    let id = PublicKey::from_text(&public)?.id();
    print::talk(&format!("key {id}"));
    print::talk(&format!("  {}  signs bundles; keep it here, and secret", secret_path.display()));
    print::talk(&format!("  {}  goes to the other side, once, and not on the bundle's disk", public_path.display()));
    Ok(())
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let io = |source| Error::Io { action: "create", path: path.to_owned(), source };
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(io)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io)
}
