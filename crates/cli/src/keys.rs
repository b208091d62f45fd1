//! Keys from files, and passwords from the environment or the terminal.

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use ferry_archive::{
    Bundle, Head, HeadBase, KeyRef, Location, PublicKey, SecretKey, Signed, Signer, Trust, TrustedKey, Uncounted,
};
use ferry_bundle::near::slip;
use ferry_image::Digest;

use crate::args;
use crate::environment;
use crate::failure::{End, Error};
use crate::print;

/// The largest key file.
const MAX_KEY: u64 = 4 << 10;

/// What the arguments trust.
pub(crate) fn trust(args: &args::Trust) -> Result<Trust, End> {
    let require = args.demand.require.map_or(1, usize::from);
    Ok(Trust { keys: public(&args.keys)?, allow_unsigned: args.allow_unsigned, require })
}

/// What the arguments trust; without a key there is nothing that could be trusted, and that is said before anything is read.
pub(crate) fn trusted(args: &args::Trust) -> Result<Trust, End> {
    let trust = trust(args)?;
    if trust.keys.is_empty() && !trust.is_lenient() {
        return Err(no_key(&args.keys, "so no bundle can be trusted").into());
    }
    Ok(trust)
}

/// That no public key is given, or none is in the folder where they should be.
pub(crate) fn no_key(args: &args::Keys, so: &str) -> Error {
    match &args.folder {
        Some(folder) => Error::usage(
            format!("no public key is in `{}`, {so}: no file there ends in .pub or .pem", folder.display()),
            "put the signers' public keys there, or name one with `--key ferry.pub`",
        ),
        None => Error::usage(
            format!("no public key is given, {so}"),
            "give the signer's public key with `--key ferry.pub`, or a folder of keys with `--keys` or in `FERRY_KEYS`",
        ),
    }
}

/// Opens a bundle.
pub(crate) fn open(location: &Location, trust: &Trust, demand: &args::Demand) -> Result<Bundle, End> {
    let bundle = Bundle::open_at(location, trust)?;
    tell(bundle.signed());
    expect(bundle.head(), bundle.path(), demand)?;
    Ok(bundle)
}

/// Refuses the bundle at `path` if it is none of those of `--expect`.
pub(crate) fn expect(head: &Head, path: &Path, args: &args::Demand) -> Result<(), End> {
    let fits = |expected: &String| match expected.split_once('@') {
        Some((name, version)) => head.name == name && head.version.as_deref() == Some(version),
        None => head.name == *expected,
    };
    if args.expect.is_empty() || args.expect.iter().any(fits) {
        return Ok(());
    }
    // only the name may be a slip: another version is another bundle
    let name = |expected: &String| expected.split('@').next().unwrap_or_default().to_owned();
    let is_slip = |wanted: &str| wanted != head.name && slip(wanted, &head.name).is_some();
    let meant = args.expect.iter().find(|expected| is_slip(&name(expected)));
    let slip = meant.map(|expected| expected.replacen(&name(expected), &head.name, 1));
    let expected = args.expect.join("` or `");
    Err(Error::Unexpected { path: path.to_owned(), found: full_name(head), expected, slip }.into())
}

/// `name@version`, or the name alone.
pub(crate) fn full_name(head: &Head) -> String {
    match &head.version {
        Some(version) => format!("{}@{version}", head.name),
        None => head.name.clone(),
    }
}

/// The same for a base of a bundle.
pub(crate) fn base_name(base: &HeadBase) -> String {
    match &base.version {
        Some(version) => format!("{}@{version}", base.name),
        None => base.name.clone(),
    }
}

/// What is worth telling of signatures: those that do not count.
pub(crate) fn tell(signed: &Signed) {
    for Uncounted { path, why, is_signature } in &signed.uncounted {
        let kind = if *is_signature { "note" } else { "warning" };
        print::talk(&format!("{kind}: `{}` does not count as a signature: {why}", path.display()));
    }
}

/// `signed by release-2026 (38291067FB5BFB9F) and alice (…)`.
pub(crate) fn signed_by(signed: &Signed) -> String {
    let names: Vec<String> = signed.signers.iter().map(|signer| signer.key.to_string()).collect();
    match names.split_last() {
        None => "not signed by a trusted key".to_owned(),
        Some((last, [])) => format!("signed by {last}"),
        Some((last, others)) => format!("signed by {} and {last}", others.join(", ")),
    }
}

/// Which bundle it is and who signed it, for people.
pub(crate) fn introduction(head: &Head, signed: &Signed) -> String {
    format!("{}: {}", full_name(head), signed_by(signed))
}

/// Which bundle it is and who signed it, for programs.
pub(crate) fn bundle_json(head: &Head, sums: &Digest, signed: &Signed) -> serde_json::Value {
    serde_json::json!({"name": head.name, "version": head.version, "sums": sums, "signers": signers_json(signed)})
}

/// Who signed, for programs.
pub(crate) fn signers_json(signed: &Signed) -> serde_json::Value {
    let signer = |signer: &Signer| {
        let files: Vec<String> = signer.files.iter().map(|file| file.display().to_string()).collect();
        serde_json::json!({
            "name": signer.key.name, "key": full_id(&signer.key.key), "inside": signer.inside, "files": files,
        })
    };
    signed.signers.iter().map(signer).collect()
}

/// The whole of what a key is known by.
pub(crate) fn full_id(key: &PublicKey) -> String {
    match key.id() {
        KeyRef::Minisign(id) => id.to_string(),
        KeyRef::Spki(digest) => digest.to_string(),
    }
}

/// The public keys of the arguments; one that several files hold has the name of the first.
pub(crate) fn public(args: &args::Keys) -> Result<Vec<TrustedKey>, End> {
    let mut files = args.key.clone();
    if let Some(folder) = &args.folder {
        files.extend(in_folder(folder)?);
    }
    let mut keys: Vec<TrustedKey> = Vec::new();
    for file in files {
        if file.is_dir() {
            let hint = format!("`--keys {}` takes all public keys in it", file.display());
            return Err(
                Error::usage(format!("`{}` is a folder, and one key is asked for", file.display()), hint).into()
            );
        }
        let text = read(&file)?;
        let key = PublicKey::from_text(&text)
            .map_err(|e| ferry_content::Problems::one(format!("`{}`", file.display()), e))?;
        // one key in two forms is kept in both: signatures of either form may be its own
        if keys.iter().all(|known| known.key.id() != key.id() || !known.key.is_same(&key)) {
            let name = file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
            keys.push(TrustedKey { name, key });
        }
    }
    Ok(keys)
}

fn in_folder(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    if folder.is_file() {
        let hint = format!("name one key with `--key {}`", folder.display());
        return Err(Error::usage(format!("`{}` is a file, and a folder of keys is asked for", folder.display()), hint));
    }
    let io = |source| Error::Io { action: "read", path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|e| e == "pub" || e == "pem") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The key to sign with; asks for its password where one is needed and a terminal is there.
pub(crate) fn secret(path: &Path) -> Result<SecretKey, End> {
    if path.is_dir() {
        let hint = format!("name the file in it, such as `{}`", path.join("ferry.key").display());
        return Err(
            Error::usage(format!("`{}` is a folder, and a secret key is asked for", path.display()), hint).into()
        );
    }
    let text = read(path)?;
    let named = |e| End::from(ferry_content::Problems::one(format!("`{}`", path.display()), e));
    match SecretKey::from_text(&text, environment::key_password().as_deref()) {
        Err(ferry_archive::Error::PasswordNeeded) if std::io::stdin().is_terminal() => {
            let password = ask(&format!("Password of {}: ", path.display()))?;
            SecretKey::from_text(&text, Some(&password)).map_err(named)
        }
        other => other.map_err(named),
    }
}

/// A new password: from the environment, or asked for twice.
pub(crate) fn new_password() -> Result<String, End> {
    if let Some(password) = environment::key_password() {
        return Ok(password);
    }
    if !std::io::stdin().is_terminal() {
        let hint = "set `FERRY_KEY_PASSWORD`, or store the key in the clear with `--no-password`";
        return Err(Error::usage("there is no terminal to ask for a password", hint).into());
    }
    let password = ask("Password for the secret key: ")?;
    if password.is_empty() {
        return Err(Error::usage("the password is empty", "store the key in the clear with `--no-password`").into());
    }
    if ask("The same again: ")? != password {
        return Err(Error::usage("the two passwords differ", "run the command again").into());
    }
    Ok(password)
}

fn ask(prompt: &str) -> Result<String, Error> {
    rpassword::prompt_password(prompt).map_err(|source| Error::Io {
        action: "read",
        path: PathBuf::from("/dev/tty"),
        source,
    })
}

fn read(path: &Path) -> Result<String, Error> {
    let io = |source| Error::Io { action: "read", path: path.to_owned(), source };
    let mut text = String::new();
    std::fs::File::open(path).map_err(io)?.take(MAX_KEY).read_to_string(&mut text).map_err(io)?;
    Ok(text)
}
