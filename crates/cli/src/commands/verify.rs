//! `ferry verify`.

pub(crate) mod store;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferry_archive::recovery::{Protected, protection};
use ferry_archive::{Bundle, Damage, Error as ArchiveError, Head, Incoming, Inflow, Location, Signed, Trust, Want};
use ferry_archive::{Verified, list};
use ferry_content::files::is_same_file;
use ferry_content::{Failure as _, Kind, Problems, texts};
use ferry_image::Digest;

use crate::bundles::{self, Named};
use crate::failure::{End, Error, is_damage};
use crate::progress::Meter;
use crate::{args, keys, print};

/// A bundle that holds.
struct Held {
    head: Head,
    signed: Signed,
    sums: Digest,
    verified: Verified,
}

pub(crate) async fn run(args: args::Verify) -> Result<(), End> {
    if let Some(folder) = store::named(&args) {
        return store::run(folder, &args).await;
    }
    let trust = keys::trusted(&args.trust)?;
    bundles::refuse_seconds_apart(&args.bundles, &args.waiting)?;
    let named = bundles::named(&args.bundles)?;
    if args.want.is_some() && named.len() > 1 {
        return Err(Error::usage("--want is about one bundle", "verify them one by one").into());
    }
    if let Some(want) = &args.want {
        refuse_to_replace(want, &named, &args.trust.keys.key)?;
    }
    let args = Arc::new(args);
    let mut problems = Problems::default();
    let mut held = Vec::new();
    for named in named {
        let (args, trust) = (Arc::clone(&args), trust.clone());
        let work = move || {
            let one = one(&named, &trust, &args);
            let sums = match (&one, &named) {
                (Ok(held), _) => Some(held.sums.clone()),
                (Err(_), Named::At(at)) => Bundle::open_damaged(at, &trust).ok().map(|(b, _)| b.sums_digest().clone()),
                (Err(_), Named::Pipe) => None,
            };
            let said = beside(&named, sums.as_ref(), one.is_err());
            (one, said)
        };
        match tokio::task::spawn_blocking(work).await.map_err(|e| Error::Runtime(std::io::Error::other(e)))? {
            (Ok(one), said) => {
                print::warnings(said.as_slice());
                held.push(one);
            }
            (Err(End::Problems(one)), said) => {
                problems.warn(said.filter(|_| is_damage(&one, &[], ArchiveError::is_damage)));
                problems.append(one);
            }
            (Err(end), _) => return Err(end),
        }
    }
    match held.as_slice() {
        [] => {}
        held if !args.json => held.iter().for_each(|one| tell(one, args.cold)),
        [one] => print::out(&super::pretty(&json(one, args.cold))?),
        several => {
            let all: Vec<_> = several.iter().map(|one| json(one, args.cold)).collect();
            print::out(&super::pretty(&serde_json::Value::Array(all))?);
        }
    }
    Ok(problems.or(())?)
}

/// The list of what is wanted must not take the place of what is read.
fn refuse_to_replace(want: &Path, named: &[Named], keys: &[PathBuf]) -> Result<(), End> {
    let locations = named.iter().filter_map(|named| match named {
        Named::At(location) => Some(location),
        Named::Pipe => None,
    });
    let bundles = locations.flat_map(|location| location.volumes.values().chain([&location.base]));
    match bundles.chain(keys).find(|read| is_same_file(want, read)) {
        None => Ok(()),
        Some(read) => {
            let why = format!("`--want {}` would replace `{}`, which is read", want.display(), read.display());
            Err(Error::usage(why, "give the list a name of its own").into())
        }
    }
}

/// What can be done about damage, where recovery files stand beside a bundle; which of them are no help to it, damaged or not.
fn beside(named: &Named, sums: Option<&Digest>, is_damaged: bool) -> Option<String> {
    let Named::At(location) = named else { return None };
    let path = location.base.display();
    match protection(location, sums) {
        Protected::Yes if is_damaged => {
            Some(format!("recovery files stand beside {path}: what is damaged or lost, `ferry repair {path}` may mend"))
        }
        Protected::ByOthers => Some(no_help(location)),
        _ => None,
    }
}

/// That recovery files stand beside a bundle, and are another's.
pub(super) fn no_help(location: &Location) -> String {
    let path = location.base.display();
    format!(
        "the recovery files beside {path} were made for another bundle and cannot mend this one: bring its own, or make them with `ferry protect \
         {path}` while it is whole"
    )
}

fn one(named: &Named, trust: &Trust, args: &args::Verify) -> Result<Held, End> {
    let location = match named {
        Named::Pipe => return passing(bundles::stdin(), Path::new(bundles::STDIN), trust, args),
        Named::At(location) => location,
    };
    let opened = Bundle::open_damaged(location, trust);
    let absent = match &opened {
        Err(error) => Some(error),
        Ok((_, faults)) => faults.first().filter(|fault| matches!(fault, ArchiveError::Volumes { .. })),
    };
    if let Some(error) = absent.filter(|_| args.want.is_none())
        && let Some(inflow) = bundles::in_order(location, error, &args.waiting)?
    {
        return passing(inflow, &location.base, trust, args);
    }
    match opened {
        Ok((bundle, _)) => whole(&bundle, args),
        Err(error) => {
            if args.want.is_some() {
                print::talk("nothing can be wanted: the front of the bundle, which lists its blobs, does not hold");
            }
            Err(front(error, location, trust).into())
        }
    }
}

/// What is wrong with a bundle whose front does not hold, and before that with its volumes as far as their list knows: it is not asked
/// where volumes are only missing, or where nothing is damaged.
pub(crate) fn front(error: ArchiveError, location: &Location, trust: &Trust) -> Problems {
    let mut problems = Problems::default();
    // volumes that were swapped are the cause of what stands at the front
    let is_worth = location.is_split() && error.is_damage() && error.kind() != Kind::Missing;
    if let Some(volumes) = is_worth.then(|| list::judge(location, trust)).flatten() {
        problems.add("", volumes);
    }
    problems.add("", error);
    problems
}

/// Reads by position, on all cores.
fn whole(bundle: &Bundle, args: &args::Verify) -> Result<Held, End> {
    keys::tell(bundle.signed());
    keys::expect(bundle.head(), bundle.path(), &args.trust.demand)?;
    let threads = super::threads(args.jobs);
    let meter = Meter::new("verifying", bundle.size(), args.talk.quiet);
    let checked = bundle.check(threads, args.cold, &|n| meter.add(n));
    meter.finish();
    match checked {
        Ok(verified) => {
            let (head, signed, sums) = (bundle.head().clone(), bundle.signed().clone(), bundle.sums_digest().clone());
            Ok(Held { head, signed, sums, verified })
        }
        Err(faults) => {
            want(bundle, &faults, args)?;
            affected(bundle, &faults);
            let mut problems = Problems::default();
            told_once(faults).into_iter().for_each(|fault| problems.add("", fault));
            Err(problems.into())
        }
    }
}

/// Whose blobs are damaged: their digests say nothing to people.
fn affected(bundle: &Bundle, faults: &[ArchiveError]) {
    let (blobs, _) = damaged(faults);
    let want = Want::of(bundle, &blobs);
    let names: Vec<String> = want.images.iter().map(|image| format!("`{}`", image.reference)).collect();
    if !blobs.is_empty() && !names.is_empty() {
        print::talk(&format!("damaged or missing blobs are needed by {}", names.join(", ")));
    }
}

/// The damaged blobs, and the names of other damaged members.
fn damaged(faults: &[ArchiveError]) -> (Vec<Digest>, Vec<&str>) {
    let members = faults.iter().flat_map(|fault| match fault {
        ArchiveError::Damaged { members, .. } => members.as_slice(),
        _ => &[],
    });
    let (mut blobs, mut files) = (Vec::new(), Vec::new());
    for Damage { name, .. } in members {
        match name.strip_prefix("blobs/sha256/").and_then(|hex| Digest::sha256(hex).ok()) {
            Some(digest) => blobs.push(digest),
            None => files.push(name.as_str()),
        }
    }
    (blobs, files)
}

/// That what stands in volumes that are not there cannot be read is no news.
fn told_once(mut faults: Vec<ArchiveError>) -> Vec<ArchiveError> {
    let absent: Vec<_> = faults.iter().flat_map(|fault| fault.absent_volumes().map(Path::to_owned)).collect();
    // those that nobody has seen are named after the others, in whatever folder these are
    let is_absent = |volume: &PathBuf| absent.iter().any(|known| known.file_name() == volume.file_name());
    for fault in &mut faults {
        if let ArchiveError::Damaged { members, .. } = fault {
            members.retain(|m| m.found.is_some() || !m.volumes.iter().any(is_absent));
        }
    }
    faults.retain(|fault| !matches!(fault, ArchiveError::Damaged { members, .. } if members.is_empty()));
    faults
}

/// Writes down what a damaged bundle lacks.
fn want(bundle: &Bundle, faults: &[ArchiveError], args: &args::Verify) -> Result<(), End> {
    let Some(path) = &args.want else { return Ok(()) };
    let (blobs, files) = damaged(faults);
    for file in files {
        print::warnings(&[format!("`{file}` is damaged, and no patch can bring it: copy the bundle again")]);
    }
    let want = Want::of(bundle, &blobs);
    if want.blobs.is_empty() {
        print::talk(
            "no blob is damaged, only what stands between them: no patch can mend that; copy the bundle again, or use `ferry repair`",
        );
        return Ok(());
    }
    let json = want.to_json().map_err(|e| Error::Runtime(e.into()))?;
    texts::write(path, &json)?;
    print::talk(&format!(
        "wanted: {}, listed in {}: on the connected side, `ferry bundle --patch {} -o patch.tar`",
        print::count(want.blobs.len(), "blob"),
        path.display(),
        path.file_name().unwrap_or_default().to_string_lossy()
    ));
    Ok(())
}

/// Reads from front to end, once.
fn passing(inflow: Inflow, path: &Path, trust: &Trust, args: &args::Verify) -> Result<Held, End> {
    let refuse = |what: &str, hint: &str| Err(Error::usage(what.to_owned(), hint).into());
    if args.want.is_some() {
        return refuse("--want needs the bundle as a file", "write the pipe into a file first, or bring all volumes");
    }
    if args.cold {
        return refuse("--cold is about a file, and this passes by", "leave it out");
    }
    let mut incoming = Incoming::open(inflow, path, trust)?;
    keys::tell(incoming.signed());
    keys::expect(incoming.head(), path, &args.trust.demand)?;
    let (head, signed, sums) = (incoming.head().clone(), incoming.signed().clone(), incoming.sums_digest().clone());
    let bytes = incoming.bytes();
    let meter = Meter::new("verifying", bytes, args.talk.quiet);
    let mut damaged = Vec::new();
    let read = loop {
        match incoming.advance() {
            Ok(None) => break Ok(()),
            Ok(Some(_)) => match incoming.check(&|n| meter.add(n)) {
                Ok(damage) => damaged.extend(damage),
                Err(error) => break Err(error),
            },
            Err(error) => break Err(error),
        }
    };
    let read = read.and_then(|()| incoming.finish());
    meter.finish();
    let mut problems = Problems::default();
    if let Err(error) = read {
        problems.add("", error);
    }
    if !damaged.is_empty() {
        problems.add("", ArchiveError::Damaged { path: path.to_owned(), members: damaged });
    }
    let verified = Verified { bytes, blobs: head.blobs.len() };
    Ok(problems.or(Held { head, signed, sums, verified })?)
}

fn json(Held { head, signed, sums, verified }: &Held, cold: bool) -> serde_json::Value {
    serde_json::json!({
        "name": head.name, "version": head.version,
        "signer": signed.signers.first().map(|signer| keys::full_id(&signer.key.key)),
        "signers": keys::signers_json(signed), "sums": sums,
        "bases": head.bases, "relies": {"count": head.relies.len(), "bytes": head.relies.iter().map(|r| r.size).sum::<u64>()},
        "bytes": verified.bytes, "blobs": verified.blobs, "cold": cold,
    })
}

fn tell(Held { head, signed, verified, .. }: &Held, cold: bool) {
    let (name, signer, bytes) = (keys::full_name(head), keys::signed_by(signed), print::bytes(verified.bytes));
    let how = if cold { "read from the medium and checked" } else { "checked" };
    print::talk(&format!("{name} is whole: {signer}, {}, {bytes} {how}", print::count(verified.blobs, "blob")));
    if !head.relies.is_empty() {
        let bases: Vec<String> = head.bases.iter().map(keys::base_name).collect();
        let (count, bytes) = (head.relies.len(), head.relies.iter().map(|relied| relied.size).sum());
        let left = format!("{}, {}", print::count(count, "blob"), print::bytes(bytes));
        print::talk(&format!(
            "it is a delta: {left} are not in it and must be at the target, from {}",
            bases.join(", ")
        ));
    }
}
