//! `ferry sign`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferry_archive::{Bundle, SecretKey, Signed, Trust};
use ferry_content::texts;

use crate::failure::{End, Error};
use crate::progress::Meter;
use crate::{args, bundles, keys, print};

/// What is signed, with what.
pub(crate) struct Sign {
    args: args::Sign,
    key: SecretKey,
}

/// Unlocks the key; may ask for its password.
pub(crate) fn prepare(args: args::Sign) -> Result<Sign, End> {
    let key = keys::secret(&args.sign_key)?;
    Ok(Sign { args, key })
}

pub(crate) async fn run(Sign { args, key }: Sign) -> Result<(), End> {
    let bundle = Arc::new(open(&args)?);
    // what is signed must be whole: a signature is believed without another look
    let threads = super::threads(args.jobs);
    let meter = Meter::new("verifying", bundle.size(), args.talk.quiet);
    let (reader, counter) = (Arc::clone(&bundle), Arc::clone(&meter));
    let work = move || reader.verify(threads, false, &|n| counter.add(n));
    let verified = tokio::task::spawn_blocking(work).await.map_err(|e| Error::Runtime(std::io::Error::other(e)))?;
    meter.finish();
    let verified = verified?;
    let name = keys::full_name(bundle.head());
    print::talk(&format!("{name} is whole: {}", print::count(verified.blobs, "blob")));
    print::talk(&format!("until now: {}", before(bundle.signed())));
    let file = args.out.clone().unwrap_or_else(|| beside(bundle.path(), &key));
    let is_new = write(&file, &bundle.sign(&key))?;
    let key = key.key_id().to_string();
    if args.json {
        let value = serde_json::json!({
            "name": bundle.head().name, "version": bundle.head().version, "sums": bundle.sums_digest(),
            "file": file.display().to_string(), "key": key, "new": is_new, "before": keys::signers_json(bundle.signed()),
        });
        print::out(&super::pretty(&value)?);
    } else if is_new {
        print::talk(&format!("signed by {key}: {}", file.display()));
    } else {
        print::talk(&format!("signed by {key} already: {}", file.display()));
    }
    Ok(())
}

fn open(args: &args::Sign) -> Result<Bundle, End> {
    let require = args.demand.require.map(usize::from);
    let keys = keys::public(&args.keys)?;
    if keys.is_empty() && require.is_some() {
        return Err(keys::no_key(&args.keys, "so no signature can be counted for `--require`").into());
    }
    let trust = Trust { keys, allow_unsigned: require.is_none(), require: require.unwrap_or(0) };
    keys::open(&bundles::one(&args.bundle)?, &trust, &args.demand)
}

/// Who signed before, as far as that is known.
fn before(signed: &Signed) -> String {
    match (signed.signers.as_slice(), signed.claimed) {
        ([], Some(key)) => format!("it names key {key}, which is not trusted here, so that was not checked"),
        _ => keys::signed_by(signed),
    }
}

/// `NAME.tar.KEYID.minisig`.
fn beside(bundle: &Path, key: &SecretKey) -> PathBuf {
    let mut name = bundle.as_os_str().to_owned();
    name.push(format!(".{}.minisig", key.key_id()));
    name.into()
}

/// Writes the signature, whole or not at all; whether it was not there before. Another file is never replaced.
fn write(path: &Path, text: &str) -> Result<bool, End> {
    match std::fs::read(path) {
        Ok(found) if found == text.as_bytes() => return Ok(false),
        Ok(_) => return Err(Error::OtherFile { path: path.to_owned() }.into()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => return Err(Error::Io { action: "read", path: path.to_owned(), source }.into()),
    }
    if texts::write_new(path, text.as_bytes())? {
        Ok(true)
    } else {
        Err(Error::OtherFile { path: path.to_owned() }.into())
    }
}
