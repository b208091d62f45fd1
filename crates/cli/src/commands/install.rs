//! `ferry install`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferry_content::store::Store;
use ferry_content::{copy, disk};
use ferry_image::{Target, referrer};
use ferry_install::{
    Destination, Options, PlannedReferrer, Preflight, Probe, Pushed, ReferrerState, State, Written, preflight,
};
use ferry_registry_client::Login;
use tempfile::TempDir;

use crate::commands::{damage, emitted, node};
use crate::failure::{End, Error};
use crate::progress::Meter;
use crate::secrets::{self, Account};
use crate::{args, config, opened, print, registry};

/// Uploads to begin with.
const FIRST: usize = 4;
/// Where results go when nobody says.
const OUT: &str = "ferry-out";
/// What a store is called in YAML when nobody says.
pub(crate) const STORE_NAME: &str = "localhost:5000";

pub(crate) async fn run(args: args::Install) -> Result<(), End> {
    let bundles = args.bundles.clone();
    match install(args).await {
        Err(End::Problems(mut problems)) => {
            problems.warn(damage::mendable(&bundles, &problems));
            Err(problems.into())
        }
        result => result,
    }
}

async fn install(args: args::Install) -> Result<(), End> {
    if let Some(node) = node::named(&args)? {
        return node::run(&args, node).await;
    }
    let opened::Opened { bundles, pipe, introductions, signed, spooled: _spooled } = opened::open(&args).await?;
    let made = !args.dry_run && args.store.as_ref().is_some_and(|folder| !folder.exists());
    let (destination, _empty) = destination(&args)?;
    let options = Options {
        layout: args.layout.map(Into::into),
        index: args.index.into(),
        on_existing: args.on_existing.into(),
        yaml: args.yaml.clone(),
        out: out(&args),
        strict: !args.no_strict,
        emit: args.emit.iter().copied().map(Into::into).collect(),
        emitting: emitted::options(&args.emit, &args.registry.ca_file, is_plain(&args))?,
        without_referrers: args.no_referrers,
        want: args.want.clone(),
        recheck: args.recheck,
        jobs: usize::from(args.registry.jobs),
        is_look: args.dry_run,
    };
    if let (true, Some(folder)) = (args.recheck, &args.store) {
        // it may take minutes
        print::talk(&format!("reading what `{}` has of these images", folder.display()));
    } else if args.recheck {
        print::talk(
            "blobs are asked for by name, not read: a registry says that it has one whose file is damaged; of a store, `--store DIR \
             --recheck` reads the bytes",
        );
    }
    let made = made.then(|| destination.clone());
    let preflight = match (preflight(Arc::new(bundles), destination, options).await, made) {
        // an empty store would be taken for one that was filled
        (Err(problems), Some(Destination::Store { store, .. })) => {
            if let Err(error) = Store::clone(&store).remove_if_empty() {
                tracing::debug!(%error, "the empty store stays");
            }
            return Err(problems.into());
        }
        (result, _) => result?,
    };
    if let Some(folder) = &args.store {
        disk::check_room(folder, preflight.absent_bytes().await?)?;
    }
    print::warnings(&preflight.warnings);
    let introduce = || introductions.iter().for_each(|line| print::talk(line));
    if args.dry_run {
        introduce();
        let mut probe = preflight.probe.clone();
        probe.leaves.extend(preflight.close().await);
        return show(&preflight, &probe, is_named(&args), args.json.then_some(signed));
    }
    let (_, bytes) = preflight.blobs()?;
    let meter = Meter::new("pushing", bytes, args.talk.quiet);
    let options =
        copy::Options { concurrency: usize::from(args.registry.jobs), first: FIRST, ..copy::Options::default() };
    let pushed = preflight.push_through(pipe, &options, meter.clone()).await;
    meter.finish();
    let pushed = pushed?;
    introduce();
    for note in &pushed.notes {
        print::talk(&format!("note: {note}"));
    }
    for left in &preflight.probe.leaves {
        print::talk(&format!("note: asking the target left {left}"));
    }
    let written = preflight.write(&pushed, jiff::Timestamp::now())?;
    if let (false, Some(relocation)) = (is_named(&args), &written.relocation) {
        let path = relocation.display();
        print::talk(&format!(
            "note: `{STORE_NAME}` stands for the store in {path}; `--registry HOST[:PORT]` says by which name nodes reach it"
        ));
    }
    report(&preflight, &pushed, &written, is_named(&args), args.json.then_some(signed))
}

/// The folder for what is written beside the target: a store whose name nobody needs is filled, and that is all.
fn out(args: &args::Install) -> Option<PathBuf> {
    let is_unasked = !is_named(args) && args.emit.is_empty();
    args.out.clone().or_else(|| (!is_unasked).then(|| PathBuf::from(OUT)))
}

/// Whether the target has a name: a store may have none yet.
fn is_named(args: &args::Install) -> bool {
    args.registry_name.is_some()
}

/// Whether nodes will reach a store's registry without TLS, as far as anybody says so.
fn is_plain(args: &args::Install) -> bool {
    let named = args.registry_name.as_deref().unwrap_or(STORE_NAME).split('/').next().unwrap_or_default();
    let said = args.registry.plain_http.iter().any(|host| host == "*" || host == named);
    said || (args.registry.ca_file.is_empty() && emitted::is_loopback(named))
}

/// The target, and the folder to keep while it is looked at, if it is one for the look only.
fn destination(args: &args::Install) -> Result<(Destination, Option<TempDir>), End> {
    let named = args.registry_name.as_deref().map(parse).transpose()?;
    match (&args.store, named) {
        (Some(folder), named) => {
            // what is carried can be had later, by the same command
            if !args.yaml.is_empty() && named.is_none() {
                let hint = "give the name under which nodes will reach the store: `--registry HOST[:PORT]`";
                return Err(Error::usage("YAML cannot be rewritten to a store without a name", hint).into());
            }
            let target = named.map_or_else(|| parse(STORE_NAME), Ok)?;
            // the other platforms of an index are absent on purpose
            let (store, empty) = if args.dry_run { existing(folder)? } else { (Store::open(folder)?, None) };
            let store = store.with_sparse_indexes(true);
            let store = Arc::new(if args.recheck { store.with_rechecks() } else { store });
            Ok((Destination::Store { store, target }, empty))
        }
        (None, Some(target)) => {
            let settings = config::load(args.registry.config.as_deref())?;
            let client = registry::client(&args.registry, &settings, logins(args, &target)?)?;
            Ok((Destination::Registry { client, target }, None))
        }
        (None, None) => Err(Error::usage("no target is named", "give `--registry HOST[:PORT][/PREFIX]`").into()),
    }
}

/// The store in `folder` for a look; where there is none yet, an empty one that nobody keeps.
fn existing(folder: &Path) -> Result<(Store, Option<TempDir>), End> {
    if folder.exists() {
        return Ok((Store::open_to_look(folder)?, None));
    }
    let fail = |source| Error::Io { action: "write in", path: std::env::temp_dir(), source };
    let empty = tempfile::tempdir().map_err(fail)?;
    Ok((Store::open(empty.path())?, Some(empty)))
}

pub(crate) fn parse(text: &str) -> Result<Target, Error> {
    text.parse().map_err(|e: ferry_image::Error| {
        Error::usage(e.to_string(), "for example `--registry registry.local:5000/team`")
    })
}

fn logins(args: &args::Install, target: &Target) -> Result<Vec<Login>, End> {
    match &args.username {
        Some(username) => {
            secrets::from_stdin(&[Account { place: target.host().to_owned(), username: username.clone() }])
        }
        None => Ok(Vec::new()),
    }
}

/// What would change; as JSON with what is said of the bundles there.
fn show(preflight: &Preflight, probe: &Probe, is_named: bool, json: Option<Vec<serde_json::Value>>) -> Result<(), End> {
    let (blobs, bytes) = preflight.blobs()?;
    let host = if is_named { format!("{}/", preflight.destination.target().host()) } else { String::new() };
    let name = |planned: &ferry_install::Planned| match &planned.tag {
        Some(tag) => format!("{host}{}:{tag}", planned.repository),
        None => format!("{host}{}@{}", planned.repository, planned.settled().root.digest),
    };
    let out = preflight.options.out.as_deref().unwrap_or(Path::new(""));
    if let Some(bundles) = json {
        let images: Vec<_> = preflight
            .images
            .iter()
            .map(|p| {
                let (state, found) = state(&p.state);
                serde_json::json!({
                    "reference": p.image.reference, "target": name(p), "state": state, "found": found,
                    "sourceDigest": p.image.root.digest, "digest": p.settled().root.digest, "form": p.settled().kind,
                    "ifRefused": p.forms.second.as_ref().filter(|_| p.state.is_pushed()).map(|f| &f.root.digest),
                })
            })
            .collect();
        let yaml: Vec<_> = preflight.texts.iter().map(|t| &t.name).collect();
        let value = serde_json::json!({
            "bundles": bundles, "target": target(preflight, is_named), "images": images,
            "blobs": {"count": blobs, "bytes": bytes}, "referrers": referrers(preflight), "yaml": yaml,
            "emitted": emitted::json(&preflight.emitted, out),
            "probe": probe, "notes": preflight.notes, "warnings": preflight.warnings,
        });
        print::out(&super::pretty(&value)?);
        return Ok(());
    }
    let mut rows = vec![["IMAGE", "AT THE TARGET", "", "DIGEST"].map(str::to_owned).to_vec()];
    for planned in &preflight.images {
        let what = match state(&planned.state) {
            (what, Some(found)) => format!("{what} {}", found.short()),
            (what, None) => what.to_owned(),
        };
        let digest = planned.settled().root.digest.short().to_owned();
        rows.push(vec![planned.image.reference.to_string(), name(planned), what, digest]);
    }
    print::out(&print::table(&rows));
    let mut rows = vec![["ASKED OF THE TARGET", "ANSWER", "HOW"].map(str::to_owned).to_vec()];
    rows.extend(probe.asked().map(|(what, a)| vec![what.to_owned(), a.answer.text().to_owned(), a.how.clone()]));
    print::out(&format!("\n{}", print::table(&rows)));
    for left in &probe.leaves {
        print::out(&format!("  asking left {left}"));
    }
    for note in &preflight.notes {
        print::out(&format!("\n  {note}"));
    }
    let new = preflight.referrers.iter().filter(|referrer| referrer.is_pushed()).map(|referrer| referrer.kind);
    if let Some(counted) = referrer::counted(new) {
        print::out(&format!("\n  after the images: {counted}"));
    }
    let size = print::bytes(bytes);
    print::out(&format!(
        "\n  at most {} ({size}) to push; what the target has is not sent",
        print::count(blobs, "blob")
    ));
    for text in &preflight.texts {
        print::out(&format!("  {} would be written to {}", text.origin, out.join(&text.name).display()));
    }
    for file in preflight.emitted.iter().flat_map(|emitted| &emitted.files) {
        print::out(&format!("  {} would be written", out.join(&file.path).display()));
    }
    emitted::missing(&preflight.emitted);
    Ok(())
}

/// Host and prefix, if anybody gave the target a name.
fn target(preflight: &Preflight, is_named: bool) -> Option<String> {
    is_named.then(|| preflight.destination.target().to_string())
}

fn referrers(preflight: &Preflight) -> Vec<serde_json::Value> {
    let json = |r: &PlannedReferrer| {
        let state = match &r.state {
            ReferrerState::Present => "is there",
            ReferrerState::Absent => "new",
            ReferrerState::Merges => "joins others",
            ReferrerState::Skipped(_) => "stays behind",
        };
        serde_json::json!({
            "kind": r.kind, "digest": r.descriptor.digest, "subject": r.subject, "repository": r.repository, "tag": r.tag,
            "state": state,
        })
    };
    preflight.referrers.iter().map(json).collect()
}

fn state(state: &State) -> (&'static str, Option<&ferry_image::Digest>) {
    match state {
        State::Present(_) => ("is there", None),
        State::Incomplete(..) => ("is incomplete", None),
        State::Absent => ("new", None),
        State::Moves(found) => ("moves from", Some(found)),
        State::Skipped(found) => ("stays at", Some(found)),
    }
}

fn report(
    preflight: &Preflight,
    pushed: &Pushed,
    written: &Written,
    is_named: bool,
    json: Option<Vec<serde_json::Value>>,
) -> Result<(), End> {
    let (blobs, bytes) = pushed.sent;
    let there = preflight.images.len() - pushed.images - pushed.mended - pushed.skipped;
    // a path need not be UTF-8, JSON must be
    let shown = |path: &Path| path.display().to_string();
    let out = preflight.options.out.as_deref().unwrap_or(Path::new(""));
    if let Some(bundles) = json {
        let yaml: Vec<_> =
            written.yaml.iter().map(|(path, n)| serde_json::json!({"file": shown(path), "changes": n})).collect();
        let value = serde_json::json!({
            "bundles": bundles, "target": target(preflight, is_named),
            "images": {"pushed": pushed.images, "mended": pushed.mended, "skipped": pushed.skipped, "present": there},
            "blobs": {"sent": blobs, "bytes": bytes, "spared": pushed.spared},
            "referrers": {"pushed": pushed.referrers, "present": pushed.referrers_present},
            "receipt": written.receipt.as_deref().map(shown), "relocation": written.relocation.as_deref().map(shown), "yaml": yaml, "notes": pushed.notes,
            "emitted": emitted::json(&written.emitted, out),
            "probe": preflight.probe,
        });
        print::out(&super::pretty(&value)?);
        return Ok(());
    }
    let skipped = if pushed.skipped == 0 { String::new() } else { format!(", {} skipped", pushed.skipped) };
    for planned in &preflight.images {
        if let (State::Moves(found), Some(tag)) = (&planned.state, &planned.tag) {
            print::talk(&format!("note: {}:{tag} was {} before", planned.repository, found));
        }
    }
    let what = match blobs + pushed.spared {
        0 => "no blob was needed".to_owned(),
        _ => format!("{} sent ({}), {}", print::count(blobs, "blob"), print::bytes(bytes), print::there(pushed.spared)),
    };
    let images = print::count(pushed.images, "image");
    let mended = if pushed.mended == 0 { String::new() } else { format!(" {} mended,", pushed.mended) };
    print::talk(&format!("{images} pushed,{mended} {}{skipped}; {what}", print::there(there)));
    let (pushed, there) = (pushed.referrers, pushed.referrers_present);
    if pushed + there > 0 {
        let pushed = print::count(pushed, "referrer");
        print::talk(&format!("{pushed} (signatures and the like) pushed after them, {}", print::there(there)));
    }
    for (path, changes) in &written.yaml {
        print::talk(&format!("  {} ({} changed)", path.display(), print::count(*changes, "value")));
    }
    emitted::talk(&written.emitted, out);
    // `--emit relocation` has named it
    let is_told = written.emitted.iter().any(|emitted| emitted.form == ferry_rewrite::emit::Form::Relocation);
    for path in written.relocation.iter().filter(|_| !is_told).chain(&written.receipt) {
        print::talk(&format!("  {}", path.display()));
    }
    Ok(())
}
