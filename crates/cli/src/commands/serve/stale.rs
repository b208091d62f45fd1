//! What an earlier `--emit` left in a folder, and the present one does not write: a `ca.crt` of a server that speaks HTTP now, folders of
//! hosts that are not served any more. Nodes would be given it with the rest. Only files of our names are looked at, and texts only where
//! they begin as ours do.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::readme;

/// How texts of ours begin (`ferry_rewrite::emit`).
const HEAD: &str = "# Images at ";

/// The files below `folder` that were written before and are not `written` now.
pub(super) fn find(folder: &Path, written: &BTreeSet<PathBuf>) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = ours(folder).into_iter().filter(|path| !written.contains(path)).collect();
    found.sort();
    found
}

/// Removes them, and the folders that are empty then. What cannot be removed is returned.
pub(super) fn remove(folder: &Path, stale: &[PathBuf]) -> Vec<(PathBuf, std::io::Error)> {
    let mut failed = Vec::new();
    for path in stale {
        match fs::remove_file(path) {
            Ok(()) => {
                let above = path.ancestors().skip(1).take_while(|above| *above != folder);
                // one that is not empty stays, and all above it
                for above in above {
                    if fs::remove_dir(above).is_err() {
                        break;
                    }
                }
            }
            Err(error) => failed.push((path.clone(), error)),
        }
    }
    failed
}

fn ours(folder: &Path) -> Vec<PathBuf> {
    let fixed = ["daemon-json/daemon.json", "registries-yaml/ferry-ca.crt", readme::CA];
    let mut all: Vec<PathBuf> = fixed.iter().map(|name| folder.join(name)).collect();
    all.extend(
        ["registries-conf", "daemon-json"]
            .iter()
            .flat_map(|form| in_folders(&folder.join(form).join("certs.d"), "ca.crt")),
    );
    for hosts in in_folders(&folder.join("hosts-toml"), "hosts.toml") {
        if is_ours(&hosts) {
            all.extend([hosts.with_file_name("ca.crt"), hosts]);
        }
    }
    let texts = ["registries-yaml/registries.yaml", "registries-conf/registries.conf"].map(|name| folder.join(name));
    all.extend(texts.into_iter().filter(|path| is_ours(path)));
    all.retain(|path| path.is_file());
    all
}

/// `folder/*/name`.
fn in_folders(folder: &Path, name: &str) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path().join(name)).collect()
}

fn is_ours(path: &Path) -> bool {
    fs::read(path).is_ok_and(|bytes| bytes.starts_with(HEAD.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_we_wrote_goes() {
        let folder = tempfile::tempdir().expect("folder");
        let folder = folder.path();
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
            fs::write(&path, text).expect("write");
            path
        };
        let kept = [
            write("hosts-toml/docker.io/hosts.toml", "# Images at a:5000, by ferry."),
            write("hosts-toml/mine/hosts.toml", "server = \"mine\""),
            write("hosts-toml/mine/ca.crt", "mine"),
            write("notes.txt", "mine"),
            write("daemon-json/notes.txt", "mine"),
            write("registries-yaml/registries.yaml", "mirrors: mine"),
        ];
        let mut expected = vec![
            write("hosts-toml/docker.io/ca.crt", "x"),
            write("hosts-toml/quay.io/hosts.toml", "# Images at a:5000, by ferry."),
            write("hosts-toml/quay.io/ca.crt", "x"),
            write("registries-conf/certs.d/a:5000/ca.crt", "x"),
            write("daemon-json/certs.d/a:5000/ca.crt", "x"),
            write("daemon-json/daemon.json", "{}"),
            write("registries-yaml/ferry-ca.crt", "x"),
            write("ferry-ca.crt", "x"),
        ];
        expected.sort();
        let stale = find(folder, &BTreeSet::from([kept[0].clone()]));
        assert_eq!(stale, expected);
        assert!(remove(folder, &stale).is_empty() && kept.iter().all(|path| path.is_file()));
        for gone in ["hosts-toml/quay.io", "registries-conf", "daemon-json/certs.d"] {
            assert!(!folder.join(gone).exists(), "{gone}");
        }
        assert!(find(folder, &BTreeSet::from([kept[0].clone()])).is_empty());
    }
}
