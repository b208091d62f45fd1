//! `ferry bundle`.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use ferry_archive::recovery::{Geometry, Protection, check_room};
use ferry_archive::{Build, Location, Partial, SecretKey, Trust, TrustedKey, Want, volumes};
use ferry_bundle::known::Known;
use ferry_bundle::lock::{self, Lock};
use ferry_bundle::manifest::{self, BundleManifest, Image, Platforms};
use ferry_bundle::spool::Spool;
use ferry_bundle::{Base, Built, Plan, PlannedImage, PlannedReferrer, Request, list, output};
use ferry_content::{copy, scratch, texts};
use ferry_image::{Reference, referrer};
use ferry_registry_client::Client;

use super::protect;
use crate::args;
use crate::failure::{End, Error};
use crate::progress::Meter;
use crate::{bases, bundles, config, keys, print, registry, secrets};

/// What is known before anything is fetched.
pub(crate) struct Bundle {
    args: args::Bundle,
    manifest: BundleManifest,
    output: PathBuf,
    sign: Option<SecretKey>,
    client: Client,
    bases: Vec<Base>,
    patch: Option<Want>,
    /// Where what would stand beside a file is kept while the bundle goes to standard output.
    beside: Option<scratch::Folder>,
    /// What is known to be worth saying before anything is asked.
    notes: Vec<String>,
}

/// Reads the list and checks what can be checked at once; asks for the key's password where one is needed.
pub(crate) fn prepare(args: args::Bundle) -> Result<Bundle, End> {
    let patch = args.patch.as_deref().map(bases::want).transpose()?;
    let (mut manifest, notes) = match &patch {
        Some(want) => patched(&args, want)?,
        None => (manifest(&args)?, Vec::new()),
    };
    let settings = config::load(args.registry.config.as_deref())?;
    for (host, mirrors) in &settings.mirrors {
        manifest.add_mirrors(host, mirrors);
    }
    refuse_for_pipe(&args)?;
    let beside = is_pipe(&args).then(|| scratch::Folder::new(&std::env::temp_dir(), "ferry-pipe-")).transpose()?;
    let output = match &beside {
        Some(folder) => folder.path().join("bundle.tar"),
        None => output(&args)?,
    };
    let mut read = inputs(&args);
    read.push(settings.path.clone());
    output::check(&output, &manifest, &read)?;
    if args.volume_size.is_some() {
        output::check(&volumes::name(&output, 1), &manifest, &read)?;
    }
    if !args.dry_run {
        may_write(&output)?;
        print::warnings(&left_behind(&output));
    }
    let logins = if args.login.is_empty() { Vec::new() } else { secrets::from_stdin(&args.login)? };
    let client = registry::client(&args.registry, &settings, logins)?;
    let bases = bases::load_all(&args.have, &args.trust)?;
    let sign = signing_key(&args)?;
    Ok(Bundle { args, manifest, output, sign, client, bases, patch, beside, notes })
}

/// Whether the bundle goes to standard output.
fn is_pipe(args: &args::Bundle) -> bool {
    args.output.as_deref() == Some(Path::new("-"))
}

/// What makes no sense with `-o -`.
fn refuse_for_pipe(args: &args::Bundle) -> Result<(), End> {
    if !is_pipe(args) || args.dry_run {
        return Ok(());
    }
    let (what, hint) = match () {
        () if std::io::stdout().is_terminal() => ("standard output is a terminal", "send it into a pipe or a file"),
        () if args.json => ("--json and the bundle would both go to standard output", "give a file with `-o`"),
        () if args.volume_size.is_some() => ("a pipe has no volumes", "give a file with `-o`, or cut it with `split`"),
        () if args.recovery.is_some() => {
            ("a pipe has no recovery files beside it", "run `ferry protect` at the other end")
        }
        () if args.read_back => ("what went into a pipe cannot be read back", "verify it at the other end"),
        () => return Ok(()),
    };
    Err(Error::usage(what, hint).into())
}

pub(crate) async fn run(bundle: Bundle) -> Result<(), End> {
    let Bundle { args, manifest, output, sign, client, bases, patch, beside, notes } = bundle;
    let has_archives = manifest.images.iter().any(|image| image.archive.is_some());
    let spool = match args.dry_run {
        true => Spool::for_dry_run(&output, has_archives)?,
        false => Spool::beside(&output, has_archives)?,
    };
    let known = Known::beside(&output, !args.dry_run);
    let request = Request {
        known: known.clone(),
        spool: spool.folder().to_owned(),
        platforms: platforms(&args.platform)?,
        locked: locked(&args)?,
        output: output.clone(),
        jobs: usize::from(args.registry.jobs),
        strict: !args.no_strict,
        installer: installer(&args)?,
        manifest,
        bases,
        patch,
    };
    // before anything counts
    let mut foreseen = notes;
    foreseen.extend(request.foresee(&client).await);
    print::warnings(&foreseen);
    let mut plan = request.plan(&client).await.inspect_err(|_| kept(&spool))?;
    print::warnings(&plan.warnings);
    plan.warnings.splice(0..0, foreseen);
    let size = plan.size(!args.unsigned);
    args.volume_size.map_or(Ok(()), |volume| volumes::refuse_too_many(size, volume))?;
    let fail = |why| ferry_archive::Error::RecoveryPlan { path: output.clone(), why };
    let recovery = args.recovery.map(|budget| Geometry::plan(size, args.volume_size, budget).map_err(fail));
    let recovery = recovery.transpose()?;
    let needed = size + plan.spooled_bytes + recovery.as_ref().map_or(0, Geometry::recovery_bytes);
    if args.json {
        print::out(&plan_json(&plan, size, needed, recovery.as_ref(), &output)?);
    } else if args.dry_run {
        print::out(&plan_text(&plan, size, needed, recovery.as_ref(), &output, args.volume_size));
    }
    if args.dry_run {
        return Ok(());
    }
    if let Some(geometry) = &recovery {
        check_room(&output, geometry)?;
    }
    let trust = Trust {
        keys: sign.iter().map(|key| TrustedKey::from(key.public_key())).collect(),
        allow_unsigned: args.unsigned,
        ..Trust::default()
    };
    if let Some(path) = args.lock.as_ref().filter(|_| !args.locked) {
        let text =
            lock::print(&plan.lock).map_err(|source| ferry_bundle::Error::Lock { path: path.clone(), source })?;
        texts::write(path, text.as_bytes())?;
    }
    if beside.is_some() {
        return stream(plan, &request, sign, &args).await;
    }
    let left = left(&plan);
    let built = build(plan, &request, sign, &args).await.inspect_err(|_| kept(&spool))?;
    spool.remove();
    known.remove();
    report(&built, &request)?;
    let (path, size) = (built.sealed.path.display(), print::bytes(built.sealed.size));
    match built.sealed.volumes {
        0 => print::talk(&format!("{path} is complete: {size}")),
        count => print::talk(&format!("{path} is complete: {size} in {}", print::count(count, "volume"))),
    }
    left.iter().for_each(|line| print::talk(line));
    if args.read_back {
        read_back(&built.sealed.path, &trust, args.talk.quiet).await?;
    }
    if let Some(budget) = args.recovery {
        let sealed = ferry_archive::Bundle::open(&built.sealed.path, &trust)?;
        let protection = Protection::plan(&sealed, budget)?;
        protect::write(protection, sealed, None, args.talk.quiet).await?;
    }
    Ok(())
}

/// Sends the bundle to standard output.
async fn stream(plan: Plan, request: &Request, sign: Option<SecretKey>, args: &args::Bundle) -> Result<(), End> {
    let (_, bytes) = plan.total();
    let left = left(&plan);
    let meter = Meter::new("fetching", bytes, args.talk.quiet);
    let options = copy::Options { concurrency: request.jobs, ..copy::Options::default() };
    let place = Path::new("standard output");
    let built = plan.stream(Box::new(std::io::stdout()), place, sign, &options, meter.clone()).await;
    meter.finish();
    print::talk(&format!("the bundle is complete: {}", print::bytes(built?.sealed.size)));
    left.iter().for_each(|line| print::talk(line));
    Ok(())
}

/// Reads every byte of the finished bundle from the medium.
async fn read_back(path: &Path, trust: &Trust, quiet: bool) -> Result<(), End> {
    let bundle = Arc::new(ferry_archive::Bundle::open(path, trust)?);
    let meter = Meter::new("reading back", bundle.size(), quiet);
    let (reader, counter) = (Arc::clone(&bundle), Arc::clone(&meter));
    let threads = super::threads(None);
    let work = move || reader.verify(threads, true, &|n| counter.add(n));
    let verified = tokio::task::spawn_blocking(work).await.map_err(|e| Error::Runtime(std::io::Error::other(e)))?;
    meter.finish();
    let verified = verified?;
    print::talk(&format!("{} read back from the medium, and whole", print::bytes(verified.bytes)));
    Ok(())
}

async fn build(plan: Plan, request: &Request, sign: Option<SecretKey>, args: &args::Bundle) -> Result<Built, End> {
    let (blobs, bytes) = plan.total();
    let started = Instant::now();
    if !args.talk.quiet {
        print::talk(&format!(
            "{}, {}, {} to {}",
            print::count(plan.images.len(), "image"),
            print::count(blobs, "blob"),
            print::bytes(bytes),
            request.output.display()
        ));
    }
    match Partial::peek(&request.output)? {
        Some(earlier) if earlier.volume != args.volume_size => {
            print::talk(
                "note: the unfinished build that is there has volumes of another size, or none; what it fetched is lost",
            );
        }
        Some(earlier) if earlier.inputs != request.inputs() => {
            print::talk(
                "note: the unfinished build that is there was asked for otherwise; what differs from it is lost",
            );
        }
        _ => {}
    }
    let meter = Meter::new("fetching", bytes, args.talk.quiet);
    let options = copy::Options { concurrency: request.jobs, ..copy::Options::default() };
    let how =
        Build { sign: sign.map(Arc::new), inputs: request.inputs(), lock: String::new(), volume: args.volume_size };
    let built = plan.build(&request.output, how, &options, meter.clone()).await;
    meter.finish();
    let built = built.inspect_err(|problems| {
        if ferry_bundle::build::worth_repeating(problems) {
            print::talk("what was fetched is kept: the same command continues");
        }
    })?;
    if !args.talk.quiet {
        if built.resumed_bytes > 0 {
            print::talk(&format!("{} were there from an earlier run", print::bytes(built.resumed_bytes)));
        }
        let retries = meter.retries();
        if retries > 0 {
            print::talk(&format!("{} had to be made again", print::count(retries, "request")));
        }
        tracing::info!(seconds = started.elapsed().as_secs_f64(), "built");
    }
    Ok(built)
}

/// What was fetched from where, beside the bundle: the bundle's own bytes must not depend on it.
fn report(built: &Built, request: &Request) -> Result<(), End> {
    let images: Vec<_> = built
        .images
        .iter()
        .map(|(image, places)| {
            serde_json::json!({
                "reference": image.reference, "source": image.source, "fetchedFrom": places, "bytes": image.bytes,
            })
        })
        .collect();
    let value = serde_json::json!({
        "bundle": built.sealed.path.file_name().map(|n| n.to_string_lossy()), "size": built.sealed.size,
        "sums": built.sealed.sums_digest, "resumedBytes": built.resumed_bytes, "images": images,
    });
    let mut path = request.output.clone().into_os_string();
    path.push(".report.json");
    Ok(texts::write(Path::new(&path), format!("{}\n", super::pretty(&value)?).as_bytes())?)
}

/// Says what a failed build leaves for the next.
fn kept(spool: &Spool) {
    if spool.holds_something() {
        print::talk(&format!("compressed layers are kept for the next run in {}", spool.folder().display()));
    }
}

/// Files that are read beside those of the bundle manifest.
fn inputs(args: &args::Bundle) -> Vec<PathBuf> {
    let mut inputs: Vec<PathBuf> = args.what.iter().map(PathBuf::from).collect();
    inputs.extend(args.lock.clone());
    inputs.extend(args.have.iter().chain(&args.patch).cloned());
    // a base may be volumes, of which one is named
    let bases = args.have.iter().filter_map(|path| Location::of(path).ok());
    inputs.extend(bases.flat_map(|location| location.volumes.into_values()));
    inputs.extend(args.sign_key.clone());
    inputs.extend(args.include_ferry.as_ref().map(PathBuf::from));
    inputs
}

/// What to carry: one file, or references.
fn manifest(args: &args::Bundle) -> Result<BundleManifest, End> {
    let mut manifest = match args.what.as_slice() {
        [one] if is_file(one) => from_file(Path::new(one))?,
        many => from_references(many, args.output.as_deref())?,
    };
    if let Some(name) = &args.name {
        manifest.name.clone_from(name);
    }
    if args.no_referrers {
        manifest.without_referrers();
    }
    Ok(manifest)
}

/// What to carry to mend a bundle, and what there is to say of it.
fn patched(args: &args::Bundle, want: &Want) -> Result<(BundleManifest, Vec<String>), End> {
    let listed = match args.what.as_slice() {
        [] => None,
        [one] if is_file(one) => Some(from_file(Path::new(one))?),
        _ => {
            let hint = "give the bundle manifest that the damaged bundle was built from, or nothing";
            return Err(Error::usage("beside `--patch` something else than one bundle manifest is given", hint).into());
        }
    };
    let (mut manifest, notes) = ferry_bundle::patch::manifest(want, listed)?;
    if let Some(name) = &args.name {
        manifest.name.clone_from(name);
    }
    Ok((manifest, notes))
}

/// A file that is there, or something that can only be meant as one.
fn is_file(what: &str) -> bool {
    let path = Path::new(what);
    let named =
        path.extension().is_some_and(|e| ["yaml", "yml", "txt", "list"].iter().any(|k| e.eq_ignore_ascii_case(k)));
    path.is_file() || named && !what.contains(':')
}

fn from_file(path: &Path) -> Result<BundleManifest, End> {
    let text = texts::read(path)?;
    Ok(match manifest::detect(&text) {
        manifest::Kind::Manifest => manifest::parse(&text, path)?,
        manifest::Kind::List => list::parse(&text, path)?.into_manifest(&manifest::name_of(path)),
    })
}

fn from_references(what: &[String], output: Option<&Path>) -> Result<BundleManifest, End> {
    if let Some(file) = what.iter().find(|w| is_file(w)) {
        let hint = "give one bundle manifest or list, or references only";
        return Err(Error::usage(format!("`{file}` is a file, and something else is given beside it"), hint).into());
    }
    let mut problems = ferry_content::Problems::default();
    let mut images: Vec<Image> = Vec::new();
    for text in what {
        match text.parse::<Reference>() {
            Ok(reference) if images.iter().any(|i| i.reference == reference) => {}
            Ok(reference) => images.push(Image::new(reference, 0)),
            Err(error) => {
                let hint = "give a bundle manifest or list that exists, or references such as `nginx:1.27`";
                problems.add("", Error::usage(error.to_string(), hint));
            }
        }
    }
    let name = output.map_or_else(|| "images".to_owned(), manifest::name_of);
    Ok(problems.or(BundleManifest::of(&name, images))?)
}

/// The key is not needed for a dry run: every signature has the same size.
fn signing_key(args: &args::Bundle) -> Result<Option<SecretKey>, End> {
    match &args.sign_key {
        _ if args.unsigned || args.dry_run => Ok(None),
        Some(path) => Ok(Some(keys::secret(path)?)),
        None => {
            let hint = "make a key pair with `ferry keygen`, then give `--sign-key ferry.key`; or go without, with `--unsigned`";
            Err(Error::usage("bundles are signed, and no key is given", hint).into())
        }
    }
}

fn output(args: &args::Bundle) -> Result<PathBuf, End> {
    match (&args.output, args.dry_run) {
        (Some(path), _) => Ok(path.clone()),
        (None, true) => Ok(PathBuf::from("bundle.tar")),
        (None, false) => Err(Error::usage("the file to write is not named", "give it with `-o NAME.tar`").into()),
    }
}

/// The program to carry: the one named, or this one.
fn installer(args: &args::Bundle) -> Result<Option<PathBuf>, End> {
    match args.include_ferry.as_deref() {
        None => Ok(None),
        Some("") => {
            let own = std::env::current_exe();
            Ok(Some(own.map_err(|source| Error::Io { action: "find", path: PathBuf::from("ferry"), source })?))
        }
        Some(path) => Ok(Some(PathBuf::from(path))),
    }
}

/// Signatures and recovery files of an earlier bundle of that name: the other side would refuse the new one because of them.
fn left_behind(output: &Path) -> Vec<String> {
    let folder = output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let of_it = entries.map(|entry| folder.join(entry.file_name())).filter(|path| {
        bundles::is_beside(path, &[output.to_owned()])
            && ![".sha256", ".sha256.minisig", ".report.json"].iter().any(|end| path.to_string_lossy().ends_with(end))
    });
    let warn = |path: PathBuf| {
        format!("`{}` belongs to an earlier bundle of this name: remove it, if this one will differ", path.display())
    };
    let mut warnings: Vec<String> = of_it.map(warn).collect();
    warnings.sort();
    warnings
}

/// Finds out before anything is fetched whether the folder can be written to.
fn may_write(output: &Path) -> Result<(), End> {
    if output.exists() && !output.is_file() || output.to_string_lossy().ends_with('/') {
        return Err(ferry_archive::Error::NotAFile { path: output.to_owned() }.into());
    }
    volumes::refuse_name(output)?;
    let folder = output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let io = |source| Error::Io { action: "write to", path: folder.to_owned(), source };
    std::fs::metadata(folder).map_err(io)?;
    // one without a name; the error would have one, which says nothing to anybody
    tempfile::tempfile_in(folder).map(drop).map_err(|error| io(error.kind().into()).into())
}

fn platforms(texts: &[String]) -> Result<Option<Platforms>, End> {
    if texts.is_empty() {
        return Ok(None);
    }
    match Platforms::try_from(texts.to_vec()) {
        Ok(platforms) => Ok(Some(platforms)),
        Err(error) => {
            Err(Error::usage(format!("--platform: {error}"), "write `--platform linux/amd64`, or `all`").into())
        }
    }
}

fn locked(args: &args::Bundle) -> Result<Option<Lock>, End> {
    let Some(path) = args.lock.as_ref().filter(|_| args.locked) else { return Ok(None) };
    let text =
        std::fs::read_to_string(path).map_err(|source| Error::Io { action: "read", path: path.clone(), source })?;
    let lock = lock::parse(&text).map_err(|source| ferry_bundle::Error::Lock { path: path.clone(), source })?;
    Ok(Some(lock))
}

fn plan_text(
    plan: &Plan,
    size: u64,
    needed: u64,
    recovery: Option<&Geometry>,
    output: &Path,
    volume: Option<u64>,
) -> String {
    let is_delta = !plan.layout.head().bases.is_empty();
    let columns = ["IMAGE", "PLATFORMS", "BLOBS", "SIZE", "LEFT OUT", "SOURCE"];
    let mut rows = vec![columns.map(str::to_owned).to_vec()];
    for image in &plan.images {
        let platforms = if image.platforms.is_empty() { "-".to_owned() } else { image.platforms.join(",") };
        rows.push(vec![
            image.reference.to_string(),
            platforms,
            image.blobs.to_string(),
            print::bytes(image.bytes),
            format!("{} ({})", image.left.0, print::bytes(image.left.1)),
            image.source.clone(),
        ]);
    }
    if !is_delta {
        rows.iter_mut().for_each(|row| drop(row.remove(4)));
    }
    let left = left(plan).map(|line| format!("  {line}\n")).unwrap_or_default();
    let (blobs, bytes) = plan.total();
    let attached: Vec<String> = plan.images.iter().filter_map(attached).collect();
    let volumes = |room| {
        format!(", in {} of {} at most", print::count(size.div_ceil(room) as usize, "volume"), print::bytes(room))
    };
    let volumes = volume.map(volumes).unwrap_or_default();
    let recovery = recovery.map(|geometry| format!("\n  recovery files: {}", protect::words(geometry)));
    let recovery = recovery.unwrap_or_default();
    format!(
        "{}\n\n{}  {}, {}, {} ({} shared between images)\n{left}  the file: {} bytes ({}){volumes}{recovery}\n  free space needed in {}: {}",
        print::table(&rows),
        attached.concat(),
        print::count(plan.images.len(), "image"),
        print::count(blobs, "blob"),
        print::bytes(bytes),
        print::bytes(plan.shared_bytes),
        size,
        print::bytes(size),
        output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).display(),
        print::bytes(needed),
    )
}

/// A line on what a delta or patch leaves to the far side, of how many images, and to which bases.
fn left(plan: &Plan) -> Option<String> {
    if plan.layout.head().bases.is_empty() {
        return None;
    }
    let (blobs, bytes) = plan.left;
    let images = print::count(left_of(plan), "image");
    let bases: Vec<String> = plan.layout.head().bases.iter().map(keys::base_name).collect();
    let (blobs, bytes) = (print::count(blobs, "blob"), print::bytes(bytes));
    Some(format!("left out: {blobs} of {images}, {bytes}, which are said to be there by {}", bases.join(", ")))
}

/// The images of which something is left out.
fn left_of(plan: &Plan) -> usize {
    plan.images.iter().filter(|image| image.left.0 > 0).count()
}

/// A line on what goes with an image, if anything does.
fn attached(image: &PlannedImage) -> Option<String> {
    let kinds = image.referrers.iter().map(|r| r.kind);
    let with = referrer::counted(kinds).map(|counted| format!("with {counted}"));
    let keys = (!image.signed_by.is_empty()).then(|| format!("signed by {}", image.signed_by.join(", ")));
    let both: Vec<String> = with.into_iter().chain(keys).collect();
    (!both.is_empty()).then(|| format!("  {}: {}\n", image.reference, both.join("; ")))
}

fn referrers(image: &PlannedImage) -> Vec<serde_json::Value> {
    let json = |r: &PlannedReferrer| serde_json::json!({"kind": r.kind, "digest": r.digest, "subject": r.subject, "tag": r.tag});
    image.referrers.iter().map(json).collect()
}

fn plan_json(plan: &Plan, size: u64, needed: u64, recovery: Option<&Geometry>, output: &Path) -> Result<String, End> {
    let (blobs, bytes) = plan.total();
    let images: Vec<_> = plan
        .images
        .iter()
        .map(|i| {
            serde_json::json!({
                "reference": i.reference, "source": i.source, "platforms": i.platforms,
                "blobs": i.blobs, "bytes": i.bytes, "leftOut": {"count": i.left.0, "bytes": i.left.1}, "referrers": referrers(i), "signedBy": i.signed_by,
            })
        })
        .collect();
    let value = serde_json::json!({
        "output": output, "images": images,
        "blobs": {"count": blobs, "bytes": bytes, "sharedBytes": plan.shared_bytes},
        "leftOut": {"count": plan.left.0, "bytes": plan.left.1, "images": left_of(plan)}, "bases": plan.layout.head().bases,
        "size": size, "recoveryBytes": recovery.map_or(0, Geometry::recovery_bytes), "freeSpaceNeeded": needed,
        "warnings": plan.warnings,
    });
    super::pretty(&value)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Args, Command};

    fn parse(line: &str) -> args::Bundle {
        match Args::try_parse_from(line.split(' ')).expect("arguments").command {
            Command::Bundle(bundle) => *bundle,
            _ => panic!("not a bundle"),
        }
    }

    fn words(end: &End) -> String {
        match end {
            End::Problems(problems) => problems.to_string(),
            End::Interrupted | End::Different => "nothing".to_owned(),
        }
    }

    #[test]
    fn no_key_is_read_where_none_is_needed() {
        // as FERRY_SIGN_KEY would name it
        for line in ["--unsigned", "--dry-run"] {
            let args = parse(&format!("ferry bundle a:1 -o b.tar --sign-key /not/there {line}"));
            assert!(signing_key(&args).expect(line).is_none());
        }
        assert!(signing_key(&parse("ferry bundle a:1 -o b.tar --sign-key /not/there")).is_err());
    }

    #[test]
    fn a_file_is_not_taken_for_an_image() {
        let end = manifest(&parse("ferry bundle a:1 images.txt -o b.tar")).map(|_| ()).expect_err("a file");
        assert_eq!(words(&end), "`images.txt` is a file, and something else is given beside it");
        assert!(manifest(&parse("ferry bundle a:1 quay.io/b/c:2 -o b.tar")).is_ok());
    }

    #[test]
    fn an_output_that_cannot_be_is_found_before_anything_is_fetched() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        assert!(may_write(&path("new.tar")).is_ok());
        assert_eq!(std::fs::read_dir(folder.path()).expect("folder").count(), 0);
        for bad in [folder.path().to_owned(), path("new/"), path("absent/new.tar")] {
            assert!(may_write(&bad).is_err(), "{}", bad.display());
        }
    }
}
