//! The five steps of an auditor who has coreutils, tar and minisign, and no ferry. Passed over where one of them is missing.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::fixture::{PUBLIC, build, parts, secret};

fn run(folder: &Path, program: &str, arguments: &[&str]) -> Option<(bool, String)> {
    let output = Command::new(program).args(arguments).current_dir(folder).env("LC_ALL", "C").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Some((output.status.success(), text))
}

fn is_there(program: &str, argument: &str) -> bool {
    Command::new(program).arg(argument).output().is_ok()
}

/// The files that differ from the list, after all five steps.
fn audit(folder: &Path, bundle: &str) -> Result<Vec<String>, String> {
    let step = |program: &str, arguments: &[&str]| match run(folder, program, arguments) {
        Some((true, text)) => Ok(text),
        Some((false, text)) => Err(text),
        None => Err(format!("{program} does not run")),
    };
    step("tar", &["xf", bundle, "--occurrence=1", "SHA256SUMS", "SHA256SUMS.minisig"])?;
    step("minisign", &["-Vm", "SHA256SUMS", "-P", PUBLIC])?;
    fs::create_dir(folder.join("empty")).map_err(|e| e.to_string())?;
    step("tar", &["xf", bundle, "-C", "empty"])?;
    step("sh", &["-c", "cd empty && sha256sum --quiet --strict -c ../SHA256SUMS"])?;
    let listed = "cut -c67- SHA256SUMS; echo SHA256SUMS; echo SHA256SUMS.minisig";
    let found = "cd empty && find . ! -type d | cut -c3-";
    let compare =
        format!("({listed}) | LC_ALL=C sort > listed; ({found}) | LC_ALL=C sort > found; comm -3 listed found");
    Ok(step("sh", &["-c", &compare])?.lines().map(|l| l.trim().to_owned()).collect())
}

#[test]
fn the_five_steps_pass_and_catch_a_planted_file() {
    if !is_there("minisign", "-v") || !is_there("sha256sum", "--version") || !is_there("tar", "--version") {
        eprintln!("passed over: minisign, sha256sum or tar is missing");
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    build(&parts(), &folder.path().join("b.tar"), Some(secret()), false).expect("build");
    assert_eq!(audit(folder.path(), "b.tar"), Ok(Vec::new()));

    let folder = tempfile::tempdir().expect("folder");
    build(&parts(), &folder.path().join("b.tar"), Some(secret()), false).expect("build");
    fs::write(folder.path().join("evil"), "x").expect("evil");
    let (done, text) = run(folder.path(), "tar", &["rf", "b.tar", "evil"]).expect("tar");
    assert!(done, "{text}");
    assert_eq!(audit(folder.path(), "b.tar"), Ok(vec!["evil".to_owned()]));
}

#[test]
fn minisign_takes_keys_made_here_and_signs_what_is_taken_here() {
    if !is_there("minisign", "-v") {
        eprintln!("passed over: minisign is missing");
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let (secret, public) = ferry_archive::keys::generate(None).expect("pair");
    fs::write(folder.path().join("k"), secret).expect("key");
    fs::write(folder.path().join("k.pub"), public).expect("key");
    fs::write(folder.path().join("f"), "text").expect("file");
    let (signed, text) = run(folder.path(), "minisign", &["-Sm", "f", "-s", "k"]).expect("minisign");
    assert!(signed, "{text}");
    let (good, text) = run(folder.path(), "minisign", &["-Vm", "f", "-p", "k.pub"]).expect("minisign");
    assert!(good, "{text}");
}
