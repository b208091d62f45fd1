//! Bundles that come through a pipe.

use std::collections::BTreeSet;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use ferry_archive::Bundle;
use ferry_content::copy::{self, Silent};
use ferry_content::{Kind, Problems};
use ferry_image::Digest;
use ferry_install::{Bundles, Pipe, Pushed};

use crate::kit::{Parts, Site, anybody, damaged, digests};

/// Several images that share layers, under an index and by themselves.
async fn bundle(site: &Site) -> Arc<Bundle> {
    let mut parts = Parts::new();
    let (a, b) = (parts.manifest(&["base", "large a"]), parts.manifest(&["base", "large b"]));
    let inner = parts.index(&[&b]);
    let index = parts.index(&[&a, &inner]);
    parts.image("both:1", &index, &[&a, &b]);
    parts.image("one:1", &a, &[&a]);
    parts.yaml("app.yaml", "image: one:1\n");
    parts.seal_as(&site.path("b.tar")).await
}

async fn install(site: &Site, reader: impl Read + Send + 'static) -> Result<Pushed, Problems> {
    let (passing, pipe) = Pipe::begin(Box::new(reader), Path::new("-"), &anybody())?;
    through(site, Bundles::with_pipe(passing, []), pipe).await
}

async fn through(site: &Site, bundles: Bundles, pipe: Pipe) -> Result<Pushed, Problems> {
    let plan = site.look_at(bundles, site.options()).await?;
    let pushed = plan.push_through(Some(pipe), &copy::Options::default(), Arc::new(Silent)).await?;
    plan.write(&pushed, jiff::Timestamp::UNIX_EPOCH)?;
    Ok(pushed)
}

fn stored(site: &Site) -> BTreeSet<String> {
    let entries = std::fs::read_dir(site.path("store/blobs/sha256")).expect("folder");
    entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned()).collect()
}

#[tokio::test]
async fn one_pass_leaves_what_a_file_leaves() {
    let (by_file, by_pipe) = (Site::new(), Site::new());
    let bundle = bundle(&by_file).await;
    let bytes = std::fs::read(bundle.path()).expect("read");
    let (_, file) = by_file.push(&bundle, by_file.options()).await;
    let pipe = install(&by_pipe, Cursor::new(bytes.clone())).await.expect("installed");
    assert_eq!((pipe.relocation, pipe.sent), (file.relocation, file.sent));
    assert_eq!(stored(&by_pipe), stored(&by_file));
    assert_eq!(
        std::fs::read_to_string(by_pipe.path("out/app.yaml")).expect("yaml"),
        "image: reg.local:5000/team/library/one:1\n"
    );
    // what is there is read past
    let again = install(&by_pipe, Cursor::new(bytes)).await.expect("installed");
    assert_eq!((again.images, again.sent.0), (0, 0));
}

/// Every place where it may break off, or go on for too long.
#[tokio::test]
async fn no_tag_is_set_before_the_end_was_seen() {
    let site = Site::new();
    let bundle = bundle(&site).await;
    let bytes = std::fs::read(bundle.path()).expect("read");
    let cuts = (0..bytes.len()).step_by(512).map(|at| bytes[..at].to_vec()).chain([[&bytes[..], b"x"].concat()]);
    let mut pushed = 0;
    for cut in cuts {
        let (site, length) = (Site::new(), cut.len());
        let problems = install(&site, Cursor::new(cut)).await.expect_err("cut");
        assert_eq!(problems.kind(), Kind::Untrusted, "{length}: {problems}");
        for name in ["team/library/both", "team/library/one"] {
            assert_eq!(site.at(name, "1"), None, "{length}");
        }
        pushed += usize::from(!stored(&site).is_empty());
    }
    assert!(pushed > 3, "some had sent blobs by then");
}

#[tokio::test]
async fn a_damaged_blob_is_never_stored_and_another_bundle_helps_out() {
    let site = Site::new();
    let bundle = bundle(&site).await;
    let broken = damaged(&bundle, b"large a", &site.path("broken.tar"));
    let bytes = std::fs::read(broken.path()).expect("read");
    let problems = install(&site, Cursor::new(bytes.clone())).await.expect_err("damaged");
    assert_eq!(problems.kind(), Kind::Untrusted, "{problems}");
    assert!(problems.to_string().contains("both:1"), "{problems}");
    let name =
        |blob: &str| digests(&[blob]).pop_first().map(|d: Digest| d.to_string().replace("sha256:", "")).expect("one");
    assert!(!stored(&site).contains(&name("large a")) && stored(&site).contains(&name("large b")));
    assert_eq!(site.at("team/library/one", "1"), None);

    let (passing, pipe) = Pipe::begin(Box::new(Cursor::new(bytes)), Path::new("-"), &anybody()).expect("front");
    let pushed = through(&site, Bundles::with_pipe(passing, [bundle]), pipe).await.expect("mended");
    assert!(pushed.notes.iter().any(|note| note.contains("cannot be had whole")), "{:?}", pushed.notes);
    assert!(stored(&site).contains(&name("large a")) && site.at("team/library/one", "1").is_some());
}

/// Reads that fail for another reason than the end.
struct Breaks<R>(R);

impl<R: Read> Read for Breaks<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.0.read(into)? {
            0 => Err(io::Error::other("the tape tore")),
            count => Ok(count),
        }
    }
}

#[tokio::test]
async fn why_a_pipe_broke_is_told() {
    let site = Site::new();
    let bundle = bundle(&site).await;
    let bytes = std::fs::read(bundle.path()).expect("read");
    let half = bytes[..bytes.len() - 2048].to_vec();
    let problems = install(&Site::new(), Breaks(Cursor::new(half))).await.expect_err("broke");
    assert_eq!((problems.kind(), problems.iter().count()), (Kind::Local, 1), "{problems}");
    assert!(problems.to_string().contains("the tape tore"), "{problems}");
}

#[tokio::test]
async fn a_damaged_blob_is_told_also_of_a_pipe_that_broke() {
    let site = Site::new();
    let bundle = bundle(&site).await;
    let broken = damaged(&bundle, b"large a", &site.path("broken.tar"));
    let bytes = std::fs::read(broken.path()).expect("read");
    let most = bytes[..bytes.len() - 512].to_vec();
    let problems = install(&Site::new(), Breaks(Cursor::new(most))).await.expect_err("broke");
    let text = problems.to_string();
    assert!(text.contains("the tape tore") && text.contains("has other content"), "{text}");
}
