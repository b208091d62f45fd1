//! `ferry rewrite`.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferry_content::{Problems, texts};
use ferry_image::{Relocation, Target};
use ferry_install::redirect::{foresee, read_relocation};
use ferry_install::{Bundles, Place, Redirect, Redirected, Text, redirect, yaml};
use ferry_rewrite::Rewritten;
use ferry_rewrite::emit::print0;
use similar::TextDiff;

use crate::commands::emitted;
use crate::failure::{End, Error};
use crate::{args, bundles, keys, print};

/// Where results go when nobody says.
const OUT: &str = "ferry-out";
/// What standard input is called.
const STDIN: &str = "-";

/// What is done with the texts.
enum Way {
    /// Nothing is written.
    Check,
    /// A diff on standard output.
    Diff,
    /// The one text on standard output.
    Pipe,
    /// Files.
    Files(Place),
}

pub(crate) fn run(args: args::Rewrite) -> Result<(), End> {
    if args.bundle.is_empty() && !args.trust.demand.expect.is_empty() {
        return Err(Error::usage("`--expect` is about a bundle, and none is given", "name it with `--bundle`").into());
    }
    let way = way(&args)?;
    let bundle = match args.bundle.as_slice() {
        [] => None,
        paths => Some(Arc::new(keys::open(&bundles::one(paths)?, &keys::trusted(&args.trust)?, &args.trust.demand)?)),
    };
    let bundles = bundle.as_ref().map(|bundle| Bundles::from(Arc::clone(bundle)));
    let relocation = relocation(&args, bundles.as_ref())?;
    if args.print0 {
        return list(&relocation);
    }
    let out = match &way {
        Way::Files(Place::Out(out)) => Some(out.as_path()),
        _ => None,
    };
    let texts = texts(&args, bundles.as_ref(), out)?;
    let host = relocation.target.split('/').next().unwrap_or_default();
    let is_plain = args.plain_http || (args.ca_file.is_empty() && emitted::is_loopback(host));
    let (rules, ignore) = bundle.as_ref().map(|b| (b.head().set.clone(), b.head().ignore.clone())).unwrap_or_default();
    let work = Redirect {
        rules,
        ignore,
        texts,
        strict: !args.no_strict,
        emit: args.emit.iter().copied().map(Into::into).collect(),
        emitting: emitted::options(&args.emit, &args.ca_file, is_plain)?,
        relocation,
    };
    let target = work.relocation.target.clone();
    let again = matches!(way, Way::Diff).then(|| Redirect { strict: false, ..work.clone() });
    let redirected = redirect(work, out).inspect_err(|_| {
        // what would change is worth seeing, whatever is missing
        let shown = again.and_then(|again| redirect(again, out).ok());
        for (text, rewritten) in shown.iter().flat_map(|shown| &shown.texts) {
            let _ = pipe(&diff(text, rewritten));
        }
    })?;
    print::warnings(&redirected.warnings);
    finish(&args, &way, &target, &redirected)
}

/// Where things go, told by what was typed.
fn way(args: &args::Rewrite) -> Result<Way, End> {
    let piped = args.what.iter().any(|entry| entry.as_os_str() == STDIN);
    if piped && (args.what.len() > 1 || args.in_place) {
        let hint = "give files and folders, or `-` by itself";
        return Err(Error::usage("`-` cannot be rewritten together with others, nor in place", hint).into());
    }
    if args.what.is_empty() && args.in_place {
        return Err(Error::usage("there is nothing to rewrite in place", "name the files or folders").into());
    }
    if args.what.is_empty() && args.bundle.is_empty() && args.emit.is_empty() && !args.print0 {
        let hint = "name files or folders, a form with `--emit`, or `--print0`";
        return Err(Error::usage("there is nothing to rewrite", hint).into());
    }
    let out = || args.out.clone().unwrap_or_else(|| PathBuf::from(OUT));
    let one = matches!(args.what.as_slice(), [one] if !one.is_dir());
    Ok(match () {
        () if args.check => Way::Check,
        () if args.diff => Way::Diff,
        () if args.in_place => Way::Files(Place::InPlace(out())),
        () if one && args.out.is_none() && args.emit.is_empty() && !args.json => Way::Pipe,
        () => Way::Files(Place::Out(out())),
    })
}

fn relocation(args: &args::Rewrite, bundle: Option<&Bundles>) -> Result<Relocation, End> {
    if let Some(path) = &args.relocation {
        return Ok(read_relocation(path)?);
    }
    let (Some(bundle), Some(registry)) = (bundle, &args.registry_name) else {
        let hint = "give `--registry HOST[:PORT][/PREFIX]`, or the `relocation.json` of an install with `--relocation`";
        return Err(Error::usage("nobody says where the bundle's images are", hint).into());
    };
    let target: Target = registry.parse().map_err(|e: ferry_image::Error| {
        Error::usage(e.to_string(), "for example `--registry registry.local:5000/team`")
    })?;
    Ok(foresee(bundle, &target, args.layout.map(Into::into), args.index.map(Into::into))?)
}

/// The files that were named; without any, what the bundle carries.
fn texts(args: &args::Rewrite, bundle: Option<&Bundles>, out: Option<&Path>) -> Result<Vec<Text>, End> {
    let mut problems = Problems::default();
    let texts = match (args.what.as_slice(), bundle) {
        ([], Some(bundle)) => yaml::carried(bundle, &mut Vec::new(), &mut problems),
        ([only], _) if only.as_os_str() == STDIN => vec![stdin()?],
        (entries, _) => yaml::users("", entries, out, &mut problems),
    };
    Ok(problems.or(texts)?)
}

fn stdin() -> Result<Text, Error> {
    let fail = |source| Error::Io { action: "read", path: PathBuf::from("standard input"), source };
    let mut text = String::new();
    std::io::stdin().lock().take(texts::MAX_TEXT + 1).read_to_string(&mut text).map_err(fail)?;
    if text.len() as u64 > texts::MAX_TEXT {
        return Err(Error::usage(format!("standard input has more than {} bytes", texts::MAX_TEXT), "give a file"));
    }
    Ok(Text {
        name: "stdin.yaml".to_owned(),
        origin: "standard input".to_owned(),
        file: None,
        entry: None,
        text,
        around: ferry_rewrite::Around::default(),
        chart: None,
    })
}

/// `SOURCE NUL TARGET NUL …`
fn list(relocation: &Relocation) -> Result<(), End> {
    let (text, left_out) = print0(relocation);
    for left in left_out {
        print::talk(&format!("note: left out {}: {}", left.image, left.why));
    }
    pipe(&text)
}

/// Bytes as they are. A reader that went away is no error.
fn pipe(text: &str) -> Result<(), End> {
    match std::io::stdout().lock().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush()) {
        Err(source) if source.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::Io { action: "write", path: PathBuf::from("standard output"), source }.into())
        }
        _ => Ok(()),
    }
}

fn finish(args: &args::Rewrite, way: &Way, target: &str, redirected: &Redirected) -> Result<(), End> {
    let written = match way {
        Way::Files(place) => redirected.write(place)?,
        Way::Pipe => {
            for (_, rewritten) in &redirected.texts {
                pipe(&rewritten.text)?;
            }
            Vec::new()
        }
        Way::Diff => {
            for (text, rewritten) in &redirected.texts {
                pipe(&diff(text, rewritten))?;
            }
            Vec::new()
        }
        Way::Check => Vec::new(),
    };
    let out = args.out.as_deref().unwrap_or(Path::new(OUT));
    let path = |i: usize| written.get(i).and_then(Option::as_ref).map(|path| path.display().to_string());
    if args.json {
        let one = |(i, (text, rewritten)): (usize, &(Text, Rewritten))| serde_json::json!({"file": text.origin, "written": path(i), "changes": rewritten.changes});
        let yaml: Vec<_> = redirected.texts.iter().enumerate().map(one).collect();
        let value = serde_json::json!({
            "target": target, "yaml": yaml, "emitted": emitted::json(&redirected.emitted, out),
            "warnings": redirected.warnings,
        });
        print::out(&super::pretty(&value)?);
        return Ok(());
    }
    if args.talk.quiet {
        emitted::missing(&redirected.emitted);
        return Ok(());
    }
    for (i, (text, rewritten)) in redirected.texts.iter().enumerate() {
        let changes = print::count(rewritten.changes.len(), "value");
        match (way, path(i)) {
            (Way::Files(_), Some(path)) => print::talk(&format!("  {path} ({changes} changed)")),
            (Way::Files(_), None) => print::talk(&format!("  {} (nothing to change)", text.origin)),
            (Way::Check, _) => print::talk(&format!("  {} ({changes} to change)", text.origin)),
            (Way::Pipe | Way::Diff, _) => {}
        }
    }
    emitted::talk(&redirected.emitted, out);
    Ok(())
}

/// What would change, as `diff -u` says it.
fn diff(text: &Text, rewritten: &Rewritten) -> String {
    if text.text == rewritten.text {
        return String::new();
    }
    let name = text.file.as_ref().map_or_else(|| text.name.clone(), |file| file.display().to_string());
    let name = name.trim_start_matches("./").trim_start_matches('/');
    TextDiff::from_lines(&text.text, &rewritten.text)
        .unified_diff()
        .context_radius(3)
        .header(&format!("a/{name}"), &format!("b/{name}"))
        .to_string()
}
