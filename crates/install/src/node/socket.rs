//! Whether an engine listens where its command will look. `ctr` waits ten seconds for a socket that is not there, and does not say why.

use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::Error;
use crate::export::{DENIED, Fault};

/// Where `ctr` looks when nobody says.
pub(super) const CONTAINERD: &str = "/run/containerd/containerd.sock";
/// Where k3s and RKE2 have theirs.
const K3S: &str = "/run/k3s/containerd/containerd.sock";

/// The path of a socket's address: a path, or `unix://` and a path.
pub(super) fn path(address: &str) -> Option<&Path> {
    let path = address.strip_prefix("unix://").unwrap_or(address);
    path.starts_with('/').then(|| Path::new(path))
}

/// Asks for the socket itself.
pub(super) fn check(program: &'static str, path: &Path) -> Result<(), Error> {
    let why = match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => "it is a folder".to_owned(),
        Ok(found) if !found.file_type().is_socket() => "it is no socket".to_owned(),
        _ => match UnixStream::connect(path).map_err(|e| (e.kind(), e)) {
            Ok(_) => return Ok(()),
            Err((ErrorKind::NotFound, _)) => "it is not there".to_owned(),
            Err((ErrorKind::ConnectionRefused, _)) => "nobody listens to it".to_owned(),
            Err((ErrorKind::PermissionDenied, _)) => DENIED.to_owned(),
            Err((_, error)) => error.to_string(),
        },
    };
    let is_k3s = program == "ctr" && path != Path::new(K3S) && Path::new(K3S).exists();
    Err(Fault::NoEngine { program, path: path.to_owned(), why, other: is_k3s.then(|| K3S.into()) }.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use ferry_content::Failure as _;

    use super::*;

    #[test]
    fn what_is_wrong_with_a_socket_is_said_at_once() {
        let folder = tempfile::tempdir().expect("folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), "").expect("write");
        drop(UnixListener::bind(at("left")).expect("bind"));
        let _listens = UnixListener::bind(at("sock")).expect("bind");
        assert!(check("ctr", &at("sock")).is_ok());
        for (name, why) in [
            ("none", "it is not there"),
            ("", "it is a folder"),
            ("file", "it is no socket"),
            ("left", "nobody listens to it"),
        ] {
            let error = check("docker", &at(name)).expect_err(name);
            assert!(error.to_string().ends_with(why), "{error}");
            assert!(error.hint().is_some_and(|hint| hint.contains("--docker-host unix://")), "{error}");
        }
    }

    #[test]
    fn an_address_is_a_path_or_says_what_it_is() {
        for (address, expected) in [
            ("/run/x", Some("/run/x")),
            ("unix:///run/x", Some("/run/x")),
            ("tcp://h:1", None),
            ("ssh://h", None),
            ("h:1", None),
        ] {
            assert_eq!(path(address), expected.map(Path::new), "{address}");
        }
    }
}
