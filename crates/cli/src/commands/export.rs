//! `ferry export`.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferry_content::{Problems, copy, disk, scratch, texts};
use ferry_image::Reference;
use ferry_install::export::{self, Export, Exported, Options, Part, To, plan, write_file, write_folder, write_pipe};
use serde_json::{Value, json};

use crate::commands::damage;
use crate::failure::{End, Error};
use crate::progress::Meter;
use crate::{args, opened, print};

/// Next commands that are shown; more are one for all.
const SHOWN: usize = 3;
/// Where k3s looks when it starts.
const K3S_IMAGES: &str = "/var/lib/rancher/k3s/agent/images";

/// Where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Output {
    Pipe,
    File(PathBuf),
    /// A folder for files.
    In(PathBuf),
    /// A folder that is a layout.
    Layout(PathBuf),
}

pub(crate) async fn run(args: args::Export) -> Result<(), End> {
    match run_all(&args).await {
        Err(End::Problems(mut problems)) => {
            problems.warn(damage::mendable(&args.bundles, &problems));
            Err(problems.into())
        }
        result => result,
    }
}

async fn run_all(args: &args::Export) -> Result<(), End> {
    let output = args.output.as_deref().map(|path| output(args, path)).transpose()?;
    let waiting = args::Waiting { wait_for_volume: args.wait_for_volume };
    let opened = opened::files_once_there(&args.bundles, &args.trust, &waiting).await?;
    let opened::Opened { bundles, introductions, signed, .. } = opened;
    let options = Options { to: args.to.into(), images: args.image.clone(), platforms: args.platform.clone() };
    let export = plan(Arc::new(bundles), &options).await?;
    let parts = if args.each { export.each() } else { export.whole().into_iter().collect() };
    let files = output.as_ref().map(|output| files(output, &parts)).unwrap_or_default();
    introductions.iter().for_each(|line| print::talk(line));
    notes(&export);
    if args.dry_run {
        return show(args, &export, &parts, &files, &signed);
    }
    let Some(output) = output else { return Ok(()) };
    let meter = Meter::new("exporting", parts.iter().map(|part| part.blobs().1).sum(), args.talk.quiet);
    write(&export, &parts, &output, &files, &meter).await?;
    meter.finish();
    if args.json {
        print::out(&super::pretty(&result(&export, &parts, &files, &signed))?);
        return Ok(());
    }
    let size = parts.iter().map(Part::size).sum();
    let images = print::count(export.images.len(), "image");
    print::talk(&format!("{images} exported for {} ({})", export.to.name(), print::bytes(size)));
    for file in &files {
        print::talk(&format!("  {}", file.display()));
    }
    for line in next(&export, &output, &files) {
        print::talk(&line);
    }
    Ok(())
}

/// What `-o` means for a form.
fn output(args: &args::Export, path: &Path) -> Result<Output, End> {
    let usage = |why: &str, hint: &str| Err(Error::usage(why, hint).into());
    let is_pipe = path.as_os_str() == "-";
    let is_folder = path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/");
    let is_other = path.exists() && !path.is_dir();
    match To::from(args.to) {
        To::Oci if args.each => usage("a layout holds all images", "leave `--each` away"),
        To::Oci if is_pipe => usage("a layout is a folder", "name it with `-o`; a tar of one is `--to containerd`"),
        To::Oci if is_other => usage(
            &format!("`{}` is no folder", path.display()),
            "a layout is a folder: name an empty one, or a new one",
        ),
        To::Oci => Ok(Output::Layout(path.to_owned())),
        _ if is_pipe && args.each => usage("standard output is one file", "name a folder with `-o`"),
        _ if is_pipe && args.json && !args.dry_run => {
            usage("`--json` and the archive would both go to standard output", "give a file with `-o`")
        }
        _ if is_pipe && !args.dry_run && std::io::stdout().is_terminal() => {
            usage("standard output is a terminal", "send it into a pipe or a file")
        }
        _ if is_pipe => Ok(Output::Pipe),
        To::K3s if is_other => {
            usage(&format!("`{}` is no folder", path.display()), "name the folder: k3s imports all files in it")
        }
        To::K3s => Ok(Output::In(path.to_owned())),
        _ if is_folder => Ok(Output::In(path.to_owned())),
        _ if args.each => usage(
            &format!("`{}` is no folder", path.display()),
            "name a folder that is there, or one with `/` at its end",
        ),
        _ => {
            export::refuse_other_than_file(path).map_err(Problems::from)?;
            Ok(Output::File(path.to_owned()))
        }
    }
}

/// The file of each part.
fn files(output: &Output, parts: &[Part]) -> Vec<PathBuf> {
    match output {
        Output::Pipe => Vec::new(),
        Output::File(path) | Output::Layout(path) => vec![path.clone()],
        Output::In(folder) => parts.iter().map(|part| folder.join(format!("{}.tar", part.stem))).collect(),
    }
}

async fn write(
    export: &Export,
    parts: &[Part],
    output: &Output,
    files: &[PathBuf],
    meter: &Arc<Meter>,
) -> Result<(), End> {
    let options = copy::Options::default();
    if let Output::In(folder) = output {
        let io = |source| Error::Io { action: "create", path: folder.clone(), source };
        std::fs::create_dir_all(folder).map_err(io)?;
        // what a killed run left of the same files makes room first
        let names: Vec<String> = files.iter().filter_map(|f| Some(f.file_name()?.to_str()?.to_owned())).collect();
        scratch::sweep_staged(folder, |name| names.iter().any(|ours| ours == name));
        disk::check_room(folder, parts.iter().map(Part::size).sum())?;
    }
    if let Output::File(path) = output {
        texts::can_write_in(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
    }
    match output {
        Output::Pipe => {
            for part in parts {
                let stdout = Box::new(std::io::stdout());
                let place = Path::new("standard output");
                write_pipe(export, part, stdout, place, &options, meter.clone()).await?;
            }
        }
        Output::Layout(path) => {
            for part in parts {
                write_folder(export, part, path, &options, meter.clone()).await?;
            }
        }
        Output::File(_) | Output::In(_) => {
            for (part, file) in parts.iter().zip(files) {
                write_file(export, part, file, &options, meter.clone()).await?;
            }
        }
    }
    Ok(())
}

/// What somebody should know of what was exported.
pub(super) fn notes(export: &Export) {
    for note in &export.notes {
        print::talk(&format!("note: {note}"));
    }
    for Exported { reference, tags, id, .. } in export.images.iter().map(|chosen| &chosen.exported) {
        if let (Some(id), [], Some(digest)) = (id, tags.as_slice(), reference.digest()) {
            let name = format!("{}:{}", reference.name(), digest.short());
            print::talk(&format!(
                "note: docker cannot load a name with a digest: it knows `{}` as {id}; `docker tag {id} {name}` gives it a name",
                reference.written()
            ));
        }
    }
}

fn show(args: &args::Export, export: &Export, parts: &[Part], files: &[PathBuf], signed: &[Value]) -> Result<(), End> {
    if args.json {
        print::out(&super::pretty(&result(export, parts, files, signed))?);
        return Ok(());
    }
    print::out(&images(export));
    let (blobs, size) = parts.iter().map(Part::blobs).fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
    print::out(&format!("\n  {} ({}) to write", print::count(blobs, "blob"), print::bytes(size)));
    for file in files {
        print::out(&format!("  {} would be written", file.display()));
    }
    Ok(())
}

/// A table of what is exported under which names.
pub(super) fn images(export: &Export) -> String {
    let mut rows = vec![["IMAGE", "NAME THERE", "PLATFORMS", "DIGEST"].map(str::to_owned).to_vec()];
    for image in export.images.iter().map(|chosen| &chosen.exported) {
        let name = match (&image.id, image.tags.as_slice()) {
            (None, _) => image.name.clone(),
            (Some(id), []) => id.to_string(),
            (Some(_), tags) => tags.join(", "),
        };
        let platforms: Vec<String> = image.platforms.iter().map(ToString::to_string).collect();
        rows.push(vec![image.reference.to_string(), name, platforms.join(", "), image.digest.short().to_owned()]);
    }
    print::table(&rows)
}

fn result(export: &Export, parts: &[Part], files: &[PathBuf], signed: &[Value]) -> Value {
    let references = |part: &Part| part.images.iter().map(|image| image.reference.clone()).collect::<Vec<Reference>>();
    let file = |(path, part): (&PathBuf, &Part)| json!({"path": path.display().to_string(), "bytes": part.size(), "images": references(part)});
    let images: Vec<&Exported> = export.images.iter().map(|chosen| &chosen.exported).collect();
    json!({
        "bundles": signed, "to": export.to.name(), "images": images,
        "files": files.iter().zip(parts).map(file).collect::<Vec<_>>(), "notes": export.notes,
    })
}

/// What to type next.
fn next(export: &Export, output: &Output, files: &[PathBuf]) -> Vec<String> {
    let command = |start: &str| match (output, files) {
        (Output::In(folder), many) if many.len() > SHOWN => {
            vec![format!("next: for f in {}/*.tar; do {start} \"$f\"; done", folder.display())]
        }
        _ => files.iter().map(|file| format!("next: {start} {}", file.display())).collect(),
    };
    match (export.to, output) {
        (_, Output::Pipe) => Vec::new(),
        (To::Docker, _) => command("docker load -i"),
        (To::Containerd, _) => command("ctr -n k8s.io images import"),
        (To::K3s, Output::In(folder)) if folder == Path::new(K3S_IMAGES) => {
            vec!["next: systemctl restart k3s (or k3s-agent), which imports them when it starts".to_owned()]
        }
        (To::K3s, _) => {
            vec![format!("next: copy them to {K3S_IMAGES} on each node, where k3s imports them when it starts")]
        }
        (To::Oci, _) => {
            let first = export.images.first().map(|chosen| chosen.exported.name.clone()).unwrap_or_default();
            let folder = files.first().map(|path| path.display().to_string()).unwrap_or_default();
            vec![format!("next: skopeo copy oci:{folder}:{first} docker://HOST/NAME")]
        }
    }
}
