//! `ferry install --containerd` and `--docker`: images for this node, without a registry.

use std::sync::Arc;

use ferry_content::{Problems, copy};
use ferry_image::Platform;
use ferry_install::export::{Export, Exported, Fault, Options, plan};
use ferry_install::node::{Node, Stock};
use serde_json::{Value, json};

use crate::commands::export;
use crate::failure::{End, Error};
use crate::progress::Meter;
use crate::{args, environment, opened, print};

/// The node that the arguments name, if they do.
pub(crate) fn named(args: &args::Install) -> Result<Option<Node>, Error> {
    if args.docker {
        let host = args.docker_host.clone();
        // docker would take it for the name of a host
        if let Some(path) = host.as_deref().filter(|host| host.starts_with('/')) {
            let hint = format!("a socket is written `--docker-host unix://{path}`");
            return Err(Error::usage(format!("`{path}` is no address of docker's"), hint));
        }
        return Ok(Some(Node::Docker { host }));
    }
    let foreign = args.platform.clone().filter(|platform| *platform != here());
    Ok(args.containerd.then(|| Node::Containerd {
        namespace: args.namespace.clone(),
        address: args.containerd_address.clone().or_else(environment::containerd),
        platform: foreign,
    }))
}

/// A namespace as containerd takes it (`pkg/identifiers`): letters and digits, with single `.`, `_` and `-` between them, at most 76.
pub(crate) fn namespace(text: &str) -> Result<String, String> {
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if text.len() <= 76 && text.split(['.', '_', '-']).all(is_word) {
        return Ok(text.to_owned());
    }
    Err("a namespace of containerd has letters and digits, with single `.`, `_` and `-` between them, and at most 76 of all: `k8s.io`, `default`".to_owned())
}

/// This machine's platform. Images are for Linux, whatever else runs there.
fn here() -> Platform {
    // where Rust and Go differ in their names, and `Platform` does not know Rust's
    let architecture = match std::env::consts::ARCH {
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        "loongarch64" => "loong64",
        "x86" => "386",
        other => other,
    };
    Platform::new("linux", architecture, None)
}

pub(crate) async fn run(args: &args::Install, node: Node) -> Result<(), End> {
    // it is read at any place, so that its volumes cannot be taken one after the other
    let is_piped = args.spool.is_some() || args.bundles.iter().any(|path| path.as_os_str() == "-");
    let opened = match is_piped {
        true => opened::open(args).await?,
        false => opened::files_once_there(&args.bundles, &args.trust, &args.waiting).await?,
    };
    let opened::Opened { bundles, pipe, introductions, signed, spooled: _spooled } = opened;
    if pipe.is_some() {
        let hint = "let `--spool DIR` write it into a file first, or give it as a file";
        return Err(Error::usage("a bundle is needed that can be read at any place", hint).into());
    }
    let platforms = vec![args.platform.clone().unwrap_or_else(here)];
    let options = Options { to: node.form(), images: args.image.clone(), platforms };
    let mut exported = plan(Arc::new(bundles), &options).await?;
    let stock = node.stock(&exported).await?;
    let all: Vec<Exported> = exported.images.iter().map(|chosen| chosen.exported.clone()).collect();
    exported.without(|image| stock.has(image));
    let there = all.len() - exported.images.len();
    introductions.iter().for_each(|line| print::talk(line));
    export::notes(&exported);
    let part = exported.whole();
    let (blobs, bytes) = part.as_ref().map(ferry_install::export::Part::blobs).unwrap_or_default();
    if args.dry_run {
        if args.json {
            print::out(&super::pretty(&result(&node, &signed, &all, &stock, (blobs, bytes)))?);
        } else {
            if part.is_some() {
                print::out(&format!("{}\n", export::images(&exported)));
            }
            let new = print::count(exported.images.len(), "image");
            print::out(&format!("  {new} ({}) to import, {there} are there: {}", print::bytes(bytes), node.shown()));
        }
        return Ok(());
    }
    if let Some(part) = &part {
        let meter = Meter::new("importing", bytes, args.talk.quiet);
        node.import(&exported, part, &copy::Options::default(), meter.clone()).await?;
        meter.finish();
        let now = node.stock(&exported).await?;
        check(&node, &exported, &now)?;
    }
    if args.json {
        print::out(&super::pretty(&result(&node, &signed, &all, &stock, (blobs, bytes)))?);
        return Ok(());
    }
    let new = print::count(exported.images.len(), "image");
    print::talk(&format!("{new} imported ({}), {there} were there", print::bytes(bytes)));
    Ok(())
}

/// Each image must be there now, under the name that it is asked for by.
fn check(node: &Node, exported: &Export, now: &Stock) -> Result<(), Problems> {
    let mut problems = Problems::default();
    for image in exported.images.iter().map(|chosen| &chosen.exported).filter(|image| !now.has(image)) {
        let fault = Fault::NotThere { command: node.shown(), found: now.shown(image) };
        problems.add(format!("image `{}`", image.reference.written()), ferry_install::Error::from(fault));
    }
    problems.or(())
}

fn result(node: &Node, signed: &[Value], all: &[Exported], stock: &Stock, blobs: (usize, u64)) -> Value {
    let image = |image: &Exported| {
        let mut value = json!(image);
        value["state"] = json!(if stock.has(image) { "is there" } else { "new" });
        value
    };
    json!({
        "bundles": signed, "to": node.form().name(), "command": node.shown(),
        "images": all.iter().map(image).collect::<Vec<_>>(), "blobs": {"count": blobs.0, "bytes": blobs.1},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_those_that_containerd_takes() {
        for (text, expected) in [
            ("k8s.io", true),
            ("default", true),
            ("a-b_c.9", true),
            ("bad name", false),
            ("", false),
            ("a..b", false),
            (".a", false),
            ("a/b", false),
            (&"a".repeat(76), true),
            (&"a".repeat(77), false),
        ] {
            assert_eq!(namespace(text).is_ok(), expected, "{text}");
        }
    }
}
