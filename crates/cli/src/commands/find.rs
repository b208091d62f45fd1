//! `ferry find`.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ferry_bundle::find::{self, From, Input, Item, Programs, Report, Request, manifest};
use ferry_bundle::manifest::{Platforms, name_of};
use ferry_content::texts::{self, MAX_TEXT};
use ferry_rewrite::Confidence;

use crate::failure::{End, Error};
use crate::{args, environment, print};

pub(crate) fn run(args: &args::Find) -> Result<(), End> {
    check(args)?;
    let request = Request {
        inputs: args.inputs.iter().map(|path| input(path)).collect::<Result<_, _>>()?,
        values: args.values.clone(),
        render: args.render.then(|| Programs {
            helm: environment::program("helm"),
            kustomize: environment::program("kustomize"),
            kubectl: environment::program("kubectl"),
            timeout: Duration::from_secs(args.render_timeout),
        }),
    };
    let mut report = find::find(&request);
    if args.json {
        print::out(&super::pretty(&serde_json::to_value(&report.items).map_err(|e| Error::Runtime(e.into()))?)?);
    } else if !report.items.is_empty() {
        print::out(&text(&report, args.render));
    }
    for skipped in &report.skipped {
        print::talk(&format!("skipped: {skipped}"));
    }
    print::warnings(&report.notes);
    if !args.talk.quiet {
        print::talk(&counts(&report.items));
    }
    let problems = std::mem::take(&mut report.problems);
    if !problems.is_empty() {
        return Err(End::Problems(problems));
    }
    if let Some(path) = &args.write_manifest {
        write(&report, args, path)?;
    }
    Ok(())
}

/// What can be told before anything is read.
fn check(args: &args::Find) -> Result<(), End> {
    if !args.platform.is_empty() {
        Platforms::try_from(args.platform.clone()).map_err(|error| {
            Error::usage(format!("--platform: {error}"), "write `--platform linux/amd64`, or `all`")
        })?;
    }
    let folder = |path: &Path| path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    match &args.write_manifest {
        Some(path) if !folder(path).is_dir() => {
            let source = std::io::ErrorKind::NotFound.into();
            Err(Error::Io { action: "write in", path: folder(path), source }.into())
        }
        Some(path) if path.exists() && !args.force => {
            let why = format!("`{}` is there already", path.display());
            Err(Error::usage(why, "name another file, or replace it with `--force`").into())
        }
        _ => Ok(()),
    }
}

fn input(path: &Path) -> Result<Input, End> {
    if path != Path::new("-") {
        return Ok(Input::Path(path.to_owned()));
    }
    let mut bytes = Vec::new();
    let io = |source| Error::Io { action: "read", path: PathBuf::from("standard input"), source };
    std::io::stdin().lock().take(MAX_TEXT + 1).read_to_end(&mut bytes).map_err(io)?;
    let unusable = |why: String| ferry_content::Error::Text { path: PathBuf::from("standard input"), why };
    if bytes.len() as u64 > MAX_TEXT {
        return Err(unusable(format!("it is larger than {MAX_TEXT} bytes")).into());
    }
    Ok(Input::Text(String::from_utf8(bytes).map_err(|e| unusable(format!("it is not UTF-8: {e}")))?))
}

fn write(report: &Report, args: &args::Find, path: &Path) -> Result<(), End> {
    let io = |source| Error::Io { action: "find", path: path.to_owned(), source };
    let current = std::env::current_dir().map_err(io)?;
    let whole = current.join(path);
    let folder = whole.parent().unwrap_or(Path::new("/")).components().collect();
    let first = args.inputs.iter().find(|input| *input != Path::new("-"));
    let options = manifest::Options {
        name: first.map_or_else(|| "images".to_owned(), |input| name_of(input)),
        platforms: args.platform.clone(),
        folder,
        current,
    };
    texts::write(path, manifest::print(report, &options).as_bytes())?;
    print::talk(&format!("{} is written: read it through, then `ferry bundle {}`", path.display(), path.display()));
    Ok(())
}

fn text(report: &Report, rendered: bool) -> String {
    let row = |item: &Item| {
        let reference = item.reference.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
        let written = if reference == item.value { String::new() } else { format!("`{}`", item.value) };
        let from = match item.from {
            _ if !rendered => None,
            From::Source => Some("source only".to_owned()),
            From::Rendered => Some("rendered only".to_owned()),
            From::Both => Some("source and rendered".to_owned()),
        };
        let said: Vec<String> =
            [Some(written).filter(|w| !w.is_empty()), item.reason.clone(), from].into_iter().flatten().collect();
        vec![
            format!("{}:{}", item.file, item.line),
            word(item.confidence).to_owned(),
            reference,
            format!("({})", name(&item.shape)),
            said.join("; ").replace(['\n', '\t'], " "),
        ]
    };
    print::table(&report.items.iter().map(row).collect::<Vec<_>>())
}

fn word(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Certain => "certain",
        Confidence::ByValue => "by-value",
        Confidence::Computed => "computed",
        Confidence::Unresolvable => "unresolvable",
    }
}

/// As it is called in JSON.
fn name(shape: &ferry_rewrite::Shape) -> String {
    serde_json::to_value(shape).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn counts(items: &[Item]) -> String {
    if items.is_empty() {
        return "no image is asked for here".to_owned();
    }
    let mut references: Vec<String> =
        items.iter().filter_map(|item| item.reference.as_ref()).map(ToString::to_string).collect();
    references.sort();
    references.dedup();
    let all = [Confidence::Certain, Confidence::ByValue, Confidence::Computed, Confidence::Unresolvable];
    let counted: Vec<String> = all
        .iter()
        .map(|c| (word(*c), items.iter().filter(|item| item.confidence == *c).count()))
        .filter(|(_, n)| *n > 0)
        .map(|(word, n)| format!("{n} {word}"))
        .collect();
    let (images, places) = (print::count(references.len(), "image"), print::count(items.len(), "place"));
    format!("{images} in {places}: {}", counted.join(", "))
}
