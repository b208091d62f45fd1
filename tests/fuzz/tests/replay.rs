//! Runs every target over its kept inputs: seeds and what fuzzing found worth keeping (`corpus/`), what once failed (`regressions/`).
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a failing test says at which input it was")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ferry_fuzz::TARGETS;

/// What one input may take, in a debug build on a busy machine. Most take less than a millisecond.
const LONGEST: Duration = Duration::from_secs(5);
/// What a process may take, so that an allocation of a size that the input states fails.
const MEMORY: u64 = 2 << 30;
/// What all inputs may have together, in bytes.
const MOST: u64 = 1 << 20;

fn folder(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(kind)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("entry").path()).collect();
    paths.sort();
    paths
}

fn replay(name: &str) {
    let limit = rustix::process::Rlimit { current: Some(MEMORY), maximum: Some(MEMORY) };
    rustix::process::setrlimit(rustix::process::Resource::As, limit).expect("limit");
    let target = ferry_fuzz::target(name).expect("target");
    let seeds = entries(&folder("corpus").join(name));
    assert!(seeds.len() >= 3, "{name} has {} seeds", seeds.len());
    for path in seeds.into_iter().chain(entries(&folder("regressions").join(name))) {
        let bytes = std::fs::read(&path).expect("input");
        println!("{}", path.display());
        let start = Instant::now();
        target(&bytes);
        assert!(start.elapsed() < LONGEST, "{}: {:?}", path.display(), start.elapsed());
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name));
            }
        )*

        #[test]
        fn every_target_is_replayed() {
            let here: BTreeSet<&str> = [$(stringify!($name)),*].into();
            let known: BTreeSet<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(here, known);
        }
    };
}

targets! {
    reference digest platform target_name
    challenge link range retry_after quota location
    manifest token tags catalog refusal credentials
    cosign referrer_lists
    tar source source_documents bundle bundle_documents incoming volume_list signature journal recovery_page
    route
    yaml yaml_set bundle_manifest list lock relocation receipt want
}

#[test]
fn inputs_are_few_and_belong_to_a_target() {
    let mut size = 0;
    for kind in ["corpus", "regressions"] {
        for target in entries(&folder(kind)) {
            let name = target.file_name().expect("name").to_string_lossy().into_owned();
            assert!(ferry_fuzz::target(&name).is_some(), "{} is of no target", target.display());
            size += entries(&target).iter().map(|path| path.metadata().expect("input").len()).sum::<u64>();
        }
    }
    assert!(size <= MOST, "{size} bytes");
}
