//! The bundles of an install, opened: files and volumes, or one that comes through standard input or volume by volume.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ferry_archive::volumes::VolumeState;
use ferry_archive::{Bundle, Head, Incoming, Inflow, Location, Signed, Trust};
use ferry_content::scratch;
use ferry_image::Digest;
use ferry_install::{Bundles, Passing, Pipe};
use tempfile::NamedTempFile;

use crate::bundles::{self, Named};
use crate::commands::verify::front;
use crate::failure::{End, Error};
use crate::{args, keys, print};

/// Bundles whose signatures hold.
pub(crate) struct Opened {
    pub(crate) bundles: Bundles,
    /// The rest of the one that comes through a pipe.
    pub(crate) pipe: Option<Pipe>,
    /// Which they are and who signed them, for people.
    pub(crate) introductions: Vec<String>,
    /// The same for programs.
    pub(crate) signed: Vec<serde_json::Value>,
    /// The file that a pipe was written into; it is removed when this is dropped.
    pub(crate) spooled: Option<NamedTempFile>,
}

/// A file that is open, and what does not hold of it behind its front.
struct Found {
    bundle: Arc<Bundle>,
    location: Location,
    faults: Vec<ferry_archive::Error>,
}

/// All of them, each with its signature, before anything is made of any.
pub(crate) async fn open(args: &args::Install) -> Result<Opened, End> {
    let trust = keys::trusted(&args.trust)?;
    let is_piped = |path: &&PathBuf| path.as_os_str() == "-";
    let piped = args.bundles.iter().filter(is_piped).count();
    if piped > 1 || (piped == 1 && args.password_stdin) {
        let hint = "give other bundles as files, and a login with `--auth-file`";
        return Err(Error::usage("standard input can be read for one thing only", hint).into());
    }
    if piped == 0 && args.spool.is_some() {
        return Err(Error::usage("`--spool` is for a bundle that comes through a pipe", "name it `-`").into());
    }
    let mut found = Vec::with_capacity(args.bundles.len());
    let (mut pipe, mut spooled) = (None, None);
    bundles::refuse_seconds_apart(&args.bundles, &args.waiting)?;
    let named = bundles::named(&args.bundles)?;
    // what one of several lacks another may have: then nobody is asked for it
    let may_wait = named.len() == 1 || args.waiting.wait_for_volume.is_some();
    for named in named {
        let Named::At(location) = named else { continue };
        match opened(&location, &trust, args, may_wait).await? {
            At::Hand(one) => found.push(one),
            At::Once(inflow) if piped == 0 && pipe.is_none() => {
                pipe = Some(begin(inflow, location.base.clone(), &trust).await?);
            }
            At::Once(_) => {
                let hint = "bring all volumes of the others first, or install one after the other";
                return Err(Error::usage("only one bundle can be read as it comes", hint).into());
            }
        }
    }
    match &args.spool {
        Some(folder) => {
            let file = spool(folder, &trust).await?;
            let location = Location::of(file.path())?;
            let (bundle, faults) = Bundle::open_damaged(&location, &trust)?;
            found.push(Found { bundle: Arc::new(bundle), location, faults });
            spooled = Some(file);
        }
        None if piped == 1 => pipe = Some(begin(bundles::stdin(), PathBuf::from(bundles::STDIN), &trust).await?),
        None => {}
    }
    let (mut introductions, mut signed) = (Vec::new(), Vec::new());
    let mut meet = |head: &Head, path: &Path, sums: &Digest, by: &Signed| -> Result<(), End> {
        keys::tell(by);
        keys::expect(head, path, &args.trust.demand)?;
        introductions.push(keys::introduction(head, by));
        signed.push(keys::bundle_json(head, sums, by));
        Ok(())
    };
    for Found { bundle, .. } in &found {
        meet(bundle.head(), bundle.path(), bundle.sums_digest(), bundle.signed())?;
    }
    if let Some((passing, pipe)) = &pipe {
        meet(passing.head(), Path::new(bundles::STDIN), pipe.sums_digest(), pipe.signed())?;
    }
    let files = complete(found, &trust).await?;
    let mut files = files.into_iter();
    let (bundles, pipe) = match pipe {
        Some((passing, pipe)) => (Bundles::with_pipe(passing, files), Some(pipe)),
        None => {
            let first = files.next().ok_or_else(|| Error::usage("no bundle is named", "name the bundle to install"))?;
            (Bundles::new(first, files), None)
        }
    };
    Ok(Opened { bundles, pipe, introductions, signed, spooled })
}

/// Those that can be read at any place, where nobody is asked for a volume.
pub(crate) async fn files(paths: &[PathBuf], trust: &args::Trust) -> Result<Opened, End> {
    let trusted = keys::trusted(trust)?;
    let mut found = Vec::with_capacity(paths.len());
    let (mut introductions, mut signed) = (Vec::new(), Vec::new());
    for location in bundles::locations(paths)? {
        let (bundle, faults) = match Bundle::open_damaged(&location, &trusted) {
            Ok(opened) => opened,
            Err(error) => return Err(told(error, &location, &trusted).await),
        };
        keys::tell(bundle.signed());
        keys::expect(bundle.head(), bundle.path(), &trust.demand)?;
        introductions.push(keys::introduction(bundle.head(), bundle.signed()));
        signed.push(keys::bundle_json(bundle.head(), bundle.sums_digest(), bundle.signed()));
        found.push(Found { bundle: Arc::new(bundle), location, faults });
    }
    let mut files = complete(found, &trusted).await?.into_iter();
    let first = files.next().ok_or_else(|| Error::usage("no bundle is named", "name a bundle"))?;
    Ok(Opened { bundles: Bundles::new(first, files), pipe: None, introductions, signed, spooled: None })
}

/// [`files`], once all volumes are there: all are needed at once, so that none can take the place of another in a drive. Where that is asked
/// for, they are waited for.
pub(crate) async fn files_once_there(
    paths: &[PathBuf],
    trust: &args::Trust,
    waiting: &args::Waiting,
) -> Result<Opened, End> {
    bundles::refuse_seconds_apart(paths, waiting)?;
    if let Some(seconds) = waiting.wait_for_volume {
        let (started, trusted) = (Instant::now(), keys::trusted(trust)?);
        let mut told = Vec::new();
        while seconds == 0 || started.elapsed() < Duration::from_secs(seconds) {
            let coming = coming(paths, &trusted)?;
            if coming.is_empty() {
                break;
            }
            for path in coming.into_iter().filter(|path| !told.contains(path)).collect::<Vec<_>>() {
                print::talk(&format!("waiting for {}", path.display()));
                told.push(path);
            }
            tokio::time::sleep(bundles::LOOK).await;
        }
    }
    files(paths, trust).await
}

/// The volumes that are not there, or not all of which is.
fn coming(paths: &[PathBuf], trust: &Trust) -> Result<Vec<PathBuf>, End> {
    let mut coming = Vec::new();
    for location in bundles::locations(paths)? {
        let faults = match Bundle::open_damaged(&location, trust) {
            Ok((_, faults)) => faults.into_iter().next(),
            Err(error) => Some(error),
        };
        let Some(ferry_archive::Error::Volumes { faults, .. }) = faults else { continue };
        let is_coming = |what: VolumeState| match what {
            VolumeState::Absent => true,
            VolumeState::Size { found, expected } => found < expected,
            VolumeState::Surplus => false,
        };
        coming.extend(faults.into_iter().filter(|fault| is_coming(fault.what)).map(|fault| fault.path));
    }
    Ok(coming)
}

/// How a bundle can be read.
enum At {
    /// At any place.
    Hand(Found),
    /// As it comes.
    Once(Inflow),
}

/// Opens a bundle; of volumes that are not all there, as they are brought, where somebody does that.
async fn opened(location: &Location, trust: &Trust, args: &args::Install, may_wait: bool) -> Result<At, End> {
    let opened = Bundle::open_damaged(location, trust);
    let absent = match &opened {
        Err(error) => Some(error),
        Ok((_, faults)) => faults.first(),
    };
    if let Some(error) = absent.filter(|_| may_wait)
        && let Some(inflow) = bundles::in_order(location, error, &args.waiting)?
    {
        return Ok(At::Once(inflow));
    }
    let (bundle, faults) = match opened {
        Ok(opened) => opened,
        Err(error) => return Err(told(error, location, trust).await),
    };
    Ok(At::Hand(Found { bundle: Arc::new(bundle), location: location.clone(), faults }))
}

/// [`front`], which may read all volumes, where that can be interrupted.
async fn told(error: ferry_archive::Error, location: &Location, trust: &Trust) -> End {
    let (location, trust) = (location.clone(), trust.clone());
    match tokio::task::spawn_blocking(move || front(error, &location, &trust)).await {
        Ok(problems) => problems.into(),
        Err(error) => Error::Runtime(io::Error::other(error)).into(),
    }
}

/// Reads the beginning of a bundle that is read as it comes.
async fn begin(inflow: Inflow, path: PathBuf, trust: &Trust) -> Result<(Passing, Pipe), End> {
    let trust = trust.clone();
    let begin = move || Pipe::begin(inflow, &path, &trust);
    Ok(tokio::task::spawn_blocking(begin).await.map_err(|e| Error::Runtime(io::Error::other(e)))??)
}

/// A damaged bundle is taken where another has what may be missing: one that was made for it, or a second copy of it.
async fn complete(found: Vec<Found>, trust: &Trust) -> Result<Vec<Arc<Bundle>>, End> {
    let helps = |other: &Bundle, sums: &Digest| {
        other.sums_digest() == sums || other.head().bases.iter().any(|base| base.sums.as_ref() == Some(sums))
    };
    let has_help = |(i, one): (usize, &Found)| {
        let mut others = found.iter().enumerate().filter(|(other, _)| *other != i);
        others.any(|(_, other)| helps(&other.bundle, one.bundle.sums_digest()))
    };
    let helped: Vec<bool> = found.iter().enumerate().map(has_help).collect();
    let mut bundles = Vec::with_capacity(found.len());
    for (Found { bundle, location, faults }, is_helped) in found.into_iter().zip(helped) {
        if is_helped {
            print::warnings(&faults.iter().map(ToString::to_string).collect::<Vec<_>>());
        } else if let Some(fault) = faults.into_iter().next() {
            return Err(told(fault, &location, trust).await);
        }
        bundles.push(bundle);
    }
    Ok(bundles)
}

/// Writes standard input into a file in `folder`, if there is room for what its head announces.
async fn spool(folder: &Path, trust: &Trust) -> Result<NamedTempFile, End> {
    let io = |source| Error::Io { action: "write in", path: folder.to_owned(), source };
    std::fs::create_dir_all(folder).map_err(io)?;
    let file = scratch::file(folder, "ferry-spool-", ".tar")?;
    let (copy, path, trust) = (file.reopen().map_err(io)?, file.path().to_owned(), trust.clone());
    // the file is removed with `file`, whatever becomes of this
    let write = move || -> Result<(), End> {
        let failed = |source| Error::Io { action: "write", path: path.clone(), source };
        let tee = Tee { file: copy.try_clone().map_err(failed)?, path: path.clone() };
        let incoming = Incoming::open(Box::new(tee), Path::new(bundles::STDIN), &trust)?;
        incoming.check_room(&path)?;
        let expected = incoming.size();
        drop(incoming);
        let mut copy = copy;
        // no more than it says that it has, and one byte that would be too many
        let there = copy.metadata().map_err(failed)?.len();
        let most = expected.saturating_sub(there).saturating_add(1);
        let rest = io::copy(&mut io::stdin().lock().take(most), &mut copy).map_err(failed)?;
        copy.flush().map_err(failed)?;
        match there.saturating_add(rest) {
            found if found > expected => {
                let path = PathBuf::from(bundles::STDIN);
                Err(ferry_archive::Error::TrailingBytes { path, expected, found }.into())
            }
            _ => Ok(()),
        }
    };
    tokio::task::spawn_blocking(write).await.map_err(|e| Error::Runtime(io::Error::other(e)))??;
    Ok(file)
}

/// Standard input, of which everything that is read is written down.
struct Tee {
    file: File,
    path: PathBuf,
}

impl Read for Tee {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = io::stdin().read(into)?;
        let written = self.file.write_all(&into[..count]);
        written.map_err(|e| io::Error::new(e.kind(), format!("cannot write `{}`: {e}", self.path.display())))?;
        Ok(count)
    }
}
